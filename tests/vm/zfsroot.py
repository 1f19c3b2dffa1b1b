"""Machines whose root is on ZFS, made once, then kept like those of ``image``.

    CACHE/zfs-efi-KEY/disk.raw, variables.fd      a disk that boots by its own GRUB

The host's kernel need not have ZFS: the guest of ``zfsguest`` copies its own
system onto the pool, and the distribution's tools install GRUB inside the
machine, which is started past GRUB once for that.

    rpool/ROOT/debian       the boot environment, /srv a child of it
    rpool/home              shared data
    rpool/grub              the distribution's /boot/grub, legacy
"""

from __future__ import annotations

import ast
import hashlib
import shutil
import subprocess
import tempfile
from pathlib import Path

from tests.vm import disk, image, product, recipe, zfsguest
from tests.vm.layouts import Layout
from tests.vm.machine import Firmware, Image, Kernel, Machine
from tests.vm.parcel import Content
from tests.vm.run import End

POOL = "rpool"
ADOPTED = f"{POOL}/ROOT/debian"
ROOT_ONLY = (("/", ADOPTED),)
LAYOUTS = {
    "zfs-bios": Layout("zfs-bios", Firmware.BIOS, ROOT_ONLY),
    "zfs-efi": Layout("zfs-efi", Firmware.UEFI, ROOT_ONLY),
}
MEMORY = 1536
"""MiB: half of it is ZFS's own cache."""
COPYING = 1800.0
"""Seconds: 700 MB, compressed by an emulated processor."""

INSTALL = f"""
zpool create -f -R /mnt -o ashift=12 -o compatibility=grub2 \
    -O mountpoint=none -O compression=lz4 -O acltype=posixacl -O xattr=sa -O relatime=on {POOL} /dev/vdc3
zfs create -o canmount=off {POOL}/ROOT
zfs create -o canmount=noauto -o mountpoint=/ {ADOPTED}
zfs mount {ADOPTED}
zfs create {ADOPTED}/srv
zfs create -o mountpoint=/home {POOL}/home
zfs create -o mountpoint=legacy {POOL}/grub
zpool set bootfs={ADOPTED} {POOL}
cp --archive --one-file-system /. /mnt/
mkdir -p /mnt/boot/grub /mnt/boot/efi /mnt/etc/zfs
zpool set cachefile=/mnt/etc/zfs/zpool.cache {POOL}
"""


def machine_of(name: str, directory: Path) -> Machine:
    """Return a machine of a layout, its files in ``directory``; to be closed by the caller.

    Raises:
        subprocess.CalledProcessError: the image can't be made, as told on stderr.
        MachineError: ZFS or GRUB could not be installed.
    """
    layout = LAYOUTS[name]
    found = image._made(f"{name}-{key(layout)}", lambda place: _make(layout, place))
    variables = found / "variables.fd" if layout.firmware is Firmware.UEFI else None
    return Machine(Image(found / "disk.raw", layout.firmware, variables), directory, memory=MEMORY)


def key(layout: Layout) -> str:
    """Return the digest of what such a disk is made of and by."""
    sources = [ast.dump(ast.parse(Path(one).read_bytes())) for one in (__file__, disk.__file__)]
    return hashlib.sha256("\0".join([zfsguest.key(), repr(layout), *sources]).encode()).hexdigest()[:16]


def _make(layout: Layout, directory: Path) -> None:
    made = directory / "disk.raw"
    system = _partition(layout, made)
    with tempfile.TemporaryDirectory(dir=image.cache()) as scratch:
        _copy(layout, made, system, Path(scratch) / "copy")
        _install_grub(layout, directory, Path(scratch) / "first")


def _partition(layout: Layout, path: Path) -> str:
    """Make the partitions; return the identifier of the EFI system partition, "" if there is none."""
    partitions = disk._partitions(layout)
    with path.open("wb") as file:
        file.truncate(disk.SIZE * disk.MIB)
    for number, part in partitions.items():
        place = f"--new={number}:{part.start}M:+{part.size}M"
        disk._run("sgdisk", "--set-alignment=2048", place, f"--typecode={number}:{part.kind}", path)
    if layout.firmware is not Firmware.UEFI:
        return ""
    disk._make_system(path, partitions[1], "5A465345")
    return "5A46-5345"


def _copy(layout: Layout, path: Path, system: str, place: Path) -> None:
    """Have the guest copy its own system onto a pool in the third partition."""
    source = zfsguest.guest()
    machine = Machine(Image(source / "disk.raw", Firmware.BIOS), place, 2, zfsguest.MEMORY, also=(path,))
    kernel = Kernel(source / "vmlinuz", source / "initrd", zfsguest.COMMAND_LINE)
    with machine, machine.boot(kernel) as run:
        run.put({"/tmp/install": "set -eux\n" + INSTALL})
        run.check(["sh", "/tmp/install"], COPYING)
        run.put({f"/mnt{name}": content for name, content in _configuration(layout, system).items()})
        run.check(["zpool", "export", POOL])


def _configuration(layout: Layout, system: str) -> dict[str, Content]:
    """Return {path: content} of what an installer writes."""
    defaults = recipe.GRUB_DEFAULTS + recipe.GRUB_TERMINALS[layout.firmware.value]
    table = f"{POOL}/grub /boot/grub zfs defaults 0 0\n"
    if system:
        table += f"UUID={system} /boot/efi vfat umask=0077 0 1\n"
    return {"/etc/fstab": table, "/etc/default/grub": defaults, **product.PATIENCE}


def _install_grub(layout: Layout, directory: Path, place: Path) -> None:
    """Start the system past GRUB, for the distribution's tools to install it."""
    source = zfsguest.guest()
    machine = Machine(Image(directory / "disk.raw", layout.firmware), place, memory=MEMORY)
    line = f"root=ZFS={ADOPTED} ro console=ttyS0,115200"
    with machine, machine.boot(Kernel(source / "vmlinuz", source / "initrd", line)) as run:
        run.check(["systemctl", "is-system-running", "--wait"], 900)
        run.check(["grub-install", "--target", *image._TARGETS[layout.firmware]], 900)
        run.check(["update-grub"], 900)
        assert run.poweroff() is End.POWEROFF
    subprocess.run(["qemu-img", "commit", "-q", f"{machine.disk}"], check=True)
    if layout.firmware is Firmware.UEFI:
        shutil.copyfile(machine.variables, directory / "variables.fd")
