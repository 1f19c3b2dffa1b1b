"""Let the fstab of a root mount what belongs to no generation."""

from __future__ import annotations

import os
from pathlib import Path

from snaptx import difference, durable, fstab, system
from snaptx.errors import LayoutError, storage_error
from snaptx.machine import Machine
from snaptx.model import Part, Tree
from snaptx.overlay.manifest import Manifest
from snaptx.sharing import conversions


def attach(root: Path, uuid: str, shared: list[tuple[str, str]]) -> bool:
    """Add lines for the (path, subvolume) pairs that fstab below ``root`` lacks, in one durable step.

    Returns whether it lacked any.

    Raises:
        LayoutError: fstab is a symbolic link.
        StorageError: the filesystem refused; fstab is as it was.
    """
    path = root / fstab.NAME
    if path.is_symlink() or path.parent.is_symlink():
        raise LayoutError(f"/{fstab.NAME} is a symbolic link", hint="put a file of its own in its place")
    text = fstab.read(root)
    wanted = fstab.add(text, uuid, shared)
    if wanted != text:
        _replace(path, wanted.encode(errors="surrogateescape"))
    return wanted != text


def _replace(path: Path, data: bytes) -> None:
    """Put ``data`` into a file that keeps its owner, mode and attributes."""
    fresh = path.with_name(path.name + ".snaptx")
    durable.write_new(fresh, data, 0o644)
    try:
        if path.exists():
            found = path.stat()
            os.chown(fresh, found.st_uid, found.st_gid)
            fresh.chmod(found.st_mode & 0o7777)
            for name in os.listxattr(path):
                os.setxattr(fresh, name, os.getxattr(path, name))
        os.replace(fresh, path)
        durable.sync_directory(path.parent)
    except OSError as error:
        fresh.unlink(missing_ok=True)
        raise storage_error(error, f"cannot replace /{fstab.NAME}") from error


def follow(machine: Machine, number: int) -> bool:
    """Let generation ``number`` mount what the running root mounts, and say so in its manifest.

    A generation from before a conversion would show the data as it was then.
    Returns whether anything was missing.
    """
    return attach_to(machine, number, conversions.mounted_by(machine))


def attach_to(machine: Machine, number: int, shared: list[tuple[str, str]]) -> bool:
    """Do as `attach` for the root of generation ``number``, and say so in its manifest."""
    root = machine.storage.path(Tree(number, Part.ROOT))
    if not shared or not attach(root, machine.storage.uuid, shared):
        return False
    if machine.manifest(number).exists():
        with (
            system.descriptor(root, system.DIRECTORY) as root_fd,
            Manifest.open(machine.manifest(number), writable=True) as manifest,
        ):
            manifest.put([difference.row_of(root_fd, fstab.NAME.encode())])
    return True
