"""What a command sees inside a generation.

    /                 the generation's root, mounted as the boot mounts it, without access times
    /proc             its own processes alone; what steers the kernel there is read-only
    /sys              the machine's, read-only with everything below it
    /dev              the machine's, with pts and shm
    /tmp /run         in memory, gone with the command; empty but for stand-ins (standins.py)
    /run/snaptx/cache what a package manager fetches, kept for the next time, where it is asked for
    shared data       the machine's own, where the configuration says so
    /etc/resolv.conf  the machine's, read-only

A tree is hostile: it decides where its links lead.  So every mount is made
without a place and then attached to a descriptor that was found inside the
tree (RESOLVE_IN_ROOT), and nothing is ever created in the tree: where a mount
point is missing the mount is left out, with a warning.

All this happens in a mount namespace of its own.  It has no other user, so it
ends with the command, SIGKILL included, and there is nothing to clean up.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Container, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import NamedTuple

from snaptx import mounting, system
from snaptx.enclosure import standins
from snaptx.model import EMPTY
from snaptx.storage.base import MountSpec

RESOLVER = "/etc/resolv.conf"
_UNSAFE_IN_PROC = ("sys", "sysrq-trigger")
_ABSENT = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)

_NO_DEVICES = mounting.MOUNT_ATTR_NOSUID | mounting.MOUNT_ATTR_NODEV

Warn = Callable[[str], None]


class Enclosure(NamedTuple):
    """What a command in a generation gets to see.

    ``root`` says how to mount the generation's root, ``shared`` pairs a path
    of the machine with the path inside where it appears, ``environment`` is
    the whole environment, ``resolver`` the machine's file of name servers,
    ``cache`` what to mount at ``standins.CACHE``.
    """

    root: MountSpec
    shared: tuple[tuple[str, str], ...] = ()
    environment: Mapping[str, str] = EMPTY
    resolver: str = RESOLVER
    cache: MountSpec | None = None


def enter(enclosure: Enclosure, warn: Warn) -> None:
    """Make the enclosure the root of this process, which has a mount and a process namespace of its own.

    Descriptors are left open; ``warn`` is told what is left out.

    Raises:
        OSError: a mount failed; its file name tells which.
    """
    with doing("keep mounts from spreading"):
        mounting.mount("none", "/", flags=mounting.MS_REC | mounting.MS_SLAVE)
    view = View(mounted_root(enclosure.root), warn)
    _attach_proc(view)
    _attach_machine(view)
    memory = _attach_memory(view)
    if enclosure.cache:
        _attach_cache(view, enclosure.cache)
    for outside, inside in sorted(enclosure.shared, key=lambda pair: pair[1]):
        attach_shared(view, outside, inside)
    attach_resolver(view, enclosure.resolver, memory)
    with doing("enter the root"):
        mounting.enter_root(view.root)


@contextmanager
def doing(what: str) -> Iterator[None]:
    """Put ``what`` in the place of the file name of an OSError."""
    try:
        yield
    except OSError as error:
        number = error.errno or errno.EIO
        raise OSError(number, os.strerror(number), what) from error


class View:
    """The tree while its mounts are put together; paths are those inside."""

    def __init__(self, root: int, warn: Warn) -> None:
        self.root = root
        self._warn = warn

    def find(self, path: str, flags: int = 0) -> int:
        """Return a descriptor (O_PATH) of ``path``, links followed as the command would see them."""
        relative = os.fsencode(path).lstrip(b"/") or b"."
        return system.openat2(self.root, relative, os.O_PATH | flags, system.RESOLVE_IN_ROOT)

    def holds(self, path: str) -> bool:
        """Return whether ``path`` leads somewhere."""
        try:
            os.close(self.find(path))
        except OSError as error:
            if error.errno not in _ABSENT:
                raise
            return False
        return True

    def place(self, mounted: int, path: str) -> bool:
        """Mount ``mounted`` at ``path``; return whether there is a place for it."""
        with doing(f"mount {path}"):
            if not self.holds(path):
                self._warn(f"{path} does not exist in the generation: nothing is mounted there")
                return False
            target = self.find(path)
            if _is_directory(mounted) != _is_directory(target):
                self._warn(f"{path} is of another kind in the generation: nothing is mounted there")
                return False
            mounting.attach(mounted, target)
        return True


def _is_directory(fd: int) -> bool:
    try:
        return stat.S_ISDIR(os.fstat(fd).st_mode)
    except OSError:  # another user's FUSE tells root nothing, and a server that has died nobody
        return True


def _mounted(spec: MountSpec, attributes: int = 0) -> int:
    """Return a descriptor of a mount without a place; who only reads leaves what is there as it was."""
    with doing(f"mount {spec.fstype} {spec.source} ({spec.options})"):
        made = mounting.fresh_mount(spec.fstype, spec.source, mounting.parsed(spec.options))
        mounting.restrict(made, mounting.MOUNT_ATTR_NOATIME | attributes)
    return made


def mounted_root(spec: MountSpec, attributes: int = 0) -> int:
    """Mount the root over this namespace's root, where no path leads, and return its descriptor.

    ``attributes`` are MOUNT_ATTR_*, besides the one that leaves access times alone.

    Raises:
        OSError: it can't be mounted; the file name tells what.
    """
    root = _mounted(spec, attributes)
    with doing(f"mount {spec.fstype} {spec.source} ({spec.options})"):
        mounting.attach(root, os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))
    for place, source in spec.inside:
        with doing(f"mount {spec.fstype} {source}"):
            part = mounting.fresh_mount(spec.fstype, source, {})
            mounting.restrict(part, mounting.MOUNT_ATTR_NOATIME)
            flags = system.RESOLVE_BENEATH | system.RESOLVE_NO_SYMLINKS
            mounting.attach(part, system.openat2(root, os.fsencode(place), os.O_PATH, flags))
    return root


def _attach_proc(view: View) -> None:
    with doing("mount /proc"):
        proc = mounting.fresh_mount("proc", "proc", {})
        mounting.restrict(proc, _NO_DEVICES | mounting.MOUNT_ATTR_NOEXEC)
    if not view.place(proc, "/proc"):
        return
    for name in _UNSAFE_IN_PROC:
        copy = copy_of(name, dirfd=proc)
        if copy is not None:
            with doing(f"protect /proc/{name}"):
                mounting.restrict(copy, mounting.MOUNT_ATTR_RDONLY)
            view.place(copy, f"/proc/{name}")


def _attach_machine(view: View) -> None:
    with doing("mount /sys"):
        sys = mounting.cloned_mount("/sys", recursive=True)
        mounting.restrict(sys, mounting.MOUNT_ATTR_RDONLY, recursive=True)
    view.place(sys, "/sys")
    with doing("mount /dev"):
        dev = mounting.cloned_mount("/dev", recursive=True)
    view.place(dev, "/dev")


def _attach_memory(view: View) -> set[int]:
    """Mount what is empty and private; return the device numbers of these filesystems."""
    devices = set()
    for path, mode in (("/tmp", "1777"), ("/run", "0755")):
        with doing(f"mount {path}"):
            memory = mounting.fresh_mount("tmpfs", "tmpfs", {"mode": mode})
            mounting.restrict(memory, _NO_DEVICES)
            if path == "/run":
                os.mkdir("lock", dir_fd=memory)
                os.chmod("lock", 0o1777, dir_fd=memory)
                standins.fill(memory, view.holds)
        if view.place(memory, path):
            devices.add(os.fstat(memory).st_dev)
    return devices


def _attach_cache(view: View, spec: MountSpec) -> None:
    """Show what was fetched before; nothing in it gets to run."""
    cache = _mounted(spec)
    with doing(f"share {standins.CACHE}"):
        mounting.restrict(cache, _NO_DEVICES)
    view.place(cache, standins.CACHE)


def copy_of(path: str, *, dirfd: int = system.AT_FDCWD, recursive: bool = False) -> int | None:
    """Return a copy of what the machine has at ``path``, None if it has nothing there.

    Raises:
        OSError: it can't be shown elsewhere.
    """
    with doing(f"share {path}"), suppress(FileNotFoundError, NotADirectoryError):
        return mounting.cloned_mount(path, dirfd=dirfd, recursive=recursive)
    return None


def attach_shared(view: View, outside: str, inside: str) -> None:
    """Show ``outside`` at ``inside``; what the machine does not have is not missed.

    Raises:
        OSError: it can't be mounted there.
    """
    copy = copy_of(outside, recursive=True)
    if copy is not None:
        view.place(copy, inside)


def attach_resolver(view: View, outside: str, memory: Container[int] = ()) -> None:
    """Show the machine's name servers, also where the tree has a link that dangles into /run.

    ``memory`` are the devices of filesystems in which something may be made for that.

    Raises:
        OSError: they can't be mounted there.
    """
    copy = copy_of(outside)
    if copy is None:
        return
    with doing(f"share {outside}"):
        mounting.restrict(copy, mounting.MOUNT_ATTR_RDONLY)
        if not view.holds(RESOLVER):
            _complete_link(view, RESOLVER, memory)
    view.place(copy, RESOLVER)


def _complete_link(view: View, path: str, memory: Container[int]) -> None:
    """Make what the link at ``path`` leads to, as far as that lies in ``memory``."""
    with suppress(FileNotFoundError, NotADirectoryError):
        link = view.find(path, os.O_NOFOLLOW)
        if stat.S_ISLNK(os.fstat(link).st_mode):
            target = os.path.join(os.path.dirname(path), os.readlink("", dir_fd=link))
            _complete(view, [part for part in target.split("/") if part], memory)


def _complete(view: View, parts: list[str], memory: Container[int]) -> None:
    """Make the missing directories of a path and the file at its end, unless they fall into the tree."""
    for depth, name in enumerate(parts):
        if view.holds("/".join(parts[: depth + 1])):
            continue
        parent = view.find("/".join(parts[:depth]))
        if os.fstat(parent).st_dev not in memory:
            return
        if depth < len(parts) - 1:
            os.mkdir(name, 0o755, dir_fd=parent)
        else:
            os.close(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644, dir_fd=parent))
