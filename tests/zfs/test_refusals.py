"""What a verb says of a machine whose ZFS can't do it: one message, the cure, the documented exit code."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

from snaptx.errors import BusyError, LayoutError, NoSpaceError, ReadOnlyError, StorageError
from snaptx.storage.zfs import library
from snaptx.storage.zfs import pool as commands
from tests.boxes import Running, Said, snaptx
from tests.zfs.conftest import MIB, MakePool, Pool, command
from tests.zfs.small import everything, furnished, update, verb

DEVICE, AWAY = Path("/dev/zfs"), Path("/dev/zfs.away")


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


@pytest.fixture
def scarce(tmp_path: Path) -> Iterator[Path]:
    """Give a file system that is full soon: every further write to a device on it fails."""
    place = tmp_path / "scarce"
    place.mkdir()
    command("mount", "-t", "tmpfs", "-o", f"size={40 * MIB}", "tmpfs", place)
    yield place
    command("umount", "--lazy", place)


def health(pool: Pool) -> str:
    return command("zpool", "get", "-H", "-o", "value", "health", pool.name).strip()


def suspend(pool: Pool) -> subprocess.Popen[bytes]:
    """Write more than the pool's device can take; return the writer, which waits for it to be mended."""
    words = ("dd", "if=/dev/urandom", f"of={pool.root}/etc/large", "bs=1M", "count=60", "conv=fsync")
    writer = subprocess.Popen(words, stderr=subprocess.DEVNULL)
    until = time.monotonic() + 120
    while health(pool) != "SUSPENDED" and time.monotonic() < until:
        time.sleep(0.5)
    return writer


def test_a_suspended_pool_is_told_from_one_that_can_be_changed(
    make_pool: MakePool, tmp_path: Path, scarce: Path
) -> None:
    pool = furnished(make_pool(children=("var",), directory=scarce, size=256 * MIB))
    verb(pool, "init", "--accept-rollback")
    before, writer = everything(pool), suspend(pool)
    try:
        said = attempt(pool, "apply", update(tmp_path / "update", 2))
    finally:
        command("mount", "-o", f"remount,size={300 * MIB}", scarce)
        command("zpool", "clear", pool.name)
        writer.wait()

    assert said.code == StorageError.code, said.err
    assert "suspended" in said.complaint[0]
    assert "zpool clear" in said.complaint[1]
    assert everything(pool) == before
    (pool.root / "etc/large").unlink()
    verb(pool, "apply", update(tmp_path / "update", 2))


def test_a_child_without_its_key_is_named_and_nothing_is_left(make_pool: MakePool, tmp_path: Path) -> None:
    pool, key = furnished(make_pool(children=("var",))), tmp_path / "key"
    key.write_text("12345678")
    secret, mounted = f"{pool.container}/debian/secret", pool.root / "secret"
    words = ("-o", "encryption=on", "-o", "keyformat=passphrase", "-o", f"keylocation=file://{key}")
    pool.zfs("create", "-u", *words, "-o", "canmount=noauto", secret)
    mounted.mkdir()
    verb(pool, "init", "--accept-rollback")
    pool.zfs("unload-key", secret)
    before = everything(pool)
    said = attempt(pool, "apply", update(tmp_path / "update", 2))

    assert said.code == LayoutError.code, said.err
    assert "secret" in said.complaint[0]
    assert "zfs load-key" in said.complaint[1]
    assert everything(pool) == before

    pool.zfs("load-key", secret)
    verb(pool, "apply", update(tmp_path / "update", 2))
