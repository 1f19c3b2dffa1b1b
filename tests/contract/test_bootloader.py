"""What every boot loader does: the entry file is old or new, and never believed when damaged."""

from __future__ import annotations

from pathlib import Path

import pytest

from snaptx.bootloader.base import BootLoader
from snaptx.bootloader.entryfile import TITLE
from snaptx.bootloader.onboot import GrubOnBoot
from snaptx.errors import BootError
from snaptx.model import BootState
from snaptx.storage.base import MountSpec, TreeInfo
from tests.contract.conftest import fill


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Give a root with a kernel."""
    place = tmp_path / "tree"
    place.mkdir()
    fill(place)
    return place


def info(number: int) -> TreeInfo:
    """Describe the root of a generation."""
    name = f"@snaptx/generations/{number}/root"
    cmdline = ("root=UUID=1234-5678", f"rootflags=subvol={name}")
    return TreeInfo(name, False, (), MountSpec("/dev/null", "btrfs", f"subvol={name}"), cmdline, f"/{name}")


def state(loader: BootLoader, root: Path, *numbers: int) -> BootState:
    """Make a state whose default is the first of ``numbers``."""
    entries = tuple(loader.offer(number, f"generation {number}", root, info(number)) for number in numbers)
    return BootState(numbers[0], numbers[-1], "nonce", 2, False, entries)


def test_without_a_switch_there_is_no_entry_file(loader: BootLoader) -> None:
    assert loader.read() is None


def test_preparing_changes_nothing_that_boots(loader: BootLoader, root: Path) -> None:
    loader.prepare(state(loader, root, 1))

    assert loader.read() is None


def test_a_switch_makes_what_was_prepared_current(loader: BootLoader, root: Path) -> None:
    wanted = state(loader, root, 2, 1)
    loader.prepare(wanted)
    loader.switch()

    assert loader.read() == wanted


def test_a_second_switch_replaces_the_first(loader: BootLoader, root: Path) -> None:
    for numbers in ((2, 1), (3, 2, 1)):
        loader.prepare(state(loader, root, *numbers))
        loader.switch()
        loader.barrier()
        loader.discard()

    found = loader.read()
    assert found is not None
    assert found.default == 3


def test_what_was_discarded_can_not_be_switched_to(loader: BootLoader, root: Path) -> None:
    loader.prepare(state(loader, root, 1))
    loader.switch()
    loader.prepare(state(loader, root, 2))
    loader.discard()
    loader.discard()

    found = loader.read()
    assert found is not None
    assert found.default == 1


def test_an_entry_names_its_own_subvolume_and_kernel(loader: BootLoader, root: Path) -> None:
    entry = loader.offer(7, "a title", root, info(7))

    assert "rootflags=subvol=@snaptx/generations/7/root" in entry.cmdline
    assert "7" in entry.kernel
    assert entry.title.startswith("a title")


def test_a_root_that_is_not_there_is_not_offered(loader: BootLoader, tmp_path: Path) -> None:
    for kernel in tmp_path.glob("boot/vmlinuz-*"):
        kernel.unlink()

    with pytest.raises(BootError):
        loader.offer(7, "a title", tmp_path / "missing", info(7))


def test_forgetting_can_be_repeated(loader: BootLoader, root: Path) -> None:
    loader.offer(7, "a title", root, info(7))
    loader.forget(7)
    loader.forget(7)


def test_what_an_entry_says_fits_into_a_menu(loader: BootLoader, root: Path) -> None:
    entry = loader.offer(7, "7: 2026-01-01 10:00 " + 40 * "long ", root, info(7))

    assert len(entry.title) <= TITLE
    assert entry.title.startswith("7: 2026-01-01 10:00 long")


def test_a_kernel_that_is_gone_from_boot_is_still_offered(tmp_path: Path) -> None:
    boot, root = tmp_path / "boot", tmp_path / "tree"
    (root / "usr/lib/modules/5.0").mkdir(parents=True)
    boot.mkdir()
    (boot / "vmlinuz-5.0").write_text("old kernel\n")
    loader = GrubOnBoot(boot, lambda: "1234-5678")
    loader.install(tmp_path, info(1))
    first = loader.offer(1, "one", root, info(1)).kernel
    (boot / "vmlinuz-5.0").rename(boot / "vmlinuz-6.0")

    assert loader.offer(1, "again", root, info(1)).kernel == first
    second = loader.offer(2, "two", root, info(2)).kernel
    assert second == first.replace("/1/", "/2/")
    assert (boot / second[1:]).read_text() == "old kernel\n"
