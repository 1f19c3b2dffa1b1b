"""``snaptx abort``: throw staged work away."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from snaptx import discard, transaction
from snaptx.cli import common


def add_arguments(parser: ArgumentParser) -> None:
    """Add the verb's arguments."""
    common.add_number(parser, "the generation (default: the newest staged)")


def run(args: Namespace) -> int:
    """Discard a staged generation."""
    machine = common.machine(args)
    if args.dry_run:
        number = discard.choose(machine, args.number)
        common.emit(args, {"number": number}, f"would discard generation {number}")
        return 0
    with transaction.exclusive(machine, args.verb):
        number = discard.abort(machine, common.request(args), args.number)
    common.emit(args, {"number": number}, f"generation {number} is gone")
    return 0
