"""The power fails while a generation is committed or rolled back: at every flush, and with any luck between.

At least 1,000 points in all.  ``python -m tests.crash`` judges many more, of
every verb.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from tests.crash import controls, flow
from tests.crash.conftest import Recorded
from tests.crash.faults import LEFT_OUT
from tests.crash.points import chosen
from tests.crash.rig import Report, Task, keep, lines, logs, run
from tests.crash.scratch import scratch
from tests.crash.world import DISK

pytestmark = pytest.mark.root
SEED = 1
COUNT = 190
"""Points of each recording."""

EACH = [(name, hasty) for name in ("commit", "rollback") for hasty in ("", DISK)]
NEEDED = ("activate", "commit-carry", "reject")
"""Recordings of which only those points are judged that must be."""

APART = 4
"""Of an application's points every so many-th is judged."""


def _judge(directory: Path, count: int) -> Report:
    """Judge ``count`` points of a flow, or as many as there must be; fail with the first that are wrong."""
    facts = flow.load(directory)
    assert facts.codes == (0,)
    assert facts.stages[0].default != facts.stages[1].default
    wanted = chosen(logs(directory), count, SEED)
    report = run(Task(directory, check=100), wanted)
    if report.failures:
        kept = keep(directory, Path(tempfile.gettempdir()))
        pytest.fail("\n".join(lines(report.failures, kept)), pytrace=False)
    assert report.points == len(wanted)
    return report


@pytest.mark.parametrize(("name", "hasty"), EACH)
def test_old_or_new_never_between(recorded: Recorded, name: str, hasty: str) -> None:
    assert _judge(recorded(name, hasty), COUNT).points >= COUNT


@pytest.mark.parametrize("name", NEEDED)
def test_these_too(recorded: Recorded, name: str) -> None:
    """Each is here for one thing.

    ``activate``: the reconcile commits, else GRUB keeps what it read from a superblock the kernel never
    saw.  ``commit-carry``: what was carried over is in the manifest.  ``reject``: a default found bad does
    not boot again.
    """
    _judge(recorded(name), 0)


def test_these_are_a_thousand_points(recorded: Recorded) -> None:
    points = [chosen(logs(recorded(*of)), COUNT, SEED) for of in EACH]
    points += [chosen(logs(recorded(name)), 0, SEED) for name in NEEDED]

    print(judged := sum(map(len, points)), "points")
    assert judged >= 1000


def test_an_application_is_at_the_old_or_the_new(recorded: Recorded) -> None:
    """The full tier takes them all, of every action."""
    directory = recorded("app-switch")
    facts = flow.load(directory)
    assert [stage.default for stage in facts.apps] == [2, 2, 3, 3]
    assert len(set(map(str, facts.stages))) == 1  # nothing of it concerns the machine
    report = run(Task(directory), chosen(logs(directory), 0, SEED)[::APART])

    assert list(lines(report.failures, directory)) == []
    assert report.points > APART


@pytest.mark.parametrize(
    ("name", "hasty", "sync", "complaint"),
    [
        ("commit", DISK, "fsync journal/open.tmp", "damaged"),
        ("commit", "", "barrier", "GRUB boots 1, not 2"),
        ("commit", "", "fsync audit/log", "the audit trail does not know of it"),
        ("rollback", "", "barrier", "GRUB boots 2, not 3"),
    ],
)
def test_a_missing_barrier_or_fsync_is_noticed(
    recorded: Recorded, name: str, hasty: str, sync: str, complaint: str
) -> None:
    number = controls.number_of(recorded(name), sync)
    with scratch() as place:
        failure = controls.without(name, number, place, hasty=hasty)

    assert failure is not None
    assert complaint in "\n".join(failure.problems)


def test_what_is_left_out_of_the_second_verb_is_left_out_there(recorded: Recorded) -> None:
    last = len(flow.load(recorded("apply")).syncs) - 1
    with scratch() as place:
        flow.record("apply", place, without=last)
        marks = [entry.text for entry in logs(place)[0].entries if entry.text]

    assert marks == ["begin 1", "end 1", "begin 2", LEFT_OUT, "end 2"]
