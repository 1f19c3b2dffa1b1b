"""``snaptx confirm``: judge a generation."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Iterator

from snaptx import confirm, transaction
from snaptx.cli import common, options
from snaptx.confirm import Confirmed
from snaptx.errors import HealthError, UsageError
from snaptx.model import Verdict


def add_arguments(parser: ArgumentParser) -> None:
    """Add the verb's arguments."""
    common.add_number(parser, "the generation (default: the running one)")
    parser.add_argument(
        "--bad", nargs="?", const="by hand", metavar="REASON", help="judge it bad, without checks"
    )
    parser.add_argument(
        "--wait",
        type=common.seconds,
        default=0.0,
        metavar="SECONDS",
        help="wait for another snaptx to end, at most so long",
    )
    common.add_unchanged(parser)


def _lines(done: Confirmed, program: str) -> Iterator[str]:
    for failure in done.failures:
        yield f"{'failed' if failure.required else 'warning'}: {failure.name}: {failure.reason}"
    yield f"generation {done.number} is {done.verdict}; generation {done.default} boots next"
    if done.verdict is Verdict.BAD and done.default == done.number:
        yield f"there is no other good generation to go to: '{program} rollback N' takes one all the same"


def run(args: Namespace) -> int:
    """Run the health checks, or take the administrator's word."""
    if args.number is None and args.bad and args.bad.isdigit():
        raise UsageError(
            f"{args.bad} is no reason", hint=f"as in: snaptx confirm {args.bad} --bad 'it is slow'"
        )
    machine = common.machine(args)
    number = confirm.choose(machine, args.number)
    verdict = machine.generations.read(number).verdict
    if args.bad is None and verdict is Verdict.GOOD:
        common.emit(args, {"number": number, "verdict": verdict}, f"generation {number} is good already")
        return common.unchanged(args)
    if args.dry_run:
        how = "bad" if args.bad is not None else "by its checks" if number == machine.booted else "good"
        common.emit(args, {"number": number}, f"would judge generation {number} {how}, which is {verdict}")
        return 0
    with transaction.exclusive(machine, args.verb, args.wait):
        done = confirm.confirm(machine, common.request(args), number, bad=args.bad)
    failed = args.bad is None and done.verdict is Verdict.BAD
    common.emit(args, done, _lines(done, options.program(args.sysroot)), _failure(number) if failed else None)
    return 0


def _failure(number: int) -> HealthError:
    hint = "'snaptx log --json' keeps the reasons"
    return HealthError(f"generation {number} failed its health checks", hint=hint)
