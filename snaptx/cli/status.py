"""``snaptx status``: the state of the machine in a few lines."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from snaptx import retention, scene
from snaptx.cli import common, options
from snaptx.errors import SnaptxError
from snaptx.machine import Machine
from snaptx.model import Generation, Phase, Verdict, View
from snaptx.sharing import conversions, residents
from snaptx.update import state
from snaptx.update.state import Result, Run, State


class Status(NamedTuple):
    """What ``status`` shows; 0 stands for none."""

    sysroot: str
    booted: int
    default: int
    verdict: Verdict
    fallback: int
    staged: tuple[int, ...]
    reboot_needed: bool
    interrupted: str
    ended_by: str
    at_work: str
    failed: int
    reason: str
    generations: int
    free_percent: float
    endangered: tuple[str, ...]
    unsettled: tuple[str, ...]
    updates: State
    live: str


def gather(machine: Machine, updates: State) -> Status:
    """Read the state of the machine, but for what is known of its updates."""
    entry, views = machine.boot_state(), machine.views()
    intent = machine.journal.open()
    verb = str(intent.actor.get("verb", "")) if intent else ""
    at_work = intent is not None and intent.at_work
    failed = _failed(views, machine.booted)
    return Status(
        sysroot=str(machine.sysroot),
        booted=machine.booted,
        default=entry.default,
        verdict=machine.generations.read(entry.default).verdict,
        fallback=entry.fallback,
        staged=tuple(view.number for view in views if view.phase is Phase.STAGED),
        reboot_needed=machine.booted != entry.default,
        interrupted="" if at_work else verb,
        ended_by=intent.end if intent and not at_work else "",
        at_work=verb if at_work else "",
        failed=failed.number if failed else 0,
        reason=failed.reason if failed else "",
        generations=len(views),
        free_percent=round(machine.storage.free_percent, 1),
        endangered=residents.endangered(machine),
        unsettled=conversions.waiting(machine),
        updates=updates,
        live=scene.said(machine),
    )


def _failed(views: Sequence[View], booted: int) -> Generation | None:
    """Return the newest generation that did not come up or was not tried, if it is newer than what runs."""
    told = [view.generation for view in views if view.generation.reason]
    return told[-1] if told and told[-1].number > booted else None


def lines(status: Status, program: str = "snaptx") -> Iterator[str]:
    """Say how things stand in words; ``program`` is how commands to paste begin."""
    yield f"booted:   {f'generation {status.booted}' if status.booted else 'a root that is no generation'}"
    fallback = f"fallback {status.fallback}" if status.fallback != status.default else "no fallback"
    yield f"default:  generation {status.default} ({status.verdict}), {fallback}"
    yield f"staged:   {', '.join(map(str, status.staged)) or 'nothing'}"
    if status.live:
        yield f"live:     {status.live}"
    if status.reboot_needed:
        keep = f"; '{program} rollback {status.booted}' keeps this one" if status.booted else ""
        yield f"pending:  generation {status.default} boots next{keep}"
    if status.failed:
        yield f"failed:   generation {status.failed}: {status.reason}"
    if status.at_work:
        yield f"at work:  'snaptx {status.at_work}'"
    if status.interrupted:
        why = f"'snaptx {status.interrupted}' was interrupted, {status.ended_by}"
        yield f"found:    {why}; '{program} repair' settles it"
    if status.endangered:
        paths = ", ".join(status.endangered)
        yield f"warning:  goes back with a rollback: {paths}; '{program} init --convert' keeps it out"
    if status.unsettled:
        paths = ", ".join(status.unsettled)
        yield f"shared:   not settled yet: {paths}; after a reboot '{program} repair' does it"
    if status.updates.last:
        yield from _updates(status.updates, status.updates.last)
    if status.generations > retention.MANY:
        hint = f"'{program} prune' or a smaller [retention] keep makes staging fast again"
        yield f"warning:  more than {retention.MANY} generations slow down each new one; {hint}"
    yield f"kept:     {status.generations} generation(s), {status.free_percent} % of the filesystem free"


def _updates(updates: State, last: Run) -> Iterator[str]:
    yield f"updates:  {common.date(last.time)} {last.result}: {last.message}"
    if updates.failures:
        since = f"since {common.date(updates.succeeded)}" if updates.succeeded else "and no success yet"
        yield f"          {updates.failures} failure(s) in a row, {since}"
    if last.result is not Result.OFF:
        yield f"          the next is due {common.date(updates.next)}"


def add_arguments(parser: ArgumentParser) -> None:
    """Add nothing."""


def run(args: Namespace) -> int:
    """Show the state; where what is known of updates can't be read, all else goes with the error."""
    machine = common.machine(args)
    updates, failure = _known(machine)
    status = gather(machine, updates)
    common.emit(args, status, lines(status, options.program(args.sysroot)), failure)
    return 0


def _known(machine: Machine) -> tuple[State, SnaptxError | None]:
    try:
        return state.read(state.directory(machine)), None
    except SnaptxError as error:
        return State(), error
