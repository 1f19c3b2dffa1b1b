"""Which paths differ between two snapshots, as ``zfs diff`` finds it.

It names an inode by one of its names, so the others of hard links are looked
for.  It wants the dataset mounted, and finds it by the table of mounts: it
runs where such a mount is to be seen, in a mount namespace of its own.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path

from snaptx import mounting, system
from snaptx.storage.zfs import pool

_PLACE = "/sys"
"""Covered for a moment, where only zfs looks on."""
_ESCAPED = re.compile(rb"\\([0-7]{4})")


def touched(old: str, new: str) -> set[bytes]:
    """Return every path, relative to the dataset, that may differ; ``new`` grew from ``old``."""

    def compare() -> set[bytes]:
        top = _mounted(new.partition("@")[0])
        return set(parse(pool.difference(old, new), top))

    return mounting.in_own_namespace(compare)


def _mounted(dataset: str) -> bytes:
    """Return where zfs finds a dataset: the first mount of it."""
    found = [mount.target for mount in _mounts() if mount.fstype == "zfs" and mount.source == dataset]
    if not found:
        mounting.mount_as_elsewhere(dataset, _PLACE, "zfs")
    return os.fsencode(found[0] if found else _PLACE)


def _mounts() -> Iterator[system.Mount]:
    return system.parse_mounts(os.fsdecode(Path("/proc/thread-self/mountinfo").read_bytes()))


def parse(text: bytes, top: bytes) -> Iterator[bytes]:
    """Yield the paths that ``zfs diff -H`` names, without ``top``; b"" is the root."""
    prefix = top.rstrip(b"/")
    for line in text.splitlines():
        mark, *names = line.split(b"\t")
        for name in names if mark == b"R" else names[:1]:
            path = _ESCAPED.sub(lambda found: bytes([int(found[1], 8)]), name)
            yield path.removeprefix(prefix).strip(b"/")


def all_names(fd: int, paths: set[bytes]) -> set[bytes]:
    """Return every name in a tree of the files with several names that ``paths`` names."""
    wanted = set()
    for path in paths:
        try:
            found = os.stat(path or b".", dir_fd=fd, follow_symlinks=False)
        except OSError:
            continue
        if found.st_nlink > 1 and not stat.S_ISDIR(found.st_mode):
            wanted.add((found.st_dev, found.st_ino))
    return set(_names_of(fd, wanted)) if wanted else set()


def _names_of(fd: int, inodes: set[tuple[int, int]]) -> Iterator[bytes]:
    for directory, _, names, directory_fd in os.fwalk(b".", dir_fd=fd):
        for name in names:
            found = os.stat(name, dir_fd=directory_fd, follow_symlinks=False)
            if (found.st_dev, found.st_ino) in inodes:
                yield os.path.normpath(os.path.join(directory, name))
