"""The benchmark's own arithmetic: turns, ratios by round, and the table that is kept."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.bench import floor, measure, report
from tests.bench.measure import Sample
from tests.bench.results import Figure, Unit, ratio
from tests.payloads import rows, small_base


def taken(*seconds: float) -> list[Sample]:
    """Return samples that took so long."""
    return [Sample(one, one / 2, 1024) for one in seconds]


def test_a_ratio_is_taken_by_round() -> None:
    found = ratio("a", "b", 0.5, {"a": taken(1, 9, 2), "b": taken(2, 3, 5)})

    assert found.values == (0.5, 3.0, 0.4)
    assert (found.median, found.met) == (0.5, True)


def test_who_begins_changes_from_round_to_round() -> None:
    order: list[str] = []

    def side(name: str) -> measure.Side:
        return lambda: order.append(name) or Sample(0, 0, 0)  # type: ignore[func-returns-value]

    found = measure.alternate({"a": side("a"), "b": side("b")}, 3, 60, lambda: None)

    assert "".join(order) == "abbaab"
    assert [len(samples) for samples in found.values()] == [3, 3]


def test_no_round_begins_that_would_end_too_late() -> None:
    found = measure.alternate({"a": lambda: Sample(0, 0, 0)}, 3, -1, lambda: None)

    assert len(found["a"]) == 1


def test_rows_measured_again_replace_those_kept(tmp_path: Path) -> None:
    table = tmp_path / "kept/bench.json"
    first = Figure("apply, 37 MB", "tar", Unit.RATIO, (2.0,), 0.65)
    report.keep(table, {}, {"apply": [first], "commit": [Figure("commit", "", Unit.SECONDS, (1.0,))]})
    report.keep(table, {}, {"apply": [Figure("apply, 40 MB", "tar", Unit.RATIO, (1.0, 3.0, 1.5), 0.65)]})

    kept = report.kept(table)
    assert report.medians(kept, "commit") == {"commit": 1.0}
    assert report.before(report.medians(kept, "apply"), first) == 1.5


def test_a_table_shows_what_was_and_what_is_missed() -> None:
    shown, more = report.lines(ratio("a", "b", 0.5, {"a": taken(3.0), "b": taken(2.0)}), before=1.25)

    assert "a / b" in shown
    assert "<= 0.5: missed" in shown
    assert shown.endswith("was 1.25")
    assert "a 3.000 s (1.50 s of processor)" in more


def test_a_damaged_table_is_none(tmp_path: Path) -> None:
    (tmp_path / "bench.json").write_text("[1")

    assert report.kept(tmp_path / "bench.json") == {"rows": {}}


@pytest.mark.parametrize("language", ["C", "Python"])
def test_calls_made_again_make_the_same_tree(tmp_path: Path, language: str) -> None:
    ground, update, again = small_base(tmp_path), tmp_path / "update", tmp_path / "again"
    ground.start()
    shutil.copytree(ground.root, again, symlinks=True)
    (update / "new/deep").mkdir(parents=True)
    (update / "new/deep/one").write_bytes(b"1" * 5000)
    (update / "new/link").symlink_to("deep/one")
    (update / "etc").mkdir()
    (update / "etc/one").write_bytes(b"changed")
    os.setxattr(update / "etc/one", "user.a", b"1")
    index, calls = tmp_path / "base.manifest", tmp_path / "calls"
    *_, root_fd, base_fd = floor.lay(str(update), ground.root, ground.base, index, calls).split()
    program = [sys.executable, "-m", "tests.bench.bare"] if language == "Python" else [floor.build(tmp_path)]
    subprocess.run([*program, calls, again, root_fd, ground.base, base_fd], check=True)
    made, same = rows(ground.root), rows(again)

    assert made.keys() == same.keys()
    for path in (b"new/deep/one", b"new/link", b"etc/one"):
        assert made[path][:-2] == same[path][:-2]
