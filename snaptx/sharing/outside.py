"""Look what of the system lies outside the root, where no generation has its own.

An update in /usr of a generation is not seen where fstab mounts something else
at /usr.  A database of packages in a filesystem of its own goes neither forward
nor back with the programs that it tells of.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from snaptx import fstab, places, scene, system
from snaptx.errors import BootError, LayoutError
from snaptx.machine import Machine
from snaptx.sharing import residents

if TYPE_CHECKING:
    from snaptx.packages.base import Manager

_LAID_OVER = "overlay"
"""The filesystem of what systemd-sysext(8) and systemd-confext(8) lay over the root for a while."""

_SYSTEMD_BOOT = ("loader/loader.conf", "loader/entries", "EFI/systemd")
"""What bootctl, and who installs kernels for it, leave there (systemd-boot(7), "Files")."""

_GRUB = ("grub/grub.cfg", "grub2/grub.cfg")


def require_inside(machine: Machine) -> None:
    """Refuse a root that is not the whole system.

    Raises:
        LayoutError: a part of it lies outside; all of them are in the message.
        BootError: the EFI system partition is /boot.
    """
    _refuse_fat(machine)
    mounted, parts = _mounted(machine), _parts(machine)
    found = {_covering(machine, path, mounted - parts) for path in places.SYSTEM}
    if not machine.boot.apart:
        found.add(_covering(machine, "/boot", mounted))
    if lost := ", ".join(sorted(found - {""})):
        hint = "move it into the root and take it out of fstab"
        if lost == "/boot":
            hint += "; or give /boot a filesystem that is not copied with the root: ext4 or XFS"
        raise LayoutError(f"{lost} lies outside the root: no generation would have its own", hint=hint)


def _refuse_fat(machine: Machine) -> None:
    """Refuse to leave kernels on FAT, where a power cut in a rename or a mkdir costs more than that file."""
    boot = system.mount_at(machine.sysroot / "boot")
    if machine.boot.apart or boot is None or boot.fstype != "vfat":
        return
    hint = (
        "mount it at /boot/efi and have the kernels in the root's own /boot, or in one of ext4;"
        " then grub-install and grub-mkconfig"
    )
    if _has(machine, _SYSTEMD_BOOT) and not _has(machine, _GRUB):
        raise BootError("systemd-boot starts this machine from /boot, and snaptx needs GRUB", hint=hint)
    raise BootError(
        "/boot is the EFI system partition: FAT can't keep a kernel for each generation", hint=hint
    )


def _has(machine: Machine, names: Iterable[str]) -> bool:
    """Return whether any of these is in /boot."""
    return any(system.stat_in_root(machine.sysroot, f"boot/{name}") for name in names)


def databases(machine: Machine, managers: Iterable[Manager]) -> tuple[str, ...]:
    """Return where those of the managers that the machine has keep outside the root what is installed."""
    return _databases(machine.sysroot, managers, _mounted(machine))


def _databases(root: Path, managers: Iterable[Manager], mounted: set[str]) -> tuple[str, ...]:
    present = [manager for manager in managers if system.stat_in_root(root, manager.program)]
    kept = [path for manager in present for path in manager.database if system.stat_in_root(root, path)]
    homes = {_located(root, "/" + os.path.dirname(path)) for path in kept}
    return tuple(sorted(home for home in homes if places.is_below(home, mounted)))


def require_packages(machine: Machine, manager: Manager) -> None:
    """Refuse to change packages in a generation that has no database of them.

    Raises:
        LayoutError: it lies outside the root.
    """
    if found := databases(machine, [manager]):
        message = f"the package database, {found[0]}, lies outside the root: a generation has none"
        hint = "give the root a /var of its own again, or at least this directory, and take it out of fstab"
        raise LayoutError(message, hint=hint)


def data(machine: Machine, managers: Iterable[Manager]) -> tuple[str, ...]:
    """Return where data is mounted that belongs to no generation, and holds no database of packages."""
    mounted = _mounted(machine)
    known = _databases(machine.sysroot, managers, mounted)
    found = {path for path in mounted if places.is_below(path, places.MOVABLE)}
    return tuple(sorted(path for path in found if not any(places.is_below(one, [path]) for one in known)))


def covered(machine: Machine) -> tuple[str, ...]:
    """Return the places of which a generation's own content is not seen, for something is mounted there."""
    if not machine.sysroot.is_dir():  # an application's, which runs elsewhere
        return ()
    found = _mounted(machine) - _parts(machine) - ({"/boot"} if machine.boot.apart else set())
    return places.outermost(found)


def _parts(machine: Machine) -> set[str]:
    """Return where parts of the root itself are mounted, that go with each generation."""
    return {"/" + place for place, _ in machine.storage.running.mount.inside}


def _mounted(machine: Machine) -> set[str]:
    """Return where something is mounted into the root, or will be; a live switch is no part of that."""
    root = str(machine.sysroot.resolve())
    lasting = (mount for mount in system.mounts() if mount.fstype != _LAID_OVER)
    now = {residents.below(machine.sysroot, m.target) for m in lasting if places.is_below(m.target, [root])}
    awaited = fstab.targets(fstab.read(machine.sysroot))
    return (now - set(scene.note(machine).paths) | awaited) - {"/"}


def _covering(machine: Machine, path: str, mounted: Iterable[str]) -> str:
    """Return the place of ``mounted`` that ``path`` lies at or below, "" if it lies in the root."""
    found = _located(machine.sysroot, path)
    return max((place for place in mounted if places.is_below(found, [place])), key=len, default="")


def _located(sysroot: Path, path: str) -> str:
    """Return ``path`` without links, which lead nowhere out of the root; as it is if nothing is there."""
    try:
        with system.in_root(sysroot, path.lstrip("/"), os.O_PATH) as fd:
            return residents.path_of(sysroot, fd)
    except OSError:
        return path
