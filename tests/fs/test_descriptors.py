"""What a process has opened of a machine ends when it is done with it, not with the process."""

from __future__ import annotations

import os
from pathlib import Path

from snaptx import mounting, system
from snaptx.storage.btrfs import BtrfsStorage


def held() -> set[str]:
    """Return the descriptors of this process."""
    return set(os.listdir("/proc/self/fd"))


def test_a_closed_storage_holds_nothing(btrfs: Path) -> None:
    mount = system.mount_at(btrfs)
    assert mount is not None
    before = held()
    storage = BtrfsStorage(mount)
    top = storage.state.parent
    assert mounting.with_real_path(top, lambda path: path) != top

    storage.close()

    assert held() == before
    assert mounting.with_real_path(top, lambda path: path) == top, "the number is somebody else's next"
