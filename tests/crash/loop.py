"""Loop devices that end with whoever holds them (linux/loop.h), and mounts nobody else sees."""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from snaptx import mounting, system
from snaptx.bootloader import freezing

_CTL_GET_FREE = 0x4C82
_CONFIGURE = 0x4C0A
_CLR_FD = 0x4C01
_READ_ONLY, _AUTOCLEAR = 1, 4
_BLKFLSBUF = 0x1261
_BLOCK = 512


@contextmanager
def loop_device(image: Path) -> Iterator[str]:
    """Give a buffered loop device over ``image``; it is freed with its last user, however that ends."""
    backing = os.open(image, os.O_RDWR | os.O_CLOEXEC)
    try:
        held, name = _configured(backing)
    finally:
        os.close(backing)
    try:
        yield name
    finally:
        os.close(held)


def _configured(backing: int) -> tuple[int, str]:
    # struct loop_config: fd, block size, struct loop_info64 with its flags at byte 52, reserved.
    request = struct.pack("<II52xI240x", backing, _BLOCK, _AUTOCLEAR)
    with system.descriptor("/dev/loop-control", os.O_RDWR) as control:
        for _ in range(100):
            name = f"/dev/loop{fcntl.ioctl(control, _CTL_GET_FREE)}"
            held = os.open(name, os.O_RDWR | os.O_CLOEXEC)
            try:
                fcntl.ioctl(held, _CONFIGURE, request)
                return held, name
            except OSError as error:
                os.close(held)
                if error.errno != errno.EBUSY:
                    raise
    raise OSError(errno.EBUSY, "no free loop device")


def free_loop_devices(directory: Path) -> None:
    """Free the loop devices over files in a directory, whose name is found nowhere else.

    Whoever ended before it could do so has left them: not all end with their user, and a file system that
    was frozen then stays as it is.
    """
    for device, file in backing_files().items():
        if f"/{directory.name}/" in file:
            _thaw(device)
            with suppress(OSError), system.descriptor(device, os.O_RDWR) as fd:  # it was freed meanwhile
                fcntl.ioctl(fd, _CLR_FD)


def backing_files() -> dict[str, str]:
    """Return what the kernel calls the file of each loop device that has one."""
    found = {}
    for path in Path("/sys/block").glob("loop*/loop/backing_file"):
        with suppress(OSError):
            found[f"/dev/{path.parents[1].name}"] = path.read_text().rstrip("\n")
    return found


def _thaw(device: str) -> None:
    """Thaw the ext4 on a device; nobody has it mounted any more."""
    with (
        suppress(OSError),  # there is none, or it is not frozen
        tempfile.TemporaryDirectory() as place,
        mounted(device, Path(place) / "frozen", "noinit_itable", fstype="ext4") as top,
        system.descriptor(top, os.O_RDONLY | os.O_DIRECTORY) as fd,
    ):
        fcntl.ioctl(fd, freezing.FITHAW, 0)


def forget_cached(device: str, seconds: float = 10.0) -> None:
    """Wait until nothing is mounted from ``device``, then drop what the kernel keeps of its content."""
    end = time.monotonic() + seconds
    while True:
        try:
            with system.descriptor(device, os.O_RDWR | os.O_EXCL) as fd:
                fcntl.ioctl(fd, _BLKFLSBUF, 0)
            return
        except OSError as error:
            if error.errno != errno.EBUSY or time.monotonic() > end:
                raise
            time.sleep(0.001)


def leave_for_private_mounts() -> None:
    """Give this process mounts of its own: what it mounts, nobody sees, and it goes when the process goes.

    What others have mounted from loop devices is let go of, or it would be kept from them.
    """
    system.unshare(system.CLONE_NEWNS)
    mounting.mount("none", "/", flags=mounting.MS_REC | mounting.MS_PRIVATE)
    for mount in reversed(system.mounts()):
        if mount.source.startswith("/dev/loop"):
            with suppress(OSError):
                mounting.unmount(mount.target, mounting.MNT_DETACH)


@contextmanager
def mounted(
    device: str, target: Path, options: str = "", *, read_only: bool = False, fstype: str = "btrfs"
) -> Iterator[Path]:
    """Mount a file system for the length of a with block."""
    flags = mounting.MS_RDONLY if read_only else 0
    target.mkdir(exist_ok=True)
    mounting.mount(device, str(target), fstype, flags | _NOATIME, options)
    try:
        yield target
    finally:
        _unmount(target)


_NOATIME = 1024


def _unmount(target: Path, seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while True:
        try:
            return mounting.unmount(str(target))
        except OSError as error:
            if error.errno != errno.EBUSY or time.monotonic() > end:
                raise
            time.sleep(0.002)
