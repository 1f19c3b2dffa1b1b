"""Confirm: say that a generation is good or bad, from health checks or by the administrator's word.

A bad default is not left to boot again: the newest good generation takes its
place.  What was judged bad stays on record.
"""

from __future__ import annotations

from typing import NamedTuple

from snaptx import blame, checks, switch, transaction
from snaptx.checks import Failure
from snaptx.errors import BusyError
from snaptx.machine import Machine
from snaptx.model import Phase, Verdict
from snaptx.recover import Act
from snaptx.transaction import Request, Transaction


class Confirmed(NamedTuple):
    """The verdict on a generation, the checks that failed, and what boots next."""

    number: int
    verdict: Verdict
    failures: tuple[Failure, ...]
    default: int


def choose(machine: Machine, wanted: int | None) -> int:
    """Return the generation to judge: ``wanted``, else the running one.

    Raises:
        NotFoundError: there is no such generation.
        BusyError: it is only staged, or the running root is no generation.
    """
    number = machine.generations.read(wanted).number if wanted is not None else machine.booted
    if not number:
        raise BusyError("the running root is not a generation", hint="name one: snaptx confirm N")
    if machine.phase(number) is not Phase.COMMITTED:
        raise BusyError(f"generation {number} is only staged", hint=f"first: snaptx commit {number}")
    return number


def confirm(machine: Machine, request: Request, number: int, *, bad: str | None = None) -> Confirmed:
    """Judge a generation: bad for the reason ``bad``, else by the checks if it runs, else good.

    Raises:
        BootError: it would be good, but the default has no kernel; nothing was recorded.
    """
    failures = () if bad is not None or number != machine.booted else tuple(checks.health(machine, number))
    broken = [failure for failure in failures if failure.required]
    reason = bad if bad is not None else "; ".join(f"{item.name}: {item.reason}" for item in broken)
    verdict = Verdict.BAD if bad is not None or broken else Verdict.GOOD
    if verdict is Verdict.GOOD:
        switch.plan(machine, machine.boot_state().default)  # what can't boot is not confirmed
    with transaction.begin(machine, Act.JUDGE, request, generation=number) as txn:
        txn.step("record")
        record = machine.generations.read(number)
        machine.generations.write(record._replace(verdict=verdict, reason=reason))
        txn.step("menu")
        default = _entries(txn, number, verdict)
        blamed = blame.of_verdict(machine, number, verdict)
        txn.succeed(verdict=verdict, reason=reason, default=default, failures=failures, **blamed)
    return Confirmed(number, verdict, failures, default)


def _entries(txn: Transaction, number: int, verdict: Verdict) -> int:
    machine = txn.machine
    state = machine.boot_state()
    if verdict is Verdict.BAD and state.default == number:
        good = switch.fallback(machine.views(), number)
        txn.switch(good)
        return good
    switch.refresh(machine)
    return state.default
