"""``snaptx restart``: let services go on with what a live switch, or an update in place, has replaced.

If one does not come back, the live switch is taken back and they are started
once more, with what was there before.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import NamedTuple

from snaptx import inuse, live, log, run, scene, system, transaction
from snaptx.errors import CommandError, HealthError, SnaptxError, UsageError
from snaptx.machine import Machine
from snaptx.running import namespaces, services
from snaptx.running.proc import Kind, Owner
from snaptx.running.services import Decision, Unit
from snaptx.transaction import Request

SETTLE = 2.0
"""Seconds after which a service that came back still has to run."""

_ELSEWHERE = {
    Kind.SESSION: "it is a user's: they log out and in again",
    Kind.CONTAINER: "it is a container: restart it by its own means",
    Kind.OTHER: "no unit answers for it",
}


class Restarted(NamedTuple):
    """What a restart did: units in their order, what was left and why, and how long it took."""

    restarted: tuple[str, ...]
    left: tuple[tuple[str, str], ...]
    seconds: float


def plan(machine: Machine) -> tuple[Decision, list[Unit]]:
    """Return what to restart and what to leave, and the units as they are.

    Raises:
        UsageError: another root than the running one is worked on.
        SnaptxError: systemd is not there.
    """
    if not system.is_running_root(machine.sysroot):
        raise UsageError("the services of another root do not run here", hint="leave out --sysroot")
    owners = _concerned(machine)
    units = _show(sorted(owner.name for owner in owners if owner.kind is Kind.UNIT))
    decision = services.decide(units)
    elsewhere = [(owner.name, _ELSEWHERE[owner.kind]) for owner in sorted(owners) if owner.kind in _ELSEWHERE]
    return decision._replace(left=(*decision.left, *elsewhere)), units


def _concerned(machine: Machine) -> set[Owner]:
    """Return who uses what was replaced, or sees mounts of its own that did not follow a live switch."""
    now = scene.look(machine)
    targets = [now.target(path) for path in scene.live(machine)]
    return {process.owner for process in inuse.outdated(machine)} | set(
        namespaces.apart(now.sysroot, targets)
    )


def _show(names: Sequence[str]) -> list[Unit]:
    if not names:
        return []
    asked = [f"--property={','.join(services.PROPERTIES)}", "--", *names]
    return services.parse(run.run(["systemctl", "show", *asked]).stdout)


def make(machine: Machine, request: Request, decision: Decision, units: list[Unit]) -> Restarted:
    """Restart; the caller holds the lock.

    Raises:
        HealthError: a service did not come back; a live switch was taken back, and the services restarted.
    """
    begun = time.monotonic()
    missing = _restart(decision.restart, units)
    outcome = {"restarted": decision.restart, "left": decision.left, "not_back": missing}
    transaction.note(machine, request, **outcome, result="failed" if missing else "done")
    if missing:
        raise _taken_back(machine, request, decision, missing)
    return Restarted(decision.restart, decision.left, time.monotonic() - begun)


def _restart(names: Sequence[str], before: Sequence[Unit]) -> tuple[str, ...]:
    """Restart the units in one go, systemd keeps to their order; return those that are not up afterwards."""
    if not names:
        return ()
    try:
        run.run(["systemctl", "restart", "--", *names])
    except CommandError as error:
        log.warning("a service did not restart", reason=error.message)
    else:
        time.sleep(SETTLE)
    return services.not_back(before, _show(names), names)


def _taken_back(
    machine: Machine, request: Request, decision: Decision, missing: Sequence[str]
) -> HealthError:
    """Take the live switch back, restart what was restarted, and return the error that says so."""
    what = f"did not come back: {', '.join(missing)}"
    hint = f"look at: journalctl -u {missing[0]}"
    number, note = max(scene.live(machine).values(), default=0), scene.note(machine)
    if not number:
        return HealthError(what, hint=hint)
    previous = note.previous if note.generation == number else 0
    try:
        live.make(machine, request, live.choose(machine, previous, force=True))
        still = _restart(decision.restart, _show(decision.restart))
    except SnaptxError as error:
        return HealthError(
            f"{what}; the live switch could not be taken back: {error.message}", hint=error.hint
        )
    now = f"generation {previous} is live again" if previous else "the live switch was taken back"
    lost = f", and still not back: {', '.join(still)}" if still else ", and they run"
    return HealthError(f"{what}; {now}{lost}", hint=hint)
