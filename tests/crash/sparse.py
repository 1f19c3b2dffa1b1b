"""Images with holes: copied as they are, and new holes made in them."""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Iterator
from pathlib import Path

from snaptx import system
from tests.crash import fuse

CHUNK = 1 << 20
"""Bytes copied at a time."""


def copy_sparse(source: int, target: int) -> None:
    """Make one open file the copy of another, with its holes."""
    size = os.fstat(source).st_size
    os.ftruncate(target, 0)
    os.ftruncate(target, size)
    for start, end in _data(source):
        while start < end:
            data = os.pread(source, min(CHUNK, end - start), start)
            start += os.pwrite(target, data, start)


def copy_image(source: Path, target: Path) -> None:
    """Make a file the copy of another, with its holes."""
    with (
        system.descriptor(source, os.O_RDONLY) as old,
        system.descriptor(target, os.O_RDWR | os.O_CREAT) as new,
    ):
        copy_sparse(old, new)


def _data(fd: int) -> Iterator[tuple[int, int]]:
    """Yield the ranges of a file that are not holes."""
    end = 0
    while True:
        try:
            start = os.lseek(fd, end, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return
            raise
        end = os.lseek(fd, start, os.SEEK_HOLE)
        yield start, end


def punch(fd: int, offset: int, length: int) -> None:
    """Make a hole of zeros in an open file (fallocate(2))."""
    mode = fuse.PUNCH_HOLE | 1  # FALLOC_FL_KEEP_SIZE
    call = ctypes.CDLL(None, use_errno=True).fallocate
    call.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
    if call(fd, mode, offset, length):
        raise OSError(ctypes.get_errno(), "fallocate")
