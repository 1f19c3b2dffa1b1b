"""What every storage does, whatever is below it."""

from __future__ import annotations

import pytest

from snaptx.errors import BusyError, NotFoundError, StorageError
from snaptx.model import Part, Tree
from snaptx.storage.base import CACHE, STATE_DIRECTORIES, Storage
from snaptx.storage.btrfs import BtrfsStorage
from tests.contract.conftest import OF_A_MACHINE, choose

ROOT = Tree(1, Part.ROOT)


def staged(storage: Storage, number: int) -> Tree:
    """Make generation ``number`` from the adopted root and return its root."""
    (storage.state / "generations" / str(number)).mkdir()
    storage.snapshot(ROOT, Tree(number, Part.ORIGIN), writable=False)
    storage.snapshot(Tree(number, Part.ORIGIN), Tree(number, Part.ROOT), writable=True)
    return Tree(number, Part.ROOT)


def test_prepare_makes_the_state_directory_and_can_be_repeated(storage: Storage) -> None:
    storage.prepare(storage.running)

    assert {path.name for path in storage.state.iterdir()} >= set(STATE_DIRECTORIES)


def test_the_adopted_root_is_the_running_one(storage: Storage) -> None:
    info = storage.describe(ROOT)

    assert info is not None
    assert info.name == storage.running.name
    assert not info.read_only


def test_a_snapshot_has_the_content_and_a_life_of_its_own(storage: Storage) -> None:
    tree = staged(storage, 2)
    (storage.path(tree) / "etc/hostname").write_text("two\n")

    assert (storage.path(ROOT) / "etc/hostname").read_text() == "one\n"
    assert (storage.path(Tree(2, Part.ORIGIN)) / "etc/hostname").read_text() == "one\n"


def test_origin_is_read_only_and_root_is_not(storage: Storage) -> None:
    staged(storage, 2)
    origin, root = (storage.describe(Tree(2, part)) for part in (Part.ORIGIN, Part.ROOT))

    assert origin is not None
    assert root is not None
    assert (origin.read_only, root.read_only) == (True, False)


def test_every_tree_has_a_name_of_its_own_and_is_found_by_the_kernel(storage: Storage) -> None:
    staged(storage, 2)
    found = [storage.describe(tree) for tree in (ROOT, *(Tree(2, part) for part in (Part.ORIGIN, Part.ROOT)))]
    names = [info.name for info in found if info]

    assert len(set(names)) == 3
    root = found[2]
    assert root is not None
    assert any(word.endswith(f"={root.name}") for word in root.cmdline)


def test_what_somebody_else_deletes_meanwhile_is_deleted(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree, guard = staged(storage, 2), storage.guard

    def beaten(tree: Tree) -> None:
        guard(tree)
        monkeypatch.undo()
        storage.delete(tree)

    monkeypatch.setattr(storage, "guard", beaten)
    storage.delete(tree)
    assert storage.describe(tree) is None


def test_what_does_not_exist_is_not_described(storage: Storage) -> None:
    assert storage.describe(Tree(9, Part.ROOT)) is None


def test_a_snapshot_of_nothing_is_refused(storage: Storage) -> None:
    (storage.state / "generations/2").mkdir()

    with pytest.raises(NotFoundError):
        storage.snapshot(Tree(9, Part.ROOT), Tree(2, Part.ROOT), writable=True)
    assert storage.describe(Tree(2, Part.ROOT)) is None


def test_a_snapshot_never_replaces(storage: Storage) -> None:
    staged(storage, 2)

    with pytest.raises((StorageError, FileExistsError)):
        storage.snapshot(ROOT, Tree(2, Part.ORIGIN), writable=False)


def test_the_name_is_that_of_the_description_if_there_is_one(storage: Storage) -> None:
    tree = staged(storage, 2)
    info = storage.describe(tree)

    assert info is not None
    assert storage.name(tree) == info.name
    assert storage.name(ROOT) == storage.running.name
    assert storage.name(Tree(2, Part.SEALED)) == storage.name(Tree(3, Part.ROOT)) == ""


@pytest.mark.parametrize("lasting", [True, False])
def test_delete_removes_and_is_content_with_nothing_to_remove(storage: Storage, lasting: bool) -> None:
    tree = staged(storage, 2)
    storage.delete(tree, lasting=lasting)
    storage.delete(tree, lasting=lasting)

    assert storage.describe(tree) is None


def test_the_running_root_is_never_deleted(storage: Storage) -> None:
    with pytest.raises(BusyError):
        storage.delete(ROOT)
    assert (storage.path(ROOT) / "etc/hostname").exists()


def test_the_default_is_never_deleted(storage: Storage) -> None:
    tree = staged(storage, 2)
    choose(storage, tree)

    with pytest.raises(BusyError):
        storage.delete(tree)
    info = storage.describe(tree)
    assert info is not None
    assert storage.default_name() == info.name


def test_touched_names_at_least_what_changed(storage: Storage) -> None:
    tree = staged(storage, 2)
    root = storage.path(tree)
    (root / "etc/hostname").write_text("two\n")
    (root / "etc/new").write_text("new\n")
    (root / "usr/bin/tool").unlink()
    storage.snapshot(tree, Tree(2, Part.SEALED), writable=False)

    found = set(storage.touched(Tree(2, Part.ORIGIN), Tree(2, Part.SEALED)) or ())

    assert found >= {b"etc/hostname", b"etc/new", b"usr/bin/tool"}


def test_what_was_written_to_is_never_called_unwritten(storage: Storage) -> None:
    tree, origin = staged(storage, 2), Tree(2, Part.ORIGIN)
    storage.barrier()
    untouched = storage.unwritten(ROOT, origin)
    (storage.path(ROOT) / "etc/hostname").write_text("two\n")
    storage.barrier()

    assert untouched or not isinstance(storage, BtrfsStorage)
    assert not storage.unwritten(ROOT, origin)
    assert not storage.unwritten(tree, origin)  # which is no snapshot of it


def test_the_barrier_can_be_called_at_any_time(storage: Storage) -> None:
    storage.barrier()
    staged(storage, 2)
    storage.barrier()


def test_a_shared_tree_has_its_name_when_it_is_kept(storage: Storage) -> None:
    (storage.begin_shared("@home") / "left").write_text("by an earlier attempt")
    place = storage.begin_shared("@home")
    assert list(place.iterdir()) == []
    assert storage.shared("@home") is None
    (place / "ann").mkdir()
    storage.keep_shared("@home")

    info = storage.shared("@home")
    assert info is not None
    assert info.name.endswith("home")
    assert [path.name for path in storage.shared_path("@home").iterdir()] == ["ann"]
    assert not place.is_dir()


def test_a_shared_tree_never_replaces(storage: Storage) -> None:
    for _ in range(2):
        storage.begin_shared("@srv")
        if storage.shared("@srv") is None:
            storage.keep_shared("@srv")

    with pytest.raises(BusyError):
        storage.keep_shared("@srv")
    storage.abandon_shared("@srv")
    storage.abandon_shared("@srv")
    assert storage.shared("@srv") is not None


@pytest.mark.parametrize("storage", OF_A_MACHINE, indirect=True)
def test_what_was_fetched_goes_with_the_state_and_shared_data_stays(storage: Storage) -> None:
    staged(storage, 2)
    for name in (CACHE, "@home"):
        (storage.begin_shared(name) / "file").write_text(name)
        storage.keep_shared(name)
    storage.begin_shared(CACHE)
    lock = (storage.state / "lock").open("w")
    storage.forsake(storage.running.name, lock.close)

    assert lock.closed
    assert storage.shared(CACHE) is None
    assert (storage.shared_path("@home") / "file").read_text() == "@home"
    assert storage.describe(Tree(2, Part.ROOT)) is None
    storage.prepare(storage.running)
    storage.begin_shared(CACHE)
    storage.keep_shared(CACHE)
    assert [path.name for path in storage.shared_path(CACHE).iterdir()] == []
