"""ZFSBootMenu: it boots the dataset that the pool's ``bootfs`` names, with the kernel it finds in there.

So ``bootfs`` is the one authority, and setting it the switch.  What else there
is to know, such as what to fall back to, is kept for each generation as the
state that goes with it as the default: whatever sets ``bootfs``, the state
that is read is about what boots.  ZFSBootMenu counts no tries.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
from pathlib import Path

from snaptx import durable
from snaptx.bootloader import entryfile, kernels
from snaptx.bootloader.grub import entry_of, words_of
from snaptx.errors import BootError, storage_error
from snaptx.model import BootEntry, BootState, Part, Tree
from snaptx.storage.base import Storage, TreeInfo

NAME = "bootfs-{number}.cfg"
NEXT = ".next"


class Bootfs:
    """A loader that follows ``bootfs``; ``home`` is where the states are kept."""

    counter = ""
    apart = False

    def __init__(self, home: Path, storage: Storage) -> None:
        self.home = home
        self._storage = storage
        self._prepared = 0

    def install(self, root: Path, adopted: TreeInfo) -> bool:
        """Make the home and set aside directories with a state's name: ZFSBootMenu needs nothing else."""
        self.home.mkdir(mode=0o700, exist_ok=True)
        for path in self.home.glob(NAME.format(number="*")):
            if path.is_dir():
                durable.take_away(path)
        return False

    def check(self, root: Path, *, bare: bool = False) -> None:
        """Refuse a root without a kernel, or without an initrd for it."""
        kernels.check(root, bare=bare)

    def read(self) -> BootState | None:
        """Return the state of the generation that ``bootfs`` names, None if it names none."""
        default = self._storage.default_name()
        for path in self.home.glob(NAME.format(number="*")):
            number = _number(path)
            info = self._storage.describe(Tree(number, Part.ROOT))
            if info and info.name == default:
                return entryfile.parse(_text(path))
        return None

    def offer(self, number: int, title: str, root: Path, info: TreeInfo) -> BootEntry:
        """Return an entry for the newest kernel in the tree, which ZFSBootMenu will choose."""
        kernel = kernels.choose(root)
        return entry_of(number, title, kernel, f"{info.loader_path}/boot/", words_of(info, root))

    def words(self, root: Path, info: TreeInfo) -> str:
        """Return the words as one text."""
        return shlex.join(words_of(info, root))

    def missing(self, entry: BootEntry, root: Path, info: TreeInfo) -> list[str]:
        """Say that nothing is: ZFSBootMenu chooses from what is there."""
        return []

    def prepare(self, state: BootState) -> None:
        """Write the state that goes with the next default beside the one it may have."""
        text = entryfile.render(state, self._storage.uuid)
        durable.write_new(self._path(state.default, NEXT), text.encode(), 0o644)
        self._prepared = state.default

    def _path(self, number: int, ending: str = "") -> Path:
        return self.home / (NAME.format(number=number) + ending)

    def switch(self) -> None:
        """Set ``bootfs``; where it stays what it is, the state is what changes."""
        number = self._prepared
        try:
            os.replace(self._path(number, NEXT), self._path(number))
        except OSError as error:
            raise storage_error(error, "cannot switch what boots") from error
        info = self._storage.describe(Tree(number, Part.ROOT))
        if info is None:
            raise BootError(f"the root of generation {number} is missing", hint="run: snaptx repair")
        if info.name != self._storage.default_name():
            self._storage.make_default(Tree(number, Part.ROOT))

    def discard(self) -> None:
        """Remove states that were not switched to."""
        for path in self.home.glob(NAME.format(number="*") + NEXT):
            path.unlink()

    def forget(self, number: int) -> None:
        """Remove the state of a generation that goes."""
        self._path(number).unlink(missing_ok=True)

    def remove(self) -> None:
        """Remove the home."""
        shutil.rmtree(self.home, ignore_errors=True)

    def barrier(self) -> None:
        """Do nothing: the storage's barrier covers the states, and ``bootfs`` is durable once set."""


def _number(path: Path) -> int:
    found = re.search(r"\d+", path.name)
    return int(found[0]) if found else 0


def _text(path: Path) -> str:
    try:
        return entryfile.text(path)
    except OSError as error:
        message = f"what goes with bootfs can't be read: {error.strerror}"
        raise BootError(message, hint="look for errors with: dmesg") from error
