"""What prune may take, and what it never takes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snaptx.config import RetentionConfig
from snaptx.model import Generation, Phase, Verdict, View
from snaptx.retention import DAY, LEADS, SCARCE_KEEP, decide, protected

NOW = 1_000 * DAY


def view(number: int, verdict: Verdict = Verdict.GOOD, *, age: float = 100, **facts: bool) -> View:
    """Make a committed generation, ``age`` days old."""
    generation = Generation(number, number - 1, NOW - age * DAY, "apply", verdict=verdict)
    generation = generation._replace(pinned=facts.get("pinned", False))
    phase = Phase.STAGED if facts.get("staged") else Phase.COMMITTED
    seen = [facts.get(name, False) for name in ("booted", "default", "live")]
    return View(generation, phase, *seen)


def taken(views: list[View], policy: RetentionConfig, free: float = 50) -> tuple[int, ...]:
    """Return what would go."""
    return decide(views, policy, now=NOW, free_percent=free).expendable


def test_the_newest_stay_and_the_oldest_go_first() -> None:
    views = [view(number) for number in range(1, 7)]

    assert taken(views, RetentionConfig(keep=2)) == (1, 2, 3, 4)


@pytest.mark.parametrize("fact", ["booted", "default", "live", "pinned", "staged"])
def test_what_is_needed_stays(fact: str) -> None:
    views = [view(1, Verdict.BAD, **{fact: True}), *(view(number) for number in range(2, 6))]

    assert 1 not in taken(views, RetentionConfig(keep=1))


def test_the_last_good_one_stays_behind_newer_bad_ones() -> None:
    views = [view(1), view(2), view(3, Verdict.BAD), view(4, Verdict.BAD)]

    assert taken(views, RetentionConfig(keep=1)) == (1, 3)


def test_a_generation_on_trial_stays_but_not_one_that_was_never_judged() -> None:
    views = [view(1, Verdict.TRIAL), view(2, Verdict.TRIAL, default=True), view(3), view(4)]

    assert taken(views, RetentionConfig(keep=1)) == (1, 3)


def test_the_young_stay_as_long_as_configured() -> None:
    views = [view(1, age=20), view(2, age=5), view(3, age=1)]

    assert taken(views, RetentionConfig(keep=1, keep_days=10)) == (1,)


@pytest.mark.parametrize("end", ["default", "staged"])
def test_what_leads_from_the_running_one_to_what_may_boot_stays(end: str) -> None:
    last = view(5, default=end == "default", staged=end == "staged")
    views = [view(1), view(2, booted=True), view(3), view(4), last, view(6), view(7)]

    assert taken(views, RetentionConfig(keep=1)) == (1, 6)
    assert protected(views)[3] == protected(views)[4] == LEADS


def test_nothing_leads_over_a_rollback() -> None:
    back = view(4).generation._replace(content=1)
    views = [view(1), view(2, booted=True), view(3), view(4)._replace(generation=back), view(5, default=True)]

    assert taken(views, RetentionConfig(keep=1)) == (1, 3, 4)


def test_scarce_space_keeps_fewer() -> None:
    views = [view(number) for number in range(1, 11)]

    assert taken(views, RetentionConfig(keep=10, min_free=10), free=50) == ()
    assert len(taken(views, RetentionConfig(keep=10, min_free=10), free=5)) == 10 - SCARCE_KEEP


@given(
    facts=st.lists(
        st.sampled_from(["", "booted", "default", "pinned", "staged", "trial", "bad"]), max_size=12
    ),
    keep=st.integers(0, 12),
    free=st.floats(0, 100),
)
def test_no_rule_ever_takes_what_is_protected(facts: list[str], keep: int, free: float) -> None:
    verdicts = {"trial": Verdict.TRIAL, "bad": Verdict.BAD}
    views = [
        view(number, verdicts.get(fact, Verdict.GOOD), **({fact: True} if fact else {}))
        for number, fact in enumerate(facts, 1)
    ]
    gone = set(taken(views, RetentionConfig(keep=keep), free))

    assert not gone & set(protected(views))
    good = [v.number for v in views if v.generation.verdict is Verdict.GOOD and v.phase is Phase.COMMITTED]
    assert not good or max(good) not in gone
