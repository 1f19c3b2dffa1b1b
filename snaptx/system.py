"""What Linux offers and Python's standard library does not: a few calls by ctypes.

Each wrapper raises OSError with the errno of the call.  The numbers of system
calls from 424 on are the same on every architecture Linux runs on except
alpha (include/uapi/asm-generic/unistd.h).  No rules live here.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import pwd
import signal
import stat
import struct
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TypeVar

Result = TypeVar("Result")

SYS_OPEN_TREE = 428
SYS_MOVE_MOUNT = 429
SYS_FSOPEN = 430
SYS_FSCONFIG = 431
SYS_FSMOUNT = 432
SYS_OPENAT2 = 437
SYS_MOUNT_SETATTR = 442

# linux/openat2.h
RESOLVE_NO_XDEV = 0x01
RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_NO_SYMLINKS = 0x04
RESOLVE_BENEATH = 0x08
RESOLVE_IN_ROOT = 0x10

# linux/fcntl.h, linux/stat.h
AT_SYMLINK_NOFOLLOW = 0x100
STATX_BTIME = 0x800

# linux/mount.h
MS_RDONLY = 0x1
MS_NOSUID = 0x2
MS_NODEV = 0x4
MS_NOEXEC = 0x8
MS_REMOUNT = 0x20
MS_BIND = 0x1000
MS_REC = 0x4000
MS_PRIVATE = 0x40000
MS_SLAVE = 0x80000
MNT_DETACH = 0x2
FSOPEN_CLOEXEC = 0x1
FSMOUNT_CLOEXEC = 0x1
FSCONFIG_SET_FLAG = 0
FSCONFIG_SET_STRING = 1
FSCONFIG_CMD_CREATE = 6
OPEN_TREE_CLONE = 0x1
OPEN_TREE_CLOEXEC = os.O_CLOEXEC
MOVE_MOUNT_BOTH_EMPTY = 0x44  # F_EMPTY_PATH | T_EMPTY_PATH
MOUNT_ATTR_RDONLY = 0x1
MOUNT_ATTR_NOSUID = 0x2
MOUNT_ATTR_NODEV = 0x4
MOUNT_ATTR_NOEXEC = 0x8
MOUNT_ATTR_ATIME = 0x70  # the field that MOUNT_ATTR_NOATIME is a value of
MOUNT_ATTR_NOATIME = 0x10

# linux/sched.h
CLONE_NEWNS = 0x00020000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWPID = 0x20000000

# linux/fs.h
RENAME_EXCHANGE = 0x2
FIFREEZE = 0xC0045877
FITHAW = 0xC0045878

# linux/prctl.h
PR_SET_PDEATHSIG = 1

# linux/fcntl.h
AT_FDCWD = -100
_AT_EMPTY_PATH = 0x1000
_AT_RECURSIVE = 0x8000


@cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _check(result: int, *names: object) -> int:
    if result < 0:
        number = ctypes.get_errno()
        shown = [os.fsdecode(n) if isinstance(n, bytes) else str(n) for n in names]
        raise OSError(number, os.strerror(number), *shown[:1])
    return result


def openat2(dirfd: int, path: bytes, flags: int, resolve: int, mode: int = 0) -> int:
    """Open ``path`` below ``dirfd`` under the RESOLVE_* rules and return the descriptor."""
    how = struct.pack("=QQQ", flags | os.O_CLOEXEC, mode, resolve)
    while True:
        try:
            return _check(_libc().syscall(SYS_OPENAT2, dirfd, path, how, len(how)), path)
        except BlockingIOError:
            # EAGAIN: a rename or mount elsewhere raced with ".."; openat2(2) says to try again.
            continue


def read_in_root(root: Path, name: str, limit: int = 1 << 20) -> bytes:
    """Return the first ``limit`` bytes of a regular file, b"" if there is none.

    Links are resolved as if ``root`` were /.
    """
    with descriptor(root, os.O_RDONLY | os.O_DIRECTORY) as fd:
        try:
            flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY
            found = openat2(fd, os.fsencode(name), flags, RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS)
        except OSError:
            return b""
    try:
        return os.read(found, limit) if stat.S_ISREG(os.fstat(found).st_mode) else b""
    finally:
        os.close(found)


def exchange(dirfd: int, one: str, other: str) -> None:
    """Swap two names in one directory in a single step (renameat2, RENAME_EXCHANGE)."""
    result = _libc().renameat2(dirfd, os.fsencode(one), dirfd, os.fsencode(other), RENAME_EXCHANGE)
    _check(result, one)


def birth_ns(dirfd: int, name: bytes) -> int:
    """Return when the inode called ``name`` was made, in ns since the epoch; 0 if unknown (statx)."""
    buffer = ctypes.create_string_buffer(256)
    result = _libc().statx(dirfd, name, AT_SYMLINK_NOFOLLOW, STATX_BTIME, buffer)
    _check(result, name)
    mask, seconds, nanoseconds = struct.unpack_from("=I76xqI", buffer)
    return seconds * 1_000_000_000 + nanoseconds if mask & STATX_BTIME else 0


def syncfs(fd: int) -> None:
    """Write everything of the filesystem behind ``fd``; raise on a data error since ``fd`` was opened."""
    _check(_libc().syncfs(fd))


def freeze(fd: int) -> None:
    """Force a filesystem to a state that needs no log replay, then let it go on."""
    fcntl.ioctl(fd, FIFREEZE, 0)
    fcntl.ioctl(fd, FITHAW, 0)


@dataclass(frozen=True, slots=True)
class DetachedMount:
    """A filesystem mounted without a mount point: nobody else sees it and it ends with this process.

    ``owner`` holds the mount, ``fd`` is its root directory.
    """

    owner: int
    fd: int
    fstype: str
    source: str
    options: str

    @property
    def path(self) -> Path:
        """Return where this process reaches the root."""
        return Path(f"/proc/self/fd/{self.fd}")


_detached: dict[Path, DetachedMount] = {}


def fresh_mount(fstype: str, source: str, options: dict[str, str]) -> int:
    """Mount a filesystem nowhere; return a descriptor (O_PATH) that holds it, for ``attach``.

    An empty option value sets a flag.
    """
    context = _check(_libc().syscall(SYS_FSOPEN, fstype.encode(), FSOPEN_CLOEXEC), fstype)
    try:
        for key, value in {"source": source, **options}.items():
            command = FSCONFIG_SET_STRING if value else FSCONFIG_SET_FLAG
            argument = os.fsencode(value) if value else None
            _check(_libc().syscall(SYS_FSCONFIG, context, command, key.encode(), argument, 0), source)
        _check(_libc().syscall(SYS_FSCONFIG, context, FSCONFIG_CMD_CREATE, None, None, 0), source)
        return _check(_libc().syscall(SYS_FSMOUNT, context, FSMOUNT_CLOEXEC, 0), source)
    finally:
        os.close(context)


def detached_mount(fstype: str, source: str, options: dict[str, str]) -> DetachedMount:
    """Mount a filesystem without a mount point."""
    owner = fresh_mount(fstype, source, options)
    # fsmount's own descriptor is O_PATH: it can't be read or flushed.
    fd = os.open(f"/proc/self/fd/{owner}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    text = ",".join(f"{key}={value}" for key, value in options.items())
    made = DetachedMount(owner, fd, fstype, source, text)
    _detached[made.path] = made
    return made


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
    from concurrent.futures import ThreadPoolExecutor  # not for every start-up

    with ThreadPoolExecutor(max_workers=1) as thread:
        return thread.submit(_in_own_namespace, made, lambda: use(real)).result()


def _in_own_namespace(made: DetachedMount, act: Callable[[], Result]) -> Result:
    unshare(CLONE_NEWNS)
    mount("none", "/", flags=MS_REC | MS_PRIVATE)
    mount(made.source, "/proc", made.fstype, options=made.options)
    return act()


def mount(source: str, target: str, fstype: str = "", flags: int = 0, options: str = "") -> None:
    """Call mount(2)."""
    result = _libc().mount(
        os.fsencode(source),
        os.fsencode(target),
        fstype.encode() or None,
        ctypes.c_ulong(flags),
        os.fsencode(options) or None,
    )
    _check(result, target)


def unmount(target: str, flags: int = 0) -> None:
    """Call umount2(2)."""
    _check(_libc().umount2(os.fsencode(target), flags), target)


def cloned_mount(path: str | bytes, *, dirfd: int = AT_FDCWD, recursive: bool = False) -> int:
    """Return a descriptor of a copy of what is mounted at ``path``, itself mounted nowhere.

    It ends with the last descriptor of it, unless it is attached.
    """
    flags = OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | (_AT_RECURSIVE if recursive else 0)
    return _check(_libc().syscall(SYS_OPEN_TREE, dirfd, os.fsencode(path), flags), path)


def attach(mounted: int, target: int) -> None:
    """Mount what ``fresh_mount`` or ``cloned_mount`` made on the file or directory ``target``."""
    flags = ctypes.c_uint(MOVE_MOUNT_BOTH_EMPTY)
    _check(_libc().syscall(SYS_MOVE_MOUNT, mounted, b"", target, b"", flags))


def restrict(mounted: int, attributes: int, *, recursive: bool = False) -> None:
    """Add MOUNT_ATTR_* to the mount behind a descriptor, ``recursive`` to those below it too."""
    cleared = MOUNT_ATTR_ATIME if attributes & MOUNT_ATTR_ATIME else 0
    wanted = struct.pack("=QQQQ", attributes, cleared, 0, 0)
    flags = _AT_EMPTY_PATH | (_AT_RECURSIVE if recursive else 0)
    _check(_libc().syscall(SYS_MOUNT_SETATTR, mounted, b"", flags, wanted, len(wanted)))


def enter_root(root: int) -> None:
    """Make the mount behind ``root`` the root of this mount namespace and let go of the old one."""
    os.fchdir(root)
    _check(_libc().pivot_root(b".", b"."))
    unmount(".", MNT_DETACH)
    os.chdir("/")


def unshare(flags: int) -> None:
    """Leave the namespaces named by the CLONE_* flags for new ones."""
    _check(_libc().unshare(flags))


def die_with_parent() -> None:
    """Let SIGKILL end this process when the thread that forked it ends."""
    _check(_libc().prctl(PR_SET_PDEATHSIG, ctypes.c_ulong(signal.SIGKILL), 0, 0, 0))


def signal_descriptor(signals: Iterable[int]) -> int:
    """Return a non-blocking descriptor to read ``signals`` from, which the caller has blocked.

    One struct signalfd_siginfo (128 bytes, signalfd(2)) is read for each signal.
    """
    mask = struct.pack("=Q120x", sum(1 << (number - 1) for number in set(signals)))
    return _check(_libc().signalfd(-1, mask, os.O_CLOEXEC | os.O_NONBLOCK))


@dataclass(frozen=True, slots=True)
class Mount:
    """One line of /proc/self/mountinfo (proc_pid_mountinfo(5)), escapes undone."""

    root: str
    target: str
    fstype: str
    source: str
    device: str
    options: str
    super_options: str


def _unescape(text: str) -> str:
    for code, char in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        text = text.replace(code, char)
    return text


def parse_mounts(text: str) -> Iterator[Mount]:
    """Yield the mounts of a mountinfo file, in its order."""
    for line in text.splitlines():
        left, _, right = line.partition(" - ")
        fields, tail = left.split(" "), right.split(" ")
        yield Mount(
            root=_unescape(fields[3]),
            target=_unescape(fields[4]),
            fstype=tail[0],
            source=_unescape(tail[1]),
            device=fields[2],
            options=fields[5],
            super_options=tail[2] if len(tail) > 2 else "",
        )


def mounts() -> list[Mount]:
    """Return what is mounted in this process's mount namespace."""
    return list(parse_mounts(Path("/proc/self/mountinfo").read_text(errors="surrogateescape")))


def mount_at(path: Path) -> Mount | None:
    """Return the topmost mount whose mount point is exactly ``path``, or None."""
    wanted = str(path.resolve())
    found = [mount for mount in mounts() if mount.target == wanted]
    return found[-1] if found else None


def now() -> float:
    """Return the time in seconds since the epoch; tests replace it."""
    return time.time()


def is_root() -> bool:
    """Return whether the process has root's rights; tests replace it."""
    return os.geteuid() == 0


def boot_id() -> str:
    """Return the kernel's id of this boot."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


@dataclass(frozen=True, slots=True)
class Identity:
    """Who started this: the user id, its name, and who they were before sudo or su."""

    uid: int
    user: str
    sudo_user: str
    loginuid: str


def identity() -> Identity:
    """Return who is behind this process."""
    uid = os.getuid()
    try:
        user = pwd.getpwuid(uid).pw_name
    except KeyError:
        user = str(uid)
    try:
        login = Path("/proc/self/loginuid").read_text().strip()
    except OSError:
        login = ""
    unset = {"4294967295", "-1"}
    return Identity(uid, user, os.environ.get("SUDO_USER", ""), "" if login in unset else login)


@contextmanager
def descriptor(
    path: str | bytes | Path, flags: int, mode: int = 0o600, *, dir_fd: int | None = None
) -> Iterator[int]:
    """Open ``path`` for the length of a with block."""
    fd = os.open(path, flags | os.O_CLOEXEC, mode, dir_fd=dir_fd)
    try:
        yield fd
    finally:
        os.close(fd)


def seen_by_others(path: Path) -> Path:
    """Return a path below /proc/self as other processes can follow it while this one lives."""
    text = str(path)
    return (
        Path(text.replace("/proc/self/", f"/proc/{os.getpid()}/", 1))
        if text.startswith("/proc/self/")
        else path
    )
