"""What stands against a live switch: why a restart is needed, and whether force overrides that.

A process that runs keeps the C library it began with and loads further
modules of it by name (name service, PAM, character sets); the service manager
and its helpers speak a protocol of their own.  A new version of these under
running processes works often, and not always.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from enum import StrEnum
from typing import NamedTuple

from snaptx import system

OLDEST_KERNEL = (6, 5)
"""The first that mounts beneath a mount."""

_LIBC = re.compile(r"libc\.so\.6|libc\.musl-.*\.so\.1|ld-(linux|musl).*\.so\.[0-9]+")
_SYSTEMD = re.compile(r"systemd|libsystemd-(core|shared)-.*\.so")
_CORE = (
    (
        "the C library",
        "what runs would load parts of the new one",
        _LIBC,
        ("usr/lib", "usr/lib64", "lib", "lib64"),
    ),
    ("systemd", "what runs is process 1", _SYSTEMD, ("usr/lib/systemd", "lib/systemd")),
)
_MODULES = ("usr/lib/modules", "lib/modules")


class Obstacle(NamedTuple):
    """A reason not to switch; ``forcible`` is whether somebody may want to all the same."""

    reason: str
    forcible: bool


class Shape(StrEnum):
    """What there is at a path at the top of a root."""

    DIRECTORY = "a directory"
    LINK = "a symbolic link"
    ABSENT = "absent"
    OTHER = "no directory"


def shape(root: int, path: str) -> tuple[Shape, str]:
    """Return what is at ``path`` below an open root, and where it leads if it is a link."""
    name = path.lstrip("/")
    try:
        mode = os.stat(name, dir_fd=root, follow_symlinks=False).st_mode
    except FileNotFoundError:
        return Shape.ABSENT, ""
    if stat.S_ISLNK(mode):
        return Shape.LINK, os.readlink(name, dir_fd=root)
    return (Shape.DIRECTORY if stat.S_ISDIR(mode) else Shape.OTHER), ""


def separate(
    paths: Sequence[str], running: Mapping[str, tuple[Shape, str]], fresh: Mapping[str, tuple[Shape, str]]
) -> tuple[tuple[str, ...], tuple[Obstacle, ...]]:
    """Return which of ``paths`` can be switched by themselves, and what stands against the others.

    The libraries come first: old programs work with new libraries rather
    than new programs with old ones.
    """
    chosen, obstacles = [], []
    for path in sorted(paths, key=lambda path: (not path.startswith("/lib"), paths.index(path))):
        here, there = running[path], fresh[path]
        if here[0] is there[0] is Shape.DIRECTORY:
            chosen.append(path)
        elif here != there:
            reason = f"{path} is {_said(here)} in the running root and {_said(there)} in the generation"
            missing = Shape.ABSENT in (here[0], there[0])
            obstacles.append(Obstacle(reason, forcible=missing))  # it stays as it is then
    return tuple(chosen), tuple(obstacles)


def _said(shape: tuple[Shape, str]) -> str:
    return f"{shape[0]} to {shape[1]}" if shape[1] else str(shape[0])


def kernel(release: str) -> Iterator[Obstacle]:
    """Yield what stands against a switch on a kernel of this ``release``, as uname(2) says it."""
    found = re.match(r"(\d+)\.(\d+)", release)
    if found is None or (int(found[1]), int(found[2])) < OLDEST_KERNEL:
        wanted = ".".join(map(str, OLDEST_KERNEL))
        yield Obstacle(f"the kernel {release} is older than {wanted}: it can't mount beneath a mount", False)


def content(running: int, fresh: int, release: str) -> Iterator[Obstacle]:
    """Yield what stands against a switch by what the two roots, open directories, hold."""
    if _holds_modules(running, release) and not _holds_modules(fresh, release):
        reason = f"it has no modules for the kernel that runs, {release}: none could be loaded any more"
        yield Obstacle(reason, forcible=True)
    for name, why, pattern, places in _CORE:
        old, new = (dict(_files(root, pattern, places)) for root in (running, fresh))
        if old and old != new:
            yield Obstacle(f"{name} is another one: {why}", forcible=True)


def _holds_modules(root: int, release: str) -> bool:
    return any(release in _names(root, place) for place in _MODULES)


def _names(root: int, path: str) -> list[str]:
    """Return what is in a directory as the root sees it, nothing if there is none."""
    with suppress(OSError):
        fd = system.openat2(root, os.fsencode(path), system.DIRECTORY, system.AS_ROOT)
        try:
            return os.listdir(fd)
        finally:
            os.close(fd)
    return []


def _files(root: int, pattern: re.Pattern[str], places: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield the files of a name in ``places`` and in directories of an architecture there, by content."""
    for place in places:
        for name in _names(root, place):
            if pattern.fullmatch(name):
                yield f"{place}/{name}", _digest(root, f"{place}/{name}")
            elif "-linux-" in name:
                yield from _files(root, pattern, [f"{place}/{name}"])


def _digest(root: int, path: str) -> str:
    try:
        fd = system.openat2(root, os.fsencode(path), os.O_RDONLY | os.O_NONBLOCK, system.AS_ROOT)
    except OSError:
        return ""  # a link that leads nowhere
    with open(fd, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() if stat.S_ISREG(os.fstat(fd).st_mode) else ""
