"""Every difference between two trees, from the paths that may differ.

Who names those paths is of no matter (``btrfs send``, ``walk_touched``): each is
looked at on both sides, a path too many costs a look.  What is reported:

- A *place* is a name in a directory.  Directories of related trees are the same
  by their inode, wherever they are; a new directory takes the place of one that
  is gone.  What is at the same place on both sides is CHANGED, or not reported.
- A directory that moved is RENAMED, once; below it only what changed besides,
  under the new path.  Where it moved onto another one, that is REMOVED as well.
- A file under another name is RENAMED if its old name is gone and nothing was at
  the new one.  One more hard link of a file that keeps its name is ADDED.
- REMOVED and ``renamed_from`` speak of paths in the old tree, all else in the new.
- Everything in an added or removed directory is listed, in a moved one nothing.
- A directory's size and times are never reported; they follow from its entries.
  A file that was written anew with the same bytes differs in TIME alone.

With ``renames=False`` all this is by path: what moved is REMOVED and ADDED.
That form can be replayed: removals deepest first, then the rest in order.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import TYPE_CHECKING

from snaptx.errors import storage_error
from snaptx.model import Aspect, Change, Op
from snaptx.overlay import xattrs
from snaptx.trees.survey import NEW, OLD, Place, Survey, paired
from snaptx.trees.treeview import Seen, TreeView, joined

if TYPE_CHECKING:
    from snaptx.overlay.manifest import Manifest


Equal = Callable[[bytes, Seen], None]
"""Takes a path that was looked at in vain, and what it is in the newer tree."""

Within = Callable[[bytes], bool]
"""Whether a path, and what is below it, is looked at."""

_ASPECTS = list(Aspect)
"""In the order in which they are told."""


class _Content:
    """The comparison of what is at two paths, one in each tree."""

    def __init__(
        self,
        old: TreeView,
        new: TreeView,
        *,
        times: bool = True,
        labels: bool = False,
        flags: bool = False,
        brief: bool = False,
    ) -> None:
        self.views = (old, new)
        self._flags = flags
        self._most = 1 if brief else None
        self._labels = labels
        self._times = times

    def _differs(self, old: Seen, new: Seen, old_path: bytes, new_path: bytes) -> bool:
        one, other = self.views
        match old.format:
            case stat.S_IFREG if old.size != new.size:
                return True
            case stat.S_IFREG:
                return not one.same_data(old_path, other, new_path, old.size)
            case stat.S_IFLNK:
                return one.target(old_path) != other.target(new_path)
            case stat.S_IFCHR | stat.S_IFBLK:
                return old.device != new.device
            case _:
                return False

    def aspects(self, old: Seen, new: Seen, old_path: bytes, new_path: bytes) -> tuple[Aspect, ...]:
        """Return in what way the two differ, or only the first that is found."""
        found = tuple(islice(self._aspects(old, new, old_path, new_path), self._most))
        if not found and self._flags and self._flags_differ(old, new, old_path, new_path):
            return (Aspect.FLAGS,)
        return tuple(sorted(found, key=_ASPECTS.index))

    def _flags_differ(self, old: Seen, new: Seen, old_path: bytes, new_path: bytes) -> bool:
        if old.format not in (stat.S_IFREG, stat.S_IFDIR) or old.ctime_ns == new.ctime_ns:
            return False
        return self.views[OLD].flags(old_path) != self.views[NEW].flags(new_path)

    def _aspects(self, old: Seen, new: Seen, old_path: bytes, new_path: bytes) -> Iterator[Aspect]:
        """Yield in what way the two differ, the cheapest first; of different types nothing else is said."""
        if old.format != new.format:
            yield Aspect.TYPE
            return
        if self._differs(old, new, old_path, new_path):
            yield Aspect.CONTENT
        if old.mode != new.mode:
            yield Aspect.MODE
        if (old.uid, old.gid) != (new.uid, new.gid):
            yield Aspect.OWNER
        if self._times and not old.is_directory and old.mtime_ns != new.mtime_ns:
            yield Aspect.TIME
        yield from self._attributes(self.views[OLD].xattrs(old_path), self.views[NEW].xattrs(new_path))

    def _attributes(self, old: dict[str, bytes], new: dict[str, bytes]) -> Iterator[Aspect]:
        """Yield whether the attributes differ that are part of what a file is, and whether its label does."""
        differing = {os.fsencode(name) for name in old.keys() | new.keys() if old.get(name) != new.get(name)}
        if any(map(xattrs.counts, differing)):
            yield Aspect.XATTRS
        if self._labels and xattrs.LABEL in differing:
            yield Aspect.LABEL


def _order(pair: tuple[Op | None, Place]) -> tuple[bytes, bool]:
    op, (old, new) = pair
    path = old if new is None else new
    return path or b"", op is not Op.REMOVED


def _change(survey: Survey, content: _Content, op: Op | None, place: Place) -> Change | None:
    old, new = place
    if old is None:
        return _alone(survey, NEW, new or b"", Op.ADDED)
    if new is None:
        return _alone(survey, OLD, old, Op.REMOVED)
    one, other = survey.seen[OLD][old], survey.seen[NEW][new]
    aspects = content.aspects(one, other, old, new)
    if op is None and not aspects:
        return None
    renamed_from = old if op is Op.RENAMED else b""
    return Change(op or Op.CHANGED, new, other.kind, aspects, one.length, other.length, renamed_from)


def _alone(survey: Survey, side: int, path: bytes, op: Op) -> Change:
    seen = survey.seen[side][path]
    sizes = (0, seen.length) if side == NEW else (seen.length, 0)
    return Change(op, path, seen.kind, (), *sizes)


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise storage_error(error, "cannot compare two trees") from error


def compare(
    old_fd: int,
    new_fd: int,
    touched: Iterable[bytes],
    *,
    renames: bool = True,
    labels: bool = False,
    flags: bool = False,
    brief: bool = False,
    within: Within = lambda _: True,
    equal: Equal = lambda _path, _seen: None,
) -> Iterator[Change]:
    """Yield what differs between two related trees at rest, by path, a removal first where two share it.

    The descriptors are of the root directories.  ``touched`` names, by their
    path in either tree, all paths that may differ.  Related trees are snapshots
    of one tree and share inode numbers.  ``renames`` pairs what moved.
    ``labels`` reports SELinux labels, which are no part of what a file is (see
    overlay.xattrs), ``flags`` those of chattr(1) where nothing else differs.
    ``brief`` looks no further than to the first aspect of each path.  In
    directories that only one tree has, what is not ``within`` is left out.
    ``equal`` is told the paths that were looked at in vain, and what the newer
    tree has there.

    Raises:
        StorageError: a tree can't be read.
    """
    with TreeView(old_fd) as old, TreeView(new_fd) as new, _translated():
        survey = Survey((old, new), renames=renames, within=within)
        survey.take(touched)
        content = _Content(old, new, labels=labels, flags=flags, brief=brief)
        yield from _changes(survey, content, equal)


def compare_indexed(
    trees: tuple[int, int],
    indexes: tuple[Manifest, Manifest],
    among: Iterable[bytes] | None = None,
    *,
    brief: bool = False,
) -> Iterator[Change]:
    """Yield what ``compare`` would, with labels, of two related trees whose indexes are true.

    Both come as (old, new).  If all paths that may differ are known, they are
    ``among`` these, and time is taken by them alone.  The descriptors of the
    roots serve for what no index holds: when a directory that moved was made,
    and labels.

    Raises:
        StorageError: a tree can't be read.
        VerifyError: an index is damaged.
    """
    from snaptx.overlay.differing import differing
    from snaptx.trees.indexview import IndexView

    pairs = dict(differing(*indexes, among))
    old, new = (
        IndexView(trees[side], indexes[side], {path: pair[side] for path, pair in pairs.items()})
        for side in (OLD, NEW)
    )
    with old, new, _translated():
        survey = Survey((old, new), renames=True)
        survey.take(pairs)
        content = _Content(old, new, labels=True, brief=brief)
        yield from _changes(survey, content)


def _changes(survey: Survey, content: _Content, equal: Equal = lambda _path, _seen: None) -> Iterator[Change]:
    for op, place in sorted(paired(survey, survey.places()), key=_order):
        change = _change(survey, content, op, place)
        if change is not None:
            yield change
        else:
            path = place[NEW] or b""
            equal(path, survey.seen[NEW][path])


@contextmanager
def sameness(one_fd: int, other_fd: int) -> Iterator[Callable[[bytes], bool]]:
    """Give a function that tells whether a path is the same in two trees, times aside.

    What is absent in both is the same; directories are without their entries.

    Raises:
        StorageError: a tree can't be read.
    """
    with TreeView(one_fd) as one, TreeView(other_fd) as other, _translated():
        content = _Content(one, other, times=False)

        def same(path: bytes) -> bool:
            here, there = one.look(path), other.look(path)
            if here is None or there is None:
                return here is there
            return not content.aspects(here, there, path, path)

        yield same


def _inside(view: TreeView, directories: list[bytes], within: Within) -> Iterator[bytes]:
    stack = list(directories)
    while stack:
        directory = stack.pop()
        for entry in _entries(view, directory).values():
            path = joined(directory, os.fsencode(entry.name))
            if not within(path):
                continue
            yield path
            if entry.is_dir(follow_symlinks=False):
                stack.append(path)


def below(root_fd: int, paths: Iterable[bytes], within: Within = lambda _: True) -> Iterator[bytes]:
    """Yield everything ``within`` that is inside those of ``paths`` that are directories of the tree.

    With these added, ``compare`` also finds what was put into them.

    Raises:
        StorageError: the tree can't be read.
    """
    with TreeView(root_fd) as view, _translated():
        for path in paths:
            found = view.look(path)
            if found is not None and found.is_directory:
                yield from _inside(view, [path], within)


def _entries(view: TreeView, directory: bytes) -> dict[str, os.DirEntry[str]]:
    with os.scandir(view.directory(directory)) as entries:
        return {entry.name: entry for entry in entries}


def _is_directory(entry: os.DirEntry[str] | None) -> bool:
    return entry is not None and entry.is_dir(follow_symlinks=False)


def _untouched(one: os.DirEntry[str], other: os.DirEntry[str]) -> bool:
    old, new = one.stat(follow_symlinks=False), other.stat(follow_symlinks=False)
    # The rest of the status is there anyway, and the change time only moves with the clock's tick.
    return _stamp(old) == _stamp(new)


def _stamp(found: os.stat_result) -> tuple[int, ...]:
    owner = found.st_uid, found.st_gid
    return found.st_ctime_ns, found.st_mtime_ns, found.st_mode, found.st_size, *owner


def _in_step(old: TreeView, new: TreeView, within: Within) -> Iterator[bytes]:
    yield b""
    stack, only_old, only_new = [b""], list[bytes](), list[bytes]()
    while stack:
        directory = stack.pop()
        ours, theirs = _entries(old, directory), _entries(new, directory)
        for name in ours.keys() | theirs.keys():
            path = joined(directory, os.fsencode(name))
            if not within(path):
                continue
            one, other = ours.get(name), theirs.get(name)
            same = one is not None and other is not None and one.inode() == other.inode()
            if one is None or other is None or not same or not _untouched(one, other):
                yield path
            if same and _is_directory(one) and _is_directory(other):
                stack.append(path)
                continue
            only_old += [path] * _is_directory(one)
            only_new += [path] * _is_directory(other)
    yield from _inside(old, only_old, within)
    yield from _inside(new, only_new, within)


def walk_touched(old_fd: int, new_fd: int, *, within: Within = lambda _: True) -> Iterator[bytes]:
    """Yield every path ``within`` that may differ, by walking both trees.

    The arguments are those of ``compare``.

    For storage that can't tell the difference of two snapshots.  Those paths are
    yielded whose inode or status differ, and all below directories that moved.
    Some come twice.  What was written within one clock tick (4 ms) before and
    after the old snapshot, without a new size, is not seen: the change time is
    the same.

    Raises:
        StorageError: a tree can't be read.
    """
    with TreeView(old_fd) as old, TreeView(new_fd) as new, _translated():
        yield from _in_step(old, new, within)
