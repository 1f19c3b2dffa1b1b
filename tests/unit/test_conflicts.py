"""What of the running root's changes can be carried into a new generation: the rules as a table."""

from __future__ import annotations

import pytest

from snaptx.model import Aspect, Change, Kind, Op
from snaptx.trees.conflicts import conflicts


def added(path: bytes, kind: Kind = Kind.FILE) -> Change:
    return Change(Op.ADDED, path, kind)


def changed(path: bytes, aspect: Aspect = Aspect.CONTENT, kind: Kind = Kind.FILE) -> Change:
    return Change(Op.CHANGED, path, kind, (aspect,))


def removed(path: bytes, kind: Kind = Kind.FILE) -> Change:
    return Change(Op.REMOVED, path, kind)


def renamed(old: bytes, new: bytes, kind: Kind = Kind.FILE) -> Change:
    return Change(Op.RENAMED, new, kind, renamed_from=old)


DIR = Kind.DIRECTORY
TYPE = Aspect.TYPE

CARRIED = {
    "nothing theirs": ([changed(b"etc/motd")], []),
    "another path": ([changed(b"etc/motd"), added(b"etc/new"), removed(b"etc/old")], [changed(b"etc/fstab")]),
    "a path of which ours is a prefix": ([changed(b"etc/a")], [changed(b"etc/ab")]),
    "theirs only changed the directory's mode": ([changed(b"d/f")], [changed(b"d", Aspect.MODE, DIR)]),
    "theirs added beside": ([added(b"d/a")], [added(b"d/b")]),
    "ours in a directory of its own": ([added(b"n", DIR), added(b"n/f")], [added(b"m", DIR)]),
    "removal of a directory that theirs only emptied": ([removed(b"d", DIR)], [removed(b"d/f")]),
    "ours moved beside": ([renamed(b"a", b"b")], [renamed(b"c", b"d")]),
    "ours moved a directory they left alone": (
        [renamed(b"d", b"e", DIR), changed(b"e/f")],
        [changed(b"x")],
    ),
}


@pytest.mark.parametrize(("ours", "theirs"), CARRIED.values(), ids=CARRIED)
def test_carried(ours: list[Change], theirs: list[Change]) -> None:
    outcome = conflicts(ours, theirs, lambda path: False)

    assert outcome.carried == tuple(ours)
    assert outcome.conflicts == ()


CONFLICTING = {
    "both changed": ([changed(b"f")], [changed(b"f")]),
    "both added": ([added(b"f")], [added(b"f")]),
    "both added, of different kinds": ([added(b"f", DIR), added(b"f/x")], [added(b"f")]),
    "we changed what they removed": ([changed(b"f")], [removed(b"f")]),
    "we removed what they changed": ([removed(b"f")], [changed(b"f")]),
    "we changed what they renamed": ([changed(b"f")], [renamed(b"f", b"g")]),
    "we renamed what they changed": ([renamed(b"f", b"g")], [changed(b"f")]),
    "we renamed to what they added": ([renamed(b"f", b"g")], [added(b"g")]),
    "both renamed, to different names": ([renamed(b"f", b"g")], [renamed(b"f", b"h")]),
    "both renamed to one name": ([renamed(b"f", b"h")], [renamed(b"g", b"h")]),
    "we added into what they removed": ([added(b"d/s/f")], [removed(b"d", DIR), removed(b"d/s", DIR)]),
    "we added into what they moved": ([added(b"d/f")], [renamed(b"d", b"e", DIR)]),
    "we changed inside what they moved": ([changed(b"d/f")], [renamed(b"d", b"e", DIR)]),
    "we removed inside what they moved": ([removed(b"d/f")], [renamed(b"d", b"e", DIR)]),
    "we added into what they made a file": ([added(b"d/f")], [changed(b"d", TYPE)]),
    "we removed what they added into": ([removed(b"d", DIR)], [added(b"d/s/f")]),
    "we made a file of what they added into": ([changed(b"d", TYPE)], [added(b"d/f")]),
    "we moved what they added into": ([renamed(b"d", b"e", DIR), changed(b"e/g")], [added(b"d/f")]),
    "we changed in a directory we moved": (
        [renamed(b"d", b"e", DIR), changed(b"e/f")],
        [changed(b"d/f")],
    ),
    "they replaced the directory by another": (
        [changed(b"d/f")],
        [removed(b"d", DIR), renamed(b"x", b"d", DIR)],
    ),
}


@pytest.mark.parametrize(("ours", "theirs"), CONFLICTING.values(), ids=CONFLICTING)
def test_conflicting(ours: list[Change], theirs: list[Change]) -> None:
    outcome = conflicts(ours, theirs, lambda path: False)

    assert outcome.carried == ()
    assert [conflict.ours for conflict in outcome.conflicts] == ours
    assert all(conflict.theirs in theirs for conflict in outcome.conflicts)


SETTLED = {
    "both removed": ([removed(b"f")], [removed(b"f")]),
    "both changed to the same": ([changed(b"f")], [changed(b"f")]),
    "both added the same": ([added(b"f")], [added(b"f")]),
    "both renamed alike": ([renamed(b"f", b"g")], [renamed(b"f", b"g")]),
    "both replaced a directory alike": (
        [removed(b"d", DIR), renamed(b"x", b"d", DIR)],
        [removed(b"d", DIR), renamed(b"x", b"d", DIR)],
    ),
}


@pytest.mark.parametrize(("ours", "theirs"), SETTLED.values(), ids=SETTLED)
def test_same_result_is_neither(ours: list[Change], theirs: list[Change]) -> None:
    outcome = conflicts(ours, theirs, lambda path: True)

    assert outcome.carried == ()
    assert outcome.conflicts == ()


def test_directories_both_added_take_the_files_of_both() -> None:
    ours = [added(b"d", DIR), added(b"d/ours")]

    outcome = conflicts(ours, [added(b"d", DIR), added(b"d/theirs")], lambda path: False)

    assert outcome.carried == (ours[1],)
    assert [conflict.ours for conflict in outcome.conflicts] == ours[:1]


def test_directory_moved_alike_takes_ours() -> None:
    ours = [renamed(b"d", b"e", DIR), changed(b"e/ours")]

    outcome = conflicts(ours, [renamed(b"d", b"e", DIR), changed(b"e/theirs")], lambda path: path == b"e")

    assert outcome.carried == (ours[1],)
    assert outcome.conflicts == ()


def test_change_in_a_directory_we_moved_of_a_file_they_moved_out() -> None:
    ours = [renamed(b"d", b"e", DIR), changed(b"e/f")]

    outcome = conflicts(ours, [renamed(b"d/f", b"g")], lambda path: False)

    assert outcome.carried == (ours[0],)
    assert [conflict.ours for conflict in outcome.conflicts] == ours[1:]


def test_a_conflict_leaves_the_rest_to_be_carried() -> None:
    ours = [changed(b"a"), changed(b"b"), added(b"c")]

    outcome = conflicts(ours, [changed(b"b")], lambda path: False)

    assert outcome.carried == (ours[0], ours[2])
    assert [(c.ours.path, c.theirs.path) for c in outcome.conflicts] == [(b"b", b"b")]
