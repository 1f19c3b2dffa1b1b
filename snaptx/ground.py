"""The common ground of the running root and a generation that is to take its changes over.

That is one tree, except where commits on the way from there have decided: what
one of them brought over both sides have had since, as it was sealed.  Where it
settled a conflict for the update, its audit record has a digest of what the
running root had, and as long as that is so nothing is left to decide.  Of
subvolumes inside the running root its snapshots tell nothing: ``nested`` does.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

from snaptx import difference, system
from snaptx.errors import VerifyError
from snaptx.machine import Machine
from snaptx.model import EMPTY, Change, Kind, Op, Part, Tree
from snaptx.places import is_below

ABSENT = ""
"""The digest of what is not there."""


class Ground(NamedTuple):
    """A tree; by path, the sealed tree that holds what was brought over; digests of what was settled.

    ``unseen`` are the subvolumes inside the running root that hold something.
    """

    tree: Tree
    brought: Mapping[bytes, Tree] = EMPTY
    settled: Mapping[bytes, str] = EMPTY
    unseen: tuple[str, ...] = ()


def survey(machine: Machine, tree: Tree, way: Iterable[int], running: int) -> Ground:
    """Return the ground that was ``tree``, after the commits of the generations on the ``way``."""
    sealed = {number: Tree(number, Part.SEALED) for number in way}
    committed = {number: one for number, one in sealed.items() if machine.storage.name(one)}
    nested = inside(machine, running)
    brought: dict[bytes, Tree] = {}
    settled: dict[bytes, str] = {}
    for record in _commits(machine, committed, running):
        fresh = {_bytes(path): digest for path, digest in record.get("settled", {}).items()}
        seen = (path for path in map(_bytes, record.get("carried", ())) if not _is_below(path, nested))
        carried = dict.fromkeys(seen, committed[record["generation"]])
        settled = {path: digest for path, digest in settled.items() if path not in carried} | fresh
        brought |= carried
    unseen = filled(machine.storage.path(Tree(running, Part.ROOT)), nested) if nested else ()
    return Ground(tree, brought, settled, unseen)


def inside(machine: Machine, number: int) -> tuple[str, ...]:
    """Return the subvolumes inside the root of a generation, which its snapshots leave out."""
    info = machine.storage.describe(Tree(number, Part.ROOT))
    return info.nested if info else ()


def filled(root: Path, places: Iterable[str]) -> tuple[str, ...]:
    """Return those of the ``places`` inside a root that hold something."""
    return tuple(path for path in places if any(os.scandir(root / path)))


def _is_below(path: bytes, places: Iterable[str]) -> bool:
    return is_below(os.fsdecode(path), places)


def _commits(machine: Machine, numbers: Collection[int], running: int) -> Iterator[Mapping[str, Any]]:
    """Yield what the audit trail says of commits that were made while ``running`` ran, oldest first."""
    if not numbers:
        return
    with suppress(VerifyError):  # what can't be read has decided nothing: then it is asked once more
        for record in machine.audit.records():
            if record.get("generation") in numbers and record.get("running") == running:
                yield record


def _bytes(path: str) -> bytes:
    return path.encode("utf-8", "surrogateescape")


def changes(machine: Machine, ground: Ground, new: Tree) -> list[Change]:
    """Return what makes ``new``, a tree at rest, differ from the ground, by path."""
    found = difference.between(machine, ground.tree, new, renames=False, flags=True)
    return _put_together(machine, ground, new, found, ground.brought)


def changes_among(machine: Machine, ground: Ground, new: Tree, paths: Collection[bytes]) -> list[Change]:
    """Return what makes ``new`` differ from the ground at ``paths``, by path."""
    found = _compare(machine, ground.tree, new, paths)
    return _put_together(machine, ground, new, found, ground.brought.keys() & paths)


def _put_together(
    machine: Machine, ground: Ground, new: Tree, found: Iterable[Change], brought: Iterable[bytes]
) -> list[Change]:
    """Return what was ``found`` from the tree, but for what was ``brought`` over told from where that is."""
    together = [
        change
        for change in found
        if change.path not in ground.brought and not _is_below(change.path, ground.unseen)
    ]
    places: dict[Tree, set[bytes]] = {}
    for path in brought:
        places.setdefault(ground.brought[path], set()).add(path)
    for tree, paths in places.items():
        together += [change for change in _compare(machine, tree, new, paths) if change.path in paths]
    return sorted(together, key=lambda change: (change.path, change.op is not Op.REMOVED))


def _compare(machine: Machine, old: Tree, new: Tree, paths: Iterable[bytes]) -> Iterator[Change]:
    from snaptx.trees import compare

    with difference.opened(machine, old, new) as (old_fd, new_fd):
        within = difference.within(machine)
        yield from compare.compare(old_fd, new_fd, paths, renames=False, flags=True, within=within)


def digests(machine: Machine, tree: Tree, paths: Iterable[bytes]) -> dict[bytes, str]:
    """Return for each path what tells whether it is as it was, content and all."""
    from snaptx.trees.treeview import TreeView

    with system.descriptor(machine.storage.path(tree), system.DIRECTORY) as fd, TreeView(fd) as view:
        return {path: _digest(fd, path) if view.look(path) else ABSENT for path in paths}


def _digest(root_fd: int, path: bytes) -> str:
    row = difference.row_of(root_fd, path)
    time = 0 if row.kind is Kind.DIRECTORY else row.mtime_ns  # that of a directory follows from its entries
    known = row._replace(inode=0, ctime_ns=0, mtime_ns=time)
    return sha256(repr(tuple(known)).encode()).hexdigest()
