"""Verbs that only look, beside one that changes: neither fails because of the other, and nobody is misled."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from snaptx.bootloader.inroot import GrubInRoot
from snaptx.generations import Generations
from snaptx.journal import Journal
from snaptx.overlay.manifest import Manifest
from snaptx.storage.btrfs import BtrfsStorage
from tests.boxes import Box, Said, made


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Box]:
    """Give a sandbox with generation 2 staged."""
    (tmp_path / "update/etc").mkdir(parents=True)
    (tmp_path / "update/etc/new").write_text("new")
    with made(size=256 << 20) as box:
        box.ok("apply", str(tmp_path / "update"))
        yield box


@contextlib.contextmanager
def halted(box: Box, after: tuple[type, str], *words: str) -> Iterator[Callable[[], Said]]:
    """Give a verb that stands still after its first call of a method, and how to let it go on to its end."""
    ours, theirs = socket.socketpair()
    cls, name = after

    def before() -> None:
        ours.close()
        theirs.settimeout(20)
        call = getattr(cls, name)

        def halting(*args: Any, **options: Any) -> Any:
            result = call(*args, **options)
            setattr(cls, name, call)
            theirs.send(b"!")
            theirs.recv(1)
            return result

        setattr(cls, name, halting)

    def let_go() -> Said:
        ours.shutdown(socket.SHUT_WR)
        return running.wait()

    with ours:
        with theirs:
            running = box.start(*words, before=before)
        ours.settimeout(20)
        assert ours.recv(1) == b"!", "it ended before"
        yield let_go


def test_what_is_compared_may_be_discarded(machine: Box) -> None:
    with halted(machine, (BtrfsStorage, "snapshot"), "diff") as let_go:
        machine.ok("abort")
        said = let_go()

    assert said.code == 51
    assert said.complaint[0] == "generation 2 was removed meanwhile"


def test_what_is_to_be_compared_may_be_pruned(machine: Box) -> None:
    machine.ok("commit")
    machine.ok("rollback")
    with halted(machine, (BtrfsStorage, "name"), "diff") as let_go:
        machine.ok("prune", "2")
        said = let_go()

    assert said.code == 51
    assert said.complaint[0] == "generation 2 was removed meanwhile"


def test_two_that_look_at_one_generation(machine: Box) -> None:
    with halted(machine, (BtrfsStorage, "snapshot"), "diff") as let_go:
        other = machine.start("diff")
        first = let_go()
        second = other.wait()

    assert (first.code, first.err) == (second.code, second.err) == (0, "")
    assert first.out == second.out == "+ /etc/new 0 -> 3 bytes\n"


@pytest.mark.parametrize("words", [("list",), ("status",), ("verify",), ("prune", "--dry-run")])
def test_a_generation_that_goes_while_all_are_read(machine: Box, words: tuple[str, ...]) -> None:
    with halted(machine, (Generations, "numbers"), *words) as let_go:
        machine.ok("abort")
        said = let_go()

    assert (said.code, said.err) == (0, "")


def test_the_newest_generation_goes_while_it_is_verified(machine: Box) -> None:
    with halted(machine, (Manifest, "open"), "verify") as let_go:
        machine.ok("abort")
        said = let_go()

    assert (said.code, said.err) == (0, "")
    assert said.out.startswith("generation 1 is what its manifest says")


def test_what_changes_while_it_is_verified_is_no_problem(machine: Box) -> None:
    with (
        halted(machine, (Journal, "open"), "verify", "1") as verified,
        halted(machine, (GrubInRoot, "switch"), "commit") as committed,
    ):
        said = verified()
        assert committed().code == 0

    assert (said.code, said.err) == (0, "")
