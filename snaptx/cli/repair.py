"""``snaptx repair``: put right what can be put right."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from snaptx import repair, verify
from snaptx.cli import common


def add_arguments(parser: ArgumentParser) -> None:
    """Add the verb's arguments."""
    common.add_unchanged(parser)


def run(args: Namespace) -> int:
    """Repair, and say what was done."""
    machine = common.machine(args)
    if args.dry_run:
        problems = list(verify.state(machine))
        lines = [f"{problem.where}: {problem.what}" for problem in problems]
        common.emit(args, {"problems": problems}, lines or "nothing to repair")
        return 0
    done = repair.repair(machine, common.request(args))
    common.emit(args, {"done": done}, done or "nothing to repair")
    return 0 if done else common.unchanged(args)
