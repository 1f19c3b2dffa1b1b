"""Carry over: what changed in the running root while an update lay staged is never lost.

The new generation's ``origin`` is the common ancestor of two sets of changes:
the running root's and the update's.  What only the running root changed is
brought into the new generation; where both changed the same path, that is a
conflict and the administrator's word decides.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from snaptx import log, system, views
from snaptx.config import Conflicts
from snaptx.errors import ConflictError, storage_error
from snaptx.machine import Machine
from snaptx.model import Aspect, Change, Kind, Op, Part, Tree
from snaptx.overlay.failure import shown

if TYPE_CHECKING:
    from snaptx.overlay.manifest import Manifest
    from snaptx.trees.conflicts import Outcome


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
    *,
    only: bytes = b"",
    carried: frozenset[bytes] = frozenset(),
) -> tuple[list[Change], tuple[bytes, ...]]:
    """Return the changes to bring over, and the paths on which both sides disagree.

    ``only`` is the directory that is looked at, everything by default.  At the
    paths that were ``carried`` when the generation was committed both sides are
    compared with what it was sealed with, and not with ``ancestor``.

    Raises:
        ConflictError: both sides changed a path and the policy is to fail, or there is
            no directory any more in which the running root's version could be.
    """
    ours = [
        change
        for change in _changes_here(machine, number, ancestor, latest, carried)
        if not _ignored(machine, change) and (not only or change.path.startswith(only + b"/"))
    ]
    if not ours:
        return [], ()
    theirs = _changes_of_update(machine, number, ancestor, ours, carried)
    outcome = _judge(machine, number, latest, ours, theirs)
    clashes = tuple(conflict.ours.path for conflict in outcome.conflicts)
    if clashes and policy is Conflicts.FAIL:
        raise _conflict(clashes)
    forced = [conflict.ours for conflict in outcome.conflicts] if policy is Conflicts.OLD else []
    _check_places(forced, theirs)
    return [*outcome.carried, *forced], clashes


def _changes_here(
    machine: Machine, number: int, ancestor: Tree, latest: Tree, carried: frozenset[bytes]
) -> list[Change]:
    """Return what the running root changed, sorted by path."""
    from snaptx import difference

    found = difference.between(machine, ancestor, latest, renames=False)
    before = [change for change in found if change.path not in carried]
    since = _compared(machine, Tree(number, Part.SEALED), latest, carried, related=False)
    return sorted([*before, *since], key=lambda change: change.path)


def _compared(
    machine: Machine, old: Tree, new: Tree, paths: Collection[bytes], *, related: bool
) -> list[Change]:
    """Return how ``new`` differs from ``old`` at some paths; related trees are snapshots of one."""
    if not paths:
        return []
    from snaptx.trees import compare

    with (
        system.descriptor(machine.storage.path(old), system.DIRECTORY) as old_fd,
        system.descriptor(machine.storage.path(new), system.DIRECTORY) as new_fd,
    ):
        return list(compare.compare(old_fd, new_fd, paths, related=related, renames=False))


def _ignored(machine: Machine, change: Change) -> bool:
    path = b"/" + change.path
    prefixes = [os.fsencode(prefix) for prefix in machine.config.staging.ignore]
    return any(path == prefix or path.startswith(prefix + b"/") for prefix in prefixes)


def _changes_of_update(
    machine: Machine, number: int, ancestor: Tree, ours: Iterable[Change], carried: frozenset[bytes]
) -> list[Change]:
    """Return what the update did to the paths the running root changed.

    And to those above them, and below what the running root removed: an update
    that put something there must not lose it.
    """
    from snaptx.trees import compare

    root, paths = Tree(number, Part.ROOT), set[bytes]()
    for change in ours:
        path = change.path
        while path:
            paths.add(path)
            path = os.path.dirname(path)
    with system.descriptor(machine.storage.path(root), system.DIRECTORY) as fd:
        paths.update(compare.below(fd, [change.path for change in ours if _takes_away(change)]))
    found = _compared(machine, ancestor, root, paths - carried, related=True)
    before = [change for change in found if change.path not in carried]
    return before + _compared(machine, Tree(number, Part.SEALED), root, paths & carried, related=False)


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
    name, directory = (f"/{shown(one)}" for one in (path, parent))
    message = f"{name} was changed here, and the update replaced the directory {directory} by something else"
    return ConflictError(message, hint="'--conflicts=new' keeps the update's version")


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
    with (
        system.descriptor(machine.storage.path(source), system.DIRECTORY) as source_fd,
        system.descriptor(machine.storage.path(target), system.DIRECTORY) as target_fd,
    ):
        for change in sorted(chosen, key=lambda item: item.path, reverse=True):
            if change.op is Op.REMOVED:
                _transfer(source_fd, target_fd, change, manifest)
        for change in sorted(chosen, key=lambda item: item.path):
            if change.op is not Op.REMOVED:
                _transfer(source_fd, target_fd, change, manifest)


def _transfer(source_fd: int, target_fd: int, change: Change, manifest: Manifest | None) -> None:
    from snaptx import difference
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
        raise storage_error(error, f"cannot carry over /{shown(path)}") from error
