"""``snaptx commit`` of what stems from the running root by way of others, or not: no edit goes unseen."""

from __future__ import annotations

from pathlib import Path

import pytest

from snaptx.generations import RECORD
from snaptx.sandbox import box as sandbox
from tests.boxes import Box, changes
from tests.fs.conftest import command


def payload(place: Path, **files: str) -> str:
    """Make an overlay of files in /etc."""
    (place / "etc").mkdir(parents=True)
    for name, text in files.items():
        (place / "etc" / name).write_text(text)
    return str(place)


def text(box: Box, number: int, name: str) -> str:
    """Return what a file in /etc of a generation says, "" if there is none."""
    path = box.tree(number) / "etc" / name
    return path.read_text() if path.exists() else ""


def edit(box: Box, name: str, said: str) -> None:
    """Be the administrator who changes a file in /etc of the running root."""
    (box.root / "etc" / name).write_text(said)


@pytest.mark.parametrize("way", ["renamed", "another"])
def test_from_a_root_that_is_no_generation_nothing_is_committed(box: Box, tmp_path: Path, way: str) -> None:
    box.ok("apply", payload(tmp_path / "two", motd="two"))
    if way == "another":
        command("btrfs", "subvolume", "snapshot", box.root, box.top / "mine")
        sandbox.reboot(box.sandbox.directory, target="mine")
    edit(box, "mine", "mine")
    adopted = box.top / box.sandbox.plan.root
    if way == "renamed":
        adopted.rename(box.top / "mine")

    assert "is no generation" in box.refuses(51, "commit")
    assert "is no generation" in box.refuses(51, "commit", "--dry-run")
    assert box.boot().default == 1
    if way == "renamed":
        (box.top / "mine").rename(adopted)
        assert box.json("commit")["carried"] == ["etc/mine"]


def test_what_stays_in_a_root_that_it_does_not_stem_from_is_told(box: Box, tmp_path: Path) -> None:
    edit(box, "old", "old")
    for name in ("two", "three"):
        box.ok("apply", "--base", "1", payload(tmp_path / name, **{name: name}))
    box.ok("commit", "2")
    box.reboot()
    box.ok("confirm")
    for name in ("mine", "two"):
        edit(box, name, "mine")
    (box.root / "var/lib/systemd").mkdir(parents=True)
    before = box.facts()

    assert box.json("commit", "3", "--dry-run")["left"] == ["etc/mine", "etc/two"]
    assert "2 path(s) that stay" in box.ok("commit", "3", "--dry-run")
    assert changes(before, box.facts()) == {}
    said = box.ok("commit", "3")
    assert "does not stem from the running one" in said
    assert "  /etc/mine\n" in said
    assert box.audit()[-1]["left"] == ["etc/mine", "etc/two"]
    assert (text(box, 3, "mine"), text(box, 3, "old")) == ("", "old")
    assert box.json("verify")["problems"] == []


def test_after_a_rollback_nothing_is_told_of_what_it_left(box: Box, tmp_path: Path) -> None:
    box.ok("apply", "--commit", payload(tmp_path / "two", motd="two"))
    box.reboot()
    box.ok("confirm")
    edit(box, "mine", "mine")
    box.ok("rollback", "1")
    box.ok("apply", payload(tmp_path / "four", issue="four"))
    done = box.json("commit")

    assert (done["number"], done["carried"], done["left"]) == (4, [], [])
    assert text(box, 4, "mine") == ""


@pytest.fixture
def broken(box: Box, tmp_path: Path) -> Box:
    """Give a box that runs 1; 4 is staged from 3, and 2 between is gone, by somebody else's hand.

    /etc/first was edited in time for 2, /etc/mine and /etc/again are later than 4.
    """
    edit(box, "again", "again")
    for name in ("two", "three", "four"):
        if name == "four":
            box.ok("commit")
        box.ok("apply", payload(tmp_path / name, **{name: name}))
        if name == "two":
            edit(box, "first", "first")
            box.ok("commit")
    (box.state / "generations/2" / RECORD).unlink()
    edit(box, "mine", "mine")
    return box


def test_over_a_gap_edits_are_told_from_how_the_running_one_was_committed(broken: Box) -> None:
    assert broken.json("commit")["carried"] == ["etc/mine"]
    assert [text(broken, 4, name) for name in ("two", "three", "four", "first", "mine", "again")] == [
        "two",
        "three",
        "four",
        "first",
        "mine",
        "again",
    ]


def test_over_a_gap_what_both_may_have_changed_is_a_conflict(broken: Box) -> None:
    edit(broken, "again", "once more")

    assert "/etc/again" in broken.refuses(41, "commit")
    assert broken.json("commit", "--conflicts=old")["conflicts"] == ["etc/again"]
    assert text(broken, 4, "again") == "once more"


def test_over_a_gap_late_changes_come_along(broken: Box) -> None:
    broken.ok("commit")
    edit(broken, "late", "late")
    broken.reboot()

    assert broken.json("repair", "--boot")["late"]["carried"] == ["etc/late"]
    assert (broken.root / "etc/late").read_text() == "late"
