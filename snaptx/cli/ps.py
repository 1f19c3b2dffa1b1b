"""``snaptx ps``: processes that still use what was replaced, or what a generation holds."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

from snaptx import inuse
from snaptx.cli import common
from snaptx.overlay.failure import shown
from snaptx.running.files import Use
from snaptx.running.proc import Owner
from snaptx.running.processes import Process

ENOUGH = 3
"""Files of a process that a person gets to see; --json has them all."""


def add_arguments(parser: ArgumentParser) -> None:
    """Add the verb's arguments."""
    common.add_number(
        parser, "those that use files of generation N (default: what was replaced or deleted since)"
    )


def run(args: Namespace) -> int:
    """Show the processes by who answers for them."""
    machine = common.machine(args)
    if args.number is None:
        found = inuse.outdated(machine)
    else:
        machine.generations.read(args.number)
        found = inuse.users(machine, args.number)
    groups = grouped(found)
    body = [{"kind": owner.kind, "name": owner.name, "processes": list(of)} for owner, of in groups.items()]
    nobody = "no process uses " + (f"generation {args.number}" if args.number else "what was replaced")
    common.emit(args, body, _lines(groups) if groups else nobody)
    return 0


def grouped(found: Iterable[Process]) -> dict[Owner, list[Process]]:
    """Return processes by who answers for them."""
    groups: dict[Owner, list[Process]] = {}
    for process in found:
        groups.setdefault(process.owner, []).append(process)
    return dict(sorted(groups.items()))


def _lines(groups: dict[Owner, list[Process]]) -> Iterator[str]:
    for owner, processes in groups.items():
        yield f"{owner.name} ({owner.kind})"
        rows = [(f"  {process.pid}", process.name, _summary(process.uses)) for process in processes]
        yield from common.table([("  PID", "COMMAND", "USES"), *rows])


def _summary(uses: tuple[Use, ...]) -> str:
    more: Counter[Any] = Counter(use.how for use in uses[ENOUGH:])
    told = [f"{use.how} {shown(use.path)} ({use.state})" for use in uses[:ENOUGH]]
    return ", ".join([*told, *(f"{count} more {how}" for how, count in more.items())])
