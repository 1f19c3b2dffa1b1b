"""Carry over: what changed in the running root while an update lay staged is never lost.

The new generation's ``origin`` is the common ancestor of two sets of changes:
the running root's and the update's.  What only the running root changed is
brought into the new generation; where both changed the same path, that is a
conflict and the administrator's word decides.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from snaptx import log, system, views
from snaptx.config import Conflicts
from snaptx.errors import ConflictError, storage_error
from snaptx.machine import Machine
from snaptx.model import Aspect, Change, Op, Part, Tree
from snaptx.overlay.failure import shown

if TYPE_CHECKING:
    from snaptx.overlay.manifest import Manifest
    from snaptx.trees.conflicts import Outcome

Settled = Callable[[bytes], bool]


@dataclass(frozen=True, slots=True)
class Carried:
    """What a commit brought over, and where both sides had changed; paths."""

    carried: tuple[bytes, ...] = ()
    conflicts: tuple[bytes, ...] = ()


def reference(machine: Machine, number: int, running: int) -> Tree | None:
    """Return the root of ``running`` as it was when the work that led to ``number`` left it.

    None if ``number`` does not stem from that generation, or only by way of a
    rollback or of a copy made before packages changed: both are meant to leave
    later changes behind.
    """
    record = machine.generations.read(number)
    while record.base and not (record.content or record.copy):
        if record.base == running:
            return Tree(record.number, Part.ORIGIN)
        if not machine.generations.has(record.base):
            log.warning("later changes of the running root are not carried over", missing=record.base)
            return None
        record = machine.generations.read(record.base)
    return None


def carry_over(machine: Machine, number: int, ancestor: Tree, policy: Conflicts) -> Carried:
    """Bring what the running root changed since ``ancestor`` into generation ``number``.

    Raises:
        ConflictError: both sides changed a path and the policy is to fail; nothing was carried.
    """
    # The snapshot that seals the generation comes next, and makes it last that this one is gone.
    with running_root(machine, number, lasting=False) as latest:
        chosen, clashes = choose(machine, number, ancestor, latest, policy)
        if chosen:
            # What a commit that is taken back restores.
            machine.storage.snapshot(Tree(number, Part.ROOT), Tree(number, Part.BEFORE), writable=False)
            bring(machine, number, latest, chosen)
        return Carried(tuple(change.path for change in chosen), clashes)


def foresee(machine: Machine, number: int, policy: Conflicts) -> Carried:
    """Return what ``carry_over`` would do, from a passing snapshot, and do nothing.

    Raises:
        ConflictError: ``carry_over`` would raise it.
    """
    ancestor = reference(machine, number, machine.booted)
    if ancestor is None:
        return Carried()
    with views.passing(machine, number, Tree(machine.booted, Part.ROOT)) as latest:
        chosen, clashes = choose(machine, number, ancestor, latest, policy)
        return Carried(tuple(change.path for change in chosen), clashes)


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
    ancestor: Tree,
    latest: Tree,
    policy: Conflicts,
    settled: Settled | None = None,
    *,
    only: bytes = b"",
) -> tuple[list[Change], tuple[bytes, ...]]:
    """Return the changes to bring over, and the paths on which both sides disagree.

    What ``settled`` knows is no change of the update's; ``only`` is the
    directory that is looked at, everything by default.

    Raises:
        ConflictError: both sides changed a path and the policy is to fail.
    """
    from snaptx import difference

    ours = [
        change
        for change in difference.between(machine, ancestor, latest, renames=False)
        if not difference.is_ignored(machine, change.path)
        and (not only or change.path.startswith(only + b"/"))
    ]
    if not ours:
        return [], ()
    theirs = _changes_of_update(machine, number, ancestor, ours)
    if settled:
        theirs = [change for change in theirs if not settled(change.path)]
    outcome = _judge(machine, number, latest, ours, theirs)
    clashes = tuple(conflict.ours.path for conflict in outcome.conflicts)
    if clashes and policy is Conflicts.FAIL:
        raise _conflict(clashes)
    forced = [conflict.ours for conflict in outcome.conflicts] if policy is Conflicts.OLD else []
    return [*outcome.carried, *forced], clashes


def _changes_of_update(machine: Machine, number: int, ancestor: Tree, ours: Iterable[Change]) -> list[Change]:
    """Return what the update did to the paths the running root changed.

    And to those above them, and below what the running root removed: an update
    that put something there must not lose it.
    """
    from snaptx import difference
    from snaptx.trees import compare

    within = difference.within(machine)
    paths: set[bytes] = set()
    for change in ours:
        path = change.path
        while path:
            paths.add(path)
            path = os.path.dirname(path)
    with (
        system.descriptor(machine.storage.path(ancestor), system.DIRECTORY) as old_fd,
        system.descriptor(machine.storage.path(Tree(number, Part.ROOT)), system.DIRECTORY) as new_fd,
    ):
        paths.update(compare.below(new_fd, [change.path for change in ours if _takes_away(change)], within))
        return list(compare.compare(old_fd, new_fd, paths, renames=False, within=within))


def _takes_away(change: Change) -> bool:
    return change.op is Op.REMOVED or Aspect.TYPE in change.aspects


def _judge(machine: Machine, number: int, latest: Tree, ours: list[Change], theirs: list[Change]) -> Outcome:
    from snaptx.trees import compare
    from snaptx.trees.conflicts import conflicts

    with (
        system.descriptor(machine.storage.path(latest), system.DIRECTORY) as ours_fd,
        system.descriptor(machine.storage.path(Tree(number, Part.ROOT)), system.DIRECTORY) as theirs_fd,
        compare.sameness(ours_fd, theirs_fd) as same,
    ):
        return conflicts(ours, theirs, same)


def _conflict(paths: tuple[bytes, ...]) -> ConflictError:
    names = ", ".join("/" + shown(path) for path in paths[:5])
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
    from snaptx import difference
    from snaptx.overlay.transplant import transplant, uproot

    with (
        system.descriptor(machine.storage.path(source), system.DIRECTORY) as source_fd,
        system.descriptor(machine.storage.path(target), system.DIRECTORY) as target_fd,
    ):
        try:
            for change in sorted(chosen, key=lambda item: item.path, reverse=True):
                if change.op is Op.REMOVED:
                    uproot(target_fd, change.path)
                    if manifest:
                        manifest.remove_tree(change.path)
            for change in sorted(chosen, key=lambda item: item.path):
                if change.op is not Op.REMOVED:
                    transplant(source_fd, target_fd, change.path)
                    if manifest:
                        manifest.put([difference.row_of(target_fd, change.path)])
        except OSError as error:
            raise storage_error(error, "cannot carry a change of the running root over") from error
