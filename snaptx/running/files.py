"""Whether what a process uses still is what its path leads to: pure rules.

A file replaced by an update has another inode.  In another generation the
same file has another device as well; it is unchanged there if everything
that a change would touch is the same, its change time above all.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from enum import StrEnum
from typing import NamedTuple

from snaptx.running.proc import DELETED


class How(StrEnum):
    """In what way a process uses a file."""

    EXECUTABLE = "executable"
    LIBRARY = "library"
    MAPPED = "mapped"
    OPEN = "open"
    DIRECTORY = "directory"


class State(StrEnum):
    """What has become of the path of a file in use."""

    CURRENT = "current"
    REPLACED = "replaced"
    DELETED = "deleted"


class Facts(NamedTuple):
    """What tells one file from another; ``device`` is stat(2)'s."""

    device: int
    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int
    links: int

    @classmethod
    def of(cls, found: os.stat_result) -> Facts:
        """Return the facts of a stat(2)."""
        return cls(
            found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_nlink
        )


class Use(NamedTuple):
    """One file that a process uses; ``generation`` is whose it is, 0 if nobody's."""

    how: How
    path: bytes
    state: State
    generation: int


Look = Callable[[bytes], Facts | None]
"""Return what a path leads to in the process's view, None if nowhere."""


def counts(found: os.stat_result) -> bool:
    """Return whether it is a thing that belongs to a tree: devices, sockets and pipes do not."""
    return stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode)


def is_inside(path: bytes, trees: Iterable[bytes]) -> bool:
    """Return whether ``path`` is one of ``trees`` or lies in one."""
    return any(path == tree or path.startswith(tree + b"/") for tree in trees)


def judge(used: Facts, path: bytes, trees: Sequence[bytes], known: Collection[int], look: Look) -> State:
    """Return what has become of a file in use.

    ``path`` is what the kernel calls it, ``trees`` where generations have
    their files, ``known`` the devices of generations.  What lies elsewhere is
    no generation's, and current.
    """
    detached = used.device in known
    if not detached and not is_inside(path, trees):
        return State.CURRENT
    found: Facts | None = None
    for candidate in names(path, trees, detached=detached):
        current = look(candidate)
        if current and _is_same(used, current, known):
            return State.CURRENT
        found = found or current
    return State.REPLACED if found else State.DELETED


def names(path: bytes, trees: Iterable[bytes], *, detached: bool) -> Iterator[bytes]:
    """Yield what ``path`` may stand for.

    It may end with what the kernel adds to deleted files.  In a tree that
    is mounted nowhere, which ``detached`` says is possible, it begins at the
    root of that tree.
    """
    plain = path.removesuffix(DELETED)
    yield from dict.fromkeys((path, plain))
    if detached:
        yield from (tree + plain for tree in trees)


def _is_same(used: Facts, current: Facts, known: Collection[int]) -> bool:
    if used.device == current.device:
        return used.inode == current.inode
    if used.device not in known:
        # Overlays show another device than their files have: only what is gone for sure counts.
        return used.links > 0
    alike = used.size == current.size and used.mtime_ns == current.mtime_ns
    return alike and used.inode == current.inode and used.ctime_ns == current.ctime_ns
