"""Power cuts at very many points of every verb: ``python -m tests.crash [--points N] [--seed N]``.

``python -m tests.crash point DIRECTORY POINT`` judges one point of a kept recording again.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from tests.crash import controls, flow, injury
from tests.crash.loop import leave_for_private_mounts
from tests.crash.replay import Log, parse_point
from tests.crash.rig import WORKERS, Report, Task, keep, lines, opened, points, run
from tests.crash.scratch import scratch
from tests.crash.world import FLOWS

CHECK_EVERY = 50
SHOWN = 5
SWITCHING = ("commit", "rollback", "activate", "confirm", "reject", "prune", "abort")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.crash", description="Cut the power everywhere.")
    parser.add_argument("--points", type=int, default=20_000, help="how many, over all flows")
    parser.add_argument(
        "--seed", type=int, default=None, help="chooses the torn points; printed if not given"
    )
    parser.add_argument("--workers", type=int, default=WORKERS)
    parser.add_argument("--flow", action="append", choices=sorted(FLOWS), help="only this one")
    parser.add_argument("--check", type=int, default=CHECK_EVERY, help="btrfs check on every N-th point")
    parser.add_argument(
        "--stride", type=int, default=3, help="fail every N-th write; 0: no errors, only cuts"
    )
    verbs = parser.add_subparsers(dest="verb")
    one = verbs.add_parser("point", help="judge one point again")
    one.add_argument("directory", type=Path)
    one.add_argument("point", type=parse_point)
    verbs.add_parser("controls", help="take every barrier and fsync away, one at a time")
    return parser


def main() -> int:
    """Run what the command line says; 1 if anything is wrong."""
    args = _parser().parse_args()
    if args.verb == "point":
        with opened(Task(args.directory, check=1)) as bench:
            problems = bench.judge(args.point)
        print("\n".join(problems) or "nothing is wrong")
        return bool(problems)
    if args.verb == "controls":
        return _controls(args.flow or list(FLOWS))
    seed = random.SystemRandom().randrange(1 << 31) if args.seed is None else args.seed
    print(f"seed {seed}", flush=True)
    begun, failed, total = time.monotonic(), 0, 0
    for report in _reports(args, seed):
        failed += len(report.failures)
        total += report.points
    for name in [name for name in SWITCHING if args.stride and name in (args.flow or FLOWS)]:
        failed += _injured(name, args.stride)
    print(f"{total} points, {failed} failures, {time.monotonic() - begun:.0f} s, seed {seed}")
    return bool(failed)


def _reports(args: argparse.Namespace, seed: int) -> Iterator[Report]:
    """Judge every flow as it is and with a commit after every change; tell of each."""
    names = args.flow or list(FLOWS)
    share = -(-args.points // (2 * len(names)))
    for name in names:
        for hasty in (False, True):
            yield _judged(name, hasty, share, seed, args)


def _judged(name: str, hasty: bool, count: int, seed: int, args: argparse.Namespace) -> Report:
    with scratch() as place:
        directory = place / f"{name}{'-hasty' * hasty}"
        facts = flow.record(name, directory, hasty=hasty)
        log = Log(directory / "log")
        chosen = points(log, log.span("begin 1", f"end {len(facts.steps)}"), count, seed)
        report = run(Task(directory, args.check), chosen, args.workers)
        print(f"{directory.name:20} {report.points:6} points {report.seconds:6.0f} s", end="  ")
        print(f"{len(report.failures)} failures", flush=True)
        if report.failures:
            kept = keep(directory, Path(tempfile.gettempdir()))
            print(*lines(report.failures[:SHOWN], kept), sep="\n", flush=True)
    return report


def _injured(name: str, stride: int) -> int:
    """Let every flush and every ``stride``-th write fail; return how often that was told wrongly."""
    with scratch() as place:
        flow.record(name, place / name)
        (whole,) = injury.attempt(place / name, [injury.Injury("write", 0, False)])
        outcomes = injury.attempt(place / name, injury.everywhere(whole.counts, stride))
    wrong = [outcome for outcome in outcomes if outcome.problems]
    print(f"{name + ', errors':20} {len(outcomes):6} injuries  {len(wrong)} failures", flush=True)
    for outcome in wrong[:SHOWN]:
        print(f"    {outcome.injury}: exit code {outcome.code}: {'; '.join(outcome.problems)}", flush=True)
    return len(wrong)


def _controls(names: list[str]) -> int:
    """Print the table of barriers and fsyncs; 1 if one is missed by nobody and no reason is known."""
    unexplained = 0
    for name in names:
        with scratch() as place:
            for control in controls.all_of(name, place):
                told = control.noticed or f"spare: {controls.reason(name, control.label)}"
                unexplained += told == "spare: "
                print(f"{name:14} {control.label:32} {told}", flush=True)
    return int(unexplained > 0)


if __name__ == "__main__":
    leave_for_private_mounts()
    sys.exit(main())
