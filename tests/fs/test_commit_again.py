"""A second ``snaptx commit`` before the restart: what the first has settled is settled."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.boxes import Box
from tests.fs.test_commit_lines import edit, payload, text


@pytest.fixture
def twice(box: Box, tmp_path: Path) -> Box:
    """Give a box that runs 1, where 2 boots next: /etc/both was settled for it, /etc/mine carried into it."""
    edit(box, "both", "one")
    edit(box, "mine", "one")
    box.ok("apply", payload(tmp_path / "two", both="two", motd="two"))
    edit(box, "both", "mine")
    edit(box, "mine", "mine")
    assert box.json("commit", "--conflicts=new")["carried"] == ["etc/mine"]
    return box


def test_a_settled_conflict_does_not_come_back(twice: Box, tmp_path: Path) -> None:
    twice.ok("apply", payload(tmp_path / "three", motd="three"))
    done = twice.json("commit")

    assert (done["carried"], done["conflicts"]) == ([], [])
    assert [text(twice, 3, name) for name in ("both", "mine", "motd")] == ["two", "mine", "three"]
    twice.reboot()
    assert twice.json("repair", "--boot")["late"] == {"carried": [], "conflicts": []}
    assert twice.json("verify")["problems"] == []


def test_what_was_settled_and_is_changed_again_is_a_conflict(twice: Box, tmp_path: Path) -> None:
    twice.ok("apply", payload(tmp_path / "three", motd="three"))
    edit(twice, "both", "mine again")

    assert "/etc/both" in twice.refuses(41, "commit")
    assert twice.json("commit", "--conflicts=old")["carried"] == ["etc/both"]
    assert text(twice, 3, "both") == "mine again"


def test_what_was_carried_may_be_updated(twice: Box, tmp_path: Path) -> None:
    twice.ok("apply", payload(tmp_path / "three", mine="three", both="three"))
    done = twice.json("commit")

    assert (done["carried"], done["conflicts"]) == ([], [])
    assert (text(twice, 3, "mine"), text(twice, 3, "both")) == ("three", "three")


def test_what_was_carried_and_is_changed_again_is_carried_again(twice: Box, tmp_path: Path) -> None:
    twice.ok("apply", payload(tmp_path / "three", motd="three"))
    edit(twice, "mine", "mine again")

    assert twice.json("commit")["carried"] == ["etc/mine"]
    assert text(twice, 3, "mine") == "mine again"
    twice.ok("apply", payload(tmp_path / "four", mine="four"))
    edit(twice, "mine", "once more")
    assert "/etc/mine" in twice.refuses(41, "commit")


def test_what_was_carried_and_is_taken_back_is_taken_back(twice: Box, tmp_path: Path) -> None:
    edit(twice, "new", "new")
    twice.ok("apply", payload(tmp_path / "three", motd="three"))
    assert twice.json("commit")["carried"] == ["etc/new"]
    twice.ok("apply", payload(tmp_path / "four", motd="four"))
    shutil.copy2(twice.tree(2, "origin") / "etc/mine", twice.root / "etc/mine")
    (twice.root / "etc/new").unlink()

    assert twice.json("commit")["carried"] == ["etc/mine", "etc/new"]
    assert (text(twice, 4, "mine"), text(twice, 4, "new")) == ("one", "")
    assert twice.json("verify")["problems"] == []


def test_late_changes_are_told_from_the_commits_before(twice: Box, tmp_path: Path) -> None:
    edit(twice, "new", "new")
    twice.ok("apply", payload(tmp_path / "three", motd="three"))
    twice.ok("commit")
    edit(twice, "mine", "late")
    before = (twice.tree(3) / "etc/new").stat().st_ino
    twice.reboot()

    assert twice.json("repair", "--boot")["late"] == {"carried": ["etc/mine"], "conflicts": []}
    assert (twice.root / "etc/mine").read_text() == "late"
    assert (twice.root / "etc/new").stat().st_ino == before


def test_a_carried_directory_that_goes_takes_no_file_of_the_updates_along(box: Box, tmp_path: Path) -> None:
    box.ok("apply", payload(tmp_path / "two", motd="two"))
    (box.root / "etc/dir").mkdir()
    edit(box, "dir/mine", "mine")
    box.ok("commit")
    update = Path(payload(tmp_path / "three"))
    (update / "etc/dir").mkdir()
    (update / "etc/dir/brought").write_text("three")
    box.ok("apply", str(update))
    shutil.rmtree(box.root / "etc/dir")

    assert "/etc/dir" in box.refuses(41, "commit")
    box.ok("commit", "--conflicts=new")
    assert (text(box, 3, "dir/brought"), text(box, 3, "dir/mine")) == ("three", "")


def test_what_is_put_where_a_conflict_was_settled_is_one_as_well(box: Box, tmp_path: Path) -> None:
    box.ok("apply", payload(tmp_path / "two", spot="a file"))
    (box.root / "etc/spot").mkdir()
    edit(box, "spot/one", "one")
    assert box.json("commit", "--conflicts=new")["conflicts"] == ["etc/spot", "etc/spot/one"]
    box.ok("apply", payload(tmp_path / "three", motd="three"))
    edit(box, "spot/two", "two")

    assert "the running root: /etc/spot/two\n" in box.refuses(41, "commit")
    assert box.json("commit", "--conflicts=new")["conflicts"] == ["etc/spot/two"]
    assert text(box, 3, "spot") == "a file"
