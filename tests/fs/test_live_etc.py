"""A live /etc: the administrator's changes go along, and come back, be it by a restart."""

from __future__ import annotations

import itertools
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from snaptx import mounting
from tests.boxes import Box, made


@pytest.fixture
def box(programs: Path) -> Iterator[Box]:
    """Give a sandbox whose staged generation changes /etc/update; the running root changed since."""
    for name in ("update", "mine", "old"):
        (programs / "etc" / name).write_text("as found\n")
    with made(source=programs) as one:
        one.ok("run", "--", "sh", "-c", "echo 2 > /etc/update; echo 2 > /usr/who; echo x > /etc/fresh")
        write(one, "mine", "before")
        yield one


def write(box: Box, name: str, text: str) -> None:
    """Write what the administrator writes."""
    (box.root / "etc" / name).write_text(text + "\n")


def read(box: Box, name: str) -> str:
    """Return what is seen, "" for nothing."""
    path = box.root / "etc" / name
    return path.read_text().strip() if path.exists() else ""


def change(box: Box) -> None:
    """Change, add and remove while it is live."""
    write(box, "mine", "during")
    write(box, "added", "during")
    (box.root / "etc/old").unlink()


def is_back(box: Box) -> None:
    """See the running root's own with what was changed, and nothing of the update."""
    found = {name: read(box, name) for name in ("update", "mine", "added", "old", "fresh")}
    assert found == {"update": "as found", "mine": "during", "added": "during", "old": "", "fresh": ""}
    assert not (box.tree(2).parent / "live").exists()


def test_changes_go_along_and_come_back(box: Box) -> None:
    done = box.json("live", "2", "--etc")
    assert done["paths"][-1] == "/etc"
    assert done["carried"] == ["etc/mine"]
    assert (read(box, "update"), read(box, "mine")) == ("2", "before")
    change(box)
    back = box.json("live", "--off")

    assert {"etc/mine", "etc/added", "etc/old"} <= set(back["carried"])
    assert back["conflicts"] == []
    is_back(box)
    assert box.json("verify", "2")["problems"] == []


def test_etc_stays_unless_asked(box: Box) -> None:
    box.ok("live", "2")

    assert read(box, "update") == "as found"
    write(box, "mine", "during")
    box.ok("live", "--off")
    assert read(box, "mine") == "during"


def test_manifest_knows_what_was_written_while_live(box: Box) -> None:
    box.ok("live", "2")
    (box.root / "usr/who").write_text("changed")
    (box.root / "usr/bin/true").unlink()
    box.ok("live", "--off")

    assert box.json("verify", "2")["problems"] == []


def test_restart_brings_changes_back(box: Box) -> None:
    box.ok("live", "2", "--etc")
    change(box)
    box.reboot()
    assert read(box, "added") == ""
    box.ok("repair", "--boot")

    is_back(box)


def test_restart_into_it_keeps_them(box: Box) -> None:
    box.ok("live", "2", "--etc")
    change(box)
    box.ok("commit", "2", "--conflicts", "new")
    box.reboot()
    box.ok("repair", "--boot")

    assert (read(box, "update"), read(box, "mine"), read(box, "added")) == ("2", "during", "during")
    assert box.json("verify", "2")["problems"] == []
    assert not (box.tree(2).parent / "live").exists()


def test_conflict_is_settled_before_anything_is_seen(box: Box) -> None:
    write(box, "update", "mine")

    assert "/etc/update" in box.refuses(41, "live", "2", "--etc")
    assert box.json("live", "2", "--etc", "--conflicts", "new")["conflicts"] == ["etc/update"]
    assert read(box, "update") == "2"
    box.ok("live", "--off")
    assert read(box, "update") == "mine"


def test_what_both_changed_is_told_on_the_way_back(box: Box) -> None:
    box.ok("live", "2", "--etc")
    write(box, "update", "changed while live")
    back = box.json("live", "--off")

    assert back["conflicts"] == ["etc/update"]
    assert read(box, "update") == "as found"
    assert read(Box(box.sandbox), "mine") == "before"


def test_way_leads_only_back(box: Box) -> None:
    box.ok("run", "--base", "1", "--", "touch", "/etc/three")
    box.ok("live", "2", "--etc")

    assert "live --off" in box.refuses(61, "live", "3")
    assert "live --off" in box.refuses(61, "live", "3", "--etc", "--force")
    box.ok("live", "--off")


@pytest.mark.parametrize("call", [1, 2])
def test_kill_on_the_way_back_loses_nothing(box: Box, call: int) -> None:
    box.ok("live", "2", "--etc")
    change(box)

    def kill() -> None:
        real, calls, turn = mounting.unmount, itertools.count(1), threading.Lock()

        def unmount(target: str, flags: int = 0) -> None:
            with turn:  # they are made at once
                real(target, flags)
                if next(calls) == call:
                    os.kill(os.getpid(), signal.SIGKILL)

        mounting.unmount = unmount

    assert box.start("live", "--off", before=kill).wait().code == -signal.SIGKILL
    box.ok("repair")
    is_back(box)
    assert box.json("live")["live"] == {}
