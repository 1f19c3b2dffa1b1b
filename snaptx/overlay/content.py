"""The bytes of a file: shared with the base, written sparse.

Files up to `SMALL` bytes are held in memory; larger ones pass in chunks.  What a
large file has in common with the base's from the start is not written but
shared with it (FICLONERANGE), or copied by the kernel where blocks can't be
shared.
"""

from __future__ import annotations

import fcntl
import os
import struct
import time
from collections.abc import Callable

from snaptx.errors import SourceError

SMALL = 1 << 20
CHUNK = 1 << 20  # a multiple of every filesystem's block size, as FICLONERANGE demands
FICLONERANGE = 0x4020940D  # linux/fs.h

Progress = Callable[[int], None]
_INTERVAL = 0.1


class Meter:
    """Counts members and tells ``progress`` at most every 100 ms."""

    def __init__(self, progress: Progress | None) -> None:
        self._progress = progress
        self._next = 0.0
        self.files = 0

    def tick(self, files: int = 1) -> None:
        """Count some more."""
        self.files += files
        if self._progress and time.monotonic() >= self._next:
            self._progress(self.files)
            self._next = time.monotonic() + _INTERVAL

    def finish(self) -> None:
        """Tell the final count."""
        if self._progress:
            self._progress(self.files)


def share(source: int, target: int, length: int) -> None:
    """Give ``target`` the first ``length`` bytes of ``source``, sharing the blocks where that is possible."""
    if not length:
        return
    try:
        fcntl.ioctl(target, FICLONERANGE, struct.pack("=qQQQ", source, 0, length, 0))
    except OSError:
        _copy(source, target, length)


def _copy(source: int, target: int, length: int) -> None:
    done = 0
    while done < length:
        data = os.pread(source, min(CHUNK, length - done), done)
        if not data:
            raise SourceError("a file of the base shrank while it was read", hint="apply the payload again")
        Sink(target, None, done).write(data)
        done += len(data)


class Sink:
    """Writes a file from ``offset`` on, but only where ``extents`` say that there is data."""

    __slots__ = ("_extents", "_fd", "_next", "_offset", "written")

    def __init__(self, fd: int, extents: tuple[tuple[int, int], ...] | None, offset: int = 0) -> None:
        self._fd = fd
        self._extents = extents
        self._next = 0
        self._offset = offset
        self.written = 0

    def write(self, data: bytes | memoryview) -> None:
        """Write the next bytes of the file."""
        start, end = self._offset, self._offset + len(data)
        self._offset = end
        if self._extents is None:
            self._put(data, start)
            return
        view = memoryview(data)
        while self._next < len(self._extents):
            first, length = self._extents[self._next]
            low, high = max(first, start), min(first + length, end)
            if low < high:
                self._put(view[low - start : high - start], low)
            if first + length > end:
                return
            self._next += 1

    def _put(self, data: bytes | memoryview, offset: int) -> None:
        self.written += len(data)
        while data:
            count = os.pwrite(self._fd, data, offset)
            if count == len(data):
                return
            data = memoryview(data)[count:]
            offset += count

    def finish(self) -> None:
        """Give the file its length when it may end in a hole."""
        if self._extents is not None:
            os.ftruncate(self._fd, self._offset)
