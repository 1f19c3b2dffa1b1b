"""A machine to try snaptx on: a Btrfs image whose root is mounted as if it had booted.

``create`` makes it, ``reboot`` does what a power cycle and GRUB would do, and
``destroy`` leaves nothing.  What fails half-way is undone.  The files are drawn
in ``layout``.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from snaptx import __version__, mounting, system
from snaptx.bootloader import entryfile
from snaptx.errors import (
    BootError,
    FormatError,
    NoSpaceError,
    NotFoundError,
    PrivilegeError,
    SnaptxError,
    StorageError,
    UsageError,
)
from snaptx.overlay.scan import SUBVOLUME_INODE
from snaptx.run import find_program, run
from snaptx.sandbox import tree as sandbox_tree
from snaptx.sandbox.layout import TOP_LEVEL, Layout, Plan, Sandbox, fstab
from snaptx.sandbox.mounts import attached, loops, mount, mount_all, unmount_below

FORMAT = 1
RECORD = "sandbox.json"
SMALLEST = 256 << 20
"""Bytes; mkfs.btrfs itself refuses less than about 110 MiB."""
BOOT_SIZE = 256 << 20
ROOT_FLAG = "rootflags=subvol="


def create(directory: Path, *, size: int, source: Path | None, layout: Layout) -> Sandbox:
    """Make a sandbox of ``size`` bytes in ``directory`` and mount it; on any failure undo everything.

    ``source`` is a tree or a tar to be copied into its root, None for a skeleton.

    Raises:
        SnaptxError: as ``foresee``, or a program failed, or there is no loop device.
    """
    box = foresee(directory, size=size, source=source, layout=layout)
    fresh = not box.directory.exists()
    box.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    try:
        _build(box, size, source)
    except BaseException:
        _erase(box)
        if fresh:
            box.directory.rmdir()
        raise
    return box


def foresee(directory: Path, *, size: int, source: Path | None, layout: Layout) -> Sandbox:
    """Return the sandbox that ``create`` is to make.

    Raises:
        PrivilegeError: the caller is not root.
        UsageError: the directory is not empty, or the size makes no sense.
        NoSpaceError: the host or the image is too small for the tree.
        SnaptxError: a program is missing.
    """
    _require_root()
    box = Sandbox(directory.resolve(), layout, str(uuid.uuid4()), str(uuid.uuid4()))
    _require_programs(box.plan)
    _require_empty(box.directory)
    _require_room(box.directory, size, source)
    return box


def find(directory: Path) -> Sandbox:
    """Return the sandbox in ``directory``.

    Raises:
        PrivilegeError: the caller is not root.
        UsageError: there is none.
        FormatError: a newer snaptx made it.
    """
    _require_root()
    path = directory.resolve() / RECORD
    try:
        data = json.loads(path.read_bytes())
        if data["format"] > FORMAT:
            hint = f"use snaptx {data['snaptx']} or a newer one"
            raise FormatError(f"{directory} was made by a newer snaptx", hint=hint)
        return Sandbox(path.parent, Layout(data["layout"]), data["disk_uuid"], data["boot_uuid"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        hint = "'snaptx sandbox create DIR' makes one; nothing was touched"
        raise UsageError(f"{directory} is not a sandbox: no valid {RECORD}", hint=hint) from error


def destroy(directory: Path) -> tuple[str, ...]:
    """Unmount and remove the sandbox in ``directory``; return the names of foreign files left there.

    Raises:
        PrivilegeError: the caller is not root.
        UsageError: it is not a sandbox; nothing was touched.
        BusyError: something uses it; it is still mounted and usable.
    """
    box = find(directory)
    _take_down(box, box.directory)
    _erase(box)
    left = tuple(sorted(os.listdir(box.directory)))
    if not left:
        box.directory.rmdir()
    return left


def reboot(directory: Path, *, target: str | None = None) -> str:
    """Do what a power cycle and GRUB do: mount as root what the entry file names; return its subvolume.

    ``target`` names a subvolume to boot instead, as somebody at GRUB's menu would.

    Raises:
        PrivilegeError: the caller is not root.
        UsageError: it is not a sandbox.
        BootError: the entry file is damaged; the root stays as it is.
        NotFoundError: there is no such subvolume; the root stays as it is.
        BusyError: something uses the root; it stays as it is.
        StorageError: what the entry names can't be mounted.
    """
    box = find(directory)
    with attached(box.disk) as device:
        mount(device, box.top, TOP_LEVEL)
        chosen = choose(box, target)
        _take_down(box, box.root)
        mount_all(box, f"subvol={chosen}" if chosen else box.plan.options)
    return chosen or box.plan.root


def choose(box: Sandbox, target: str | None) -> str:
    """Return the subvolume to boot, ``target`` or what GRUB would; the top level has to be mounted.

    Raises:
        BootError: the entry file is damaged or names no subvolume.
        NotFoundError: there is no such subvolume.
    """
    chosen = chosen_subvolume(box) if target is None else target
    try:
        found = os.stat(f"{box.top}/{chosen}", follow_symlinks=False).st_ino == SUBVOLUME_INODE
    except (OSError, ValueError):
        found = False
    if not found:
        hint = f"'btrfs subvolume list {box.top}' shows what there is"
        raise NotFoundError(f"the sandbox has no subvolume {chosen}", hint=hint)
    return chosen


def chosen_subvolume(box: Sandbox) -> str:
    """Return the subvolume GRUB would boot, "" where there is no entry file: then fstab's.

    Raises:
        BootError: the entry file is damaged or names no subvolume.
    """
    try:
        with _grub_home(box) as home:
            state = entryfile.parse((home / entryfile.NAME).read_bytes().decode(errors="replace"))
    except FileNotFoundError:
        return ""
    default = [entry for entry in state.entries if entry.number == state.default]
    for word in shlex.split(default[0].cmdline) if default else ():
        if word.startswith(ROOT_FLAG):
            return word.removeprefix(ROOT_FLAG).split(",")[0]
    message = f"the boot entry of generation {state.default} names no subvolume"
    raise BootError(message, hint=entryfile.DAMAGED_HINT)


def _take_down(box: Sandbox, directory: Path) -> None:
    """Unmount what is below ``directory``; if something uses it, put back what went before."""
    booted = system.mount_at(box.root)
    try:
        unmount_below(directory)
    except StorageError:
        mount_all(box, f"subvol={booted.root}" if booted else box.plan.options)
        raise


@contextmanager
def _grub_home(box: Sandbox) -> Iterator[Path]:
    if not box.plan.boot:
        yield box.top / "@snaptx/grub"
        return
    with attached(box.boot_image) as device:
        boot = mounting.detached_mount("ext4", device, {})
        try:
            yield boot.path / "snaptx"
        finally:
            boot.close()


def _require_root() -> None:
    if not system.is_root():
        raise PrivilegeError("a sandbox needs root: it mounts filesystems", hint="run it with sudo")


def _require_programs(plan: Plan) -> None:
    for name in ("losetup", "mkfs.btrfs", "btrfs", "cp", "tar", *(("mkfs.ext4",) if plan.boot else ())):
        find_program(name)


def _require_empty(directory: Path) -> None:
    try:
        taken = directory.exists() and any(directory.iterdir())
    except OSError as error:
        raise UsageError(f"{directory}: {error.strerror}", hint="name a new or empty directory") from error
    if taken:
        raise UsageError(f"{directory} is not empty", hint="name a new or empty directory")


def _require_room(directory: Path, size: int, source: Path | None) -> None:
    if size < SMALLEST:
        hint = f"--size {SMALLEST >> 20}M is the smallest"
        raise UsageError(f"{size} bytes are too few for Btrfs", hint=hint)
    needed = sandbox_tree.size_of(source) if source else 0
    place = next(path for path in (directory, *directory.parents) if path.exists())
    if source and source.is_dir() and _copies_itself(place, source):
        raise UsageError(f"{directory} lies inside {source}", hint="name a directory outside the tree")
    if needed > size:
        message = f"{source} has {needed >> 20} MiB, the image {size >> 20} MiB"
        raise NoSpaceError(message, hint="name a larger --size")
    free = shutil.disk_usage(place).free
    if free < needed + SMALLEST:
        message = f"{place} has {free >> 20} MiB free, {needed + SMALLEST >> 20} MiB are needed"
        raise NoSpaceError(message, hint="free space there or name another directory")


def _copies_itself(place: Path, source: Path) -> bool:
    """Return whether a copy of ``source`` would meet the image that is made below ``place``."""
    return place.is_relative_to(source.resolve()) and place.stat().st_dev == source.stat().st_dev


def _build(box: Sandbox, size: int, source: Path | None) -> None:
    record = {
        "format": FORMAT,
        "snaptx": __version__,
        "layout": box.layout.value,
        "disk_uuid": box.disk_uuid,
        "boot_uuid": box.boot_uuid,
    }
    (box.directory / RECORD).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    _format(box.disk, size, ["mkfs.btrfs", "--quiet", "--uuid", box.disk_uuid, "--label", "snaptx-sandbox"])
    if box.plan.boot:
        _format(box.boot_image, BOOT_SIZE, ["mkfs.ext4", "-q", "-U", box.boot_uuid, "-L", "snaptx-boot"])
    with attached(box.disk) as device:
        mount(device, box.top, TOP_LEVEL)
        _make_subvolumes(box)
        mount_all(box, box.plan.options)
    sandbox_tree.fill(box.root, source)
    sandbox_tree.complete(box.root, fstab(box))
    with system.descriptor(box.top, os.O_RDONLY) as fd:
        system.syncfs(fd)


def _format(image: Path, size: int, command: list[str]) -> None:
    with open(image, "xb", opener=lambda path, flags: os.open(path, flags, 0o600)) as file:
        file.truncate(size)
    run([*command, image])


def _make_subvolumes(box: Sandbox) -> None:
    plan = box.plan
    for name in filter(None, (*plan.parents, plan.root, plan.home)):
        (box.top / name).parent.mkdir(exist_ok=True)
        run(["btrfs", "subvolume", "create", box.top / name])
    if plan.by_default:
        run(["btrfs", "subvolume", "set-default", box.top / plan.root])


def _erase(box: Sandbox) -> None:
    unmount_below(box.directory)
    for image in (box.disk, box.boot_image):
        for device in loops(image):
            with suppress(SnaptxError):
                run(["losetup", "--detach", device])
        image.unlink(missing_ok=True)
    for mount_point in (box.root, box.top):
        with suppress(FileNotFoundError):
            mount_point.rmdir()
    (box.directory / RECORD).unlink(missing_ok=True)
