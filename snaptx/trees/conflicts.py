"""Which changes of the running root can be carried into a new generation.

Both sides started from one origin.  *Ours* is what was changed in the running
root since, *theirs* what the new generation changes.  One of ours conflicts if

    its path, or the path it was renamed from, was changed by theirs as well;
    a directory it is in was removed, moved or replaced by theirs;
    it removes or moves a directory in which theirs added or changed something;
    it is inside a directory that ours added or moved, which conflicts.

Where both sides come to the same result there is nothing to carry and nothing
to decide.  Pure: changes in, decision out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from snaptx.model import Aspect, Change, Kind, Op

Same = Callable[[bytes], bool]


class Conflict(NamedTuple):
    """One change of ours and the change of theirs that stands in its way."""

    ours: Change
    theirs: Change


class Outcome(NamedTuple):
    """What of ours can be carried over and what can't, both in the order of ours."""

    carried: tuple[Change, ...]
    conflicts: tuple[Conflict, ...]


def _parents(path: bytes) -> Iterator[bytes]:
    while path:
        path = path.rpartition(b"/")[0]
        yield path


def _is_gone(change: Change) -> bytes | None:
    """Return the path at which ``change`` leaves no directory that ours could have been in."""
    if change.op is Op.REMOVED or Aspect.TYPE in change.aspects:
        return change.path
    return change.renamed_from if change.op is Op.RENAMED else None


def _replaces(change: Change) -> bool:
    return change.op is Op.RENAMED or change.op is Op.REMOVED or Aspect.TYPE in change.aspects


class _Theirs:
    """Their changes by path, by what they left without a directory and by what they are in."""

    def __init__(self, changes: Iterable[Change], settled: set[Change]) -> None:
        self._at: dict[bytes, Change] = {}
        self._gone: dict[bytes, Change] = {}
        self._inside: dict[bytes, Change] = {}
        for change in changes:
            if change not in settled:
                self._enter(change)

    def _enter(self, change: Change) -> None:
        gone = _is_gone(change)
        if gone is not None:
            self._gone[gone] = change
            self._at.setdefault(gone, change)
        self._at[change.path] = change
        if change.op is not Op.REMOVED:
            for parent in _parents(change.path):
                self._inside.setdefault(parent, change)

    def against(self, change: Change, spots: tuple[bytes, ...]) -> Change | None:
        """Return what stands in the way of ``change``, which concerns the paths ``spots``."""
        for spot in spots:
            if spot in self._at:
                return self._at[spot]
            for parent in _parents(spot):
                if parent in self._gone:
                    return self._gone[parent]
        if _replaces(change):
            return next((self._inside[spot] for spot in spots if spot in self._inside), None)
        return None


def _origin(path: bytes, moved: dict[bytes, bytes]) -> bytes:
    """Return where ``path`` was before the directories in ``moved`` (new to old) were renamed."""
    for parent in _parents(path):
        if parent in moved:
            return moved[parent] + path[len(parent) :]
    return path


def _settled(ours: Iterable[Change], theirs: Iterable[Change], same: Same) -> set[Change]:
    """Return the changes that both sides made with the same result, as ours and as theirs have them."""
    at = {(change.op is Op.REMOVED, change.path): change for change in theirs}
    found: set[Change] = set()
    for change in ours:
        other = at.get((change.op is Op.REMOVED, change.path))
        if other is None or change.kind is not other.kind or change.renamed_from != other.renamed_from:
            continue
        if change.op is Op.REMOVED or same(change.path):
            found |= {change, other}
    return found


def conflicts(ours: Iterable[Change], theirs: Iterable[Change], same: Same) -> Outcome:
    """Decide for each change of ours whether it can be carried into the tree that theirs made.

    Both are complete, by path, as ``compare`` gives them, from one origin.
    ``same`` is asked about paths that both sides changed: whether the path is
    the same now in both trees.
    """
    ours, theirs = list(ours), list(theirs)
    settled = _settled(ours, theirs, same)
    index = _Theirs(theirs, settled)
    moved = {c.path: c.renamed_from for c in ours if c.op is Op.RENAMED and c.kind is Kind.DIRECTORY}
    blocked: dict[bytes, Change] = {}
    carried: list[Change] = []
    found: list[Conflict] = []
    for change in ours:
        if change in settled:
            continue
        reason = index.against(change, _spots(change, moved))
        if reason is None and change.op is not Op.REMOVED:
            reason = next((blocked[parent] for parent in _parents(change.path) if parent in blocked), None)
        if reason is None:
            carried.append(change)
            continue
        found.append(Conflict(change, reason))
        if _leaves_hole(change, reason):
            blocked[change.path] = reason
    return Outcome(tuple(carried), tuple(found))


def _leaves_hole(change: Change, theirs: Change) -> bool:
    """Return whether the tree has no directory for what is inside of ``change`` if that is left out."""
    if change.op is Op.ADDED:
        there = theirs.path == change.path and theirs.op is not Op.REMOVED
        return not (there and theirs.kind is Kind.DIRECTORY)
    return change.op is Op.RENAMED or Aspect.TYPE in change.aspects


def _spots(change: Change, moved: dict[bytes, bytes]) -> tuple[bytes, ...]:
    if change.op is Op.REMOVED:
        return (change.path,)
    before = change.renamed_from or _origin(change.path, moved)
    return (change.path,) if before == change.path else (change.path, before)
