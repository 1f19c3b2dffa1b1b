"""Freezing a filesystem for a moment, which leaves nothing in its journal."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
from typing import NoReturn

# linux/fs.h
FIFREEZE = 0xC0045877
FITHAW = 0xC0045878


def for_a_moment(fd: int) -> None:
    """Force the filesystem behind ``fd`` to a state that needs no log replay, then let it go on.

    A frozen filesystem stops whoever writes to it, so both calls are those of a
    child in a session of its own, with every signal held back: a SIGKILL for
    this process or its group does not reach it.

    Raises:
        OSError: it could not be frozen.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        child = os.fork()
        if not child:
            _freeze_and_thaw(fd)
        _, status = os.waitpid(child, 0)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    number = os.waitstatus_to_exitcode(status)
    if number:
        number = errno.EINTR if number < 0 else number
        raise OSError(number, os.strerror(number))


def _freeze_and_thaw(fd: int) -> NoReturn:
    """Be the child; the exit code is the errno of what failed."""
    number = errno.EIO
    try:
        os.setsid()
        fcntl.ioctl(fd, FIFREEZE, 0)
        fcntl.ioctl(fd, FITHAW, 0)
        number = 0
    except OSError as error:
        number = error.errno or errno.EIO
    finally:
        os._exit(number)
