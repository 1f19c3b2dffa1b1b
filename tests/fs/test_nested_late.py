"""What changes in subvolumes inside a root between a commit and the first boot of what it committed."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.boxes import Box
from tests.fs.conftest import command, nested


def test_what_changes_inside_after_the_commit_comes_along(box: Box, update: str) -> None:
    box.configure('[staging]\nnested = "carry"\n')
    data = nested(box, "srv/data", "same", "edited", "both", "carried", "gone")
    (data / "below").mkdir()
    box.ok("apply", update)
    (data / "carried").write_text("before the commit\n")
    nested(box, "srv/carried", "file").chmod(0o700)
    box.ok("commit")
    (data / "edited").write_text("mine\n")
    (data / "both").write_text("mine\n")
    (data / "below/new").mkdir()
    (data / "below/new/file").write_text("new\n")
    nested(box, "srv/made", "precious").chmod(0o700)
    box.reboot()
    new = box.root / "srv"
    for name in ("both", "carried"):
        (new / "data" / name).write_text("by the new root\n")
    late = box.json("repair", "--boot")["late"]

    names = "same", "edited", "both", "carried", "below/new/file"
    assert [(new / "data" / name).read_text() for name in names] == [
        "same",
        "mine\n",
        "by the new root\n",
        "by the new root\n",
        "new\n",
    ]
    assert (new / "made/precious").read_text() == "precious"
    assert (new / "made").stat().st_mode & 0o777 == 0o700
    assert set(late["carried"]) == {"srv/data/below/new", "srv/data/edited", "srv/made"}
    assert late["conflicts"] == ["srv/data/both"]
    assert box.json("verify")["problems"] == []


@pytest.mark.parametrize("policy", ["refuse", "share"])
def test_one_that_is_made_after_the_commit_is_named(box: Box, update: str, policy: str) -> None:
    box.configure(f'[staging]\nnested = "{policy}"\n')
    box.ok("apply", "--commit", update)
    nested(box, "srv/data", "precious")
    nested(box, "srv/empty")
    nested(box, "var/cache/data", "anybody's")
    box.reboot()

    assert box.json("repair", "--boot")["late"]["conflicts"] == ["srv/data"]


@pytest.mark.parametrize("policy", ["carry", "share"])
def test_what_is_as_the_commit_left_it_is_left_alone(box: Box, update: str, policy: str) -> None:
    box.configure(f'[staging]\nnested = "{policy}"\n')
    data = nested(box, "srv/data", "file", "other")
    box.ok("apply", update)
    (data / "file").write_text("mine\n")
    box.ok("commit")
    if policy == "share":
        (data / "file").write_text("shared\n")
    box.reboot()

    assert box.json("repair", "--boot")["late"] == {"carried": [], "conflicts": []}


def test_an_arrival_that_is_cut_short_is_made_up_for(box: Box, update: str) -> None:
    box.configure('[staging]\nnested = "carry"\n')
    data = nested(box, "srv/data", "file")
    box.ok("apply", "--commit", update)
    (data / "file").write_text("mine\n")
    made = nested(box, "srv/made", "one", "two")
    (made / "below").mkdir()
    (made / "below/three").write_text("three")
    box.reboot()
    new = box.root / "srv"
    (new / "made").mkdir()
    for name in ("data/file", "made/one"):
        command("cp", "--archive", box.tree(1) / "srv" / name, new / name)
    late = box.json("repair", "--boot")["late"]

    assert set(late["carried"]) == {"srv/made/two", "srv/made/below"}
    assert late["conflicts"] == []
    assert (new / "made/below/three").read_text() == "three"


def test_a_commit_after_another_decides_only_what_is_new(box: Box, update: str) -> None:
    box.configure('[staging]\nnested = "carry"\n')
    data = nested(box, "srv/data", "file", "other")
    box.ok("apply", update)
    for name in ("file", "other"):
        (data / name).write_text("mine\n")
    nested(box, "srv/made", "file").chmod(0o700)
    box.ok("commit")
    (Path(update) / "srv/data").mkdir(parents=True)
    for name in ("file", "other"):
        (Path(update) / "srv/data" / name).write_text("by the update\n")
    box.ok("apply", update)
    (data / "other").write_text("mine again\n")
    done = box.json("commit")

    assert (done["carried"], done["conflicts"]) == (["srv/data/other"], [])
    new = box.tree(3) / "srv"
    assert (new / "data/file").read_text() == "by the update\n"
    assert (new / "data/other").read_text() == "mine again\n"
    assert (new / "made").stat().st_mode & 0o777 == 0o700
    assert box.json("verify", "3")["problems"] == []
