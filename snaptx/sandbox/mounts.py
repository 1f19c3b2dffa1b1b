"""The loop devices and mounts of a sandbox.

A loop device is marked to be freed with its last unmount, so unmounting by hand
leaves nothing either.  Nothing is mounted through a symbolic link.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from snaptx import fstab, mounting, system
from snaptx.errors import CommandError, LayoutError, StorageError, storage_error
from snaptx.run import run
from snaptx.sandbox.layout import TOP_LEVEL, Sandbox


@contextmanager
def attached(image: Path) -> Iterator[str]:
    """Give the image's loop device; a mount made in the block keeps it, the last unmount frees it."""
    known = loops(image)
    if known:
        yield known[0]
        return
    try:
        device = run(["losetup", "--find", "--show", image]).stdout.strip()
    except CommandError as error:
        hint = "'modprobe loop' loads the driver; a container needs /dev/loop-control and /dev/loop*"
        raise StorageError(f"no loop device for {image}: {error.message}", hint=hint) from error
    try:
        yield device
    finally:
        run(["losetup", "--detach", device])


def loops(image: Path) -> list[str]:
    """Return the loop devices that are attached to ``image`` (sysfs(5), block/loopN/loop)."""
    found = []
    for backing in Path("/sys/block").glob("loop*/loop/backing_file"):
        with suppress(OSError):
            if backing.read_text(errors="surrogateescape").rstrip("\n") == str(image):
                found.append(f"/dev/{backing.parts[3]}")
    return found


def mount_all(box: Sandbox, options: str) -> None:
    """Mount whatever of the sandbox is not mounted; ``options`` are the root's."""
    with attached(box.disk) as disk:
        mount(disk, box.top, TOP_LEVEL)
        mount(disk, box.root, options)
        if box.plan.home:
            mount(disk, box.root / "home", f"subvol={box.plan.home}")
        _mount_shared(box, disk)
    if box.plan.boot:
        with attached(box.boot_image) as boot:
            mount(boot, box.root / "boot", "", fstype="ext4")


def _mount_shared(box: Sandbox, disk: str) -> None:
    """Mount the other subvolumes that the booted root's fstab names, as a boot does.

    The root may be of a payload's making: no link is followed.
    """
    text = fstab.read(box.root)
    with system.descriptor(box.root, system.DIRECTORY) as root_fd:
        for entry in fstab.entries(text):
            if entry.source != f"UUID={box.disk_uuid}" or not entry.target.strip("/"):
                continue
            name = os.fsencode(entry.target.strip("/"))
            try:
                fd = system.openat2(root_fd, name, system.DIRECTORY, system.INSIDE)
            except OSError:
                continue
            target = Path(os.readlink(f"/proc/self/fd/{fd}"))
            os.close(fd)
            options = [word for word in entry.options.split(",") if word.startswith("subvol=")]
            mount(disk, target, ",".join(options))


def mount(device: str, target: Path, options: str, fstype: str = "btrfs") -> None:
    """Mount ``device`` at ``target`` unless something is mounted there.

    Raises:
        LayoutError: ``target`` is a symbolic link.
        StorageError: the kernel refused.
    """
    if target.is_symlink():
        raise LayoutError(f"{target} is a symbolic link", hint="nothing is mounted through links")
    if system.mount_at(target):
        return
    try:
        target.mkdir(exist_ok=True)
        mounting.mount(device, str(target), fstype, options=options)
    except OSError as error:
        failure = storage_error(error, f"cannot mount {fstype} ({options or 'defaults'}) at {target}")
        if error.errno == errno.ENODEV:
            failure.hint = f"the kernel has no {fstype}: 'modprobe {fstype}', or use a kernel that has it"
        raise failure from error


def unmount_below(directory: Path) -> None:
    """Unmount what is mounted at or below ``directory``, deepest first.

    Raises:
        BusyError: something uses a mount; what lies above it stays mounted.
    """
    inside = [one.target for one in system.mounts() if Path(one.target).is_relative_to(directory)]
    for target in sorted(inside, key=lambda target: target.count("/"), reverse=True):
        try:
            mounting.unmount(target)
        except OSError as error:
            failure = storage_error(error, f"cannot unmount {target}")
            failure.hint = f"end what works in it ('fuser -vm {target}' names it) and try again"
            raise failure from error
