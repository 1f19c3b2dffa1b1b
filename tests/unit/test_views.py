"""A passing snapshot belongs to who looks at it, and is left over once nobody does."""

from __future__ import annotations

from pathlib import Path

import pytest

from snaptx import difference, initialise, repair, views
from snaptx.errors import LockError
from snaptx.machine import Machine
from snaptx.model import Part, Tree
from tests.worlds import REQUEST, World

ROOT, VIEW = Tree(1, Part.ROOT), Tree(1, Part.VIEWED)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """Give a machine that was adopted."""
    made = World(tmp_path).machine
    initialise.initialise(made, REQUEST)
    return made


def test_it_goes_with_the_block(machine: Machine) -> None:
    with views.passing(machine, 1, ROOT, writable=True) as view:
        assert (machine.storage.path(view) / "etc/hostname").read_text() == "old\n"

    assert machine.storage.describe(view) is None


def test_a_repair_meanwhile_leaves_it_alone(machine: Machine) -> None:
    with views.passing(machine, 1, ROOT, writable=True) as view:
        assert repair.repair(machine, REQUEST) == []
        assert machine.storage.describe(view) is not None


def test_nobody_else_gets_it(machine: Machine) -> None:
    with (
        views.passing(machine, 1, ROOT) as view,
        pytest.raises(LockError, match="generations/1"),
        views.passing(machine, 1, ROOT),
    ):
        pass
    assert machine.storage.describe(view) is None


def test_one_that_was_left_is_replaced_or_repaired(machine: Machine) -> None:
    for _ in range(2):
        machine.storage.snapshot(ROOT, VIEW, writable=True)
        with views.passing(machine, 1, ROOT):
            pass
    machine.storage.snapshot(ROOT, VIEW, writable=True)

    (done,) = repair.repair(machine, REQUEST)
    assert "a view that nobody looks at any more was removed" in done
    assert machine.storage.describe(VIEW) is None


def test_a_staged_generation_is_compared_with_itself(tmp_path: Path) -> None:
    world = World(tmp_path)
    initialise.initialise(world.machine, REQUEST)
    number = world.apply(hostname="new\n").number

    with difference.readable(world.machine, number, number) as (old, new):
        assert old == new == Tree(number, Part.VIEWED)
