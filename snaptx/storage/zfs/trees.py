"""Make and remove trees: snapshots, clones, and what has to be promoted before anything can go.

Each step leaves every other tree as it was, and a removal that was cut short
can be begun again.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable

from snaptx.errors import BusyError
from snaptx.model import Part, Tree
from snaptx.storage.base import UNFINISHED
from snaptx.storage.zfs import library, names, pool
from snaptx.storage.zfs.names import AUTOMATIC, GONE, HOLD, HOME, TREE, Dataset, Listing


class Trees:
    """The trees of one container of boot environments."""

    def __init__(self, container: str) -> None:
        self.container = container
        self.home = f"{library.pool_of(container)}/{HOME}"
        self.carriers = f"{self.home}/trees"
        self._known: Listing | None = None

    @property
    def listing(self) -> Listing:
        """Return what there is, as last seen."""
        if self._known is None:
            self._known = library.listing((self.container, self.home))
        return self._known

    def forget(self) -> None:
        """Look again the next time."""
        self._known = None

    def keep_apart(self, adopted: str) -> None:
        """Let the children of the adopted root be mounted with it only, not over those of what boots.

        Whatever mounts a root, such as zfs-initramfs, mounts what is below it, "noauto" or not.
        """
        for one in self.listing.family(adopted)[1:]:
            if one.canmount == "on" and one.mountpoint.startswith("/"):
                pool.set_properties(one.name, {"canmount": "noauto", AUTOMATIC: "on"})
        self.forget()

    def _leave_together(self, adopted: str) -> None:
        for one in self.listing.family(adopted)[1:]:
            if one.automatic:
                pool.set_properties(one.name, {"canmount": "on"})
                library.together(f"cannot release {one.name}", ("inherit", one.name, AUTOMATIC))

    def take(self, source: str, short: str) -> None:
        """Snapshot a dataset and what is below it, at one instant."""
        try:
            library.snapshot(f"{one.name}@{short}" for one in self.listing.family(source))
        finally:
            self.forget()

    def copy(self, source: str, target: Tree) -> None:
        """Make a snapshot of a snapshot, on a clone of it that carries nothing else."""
        carrier = self._carrier()
        self._clone(source, carrier)
        self.take(carrier, names.snapshot_name(target))

    def grow(self, source: str, target: Tree) -> None:
        """Make ``target`` a writable clone of a dataset or snapshot with what is below it.

        Raises:
            BusyError: the name is taken by something of somebody else's.
        """
        place = self._place(target)
        self.forget()
        if place in self.listing.datasets:
            hint = f"rename it: zfs rename {place} …"
            raise BusyError(f"the dataset {place} exists and is not the one that is to be made", hint=hint)
        self.abandon(target)
        passing = "" if "@" in source else f"{source}@{GONE}{secrets.token_hex(4)}"
        if passing:
            self.take(source, passing.partition("@")[2])
        try:
            self._clone(passing or source, place + UNFINISHED)
            self._finish(place, target)
        finally:
            if passing:
                library.destroy_snapshots(self._members(passing), defer=True)
            self.forget()

    def _place(self, tree: Tree) -> str:
        if tree.part is Part.ROOT:
            return names.root_name(self.container, tree.number)
        return f"{self.carriers}/{tree.number}-{tree.part}"

    def _carrier(self) -> str:
        return f"{self.carriers}/{secrets.token_hex(4)}"

    def _members(self, snapshot: str) -> list[str]:
        short = snapshot.partition("@")[2]
        return [f"{one.name}@{short}" for one in self.listing.with_snapshot(snapshot)]

    def abandon(self, tree: Tree) -> None:
        """Destroy what is there of a writable tree whose making was cut short."""
        begun = self._place(tree) + UNFINISHED
        if begun in self.listing.datasets:
            self.remove_dataset(begun)

    def _clone(self, snapshot: str, place: str) -> None:
        """Clone a snapshot with those below it."""
        top = snapshot.partition("@")[0]
        short = snapshot.partition("@")[2]
        for one in self.listing.with_snapshot(snapshot):
            name = place + one.name[len(top) :]
            library.clone(name, f"{one.name}@{short}", _mounting(one, as_root=one.name == top))
            pool.set_properties(name, pool.own_properties(one.name))
        self.forget()

    def _finish(self, place: str, tree: Tree) -> None:
        """Make a whole clone the tree: only its last step, one in ZFS, lets anybody see it as that."""
        library.together(f"cannot finish {place}", ("set", place + UNFINISHED, TREE, str(tree)))
        library.rename(place + UNFINISHED, place)
        self.forget()

    def hold(self, numbers: Iterable[int]) -> bool:
        """Hold the read-only trees of these generations, and of no others; return if that is new."""
        wanted = set(numbers)
        trees = [(each, tree) for each in self.listing.everywhere() if (tree := names.tree_of(each.short))]
        loose = [each.name for each, tree in trees if tree.number in wanted and HOLD not in each.holds]
        spare = [each.name for each, tree in trees if tree.number not in wanted and HOLD in each.holds]
        try:
            library.hold(loose, HOLD)
            library.release(spare, HOLD)
        finally:
            self.forget()
        return bool(loose or spare)

    def drop(self, snapshot: str) -> None:
        """Remove a read-only tree: its snapshots go, or wait without a name for their clones to go."""
        short = snapshot.partition("@")[2]
        members = self.listing.with_snapshot(snapshot)
        found = [each for one in members for each in one.snapshots if each.short == short]
        try:
            library.release((each.name for each in found if HOLD in each.holds), HOLD)
            if any(each.clones for each in found):
                fresh = GONE + secrets.token_hex(4)
                steps = [("rename", one.name, short, fresh) for one in members]
                library.together(f"cannot remove {snapshot}", *steps)
                library.destroy_snapshots((f"{one.name}@{fresh}" for one in members), defer=True)
            else:
                library.destroy_snapshots(f"{one.name}@{short}" for one in members)
        finally:
            self.forget()

    def remove_dataset(self, name: str) -> None:
        """Destroy a dataset and what is below it; what depends on it, and trees it carries, live on."""
        try:
            self._free(name)
            living = self.listing.living(name)
            if living:
                self._clone(living[-1].name, self._carrier())
                self._free(name)
            library.destroy_snapshots(each.name for each in self.listing.snapshots(name))
            family = reversed(self.listing.family(name))
            library.together(f"cannot destroy {name}", *(("destroy", one.name) for one in family))
        finally:
            self.forget()

    def _free(self, name: str) -> None:
        clones = self.listing.dependents(name)
        library.together(f"cannot free {name}", *(("promote", clone) for clone in clones))
        self.forget()

    def sweep(self) -> None:
        """Destroy the datasets that carry no tree any more, and snapshots that nothing needs."""
        if strays := self.listing.strays():
            library.destroy_snapshots(strays)
            self.forget()
        for name in self.listing.empty_carriers(self.carriers):
            self.remove_dataset(name)

    def remove_all(self, adopted: str, let_go: Callable[[], None]) -> None:
        """Destroy every generation, and all else of snaptx's, but the adopted root and shared data.

        What is left is destroyed in one step: a pool shows all of snaptx's home or none.
        ``let_go`` closes what is open in it, for that is mounted and could not go.
        """
        self.hold(())
        for name in self._every_root():
            if name != adopted:
                self.remove_dataset(name)
        while found := [each.name for each in self.listing.everywhere() if names.tree_of(each.short)]:
            self.drop(found[0])
        self.sweep()
        self._leave_together(adopted)
        let_go()
        self._remove_home(adopted)
        self.forget()

    def _remove_home(self, adopted: str) -> None:
        places = self.listing.without_shared(self.home)
        snapshots = [each.name for place in places for each in self.listing.snapshots(place)]
        datasets = [one.name for place in places for one in reversed(self.listing.family(place))]
        # What may be in use comes first: nothing is undone where a step fails.
        datasets.sort(key=lambda name: name != f"{self.home}/state")
        steps = [("destroy", name) for name in (*snapshots, *datasets)]
        library.together(f"cannot remove {self.home}", *steps, ("inherit", adopted, TREE))

    def _every_root(self) -> list[str]:
        known = self.listing.datasets.values()
        return [one.name for one in known if one.tree.endswith(f"/{Part.ROOT}")]

    def foreign(self, name: str) -> Iterable[str]:
        """Return the clones of a dataset, or of a snapshot, that are not snaptx's, and snapshots held."""
        dataset, _, short = name.partition("@")
        for each in self.listing.snapshots(dataset):
            if short in ("", each.short):
                others = (one for one in each.clones if not self.listing.is_ours(one, self.home))
                yield from (f"{clone} is a clone of it" for clone in others)
                for tag in set(each.holds) - {HOLD}:
                    yield f"{each.name} is held as {tag!r} (zfs holds)"


def _mounting(source: Dataset, *, as_root: bool) -> dict[str, str | int]:
    """Return how a clone is mounted: where its source is, and never by itself."""
    kind = library.CANMOUNT_OFF if source.canmount == "off" else library.CANMOUNT_NOAUTO
    return {"mountpoint": source.mountpoint, "canmount": library.CANMOUNT_NOAUTO if as_root else kind}
