"""Which updates are not wanted: those of generations that were judged bad or rolled back from.

What a generation has more of updates than the one it was made from is to blame
if it is bad.  The audit trail is where that is kept: it is never rolled back
nor pruned.  ``rejects`` in a record names updates that are not to be installed
again, source to identity; ``accepts`` in a later one takes that back.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from snaptx.errors import SnaptxError
from snaptx.machine import Machine
from snaptx.model import Verdict

Update = tuple[str, str]
"""A source and the identity of one update of it."""


def news(updates: Mapping[str, str], base: Mapping[str, str]) -> dict[str, str]:
    """Return what ``updates`` has that ``base`` has not."""
    return {source: identity for source, identity in updates.items() if base.get(source) != identity}


def unwanted(records: Iterable[Mapping[str, Any]]) -> frozenset[Update]:
    """Return the updates that an audit trail, oldest record first, says were rejected."""
    found: set[Update] = set()
    for record in records:
        found |= set(record.get("rejects", {}).items())
        found -= set(record.get("accepts", {}).items())
    return frozenset(found)


def rejected(machine: Machine) -> frozenset[Update]:
    """Return the updates that are not to be installed again on this machine.

    A verdict whose recording was interrupted stands in the generation alone.
    """
    bad = [one for one in machine.generations.recorded() if one.verdict is Verdict.BAD]
    found = {item for one in bad for item in _brought(machine, one.number).items()}
    return unwanted(machine.audit.records()) | found


def of_verdict(machine: Machine, number: int, verdict: Verdict) -> dict[str, dict[str, str]]:
    """Return what a verdict on a generation says of updates, for its audit record."""
    if verdict is Verdict.BAD:
        return _said(rejects=_brought(machine, number))
    return _said(accepts=_updates(machine, number)) if verdict is Verdict.GOOD else {}


def of_rollback(machine: Machine, previous: int, target: int) -> dict[str, dict[str, str]]:
    """Return what going from generation ``previous`` to ``target`` says of updates, for its audit record."""
    wanted = _updates(machine, target)
    return _said(rejects=news(_updates(machine, previous), wanted), accepts=wanted)


def _said(**told: dict[str, str]) -> dict[str, dict[str, str]]:
    return {name: updates for name, updates in told.items() if updates}


def _brought(machine: Machine, number: int) -> dict[str, str]:
    updates = _updates(machine, number)
    return news(updates, _updates(machine, machine.generations.read(number).base)) if updates else {}


def _updates(machine: Machine, number: int) -> dict[str, str]:
    try:
        return dict(machine.generations.read(number).updates)
    except SnaptxError:
        return {}  # gone or damaged: nobody is kept from leaving a generation by that
