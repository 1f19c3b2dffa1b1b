"""The benchmark of the live switch: how long it takes, and what a reader sees of it.

    python -m tests.bench_live [--files 1000,10000,100000] [--switches 1000] [--consistency COUNT]

For each size there are two generations that differ in so many files of /usr, and in /opt.
They are switched to and fro; measured are the calls that the switch consists of (for each
of the two directories: mount beneath, detach), how long after the beginning of the first one
a reader on another core, which opens a file of each in a tight loop, has the new /usr, for
how long it sees one of them new and the other old, the longest time that it needs for one
round during a switch and without any, and the whole command.
A call that detaches goes on when the new tree is there: the kernel waits until no
processor looks at the old mount any more, which a reader in a loop makes longer;
so the calls are also measured without one.
The reader ends with an error if a file is ever missing.
``--consistency`` counts how often 18 files that belong together are seen mixed.
"""

from __future__ import annotations

import argparse
import bisect
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from snaptx import machine, scene
from snaptx.machine import Machine
from snaptx.model import Part, Tree
from snaptx.running import trees
from snaptx.running.trees import Step
from tests.boxes import Box, made

COMMANDS = 10
PER_DIRECTORY = 500

PATHS = ("/usr", "/opt")
LATE = 1e-3
"""Seconds that a reader should not wait for a new tree."""

SETTLE = 5.0
"""Seconds for what staging has left to the kernel to do."""

READER = """
import json, os, sys, time
root, longest, count, moments, apart, last, since, idle = sys.argv[1], [], 0, [], [], None, None, 0
places = [root + "/usr/share/bench/0/0", root + "/opt/bench"]
os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
os.set_blocking(0, False)
print("ready", flush=True)

def tree(path):
    fd = os.open(path, os.O_RDONLY)
    try:
        return os.fstat(fd).st_dev
    finally:
        os.close(fd)

while True:
    begun = time.perf_counter()
    usr = tree(places[0])
    seen = time.perf_counter()
    opt = tree(places[1])
    ended = time.perf_counter()
    longest.append(ended - begun)
    count += 1
    if usr != last:
        before, idle = idle, seen - time.thread_time()
        moments.append([seen, idle - before])
        last = usr
    if (usr != opt) != (since is not None):
        apart += [] if since is None else [ended - since]
        since = ended if since is None else None
    if count % 1000 == 0:
        longest = sorted(longest)[-1000:]
        try:
            os.read(0, 1)
            break
        except BlockingIOError:
            pass
print(json.dumps({"rounds": count, "longest": longest, "moments": moments, "apart": apart}))
"""
"""Prints its rounds, the longest of them, when it saw a new /usr with the seconds
that others had its processor since the last time, and how long both differed each time."""


FOLLOWER = """
import json, os, sys
root, rounds, by_path, by_directory = sys.argv[1], 0, 0, 0
names = [str(number) for number in range(18)]  # a program and its 17 libraries
os.set_blocking(0, False)
print("ready", flush=True)

def read(name, directory=None):
    fd = os.open(name, os.O_RDONLY, dir_fd=directory)
    try:
        return os.read(fd, 9)
    finally:
        os.close(fd)

while True:
    rounds += 1
    by_path += len({read(f"{root}/usr/share/bench/0/{name}") for name in names}) > 1
    directory = os.open(root + "/usr", os.O_RDONLY | os.O_DIRECTORY)
    by_directory += len({read(f"share/bench/0/{name}", directory) for name in names}) > 1
    os.close(directory)
    try:
        os.read(0, 1)
        break
    except BlockingIOError:
        pass
print(json.dumps({"rounds": rounds, "by_path": by_path, "by_directory": by_directory}))
"""


@dataclass(frozen=True)
class Spread:
    """Times in microseconds."""

    median: float
    p99: float
    p999: float
    worst: float

    @classmethod
    def of(cls, seconds: Sequence[float]) -> Spread:
        """Return the spread of times in seconds."""
        ordered = [round(1e6 * value, 1) for value in sorted(seconds)]
        at = [ordered[math.ceil(len(ordered) * part) - 1] for part in (0.5, 0.99, 0.999, 1)]
        return cls(*at)


@dataclass(frozen=True)
class Result:
    """What was measured for one size."""

    files: int
    switches: int
    calls: Spread
    calls_beside_reader: Spread
    seen: Spread
    apart: Spread
    late: int
    late_for_others: int
    reader_rounds: int
    reader_p999: float
    reader_worst: float
    idle_p999: float
    idle_worst: float
    command: Spread


def fill(directory: Path, count: int, word: str) -> None:
    """Make ``count`` small files."""
    for number in range(count):
        place = directory / str(number // PER_DIRECTORY)
        if number % PER_DIRECTORY == 0:
            place.mkdir(parents=True, exist_ok=True)
        (place / str(number)).write_text(word)


@contextmanager
def prepared(files: int) -> Iterator[Box]:
    """Give a sandbox with generations 2 and 3, which differ from 1 and each other in ``files`` files."""
    with tempfile.TemporaryDirectory() as name:
        payloads = []
        for number in (2, 3):
            payloads.append(Path(name) / str(number))
            fill(payloads[-1] / "usr/share/bench", files, f"{number}\n")
            (payloads[-1] / "opt").mkdir()
            (payloads[-1] / "opt/bench").write_text(f"{number}\n")
        with made(size=(1 << 30) + files * 20_000) as box:
            (box.root / "opt").mkdir(exist_ok=True)
            for payload in payloads:
                box.ok("apply", "--base", "1", str(payload))
            box.ok("live", "2")
            subprocess.run(["sync", "-f", box.root], check=True)
            time.sleep(SETTLE)
            yield box
            box.ok("live", "--off")


@contextmanager
def reading(root: Path, found: dict[str, Any], code: str = READER) -> Iterator[None]:
    """Let a reader work below ``root`` meanwhile; ``found`` gets what it prints."""
    words = [sys.executable, "-c", code, str(root)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as reader:
        assert reader.stdout
        reader.stdout.readline()
        yield
        said, _ = reader.communicate("x")
        assert reader.returncode == 0, "a file was missing"
        found |= json.loads(said)


def switches(box: Box, one: Machine, count: int) -> list[tuple[float, float]]:
    """Switch to and fro, on the first core; return beginning and end of each."""
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    try:
        return [_switched(box, one, 3 - index % 2) for index in range(count)]
    finally:
        os.sched_setaffinity(0, cores)


def _switched(box: Box, one: Machine, number: int) -> tuple[float, float]:
    info = one.storage.describe(Tree(number, Part.ROOT))
    assert info
    fresh = trees.prepare(info.mount, scene.look(one).root, PATHS, {})
    begun = time.perf_counter()
    trees.switch([Step(f"{box.root}{path}", 1, fd) for path, fd in fresh.items()])
    ended = time.perf_counter()
    for fd in fresh.values():
        os.close(fd)
    return begun, ended


def consistency(count: int) -> None:
    """Say what is seen of 18 files that belong together, by full paths and below an open directory."""
    found: dict[str, Any] = {}
    with prepared(PER_DIRECTORY) as box, reading(box.root, found, FOLLOWER):
        switches(box, machine.open_machine(box.root), count)
    print(
        f"{count} switches, {found['rounds']} rounds of 18 files:"
        f" {found['by_path']} mixed by path, {found['by_directory']} by directory"
    )


def commands(box: Box) -> list[float]:
    """Return the seconds of whole commands."""
    taken = []
    for index in range(COMMANDS):
        words = [sys.executable, "-m", "snaptx", "--sysroot", str(box.root), "live", str(2 + index % 2)]
        begun = time.perf_counter()
        subprocess.run(words, check=True, stdout=subprocess.DEVNULL)
        taken.append(time.perf_counter() - begun)
    return taken


def measure(files: int, count: int) -> Result:
    """Measure one size."""
    busy: dict[str, Any] = {}
    idle: dict[str, Any] = {}
    with prepared(files) as box:
        one = machine.open_machine(box.root)
        alone = switches(box, one, count)
        with reading(box.root, busy):
            taken = switches(box, one, count)
        with reading(box.root, idle):
            time.sleep(max(1.0, sum(end - begun for begun, end in taken)))
        whole = commands(box)
    calls, beside = (Spread.of([end - begun for begun, end in pairs]) for pairs in (alone, taken))
    after = _after([begun for begun, _ in taken], busy["moments"])
    spreads = (calls, beside, Spread.of([delay for delay, _ in after]), Spread.of(busy["apart"] or [0.0]))
    late = [others for delay, others in after if delay > LATE]
    counts = (len(late), sum(others > LATE for others in late), int(busy["rounds"]))
    return Result(files, count, *spreads, *counts, *_tail(busy), *_tail(idle), Spread.of(whole))


def _after(begins: Sequence[float], moments: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return how long after each beginning the reader had the new tree, and how long it did not run."""
    places = [bisect.bisect(moments, begun, key=lambda moment: moment[0]) for begun in begins]
    pairs = [(begun, moments[at]) for begun, at in zip(begins, places, strict=True) if at < len(moments)]
    return [(seen - begun, others) for begun, (seen, others) in pairs]


def _tail(found: Mapping[str, Any]) -> tuple[float, float]:
    """Return the 99.9th percentile and the longest of a reader's rounds, in microseconds."""
    rounds, longest = found["rounds"], sorted(found["longest"])
    return round(1e6 * longest[-max(1, min(len(longest), rounds // 1000))], 1), round(1e6 * longest[-1], 1)


def _row(spread: Spread) -> str:
    return " ".join(f"{value:6.0f}" for value in asdict(spread).values())


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Measure the live switch.")
    parser.add_argument("--files", default="1000,10000,100000", help="sizes (default: %(default)s)")
    parser.add_argument("--switches", type=int, default=1000, help="for each size (default: %(default)s)")
    parser.add_argument(
        "--consistency", type=int, metavar="COUNT", help="only read 18 files in COUNT switches"
    )
    parser.add_argument("--json", type=Path, help="write the results here")
    args = parser.parse_args()
    if args.consistency:
        consistency(args.consistency)
        return 0
    results = []
    print(
        "microseconds  all calls: median  p99  p99.9  worst | beside a reader: the same"
        " | new /usr seen after: the same | /usr and /opt seen apart: the same"
        " | after 1 ms (others had its processor) | reader's round: p99.9 (idle)  worst (idle) | command"
    )
    for files in map(int, args.files.split(",")):
        one = measure(files, args.switches)
        results.append(asdict(one))
        reader = f"{one.reader_p999} ({one.idle_p999})  {one.reader_worst} ({one.idle_worst})"
        spreads = " | ".join(_row(two) for two in (one.calls, one.calls_beside_reader, one.seen, one.apart))
        late = f"{one.late} ({one.late_for_others})"
        whole = f"{one.command.median / 1e3:.0f} ms"
        print(f"{files:7d} files, {one.switches} switches {spreads} | {late} | {reader} | {whole}")
    if args.json:
        args.json.write_text(json.dumps(results, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
