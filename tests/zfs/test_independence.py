"""Generations depend on none: any can go, whatever was cloned from what."""

from __future__ import annotations

import os
import subprocess
import threading
from contextlib import ExitStack
from itertools import permutations
from pathlib import Path

import pytest

from snaptx import system
from snaptx.errors import BusyError
from snaptx.model import Part, Tree
from snaptx.storage.zfs.backend import ZfsStorage
from tests.zfs.conftest import MIB, MakePool, Pool


@pytest.fixture
def pool(make_pool: MakePool) -> Pool:
    """Give a pool with a root that has a file and a child."""
    made = make_pool(children=("var", "var/lib"))
    (made.root / "etc").mkdir()
    (made.root / "etc/version").write_text("1\n")
    (made.root / "var/lib/state").write_text("1\n")
    return made


@pytest.fixture
def storage(pool: Pool) -> ZfsStorage:
    """Give its storage, prepared."""
    made = ZfsStorage(pool.mount())
    made.prepare(made.running)
    return made


def root(number: int) -> Tree:
    return Tree(number, Part.ROOT)


def stage(storage: ZfsStorage, source: Tree, number: int) -> None:
    """Make a generation from a tree, with content of its own, and seal it."""
    (storage.state / f"generations/{number}").mkdir()
    storage.snapshot(source, Tree(number, Part.ORIGIN), writable=False)
    storage.snapshot(Tree(number, Part.ORIGIN), root(number), writable=True)
    place = storage.path(root(number))
    (place / "etc/version").write_text(f"{number}\n")
    (place / "var/lib/state").write_text(f"{number}\n")
    storage.snapshot(root(number), Tree(number, Part.SEALED), writable=False)


def refused(*argv: str) -> str:
    """Return what a command says that fails, "" if it does not."""
    result = subprocess.run(argv, capture_output=True, text=True, check=False)
    return result.stderr if result.returncode else ""


def remove(storage: ZfsStorage, number: int) -> None:
    for part in reversed(Part):
        storage.delete(Tree(number, part))


def intact(storage: ZfsStorage, number: int) -> None:
    """Require all trees of a generation with its content, children included."""
    for part in (Part.ROOT, Part.SEALED):
        place = storage.path(Tree(number, part))
        assert (place / "etc/version").read_text() == f"{number}\n"
        assert (place / "var/lib/state").read_text() == f"{number}\n"


@pytest.mark.parametrize("order", list(permutations((2, 3, 4))))
def test_a_chain_can_go_in_any_order(pool: Pool, storage: ZfsStorage, order: tuple[int, ...]) -> None:
    before = pool.names() | pool.names("snapshot")
    for number in (2, 3, 4):
        stage(storage, root(number - 1), number)
    left = {2, 3, 4}
    for number in order:
        remove(storage, number)
        left.discard(number)
        for other in left:
            intact(storage, other)

    assert (pool.root / "var/lib/state").read_text() == "1\n"
    assert pool.names() | pool.names("snapshot") == before


@pytest.mark.parametrize("order", list(permutations((2, 3, 4))))
def test_generations_of_one_sealed_tree_can_go_in_any_order(
    pool: Pool, storage: ZfsStorage, order: tuple[int, ...]
) -> None:
    before = pool.names() | pool.names("snapshot")
    stage(storage, root(1), 2)
    for number in (3, 4):
        stage(storage, Tree(2, Part.SEALED), number)
    left = {2, 3, 4}
    for number in order:
        remove(storage, number)
        left.discard(number)
        for other in left:
            intact(storage, other)

    assert pool.names() | pool.names("snapshot") == before


def test_a_root_can_go_and_its_sealed_tree_stay(storage: ZfsStorage) -> None:
    stage(storage, root(1), 2)
    storage.delete(root(2))

    assert storage.describe(root(2)) is None
    assert (storage.path(Tree(2, Part.SEALED)) / "var/lib/state").read_text() == "2\n"

    storage.snapshot(Tree(2, Part.SEALED), root(2), writable=True)
    intact(storage, 2)


def test_a_sealed_tree_can_be_made_again_while_its_clones_live(storage: ZfsStorage) -> None:
    stage(storage, root(1), 2)
    stage(storage, Tree(2, Part.SEALED), 3)
    storage.delete(Tree(2, Part.SEALED))
    assert storage.describe(Tree(2, Part.SEALED)) is None

    storage.snapshot(root(2), Tree(2, Part.SEALED), writable=False)

    intact(storage, 2)
    intact(storage, 3)


def count(places: tuple[Path, ...], ended: threading.Event) -> None:
    """Write a number that grows into one file after the other."""
    with ExitStack() as files:
        fds = [files.enter_context(system.descriptor(place, os.O_WRONLY)) for place in places]
        number = 0
        while not ended.is_set():
            number += 1
            for fd in fds:
                os.pwrite(fd, f"{number:08}".encode(), 0)


def test_a_tree_and_its_children_are_of_one_instant(pool: Pool, storage: ZfsStorage) -> None:
    """Written first in the root, a number is never seen in its child alone."""
    ended = threading.Event()
    counting = threading.Thread(
        target=count, args=((pool.root / "etc/version", pool.root / "var/lib/state"), ended)
    )
    counting.start()
    try:
        for number in range(2, 7):
            storage.snapshot(root(1), Tree(number, Part.ORIGIN), writable=False)
    finally:
        ended.set()
        counting.join()

    for number in range(2, 7):
        place = storage.path(Tree(number, Part.ORIGIN))
        first, second = (int((place / name).read_text()) for name in ("etc/version", "var/lib/state"))
        assert first - second in (0, 1)


def test_space_comes_back(pool: Pool, storage: ZfsStorage) -> None:
    """Two generations of 20 MiB each of their own: what is left of one is nothing."""
    for number in (2, 3):
        stage(storage, root(number - 1), number)
        (storage.path(root(number)) / "etc/large").write_bytes(os.urandom(20 * MIB))
        storage.barrier()
    used = int(pool.zfs("get", "-Hpo", "value", "used", pool.name))
    for number in (2, 3):
        remove(storage, number)
    storage.barrier()

    freed = used - int(pool.zfs("get", "-Hpo", "value", "used", pool.name))
    assert freed > 0.9 * 40 * MIB


def test_what_is_free_is_told_of_the_whole_pool_and_of_a_quota(pool: Pool, storage: ZfsStorage) -> None:
    before = storage.free_percent
    (pool.root / "large").write_bytes(os.urandom(40 * MIB))
    storage.barrier()
    assert before - storage.free_percent > 25

    used = int(pool.zfs("get", "-Hpo", "value", "used", pool.container))
    pool.zfs("set", f"quota={used + MIB}", pool.container)
    assert storage.free_percent < 5


def test_a_foreign_clone_keeps_a_generation(pool: Pool, storage: ZfsStorage) -> None:
    stage(storage, root(1), 2)
    info = storage.describe(Tree(2, Part.SEALED))
    assert info
    pool.zfs("clone", "-o", "mountpoint=none", info.name, f"{pool.name}/mine")

    with pytest.raises(BusyError, match="mine"):
        storage.delete(root(2))
    with pytest.raises(BusyError, match="mine"):
        storage.delete(Tree(2, Part.SEALED))
    intact(storage, 2)


@pytest.mark.parametrize("order", [(2, 4), (4, 2)])
def test_what_is_protected_lives_on_and_nobody_else_can_destroy_it(
    pool: Pool, storage: ZfsStorage, order: tuple[int, ...]
) -> None:
    before = pool.names() | pool.names("snapshot")
    for number in (2, 3, 4):
        stage(storage, root(number - 1), number)
    storage.protect([3])
    for number in order:
        remove(storage, number)
    intact(storage, 3)
    info = storage.describe(Tree(3, Part.SEALED))
    assert info
    storage.close()  # a mount of its own would keep it as well
    assert refused("zfs", "destroy", info.name)
    assert refused("zfs", "destroy", "-r", info.name.partition("@")[0])

    storage = ZfsStorage(pool.mount())
    intact(storage, 3)
    assert storage.protect([])
    assert not storage.protect([])
    storage.close()
    assert not refused("zfs", "destroy", "-r", info.name)

    storage = ZfsStorage(pool.mount())
    storage.protect([3])
    remove(storage, 3)
    assert pool.names() | pool.names("snapshot") == before


def test_a_held_snapshot_keeps_a_generation(pool: Pool, storage: ZfsStorage) -> None:
    stage(storage, root(1), 2)
    info = storage.describe(Tree(2, Part.SEALED))
    assert info
    pool.zfs("hold", "mine", info.name)

    with pytest.raises(BusyError, match="held"):
        storage.delete(Tree(2, Part.SEALED))
    pool.zfs("release", "mine", info.name)
    storage.delete(Tree(2, Part.SEALED))
