"""What snaptx asks of a boot loader: the seam between the switch and GRUB.

The entry file is the one authority for what boots.  It is replaced as a whole:
``prepare`` puts the next one beside it, ``switch`` is the one rename.  The
barriers around the rename are the caller's.  Errors are BootError or
StorageError.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from snaptx.model import BootEntry, BootState
from snaptx.storage.base import TreeInfo


class BootLoader(Protocol):
    """Something that boots the generation that the entry file names."""

    @property
    def counter(self) -> str:
        """Return where the loader counts the tries of a generation on trial, "" if it can't."""
        ...

    @property
    def apart(self) -> bool:
        """Return whether it keeps what it writes on another filesystem than the generations."""
        ...

    def install(self, root: Path, adopted: TreeInfo) -> bool:
        """Put in place what does not change with a generation; return whether it was not there.

        Nothing that boots changes.  ``root`` is where its settings are, ``adopted``
        the root that booted before snaptx.
        """
        ...

    def check(self, root: Path, *, bare: bool = False) -> None:
        """Refuse a root that it could not boot, before anything is changed.

        A ``bare`` kernel is enough for who starts it in another way.

        Raises:
            BootError: there is no kernel, no initrd for it, or no telling what it is to be told.
        """
        ...

    def read(self) -> BootState | None:
        """Return what the entry file says, None if there is none.

        Raises:
            BootError: it is damaged.
        """
        ...

    def offer(self, number: int, title: str, root: Path, info: TreeInfo) -> BootEntry:
        """Return the entry that boots the tree at ``root``, its kernel put where the loader finds it.

        Raises:
            BootError: the tree has no kernel.
        """
        ...

    def words(self, root: Path, info: TreeInfo) -> str:
        """Return what the kernel of the tree at ``root`` is to be told by now, as `offer` puts it."""
        ...

    def missing(self, entry: BootEntry, root: Path, info: TreeInfo) -> list[str]:
        """Return the files of an entry for the tree at ``root`` that the loader would not find."""
        ...

    def prepare(self, state: BootState) -> None:
        """Write the next entry file beside the current one."""
        ...

    def switch(self) -> None:
        """Make the prepared entry file the current one, in one rename."""
        ...

    def discard(self) -> None:
        """Remove a prepared entry file that was not switched to."""
        ...

    def forget(self, number: int) -> None:
        """Remove what ``offer`` put in place for a generation that no entry names."""
        ...

    def remove(self) -> None:
        """Remove what the loader put beside the generations; nothing boots by it any more."""
        ...

    def barrier(self) -> None:
        """Return when the loader sees everything that was written for it."""
        ...
