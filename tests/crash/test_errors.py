"""The disk reports errors: no verb says that it succeeded, or that nothing changed, when it is not so."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from snaptx.errors import OutcomeUnknownError
from tests.crash.conftest import Recorded
from tests.crash.injury import Injury, Outcome, attempt, told

pytestmark = pytest.mark.root
EVERY = 30
"""Of the writes, this one fails."""


def injured(recording: Path, strides: Mapping[str, int]) -> list[Outcome]:
    """Return what comes of a flow that goes well without errors, and with them."""
    (whole,) = attempt(recording, [Injury("write", 0)])
    assert (whole.code, whole.problems) == (0, ())
    return attempt(recording, whole.everywhere(strides))


@pytest.mark.parametrize(
    ("name", "strides"),
    [
        ("commit", {"flush": 1, "write": EVERY}),
        ("reject", {"flush": 1, "write": EVERY}),
        ("app-switch", {"flush": 12}),  # its verdict is recorded after the switch, in another transaction
    ],
)
def test_no_error_is_told_otherwise_than_it_is(
    recorded: Recorded, name: str, strides: dict[str, int]
) -> None:
    outcomes = injured(recorded(name), strides)

    assert told(outcomes) == ""
    codes = {outcome.code for outcome in outcomes}
    assert OutcomeUnknownError.code in codes, "no error came after the switch"
    assert codes - {0, OutcomeUnknownError.code}, "no error came before the switch"


@pytest.mark.parametrize(("name", "stride"), [("commit", 6), ("repair", 10)])
def test_what_can_not_be_read_is_not_guessed(recorded: Recorded, name: str, stride: int) -> None:
    outcomes = injured(recorded(name), {"read": stride})

    assert told(outcomes) == ""
    assert {outcome.code for outcome in outcomes} - {0}, "no read failed"


def test_a_file_system_that_turns_read_only(recorded: Recorded) -> None:
    outcomes = injured(recorded("activate"), {"read-only": 1})

    assert told(outcomes) == ""
    codes = {outcome.code for outcome in outcomes}
    assert OutcomeUnknownError.code in codes, "it never happened after the switch"
    assert codes - {0, OutcomeUnknownError.code}, "it never happened before the switch"
