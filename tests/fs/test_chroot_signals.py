"""Signals, terminals and death around a command inside a generation's root."""

from __future__ import annotations

import os
import pty
import shlex
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.minimal_root import ROOT, Disk, Root, eventually, made_disk

pytestmark = pytest.mark.root

STUBBORN = 'trap "" INT TERM HUP; touch /etc/ready; while :; do sleep 0.1; done'
HANDLING = (
    'trap "echo handled >/etc/said; exit 9" INT TERM HUP; touch /etc/ready; while :; do sleep 0.1; done'
)


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Disk]:
    """A file system for the roots of this module."""
    with made_disk(tmp_path_factory.mktemp("signals")) as made:
        yield made


@pytest.fixture
def root(disk: Disk) -> Root:
    """A fresh root."""
    return disk.root()


@contextmanager
def started(
    root: Root, script: str, *, grace: float = 30.0, before: str = ""
) -> Iterator[subprocess.Popen[str]]:
    """Run ``script`` inside, through a process of its own; begin when it runs."""
    process = root.start(["sh", "-c", script], grace=grace, before=before)
    try:
        eventually((root.path / "etc/ready").exists)
        yield process
    finally:
        process.kill()
        process.communicate()


def said(root: Root) -> str:
    """Return what the script wrote."""
    path = root.path / "etc/said"
    return path.read_text().strip() if path.exists() else ""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_signal_is_passed_on_and_raised_again(root: Root, number: int) -> None:
    with started(root, HANDLING) as process:
        process.send_signal(number)
        assert process.wait(20) == -number
    assert said(root) == "handled"
    assert root.users() == []


def test_interrupt_becomes_an_exception_when_all_is_over(root: Root) -> None:
    with started(root, HANDLING) as process:
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=20)[0] == "interrupted\n"
    assert said(root) == "handled"
    assert root.users() == []


def test_command_that_ends_well_on_a_signal_still_lets_it_through(root: Root) -> None:
    with started(root, HANDLING.replace("exit 9", "exit 0")) as process:
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == -signal.SIGTERM


def test_handler_of_the_caller_runs_last(root: Root) -> None:
    before = "signal.signal(signal.SIGTERM, lambda *_: print('mine', flush=True))\n"
    with started(root, HANDLING, before=before) as process:
        process.send_signal(signal.SIGTERM)
        assert process.communicate(timeout=20)[0] == "mine\nstatus 9\n"
    assert said(root) == "handled"


def test_stubborn_command_is_killed_after_a_while(root: Root) -> None:
    with started(root, STUBBORN, grace=0.3) as process:
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == -signal.SIGTERM
    assert root.users() == []


def test_stubborn_command_is_killed_at_the_second_signal(root: Root) -> None:
    with started(root, STUBBORN) as process:
        process.send_signal(signal.SIGTERM)
        process.send_signal(signal.SIGHUP)  # a second SIGTERM could merge with the first
        assert process.wait(20) in (-signal.SIGTERM, -signal.SIGHUP)
    assert root.users() == []


def test_ignored_signal_stays_ignored(root: Root) -> None:
    before = "signal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
    script = "touch /etc/ready; while test ! -e /etc/go; do sleep 0.05; done; kill -HUP $$; exit 4"
    with started(root, script, grace=0.1, before=before) as process:
        process.send_signal(signal.SIGHUP)
        time.sleep(0.3)
        (root.path / "etc/go").touch()
        assert process.communicate(timeout=20)[0] == "status 4\n"


def test_death_of_the_caller_ends_everything(root: Root) -> None:
    with started(root, STUBBORN.replace("touch", "(sleep 1000 &) ; touch")) as process:
        assert len(root.users()) >= 4  # warden, init, command, its child
        process.kill()
        process.wait()
        eventually(lambda: not root.users())


def test_death_of_the_warden_ends_everything(root: Root) -> None:
    before = "import os; held = [os.open('/', os.O_RDONLY) for _ in range(30)]\n"
    with started(root, STUBBORN, before=before) as process:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        assert len(children) == 1
        assert len(os.listdir(f"/proc/{children[0]}/fd")) < 10  # none of the caller's
        os.kill(int(children[0]), signal.SIGKILL)
        assert process.communicate(timeout=20)[0] == f"status {128 + signal.SIGKILL}\n"
        eventually(lambda: not root.users())


def test_calls_in_parallel_do_not_meet(disk: Disk, root: Root) -> None:
    roots = [root, root, disk.root(), disk.root()]
    meet = "touch /tmp/$1; sleep 0.2; test $(ls /tmp) = $1 && exit $1"
    processes = [one.start(["sh", "-c", meet, "sh", str(index)]) for index, one in enumerate(roots)]
    assert [one.communicate(timeout=20)[0] for one in processes] == [f"status {i}\n" for i in range(4)]
    assert all(one.users() == [] for one in roots)


class Terminal:
    """A process that runs a command inside, on a terminal of its own."""

    def __init__(self, command: list[str], environment: dict[str, str]) -> None:
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.chdir(ROOT)
            os.execve(command[0], command, {**os.environ, **environment})
        self.seen = ""

    def type(self, text: str) -> None:
        """Type."""
        os.write(self.fd, text.encode())

    def expect(self, text: str) -> None:
        """Read until ``text`` comes."""
        while text not in self.seen:
            self.seen += os.read(self.fd, 4096).decode(errors="replace")

    def end(self) -> str:
        """Return all that was shown until the process ended."""
        try:
            while data := os.read(self.fd, 4096):
                self.seen += data.decode(errors="replace")
        except OSError:  # how a terminal tells that its last user is gone
            pass
        os.waitpid(self.pid, 0)
        self.pid = 0
        return self.seen

    def close(self) -> None:
        """Let nothing outlive the test."""
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        os.close(self.fd)


@pytest.fixture
def terminals() -> Iterator[Callable[..., Terminal]]:
    """Start processes on terminals; a test that waits for one in vain fails."""
    opened: list[Terminal] = []

    def start(command: list[str], **environment: str) -> Terminal:
        opened.append(Terminal(command, environment))
        return opened[-1]

    before = signal.signal(signal.SIGALRM, _too_late)
    signal.alarm(20)
    yield start
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)
    for terminal in opened:
        terminal.close()


def _too_late(*_: object) -> None:
    raise TimeoutError("the terminal stays silent")


@pytest.mark.parametrize("shell", ["/nosuch/shell", "/bin/busybox-sh"])
def test_shell_gets_the_terminal_and_gives_it_back(
    root: Root, terminals: Callable[..., Terminal], shell: str
) -> None:
    (root.path / "bin/busybox-sh").write_text('#!/bin/sh\nexec /bin/sh "$@"\n')
    (root.path / "bin/busybox-sh").chmod(0o755)
    root.environment["SNAPTX_GENERATION"] = "7"
    command = root.runner([], interactive=True)
    command[-2] += "import os; print('foreground', os.tcgetpgrp(0) == os.getpgrp(), flush=True)\n"
    terminal = terminals(command, SHELL=shell)
    terminal.type("echo in-$SNAPTX_GENERATION-$SHELL-$((40+2))\n")
    terminal.expect(f"in-7-{'/bin/sh' if 'nosuch' in shell else shell}-42")
    terminal.type("sleep 1000\n")
    time.sleep(0.3)
    terminal.type("\x03")
    terminal.type("echo back-$((1+1))\n")
    terminal.expect("back-2")
    terminal.type("exit 5\n")
    shown = terminal.end()
    assert "status 5" in shown
    assert "foreground True" in shown
    assert "job control" not in shown
    assert root.users() == []


def test_interactive_command_owns_the_terminal(root: Root, terminals: Callable[..., Terminal]) -> None:
    show = "set -- $(cat /proc/$$/stat); echo group-$5-foreground-$8"
    terminal = terminals(root.runner(["sh", "-c", show], interactive=True))
    assert "group-2-foreground-2" in terminal.end()


@pytest.fixture
def start(root: Root, tmp_path: Path) -> Path:
    """Give a program that opens a shell inside."""
    path = tmp_path / "start"
    path.write_text(f"#!/bin/sh\nexec {shlex.join(root.runner([], interactive=True))}\n")
    path.chmod(0o755)
    return path


def test_shell_in_the_background_waits_until_it_gets_the_terminal(
    root: Root, start: Path, terminals: Callable[..., Terminal]
) -> None:
    """It would take the terminal from the caller's shell, which then ends."""
    terminal = terminals(["/bin/busybox", "sh", "-i"], SHELL="/bin/sh", ENV="")
    for way in ("fg", "bg; sleep 0.5; fg"):
        terminal.seen = ""
        terminal.type(f"{start} &\n")
        time.sleep(1.5)
        terminal.type("echo outside-$((1+2))-$SNAPTX_GENERATION\n")
        terminal.expect("outside-3-\r\n")
        terminal.type(f"{way}\n")
        time.sleep(1)
        terminal.type("echo inside >/etc/said; exit 5\n")
        terminal.expect("status 5")
    terminal.type(f"{start} &\n")
    time.sleep(1.5)
    terminal.type("kill %1; kill -CONT %1; sleep 1; exit\n")
    terminal.end()
    assert said(root) == "inside"
    assert root.users() == []


def test_shell_that_stops_itself_leaves_the_terminal_to_who_waits(
    root: Root, start: Path, terminals: Callable[..., Terminal]
) -> None:
    terminal = terminals(["/bin/busybox", "sh", "-i"], SHELL="/bin/sh", ENV="")
    terminal.type(f"{start}\n")
    terminal.type("echo inside-$((1+1))\n")
    terminal.expect("inside-2")
    for way in ("fg", "bg; sleep 0.5; fg"):
        terminal.seen = ""
        terminal.type("kill -STOP $$\n")
        terminal.expect("Stopped")
        terminal.type("echo outside-$((1+2))\n")
        terminal.expect("outside-3")
        terminal.type(f"{way}\n")
        time.sleep(1)
        terminal.type("echo inside-$((2+2))\n")
        terminal.expect("inside-4")
    terminal.type("exit 5\n")
    terminal.expect("status 5")
    terminal.type("exit\n")
    terminal.end()
    assert root.users() == []


def test_shell_that_stops_itself_goes_on_where_nobody_waits(
    root: Root, terminals: Callable[..., Terminal]
) -> None:
    terminal = terminals(root.runner([], interactive=True), SHELL="/bin/sh")
    terminal.type("kill -STOP $$\n")
    terminal.type("echo on-$((1+1))\n")
    terminal.expect("on-2")
    terminal.type("exit 5\n")
    assert "status 5" in terminal.end()


@pytest.mark.parametrize(("status", "outcome"), [(0, "status 0"), (1, "interrupted")])
def test_typed_interrupt_is_the_commands_own_affair(
    root: Root, terminals: Callable[..., Terminal], status: int, outcome: str
) -> None:
    heard = 'trap "echo heard >>/etc/said" INT; echo ready; while test ! -e /etc/go; do sleep 0.1; done'
    terminal = terminals(root.runner(["sh", "-c", f"{heard}; exit {status}"], grace=0.1))
    terminal.expect("ready")
    terminal.type("\x03")
    time.sleep(0.4)
    (root.path / "etc/go").touch()
    assert outcome in terminal.end()
    assert said(root) == "heard"
    assert root.users() == []
