"""What ``chattr`` sets and ``cp`` does not copy.

Without copy-on-write has to be set while a file is empty, and Btrfs shares
blocks only between files that agree on it.  So that comes before the copying,
and what forbids changes comes after it.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import suppress

from snaptx import system
from snaptx.chattr import KEPT, NOCOW, change, of
from snaptx.trees.treeview import TreeView, joined


def prepare(source_fd: int, target_fd: int) -> None:
    """Make, empty, what the copy would otherwise make with the wrong copy-on-write.

    Raises:
        OSError: the filesystem refused.
    """
    top = _mark(target_fd, of(source_fd))
    inherits = {b"": top}
    for path, flags, is_directory in _walk(source_fd):
        directory, _, name = path.rpartition(b"/")
        inherited = inherits.get(directory, 0)
        if is_directory:
            inherits[path] = flags & NOCOW
        if flags & NOCOW == inherited:
            continue
        parent = _made(target_fd, directory)
        try:
            _make(parent, name, flags, is_directory=is_directory)
        finally:
            os.close(parent)


def _mark(fd: int, flags: int) -> int:
    change(fd, flags, NOCOW & flags)
    return flags & NOCOW


def _made(target_fd: int, path: bytes) -> int:
    """Return a descriptor of a directory, made with its parents where it is missing."""
    fd = os.dup(target_fd)
    for name in filter(None, path.split(b"/")):
        with suppress(FileExistsError):
            os.mkdir(name, 0o700, dir_fd=fd)
        below = os.open(name, system.DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=fd)
        os.close(fd)
        fd = below
    return fd


def _make(parent: int, name: bytes, flags: int, *, is_directory: bool) -> None:
    how = os.O_RDONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
    if is_directory:
        os.mkdir(name, 0o700, dir_fd=parent)
        how = system.DIRECTORY | os.O_NOFOLLOW
    with system.descriptor(name, how, 0o600, dir_fd=parent) as fd:
        change(fd, flags, NOCOW)


def finish(source_fd: int, target_fd: int) -> None:
    """Set the other flags, when all else is done.

    Raises:
        OSError: the filesystem refused.
    """
    with TreeView(target_fd) as target:
        for path, flags, is_directory in _walk(source_fd):
            if flags & KEPT:
                fd = os.dup(target.directory(path)) if is_directory else target.open(path)
                try:
                    change(fd, flags, KEPT)
                finally:
                    os.close(fd)
    change(target_fd, of(source_fd), KEPT)


def _walk(root_fd: int) -> Iterator[tuple[bytes, int, bool]]:
    """Yield the flags of what can have some, directories first; one that forbids changes is no obstacle."""
    with TreeView(root_fd) as view:
        waiting = [b""]
        while waiting:
            directory = waiting.pop()
            for name in view.names(directory):
                path = joined(directory, name)
                found = view.look(path)
                if found is None or not (found.is_directory or stat.S_ISREG(found.mode)):
                    continue
                fd = os.dup(view.directory(path)) if found.is_directory else view.open(path)
                try:
                    yield path, of(fd), found.is_directory
                finally:
                    os.close(fd)
                if found.is_directory:
                    waiting.append(path)
