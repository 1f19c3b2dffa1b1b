"""The differences between two trees of the machine, and a manifest brought up to them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import chain, islice
from typing import TYPE_CHECKING

from snaptx import log, system, views
from snaptx.errors import SnaptxError, StorageError
from snaptx.machine import Machine
from snaptx.model import Aspect, Change, Counts, Kind, Op, Part, Row, Tree
from snaptx.overlay.failure import shown
from snaptx.overlay.names import PATH_MAX
from snaptx.places import is_below

if TYPE_CHECKING:
    from snaptx.overlay.manifest import Manifest
    from snaptx.trees.compare import Equal
    from snaptx.trees.treeview import Seen

_SHOWN = 300
"""Bytes of such a path that are told: enough to find it."""

NEAR = 16
"""Generations in a row whose indexes are asked what was touched; to compare two whole ones is not slow."""


def between(
    machine: Machine,
    old: Tree,
    new: Tree,
    *,
    renames: bool = True,
    labels: bool = False,
    flags: bool = False,
    brief: bool = False,
    equal: Equal = lambda _path, _seen: None,
) -> Iterator[Change]:
    """Yield what makes ``new`` differ from ``old``, sorted by path; both trees are read-only.

    Without ``renames`` what moved is removed here and added there; with ``labels`` a new SELinux label
    alone is a difference, with ``flags`` those of chattr(1); ``brief`` tells one aspect of each path
    alone.  ``equal`` is told what was touched in vain.
    """
    touched = _touched(machine, old, new)
    for first in touched:  # often there is nothing, and no need to load what compares
        from snaptx.trees import compare

        paths = chain([first], touched)
        with opened(machine, old, new) as (old_fd, new_fd):
            yield from compare.compare(
                old_fd,
                new_fd,
                paths,
                renames=renames,
                labels=labels,
                flags=flags,
                brief=brief,
                within=within(machine),
                equal=equal,
            )


def _touched(machine: Machine, old: Tree, new: Tree) -> Iterator[bytes]:
    """Yield every path that may differ; where the storage can't tell, both trees are walked."""
    touched = machine.storage.touched(old, new)
    if touched is not None:
        yield from touched
        return
    from snaptx.trees import compare

    log.info("a path is too long to be told, so both trees are walked", old=str(old), new=str(new))
    with opened(machine, old, new) as trees:
        yield from compare.walk_touched(*trees, within=within(machine))


def within(machine: Machine) -> Callable[[bytes], bool]:
    """Return what tells whether a path of a tree is looked at: not if it is too long, in an ignored place.

    What it returns raises StorageError for a path that is too long elsewhere: it
    could be neither compared nor carried over, and nothing is lost silently.
    """

    def looked_at(path: bytes) -> bool:
        if len(path) <= PATH_MAX:
            return True
        if is_ignored(machine, path):
            return False
        message = f"/{shown(path[:_SHOWN])}… is longer than {PATH_MAX} bytes: too long for a path"
        raise StorageError(message, hint="remove it, or put a directory above it into 'ignore' of [staging]")

    return looked_at


def is_ignored(machine: Machine, path: bytes) -> bool:
    """Return whether what is changed at ``path`` in the running root is left behind, as configured."""
    return is_below("/" + os.fsdecode(path), machine.config.staging.ignore)


def of_generations(machine: Machine, old: Tree, new: Tree, *, brief: bool = False) -> Iterator[Change]:
    """Yield what ``between`` does, labels included, of trees of generations that nobody works on.

    Of sealed ones their indexes are read and not the trees.  Where the indexes
    know what was touched since their common base, that takes time for it alone.
    """
    with _indexes(machine, old, new) as indexes:
        if not indexes:
            yield from between(machine, old, new, labels=True, brief=brief)
            return
        from snaptx.trees import compare

        among = _among(machine, old.number, new.number, indexes)
        with opened(machine, old, new) as trees:
            yield from compare.compare_indexed(trees, indexes, among, brief=brief)


def _among(machine: Machine, old: int, new: int, indexes: tuple[Manifest, Manifest]) -> set[bytes] | None:
    """Return every path at which two generations may differ by their indexes, None if those do not tell."""
    from snaptx.overlay import differing
    from snaptx.overlay.manifest import Manifest

    lines = ancestry(machine, old, new)
    if lines is None:
        return None
    try:
        with ExitStack() as stack:
            at_hand = {old: indexes[0], new: indexes[1]}
            others = {number for line in lines for number in line} - at_hand.keys()
            at_hand |= {n: stack.enter_context(Manifest.open(machine.manifest(n))) for n in others}
            one, other = ([at_hand[number] for number in line] for line in lines)
            return differing.touched(one, other)
    except SnaptxError as error:
        log.warning("what was touched can't be told, so whole indexes are compared", reason=error.message)
        return None


def ancestry(machine: Machine, one: int, other: int) -> tuple[list[int], list[int]] | None:
    """Return the ways from two generations down to the nearest that both stem from, each with both ends.

    None if there is no such generation within NEAR steps.
    """
    lines = [list(islice(_bases(machine, number), NEAR)) for number in (one, other)]
    common = next((number for number in lines[0] if number in lines[1]), None)
    if common is None:
        return None
    one_line, other_line = (line[: line.index(common) + 1] for line in lines)
    return one_line, other_line


def _bases(machine: Machine, number: int) -> Iterator[int]:
    while number and machine.generations.has(number):
        yield number
        number = machine.generations.read(number).base


@contextmanager
def opened(machine: Machine, one: Tree, other: Tree) -> Iterator[tuple[int, int]]:
    """Open the root directories of two trees for the length of a with block."""
    with (
        system.descriptor(machine.storage.path(one), system.DIRECTORY) as one_fd,
        system.descriptor(machine.storage.path(other), system.DIRECTORY) as other_fd,
    ):
        yield one_fd, other_fd


@contextmanager
def _indexes(machine: Machine, old: Tree, new: Tree) -> Iterator[tuple[Manifest, Manifest] | None]:
    """Open the indexes of two sealed trees for a with block; None if that is not what there is."""
    from snaptx.overlay.manifest import Manifest

    with ExitStack() as stack:
        found = None
        if old.part == new.part == Part.SEALED:
            try:
                one, other = (stack.enter_context(Manifest.open(machine.manifest(n))) for n, _ in (old, new))
                found = one, other
            except SnaptxError as error:
                log.warning("an index can't be read, so the trees are compared", reason=error.message)
        yield found


def tally(changes: Iterable[Change]) -> Counts:
    """Count changes by what happened; ``bytes_written`` is the new size of what has content."""
    added = changed = removed = size = 0
    for change in changes:
        added += change.op is Op.ADDED
        removed += change.op is Op.REMOVED
        changed += change.op in (Op.CHANGED, Op.RENAMED)
        size += change.new_size if change.kind is Kind.FILE else 0
    return Counts(added=added, changed=changed, removed=removed, bytes_written=size)


def reindex(
    machine: Machine,
    manifest: Manifest,
    old: Tree,
    new: Tree,
    watch: Callable[[Change], None] = lambda _: None,
) -> Counts:
    """Bring ``manifest`` from ``old`` to ``new`` and return what that took; ``watch`` is told each change."""

    def equal(path: bytes, seen: Seen) -> None:
        row = manifest.get(path)
        if row is not None and (row.inode, row.ctime_ns) != (seen.inode, seen.ctime_ns):
            # Or no payload would know it again.
            manifest.put([row._replace(inode=seen.inode, ctime_ns=seen.ctime_ns, mtime_ns=seen.mtime_ns)])

    with system.descriptor(machine.storage.path(new), system.DIRECTORY) as new_fd:
        found = between(machine, old, new, renames=False, labels=True, brief=True, equal=equal)
        return tally(_follow(manifest, new_fd, found, watch))


def _follow(
    manifest: Manifest, root_fd: int, changes: Iterable[Change], watch: Callable[[Change], None]
) -> Iterator[Change]:
    for change in changes:
        watch(change)
        if change.op is Op.REMOVED or Aspect.TYPE in change.aspects:
            manifest.remove_tree(change.path)
        if change.op is not Op.REMOVED:
            manifest.put([row_of(root_fd, change.path)])
        yield change


def index(machine: Machine, tree: Tree) -> None:
    """Make the manifest of a generation from one of its trees, every byte read: complete or not at all."""
    from snaptx.overlay import scan
    from snaptx.overlay.manifest import Manifest

    fresh = machine.fresh_manifest(tree.number)
    fresh.unlink(missing_ok=True)
    with (
        system.descriptor(machine.storage.path(tree), system.DIRECTORY) as fd,
        Manifest.create(fresh) as manifest,
    ):
        manifest.put(scan.scan_tree(fd, within(machine)))
    os.replace(fresh, machine.manifest(tree.number))


def row_of(root_fd: int, path: bytes) -> Row:
    """Describe one path of a tree."""
    from snaptx.overlay import scan

    directory, name = os.path.split(path)
    parent = scan.open_directory(root_fd, directory)
    try:
        return scan.index_row(parent, name, path)
    finally:
        os.close(parent)


def scan_below(machine: Machine, root_fd: int, path: bytes) -> Iterator[Row]:
    """Describe a directory of a tree and everything below it."""
    from snaptx.overlay import scan

    looked_at = within(machine)
    top = scan.open_directory(root_fd, path)
    try:
        for row in scan.scan_tree(top, lambda inside: looked_at(path + b"/" + inside)):
            yield row._replace(path=path + b"/" + row.path if row.path else path)
    finally:
        os.close(top)


@contextmanager
def readable(machine: Machine, *numbers: int) -> Iterator[list[Tree]]:
    """Yield a read-only tree of each generation: the sealed one, or a passing snapshot of a staged root."""
    with views.staying(machine, *numbers), ExitStack() as stack:
        found: dict[int, Tree] = {}
        for number in dict.fromkeys(numbers):
            found[number] = Tree(number, Part.SEALED)
            if not machine.storage.name(found[number]):
                view = views.passing(machine, number, Tree(number, Part.ROOT))
                found[number] = stack.enter_context(view)
        yield [found[number] for number in numbers]
