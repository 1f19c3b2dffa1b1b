"""Reading is no change: times of access alone make nothing differ, and hide nothing that does."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import btrfsutil
import pytest

from snaptx.storage import sendstream

PAST = 1_000_000_000 * 10**9


@pytest.fixture
def root(btrfs: Path) -> Path:
    """Give a subvolume whose files a relatime mount stamps at the next read, and its snapshot ``old``."""
    place = btrfs / "root"
    subprocess.run(["btrfs", "-q", "subvolume", "create", place], check=True)
    (place / "d").mkdir()
    for name in ("d/a", "d/b", "d/c", "e"):
        (place / name).write_text(name)
        os.utime(place / name, ns=(PAST, PAST + 1))
    btrfsutil.create_snapshot(str(place), str(btrfs / "old"), read_only=True)
    return place


def touched(root: Path) -> set[bytes]:
    """Read every file, seal the root and return what counts as touched."""
    for path in root.rglob("*"):
        if path.is_file():
            path.read_bytes()
            assert path.stat().st_atime_ns > PAST, "the mount keeps no times of access"
    new = root.parent / "new"
    btrfsutil.create_snapshot(str(root), str(new), read_only=True)
    old_fd, new_fd = (os.open(path, os.O_RDONLY) for path in (root.parent / "old", new))
    try:
        return sendstream.touched(old_fd, new_fd, btrfsutil.subvolume_id(old_fd)) or set()
    finally:
        os.close(old_fd)
        os.close(new_fd)


def test_files_that_were_only_read_are_not_touched(root: Path) -> None:
    assert touched(root) == set()


def test_a_time_that_was_set_is_a_change(root: Path) -> None:
    os.utime(root / "d/a", ns=(PAST, PAST + 2))

    assert touched(root) == {b"d/a"}


def test_a_change_is_found_among_reads(root: Path) -> None:
    (root / "d/b").write_text("B")
    (root / "e").chmod(0o600)
    os.rename(root / "d/c", root / "d/x")

    assert touched(root) >= {b"d/b", b"e", b"d/c", b"d/x"}
    assert b"d/a" not in touched_again(root)


def touched_again(root: Path) -> set[bytes]:
    """Compare the two snapshots of ``touched`` once more."""
    old_fd, new_fd = (os.open(root.parent / name, os.O_RDONLY) for name in ("old", "new"))
    try:
        return sendstream.touched(old_fd, new_fd, btrfsutil.subvolume_id(old_fd)) or set()
    finally:
        os.close(old_fd)
        os.close(new_fd)
