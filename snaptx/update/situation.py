"""How a machine stands, for the rules of ``policy``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from snaptx import system, window
from snaptx.config import Policy
from snaptx.machine import Machine
from snaptx.transaction import Request
from snaptx.update import inhibit, policy
from snaptx.update.policy import Situation, Staged

VERB = "update"
"""What the records of generations that an update made say; nobody else's staged work is touched."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What is asked of a run; ``unattended`` keeps to its time, the window, and what inhibits it."""

    request: Request
    policy: Policy
    sources: tuple[str, ...]
    unattended: bool = False


def look(machine: Machine, asked: Asked) -> Situation:
    """Return what the rules need to know."""
    default = machine.boot_state().default
    alone, config = asked.unattended, machine.config.update
    return Situation(
        policy=asked.policy,
        held=inhibit.of_updates(machine) if alone else "",
        reboot_held=inhibit.of_restart(machine) if asked.policy is Policy.REBOOT else "",
        window_open=not alone or window.is_open(config.window, system.now()),
        staged=staged(machine, default),
        default=default,
        verdict=machine.generations.read(default).verdict,
        running=machine.booted == default,
    )


def staged(machine: Machine, default: int) -> Staged:
    """Return whose work is staged."""
    every = [machine.generations.read(number) for number in machine.staged()]
    if not every:
        return Staged.NOTHING
    if any(one.verb != VERB for one in every):
        return Staged.MANUAL
    return Staged.UPDATE if every[-1].base == default else Staged.STALE


def installed(machine: Machine, now: Situation) -> Mapping[str, str]:
    """Return the updates that a next one would be laid over."""
    number = machine.staged()[-1] if now.staged is Staged.UPDATE else now.default
    return machine.generations.read(number).updates


def wants_restart(machine: Machine, now: Situation) -> bool:
    """Return whether the machine is to be restarted for what an update has committed."""
    default = machine.generations.read(now.default)
    return policy.wants_restart(now, updated=default.verb == VERB, arrived=bool(default.arrived))
