"""``snaptx pin``: protect a generation from prune."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from snaptx import pin, transaction
from snaptx.cli import common


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
    machine.generations.read(args.number)
    word = "pinned" if pinned else "not pinned"
    if args.dry_run:
        common.emit(
            args, {"number": args.number, "pinned": pinned}, f"generation {args.number} would be {word}"
        )
        return 0
    with transaction.exclusive(machine, args.verb):
        changed = pin.pin(machine, common.request(args), args.number, pinned=pinned)
    common.emit(
        args,
        {"number": args.number, "pinned": pinned, "changed": changed},
        f"generation {args.number} is {word}",
    )
    return 0 if changed else common.unchanged(args)
