"""Files whose times no 64 bits of nanoseconds hold, before 1677 and after 2262, are as any other."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.boxes import Box, made

SECOND = 10**9
TIMES = {"etc/1600": -11_676_096_000 * SECOND, "etc/2500": 16_725_225_600 * SECOND + 1}


def _set(root: Path, name: str, when: int) -> None:
    os.utime(root / name, ns=(when, when))


@pytest.fixture
def dated() -> Iterator[Box]:
    """Give a sandbox that was adopted with such files, and such a directory that updates write to."""
    with made(init=False) as one:
        for name, when in TIMES.items():
            (one.root / name).write_text(name)
            _set(one.root, name, when)
        (one.root / "opt/dir").mkdir(parents=True)
        (one.root / "opt/dir/kept").touch()
        _set(one.root, "opt/dir", TIMES["etc/2500"])
        one.ok("init")
        yield one


def test_they_are_staged_committed_and_verified(dated: Box, tmp_path: Path) -> None:
    (tmp_path / "up/opt/dir").mkdir(parents=True)
    (tmp_path / "up/opt/dir/new").touch()
    dated.ok("apply", str(tmp_path / "up"))
    _set(dated.root, "etc/2500", TIMES["etc/2500"] + SECOND)
    dated.ok("commit")

    assert dated.json("verify")["problems"] == []
    assert (dated.tree(2) / "etc/1600").stat().st_mtime_ns == TIMES["etc/1600"]
    assert (dated.tree(2) / "etc/2500").stat().st_mtime_ns == TIMES["etc/2500"] + SECOND
    told = dated.ok("diff", "1", "2")
    assert "opt/dir/new" in told
    assert "1600" not in told


def test_a_hard_link_to_one_is_made(dated: Box, tmp_path: Path) -> None:
    os.link(dated.root / "etc/2500", dated.root / "etc/other")
    (tmp_path / "up/etc").mkdir(parents=True)
    (tmp_path / "up/etc/other").write_text("no link any more")
    dated.ok("apply", str(tmp_path / "up"), "--commit")

    assert dated.json("verify")["problems"] == []
    assert dated.ok("repair")
