"""Prune: remove what the rules of retention let go.

The menu forgets a generation before its subvolumes go, with a barrier in
between: GRUB never offers what is half deleted.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from snaptx import recover, retention, scene, switch, system, transaction
from snaptx.errors import BusyError
from snaptx.machine import Machine
from snaptx.recover import Act
from snaptx.retention import Decision
from snaptx.transaction import Request

HINTS = {
    retention.ADOPTED: "if nothing starts from it, delete its subvolume by hand, then run: snaptx repair",
    retention.LEADS: "it can go after a restart into what grew from it, or once that is aborted",
}


class Pruned(NamedTuple):
    """What was removed, and what stayed in spite of the rules because something uses it."""

    removed: tuple[int, ...]
    busy: tuple[int, ...]


def plan(machine: Machine, wanted: Sequence[int] = (), keep: int | None = None) -> Decision:
    """Return what would go: the generations named, or what the configured rules say.

    Raises:
        NotFoundError: a generation named does not exist.
        BusyError: a generation named is protected; the message says why.
    """
    views = scene.views(machine)
    policy = machine.config.retention
    if keep is not None:
        policy = policy._replace(keep=keep)
    if not wanted:
        return retention.decide(views, policy, now=system.now(), free_percent=machine.storage.free_percent)
    kept = retention.protected(views)
    for number in wanted:
        machine.generations.read(number)
        if number in kept:
            hint = HINTS.get(kept[number], "'snaptx list' shows the marks")
            raise BusyError(f"generation {number} stays: {kept[number]}", hint=hint)
    return Decision(kept, tuple(sorted(set(wanted))))


def prune(machine: Machine, request: Request, numbers: tuple[int, ...]) -> Pruned:
    """Remove generations that ``plan`` found expendable."""
    if not numbers:
        return Pruned((), ())
    with transaction.begin(machine, Act.REMOVE, request, generation=0, targets=numbers) as txn:
        txn.step("menu")
        switch.refresh(machine, without=numbers)
        txn.step("delete")
        recover.remove(machine, numbers)
        machine.storage.barrier()
        busy = tuple(number for number in numbers if machine.generations.directory(number).exists())
        removed = tuple(number for number in numbers if number not in busy)
        txn.succeed(removed=removed, busy=busy)
    return Pruned(removed, busy)
