"""What init does to the boot loader: refused before a change, added to what is there, taken back."""

from __future__ import annotations

from pathlib import Path

import pytest

from snaptx.bootloader import install
from snaptx.bootloader.install import Firmware, Home, Sourced
from snaptx.bootloader.onboot import GrubOnBoot
from snaptx.errors import BootError
from snaptx.storage.base import MountSpec
from snaptx.system import Mount

ESP = Mount("/", "/boot/efi", "vfat", "/dev/vda1", "254:1", "rw", "rw")


class OnBoot(GrubOnBoot):
    """One whose /boot is a directory here, which is no file system to freeze."""

    def barrier(self) -> None:
        """Do nothing."""


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Firmware:
    """Give a UEFI machine with all it needs."""
    monkeypatch.setattr(install, "EFI", tmp_path / "efi")
    monkeypatch.setattr(install, "MODULES", tmp_path / "modules")
    monkeypatch.setattr(install, "INSTALLERS", ("true",))
    (tmp_path / "efi/efivars").mkdir(parents=True)
    home = Home("@snaptx", MountSpec("/dev/vda3", "btrfs", "subvolid=5"), "/run/top", "/run/top/@snaptx")
    firmware = Firmware(home, efi=True, esp=ESP, files=tmp_path / "home")
    (tmp_path / "modules" / firmware.target).mkdir(parents=True)
    return firmware


@pytest.mark.parametrize("value", [None, b"", b"\6\0\0\0\0"])
def test_a_firmware_that_takes_any_boot_loader_is_fine(
    machine: Firmware, value: bytes | None, tmp_path: Path
) -> None:
    if value is not None:
        (tmp_path / "efi/efivars" / install.SECURE_BOOT).write_bytes(value)

    machine.check()


def test_secure_boot_is_refused_with_what_works(machine: Firmware, tmp_path: Path) -> None:
    (tmp_path / "efi/efivars" / install.SECURE_BOOT).write_bytes(b"\6\0\0\0\1")

    with pytest.raises(BootError, match="Secure Boot is on") as refusal:
        machine.check()

    for way in ("turn it off", "/boot a file system of its own", "--no-boot-loader"):
        assert way in refusal.value.hint


@pytest.fixture
def sourced(tmp_path: Path) -> Sourced:
    """Give the installer of a /boot of its own, where grub.cfg includes custom.cfg."""
    (tmp_path / "grub").mkdir()
    (tmp_path / "grub/grub.cfg").write_text("source ${config_directory}/custom.cfg\n")
    return Sourced(tmp_path, OnBoot(tmp_path, lambda: "1234-abcd"))


def test_secure_boot_does_not_matter_to_the_distributions_own_grub(
    machine: Firmware, sourced: Sourced, tmp_path: Path
) -> None:
    (tmp_path / "efi/efivars" / install.SECURE_BOOT).write_bytes(b"\6\0\0\0\1")
    assert machine.efi

    sourced.check()


@pytest.mark.parametrize("before", ["", "set color_normal=white/black\n"])
def test_the_way_in_goes_beside_what_is_there_and_away_again(
    sourced: Sourced, before: str, tmp_path: Path
) -> None:
    custom = tmp_path / "grub/custom.cfg"
    if before:
        custom.write_text(before)

    sourced.install()
    sourced.install()
    assert sourced.is_installed()
    assert custom.read_text().count(install.BEGIN) == 1
    assert custom.read_text().endswith(before)

    sourced.undo()
    assert not sourced.is_installed()
    assert (custom.read_text() if custom.exists() else "") == before


def test_a_grub_cfg_that_does_not_look_there_is_refused(sourced: Sourced, tmp_path: Path) -> None:
    (tmp_path / "grub/grub.cfg").write_text("menuentry x { linux /vmlinuz }\n")

    with pytest.raises(BootError, match=r"custom\.cfg"):
        sourced.check()
