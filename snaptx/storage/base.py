"""What snaptx asks of a filesystem that can snapshot: the seam between rules and storage.

Every implementation passes tests/contract.  Errors are StorageError or below.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, Protocol

from snaptx.errors import NotFoundError
from snaptx.model import Tree

STATE_DIRECTORIES = ("generations", "grub", "journal", "audit", "manifests")
"""What lies in the state directory besides the lock."""

APPS = "apps"
"""The directory beside them that holds the application trees, each with a state directory of its own."""

STATE = "@snaptx"
"""The subvolume at the top level of a Btrfs that holds the state directory and the generations."""

CACHE = f"{STATE}/cache"
"""The shared tree with what package managers have fetched: it goes with the state directory."""

UNFINISHED = ".unfinished"
"""Behind the name of what is being made or filled."""


@contextmanager
def gone_is_well(path: Path) -> Iterator[None]:
    """Take it for no error that somebody else has removed ``path`` during the block."""
    try:
        yield
    except (NotFoundError, FileNotFoundError):
        if path.is_dir():
            raise


class MountSpec(NamedTuple):
    """What mount(8) is told to mount one tree; ``inside`` are (place, source) of what belongs into it."""

    source: str
    fstype: str
    options: str
    inside: tuple[tuple[str, str], ...] = ()


class TreeInfo(NamedTuple):
    """What a backend knows of a tree.

    ``name`` is the backend's own name for it (a subvolume's path from the top
    level); ``nested`` the paths inside it that a snapshot leaves out;
    ``cmdline`` what the kernel is told to find it as its root; ``loader_path``
    how a boot loader that has found the filesystem (by its UUID) begins a path
    inside the tree.
    """

    name: str
    read_only: bool
    nested: tuple[str, ...]
    mount: MountSpec
    cmdline: tuple[str, ...]
    loader_path: str


class Storage(Protocol):
    """A filesystem that holds generations."""

    @property
    def state(self) -> Path:
        """Return the directory of snaptx's own files; it belongs to no generation."""
        ...

    @property
    def spare(self) -> Path | None:
        """Return where metadata is kept back for removals, None where those need none."""
        ...

    @property
    def uuid(self) -> str:
        """Return the filesystem's UUID, as a boot loader searches for it."""
        ...

    @property
    def free_percent(self) -> float:
        """Return how much is free of the room that generations have, whoever else uses it."""
        ...

    @property
    def running(self) -> TreeInfo:
        """Describe the root that is mounted as the system root."""
        ...

    def prepare(self, adopted: TreeInfo) -> None:
        """Make the state directory, with ``adopted`` in place as the root of generation 1."""
        ...

    def path(self, tree: Tree) -> Path:
        """Return where ``tree`` can be reached; ends with the process."""
        ...

    def name(self, tree: Tree) -> str:
        """Return the name of ``tree`` (see TreeInfo), "" if it does not exist; cheap, with many trees."""
        ...

    def describe(self, tree: Tree) -> TreeInfo | None:
        """Describe ``tree``, or return None if it does not exist."""
        ...

    def snapshot(self, source: Tree, target: Tree, *, writable: bool) -> None:
        """Make ``target`` a snapshot of ``source``; durable on return."""
        ...

    def guard(self, tree: Tree) -> None:
        """Refuse to let ``tree`` go if something needs it; one that does not exist may go.

        Raises:
            BusyError: it is mounted, the default, or has subvolumes inside that hold something.
        """
        ...

    def delete(self, tree: Tree, *, lasting: bool = True) -> None:
        """Remove ``tree`` if it exists and ``guard`` lets it go.

        Without ``lasting`` a power cut before the next commit may bring it back.

        Raises:
            BusyError: it is mounted, the default, or has subvolumes inside that hold something.
        """
        ...

    def claim(self, trees: Iterable[Tree]) -> None:
        """Have it that nobody sends one of ``trees``, as a backup does, while it goes.

        What ``guard`` looks for can begin again at any time; this can't.  Those that do not exist may go.

        Raises:
            BusyError: one is being sent; all are as before.
        """
        ...

    def protect(self, numbers: Iterable[int]) -> bool:
        """Let nobody else remove the trees of these generations, and of no others; return if that is new.

        Derived from what is pinned; where the filesystem knows no such thing, nothing happens.
        """
        ...

    def touched(self, old: Tree, new: Tree) -> Iterable[bytes] | None:
        """Name every path that may differ between two read-only trees, in time proportional to that.

        None where one is too long for it to be told: then only a walk of both trees finds them.
        """
        ...

    def unwritten(self, tree: Tree, since: Tree) -> bool:
        """Return whether nothing was written in ``tree`` after its snapshot ``since``, by the last barrier.

        Said only where that is known without another snapshot.
        """
        ...

    def make_default(self, tree: Tree) -> None:
        """Make ``tree`` what a mount without further options shows; derived state, not the switch."""
        ...

    def default_name(self) -> str:
        """Return the name (see TreeInfo) of what ``make_default`` last set, "" if nothing."""
        ...

    def forsake(self, default: str, let_go: Callable[[], None] = lambda: None) -> None:
        """Remove the state directory, ``CACHE`` and every tree in it; the adopted root and shared data stay.

        ``default`` is the tree to make the filesystem's own default again, "" for none of them.
        ``let_go`` closes what this process has open in the state directory, its locks among it: it is
        called when nothing else is left, for a filesystem may keep what is open.

        Raises:
            BusyError: somebody else uses it; the rest can be removed later.
        """
        ...

    def shared(self, name: str) -> TreeInfo | None:
        """Describe a tree that belongs to no generation, or return None if there is none of that name."""
        ...

    def shared_path(self, name: str) -> Path:
        """Return where such a tree can be reached; ends with the process."""
        ...

    def begin_shared(self, name: str) -> Path:
        """Make an empty tree to become ``name``, in place of one begun and not kept; return where."""
        ...

    def abandon_shared(self, name: str) -> None:
        """Remove a tree that was begun and not kept, if there is one."""
        ...

    def keep_shared(self, name: str) -> None:
        """Give the tree that was begun its name.

        Raises:
            StorageError: the name is taken; nothing has changed.
        """
        ...

    def barrier(self) -> None:
        """Return when everything done so far survives a power cut and a boot loader sees it.

        Raises:
            StorageError: it may not.
        """
        ...
