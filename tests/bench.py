"""The benchmark: staging a tar against GNU tar and bsdtar, durable on the same filesystem.

    python -m tests.bench [--files 1000,10000,100000] [--rounds 3] [--json FILE]

For each size there is one sandbox and one payload (most of it identical to the
root).  In every round each of the three lays the payload over a fresh snapshot
and waits until it is on disk; the order changes from round to round, caches
are warm, and each process is measured whole.  A size ends after its time limit
even if rounds are left.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tests import workload
from tests.demo import RUN, FailedError, environment, missing, snaptx_command

LIMITS = ((2_000, 60), (20_000, 180), (200_000, 900))
"""Seconds of rounds for payloads up to so many files; preparing comes on top."""
LONGEST = 1800
SMALLEST_BASE = 20_000
KEEP = ("--xattrs", "--xattrs-include=*", "--acls")

# A process of its own: ru_maxrss starts from the size of the process that forked, which here is small.
MEASURE = """
import json, os, signal, sys, time
out = os.open(os.devnull, os.O_WRONLY)
begun = time.monotonic()
child = os.fork()
if not child:
    os.dup2(out, 1)
    os.execvp(sys.argv[1], sys.argv[1:])
signal.signal(signal.SIGTERM, lambda *_: None)  # the child ends, this waits for it
_, status, usage = os.wait4(child, 0)
seconds = time.monotonic() - begun
print(json.dumps({"seconds": seconds, "kib": usage.ru_maxrss, "status": os.waitstatus_to_exitcode(status)}))
"""


@dataclass
class Series:
    """What one contestant needed in each round: seconds, and the largest process of it in KiB."""

    seconds: list[float] = field(default_factory=list)
    kib: list[int] = field(default_factory=list)

    @property
    def median(self) -> float:
        """Return the median of the seconds."""
        return statistics.median(self.seconds)


@dataclass
class Size:
    """The figures of one payload."""

    files: int
    base_files: int
    payload_bytes: int
    series: dict[str, Series]

    def lines(self) -> list[str]:
        """Return the figures as a table."""
        rows = [f"{self.files:,} entries, {self.payload_bytes / 1e6:.0f} MB, over {self.base_files:,} files:"]
        rows.append(f"  {'':<16} {'median':>9} {'files/s':>9} {'peak':>9}   ratio to tar, by round")
        tar = self.series["tar"].seconds
        for name in ("snaptx apply", "tar", "bsdtar"):
            one = self.series[name]
            ratios = [mine / theirs for mine, theirs in zip(one.seconds, tar, strict=True)]
            shown = f"{statistics.median(ratios):.2f}  ({' '.join(f'{ratio:.2f}' for ratio in ratios)})"
            rate, peak = self.files / one.median, max(one.kib) / 1024
            rows.append(f"  {name:<16} {one.median:7.3f} s {rate:9,.0f} {peak:5.0f} MiB   {shown}")
        for name in ("snaptx commit", "snaptx rollback", "snaptx list", "snaptx --help"):
            one = self.series[name]
            rows.append(f"  {name:<16} {one.median:7.3f} s {'':>9} {max(one.kib) / 1024:5.0f} MiB")
        return rows


def measure(command: Sequence[str | Path], cwd: Path) -> tuple[float, int]:
    """Run a command to its end; return its seconds and the peak of its memory in KiB."""
    words = [sys.executable, "-S", "-c", MEASURE, *map(str, command)]
    env = environment() | {"LC_ALL": "C.UTF-8"}
    with subprocess.Popen(
        words,
        cwd=cwd,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as running:
        try:
            said, complaints = running.communicate()
        except BaseException:
            os.killpg(running.pid, signal.SIGTERM)  # and wait: nobody may still write when all is removed
            raise
    found = json.loads(said or '{"status": "unknown"}')
    if found["status"]:
        raise FailedError(f"{' '.join(words[4:])}: status {found['status']}: {complaints.strip()[-500:]}")
    return found["seconds"], found["kib"]


class Arena:
    """One sandbox with a base and a payload."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.top = directory / "box/top"
        self.series: dict[str, Series] = {}
        self.unpacked: set[int] = set()

    def prepare(self, files: int, seed: int) -> Size:
        """Make the payload and the sandbox."""
        base, overlay = self.directory / "base", self.directory / "overlay"
        count = workload.make_base(base, max(SMALLEST_BASE, files * 11 // 10))
        made = workload.make_overlay(base, overlay, files, seed)
        workload.pack(overlay, self.directory / "payload.tar")
        shutil.rmtree(overlay)
        self.call("sandbox", "create", "box", "--size", "16G", "--from", "base")
        shutil.rmtree(base)
        self.call(*RUN, "init")
        # Warm, without new times of access: they would make every file read a changed file of the root.
        subprocess.run(["mount", "-o", "remount,noatime", self.top], check=True)
        warm = ["find", str(self.top / "@rootfs"), "-type", "f", "-exec", "cat", "{}", "+"]
        subprocess.run(warm, stdout=subprocess.DEVNULL, check=True)
        payload = self.directory / "payload.tar"
        return Size(made.entries, count, payload.stat().st_size, self.series)

    def call(self, *words: str) -> None:
        """Run snaptx and take no notice of the time."""
        measure([*snaptx_command(), *words], self.directory)

    def timed(self, name: str, command: Sequence[str | Path]) -> None:
        """Run a command and keep its figures under ``name``."""
        seconds, kib = measure(command, self.directory)
        one = self.series.setdefault(name, Series())
        one.seconds.append(seconds)
        one.kib.append(kib)

    def snaptx(self) -> None:
        """Stage the payload on the first generation."""
        self.timed("snaptx apply", [*snaptx_command(), *RUN, "apply", "payload.tar"])
        self.call(*RUN, "abort")

    def unpack(self, name: str, command: Sequence[str]) -> None:
        """Unpack the payload in a fresh snapshot of the root, until it is on disk."""
        target = self.top / "unpacked"
        subprocess.run(["btrfs", "-q", "subvolume", "snapshot", self.top / "@rootfs", target], check=True)
        # bsdtar complains of names that are not UTF-8 and unpacks them all the same: paths are counted.
        script = 'place=$1; shift; "$@" 2>/dev/null; [ $? -le 1 ] && exec sync -f "$place"'
        self.timed(name, ["sh", "-c", script, "sh", target, *command, "payload.tar", "-C", target])
        self.unpacked.add(sum(len(below) + len(names) for _, below, names in os.walk(target)))
        if len(self.unpacked) > 1:
            raise FailedError(f"{name} did not unpack everything: {self.unpacked} paths")
        subprocess.run(["btrfs", "-q", "subvolume", "delete", "--commit-after", target], check=True)

    def round(self, number: int) -> None:
        """Let the three run, beginning with another one each time."""
        runs: list[Callable[[], None]] = [
            self.snaptx,
            lambda: self.unpack("tar", ["tar", *KEEP, "-xpf"]),
            lambda: self.unpack("bsdtar", ["bsdtar", "-xpf"]),
        ]
        for step in range(len(runs)):
            self.settle()
            runs[(step + number) % len(runs)]()

    def settle(self) -> None:
        """Let the cleaner finish, so that nobody pays for what another left; read the payload once."""
        # The cleaner may sleep for half a minute; a sync of the filesystem wakes it.
        for command in (["filesystem", "sync"], ["subvolume", "sync"], ["filesystem", "sync"]):
            subprocess.run(["btrfs", *command, self.top], capture_output=True, check=True)
        with open(self.directory / "payload.tar", "rb") as payload:
            while payload.read(1 << 20):
                pass

    def switches(self, rounds: int) -> None:
        """Measure what happens once the payload is staged."""
        command = snaptx_command()
        for _ in range(rounds):
            self.call(*RUN, "apply", "payload.tar", "--base", "1")
            self.timed("snaptx commit", [*command, *RUN, "commit"])
            self.timed("snaptx rollback", [*command, *RUN, "rollback", "1"])
        for _ in range(5):
            self.timed("snaptx list", [*command, *RUN, "list"])
            self.timed("snaptx --help", [*command, "--help"])

    def close(self) -> None:
        """Remove the sandbox, then everything else; if something holds it, nothing below it is touched."""
        if (self.directory / "box/sandbox.json").exists():
            self.call("sandbox", "destroy", "box")
        shutil.rmtree(self.directory)


def limit_of(files: int) -> int:
    """Return how many seconds the rounds of a size may take."""
    return next((seconds for most, seconds in LIMITS if files <= most), LONGEST)


def bench(files: int, rounds: int, seed: int, place: str) -> Size:
    """Return the figures of one size."""
    limit = limit_of(files)
    print(f"{files:,} files: preparing, then {rounds} rounds in at most {limit} s", file=sys.stderr)
    arena = Arena(Path(tempfile.mkdtemp(prefix="snaptx-bench-", dir=place)))
    try:
        size = arena.prepare(files, seed)
        begun = time.monotonic()
        for number in range(rounds):
            started = time.monotonic()
            arena.round(number)
            now = time.monotonic()
            if number + 1 < rounds and now - begun + now - started > limit:
                print(f"  time is up after {number + 1} rounds", file=sys.stderr)
                break
        arena.switches(min(rounds, 3))
    finally:
        arena.close()
    return size


def version(*command: str) -> str:
    """Return the first line a program says about its version."""
    done = subprocess.run(command, capture_output=True, text=True, env=environment(), check=False)
    return (done.stdout + done.stderr).splitlines()[0]


def machine(seed: int) -> dict[str, Any]:
    """Return what the figures depend on."""
    model = re.search(r"model name\s*:\s*(.*)", Path("/proc/cpuinfo").read_text())
    return {
        "processor": f"{os.cpu_count()} x {model[1] if model else platform.machine()}",
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "btrfs": version("btrfs", "--version"),
        "tar": version("tar", "--version"),
        "bsdtar": version("bsdtar", "--version"),
        "snaptx": version(*snaptx_command(), "--version"),
        "seed": seed,
    }


def arguments() -> argparse.Namespace:
    """Return what the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench")
    parser.add_argument("--files", default="1000,10000,100000", help="sizes (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there")
    parser.add_argument("--dir", default="/var/tmp", help="where the images go (default: %(default)s)")
    return parser.parse_args()


def main() -> int:
    """Run the benchmark and return the exit status."""
    options = arguments()
    lacks = missing()
    if not shutil.which("bsdtar"):
        lacks.append("bsdtar: apt-get install libarchive-tools")
    if lacks:
        print("the benchmark needs:", *lacks, sep="\n  ", file=sys.stderr)
        return 1
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    about = machine(options.seed)
    print("\n".join(f"{name}: {value}" for name, value in about.items()), flush=True)
    sizes = []
    try:
        for files in map(int, options.files.split(",")):
            sizes.append(bench(files, options.rounds, options.seed, options.dir))
            print("", *sizes[-1].lines(), sep="\n", flush=True)
    except FailedError as error:
        print(f"the benchmark failed: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    if options.json:
        report = {"machine": about, "sizes": [asdict(size) for size in sizes]}
        options.json.write_text(json.dumps(report, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
