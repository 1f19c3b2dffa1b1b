"""Real pools over files, which never outlive their test."""

from __future__ import annotations

import secrets
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from snaptx import mounting, system

MIB = 1 << 20


def command(*argv: str | Path) -> str:
    """Run a command and return its output; a failure shows what it said."""
    result = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert result.returncode == 0, f"{' '.join(map(str, argv))}: {result.stderr or result.stdout}"
    return result.stdout


@dataclass(frozen=True)
class Pool:
    """A pool with a boot environment ``ROOT/debian``, mounted at ``root``."""

    name: str
    root: Path

    @property
    def container(self) -> str:
        """Where boot environments are."""
        return f"{self.name}/ROOT"

    def zfs(self, *words: str) -> str:
        """Run ``zfs``."""
        return command("zfs", *words)

    def names(self, kind: str = "filesystem") -> set[str]:
        """Return all datasets, or with "snapshot" all snapshots."""
        return set(self.zfs("list", "-H", "-t", kind, "-o", "name", "-r", self.name).splitlines())

    def bootfs(self) -> str:
        """Return the dataset that boots by default."""
        return command("zpool", "get", "-H", "-o", "value", "bootfs", self.name).strip()

    def mount(self) -> system.Mount:
        """Return how the root is mounted."""
        found = system.mount_at(self.root)
        assert found
        return found


MakePool = Callable[..., Pool]


def _fill(container: str, name: str, root: Path, children: tuple[str, ...]) -> None:
    command("zfs", "create", "-o", "canmount=off", container)
    top = f"{container}/{name}"
    command("zfs", "create", "-o", "canmount=noauto", "-o", "mountpoint=/", top)
    command("mount", "-t", "zfs", "-o", "zfsutil", top, root)
    for child in children:
        command("zfs", "create", "-u", "-o", "canmount=noauto", f"{top}/{child}")
        (root / child).mkdir(parents=True)
        command("mount", "-t", "zfs", "-o", "zfsutil", f"{top}/{child}", root / child)


@pytest.fixture
def make_pool(tmp_path: Path) -> Iterator[MakePool]:
    """Give a function ``(size=…, name=…, children=…, directory=…, features=…) -> Pool``.

    ``size`` is in bytes, ``features`` a set that zpool-features(7) knows.
    """
    if not shutil.which("zpool") or not Path("/dev/zfs").exists():
        pytest.fail("this machine has no ZFS; run: make test-zfs", pytrace=False)
    made: list[str] = []

    def make(
        *,
        size: int = 128 * MIB,
        name: str = "debian",
        children: tuple[str, ...] = (),
        directory: Path = tmp_path,
        features: str = "off",
    ) -> Pool:
        pool, root = f"test{secrets.token_hex(3)}", tmp_path / f"root{len(made)}"
        image = directory / f"{pool}.img"
        with image.open("wb") as file:
            file.truncate(size)
        root.mkdir()
        options = ("-o", f"compatibility={features}", "-O", "mountpoint=none", "-O", "compression=lz4")
        command("zpool", "create", "-f", *options, pool, image)
        made.append(pool)
        _fill(f"{pool}/ROOT", name, root, children)
        return Pool(pool, root)

    yield make
    for mounted in list(mounting._detached.values()):
        if mounted.fstype == "zfs":
            mounting.release(mounted)  # a verb's end with its process
    for root in tmp_path.glob("root*"):
        if root.is_mount():
            command("umount", "--recursive", root)
    for pool in made:
        command("zpool", "destroy", "-f", pool)
