"""A file of exabytes with next to nothing in it, as any user can make one: no verb reads its zeros."""

from __future__ import annotations

import os
from pathlib import Path

from snaptx.overlay import hashing
from tests.boxes import Box

SIZE = 7 << 60


def test_a_huge_file_with_nothing_in_it_holds_nobody_up(box: Box, tmp_path: Path) -> None:
    lastlog = box.root / "var/log/lastlog"
    lastlog.parent.mkdir(parents=True, exist_ok=True)
    with lastlog.open("wb") as file:
        file.truncate(SIZE)
        os.pwrite(file.fileno(), b"somebody", 1 << 50)
    update = tmp_path / "update"
    update.mkdir()
    (update / "new").write_text("new\n")
    box.ok("apply", str(update))
    with lastlog.open("r+b") as file:
        os.pwrite(file.fileno(), b"somebody else", 1 << 55)
    box.ok("commit")
    box.reboot()
    box.ok("confirm")

    assert box.json("verify")["problems"] == []
    carried = box.root / "var/log/lastlog"
    assert carried.stat().st_size == SIZE
    with carried.open("rb") as file:
        assert os.pread(file.fileno(), 13, 1 << 55) == b"somebody else"
    assert "lastlog" in box.ok("diff", "1", "2")


def test_a_large_file_of_an_update_is_known_again(box: Box, tmp_path: Path) -> None:
    update = tmp_path / "update"
    update.mkdir()
    with (update / "image").open("wb") as file:
        file.truncate(hashing.LARGE + 1)
        os.pwrite(file.fileno(), b"something", 5000)
    box.ok("apply", "--commit", str(update))
    box.reboot()

    assert box.json("verify", "2")["problems"] == []
    assert "nothing changed" in box.ok("apply", str(update))
    with (update / "image").open("r+b") as file:
        os.pwrite(file.fileno(), b"S", 5000)
        os.utime(file.fileno(), ns=(0, (update / "image").stat().st_mtime_ns))
    assert box.json("apply", str(update))["staged"]["number"] > 2
