"""Where the time of one ``apply`` goes: Python by module and function, the kernel by system call.

    python -m tests.bench.profile [--files 10000] [--top 25]

Two runs of the same payload on one sandbox: one under cProfile, one under
strace.  Each slows what it looks at, so the shares count and the sums do not.
"""

from __future__ import annotations

import argparse
import pstats
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from tests.bench.arena import Arenas
from tests.bench.measure import as_installed
from tests.demo import REPOSITORY, RUN

SNAPTX = ("-m", "snaptx", *RUN)
LIBRARY = "(built in, and the kernel behind it)"


def functions(stats: pstats.Stats, top: int) -> Iterator[str]:
    """Yield the functions that took most themselves, and the modules."""
    rows = {key: entry[2] for key, entry in stats.stats.items()}  # type: ignore[attr-defined]
    total = sum(rows.values())
    modules: Counter[str] = Counter()
    for (path, _, _), spent in rows.items():
        modules[_module(path)] += spent
    yield "by module:"
    yield from (f"  {100 * spent / total:5.1f} %  {name}" for name, spent in modules.most_common(top))
    yield "by function:"
    for (path, line, name), spent in sorted(rows.items(), key=lambda item: -item[1])[:top]:
        yield f"  {100 * spent / total:5.1f} %  {_module(path)}:{line} {name}"


def _module(path: str) -> str:
    if path in ("~", "") or path.startswith("<"):
        return LIBRARY
    place = Path(path)
    return str(place.relative_to(REPOSITORY)) if place.is_relative_to(REPOSITORY) else place.name


def in_python(directory: Path, payload: Path, top: int) -> Iterator[str]:
    """Yield where Python's time goes."""
    found = directory / "profile"
    words = [sys.executable, "-m", "cProfile", "-o", str(found), *SNAPTX, "apply", str(payload)]
    subprocess.run(
        [*words, "--base", "1"], cwd=directory, env=as_installed(), stdout=subprocess.DEVNULL, check=True
    )
    yield from functions(pstats.Stats(str(found)), top)


def in_kernel(directory: Path, payload: Path) -> Iterator[str]:
    """Yield how often each system call was made, and the time in it."""
    found = directory / "calls"
    words = ["strace", "-f", "-c", "-w", "-o", str(found), sys.executable, *SNAPTX, "apply", str(payload)]
    subprocess.run(
        [*words, "--base", "1"], cwd=directory, env=as_installed(), stdout=subprocess.DEVNULL, check=True
    )
    yield "by system call:"
    yield from (f"  {line}" for line in found.read_text().splitlines()[:25])


def main() -> int:
    """Print the profile and return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.profile")
    parser.add_argument("--files", type=int, default=10_000, help="entries of the payload")
    parser.add_argument("--top", type=int, default=25, help="lines of each list")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--dir", default="/var/tmp", help="where the image goes (default: %(default)s)")
    options = parser.parse_args()
    arenas = Arenas(options.dir, options.seed, lambda text: print(text, file=sys.stderr))
    try:
        arena = arenas.get(options.files)
        for lines in (
            in_python(arena.directory, arena.mixed, options.top),
            in_kernel(arena.directory, arena.mixed),
        ):
            print(*lines, sep="\n", flush=True)
            arena.snaptx("abort")
    finally:
        arenas.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
