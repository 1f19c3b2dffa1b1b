"""Subvolumes inside the root: a snapshot shows them as empty directories.

What becomes of them is the administrator's decision (``[staging] nested``):
refuse to go on, carry their content into the generation, or share them by a
line in its fstab.  Empty ones lose nothing: an empty directory takes their
place.
"""

from __future__ import annotations

import os
from pathlib import Path

from snaptx import difference, system
from snaptx.config import Nested
from snaptx.errors import LayoutError
from snaptx.machine import Machine
from snaptx.model import Part, Tree
from snaptx.overlay.manifest import Manifest
from snaptx.overlay.transplant import transplant, uproot
from snaptx.sharing import attach
from snaptx.trees import copies


def check(machine: Machine, base: int, policy: Nested) -> tuple[str, ...]:
    """Return the paths of the nested subvolumes that hold something.

    Raises:
        LayoutError: there are some, and the policy is to refuse.
    """
    return _full(machine.storage.path(Tree(base, Part.ROOT)), _inside(machine, base), policy)


def check_running(machine: Machine, policy: Nested) -> tuple[str, ...]:
    """Return the same for the running root, adopted or not."""
    return _full(machine.sysroot, machine.storage.running.nested, policy)


def _inside(machine: Machine, number: int) -> tuple[str, ...]:
    info = machine.storage.describe(Tree(number, Part.ROOT))
    return info.nested if info else ()


def _full(root: Path, inside: tuple[str, ...], policy: Nested) -> tuple[str, ...]:
    found = tuple(path for path in inside if any(os.scandir(root / path)))
    if found and policy is Nested.REFUSE:
        message = "the root has subvolumes inside, which a snapshot leaves out: /" + ", /".join(found)
        hint = "move them out and mount them, or set [staging] nested to 'carry' or 'share'"
        raise LayoutError(message, hint=hint)
    return found


def settle(machine: Machine, base: int, number: int, paths: tuple[str, ...], policy: Nested) -> None:
    """Do with the nested subvolumes of ``base`` what the policy says, in generation ``number``."""
    _make_directories(machine, base, number)
    if paths and policy is Nested.CARRY:
        _carry(machine, base, number, paths)
    elif paths and policy is Nested.SHARE:
        _share(machine, base, number, paths)


def _make_directories(machine: Machine, base: int, number: int) -> None:
    """Put a directory where the snapshot shows a nested subvolume: in what it shows nothing can be made."""
    inside = _inside(machine, base)
    if not inside:
        return
    with (
        system.descriptor(machine.storage.path(Tree(base, Part.ROOT)), system.DIRECTORY) as source_fd,
        system.descriptor(machine.storage.path(Tree(number, Part.ROOT)), system.DIRECTORY) as target_fd,
        Manifest.open(machine.manifest(number), writable=True) as manifest,
    ):
        for path in map(os.fsencode, inside):
            uproot(target_fd, path)
            transplant(source_fd, target_fd, path)
            manifest.put([difference.row_of(target_fd, path)])


def _carry(machine: Machine, base: int, number: int, paths: tuple[str, ...]) -> None:
    source, target = (machine.storage.path(Tree(n, Part.ROOT)) for n in (base, number))
    with (
        system.descriptor(target, system.DIRECTORY) as root_fd,
        Manifest.open(machine.manifest(number), writable=True) as manifest,
    ):
        for path in paths:
            copies.clone(source / path, target / path)
            manifest.put(difference.scan_below(machine, root_fd, os.fsencode(path)))


def _share(machine: Machine, base: int, number: int, paths: tuple[str, ...]) -> None:
    info = machine.storage.describe(Tree(base, Part.ROOT))
    name = info.name if info else ""
    attach.attach_to(machine, number, [(f"/{path}", f"{name}/{path}") for path in paths])
