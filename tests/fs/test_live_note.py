"""What a live switch notes in /run, where there may be no room for it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from snaptx import mounting
from snaptx.errors import NoSpaceError
from tests.boxes import Box
from tests.fs.conftest import command


@pytest.fixture
def run(two_staged: Box) -> Iterator[Path]:
    """Give a small /run of its own; nothing stays live, or mounted."""
    place = two_staged.root / "run"
    command("mount", "-t", "tmpfs", "-o", "size=64k", "none", place)
    try:
        yield place
        two_staged.ok("live", "--off")
    finally:
        mounting.unmount(str(place), mounting.MNT_DETACH)


def _fill(run: Path) -> None:
    with suppress(OSError), (run / "fill").open("wb", buffering=0) as file:
        while True:
            file.write(b"x" * 4096)


def _seen(box: Box) -> str:
    return (box.root / "usr/who").read_text().strip()


def test_a_switch_that_can_not_be_noted_is_not_made(two_staged: Box, run: Path) -> None:
    (run / "snaptx").mkdir()
    _fill(run)

    assert "cannot write live.tmp" in two_staged.refuses(NoSpaceError.code, "live", "2")
    assert _seen(two_staged) == "1"
    assert two_staged.json("live")["live"] == {}


def test_the_way_back_is_made_all_the_same(two_staged: Box, run: Path) -> None:
    two_staged.ok("live", "2")
    _fill(run)

    two_staged.ok("live", "--off")
    assert _seen(two_staged) == "1"
    assert two_staged.json("live")["live"] == {}
