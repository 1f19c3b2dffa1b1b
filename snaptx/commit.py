"""Commit: carry over, seal, switch.  Before the switch nothing has changed; after it everything has."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from snaptx import carry, lived, transaction
from snaptx.carry import Brought
from snaptx.config import Conflicts
from snaptx.errors import BusyError, NotFoundError
from snaptx.ground import Ground
from snaptx.machine import Machine
from snaptx.model import BootState, Part, Phase, Tree
from snaptx.recover import Act
from snaptx.transaction import Request, Transaction

if TYPE_CHECKING:
    from snaptx.nested import Late


class Committed(NamedTuple):
    """The result of a commit; ``switch_seconds`` is how long the rename itself took.

    ``left`` is what was changed in the running root and stays there, for this does not stem from it.
    """

    number: int
    previous: int
    carried: tuple[bytes, ...]
    conflicts: tuple[bytes, ...]
    switch_seconds: float
    left: tuple[bytes, ...] = ()


def choose(machine: Machine, wanted: int | None) -> int:
    """Return the staged generation to commit: ``wanted``, else the newest.

    Raises:
        NotFoundError: nothing is staged, there is no such generation, or the running root is none:
            what was changed in it can't be told.
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
    machine.require_generation()
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
    known, lasting = {"running": machine.booted}, machine.boot.apart
    with transaction.begin(
        machine, Act.COMMIT, request, generation=number, base=previous, lasting=lasting, known=known
    ) as txn:
        lived.index(machine, number)
        state, brought = _prepare(machine, txn, number, policy or machine.config.staging.conflicts)
        if ready:
            txn.step("ready")
            ready(number)
        pause = txn.turn(state, spent=(Tree(number, Part.BEFORE),))
        told = {"carried": brought.carried, "conflicts": brought.conflicts, "settled": brought.settled}
        txn.succeed(previous=previous, **told, left=brought.left)
    return Committed(number, previous, brought.carried, brought.conflicts, pause, brought.left)


def foresee(machine: Machine, number: int, policy: Conflicts | None = None) -> Brought:
    """Return what ``commit`` would carry over and leave behind, and do nothing.

    Raises:
        ConflictError: ``commit`` would raise it.
        LayoutError: so it would.
    """
    common = carry.reference(machine, number, machine.booted)
    if common is None:
        return Brought(left=carry.left_behind(machine, number))
    late = _late(machine, number, common)
    found = carry.foresee(machine, number, common, policy or machine.config.staging.conflicts)
    return found._replace(carried=_with(found.carried, late))


def _late(machine: Machine, number: int, common: Ground) -> list[Late]:
    if not machine.storage.running.nested:
        return []
    from snaptx import nested  # few machines have any

    return nested.since(machine, number, common.tree)


def _with(carried: tuple[bytes, ...], late: list[Late]) -> tuple[bytes, ...]:
    return tuple(dict.fromkeys((*carried, *(one.path for one in late))))


def _prepare(machine: Machine, txn: Transaction, number: int, policy: Conflicts) -> tuple[BootState, Brought]:
    """Carry over, seal and write the entry file.

    Of a running root that nobody writes to there is nothing to carry over; the
    barrier behind the seal tells whether that was so to the end.
    """
    txn.step("carry")
    common = carry.reference(machine, number, machine.booted)
    running = Tree(machine.booted, Part.ROOT)
    if common is None:
        left = carry.left_behind(machine, number)
        return _seal(machine, txn, number), Brought(left=left)
    late = _late(machine, number, common)
    if not late and machine.storage.unwritten(running, common.tree):
        state = _seal(machine, txn, number)
        if machine.storage.unwritten(running, common.tree):
            return state, Brought()
        machine.storage.delete(Tree(number, Part.SEALED))
    brought = carry.carry_over(machine, number, common, policy)
    if late:
        from snaptx import nested

        carry.keep(machine, number)
        nested.bring(machine, machine.booted, number, late)
    return _seal(machine, txn, number), brought._replace(carried=_with(brought.carried, late))


def _seal(machine: Machine, txn: Transaction, number: int) -> BootState:
    def complete() -> None:
        machine.storage.snapshot(Tree(number, Part.ROOT), Tree(number, Part.SEALED), writable=False)
        machine.protect_pinned()

    txn.step("seal")
    return txn.prepare(number, complete)
