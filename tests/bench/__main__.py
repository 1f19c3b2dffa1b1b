"""The command of the benchmark.

    python -m tests.bench [--only ROW[,ROW]] [--rounds 7] [--files 10000] [--json FILE] [--storage zfs]

Each row of the table is a race in rounds: every contestant in turn does the
same on the same filesystem until it is durable, beginning with another one each
round, and the ratio is taken by round.  Caches are warm, each process is
measured whole, and nothing of snaptx's checks is off.
"""

from __future__ import annotations

import argparse
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.bench import report, zpool
from tests.bench.arena import Arena, Arenas
from tests.bench.results import Figure
from tests.bench.rows import ROWS, Bench, Settings
from tests.demo import FailedError, missing

TOOLS = {"bsdtar": "libarchive-tools", "ostree": "ostree", "rsync": "rsync", "dpkg-deb": "dpkg", "cc": "gcc"}


@dataclass(frozen=True)
class Ground:
    """What a root is on: the arena, the rows that can be run there, what the machine lacks for them."""

    arena: type[Arena]
    rows: tuple[str, ...]
    lacks: Callable[[], list[str]]


def _lacks() -> list[str]:
    return missing() + [f"{tool}: apt-get install {p}" for tool, p in TOOLS.items() if not shutil.which(tool)]


GROUNDS = {
    "btrfs": Ground(Arena, tuple(ROWS), _lacks),
    "zfs": Ground(zpool.PoolArena, ("apply", "changed", "new", "commit"), zpool.lacks),
}


def arguments() -> argparse.Namespace:
    """Return what the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench")
    add = parser.add_argument
    add("--storage", choices=GROUNDS, default="btrfs", help="what the root is on (default: %(default)s)")
    add("--only", metavar="ROW", help=f"rows, by commas (default: all: {','.join(ROWS)})")
    add("--files", type=int, default=10_000, help="entries of the payloads (default: %(default)s)")
    add("--sizes", default="1000,100000", help="payloads of the row 'scaling' (default: %(default)s)")
    help_ = "files of the root that 'diff' compares (default: %(default)s; 0: no more than the other rows)"
    add("--root-files", type=int, default=200_000, help=help_)
    add("--rounds", type=int, default=7, help="rounds of each row (default: %(default)s)")
    add("--seconds", type=float, default=900, help="the most for a row's rounds (default: %(default)s)")
    add("--seed", type=int, default=1)
    add(
        "--json",
        type=Path,
        metavar="FILE",
        default=report.KEPT,
        help="compared with, and kept in: %(default)s",
    )
    add("--dir", default="/var/tmp", help="where the images go (default: %(default)s)")
    options = parser.parse_args()
    rows = GROUNDS[options.storage].rows
    options.only = options.only.split(",") if options.only else list(rows)
    if unknown := set(options.only) - set(rows):
        parser.error(f"no such row: {', '.join(sorted(unknown))}")
    return options


def settings(options: argparse.Namespace) -> Settings:
    """Return what the rows go by."""
    sizes = tuple(map(int, options.sizes.split(",")))
    return Settings(options.files, sizes, options.root_files, options.rounds, options.seconds)


def tell(text: str) -> None:
    """Say on stderr what goes on."""
    print(f"  {text}", file=sys.stderr, flush=True)


def race(bench: Bench, options: argparse.Namespace) -> None:
    """Run the rows asked for, showing and keeping each as it ends."""
    about = report.machine(options.seed)
    print("\n".join(f"{name}: {value}" for name, value in about.items()), "", sep="\n", flush=True)
    table = report.kept(options.json)
    rows: dict[str, list[Figure]] = {}
    for name in options.only:
        tell(name)
        medians = report.medians(table, name)
        rows[name] = []
        for figure in ROWS[name](bench):
            rows[name].append(figure)
            print(*report.lines(figure, report.before(medians, figure)), sep="\n", flush=True)
        report.keep(options.json, about, rows)


def main() -> int:
    """Run the benchmark and return the exit status."""
    options = arguments()
    ground = GROUNDS[options.storage]
    if lacks := ground.lacks():
        print("the benchmark needs:", *lacks, sep="\n  ", file=sys.stderr)
        return 1
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    arenas = Arenas(options.dir, options.seed, tell, ground.arena)
    try:
        try:
            race(Bench(arenas, settings(options)), options)
        finally:
            arenas.close()
    except (FailedError, subprocess.CalledProcessError) as error:
        print(f"the benchmark failed: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
