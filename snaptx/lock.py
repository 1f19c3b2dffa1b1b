"""At most one snaptx changes a machine at a time.

An advisory lock (flock) on ``@snaptx/lock`` ends with its process, however it
ends, so there is no stale lock to clear.  The file's text names the holder for
those who come second; it means nothing while nobody holds the lock.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from snaptx import durable, system
from snaptx.errors import LockError, storage_error
from snaptx.system import descriptor

PAUSE = 0.2
"""Seconds between two looks at a lock that is waited for."""


@contextmanager
def exclusive(path: Path, verb: str, patience: float = 0.0) -> Iterator[None]:
    """Hold the lock for the length of a with block; wait for it for ``patience`` seconds at most.

    Raises:
        LockError: somebody else holds it; the message names them.
        StorageError: there is no such file, and the filesystem takes none.
    """
    with _file(path) as fd:
        if not _taken_within(fd, patience):
            raise LockError(f"another snaptx is at work: {_holder(fd)}", hint="wait for it to end")
        _sign(fd, verb)
        yield


@contextmanager
def _file(path: Path) -> Iterator[int]:
    with ExitStack() as opened:
        try:
            fd = opened.enter_context(descriptor(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW))
        except OSError as error:
            raise storage_error(error, f"cannot open {path.name}") from error
        yield fd


def _taken_within(fd: int, patience: float) -> bool:
    end = time.monotonic() + patience
    while not _taken(fd):
        if time.monotonic() >= end:
            return False
        time.sleep(PAUSE)
    return True


def _taken(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextmanager
def held(directory: Path, patience: float = 0.0) -> Iterator[None]:
    """Hold the lock of a directory, which says nothing of its holder, for the length of a with block.

    It is waited for, for ``patience`` seconds at most.

    Raises:
        LockError: somebody else holds it.
    """
    with descriptor(directory, system.DIRECTORY) as fd:
        if not _taken_within(fd, patience):
            message = f"another snaptx is at work in {directory.parent.name}/{directory.name}"
            raise LockError(message, hint="wait for it to end")
        yield


def _sign(fd: int, verb: str) -> None:
    pid = os.getpid()
    holder = {"pid": pid, "verb": verb, "since": int(system.now()), "start": system.process_start(pid)}
    with suppress(OSError):  # a full disk does not keep anybody from working on it
        os.ftruncate(fd, 0)
        os.pwrite(fd, json.dumps(holder).encode(), 0)
        durable.send_off(fd)


def _holder(fd: int) -> str:
    """Say who holds the lock; an earlier holder's number may be another process's by now."""
    try:
        holder = json.loads(os.pread(fd, 4096, 0))
        if holder["start"] == system.process_start(int(holder["pid"])):
            since = time.strftime("%H:%M:%S", time.localtime(holder["since"]))
            return f"'snaptx {holder['verb']}', process {holder['pid']}, since {since}"
    except (ValueError, KeyError, TypeError, OverflowError):
        pass
    return "it has not said what it does"
