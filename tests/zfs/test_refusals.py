"""What a verb says of a machine whose ZFS can't do it: one message, the cure, the documented exit code."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from snaptx.errors import BusyError, LayoutError, NoSpaceError, ReadOnlyError, StorageError
from snaptx.storage.zfs import library
from snaptx.storage.zfs import pool as commands
from tests.boxes import Running, Said, snaptx
from tests.zfs.conftest import MIB, MakePool, Pool, command
from tests.zfs.small import furnished, update, verb

DEVICE, AWAY = Path("/dev/zfs"), Path("/dev/zfs.away")


def everything(pool: Pool) -> set[str]:
    return pool.names() | pool.names("snapshot")


def without_binding() -> None:
    sys.modules["libzfs_core"] = None  # type: ignore[assignment]
    library.load.cache_clear()


def with_another_binding() -> None:
    sys.modules["libzfs_core"] = ModuleType("libzfs_core")
    library.load.cache_clear()


def without_device() -> None:
    DEVICE.rename(AWAY)


def put_back() -> None:
    if AWAY.exists():
        AWAY.rename(DEVICE)


@pytest.mark.parametrize(
    ("lacking", "hint"),
    [
        (without_binding, "python3-pyzfs"),
        (with_another_binding, "python3-pyzfs"),
        (without_device, "modprobe"),
    ],
)
def test_what_zfs_needs_is_named(make_pool: MakePool, lacking: Callable[[], None], hint: str) -> None:
    pool = furnished(make_pool(children=("var",)))
    before = everything(pool)
    running = Running(("--sysroot", str(pool.root), "init", "--accept-rollback"), None, lacking)
    try:
        said = running.wait()
    finally:
        put_back()

    assert said.code == LayoutError.code, said.err
    assert hint in said.complaint[1]
    assert everything(pool) == before


def test_a_pool_that_is_not_imported_is_named() -> None:
    with pytest.raises(StorageError, match="nosuchpool"):
        commands.look("nosuchpool")


def attempt(pool: Pool, *words: str) -> Said:
    return snaptx("--sysroot", str(pool.root), *words)


def full(pool: Pool) -> None:
    left = int(pool.zfs("get", "-Hpo", "value", "available", pool.name))
    pool.zfs("create", "-o", f"refreservation={left - 16 * MIB}", f"{pool.name}/others")


def over_quota(pool: Pool) -> None:
    pool.zfs("set", "quota=16M", pool.container)


@pytest.mark.parametrize("fill", [full, over_quota])
def test_without_room_nothing_is_left(
    make_pool: MakePool, tmp_path: Path, fill: Callable[[Pool], None]
) -> None:
    pool = furnished(make_pool(children=("var",)))
    verb(pool, "init", "--accept-rollback")
    tree = Path(update(tmp_path / "update", 2))
    (tree / "etc/large").write_bytes(os.urandom(24 * MIB))
    fill(pool)
    before = everything(pool)
    said = attempt(pool, "apply", str(tree))

    assert said.code == NoSpaceError.code, said.err
    assert said.complaint[1]
    assert everything(pool) == before
    assert [row["number"] for row in verb(pool, "list")] == [1]


def test_a_pool_imported_read_only_changes_nothing(make_pool: MakePool, tmp_path: Path) -> None:
    pool = furnished(make_pool(children=("var",)))
    command("umount", "--recursive", pool.root)
    command("zpool", "export", pool.name)
    command("zpool", "import", "-o", "readonly=on", "-N", "-d", tmp_path, pool.name)
    command("mount", "-t", "zfs", "-o", "zfsutil,ro", f"{pool.container}/debian", pool.root)
    said = attempt(pool, "init", "--accept-rollback")

    assert said.code == ReadOnlyError.code, said.err
    assert "readonly" in said.complaint[1]


def test_a_generation_that_a_foreign_clone_needs_is_not_pruned(make_pool: MakePool, tmp_path: Path) -> None:
    pool = furnished(make_pool(children=("var",)))
    verb(pool, "init", "--accept-rollback")
    verb(pool, "apply", update(tmp_path / "update", 2))
    mine = f"{pool.name}/mine"
    pool.zfs("clone", "-o", "mountpoint=none", f"{pool.container}/debian@snaptx-2-origin", mine)
    before = everything(pool)
    said = attempt(pool, "abort")

    assert said.code == BusyError.code, said.err
    assert mine in said.complaint[0]
    assert everything(pool) == before

    pool.zfs("destroy", mine)
    verb(pool, "abort")
    assert [row["number"] for row in verb(pool, "list")] == [1]
