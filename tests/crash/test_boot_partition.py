"""The power fails on a machine with a /boot of its own: two disks, cut at one instant.

Some of the points of the flows ``boot-...``; ``python -m tests.crash`` judges them all, and more.
"""

from __future__ import annotations

import random
import tempfile
from pathlib import Path

import pytest

from tests.crash import controls, flow
from tests.crash.logfile import LogWriter
from tests.crash.points import chosen
from tests.crash.replay import NOTHING, Cut, Log, Point, parse_cut, shown
from tests.crash.rig import Task, keep, lines, logs, run
from tests.crash.scratch import scratch
from tests.crash.world import BOOT, DISK

SEED = 1
WORKERS = 2


@pytest.mark.root
@pytest.mark.parametrize(
    ("name", "hasty", "count"), [("commit", "", 36), ("rebuilt", "", 24), ("prune", DISK, 12)]
)
def test_old_or_new_never_between(name: str, hasty: str, count: int) -> None:
    with scratch() as place:
        directory = place / name
        facts = flow.record(f"boot-{name}", directory, hasty=hasty)
        assert (facts.codes, facts.disks) == ((0,), (DISK, BOOT))
        report = run(Task(directory, check=12), _some(directory, count), WORKERS)
        if report.failures:
            kept = keep(directory, Path(tempfile.gettempdir()))
            pytest.fail("\n".join(lines(report.failures, kept)), pytrace=False)
        assert report.points == count


def _some(directory: Path, count: int) -> list[Cut]:
    """Return the first and the last cuts of a recording, and some between."""
    cuts = chosen(logs(directory), 0, SEED)
    between = random.Random(SEED).sample(range(1, len(cuts) - 4), count - 5)
    return [cuts[at] for at in (0, *sorted(between), -4, -3, -2, -1)]


@pytest.mark.root
@pytest.mark.parametrize(
    ("fault", "complaint"),
    [
        ("no /boot barrier", "entry file"),  # it is not the new one, or damaged, as the cut has it
        ("rename over", "the boot entry file is damaged"),
    ],
)
def test_what_is_left_out_or_done_wrong_is_noticed(fault: str, complaint: str) -> None:
    with scratch() as place:
        failure = controls.wrong("boot-commit", fault, place)

    assert failure is not None
    assert complaint in "\n".join(failure.problems)


@pytest.fixture
def both(tmp_path: Path) -> list[Log]:
    """Give the logs of two disks: each is told two writes and a flush, in turns."""
    for number, name in enumerate((DISK, BOOT)):
        writer = LogWriter(tmp_path / name)
        writer.mark(1, "begin 1")
        writer.write(2 + number, 0, b"A" * 4096)
        writer.write(4 + number, 4096, b"B" * 4096)
        writer.flush(6 + number)
        writer.mark(8, "end 1")
        writer.close()
    return [Log(tmp_path / DISK), Log(tmp_path / BOOT)]


def test_both_disks_are_cut_at_one_instant(both: list[Log]) -> None:
    instants = {tuple(log.sent(serial) for log in both) for serial in range(1, 9)}

    assert {tuple(point.cut for point in cut) for cut in chosen(both, 0, SEED)} <= instants


def test_any_luck_of_one_disk_meets_any_luck_of_the_other(both: list[Log]) -> None:
    cuts = chosen(both, 0, SEED)
    lucks = {tuple(_kept(log, point) for log, point in zip(both, cut, strict=True)) for cut in cuts}

    assert {(one, other) for one in ("", "AB") for other in ("", "A", "AB")} <= lucks
    assert lucks & {("A", "A"), ("B", "A"), ("A", "B"), ("B", "B")}


def test_a_flush_of_one_disk_keeps_nothing_of_the_other(both: list[Log]) -> None:
    disk, boot = both

    assert (_kept(disk, Point(4, NOTHING)), _kept(boot, Point(3, NOTHING))) == ("", "")
    assert (disk.durable(disk.sent(6)), boot.durable(boot.sent(6))) == (4, 0)


def _kept(log: Log, point: Point) -> str:
    """Return which of the two writes are kept of those that no flush covers."""
    return "".join(sorted("AB"[piece.offset // 4096] for piece in log.kept(point) if piece.length == 4096))


@pytest.mark.parametrize("text", ["12", "12~7+35~0", "12+35"])
def test_a_cut_has_a_name(text: str) -> None:
    assert shown(parse_cut(text)) == text


@pytest.mark.parametrize("text", ["", "12+", "+3", "12~+3"])
def test_what_is_no_cut_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a point"):
        parse_cut(text)
