"""Go back: the same switch, to a generation that was good.

A rollback makes a new generation from the other one's sealed tree, so nothing
is lost by it and it can be undone by the next.  Where the other one is the
running root, or is wanted as it was last used, the switch alone does it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from snaptx import blame, nested, system, transaction
from snaptx.errors import BusyError, NotFoundError
from snaptx.machine import Machine
from snaptx.model import Generation, Part, Phase, Tree, Verdict, View
from snaptx.overlay.manifest import Manifest
from snaptx.recover import Act
from snaptx.sharing import attach
from snaptx.transaction import Request


class RolledBack(NamedTuple):
    """The result: what boots next, whose content it has, what it replaces."""

    number: int
    content: int
    previous: int
    switch_seconds: float


def previous_good(views: list[View]) -> int | None:
    """Return the newest good generation that is neither the default nor what the default was made from."""
    default = next((view.generation for view in views if view.default), None)
    skipped = {default.number, default.content} if default else set()
    good = [
        view.number
        for view in views
        if view.phase is Phase.COMMITTED
        and view.generation.verdict is Verdict.GOOD
        and view.number not in skipped
    ]
    return max(good, default=None)


def _is_sound(view: View) -> bool:
    return view.phase is Phase.COMMITTED and view.generation.verdict is not Verdict.BAD


def choose(machine: Machine, wanted: int | None, *, as_used: bool = False) -> int:
    """Return the generation to go to, ``as_used`` or as it was committed.

    ``wanted``, else the running one if another is default and it is not bad, else the last good.

    Raises:
        NotFoundError: there is none.
        BusyError: it is only staged, or the default already.
    """
    if wanted is not None:
        _require_other(machine, wanted, as_used)
        return wanted
    views = machine.views()
    running = [view.number for view in views if view.booted and not view.default and _is_sound(view)]
    target = running[0] if running else previous_good(views)
    if target is None:
        raise NotFoundError("there is no earlier good generation", hint="name one: snaptx rollback N")
    return target


def _require_other(machine: Machine, wanted: int, as_used: bool) -> None:
    machine.generations.read(wanted)
    if machine.phase(wanted) is not Phase.COMMITTED:
        hint = f"to make it boot: snaptx commit {wanted}"
        raise BusyError(f"generation {wanted} is only staged", hint=hint)
    if stays(machine, wanted, as_used) and wanted == machine.boot_state().default:
        hint = "name another one: snaptx rollback N"
        raise BusyError(f"generation {wanted} is the default already", hint=hint)


def stays(machine: Machine, target: int, as_used: bool) -> bool:
    """Return whether its root boots as it is, and not a copy of what was committed."""
    return as_used or target == machine.booted


def rollback(
    machine: Machine,
    request: Request,
    wanted: int | None,
    *,
    as_used: bool = False,
    ready: Callable[[int], None] | None = None,
) -> RolledBack:
    """Make an earlier generation what boots next.

    ``ready`` is called with the number of a generation made for that before the
    switch, which its exceptions prevent.

    Raises:
        NotFoundError: there is no such generation, or nothing to go back to.
        BusyError: it is the default already.
        OutcomeUnknownError: the disk failed after the switch.
    """
    target = choose(machine, wanted, as_used=as_used)
    previous = machine.boot_state().default
    if stays(machine, target, as_used):
        return _activate(machine, request, target, previous)
    return _restore(machine, request, target, previous, ready)


def _activate(machine: Machine, request: Request, target: int, previous: int) -> RolledBack:
    with transaction.begin(machine, Act.ACTIVATE, request, generation=target, base=previous) as txn:
        pause = txn.switch(target)
        txn.succeed(previous=previous, content=target, **blame.of_rollback(machine, previous, target))
    return RolledBack(target, target, previous, pause)


def _restore(
    machine: Machine, request: Request, target: int, previous: int, ready: Callable[[int], None] | None
) -> RolledBack:
    number = machine.generations.reserve()
    with transaction.begin(
        machine, Act.ROLLBACK, request, generation=number, base=target, lasting=False
    ) as txn:  # a snapshot comes first, and commits the journal with it
        txn.step("snapshot")
        _copy(machine, target, number)
        txn.step("record")
        machine.generations.write(_record(machine, request, number, target))
        if ready:
            txn.step("ready")
            ready(number)
        pause = txn.switch(number)
        txn.succeed(previous=previous, content=target, **blame.of_rollback(machine, previous, target))
    return RolledBack(number, target, previous, pause)


def _copy(machine: Machine, target: int, number: int) -> None:
    machine.generations.directory(number).mkdir()
    sealed = Tree(target, Part.SEALED)
    for part, writable in ((Part.ORIGIN, False), (Part.ROOT, True)):
        machine.storage.snapshot(sealed, Tree(number, part), writable=writable)
    if machine.manifest(target).exists():
        Manifest.fork(machine.manifest(target), machine.manifest(number)).close()
    made = nested.make_directories(machine, number, target)
    source = Tree(number, Part.ROOT) if attach.follow(machine, number) or made else sealed
    machine.storage.snapshot(source, Tree(number, Part.SEALED), writable=False)


def _record(machine: Machine, request: Request, number: int, target: int) -> Generation:
    before = machine.generations.read(target)
    return Generation(
        number=number,
        base=target,
        created=system.now(),
        verb=request.verb,
        message=request.message or f"back to {target}",
        content=before.content or target,
        nested=before.nested,
        verdict=Verdict.TRIAL,
        updates=before.updates,
    )
