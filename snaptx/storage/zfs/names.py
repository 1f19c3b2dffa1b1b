"""What things are called on a pool, and what a listing of it means: rules without I/O.

::

    POOL/ROOT/NAME            the adopted boot environment, wherever it is, as it is
    POOL/ROOT/snaptx-N        the root of generation N, a clone beside it, its children below it
    ….unfinished              a writable tree that is being made
    …@snaptx-N-PART           a read-only tree, on whatever dataset it was taken of
    POOL/snaptx               never mounted, of no generation
        state  grub           snaptx's own files, and what GRUB reads of them
        trees/…               datasets that only carry trees
        cache                 what package managers have fetched
        shared/NAME           data that belongs to no generation

A writable tree is the dataset whose own ``org.snaptx:tree`` names it, a
read-only one the snapshot whose name does.  Promotion moves snapshots from one
dataset to another: so a tree is looked for, never computed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from snaptx.model import Part, Tree
from snaptx.storage.base import UNFINISHED

HOME = "snaptx"
TREE = "org.snaptx:tree"
"""User property: which tree a dataset is, as ``N/PART``."""

MENU = "org.zfsbootmenu:commandline"
"""User property: what ZFSBootMenu tells the kernel, set where it boots."""

AUTOMATIC = "org.snaptx:canmount"
"""User property of a child of the adopted root: its ``canmount`` from before, where that was "on"."""

HOLD = "org.snaptx:pinned"
"""Tag of the holds on the snapshots of a generation that is pinned."""

GONE = "snaptx-gone-"
"""How snapshots begin that nobody needs but a clone of them."""

_PLAIN = re.compile(r"[A-Za-z0-9_.\-]")


class Snapshot(NamedTuple):
    """A snapshot: its full name, the transaction group it was made in, its clones, the tags that hold it."""

    name: str
    txg: int
    clones: tuple[str, ...] = ()
    holds: tuple[str, ...] = ()

    @property
    def short(self) -> str:
        """Return what is behind the @."""
        return self.name.partition("@")[2]


class Dataset(NamedTuple):
    """A filesystem: ``tree`` as set on itself, its snapshots, oldest first.

    ``menu``: ZFSBootMenu is told how to boot it; ``automatic``: it was mounted with the pool before init.
    """

    name: str
    tree: str = ""
    mountpoint: str = ""
    canmount: str = "on"
    read_only: bool = False
    menu: bool = False
    automatic: bool = False
    origin: str = ""
    snapshots: tuple[Snapshot, ...] = ()


class Listing:
    """The filesystems that matter, by name."""

    def __init__(self, datasets: Mapping[str, Dataset]) -> None:
        self.datasets = datasets

    def find(self, tree: Tree) -> str:
        """Return the name of the dataset or snapshot that is ``tree``, "" if there is none."""
        wanted = snapshot_name(tree)
        for dataset in self.datasets.values():
            if dataset.tree == str(tree) and not is_unfinished(dataset.name):
                return dataset.name
            # Children have a snapshot of the same name: the one that is meant comes first.
            if any(snapshot.short == wanted for snapshot in dataset.snapshots):
                return f"{dataset.name}@{wanted}"
        return ""

    def family(self, name: str) -> list[Dataset]:
        """Return a dataset and what is below it, parents first."""
        return [one for one in self.datasets.values() if is_within(one.name, name)]

    def with_snapshot(self, name: str) -> list[Dataset]:
        """Return those of a snapshot's dataset and what is below it that have a snapshot of its name."""
        dataset, _, short = name.partition("@")
        return [one for one in self.family(dataset) if any(each.short == short for each in one.snapshots)]

    def parts(self, name: str) -> dict[str, str]:
        """Return what to mount to see a dataset or snapshot whole: {place below it: name}, itself first."""
        dataset, at, short = name.partition("@")
        root, *children = self.with_snapshot(name) if at else self.family(dataset)
        places = [(child.name, place_below(child, root)) for child in children]
        return {"": name, **{place: f"{child}{at}{short}" for child, place in places if place}}

    def everywhere(self) -> Iterator[Snapshot]:
        """Yield the snapshots of all datasets."""
        for dataset in self.datasets.values():
            yield from dataset.snapshots

    def snapshots(self, name: str) -> Iterator[Snapshot]:
        """Yield the snapshots of a dataset and of what is below it."""
        for dataset in self.family(name):
            yield from dataset.snapshots

    def dependents(self, name: str) -> list[str]:
        """Return which clones to promote so that nothing outside needs ``name`` and what is below it.

        One for each dataset: the clone of the newest snapshot that has any takes
        the older ones along.  All in one boot environment where it has them, so
        that snapshots of one name stay together.
        """
        found: list[str] = []
        for dataset in self.family(name):
            cloned = [one for one in dataset.snapshots if _outside(one, name)]
            if cloned:
                clones = _outside(cloned[-1], name)
                beside = [clone for clone in clones if found and is_within(clone, found[0])]
                found.append((beside or clones)[0])
        return found

    def living(self, name: str) -> list[Snapshot]:
        """Return the snapshots of a dataset itself that are trees, oldest first."""
        return [one for one in self.datasets[name].snapshots if tree_of(one.short)]

    def lineage(self, name: str) -> list[Snapshot]:
        """Return a snapshot and what it grew from: for each dataset the newest snapshot it shares."""
        found = []
        while name:
            dataset = self.datasets.get(name.partition("@")[0])
            here = [one for one in dataset.snapshots if one.name == name] if dataset else []
            if dataset is None or not here:
                break
            found += here
            name = dataset.origin
        return found

    def common(self, one: str, other: str) -> str:
        """Return the newest snapshot that two snapshots both grew from, "" if there is none."""
        theirs = {each.name.partition("@")[0]: each for each in self.lineage(other)}
        for each in self.lineage(one):
            meeting = theirs.get(each.name.partition("@")[0])
            if meeting:
                return min(each, meeting, key=lambda snapshot: snapshot.txg).name
        return ""

    def strays(self) -> list[str]:
        """Return the snapshots that only wait for their clones to go, and have none."""
        waiting = (one for one in self.everywhere() if one.short.startswith(GONE))
        return [one.name for one in waiting if not one.clones and not one.holds]

    def is_ours(self, name: str, home: str) -> bool:
        """Return whether a dataset is in ``home``, or is a tree or one in the making, or below such."""
        if is_within(name, home):
            return True
        above = (one for one in self.datasets.values() if is_within(name, one.name))
        return any(one.tree or is_unfinished(one.name) for one in above)

    def without_shared(self, home: str) -> list[str]:
        """Return what to remove so that of ``home`` only shared data is left: itself where there is none."""
        kept = f"{home}/shared"
        if len(self.family(kept)) <= 1:
            return [home]
        below = [one.name for one in self.family(home) if one.name.rpartition("/")[0] == home]
        return [name for name in below if name != kept]

    def empty_carriers(self, place: str) -> list[str]:
        """Return the datasets directly below ``place`` that are no tree and carry none."""
        return [
            one.name
            for one in self.datasets.values()
            if one.name.rpartition("/")[0] == place and not one.tree and not self.living(one.name)
        ]


def _outside(snapshot: Snapshot, name: str) -> list[str]:
    return [clone for clone in snapshot.clones if not is_within(clone, name)]


def is_unfinished(name: str) -> bool:
    """Return whether a dataset is a tree that is being made; its name tells, for properties come later."""
    begun = rf"(snaptx-\d+|\d+-\w+){re.escape(UNFINISHED)}"
    return re.fullmatch(begun, name.rpartition("/")[2]) is not None


def is_within(name: str, other: str) -> bool:
    """Return whether a dataset is ``other`` or below it."""
    return name == other or name.startswith(other + "/")


def snapshot_name(tree: Tree) -> str:
    """Return what a read-only tree is called behind the @."""
    return f"snaptx-{tree.number}-{tree.part}"


def tree_of(short: str) -> Tree | None:
    """Return the tree that a snapshot's name means, None for another's snapshot."""
    found = re.fullmatch(r"snaptx-(\d+)-(\w+)", short)
    if found is None or found[2] not in set(Part):
        return None
    return Tree(int(found[1]), Part(found[2]))


def root_name(container: str, number: int) -> str:
    """Return what the root of a generation is called as a boot environment."""
    return f"{container}/snaptx-{number}"


def shared_place(home: str, name: str) -> str:
    """Return the dataset of a shared tree, whose name elsewhere is a path from the top level.

    What lies in the state directory there lies beside it here, and goes with it.
    """
    inside = name.removeprefix(f"@{HOME}/")
    return f"{home}/{'shared/' * (inside == name)}{shared_name(inside)}"


def shared_name(name: str) -> str:
    """Return a component of a dataset's name for ``name``: "@home" becomes "home".

    What ZFS does not allow, and the colon that marks it, becomes ":XX".
    """
    raw = name.removeprefix("@").encode("utf-8", "surrogateescape")
    return "".join(chr(byte) if _PLAIN.match(chr(byte)) else f":{byte:02x}" for byte in raw)


def place_below(child: Dataset, root: Dataset) -> str | None:
    """Return where in its boot environment a child is mounted, None if nowhere.

    The root itself is mounted at "/", or wherever its mountpoint says.
    """
    if child.canmount == "off" or not child.mountpoint.startswith("/"):
        return None
    top = root.mountpoint.rstrip("/") if root.mountpoint.startswith("/") else ""
    if not child.mountpoint.startswith(top + "/"):
        return None
    return child.mountpoint[len(top) + 1 :] or None


def kernel_words(name: str) -> tuple[str, ...]:
    """Return what the kernel is told to find its root: zfs-initramfs reads + as a space."""
    return (f"root=ZFS={name.replace(' ', '+')}",)


def loader_path(name: str) -> str:
    """Return how GRUB begins a path in a dataset or snapshot: "/ROOT/debian@", and a snapshot's name."""
    dataset, _, short = name.partition("@")
    return f"/{dataset.partition('/')[2]}@{short}"
