"""What a transaction keeps of what it did, beside the manifest."""

from __future__ import annotations

import subprocess
import sys
from collections import deque
from pathlib import Path

from snaptx.model import Kind, Row
from snaptx.overlay.manifest import Manifest
from snaptx.overlay.record import SCHEMA, Action, Record

ROOT = Path(__file__).parents[2]
ROWS = 200_000


def _tables(manifest: Manifest, schema: str) -> set[str]:
    return {
        name
        for (name,) in manifest.db.execute(f"SELECT name FROM {schema}.sqlite_master WHERE type = 'table'")
    }


def test_no_table_hides_behind_one_of_the_manifest(tmp_path: Path) -> None:
    with Manifest.create(tmp_path / "base"):
        pass
    with Manifest.fork(tmp_path / "base", tmp_path / "new") as manifest:
        record = Record(manifest)
        record.begin()

        assert not _tables(manifest, "main") & _tables(manifest, SCHEMA)
        record.drop()


def test_memory_does_not_grow_with_what_was_written(tmp_path: Path) -> None:
    code = "import sys; from tests.unit import test_record; print(test_record.growth(sys.argv[1]))"
    words = [sys.executable, "-c", code, str(tmp_path)]
    grown = int(subprocess.run(words, check=True, capture_output=True, cwd=ROOT).stdout)

    assert grown < 11 << 10  # KiB; four of them are the manifest's cache


def growth(place: str) -> int:
    """Return by how many KiB this process grows when what was written is settled, counted and read."""
    with Manifest.create(Path(place) / "base") as base:
        base.put(map(_row, range(ROWS)))
    with Manifest.fork(Path(place) / "base", Path(place) / "new") as manifest:
        record = Record(manifest)
        record.begin()
        for number in range(0, ROWS, 2):
            record.remove(_row(number).path)
            record.add(_row(number), Action.CHANGED)
        before = _peak()
        record.settle()
        record.counts(0)
        for results in (record.directories(), record.made()):
            deque(results, maxlen=0)
        grown = _peak() - before
        record.drop()
    return grown


def _peak() -> int:
    """Return this program's peak; getrusage(2) would tell that of the process which started it, if larger."""
    return int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0])


def _row(number: int) -> Row:
    path = b"usr/share/directory-%d/a-file-%07d" % (number // 50, number)
    return Row(path, Kind.FILE, 0o644, 0, 0, 1, 1, 0, bytes(32), b"", number + 1000, 1)
