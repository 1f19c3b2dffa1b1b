"""The disk of a machine that is off, opened on the host.

To damage what its next boot relies on, and to see what its last one has left:
both without a boot for it.  The machine's disk is a qcow2; QEMU's storage daemon shows it as a raw file.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.vm.layouts import Layout

SYSTEM, BOOT, ROOT = 1, 2, 3
"""The numbers of the partitions, as disk.py makes them."""
SECTOR = 512
READY = 20.0
"""Seconds that the storage daemon has to show the disk."""


@dataclass(frozen=True)
class Part:
    """A partition of the raw file ``disk``; start and size in bytes."""

    disk: Path
    start: int
    size: int

    @property
    def mtools(self) -> str:
        """Return what mtools call it."""
        return f"{self.disk}@@{self.start}"

    def sector_of(self, text: bytes) -> int:
        """Return the sector of the disk, 512 bytes each, that begins with ``text``."""
        with self.disk.open("rb") as file:
            file.seek(self.start)
            data = file.read(self.size)
        found = next(at for at in range(0, len(data), SECTOR) if data.startswith(text, at))
        return (self.start + found) // SECTOR


@contextmanager
def opened(disk: Path) -> Iterator[dict[int, Part]]:
    """Give the partitions of the qcow2 ``disk``, for reading and writing.

    Raises:
        AssertionError: the storage daemon does not show the disk.
    """
    raw = disk.with_suffix(".raw")
    raw.touch()
    daemon = subprocess.Popen(
        [
            *("setpriv", "--pdeathsig", "TERM", "--", "qemu-storage-daemon"),
            *("--blockdev", f"driver=file,node-name=file,filename={disk}"),
            *("--blockdev", "driver=qcow2,node-name=disk,file=file"),
            *("--export", f"type=fuse,id=raw,node-name=disk,mountpoint={raw},writable=on"),
        ],
        stdin=subprocess.DEVNULL,
    )
    try:
        _wait_for(raw)
        yield _partitions(raw)
    finally:
        daemon.terminate()
        daemon.wait()
        raw.unlink()


def _wait_for(raw: Path) -> None:
    deadline = time.monotonic() + READY
    while not raw.stat().st_size:
        assert time.monotonic() < deadline, "qemu-storage-daemon does not show the disk"
        time.sleep(0.05)


def _partitions(raw: Path) -> dict[int, Part]:
    rows = re.findall(r"(?m)^ +(\d+) +(\d+) +(\d+) ", _run("sgdisk", "--print", f"{raw}"))
    return {
        int(number): Part(raw, int(first) * SECTOR, (int(last) - int(first) + 1) * SECTOR)
        for number, first, last in rows
    }


@contextmanager
def mounted(part: Part, subvolume: str = "") -> Iterator[Path]:
    """Mount a subvolume of the Btrfs in a partition, or its top level, for as long as the block lasts."""
    with tempfile.TemporaryDirectory() as target, _at(Path(target), part, "btrfs", f"subvol=/{subvolume}"):
        yield Path(target)


@contextmanager
def system(parts: Mapping[int, Part], layout: Layout) -> Iterator[Path]:
    """Mount the root of a layout as its installer made it, with its /boot, for as long as the block lasts."""
    with ExitStack() as stack:
        root = stack.enter_context(mounted(parts[ROOT], layout.root))
        if layout.ext4_boot:
            stack.enter_context(_at(root / "boot", parts[BOOT], "ext4", "defaults"))
        yield root


@contextmanager
def _at(target: Path, part: Part, kind: str, options: str) -> Iterator[None]:
    place = ("--offset", f"{part.start}", "--sizelimit", f"{part.size}")
    device = _run("losetup", "--find", "--show", *place, f"{part.disk}").strip()
    try:
        _run("mount", "-t", kind, "-o", options, device, f"{target}")
        try:
            yield
        finally:
            _run("umount", f"{target}")
    finally:
        _run("losetup", "--detach", device)


def snaptx(root: Path, *words: str) -> Any:
    """Run a verb on a mounted root and return its result."""
    return json.loads(_run(sys.executable, "-m", "snaptx", "--json", "--sysroot", f"{root}", *words))


def _run(*words: str) -> str:
    return subprocess.run(
        words, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True
    ).stdout
