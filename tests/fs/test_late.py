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
