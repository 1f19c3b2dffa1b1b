"""``snaptx rollback``: go back."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from snaptx import rollback, transaction
from snaptx.cli import common
from snaptx.machine import Machine


def add_arguments(parser: ArgumentParser) -> None:
    """Add the verb's arguments."""
    common.add_number(
        parser, "the generation (default: the running one if another boots next, else the last good)"
    )
    parser.add_argument(
        "--as-used", action="store_true", help="take its root as it was last used, not as it was committed"
    )
    common.add_message(parser, common.IN_THE_MENU)


def run(args: Namespace) -> int:
    """Make an earlier generation boot next."""
    machine = common.machine(args)
    if args.dry_run:
        number = rollback.choose(machine, args.number, as_used=args.as_used)
        common.emit(
            args, {"content": number}, f"would go back to generation {number}, {_how(args, machine, number)}"
        )
        return 0
    with transaction.exclusive(machine, args.verb):
        done = rollback.rollback(machine, common.request(args), args.number, as_used=args.as_used)
    origin = "" if done.content == done.number else f", with the content of {done.content}"
    text = f"generation {done.number} boots next{origin} (before: {done.previous})"
    common.emit(args, done, f"{text}; {common.pause(done.switch_seconds)}")
    return 0


def _how(args: Namespace, machine: Machine, number: int) -> str:
    if not rollback.stays(machine, number, args.as_used):
        return "by a new generation, with its content as it was committed"
    return "as it was last used" if number != machine.booted else "as it runs"
