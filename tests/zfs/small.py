"""A small system on a pool: /etc/version in the root and /var/state in its child tell which one it is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from snaptx.storage.zfs.backend import ZfsStorage
from tests.boxes import snaptx
from tests.zfs.conftest import Pool, command


def opened(pool: Pool) -> ZfsStorage:
    """Open a pool's storage, prepared."""
    storage = ZfsStorage(pool.mount())
    storage.prepare(storage.running)
    return storage


def everything(pool: Pool) -> set[str]:
    """Return the names of all datasets and snapshots."""
    return pool.names() | pool.names("snapshot")


def furnished(pool: Pool) -> Pool:
    """Put the system into a pool with a child ``var``."""
    for name in ("etc", "boot"):
        (pool.root / name).mkdir()
    (pool.root / "etc/version").write_text("1\n")
    (pool.root / "var/state").write_text("1\n")
    (pool.root / "boot/vmlinuz-6.1.0").write_text("kernel\n")
    (pool.root / "boot/initrd.img-6.1.0").write_text("initrd\n")
    return pool


def verb(pool: Pool, *words: str) -> Any:
    """Run a verb that must succeed and return its result."""
    said = snaptx("--sysroot", str(pool.root), "--json", *words)
    assert said.code == 0, said.err
    return json.loads(said.out) if said.out else None


def update(directory: Path, number: int) -> str:
    """Make an update of the root and of its child."""
    for name in ("etc/version", "var/state"):
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_text(f"{number}\n")
    return str(directory)


def start(pool: Pool) -> str:
    """Mount what boots by default in place of the root; return its dataset."""
    command("umount", "--recursive", pool.root)
    return mount(pool, pool.bootfs())


def mount(pool: Pool, name: str) -> str:
    """Mount a boot environment and its child as the root; return its name."""
    command("mount", "-t", "zfs", "-o", "zfsutil", name, pool.root)
    command("mount", "-t", "zfs", "-o", "zfsutil", f"{name}/var", pool.root / "var")
    return name


def shows(pool: Pool, number: int) -> bool:
    """Return whether root and child are those of a version."""
    return {(pool.root / name).read_text() for name in ("etc/version", "var/state")} == {f"{number}\n"}
