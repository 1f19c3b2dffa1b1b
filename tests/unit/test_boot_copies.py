"""On a /boot of its own, what the entry file names is whole until no entry file names it."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

import pytest

from snaptx.bootloader.bootfs import Bootfs
from snaptx.bootloader.onboot import GrubOnBoot
from snaptx.errors import StorageError
from snaptx.model import BootState
from snaptx.storage.base import MountSpec, TreeInfo
from snaptx.storage.memory import MemoryStorage

INFO = TreeInfo("@", False, (), MountSpec("/dev/null", "btrfs", "subvol=@"), ("root=UUID=1",), "/@")
INITRD = "initrd.img-6.1"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Give a root with a kernel."""
    boot = tmp_path / "root/boot"
    boot.mkdir(parents=True)
    (boot / "vmlinuz-6.1").write_text("kernel")
    (boot / INITRD).write_text("initrd")
    return tmp_path / "root"


@pytest.fixture
def loader(tmp_path: Path, root: Path) -> GrubOnBoot:
    """Give a loader whose entry file names the root's kernel."""
    (tmp_path / "boot").mkdir()
    made = GrubOnBoot(tmp_path / "boot", lambda: "1234-5678")
    made.install(tmp_path, INFO)
    switch(made, root)
    return made


def offered(loader: GrubOnBoot, root: Path) -> BootState:
    """Offer the root as generation 7, the only one."""
    return BootState(7, 7, "nonce", 2, True, (loader.offer(7, "title", root, INFO),))


def switch(loader: GrubOnBoot, root: Path) -> None:
    """Make the root what boots."""
    loader.prepare(offered(loader, root))
    loader.switch()
    loader.barrier()
    loader.discard()


def named(loader: GrubOnBoot) -> dict[str, str]:
    """Return what the files hold that the entry file names, by their kind."""
    state = loader.read()
    assert state is not None
    (entry,) = state.entries
    place = loader.home.parent
    return {kind: (place / getattr(entry, kind)[1:]).read_text() for kind in ("kernel", "initrd")}


def copies(loader: GrubOnBoot) -> list[str]:
    """Return the names of what lies in the generation's directory."""
    return sorted(os.listdir(loader.home / "7"))


def rebuild(root: Path, text: str) -> None:
    """Make the initrd anew, with a later time."""
    path = root / "boot" / INITRD
    later = path.stat().st_mtime_ns + 1_000_000_000
    path.write_text(text)
    os.utime(path, ns=(later, later))


@pytest.mark.parametrize("text", ["another initrd", "INITRD"], ids=["longer", "as long"])
def test_an_initrd_made_anew_is_copied_beside_the_one_that_boots(
    loader: GrubOnBoot, root: Path, text: str
) -> None:
    rebuild(root, text)
    state = offered(loader, root)

    assert named(loader) == {"kernel": "kernel", "initrd": "initrd"}

    loader.prepare(state)
    loader.switch()
    assert named(loader) == {"kernel": "kernel", "initrd": text}


def test_the_one_before_goes_after_the_switch(loader: GrubOnBoot, root: Path) -> None:
    before = copies(loader)
    rebuild(root, "another initrd")
    switch(loader, root)

    assert len(copies(loader)) == 1
    assert copies(loader) != before


def test_a_copy_that_was_not_switched_to_goes(loader: GrubOnBoot, root: Path) -> None:
    before = copies(loader)
    rebuild(root, "another initrd")
    loader.prepare(offered(loader, root))
    (loader.home / "7/half.tmp").mkdir()
    loader.discard()

    assert copies(loader) == before


def test_an_initrd_made_anew_without_its_kernel_is_copied_with_the_kernel_there_is(
    loader: GrubOnBoot, root: Path
) -> None:
    (root / "boot/vmlinuz-6.1").unlink()
    rebuild(root, "another initrd")
    later = (root / "boot" / INITRD).stat().st_mtime + 60
    os.utime(root / "boot" / INITRD, (later, later))
    switch(loader, root)

    assert named(loader) == {"kernel": "kernel", "initrd": "another initrd"}
    assert len(copies(loader)) == 1


def test_what_is_the_same_is_not_copied_again(loader: GrubOnBoot, root: Path) -> None:
    before = offered(loader, root)

    assert loader.read() == before._replace()
    assert len(copies(loader)) == 1


def test_a_copy_that_fails_takes_nothing_away(
    loader: GrubOnBoot, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(source: object, target: Path) -> None:
        target.write_text("half")
        raise OSError(errno.ENOSPC, "No space left on device")

    rebuild(root, "another initrd")
    monkeypatch.setattr(shutil, "copyfile", full)
    with pytest.raises(StorageError):
        offered(loader, root)

    assert named(loader) == {"kernel": "kernel", "initrd": "initrd"}
    loader.discard()
    assert len(copies(loader)) == 1


def test_microcode_is_copied_with_its_kernel(loader: GrubOnBoot, root: Path) -> None:
    (root / "boot/amd-ucode.img").write_text("microcode")
    switch(loader, root)
    state = loader.read()

    assert state is not None
    (early,) = state.entries[0].early
    assert (loader.home.parent / early[1:]).read_text() == "microcode"
    assert early.rpartition("/")[0] == state.entries[0].kernel.rpartition("/")[0]
    assert loader.missing(state.entries[0], root, INFO) == []
    (loader.home.parent / early[1:]).unlink()
    assert loader.missing(state.entries[0], root, INFO) == [early]


def test_a_directory_with_the_name_of_a_state_is_set_aside(tmp_path: Path) -> None:
    """As ZFSBootMenu's states have it: no rename could replace it."""
    (tmp_path / "bootfs-1.cfg/dir").mkdir(parents=True)
    (tmp_path / "bootfs-2.cfg").write_text("a state")
    Bootfs(tmp_path, MemoryStorage(tmp_path)).install(tmp_path, INFO)

    assert sorted(os.listdir(tmp_path)) == ["bootfs-2.cfg", "damaged-bootfs-1.cfg"]
    assert (tmp_path / "damaged-bootfs-1.cfg/dir").is_dir()
