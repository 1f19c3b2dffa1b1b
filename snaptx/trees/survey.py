"""Which path of one tree corresponds to which of another.

Directories of related trees are the same by inode number and birth time; a
place, a name in a directory, is where that name is in the same directory of the
other tree.  Nothing is walked but directories that one side has alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from snaptx.model import Op
from snaptx.trees.treeview import Seen, TreeView, above, joined

OLD, NEW = 0, 1

Place = tuple[bytes | None, bytes | None]


class Survey:
    """What was seen on both sides, and which directories of one are which of the other.

    Of directories that only one side has, what is not ``within`` is left out.
    """

    def __init__(
        self,
        views: tuple[TreeView, TreeView],
        *,
        renames: bool,
        within: Callable[[bytes], bool] = lambda _: True,
    ) -> None:
        self.views = views
        self._within = within
        self.seen: tuple[dict[bytes, Seen], dict[bytes, Seen]] = ({}, {})
        self.twins: tuple[dict[bytes, bytes], dict[bytes, bytes]] = ({}, {})
        self.renames = renames
        self._places: tuple[dict[bytes, bytes | None], dict[bytes, bytes | None]] = ({}, {})
        self._absent: tuple[set[bytes], set[bytes]] = (set(), set())

    def take(self, paths: Iterable[bytes]) -> None:
        """Look on both sides at ``paths`` and at all that is in directories which only one side has."""
        for path in sorted(set(paths)):
            for side in (OLD, NEW):
                self._look(side, path)
        self._match()
        for side in (OLD, NEW):
            for path in [path for path, seen in self.seen[side].items() if seen.is_directory]:
                self._descend(side, path)
        self._match()
        for places in self._places:
            places.clear()

    def _look(self, side: int, path: bytes) -> Seen | None:
        found = self.seen[side].get(path)
        if found is None and path not in self._absent[side]:
            found = self.views[side].look(path)
            if found is None:
                self._absent[side].add(path)
            else:
                self.seen[side][path] = found
        return found

    def _alone(self, side: int, path: bytes) -> bool:
        """Return whether the directory ``path`` may hold names that nobody mentioned."""
        if self.renames:
            return path not in self.twins[side]
        here = self.seen[side][path]
        there = self.views[1 - side].look(path)
        return there is None or (here.inode, here.format) != (there.inode, there.format)

    def _descend(self, side: int, path: bytes) -> None:
        stack = [path]
        while stack:
            directory = stack.pop()
            if not self._alone(side, directory):
                continue
            for name in self.views[side].names(directory):
                inside = joined(directory, name)
                if not self._within(inside):
                    continue
                known = inside in self.seen[side]
                found = self._look(side, inside)
                if found is not None and found.is_directory and not known:
                    stack.append(inside)

    def _match(self) -> None:
        """Find the directories that are on both sides, by inode."""
        if not self.renames:
            return
        by_inode = {seen.inode: path for path, seen in self.seen[OLD].items() if seen.is_directory}
        for path, seen in self.seen[NEW].items():
            if seen.is_directory and (old := by_inode.get(seen.inode)) is not None and self.same(old, path):
                self.twins[OLD][old] = path
                self.twins[NEW][path] = old

    def same(self, old: bytes, new: bytes) -> bool:
        """Return whether the inodes of one number are one: a number may have been given again."""
        return old == new or self.views[OLD].birth_ns(old) == self.views[NEW].birth_ns(new)

    def place(self, side: int, path: bytes) -> bytes | None:
        """Return where on the other side the place ``path`` is, None if it is nowhere."""
        if not self.renames or not path:
            return path
        known = self._places[side]
        if path not in known:
            known[path] = self._find_place(side, path)
        return known[path]

    def _find_place(self, side: int, path: bytes) -> bytes | None:
        if path in self.twins[side]:
            return self.twins[side][path]
        directory = self.place(side, above(path))
        if directory is None:
            return None
        found = joined(directory, path.rpartition(b"/")[2])
        return None if found in self.twins[1 - side] else found

    def moved(self, old: bytes, new: bytes) -> bool:
        """Return whether the directory ``new`` is ``old`` under another name."""
        if self.twins[NEW].get(new) != old or not new:
            return False
        directory = self.place(NEW, above(new))
        return directory is None or joined(directory, new.rpartition(b"/")[2]) != old

    def places(self) -> Iterator[Place]:
        """Yield each place once; a side is None if nothing is there."""
        done = set(self.seen[NEW])
        for path in list(self.seen[NEW]):
            old = self.place(NEW, path)
            yield (old if old is not None and self._look(OLD, old) else None), path
        for path in list(self.seen[OLD]):
            new = self.place(OLD, path)
            if new is None or not self._look(NEW, new):
                yield path, None
            elif new not in done:
                yield path, new


def paired(survey: Survey, places: Iterable[Place]) -> Iterator[tuple[Op | None, Place]]:
    """Yield ``places``; what is alone on its side gets its other name if it was renamed.

    The operation is None where something is on both sides under one name.
    """
    gone: dict[tuple[int, int], list[bytes]] = {}
    fresh: list[bytes] = []
    for old, new in places:
        if old is None and new is not None:
            fresh.append(new)
        elif new is None and old is not None:
            seen = survey.seen[OLD][old]
            gone.setdefault((seen.inode, seen.format), []).append(old)
        elif old is not None and new is not None:
            yield Op.RENAMED if survey.moved(old, new) else None, (old, new)
    for names in gone.values():
        names.sort(reverse=True)
    for new in sorted(fresh):
        seen = survey.seen[NEW][new]
        names = gone.get((seen.inode, seen.format), [])
        if names and survey.renames and not seen.is_directory and survey.same(names[-1], new):
            yield Op.RENAMED, (names.pop(), new)
        else:
            yield Op.ADDED, (None, new)
    for names in gone.values():
        for old in names:
            yield Op.REMOVED, (old, None)
