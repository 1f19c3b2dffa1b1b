"""Convert: move data out of the root into subvolumes that every generation mounts.

The order keeps the machine booting, and its data whole, wherever it is cut
short: the copy, of one instant, is complete and durable before it gets its
name; it has its name before fstab speaks of it; fstab is replaced in one step.
What lay in the root stays there, behind the mount.  What is in use is mounted
at the next boot, and what was written until then is brought over after it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from snaptx import log, mounting, places, system, transaction
from snaptx.errors import (
    BusyError,
    LayoutError,
    NotFoundError,
    VerifyError,
    storage_error,
)
from snaptx.machine import Machine
from snaptx.model import Part, Tree
from snaptx.overlay.failure import shown
from snaptx.recover import Act
from snaptx.sharing import attach, conversions, inodeflags, latecomers, rules
from snaptx.sharing.conversions import Conversion
from snaptx.sharing.latecomers import Late
from snaptx.transaction import Request, Transaction
from snaptx.trees import copies

DIRECTORY = system.DIRECTORY | os.O_NOFOLLOW


@dataclass(frozen=True, slots=True)
class Converted:
    """What became of one place; ``mounted`` is False where that waits for the next boot."""

    path: str
    subvolume: str
    mounted: bool
    brought: tuple[str, ...] = ()
    conflicts: tuple[str, ...] = ()


def check(machine: Machine, paths: Sequence[str]) -> None:
    """Refuse what can't be converted; nothing is changed.

    Raises:
        LayoutError: a subvolume of somebody else has the name, or lies inside; or the root is on ZFS.
    """
    if paths and machine.storage.running.mount.fstype == "zfs":
        hint = "make a dataset beside the boot environments for it (zfs create -o mountpoint=PATH POOL/NAME)"
        raise LayoutError("on ZFS, data inside the root has to be moved by hand", hint=hint)
    rules.require_distinct(paths)
    made = conversions.read(machine.storage.state) if machine.storage.state.is_dir() else {}
    for path in paths:
        name = rules.subvolume_name(path)
        if machine.storage.shared(name) and not _is_ours(machine, made.get(path)):
            message = f"a subvolume {name} exists, and is not mounted at {path}"
            raise LayoutError(message, hint="mount it there by fstab, or rename it, and try again")
        inside = [f"/{one}" for one in machine.storage.running.nested if places.is_below(f"/{one}", [path])]
        if inside:
            hint = "move them out and mount them, or --keep the path"
            raise LayoutError(f"{path} has subvolumes inside: {', '.join(inside)}", hint=hint)


def convert(machine: Machine, request: Request, paths: Sequence[str]) -> tuple[Converted, ...]:
    """Make subvolumes of ``paths``, which lie inside the root, and mount what is not in use.

    What an earlier, interrupted call has made is taken up.

    Raises:
        LayoutError: one can't be converted; nothing was changed.
        SnaptxError: it failed; fstab is as it was, or complete.
    """
    check(machine, paths)
    machine.require_writable()
    number = _running(machine)
    with (
        transaction.exclusive(machine, request.verb),
        transaction.begin(machine, Act.RECORD, request, generation=number) as txn,
    ):
        _copy_all(machine, txn, number, paths)
        txn.step("fstab")
        names = [(path, rules.subvolume_name(path)) for path in paths]
        attach.attach(machine.sysroot, machine.storage.uuid, names)
        machine.storage.barrier()
        txn.step("mount")
        every = dict.fromkeys((*paths, *conversions.waiting(machine)))
        done = tuple(_put_in_place(machine, path) for path in every)
        txn.succeed(converted=[f"{one.path} is {one.subvolume}" for one in done], **_late(done))
    return done


def _running(machine: Machine) -> int:
    """Return the number of the running generation, 1 where none was adopted yet.

    Raises:
        BusyError: another one boots next, and would not mount what is made now.
    """
    state = machine.boot.read() if machine.storage.state.is_dir() else None
    if state is None:
        machine.storage.prepare(machine.storage.running)
        return 1
    if state.default != machine.booted:
        message = f"generation {state.default} boots next, and would not mount subvolumes made now"
        raise BusyError(message, hint="restart first, or 'snaptx rollback'")
    return machine.booted


def _late(done: Iterable[Converted]) -> dict[str, list[str]]:
    """Return what was brought over and what was not, for the audit trail."""
    found = {"carried": [p for one in done for p in one.brought]}
    found["conflicts"] = [p for one in done for p in one.conflicts]
    return {key: paths for key, paths in found.items() if paths}


def _is_ours(machine: Machine, made: Conversion | None) -> bool:
    """Return whether what has the name is the copy that was recorded."""
    if made is None or machine.storage.shared(made.subvolume) is None:
        return False
    return _birth_ns(machine.storage.shared_path(made.subvolume)) == made.birth_ns


def _birth_ns(path: Path) -> int:
    with system.descriptor(path, DIRECTORY) as fd:
        return system.birth_ns(fd, b".")


def _copy_all(machine: Machine, txn: Transaction, number: int, paths: Sequence[str]) -> None:
    """Copy what was not copied yet, all from one instant; then name the copies."""
    made = conversions.read(machine.storage.state)
    fresh = [path for path in paths if not _is_ours(machine, made.get(path))]
    again = [made[path]._replace(generation=number, settled=False) for path in paths if path not in fresh]
    txn.step("copy")
    try:
        with _instant(machine, number) as (root, since):
            copied = [_copy(machine, root, path, since) for path in fresh]
        txn.step("keep")
        machine.storage.barrier()
        conversions.put(machine.storage.state, *again, *(one._replace(generation=number) for one in copied))
        for one in copied:
            machine.storage.keep_shared(one.subvolume)
    finally:
        for path in fresh:
            machine.storage.abandon_shared(rules.subvolume_name(path))
    machine.storage.barrier()


@contextmanager
def _instant(machine: Machine, number: int) -> Iterator[tuple[Path, int]]:
    """Give a read-only view of the running root, and a time before which all of it was made."""
    tree = Tree(number, Part.LATEST)
    machine.storage.delete(tree)
    since = system.file_clock_ns()
    machine.storage.snapshot(Tree(number, Part.ROOT), tree, writable=False)
    try:
        yield machine.storage.path(tree), since
    finally:
        machine.storage.delete(tree)


def _copy(machine: Machine, root: Path, path: str, since: int) -> Conversion:
    """Copy one place into a subvolume that has no name yet, sharing its blocks, and compare the two."""
    name = rules.subvolume_name(path)
    source, target = root / path.lstrip("/"), machine.storage.begin_shared(name)
    with system.descriptor(source, DIRECTORY) as source_fd, system.descriptor(target, DIRECTORY) as target_fd:
        try:
            inodeflags.prepare(source_fd, target_fd)
            copies.clone(source, target)
            inodeflags.finish(source_fd, target_fd)
        except OSError as error:
            raise storage_error(error, f"cannot copy {path}") from error
        wrong = next(copies.unlike(source_fd, target_fd), None)
        if wrong is not None:
            where = shown(wrong) if wrong else "the directory itself"
            message = f"the copy of {path} differs from it: {where}"
            raise VerifyError(message, hint="nothing was changed; the kernel log (dmesg) may say more")
        birth = system.birth_ns(target_fd, b".")
    return Conversion(path, name, 0, birth, since, time.time_ns())


def _put_in_place(machine: Machine, path: str) -> Converted:
    """Mount a copy where it belongs, unless somebody works there, and bring over what came late."""
    made = conversions.read(machine.storage.state)[path]
    late, mounted = Late(), is_mounted(machine, made)
    if not mounted and not _is_used(machine, made):
        late = _bring(machine, made)
        _mount(machine, made)
        mounted = True
    if mounted:
        again = _bring(machine, made)  # what was written before the mount hid it
        late = Late([*late.brought, *again.brought], [*late.conflicts, *again.conflicts])
    return _converted(made, late, mounted=mounted)


def settle(machine: Machine, request: Request) -> tuple[Converted, ...]:
    """Bring over what was written to a place between its copying and its mounting; the caller holds the lock.

    Raises:
        StorageError: the filesystem refused; what was not brought over stays where it is.
    """
    made = conversions.read(machine.storage.state)
    paths = [path for path in conversions.waiting(machine) if is_mounted(machine, made[path])]
    if not paths:
        return ()
    with transaction.begin(machine, Act.RECORD, request, generation=machine.booted) as txn:
        txn.step("settle")
        done = tuple(_put_in_place(machine, path) for path in paths)
        txn.succeed(**_late(done))
    return done


def _bring(machine: Machine, made: Conversion) -> Late:
    """Bring over what changed since the last time, and note that time."""
    made = conversions.read(machine.storage.state)[made.path]
    source = _hidden(machine, made)
    if not source.is_dir():
        log.warning("what was written before the restart can't be looked for", missing=made.generation)
        conversions.put(machine.storage.state, made._replace(settled=True))
        return Late()
    since = system.file_clock_ns()
    target = machine.storage.shared_path(made.subvolume)
    with system.descriptor(source, DIRECTORY) as source_fd, system.descriptor(target, DIRECTORY) as target_fd:
        late = latecomers.bring(source_fd, target_fd, made.copied_ns, made.ready_ns)
    machine.storage.barrier()
    settled = is_mounted(machine, made) and not _is_used(machine, made)
    fresh = made._replace(copied_ns=since, ready_ns=time.time_ns(), settled=settled)
    conversions.put(machine.storage.state, fresh)
    return late


def _hidden(machine: Machine, made: Conversion) -> Path:
    """Return where the place in the root can be reached, mounted over or not."""
    return machine.storage.path(Tree(made.generation, Part.ROOT)) / made.path.lstrip("/")


def _is_used(machine: Machine, made: Conversion) -> bool:
    """Return whether somebody works in the place that the mount hides, or will hide."""
    place = machine.sysroot.resolve() / made.path.lstrip("/")
    inside = any(mount.target.startswith(f"{place}/") for mount in system.mounts())
    hidden = _hidden(machine, made)
    used = hidden.is_dir() and bool(latecomers.users(place, hidden.stat().st_dev))
    return used or (inside and not is_mounted(machine, made))


def _mount(machine: Machine, made: Conversion) -> None:
    info = machine.storage.shared(made.subvolume)
    if info is None:
        raise NotFoundError(f"the subvolume {made.subvolume} is missing", hint="look at the top level")
    beneath = system.AS_ROOT | system.RESOLVE_NO_SYMLINKS
    with system.descriptor(machine.sysroot, DIRECTORY) as root_fd:
        fd = system.openat2(root_fd, os.fsencode(made.path), DIRECTORY, beneath)
        try:
            spec = info.mount
            mounting.mount(spec.source, f"/proc/self/fd/{fd}", spec.fstype, options=spec.options)
        except OSError as error:
            raise storage_error(error, f"cannot mount {made.subvolume} at {made.path}") from error
        finally:
            os.close(fd)


def _converted(made: Conversion, late: Late, *, mounted: bool) -> Converted:
    brought, clashes = (
        tuple(os.fsdecode(os.fsencode(made.path) + b"/" + path) for path in paths)
        for paths in (late.brought, late.conflicts)
    )
    return Converted(made.path, made.subvolume, mounted, brought, clashes)


def is_mounted(machine: Machine, made: Conversion) -> bool:
    """Return whether a copy is mounted where it belongs."""
    mount = system.mount_at(machine.sysroot / made.path.lstrip("/"))
    return mount is not None and mount.fstype == "btrfs" and mount.root == f"/{made.subvolume}"
