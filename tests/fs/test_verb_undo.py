"""``init --undo``: the adopted root goes on as if snaptx had never been there."""

from __future__ import annotations

import json
from pathlib import Path

import btrfsutil
import pytest

from snaptx.undo import LOG
from tests.boxes import changes, inspect, made

pytestmark = pytest.mark.root


def _subvolumes(top: Path) -> set[str]:
    return {path for path, _ in btrfsutil.SubvolumeIterator(str(top), top=5)}


@pytest.mark.parametrize("layout", ["debian", "fedora", "opensuse"])
def test_nothing_is_left_but_the_audit_trail(tmp_path: Path, layout: str) -> None:
    (tmp_path / "payload/etc").mkdir(parents=True)
    (tmp_path / "payload/etc/two").write_text("2")
    with made(layout=layout, init=False) as box:
        subvolumes, default = _subvolumes(box.top), box.default_subvolume()
        root, boot = inspect(box.root), sorted((box.root / "boot").rglob("*"))
        box.ok("init")
        box.ok("apply", "--commit", str(tmp_path / "payload"))
        records = len(box.audit())
        told = box.json("--dry-run", "init", "--undo")
        assert told["generations"] == [2]
        box.ok("init", "--undo")

        assert _subvolumes(box.top) == subvolumes
        assert box.default_subvolume() == default
        assert sorted((box.root / "boot").rglob("*")) == boot
        kept = (box.root / LOG).read_text().splitlines()
        assert len(kept) == records + 1
        assert json.loads(kept[-1])["undone"]
        assert set(changes(root, inspect(box.root))) <= {"var", "var/log", LOG}
        assert box.run("status").code != 0
        box.ok("init")
        assert box.marks() == {1: "NRG"}


def test_one_that_was_interrupted_after_the_boot_entries_went_is_completed() -> None:
    with made(init=False) as box:
        subvolumes = _subvolumes(box.top)
        box.ok("init")
        box.entry.unlink()
        box.ok("init", "--undo")

        assert _subvolumes(box.top) == subvolumes


def test_another_root_that_runs_is_not_left_behind(tmp_path: Path) -> None:
    (tmp_path / "payload").mkdir()
    (tmp_path / "payload/two").write_text("2")
    with made() as box:
        box.ok("apply", "--commit", str(tmp_path / "payload"))
        box.reboot()

        assert "generation 1" in box.refuses(52, "init", "--undo")


def test_what_is_pinned_is_not_removed(tmp_path: Path) -> None:
    (tmp_path / "payload").mkdir()
    (tmp_path / "payload/two").write_text("2")
    with made() as box:
        box.ok("apply", "--commit", str(tmp_path / "payload"))
        box.ok("pin", "2")

        assert "unpin" in box.refuses(52, "init", "--undo")


def test_the_trail_of_an_earlier_time_with_snaptx_is_kept_too() -> None:
    with made(init=False) as box:
        trails = []
        for message in ("first", "second", "third"):
            box.ok("init")
            box.ok("confirm", "1", "--bad", message)
            box.ok("init", "--undo")
            trails.append(message)

            kept = [path.read_text() for path in (box.root / LOG).parent.glob("snaptx-audit.log*")]
            assert len(kept) == len(trails)
            assert all(any(message in text for text in kept) for message in trails)


def test_a_trail_that_an_interrupted_undo_has_kept_is_kept_once() -> None:
    with made(init=False) as box:
        box.ok("init")
        (box.root / LOG).parent.mkdir(parents=True, exist_ok=True)
        (box.root / LOG).write_bytes((box.state / "audit/log").read_bytes())
        box.ok("init", "--undo")

        assert [path.name for path in (box.root / LOG).parent.glob("snaptx-audit*")] == ["snaptx-audit.log"]
        assert json.loads((box.root / LOG).read_text().splitlines()[-1])["undone"]
