"""``snaptx prune``: remove old generations."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from snaptx import prune, transaction
from snaptx.apps import logs
from snaptx.cli import common


def add_arguments(parser: ArgumentParser) -> None:
    """Add the verb's arguments."""
    parser.add_argument(
        "numbers",
        nargs="*",
        type=common.generation,
        metavar="N",
        help="these generations (default: by the rules)",
    )
    parser.add_argument(
        "--keep",
        type=common.count,
        metavar="COUNT",
        help="how many of the newest stay (default: as configured)",
    )
    common.add_unchanged(parser)


def run(args: Namespace) -> int:
    """Remove what the rules let go, or the generations named."""
    if args.numbers:
        common.exclusive("numbers", {"--keep": args.keep is not None})
    machine = common.machine(args)
    if args.dry_run:
        plan = prune.plan(machine, args.numbers, args.keep)
        names = ", ".join(map(str, plan.expendable)) or "nothing"
        common.emit(
            args,
            plan,
            [f"would remove: {names}", *(f"stays: {n} ({why})" for n, why in plan.protected.items())],
        )
        return 0 if plan.expendable else common.unchanged(args)
    with transaction.exclusive(machine, args.verb):
        plan = prune.plan(machine, args.numbers, args.keep)
        done = prune.prune(machine, common.request(args), plan.expendable)
    logs.bound_all(machine.sysroot)
    lines = [f"removed: {', '.join(map(str, done.removed)) or 'nothing'}"]
    lines += [f"still in use, left: {', '.join(map(str, done.busy))}"] if done.busy else []
    common.emit(args, done, lines)
    return 0 if done.removed else common.unchanged(args)
