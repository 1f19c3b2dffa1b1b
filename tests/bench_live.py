"""The benchmark of the live switch: how long it takes, and what a reader sees of it.

    python -m tests.bench_live [--files 1000,10000,100000] [--switches 1000] [--consistency COUNT]

For each size there are two generations that differ in so many files of /usr.
They are switched to and fro; measured are the two calls (mount beneath, detach),
how long after the beginning of the first one a reader on another core, which
opens a file of the tree in a tight loop, has the new one, the longest time that
it needs for one round during a switch and without any, and the whole command.
The second call goes on when the new tree is there: the kernel waits until no
processor looks at the old mount any more, which a reader in a loop makes longer;
so the two calls are also measured without one.
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
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from snaptx import machine, mounting, scene
from snaptx.machine import Machine
from snaptx.model import Part, Tree
from snaptx.running import trees
from tests.boxes import Box, made

COMMANDS = 10
PER_DIRECTORY = 500

READER = """
import os, sys, time
path, longest, count, moments, last = sys.argv[1], [], 0, [], None
os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
os.set_blocking(0, False)
print("ready", flush=True)
while True:
    begun = time.perf_counter()
    fd = os.open(path, os.O_RDONLY)
    ended = time.perf_counter()
    longest.append(ended - begun)
    tree = os.fstat(fd).st_dev
    os.close(fd)
    count += 1
    if tree != last:
        moments.append(ended)
        last = tree
    if count % 1000 == 0:
        longest = sorted(longest)[-1000:]
        try:
            os.read(0, 1)
            break
        except BlockingIOError:
            pass
print(count, *sorted(longest)[-1000:], *moments)
"""
LONGEST = 1000  # so many of the longest rounds does the reader print


FOLLOWER = """
import os, sys
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
print(rounds, by_path, by_directory)
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
        with made(size=(1 << 30) + files * 20_000) as box:
            for payload in payloads:
                box.ok("apply", "--base", "1", str(payload))
            yield box


@contextmanager
def reading(path: Path, found: list[float], code: str = READER) -> Iterator[None]:
    """Let a reader work on ``path`` meanwhile; ``found`` gets the numbers it prints."""
    words = [sys.executable, "-c", code, str(path)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as reader:
        assert reader.stdout
        reader.stdout.readline()
        yield
        said, _ = reader.communicate("x")
        assert reader.returncode == 0, "a file was missing"
        found += map(float, said.split())


def switches(box: Box, one: Machine, count: int) -> list[tuple[float, float]]:
    """Switch to and fro; return beginning and end of the two calls, whatever else runs."""
    with _alone_on_a_core():
        return _switches(box, one, count)


@contextmanager
def _alone_on_a_core() -> Iterator[None]:
    """Run on the first core, before all other processes."""
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    yield
    os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    os.sched_setaffinity(0, cores)


def _switches(box: Box, one: Machine, count: int) -> list[tuple[float, float]]:
    target, now, taken = str(box.root / "usr"), scene.look(one), []
    for index in range(count):
        info = one.storage.describe(Tree(3 - index % 2, Part.ROOT))
        assert info
        fresh = trees.prepare(info.mount, now.root, ["/usr"], {})["/usr"]
        with open_path(target) as place:
            begun = time.perf_counter()
            mounting.attach(fresh, place, beneath=True)
            mounting.unmount(target, mounting.MNT_DETACH)
            taken.append((begun, time.perf_counter()))
        os.close(fresh)
    return taken


@contextmanager
def open_path(path: str) -> Iterator[int]:
    """Give a descriptor of a directory to mount at."""
    fd = os.open(path, os.O_PATH | os.O_DIRECTORY)
    try:
        yield fd
    finally:
        os.close(fd)


def consistency(count: int) -> None:
    """Say what is seen of 18 files that belong together, by full paths and below an open directory."""
    found: list[float] = []
    with prepared(PER_DIRECTORY) as box:
        box.ok("live", "2")
        with reading(box.root, found, FOLLOWER):
            switches(box, machine.open_machine(box.root), count)
        box.ok("live", "--off")
    rounds, by_path, by_directory = map(int, found)
    print(
        f"{count} switches, {rounds} rounds of 18 files: {by_path} mixed by path, {by_directory} by directory"
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
    with prepared(files) as box:
        box.ok("live", "2")
        one = machine.open_machine(box.root)
        path = box.root / "usr/share/bench/0/0"
        busy: list[float] = []
        idle: list[float] = []
        alone = switches(box, one, count)
        with reading(path, busy):
            taken = switches(box, one, count)
        with reading(path, idle):
            time.sleep(max(1.0, sum(end - begun for begun, end in taken)))
        whole = commands(box)
        box.ok("live", "--off")
    calls, beside = (Spread.of([end - begun for begun, end in pairs]) for pairs in (alone, taken))
    seen = Spread.of(_delays([begun for begun, _ in taken], busy[1 + LONGEST :]))
    return Result(
        files, count, calls, beside, seen, int(busy[0]), *_tail(busy), *_tail(idle), Spread.of(whole)
    )


def _delays(begins: Sequence[float], moments: Sequence[float]) -> list[float]:
    """Return how long after each beginning the reader had the new tree."""
    after = [bisect.bisect(moments, begun) for begun in begins]
    return [
        moments[place] - begun for place, begun in zip(after, begins, strict=True) if place < len(moments)
    ]


def _tail(found: Sequence[float]) -> tuple[float, float]:
    """Return the 99.9th percentile and the longest of a reader's rounds, in microseconds."""
    rounds, longest = int(found[0]), sorted(found[1 : 1 + LONGEST])
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
        "microseconds  two calls: median  p99  p99.9  worst | beside a reader: the same"
        " | new tree seen after: the same | reader's round: p99.9 (idle)  worst (idle) | command"
    )
    for files in map(int, args.files.split(",")):
        one = measure(files, args.switches)
        results.append(asdict(one))
        reader = f"{one.reader_p999} ({one.idle_p999})  {one.reader_worst} ({one.idle_worst})"
        spreads = " | ".join(_row(two) for two in (one.calls, one.calls_beside_reader, one.seen))
        whole = f"{one.command.median / 1e3:.0f} ms"
        print(f"{files:7d} files, {one.switches} switches {spreads} | {reader} | {whole}")
    if args.json:
        args.json.write_text(json.dumps(results, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
