"""The storage that keeps generations as ZFS boot environments.

What is called how is in ``names``, how trees come and go in ``trees``.  A tree
is reached through a mount without a mount point, with the children of its
boot environment in their places: nobody else sees it and it ends with the
process.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from snaptx import mounting, system
from snaptx.errors import BusyError, LayoutError, NotFoundError, storage_error
from snaptx.model import Part, Tree
from snaptx.storage.base import STATE_DIRECTORIES, UNFINISHED, MountSpec, TreeInfo
from snaptx.storage.zfs import difference, library, names, pool
from snaptx.storage.zfs.names import TREE
from snaptx.storage.zfs.trees import Trees

POOL_ROOT_HINT = (
    "move the system into a boot environment first: from a rescue system, 'zfs snapshot', 'zfs send | "
    "zfs receive' into POOL/ROOT/NAME, set bootfs, reboot, then 'snaptx init'"
)


class ZfsStorage:
    """The generations on one pool, seen from one system root."""

    spare: Path | None = None
    """Metadata takes room where data does, and the audit trail keeps some of that back."""

    def __init__(self, mount: system.Mount) -> None:
        library.load()
        self._mount = mount
        self._dataset = mount.source
        self._pool = pool.look(library.pool_of(mount.source))
        pool.require_sound(self._pool)
        self.uuid = f"{self._pool.guid:016x}"
        self._trees = Trees(self._dataset.rpartition("/")[0] or self._dataset)
        self._mounted: dict[str, mounting.DetachedMount] = {}
        self._state = mounting.nothing()

    def close(self) -> None:
        """Let go of every mount, for a process that goes on; nothing can be done with this afterwards."""
        for made in self._mounted.values():
            made.close()
        if f"{self._trees.home}/state" not in self._mounted:
            os.close(self._state)
        self._mounted.clear()

    @property
    def state(self) -> Path:
        """Return the directory of snaptx's own files, GRUB's dataset mounted in it; no directory before."""
        name, loader = f"{self._trees.home}/state", f"{self._trees.home}/grub"
        if name in self._mounted or name in self._trees.listing.datasets:
            self._reach(name, {"": name, "grub": loader}, self._state)
        return Path(f"/proc/self/fd/{self._state}")

    @property
    def free_percent(self) -> float:
        """Return how much of the pool is free, or of what quotas leave to the boot environments if less."""
        return pool.free_percent(self._pool.name, self._trees.container)

    @property
    def running(self) -> TreeInfo:
        """Describe the root that is mounted as the system root."""
        if "/" not in self._dataset:
            message = f"{self._mount.target} is the root of the pool {self._dataset}, not a boot environment"
            raise LayoutError(message + ": it can't be switched for another", hint=POOL_ROOT_HINT)
        return self._info(self._dataset)

    @property
    def by_menu(self) -> bool:
        """Return whether ZFSBootMenu boots the running root."""
        return self._trees.listing.datasets[self._dataset].menu

    def prepare(self, adopted: TreeInfo) -> None:
        """Make ``POOL/snaptx`` and say on the adopted root that it is generation 1."""
        home, known = self._trees.home, self._trees.listing
        if home in known.datasets and not known.datasets[home].tree:
            hint = f"rename it: zfs rename {home} …"
            raise BusyError(f"the dataset {home} exists and is not snaptx's", hint=hint)
        closed: dict[str, str | int] = {"mountpoint": "none", "canmount": library.CANMOUNT_OFF}
        opened: dict[str, str | int] = {"mountpoint": "legacy", "canmount": library.CANMOUNT_NOAUTO}
        wanted = {home: closed | {TREE: names.HOME}}
        wanted |= {f"{home}/{name}": closed for name in ("trees", "shared")}
        wanted |= {f"{home}/{name}": opened for name in ("grub", "state")}
        for name, properties in wanted.items():
            if name not in known.datasets:
                library.create(name, properties)
        if known.find(Tree(1, Part.ROOT)) != adopted.name:
            library.together(f"cannot adopt {adopted.name}", ("set", adopted.name, TREE, "1/root"))
        self._trees.keep_apart(adopted.name)
        self._fill_state()

    def _fill_state(self) -> None:
        try:
            self.state.chmod(0o700)
            for name in (*STATE_DIRECTORIES, "generations/1"):
                (self.state / name).mkdir(exist_ok=True)
        except OSError as error:
            raise storage_error(error, "cannot make the state directory") from error
        self._release(f"{self._trees.home}/state")  # GRUB's dataset has its place now

    def path(self, tree: Tree) -> Path:
        """Return where ``tree`` can be reached from this process."""
        name = self._name(tree)
        return self._reach(name, self._trees.listing.parts(name))

    def _reach(self, name: str, parts: dict[str, str], at: int | None = None) -> Path:
        if name not in self._mounted:
            with _named():
                self._mounted[name] = mounting.detached_tree("zfs", parts, at)
        return self._mounted[name].path

    def _release(self, name: str) -> None:
        if name in self._mounted:
            mounting.release(self._mounted.pop(name))

    def _release_within(self, name: str) -> None:
        """Let go of a dataset with its snapshots, or of one snapshot: what is mounted can't be destroyed."""
        for known in list(self._mounted):
            if known == name or names.is_within(known.partition("@")[0], name):
                self._release(known)

    def _is_read_only(self, name: str) -> bool:
        dataset = self._trees.listing.datasets.get(name)
        return bool(dataset and dataset.read_only)

    def _name(self, tree: Tree) -> str:
        name = self._trees.listing.find(tree)
        if not name:
            raise NotFoundError(f"there is no generation {tree}", hint="'snaptx list' shows what there is")
        return name

    def name(self, tree: Tree) -> str:
        """Return the dataset or snapshot that ``tree`` is, "" if it does not exist."""
        return self._trees.listing.find(tree) or ""

    def describe(self, tree: Tree) -> TreeInfo | None:
        """Describe ``tree``, or return None if it does not exist."""
        name = self._trees.listing.find(tree)
        return self._info(name) if name else None

    def _info(self, name: str) -> TreeInfo:
        running_read_only = name == self._dataset and "ro" in self._mount.super_options.split(",")
        return TreeInfo(
            name=name,
            read_only="@" in name or self._is_read_only(name) or running_read_only,
            nested=(),
            mount=MountSpec(name, "zfs", "", tuple(self._trees.listing.parts(name).items())[1:]),
            cmdline=names.kernel_words(name),
            loader_path=names.loader_path(name),
        )

    def snapshot(self, source: Tree, target: Tree, *, writable: bool) -> None:
        """Make ``target`` a snapshot of ``source``; ZFS commits it before it returns."""
        name = self._name(source)
        if self._trees.listing.find(target):
            raise BusyError(f"there is a generation {target} already", hint="run: snaptx repair")
        if writable:
            self._trees.grow(name, target)
        elif "@" in name:
            self._trees.copy(name, target)
        else:
            self._trees.take(name, names.snapshot_name(target))

    def guard(self, tree: Tree) -> None:
        """Refuse to let a mounted tree go, the default, or one that somebody else's clones or holds need."""
        self._trees.forget()
        name = self._trees.listing.find(tree)
        if not name:
            return
        if "@" not in name and name == self.default_name():
            raise BusyError(f"generation {tree} is the pool's bootfs", hint="'snaptx repair' may help")
        users = [mount.target for mount in system.mounts_everywhere(" zfs ") if _shows(mount, name)]
        if users:
            raise BusyError(f"generation {tree} is mounted at {users[0]}", hint="unmount it first")
        for reason in self._trees.foreign(name):
            hint = "destroy or promote the clone, or release the hold (zfs release)"
            raise BusyError(f"generation {tree} can't go: {reason}", hint=hint)

    def delete(self, tree: Tree, *, lasting: bool = True) -> None:
        """Remove ``tree`` if it exists and ``guard`` lets it go."""
        self.guard(tree)
        name = self._trees.listing.find(tree)
        self._release_within(name)
        if "@" in name:
            self._trees.drop(name)
        elif name:
            self._trees.remove_dataset(name)
        self._trees.abandon(tree)
        self._trees.sweep()
        self._follow()

    def claim(self, trees: Iterable[Tree]) -> None:
        """Do nothing: ZFS has no such claim, and refuses to destroy what is being sent."""

    def protect(self, numbers: Iterable[int]) -> bool:
        """Hold the snapshots of these generations, and release those of the others."""
        return self._trees.hold(numbers)

    def _follow(self) -> None:
        """Know snapshots that are mounted by their new names, where a promotion has moved them."""
        for known in [name for name in self._mounted if "@" in name]:
            tree = names.tree_of(known.partition("@")[2])
            name = self._trees.listing.find(tree) if tree else ""
            if name and name != known:
                self._mounted[name] = self._mounted.pop(known)

    def touched(self, old: Tree, new: Tree) -> Iterable[bytes]:
        """Name every path that may differ, as ``zfs diff`` finds it."""
        one, other = (self._trees.listing.parts(self._name(tree)) for tree in (old, new))
        found = {os.fsencode(place) for place in one.keys() ^ other.keys()}
        for place in one.keys() & other.keys():
            for path in self._touched(one[place], other[place]):
                found.add(os.fsencode(place) + b"/" * bool(place and path) + path)
        for tree in (old, new):
            with system.descriptor(self.path(tree), system.DIRECTORY) as fd:
                found |= difference.all_names(fd, found)
        return found

    def _touched(self, one: str, other: str) -> set[bytes]:
        common = self._trees.listing.common(one, other)
        if not common:
            raise NotFoundError(f"{one} and {other} have nothing in common", hint="they can't be compared")
        found: set[bytes] = set()
        for name in {one, other} - {common}:
            found |= difference.touched(common, name)
        return found

    def unwritten(self, tree: Tree, since: Tree) -> bool:
        """Never say so: it is known with the next transaction group, and so is a snapshot."""
        return False

    def make_default(self, tree: Tree) -> None:
        """Set ``bootfs``; durable on return."""
        pool.set_bootfs(self._pool.name, self._name(tree))

    def default_name(self) -> str:
        """Return ``bootfs``, "" if there is none."""
        return pool.bootfs(self._pool.name)

    def forsake(self, default: str, let_go: Callable[[], None] = lambda: None) -> None:
        """Remove every generation but the adopted root, and ``POOL/snaptx``, once nothing in it is open."""
        pool.set_bootfs(self._pool.name, default)
        self._release_within(self._trees.container)
        self._release_within(self._trees.home)
        self._trees.remove_all(self._name(Tree(1, Part.ROOT)), let_go)

    def shared(self, name: str) -> TreeInfo | None:
        """Describe the dataset for ``name``, or return None if there is none."""
        dataset = self._shared_dataset(name)
        return self._info(dataset) if dataset in self._trees.listing.datasets else None

    def _shared_dataset(self, name: str) -> str:
        return names.shared_place(self._trees.home, name)

    def shared_path(self, name: str) -> Path:
        """Return where it can be reached from this process."""
        dataset = self._shared_dataset(name)
        return self._reach(dataset, {"": dataset})

    def begin_shared(self, name: str) -> Path:
        """Make an empty dataset, under a name that tells it is not finished."""
        self.abandon_shared(name)
        dataset = self._shared_dataset(name + UNFINISHED)
        library.create(dataset, {"mountpoint": "legacy", "canmount": library.CANMOUNT_NOAUTO})
        self._trees.forget()
        return self._reach(dataset, {"": dataset})

    def abandon_shared(self, name: str) -> None:
        """Destroy the dataset that is not finished."""
        dataset = self._shared_dataset(name + UNFINISHED)
        self._release(dataset)
        if dataset in self._trees.listing.datasets:
            self._trees.remove_dataset(dataset)

    def keep_shared(self, name: str) -> None:
        """Rename it; durable on return."""
        begun = self._shared_dataset(name + UNFINISHED)
        self._release(begun)
        library.rename(begun, self._shared_dataset(name))
        self._trees.forget()

    def barrier(self) -> None:
        """Return when the pool has written all of it, not only to its intent log: GRUB never replays that."""
        library.sync(self._pool.name)


def _shows(mount: system.Mount, name: str) -> bool:
    if mount.fstype != "zfs":
        return False
    return mount.source == name if "@" in name else names.is_within(mount.source.partition("@")[0], name)


@contextmanager
def _named() -> Iterator[None]:
    """Say which dataset can't be mounted: of a boot environment it may be any."""
    try:
        yield
    except PermissionError as error:
        message = f"cannot mount {error.filename}: {error.strerror}"
        raise LayoutError(message, hint="load the key: zfs load-key") from error
    except OSError as error:
        raise storage_error(error, f"cannot mount {error.filename}") from error
