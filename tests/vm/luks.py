"""A machine whose root is Btrfs inside LUKS, its /boot beside it; made once, then kept like other images.

    CACHE/debian-luks-KEY/disk.raw      a disk that boots by its own GRUB

The host's kernel need not have the device mapper: QEMU makes the volume and
opens it.  The initramfs is the distribution's own.  It holds the key, so that
nobody has to type it.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import uuid
from pathlib import Path

from tests.vm import archive, disk, image, offline, product
from tests.vm.layouts import Layout
from tests.vm.machine import Firmware, Image, Kernel, Machine
from tests.vm.parcel import Content
from tests.vm.run import End

LAYOUT = Layout("debian-luks", Firmware.BIOS, (("/", "@rootfs"),), ext4_boot=True)
PACKAGE = "cryptsetup-initramfs"
KEY_FILE = "/etc/keys/root.key"
UUID_AT, UUID_LENGTH = 168, 40
"""Bytes of the volume's header, as is the magic."""
ITERATING = 10
"""Milliseconds of this machine to make a key of a passphrase: the guest's processor is emulated."""


def made() -> Image:
    """Return the disk, made if the cache has none.

    Raises:
        subprocess.CalledProcessError: a tool of the host failed, as told on stderr.
        MachineError: GRUB could not be installed.
    """
    source = image._content(Path(__file__)).decode()
    key = image.key(repr(LAYOUT), offline.KEY, source)
    return Image(image._made(f"{LAYOUT.name}-{key}", _make) / "disk.raw", LAYOUT.firmware)


def _make(directory: Path) -> None:
    with tempfile.TemporaryDirectory(dir=image.cache()) as scratch:
        identifier, found = _fill(directory / "disk.raw", Path(scratch))
        machine = Machine(Image(directory / "disk.raw", LAYOUT.firmware), Path(scratch) / "first")
        initrd = _install_cryptsetup(machine, identifier, Path(scratch))
        line = f"root=UUID={found.root} {disk.root_flags(LAYOUT)} ro console=ttyS0,115200"
        with machine, machine.boot(Kernel(image.base() / "vmlinuz", initrd, line)) as run:
            run.check(["systemctl", "is-system-running", "--wait"], 900)
            run.check(["grub-install", "--target", *image._TARGETS[LAYOUT.firmware]], 900)
            run.check(["update-grub"], 900)
            assert run.poweroff() is End.POWEROFF
        subprocess.run(["qemu-img", "commit", "-q", f"{machine.disk}"], check=True)


def _fill(path: Path, scratch: Path) -> tuple[str, disk.Made]:
    """Make the disk with the system on it; return the identifiers of the volume and of the file systems."""
    parts = disk._partitions(LAYOUT)
    _partition(path, parts)
    found = disk.Made(str(uuid.uuid4()), str(uuid.uuid4()))
    volume = offline.Part(path, parts[offline.ROOT].start * disk.MIB, parts[offline.ROOT].size * disk.MIB)
    identifier = _format(volume, scratch / "header")
    with (
        offline.decrypted(volume) as plain,
        disk._loop(plain.disk, disk._Partition(0, plain.size // disk.MIB, "")) as device,
    ):
        disk._run("mkfs.btrfs", "--quiet", "--uuid", found.root, device)
        disk._fill(LAYOUT, image.base() / "root.tar", device, found)
        disk._move_boot(LAYOUT, device, path, parts[offline.BOOT], found.boot)
    return identifier, found


def _partition(path: Path, parts: dict[int, disk._Partition]) -> None:
    with path.open("wb") as file:
        file.truncate(disk.SIZE * disk.MIB)
    for number, part in parts.items():
        place = f"--new={number}:{part.start}M:+{part.size}M"
        disk._run("sgdisk", "--set-alignment=2048", place, f"--typecode={number}:{part.kind}", path)


def _format(volume: offline.Part, header: Path) -> str:
    """Make a partition a LUKS volume; return the identifier."""
    options = f"key-secret=key,iter-time={ITERATING}"
    disk._run("qemu-img", "create", "-q", *offline.SECRET, "-f", "luks", "-o", options, header, "0")
    data = header.read_bytes()
    with volume.disk.open("r+b") as file:
        file.seek(volume.start)
        file.write(data)
    return data[UUID_AT : UUID_AT + UUID_LENGTH].rstrip(b"\0").decode()


def _install_cryptsetup(machine: Machine, identifier: str, scratch: Path) -> Path:
    """Do what an installer does for an encrypted root; return the initramfs that opens it."""
    packages = archive.package(scratch / "packages", PACKAGE)
    with offline.opened(machine.disk) as parts, offline.system(parts, LAYOUT) as root:
        product.run_in(root, packages=packages)
        product.unpack(root, _configuration(identifier))
        product.run_in(root, f"chmod 600 {KEY_FILE}; update-initramfs -u")
        (initrd,) = (root / "boot").glob("initrd.img-*")
        return Path(shutil.copy(initrd, scratch))


def _configuration(identifier: str) -> dict[str, Content]:
    """Return {path: content} of what is set for an encrypted root that nobody types a passphrase for."""
    return {
        KEY_FILE: offline.KEY,
        "/etc/crypttab": f"vda3_crypt UUID={identifier} {KEY_FILE} luks,initramfs\n",
        "/etc/cryptsetup-initramfs/conf-hook": f"KEYFILE_PATTERN={KEY_FILE}\n",
        "/etc/initramfs-tools/conf.d/umask": "UMASK=0077\n",
    }
