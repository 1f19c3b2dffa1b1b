"""``snaptx verify``: is everything what its record says?"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Callable

from snaptx import verify
from snaptx.apps import mend
from snaptx.cli import common
from snaptx.errors import SnaptxError, VerifyError
from snaptx.machine import Machine
from snaptx.verify import Problem

SHOWN = 20


def add_arguments(parser: ArgumentParser) -> None:
    """Add the verb's arguments."""
    common.add_number(parser, "the generation (default: the newest)")


def _of_generation(
    machine: Machine, wanted: int | None, progress: Callable[[int, int], None]
) -> tuple[int, list[Problem]]:
    """Return which generation was checked, if none is named the newest that stays, and what is wrong."""
    if wanted is not None:
        return wanted, list(verify.generation(machine, wanted, progress))
    while True:
        number = verify.newest(machine)
        try:
            found = list(verify.generation(machine, number, progress))
        except (SnaptxError, OSError):
            if machine.generations.has(number):
                raise
        if machine.generations.has(number):
            return number, found


def run(args: Namespace) -> int:
    """Check one generation and snaptx's own state; without a number also what applications are at."""
    machine = common.machine(args)
    with common.Progress(args, "verifying") as progress:
        problems = [*verify.state(machine), *mend.problems(machine)]
        number, found = _of_generation(machine, args.number, progress)
        problems += found
        if args.number is None:
            problems += mend.differences(machine, progress)
    sound = f"generation {number} is what its manifest says, and snaptx's state is consistent"
    lines = [f"{problem.where}: {problem.what}" for problem in problems[:SHOWN]]
    message, hint = f"{len(problems)} problem(s) found", "'snaptx repair' mends snaptx's own state"
    failure = VerifyError(message, hint=hint) if problems else None
    common.emit(args, {"generation": number, "problems": problems}, lines or sound, failure)
    return 0
