"""Generations as Btrfs subvolumes: the only module that knows ``btrfsutil``.

::

    /@                        the adopted root, wherever the distribution put it
    /@snaptx/                 a subvolume, 0700
        generations/1/root    a symbolic link to the adopted root
        generations/N/origin  read-only snapshot of the base
        generations/N/root    what boots
        generations/N/sealed  read-only snapshot of root as committed
        grub/ journal/ audit/ manifests/ lock

The top level is mounted without a mount point (fsmount): nobody else sees it
and it ends with ``close`` or with the process.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path, PurePosixPath

import btrfsutil

from snaptx import chattr, mounting, system
from snaptx.durable import sync_directory
from snaptx.errors import BusyError, LayoutError, ReadOnlyError
from snaptx.generations import Generations
from snaptx.model import Part, Tree
from snaptx.storage import apptree, btrfsioctl
from snaptx.storage.base import APPS, STATE, STATE_DIRECTORIES, UNFINISHED, MountSpec, TreeInfo, gone_is_well
from snaptx.storage.refusals import translated, unless_held

ROOT_INODE = 256
TOP_LEVEL = 5
"""BTRFS_FIRST_FREE_OBJECTID and BTRFS_FS_TREE_OBJECTID, linux/btrfs_tree.h."""

FLAT_HINT = (
    "move the system into a subvolume first: boot a rescue system, mount the top level, "
    "'btrfs subvolume snapshot . @', set rootflags=subvol=@ and fstab, reboot, then 'snaptx init'"
)


class BtrfsStorage:
    """The generations on one Btrfs filesystem, seen from one system root."""

    def __init__(self, mount: system.Mount, place: str = STATE) -> None:
        self._mount, self._place = mount, place
        with translated(f"cannot mount the top level of {mount.source}"):
            made = mounting.detached_mount("btrfs", mount.source, _options(mount))
        with translated("cannot read the filesystem's UUID"):
            self.uuid = btrfsioctl.filesystem_id(made.fd)
        # Older than every write the barrier answers for.
        self._made, self._fd, self._top = made, made.fd, made.path
        self._device = mount.device
        self.spare: Path | None = self._top / STATE / "audit/spare"  # for applications, too

    def close(self) -> None:
        """Let go of the top level, for a process that goes on; nothing can be done with this afterwards."""
        self._made.close()

    @property
    def state(self) -> Path:
        """Return the directory of snaptx's own files."""
        return self._top / self._place

    @property
    def free_percent(self) -> float:
        """Return how much of the filesystem is free."""
        return system.free_percent(self._top)

    @property
    def running(self) -> TreeInfo:
        """Describe the root that is mounted as the system root."""
        name = self._mount.root.strip("/")
        if not name:
            message = f"{self._mount.target} is the top level of its filesystem, not a subvolume"
            raise LayoutError(message + ": it can't be switched for another", hint=FLAT_HINT)
        if (self._top / name).is_dir() and (self._top / name).stat().st_ino != ROOT_INODE:
            message = f"{self._mount.target} is a directory of its filesystem, not a subvolume"
            raise LayoutError(message, hint="name the mount point of a subvolume")
        return self._describe(self._top / name)

    def prepare(self, adopted: TreeInfo) -> None:
        """Make ``@snaptx`` with its directories and the link to the adopted root."""
        with translated(f"cannot make {self._place}"):
            self._make_state()
            first = self.state / "generations/1"
            first.mkdir(exist_ok=True)
            link = first / "root"
            if not link.is_symlink():
                link.symlink_to(PurePosixPath("../../..") / adopted.name)

    def _make_state(self) -> None:
        if not self.state.exists():
            btrfsutil.create_subvolume(str(self.state))
        self.state.chmod(0o700)
        for name in STATE_DIRECTORIES:
            (self.state / name).mkdir(exist_ok=True)

    def path(self, tree: Tree) -> Path:
        """Return where ``tree`` can be reached from this process."""
        name = self.state / "generations" / str(tree.number) / tree.part
        if name.is_symlink():
            return self._top / os.path.normpath(
                f"{self._place}/generations/{tree.number}/{os.readlink(name)}"
            )
        return name

    def name(self, tree: Tree) -> str:
        """Return the path of ``tree`` from the top level, "" if it does not exist."""
        path = self.path(tree)
        return str(path.relative_to(self._top)) if path.is_dir() else ""

    def describe(self, tree: Tree) -> TreeInfo | None:
        """Describe ``tree``, or return None if it does not exist."""
        path = self.path(tree)
        with gone_is_well(path):
            return self._describe(path) if path.is_dir() else None
        return None

    def _describe(self, path: Path) -> TreeInfo:
        with translated(f"cannot read the subvolume {path.name}"):
            name = str(path.relative_to(self._top))
            number = btrfsutil.subvolume_id(str(path))
            children = btrfsutil.SubvolumeIterator(self._fd, top=number)
            nested = tuple(sorted(child for child, _ in children))
            read_only = btrfsutil.get_subvolume_read_only(str(path)) or self._is_read_only()
        return TreeInfo(
            name=name,
            read_only=read_only,
            nested=nested,
            mount=MountSpec(self._mount.source, "btrfs", f"subvol={name}"),
            cmdline=(f"root=UUID={self.uuid}", f"rootflags=subvol={name}"),
            loader_path=f"/{name}",
        )

    def snapshot(self, source: Tree, target: Tree, *, writable: bool) -> None:
        """Make ``target`` a snapshot of ``source``; the kernel commits it before it returns."""
        place = self.state / "generations" / str(target.number) / target.part
        with translated(f"cannot snapshot generation {source}"):
            btrfsutil.create_snapshot(str(self.path(source)), str(place), read_only=not writable)

    def delete(self, tree: Tree, *, lasting: bool = True) -> None:
        """Remove ``tree`` if it exists and ``guard`` lets it go."""
        path = self.path(tree)
        link = self.state / "generations" / str(tree.number) / tree.part
        if path.is_dir():
            self.guard(tree)
            with gone_is_well(path), translated(f"cannot delete generation {tree}"), unless_held(tree):
                _allow_changes(path)
                for inside in sorted(self._describe(path).nested, reverse=True):
                    os.rmdir(path / inside)  # unlike delete_subvolume, of an empty one alone
                btrfsutil.delete_subvolume(str(path))
                if lasting:
                    sync_directory(path.parent)
        if link.is_symlink():
            link.unlink(missing_ok=True)

    def guard(self, tree: Tree) -> None:
        """Refuse to let a mounted tree go, the default, or one with subvolumes inside that hold something.

        delete_subvolume itself checks none of this before it destroys.
        """
        info = self.describe(tree)
        if info is None:
            return
        held = [inside for inside in info.nested if any(os.scandir(self.path(tree) / inside))]
        if held:
            hint = "move or delete them first: " + ", ".join(held)
            raise BusyError(f"generation {tree} has subvolumes inside", hint=hint)
        if btrfsutil.get_default_subvolume(self._fd) == btrfsutil.subvolume_id(str(self.path(tree))):
            raise BusyError(f"generation {tree} is the default subvolume", hint="'snaptx repair' may help")
        ours = system.mounts_everywhere(f" {self._device} ")
        users = [mount.target for mount in ours if self._shows(mount, info.name)]
        if users:
            raise BusyError(f"generation {tree} is mounted at {users[0]}", hint="unmount it first")

    def claim(self, trees: Iterable[Tree]) -> None:
        """Make them writable: that, the kernel refuses for one that is sent, and sends none that is."""
        claimed: list[str] = []
        for tree in trees:
            path = str(self.path(tree))
            if not os.path.isdir(path) or not btrfsutil.get_subvolume_read_only(path):
                continue
            try:
                with suppress(OSError), unless_held(tree):  # a full disk allows less than a deletion needs
                    btrfsutil.set_subvolume_read_only(path, False)
            except BusyError:
                for each in claimed:
                    btrfsutil.set_subvolume_read_only(each, True)
                raise
            claimed.append(path)

    def _shows(self, mount: system.Mount, name: str) -> bool:
        return mount.device == self._device and (mount.root + "/").startswith(f"/{name}/")

    def protect(self, numbers: Iterable[int]) -> bool:
        """Do nothing: Btrfs lets root delete any subvolume."""
        return False

    def touched(self, old: Tree, new: Tree) -> Iterable[bytes] | None:
        """Name every path that may differ, as ``btrfs send`` finds it."""
        from snaptx.storage import sendstream

        with (
            system.descriptor(self.path(old), system.DIRECTORY) as old_fd,
            system.descriptor(self.path(new), system.DIRECTORY) as new_fd,
        ):
            return sendstream.touched(old_fd, new_fd, btrfsutil.subvolume_id(old_fd))

    def unwritten(self, tree: Tree, since: Tree) -> bool:
        """Compare transactions: its snapshot is the last that a tree shows until it is written to."""
        with translated(f"cannot read the subvolumes of generation {tree}"):
            now, then = (btrfsutil.subvolume_info(str(self.path(one))) for one in (tree, since))
        return any(now.uuid) and then.parent_uuid == now.uuid and now.generation <= then.otransid

    def make_default(self, tree: Tree) -> None:
        """Set the default subvolume; a barrier has to follow. Only the quota of the top level counts."""
        with translated(f"cannot make generation {tree} the default subvolume"):
            btrfsutil.set_default_subvolume(self._fd, btrfsutil.subvolume_id(str(self.path(tree))))

    def default_name(self) -> str:
        """Return the path of the default subvolume, "" for the top level."""
        with translated("cannot read the default subvolume"):
            number = btrfsutil.get_default_subvolume(self._fd)
            return str(btrfsutil.subvolume_path(self._fd, number)) if number != TOP_LEVEL else ""

    def forsake(self, default: str, let_go: Callable[[], None] = lambda: None) -> None:
        """Remove ``@snaptx`` with the subvolumes in it, after the default leads elsewhere."""
        with translated(f"cannot remove {STATE}"):
            number = btrfsutil.subvolume_id(str(self._top / default)) if default else TOP_LEVEL
            btrfsutil.set_default_subvolume(self._fd, number)
            self.barrier()
            _delete_subvolumes(self.state)
        self.barrier()
        let_go()  # it keeps nothing here: others stay locked out to the end

    def shared(self, name: str) -> TreeInfo | None:
        """Describe what is called ``name`` at the top level, or return None if nothing is."""
        path = self.shared_path(name)
        return self._describe(path) if path.is_dir() else None

    def shared_path(self, name: str) -> Path:
        """Return where a subvolume at the top level can be reached from this process."""
        return self._top / name

    def begin_shared(self, name: str) -> Path:
        """Make an empty subvolume at the top level, under a name that tells it is not finished."""
        self.abandon_shared(name)
        path = self.shared_path(name + UNFINISHED)
        with translated(f"cannot make the subvolume {name}"):
            btrfsutil.create_subvolume(str(path))
        return path

    def abandon_shared(self, name: str) -> None:
        """Delete the subvolume that is not finished."""
        path = self.shared_path(name + UNFINISHED)
        if path.is_dir():
            with translated(f"cannot delete the unfinished subvolume {name}"):
                btrfsutil.delete_subvolume(str(path))

    def keep_shared(self, name: str) -> None:
        """Rename it; the next barrier makes that durable."""
        path = self.shared_path(name)
        if os.path.lexists(path):
            raise BusyError(
                f"{name} exists at the top level of the filesystem", hint="mount it, or rename it"
            )
        with translated(f"cannot keep the subvolume {name}"):
            os.rename(self.shared_path(name + UNFINISHED), path)

    def barrier(self) -> None:
        """Commit the filesystem's transaction.

        ``syncfs`` alone says yes after an aborted commit, the ioctl alone
        after a failed data write, so both are asked; and both on a descriptor
        that is older than the writes they answer for.
        """
        with translated("the filesystem could not be made durable"):
            system.syncfs(self._fd)
            btrfsioctl.commit(self._fd)
        if self._is_read_only():
            raise ReadOnlyError("the filesystem turned read-only", hint="look at the kernel log (dmesg)")

    def _is_read_only(self) -> bool:
        return bool(os.fstatvfs(self._fd).f_flag & os.ST_RDONLY)


def _options(mount: system.Mount) -> dict[str, str]:
    """Return how to mount the top level: writable would make a read-only filesystem writable for all."""
    read_only = {"ro": ""} if "ro" in mount.super_options.split(",") else {}
    return {"subvolid": str(TOP_LEVEL), **read_only}


def _allow_changes(path: Path) -> None:
    """Take from a tree's top directory what keeps it from being deleted: an administrator's chattr(1)."""
    with system.descriptor(path, system.DIRECTORY) as fd:
        if chattr.of(fd) & chattr.FORBIDDING:
            btrfsutil.set_subvolume_read_only(fd, False)
            chattr.change(fd, 0, chattr.FORBIDDING)


def _delete_subvolumes(place: Path) -> None:
    """Delete a subvolume with those inside, innermost first."""
    top = btrfsutil.subvolume_id(str(place))
    for path in [path for path, _ in btrfsutil.SubvolumeIterator(str(place), top=top, post_order=True)]:
        _allow_changes(place / path)
        btrfsutil.delete_subvolume(str(place / path))
    btrfsutil.delete_subvolume(str(place))


class AppStorage(BtrfsStorage):
    """The generations of an application tree, in ``@snaptx/apps/NAME``, laid out as those of the root.

    Its generation 1 is an empty subvolume, and what "runs" is what the pointer
    file in ``home`` names: ``chosen`` reads that.  There is no default subvolume to derive.
    """

    def __init__(self, mount: system.Mount, name: str, chosen: Callable[[Path], int]) -> None:
        super().__init__(mount, f"{STATE}/{APPS}/{name}")
        self._chosen = chosen

    @property
    def home(self) -> Path:
        """Return the directory of the pointer file."""
        return self.state / "grub"

    @property
    def running(self) -> TreeInfo:
        """Describe the root of the generation that the pointer names, of the newest one where it is lost."""
        return self._describe(self.path(Tree(self._chosen(self.home) or self._newest(), Part.ROOT)))

    def _newest(self) -> int:
        """Return the newest generation that was committed, the first one before there is any."""
        committed = (number for number in self._numbers() if self.name(Tree(number, Part.SEALED)))
        return max(committed, default=1)

    def _numbers(self) -> list[int]:
        return Generations(self.state / "generations").numbers()

    def create(self) -> None:
        """Make the state directory and the empty root of generation 1."""
        with translated(f"cannot make {self._place}"):
            self.state.parent.mkdir(mode=0o700, exist_ok=True)
            self._make_state()
            root = self.path(Tree(1, Part.ROOT))
            root.parent.mkdir(exist_ok=True)
            if not root.exists():
                btrfsutil.create_subvolume(str(root))
                root.chmod(0o755)  # whatever the umask: who runs in it need not be root

    def prepare(self, adopted: TreeInfo) -> None:
        """Do nothing: ``create`` made it, since there is nothing to adopt before."""

    def make_default(self, tree: Tree) -> None:
        """Do nothing: the filesystem's default is the machine's."""

    def default_name(self) -> str:
        """Return what the pointer names: nothing else says it."""
        return self.running.name

    def guard(self, tree: Tree) -> None:
        """Refuse to let what the pointer names go either."""
        super().guard(tree)
        info = self.describe(tree)
        if info and info.name == self.running.name:
            raise BusyError(f"the application is at generation {tree}", hint="switch to another one first")

    def forsake(self, default: str, let_go: Callable[[], None] = lambda: None) -> None:
        """Remove the state directory and every tree in it; there is no adopted root, and no default.

        A rename comes first, so that a power cut leaves all of it or nothing that has its name.

        Raises:
            BusyError: something of it is mounted, or has subvolumes inside that hold something.
        """
        for number in self._numbers():
            for part in Part:
                super().guard(Tree(number, part))
        self.sweep()
        with translated(f"cannot remove {self._place}"):
            os.rename(self.state, self.gone)
        self.sweep()  # no barrier before it: Btrfs commits in order
        self.barrier()
        let_go()

    def sweep(self) -> None:
        """Remove what is left of what was forsaken under this name, if anything is."""
        with translated(f"cannot remove {self._place}"):
            if os.path.lexists(self.gone):
                apptree.require(self.gone)
                _delete_subvolumes(self.gone)

    @property
    def gone(self) -> Path:
        """Return where the state directory lies once it is forsaken, until it is removed."""
        return self.state.with_name(f".{self.state.name}")
