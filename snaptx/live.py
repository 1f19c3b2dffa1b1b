"""``snaptx live``: put a generation's trees under the running system, and take them away again.

Nothing that boots changes: a reboot, wanted or not, ends what is live.  What a
kernel or a daemon has loaded of a tree (a security policy, say) follows by the
hooks of the stage ``live``; where one fails, what was live before is live again.
"""

from __future__ import annotations

import time
from contextlib import suppress
from typing import NamedTuple

from snaptx import checks, lived, liveswitch, log, scene, system, transaction
from snaptx.carry import Carried
from snaptx.config import Conflicts
from snaptx.errors import HealthError, SnaptxError
from snaptx.liveswitch import Plan
from snaptx.machine import Machine
from snaptx.recover import Act
from snaptx.running import namespaces
from snaptx.running.proc import Owner
from snaptx.scene import Note
from snaptx.transaction import Request, Transaction

STAGE = "live"
"""The hooks that run in what is seen after a switch, there or back."""


class Switched(NamedTuple):
    """What a live switch did.

    ``number`` is what is live, ``previous`` what was, 0 for what booted.
    ``paths`` are in the order of the switch; ``pause_seconds`` is the time
    from the first of them to the last, ``seconds`` that of all the work.
    ``apart`` are those whose own mounts did not follow.  ``carried`` are the
    paths in /etc that were brought along, ``conflicts`` those on which both
    sides disagreed.
    """

    number: int
    previous: int
    paths: tuple[str, ...]
    pause_seconds: float
    seconds: float
    apart: tuple[Owner, ...]
    carried: tuple[bytes, ...] = ()
    conflicts: tuple[bytes, ...] = ()


def choose(machine: Machine, number: int, *, force: bool, with_etc: bool = False) -> Plan:
    """Return how to make generation ``number`` live, 0 for what booted, with its /etc or without.

    Raises:
        NotFoundError: there is no such generation, or the running root is none.
        LiveError: something stands against it.
    """
    if number:
        machine.require_generation()
        machine.generations.read(number)
    chosen = liveswitch.plan(machine, 0 if number == machine.booted else number, etc=with_etc)
    liveswitch.require(chosen, force=force)
    return chosen


def is_due(machine: Machine, chosen: Plan) -> bool:
    """Return whether the switch would change anything."""
    now = scene.look(machine)
    wanted = (chosen.number,) if chosen.number else ()
    return any(now.over(path)[:1] != wanted for path in chosen.paths)


def make(machine: Machine, request: Request, chosen: Plan, policy: Conflicts | None = None) -> Switched:
    """Make the switch, and let the hooks follow; the caller holds the lock.

    Raises:
        ConflictError: both sides changed a path in /etc and the policy is to fail; nothing was switched.
        StorageError: the kernel refused; what was seen before is seen again.
        HealthError: a hook failed; what was seen before is seen again, except after a way back.
    """
    done = _switched(machine, request, chosen, policy)
    failed = _hooks(machine, done.number)
    if failed:
        raise _taken_back(machine, request, done, failed)
    return done


def _hooks(machine: Machine, number: int) -> str:
    """Run the hooks with what is live, 0 for what booted; return which failed and why, "" for none."""
    return "; ".join(f"{one.name}: {one.reason}" for one in checks.answers(machine, STAGE, number))


def _taken_back(machine: Machine, request: Request, done: Switched, failed: str) -> HealthError:
    """Go back to what was live before, unless that was the way back; return the error that says so."""
    hint = f"'snaptx live' shows what is live; the hooks are in /etc/snaptx/hooks.d/{STAGE}"
    if not done.number:
        return HealthError(f"what booted is seen again, but a hook failed: {failed}", hint=hint)
    what = f"a hook failed with generation {done.number} live: {failed}"
    try:
        _switched(machine, request, choose(machine, done.previous, force=True))
    except SnaptxError as error:
        return HealthError(f"{what}; it could not be taken back: {error.message}", hint=error.hint)
    if again := _hooks(machine, done.previous):
        log.warning("a hook failed with what was live before too", reason=again)
    now = f"generation {done.previous} is live again" if done.previous else "the live switch was taken back"
    return HealthError(f"{what}; {now}", hint=hint)


def _switched(machine: Machine, request: Request, chosen: Plan, policy: Conflicts | None = None) -> Switched:
    begun = time.monotonic()
    before = scene.live(machine)
    previous = max(before.values(), default=0)
    with transaction.begin(machine, Act.LIVE, request, generation=chosen.number, base=previous) as txn:
        brought = _prepare(machine, txn, chosen, before, policy)
        txn.step("live")
        log.load()
        with system.undisturbed():
            pause = _performed(machine, chosen, before)
        txn.step("look")
        back = lived.settle(machine)
        brought = brought if chosen.number else back
        done = Switched(
            chosen.number,
            previous,
            chosen.paths,
            pause,
            time.monotonic() - begun,
            _apart(machine, chosen),
            brought.carried,
            brought.conflicts,
        )
        paths = {"carried": done.carried, "conflicts": done.conflicts, "paths": done.paths}
        txn.succeed(live=done.number, previous=previous, pause_seconds=round(pause, 6), **paths)
    return done


def _performed(machine: Machine, chosen: Plan, before: dict[str, int]) -> float:
    """Note the switch and make it; where there is no room for the note only the way back is made."""
    noted = scene.note(machine)
    try:
        scene.write(machine, _note(machine, chosen, before))
    except (SnaptxError, OSError) as error:
        if chosen.number:
            raise
        log.warning("the way back was not noted", reason=str(error))
    try:
        return liveswitch.perform(machine, chosen)
    except BaseException:
        with suppress(SnaptxError, OSError):
            scene.write(machine, noted)
        raise


def _prepare(
    machine: Machine, txn: Transaction, chosen: Plan, before: dict[str, int], policy: Conflicts | None
) -> Carried:
    """Prepare the generation that is to be seen, unless it is already."""
    brought = Carried()
    if chosen.number and scene.ETC in chosen.paths and scene.ETC not in before:
        txn.step("carry")
        brought = lived.go_along(machine, chosen.number, policy or machine.config.staging.conflicts)
    if chosen.number:
        lived.mark(machine, chosen.number)
    return brought


def _apart(machine: Machine, chosen: Plan) -> tuple[Owner, ...]:
    now = scene.look(machine)
    return namespaces.apart(now.sysroot, [now.target(path) for path in chosen.paths])


def _note(machine: Machine, chosen: Plan, before: dict[str, int]) -> Note:
    used = {*scene.note(machine).used, *before.values(), *filter(None, [chosen.number])}
    previous = max(before.values(), default=0)
    paths = tuple(dict.fromkeys((*chosen.paths, *before)))  # what is configured now may be less
    return Note(chosen.number, previous, paths, system.now(), tuple(sorted(used)))
