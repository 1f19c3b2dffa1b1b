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

from snaptx import carry, difference, fstab, mounting, places, system
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

NAMED = 5
"""So many are named: Docker makes one for each layer of an image."""


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
        message = f"the root has subvolumes inside, which a snapshot leaves out: {_named(found)}"
        hint = (
            "move them out and mount them, or set [staging] nested: "
            "with 'share' every generation mounts them, with 'carry' each gets a copy"
        )
        raise LayoutError(message, hint=hint)
    return found


def _named(paths: tuple[str, ...]) -> str:
    """Return the first few of the paths in words, without those inside another one."""
    found = places.outermost(paths)
    named = ", ".join(f"/{path}" for path in found[:NAMED])
    return named + (f" and {len(found) - NAMED} more" if len(found) > NAMED else "")


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
    """Have the generation mount them; what lies in one comes with it, and may be gone at the next boot."""
    info = machine.storage.describe(Tree(base, Part.ROOT))
    name = info.name if info else ""
    attach.attach_to(machine, number, [(f"/{path}", f"{name}/{path}") for path in places.outermost(paths)])


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
    found = _survey(machine, number, machine.booted, ancestor)
    if found.unknown and machine.config.staging.nested is not Nested.CARRY:
        raise _unknown(number, found.unknown)
    base = Tree(machine.generations.read(number).base, Part.SEALED)
    late = _differing(machine, number, found)
    if not late or base.number == machine.booted or not machine.storage.name(base):
        return late
    return _same(machine, Tree(machine.booted, Part.ROOT), base, late, wanted=False)


class Survey(NamedTuple):
    """The subvolumes inside a ``root`` that hold something: all, ``unknown`` to a generation, not shared."""

    root: int
    filled: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()
    own: tuple[str, ...] = ()


def _survey(machine: Machine, number: int, root: int, ancestor: Tree) -> Survey:
    source, target = (machine.storage.path(Tree(n, Part.ROOT)) for n in (root, number))
    full = filled(source, inside(machine, root))
    if not full:
        return Survey(root)
    known = _known(machine, number, ancestor)
    mounted = fstab.targets(fstab.read(target)) & {f"/{path}" for path in known}
    own = tuple(path for path in full if not places.is_below(f"/{path}", mounted))
    return Survey(root, full, tuple(path for path in own if path not in known), own)


def _differing(machine: Machine, number: int, found: Survey) -> list[Late]:
    source, target = (machine.storage.path(Tree(n, Part.ROOT)) for n in (found.root, number))
    return [one for path in found.own for one in _late(source, target, path, found)]


def late(machine: Machine, number: int, left: int, ancestor: Tree) -> tuple[list[Late], tuple[bytes, ...]]:
    """Return what changed in the subvolumes inside ``left`` since ``number`` was committed from there.

    And the paths that stay behind: what has become another here as well, and
    subvolumes that were not to be carried.
    """
    if not inside(machine, left):
        return [], ()
    found = _survey(machine, number, left, ancestor)
    behind = () if machine.config.staging.nested is Nested.CARRY else found.unknown
    named = [path for path in map(os.fsencode, behind) if not carry.is_volatile(path)]
    found = found._replace(own=tuple(path for path in found.own if path not in behind))
    old, sealed, new = Tree(left, Part.ROOT), Tree(number, Part.SEALED), Tree(number, Part.ROOT)
    changed = [one for one in _differing(machine, number, found) if not carry.is_volatile(one.path)]
    for settled in (sealed, new):  # by the commit, or by an arrival that was interrupted
        changed = _same(machine, old, settled, changed, wanted=False)
    chosen = _same(machine, sealed, new, changed, wanted=True)
    clashes = {one.path for one in changed}.difference(one.path for one in chosen)
    return chosen, tuple(sorted({*named, *clashes}))


def _same(machine: Machine, one: Tree, other: Tree, found: list[Late], *, wanted: bool) -> list[Late]:
    """Return what of ``found`` is the same in two trees, or, if that is not wanted, is not."""
    from snaptx.trees import compare  # not for every start-up

    with difference.opened(machine, one, other) as roots, compare.sameness(*roots) as same:
        return [late for late in found if same(late.path) is wanted]


def _unknown(number: int, paths: tuple[str, ...]) -> LayoutError:
    message = f"the root has subvolumes inside that generation {number} knows nothing of: {_named(paths)}"
    hint = "move them out and mount them, set [staging] nested to 'carry', or to 'share' and stage again"
    return LayoutError(message, hint=hint)


def _known(machine: Machine, number: int, ancestor: Tree) -> set[str]:
    """Return what was carried or shared on the way from ``ancestor``, an origin, to a generation."""
    known: set[str] = set()
    while record := machine.generations.find(number):
        known |= {*record.nested}
        if number == ancestor.number:
            break
        number = record.base
    return known


def _late(source: Path, target: Path, path: str, found: Survey) -> Iterator[Late]:
    name = os.fsencode(path)
    with (
        system.descriptor(source, system.DIRECTORY) as source_fd,
        system.descriptor(target, system.DIRECTORY) as target_fd,
        TreeView(source_fd) as view,
        TreeView(target_fd) as copy,
    ):
        left_out = {os.fsencode(other) for other in found.filled} - {name}
        begun = copy.birth_ns(name) if path not in found.unknown and copy.look(name) else 0
        yield from _changes(view, copy, name, left_out, begun)


def _changes(view: TreeView, copy: TreeView, top: bytes, left_out: set[bytes], begun: int) -> Iterator[Late]:
    """Yield what changed at and below ``top`` after its copy was ``begun``, parents first."""
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
    with Manifest.open(machine.manifest(number), writable=True) as manifest:
        transfer(machine, base, number, late, manifest)


def transfer(
    machine: Machine, base: int, number: int, late: list[Late], manifest: Manifest | None = None
) -> None:
    """Bring it from the root of ``base`` into that of ``number``, and into a manifest if there is one.

    Raises:
        StorageError: the filesystem refused.
    """
    source, target = (machine.storage.path(Tree(n, Part.ROOT)) for n in (base, number))
    with (
        system.descriptor(source, system.DIRECTORY) as source_fd,
        system.descriptor(target, system.DIRECTORY) as target_fd,
    ):
        for one in late:
            try:
                transplant(source_fd, target_fd, one.path)
            except FileNotFoundError:
                continue  # it is in use, and this has gone again
            except OSError as error:
                raise storage_error(error, "cannot carry a nested subvolume over") from error
            if one.whole:
                _clone(machine, base, os.fsdecode(one.path), target)
            if manifest:
                manifest.put(_rows(machine, manifest, target_fd, one))


def _clone(machine: Machine, base: int, place: str, target: Path) -> None:
    """Copy a directory of the root of ``base`` with all it holds; no link leads anywhere meanwhile.

    Whoever owns something in the running root can put a link in its place while it is copied.
    """
    from snaptx.trees import copies  # not for every start-up

    spec = machine.require_root(base).mount
    made = mounting.detached_mount(spec.fstype, spec.source, mounting.parsed(spec.options))
    try:
        mounting.restrict(made.owner, mounting.MOUNT_ATTR_NOSYMFOLLOW | mounting.MOUNT_ATTR_NOATIME)
        copies.clone(made.path / place, target / place)
    finally:
        made.close()


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
