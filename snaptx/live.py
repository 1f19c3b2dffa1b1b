"""``snaptx live``: put a generation's trees under the running system, and take them away again.

Nothing that boots changes: a reboot, wanted or not, ends what is live.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from snaptx import liveswitch, switch, system, transaction
from snaptx.liveswitch import Note, Plan
from snaptx.machine import Machine
from snaptx.recover import Act
from snaptx.running import namespaces
from snaptx.running.proc import Owner
from snaptx.transaction import Request


@dataclass(frozen=True, slots=True)
class Switched:
    """What a live switch did.

    ``number`` is what is live, ``previous`` what was, 0 for what booted.
    ``paths`` are in the order of the switch; ``pause_seconds`` is the time
    from the first of them to the last, ``seconds`` that of all the work.
    ``apart`` are those whose own mounts did not follow.
    """

    number: int
    previous: int
    paths: tuple[str, ...]
    pause_seconds: float
    seconds: float
    apart: tuple[Owner, ...]


def choose(machine: Machine, number: int, *, force: bool) -> Plan:
    """Return how to make generation ``number`` live, 0 for what booted.

    Raises:
        NotFoundError: there is no such generation.
        LiveError: something stands against it.
    """
    if number:
        machine.generations.read(number)
    chosen = liveswitch.plan(machine, 0 if number == machine.booted else number)
    liveswitch.require(chosen, force=force)
    return chosen


def is_due(machine: Machine, chosen: Plan) -> bool:
    """Return whether the switch would change anything."""
    now = liveswitch.scene(machine)
    wanted = (chosen.number,) if chosen.number else ()
    return any(now.stack(path)[:1] != wanted for path in chosen.paths)


def make(machine: Machine, request: Request, chosen: Plan) -> Switched:
    """Make the switch; the caller holds the lock.

    Raises:
        StorageError: the kernel refused; what was seen before is seen again.
    """
    begun = time.monotonic()
    before = liveswitch.live(machine)
    previous = max(before.values(), default=0)
    with transaction.begin(machine, Act.LIVE, request, generation=chosen.number, base=previous) as txn:
        txn.step("live")
        with switch.undisturbed():
            pause = liveswitch.perform(machine, chosen)
            liveswitch.write(machine, _note(machine, chosen, before))
        txn.step("look")
        root = liveswitch.scene(machine)
        apart = namespaces.apart(root.sysroot, [root.target(path) for path in chosen.paths])
        seconds = time.monotonic() - begun
        done = Switched(chosen.number, previous, chosen.paths, pause, seconds, apart)
        txn.succeed(live=chosen.number, previous=previous, paths=chosen.paths, pause_seconds=round(pause, 6))
    return done


def _note(machine: Machine, chosen: Plan, before: dict[str, int]) -> Note:
    used = {*liveswitch.note(machine).used, *before.values(), *filter(None, [chosen.number])}
    previous = max(before.values(), default=0)
    return Note(chosen.number, previous, chosen.paths, system.now(), tuple(sorted(used)))
