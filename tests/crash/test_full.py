"""Disk or quota are full from any step on: the exit code says so, and what was said is so.

When there is room again the next call recovers: everything verifies, nothing is left over.
The full tier has every verb.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from snaptx.errors import NoSpaceError, OutcomeUnknownError
from tests.crash.conftest import Recorded
from tests.crash.injury import Injury, Outcome, attempt, told

pytestmark = pytest.mark.root
MORE = {"apply": ("quota-root",)}
"""Where it matters what the new generation's own limit is."""

NEARLY = ("commit",)
"""Flows that also meet a disk with a little room."""


def filled(name: str, recording: Path) -> list[Outcome]:
    """Return what comes of a flow where disk or quota are full from each step on."""
    (whole,) = attempt(recording, [Injury("space", 0)])
    wanted = whole.at_steps(("space", "quota", *MORE.get(name, ())))
    assert len({injury.nth for injury in wanted}) == sum("step" in point for point in whole.points) > 0
    return attempt(recording, [one for one in wanted if name in NEARLY or not one.room])


@pytest.mark.parametrize("name", ["init", "apply", "run", "commit"])
def test_full_from_any_step_on(recorded: Recorded, name: str) -> None:
    outcomes = filled(name, recorded(name))

    assert told(outcomes) == ""
    failed = {outcome.code for outcome in outcomes} - {0}
    assert failed <= {NoSpaceError.code, OutcomeUnknownError.code}
    assert failed, "there was space all along"
