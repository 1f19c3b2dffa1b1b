"""Late changes: what changed between the commit and the restart is brought over whole, and nothing else."""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.boxes import Box


@pytest.fixture
def update(tmp_path: Path) -> str:
    """Give a small update."""
    (tmp_path / "update/etc").mkdir(parents=True)
    (tmp_path / "update/etc/motd").write_text("hello\n")
    return str(tmp_path / "update")


def _killed(*_: object, **__: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _refused(*_: object, **__: object) -> None:
    raise OSError(errno.EIO, os.strerror(errno.EIO))


@pytest.mark.parametrize("call", ["chown", "utime"])
@pytest.mark.parametrize(("happens", "code"), [(_killed, -9), (_refused, 50)])
def test_a_first_boot_that_does_not_finish_is_made_up_for(
    box: Box, update: str, call: str, happens: Callable[..., None], code: int
) -> None:
    edited = box.root / "etc/edited"
    edited.write_text("before")
    box.ok("apply", "--commit", update)
    edited.write_text("mine")
    edited.chmod(0o640)
    box.reboot()
    said = box.start("repair", "--boot", before=lambda: setattr(os, call, happens)).wait()
    there = box.root / "etc/edited"

    assert (said.code, there.read_text()) == (code, "before"), said.err
    assert box.json("repair", "--boot")["late"] == {"carried": ["etc/edited"], "conflicts": []}
    assert (there.read_text(), there.stat().st_mode & 0o7777) == ("mine", 0o640)
    assert not list(box.root.glob("etc/.snaptx*"))
    assert box.json("verify")["problems"] == []


def test_what_the_commit_carried_is_not_touched_again(box: Box, update: str) -> None:
    data = box.root / "etc/data"
    data.write_text("1\n")
    box.ok("apply", update)
    data.write_text("2\n")
    (box.root / "etc/new").mkdir()
    assert box.json("commit")["carried"] == ["etc/data", "etc/new"]
    box.reboot()

    with (box.root / "etc/data").open("a") as service:
        assert box.json("repair", "--boot")["late"] == {"carried": [], "conflicts": []}
        service.write("written by a service\n")
    assert (box.root / "etc/data").read_text() == "2\nwritten by a service\n"


def test_what_was_taken_back_after_the_commit_is_taken_back(box: Box, update: str) -> None:
    etc = box.root / "etc"
    (etc / "mode").write_text("x")
    (etc / "mode").chmod(0o644)
    (etc / "gone").write_text("here again")
    box.ok("apply", update)
    (etc / "mode").chmod(0o600)
    os.rename(etc / "gone", etc / "aside")
    (etc / "passing/deep").mkdir(parents=True)
    (etc / "passing/deep/lock").touch()
    box.ok("commit")
    (etc / "mode").chmod(0o644)
    os.rename(etc / "aside", etc / "gone")
    (etc / "passing/deep/lock").unlink()
    (etc / "passing/deep").rmdir()
    (etc / "passing").rmdir()
    box.reboot()
    late = box.json("repair", "--boot")["late"]

    etc = box.root / "etc"
    assert set(late["carried"]) == {
        "etc/aside", "etc/gone", "etc/mode", "etc/passing", "etc/passing/deep", "etc/passing/deep/lock",
    }  # fmt: skip
    assert late["conflicts"] == []
    assert (etc / "mode").stat().st_mode & 0o777 == 0o644
    assert (etc / "gone").read_text() == "here again"
    assert not (etc / "passing").exists()
    assert not (etc / "aside").exists()


def test_what_was_carried_and_changed_on_both_sides_since_stays_as_it_runs(box: Box, update: str) -> None:
    box.ok("apply", update)
    for name in ("edited", "removed"):
        (box.root / "etc" / name).write_text("carried")
    box.ok("commit")
    (box.root / "etc/edited").write_text("in the old root")
    (box.root / "etc/removed").unlink()
    box.reboot()
    for name in ("edited", "removed"):
        (box.root / "etc" / name).write_text("in the new root")
    late = box.json("repair", "--boot")["late"]

    assert late == {"carried": [], "conflicts": ["etc/edited", "etc/removed"]}
    assert {(box.root / "etc" / name).read_text() for name in ("edited", "removed")} == {"in the new root"}


def test_a_directory_with_files_of_the_update_is_not_removed_late(box: Box, update: str) -> None:
    (box.root / "etc/dir").mkdir()
    (Path(update) / "etc/dir").mkdir()
    (Path(update) / "etc/dir/brought").write_text("by the update")
    box.ok("apply", update)
    (box.root / "etc/dir").chmod(0o700)
    assert box.json("commit")["carried"] == ["etc/dir"]
    (box.root / "etc/dir").rmdir()
    box.reboot()

    assert box.json("repair", "--boot")["late"] == {"carried": [], "conflicts": ["etc/dir"]}
    assert (box.root / "etc/dir/brought").read_text() == "by the update"


def test_the_path_that_can_not_be_brought_is_named(box: Box, update: str) -> None:
    box.ok("apply", update)
    (box.root / "etc/edited").write_text("mine")
    said = box.start("commit", before=lambda: setattr(os, "utime", _refused)).wait()

    assert said.code == 50
    assert said.complaint[0] == f"cannot carry over /etc/edited: {os.strerror(errno.EIO)}"


def _killed_before_the_record() -> None:
    from snaptx.transaction import Transaction

    Transaction.succeed = _killed  # type: ignore[method-assign]


def test_late_changes_come_along_after_a_commit_that_recovery_completed(box: Box, update: str) -> None:
    box.ok("apply", update)
    (box.root / "etc/before").write_text("carried")
    assert box.start("commit", before=_killed_before_the_record).wait().code == -signal.SIGKILL
    (box.root / "etc/after").write_text("late")
    box.reboot()
    late = box.json("repair", "--boot")["late"]

    assert late == {"carried": ["etc/after"], "conflicts": []}
    assert (box.root / "etc/before").read_text() == "carried"
    assert (box.root / "etc/after").read_text() == "late"
