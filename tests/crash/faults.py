"""What is done to snaptx while it is recorded: it is not asked, and has no code for it.

``Syncs`` takes one barrier or fsync away, FAULTS what else must be there, to
see whether anybody notices.  ``hasten`` commits a file system after every
change snaptx makes, as the kernel's own timer may at any time.
"""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from snaptx import system
from snaptx.bootloader import freezing
from snaptx.bootloader.onboot import GrubOnBoot
from snaptx.storage.btrfs import BtrfsStorage

START_SYNC = 0x80089418
WAIT_SYNC = 0x40089416
"""BTRFS_IOC_START_SYNC and _WAIT_SYNC, linux/btrfs.h: like the timer they write no file's data."""

CHANGES = ("fsync", "link", "mkdir", "rename", "replace", "rmdir", "symlink", "unlink")
"""The functions of ``os`` after which the file system is committed."""

LEFT_OUT = "left out"
"""The mark where a barrier or fsync would have been."""


def _nobody() -> None:
    return


@dataclass
class Syncs:
    """The barriers and fsyncs of one verb in their order; the one numbered ``without`` does nothing.

    ``left_out`` is told when its turn has come.
    """

    without: int = -1
    left_out: Callable[[], None] = _nobody
    names: list[str] = field(default_factory=list)

    def _skips(self, name: str) -> bool:
        self.names.append(name)
        skips = len(self.names) - 1 == self.without
        if skips:
            self.left_out()
        return skips

    def install(self) -> None:
        """Count from now on, in this process."""
        barrier, boot_barrier, fsync = BtrfsStorage.barrier, GrubOnBoot.barrier, os.fsync

        def counted_barrier(storage: BtrfsStorage) -> None:
            if not self._skips("barrier"):
                barrier(storage)

        def counted_boot_barrier(boot: GrubOnBoot) -> None:
            if not self._skips("/boot barrier"):
                boot_barrier(boot)

        def counted_fsync(fd: int) -> None:
            if not self._skips(f"fsync {_shown(fd)}"):
                fsync(fd)

        _put(BtrfsStorage, "barrier", counted_barrier)
        _put(GrubOnBoot, "barrier", counted_boot_barrier)
        _put(os, "fsync", counted_fsync)


def _shown(fd: int) -> str:
    """Return the last two parts of an open file's path, numbers and digests left out."""
    path = Path(os.readlink(f"/proc/self/fd/{fd}"))
    parts = (re.sub(r"^\d+(?=\.json|$)", "N", part) for part in path.parts[1:][-2:])
    return "/".join(re.sub(r"\b[0-9a-f]{8,16}(?=\.|$)", "DIGEST", part) for part in parts)


def _rename_over(dirfd: int, one: str, other: str) -> None:
    os.rename(one, other, src_dir_fd=dirfd, dst_dir_fd=dirfd)


FAULTS: dict[str, Callable[[], None]] = {
    "no freeze": lambda: _put(freezing, "for_a_moment", lambda _fd: None),
    "no /boot barrier": lambda: _put(GrubOnBoot, "barrier", lambda _boot: None),
    "rename over": lambda: _put(system, "exchange", _rename_over),
}
"""What is left out or done wrong on a /boot of its own, by the name it has in ``flow.record``."""


def hasten(commit: Callable[[], None]) -> None:
    """Call ``commit``, one of the timers below, after every change from now on, in this process."""
    own = os.getpid()

    def timer() -> None:
        if os.getpid() == own:  # a command's process has closed what the timer needs
            commit()

    for name in CHANGES:
        _put(os, name, _followed(getattr(os, name), timer))
    for name in ("snapshot", "delete", "make_default"):
        _put(BtrfsStorage, name, _followed(getattr(BtrfsStorage, name), timer))


def btrfs_timer(root: Path) -> Callable[[], None]:
    """Return what commits the Btrfs mounted at ``root``."""
    fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def commit() -> None:
        number = fcntl.ioctl(fd, START_SYNC, bytes(8))
        fcntl.ioctl(fd, WAIT_SYNC, number)

    return commit


def ext4_timer(boot: Path, device: str) -> Callable[[], None]:
    """Return what commits the journal of the ext4 at ``boot`` and then writes the metadata to its place.

    Like the timer it leaves alone the data of files that have no blocks yet.
    """
    fd = os.open(boot, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    disk = os.open(device, os.O_RDWR | os.O_CLOEXEC)
    fsync = os.fsync  # as it is before it is followed by this

    def commit() -> None:
        os.utime(fd)  # joins the open transaction, so that fsync commits that
        fsync(fd)
        fsync(disk)

    return commit


def _followed(act: Callable[..., Any], then: Callable[[], None]) -> Callable[..., Any]:
    def both(*args: Any, **kwargs: Any) -> Any:
        result = act(*args, **kwargs)
        then()
        return result

    return both


def _put(owner: Any, name: str, value: Any) -> None:
    setattr(owner, name, value)
