"""Bring over what was written to a place after it was copied and before the copy was mounted there.

Nothing is lost by it: what is newer in the copy stays, and what both sides
changed is named.  The place itself, which the mount hides, is never changed.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from snaptx.errors import storage_error
from snaptx.overlay.transplant import transplant
from snaptx.trees import compare
from snaptx.trees.treeview import Seen, TreeView, joined

_REFUSALS = {errno.EPERM, errno.EACCES, errno.ENOTDIR, errno.ELOOP}
"""What nobody may change, as a file that is swapped to; a file or a link where a directory was."""


@dataclass(slots=True)
class Late:
    """What was brought over, and what both sides have changed; paths from the place."""

    brought: list[bytes] = field(default_factory=list)
    conflicts: list[bytes] = field(default_factory=list)


def bring(source_fd: int, copy_fd: int, since_ns: int, ready_ns: int) -> Late:
    """Bring into the copy what changed in the source at or after ``since_ns``.

    What changed in the copy after ``ready_ns`` is left as it is.  Both are in
    nanoseconds since the epoch.  What was removed from the source stays in the
    copy.

    Raises:
        StorageError: the filesystem refused.
    """
    late = Late()
    try:
        with (
            TreeView(source_fd) as source,
            TreeView(copy_fd) as copy,
            compare.sameness(source_fd, copy_fd) as same,
        ):
            for path, found in _changed(source, copy, since_ns):
                there = copy.look(path)
                if there is not None and (found.is_directory or (_is_like(found, there) and same(path))):
                    continue
                if there is not None and (there.is_directory or there.ctime_ns > ready_ns):
                    late.conflicts.append(path)
                    continue
                if _transplanted(source_fd, copy_fd, path):
                    late.brought.append(path)
                else:
                    late.conflicts.append(path)
    except OSError as error:
        raise storage_error(error, "cannot bring over what changed meanwhile") from error
    return late


def _transplanted(source_fd: int, copy_fd: int, path: bytes) -> bool:
    """Bring one path over; return whether the copy let it: what is in its way there stays."""
    try:
        transplant(source_fd, copy_fd, path)
    except OSError as error:
        if error.errno in _REFUSALS:
            return False
        raise
    return True


def _changed(source: TreeView, copy: TreeView, since_ns: int) -> Iterator[tuple[bytes, Seen]]:
    """Yield what changed, directories before what they hold; all of a directory that is new, or was moved."""
    waiting = [(b"", False)]
    while waiting:
        path, fresh = waiting.pop()
        found = source.look(path)
        if found is None:
            continue
        if path and (fresh or found.ctime_ns >= since_ns):
            fresh = fresh or (found.is_directory and copy.look(path) is None)
            yield path, found
        if found.is_directory:
            waiting.extend((joined(path, name), fresh) for name in source.names(path))


def _is_like(found: Seen, there: Seen) -> bool:
    return (found.mtime_ns, found.size) == (there.mtime_ns, there.size)


def users(place: Path, device: int) -> set[int]:
    """Return the processes that work at or below ``place`` of ``device``, or have something there open."""
    found = set()
    for process in Path("/proc").glob("[0-9]*"):
        if int(process.name) != os.getpid() and any(
            _is_at(link, str(place), device) for link in _links(process)
        ):
            found.add(int(process.name))
    return found


def _is_at(link: Path, wanted: str, device: int) -> bool:
    try:
        target = os.readlink(link)
        # What a mount has hidden goes by the same name as what hides it.
        return (target == wanted or target.startswith(wanted + "/")) and os.stat(link).st_dev == device
    except OSError:
        return False  # the process ended


def _links(process: Path) -> Iterator[Path]:
    yield from (process / "cwd", process / "root", process / "exe")
    for directory in ("fd", "map_files"):
        try:
            yield from (process / directory / name for name in os.listdir(process / directory))
        except OSError:
            continue  # the process ended
