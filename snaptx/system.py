"""What Linux offers and Python's standard library does not: a few calls by ctypes.

Each wrapper raises OSError with the errno of the call.  The numbers of system
calls from 424 on are the same on every architecture Linux runs on except
alpha (include/uapi/asm-generic/unistd.h).  No rules live here.
"""

from __future__ import annotations

import ctypes
import os
import pwd
import signal
import stat
import struct
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import NamedTuple

SYS_OPENAT2 = 437

# linux/openat2.h
RESOLVE_NO_XDEV = 0x01
RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_NO_SYMLINKS = 0x04
RESOLVE_BENEATH = 0x08
RESOLVE_IN_ROOT = 0x10

# linux/fcntl.h, linux/stat.h
AT_FDCWD = -100
AT_SYMLINK_NOFOLLOW = 0x100
AT_EMPTY_PATH = 0x1000
AT_RECURSIVE = 0x8000
STATX_BTIME = 0x800

# linux/sched.h
CLONE_NEWNS = 0x00020000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWPID = 0x20000000

# linux/fs.h, linux/time.h, linux/prctl.h
RENAME_EXCHANGE = 0x2
CLOCK_REALTIME_COARSE = 5
PR_SET_PDEATHSIG = 1

DIRECTORY = os.O_RDONLY | os.O_DIRECTORY
"""How a directory is opened to work below it."""

INSIDE = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS
"""Rules of openat2 for a tree that somebody else made: no link is followed."""

AS_ROOT = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS
"""Rules that resolve links as if the tree's root were /."""

HELD = frozenset({signal.SIGINT, signal.SIGTERM, signal.SIGHUP})
"""The signals that end this program in good order."""


@contextmanager
def undisturbed() -> Iterator[None]:
    """Hold these signals back for the length of a with block."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, HELD)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@cache
def libc() -> ctypes.CDLL:
    """Return the C library, for the wrappers here and in ``mounting``."""
    return ctypes.CDLL(None, use_errno=True)


def check(result: int, *names: object) -> int:
    """Return ``result``; raise the OSError of errno if it is negative."""
    if result < 0:
        number = ctypes.get_errno()
        shown = [os.fsdecode(n) if isinstance(n, bytes) else str(n) for n in names]
        raise OSError(number, os.strerror(number), *shown[:1])
    return result


def syscall(number: int, *arguments: object, about: str | bytes = "") -> int:
    """Make a system call the C library has no wrapper for; ``about`` is the name an OSError carries."""
    return check(libc().syscall(number, *arguments), *filter(None, [about]))


@contextmanager
def address(data: bytes) -> Iterator[int]:
    """Yield where in memory a copy of ``data`` is, for the length of a with block."""
    buffer = ctypes.create_string_buffer(data, len(data))
    yield ctypes.addressof(buffer)


def openat2(dirfd: int, path: bytes, flags: int, resolve: int) -> int:
    """Open ``path`` below ``dirfd`` under the RESOLVE_* rules and return the descriptor."""
    how = struct.pack("=QQQ", flags | os.O_CLOEXEC, 0, resolve)
    while True:
        try:
            return check(libc().syscall(SYS_OPENAT2, dirfd, path, how, len(how)), path)
        except BlockingIOError:
            # EAGAIN: a rename or mount elsewhere raced with ".."; openat2(2) says to try again.
            continue


@contextmanager
def in_root(root: Path, name: str, flags: int) -> Iterator[int]:
    """Open ``name`` below ``root``, as if that were /, for the length of a with block."""
    with descriptor(root, DIRECTORY) as fd:
        found = openat2(fd, os.fsencode(name), flags, AS_ROOT)
    try:
        yield found
    finally:
        os.close(found)


@contextmanager
def _if_in_root(root: Path, name: str, flags: int) -> Iterator[int | None]:
    """Like ``in_root``, with None for what can't be opened."""
    with descriptor(root, DIRECTORY) as fd:
        try:
            found = openat2(fd, os.fsencode(name), flags, AS_ROOT)
        except OSError:
            found = None
    try:
        yield found
    finally:
        if found is not None:
            os.close(found)


def stat_in_root(root: Path, name: str) -> os.stat_result | None:
    """Return what is known of ``name`` below ``root``, None if it is not there."""
    try:
        with in_root(root, name, os.O_PATH) as fd:
            return os.fstat(fd)
    except OSError:
        return None


def read_in_root(root: Path, name: str, limit: int = 1 << 20) -> bytes:
    """Return the first ``limit`` bytes of a regular file, b"" if there is none.

    Links are resolved as if ``root`` were /.
    """
    with _if_in_root(root, name, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY) as fd:
        if fd is None or not stat.S_ISREG(os.fstat(fd).st_mode):
            return b""
        return os.read(fd, limit)


def names_in_root(root: Path, name: str) -> list[str]:
    """Return the names in a directory, none if there is no such directory.

    Links are resolved as if ``root`` were /.
    """
    with _if_in_root(root, name, DIRECTORY) as fd:
        return [] if fd is None else os.listdir(fd)


def exchange(dirfd: int, one: str, other: str) -> None:
    """Swap two names in one directory in a single step (renameat2, RENAME_EXCHANGE)."""
    result = libc().renameat2(dirfd, os.fsencode(one), dirfd, os.fsencode(other), RENAME_EXCHANGE)
    check(result, one)


def birth_ns(dirfd: int, name: bytes) -> int:
    """Return when the inode called ``name`` was made, in ns since the epoch; 0 if unknown (statx)."""
    buffer = ctypes.create_string_buffer(256)
    result = libc().statx(dirfd, name, AT_SYMLINK_NOFOLLOW, STATX_BTIME, buffer)
    check(result, name)
    mask, seconds, nanoseconds = struct.unpack_from("=I76xqI", buffer)
    return seconds * 1_000_000_000 + nanoseconds if mask & STATX_BTIME else 0


def syncfs(fd: int) -> None:
    """Write everything of the filesystem behind ``fd``; raise on a data error since ``fd`` was opened."""
    check(libc().syncfs(fd))


def unshare(flags: int) -> None:
    """Leave the namespaces named by the CLONE_* flags for new ones."""
    check(libc().unshare(flags))


def die_with_parent() -> None:
    """Let SIGKILL end this process when the thread that forked it ends."""
    check(libc().prctl(PR_SET_PDEATHSIG, ctypes.c_ulong(signal.SIGKILL), 0, 0, 0))


def signal_descriptor(signals: Iterable[int]) -> int:
    """Return a non-blocking descriptor to read ``signals`` from, which the caller has blocked.

    One struct signalfd_siginfo (128 bytes, signalfd(2)) is read for each signal.
    """
    mask = struct.pack("=Q120x", sum(1 << (number - 1) for number in set(signals)))
    return check(libc().signalfd(-1, mask, os.O_CLOEXEC | os.O_NONBLOCK))


class Mount(NamedTuple):
    """One line of /proc/self/mountinfo (proc_pid_mountinfo(5)), escapes undone.

    ``number`` is the mount's own, ``parent`` that of the mount it is on.
    """

    root: str
    target: str
    fstype: str
    source: str
    device: str
    options: str
    super_options: str
    number: int = 0
    parent: int = 0


_ESCAPES = {" ": "\\040", "\t": "\\011", "\n": "\\012", "\\": "\\134"}
"""How mountinfo writes these in a path (show_mountinfo in the kernel's fs/proc_namespace.c)."""


def _escape(path: str) -> str:
    return "".join(_ESCAPES.get(char, char) for char in path)


def _unescape(text: str) -> str:
    for char, code in _ESCAPES.items():
        text = text.replace(code, char)
    return text


def parse_mounts(text: str, word: str = "") -> Iterator[Mount]:
    """Yield the mounts of a mountinfo file, in its order; with ``word`` those whose line has it."""
    for line in filter(None, text.split("\n")):  # a path may hold all else that ends a line elsewhere
        if word not in line:
            continue
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
            number=int(fields[0]),
            parent=int(fields[1]),
        )


def mounts(word: str = "") -> list[Mount]:
    """Return what is mounted in this process's mount namespace; with ``word`` what has it in its line."""
    return list(parse_mounts(os.fsdecode(Path("/proc/self/mountinfo").read_bytes()), word))


def mounts_everywhere(word: str) -> Iterator[Mount]:
    """Yield the mounts of every mount namespace that a process lives in whose line has ``word``.

    People wait for this, with hundreds of processes to ask and dozens of namespaces.
    """
    seen: set[str] = set()
    for process in filter(str.isdigit, os.listdir("/proc")):
        try:
            namespace = os.readlink(f"/proc/{process}/ns/mnt")
            if namespace not in seen:
                with open(f"/proc/{process}/mountinfo", "rb") as file:
                    yield from parse_mounts(os.fsdecode(file.read()), word)
                seen.add(namespace)
        except OSError:
            continue  # the process ended


def mount_at(path: Path) -> Mount | None:
    """Return the topmost mount whose mount point is exactly ``path``, or None."""
    wanted = str(path.resolve())
    found = [mount for mount in mounts(f" {_escape(wanted)} ") if mount.target == wanted]
    return found[-1] if found else None


def now() -> float:
    """Return the time in seconds since the epoch; tests replace it."""
    return time.time()


def file_clock_ns() -> int:
    """Return the time the kernel stamps files with, in ns since the epoch: a tick (4 ms) behind the clock."""
    return time.clock_gettime_ns(CLOCK_REALTIME_COARSE)


def is_running_root(sysroot: Path) -> bool:
    """Return whether the root that is worked on is this system's own."""
    return sysroot.resolve() == Path("/")


def is_root() -> bool:
    """Return whether the process has root's rights; tests replace it."""
    return os.geteuid() == 0


def kernel_words() -> list[str]:
    """Return the words of the kernel's command line."""
    return Path("/proc/cmdline").read_text(encoding="utf-8", errors="replace").split()


def state_of(pid: int) -> list[bytes]:
    """Return the fields of a process's state from the third on, none if there is none (proc_pid_stat(5))."""
    try:
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return []


def process_start(pid: int) -> int:
    """Return when a process began, in clock ticks since the boot; 0 if there is none.

    That tells it from a later process of the same number.
    """
    fields = state_of(pid)
    return int(fields[19]) if fields else 0


def parent_of(pid: int) -> int:
    """Return the parent of a process, 0 if there is none."""
    fields = state_of(pid)
    return int(fields[1]) if fields else 0


def command_of(pid: int) -> list[str]:
    """Return the words of a process's command line, none if there is no such process."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return []
    return [word.decode(errors="replace") for word in words if word]


def signal_of(interrupt: KeyboardInterrupt) -> signal.Signals:
    """Return the signal that was made this exception; Python's own does not say that it is SIGINT."""
    return signal.Signals(interrupt.args[0] if interrupt.args else signal.SIGINT)


def boot_id() -> str:
    """Return the kernel's id of this boot."""
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()


class Identity(NamedTuple):
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
        login = Path("/proc/self/loginuid").read_text(encoding="utf-8").strip()
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


def free_percent(path: Path) -> float:
    """Return how much of a filesystem is free."""
    space = os.statvfs(path)
    return 100 * space.f_bavail / max(space.f_blocks, 1)


def seen_by_others(path: Path) -> Path:
    """Return a path below /proc/self as other processes can follow it while this one lives."""
    text = str(path)
    own = text.startswith("/proc/self/")
    return Path(text.replace("/proc/self/", f"/proc/{os.getpid()}/", 1)) if own else path
