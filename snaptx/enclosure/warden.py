"""The processes of an enclosure: the warden, init and the command (see chroot.py).

They only wait for signals, which the parent has blocked, and tell what goes
wrong through one pipe: a JSON object per line.  The last of them closes it by
becoming the command.  Nothing may be imported once the view is built: Python's
library is out of reach then.
"""

from __future__ import annotations

import errno
import json
import os
import select
import signal
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import NamedTuple, NoReturn

from snaptx import system
from snaptx.enclosure import guard, namespace
from snaptx.enclosure.namespace import Enclosure
from snaptx.run import SAFE_PATH

FORCE = signal.SIGRTMIN
"""What the warden takes as an order to kill everything and see it end."""

SI_KERNEL = 0x80
"""The si_code of a signal the kernel sent, here for the terminal (asm-generic/siginfo.h)."""


class Streams(NamedTuple):
    """The descriptors a command's output and errors go to, and whether it may read what this process may."""

    output: int
    errors: int
    heard: bool = False


class Work(NamedTuple):
    """What the children need to know.

    ``foreground`` is whether the command gets the terminal, ``awaited`` the
    signals to pass on, ``guard`` what ``guard.join`` takes, ``streams`` what
    becomes of the standard streams, if they are not to be this process's own.
    """

    enclosure: Enclosure
    argv: tuple[str, ...]
    interactive: bool
    foreground: bool
    awaited: frozenset[int]
    guard: int | None = None
    streams: Streams | None = None


def start(work: Work, reports: int, parent: int) -> int:
    """Start the warden from the process ``parent`` and return its id; it ends with the command's status.

    ``reports`` is the end of a pipe to write to.  The caller has blocked ``work.awaited``, SIGCHLD and FORCE.

    Raises:
        OSError: there can be no further process.
    """
    return _fork(reports, lambda: _warden(work, reports, parent))


def exit_status(status: int) -> int:
    """Return the shell's idea of a wait status: the exit status, or 128 + n for signal n."""
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def in_foreground() -> bool:
    """Return whether standard input is a terminal that listens to this process's group."""
    try:
        return os.tcgetpgrp(0) == os.getpgrp()
    except OSError:
        return False


def give_terminal(group: int) -> None:
    """Make ``group`` the terminal's foreground, from the background too."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTTOU})
    with suppress(OSError):
        os.tcsetpgrp(0, group)
    signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _report(reports: int, kind: str, what: str, number: int = 0) -> None:
    line = json.dumps({"kind": kind, "what": what, "errno": number}).encode() + b"\n"
    with suppress(OSError):
        while line:
            line = line[os.write(reports, line) :]


def _fork(reports: int, work: Callable[[], int]) -> int:
    """Do ``work`` in a child, which ends with its result and never gets back to the caller; return its id."""
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        status = work()
    except OSError as error:
        _report(reports, "setup", str(error.filename or "set up the namespaces"), error.errno or errno.EIO)
    except BaseException:  # noqa: BLE001
        _report(reports, "bug", traceback.format_exc())
    finally:
        os._exit(status)


def _warden(work: Work, reports: int, parent: int) -> int:
    """Leave the machine's namespaces, start init in them and outlive it."""
    _follow(lambda: os.getppid() == parent)
    forget_handlers()
    _redirect(work.streams)
    _close_all_but(reports, *([] if work.guard is None else [work.guard]))
    os.chdir("/")
    reading, alive = os.pipe()
    with namespace.doing("leave the machine's namespaces"):
        system.unshare(system.CLONE_NEWNS | system.CLONE_NEWPID | system.CLONE_NEWIPC | system.CLONE_NEWUTS)
    init = _fork(reports, lambda: _init(work, reports, reading, alive))
    os.close(reports)
    return exit_status(_tend(init, work.awaited | {FORCE}, lambda _: True))


def _init(work: Work, reports: int, reading: int, alive: int) -> int:
    """Build the view and run the command in it; what is left when it ends is ended by the kernel."""
    os.close(alive)
    _follow(lambda: not select.select([reading], [], [], 0)[0])
    os.umask(0)
    namespace.enter(work.enclosure, lambda what: _report(reports, "warning", what))
    _join_guard(work, reports)
    _close_all_but(reports)
    command = _fork(reports, lambda: _command(work, reports))
    if not work.interactive:
        os.close(reports)
        return exit_status(_tend(command, work.awaited, _comes_from_outside))
    stopped = (lambda: _tell_of_stop(command, reports)) if work.foreground else None
    status = _tend(command, work.awaited, _comes_from_outside, stopped)
    if os.WIFEXITED(status):
        _report(reports, "exited", "")
    return exit_status(status)


def _tell_of_stop(command: int, reports: int) -> None:
    """Say that the command has stopped, and whether it has the terminal: then nobody else lets it go on."""
    with suppress(OSError):
        _report(reports, "stopped", "with terminal" if os.tcgetpgrp(0) == command else "")


def _join_guard(work: Work, reports: int) -> None:
    """Give up the right to write to disks, which mounting the root still took."""
    if work.guard is not None:
        try:
            guard.join(work.guard)
        except OSError as error:
            _report(reports, "warning", f"disks are not protected from the command: {error.strerror}")


def _follow(parent_lives: Callable[[], bool]) -> None:
    """End with the parent, even if it ended before this call."""
    system.die_with_parent()
    if not parent_lives():
        os._exit(1)


def forget_handlers() -> None:
    """Undo what this program and Python made of signals; what the caller had ignored stays ignored."""
    for number in signal.valid_signals():
        if callable(signal.getsignal(number)):
            signal.signal(number, signal.SIG_DFL)
    for number in (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)


def _redirect(streams: Streams | None) -> None:
    """Let output and errors go where they are to, and nothing be read, unless that is to stay as it is."""
    if streams is not None:
        output, errors = os.dup(streams.output), os.dup(streams.errors)
        os.dup2(output, 1)
        os.dup2(errors, 2)
        if not streams.heard:
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)


def _close_all_but(*kept: int) -> None:
    """Close every descriptor but the standard streams and ``kept``."""
    start = 3
    for fd in sorted(kept):
        os.closerange(start, fd)
        start = max(start, fd + 1)
    os.closerange(start, os.sysconf("SC_OPEN_MAX"))


def _comes_from_outside(told: signal.struct_siginfo) -> bool:
    """Return whether the sender is outside this process namespace, and so has no number here.

    Those who want to steer the machine's init, as telinit does, find this process in its place.
    """
    return told.si_pid == 0


def _tend(
    child: int,
    awaited: frozenset[int],
    heeded: Callable[[signal.struct_siginfo], bool],
    stopped: Callable[[], None] | None = None,
) -> int:
    """Reap whatever ends and hand ``heeded`` signals to ``child`` until it ends; return its wait status.

    ``stopped`` is called whenever ``child`` has stopped.
    """
    while True:
        told = signal.sigwaitinfo(awaited | {signal.SIGCHLD})
        if told.si_signo == signal.SIGCHLD:
            status = _reap_all(child, os.WUNTRACED if stopped else 0)
            if status is not None and not os.WIFSTOPPED(status):
                return status
            if status is not None and stopped:
                stopped()
        elif told.si_code != SI_KERNEL and heeded(told):  # the terminal tells all of us at once
            os.kill(child, signal.SIGKILL if told.si_signo == FORCE else told.si_signo)


def _reap_all(child: int, options: int) -> int | None:
    """Collect every process that has ended; return the wait status of ``child`` if it is among them.

    ``options`` are those of waitpid(2), for what else there is to learn.
    """
    found = None
    with suppress(ChildProcessError):
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG | options)
            if pid == 0:
                break
            if pid == child:
                found = status
    return found


def _command(work: Work, reports: int) -> int:
    """Become the command; return only if that fails."""
    os.umask(0o022)
    if work.interactive:
        work = _with_terminal(work)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    try:
        execute(work.argv, work.enclosure.environment)
    except OSError as error:
        _report(reports, "command", work.argv[0], error.errno or errno.EIO)
    return 127


def _with_terminal(work: Work) -> Work:
    """Make this process the owner of the terminal, and choose the shell if no command is given."""
    if work.foreground:
        os.setpgid(0, 0)
        give_terminal(os.getpid())
    if work.argv:
        return work
    wanted = os.environ.get("SHELL", "")
    shell = wanted if wanted.startswith("/") and os.access(wanted, os.X_OK) else "/bin/sh"
    environment = {**work.enclosure.environment, "SHELL": shell}
    return work._replace(argv=(shell,), enclosure=work.enclosure._replace(environment=environment))


def execute(argv: Sequence[str], environment: Mapping[str, str]) -> NoReturn:
    """Replace this process; look for the command as execvp(3) does, with nothing imported on the way.

    Raises:
        OSError: there is no such command, or it can't be executed.
    """
    name = argv[0]
    places = [""] if "/" in name else environment.get("PATH", SAFE_PATH).split(":")
    refused: OSError | None = None
    for place in places:
        try:
            os.execve(os.path.join(place, name), list(argv), environment)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            refused = refused or error
    raise refused or FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
