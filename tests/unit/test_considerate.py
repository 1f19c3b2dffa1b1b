"""What snaptx does for others: staging that goes last, and a word before snapshots slow each other."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from snaptx import initialise, stage, transaction
from snaptx.cli import status
from snaptx.config import Config, Priority, RetentionConfig, StagingConfig
from snaptx.retention import MANY
from snaptx.update.state import State
from tests.worlds import REQUEST, World


@pytest.fixture
def world(tmp_path: Path) -> World:
    """Give a machine that was adopted."""
    made = World(tmp_path)
    initialise.initialise(made.machine, REQUEST)
    return made


def _scheduling(world: World, *, idle: bool) -> set[int]:
    """Return the policies of the scheduler under which a payload was written."""
    seen: set[int] = set()
    with transaction.exclusive(world.machine, "apply"):
        stage.apply(
            world.machine,
            world.payload(motd="new\n"),
            REQUEST,
            idle=idle,
            progress=lambda *_: seen.add(os.sched_getscheduler(0)),
        )
    return seen


@pytest.mark.root
@pytest.mark.parametrize(("asked", "configured"), [(True, Priority.NORMAL), (False, Priority.IDLE)])
def test_staging_lets_others_go_first_if_told(world: World, asked: bool, configured: Priority) -> None:
    before = os.sched_getscheduler(0)
    world.configure(Config(staging=StagingConfig(priority=configured)))

    assert _scheduling(world, idle=asked) == {os.SCHED_IDLE}
    assert os.sched_getscheduler(0) == before


def test_staging_is_like_any_work_if_nothing_is_said(world: World) -> None:
    assert _scheduling(world, idle=False) == {os.sched_getscheduler(0)}


@pytest.mark.parametrize(("generations", "told"), [(MANY, False), (MANY + 1, True)])
def test_too_many_generations_are_told(world: World, generations: int, told: bool) -> None:
    seen = status.gather(world.machine, State())._replace(generations=generations)

    assert any("slow down" in line for line in status.lines(seen)) is told


def test_few_enough_are_kept_by_default() -> None:
    assert RetentionConfig().keep < MANY
