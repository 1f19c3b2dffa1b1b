"""Pin: keep a generation from being pruned, or let it go again."""

from __future__ import annotations

from snaptx import transaction
from snaptx.machine import Machine
from snaptx.recover import Act
from snaptx.transaction import Request


def pin(machine: Machine, request: Request, number: int, *, pinned: bool) -> bool:
    """Protect a generation from being pruned, or let it go; return whether that changed anything."""
    record = machine.generations.read(number)
    if record.pinned == pinned:
        return False
    with transaction.begin(machine, Act.RECORD, request, generation=number) as txn:
        machine.generations.write(record._replace(pinned=pinned))
        machine.protect_pinned()
        txn.succeed(pinned=pinned)
    return True
