"""A command in a generation's tree, on the machine as it is today.

    /                      the generation's root, read-only; for users without set-uid programs: an
                           update may have mended what is wrong with these
    /dev /proc /sys        the machine's
    /home /run /tmp ...    the machine's, and so is whatever else is mounted
    /etc/resolv.conf       the machine's, read-only

The process leaves the machine's mount namespace, builds this view, gives up
root's rights and becomes the command: terminal, signals, descriptors and exit
status are the command's own.  The mount of the root in that namespace is what
tells ``prune`` that the generation is in use; it ends with the last process.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import NamedTuple, NoReturn

from snaptx import mounting, system
from snaptx.enclosure import caller as callers
from snaptx.enclosure import namespace, terminal, warden
from snaptx.enclosure.caller import Caller
from snaptx.enclosure.namespace import View, Warn, doing
from snaptx.model import EMPTY
from snaptx.places import is_below, outermost
from snaptx.storage.base import MountSpec
from snaptx.system import Mount

KERNEL = ("/dev", "/proc", "/sys")
PLACES = ("/home", "/media", "/mnt", "/root", "/run", "/srv", "/tmp", "/var/tmp")
"""What is today's, be it mounted or part of the running root."""

_TREE = mounting.MOUNT_ATTR_RDONLY | mounting.MOUNT_ATTR_NODEV


class Visit(NamedTuple):
    """What a command gets to see, and as whom.

    ``root`` says how to mount the generation's root, ``record`` is a directory
    and a name in it that is there as long as the generation is; ``shared``
    pairs a path of the machine with the path inside; ``directory`` is where to
    start; without ``caller`` the command is root's.
    """

    root: MountSpec
    record: tuple[int, str]
    shared: tuple[tuple[str, str], ...] = ()
    environment: Mapping[str, str] = EMPTY
    directory: str = "/"
    caller: Caller | None = None
    resolver: str = namespace.RESOLVER


class CommandMissing(Exception):
    """The command could not be executed; ``reason`` is what execve(2) said."""

    def __init__(self, reason: OSError) -> None:
        super().__init__(reason)
        self.reason = reason


def places(
    mounts: Iterable[Mount], sysroot: str, shared: Iterable[str], live: Collection[str] = ()
) -> tuple[str, ...]:
    """Return what of the machine a command sees instead of the generation's: paths inside the root.

    That is what belongs to no generation, and what is mounted; not another
    generation's trees, which are ``live``.
    """
    found = {*PLACES, *shared}
    for mount in mounts:
        path = "/" + os.path.relpath(mount.target, sysroot)
        inside = is_below(mount.target, [sysroot]) and mount.target != sysroot
        if inside and path not in live and not is_below(path, KERNEL):
            found.add(path)
    return outermost(found)


def become(visit: Visit, argv: Sequence[str], warn: Warn) -> NoReturn:
    """Replace this process, which has one thread, by ``argv`` in the generation's tree.

    Raises:
        CommandMissing: there is no such command, or it can't be executed.
        OSError: a mount failed, or the generation has gone; the file name tells what failed.
    """
    _enter(visit, warn)
    if visit.caller:
        _give_up_rights(visit.caller, warn)
    _go_to(visit.directory, warn)
    warden.forget_handlers()
    try:
        warden.execute(argv, visit.environment)
    except OSError as error:
        raise CommandMissing(error) from error


def _give_up_rights(caller: Caller, warn: Warn) -> None:
    """Become a user, also in the terminal, which may be that of root's shell."""
    try:
        terminal.keep_input()
    except OSError as error:
        warn(f"the terminal is not protected from the command: {error.strerror}")
    with doing(f"become {caller.name}"):
        callers.become(caller)


def _enter(visit: Visit, warn: Warn) -> None:
    with doing("leave the machine's mounts"):
        system.unshare(system.CLONE_NEWNS)
    with doing("keep mounts from spreading"):
        mounting.mount("none", "/", flags=mounting.MS_REC | mounting.MS_SLAVE)
    attributes = _TREE | (mounting.MOUNT_ATTR_NOSUID if visit.caller else 0)
    view = View(namespace.mounted_root(visit.root, attributes), warn)
    directory, name = visit.record
    with doing("find the generation: it has been removed"):
        # Prune removes this first, and then nothing that is mounted: one of the two notices the other.
        os.stat(name, dir_fd=directory)
    for path in KERNEL:
        namespace.attach_shared(view, path, path)
    for outside, inside in visit.shared:
        namespace.attach_shared(view, outside, inside)
    namespace.attach_resolver(view, visit.resolver)
    with doing("enter the root"):
        mounting.enter_root(view.root)


def _go_to(directory: str, warn: Warn) -> None:
    with suppress(OSError):
        os.chdir(directory)
        return
    warn(f"{directory} can't be reached in the generation: the command starts in /")
