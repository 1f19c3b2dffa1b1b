"""A journal that a power cut brought back, and one that nobody here can read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from pytest_mock import MockerFixture

from snaptx import initialise, transaction
from snaptx.audit import Audit
from snaptx.errors import FormatError, NoSpaceError
from snaptx.recover import Act
from tests.worlds import REQUEST, World


@pytest.fixture
def world(tmp_path: Path) -> World:
    """Give a machine that was adopted."""
    made = World(tmp_path)
    initialise.initialise(made.machine, REQUEST)
    return made


@pytest.mark.parametrize("noted", [False, True])
def test_what_is_on_record_is_recorded_once(world: World, noted: bool) -> None:
    machine = world.machine
    with (
        transaction.exclusive(machine, "pin"),
        transaction.begin(machine, Act.RECORD, REQUEST, generation=1) as txn,
    ):
        journal = machine.journal.path.read_bytes()
        txn.succeed()
    if noted:
        transaction.note(machine, REQUEST, result="done")
    machine.journal.path.write_bytes(journal)
    before = list(machine.audit.records())

    with transaction.exclusive(machine, "next"):
        assert machine.journal.open() is None
    assert list(machine.audit.records()) == before


def test_a_transaction_of_an_unknown_kind_is_left_alone(world: World) -> None:
    machine = world.machine
    with (
        transaction.exclusive(machine, "pin"),
        transaction.begin(machine, Act.RECORD, REQUEST, generation=1) as txn,
    ):
        intent = machine.journal.open()
        txn.succeed()
    assert intent
    machine.journal.path.write_text(json.dumps(intent._asdict() | {"act": "dance"}) + "\n")

    with pytest.raises(FormatError, match="dance"), transaction.exclusive(machine, "next"):
        pass
    assert machine.journal.path.exists()


def test_what_is_completed_although_it_failed_is_told_so(world: World, mocker: MockerFixture) -> None:
    append, calls = Audit.append, count()

    def fails_once(audit: Audit, record: Mapping[str, Any]) -> Mapping[str, Any]:
        if next(calls) == 0:
            raise NoSpaceError("cannot append to log", hint="free space")
        return append(audit, record)

    mocker.patch.object(Audit, "append", fails_once)
    with pytest.raises(NoSpaceError) as caught:
        world.apply(one="1\n")

    assert caught.value.hint == "'snaptx test' was completed, generation 1 boots next; free space"
    assert world.marks() == {1: "NRG", 2: ""}
