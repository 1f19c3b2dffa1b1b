"""Where GRUB counts the tries of a generation on trial: an environment block it can write.

GRUB writes files in place, on FAT and ext4 only: on the EFI system partition,
else on a separate /boot.  Where there is neither, a partition of 32 sectors
does, which the administrator has made and named: it holds a tar archive, a
filesystem to GRUB.  The block is 1024 bytes for good (GRUB manual, "Environment
block").  snaptx makes it, GRUB alone writes into it and reads it.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

from snaptx import durable, system
from snaptx.errors import BootError, storage_error
from snaptx.system import Mount

NAME = "snaptx.env"
SIZE = 1024
HEADER = b"# GRUB Environment Block\n"
TAR_BLOCK = 512
"""Bytes (POSIX pax, "ustar Interchange Format")."""
BY_UUID = "/dev/disk/by-uuid"
ESP_PLACES = ("boot/efi", "efi", "boot")
PARTITION = Path("/dev/disk/by-partlabel/snaptx-counter")
BY_PARTUUID = "/dev/disk/by-partuuid"
WRITABLE_BY_GRUB = {"vfat", "ext2", "ext3", "ext4"}


class Counter(NamedTuple):
    """An environment block: where GRUB finds it, and where this process does."""

    uuid: str
    path: str
    file: Path

    @property
    def name(self) -> str:
        """Return what the entry file calls it."""
        return f"{self.uuid}:{self.path}"

    def make(self) -> None:
        """Make the block unless it is there and whole.

        Raises:
            StorageError: the filesystem refused.
        """
        if self._is_whole():
            return
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise storage_error(error, f"cannot make {self.file.parent}") from error
        durable.replace(self.file, HEADER.ljust(SIZE, b"#"), 0o644)

    def _is_whole(self) -> bool:
        try:
            data = durable.read(self.file)
        except (OSError, ValueError):
            return False
        return len(data) == SIZE and data.startswith(HEADER)

    def remove(self) -> None:
        """Take the block away."""
        self.file.unlink(missing_ok=True)


class InPartition(NamedTuple):
    """An environment block as the one member of a tar archive at the beginning of a partition."""

    device: Path
    identifier: str

    @property
    def name(self) -> str:
        """Return what the entry file calls it: GRUB looks for the member's name."""
        return f":/{self._member}"

    @property
    def _member(self) -> str:
        return f"snaptx-{self.identifier}.env"

    def make(self) -> None:
        """Make the archive unless it is there and whole.

        Raises:
            BootError: the partition holds something else.
            StorageError: it can't be read or written.
        """
        archive = self._archive()
        found = self._read(len(archive))
        if found.startswith(archive[:TAR_BLOCK]) and found.startswith(HEADER, TAR_BLOCK):
            return
        if found.strip(b"\0") and not found.startswith(b"snaptx-"):
            hint = f"if nobody needs it: wipefs --all {self.device}"
            raise BootError(f"{self.device} is not empty", hint=hint)
        self._write(archive)

    def remove(self) -> None:
        """Take the archive away."""
        self._write(bytes(len(self._archive())))

    def _archive(self) -> bytes:
        import tarfile

        member = tarfile.TarInfo(self._member)
        member.size = SIZE
        return member.tobuf(tarfile.USTAR_FORMAT) + HEADER.ljust(SIZE, b"#") + bytes(2 * TAR_BLOCK)

    def _read(self, size: int) -> bytes:
        try:
            with self.device.open("rb") as file:
                return file.read(size)
        except OSError as error:
            raise storage_error(error, f"cannot read {self.device}") from error

    def _write(self, data: bytes) -> None:
        try:
            with self.device.open("r+b") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise storage_error(error, f"cannot write {self.device}") from error


def esp(sysroot: Path) -> Mount | None:
    """Return the mounted EFI system partition, None if there is none."""
    mounts = (system.mount_at(sysroot / place) for place in ESP_PLACES)
    return next((mount for mount in mounts if mount and mount.fstype == "vfat"), None)


def locate(sysroot: Path, boot: Mount | None) -> Counter | InPartition | None:
    """Return where GRUB can count; ``boot`` is a /boot of its own."""
    found = esp(sysroot)
    if found:
        return Counter(uuid_of(found.source), f"/EFI/snaptx/{NAME}", Path(found.target) / "EFI/snaptx" / NAME)
    if boot and boot.fstype in WRITABLE_BY_GRUB:
        return Counter(uuid_of(boot.source), f"/snaptx/{NAME}", Path(boot.target) / "snaptx" / NAME)
    if system.is_running_root(sysroot) and PARTITION.exists():
        return InPartition(PARTITION, _name_in(BY_PARTUUID, str(PARTITION)))
    return None


def _name_in(directory: str, device: str) -> str:
    """Return the name that udev has given a device in a directory of /dev/disk, "" if none."""
    wanted = os.path.realpath(device)
    if not os.path.isdir(directory):
        return ""
    return next((link.name for link in os.scandir(directory) if os.path.realpath(link.path) == wanted), "")


def uuid_of(device: str) -> str:
    """Return the UUID of the filesystem on a device, as GRUB searches for it."""
    if name := _name_in(BY_UUID, device):
        return name  # a fork less
    from snaptx import run

    # Its cache may know what a device held seconds ago.
    words = ["blkid", "--cache-file", os.devnull, "--match-tag", "UUID", "--output", "value", device]
    return run.run(words).stdout.strip()
