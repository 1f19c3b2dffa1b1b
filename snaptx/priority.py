"""Who goes first on the processor: sched(7)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress


def idling() -> AbstractContextManager[None]:
    """Let every other process go first for the length of a with block, on the processor and on the disk.

    The kernel takes the class of I/O from that of the processor where none was set (linux/ioprio.h).
    """
    return _scheduled(os.SCHED_IDLE, 0)


def going_first() -> AbstractContextManager[None]:
    """Let no other process go first for the length of a with block, if the kernel allows that."""
    return _scheduled(os.SCHED_FIFO, 1)


@contextmanager
def _scheduled(policy: int, priority: int) -> Iterator[None]:
    before, parameters = os.sched_getscheduler(0), os.sched_getparam(0)
    with suppress(PermissionError):
        os.sched_setscheduler(0, policy, os.sched_param(priority))
    try:
        yield
    finally:
        with suppress(PermissionError):  # root without CAP_SYS_NICE stays idle
            os.sched_setscheduler(0, before, parameters)
