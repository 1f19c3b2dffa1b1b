"""Power cuts at very many points of every verb: ``python -m tests.crash [--points N] [--seed N]``.

``python -m tests.crash point DIRECTORY POINT`` judges one point of a kept recording again.
"""

from __future__ import annotations

import argparse
import random
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from snaptx import system
from tests.crash import controls, flow, injury, strike
from tests.crash.logfile import LogError
from tests.crash.loop import leave_for_private_mounts
from tests.crash.points import chosen
from tests.crash.replay import Cut, parse_cut
from tests.crash.rig import WORKERS, Report, Task, keep, lines, logs, opened, run
from tests.crash.scratch import scratch
from tests.crash.world import FLOWS

CHECK_EVERY = 50
SHOWN = 5
STRIKES = ("read-only", "space", "quota")
"""What befalls the file system at more points than the steps."""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.crash", description="Cut the power everywhere.")
    parser.add_argument(
        "--points", type=int, default=20_000, help="how many, over all flows; 0: no cuts, only errors"
    )
    parser.add_argument(
        "--seed", type=int, default=None, help="chooses the torn points; printed if not given"
    )
    parser.add_argument("--workers", type=int, default=WORKERS)
    parser.add_argument("--flow", action="append", choices=sorted(FLOWS), help="only this one")
    parser.add_argument("--check", type=int, default=CHECK_EVERY, help="btrfs check on every N-th point")
    parser.add_argument(
        "--stride", type=int, default=3, help="errors at every N-th write, and more; 0: no errors, only cuts"
    )
    verbs = parser.add_subparsers(dest="verb")
    one = verbs.add_parser("point", help="judge one point again")
    one.add_argument("directory", type=Path)
    one.add_argument("point", type=parse_cut)
    every = verbs.add_parser("controls", help="take every barrier and fsync away, one at a time")
    every.add_argument("--needed", action="store_true", help="leave out what is known to be missed by nobody")
    return parser


def main() -> int:
    """Run what the command line says; 1 if anything is wrong."""
    args = _parser().parse_args()
    if args.verb == "point":
        return _again(args.directory, args.point)
    if args.verb == "controls":
        return _controls(args.flow or list(FLOWS), spare=not args.needed)
    seed = random.SystemRandom().randrange(1 << 31) if args.seed is None else args.seed
    print(f"seed {seed}", flush=True)
    begun, failed, total = time.monotonic(), 0, 0
    for report in _reports(args, seed) if args.points else ():
        failed += len(report.failures)
        total += report.points
    for name in (args.flow or FLOWS) if args.stride else ():
        if FLOWS[name].takes_errors:
            failed += _injured(name, args.stride, args.workers)
    print(f"{total} points, {failed} failures, {time.monotonic() - begun:.0f} s, seed {seed}")
    return bool(failed)


def _again(directory: Path, point: Cut) -> int:
    """Print what is wrong at one point; 1 if something is, 2 if the recording is not whole."""
    try:
        with scratch() as place, opened(Task(directory, check=1), place) as bench:
            problems = bench.judge(point)
    except (LogError, FileNotFoundError) as error:
        print(f"{directory} can't be judged: {error}", file=sys.stderr)
        return 2
    print("\n".join(problems) or "nothing is wrong")
    return bool(problems)


def _reports(args: argparse.Namespace, seed: int) -> Iterator[Report]:
    """Judge every flow as it is, and with a commit of each disk after every change; tell of each."""
    names = args.flow or list(FLOWS)
    share = -(-args.points // sum(1 + len(FLOWS[name].disks) for name in names))
    for name in names:
        for hasty in ("", *FLOWS[name].disks):
            yield _judged(name, hasty, share, seed, args)


def _judged(name: str, hasty: str, count: int, seed: int, args: argparse.Namespace) -> Report:
    with scratch() as place:
        directory = place / f"{name}{f'-hasty-{hasty}' * bool(hasty)}"
        flow.record(name, directory, hasty=hasty)
        report = run(Task(directory, args.check), chosen(logs(directory), count, seed), args.workers)
        print(f"{directory.name:20} {report.points:6} points {report.seconds:6.0f} s", end="  ")
        print(f"{len(report.failures)} failures", flush=True)
        if report.failures:
            kept = keep(directory, Path(tempfile.gettempdir()))
            print(*lines(report.failures[:SHOWN], kept), sep="\n", flush=True)
    return report


def _injured(name: str, stride: int, workers: int) -> int:
    """Let every flush and every ``stride``-th write fail, and more; return how often that was told wrongly.

    Reads come in long rows; what is full or limited is so at every step too.
    """
    strides = {"flush": 1, "write": stride, "read": 3 * stride, **dict.fromkeys(STRIKES, stride)}
    with scratch() as place:
        flow.record(name, place / name)
        (whole,) = injury.attempt(place / name, [injury.Injury("write", 0)])
        wanted = list(dict.fromkeys([*whole.everywhere(strides), *whole.at_steps(strike.KINDS)]))
        outcomes = injury.attempt(place / name, wanted, workers)
    wrong = [outcome for outcome in outcomes if outcome.problems]
    print(f"{name + ', errors':20} {len(outcomes):6} injuries  {len(wrong)} failures", flush=True)
    for outcome in wrong[:SHOWN]:
        print(f"    {outcome.injury}: exit code {outcome.code}: {'; '.join(outcome.problems)}", flush=True)
    return len(wrong)


def _controls(names: list[str], *, spare: bool) -> int:
    """Print the table of barriers and fsyncs; 1 if one is missed by nobody and no reason is known."""
    unexplained = 0
    for name in names:
        with scratch() as place:
            for control in controls.all_of(name, place, spare=spare):
                told = control.noticed or f"spare: {controls.reason(name, control.label)}"
                unexplained += told == "spare: "
                print(f"{name:14} {control.label:32} {told}", flush=True)
    return int(unexplained > 0)


def _interrupted(*_: object) -> None:
    """End in good order, and only once: a terminal's signal may come from elsewhere too."""
    for number in system.HELD:
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


if __name__ == "__main__":
    leave_for_private_mounts()
    for number in system.HELD:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _interrupted)
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
