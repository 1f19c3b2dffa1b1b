"""Directories for images, in memory where there is room; what a killed run left is removed by the next.

So are loop devices over the images.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.crash.loop import free_loop_devices

PREFIX = "snaptx-crash-"
ROOM = 2 << 30
"""Bytes that must be free in memory for it to be used."""


def home() -> Path:
    """Return where scratch directories are made."""
    memory = Path("/dev/shm")
    if memory.is_dir() and os.access(memory, os.W_OK) and shutil.disk_usage(memory).free >= ROOM:
        return memory
    return Path(tempfile.gettempdir())


@contextmanager
def scratch() -> Iterator[Path]:
    """Give a new directory for the length of a with block."""
    remove_leftovers()
    path = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-", dir=home()))
    try:
        yield path
    finally:
        _remove(path)


def remove_leftovers() -> None:
    """Remove the directories of processes that are gone."""
    for path in leftovers():
        _remove(path)


def _remove(path: Path) -> None:
    free_loop_devices(path)
    shutil.rmtree(path, ignore_errors=True)


def leftovers() -> list[Path]:
    """Return the directories of processes that are gone; asked where all processes are seen."""
    return [path for path in home().glob(f"{PREFIX}*-*") if not is_at_work(_owner(path))]


def _owner(path: Path) -> str:
    return path.name.removeprefix(PREFIX).split("-")[0]


def is_at_work(pid: str) -> bool:
    """Return whether a process has not ended; one that is waited for has (proc_pid_cmdline(5))."""
    try:
        return bool(Path("/proc", pid, "cmdline").read_bytes())
    except OSError:
        return False
