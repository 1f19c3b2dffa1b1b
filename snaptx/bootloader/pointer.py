"""What "boots" of an application tree: a pointer file, replaced by one rename.

It has the form of GRUB's entry file, so that one parser judges both, and lies
where that lies in the state directory; no boot loader ever reads it.
"""

from __future__ import annotations

import os
import shlex
from pathlib import Path

from snaptx import durable
from snaptx.bootloader import entryfile
from snaptx.errors import BootError, storage_error
from snaptx.model import BootEntry, BootState
from snaptx.storage.base import TreeInfo

NAME = "current"


class Pointer:
    """The pointer file in the directory ``home``."""

    apart = False
    counter = ""
    """Nothing counts tries: who starts an instance checks it at once."""

    def __init__(self, home: Path) -> None:
        self._file = home / NAME
        self._next = home / (NAME + ".next")

    def install(self, root: Path, adopted: TreeInfo) -> bool:
        """Set aside a directory that has the pointer's name; there is no loader."""
        if not self._file.is_dir():
            return False
        durable.take_away(self._file)
        return True

    def check(self, root: Path, *, bare: bool = False) -> None:
        """Do nothing: there is no kernel."""

    def read(self) -> BootState | None:
        """Return what the pointer says, None if there is none."""
        try:
            return entryfile.parse(entryfile.text(self._file))
        except FileNotFoundError:
            return None
        except OSError as error:
            message = f"the pointer file can't be read: {error.strerror}"
            raise BootError(message, hint="run: snaptx repair") from error

    def chosen(self) -> int:
        """Return the generation that the pointer names, 0 if there is none or it is damaged."""
        try:
            state = self.read()
        except BootError:
            return 0
        return state.default if state else 0

    def offer(self, number: int, title: str, root: Path, info: TreeInfo) -> BootEntry:
        """Name the tree, which has no kernel."""
        if not root.is_dir():
            raise BootError(f"the root of generation {number} is missing", hint="see: snaptx app list")
        words = shlex.join(info.cmdline)
        return BootEntry(number, entryfile.entry_title(title, ""), info.loader_path, "", words)

    def words(self, root: Path, info: TreeInfo) -> str:
        """Return where the tree is."""
        return shlex.join(info.cmdline)

    def missing(self, entry: BootEntry, root: Path, info: TreeInfo) -> list[str]:
        """Say that nothing is: there is no kernel."""
        return []

    def prepare(self, state: BootState) -> None:
        """Write the next pointer beside the current one."""
        self.discard()
        durable.write_new(self._next, entryfile.render(state, "").encode(), 0o644)

    def switch(self) -> None:
        """Rename the prepared pointer over the current one."""
        try:
            os.replace(self._next, self._file)
        except OSError as error:
            raise storage_error(error, "cannot switch the pointer") from error

    def discard(self) -> None:
        """Remove a pointer that was prepared and not switched to."""
        durable.take_away(self._next)

    def forget(self, number: int) -> None:
        """Do nothing: nothing was put in place."""

    def remove(self) -> None:
        """Remove the pointer."""
        durable.take_away(self._file)

    def barrier(self) -> None:
        """Do nothing: the storage's barrier covers the file."""
