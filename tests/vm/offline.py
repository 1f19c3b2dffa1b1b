"""The disk of a machine that is off, opened on the host.

To damage what its next boot relies on, and to see what its last one has left:
both without a boot for it.  The machine's disk is a qcow2; QEMU's storage daemon shows it as a raw file, and
what a LUKS volume on it holds as another: this machine's kernel needs no device mapper.
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
KEY = "known to every test"
"""Opens every LUKS volume here."""
LUKS = b"LUKS\xba\xbe"
"""How a volume begins (LUKS On-Disk Format Specification 1.2.3, "PHDR layout")."""
SECRET = ("--object", f"secret,id=key,data={KEY}")
"""What QEMU's tools call ``key``."""


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

    @property
    def encrypted(self) -> bool:
        """Return whether it is a LUKS volume."""
        with self.disk.open("rb") as file:
            file.seek(self.start)
            return file.read(len(LUKS)) == LUKS

    def sector_of(self, text: bytes) -> int:
        """Return the sector of the disk, 512 bytes each, that begins with ``text``."""
        with self.disk.open("rb") as file:
            file.seek(self.start)
            data = file.read(self.size)
        found = next(at for at in range(0, len(data), SECTOR) if data.startswith(text, at))
        return (self.start + found) // SECTOR


@contextmanager
def opened(disk: Path) -> Iterator[dict[int, Part]]:
    """Give the partitions of the qcow2 ``disk``, decrypted, for reading and writing.

    Raises:
        AssertionError: the storage daemon does not show the disk.
    """
    nodes = (f"driver=file,node-name=file,filename={disk}", "driver=qcow2,node-name=shown,file=file")
    with ExitStack() as stack:
        raw = stack.enter_context(_shown(disk.with_suffix(".raw"), *nodes))
        yield {
            number: stack.enter_context(decrypted(part)) if part.encrypted else part
            for number, part in _partitions(raw).items()
        }


@contextmanager
def decrypted(part: Part) -> Iterator[Part]:
    """Give what a LUKS volume holds, for reading and writing.

    Raises:
        AssertionError: the storage daemon does not show it.
    """
    nodes = (
        f"driver=file,node-name=file,filename={part.disk}",
        f"driver=raw,node-name=part,file=file,offset={part.start},size={part.size}",
        "driver=luks,node-name=shown,file=part,key-secret=key",
    )
    with _shown(part.disk.with_suffix(".plain"), *nodes) as plain:
        yield Part(plain, 0, plain.stat().st_size)


@contextmanager
def _shown(path: Path, *nodes: str) -> Iterator[Path]:
    """Show QEMU's block node ``shown`` as the file ``path``."""
    path.touch()
    daemon = subprocess.Popen(
        [
            *("setpriv", "--pdeathsig", "TERM", "--", "qemu-storage-daemon", *SECRET),
            *(word for node in nodes for word in ("--blockdev", node)),
            *("--export", f"type=fuse,id=export,node-name=shown,mountpoint={path},writable=on"),
        ],
        stdin=subprocess.DEVNULL,
    )
    try:
        _wait_for(path)
        yield path
    finally:
        daemon.terminate()
        daemon.wait()
        path.unlink()


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
