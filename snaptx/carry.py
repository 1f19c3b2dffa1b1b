"""Carry over: what changed in the running root while an update lay staged is never lost.

The new generation's ``origin`` is the common ancestor of two sets of changes:
the running root's and the update's.  What only the running root changed is
brought into the new generation; where both changed the same path, that is a
conflict and the administrator's word decides.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

from snaptx import descent, difference, ground, log, system, views
from snaptx.config import Conflicts
from snaptx.descent import Kin
from snaptx.errors import ConflictError, storage_error
from snaptx.ground import Ground
from snaptx.machine import Machine
from snaptx.model import EMPTY, Aspect, Change, Kind, Op, Part, Tree
from snaptx.overlay.failure import from_root

if TYPE_CHECKING:
    from snaptx.overlay.manifest import Manifest
    from snaptx.trees.conflicts import Outcome

VOLATILE = (b"var/lib/systemd", b"var/log", b"var/cache", b"var/tmp", b"etc/adjtime")
"""What every shutdown and every boot writes: a difference there is nobody's decision."""


class Carried(NamedTuple):
    """What a commit brought over, and where both sides had changed; paths."""

    carried: tuple[bytes, ...] = ()
    conflicts: tuple[bytes, ...] = ()


class Brought(NamedTuple):
    """That, digests of what the running root had where the update's version was taken, and what is left.

    ``left`` are paths that were changed in a running root from which the generation does not stem.
    """

    carried: tuple[bytes, ...] = ()
    conflicts: tuple[bytes, ...] = ()
    settled: Mapping[bytes, str] = EMPTY
    left: tuple[bytes, ...] = ()


def reference(machine: Machine, number: int, running: int) -> Ground | None:
    """Return the root of ``running`` as it was when the work that led to ``number`` left it.

    And what commits between have decided since.  Where that can't be told, as
    it was committed: what both may have changed since is a conflict then.  None
    if ``number`` does not stem from that generation, or only by way of a
    rollback or of a copy made before packages changed: both are meant to leave
    later changes behind.
    """
    kin, way = descent.trace(number, running, machine.generations.find)
    if kin is Kin.LOST:
        log.warning("what a generation grew from is missing", generation=way[-1])
        return ground.survey(machine, Tree(running, Part.SEALED), way, running)
    return ground.survey(machine, Tree(way[-1], Part.ORIGIN), way, running) if kin is Kin.STEMS else None


def left_behind(machine: Machine, number: int) -> tuple[bytes, ...]:
    """Return what was changed in the running root since its commit and stays there; paths.

    That is so if ``number`` does not stem from it.
    """
    from snaptx.trees import compare

    kin, _ = descent.trace(number, machine.booted, machine.generations.find)
    if kin is not Kin.APART:
        return ()
    with (
        views.passing(machine, number, Tree(machine.booted, Part.ROOT)) as latest,
        difference.opened(machine, latest, Tree(number, Part.ROOT)) as roots,
        compare.sameness(*roots) as same,
    ):
        found = difference.between(machine, Tree(machine.booted, Part.SEALED), latest, renames=False)
        paths = (change.path for change in found if not difference.is_ignored(machine, change.path))
        return tuple(path for path in paths if not is_volatile(path) and not same(path))


def carry_over(machine: Machine, number: int, common: Ground, policy: Conflicts) -> Brought:
    """Bring what the running root changed of the ``common`` ground into generation ``number``.

    Raises:
        ConflictError: both sides changed a path and the policy is to fail; nothing was carried.
    """
    # The snapshot that seals the generation comes next, and makes it last that this one is gone.
    with running_root(machine, number, lasting=False) as latest:
        chosen, clashes = choose(machine, number, common, latest, policy)
        settled = ground.digests(machine, latest, clashes if policy is Conflicts.NEW else ())
        if chosen:
            keep(machine, number)
            bring(machine, number, latest, chosen)
        return Brought(tuple(change.path for change in chosen), clashes, settled)


def keep(machine: Machine, number: int) -> None:
    """Keep how a staged root is, unless that is done: what a commit that is taken back restores."""
    before = Tree(number, Part.BEFORE)
    if not machine.storage.name(before):
        machine.storage.snapshot(Tree(number, Part.ROOT), before, writable=False)


def foresee(machine: Machine, number: int, common: Ground, policy: Conflicts) -> Brought:
    """Return what ``carry_over`` would do, from a passing snapshot, and do nothing.

    Raises:
        ConflictError: ``carry_over`` would raise it.
    """
    with views.passing(machine, number, Tree(machine.booted, Part.ROOT)) as latest:
        chosen, clashes = choose(machine, number, common, latest, policy)
        return Brought(tuple(change.path for change in chosen), clashes)


@contextmanager
def running_root(machine: Machine, number: int, *, lasting: bool = True) -> Iterator[Tree]:
    """Give a read-only view of the running root: LATEST of ``number``.

    It goes with the block, for good if ``lasting``.
    """
    latest = Tree(number, Part.LATEST)
    try:
        machine.storage.snapshot(Tree(machine.booted, Part.ROOT), latest, writable=False)
        yield latest
    finally:
        machine.storage.delete(latest, lasting=lasting)


def choose(
    machine: Machine,
    number: int,
    common: Ground,
    latest: Tree,
    policy: Conflicts,
    *,
    only: bytes = b"",
) -> tuple[list[Change], tuple[bytes, ...]]:
    """Return the changes to bring over, and the paths on which both sides disagree.

    What was settled before and is as it was then is none of these; ``only`` is
    the directory that is looked at, everything by default.

    Raises:
        ConflictError: both sides changed a path and the policy is to fail, or there is
            no directory any more in which the running root's version could be.
    """
    ours = [
        change
        for change in ground.changes(machine, common, latest)
        if not difference.is_ignored(machine, change.path)
        and (not only or change.path.startswith(only + b"/"))
    ]
    if not ours:
        return [], ()
    theirs = _changes_of_update(machine, number, common, ours)
    outcome = _judge(machine, number, latest, ours, theirs)
    clashing = _unsettled(machine, common, latest, [conflict.ours for conflict in outcome.conflicts])
    clashes = tuple(change.path for change in clashing)
    if clashes and policy is Conflicts.FAIL:
        raise _conflict(clashes)
    forced = clashing if policy is Conflicts.OLD else []
    _check_places(forced, theirs)
    return [*outcome.carried, *forced], clashes


def _unsettled(machine: Machine, common: Ground, latest: Tree, changes: list[Change]) -> list[Change]:
    """Return those of ``changes`` that were not settled before, or are others by now."""
    before = common.settled
    now = ground.digests(machine, latest, [change.path for change in changes if change.path in before])
    return [change for change in changes if change.path not in now or now[change.path] != before[change.path]]


def is_volatile(path: bytes) -> bool:
    """Return whether every shutdown and every boot writes there."""
    return any(path == prefix or path.startswith(prefix + b"/") for prefix in VOLATILE)


def _changes_of_update(machine: Machine, number: int, common: Ground, ours: Iterable[Change]) -> list[Change]:
    """Return what the update did to the paths the running root changed.

    And to those above them, and below what the running root removed: an update
    that put something there must not lose it.
    """
    from snaptx.trees import compare

    paths: set[bytes] = set()
    for change in ours:
        path = change.path
        while path:
            paths.add(path)
            path = os.path.dirname(path)
    root, within = Tree(number, Part.ROOT), difference.within(machine)
    with system.descriptor(machine.storage.path(root), system.DIRECTORY) as fd:
        paths.update(compare.below(fd, [change.path for change in ours if _takes_away(change)], within))
    return ground.changes_among(machine, common, root, paths)


def _takes_away(change: Change) -> bool:
    return change.op is Op.REMOVED or Aspect.TYPE in change.aspects


def _judge(machine: Machine, number: int, latest: Tree, ours: list[Change], theirs: list[Change]) -> Outcome:
    from snaptx.trees import compare
    from snaptx.trees.conflicts import conflicts

    with (
        difference.opened(machine, latest, Tree(number, Part.ROOT)) as roots,
        compare.sameness(*roots) as same,
    ):
        return conflicts(ours, theirs, same)


def _check_places(forced: list[Change], theirs: list[Change]) -> None:
    """Refuse to keep what lies in a directory of which the update, and nobody here, made something else.

    That directory alone would come back without the rest of what was in it, in
    place of a link that may lead to all of it.
    """
    others = {c.path for c in theirs if c.op is not Op.REMOVED and c.kind is not Kind.DIRECTORY}
    others -= {change.path for change in forced}
    for change in forced:
        parent = os.path.dirname(change.path)
        while parent and parent not in others:
            parent = os.path.dirname(parent)
        if parent and change.op is not Op.REMOVED:
            raise _no_place(change.path, parent)


def _no_place(path: bytes, parent: bytes) -> ConflictError:
    name, directory = map(from_root, (path, parent))
    message = f"{name} was changed here, and the update replaced the directory {directory} by something else"
    return ConflictError(message, hint="'--conflicts=new' keeps the update's version")


def _conflict(paths: tuple[bytes, ...]) -> ConflictError:
    names = ", ".join(map(from_root, paths[:5]))
    more = f" and {len(paths) - 5} more" if len(paths) > 5 else ""
    hint = "'--conflicts=new' keeps the update's version, '--conflicts=old' the running system's"
    return ConflictError(f"changed by the update and in the running root: {names}{more}", hint=hint)


def bring(machine: Machine, number: int, latest: Tree, chosen: list[Change]) -> None:
    """Bring changes from ``latest`` into the root of a staged generation, and into its manifest.

    Raises:
        StorageError: the filesystem refused one of them.
    """
    from snaptx.overlay.manifest import Manifest

    with Manifest.open(machine.manifest(number), writable=True) as manifest:
        transfer(machine, latest, Tree(number, Part.ROOT), chosen, manifest)


def transfer(
    machine: Machine, source: Tree, target: Tree, chosen: list[Change], manifest: Manifest | None = None
) -> None:
    """Make changes of ``source`` in ``target``, and note them in its manifest if there is one.

    Removals first, deepest first; then the rest, parents before children.

    Raises:
        StorageError: the filesystem refused one of them.
    """
    with difference.opened(machine, source, target) as (source_fd, target_fd):
        for change in sorted(chosen, key=lambda item: item.path, reverse=True):
            if change.op is Op.REMOVED:
                _transfer(source_fd, target_fd, change, manifest)
        for change in sorted(chosen, key=lambda item: item.path):
            if change.op is not Op.REMOVED:
                _transfer(source_fd, target_fd, change, manifest)


def _transfer(source_fd: int, target_fd: int, change: Change, manifest: Manifest | None) -> None:
    from snaptx.overlay.transplant import transplant, uproot

    path, gone, made = change.path, change.op is Op.REMOVED, list[bytes]()
    try:
        if gone:
            uproot(target_fd, path)
        else:
            made = transplant(source_fd, target_fd, path)
        if manifest:
            if gone or change.kind is not Kind.DIRECTORY:
                manifest.remove_tree(path)
            manifest.put([difference.row_of(target_fd, name) for name in made])
    except OSError as error:
        raise storage_error(error, f"cannot carry over {from_root(path)}") from error
