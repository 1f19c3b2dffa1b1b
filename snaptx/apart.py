"""Work that a second process does beside this one, handed over frame by frame.

::

    with apart.working(produce) as frames:       produce(send) runs in a child
        for frame in frames: ...                 what it sent, in order

    pipe:  kind (1 byte)  length (4 bytes, native)  frame

The child changes nothing but the pipe, so nothing is left over however it ends.
It is ended with the block, with this process (PR_SET_PDEATHSIG), and by a pipe
that nobody reads.  The signals that end snaptx are this process's business
alone: a terminal sends them to both, and two answers would race.  What the
child raises is raised here.
"""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import struct
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from enum import IntEnum
from itertools import islice
from typing import BinaryIO, NoReturn

from snaptx import system
from snaptx.errors import SnaptxError

Send = Callable[[Sequence[bytes]], None]
"""Takes one frame in some pieces, which are not copied together; waits while the other side is behind."""

_PIPE = 1 << 20
"""Bytes that may wait: what the child is ahead, where the kernel allows that much."""

_HEAD = struct.Struct("=BI")
_IOV_MAX = 1024  # limits.h


class _Mark(IntEnum):
    FRAME = 0
    END = 1
    ERROR = 2


@contextmanager
def standby(act: Callable[[bytes], None]) -> Iterator[Callable[[bytes], None]]:
    """Keep a process that is as this one is now, whatever this one gives up in the block.

    Yields what has it do ``act`` with some bytes, and returns when that is
    over.  Unasked it does nothing, and ends with the block, with this process,
    or when this process becomes another program: it is no child of that one.
    """
    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            _fork_away(lambda: _stand_by(ours, theirs, act))
        yield lambda data: _call(ours, data)


def _fork_away(work: Callable[[], None]) -> None:
    """Do ``work`` in a process that the machine's init takes for its child."""
    with system.undisturbed():
        between = os.fork()
        if not between:
            try:
                if not os.fork():
                    _ignore_signals()
                    work()
            finally:
                os._exit(0)
        os.waitpid(between, 0)


def _stand_by(ours: socket.socket, theirs: socket.socket, act: Callable[[bytes], None]) -> None:
    ours.close()
    with theirs.makefile("rb") as asked:
        data = asked.read()
    if data:
        act(data)


def _call(ours: socket.socket, data: bytes) -> None:
    with suppress(OSError):  # it was killed
        ours.sendall(data)
        ours.shutdown(socket.SHUT_WR)
        ours.recv(1)


def _ignore_signals() -> None:
    for number in system.HELD:
        signal.signal(number, signal.SIG_IGN)


@contextmanager
def working(produce: Callable[[Send], None]) -> Iterator[Iterator[bytes]]:
    """Let a forked process run ``produce`` for the length of a with block; yield what it sends.

    Raises (while iterating):
        SnaptxError: the process was ended from outside; and whatever ``produce`` raised.
    """
    reading, writing = os.pipe2(os.O_CLOEXEC)
    with suppress(OSError):
        fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, _PIPE)
    with os.fdopen(reading, "rb") as pipe:
        try:
            child = _fork(reading, writing, produce)
        finally:
            os.close(writing)
        try:
            yield _frames(pipe)
        finally:
            _end(child)


def _fork(reading: int, writing: int, produce: Callable[[Send], None]) -> int:
    """Return the child's id; signals wait until each side knows what to do with them."""
    parent = os.getpid()
    with system.undisturbed():
        child = os.fork()
        if not child:
            _be_child(parent, reading, writing, produce)
        return child


def _be_child(parent: int, reading: int, writing: int, produce: Callable[[Send], None]) -> NoReturn:
    try:
        system.die_with_parent()
        if os.getppid() == parent:
            os.close(reading)  # or a parent that goes away would not break the pipe
            _ignore_signals()
            _report(writing, produce)
    finally:
        os._exit(0)


def _report(writing: int, produce: Callable[[Send], None]) -> None:
    try:
        produce(lambda frame: _put(writing, _Mark.FRAME, frame))
        _put(writing, _Mark.END, ())
    except BaseException as error:  # noqa: BLE001
        with suppress(BrokenPipeError):
            _put(writing, _Mark.ERROR, (_packed(error),))


def _put(writing: int, mark: _Mark, frame: Sequence[bytes]) -> None:
    left = deque[bytes | memoryview]((_HEAD.pack(mark, sum(map(len, frame))), *frame))
    while left:
        count = os.writev(writing, list(islice(left, _IOV_MAX)))
        while left and count >= len(left[0]):
            count -= len(left.popleft())
        if count:
            left[0] = memoryview(left[0])[count:]


def _packed(error: BaseException) -> bytes:
    """Return an exception as bytes; a programmer's mistake keeps its traceback as a note."""
    import pickle
    import traceback

    if not isinstance(error, SnaptxError | OSError | MemoryError):
        error.add_note(traceback.format_exc())
    try:
        return pickle.dumps(error)
    except Exception:  # noqa: BLE001
        return pickle.dumps(RuntimeError(traceback.format_exc()))


def _frames(pipe: BinaryIO) -> Iterator[bytes]:
    while True:
        head = pipe.read(_HEAD.size)
        mark, length = _HEAD.unpack(head) if len(head) == _HEAD.size else (None, 0)
        frame = pipe.read(length)
        if mark is None or len(frame) != length:
            hint = "try again; 'dmesg' tells if memory ran out"
            raise SnaptxError("the process that did a part of the work was ended", hint=hint)
        if mark == _Mark.END:
            return
        if mark == _Mark.ERROR:
            import pickle

            raise pickle.loads(frame)
        yield frame


def _end(child: int) -> None:
    """End the child, whatever it does, and wait for that: what it holds open is free afterwards."""
    with system.undisturbed():
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
