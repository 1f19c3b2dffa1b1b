"""``snaptx rollback``: the same switch back, itself a transaction, itself undoable."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.boxes import Box, changes, inspect


def update(box: Box, place: Path, text: str) -> int:
    """Commit a generation whose /etc/motd says ``text``; return its number."""
    (place / text / "etc").mkdir(parents=True)
    (place / text / "etc/motd").write_text(text)
    return int(box.json("apply", "--commit", str(place / text))["committed"]["number"])


@pytest.fixture
def updated(box: Box, tmp_path: Path) -> Box:
    """Give a box that was updated twice and runs generation 2, which is good; 3 is the default."""
    update(box, tmp_path, "two")
    box.reboot()
    box.ok("confirm")
    update(box, tmp_path, "three")
    return box


def motd(box: Box) -> str:
    """Return what the running root's /etc/motd says, "" if there is none."""
    path = box.root / "etc/motd"
    return path.read_text() if path.exists() else ""


def test_before_the_restart_it_takes_the_commit_back(updated: Box) -> None:
    before = inspect(updated.root, times=True)
    done = updated.json("rollback")

    assert (done["number"], done["content"], done["previous"]) == (2, 2, 3)
    assert updated.marks() == {1: "G", 2: "NRG", 3: "T"}
    state = updated.boot()
    assert (state.default, state.fallback, state.confirmed) == (2, 1, True)
    assert updated.default_subvolume() == "@snaptx/generations/2/root"
    assert changes(before, inspect(updated.root, times=True)) == {}
    assert updated.json("verify")["problems"] == []


def test_after_the_restart_it_goes_to_the_last_good(updated: Box) -> None:
    updated.reboot()
    assert motd(updated) == "three"
    done = updated.json("rollback", "-m", "three is broken")

    assert (done["number"], done["content"], done["previous"]) == (4, 2, 3)
    assert updated.marks() == {1: "G", 2: "G", 3: "NT", 4: "RT"}
    assert updated.json("list")[-1]["message"] == "three is broken"
    assert updated.json("verify", "4")["problems"] == []
    updated.reboot()
    assert motd(updated) == "two"
    (updated.root / "etc/new").write_text("it can be written to")
    assert updated.marks()[4] == "NRT"


def test_a_rollback_is_undone_by_the_next(updated: Box) -> None:
    updated.reboot()
    updated.ok("confirm")
    updated.ok("rollback", "2")
    updated.reboot()
    done = updated.json("rollback")

    assert (done["number"], done["content"]) == (5, 3)
    updated.reboot()
    assert motd(updated) == "three"


def test_sealed_or_as_used(updated: Box) -> None:
    updated.reboot()
    updated.ok("confirm")
    (updated.root / "etc/motd").write_text("used")
    updated.ok("rollback", "2")
    updated.reboot()
    assert motd(updated) == "two"

    assert updated.json("rollback", "3", "--as-used")["number"] == 3
    updated.reboot()
    assert motd(updated) == "used"
    assert updated.json("rollback", "2", "--dry-run") == {"content": 2}
    updated.ok("rollback", "4", "--as-used")
    assert updated.json("rollback", "3")["content"] == 3, "the running root is its own best copy"


def test_to_the_adopted_root(updated: Box) -> None:
    updated.reboot()
    done = updated.json("rollback", "1")

    assert (done["number"], done["content"]) == (4, 1)
    updated.reboot()
    assert motd(updated) == ""
    assert "rootflags=subvol=@snaptx/generations/4/root" in updated.boot().entries[0].cmdline


def test_edits_of_what_is_left_stay_there_and_are_not_carried(updated: Box, tmp_path: Path) -> None:
    updated.reboot()
    (updated.root / "etc/edited").write_text("in three")
    updated.ok("rollback", "2")
    (tmp_path / "more").mkdir()
    (tmp_path / "more/added").write_text("x")
    done = updated.json("apply", "--commit", str(tmp_path / "more"))["committed"]

    assert done["carried"] == []
    assert not (updated.tree(done["number"]) / "etc/edited").exists()


def test_impossible_goals(updated: Box, tmp_path: Path) -> None:
    (tmp_path / "more").mkdir()
    (tmp_path / "more/added").write_text("x")
    updated.ok("apply", str(tmp_path / "more"))

    assert "no generation 9" in updated.refuses(51, "rollback", "9")
    assert f"{updated.program} commit 4" in updated.refuses(52, "rollback", "4")
    updated.ok("rollback", "2")
    assert "default already" in updated.refuses(52, "rollback", "2")
    assert "default already" in updated.refuses(52, "rollback", "2", "--as-used")


def test_nothing_to_go_back_to(shared: Box) -> None:
    assert "no earlier good" in shared.refuses(51, "rollback")


def test_dry_run_changes_nothing(updated: Box) -> None:
    before = updated.facts()

    assert updated.json("--dry-run", "rollback") == {"content": 2}
    assert "by a new generation, with its content as it was committed" in updated.ok(
        "--dry-run", "rollback", "1"
    )
    assert "as it was last used" in updated.ok("--dry-run", "rollback", "1", "--as-used")
    assert changes(before, updated.facts()) == {}


def test_a_default_without_kernel_can_be_left(updated: Box) -> None:
    updated.reboot()
    for kernel in updated.root.glob("boot/vmlinuz*"):
        kernel.unlink()

    assert "no kernel" in "\n".join(updated.run("confirm").complaint)
    done = updated.json("rollback")
    assert (done["content"], updated.boot().default) == (2, done["number"])
    updated.reboot()
    assert motd(updated) == "two"
    assert updated.run("verify").code in (0, 40)
    updated.ok("repair")
