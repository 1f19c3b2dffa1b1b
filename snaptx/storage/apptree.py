"""What in the directory of application trees is one, told without the library that manages subvolumes."""

from __future__ import annotations

import os
from pathlib import Path

from snaptx.errors import BusyError
from snaptx.storage.base import STATE_DIRECTORIES

INODE = 256
"""Of a subvolume's own directory, and of nothing else: BTRFS_FIRST_FREE_OBJECTID, linux/btrfs_tree.h."""


def is_one(path: Path) -> bool:
    """Return whether snaptx made it, or began to: a subvolume with nothing in it, or what comes first."""
    if path.lstat().st_ino != INODE:
        return False
    inside = set(os.listdir(path))
    return inside <= {"lock"} or STATE_DIRECTORIES[0] in inside


def require(path: Path) -> None:
    """Refuse what lies where an application tree belongs and is none.

    Raises:
        BusyError: it is there.
    """
    if os.path.lexists(path) and not is_one(path):
        message = f"what is called {path.name} among the application trees is none"
        raise BusyError(message, hint="'snaptx repair' sets it aside")
