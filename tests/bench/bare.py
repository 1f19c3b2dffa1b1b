"""The calls of a list from a bare loop in Python: what no writer in Python can be faster than.

    python -m tests.bench.bare LIST ROOT ITS_DESCRIPTOR BASE ITS_DESCRIPTOR

takes what ``replay.c`` takes and prints what it prints.  Every call is taken
apart before the clock starts; nothing is decided and nothing kept on record.
"""

from __future__ import annotations

import fcntl
import os
import struct
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from snaptx import memory
from snaptx.overlay.content import FICLONERANGE
from snaptx.system import openat2
from tests.bench.floor import DIRECTORY, Call, unpacked

MADE: dict[str, Callable[..., Any]] = {
    "O": lambda one, other, flags, mode, name, data: os.open(name, flags, mode, dir_fd=one),
    "2": lambda one, other, flags, resolve, name, data: openat2(one, name, flags, resolve),
    "s": lambda one, other, first, second, name, data: os.stat(name, dir_fd=one, follow_symlinks=False),
    "f": lambda one, other, first, second, name, data: os.fstat(one),
    "u": lambda one, other, flags, second, name, data: (os.rmdir if flags else os.unlink)(name, dir_fd=one),
    "w": lambda one, other, offset, second, name, data: os.pwrite(one, data, offset),
    "t": lambda one, other, ns, second, name, data: os.utime(one, ns=(ns, ns)),
    "T": lambda one, other, ns, second, name, data: os.utime(
        name, ns=(ns, ns), dir_fd=one, follow_symlinks=False
    ),
    "c": lambda one, other, first, second, name, data: os.close(one),
    "o": lambda one, other, uid, gid, name, data: os.fchown(one, uid, gid),
    "m": lambda one, other, mode, second, name, data: os.fchmod(one, mode),
    "x": lambda one, other, first, second, name, data: os.setxattr(one, name, data),
    "r": lambda one, other, first, second, name, data: os.removexattr(one, name),
    "l": lambda one, other, first, second, name, data: os.listxattr(one),
    "g": lambda one, other, first, second, name, data: os.getxattr(one, name),
    "d": lambda one, other, mode, second, name, data: os.mkdir(name, mode, dir_fd=one),
    "y": lambda one, other, first, second, name, data: os.symlink(data, name, dir_fd=one),
    "k": lambda one, other, first, second, name, data: os.link(
        data, name, src_dir_fd=other, dst_dir_fd=one, follow_symlinks=False
    ),
    "n": lambda one, other, mode, device, name, data: os.mknod(name, mode, device, dir_fd=one),
    "z": lambda one, other, length, second, name, data: os.ftruncate(one, length),
    "i": lambda one, other, length, second, name, data: fcntl.ioctl(
        one, FICLONERANGE, struct.pack("=qQQQ", other, 0, length, 0)
    ),
    "R": lambda one, other, first, second, name, data: os.readlink(name, dir_fd=one),
}


def replay(calls: Iterable[tuple[Call, bool]], known: dict[int, int]) -> tuple[float, float]:
    """Make the calls; return the seconds of the clock and of the processor."""
    apart = [(MADE[call.letter], call.letter in "O2", opens, *call[1:]) for call, opens in calls]
    at = defaultdict(lambda: -1, known)  # what was never opened here is no descriptor
    begun, before = time.monotonic(), time.process_time()
    for make, opening, opens, one, other, first, second, name, data in apart:
        try:
            if opening:
                fd = make(at[one], other, first, second, name, data)
                if opens:
                    at[other] = fd
            else:
                make(at[one], at[other], first, second, name, data)
        except OSError:
            if opens:
                raise
    return time.monotonic() - begun, time.process_time() - before


if __name__ == "__main__":
    listed, root, root_fd, base, base_fd = sys.argv[1:]
    memory.spend()
    directories = {int(root_fd): os.open(root, DIRECTORY), int(base_fd): os.open(base, DIRECTORY)}
    print(*replay(unpacked(Path(listed).read_bytes()), directories))
