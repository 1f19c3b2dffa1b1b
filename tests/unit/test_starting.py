"""What a machine starts by, as its firmware and its disks tell."""

from __future__ import annotations

from pathlib import Path
from struct import pack

import pytest

from snaptx.bootloader import install, starting
from snaptx.bootloader.install import Firmware, Home
from snaptx.bootloader.starting import Option
from snaptx.storage.base import MountSpec
from snaptx.system import Mount

SNAPTX = Option("snaptx", "\\EFI\\snaptx\\grubx64.efi")
DEBIAN = Option("debian", "\\EFI\\debian\\shimx64.efi")
WINDOWS = Option("Windows Boot Manager", "\\EFI\\Microsoft\\Boot\\bootmgfw.efi")
NETWORK = Option("UEFI PXEv4", "")


def firmware(place: Path, *options: Option | None) -> Path:
    """Make the variables of a firmware that tries these in turn; one that is None is not there."""
    place.mkdir(parents=True, exist_ok=True)
    numbers = range(0x10, 0x10 + len(options))
    order = b"".join(pack("<H", number) for number in numbers)
    (place / f"BootOrder-{starting.GUID}").write_bytes(pack("<I", 7) + order)
    for number, option in zip(numbers, options, strict=True):
        if option is None:
            continue
        name = (option.file + "\0").encode("utf-16-le")
        disk = pack("<BBH", 4, 1, 42) + bytes(38)
        path = (disk + pack("<BBH", 4, 4, 4 + len(name)) + name) * bool(option.file) + pack(
            "<BBH", 0x7F, 0xFF, 4
        )
        value = pack("<IH", 1, len(path)) + (option.label + "\0").encode("utf-16-le") + path
        (place / f"Boot{number:04X}-{starting.GUID}").write_bytes(pack("<I", 7) + value)
    return place


def test_the_order_is_read_as_the_firmware_has_it(tmp_path: Path) -> None:
    assert starting.order(firmware(tmp_path, NETWORK, None, SNAPTX, WINDOWS)) == [NETWORK, SNAPTX, WINDOWS]


def test_what_is_switched_off_does_not_start(tmp_path: Path) -> None:
    variable = firmware(tmp_path, DEBIAN, SNAPTX) / f"Boot0010-{starting.GUID}"
    variable.write_bytes(variable.read_bytes().replace(pack("<II", 7, 1), pack("<II", 7, 0), 1))

    assert starting.order(tmp_path) == [SNAPTX]


@pytest.mark.parametrize("data", [b"", b"\7\0\0\0", b"\7\0\0\0\1\0\0\0", b"\7\0\0\0\1\0\0\0\x60\0a"])
def test_variables_that_are_damaged_say_nothing(tmp_path: Path, data: bytes) -> None:
    (firmware(tmp_path, SNAPTX) / f"Boot0010-{starting.GUID}").write_bytes(data)

    assert all(option.file == "" for option in starting.order(tmp_path))
    assert starting.order(tmp_path / "none") == []


@pytest.mark.parametrize(
    ("options", "first"),
    [
        ([SNAPTX, DEBIAN], True),
        ([WINDOWS, NETWORK, SNAPTX, DEBIAN], True),
        ([DEBIAN, SNAPTX], False),
        ([WINDOWS, DEBIAN, SNAPTX], False),
        ([WINDOWS, NETWORK], False),
    ],
)
def test_another_system_may_come_first_and_no_other_grub(options: list[Option], first: bool) -> None:
    assert starting.is_first(options, "snaptx") is first


@pytest.fixture
def machine(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Firmware:
    """Give a machine with UEFI or a BIOS on which snaptx's GRUB was installed."""
    monkeypatch.setattr(install, "EFI", tmp_path / "efi")
    monkeypatch.setattr(Firmware, "_disks", lambda _: [str(tmp_path / "one"), str(tmp_path / "two")])
    monkeypatch.setattr(Firmware, "_at_home", lambda *_: True)
    monkeypatch.setattr(install, "INSTALLERS", ("true",))
    made_at = Home("@snaptx", MountSpec("/dev/vda3", "btrfs", "subvolid=5"), "/run/top", "/run/top/@snaptx")
    efi = request.param == "efi"
    esp = Mount("/", str(tmp_path / "esp"), "vfat", "/dev/vda1", "254:1", "rw", "rw") if efi else None
    found = Firmware(made_at, efi, esp, tmp_path / "home")
    for path in (
        found.files / found.target / f"core.{'efi' if efi else 'img'}",
        tmp_path / "esp/EFI/snaptx/x.efi",
    ):
        path.parent.mkdir(parents=True)
        path.write_bytes(bytes(3000))
    for name in ("one", "two"):
        disk(tmp_path / name, b"snaptx's")
    found.install()
    return found


def disk(path: Path, grub: bytes, table: bytes = b"") -> None:
    """Make a disk with GRUB in its first sectors, and a partition table."""
    first = grub.ljust(starting._KERNEL_AT, b"\0") + pack("<Q", 40)
    path.write_bytes(first.ljust(440, b"\0") + table.ljust(40 * 512 - 440, b"\0") + grub.ljust(4000, b"g"))


@pytest.mark.parametrize("machine", ["bios"], indirect=True)
def test_a_bios_starts_what_was_written_to_its_disks(machine: Firmware, tmp_path: Path) -> None:
    assert machine.is_installed()
    disk(tmp_path / "one", b"snaptx's", b"partitions")
    assert machine.is_installed()

    disk(tmp_path / "two", b"debian's")
    assert machine.is_replaced()
    assert not machine.is_installed()
    machine.install()
    assert machine.is_installed()
    (tmp_path / "one").unlink()
    assert not machine.is_replaced()


@pytest.mark.parametrize("machine", ["efi"], indirect=True)
def test_uefi_starts_what_is_first_in_order(machine: Firmware, tmp_path: Path) -> None:
    assert machine.is_installed()
    firmware(tmp_path / "efi/efivars", SNAPTX, DEBIAN)
    assert machine.is_installed()
    firmware(tmp_path / "efi/efivars", DEBIAN, SNAPTX)
    assert machine.is_replaced()
    assert not machine.is_installed()


@pytest.mark.parametrize("machine", ["bios", "efi"], indirect=True)
def test_where_it_never_was_installed_nothing_took_its_place(machine: Firmware, tmp_path: Path) -> None:
    firmware(tmp_path / "efi/efivars", DEBIAN)
    disk(tmp_path / "two", b"debian's")
    machine._core.unlink()

    assert not machine.is_replaced()
    assert not machine.is_installed()
