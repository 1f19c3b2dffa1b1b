"""``snaptx restart``: services go on with what was replaced."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Iterator

from snaptx import restart, transaction
from snaptx.cli import common


def add_arguments(parser: ArgumentParser) -> None:
    """Add the verb's arguments."""
    common.add_message(parser)
    common.add_unchanged(parser)


def run(args: Namespace) -> int:
    """Restart what uses what was replaced."""
    machine = common.machine(args)
    decision, units = restart.plan(machine)
    if not decision.restart:
        common.emit(args, decision, ["no service is to be restarted", *_left(decision.left)])
        return common.unchanged(args)
    if args.dry_run:
        lines = [f"would restart, in this order: {', '.join(decision.restart)}"]
        common.emit(args, decision, [*lines, *_left(decision.left)])
        return 0
    with transaction.exclusive(machine, args.verb):
        done = restart.make(machine, common.request(args), decision, units)
    common.emit(args, done, [f"restarted: {', '.join(done.restarted)}", *_left(done.left)])
    return 0


def _left(left: tuple[tuple[str, str], ...]) -> Iterator[str]:
    for name, reason in left:
        yield f"  left: {name}: {reason}"
