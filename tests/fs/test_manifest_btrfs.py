"""Copies of a manifest on real Btrfs: they share its blocks, and are in memory before they are asked."""

from __future__ import annotations

import ctypes
import mmap
from pathlib import Path

import pytest

from snaptx.model import Kind, Row
from snaptx.overlay.manifest import Manifest
from tests.fs.conftest import MIB, shared_bytes
from tests.minimal_root import eventually

PATHS = 60_000


@pytest.fixture
def fork(btrfs: Path) -> Path:
    """Give a copy of a manifest that is larger than what the kernel reads ahead for one call."""
    with Manifest.create(btrfs / "many") as manifest:
        row = Row(b"", Kind.FIFO, 0, 0, 0, 0, 0, 0, bytes(32), bytes(32))
        manifest.put(row._replace(path=b"%d" % number) for number in range(PATHS))
    assert (btrfs / "many").stat().st_size > 5 * MIB
    Manifest.fork(btrfs / "many", btrfs / "fork").close()
    return btrfs / "fork"


def test_fork_shares_its_blocks(fork: Path) -> None:
    assert shared_bytes(fork) > 4 * MIB


def test_fork_is_read_ahead_to_its_end(fork: Path) -> None:
    eventually(lambda: all(pages_in_memory(fork)))


def pages_in_memory(path: Path) -> list[int]:
    """Return for each page of a file whether it is in memory, by mincore(2)."""
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as pages:
        found = (ctypes.c_ubyte * -(-len(pages) // mmap.PAGESIZE))()
        start = ctypes.c_ubyte.from_buffer(pages)
        failed = ctypes.CDLL(None).mincore(ctypes.byref(start), ctypes.c_size_t(len(pages)), found)
        del start  # or the mapping could not be closed
    assert not failed
    return [page & 1 for page in found]
