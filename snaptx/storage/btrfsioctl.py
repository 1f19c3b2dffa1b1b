"""What Btrfs offers by ioctl and btrfsutil does not (linux/btrfs.h)."""

from __future__ import annotations

import fcntl

IOC_SYNC = 0x9408
IOC_FS_INFO = 0x8400941F
"""The structure is 1024 bytes, fsid at byte 16."""


def commit(fd: int) -> None:
    """Commit the transaction of the filesystem that a descriptor is of.

    Raises:
        OSError: the kernel refused.
    """
    fcntl.ioctl(fd, IOC_SYNC)


def filesystem_id(fd: int) -> str:
    """Return the UUID of the filesystem that a descriptor is of.

    Raises:
        OSError: the kernel refused.
    """
    raw = fcntl.ioctl(fd, IOC_FS_INFO, bytes(1024))[16:32].hex()
    return "-".join((raw[:8], raw[8:12], raw[12:16], raw[16:20], raw[20:]))
