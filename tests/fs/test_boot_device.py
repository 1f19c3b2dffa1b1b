"""The file system that holds the kernels is known by what is on the disk."""

from __future__ import annotations

import fcntl
import os
import uuid
from pathlib import Path

from snaptx import system
from snaptx.bootloader import counter
from tests.fs.conftest import command

LOOP_CHANGE_FD = 0x4C06
"""linux/loop.h: lets a read-only device show another file of the same size."""


def _ext4(image: Path) -> str:
    with image.open("wb") as file:
        file.truncate(8 << 20)
    name = str(uuid.uuid4())
    command("mkfs.ext4", "-q", "-F", "-U", name, image)
    return name


def test_a_device_that_holds_another_file_system_has_another_uuid(tmp_path: Path) -> None:
    one, other = tmp_path / "one.img", tmp_path / "other.img"
    known, fresh = _ext4(one), _ext4(other)
    device = command("losetup", "--read-only", "--find", "--show", one).strip()
    try:
        assert counter.uuid_of(device) == known

        with system.descriptor(device, os.O_RDONLY) as fd, system.descriptor(other, os.O_RDONLY) as file:
            fcntl.ioctl(fd, LOOP_CHANGE_FD, file)

        assert counter.uuid_of(device) == fresh
    finally:
        command("losetup", "--detach", device)
