"""What a tree is, by an exhaustive walk, and what a list of changes says about it.

Written with plain paths and whole files, so that it has nothing in common with
the package.  ``by_path`` computes the path-by-path difference; ``replay`` takes
the old tree through a list with renames and insists on every word of it.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

from snaptx.model import Aspect, Change, Kind, Op

KINDS = {
    stat.S_IFREG: Kind.FILE,
    stat.S_IFDIR: Kind.DIRECTORY,
    stat.S_IFLNK: Kind.SYMLINK,
    stat.S_IFIFO: Kind.FIFO,
    stat.S_IFCHR: Kind.CHAR,
}


@dataclass(frozen=True)
class Record:
    """Everything that can differ at one path; ``inode`` is not part of it."""

    kind: Kind
    content: bytes
    mode: int
    owner: tuple[int, int]
    xattrs: tuple[tuple[str, bytes], ...]
    time: int
    inode: int = field(compare=False)

    @property
    def size(self) -> int:
        """The bytes of data, 0 for what has none."""
        return len(self.content) if self.kind in (Kind.FILE, Kind.SYMLINK) else 0


Records = dict[bytes, Record]


def _record(path: bytes) -> Record:
    found = os.lstat(path)
    kind = KINDS[stat.S_IFMT(found.st_mode)]
    content = b""
    if kind is Kind.FILE:
        content = Path(os.fsdecode(path)).read_bytes()
    elif kind is Kind.SYMLINK:
        content = os.readlink(path)
    elif kind is Kind.CHAR:
        content = b"%d" % found.st_rdev
    keys = sorted(os.listxattr(path, follow_symlinks=False))
    xattrs = tuple((key, os.getxattr(path, key, follow_symlinks=False)) for key in keys)
    time = 0 if kind is Kind.DIRECTORY else found.st_mtime_ns
    return Record(
        kind, content, stat.S_IMODE(found.st_mode), (found.st_uid, found.st_gid), xattrs, time, found.st_ino
    )


def records(root: Path) -> Records:
    """Return everything in the tree; b"" is the root."""
    top = os.fsencode(root)
    found = {b"": _record(top)}
    for place, directories, files in os.walk(top):
        for name in directories + files:
            path = os.path.join(place, name)
            found[path[len(top) + 1 :]] = _record(path)
    return found


def aspects(old: Record, new: Record) -> tuple[Aspect, ...]:
    """Return in what way two records differ."""
    if old.kind is not new.kind:
        return (Aspect.TYPE,)
    differs = {
        Aspect.CONTENT: old.content != new.content,
        Aspect.MODE: old.mode != new.mode,
        Aspect.OWNER: old.owner != new.owner,
        Aspect.XATTRS: old.xattrs != new.xattrs,
        Aspect.TIME: old.time != new.time,
    }
    return tuple(aspect for aspect, differ in differs.items() if differ)


def by_path(old: Records, new: Records) -> list[Change]:
    """Return the difference of two trees without renames, sorted by path."""
    found = []
    for path in sorted(old.keys() | new.keys()):
        here, there = old.get(path), new.get(path)
        if here is None and there is not None:
            found.append(Change(Op.ADDED, path, there.kind, new_size=there.size))
        elif there is None and here is not None:
            found.append(Change(Op.REMOVED, path, here.kind, old_size=here.size))
        elif here is not None and there is not None and (differ := aspects(here, there)):
            found.append(Change(Op.CHANGED, path, there.kind, differ, here.size, there.size))
    return found


class _Node:
    def __init__(self, record: Record) -> None:
        self.record = record
        self.children: dict[bytes, _Node] = {}


class _Model:
    """A tree of records that can be taken apart."""

    def __init__(self, records: Records) -> None:
        self.root = _Node(records[b""])
        for path in sorted(records):
            if path:
                self.attach(path, _Node(records[path]))

    def find(self, path: bytes) -> _Node:
        node = self.root
        for part in path.split(b"/") if path else []:
            node = node.children[part]
        return node

    def attach(self, path: bytes, node: _Node) -> None:
        above, _, name = path.rpartition(b"/")
        parent = self.find(above)
        assert parent.record.kind is Kind.DIRECTORY, f"{path!r} is in no directory"
        assert name not in parent.children, f"{path!r} is there already"
        parent.children[name] = node

    def parent(self, path: bytes) -> tuple[dict[bytes, _Node], bytes]:
        above, _, name = path.rpartition(b"/")
        return self.find(above).children, name

    def records(self) -> Records:
        found: Records = {}
        stack = [(b"", self.root)]
        while stack:
            path, node = stack.pop()
            found[path] = node.record
            prefix = path + b"/" if path else b""
            stack.extend((prefix + name, child) for name, child in node.children.items())
        return found


def _altered(change: Change, old: Record, new: Record) -> Record:
    assert change.aspects == aspects(old, new), f"{change} is wrong about {old} and {new}"
    assert (change.old_size, change.new_size) == (old.size, new.size), change
    if Aspect.TYPE in change.aspects:
        return new
    names = {"content": "content", "mode": "mode", "owner": "owner", "xattrs": "xattrs", "time": "time"}
    return replace(
        old, **{names[aspect.value]: getattr(new, names[aspect.value]) for aspect in change.aspects}
    )


def replay(changes: Iterable[Change], old: Records, new: Records) -> Records:
    """Return what ``old`` is after ``changes``, asserting that each is true; new data comes from ``new``."""
    changes = list(changes)
    model = _Model(old)
    leaving = [change for change in changes if change.op in (Op.RENAMED, Op.REMOVED)]
    places = [model.parent(c.renamed_from if c.op is Op.RENAMED else c.path) for c in leaving]
    nodes = {id(change): siblings.pop(name) for change, (siblings, name) in zip(leaving, places, strict=True)}
    for change in leaving:
        if change.op is Op.REMOVED:
            node = nodes[id(change)]
            assert not node.children, f"{change} leaves {node.children} behind"
            assert (change.kind, change.old_size) == (node.record.kind, node.record.size), change
    for change in changes:
        if change.op is not Op.REMOVED:
            _place(model, change, nodes.get(id(change)), new[change.path])
    return model.records()


def _place(model: _Model, change: Change, moved: _Node | None, wanted: Record) -> None:
    assert change.kind is wanted.kind, change
    if change.op is Op.ADDED:
        assert change.new_size == wanted.size, change
        model.attach(change.path, _Node(wanted))
        return
    if moved is not None:
        assert moved.record.inode == wanted.inode, f"{change} is another file"
        model.attach(change.path, moved)
    node = model.find(change.path)
    assert moved is not None or change.aspects, f"{change} says nothing"
    node.record = _altered(change, node.record, wanted)
    assert Aspect.TYPE not in change.aspects or not node.children, f"{change} leaves {node.children} behind"
