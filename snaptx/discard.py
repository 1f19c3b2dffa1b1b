"""Abort: throw staged work away, and say so in the audit trail."""

from __future__ import annotations

from snaptx import recover, transaction
from snaptx.errors import BusyError, NotFoundError
from snaptx.machine import Machine
from snaptx.model import Phase
from snaptx.recover import Act
from snaptx.transaction import Request


def choose(machine: Machine, wanted: int | None) -> int:
    """Return the staged generation to discard: ``wanted``, else the newest.

    Raises:
        NotFoundError: nothing is staged, or there is no such generation.
        BusyError: it is committed or pinned.
    """
    staged = machine.staged()
    if wanted is None and not staged:
        raise NotFoundError("nothing is staged", hint="'snaptx list' shows the generations")
    number = staged[-1] if wanted is None else machine.generations.read(wanted).number
    if machine.phase(number) is not Phase.STAGED:
        hint = "'snaptx rollback' goes back, 'snaptx prune' removes old generations"
        raise BusyError(f"generation {number} is committed", hint=hint)
    if machine.generations.read(number).pinned:
        raise BusyError(f"generation {number} is pinned", hint=f"first: snaptx unpin {number}")
    return number


def abort(machine: Machine, request: Request, wanted: int | None) -> int:
    """Discard a staged generation and return its number.

    Raises:
        BusyError: something still uses it.
    """
    number = choose(machine, wanted)
    recover.guard(machine, number)
    with transaction.begin(machine, Act.REMOVE, request, generation=number, targets=(number,)) as txn:
        txn.step("delete")
        recover.discard(machine, number)
        txn.succeed(removed=(number,))
    return number
