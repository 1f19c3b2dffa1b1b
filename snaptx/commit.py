"""Commit: carry over, seal, switch.  Before the switch nothing has changed; after it everything has."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from snaptx import carry, lived, nested, transaction
from snaptx.carry import Carried
from snaptx.config import Conflicts
from snaptx.errors import BusyError, NotFoundError
from snaptx.machine import Machine
from snaptx.model import BootState, Part, Phase, Tree
from snaptx.nested import Late
from snaptx.recover import Act
from snaptx.transaction import Request, Transaction


@dataclass(frozen=True, slots=True)
class Committed:
    """The result of a commit; ``switch_seconds`` is how long the rename itself took."""

    number: int
    previous: int
    carried: tuple[bytes, ...]
    conflicts: tuple[bytes, ...]
    switch_seconds: float


def choose(machine: Machine, wanted: int | None) -> int:
    """Return the staged generation to commit: ``wanted``, else the newest.

    Raises:
        NotFoundError: nothing is staged, or there is no such generation.
        BusyError: it is committed already.
    """
    staged = machine.staged()
    if wanted is None and not staged:
        raise NotFoundError("nothing is staged", hint="'snaptx apply' or 'snaptx run' stage something")
    number = staged[-1] if wanted is None else machine.generations.read(wanted).number
    if machine.phase(number) is not Phase.STAGED:
        raise BusyError(
            f"generation {number} is committed already", hint=f"to go to it: snaptx rollback {number}"
        )
    return number


def commit(
    machine: Machine,
    request: Request,
    wanted: int | None,
    policy: Conflicts | None = None,
    ready: Callable[[int], None] | None = None,
) -> Committed:
    """Make a staged generation the one that boots next.

    ``ready`` is called with its number before the switch, which its exceptions prevent.

    Raises:
        ConflictError: the running root changed what the update changed; still staged.
        BootError: it has no kernel; still staged.
        LayoutError: a subvolume inside the running root holds what it knows nothing of; still staged.
        OutcomeUnknownError: the disk failed after the switch.
    """
    number = choose(machine, wanted)
    previous = machine.boot_state().default
    # On its own filesystem all that is written before the first commit gets safe with it, the journal too.
    with transaction.begin(
        machine, Act.COMMIT, request, generation=number, base=previous, lasting=machine.boot.apart
    ) as txn:
        lived.index(machine, number)
        state, brought = _prepare(machine, txn, number, policy or machine.config.staging.conflicts)
        if ready:
            txn.step("ready")
            ready(number)
        pause = txn.turn(state, spent=(Tree(number, Part.BEFORE),))
        left = {"running": machine.booted, "carried": brought.carried, "conflicts": brought.conflicts}
        txn.succeed(previous=previous, **left)
    return Committed(number, previous, brought.carried, brought.conflicts, pause)


def foresee(machine: Machine, number: int, policy: Conflicts | None = None) -> Carried:
    """Return what ``commit`` would carry over, and do nothing.

    Raises:
        ConflictError: ``commit`` would raise it.
        LayoutError: so it would.
    """
    ancestor = carry.reference(machine, number, machine.booted)
    if ancestor is None:
        return Carried()
    late = nested.since(machine, number, ancestor)
    found = carry.foresee(machine, number, policy or machine.config.staging.conflicts)
    return _with(found, late)


def _with(brought: Carried, late: list[Late]) -> Carried:
    paths = dict.fromkeys((*brought.carried, *(one.path for one in late)))
    return replace(brought, carried=tuple(paths))


def _prepare(machine: Machine, txn: Transaction, number: int, policy: Conflicts) -> tuple[BootState, Carried]:
    """Carry over, seal and write the entry file.

    Of a running root that nobody writes to there is nothing to carry over; the
    barrier behind the seal tells whether that was so to the end.
    """
    txn.step("carry")
    ancestor = carry.reference(machine, number, machine.booted)
    running = Tree(machine.booted, Part.ROOT)
    if ancestor is None:
        return _seal(machine, txn, number), Carried()
    late = nested.since(machine, number, ancestor)
    if not late and machine.storage.unwritten(running, ancestor):
        state = _seal(machine, txn, number)
        if machine.storage.unwritten(running, ancestor):
            return state, Carried()
        machine.storage.delete(Tree(number, Part.SEALED))
    brought = carry.carry_over(machine, number, ancestor, policy)
    if late:
        carry.keep(machine, number)
        nested.bring(machine, machine.booted, number, late)
    return _seal(machine, txn, number), _with(brought, late)


def _seal(machine: Machine, txn: Transaction, number: int) -> BootState:
    def complete() -> None:
        machine.storage.snapshot(Tree(number, Part.ROOT), Tree(number, Part.SEALED), writable=False)
        machine.protect_pinned()

    txn.step("seal")
    return txn.prepare(number, complete)
