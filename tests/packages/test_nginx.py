"""nginx of Debian under load: a live switch and an application's move lose nothing, a restart what it must.

The package is unpacked, not installed: installing it would start it, on the port that is the machine's.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import bench_service
from tests.bench_service import Tally

CLIENTS = 4
DOWN = 5.0
"""Seconds without an answer, on a machine that does something else too."""


@pytest.fixture(scope="module")
def tree() -> Iterator[Path]:
    """Give a tree with nginx."""
    with tempfile.TemporaryDirectory() as place:
        yield bench_service.unpacked(Path(place))


def _lost(tally: Tally) -> list[str]:
    return [trouble for load in tally.loads for trouble in load.lost]


def _answered(tally: Tally) -> int:
    return sum(sum(load.answers.values()) for load in tally.loads)


def test_a_live_switch_loses_nothing_and_a_restart_only_while_it_is_down(tree: Path, tmp_path: Path) -> None:
    tallies = dict(bench_service.live(tree, tmp_path, 1, CLIENTS))

    assert all(_answered(tally) for tally in tallies.values())
    for name in ("live switch", "live --off"):
        assert _lost(tallies[name]) == []
    for name in ("restart with the new", "restart with the old"):
        assert all("refused" in trouble or "reset" in trouble for trouble in _lost(tallies[name]))
        assert max(load.gap for load in tallies[name].loads) < DOWN


def test_an_application_moves_without_a_loss_and_one_that_is_bad_is_met_by_nobody(
    tree: Path, tmp_path: Path
) -> None:
    tallies = dict(bench_service.app(tree, tmp_path, 1, CLIENTS))

    for name in ("app switch", "app rollback"):
        assert _lost(tallies[name]) == []
        assert set(tallies[name].loads[0].answers) == {"app-one", "app-two"}
    refused = tallies["app switch, refused"]
    assert _answered(refused)
    assert _lost(refused) == []
    assert "app-bad" not in refused.loads[0].answers
