"""Passing snapshots: what a verb looks at for a while, and nobody else touches meanwhile.

Such a snapshot has a name of its own beside the generation's trees.  Verbs
that change nothing look too, without snaptx's lock: so each is locked by itself,
and ``snaptx repair`` tells one that is looked at from one that was left.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from snaptx import lock
from snaptx.errors import BusyError, LockError, NotFoundError, SnaptxError
from snaptx.machine import Machine
from snaptx.model import Part, Tree

PATIENCE = 5.0
"""Seconds to wait for somebody else who looks: most have seen enough by then."""


@contextmanager
def staying(machine: Machine, *numbers: int) -> Iterator[None]:
    """Look at generations that others may remove for the length of a with block.

    Raises:
        NotFoundError: one was removed meanwhile, and what was seen is not all.
    """
    known = [number for number in numbers if machine.generations.has(number)]
    try:
        yield
    except (SnaptxError, OSError) as error:
        _require(machine, known, error)
        raise
    _require(machine, known)


def _require(machine: Machine, numbers: list[int], error: Exception | None = None) -> None:
    for number in numbers:
        if not machine.generations.has(number):
            message = f"generation {number} was removed meanwhile"
            raise NotFoundError(message, hint="'snaptx list' shows the generations") from error


@contextmanager
def passing(machine: Machine, number: int, source: Tree, *, writable: bool = False) -> Iterator[Tree]:
    """Give a snapshot of ``source``, beside generation ``number``, for the length of a with block.

    Raises:
        LockError: another snaptx has one there, and keeps it.
        NotFoundError: the generation was removed meanwhile.
    """
    with staying(machine, number), _passing(machine, number, source, writable=writable) as view:
        yield view


@contextmanager
def _passing(machine: Machine, number: int, source: Tree, *, writable: bool) -> Iterator[Tree]:
    view = Tree(number, Part.VIEWED)
    with lock.held(machine.generations.directory(number), PATIENCE):
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
