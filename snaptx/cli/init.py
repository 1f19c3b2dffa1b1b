"""``snaptx init``: adopt the root."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from snaptx import initialise
from snaptx.cli import common


def add_arguments(parser: ArgumentParser) -> None:
    """Add the verb's arguments."""
    common.add_unchanged(parser)


def run(args: Namespace) -> int:
    """Adopt the root, or say that this was done."""
    machine = common.machine(args, adopted=False)
    if initialise.is_complete(machine):
        common.emit(args, {"changed": False}, f"{machine.sysroot} is managed by snaptx already")
        return common.unchanged(args)
    plan = initialise.plan(machine)
    if args.dry_run:
        common.emit(args, plan, ["would:", *(f"  - {step}" for step in plan.steps)])
        return 0
    with common.Progress(args, "indexing") as progress:
        record = initialise.initialise(machine, common.request(args), progress)
    common.emit(args, {"changed": True, "generation": record}, f"generation 1 is {plan.root}, as it is")
    return 0
