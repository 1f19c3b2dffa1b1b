"""Which generations may go: a pure function of what there is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from snaptx import descent
from snaptx.config import RetentionConfig
from snaptx.descent import Kin
from snaptx.model import Phase, Verdict, View

DAY = 86_400  # seconds
SCARCE_KEEP = 3
"""Newest generations kept when the filesystem has less free than ``min_free``."""

MANY = 33
"""Generations, each of three snapshots: with more than a hundred of a root, every new one takes longer."""

LEADS = "what boots next, or a staged one, grew from the running one by way of it"

ADOPTED = "adopted: it is the first one, and others than snaptx may start from it"


class Decision(NamedTuple):
    """What stays because it is protected, why, and what goes, oldest first."""

    protected: dict[int, str]
    expendable: tuple[int, ...]


def protected(views: Sequence[View]) -> dict[int, str]:
    """Return the generations that are never removed, each with the reason."""
    reasons: dict[int, str] = {}
    good = [view.number for view in views if _is(view, Verdict.GOOD)]
    leading = _leading(views)
    for view in views:
        reason = _reason(view, last_good=max(good, default=0)) or LEADS * (view.number in leading)
        if reason:
            reasons[view.number] = reason
    return reasons


def _leading(views: Sequence[View]) -> set[int]:
    """Return what lies between the running generation and those that boot next or may."""
    records = {view.number: view.generation for view in views}
    running = next((view.number for view in views if view.booted), 0)
    ends = [view.number for view in views if view.default or view.phase is Phase.STAGED]
    found = [descent.trace(end, running, records.get) for end in ends]
    return {number for kin, way in found if kin is Kin.STEMS for number in way}


def _is(view: View, verdict: Verdict) -> bool:
    return view.phase is Phase.COMMITTED and view.generation.verdict is verdict


def _reason(view: View, last_good: int) -> str:
    checks = (
        (view.booted, "running"),
        (view.live, "live"),
        (view.default, "default"),
        (view.generation.pinned, "pinned"),
        (view.phase is Phase.STAGED, "staged"),
        (view.number == last_good, "last good"),
        (bool(view.generation.subvolume), ADOPTED),
    )
    return next((reason for holds, reason in checks if holds), "")


def decide(views: Sequence[View], policy: RetentionConfig, *, now: float, free_percent: float) -> Decision:
    """Return what may go: neither protected, nor among the newest, nor young; ``now`` in seconds."""
    kept = protected(views)
    limit = min(policy.keep, SCARCE_KEEP) if free_percent < policy.min_free else policy.keep
    committed = sorted((view.number for view in views if view.phase is Phase.COMMITTED), reverse=True)
    newest = set(committed[:limit])
    oldest = now - policy.keep_days * DAY
    expendable = tuple(
        view.number
        for view in sorted(views, key=lambda view: view.number)
        if view.number not in kept and view.number not in newest
        if not policy.keep_days or view.generation.created < oldest
    )
    return Decision(kept, expendable)
