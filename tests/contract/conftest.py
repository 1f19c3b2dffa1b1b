"""Every backend, real ones included, behind one fixture each: the same tests for all."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from snaptx import system
from snaptx.bootloader.base import BootLoader
from snaptx.bootloader.inroot import GrubInRoot
from snaptx.bootloader.memory import MemoryBootLoader
from snaptx.bootloader.onboot import GrubOnBoot
from snaptx.bootloader.pointer import Pointer
from snaptx.model import BootEntry, BootState, Part, Tree
from snaptx.storage.base import MountSpec, Storage, TreeInfo
from snaptx.storage.btrfs import AppStorage, BtrfsStorage
from snaptx.storage.memory import MemoryStorage
from tests.fs.conftest import MakeBtrfs, btrfs, make_btrfs  # noqa: F401 - fixtures
from tests.zfs.conftest import Pool, make_pool  # noqa: F401 - fixtures


def fill(root: Path) -> None:
    """Put a small system into an empty root."""
    for name in ("etc", "usr/bin", "boot"):
        (root / name).mkdir(parents=True)
    (root / "etc/hostname").write_text("one\n")
    (root / "usr/bin/tool").write_text("#!/bin/sh\n")
    (root / "boot/vmlinuz-6.1.0").write_text("kernel\n")
    (root / "boot/initrd.img-6.1.0").write_text("initrd\n")


def _memory(tmp_path: Path) -> Storage:
    (tmp_path / "@").mkdir()
    fill(tmp_path / "@")
    return MemoryStorage(tmp_path)


@pytest.fixture
def btrfs_root(make_btrfs: MakeBtrfs, tmp_path: Path) -> Iterator[Path]:  # noqa: F811
    """Mount a root subvolume named ``@`` of a new Btrfs and yield its mount point."""
    top = make_btrfs()
    subprocess.run(["btrfs", "-q", "subvolume", "create", top / "@"], check=True)
    fill(top / "@")
    root = tmp_path / "root"
    root.mkdir()
    device = next(mount.source for mount in system.mounts() if mount.target == str(top))
    subprocess.run(["mount", "-o", "subvol=@", device, root], check=True)
    yield root
    subprocess.run(["umount", root], check=True)


def _memory_of(tmp_path: Path) -> Iterator[Storage]:
    made = _memory(tmp_path)
    made.prepare(made.running)
    yield made


def _btrfs(root: Path) -> Iterator[Storage]:
    mount = system.mount_at(root)
    assert mount is not None
    with closing(BtrfsStorage(mount)) as made:
        made.prepare(made.running)
        yield made


def _app(root: Path) -> Iterator[Storage]:
    mount = system.mount_at(root)
    assert mount is not None
    for host in _btrfs(root):
        (host.state / "apps").mkdir()
        with closing(AppStorage(mount, "web", lambda home: Pointer(home).chosen())) as made:
            made.create()
            fill(made.path(Tree(1, Part.ROOT)))
            yield made


def choose(storage: Storage, tree: Tree) -> None:
    """Make ``tree`` the default: of an application tree that is what the pointer names."""
    if isinstance(storage, AppStorage):
        pointer = Pointer(storage.home)
        entry = BootEntry(tree.number, "", storage.running.loader_path, "", "")
        pointer.prepare(BootState(tree.number, 1, "", 0, True, (entry,)))
        pointer.switch()
    storage.make_default(tree)
    storage.barrier()


def _zfs(pool: Pool) -> Iterator[Storage]:
    from snaptx.storage.zfs.backend import ZfsStorage

    fill(pool.root)
    with closing(ZfsStorage(pool.mount())) as made:
        made.prepare(made.running)
        yield made


OF_A_MACHINE = (
    "memory",
    pytest.param("btrfs", marks=pytest.mark.root),
    pytest.param("zfs", marks=[pytest.mark.root, pytest.mark.zfs]),
)


@pytest.fixture(params=[*OF_A_MACHINE, pytest.param("app on btrfs", marks=pytest.mark.root)])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Storage]:
    """Give a storage with a root to adopt, prepared."""
    match request.param:
        case "memory":
            yield from _memory_of(tmp_path)
        case "btrfs":
            yield from _btrfs(request.getfixturevalue("btrfs_root"))
        case "app on btrfs":
            yield from _app(request.getfixturevalue("btrfs_root"))
        case _:
            yield from _zfs(request.getfixturevalue("make_pool")())


@pytest.fixture(params=["memory", "grub in the root", "grub on /boot", "pointer"])
def loader(request: pytest.FixtureRequest, tmp_path: Path) -> BootLoader:
    """Give a boot loader that was installed."""
    makers: dict[str, Callable[[], BootLoader]] = {
        "memory": MemoryBootLoader,
        "grub in the root": lambda: _in_root(tmp_path),
        "grub on /boot": lambda: _on_boot(tmp_path),
        "pointer": lambda: _pointer(tmp_path),
    }
    made = makers[request.param]()
    mount, cmdline = MountSpec("/dev/null", "btrfs", "subvol=@"), ("root=UUID=1234-5678",)
    adopted = TreeInfo("@", False, (), mount, cmdline, "/@")
    made.install(tmp_path, adopted)
    return made


def _in_root(tmp_path: Path) -> BootLoader:
    for number in range(1, 10):
        place = tmp_path / f"@snaptx/generations/{number}"
        place.mkdir(parents=True)
        (place / "root").symlink_to(tmp_path / "tree")
    return GrubInRoot(tmp_path / "@snaptx/grub", lambda: "1234-5678")


def _pointer(tmp_path: Path) -> BootLoader:
    (tmp_path / "home").mkdir()
    return Pointer(tmp_path / "home")


def _on_boot(tmp_path: Path) -> BootLoader:
    boot = tmp_path / "boot"
    boot.mkdir()
    (boot / "vmlinuz-5.0").write_text("old kernel\n")
    return GrubOnBoot(boot, lambda: "1234-5678")
