"""Starting, holding and stopping the process of an instance, without a manager of services.

It has a session of its own and a mount namespace in which the generation's tree
is the root, with the machine's /proc, /dev and /sys; mounts that go on the machine go
there too.
"""

from __future__ import annotations

import fcntl
import os
import select
import signal
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from snaptx import mounting, run, system
from snaptx.errors import CommandError

FIRST = 3
"""The first descriptor that is handed over (SD_LISTEN_FDS_START)."""

UMASK = 0o022
"""Of what is started, as systemd has it; not that of whoever starts it."""

INSIDE = ("proc", "dev", "sys")

PATIENCE = 5.0
"""Seconds that what is killed has to be gone in; what hangs in the kernel takes longer."""


@dataclass(frozen=True, slots=True)
class Start:
    """A ``command`` to start in the tree at ``root``, which gets ``sockets``; ``log`` is where it writes."""

    root: Path
    command: Sequence[str]
    sockets: Sequence[socket.socket]
    env: Mapping[str, str]
    log: Path

    def high(self, fd: int) -> int:
        """Return a copy of a descriptor whose number no handed one takes, closed by execve(2)."""
        return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, FIRST + len(self.sockets) + 64)


def spawn(start: Start) -> int:
    """Start a process; return its process id once it is executed.

    Raises:
        CommandError: it can't be executed.
    """
    said, says = os.pipe()  # closed by a successful execve(2)
    pids, tells = os.pipe()
    with system.undisturbed():
        between = os.fork()
        if not between:
            _fork_away(start, says, tells)
    for fd in (says, tells):
        os.close(fd)
    try:
        os.waitpid(between, 0)
        pid = int(os.read(pids, 32) or b"0")
        trouble = _all_of(said).decode(errors="replace")
    finally:
        os.close(pids)
        os.close(said)
    if trouble or not pid:
        said_so = f"cannot start {start.command[0]}: {trouble or 'no process'}"
        raise CommandError(said_so, hint=f"in {start.root}")
    return pid


def _all_of(fd: int) -> bytes:
    return b"".join(iter(lambda: os.read(fd, 4096), b""))


def _fork_away(start: Start, says: int, tells: int) -> NoReturn:
    """Leave the process to init: nothing of snaptx stays to wait for it."""
    try:
        says = start.high(says)
        os.setsid()
        child = os.fork()
        if child:
            os.write(tells, str(child).encode())
            os._exit(0)
        _become(start, says)
    except BaseException as error:  # noqa: BLE001 - there is nobody above this
        with suppress(OSError):
            os.write(says, str(error).encode())
    finally:
        os._exit(1)


def _become(start: Start, says: int) -> NoReturn:
    os.setpgid(0, 0)
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    os.umask(UMASK)
    out = os.open(start.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o640)
    given = [start.high(one.fileno()) for one in start.sockets]
    _enter(start.root)
    for place, fd in enumerate((os.open("/dev/null", os.O_RDWR | os.O_CREAT), out, out, *given)):
        os.dup2(fd, place, inheritable=True)
    os.closerange(FIRST + len(given), says)
    listen = {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": str(len(given))} if given else {}
    environment = run.environment({**start.env, **listen})
    os.execvpe(start.command[0], list(start.command), environment)


def _enter(root: Path) -> None:
    system.unshare(system.CLONE_NEWNS)
    mounting.mount("none", "/", flags=mounting.MS_REC | mounting.MS_SLAVE)
    for name in INSIDE:
        if (root / name).is_dir() and not (root / name).is_symlink():
            mounting.mount(f"/{name}", str(root / name), flags=mounting.MS_BIND | mounting.MS_REC)
    os.chroot(root)
    os.chdir("/")


def is_alive(pid: int, start: int) -> bool:
    """Return whether the process that began at ``start`` (clock ticks since the boot) still runs."""
    fields = system.state_of(pid)
    return bool(fields) and int(fields[19]) == start and fields[0] not in (b"Z", b"X")


@contextmanager
def held(pid: int) -> Iterator[None]:
    """Stop a process group for the length of a with block: it takes no connection and loses none.

    A child waits for the end of this process, however it comes, and lets the group go on.
    """
    waits, lives = os.pipe()
    with system.undisturbed():
        keeper = os.fork()
        if not keeper:
            _keep(pid, waits, lives)
    os.close(waits)
    try:
        _signal_group(pid, signal.SIGSTOP)
        yield
    finally:
        _signal_group(pid, signal.SIGCONT)
        os.close(lives)
        os.waitpid(keeper, 0)


def _keep(pid: int, waits: int, lives: int) -> NoReturn:
    try:
        os.close(lives)
        for number in system.HELD:
            signal.signal(number, signal.SIG_IGN)
        os.read(waits, 1)
        _signal_group(pid, signal.SIGCONT)
    finally:
        os._exit(0)


def _signal_group(pid: int, number: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(pid, number)


def stop(pid: int, start: int, how: str, drain: float) -> bool:
    """End a process group by ``how``, after ``drain`` seconds by SIGKILL; return if it had to be."""
    if is_alive(pid, start):
        _signal_group(pid, signal.SIGCONT)
        with suppress(ProcessLookupError):
            os.kill(pid, signal.Signals[f"SIG{how}"])
        ended = _ends(pid, start, drain)
        _signal_group(pid, signal.SIGKILL)  # what it left of its group as well
        _ends(pid, start, drain)
        return not ended
    return False


def end_inside(root: Path) -> None:
    """Kill every process whose root directory is in the tree at ``root``: what left an instance's group."""
    deadline = time.monotonic() + PATIENCE
    while (found := list(_inside(root))) and time.monotonic() < deadline:
        for pid in found:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.01)


def _inside(root: Path) -> Iterator[int]:
    """Yield those processes; who looks around there in the machine's own mount namespace is none of them."""
    wanted, own = os.stat(root), os.readlink("/proc/self/ns/mnt")
    for name in filter(str.isdigit, os.listdir("/proc")):
        with suppress(OSError):
            # The tree is a subvolume, with a number of its own: a root directory further in has it too.
            is_there = os.stat(f"/proc/{name}/root").st_dev == wanted.st_dev
            if is_there and os.readlink(f"/proc/{name}/ns/mnt") != own:
                yield int(name)


def _ends(pid: int, start: int, seconds: float) -> bool:
    """Wait up to ``seconds`` for the end of a process; return whether it came."""
    try:
        process = os.pidfd_open(pid)
    except OSError:
        return True
    try:
        deadline = time.monotonic() + seconds
        while is_alive(pid, start) and time.monotonic() < deadline:
            select.select([process], [], [], min(0.2, max(0.0, deadline - time.monotonic())))
        return not is_alive(pid, start)
    finally:
        os.close(process)
