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
from snaptx.model import Part, Phase, Tree
from snaptx.overlay import scan
from snaptx.overlay.manifest import Manifest
from snaptx.overlay.transplant import transplant, uproot
from snaptx.sharing import attach
from snaptx.trees import copies
from snaptx.trees.treeview import TreeView


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
    make_directories(machine, number, base)
    if paths and policy is Nested.CARRY:
        _carry(machine, base, number, paths)
    elif paths and policy is Nested.SHARE:
        _share(machine, base, number, paths)


def make_directories(machine: Machine, number: int, base: int) -> bool:
    """Put a directory where the root of ``number`` shows a nested subvolume that ``base`` had.

    In what a snapshot shows there nothing can be made.  Returns whether there
    was any.  The manifest of what is sealed stays: it tells of the sealed tree.
    """
    with system.descriptor(machine.storage.path(Tree(number, Part.ROOT)), system.DIRECTORY) as root_fd:
        places = [path for path in _ever_inside(machine, base) if _is_placeholder(root_fd, path)]
        for path in places:
            _replace(machine.storage.path(Tree(base, Part.ROOT)), root_fd, path)
        if places and machine.phase(number) is Phase.STAGED and machine.manifest(number).exists():
            with Manifest.open(machine.manifest(number), writable=True) as manifest:
                manifest.put(difference.row_of(root_fd, path) for path in places)
    return bool(places)


def _ever_inside(machine: Machine, number: int) -> list[bytes]:
    """Return where a snapshot of a generation may lack a nested subvolume, though it may be gone by today."""
    recorded = machine.generations.read(number).nested
    found = {*_inside(machine, number), *machine.storage.running.nested, *recorded}
    return sorted(map(os.fsencode, found))


def _is_placeholder(root_fd: int, path: bytes) -> bool:
    try:
        fd = scan.open_directory(root_fd, path)
    except OSError:
        return False
    try:
        return os.fstat(fd).st_ino == scan.EMPTY_SUBVOLUME_INODE
    finally:
        os.close(fd)


def _replace(model: Path, root_fd: int, path: bytes) -> None:
    """Make a directory like the one in ``model``, if there is one, in place of a placeholder."""
    uproot(root_fd, path)
    directory, name = os.path.split(path)
    parent = scan.open_directory(root_fd, directory)
    try:
        os.mkdir(name, 0o755, dir_fd=parent)
    finally:
        os.close(parent)
    if model.is_dir():
        with system.descriptor(model, system.DIRECTORY) as model_fd, TreeView(model_fd) as view:
            seen = view.look(path)
            if seen and seen.is_directory:
                transplant(model_fd, root_fd, path)


def _carry(machine: Machine, base: int, number: int, paths: tuple[str, ...]) -> None:
    source, target = (machine.storage.path(Tree(n, Part.ROOT)) for n in (base, number))
    with (
        system.descriptor(target, system.DIRECTORY) as root_fd,
        Manifest.open(machine.manifest(number), writable=True) as manifest,
    ):
        for path in paths:
            copies.clone(source / path, target / path)
            manifest.put(difference.scan_below(root_fd, os.fsencode(path)))


def _share(machine: Machine, base: int, number: int, paths: tuple[str, ...]) -> None:
    info = machine.storage.describe(Tree(base, Part.ROOT))
    name = info.name if info else ""
    attach.attach_to(machine, number, [(f"/{path}", f"{name}/{path}") for path in paths])
