"""What a live switch notes in /run, where there may be no room for it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

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


@pytest.mark.parametrize(
    "damage",
    [
        {"paths": [1]},
        {"paths": "/usr"},
        {"paths": ["/a\0b"]},
        {"paths": ["usr"]},
        {"paths": ["/"]},
        {"used": ["x"]},
        {"used": 2},
        {"used": [[]]},
        {"generation": "2"},
        {"generation": None},
        {"since": "noon"},
        {"since": 1e300},
        {"since": -1e300},
        {"previous": [1]},
    ],
)
def test_a_damaged_note_is_as_good_as_none(two_staged: Box, run: Path, damage: dict[str, Any]) -> None:
    """What is live is in the mount table; it takes no note to see that and to take it away."""
    two_staged.ok("live", "2")
    note = json.loads((run / "snaptx/live").read_bytes())
    (run / "snaptx/live").write_text(json.dumps({**note, **damage}))

    assert two_staged.json("live")["live"]["/usr"] == 2
    for words in (("status",), ("list",), ("ps",), ("live", "--dry-run", "3")):
        two_staged.ok(*words)
    two_staged.ok("live", "--off")
    assert _seen(two_staged) == "1"
