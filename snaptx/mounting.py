"""Mounts without mount points, and mount(2) and its younger siblings.

Each wrapper raises OSError with the errno of the call.  What is mounted here
is visible to nobody else and ends with the process, however that ends.
"""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, TypeVar

from snaptx import system, threads
from snaptx.errors import LayoutError

Result = TypeVar("Result")

SYS_OPEN_TREE = 428
SYS_MOVE_MOUNT = 429
SYS_FSOPEN = 430
SYS_FSCONFIG = 431
SYS_FSMOUNT = 432
SYS_MOUNT_SETATTR = 442

# linux/mount.h
MS_RDONLY = 0x1
MS_BIND = 0x1000
MS_REC = 0x4000
MS_PRIVATE = 0x40000
MS_SLAVE = 0x80000
MNT_DETACH = 0x2
UMOUNT_NOFOLLOW = 0x8
FSOPEN_CLOEXEC = 0x1
FSMOUNT_CLOEXEC = 0x1
FSCONFIG_SET_FLAG = 0
FSCONFIG_SET_STRING = 1
FSCONFIG_CMD_CREATE = 6
OPEN_TREE_CLONE = 0x1
OPEN_TREE_CLOEXEC = os.O_CLOEXEC
MOVE_MOUNT_BOTH_EMPTY = 0x44  # F_EMPTY_PATH | T_EMPTY_PATH
MOVE_MOUNT_BENEATH = 0x200  # Linux 6.5
MOUNT_ATTR_RDONLY = 0x1
MOUNT_ATTR_NOSUID = 0x2
MOUNT_ATTR_NODEV = 0x4
MOUNT_ATTR_NOEXEC = 0x8
MOUNT_ATTR_ATIME = 0x70  # the field that MOUNT_ATTR_NOATIME is a value of
MOUNT_ATTR_NOATIME = 0x10
MOUNT_ATTR_NODIRATIME = 0x80
MOUNT_ATTR_NOSYMFOLLOW = 0x200000


class DetachedMount(NamedTuple):
    """A filesystem mounted without a mount point: nobody else sees it.

    It ends with ``close``, or with this process.

    ``owner`` holds the mount, ``fd`` is its root directory, ``flags`` are mount(2)'s.
    """

    owner: int
    fd: int
    fstype: str
    source: str
    options: str
    flags: int

    @property
    def path(self) -> Path:
        """Return where this process reaches the root."""
        return Path(f"/proc/self/fd/{self.fd}")

    def close(self) -> None:
        """Let go of it; the descriptors' numbers may be given to others from here on."""
        _detached.pop(self.path, None)
        _parts.pop(os.fstat(self.fd).st_dev, None)
        os.close(self.fd)
        os.close(self.owner)


_detached: dict[Path, DetachedMount] = {}
_parts: dict[int, frozenset[int]] = {}


def parsed(options: str) -> dict[str, str]:
    """Return mount options as ``fresh_mount`` takes them: of a flag the value is empty."""
    return dict(option.partition("=")[::2] for option in options.split(",") if option)


def fresh_mount(fstype: str, source: str, options: dict[str, str]) -> int:
    """Mount a filesystem nowhere; return a descriptor (O_PATH) that holds it, for ``attach``.

    An empty option value sets a flag.
    """
    context = system.syscall(SYS_FSOPEN, fstype.encode(), FSOPEN_CLOEXEC, about=fstype)
    try:
        for key, value in {"source": source, **options}.items():
            command = FSCONFIG_SET_STRING if value else FSCONFIG_SET_FLAG
            argument = os.fsencode(value) if value else None
            system.syscall(SYS_FSCONFIG, context, command, key.encode(), argument, 0, about=source)
        system.syscall(SYS_FSCONFIG, context, FSCONFIG_CMD_CREATE, None, None, 0, about=source)
        return system.syscall(SYS_FSMOUNT, context, FSMOUNT_CLOEXEC, 0, about=source)
    finally:
        os.close(context)


def detached_mount(fstype: str, source: str, options: dict[str, str]) -> DetachedMount:
    """Mount a filesystem without a mount point."""
    owner = fresh_mount(fstype, source, options)
    # fsmount's own descriptor is O_PATH: it can't be read or flushed.
    fd = os.open(f"/proc/self/fd/{owner}", system.DIRECTORY | os.O_CLOEXEC)
    text = ",".join(f"{key}={value}" for key, value in options.items() if value)
    made = DetachedMount(owner, fd, fstype, source, text, MS_RDONLY if "ro" in options else 0)
    _detached[made.path] = made
    return made


def nothing() -> int:
    """Return a descriptor with nothing behind it, for ``detached_tree`` to take the number of."""
    return os.open(os.devnull, os.O_PATH | os.O_CLOEXEC)


def detached_tree(fstype: str, parts: Mapping[str, str], at: int | None = None) -> DetachedMount:
    """Mount filesystems into one another without a mount point; it ends with ``release`` or the process.

    ``parts`` are {place below the first one: source}, the first one's place
    being "", parents first; a place that is not there is left out.  No mount
    can be attached to one that is nowhere, so they are put together over /proc,
    in a mount namespace that one passing thread has, and a copy of the whole is
    taken.  The number of its descriptor, and so its path, is ``at`` if given.
    """

    def assemble() -> int:
        for place, source in parts.items():
            target = Path("/proc", place)
            if not place or target.is_dir():
                mount_as_elsewhere(source, str(target), fstype)
        try:
            return cloned_mount("/proc", recursive=True)
        finally:
            unmount("/proc", MNT_DETACH)

    owner = in_own_namespace(assemble)
    fd = nothing() if at is None else at
    with system.descriptor(f"/proc/self/fd/{owner}", system.DIRECTORY) as top:
        os.dup2(top, fd, inheritable=False)
    made = DetachedMount(owner, fd, fstype, parts[""], "", 0)
    _detached[made.path] = made
    _parts[os.fstat(fd).st_dev] = frozenset(_devices(fd, parts))
    return made


def _devices(fd: int, places: Iterable[str]) -> Iterator[int]:
    for place in filter(None, places):
        with suppress(FileNotFoundError):
            yield os.stat(place, dir_fd=fd, follow_symlinks=False).st_dev


def parts_of(device: int) -> frozenset[int]:
    """Return the device numbers of what was mounted into the filesystem of that number as a part of it."""
    return _parts.get(device, frozenset())


def mount_as_elsewhere(source: str, target: str, fstype: str) -> None:
    """Mount a filesystem that may be mounted already, writable unless it is read-only there.

    Raises:
        OSError: about ``source``.
    """
    try:
        try:
            mount(source, target, fstype)
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
            mount(source, target, fstype, MS_RDONLY)
    except OSError as error:
        error.filename = source
        raise


def release(made: DetachedMount) -> None:
    """Unmount it, unless something of it is open; its path leads nowhere from then on."""
    del _detached[made.path]
    _parts.pop(os.fstat(made.fd).st_dev, None)
    # The number stays taken: another directory behind an old path would be written to.
    empty = nothing()
    os.dup2(empty, made.fd, inheritable=False)
    os.close(empty)
    os.close(made.owner)


def with_real_path(path: Path, use: Callable[[Path], Result]) -> Result:
    """Return ``use(path)``, with a path that stands for itself even inside a detached mount.

    Libraries that resolve links by hand (SQLite does) get lost in /proc/self/fd.
    For them the filesystem is mounted once more, over /proc, in a mount
    namespace that only one passing thread sees; what ``use`` opens there
    outlives it.
    """
    made = _detached.get(Path(*path.parts[:5]))
    if made is None:
        return use(path)
    real = Path("/proc", *path.parts[5:])
    return in_own_namespace(lambda: _mounted_over_proc(made, lambda: use(real)))


def _mounted_over_proc(made: DetachedMount, act: Callable[[], Result]) -> Result:
    mount(made.source, "/proc", made.fstype, made.flags, made.options)
    return act()


def in_own_namespace(act: Callable[[], Result]) -> Result:
    """Return ``act()``, done by a passing thread in a mount namespace that nobody else sees.

    Raises:
        LayoutError: the root directory is no mount point, and what it lies in can't be kept apart.
    """

    def alone() -> Result:
        system.unshare(system.CLONE_NEWNS)
        _keep_to_oneself()
        return act()

    return threads.at_once([alone])[0]


def _keep_to_oneself() -> None:
    try:
        mount("none", "/", flags=MS_REC | MS_PRIVATE)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        hint = "outside of it: mount --bind DIRECTORY DIRECTORY; then chroot into that"
        raise LayoutError("the root directory is no mount point: a chroot into another", hint=hint) from None


def mount(source: str, target: str, fstype: str = "", flags: int = 0, options: str = "") -> None:
    """Call mount(2)."""
    result = system.libc().mount(
        os.fsencode(source),
        os.fsencode(target),
        fstype.encode() or None,
        flags,
        os.fsencode(options) or None,
    )
    system.check(result, target)


def unmount(target: str, flags: int = 0) -> None:
    """Call umount2(2)."""
    system.check(system.libc().umount2(os.fsencode(target), flags), target)


def cloned_mount(path: str | bytes, *, dirfd: int = system.AT_FDCWD, recursive: bool = False) -> int:
    """Return a descriptor of a copy of what is mounted at ``path``, itself mounted nowhere.

    It ends with the last descriptor of it, unless it is attached.  Without a
    ``path`` it is what ``dirfd`` is open on.
    """
    flags = OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | (system.AT_RECURSIVE if recursive else 0)
    flags |= 0 if path else system.AT_EMPTY_PATH
    return system.syscall(SYS_OPEN_TREE, dirfd, os.fsencode(path), flags, about=path)


def attach(mounted: int, target: int, *, beneath: bool = False) -> None:
    """Mount what ``fresh_mount`` or ``cloned_mount`` made on the file or directory ``target``.

    ``beneath`` puts it under the mount whose root ``target`` is (Linux 6.5),
    where nobody sees it until that one is unmounted.
    """
    flags = MOVE_MOUNT_BOTH_EMPTY | (MOVE_MOUNT_BENEATH if beneath else 0)
    system.syscall(SYS_MOVE_MOUNT, mounted, b"", target, b"", flags)


def restrict(mounted: int, attributes: int, *, recursive: bool = False) -> None:
    """Add MOUNT_ATTR_* to the mount behind a descriptor, ``recursive`` to those below it too."""
    cleared = MOUNT_ATTR_ATIME if attributes & MOUNT_ATTR_ATIME else 0
    wanted = struct.pack("=QQQQ", attributes, cleared, 0, 0)
    flags = system.AT_EMPTY_PATH | (system.AT_RECURSIVE if recursive else 0)
    system.syscall(SYS_MOUNT_SETATTR, mounted, b"", flags, wanted, len(wanted))


def enter_root(root: int) -> None:
    """Make the mount behind ``root`` the root of this mount namespace and let go of the old one."""
    os.fchdir(root)
    system.check(system.libc().pivot_root(b".", b"."))
    unmount(".", MNT_DETACH)
    os.chdir("/")
