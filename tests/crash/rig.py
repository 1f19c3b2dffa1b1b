"""Judges points of a recording, on as many workers as told, each with a disk and mounts of its own."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.crash import flow, judge, settle
from tests.crash.bench import Bench, Part
from tests.crash.helper import answers
from tests.crash.loop import leave_for_private_mounts, loop_device
from tests.crash.replay import Cut, Log, Point, Replayer, shown

CHUNK = 12
"""Cuts a worker takes at a time: neighbours, because going forward in the log is cheap."""

WORKERS = 4
"""They wait for mounts more than they compute."""


@dataclass(frozen=True, slots=True)
class Failure:
    """What is wrong at one cut."""

    cut: Cut
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


def run(task: Task, chosen: Sequence[Cut], workers: int = WORKERS, stop_after: int = 20) -> Report:
    """Judge points on ``workers`` processes; stop early after ``stop_after`` failures."""
    begun = time.monotonic()
    report = Report(flow.load(task.directory).flow)
    size = CHUNK if stop_after > 1 else 2
    chunks = [chosen[at : at + size] for at in range(0, len(chosen), size)]
    requests = [" ".join(map(shown, chunk)) for chunk in chunks]
    words = (str(task.directory), str(task.check))
    with closing(answers(requests, workers, "tests.crash.worker", *words)) as found:
        for number, line in found:
            results = map(Failure, chunks[number], map(tuple, json.loads(line)))
            report.points += len(chunks[number])
            report.failures += [failure for failure in results if failure.problems]
            if len(report.failures) >= stop_after:
                break
    report.seconds = time.monotonic() - begun
    return report


@dataclass(frozen=True, slots=True)
class Recording:
    """A recording on a bench."""

    facts: flow.Facts
    logs: Sequence[Log]
    replayers: Sequence[Replayer]
    bench: Bench

    def judge(self, cut: Cut) -> tuple[str, ...]:
        """Return what is wrong at a cut."""
        if len(cut) != len(self.logs):
            return (f"{shown(cut)} is not a cut of {' and '.join(self.facts.disks)}",)
        # Marks are in every log.
        state = judge.progress(self.facts, self.logs[0], cut[0].cut)
        return self.bench.judge(state, lambda: self.make(cut))

    def make(self, cut: Cut) -> None:
        """Make the disks of a cut."""
        for replayer, point in zip(self.replayers, cut, strict=True):
            replayer.make(point)


def logs(directory: Path) -> list[Log]:
    """Return the logs of a recording, one for each disk."""
    return [Log(flow.log(directory, disk)) for disk in flow.load(directory).disks]


@contextmanager
def opened(task: Task, place: Path) -> Iterator[Recording]:
    """Put a recording on a bench in the directory ``place``; leaves this process with mounts of its own."""
    settle.load()
    leave_for_private_mounts()
    with ExitStack() as stack:
        facts = flow.load(task.directory)
        replayers, parts = [], []
        for name, log in zip(facts.disks, logs(task.directory), strict=True):
            base = flow.base(task.directory, name)
            replayer = Replayer(base, log, place / f"{name}.trunk", place / f"{name}.work")
            stack.callback(replayer.close)
            replayer.make(Point(0))
            replayers.append(replayer)
            parts.append(Part(stack.enter_context(loop_device(replayer.work)), replayer.work))
        bench = Bench(place, parts[0].device, parts[0].image, facts.uuid, task.check, *parts[1:])
        yield Recording(facts, [replayer.log for replayer in replayers], replayers, bench)


def keep(directory: Path, place: Path) -> Path:
    """Keep a recording for later; return where."""
    target = place / f"{directory.name}-{int(time.time())}"
    shutil.copytree(directory, target)
    return target


def lines(failures: Iterable[Failure], directory: Path) -> Iterator[str]:
    """Yield the failures in words, each with the command that shows it again."""
    for failure in failures:
        yield f"python -m tests.crash point {directory} {shown(failure.cut)}"
        yield from (f"    {problem}" for problem in failure.problems)
