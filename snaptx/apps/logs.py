"""What instances write, in memory: the newest part of each log, and the logs of the newest alone.

The instance's own output goes straight to its file, opened to append, so that
no process of snaptx has to live for it.  The file is cut behind its back, by
every start and by ``snaptx prune``, which a timer runs.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from snaptx import generations
from snaptx.system import descriptor

RUN = "run/snaptx/apps"
"""Where instances are mounted, remembered and heard, below the system root; ends with the boot."""

LIMIT = 1 << 20
"""Bytes that are kept of a log."""

KEPT = 5
"""How many logs are kept besides those of what runs."""


def bound_all(sysroot: Path) -> None:
    """Do what ``bound`` does for every application, whether it runs or not."""
    for place in (sysroot / RUN).glob("*"):
        bound(place)


def bound(place: Path) -> None:
    """Cut the logs of an application, whose directory in /run is ``place``, and remove the oldest.

    What an instance writes in the moment in which its log is cut may be lost.
    """
    found = [path for path in place.glob("*.log") if generations.is_number(path.stem) and path.is_file()]
    idle = [path for path in found if not path.with_suffix("").exists()]
    for path in sorted(idle, key=lambda path: int(path.stem))[:-KEPT]:
        path.unlink(missing_ok=True)
    for path in found:
        with suppress(FileNotFoundError):
            _cut(path)


def _cut(path: Path) -> None:
    with descriptor(path, os.O_RDWR | os.O_APPEND | os.O_NOFOLLOW) as fd:
        size = os.fstat(fd).st_size
        if size > LIMIT:
            kept = os.pread(fd, LIMIT, size - LIMIT)
            os.ftruncate(fd, 0)
            os.write(fd, kept.partition(b"\n")[2] or kept)


def forget(place: Path) -> None:
    """Remove what is left of an application's directory in /run; what is mounted there stays."""
    for path in place.glob("*"):
        with suppress(OSError):
            path.rmdir() if path.is_dir() else path.unlink()
    with suppress(OSError):
        place.rmdir()
