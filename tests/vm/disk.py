"""Partitions, file systems and what an installer writes, onto a disk that is a file.

    1   BIOS boot partition, or EFI system partition
    2   ext4 for /boot, in some layouts
    3   Btrfs

Neither partitions nor FAT need to be known to this machine's kernel: a loop
device shows one partition, and the EFI system partition begins empty.
"""

from __future__ import annotations

import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.vm import recipe
from tests.vm.layouts import Layout
from tests.vm.machine import Firmware

MIB = 1 << 20
SIZE = 6144
"""MiB, as everything here; a hole until written to."""
FIRST = 1
SYSTEM = {Firmware.BIOS: 1, Firmware.UEFI: 64}
BOOT = 512


@dataclass(frozen=True)
class Made:
    """What the file systems of a disk are known by; "" for one that it does not have."""

    root: str
    boot: str = ""
    system: str = ""


@dataclass(frozen=True)
class _Partition:
    start: int
    size: int
    kind: str


def _partitions(layout: Layout) -> dict[int, _Partition]:
    efi = layout.firmware is Firmware.UEFI
    system = _Partition(FIRST, SYSTEM[layout.firmware], "ef00" if efi else "ef02")
    boot = _Partition(system.start + system.size, BOOT if layout.ext4_boot else 0, "8300")
    start = boot.start + boot.size
    root = _Partition(start, SIZE - start - 1, "8300")
    return {number: part for number, part in ((1, system), (2, boot), (3, root)) if part.size}


def _run(*command: str | Path) -> str:
    words = [str(word) for word in command]
    return subprocess.run(
        words, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True
    ).stdout


@contextmanager
def _loop(path: Path, part: _Partition) -> Iterator[str]:
    place = ("--offset", str(part.start * MIB), "--sizelimit", str(part.size * MIB))
    device = _run("losetup", "--find", "--show", *place, path).strip()
    try:
        yield device
    finally:
        _run("losetup", "--detach", device)


@contextmanager
def _mounted(device: str, options: str = "defaults") -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as place:
        _run("mount", "-o", options, device, place)
        try:
            yield Path(place)
        finally:
            _run("umount", place)


def make(layout: Layout, archive: Path, path: Path) -> Made:
    """Make the disk ``path`` with the system in ``archive`` (a tar), without GRUB; return its identifiers.

    Raises:
        subprocess.CalledProcessError: a tool failed.
    """
    partitions = _partitions(layout)
    with path.open("wb") as file:
        file.truncate(SIZE * MIB)
    for number, part in partitions.items():
        place = f"--new={number}:{part.start}M:+{part.size}M"
        _run("sgdisk", "--set-alignment=2048", place, f"--typecode={number}:{part.kind}", path)
    made = Made(
        str(uuid.uuid4()),
        str(uuid.uuid4()) if layout.ext4_boot else "",
        f"{uuid.uuid4().fields[0]:08X}" if layout.firmware is Firmware.UEFI else "",
    )
    if made.system:
        _make_system(path, partitions[1], made.system)
    with _loop(path, partitions[3]) as device:
        _run("mkfs.btrfs", "--quiet", "--uuid", made.root, device)
        _fill(layout, archive, device, made)
        if layout.ext4_boot:
            _move_boot(layout, device, path, partitions[2], made.boot)
    return made


def _make_system(path: Path, part: _Partition, identifier: str) -> None:
    place = f"--offset={part.start * MIB // 512}"
    _run("mkfs.vfat", "-F", "32", "-s", "1", "-i", identifier, place, path, str(part.size * 1024))


def _fill(layout: Layout, archive: Path, device: str, made: Made) -> None:
    with _mounted(device, "subvolid=5") as top:
        for path in sorted(set(dict(layout.subvolumes).values())):
            (top / path).parent.mkdir(parents=True, exist_ok=True)
            _run("btrfs", "subvolume", "create", top / path)
        if layout.by_default:
            _run("btrfs", "subvolume", "set-default", top / layout.root)
    with _assembled(layout, device) as root:
        _run("tar", "--extract", "--file", archive, "--directory", root, "--numeric-owner", "--xattrs")
        _configure(layout, root, made)


@contextmanager
def _assembled(layout: Layout, device: str) -> Iterator[Path]:
    """Mount the root with everything in its place."""
    with _mounted(device, f"subvol=/{layout.root}") as root:
        for place, path in sorted(layout.subvolumes)[1:]:
            (root / place[1:]).mkdir(parents=True, exist_ok=True)
            _run("mount", "-o", f"subvol=/{path}", device, root / place[1:])
        try:
            yield root
        finally:
            for place, _ in sorted(layout.subvolumes, reverse=True)[:-1]:
                _run("umount", root / place[1:])


def _configure(layout: Layout, root: Path, made: Made) -> None:
    (root / "etc/fstab").write_text(fstab(layout, made))
    defaults = recipe.GRUB_DEFAULTS + recipe.GRUB_TERMINALS[layout.firmware.value]
    (root / "etc/default/grub").write_text(defaults)
    if made.system:
        (root / "boot/efi").mkdir()
    if layout.by_default:
        # As in openSUSE: no subvolume on the command line.
        script = root / "etc/grub.d/10_linux"
        text = script.read_text()
        flags = 'GRUB_CMDLINE_LINUX="rootflags=subvol=${rootsubvol} ${GRUB_CMDLINE_LINUX}"'
        assert flags in text
        script.write_text(text.replace(flags, ":"))


def fstab(layout: Layout, made: Made) -> str:
    """Return the table as the distribution's installer writes it."""
    lines = []
    for place, path in layout.subvolumes:
        options = [] if layout.options == "defaults" else [layout.options]
        if not (layout.by_default and place == "/"):
            options.insert(0, f"subvol={path}")
        lines.append(f"UUID={made.root} {place} btrfs {','.join(['defaults', *options])} 0 0\n")
    if made.boot:
        lines.append(f"UUID={made.boot} /boot ext4 defaults 1 2\n")
    if made.system:
        name = f"{made.system[:4]}-{made.system[4:]}"
        lines.append(f"UUID={name} /boot/efi vfat umask=0077 0 1\n")
    return "".join(lines)


def _move_boot(layout: Layout, device: str, path: Path, part: _Partition, identifier: str) -> None:
    with _loop(path, part) as boot:
        _run("mkfs.ext4", "-q", "-U", identifier, boot)
        with _mounted(device, f"subvol=/{layout.root}") as root, _mounted(boot) as target:
            _run("cp", "--archive", f"{root}/boot/.", target)
            for found in (root / "boot").iterdir():
                _run("rm", "--recursive", found)


def root_flags(layout: Layout) -> str:
    """Return what the kernel's command line says of the root's subvolume."""
    return "" if layout.by_default else f"rootflags=subvol={layout.root}"
