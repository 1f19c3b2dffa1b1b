"""What a boot has shown is put on record: which generation came up, and why it was that one.

The root that runs is right.  Where it is not the default, the boot loader says
why on the kernel's command line (``snaptx.why``): the default used up its tries
or could not be loaded, and is bad from then on; or its tries could not be
counted, which says nothing of it.  Without a reason somebody chose at the menu,
and nothing is changed.
"""

from __future__ import annotations

from contextlib import suppress
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple

from snaptx import blame, late, log, nested, switch, system, transaction
from snaptx.bootloader.entryfile import WHY
from snaptx.carry import Carried
from snaptx.machine import Machine
from snaptx.model import BootState, Verdict
from snaptx.recover import Act
from snaptx.transaction import Request


class Why(StrEnum):
    """Why another generation than the default was booted, as the boot loader says it."""

    NOTHING = ""
    TRIES = "tries"
    LOAD = "load"
    COUNTER = "counter"
    STOPPED = "stopped"


FROM_INITRAMFS = Path("/run/snaptx/why")
"""What hooks/initramfs-count.sh says of this boot."""

REASONS = {
    Why.TRIES: "it did not confirm itself in {tries} tries",
    Why.LOAD: "its kernel or initrd could not be loaded",
    Why.COUNTER: "its tries could not be counted ({counter} can't be written), so it was not tried",
    Why.STOPPED: "neither it nor the generation before it came up",
}


class Arrival(StrEnum):
    """What the boot means."""

    AS_CHOSEN = "as chosen"
    BY_HAND = "chosen at the menu"
    FELL_BACK = "fell back"
    NOT_TRIED = "not tried"
    FOREIGN = "no generation"


class Reconciled(NamedTuple):
    """What was found and done; ``failed`` is the generation that did not come up, 0 for none."""

    arrival: Arrival
    booted: int
    failed: int = 0
    reason: str = ""
    late: Carried = Carried()


def why_booted() -> Why:
    """Return what the boot loader says of this boot."""
    said = [word.removeprefix(WHY) for word in system.kernel_words() if word.startswith(WHY)]
    with suppress(OSError):
        said.append(FROM_INITRAMFS.read_text(encoding="utf-8").strip())
    known = set(Why)
    return Why(said[-1]) if said and said[-1] in known else Why.NOTHING


def judge(state: BootState, booted: int, why: Why) -> Arrival:
    """Return what it means that ``booted`` runs: the whole table."""
    if booted == 0:
        return Arrival.FOREIGN
    if booted == state.default:
        return _turned_away(why) if state.failed else Arrival.AS_CHOSEN
    if why in (Why.TRIES, Why.LOAD):
        return Arrival.FELL_BACK
    if why in (Why.COUNTER, Why.STOPPED):
        return Arrival.NOT_TRIED
    return Arrival.BY_HAND


def _turned_away(why: Why) -> Arrival:
    """Return what it means that the initramfs has turned to the fallback."""
    return Arrival.NOT_TRIED if why is Why.STOPPED else Arrival.FELL_BACK


def reconcile(machine: Machine, request: Request, why: Why) -> Reconciled:
    """Record what this boot has shown.  Others are kept out and what was open is settled by the caller.

    Raises:
        OutcomeUnknownError: the disk failed after the default was changed.
    """
    state = machine.boot_state()
    arrival = judge(state, machine.booted, why)
    failed, reason = 0, ""
    if arrival in (Arrival.FELL_BACK, Arrival.NOT_TRIED):
        failed = state.failed or state.default
        counter = state.counter.partition(":")[2]
        reason = REASONS[why if why in REASONS else Why.TRIES].format(tries=state.tries, counter=counter)
        _stay(machine, request, failed, reason, bad=arrival is Arrival.FELL_BACK)
    elif arrival is Arrival.AS_CHOSEN:
        switch.refresh(machine)
    brought = _arrive(machine, request) if arrival is Arrival.AS_CHOSEN else Carried()
    return Reconciled(arrival, machine.booted, failed, reason, brought)


def _stay(machine: Machine, request: Request, failed: int, reason: str, *, bad: bool) -> None:
    """Make the running generation the default, and say why of the one that was."""
    with transaction.begin(machine, Act.JUDGE, request, generation=failed) as txn:
        txn.step("record")
        record = machine.generations.read(failed)
        verdict = Verdict.BAD if bad else record.verdict
        machine.generations.write(record._replace(verdict=verdict, reason=reason))
        txn.switch(machine.booted)
        # What was not tried is not bad, but an update that brings it again would be left behind again.
        blamed = blame.of_verdict(machine, failed, Verdict.BAD)
        txn.succeed(verdict=verdict, reason=reason, default=machine.booted, **blamed)
    log.warning("another generation runs than was to", generation=failed, reason=reason)


def _arrive(machine: Machine, request: Request) -> Carried:
    """Note the first boot of a generation, after what was left behind was brought over."""
    number = machine.booted
    record = machine.generations.read(number)
    if record.arrived or record.verdict is not Verdict.TRIAL:
        return Carried()
    with transaction.begin(machine, Act.RECORD, request, generation=number) as txn:
        txn.step("late changes")
        brought = _bring_over(machine, number)
        machine.generations.write(record._replace(arrived=system.now()))
        txn.succeed(arrived=number, late=brought.carried, late_conflicts=brought.conflicts)
    return brought


def _bring_over(machine: Machine, number: int) -> Carried:
    """Bring over what changed in the root before, subvolumes inside it included, since the commit."""
    origin = late.origin(machine, number)
    if origin is None:
        return Carried()
    left, common = origin
    inside, behind = nested.late(machine, number, left, common.tree)
    brought = late.bring_over(machine, number, left, common)
    nested.transfer(machine, left, number, inside)
    carried = (*brought.carried, *(one.path for one in inside))
    return Carried(tuple(dict.fromkeys(carried)), (*brought.conflicts, *behind))
