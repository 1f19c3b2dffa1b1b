"""Points of a log: which writes a power cut leaves."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.crash.logfile import LogWriter
from tests.crash.points import points
from tests.crash.replay import Log, Point, Replayer, parse_point

SIZE = 64 * 4096


@pytest.fixture
def log(tmp_path: Path) -> Log:
    """Give a log: A, flush, B and C and a discard of A, flush, D of four parts."""
    (tmp_path / "base").write_bytes(b"." * SIZE)
    writer = LogWriter(tmp_path / "log")
    writer.mark(1, "begin 1")
    writer.write(2, 0, b"A" * 4096)
    writer.flush(3)
    writer.write(4, 4096, b"B" * 4096)
    writer.write(5, 8192, b"C" * 4096)
    writer.discard(6, 0, 4096)
    writer.flush(7)
    writer.write(8, 4 * 4096, b"D" * 4 * 4096)
    writer.mark(9, "end 1")
    writer.close()
    return Log(tmp_path / "log")


def _shown(log: Log, *chosen: Point) -> list[str]:
    """Return the first byte of each 4 KiB at each point, made one after the other."""
    place = log.path.parent
    replayer = Replayer(place / "base", log, place / "trunk", place / "work")
    shown = []
    for point in chosen:
        data = replayer.make(point).read_bytes()
        shown.append("".join(chr(byte or ord("0")) for byte in data[:SIZE:4096]).rstrip("."))
    replayer.close()
    return shown


def test_a_prefix_holds_all_that_was_sent(log: Log) -> None:
    shown = _shown(log, *(Point(cut) for cut in range(len(log.entries) + 1)))

    assert shown == ["", "", "A", "A", "AB", "ABC", "0BC", "0BC", "0BC.DDDD", "0BC.DDDD"]


def test_going_back_is_possible(log: Log) -> None:
    assert _shown(log, Point(9), Point(2), Point(9)) == ["0BC.DDDD", "A", "0BC.DDDD"]


def test_a_seed_keeps_some_of_what_was_not_flushed(log: Log) -> None:
    seen = set(_shown(log, *(Point(6, seed) for seed in range(80))))

    assert all(text[:1] in ("A", "0") for text in seen if text)
    assert {"A", "AB", "A.C", "ABC", "0BC", "0B", "0.C", "0"} == seen


def test_a_write_may_be_torn(log: Log) -> None:
    seen = set(_shown(log, *(Point(8, seed) for seed in range(60))))

    assert all(text.startswith("0BC") for text in seen)
    assert "0BC.D" in seen
    assert any("D.D" in text for text in seen)


def test_the_same_point_is_the_same_disk(log: Log) -> None:
    chosen = [Point(8, seed) for seed in range(20)]

    assert _shown(log, *chosen) == _shown(log, *reversed(chosen))[::-1]


def test_points_hold_every_boundary_and_no_disk_twice(log: Log) -> None:
    found = points(log, log.span("begin 1", "end 1"), 40, seed=1)
    ended = [point.cut == 9 for point in found]

    assert {Point(cut) for cut in (1, 3, 4, 5, 7, 8, 9)} <= set(found)
    assert len(set(zip(ended, _shown(log, *found), strict=True))) == len(found)
    assert found == points(log, log.span("begin 1", "end 1"), 40, seed=1)


@pytest.mark.parametrize("text", ["12", "12~77"])
def test_a_point_has_a_name(text: str) -> None:
    assert str(parse_point(text)) == text


@pytest.mark.parametrize("text", ["", "x", "12~", "~3", "-1"])
def test_what_is_no_point_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a point"):
        parse_point(text)
