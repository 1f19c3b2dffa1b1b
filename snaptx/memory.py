"""Memory spent to save time: a command ends soon, and gives all of it back at once."""

from __future__ import annotations

import gc

from snaptx import system

# malloc.h
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3

_KEPT = 32 << 20
"""Bytes: the largest a buffer may be to come from the heap, and how much of that may lie idle at its end."""

_SELDOM = 50_000
"""Objects that are made until it pays to look for cycles among them; Python's own number is 700."""


def spend() -> None:
    """Keep buffers that were freed for the next ones, and look for garbage seldom.

    The C library would return a buffer's pages to the kernel and get others,
    each of them to be cleared and mapped; and there are hardly any cycles here.
    """
    gc.set_threshold(_SELDOM)
    mallopt = getattr(system.libc(), "mallopt", None)  # glibc's alone
    if mallopt:
        mallopt(_M_MMAP_THRESHOLD, _KEPT)
        mallopt(_M_TRIM_THRESHOLD, _KEPT)


def leave() -> None:
    """Let what is left go with the process: to look through it for garbage takes Python 10 ms at its end."""
    gc.freeze()
