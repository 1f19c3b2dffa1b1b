"""``snaptx commit``: make a staged generation boot."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Iterator

from snaptx import commit, transaction
from snaptx.cli import common, paths
from snaptx.commit import Committed
from snaptx.machine import Machine
from snaptx.overlay.failure import from_root


def add_arguments(parser: ArgumentParser) -> None:
    """Add the verb's arguments."""
    common.add_number(parser, "the generation (default: the newest staged)")
    common.add_message(parser)
    common.add_conflicts(parser)


def perform(args: Namespace, machine: Machine, number: int | None) -> Committed:
    """Commit; the caller holds the lock."""
    return commit.commit(machine, common.request(args), number, common.conflicts(args))


def describe(done: Committed) -> Iterator[str]:
    """Say what was committed in words."""
    if done.carried:
        yield f"carried over from the running root: {len(done.carried)} path(s)"
        yield from (f"  {line}" for line in paths.listed(done.carried))
    if done.left:
        yield f"generation {done.number} does not stem from the running one, so what was changed there stays:"
        yield from (f"  {line}" for line in paths.listed(done.left))
    for path in done.conflicts:
        yield f"conflict, settled as told: {from_root(path)}"
    pause = common.pause(done.switch_seconds)
    yield f"generation {done.number} boots next (before: {done.previous}); {pause}"


def run(args: Namespace) -> int:
    """Commit."""
    machine = common.machine(args)
    if args.dry_run:
        number = commit.choose(machine, args.number)
        found = commit.foresee(machine, number, common.conflicts(args))
        text = f"would commit generation {number}, carrying {len(found.carried)} path(s) over"
        told = {"number": number, "carried": found.carried, "conflicts": found.conflicts}
        if found.left:
            text += f"; not {len(found.left)} path(s) that stay in the running root"
            told["left"] = found.left
        common.emit(args, told, text)
        return 0
    with transaction.exclusive(machine, args.verb):
        done = perform(args, machine, args.number)
    common.emit(args, done, describe(done))
    return 0
