"""A backup that sends a generation: nothing of it goes before that is over, and no verb waits for it."""

from __future__ import annotations

import fcntl
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import btrfsutil
import pytest

from snaptx.model import Part
from tests.boxes import Box
from tests.minimal_root import eventually


@contextmanager
def sent(box: Box, number: int, part: str) -> Iterator[None]:
    """Send a tree of a generation to somebody who reads no more than tells that it has begun."""
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096)
    with subprocess.Popen(["btrfs", "send", "--quiet", box.tree(number, part)], stdout=writing) as backup:
        os.close(writing)
        try:
            os.read(reading, 1)
            yield
            assert backup.poll() is None
        finally:
            os.close(reading)
            backup.wait()


def is_read_only(box: Box, number: int, part: Part) -> bool:
    return bool(btrfsutil.get_subvolume_read_only(str(box.tree(number, part))))


def big(box: Box) -> None:
    (box.root / "usr/big").write_bytes(os.urandom(1 << 20))


@pytest.mark.parametrize("part", ["origin", "sealed"])
def test_a_generation_that_is_being_sent_stays_whole(box: Box, update: str, part: str) -> None:
    big(box)
    for _ in range(2):
        box.ok("apply", "--base", "1", update)
        box.ok("commit")
    box.ok("rollback", "1")
    with sent(box, 2, part):
        said = box.run("prune", "2", "3")
        assert said.code == 0
        assert said.out.splitlines() == ["removed: 3", "still in use, left: 2"]
        assert "send" in said.err
        assert box.marks().keys() == {1, 2}
        assert all(is_read_only(box, 2, one) for one in (Part.ORIGIN, Part.SEALED))
        assert box.json("verify", "2")["problems"] == []
        box.ok("rollback", "2")
        box.ok("rollback", "1")

    assert box.ok("prune", "2") == "removed: 2\n"
    assert box.json("verify")["problems"] == []


def test_what_is_staged_is_not_aborted_by_halves(box: Box, update: str) -> None:
    big(box)
    box.ok("apply", update)
    with sent(box, 2, "origin"):
        assert "send" in box.refuses(52, "abort")
        box.ok("status")
    box.ok("abort")
    assert box.json("verify")["problems"] == []


def test_the_adopted_root_is_let_go_when_its_backup_is_over(box: Box, update: str) -> None:
    big(box)
    box.ok("apply", update)
    with sent(box, 2, "origin"):
        eventually(lambda: box.ok("verify"))
        assert "send" in "\n".join(box.run("init", "--undo").complaint)
        assert box.marks() == {1: "NRG", 2: "s"}
    box.ok("init", "--undo")
    assert not box.state.exists()
