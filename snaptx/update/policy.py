"""How far an update may go: the rules, pure.

The steps are ordered.  Whatever stands in the way allows the steps up to one
and says why; the lowest such bound holds.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from typing import NamedTuple

from snaptx.config import Policy
from snaptx.model import Verdict


class Step(IntEnum):
    """What an update does, in this order."""

    NOTHING = 0
    CHECK = 1
    DOWNLOAD = 2
    STAGE = 3
    COMMIT = 4
    REBOOT = 5


class Staged(StrEnum):
    """Whose work is staged, the newest counts; an update is stale if the default is not its base any more."""

    NOTHING = "nothing"
    UPDATE = "update"
    STALE = "stale"
    MANUAL = "manual"


class Bound(NamedTuple):
    """The last step that is allowed, and what forbids the next."""

    step: Step
    reason: str


@dataclass(frozen=True, slots=True)
class Situation:
    """What the rules look at.

    ``held`` and ``reboot_held`` are why nothing at all, or no restart, is to
    happen, "" for no reason; ``default``, ``verdict`` and ``running`` are the
    number of the default, what is known of it and whether it runs.
    """

    policy: Policy
    held: str = ""
    reboot_held: str = ""
    window_open: bool = True
    staged: Staged = Staged.NOTHING
    default: int = 1
    verdict: Verdict = Verdict.GOOD
    running: bool = True


POLICIES = {policy: Step(number) for number, policy in enumerate(Policy)}


def _bounds(now: Situation) -> Iterator[Bound]:
    yield Bound(POLICIES[now.policy], f"the policy is '{now.policy}'")
    if now.held:
        yield Bound(Step.NOTHING, now.held)
    if now.staged is Staged.MANUAL:
        yield Bound(Step.DOWNLOAD, "what is staged was staged by hand: 'snaptx commit' or 'snaptx abort' it")
    if now.verdict is Verdict.TRIAL and now.running:
        yield Bound(Step.DOWNLOAD, f"generation {now.default} runs on trial: 'snaptx confirm' judges it")
    if not now.window_open:
        yield Bound(Step.STAGE, "it is outside of the maintenance window")
    if now.reboot_held:
        yield Bound(Step.COMMIT, now.reboot_held)


def reach(now: Situation) -> Bound:
    """Return how far an update may go, and why no further."""
    return min(_bounds(now), key=lambda bound: bound.step)


def wants_restart(now: Situation, *, updated: bool, arrived: bool) -> bool:
    """Return whether a restart is an update's doing: it was committed, on trial, and never ran.

    ``updated`` is whether an update made the default, ``arrived`` whether it was seen running.
    A generation that somebody else committed, or left at the menu, waits for them.
    """
    return updated and not arrived and not now.running and now.verdict is Verdict.TRIAL
