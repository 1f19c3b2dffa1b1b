"""The disk reports errors: no verb says that it succeeded, or that nothing changed, when it is not so."""

from __future__ import annotations

import pytest

from snaptx.errors import OutcomeUnknownError
from tests.crash import flow
from tests.crash.injury import Injury, Outcome, attempt, everywhere
from tests.crash.scratch import scratch

pytestmark = pytest.mark.root
EVERY = 12
"""Of the writes, this one fails."""


def _wrong(outcomes: list[Outcome]) -> str:
    return "\n".join(
        f"{outcome.injury}: exit code {outcome.code}, {outcome.problems}\n    {outcome.said}"
        for outcome in outcomes
        if outcome.problems
    )


@pytest.mark.parametrize("name", ["commit", "reject"])
def test_no_error_is_told_otherwise_than_it_is(name: str) -> None:
    with scratch() as place:
        flow.record(name, place / name)
        (whole,) = attempt(place / name, [Injury("write", 0, False)])
        outcomes = attempt(place / name, everywhere(whole.counts, EVERY))

    assert (whole.code, whole.problems) == (0, ())
    assert _wrong(outcomes) == ""
    codes = {outcome.code for outcome in outcomes}
    assert OutcomeUnknownError.code in codes, "no error came after the switch"
    assert codes - {0, OutcomeUnknownError.code}, "no error came before the switch"
