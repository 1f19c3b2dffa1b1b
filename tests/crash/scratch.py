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
    return [path for path in home().glob(f"{PREFIX}*-*") if not Path("/proc", _owner(path)).exists()]


def _owner(path: Path) -> str:
    return path.name.removeprefix(PREFIX).split("-")[0]
