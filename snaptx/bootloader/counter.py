"""Where GRUB counts the tries of a generation on trial: an environment block it can write.

GRUB writes files in place, on FAT and ext4 only: on the EFI system partition,
else on a separate /boot.  The block is 1024 bytes for good (GRUB manual,
"Environment block").  snaptx makes it, GRUB alone writes into it and reads it.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from snaptx import durable, system
from snaptx.errors import storage_error
from snaptx.system import Mount

NAME = "snaptx.env"
SIZE = 1024
HEADER = b"# GRUB Environment Block\n"
BY_UUID = "/dev/disk/by-uuid"
ESP_PLACES = ("boot/efi", "efi", "boot")
WRITABLE_BY_GRUB = {"vfat", "ext2", "ext3", "ext4"}


@dataclass(frozen=True, slots=True)
class Counter:
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
            data = self.file.read_bytes()
        except OSError:
            return False
        return len(data) == SIZE and data.startswith(HEADER)


def esp(sysroot: Path) -> Mount | None:
    """Return the mounted EFI system partition, None if there is none."""
    mounts = (system.mount_at(sysroot / place) for place in ESP_PLACES)
    return next((mount for mount in mounts if mount and mount.fstype == "vfat"), None)


def locate(sysroot: Path, boot: Mount | None) -> Counter | None:
    """Return where GRUB can count; ``boot`` is a /boot of its own."""
    found = esp(sysroot)
    if found:
        return Counter(uuid_of(found.source), f"/EFI/snaptx/{NAME}", Path(found.target) / "EFI/snaptx" / NAME)
    if boot and boot.fstype in WRITABLE_BY_GRUB:
        return Counter(uuid_of(boot.source), f"/snaptx/{NAME}", Path(boot.target) / "snaptx" / NAME)
    return None


def uuid_of(device: str) -> str:
    """Return the UUID of the filesystem on a device, as GRUB searches for it."""
    wanted = os.path.realpath(device)
    if os.path.isdir(BY_UUID):
        for link in os.scandir(BY_UUID):  # udev's, and a fork less
            if os.path.realpath(link.path) == wanted:
                return link.name
    from snaptx import run

    # Its cache may know what a device held seconds ago.
    words = ["blkid", "--cache-file", os.devnull, "--match-tag", "UUID", "--output", "value", device]
    return run.run(words).stdout.strip()
