"""The benchmark of a package manager's hooks: how long people wait for the pair.

    python -m tests.bench_hook [--rounds N] [--json FILE]

Each pair is two whole processes, started as the hooks start them, one after
the other, on a sandbox: with nothing to do; with a generation made before and
taken away after, because no package has changed; and, to compare with, two
Pythons that do nothing.  In every round each has its turn.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.demo import snaptx_command

NAMES = ("two Pythons", "nothing to do: no Btrfs", "nothing to do: off", "nothing changed")


def environment() -> dict[str, str]:
    """Return an environment in which compiled modules are kept, as where snaptx is installed."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


@dataclass(frozen=True)
class Cost:
    """What something took: seconds that passed, and seconds of a processor."""

    wall: float
    cpu: float

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.wall + other.wall, self.cpu + other.cpu)


def call(*words: str | Path) -> Cost:
    """Run a command to its end and return what it took.

    Raises:
        CalledProcessError: it failed.
    """
    used, begun = _children(), time.perf_counter()
    subprocess.run(list(map(str, words)), env=environment(), stdout=subprocess.DEVNULL, check=True)
    return Cost(time.perf_counter() - begun, _children() - used)


def _children() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def pair(root: str | Path) -> Cost:
    """Return what a hook's two calls take."""
    words = (*snaptx_command(), "--sysroot", root, "hook")
    caller = ("--manager", "apt", "--caller", str(os.getpid()))
    return call(*words, "before", *caller) + call(*words, "after", *caller)


def bare() -> Cost:
    """Return what two Pythons take that do nothing."""
    return call(sys.executable, "-c", "pass") + call(sys.executable, "-c", "pass")


class Ground:
    """A sandbox to measure on."""

    def __init__(self, directory: Path) -> None:
        self.root = directory / "box/root"
        self.plain = directory / "plain"
        self._switch = self.root / "etc/snaptx/snaptx.conf"
        call(*snaptx_command(), "sandbox", "create", directory / "box", "--size", "1G")
        call(*snaptx_command(), "--sysroot", self.root, "init")
        self._switch.parent.mkdir(parents=True, exist_ok=True)
        self.plain.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "none", self.plain], check=True)

    def off(self) -> Cost:
        """Measure a pair that the configuration has turned off."""
        self._switch.write_text('[hooks]\nmode = "off"\n')
        try:
            return pair(self.root)
        finally:
            self._switch.unlink()

    def close(self) -> None:
        """Remove it."""
        subprocess.run(["umount", self.plain], check=True)
        call(*snaptx_command(), "sandbox", "destroy", self.root.parent)


def measure(rounds: int) -> dict[str, list[Cost]]:
    """Return what each pair took in each round; one more round goes before, to warm up."""
    with tempfile.TemporaryDirectory(prefix="snaptx-bench-", dir="/var/tmp") as name:
        ground = Ground(Path(name))
        ways = (bare, lambda: pair(ground.plain), ground.off, lambda: pair(ground.root))
        try:
            found = [[way() for way in ways] for _ in range(rounds + 1)][1:]
        finally:
            ground.close()
    return {title: list(series) for title, series in zip(NAMES, zip(*found, strict=True), strict=True)}


def report(found: dict[str, list[Cost]]) -> list[str]:
    """Return the figures as lines."""
    lines = [f"{'pair of calls':<24} {'median':>9} {'least':>9} {'processor':>11}   by two Pythons"]
    least = statistics.median(cost.cpu for cost in found[NAMES[0]])
    for name, costs in found.items():
        wall, cpu = [cost.wall for cost in costs], statistics.median(cost.cpu for cost in costs)
        times = f"{statistics.median(wall):7.3f} s {min(wall):7.3f} s {cpu:9.3f} s"
        lines.append(f"{name:<24} {times}   {cpu / least:.1f}")
    return lines


def main() -> int:
    """Run the benchmark and return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench_hook")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there")
    options = parser.parse_args()
    found = measure(options.rounds)
    load = os.getloadavg()[0]
    print(f"{os.cpu_count()} cores, load {load:.1f}, Linux {platform.release()}", *report(found), sep="\n")
    if options.json:
        pairs = {name: [asdict(cost) for cost in costs] for name, costs in found.items()}
        options.json.write_text(json.dumps({"load": load, "pairs": pairs}, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
