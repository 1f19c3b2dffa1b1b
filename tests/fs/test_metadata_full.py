"""A filesystem with room for data and none for metadata: what frees space works all the same."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

from snaptx.audit import Audit
from snaptx.journal import Intent, Journal
from snaptx.storage.btrfs import BtrfsStorage
from tests.boxes import Box, killed_in, made
from tests.fs.conftest import command


def fill(box: Box) -> None:
    """Give all that is unallocated to data, and leave no room for another file or attribute."""
    place = box.top / "fill"
    place.mkdir()
    with (place / "data").open("wb") as file:
        for size in (64 << 20, 1 << 20, 1 << 16):
            with contextlib.suppress(OSError):
                while True:
                    os.posix_fallocate(file.fileno(), file.seek(0, 2), size)
        file.truncate(file.seek(0, 2) // 2)
    with contextlib.suppress(OSError), (place / "large").open("wb") as file:
        for number in count():
            os.setxattr(file.fileno(), f"user.{number}", bytes(16_000))
    command("btrfs", "filesystem", "sync", place)
    with contextlib.suppress(OSError):
        for number in count():
            (place / f"small-{number}").write_bytes(bytes(2_000))


def empty(box: Box) -> None:
    """Take away what ``fill`` has made."""
    shutil.rmtree(box.top / "fill")
    command("btrfs", "filesystem", "sync", box.top)


@pytest.fixture
def large(update: str) -> Iterator[Box]:
    """Give a sandbox with a generation that was judged bad, and a staged one."""
    with made(size=1 << 30) as box:
        box.ok("apply", "--commit", update)
        box.ok("rollback", "1")
        box.ok("confirm", "2", "--bad")
        box.ok("apply", update)
        yield box


@pytest.fixture
def full(large: Box) -> Box:
    """Give it with no metadata left."""
    fill(large)
    return large


def test_what_removes_works_without_metadata(full: Box, update: str) -> None:
    assert "No space left on device" in full.refuses(53, "apply", update)

    assert full.json("prune", "2")["removed"] == [2]
    full.ok("abort")

    assert list(full.marks()) == [1]
    assert "nothing to repair" in full.ok("repair")
    assert full.ok("log", "--verify")
    assert [record["verb"] for record in full.audit()[-2:]] == ["prune", "abort"]


def test_one_more_than_what_is_kept_back_is_for(full: Box) -> None:
    """What one removal leaves of the room is enough for the next."""
    full.ok("abort")
    assert full.json("prune", "2")["removed"] == [2]
    assert full.json("verify")["problems"] == []


def test_what_is_kept_back_is_made_anew(full: Box) -> None:
    spare = full.state / "audit/spare"
    before = os.listxattr(spare)
    full.json("prune", "2")
    assert not spare.exists()
    empty(full)

    full.ok("abort")

    assert sorted(os.listxattr(spare)) == sorted(before)


def test_leftovers_are_removed_without_metadata(full: Box) -> None:
    (full.state / "generations/3/generation.json").unlink()

    (done,) = full.json("repair")["done"]

    assert done == "generation 3, a leftover without a record, was removed"
    assert full.json("verify")["problems"] == []


@pytest.mark.parametrize("verb", ["repair", "abort"])
def test_what_is_open_is_settled_without_metadata(large: Box, verb: str) -> None:
    actor = {"verb": "prune", "started": 0}
    Journal(large.state / "journal").begin(Intent("00", "remove", 0, 0, (2,), "", 0, actor))
    fill(large)

    large.ok(verb)

    assert 2 not in large.marks()
    assert 2 not in [entry.number for entry in large.boot().entries]
    assert large.json("verify")["problems"] == []


def test_an_application_is_pruned_without_metadata(large: Box, update: str) -> None:
    large.ok("app", "create", "web")
    for text in ("two", "three", "four"):
        (Path(update) / "etc/motd").write_text(text)
        large.ok("app", "apply", "web", update)
        large.ok("app", "switch", "web")
    fill(large)
    assert f"'{large.program} app prune web' removes" in large.refuses(53, "app", "apply", "web", update)

    assert large.json("app", "prune", "web", "2")["removed"] == [2]
    assert large.json("verify")["problems"] == []


@pytest.mark.parametrize(
    ("owner", "method", "call"),
    [(Journal, name, call) for name in ("begin", "step") for call in (1, 2)]
    + [(BtrfsStorage, name, 1) for name in ("delete", "barrier")]
    + [(Audit, name, 1) for name in ("append", "_witness_to")]
    + [(Journal, "end", 1)],
)
def test_a_removal_that_is_killed_is_settled_without_metadata(
    full: Box, owner: type, method: str, call: int
) -> None:
    assert full.start("prune", "2", before=killed_in(owner, method, call)).wait().code < 0

    full.ok("repair")

    assert (2 in full.marks()) is (method == "begin"), "what was begun is completed"
    assert full.json("verify")["problems"] == []
    full.ok("abort")


@pytest.mark.parametrize("words", [("prune", "2"), ("abort",)])
def test_with_nothing_kept_back_files_have_to_go(large: Box, words: tuple[str, ...]) -> None:
    (large.state / "audit/spare").unlink()
    fill(large)

    assert large.refuses(53, *words).endswith("\ndelete files, or raise the quota")

    empty(large)
    large.ok(*words)
    assert large.json("verify")["problems"] == []


def test_a_small_disk_keeps_none_back() -> None:
    with made(size=256 << 20) as box:
        assert not (box.state / "audit/spare").exists()
