"""What Btrfs refuses, in plain words."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from snaptx.errors import BusyError, storage_error
from snaptx.model import Tree


@contextmanager
def translated(doing: str) -> Iterator[None]:
    """Raise what the filesystem says in the block, while ``doing`` something, as an error of snaptx's."""
    try:
        yield
    except OSError as error:  # BtrfsUtilError is one
        if error.errno == errno.ETXTBSY:
            hint = "'swapoff' it and make one in a subvolume of its own: a snapshot spoils it for good"
            raise BusyError(f"{doing}: a swap file in it is in use", hint=hint) from error
        raise storage_error(error, doing) from error


@contextmanager
def unless_held(tree: Tree) -> Iterator[None]:
    """Say what it means that the kernel does not permit root to let a tree go.

    Raises:
        BusyError: somebody sends it, or swaps to it.
    """
    try:
        yield
    except OSError as error:
        if error.errno != errno.EPERM:
            raise
        message = f"generation {tree} is being sent (btrfs send), or has a swap file in use"
        hint = "wait for the backup, or 'swapoff' the file, and try again"
        raise BusyError(message, hint=hint) from error
