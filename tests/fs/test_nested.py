"""Subvolumes nested inside a root: no verb loses what they hold, and none is held up by them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.boxes import Box
from tests.fs.conftest import command, nested

PLACE = "var/lib/machines"
"""What systemd makes a subvolume of."""


@pytest.fixture
def update(tmp_path: Path) -> str:
    """Give an update of one file."""
    (tmp_path / "update/etc").mkdir(parents=True)
    (tmp_path / "update/etc/motd").write_text("two\n")
    return str(tmp_path / "update")


def usable(path: Path) -> bool:
    """Return whether something can be made in a directory."""
    try:
        (path / "new").touch()
    except PermissionError:
        return False
    (path / "new").unlink()
    return True


@pytest.mark.parametrize("gone", [False, True])
def test_what_a_rollback_makes_has_a_directory_in_its_place(adoptable: Box, update: str, gone: bool) -> None:
    path = nested(adoptable, PLACE)
    path.chmod(0o700)
    adoptable.ok("init")
    if gone:
        command("btrfs", "subvolume", "delete", path)
    adoptable.ok("apply", "--commit", update)
    adoptable.reboot()
    adoptable.ok("confirm")
    adoptable.ok("rollback")
    adoptable.reboot()

    assert adoptable.json("verify", "3")["problems"] == []
    assert usable(adoptable.root / PLACE)
    assert gone or (adoptable.root / PLACE).stat().st_mode & 0o7777 == 0o700
    adoptable.ok("apply", update)


def test_a_copy_for_a_package_manager_has_a_directory_in_its_place(box: Box) -> None:
    nested(box, PLACE)
    box.ok("hook", "before", "--manager", "apt", "--caller", str(os.getpid()))

    assert usable(box.tree(2) / PLACE)
    box.ok("rollback", "2")
    assert usable(box.tree(3) / PLACE)


def test_a_root_made_anew_has_a_directory_in_its_place(box: Box, update: str) -> None:
    box.ok("apply", update)
    inside = box.tree(2) / PLACE
    inside.parent.mkdir(parents=True, exist_ok=True)
    command("btrfs", "subvolume", "create", inside)
    box.ok("commit")
    nested(box, PLACE)
    command("btrfs", "subvolume", "delete", inside)
    command("btrfs", "subvolume", "set-default", box.top)
    command("btrfs", "subvolume", "delete", box.tree(2))
    box.ok("repair")

    assert usable(box.tree(2) / PLACE)
    assert box.json("verify", "2")["problems"] == []


def left_behind(box: Box, update: str) -> Path:
    """Bring a box to generation 3; return the nested subvolume that 2 got while it ran."""
    box.ok("apply", "--commit", update)
    box.reboot()
    box.ok("confirm")
    nested(box, PLACE)
    (Path(update) / "etc/motd").write_text("three\n")
    box.ok("apply", "--commit", update)
    box.reboot()
    box.ok("confirm")
    return box.tree(2) / PLACE


def test_an_empty_one_goes_with_its_generation(box: Box, update: str) -> None:
    left_behind(box, update)

    assert box.json("prune", "2")["removed"] == [2]
    assert not box.tree(2).parent.exists()


def test_one_that_holds_something_keeps_its_generation(box: Box, update: str) -> None:
    (left_behind(box, update) / "precious").write_text("precious\n")

    assert box.json("prune", "2")["busy"] == [2]
    assert (box.tree(2) / PLACE / "precious").read_text() == "precious\n"
    assert box.json("verify", "2")["problems"] == []


def test_what_is_staged_is_discarded_with_an_empty_one(box: Box, update: str) -> None:
    box.ok("apply", update)
    inside = box.tree(2) / PLACE
    inside.parent.mkdir(parents=True, exist_ok=True)
    command("btrfs", "subvolume", "create", inside)
    (inside / "precious").touch()

    assert PLACE in box.refuses(52, "abort")
    (inside / "precious").unlink()
    box.ok("abort")
    assert box.marks() == {1: "NRG"}
    assert not box.tree(2).parent.exists()
