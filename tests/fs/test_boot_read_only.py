"""A /boot of its own that is mounted read-only stops what has to write there before it has begun."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.boxes import Box, made
from tests.fs.conftest import command


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    """Give a sandbox that runs generation 2 on trial, with 3 staged and /boot read-only."""
    place = tmp_path_factory.mktemp("payload")
    with made(layout="fedora") as box:
        for number in ("2", "3"):
            (place / number / "etc").mkdir(parents=True)
            (place / number / "etc" / number).write_text(number)
        box.ok("apply", str(place / "2"), "--commit")
        box.reboot()
        box.ok("apply", str(place / "3"))
        command("mount", "-o", "remount,ro", box.root / "boot")
        yield box


@pytest.mark.parametrize("verb", ["confirm", "commit", "rollback", "abort", "prune", "repair"])
def test_it_is_said_and_nothing_is_left_open(machine: Box, verb: str) -> None:
    said = machine.refuses(54, verb)

    assert "/boot is read-only" in said
    assert "remount,rw" in said
    assert "found:" not in machine.ok("status")
    assert machine.json("verify")["problems"] == []
    assert machine.marks() == {1: "G", 2: "NRT", 3: "s"}


def test_what_reads_goes_on(machine: Box, tmp_path: Path) -> None:
    for words in (["list"], ["status"], ["diff", "1", "2"], ["confirm", "--dry-run"]):
        machine.ok(*words)
