"""Passing snapshots: what a verb looks at for a while, and nobody else touches meanwhile.

Such a snapshot has a name of its own beside the generation's trees.  Verbs
that change nothing look too, without snaptx's lock: so each is locked by itself,
and ``snaptx repair`` tells one that is looked at from one that was left.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from snaptx import lock
from snaptx.errors import BusyError, LockError
from snaptx.machine import Machine
from snaptx.model import Part, Tree


@contextmanager
def passing(machine: Machine, number: int, source: Tree, *, writable: bool = False) -> Iterator[Tree]:
    """Give a snapshot of ``source``, beside generation ``number``, for the length of a with block.

    Raises:
        LockError: another snaptx has one there.
    """
    view = Tree(number, Part.VIEWED)
    with lock.held(machine.generations.directory(number)):
        machine.storage.delete(view)
        machine.storage.snapshot(source, view, writable=writable)
        try:
            yield view
        finally:
            machine.storage.delete(view)


def removes_left(machine: Machine, number: int) -> bool:
    """Remove a passing snapshot that nobody looks at any more; return whether there was one."""
    view = Tree(number, Part.VIEWED)
    if machine.storage.describe(view) is None:
        return False
    try:
        with lock.held(machine.generations.directory(number)):
            machine.storage.delete(view)
    except (LockError, BusyError):  # one that is mounted is in use, whoever made it
        return False
    return True
