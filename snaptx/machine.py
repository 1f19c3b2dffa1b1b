"""Everything a verb works on, opened once: storage, boot loader, records, configuration."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from snaptx import config as configuration
from snaptx import fstab, system
from snaptx.bootloader.base import BootLoader
from snaptx.config import Config
from snaptx.errors import BootError, LayoutError, NotFoundError, ReadOnlyError, UsageError
from snaptx.generations import Generations
from snaptx.journal import Journal
from snaptx.model import BootState, Generation, Part, Phase, Tree, View
from snaptx.storage.base import Storage, TreeInfo

if TYPE_CHECKING:
    from snaptx.audit import Audit
    from snaptx.bootloader.counter import Counter, InPartition
    from snaptx.bootloader.install import Installer

_NOT_FOR_KERNELS = ("vfat", "btrfs", "zfs")
"""Filesystems on which a /boot of its own is not kept from the generations: see ``sharing.outside``."""


class Machine:
    """One system root and what snaptx knows of it."""

    def __init__(self, sysroot: Path, config: Config, storage: Storage, boot: BootLoader) -> None:
        self.sysroot = sysroot
        self.config = config
        self.storage = storage
        self.boot = boot

    @cached_property
    def generations(self) -> Generations:
        """Return the generations' records."""
        return Generations(self.storage.state / "generations")

    @cached_property
    def journal(self) -> Journal:
        """Return the journal."""
        return Journal(self.storage.state / "journal")

    @cached_property
    def audit(self) -> Audit:
        """Return the audit trail."""
        from snaptx.audit import Audit

        return Audit(self.storage.state / "audit", self.storage.spare)

    @cached_property
    def installer(self) -> Installer | None:
        """Return how this machine is made to start by snaptx's menu, None if it is a sandbox."""
        from snaptx.bootloader import install

        mount = system.mount_at(self.sysroot)
        return install.find(self.sysroot, mount, self.boot) if mount else None

    @property
    def lock(self) -> Path:
        """Return the lock's path."""
        return self.storage.state / "lock"

    def manifest(self, number: int) -> Path:
        """Return the path of a generation's manifest."""
        return self.storage.state / "manifests" / f"{number}.sqlite"

    def fresh_manifest(self, number: int) -> Path:
        """Return the path of a manifest that is not complete yet and is to replace another."""
        return self.manifest(number).with_suffix(".sqlite.new")

    @property
    def initialised(self) -> bool:
        """Return whether ``snaptx init`` has adopted this root."""
        return self.generations.has(1) or bool(self.generations.recorded())

    def require(self) -> None:
        """Refuse a root that was not adopted.

        Raises:
            NotFoundError: ``snaptx init`` was not run.
        """
        if not self.storage.state.is_dir() or not self.initialised:
            raise NotFoundError(f"{self.sysroot} is not managed by snaptx", hint="run: snaptx init")

    def require_writable(self) -> None:
        """Refuse a running root that can't change, or what decides about its boot.

        Raises:
            ReadOnlyError: the filesystem, the running subvolume or a /boot of its own is read-only.
        """
        if self.storage.running.read_only:
            raise ReadOnlyError(
                f"{self.sysroot} is read-only", hint="mount -o remount,rw, or boot a writable root"
            )
        boot = self.sysroot / "boot"
        if self.boot.apart and os.statvfs(boot).f_flag & os.ST_RDONLY:
            hint = f"mount -o remount,rw {boot}; where that fails, 'dmesg' tells why"
            raise ReadOnlyError(f"{boot} is read-only", hint=hint)

    @cached_property
    def booted(self) -> int:
        """Return the number of the running generation, 0 if the running root is none."""
        name = self.storage.running.name
        numbers = reversed(self.generations.numbers())
        return next((n for n in numbers if self.storage.name(Tree(n, Part.ROOT)) == name), 0)

    def require_generation(self) -> None:
        """Refuse a running root that is no generation.

        Raises:
            NotFoundError: it is none.
        """
        if not self.booted:
            raise NotFoundError("the running root is no generation", hint="boot one of 'snaptx list'")

    def require_root(self, number: int) -> TreeInfo:
        """Return what is known of a generation's root, which has to be there.

        Raises:
            NotFoundError: it is missing.
        """
        info = self.storage.describe(Tree(number, Part.ROOT))
        if info is None:
            raise NotFoundError(f"the root of generation {number} is missing", hint="run: snaptx repair")
        return info

    def phase(self, number: int) -> Phase:
        """Return how far a recorded generation has come."""
        sealed = self.storage.name(Tree(number, Part.SEALED))
        return Phase.COMMITTED if sealed else Phase.STAGED

    def boot_state(self) -> BootState:
        """Return what the entry file says.

        Raises:
            NotFoundError: there is no entry file.
            BootError: it is damaged.
        """
        state = self.boot.read()
        if state is None:
            raise NotFoundError("there is no boot entry file", hint="run: snaptx repair")
        return state

    def views(self) -> list[View]:
        """Return every recorded generation with what is derived about it, ascending."""
        default = self.boot_state().default
        return [self._view(generation, default) for generation in self.generations.recorded()]

    def _view(self, generation: Generation, default: int) -> View:
        number = generation.number
        return View(generation, self.phase(number), number == self.booted, number == default)

    def protect_pinned(self) -> bool:
        """Have the filesystem keep what is pinned from others, as the records say; return if that is new."""
        return self.storage.protect(self._pinned())

    def _pinned(self) -> Iterator[int]:
        yield from (generation.number for generation in self.generations.recorded() if generation.pinned)

    def staged(self) -> list[int]:
        """Return the staged generations, ascending."""
        recorded = [generation.number for generation in self.generations.recorded()]
        return [number for number in recorded if self.phase(number) is Phase.STAGED]


def open_machine(sysroot: Path, config_file: Path | None = None) -> Machine:
    """Open the root mounted at ``sysroot``.

    Raises:
        UsageError: nothing is mounted there.
        LayoutError: its filesystem can't hold generations.
    """
    mount = system.mount_at(sysroot)
    if mount is None:
        hint = "name the directory where the system root is mounted"
        raise UsageError(f"{sysroot} is not the root of a mounted filesystem", hint=hint)
    config = configuration.load(sysroot, config_file)
    storage = _open_storage(mount)
    return Machine(sysroot, config, storage, _open_boot(sysroot, mount, storage))


def _open_storage(mount: system.Mount) -> Storage:
    if mount.fstype == "btrfs":
        from snaptx.storage.btrfs import BtrfsStorage

        return BtrfsStorage(mount)
    if mount.fstype == "zfs":
        from snaptx.storage.zfs.backend import ZfsStorage

        return ZfsStorage(mount)
    hint = "snaptx needs a root on Btrfs or ZFS; 'snaptx sandbox create DIR' makes one to try it on"
    raise LayoutError(f"{mount.target} is {mount.fstype}, not btrfs or zfs", hint=hint)


def _open_boot(sysroot: Path, root: system.Mount, storage: Storage) -> BootLoader:
    from snaptx.bootloader.inroot import GrubInRoot

    boot = system.mount_at(sysroot / "boot")
    if boot is None and "/boot" in fstab.targets(fstab.read(sysroot)):
        raise BootError("/boot is not mounted, though fstab names it", hint="mount /boot")
    if boot is None or boot.device == root.device or boot.fstype in _NOT_FOR_KERNELS:
        if root.fstype == "zfs" and (menu := _boot_menu(storage)):
            return menu
        home, own = storage.state / "grub", sysroot / "boot"
        return GrubInRoot(home, lambda: storage.uuid, lambda: _find_counter(sysroot, None), own)
    from snaptx.bootloader import counter
    from snaptx.bootloader.onboot import GrubOnBoot

    return GrubOnBoot(
        sysroot / "boot", lambda: counter.uuid_of(boot.source), lambda: _find_counter(sysroot, boot)
    )


def _find_counter(sysroot: Path, boot: system.Mount | None) -> Counter | InPartition | None:
    from snaptx.bootloader import counter  # most verbs read what boots, and no more

    return counter.locate(sysroot, boot)


def _boot_menu(storage: Storage) -> BootLoader | None:
    """Return what follows ``bootfs``, None where GRUB boots the pool."""
    from snaptx.bootloader.bootfs import Bootfs
    from snaptx.storage.zfs.backend import ZfsStorage

    by_menu = isinstance(storage, ZfsStorage) and storage.by_menu
    return Bootfs(storage.state / "grub", storage) if by_menu else None
