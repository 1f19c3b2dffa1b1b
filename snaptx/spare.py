"""Metadata kept back, for what frees space on a filesystem that has none of it left.

Btrfs lets files and subvolumes go however full it is, but asks for up to 8.25
MiB of room before a rename: for eleven items, six nodes of 16 KiB on each of
eight levels.  The journal and the entry file take a rename each, so without
that no generation can be removed in order.

What is kept back are extended attributes of one file, each as large as a node
takes.  It is made once, where there is plenty, and has its name when it is whole.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from snaptx.system import DIRECTORY, descriptor, syncfs

EACH = 16_000
"""Bytes: an item of a node of 16 KiB, which is what mkfs.btrfs makes, and no room for another."""

COUNT = 768
"""So many of them are 12 MiB: a rename's worth, and half as much again for who writes meanwhile."""

PLENTY = 64 * COUNT * EACH
"""Bytes that have to be free for it: a small disk has a better use for the room."""


def keep(path: Path) -> None:
    """Make it at ``path`` unless it is there or space is short; that it can't be made is no error."""
    with suppress(OSError):
        if os.path.lexists(path) or not _is_plenty(path.parent):
            return
        fresh = path.with_suffix(".tmp")
        try:
            _fill(fresh)
            fresh.replace(path)  # asks for as much room as it is to give: there is that besides
        except BaseException:
            fresh.unlink(missing_ok=True)
            raise


def _is_plenty(place: Path) -> bool:
    room = os.statvfs(place)
    return room.f_bavail * room.f_frsize >= PLENTY


def _fill(path: Path) -> None:
    with descriptor(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW) as fd:
        for number in range(COUNT):
            os.setxattr(fd, f"user.{number}", bytes(EACH))


def release(path: Path) -> bool:
    """Give what ``path`` keeps back to the filesystem; return whether there was any.

    Raises:
        OSError: the filesystem has failed.
    """
    try:
        path.unlink()
    except FileNotFoundError:
        return False
    with descriptor(path.parent, DIRECTORY) as fd:
        syncfs(fd)  # until then it is not free
    return True
