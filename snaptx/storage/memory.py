"""Generations as plain directories, for unit tests and the contract suite.

Snapshots are copies, the barrier does nothing, and nothing here proves that a
real filesystem would behave: it only lets the rules run without root.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

from snaptx import system
from snaptx.errors import BusyError, NotFoundError
from snaptx.model import Part, Tree
from snaptx.storage.base import STATE_DIRECTORIES, UNFINISHED, MountSpec, TreeInfo, gone_is_well


class MemoryStorage:
    """The generations below one directory, normally on tmpfs."""

    spare: Path | None = None

    def __init__(self, directory: Path, adopted: str = "@") -> None:
        self._top = directory
        self._running = adopted
        self._default = ""
        self.uuid = "memory"
        self.barriers = 0

    @property
    def state(self) -> Path:
        """Return the directory of snaptx's own files."""
        return self._top / "@snaptx"

    @property
    def free_percent(self) -> float:
        """Return how much of the filesystem around it is free."""
        return system.free_percent(self._top)

    @property
    def running(self) -> TreeInfo:
        """Describe the root that counts as mounted."""
        return self._describe(self._top / self._running)

    def boot(self, tree: Tree) -> None:
        """Make ``tree`` the running root, as a reboot would."""
        self._running = str(self.path(tree).relative_to(self._top))

    def prepare(self, adopted: TreeInfo) -> None:
        """Make the state directory and the link to the adopted root."""
        for name in STATE_DIRECTORIES:
            (self.state / name).mkdir(parents=True, exist_ok=True)
        link = self.state / "generations/1/root"
        link.parent.mkdir(exist_ok=True)
        if not link.is_symlink():
            link.symlink_to(self._top / adopted.name)

    def path(self, tree: Tree) -> Path:
        """Return the tree's directory."""
        name = self.state / "generations" / str(tree.number) / tree.part
        return Path(os.readlink(name)) if name.is_symlink() else name

    def name(self, tree: Tree) -> str:
        """Return the path of ``tree`` from the top, "" if it does not exist."""
        path = self.path(tree)
        return str(path.relative_to(self._top)) if path.is_dir() else ""

    def describe(self, tree: Tree) -> TreeInfo | None:
        """Describe ``tree``, or return None if it does not exist."""
        path = self.path(tree)
        return self._describe(path) if path.is_dir() else None

    def _describe(self, path: Path) -> TreeInfo:
        name = str(path.relative_to(self._top))
        cmdline = ("root=memory", f"rootflags=subvol={name}")
        read_only = path.name in (Part.ORIGIN, Part.SEALED)
        return TreeInfo(name, read_only, (), MountSpec(str(path), "none", "bind"), cmdline, f"/{name}")

    def snapshot(self, source: Tree, target: Tree, *, writable: bool) -> None:
        """Copy ``source``."""
        if self.describe(source) is None:
            raise NotFoundError(f"there is no generation {source}", hint="'snaptx list' shows what there is")
        place = self.state / "generations" / str(target.number) / target.part
        shutil.copytree(self.path(source), place, symlinks=True)

    def guard(self, tree: Tree) -> None:
        """Refuse to let the running root or the default go."""
        info = self.describe(tree)
        if info and info.name in (self._running, self._default):
            raise BusyError(f"generation {tree} is in use", hint="reboot into another one first")

    def delete(self, tree: Tree, *, lasting: bool = True) -> None:
        """Remove ``tree`` if it exists and is neither running nor the default."""
        path = self.path(tree)
        if not path.is_dir():
            return
        self.guard(tree)
        with gone_is_well(path):
            shutil.rmtree(path)
        (self.state / "generations" / str(tree.number) / tree.part).unlink(missing_ok=True)

    def claim(self, trees: Iterable[Tree]) -> None:
        """Do nothing: nobody else is here."""

    def protect(self, numbers: Iterable[int]) -> bool:
        """Do nothing: nobody else is here."""
        return False

    def touched(self, old: Tree, new: Tree) -> Iterable[bytes]:
        """Name every path of both trees: plain copies share nothing that would tell more."""
        for root in (self.path(old), self.path(new)):
            for path in root.rglob("*"):
                yield os.fsencode(path.relative_to(root))

    def unwritten(self, tree: Tree, since: Tree) -> bool:
        """Never say so: a plain copy does not tell."""
        return False

    def make_default(self, tree: Tree) -> None:
        """Remember ``tree`` as the default."""
        self._default = str(self.path(tree).relative_to(self._top))

    def default_name(self) -> str:
        """Return the name of the default tree, "" if none was set."""
        return self._default

    def forsake(self, default: str, let_go: Callable[[], None] = lambda: None) -> None:
        """Remove everything but the adopted root."""
        self._default = default
        let_go()
        shutil.rmtree(self.state)

    def shared(self, name: str) -> TreeInfo | None:
        """Describe a shared tree, or return None if it does not exist."""
        path = self.shared_path(name)
        return self._describe(path) if path.is_dir() else None

    def shared_path(self, name: str) -> Path:
        """Return the shared tree's directory."""
        return self._top / name

    def begin_shared(self, name: str) -> Path:
        """Make an empty directory."""
        self.abandon_shared(name)
        path = self.shared_path(name + UNFINISHED)
        path.mkdir()
        return path

    def abandon_shared(self, name: str) -> None:
        """Remove it."""
        shutil.rmtree(self.shared_path(name + UNFINISHED), ignore_errors=True)

    def keep_shared(self, name: str) -> None:
        """Rename it."""
        if self.shared(name):
            raise BusyError(f"{name} exists", hint="move it away")
        self.shared_path(name + UNFINISHED).rename(self.shared_path(name))

    def barrier(self) -> None:
        """Count the call."""
        self.barriers += 1
