"""What the indexes alone say of a change, among few paths and among a million."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from snaptx.model import Kind, Row
from snaptx.overlay.differing import differing, touched
from snaptx.overlay.manifest import Manifest
from tests.bench.results import Figure, Unit

FEW, MANY = 20_000, 1_000_000


def figures(place: str, changes: int, rounds: int) -> Iterator[Figure]:
    """Compare two indexes of MANY paths as often as two of FEW, by what was touched."""
    with tempfile.TemporaryDirectory(dir=place) as directory:
        pairs = [_pair(Path(directory, str(paths)), paths, changes) for paths in (MANY, FEW)]
        taken = [[_seconds(*pair) for pair in pairs] for _ in range(rounds)]
    values = tuple(many / few for many, few in taken)
    note = f"{min(many for many, _ in taken):.3f} s of processor"
    label = f"{changes:,} changes by indexes of {MANY:,} paths"
    yield Figure(label, f"of {FEW:,}", Unit.RATIO, values, 2, note)


def _pair(place: Path, paths: int, changes: int) -> tuple[Path, Path]:
    """Make an index, and another forked from it with evenly spread changes."""
    place.mkdir()
    old, new = place / "old", place / "new"
    row = Row(b"", Kind.FILE, 0o644, 0, 0, 100, 4, 0, bytes(32), b"", 5, 6)
    names = [b"usr/%04d/%02d/file-%d" % (number % 9973, number % 31, number) for number in range(paths)]
    with Manifest.create(old) as manifest:
        manifest.put(row._replace(path=name) for name in sorted(names))
    with Manifest.fork(old, new) as manifest:
        manifest.put(row._replace(path=name, size=101) for name in names[:: paths // changes])
    return old, new


def _seconds(old: Path, new: Path) -> float:
    with Manifest.open(old) as one, Manifest.open(new) as other:
        begun = time.process_time()
        assert sum(1 for _ in differing(one, other, touched([one], [other, one])))
        return time.process_time() - begun
