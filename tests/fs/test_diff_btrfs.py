"""The difference of two snapshots on real Btrfs, against an exhaustive walk of both trees.

Seeded random rounds change a small tree with few names, so that the names
collide, move and come back.  The path-by-path form has to be equal to what the
walk finds; the form with renames, replayed on a model of the old tree, has to
give the new one, and must not tell anything that is not so.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import btrfsutil
import pytest

from snaptx.errors import StorageError
from snaptx.model import Aspect, Change, Kind, Op
from snaptx.storage import sendstream
from snaptx.storage.inodenames import names
from snaptx.system import birth_ns, descriptor
from snaptx.trees.compare import compare, walk_touched
from tests.minimal_root import Disk, made_disk
from tests.mutations import Mutator
from tests.trees import Records, by_path, records, replay

pytestmark = pytest.mark.root

ROUNDS = 40
REALTIME_COARSE = 5  # linux/time.h; what files are stamped with
DIRECTORY = os.O_RDONLY | os.O_DIRECTORY


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Disk]:
    """A file system for the trees of this module."""
    with made_disk(tmp_path_factory.mktemp("diff")) as made:
        yield made


class Work:
    """A writable tree and a series of read-only snapshots of it; two of them are compared."""

    def __init__(self, disk: Disk, name: str) -> None:
        self.disk = disk
        self.path = disk.place / name
        self._number = 0
        btrfsutil.create_subvolume(str(self.path))
        self.old = self.new = self.path

    def snapshot(self) -> None:
        """Make what is there now the new tree, and what was it the old one."""
        self._number += 1
        if self.old != self.new:
            btrfsutil.delete_subvolume(str(self.old))
        self.old, self.new = self.new, self.path.with_name(f"{self.path.name}.{self._number}")
        btrfsutil.create_snapshot(str(self.path), str(self.new), read_only=True)
        if self.old == self.path:
            self.old = self.new

    def touched(self) -> set[bytes]:
        """Return the paths ``btrfs send`` mentions."""
        with descriptor(self.old, DIRECTORY) as old, descriptor(self.new, DIRECTORY) as new:
            found = sendstream.touched(old, new, btrfsutil.subvolume_id(old))
        assert found is not None
        return found

    def changes(self, touched: set[bytes] | None = None, *, renames: bool = True) -> list[Change]:
        """Return the difference, from ``touched`` or what ``btrfs send`` mentions."""
        paths = self.touched() if touched is None else touched
        with descriptor(self.old, DIRECTORY) as old, descriptor(self.new, DIRECTORY) as new:
            return list(compare(old, new, paths, renames=renames))

    def walked(self) -> set[bytes]:
        """Return the paths that a walk of both trees finds."""
        with descriptor(self.old, DIRECTORY) as old, descriptor(self.new, DIRECTORY) as new:
            return set(walk_touched(old, new))


@pytest.fixture
def work(disk: Disk, request: pytest.FixtureRequest) -> Work:
    """An empty tree of its own."""
    return Work(disk, "".join(c if c.isalnum() else "_" for c in request.node.name))


def check(work: Work, old: Records, new: Records, touched: set[bytes]) -> None:
    """Insist that both forms of the difference are complete and true."""

    assert work.changes(touched, renames=False) == by_path(old, new)
    assert replay(work.changes(touched), old, new) == new
    assert not overlooked_renames(work, work.changes(touched), old, new)


def overlooked_renames(work: Work, changes: list[Change], old: Records, new: Records) -> set[tuple[int, int]]:
    """Return the inodes that are reported as removed here and added there."""
    gone = {
        (old[change.path].inode, birth(work.old, change.path))
        for change in changes
        if change.op is Op.REMOVED
    }
    came = {
        (new[change.path].inode, birth(work.new, change.path)) for change in changes if change.op is Op.ADDED
    }
    return gone & came


def birth(root: Path, path: bytes) -> int:
    with descriptor(os.path.dirname(os.path.join(os.fsencode(root), path)), DIRECTORY) as fd:
        return birth_ns(fd, os.path.basename(path))


@pytest.mark.parametrize("seed", range(10))
def test_random_changes(work: Work, seed: int) -> None:
    random_rounds(work, seed, work.touched)


@pytest.mark.parametrize("seed", range(10, 14))
def test_random_changes_found_by_walking(work: Work, seed: int) -> None:
    random_rounds(work, seed, work.walked, pause=next_tick)


def next_tick() -> None:
    """Wait until files get another change time than they did so far."""
    now = time.clock_gettime_ns(REALTIME_COARSE)
    while time.clock_gettime_ns(REALTIME_COARSE) == now:
        time.sleep(0.0005)


def random_rounds(
    work: Work, seed: int, touched: Callable[[], set[bytes]], pause: Callable[[], None] = lambda: None
) -> None:
    """Change the tree at random, again and again, and check each difference."""
    mutator = Mutator(work.path, seed)
    mutator.mutate(40)
    work.snapshot()
    new = records(work.new)
    for number in range(ROUNDS):
        pause()
        mutator.mutate(1 + number % 25)
        work.snapshot()
        old, new = new, records(work.new)
        try:
            check(work, old, new, touched())
        except (AssertionError, KeyError) as error:
            error.add_note(f"round {number}: " + "\n".join(mutator.log))
            raise


def write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def test_nothing_changed(work: Work) -> None:
    write(work.path / "d/f", b"x")
    work.snapshot()
    work.snapshot()

    assert work.changes() == []


def test_moved_directory_is_one_rename_and_is_not_walked(work: Work) -> None:
    for number in range(50):
        write(work.path / f"d/s/{number}", b"x")
    work.snapshot()
    (work.path / "d").rename(work.path / "e")
    write(work.path / "e/s/7", b"changed")
    work.snapshot()

    assert len(work.touched()) < 10
    assert work.changes() == [
        Change(Op.RENAMED, b"e", Kind.DIRECTORY, renamed_from=b"d"),
        Change(Op.CHANGED, b"e/s/7", Kind.FILE, (Aspect.CONTENT, Aspect.TIME), 1, 7),
    ]


def test_swapped_directories(work: Work) -> None:
    write(work.path / "a/1", b"x")
    write(work.path / "b/2", b"x")
    work.snapshot()
    (work.path / "a").rename(work.path / "t")
    (work.path / "b").rename(work.path / "a")
    (work.path / "t").rename(work.path / "b")
    work.snapshot()

    assert work.changes() == [
        Change(Op.RENAMED, b"a", Kind.DIRECTORY, renamed_from=b"b"),
        Change(Op.RENAMED, b"b", Kind.DIRECTORY, renamed_from=b"a"),
    ]


def test_directory_moved_onto_a_removed_one(work: Work) -> None:
    write(work.path / "a/1", b"x")
    write(work.path / "b/2", b"x")
    work.snapshot()
    (work.path / "b/2").unlink()
    (work.path / "a").rename(work.path / "b")
    work.snapshot()

    assert work.changes() == [
        Change(Op.REMOVED, b"b", Kind.DIRECTORY),
        Change(Op.RENAMED, b"b", Kind.DIRECTORY, renamed_from=b"a"),
        Change(Op.REMOVED, b"b/2", Kind.FILE, old_size=1),
    ]


def test_directory_made_anew_is_compared_by_name(work: Work) -> None:
    write(work.path / "d/same", b"x")
    write(work.path / "d/gone", b"x")
    os.utime(work.path / "d/same", (1, 1))
    work.snapshot()
    for name in ("same", "gone"):
        (work.path / "d" / name).unlink()
    (work.path / "d").rmdir()
    write(work.path / "d/same", b"x")
    write(work.path / "d/new", b"x")
    os.utime(work.path / "d/same", (1, 1))
    work.snapshot()

    assert work.changes() == [
        Change(Op.REMOVED, b"d/gone", Kind.FILE, old_size=1),
        Change(Op.ADDED, b"d/new", Kind.FILE, new_size=1),
    ]


def test_every_name_of_a_hard_link_changes(work: Work) -> None:
    write(work.path / "d/a", b"x")
    for number in range(300):
        os.link(work.path / "d/a", work.path / f"{number:0>250}")
    work.snapshot()
    with (work.path / "d/a").open("r+b") as file:
        file.write(b"y")
    work.snapshot()

    changed = [change.path for change in work.changes() if Aspect.CONTENT in change.aspects]

    assert changed == sorted([b"d/a", *(b"%0250d" % number for number in range(300))])


def test_all_names_of_an_inode(work: Work) -> None:
    write(work.path / "d/e/f", b"x")
    inode = (work.path / "d/e/f").stat().st_ino
    expected = {b"d/e/f"}
    for number in range(2000):
        name = f"{number:0>100}"
        os.link(work.path / "d/e/f", work.path / "d" / name)
        expected.add(b"d/" + name.encode())
    with descriptor(work.path, DIRECTORY) as fd:
        found = list(names(fd, inode))

        assert list(names(fd, 2**40)) == []
    assert len(found) == len(expected)
    assert set(found) == expected


def test_number_of_an_inode_given_again_is_no_rename(work: Work) -> None:
    """A subvolume gives numbers on from the highest that its tree holds when it is read first.

    That is done by a snapshot here: an unmounted file system stays what it is as long as somebody
    else has a copy of the table of mounts.
    """
    write(work.path / "kept", b"x")
    write(work.path / "first", b"same")
    number = (work.path / "first").stat().st_ino
    work.snapshot()
    (work.path / "first").unlink()
    later = work.path.with_name(work.path.name + ".later")
    btrfsutil.create_snapshot(str(work.path), str(later))
    write(later / "second", b"same")

    assert (later / "second").stat().st_ino == number

    btrfsutil.set_subvolume_read_only(str(later), True)
    work.new = later

    assert [(change.op, change.path) for change in work.changes()] == [
        (Op.REMOVED, b"first"),
        (Op.ADDED, b"second"),
    ]


def test_siblings_that_made_inodes_of_the_same_numbers(work: Work) -> None:
    write(work.path / "common", b"x")
    work.snapshot()
    sibling = work.path.with_name(work.path.name + ".sibling")
    btrfsutil.create_snapshot(str(work.new), str(sibling))
    write(work.path / "d/one", b"x")
    write(sibling / "e/other", b"x")

    assert (work.path / "d").stat().st_ino == (sibling / "e").stat().st_ino

    work.snapshot()
    btrfsutil.set_subvolume_read_only(str(sibling), True)
    work.old, work.new = work.new, sibling

    assert [(change.op, change.path) for change in work.changes()] == [
        (Op.REMOVED, b"d"),
        (Op.REMOVED, b"d/one"),
        (Op.ADDED, b"e"),
        (Op.ADDED, b"e/other"),
    ]


def test_root_itself(work: Work) -> None:
    work.snapshot()
    work.path.chmod(0o700)
    os.setxattr(work.path, "user.a", b"b")
    work.snapshot()

    assert work.changes() == [Change(Op.CHANGED, b"", Kind.DIRECTORY, (Aspect.MODE, Aspect.XATTRS))]


def no_threads_nor_descriptors_left(action: Callable[[], object]) -> None:
    before = threading.active_count(), sorted(os.listdir("/proc/self/fd"))

    action()

    assert (threading.active_count(), sorted(os.listdir("/proc/self/fd"))) == before


def test_writable_tree_is_an_error_and_leaves_nothing(work: Work) -> None:
    work.snapshot()
    work.new = work.path

    def action() -> None:
        with pytest.raises(StorageError, match="cannot compare two snapshots"):
            work.touched()

    no_threads_nor_descriptors_left(action)


def test_unknown_parent_is_an_error(work: Work) -> None:
    work.snapshot()
    with descriptor(work.new, DIRECTORY) as fd, pytest.raises(StorageError):
        sendstream.touched(fd, fd, 2**40)


def test_leaving_the_stream_early_leaves_nothing(work: Work) -> None:
    work.snapshot()
    for number in range(5000):
        write(work.path / f"{number:0>200}", b"")
    work.snapshot()

    def leave() -> None:
        with (
            descriptor(work.old, DIRECTORY) as old,
            descriptor(work.new, DIRECTORY) as new,
            sendstream.stream(new, btrfsutil.subvolume_id(old)) as chunks,
        ):
            next(chunks)
            raise KeyboardInterrupt

    def action() -> None:
        with pytest.raises(KeyboardInterrupt):
            leave()

    no_threads_nor_descriptors_left(action)
