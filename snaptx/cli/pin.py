"""``snaptx pin``: protect a generation from prune."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from snaptx import pin, transaction
from snaptx.cli import common
from snaptx.machine import Machine


def add_arguments(parser: ArgumentParser) -> None:
    """Add the verb's arguments."""
    parser.add_argument("number", type=common.generation, metavar="N", help="the generation")
    common.add_unchanged(parser)


def run(args: Namespace) -> int:
    """Pin."""
    return perform(args, pinned=True)


def perform(args: Namespace, *, pinned: bool) -> int:
    """Pin or unpin a generation."""
    machine = common.machine(args)
    due = machine.generations.read(args.number).pinned != pinned
    word = "pinned" if pinned else "not pinned"
    if args.dry_run and due:
        common.emit(
            args, {"number": args.number, "pinned": pinned}, f"generation {args.number} would be {word}"
        )
        return 0
    changed = not args.dry_run and _pin(args, machine, pinned)
    common.emit(
        args,
        {"number": args.number, "pinned": pinned, "changed": changed},
        f"generation {args.number} is {word}",
    )
    return 0 if changed else common.unchanged(args)


def _pin(args: Namespace, machine: Machine, pinned: bool) -> bool:
    with transaction.exclusive(machine, args.verb):
        return pin.pin(machine, common.request(args), args.number, pinned=pinned)
