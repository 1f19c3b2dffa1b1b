"""The rows of the table, each by itself: what is measured, against what, and the bar."""

from __future__ import annotations

import re
import shutil
import statistics
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tests.bench import contestants, floor, joins, measure
from tests.bench.arena import Arena, Arenas
from tests.bench.foreground import Foreground
from tests.bench.measure import Sample, Side
from tests.bench.results import Figure, Unit, ratio, shown

Sides = Mapping[str, Sequence[Sample]]

MEMORY_BAR = 64
START_BAR = 0.15
HOOK_BAR = 0.1
GENERATIONS = 100


@dataclass(frozen=True)
class Settings:
    """What the command line asks for; ``seconds`` is the most that the rounds of a figure may take."""

    files: int
    sizes: tuple[int, ...]
    root_files: int
    rounds: int
    seconds: float


@dataclass(frozen=True)
class Bench:
    """The arenas and the settings: what a row works with."""

    arenas: Arenas
    settings: Settings

    @property
    def place(self) -> str:
        """Return where large files may go."""
        return self.arenas.place

    @property
    def arena(self) -> Arena:
        """Return the arena of the main payloads."""
        return self.arenas.get(self.settings.files)

    def turns(self, arena: Arena, sides: Mapping[str, Side]) -> dict[str, list[Sample]]:
        """Let the sides take turns as often as the settings say."""
        return measure.alternate(sides, self.settings.rounds, self.settings.seconds, arena.settle)


def staging(bench: Bench) -> Iterator[Figure]:
    """Stage a payload of which seven paths in ten are the root's."""
    arena, payload = bench.arena, bench.arena.mixed
    sides = {
        "snaptx": partial(contestants.apply, arena, payload),
        "tar": partial(contestants.tar, arena, payload),
    }
    if shutil.which("bsdtar"):
        sides["bsdtar"] = partial(contestants.bsdtar, arena, payload)
    yield ratio(_about("apply", payload), "tar + sync -f", 0.65, bench.turns(arena, sides))


def changed(bench: Bench) -> Iterator[Figure]:
    """Stage a payload in which every file differs."""
    arena, payload = bench.arena, bench.arena.changed
    sides = {
        "snaptx": partial(contestants.apply, arena, payload),
        "tar": partial(contestants.tar, arena, payload),
    }
    label = _about("apply, every file changed", payload)
    yield ratio(label, "tar + sync -f", 1.2, bench.turns(arena, sides))


def packed(bench: Bench) -> Iterator[Figure]:
    """Stage the first payload, packed with zstd."""
    arena, payload = bench.arena, bench.arena.packed
    sides = {
        "snaptx": partial(contestants.apply, arena, payload),
        "zstd | tar": partial(contestants.zstd_tar, arena, payload),
    }
    yield ratio(_about("apply, zstd", payload), "zstd | tar + sync -f", 0.65, bench.turns(arena, sides))


def fresh(bench: Bench) -> Iterator[Figure]:
    """Stage files that are all new, into directories that the root has not."""
    arena, payload = bench.arena, bench.arena.fresh
    sides = {
        "snaptx": partial(contestants.apply, arena, payload),
        "tar": partial(contestants.tar, arena, payload),
    }
    yield ratio(_about("apply, all new", payload), "tar + sync -f", 1.1, bench.turns(arena, sides))


def deb(bench: Bench) -> Iterator[Figure]:
    """Stage what dpkg unpacks from a package."""
    arena, package = bench.arena, bench.arena.package
    sides = {
        "snaptx": partial(contestants.apply, arena, arena.plain),
        "dpkg": partial(contestants.dpkg, arena, package),
        "dpkg --force-unsafe-io": partial(contestants.dpkg, arena, package, "--force-unsafe-io"),
    }
    yield ratio(_about("apply, as a .deb", arena.plain), "dpkg --unpack", 0.25, bench.turns(arena, sides))


def writer(bench: Bench) -> Iterator[Figure]:
    """Make the writer's system calls from Python and from C."""
    arena, program = bench.arena, floor.build(bench.arena.directory)
    for what, payload in (("apply", arena.mixed), ("all new", arena.fresh)):
        calls = arena.directory / f"{payload.stem}.calls"
        descriptors = floor.take_down(arena, payload, calls)
        sides = {
            "Python": partial(floor.python, arena, payload),
            "C": partial(floor.c, arena, program, calls, descriptors),
            "a bare loop in Python": partial(floor.bare, arena, calls, descriptors),
        }
        yield ratio(f"the writer alone, {what}", "the same calls from C", 1.25, bench.turns(arena, sides))


def ostree(bench: Bench) -> Iterator[Figure]:
    """Stage what ostree commits and checks out."""
    arena, payload = bench.arena, bench.arena.plain
    sides = {
        "snaptx": partial(contestants.apply, arena, payload),
        "ostree": partial(contestants.ostree, arena, payload),
    }
    label = _about("apply, as an ostree commit", payload)
    yield ratio(label, "ostree commit + checkout", 0.5, bench.turns(arena, sides))


def commit(bench: Bench) -> Iterator[Figure]:
    """Commit what is staged, against two syncs that have something to write."""
    arena = bench.arena

    def committed() -> Sample:
        arena.snaptx("apply", arena.mixed, "--base", "1")
        arena.settle()
        taken = arena.snaptx("commit")
        arena.snaptx("rollback", "1")
        arena.snaptx("prune", "--keep", "1")
        return taken

    def synced() -> Sample:
        script = 'for n in 1 2; do echo $n >"$1"; sync -f "$1"; done'
        return arena.run("sh", "-c", script, "sh", arena.top / "synced")

    found = bench.turns(arena, {"snaptx": committed, "sync": synced, "start": partial(arena.snaptx, "list")})
    start = measure.seconds(found["start"])
    yield ratio("commit, whole process", "two sync -f", None, found, f"'list' takes {start:.2f} s of start")
    own = {"snaptx": [_without(one, start) for one in found["snaptx"]], "sync": found["sync"]}
    yield ratio("commit, without the start", "two sync -f", 2.0, own)


def scaling(bench: Bench) -> Iterator[Figure]:
    """Stage payloads of all sizes: memory, and what a file costs, here and with tar."""
    found: dict[int, dict[str, list[Sample]]] = {}
    for files in dict.fromkeys([*bench.settings.sizes, bench.settings.files]):
        arena = bench.arenas.get(files)
        sides = {
            "snaptx": partial(contestants.apply, arena, arena.mixed),
            "tar": partial(contestants.tar, arena, arena.mixed),
        }
        found[files] = bench.turns(arena, sides)
        mine = found[files]["snaptx"]
        peak = tuple(one.kib / 1024 for one in mine)
        yield Figure(f"peak memory, {files:,} entries", "", Unit.MIB, peak, MEMORY_BAR, _rate(files, mine))
        if files != bench.settings.files:
            yield ratio(_about(f"apply, {files:,} entries", arena.mixed), "tar + sync -f", None, found[files])
        bench.arenas.drop(keep=bench.settings.files)
    middle = bench.settings.files
    for files, each in found.items():
        if files != middle:
            yield _cost(files, each, middle, found[middle])


def _cost(files: int, found: Sides, middle: int, there: Sides) -> Figure:
    """Return what a file costs in a payload, to what it does in the middle one; the note tells tar's."""
    costs = {side: measure.seconds(samples) / middle for side, samples in there.items()}
    values = tuple(one.seconds / files / costs["snaptx"] for one in found["snaptx"])
    note = f"tar {measure.seconds(found['tar']) / files / costs['tar']:.2f} x"
    return Figure(f"cost per file, {files:,} entries", f"at {middle:,}", Unit.RATIO, values, 1.15, note)


def difference(bench: Bench) -> Iterator[Figure]:
    """Tell what a transaction changed, in a root of many files, and whether their number matters."""
    few = bench.arena
    many = bench.arenas.get(bench.settings.files, bench.settings.root_files)
    told = {arena: _differences(arena) for arena in (many, few)}
    other = many.top / f"@snaptx/generations/{max(_generations(many))}/root"
    rsync = ["rsync", "-n", "-a", "--delete", "--itemize-changes", f"{other}/", f"{many.root}/"]
    sides: dict[str, Side] = {
        "snaptx": told[many],
        "rsync -n": partial(many.run, *rsync),
        "few": told[few],
        "log": partial(many.snaptx, "log"),
    }
    found = bench.turns(many, sides)
    label = f"diff --stat, {many.files:,} changes of {many.root_files:,} files"
    yield ratio(label, "rsync -n", 0.2, found)
    yield ratio("log, with the counts of it", "rsync -n", 0.2, _only(found, "log", "rsync -n"))
    if few is not many:
        values = tuple(one.cpu / other.cpu for one, other in zip(found["snaptx"], found["few"], strict=True))
        label, against = f"the same diff of {many.root_files:,} files", f"of {few.root_files:,} files"
        yield Figure(label, against, Unit.RATIO, values, 1.2, "time of the processor")


def indexes(bench: Bench) -> Iterator[Figure]:
    """Tell what differs by the indexes of two generations alone."""
    yield from joins.figures(bench.place, bench.settings.files, bench.settings.rounds)


def _differences(arena: Arena) -> Side:
    """Commit a change of every file of a payload; return who tells how much that was."""
    arena.snaptx("apply", arena.changed, "--commit", "--base", "1")
    return partial(arena.snaptx, "diff", "--stat", "1", str(max(_generations(arena))))


def _only(found: Mapping[str, list[Sample]], *names: str) -> dict[str, list[Sample]]:
    return {name: found[name] for name in names}


def start(bench: Bench) -> Iterator[Figure]:
    """Ask a machine with a hundred generations; and call the package manager's hooks where they are off."""
    arena, small = bench.arena, _small(bench.arena)
    while len(_generations(arena)) < GENERATIONS:
        arena.snaptx("apply", small, "--commit", "--base", "1")
    off = arena.directory / "off.conf"
    off.write_text('[hooks]\nmode = "off"\n')
    hook = ("--config", off, "hook", "--manager", "apt")
    asked: dict[str, tuple[float | None, tuple[str | Path, ...]]] = {
        f"list, {GENERATIONS} generations": (START_BAR, ("list",)),
        f"status, {GENERATIONS} generations": (START_BAR, ("status",)),
        "--help": (None, ("--help",)),
        "hook before, nothing to do": (HOOK_BAR, (*hook, "before")),
        "hook after, nothing to do": (HOOK_BAR, (*hook, "after")),
    }
    found = bench.turns(arena, {label: partial(arena.snaptx, *words) for label, (_, words) in asked.items()})
    for label, (target, _) in asked.items():
        values = tuple(one.seconds for one in found[label])
        yield Figure(label, "", Unit.SECONDS, values, target, "whole process")


def polite(bench: Bench) -> Iterator[Figure]:
    """Write and sync in the foreground while a payload is staged, with and without --idle."""
    arena, payload = bench.arena, bench.arena.mixed
    loop = Foreground(arena)
    for label, options in (("", ()), (" --idle", ("--idle",))):
        alone: list[float] = []
        beside: list[float] = []
        for _ in range(bench.settings.rounds):
            arena.settle()
            alone.append(loop.alone())
            beside.append(loop.beside(partial(contestants.apply, arena, payload, *options)))
        values = tuple(one / other for one, other in zip(beside, alone, strict=True))
        note = f"median fsync {statistics.median(beside) * 1e3:.1f} ms"
        yield Figure(f"fsync beside apply{label}", "fsync alone", Unit.RATIO, values, None, note)


def shared(bench: Bench) -> Iterator[Figure]:
    """Show that unchanged files share their extents with the base."""
    arena = bench.arena
    arena.snaptx("apply", arena.mixed, "--base", "1")
    number = max(_generations(arena))
    root = arena.top / f"@snaptx/generations/{number}/root"
    said = subprocess.run(
        ["btrfs", "filesystem", "du", "--raw", "-s", root], capture_output=True, text=True, check=True
    )
    total, exclusive, *_ = map(int, re.findall(r"\d+", said.stdout.splitlines()[1]))
    arena.snaptx("abort")
    note = f"{exclusive >> 20} of {total >> 20} MiB, by btrfs filesystem du"
    values = (100 * exclusive / total,)
    yield Figure("a generation's own data", "its whole root", Unit.PERCENT, values, None, note)


def _generations(arena: Arena) -> list[int]:
    names = [path.name for path in (arena.top / "@snaptx/generations").iterdir()]
    return [int(name) for name in names if name.isdigit()]


def _about(what: str, payload: Path) -> str:
    return f"{what}, {payload.stat().st_size / 1e6:.0f} MB"


def _rate(files: int, found: Sequence[Sample]) -> str:
    return f"{files / measure.seconds(found):,.0f} files/s, {shown(measure.seconds(found), Unit.SECONDS)} s"


def _without(one: Sample, start: float) -> Sample:
    return Sample(max(one.seconds - start, 0.0), one.cpu, one.kib)


def _small(arena: Arena) -> Path:
    """Return a payload of one file."""
    tree, target = arena.directory / "small", arena.directory / "small.tar"
    if not target.exists():
        tree.mkdir()
        (tree / "one").write_text("one\n")
        subprocess.run(["tar", "-cf", target, "-C", tree, "."], check=True)
    return target


ROWS: dict[str, Callable[[Bench], Iterator[Figure]]] = {
    "apply": staging,
    "changed": changed,
    "zstd": packed,
    "new": fresh,
    "deb": deb,
    "writer": writer,
    "ostree": ostree,
    "commit": commit,
    "scaling": scaling,
    "diff": difference,
    "indexes": indexes,
    "polite": polite,
    "shared": shared,
    "start": start,
}
"""Every row by the name that --only takes, in the order of the table."""
