"""Keep a command's hands off the disks: it can read block devices, and write none.

Package scripts write boot loaders to disks by many names, so this goes by the
device.  The command runs in a control group of its own, below the caller's,
under a kernel program that refuses to open a block device for writing, the
node it is opened by notwithstanding.  File systems that are mounted are not
concerned.  This is against accidents: root could leave the group.

The group has one name, so that one left behind by SIGKILL is found and used by
the next command.  Who uses it holds a shared lock on its directory; who has
the lock alone at the end removes it.  Nobody but root can open the directory:
who can could hold the lock, and so hold everybody up.
"""

from __future__ import annotations

import errno
import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from snaptx import mounting, system
from snaptx.enclosure import bpf

GROUP = "snaptx-enclosure"
PATIENCE, PAUSE = 2.0, 0.01
"""Seconds to wait for the lock of the group, and between two attempts."""

Warn = Callable[[str], None]


@contextmanager
def disks_guarded(warn: Warn) -> Iterator[int | None]:
    """Yield a descriptor for ``join``, or None where the kernel has no such guard.

    ``warn`` is told so then.
    """
    with ExitStack() as stack:
        group = None
        try:
            group = _guarded_group(stack)
        except OSError as error:
            warn(f"disks are not protected from the command: {error.strerror}")
        yield group


def join(group: int) -> None:
    """Put this process under the guard."""
    os.write(group, b"0")


def _guarded_group(stack: ExitStack) -> int:
    parent = os.open(_own_group(), system.DIRECTORY | os.O_CLOEXEC, dir_fd=_hierarchy(stack))
    stack.callback(os.close, parent)
    group = _entered(parent)
    stack.callback(_leave, parent, group)
    program = bpf.no_block_writes()
    try:
        bpf.attach_to_cgroup(program, group)
    finally:
        os.close(program)
    members = os.open("cgroup.procs", os.O_WRONLY | os.O_CLOEXEC, dir_fd=group)
    stack.callback(os.close, members)
    return members


def _own_group() -> str:
    """Return where in the hierarchy of version 2 this process is (cgroups(7)), relative to its top."""
    groups = os.fsdecode(Path("/proc/self/cgroup").read_bytes())
    for line in groups.split("\n"):  # a group's name may hold all else that ends a line elsewhere
        if line.startswith("0::/"):
            return line.removeprefix("0::/") or "."
    raise OSError(errno.ENOTSUP, "there are no control groups of version 2")


def _hierarchy(stack: ExitStack) -> int:
    """Return a descriptor of the top of the hierarchy.

    Another mount of it would reset the options of the first, so there is one only where there is none.
    """
    places = [mount.target for mount in system.mounts() if (mount.fstype, mount.root) == ("cgroup2", "/")]
    for place in filter(lambda place: os.path.exists(f"{place}/cgroup.procs"), places):
        top = os.open(place, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        break
    else:
        top = mounting.fresh_mount("cgroup2", "cgroup2", {})
    stack.callback(os.close, top)
    return top


def _entered(parent: int) -> int:
    """Return the directory of the group, made if it is not there, with a shared lock on it.

    Raises:
        OSError: the kernel refused, or a stranger holds the lock.
    """
    while True:
        with suppress(FileExistsError):
            os.mkdir(GROUP, 0o700, dir_fd=parent)
        try:
            group = os.open(GROUP, system.DIRECTORY | os.O_CLOEXEC, dir_fd=parent)
        except FileNotFoundError:
            continue
        try:
            os.fchmod(group, 0o700)  # where it was found
            _share(group)
            if _is_there(parent, group):
                return group
        except BaseException:
            os.close(group)
            raise
        os.close(group)


def _share(group: int) -> None:
    """Take the shared lock; one of us has it alone for a moment only.

    Raises:
        OSError: a stranger holds it.
    """
    end = time.monotonic() + PATIENCE
    while True:
        try:
            fcntl.flock(group, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if time.monotonic() >= end:
                raise OSError(errno.EBUSY, "somebody else has locked the control group") from error
            time.sleep(PAUSE)
        else:
            return


def _is_there(parent: int, group: int) -> bool:
    """Return whether nobody removed the group before it was locked."""
    try:
        return os.path.samestat(os.fstat(group), os.stat(GROUP, dir_fd=parent))
    except FileNotFoundError:
        return False


def _leave(parent: int, group: int) -> None:
    """Remove the group, unless another command is in it."""
    with suppress(OSError):
        fcntl.flock(group, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.rmdir(GROUP, dir_fd=parent)
    os.close(group)
