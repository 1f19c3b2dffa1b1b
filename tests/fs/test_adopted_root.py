"""The root that the distribution made: no rule and no verb removes it, and the machine does without it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import btrfsutil
import pytest

from tests.boxes import Box, made


@pytest.fixture(params=["debian", "fedora"])
def moved_on(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Box]:
    """Give a machine that runs generation 3, with 1 and 2 behind it, all good."""
    (tmp_path / "etc").mkdir()
    with made(layout=request.param) as box:
        for text in ("two", "three"):
            (tmp_path / "etc/motd").write_text(text)
            box.ok("apply", str(tmp_path), "--commit")
            box.reboot()
            box.ok("confirm")
        yield box


def test_it_goes_by_hand_only(moved_on: Box) -> None:
    box = moved_on
    assert box.json("--dry-run", "prune", "--keep", "0")["protected"]["1"].startswith("adopted")
    assert "by hand" in box.refuses(52, "prune", "1")
    assert box.json("prune", "--keep", "0")["removed"] == [2]
    assert box.json("verify")["problems"] == []

    btrfsutil.delete_subvolume(str(box.top / box.sandbox.plan.root))
    assert "generation 1: has no root" in box.run("verify").out
    assert "generation 1 had no root; its record was removed" in box.ok("repair")

    assert box.marks() == {3: "NRG"}
    assert [entry.number for entry in box.boot().entries] == [3]
    assert box.json("verify")["problems"] == []
    assert not (box.state / "generations/1").exists()
    assert not (box.entry.parent / "1").exists()
    assert box.run("repair", "--unchanged-exit-77").code == 77
    box.reboot()
    assert box.json("status")["booted"] == 3
