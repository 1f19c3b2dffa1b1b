"""Subvolumes inside the root: a snapshot shows them as empty directories.

What becomes of them is the administrator's decision (``[staging] nested``):
refuse to go on, carry their content into the generation, or share them by a
line in its fstab.  Empty ones lose nothing: an empty directory takes their
place.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from snaptx import difference, fstab, places, system
from snaptx.config import Nested
from snaptx.errors import LayoutError, storage_error
from snaptx.ground import filled, inside
from snaptx.machine import Machine
from snaptx.model import Kind, Part, Phase, Row, Tree
from snaptx.overlay import scan
from snaptx.overlay.manifest import Manifest
from snaptx.overlay.transplant import transplant, uproot
from snaptx.sharing import attach
from snaptx.trees.treeview import TreeView, above, joined


def check(machine: Machine, base: int, policy: Nested) -> tuple[str, ...]:
    """Return the paths of the nested subvolumes that hold something.

    Raises:
        LayoutError: there are some, and the policy is to refuse.
    """
    return _full(machine.storage.path(Tree(base, Part.ROOT)), inside(machine, base), policy)


def check_running(machine: Machine, policy: Nested) -> tuple[str, ...]:
    """Return the same for the running root, adopted or not."""
    return _full(machine.sysroot, machine.storage.running.nested, policy)


def _full(root: Path, places: tuple[str, ...], policy: Nested) -> tuple[str, ...]:
    found = filled(root, places)
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
    found = {*inside(machine, number), *machine.storage.running.nested, *recorded}
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
    bring(machine, base, number, [Late(os.fsencode(path), whole=True) for path in paths])


def _share(machine: Machine, base: int, number: int, paths: tuple[str, ...]) -> None:
    info = machine.storage.describe(Tree(base, Part.ROOT))
    name = info.name if info else ""
    attach.attach_to(machine, number, [(f"/{path}", f"{name}/{path}") for path in paths])


class Late(NamedTuple):
    """What has to be brought into a generation: one path, or a ``whole`` directory."""

    path: bytes
    whole: bool


def since(machine: Machine, number: int, ancestor: Tree) -> list[Late]:
    """Return what the nested subvolumes of the running root hold that a staged generation lacks.

    What was carried into it is looked through for changes; what its fstab
    mounts goes along by itself.  What was removed from them stays in the copy.

    Raises:
        LayoutError: one that it knows nothing of holds something, and the policy is not to carry.
    """
    source = machine.storage.path(Tree(machine.booted, Part.ROOT))
    full = filled(source, machine.storage.running.nested)
    if not full:
        return []
    known = _known(machine, number, ancestor)
    target = machine.storage.path(Tree(number, Part.ROOT))
    mounted = fstab.targets(fstab.read(target)) & {f"/{path}" for path in known}
    own = [path for path in full if not places.is_below(f"/{path}", mounted)]
    fresh = [path for path in own if path not in known]
    if fresh and machine.config.staging.nested is not Nested.CARRY:
        raise _unknown(number, fresh)
    return [one for path in own for one in _late(source, target, path, fresh, full)]


def _unknown(number: int, paths: list[str]) -> LayoutError:
    message = f"the root has subvolumes inside that generation {number} knows nothing of: /"
    hint = "move them out and mount them, set [staging] nested to 'carry', or to 'share' and stage again"
    return LayoutError(message + ", /".join(paths), hint=hint)


def _known(machine: Machine, number: int, ancestor: Tree) -> set[str]:
    """Return what was carried or shared on the way from ``ancestor``, an origin, to a generation."""
    record = machine.generations.read(number)
    known = {*record.nested}
    while record.number != ancestor.number:
        record = machine.generations.read(record.base)
        known |= {*record.nested}
    return known


def _late(source: Path, target: Path, path: str, fresh: list[str], others: tuple[str, ...]) -> Iterator[Late]:
    name = os.fsencode(path)
    if path in fresh:
        yield Late(name, whole=True)
        return
    with (
        system.descriptor(source, system.DIRECTORY) as source_fd,
        system.descriptor(target, system.DIRECTORY) as target_fd,
        TreeView(source_fd) as view,
        TreeView(target_fd) as copy,
    ):
        left_out = {os.fsencode(other) for other in others} - {name}
        yield from _changes(view, copy, name, left_out)


def _changes(view: TreeView, copy: TreeView, top: bytes, left_out: set[bytes]) -> Iterator[Late]:
    """Yield what changed at and below ``top`` after its copy was begun, parents first."""
    begun = copy.birth_ns(top) if copy.look(top) else 0
    waiting = [top]
    while waiting:
        path = waiting.pop()
        seen, there = view.look(path), copy.look(path)
        if seen is None or path in left_out:
            continue
        alone = seen.is_directory and not (there and there.is_directory)
        if seen.ctime_ns >= begun:
            yield Late(path, whole=alone)
        if seen.is_directory and not (alone and seen.ctime_ns >= begun):
            waiting.extend(joined(path, name) for name in view.names(path))


def bring(machine: Machine, base: int, number: int, late: list[Late]) -> None:
    """Bring it from the root of ``base`` into that of a staged generation, and into its manifest.

    Raises:
        StorageError: the filesystem refused.
    """
    source, target = (machine.storage.path(Tree(n, Part.ROOT)) for n in (base, number))
    with (
        system.descriptor(source, system.DIRECTORY) as source_fd,
        system.descriptor(target, system.DIRECTORY) as target_fd,
        Manifest.open(machine.manifest(number), writable=True) as manifest,
    ):
        for one in late:
            try:
                transplant(source_fd, target_fd, one.path)
            except FileNotFoundError:
                continue  # it is in use, and this has gone again
            except OSError as error:
                raise storage_error(error, "cannot carry a nested subvolume over") from error
            if one.whole:
                from snaptx.trees import copies  # not for every start-up

                place = os.fsdecode(one.path)
                copies.clone(source / place, target / place)
            manifest.put(_rows(machine, manifest, target_fd, one))


def _rows(machine: Machine, manifest: Manifest, root_fd: int, one: Late) -> Iterator[Row]:
    """Yield the rows of what was brought, and of directories above it that came along."""
    directory = above(one.path)
    while directory and manifest.get(directory) is None:
        yield difference.row_of(root_fd, directory)
        directory = above(directory)
    if one.whole:
        yield from difference.scan_below(machine, root_fd, one.path)
    else:
        row = difference.row_of(root_fd, one.path)
        if row.kind is not Kind.DIRECTORY:
            manifest.remove_tree(one.path)
        yield row
