"""The benchmark of the live switch: how long it takes, and what a reader sees of it.

    python -m tests.bench_live [--files 1000,10000,100000] [--switches 1000] [--json FILE]

For each size there are two generations that differ in so many files of /usr.
They are switched to and fro; measured are the two calls (mount beneath, detach),
the longest time that a reader on another core, which opens a file of the tree
in a tight loop, needs for one round during a switch and without any, and the
whole command.  The reader ends with an error if a file is ever missing.
"""

from __future__ import annotations

import argparse
import json
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
path, longest, count = sys.argv[1], [], 0
os.set_blocking(0, False)
print("ready", flush=True)
while True:
    begun = time.perf_counter()
    os.close(os.open(path, os.O_RDONLY))
    longest.append(time.perf_counter() - begun)
    count += 1
    if count % 1000 == 0:
        longest = sorted(longest)[-1000:]
        try:
            os.read(0, 1)
            break
        except BlockingIOError:
            pass
print(count, *sorted(longest)[-1000:])
"""


@dataclass(frozen=True)
class Spread:
    """Times in microseconds."""

    median: float
    p999: float
    worst: float

    @classmethod
    def of(cls, seconds: Sequence[float]) -> Spread:
        """Return the spread of times in seconds."""
        ordered = [round(1e6 * value, 1) for value in sorted(seconds)]
        return cls(ordered[len(ordered) // 2], ordered[int(len(ordered) * 0.999)], ordered[-1])


@dataclass(frozen=True)
class Result:
    """What was measured for one size."""

    files: int
    switches: int
    calls: Spread
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
def reading(path: Path, found: list[float]) -> Iterator[None]:
    """Let a reader open ``path`` meanwhile; ``found`` gets its number of rounds and the longest of them."""
    words = [sys.executable, "-c", READER, str(path)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as reader:
        assert reader.stdout
        reader.stdout.readline()
        yield
        said, _ = reader.communicate("x")
        assert reader.returncode == 0, "a file was missing"
        found += map(float, said.split())


def switches(box: Box, one: Machine, count: int) -> list[float]:
    """Switch to and fro; return the seconds of the two calls."""
    target, now, taken = str(box.root / "usr"), scene.look(one), []
    for index in range(count):
        info = one.storage.describe(Tree(3 - index % 2, Part.ROOT))
        assert info
        fresh = trees.prepare(info.mount, now.root, ["/usr"], {})["/usr"]
        with open_path(target) as place:
            begun = time.perf_counter()
            mounting.attach(fresh, place, beneath=True)
            mounting.unmount(target, mounting.MNT_DETACH)
            taken.append(time.perf_counter() - begun)
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
        with reading(path, busy):
            calls = switches(box, one, count)
        with reading(path, idle):
            time.sleep(max(1.0, sum(calls)))
        whole = commands(box)
        box.ok("live", "--off")
    return Result(files, count, Spread.of(calls), int(busy[0]), *_tail(busy), *_tail(idle), Spread.of(whole))


def _tail(found: Sequence[float]) -> tuple[float, float]:
    """Return the 99.9th percentile and the longest of a reader's rounds, in microseconds."""
    rounds, longest = int(found[0]), sorted(found[1:])
    return round(1e6 * longest[-max(1, min(len(longest), rounds // 1000))], 1), round(1e6 * longest[-1], 1)


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Measure the live switch.")
    parser.add_argument("--files", default="1000,10000,100000", help="sizes (default: %(default)s)")
    parser.add_argument("--switches", type=int, default=1000, help="for each size (default: %(default)s)")
    parser.add_argument("--json", type=Path, help="write the results here")
    args = parser.parse_args()
    results = []
    print(
        "microseconds      two calls: median   p99.9   worst | reader: p99.9 (idle)  worst (idle) | command"
    )
    for files in map(int, args.files.split(",")):
        one = measure(files, args.switches)
        results.append(asdict(one))
        reader = f"{one.reader_p999} ({one.idle_p999})  {one.reader_worst} ({one.idle_worst})"
        calls = f"{one.calls.median:8.0f} {one.calls.p999:8.0f} {one.calls.worst:8.0f}"
        whole = f"{one.command.median / 1e3:.0f} ms"
        print(f"{files:7d} files, {one.switches} switches {calls} | {reader} | {whole}")
    if args.json:
        args.json.write_text(json.dumps(results, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
