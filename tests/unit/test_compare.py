"""What is reported of two plain directories, what is left out, and that nothing outside is touched."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from snaptx.errors import StorageError
from snaptx.model import Aspect, Change, Kind, Op
from snaptx.overlay.manifest import Manifest
from snaptx.system import descriptor
from snaptx.trees import treeview
from snaptx.trees.compare import below, compare, compare_indexed, sameness, walk_touched
from tests.payloads import index
from tests.trees import by_path, records, replay

DIRECTORY = os.O_RDONLY | os.O_DIRECTORY
Layout = dict[str, str | None]


def build(root: Path, layout: Layout) -> Path:
    """Make a tree: None is a directory, "-> x" a symlink, "= x" a hard link, else a file's content."""
    root.mkdir(exist_ok=True)
    for name, what in layout.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if what is None:
            path.mkdir(exist_ok=True)
        elif what.startswith("-> "):
            path.symlink_to(what[3:])
        elif what.startswith("= "):
            path.hardlink_to(root / what[2:])
        else:
            path.write_text(what)
        os.utime(path, (1, 1), follow_symlinks=False)
    return root


class Pair:
    """Two trees, and what differs between them."""

    def __init__(self, place: Path) -> None:
        self.old, self.new = place / "old", place / "new"

    def build(self, old: Layout, new: Layout) -> None:
        build(self.old, old)
        build(self.new, new)

    def walked(self) -> set[bytes]:
        with descriptor(self.old, DIRECTORY) as old, descriptor(self.new, DIRECTORY) as new:
            return set(walk_touched(old, new))

    def changes(self, touched: set[bytes] | None = None, **options: Any) -> list[Change]:
        paths = self.walked() if touched is None else touched
        with descriptor(self.old, DIRECTORY) as old, descriptor(self.new, DIRECTORY) as new:
            return list(compare(old, new, paths, **options))

    def indexed(self, *, brief: bool = False) -> list[Change]:
        """Return what the trees' indexes tell; each is made anew."""
        for tree in (self.old, self.new):
            tree.with_suffix(".index").unlink(missing_ok=True)
            index(tree, tree.with_suffix(".index"))
        with (
            descriptor(self.old, DIRECTORY) as old,
            descriptor(self.new, DIRECTORY) as new,
            Manifest.open(self.old.with_suffix(".index")) as one,
            Manifest.open(self.new.with_suffix(".index")) as other,
        ):
            return list(compare_indexed((old, new), (one, other), brief=brief))


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    """Two empty places."""
    return Pair(tmp_path)


def added(path: bytes, kind: Kind = Kind.FILE, size: int = 0) -> Change:
    return Change(Op.ADDED, path, kind, new_size=size)


def removed(path: bytes, kind: Kind = Kind.FILE, size: int = 0) -> Change:
    return Change(Op.REMOVED, path, kind, old_size=size)


def changed(path: bytes, kind: Kind, aspect: Aspect, old: int = 0, new: int = 0) -> Change:
    return Change(Op.CHANGED, path, kind, (aspect,), old, new)


TABLE: dict[str, tuple[Layout, Layout, list[Change]]] = {
    "nothing": ({"d/f": "x", "l": "-> f"}, {"d/f": "x", "l": "-> f"}, []),
    "empty and missing": ({}, {"f": ""}, [added(b"f")]),
    "content of one size": ({"f": "x"}, {"f": "y"}, [changed(b"f", Kind.FILE, Aspect.CONTENT, 1, 1)]),
    "another size": ({"f": "x"}, {"f": "xy"}, [changed(b"f", Kind.FILE, Aspect.CONTENT, 1, 2)]),
    "target": ({"l": "-> a"}, {"l": "-> bc"}, [changed(b"l", Kind.SYMLINK, Aspect.CONTENT, 1, 2)]),
    "file to link": ({"f": "xyz"}, {"f": "-> a"}, [changed(b"f", Kind.SYMLINK, Aspect.TYPE, 3, 1)]),
    "directory to file": (
        {"d/f": "x"},
        {"d": "xy"},
        [changed(b"d", Kind.FILE, Aspect.TYPE, 0, 2), removed(b"d/f", size=1)],
    ),
    "file to directory": (
        {"d": "xy"},
        {"d/f": "x"},
        [changed(b"d", Kind.DIRECTORY, Aspect.TYPE, 2, 0), added(b"d/f", size=1)],
    ),
    "directory to link": (
        {"d/f": "x", "e/f": "x"},
        {"d": "-> e", "e/f": "x"},
        [changed(b"d", Kind.SYMLINK, Aspect.TYPE, 0, 1), removed(b"d/f", size=1)],
    ),
    "whole directories": (
        {"a/b/f": "x"},
        {"c/d/g": "x"},
        [
            removed(b"a", Kind.DIRECTORY),
            removed(b"a/b", Kind.DIRECTORY),
            removed(b"a/b/f", size=1),
            added(b"c", Kind.DIRECTORY),
            added(b"c/d", Kind.DIRECTORY),
            added(b"c/d/g", size=1),
        ],
    ),
    "sorted by bytes": (
        {},
        {"a/b": "", "a.b": "", "\udcff": ""},
        [added(b"a", Kind.DIRECTORY), added(b"a.b"), added(b"a/b"), added(b"\xff")],
    ),
}


@pytest.mark.parametrize(("old", "new", "expected"), TABLE.values(), ids=TABLE)
def test_differences(pair: Pair, old: Layout, new: Layout, expected: list[Change]) -> None:
    pair.build(old, new)

    assert pair.changes() == pair.indexed() == expected
    assert by_path(records(pair.old), records(pair.new)) == expected


@pytest.mark.parametrize(("old", "new", "expected"), TABLE.values(), ids=TABLE)
def test_applied_they_give_the_new_tree(pair: Pair, old: Layout, new: Layout, expected: list[Change]) -> None:
    pair.build(old, new)
    before, after = records(pair.old), records(pair.new)

    assert replay(expected, before, after) == after


def test_mode(pair: Pair) -> None:
    pair.build({"f": "x", "d": None}, {"f": "x", "d": None})
    (pair.new / "f").chmod(0o4711)
    (pair.new / "d").chmod(0o700)

    assert [(change.path, change.aspects) for change in pair.changes()] == [
        (b"d", (Aspect.MODE,)),
        (b"f", (Aspect.MODE,)),
    ]


def test_times_of_files_and_never_of_directories(pair: Pair) -> None:
    pair.build({"f": "x", "d": None}, {"f": "x", "d": None})
    os.utime(pair.new / "f", (2, 2))
    os.utime(pair.new / "d", (2, 2))

    assert [(change.path, change.aspects) for change in pair.changes()] == [(b"f", (Aspect.TIME,))]


def test_several_aspects_of_one_path(pair: Pair) -> None:
    pair.build({"f": "x"}, {"f": "y"})
    (pair.new / "f").chmod(0o600)
    os.utime(pair.new / "f", (2, 2))

    (change,) = pair.changes()

    assert change.aspects == (Aspect.CONTENT, Aspect.MODE, Aspect.TIME)
    assert pair.indexed() == pair.changes() == [change]
    assert [found.aspects for found in pair.changes(brief=True)] == [(Aspect.CONTENT,)]
    assert [found.aspects for found in pair.indexed(brief=True)] == [(Aspect.CONTENT,)]


def test_only_touched_paths_are_looked_at(pair: Pair) -> None:
    pair.build({"a": "x", "b": "x"}, {"a": "y", "b": "y"})

    assert [change.path for change in pair.changes({b"b", b"nowhere", b"no/where"})] == [b"b"]


def linked(old: Path, new: Path) -> None:
    """Give every file of ``old`` the same name in ``new``: one inode in two trees, as snapshots have it."""
    for path in sorted(old.rglob("*")):
        target = new / path.relative_to(old)
        target.parent.mkdir(parents=True, exist_ok=True)
        if not path.is_dir():
            target.hardlink_to(path)


def test_renamed_file(pair: Pair) -> None:
    pair.build({"a": "x", "other": "x"}, {})
    linked(pair.old, pair.new)
    (pair.new / "a").rename(pair.new / "b")

    assert pair.changes() == [Change(Op.RENAMED, b"b", Kind.FILE, (), 1, 1, b"a")]
    assert pair.changes(renames=False) == [removed(b"a", size=1), added(b"b", size=1)]


def test_one_more_name_is_added_and_one_less_is_removed(pair: Pair) -> None:
    pair.build({"a": "x", "b": "= a", "c": "= a"}, {})
    linked(pair.old, pair.new)
    (pair.new / "c").unlink()

    assert pair.changes() == [removed(b"c", size=1)]

    (pair.new / "d").hardlink_to(pair.new / "a")
    (pair.new / "e").hardlink_to(pair.new / "a")

    assert pair.changes() == [
        Change(Op.RENAMED, b"d", Kind.FILE, (), 1, 1, b"c"),
        added(b"e", size=1),
    ]


def test_names_of_one_file_are_paired_in_order(pair: Pair) -> None:
    pair.build({"a": "x", **{f"old{i}": "= a" for i in range(9)}}, {})
    linked(pair.old, pair.new)
    for i in range(9):
        (pair.new / f"old{i}").rename(pair.new / f"new{i}")

    assert [(change.renamed_from, change.path) for change in pair.changes()] == [
        (b"old%d" % i, b"new%d" % i) for i in range(9)
    ]


def test_all_in_a_directory_of_one_side_is_found_when_it_is_named(pair: Pair) -> None:
    pair.build({"a/b/f": "x"}, {"c/d/g": "x"})

    assert [change.path for change in pair.changes({b"a", b"c"})] == [
        b"a",
        b"a/b",
        b"a/b/f",
        b"c",
        b"c/d",
        b"c/d/g",
    ]


def test_file_moved_over_another_changes_it(pair: Pair) -> None:
    pair.build({"a": "x", "b": "yz"}, {})
    linked(pair.old, pair.new)
    (pair.new / "a").rename(pair.new / "b")

    assert pair.changes() == [
        removed(b"a", size=1),
        changed(b"b", Kind.FILE, Aspect.CONTENT, 2, 1),
    ]


def test_links_on_the_way_are_not_followed(pair: Pair, tmp_path: Path) -> None:
    build(tmp_path / "outside", {"secret": "x"})
    pair.build({"l": "-> a"}, {"l": f"-> {tmp_path}/outside"})

    assert [change.path for change in pair.changes({b"l", b"l/secret"})] == [b"l"]


def test_paths_never_leave_the_tree(pair: Pair, tmp_path: Path) -> None:
    build(tmp_path, {"secret/f": "x"})
    pair.build({}, {"f": "x"})

    with pytest.raises(StorageError):
        pair.changes({b"../secret/f"})


def test_deeper_than_a_path_may_be_long(pair: Pair) -> None:
    pair.build({}, {})
    name = "n" * 200
    for root, content in ((pair.old, b"x"), (pair.new, b"y")):
        fd = os.open(root, DIRECTORY)
        for _ in range(30):
            os.mkdir(name, dir_fd=fd)
            below = os.open(name, DIRECTORY, dir_fd=fd)
            os.close(fd)
            fd = below
        file = os.open("f", os.O_WRONLY | os.O_CREAT, dir_fd=fd)
        os.write(file, content)
        os.close(file)
        os.close(fd)

    (change,) = (change for change in pair.changes() if Aspect.CONTENT in change.aspects)

    assert change.path == b"/".join([name.encode()] * 30 + [b"f"])


def test_what_is_not_within_is_left_out_of_a_walk_and_of_a_directory_of_one_side(pair: Pair) -> None:
    pair.build({"d/f": "x"}, {"d/f": "y", "d/left/f": "x", "new/f": "x", "new/left/f": "x"})

    def within(path: bytes) -> bool:
        assert b"left/" not in path
        return not path.endswith(b"left")

    with descriptor(pair.old, DIRECTORY) as old, descriptor(pair.new, DIRECTORY) as new:
        assert set(walk_touched(old, new, within=within)) >= {b"", b"d", b"d/f", b"new", b"new/f"}
        found = [change.path for change in compare(old, new, {b"new"}, within=within)]
        inside = set(below(new, [b"new"], within))

    assert found == [b"new", b"new/f"]
    assert inside == {b"new/f"}


def test_more_directories_than_are_kept_open(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(treeview, "OPEN_DIRECTORIES", 3)
    pair.build({f"{i}/{i}/f": "x" for i in range(20)}, {f"{i}/{i}/f": "y" for i in range(20)})
    before = sorted(os.listdir("/proc/self/fd"))

    assert len(pair.changes()) == 20
    assert sorted(os.listdir("/proc/self/fd")) == before


def test_holes_are_not_read(pair: Pair) -> None:
    pair.build({"f": "x", "g": "x"}, {"f": "x", "g": "x"})
    for root in (pair.old, pair.new):
        for name in ("f", "g"):
            os.truncate(root / name, 1 << 42)
            os.utime(root / name, (1, 1))
    with (pair.new / "g").open("r+b") as file:
        file.seek(1 << 41)
        file.write(b"y")
    os.utime(pair.new / "g", (1, 1))

    assert pair.changes() == [changed(b"g", Kind.FILE, Aspect.CONTENT, 1 << 42, 1 << 42)]


def test_large_files_are_compared_to_the_end(pair: Pair) -> None:
    data = os.urandom(treeview.CHUNK * 2 + 10)
    pair.build({}, {})
    for root, end in ((pair.old, b"x"), (pair.new, b"y")):
        (root / "same").write_bytes(data)
        (root / "other").write_bytes(data + end)
        for name in ("same", "other"):
            os.utime(root / name, (1, 1))

    assert [c.path for c in pair.changes()] == [b"other"]


def test_fifos_are_not_opened(pair: Pair) -> None:
    pair.build({}, {})
    for root in (pair.old, pair.new):
        os.mkfifo(root / "pipe")
        os.utime(root / "pipe", (1, 1))

    assert pair.changes() == []


def test_sameness(pair: Pair) -> None:
    pair.build({"same": "x", "other": "x", "d": None}, {"same": "x", "other": "y", "d": None})
    os.utime(pair.new / "same", (2, 2))
    with (
        descriptor(pair.old, DIRECTORY) as old,
        descriptor(pair.new, DIRECTORY) as new,
        sameness(old, new) as same,
    ):
        assert [same(path) for path in (b"same", b"d", b"nowhere", b"other")] == [True, True, True, False]


def test_below(pair: Pair, tmp_path: Path) -> None:
    build(tmp_path / "outside", {"secret": "x"})
    pair.build({"d/s/f": "x", "file": "x", "l": f"-> {tmp_path}/outside", "other/f": "x"}, {})
    with descriptor(pair.old, DIRECTORY) as fd:
        assert sorted(below(fd, [b"d", b"file", b"l", b"nowhere"])) == [b"d/s", b"d/s/f"]


def test_unreadable_tree_is_a_storage_error(pair: Pair) -> None:
    pair.build({"f": "x"}, {})
    with descriptor(pair.old, DIRECTORY) as closed:
        pass

    with pytest.raises(StorageError, match="cannot compare two trees"):
        list(compare(closed, closed, {b"f"}))
    with pytest.raises(StorageError, match="cannot compare two trees"):
        list(walk_touched(closed, closed))


def test_descriptors_are_closed_when_the_reader_stops(pair: Pair) -> None:
    pair.build({"a/f": "x", "b/f": "x"}, {"a/f": "y", "b/f": "y"})
    before = sorted(os.listdir("/proc/self/fd"))

    def first() -> Iterator[Change]:
        with descriptor(pair.old, DIRECTORY) as old, descriptor(pair.new, DIRECTORY) as new:
            yield next(compare(old, new, {b"a/f", b"b/f"}))

    assert [change.path for change in first()] == [b"a/f"]
    assert sorted(os.listdir("/proc/self/fd")) == before
