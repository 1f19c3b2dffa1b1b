"""Filesystems and quotas that are full, at several points of several verbs: nothing is left half done."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

import btrfsutil
import pytest

from tests.boxes import Box, changes, made
from tests.fs.conftest import command
from tests.minimal_root import eventually


def fill(box: Box, leave: int) -> None:
    """Fill the filesystem until about ``leave`` bytes are left."""
    with (box.top / "fill").open("wb") as file:
        for size in (32 << 20, 4 << 20, 1 << 18, 1 << 14):
            with contextlib.suppress(OSError):
                while True:
                    os.posix_fallocate(file.fileno(), file.seek(0, 2), size)
            command("btrfs", "filesystem", "sync", box.top)
        file.truncate(max(0, file.seek(0, 2) - leave))
    command("btrfs", "filesystem", "sync", box.top)


@pytest.fixture(scope="module")
def full() -> Iterator[Box]:
    """Give a small sandbox."""
    with made(size=256 << 20) as box:
        yield box


@pytest.mark.parametrize("leave", [0, 1 << 16, 1 << 20, 4 << 20, 12 << 20])
def test_no_space_at_any_point(full: Box, payload: str, leave: int) -> None:
    fill(full, leave)
    try:
        said = full.refuses(53, "apply", payload)
        assert "free space" in said
    finally:
        (full.top / "fill").unlink()
        command("btrfs", "filesystem", "sync", full.top)
    full.ok("apply", payload)
    full.ok("abort")
    assert full.json("verify")["problems"] == []


@pytest.mark.parametrize("megabytes", [0, 4, 12])
def test_quota_at_any_point(full: Box, payload: str, megabytes: int, tmp_path: Path) -> None:
    command("btrfs", "quota", "enable", full.top)
    command("tar", "-cf", tmp_path / "tar", "-C", payload, "opt")
    os.mkfifo(tmp_path / "fifo")
    before, data = full.facts(), (tmp_path / "tar").read_bytes()
    running = full.start("apply", str(tmp_path / "fifo"))
    with (tmp_path / "fifo").open("wb") as stream, contextlib.suppress(BrokenPipeError):
        stream.write(data[:2_000_000])
        stream.flush()
        eventually(lambda: list(full.state.glob("generations/[0-9]*/root/opt/*")))
        root = max(full.state.glob("generations/*/root"), key=lambda path: int(path.parent.name))
        command("btrfs", "qgroup", "limit", f"{megabytes}M" if megabytes else "64K", root)
        stream.write(data[2_000_000:])
    said = running.wait()
    command("btrfs", "quota", "disable", full.top)

    assert said.code == 53, (said.out, said.err)
    assert "quota" in "".join(said.complaint)
    assert changes(before, full.facts()) == {}


def test_quota_of_the_state(box: Box, payload: str) -> None:
    command("btrfs", "quota", "enable", box.top)
    number = btrfsutil.subvolume_id(str(box.state))
    command("btrfs", "qgroup", "limit", "16K", f"0/{number}", box.top)

    said = box.run("apply", payload)
    assert said.code == 53
    assert "quota" in said.complaint[1]
    command("btrfs", "quota", "disable", box.top)
    box.ok("apply", payload)
    assert list(box.marks().values()) == ["NRG", "s"]
    assert box.ok("log", "--verify")


def test_repair_and_farewell_with_the_quota_of_the_state_used_up(box: Box, payload: str) -> None:
    box.ok("apply", payload)
    command("btrfs", "quota", "enable", box.top)
    command("btrfs", "qgroup", "limit", "16K", f"0/{btrfsutil.subvolume_id(str(box.state))}", box.top)
    try:
        assert "nothing to repair" in box.ok("repair")
        for words in (("repair",), ("init", "--undo")):
            assert re.match("cannot [^/]*: Disk quota exceeded\n", box.refuses(53, *words))
    finally:
        command("btrfs", "quota", "disable", box.top)
    assert "nothing to repair" in box.ok("repair")


def test_the_limit_of_a_generation_does_not_stop_the_switch_to_it(box: Box, payload: str) -> None:
    """To be the default takes no space of its own, so whoever has none left may still go there, and back."""
    number = box.json("apply", payload)["staged"]["number"]
    command("btrfs", "quota", "enable", box.top)
    command("btrfs", "qgroup", "limit", "16K", box.tree(number))
    try:
        box.ok("commit")
        assert box.default_subvolume() == f"@snaptx/generations/{number}/root"
        box.ok("rollback", "1")
        box.ok("confirm", str(number), "--bad")
        assert box.json("prune", str(number))["removed"] == [number]
        assert box.json("verify")["problems"] == []
    finally:
        command("btrfs", "quota", "disable", box.top)


def test_prune_works_on_a_full_disk(full: Box, payload: str) -> None:
    number = full.json("apply", "--commit", payload)["committed"]["number"]
    full.ok("rollback")
    full.ok("confirm", str(number), "--bad", "too large")
    fill(full, 0)
    try:
        assert full.json("prune", str(number))["removed"] == [number]
        assert full.ok("log", "--verify")
    finally:
        (full.top / "fill").unlink()
        command("btrfs", "filesystem", "sync", full.top)
    assert full.json("verify", "1")["problems"] == []


@pytest.mark.parametrize("leave", [0, 1 << 14, 1 << 17])
def test_no_space_for_the_switch(full: Box, payload: str, leave: int) -> None:
    number = full.json("apply", payload)["staged"]["number"]
    fill(full, leave)
    try:
        before, said = full.facts(), full.run("commit")
        assert said.code in (0, 53)
        assert said.code == 0 or changes(before, full.facts()) == {}
    finally:
        (full.top / "fill").unlink()
        command("btrfs", "filesystem", "sync", full.top)
    if said.code:
        full.ok("commit")
    assert full.boot().default == number
    assert full.json("verify", str(number))["problems"] == []
    full.ok("rollback")
    full.ok("confirm", str(number), "--bad")
    full.ok("prune", str(number))


def test_full_boot_partition(payload: str) -> None:
    with made(layout="fedora") as box:
        box.ok("apply", payload)
        kernel = box.tree(2) / "boot/vmlinuz-9.9"
        kernel.write_bytes(os.urandom(5_000_000))
        with contextlib.suppress(OSError), (box.root / "boot/fill").open("wb") as file:
            while True:
                file.write(bytes(1 << 20))
        before = sorted(os.listdir(box.entry.parent))
        said = box.run("commit")

        assert said.code == 53
        assert sorted(os.listdir(box.entry.parent)) == before
        assert box.boot().default == 1
        assert box.marks() == {1: "NRG", 2: "s"}
        (box.root / "boot/fill").unlink()
        box.ok("commit")
