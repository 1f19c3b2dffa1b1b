"""One run of a machine: from power-on to power-off, reboot, panic or power cut.

Every wait has a deadline and fails with the place of the transcripts and
their last lines.  The deadlines are no measurements: on a quiet machine a
boot takes 20 seconds, on a busy one minutes.
"""

from __future__ import annotations

import base64
import re
import secrets
import shlex
import subprocess
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from types import TracebackType
from typing import NoReturn

from tests.vm import parcel, serial
from tests.vm.screen import Menu, Screen
from tests.vm.serial import Deadline, Line, Monitor

BOOT = 900.0
"""Seconds until a machine that starts must have come up, at most."""
COMMAND = 600.0
KEY = 60.0
QUIET = 0.3
"""Seconds without a byte, after which a menu is taken to be painted."""
AFTER_PANIC = 45.0
"""Seconds that a machine has to start anew after a panic ("panic=N" tells the kernel to)."""
LONGEST = 32 << 10
"""Bytes of one command line: the guest's terminal buffers 64 KiB."""

HOME, DOWN, ENTER, ESCAPE = b"\x01", b"\x0e", b"\r", b"\x1b"

_PANIC = re.compile(rb"Kernel panic - not syncing: ?([^\r\n]*)")
_READY = re.compile(rb"serial shell ready ([0-9a-f-]{36})\n")
_LOGIN = re.compile(rb"login: ")


class End(Enum):
    """How a run ended."""

    POWEROFF = "it switched itself off"
    REBOOT = "it started anew"
    PANIC = "its kernel panicked"
    CUT = "its power was cut"
    DIED = "QEMU ended by itself"


class MachineError(AssertionError):
    """The machine did not do what it was to do; says where the transcripts are and how they end."""


@dataclass(frozen=True)
class Result:
    """How a command in the guest ended; ``output`` holds what it wrote to stdout and stderr."""

    status: int
    output: str


class Run:
    """A machine that is on; made by ``Machine.boot``."""

    def __init__(self, prefix: Path, options: list[str], disk: Path) -> None:
        self.end: End | None = None
        self.panic = ""
        self.rebooted = False
        """Whether it started anew by itself, which a machine may do after a panic."""
        self.boot_id = ""
        self._parcel = disk
        self._screen = Screen()
        self.console = Line(Path(f"{prefix}-console"))
        self.serial_shell = Line(Path(f"{prefix}-shell"))
        self.monitor = Monitor(Path(f"{prefix}-monitor"))
        self._complaints = Path(f"{prefix}-qemu")
        self._lines = (self.console, self.serial_shell, self.monitor)
        self._process = self._start(options)

    def _start(self, options: list[str]) -> subprocess.Popen[bytes]:
        ends = [line.far.fileno() for line in self._lines]
        channels: list[str] = []
        for name, end in zip(("console", "shell", "monitor"), ends, strict=True):
            channels += ["-chardev", f"socket,id={name},fd={end}"]
        command = [
            # A machine must not outlive its test, however that ends.
            *("setpriv", "--pdeathsig", "KILL", "--", "qemu-system-x86_64", "-no-reboot", *options),
            *channels,
            *("-serial", "chardev:console", "-serial", "chardev:shell"),
            *("-mon", "chardev=monitor,mode=control"),
        ]
        with self._complaints.open("wb") as complaints:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=complaints, stderr=complaints, pass_fds=ends
            )
        for line in self._lines:
            line.far.close()
        return process

    # Waiting

    def _receive(self, seconds: float) -> None:
        before = len(self.console.pending)
        serial.wait(self._lines, seconds)
        new = self.console.pending[before:]
        self._screen.feed(new)
        # The line before may hold the first half of it.
        found = None if self.panic else _PANIC.search(self.console.pending, max(0, before - 200))
        if found:
            self.panic = found[1].decode("utf-8", "replace") or "for no reason given"
        if not any(line.open for line in self._lines):
            self._ended()

    def _ended(self) -> None:
        self._process.wait()
        stops = [event["data"]["reason"] for event in self.monitor.events if event["event"] == "SHUTDOWN"]
        self.rebooted = "guest-reset" in stops
        if self.panic:
            self.end = End.PANIC
        elif self.rebooted:
            self.end = End.REBOOT
        else:
            self.end = End.POWEROFF if "guest-shutdown" in stops else End.DIED

    def _until(self, what: str, probe: Callable[[], object], seconds: float) -> None:
        deadline = Deadline(seconds)
        while not probe():
            if self.end:
                self._fail(f"{self.end.value} before {what}")
            if deadline.over:
                self._fail(f"no {what} within {seconds:.0f} seconds")
            if self.panic:
                deadline.shorten(AFTER_PANIC)
            self._receive(min(deadline.left, 5))

    def _fail(self, message: str) -> NoReturn:
        parts = [message + (f"; panic: {self.panic}" if self.panic else "")]
        for line in (self.console, self.serial_shell):
            parts.append(f"--- {line.transcript}\n{line.tail()}")
        if complaints := self._complaints.read_text(errors="replace"):
            parts.append(f"--- {self._complaints}\n{complaints}")
        raise MachineError("\n".join(parts))

    def expect(self, pattern: str, timeout: float = BOOT) -> str:
        """Wait until the console shows ``pattern`` (a regular expression); return what matched.

        Looks only at what came after the last match.

        Raises:
            MachineError: it does not come within ``timeout`` seconds, or the machine ends before.
        """
        return self._expect(self.console, re.compile(pattern.encode()), pattern, timeout).decode(
            "utf-8", "replace"
        )

    def _expect(self, line: Line, pattern: re.Pattern[bytes], what: str, timeout: float) -> bytes:
        found: list[re.Match[bytes]] = []

        def probe() -> bool:
            found.extend(filter(None, [line.take(pattern)]))
            return bool(found)

        self._until(f"{what!r}", probe, timeout)
        return found[0][0]

    def wait(self, timeout: float = BOOT) -> End:
        """Wait until the machine ends by itself; one that has panicked and stands still is ended.

        Raises:
            MachineError: it is still on after ``timeout`` seconds.
        """
        try:
            self._until("its end", lambda: self.end, timeout)
        except MachineError:
            if not self.panic:
                raise
            self._kill(End.PANIC)
        assert self.end
        return self.end

    # GRUB

    def menu(self, timeout: float = BOOT) -> Menu:
        """Wait for GRUB's menu and stop its countdown; return the entries in view, the first selected.

        Raises:
            MachineError: no menu is shown within ``timeout`` seconds.
        """
        self._until("menu of GRUB", self._screen.menu, timeout)
        self.console.send(HOME)
        self._until("first entry of the menu", lambda: self._selected() == 0, KEY)
        self._settle()
        return self._shown()

    def _settle(self) -> None:
        """Let GRUB finish painting."""
        deadline = Deadline(KEY / 4)
        size = -1
        while size != len(self.console.pending) and not deadline.over:
            size = len(self.console.pending)
            self._receive(QUIET)

    def choose(self, *titles: str, timeout: float = BOOT) -> None:
        """Select the entry with that title, by key, and start it; further titles go on in its submenu.

        Raises:
            MachineError: there is no menu, or no such entry.
        """
        for title in titles:
            self.menu(timeout)
            self._go_to(title)
            self._screen = Screen()
            self.console.send(ENTER)

    def _go_to(self, title: str) -> None:
        passed = [self._shown().title]
        while passed[-1] != title:
            before = self._shown()
            self.console.send(DOWN)
            deadline = Deadline(KEY)
            while self._screen.menu() in (None, before) and not deadline.over:
                self._receive(deadline.left)
            if self._screen.menu() in (None, before):
                self._fail(f"the menu has no {title!r}, only {passed}")
            self._settle()
            passed.append(self._shown().title)

    def _selected(self) -> int | None:
        menu = self._screen.menu()
        return None if menu is None else menu.selected

    def _shown(self) -> Menu:
        self._until("whole menu of GRUB", self._screen.menu, KEY)  # a row may be painted just then
        menu = self._screen.menu()
        assert menu
        return menu

    @property
    def screen(self) -> str:
        """What the terminal at the first serial line shows, for a report."""
        return "\n".join(self._screen.text).strip("\n")

    # The system

    def ready(self, timeout: float = BOOT) -> None:
        """Wait for the root shell; it comes early, and in emergency mode, too.

        Raises:
            MachineError: it does not come within ``timeout`` seconds.
        """
        if not self.boot_id:
            found = self._expect(self.serial_shell, _READY, "root shell", timeout)
            self.boot_id = found.split()[-1].decode()

    def login(self, timeout: float = BOOT) -> None:
        """Wait for the login prompt on the console: the system is up.

        Raises:
            MachineError: it does not come within ``timeout`` seconds.
        """
        self._expect(self.console, _LOGIN, "login:", timeout)

    def state(self, timeout: float = BOOT) -> str:
        """Wait until systemd has done its jobs; return "running", "degraded", "maintenance" …"""
        return self.shell(["systemctl", "is-system-running", "--wait"], timeout).output.strip()

    def shell(self, command: Iterable[str], timeout: float = COMMAND) -> Result:
        """Run ``command`` (a list of arguments) as root in the guest.

        Raises:
            MachineError: its end is not heard of within ``timeout`` seconds.
        """
        self.ready()
        words = shlex.join(command)
        assert len(words) <= LONGEST, "hand it in by put()"
        assert "\n" not in words, "the guest's shell takes a line at a time"
        mark = secrets.token_hex(8)
        # The mark in two parts: an echo of the command is no proof of its end.
        closing = f"printf '\\n%s%s %d.\\n' {mark[:8]} {mark[8:]} $?"
        self.serial_shell.send(f"( {words} ) </dev/null 2>&1; {closing}\n".encode("utf-8", "surrogateescape"))
        pattern = re.compile(rb"(?s)(.*)\n%s (\d+)\.\n" % mark.encode())
        taken = self._expect(self.serial_shell, pattern, f"end of: {words}", timeout)
        found = pattern.fullmatch(taken)
        assert found
        return Result(int(found[2]), found[1].decode("utf-8", "surrogateescape"))

    def check(self, command: Iterable[str], timeout: float = COMMAND) -> str:
        """Like ``shell`` for a command that must succeed; return its output.

        Raises:
            MachineError: it fails, or its end is not heard of.
        """
        words = list(command)
        result = self.shell(words, timeout)
        if result.status:
            self._fail(f"{shlex.join(words)} ended with {result.status}:\n{result.output}")
        return result.output

    def script(self, text: str, timeout: float = COMMAND) -> str:
        """Like ``check`` for a script of sh, which ends at the first failure."""
        return self.check(["sh", "-euc", text], timeout)

    def put(self, files: Mapping[str, parcel.Content], timeout: float = COMMAND) -> None:
        """Write files in the guest: {path there: text, bytes, or a file or directory here}.

        Raises:
            MachineError: the guest could not write them.
        """
        with self._parcel.open("r+b") as disk:
            disk.write(parcel.packed(files))
        self.script(
            "blockdev --flushbufs /dev/vdb; tar --extract --file /dev/vdb --directory / --no-overwrite-dir",
            timeout,
        )

    def get(self, path: str) -> bytes:
        """Return a small file of the guest.

        Raises:
            MachineError: it can't be read.
        """
        return base64.b64decode(self.check(["base64", path]))

    # The end

    def poweroff(self, timeout: float = COMMAND) -> End:
        """Have the system switch the machine off; return how it ended."""
        return self._stop("poweroff", timeout)

    def reboot(self, timeout: float = COMMAND) -> End:
        """Have the system start anew; return how the run ended. The next one is ``Machine.boot``'s."""
        return self._stop("reboot", timeout)

    def _stop(self, verb: str, timeout: float) -> End:
        self.ready()
        self.serial_shell.send(f"{verb}\n".encode())
        return self.wait(timeout)

    def cut(self) -> None:
        """Cut the power."""
        self._kill(End.CUT)

    def _kill(self, end: End) -> None:
        self._process.kill()
        self._process.wait()
        serial.wait(self._lines, 0)
        self.end = end

    def close(self) -> None:
        """Cut the power if it is on, and close the lines."""
        if self.end is None:
            self._kill(End.CUT)
        for line in self._lines:
            line.close()

    def __enter__(self) -> Run:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Cut the power if it is on."""
        self.close()
