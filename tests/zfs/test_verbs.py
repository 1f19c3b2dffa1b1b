"""The verbs on a root on ZFS: staged, committed, started, taken back, pruned, let go of."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from snaptx.errors import BusyError
from snaptx.undo import LOG
from tests.boxes import snaptx
from tests.zfs.conftest import MakePool, Pool, command
from tests.zfs.small import furnished, shows, start, update, verb


@pytest.fixture
def pool(make_pool: MakePool) -> Pool:
    """Give a pool with a small system in its root, and a child for data of it."""
    return furnished(make_pool(children=("var",)))


def test_there_and_back_and_away(pool: Pool, tmp_path: Path) -> None:
    before = pool.names() | pool.names("snapshot")
    verb(pool, "init", "--accept-rollback")
    verb(pool, "apply", update(tmp_path / "update", 2))
    (pool.root / "etc/mine").write_text("mine\n")
    (pool.root / "var/mine").write_text("mine\n")
    verb(pool, "commit")
    assert shows(pool, 1)

    assert start(pool) == f"{pool.container}/snaptx-2"
    assert shows(pool, 2)
    assert (pool.root / "etc/mine").read_text() == (pool.root / "var/mine").read_text() == "mine\n"
    verb(pool, "confirm")
    assert [row["marks"] for row in verb(pool, "list")] == ["G", "NRG"]
    entry = command("grep", "-h", "root=ZFS", _entry_file(pool, tmp_path))
    assert f"'/ROOT/snaptx-2@/boot/vmlinuz-6.1.0' 'root=ZFS={pool.container}/snaptx-2'" in entry

    verb(pool, "rollback", "1")
    assert start(pool) == f"{pool.container}/snaptx-3"
    assert shows(pool, 1)
    verb(pool, "confirm")
    verb(pool, "verify")

    verb(pool, "rollback", "1", "--as-used")
    assert start(pool) == f"{pool.container}/debian"
    verb(pool, "init", "--undo")
    assert pool.names() | pool.names("snapshot") == before
    assert pool.bootfs() == "-"
    assert shows(pool, 1)
    assert "undone" in (pool.root / LOG).read_text().splitlines()[-1]


def test_a_state_that_somebody_uses_is_left_until_it_is_free(pool: Pool, tmp_path: Path) -> None:
    before = pool.names() | pool.names("snapshot")
    verb(pool, "init", "--accept-rollback")
    place = tmp_path / "state"
    place.mkdir()
    command("mount", "-t", "zfs", f"{pool.name}/snaptx/state", place)
    try:
        said = snaptx("--sysroot", str(pool.root), "init", "--undo")
        assert said.code == BusyError.code, said.err
        assert f"{pool.name}/snaptx/state" in said.complaint[0]
        assert (place / "audit/log").exists()
    finally:
        command("umount", place)

    verb(pool, "init", "--undo")
    assert pool.names() | pool.names("snapshot") == before


def test_what_is_pinned_is_held(pool: Pool, tmp_path: Path) -> None:
    verb(pool, "init", "--accept-rollback")
    verb(pool, "apply", update(tmp_path / "update", 2))
    verb(pool, "pin", "2")
    verb(pool, "commit")  # makes another tree of it
    assert held(pool) == {"snaptx-2-origin": 2, "snaptx-2-sealed": 2}

    verb(pool, "unpin", "2")
    assert held(pool) == {}


def test_a_hold_that_is_lost_is_made_again_by_repair(pool: Pool) -> None:
    verb(pool, "init", "--accept-rollback")
    verb(pool, "pin", "1")
    for name in pool.names("snapshot"):
        pool.zfs("release", "org.snaptx:pinned", name)
    assert held(pool) == {}

    verb(pool, "repair")
    assert held(pool) == {"snaptx-1-sealed": 2}


def test_where_zfsbootmenu_boots_bootfs_alone_decides(pool: Pool, tmp_path: Path) -> None:
    first, second = f"{pool.container}/debian", f"{pool.container}/snaptx-2"
    pool.zfs("set", "org.zfsbootmenu:commandline=ro quiet", pool.container)
    verb(pool, "init", "--accept-rollback")
    assert pool.bootfs() == first
    verb(pool, "apply", update(tmp_path / "update", 2))
    assert pool.bootfs() == first
    verb(pool, "commit")
    assert pool.bootfs() == second
    assert verb(pool, "status")["default"] == 2

    command("zpool", "set", f"bootfs={first}", pool.name)  # as in its menu, by Ctrl+D
    assert verb(pool, "status")["default"] == 1
    command("zpool", "set", f"bootfs={second}", pool.name)
    assert start(pool) == second
    assert shows(pool, 2)
    verb(pool, "confirm")
    assert verb(pool, "status")["verdict"] == "good"

    verb(pool, "rollback", "1")
    assert start(pool) == f"{pool.container}/snaptx-3"
    assert shows(pool, 1)
    assert [row["marks"] for row in verb(pool, "list")] == ["G", "G", "NRT"]


def held(pool: Pool) -> dict[str, int]:
    """Return on how many datasets each snapshot is held for a pin."""
    found = [name for name in pool.names("snapshot") if "org.snaptx:pinned" in pool.zfs("holds", "-H", name)]
    return dict(Counter(name.partition("@")[2] for name in found))


def _entry_file(pool: Pool, tmp_path: Path) -> Path:
    place = tmp_path / "grub"
    place.mkdir()
    command("mount", "-t", "zfs", f"{pool.name}/snaptx/grub", place)
    copy = tmp_path / "snaptx.cfg"
    copy.write_bytes((place / "snaptx.cfg").read_bytes())
    command("umount", place)
    return copy
