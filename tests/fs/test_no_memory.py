"""No memory is left: one message, and everything is as after any other failure."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from snaptx import switch
from snaptx.storage.btrfs import BtrfsStorage
from snaptx.transaction import Transaction
from snaptx.update import perform
from tests.boxes import Box, changes


def starved(owner: object, name: str, call: int = 1) -> Callable[[], None]:
    """Return what lets the ``call``-th call of a function find no memory, and all later ones none either."""

    def prepare() -> None:
        before, calls = getattr(owner, name), []

        def fails(*args: object, **named: object) -> object:
            calls.append(1)
            if len(calls) >= call:
                raise MemoryError
            return before(*args, **named)

        setattr(owner, name, fails)

    return prepare


@pytest.fixture
def update(tmp_path: Path) -> str:
    """Give an update of one file."""
    (tmp_path / "up/etc").mkdir(parents=True)
    (tmp_path / "up/etc/motd").write_text("hello\n")
    return str(tmp_path / "up")


@pytest.mark.parametrize("step", [1, 2, 3])
def test_what_was_begun_is_taken_back(box: Box, update: str, step: int) -> None:
    before = box.facts()
    said = box.start("apply", update, before=starved(Transaction, "step", step)).wait()

    assert said.code == 1
    assert said.complaint[0] == "out of memory: 'snaptx apply' was discarded, generation 1 boots next"
    assert "ulimit -v" in said.complaint[1]
    assert changes(before, box.facts()) == {}
    assert box.audit()[-1]["error"]["message"] == "out of memory"


def test_what_can_not_be_taken_back_stays_for_the_next(box: Box, update: str) -> None:
    before = box.facts()

    def everywhere() -> None:
        starved(Transaction, "step", 2)()
        starved(BtrfsStorage, "delete")()

    said = box.start("apply", update, before=everywhere).wait()

    assert said.code == 1
    told = [line for line in said.err.splitlines() if line.startswith("snaptx: ")]
    assert told == [
        "snaptx: out of memory: 'snaptx apply' stays open for the next snaptx, generation 1 boots next"
    ]
    assert "discarded" in box.ok("repair")
    assert changes(before, box.facts()) == {}


def test_after_the_switch_it_is_not_told_as_if_nothing_had_changed(box: Box, update: str) -> None:
    box.ok("apply", update)
    said = box.start("commit", before=starved(switch, "_settle")).wait()

    assert said.code == 59
    assert box.boot().default == 2
    box.ok("repair")
    assert box.json("verify")["problems"] == []


def test_an_update_remembers_it(box: Box) -> None:
    said = box.start("update", "--source", "/shop", before=starved(perform, "_look")).wait()

    assert (said.code, said.complaint[0]) == (1, "out of memory")
    assert box.json("status")["updates"]["failures"] == 1
