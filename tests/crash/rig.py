"""Judges points of a recording, on as many workers as told, each with a disk and mounts of its own."""

from __future__ import annotations

import multiprocessing
import os
import random
import shutil
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from snaptx import system
from tests.crash import flow, judge, settle
from tests.crash.bench import Bench
from tests.crash.loop import leave_for_private_mounts, loop_device
from tests.crash.replay import Log, Point, Replayer
from tests.crash.scratch import scratch

CHUNK = 12
"""Points a worker takes at a time: neighbours, because going forward in the log is cheap."""


SUPERBLOCKS = (64 << 10, 64 << 20)
"""Where Btrfs keeps them on a disk of this size."""

WORKERS = 4
"""They wait for mounts more than they compute."""


@dataclass(frozen=True, slots=True)
class Failure:
    """What is wrong at one point."""

    point: Point
    problems: tuple[str, ...]


@dataclass
class Report:
    """What came of judging a recording."""

    flow: str
    points: int = 0
    seconds: float = 0.0
    failures: list[Failure] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Task:
    """A recording, and whether ``btrfs check`` looks at the disks too: every ``check``-th, 0 for none."""

    directory: Path
    check: int = 0
    place: Path | None = None


def points(log: Log, span: tuple[int, int], count: int, seed: int) -> list[Point]:
    """Return every flush boundary, every write in its order, every split of the superblocks, and more.

    Seeded ones fill up to ``count``.  No two are the same disk at the same stage.
    """
    begin, end = span
    found: dict[tuple[int, int], Point] = {}
    boundaries = [n + 1 for n in log.flushes if begin <= n < end]
    ordered = [n + 1 for n in range(begin, end) if log.entries[n].is_change]
    for cut in [begin, *boundaries, *ordered, end]:
        _add(found, log, Point(cut))
    for cut in ordered:
        _add(found, log, _split(log, cut) or Point(cut))
    rng = random.Random(seed)
    torn = [cut for cut in range(begin, end + 1) if len(log.pending(cut)) > 0]
    misses = 0
    while torn and len(found) < count and misses < 10 * count:
        misses += not _add(found, log, Point(rng.choice(torn), rng.randrange(1 << 31)))
    return sorted(found.values(), key=lambda point: (point.cut, point.seed or 0))


def _split(log: Log, cut: int) -> Point | None:
    """Return the point where only the second of two superblocks is written.

    GRUB reads the newest of them, the kernel the first.
    """
    pending = log.pending(cut)
    if tuple(entry.offset for entry in pending) != SUPERBLOCKS:
        return None
    seeded = (Point(cut, seed) for seed in range(1000))
    return next(point for point in seeded if [piece.offset for piece in log.kept(point)] == [SUPERBLOCKS[1]])


def _add(found: dict[tuple[int, int], Point], log: Log, point: Point) -> bool:
    """Add a point unless one that leaves the same disk, at the same stage of the verb, is there."""
    marks = sum(1 for entry in log.entries[: point.cut] if entry.text)
    key = (marks, log.disk(point))
    if key in found:
        return False
    found[key] = point
    return True


def run(task: Task, chosen: Sequence[Point], workers: int = WORKERS, stop_after: int = 20) -> Report:
    """Judge points on ``workers`` processes; stop early after ``stop_after`` failures."""
    begun = time.monotonic()
    facts = flow.load(task.directory)
    report = Report(facts.flow)
    chunks = [chosen[at : at + CHUNK] for at in range(0, len(chosen), CHUNK)]
    context = multiprocessing.get_context("spawn")
    with ExitStack() as stack:
        place = stack.enter_context(scratch())
        pool = stack.enter_context(context.Pool(workers, _start, (replace(task, place=place),)))
        for results in pool.imap_unordered(_work, chunks):
            report.points += len(results)
            report.failures += [failure for failure in results if failure.problems]
            if len(report.failures) >= stop_after:
                break
    report.seconds = time.monotonic() - begun
    return report


@dataclass(frozen=True, slots=True)
class Recording:
    """A recording on a bench."""

    facts: flow.Facts
    log: Log
    replayer: Replayer
    bench: Bench

    def judge(self, point: Point) -> tuple[str, ...]:
        """Return what is wrong at a point."""
        state = judge.progress(self.facts, self.log, point.cut)
        return self.bench.judge(state, lambda: self.replayer.make(point))


_here: list[Recording] = []
_open = ExitStack()


def _start(task: Task) -> None:
    system.die_with_parent()
    _here.append(_open.enter_context(opened(task)))


def _work(chunk: Sequence[Point]) -> list[Failure]:
    return [Failure(point, _here[0].judge(point)) for point in chunk]


@contextmanager
def opened(task: Task) -> Iterator[Recording]:
    """Put a recording on a bench; leaves this process with mounts of its own."""
    settle.load()
    leave_for_private_mounts()
    with _place(task) as place, ExitStack() as stack:
        log = Log(task.directory / "log")
        replayer = Replayer(task.directory / "base.img", log, place / "trunk", place / "work")
        stack.callback(replayer.close)
        replayer.make(Point(0))
        device = stack.enter_context(loop_device(replayer.work))
        facts = flow.load(task.directory)
        yield Recording(facts, log, replayer, Bench(place, device, replayer.work, facts.uuid, task.check))


@contextmanager
def _place(task: Task) -> Iterator[Path]:
    if task.place is None:
        with scratch() as place:
            yield place
    else:
        place = task.place / str(os.getpid())
        place.mkdir()
        yield place


def keep(directory: Path, place: Path) -> Path:
    """Keep a recording for later; return where."""
    target = place / f"{directory.name}-{int(time.time())}"
    shutil.copytree(directory, target)
    return target


def lines(failures: Iterable[Failure], directory: Path) -> Iterator[str]:
    """Yield the failures in words, each with the command that shows it again."""
    for failure in failures:
        yield f"python -m tests.crash point {directory} {failure.point}"
        yield from (f"    {problem}" for problem in failure.problems)
