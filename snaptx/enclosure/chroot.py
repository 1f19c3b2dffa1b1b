"""Run a command inside a generation's root.

    snaptx ──fork──> warden ──fork──> init ──fork──> command
      │                │                │
      │                │                └ first of the process namespace: builds the view, reaps orphans,
      │                │                  ends with the command's status, and everything left ends with it
      │                └ holds the namespaces, outlives init, hands signals on
      └ blocks its signals, waits, passes them on, raises them again when all is over

Whoever dies takes those to its right along: the warden and init get SIGKILL
when their parent ends, the rest goes with its process namespace.  So nothing
keeps the root busy, whatever happens.  This module is the left side; warden.py
is the rest, namespace.py the view.
"""

from __future__ import annotations

import errno
import json
import os
import select
import shlex
import signal
import struct
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple

from snaptx import log, system
from snaptx.enclosure import guard, standins, warden
from snaptx.enclosure.namespace import Enclosure
from snaptx.enclosure.warden import Streams, Work
from snaptx.errors import CommandError, PrivilegeError, SnaptxError, UsageError, storage_error

__all__ = ["Enclosure", "Ended", "Streams", "enclosed_environment", "run_enclosed", "run_interactive"]

GRACE = 5.0
"""Seconds a command has to end after a signal before it is killed."""

_SIGINFO = struct.Struct("=Iii116x")  # signalfd(2): ssi_signo, ssi_errno, ssi_code

_TAKEN = {"TERM", "LANG", "LANGUAGE"}
_PROXIES = {"http_proxy", "https_proxy", "ftp_proxy", "all_proxy", "no_proxy"}


def enclosed_environment(
    transaction: str, generation: int, outside: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Return the whole environment of a command in ``generation``.

    Of ``outside`` (this process's own by default) only the terminal, the
    language and the proxies are taken.  SYSTEMD_OFFLINE keeps systemctl from
    talking to a service manager; PATH and APT_CONFIG lead to the stand-ins.
    """
    given = os.environ if outside is None else outside
    chosen = {name: value for name, value in given.items() if name in _TAKEN or name.startswith("LC_")}
    return (
        _proxies(given)
        | chosen
        | {
            "PATH": standins.PATH,
            "APT_CONFIG": standins.APT_CONFIG,
            "HOME": "/root",
            "USER": "root",
            "LOGNAME": "root",
            "SYSTEMD_OFFLINE": "1",
            "SNAPTX_TRANSACTION": transaction,
            "SNAPTX_GENERATION": str(generation),
        }
    )


def _proxies(given: Mapping[str, str]) -> dict[str, str]:
    """Return the variables of proxies, in small letters as well: apt and curl know no HTTP_PROXY."""
    found = {name: value for name, value in given.items() if name.lower() in _PROXIES}
    return {name.lower(): value for name, value in found.items()} | found


class Ended(NamedTuple):
    """How a command ended.

    ``status`` is its exit status, or 128 + n if signal n ended it.  ``by_itself``
    is whether it exited, which the status does not tell: a shell's is that of the
    last command, 130 if that was interrupted.
    """

    status: int
    by_itself: bool


def run_enclosed(enclosure: Enclosure, argv: Sequence[str], *, streams: Streams | None = None) -> int:
    """Run ``argv`` in the enclosure and return its exit status, 128 + n if signal n ended it.

    ``streams`` are what it reads and writes, by default what this process does.

    SIGINT, SIGTERM and SIGHUP are passed on; after ``GRACE`` seconds, or at the
    second one, everything inside is killed; then the signal is raised here
    again.  An interrupt typed at the terminal reaches the command by itself and
    only counts if it fails.

    Raises:
        PrivilegeError: not root, or root without the rights to mount.
        UsageError: there is no ``argv``.
        CommandError: there is no such command, or it can't be executed.
        StorageError: a mount failed.
    """
    if not argv:
        raise UsageError("no command given", hint="name it after --, as in: snaptx run -- apt-get upgrade")
    return _enclosed(enclosure, argv, False, streams).status


def run_interactive(enclosure: Enclosure, argv: Sequence[str], *, streams: Streams | None = None) -> Ended:
    """Run ``argv`` as ``run_enclosed`` does, with the terminal; return how it ended.

    Without ``argv`` it is $SHELL, or /bin/sh where the root has no such shell.
    With a command that stops itself this process stops.

    Raises:
        SnaptxError: as for ``run_enclosed``.
    """
    return _enclosed(enclosure, argv, True, streams)


def _enclosed(enclosure: Enclosure, argv: Sequence[str], interactive: bool, streams: Streams | None) -> Ended:
    if not system.is_root():
        raise PrivilegeError("only root can enter a generation", hint="run it with sudo")
    if interactive:
        _await_terminal()
    log.debug("run enclosed", command=shlex.join(argv), root=enclosure.root.options)
    with (
        _signals_blocked() as awaited,
        _terminal_kept(interactive) as foreground,
        guard.disks_guarded(log.warning) as group,
    ):
        work = Work(enclosure, tuple(argv), interactive, foreground, awaited, group, streams)
        ending = _run(work)
    if ending.raised:
        signal.raise_signal(ending.raised)
    if ending.trouble:
        raise _error(ending.trouble)
    return ending.ended


def _await_terminal() -> None:
    """Stop in the background, as who reads from its terminal there, until brought to the foreground.

    A shell inside can't tell that it is in the background, as its caller's group has no number
    there, and would take the terminal away from who waits for its input.
    """
    with suppress(OSError):  # there is no terminal, or nobody who could bring this process there
        if os.isatty(0):
            os.read(0, 0)


@contextmanager
def _signals_blocked() -> Iterator[frozenset[int]]:
    """Hold back what this process has to pass on; yield those signals.

    The children inherit the mask: they only ever wait for signals.
    """
    awaited = frozenset(number for number in system.HELD if signal.getsignal(number) != signal.SIG_IGN)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, awaited | {signal.SIGCHLD, warden.FORCE})
    try:
        yield awaited
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _terminal_kept(interactive: bool) -> Iterator[bool]:
    """Yield whether there is a terminal to hand over, and take it back at the end."""
    foreground = interactive and warden.in_foreground()
    try:
        yield foreground
    finally:
        if foreground:
            warden.give_terminal(os.getpgrp())


class _Ending(NamedTuple):
    ended: Ended
    raised: int
    trouble: dict[str, Any] | None


def _run(work: Work) -> _Ending:
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, AttributeError, ValueError):
            stream.flush()
    reading, writing = os.pipe()
    try:
        child = warden.start(work, writing, os.getpid())
    except OSError as error:
        os.close(reading)
        raise SnaptxError(f"cannot start a process: {error.strerror}") from error
    finally:
        os.close(writing)
    with _Attendant(child, reading, work.awaited) as attendant:
        return attendant.attend()


class _Attendant:
    """Waits for the warden, listens to the children's reports, passes signals on."""

    def __init__(self, child: int, reports: int, awaited: frozenset[int]) -> None:
        self._child = child
        self._reports = reports
        self._awaited = awaited
        self._opened = [reports]
        self._text = b""
        self._caught = 0
        self._typed = False
        self._deadline: float | None = None
        self._trouble: dict[str, Any] | None = None
        self._reaped = False
        self._exited = False
        self._group = 0

    def __enter__(self) -> _Attendant:
        return self

    def __exit__(self, *_: object) -> None:
        if not self._reaped:
            os.kill(self._child, warden.FORCE)
            os.waitpid(self._child, 0)
        for fd in self._opened:
            os.close(fd)

    def attend(self) -> _Ending:
        """Return when nothing inside is left."""
        ended, signals = os.pidfd_open(self._child), system.signal_descriptor(self._awaited)
        self._opened += [ended, signals]
        watch = select.poll()
        for fd in (ended, signals, self._reports):
            watch.register(fd, select.POLLIN)
        ready: set[int] = set()
        while ended not in ready:
            ready = {fd for fd, _ in watch.poll(self._patience())}
            if self._reports in ready and not self._listen():
                watch.unregister(self._reports)
            if signals in ready:
                self._notice(signals)
            if self._deadline is not None and time.monotonic() >= self._deadline:
                self._force()
        return self._reap()

    def _patience(self) -> float | None:
        """Return the milliseconds until force is due, None for no limit."""
        if self._deadline is None:
            return None
        return max(0.0, self._deadline - time.monotonic()) * 1000

    def _listen(self) -> bool:
        """Take in what the children report; return whether more can come."""
        data = os.read(self._reports, 65536)
        *lines, self._text = (self._text + data).split(b"\n")
        for line in lines:
            report = json.loads(line)
            if report["kind"] == "warning":
                log.warning(report["what"])
            elif report["kind"] == "stopped":
                self._stop_along(bool(report["what"]))
            elif report["kind"] == "exited":
                self._exited = True
            else:
                self._trouble = report
        return bool(data)

    def _stop_along(self, has_terminal: bool) -> None:
        """Stop as the command has, until who waits for this process lets it go on, and the command with it.

        Where nobody waits the kernel stops nothing, and it goes on at once; so
        does a command that reached for the terminal after all was let go on.
        """
        with suppress(OSError):  # the terminal or the command has gone
            goes_on = warden.in_foreground()
            if has_terminal:
                self._group = os.tcgetpgrp(0)
                warden.give_terminal(os.getpgrp())
            if not self._group:
                return
            if not goes_on:
                os.kill(os.getpid(), signal.SIGTSTP)
            if warden.in_foreground():
                warden.give_terminal(self._group)
            os.killpg(self._group, signal.SIGCONT)

    def _notice(self, signals: int) -> None:
        """Pass a signal on, unless the terminal has told everybody; force the end at the second one."""
        number, _, code = _SIGINFO.unpack(os.read(signals, _SIGINFO.size))
        if self._deadline is not None:
            self._force()
            return
        self._caught, self._typed = number, number == signal.SIGINT and code == warden.SI_KERNEL
        if not self._typed:
            os.kill(self._child, number)
            self._deadline = time.monotonic() + GRACE

    def _force(self) -> None:
        os.kill(self._child, warden.FORCE)
        self._deadline = None

    def _reap(self) -> _Ending:
        _, ended = os.waitpid(self._child, 0)
        self._reaped = True
        while self._listen():
            pass
        status = warden.exit_status(ended)
        handled = self._typed and status == 0
        return _Ending(Ended(status, self._exited), 0 if handled else self._caught, self._trouble)


def _error(trouble: dict[str, Any]) -> Exception:
    """Return the error of the tree for what a child reported."""
    what, number = trouble["what"], trouble["errno"]
    if trouble["kind"] == "bug":
        return RuntimeError(what)
    error = OSError(number, os.strerror(number))
    if trouble["kind"] == "command":
        return command_error(what, error)
    if number == errno.EPERM:
        return PrivilegeError(f"cannot {what}: {error.strerror}", hint="it takes root with CAP_SYS_ADMIN")
    return storage_error(error, f"cannot {what}")


def command_error(name: str, error: OSError) -> CommandError:
    """Return the error of the tree for a command that could not be executed."""
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        hint = "look whether the generation has it, and the interpreter its first line names"
        return CommandError(f"{name}: command not found in the generation (127)", hint=hint)
    hint = f"look at its mode and format inside the generation: ls -l {shlex.quote(name)}"
    return CommandError(f"{name}: cannot be executed (126): {error.strerror}", hint=hint)
