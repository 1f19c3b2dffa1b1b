"""A boot loader that only remembers, for unit tests and the contract suite."""

from __future__ import annotations

import shlex
from pathlib import Path

from snaptx.bootloader import entryfile
from snaptx.errors import BootError
from snaptx.model import BootEntry, BootState
from snaptx.storage.base import TreeInfo


class MemoryBootLoader:
    """The entry file as a string."""

    apart = False

    def __init__(self) -> None:
        self.counter = ""
        self._text: str | None = None
        self._next: str | None = None
        self.installed = False

    def install(self, root: Path, adopted: TreeInfo) -> bool:
        """Remember that it was called."""
        fresh, self.installed = not self.installed, True
        return fresh

    def check(self, root: Path, *, bare: bool = False) -> None:
        """Do nothing: every tree boots."""

    def read(self) -> BootState | None:
        """Return the state last switched to."""
        return None if self._text is None else entryfile.parse(self._text)

    def offer(self, number: int, title: str, root: Path, info: TreeInfo) -> BootEntry:
        """Return an entry that names the tree."""
        if not root.is_dir():
            raise BootError(f"{root} does not exist", hint="run: snaptx repair")
        return BootEntry(
            number, entryfile.entry_title(title, ""), f"/{info.name}/vmlinuz", "", shlex.join(info.cmdline)
        )

    def words(self, root: Path, info: TreeInfo) -> str:
        """Return where the tree is."""
        return shlex.join(info.cmdline)

    def missing(self, entry: BootEntry, root: Path, info: TreeInfo) -> list[str]:
        """Say that nothing is: there are no files."""
        return []

    def prepare(self, state: BootState) -> None:
        """Keep the next state aside."""
        self._next = entryfile.render(state, "memory")

    def switch(self) -> None:
        """Make the next state the current one."""
        if self._next is None:
            raise BootError("nothing was prepared")
        self._text, self._next = self._next, None

    def discard(self) -> None:
        """Forget the next state."""
        self._next = None

    def forget(self, number: int) -> None:
        """Do nothing: nothing was put in place."""

    def remove(self) -> None:
        """Forget everything."""
        self._text = self._next = None

    def barrier(self) -> None:
        """Do nothing: a string needs none."""
