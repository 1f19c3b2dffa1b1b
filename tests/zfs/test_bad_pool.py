"""Pools that can't take an update, and names that are taken: refused with the cause, nothing left over."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from snaptx.errors import BusyError, LayoutError, ReadOnlyError, StorageError
from snaptx.model import Part, Tree
from snaptx.storage.zfs.backend import ZfsStorage
from tests.zfs.conftest import MIB, MakePool, Pool, command
from tests.zfs.small import everything, furnished, opened, shows, start, update, verb

ROOT = Tree(1, Part.ROOT)
NEXT = Tree(2, Part.ROOT)


def test_the_root_of_a_pool_is_no_boot_environment(make_pool: MakePool, tmp_path: Path) -> None:
    pool = make_pool()
    place = tmp_path / "top"
    place.mkdir()
    command("mount", "-t", "zfs", "-o", "zfsutil", pool.name, place)
    try:
        with pytest.raises(LayoutError, match="root of the pool"):
            _ = ZfsStorage(Pool(pool.name, place).mount()).running
    finally:
        command("umount", place)


def test_a_pool_imported_read_only_is_refused(make_pool: MakePool, tmp_path: Path) -> None:
    pool = make_pool()
    command("umount", pool.root)
    command("zpool", "export", pool.name)
    command("zpool", "import", "-o", "readonly=on", "-d", tmp_path, pool.name)
    command("mount", "-t", "zfs", "-o", "zfsutil,ro", f"{pool.container}/debian", pool.root)

    with pytest.raises(ReadOnlyError, match="read-only"):
        ZfsStorage(pool.mount())


def test_a_degraded_pool_goes_on(make_pool: MakePool, tmp_path: Path) -> None:
    pool = make_pool()
    other = tmp_path / "other.img"
    with other.open("wb") as file:
        file.truncate(128 * MIB)
    command("zpool", "attach", "-w", pool.name, tmp_path / f"{pool.name}.img", other)
    command("zpool", "offline", pool.name, other)
    storage = opened(pool)
    storage.snapshot(ROOT, NEXT, writable=True)

    assert storage.describe(NEXT) is not None


def test_half_of_a_mirror_fails_while_a_generation_is_made(make_pool: MakePool, tmp_path: Path) -> None:
    """It lies on a file system that is full soon: every further write to it fails."""
    pool = furnished(make_pool(children=("var",), size=256 * MIB))
    small = tmp_path / "small"
    small.mkdir()
    command("mount", "-t", "tmpfs", "-o", f"size={20 * MIB}", "tmpfs", small)
    try:
        with (small / "half.img").open("wb") as file:
            file.truncate(256 * MIB)
        command("zpool", "attach", "-w", pool.name, tmp_path / f"{pool.name}.img", small / "half.img")
        verb(pool, "init", "--accept-rollback")
        tree = Path(update(tmp_path / "update", 2))
        (tree / "etc/large").write_bytes(os.urandom(40 * MIB))
        verb(pool, "apply", "--commit", str(tree))
        assert write_errors(pool, small / "half.img")

        start(pool)
        assert shows(pool, 2)
        assert (pool.root / "etc/large").read_bytes() == (tree / "etc/large").read_bytes()
        verb(pool, "confirm")
        verb(pool, "verify")
    finally:
        command("zpool", "detach", pool.name, small / "half.img")
        command("umount", small)


def write_errors(pool: Pool, device: Path) -> int:
    """Return how many writes to a device have failed."""
    rows = [line.split() for line in command("zpool", "status", "-p", "-P", pool.name).splitlines()]
    return next(int(row[3]) for row in rows if row and row[0] == str(device))


def test_a_taken_name_is_not_touched(make_pool: MakePool) -> None:
    pool = make_pool()
    storage = opened(pool)
    pool.zfs("create", "-o", "canmount=noauto", f"{pool.container}/snaptx-2")
    before = everything(pool)

    with pytest.raises(BusyError, match="snaptx-2"):
        storage.snapshot(ROOT, NEXT, writable=True)
    assert everything(pool) == before


def test_a_home_of_somebody_else_is_not_touched(make_pool: MakePool) -> None:
    pool = make_pool()
    pool.zfs("create", f"{pool.name}/snaptx")
    before = everything(pool)

    with pytest.raises(BusyError, match="not snaptx's"):
        opened(pool)
    assert everything(pool) == before


@pytest.mark.parametrize("name", ["my system", "a.b:c_d-e", "x" * 100])
def test_odd_names_are_adopted(make_pool: MakePool, name: str) -> None:
    pool = make_pool(name=name, children=("srv data",))
    (pool.root / "srv data/file").write_text("one\n")
    storage = opened(pool)
    storage.snapshot(ROOT, Tree(2, Part.ORIGIN), writable=False)
    storage.snapshot(Tree(2, Part.ORIGIN), NEXT, writable=True)
    storage.make_default(NEXT)

    assert storage.running.name == f"{pool.container}/{name}"
    assert (storage.path(NEXT) / "srv data/file").read_text() == "one\n"
    assert storage.default_name() == f"{pool.container}/snaptx-2"


def test_an_encrypted_root_is_cloned_with_its_key(make_pool: MakePool, tmp_path: Path) -> None:
    pool = make_pool()
    key = tmp_path / "key"
    key.write_text("12345678")
    secret = ("-o", "encryption=on", "-o", "keyformat=passphrase", "-o", f"keylocation=file://{key}")
    top = f"{pool.container}/secret"
    pool.zfs("create", *secret, "-o", "canmount=noauto", "-o", "mountpoint=/", top)
    command("umount", pool.root)
    command("mount", "-t", "zfs", "-o", "zfsutil", top, pool.root)
    (pool.root / "file").write_text("one\n")
    storage = opened(pool)
    storage.snapshot(ROOT, Tree(2, Part.ORIGIN), writable=False)
    storage.snapshot(Tree(2, Part.ORIGIN), NEXT, writable=True)

    assert (storage.path(NEXT) / "file").read_text() == "one\n"
    assert pool.zfs("get", "-Ho", "value", "encryption", f"{pool.container}/snaptx-2").strip() != "off"


def test_properties_and_quotas_are_kept(make_pool: MakePool) -> None:
    pool = make_pool(children=("var",))
    top = f"{pool.container}/debian"
    pool.zfs("set", "compression=gzip-3", "refquota=100M", "atime=off", "com.example:tag=a b", top)
    pool.zfs("set", "quota=50M", "recordsize=16K", f"{top}/var")
    storage = opened(pool)
    storage.snapshot(ROOT, NEXT, writable=True)

    def values(name: str) -> str:
        wanted = "compression,refquota,quota,atime,recordsize,com.example:tag,mountpoint,canmount"
        return pool.zfs("get", "-Hp", "-o", "property,value", wanted, name)

    clone = f"{pool.container}/snaptx-2"
    assert values(clone) == values(top)
    assert values(f"{clone}/var") == values(f"{top}/var")


def test_a_quota_says_so(make_pool: MakePool) -> None:
    pool = make_pool()
    storage = opened(pool)
    pool.zfs("set", "refquota=1M", f"{pool.container}/debian")
    storage.snapshot(ROOT, NEXT, writable=True)

    with pytest.raises(OSError, match="quota"):
        (storage.path(NEXT) / "big").write_bytes(os.urandom(8 * MIB))


def test_without_rights_it_is_refused(make_pool: MakePool) -> None:
    pool = make_pool()
    mount = pool.mount()
    child = os.fork()
    if not child:
        os.setuid(65534)
        try:
            ZfsStorage(mount).prepare(ZfsStorage(mount).running)
        except StorageError as error:
            os._exit(0 if error.hint else 1)
        except BaseException:  # noqa: BLE001
            os._exit(2)
        os._exit(3)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_init_can_be_taken_back_whatever_was_cloned_from_what(make_pool: MakePool) -> None:
    pool = make_pool(children=("var",))
    child = f"{pool.container}/debian/var"
    pool.zfs("set", "canmount=on", child)
    before = everything(pool)
    storage = opened(pool)
    storage.snapshot(ROOT, Tree(2, Part.ORIGIN), writable=False)
    storage.snapshot(Tree(2, Part.ORIGIN), NEXT, writable=True)
    storage.snapshot(NEXT, Tree(2, Part.SEALED), writable=False)
    storage.snapshot(Tree(2, Part.SEALED), Tree(3, Part.ORIGIN), writable=False)
    storage.snapshot(Tree(3, Part.ORIGIN), Tree(3, Part.ROOT), writable=True)
    storage.make_default(NEXT)
    assert pool.zfs("get", "-Ho", "value", "canmount", child).strip() == "noauto"
    storage.forsake(storage.running.name)

    assert pool.zfs("get", "-Ho", "value", "canmount", child).strip() == "on"
    assert everything(pool) == before
    assert (
        pool.zfs("get", "-Hs", "local", "-o", "property", "all", f"{pool.container}/debian").find("snaptx")
        < 0
    )
