"""What a package manager leaves on the disk for others to see: its locks, and that it has worked."""

from __future__ import annotations

import fcntl
import os
import struct
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from snaptx import system
from snaptx.errors import PackageError
from snaptx.packages.base import Lock, LockKind, Manager

_FLOCK = struct.Struct("=hh4xqqi4x")
"""struct flock of fcntl(2): type, whence, start, length, process."""


def touched(old: Path, new: Path, manager: Manager) -> bool:
    """Return whether the manager has written its database between two snapshots of one tree."""
    return list(_signature(old, manager)) != list(_signature(new, manager))


def _signature(root: Path, manager: Manager) -> Iterator[tuple[int, ...]]:
    for name in manager.database:
        found = system.stat_in_root(root, name)
        yield (found.st_ino, found.st_size, found.st_mtime_ns) if found else ()


def require_unlocked(root: Path, manager: Manager) -> None:
    """Refuse to go on while the manager is at work in the system that is mounted at ``root``.

    Raises:
        PackageError: it is.
    """
    for lock in manager.locks:
        holder = _holder(root, lock)
        if holder is not None:
            who = f"process {holder}" if holder else f"/{lock.path} says so"
            message = f"{manager.name} is at work in the running system: {who}"
            raise PackageError(message, hint="wait for it to end, then try again")


def _holder(root: Path, lock: Lock) -> int | None:
    """Return the process that holds a lock, 0 if that can't be told, None if nobody does."""
    if lock.kind is LockKind.PRESENCE:
        return 0 if system.stat_in_root(root, lock.path) else None
    if lock.kind is LockKind.PROCESS:
        text = system.read_in_root(root, lock.path).strip()
        number = int(text) if text.isdigit() else 0
        return number if number and Path(f"/proc/{number}").exists() else None
    with suppress(OSError), system.in_root(root, lock.path, os.O_RDWR) as fd:
        question = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
        kind, _, _, _, process = _FLOCK.unpack(fcntl.fcntl(fd, fcntl.F_GETLK, question))
        return None if kind == fcntl.F_UNLCK else process
    return None
