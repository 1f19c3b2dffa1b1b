"""``exec``: a command of any generation on today's machine; it changes nothing and keeps the generation."""

from __future__ import annotations

import errno
import os
import pty
import pwd
import signal
import subprocess
import termios
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from snaptx import mounting, system
from snaptx.cli import main
from tests.boxes import Box, changes, inspect, made
from tests.fs.conftest import command
from tests.minimal_root import eventually

NOBODY = 65534
TOOL = "#!/bin/sh\necho version {}\n"
TIOCLINUX = 0x541C
"""What pastes a selection in a virtual console, among others: ioctl_console(2)."""

ASKS = """
#include <errno.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>
int main(int count, char **words)
{
    return syscall(SYS_ioctl, 0, strtoul(words[1], 0, 0), "x") ? errno : 0;
}
"""


@pytest.fixture(scope="module")
def equipped(tmp_path_factory: pytest.TempPathFactory, programs: Path) -> Iterator[Box]:
    """Give a sandbox with a staged generation 2, in which a tool has another version."""
    (programs / "usr/bin/tool").write_text(TOOL.format(1))
    (programs / "usr/bin/tool").chmod(0o755)
    for name in ("home/ann", "srv", "mnt", "media", "var/tmp", "root"):
        (programs / name).mkdir(parents=True)
    (programs / "etc/passwd").write_text("root:x:0:0::/root:/bin/sh\n")
    with made(source=programs) as box:
        box.ok("run", "--", "sh", "-c", "sed -i 's/1$/2/' /usr/bin/tool || echo; echo two > /etc/hostname")
        yield box


@pytest.fixture
def ground(equipped: Box) -> Iterator[Box]:
    """Give that sandbox, and check that neither tree is changed."""
    trees = [equipped.tree(2), equipped.root / "usr", equipped.root / "etc"]
    before = [inspect(tree, times=True) for tree in trees]
    yield equipped
    after = [inspect(tree, times=True) for tree in trees]
    assert [changes(*pair) for pair in zip(before, after, strict=True)] == [{}, {}, {}]


def sh(box: Box, script: str, *words: str, number: int = 2) -> str:
    """Run a script in a generation; return what it says."""
    return box.ok("exec", "-g", str(number), *words, "--", "sh", "-c", script)


def as_if(**environment: str) -> Callable[[], None]:
    """Return what makes a verb's process one that was started with ``environment``."""
    return lambda: os.environ.update(environment)


def said(box: Box, script: str, **environment: str) -> str:
    """Run a script in generation 2 with more in the environment; return what it says."""
    done = box.start("exec", "-g", "2", "--", "sh", "-c", script, before=as_if(**environment)).wait()
    assert done.code == 0, done.err
    return done.out


def test_tree_is_the_generations_and_the_rest_todays(ground: Box) -> None:
    for name in ("home/ann/letter", "tmp/note", "run/socket", "srv/site", "var/tmp/part"):
        (ground.root / name).write_text("today\n")
    script = "tool; cat /etc/hostname /home/ann/letter /tmp/note /run/socket /srv/site /var/tmp/part"

    assert sh(ground, script).split("\n") == ["version 2", "two", *["today"] * 5, ""]
    assert sh(ground, script, number=1).split("\n") == ["version 1", "one", *["today"] * 5, ""]
    assert sh(ground, "test -c /dev/null && test -d /sys/kernel && echo $SNAPTX_GENERATION") == "2\n"
    ground.ok("exec", "-g", "2", "--", "sh", "-c", "echo changed > /home/ann/letter")
    assert (ground.root / "home/ann/letter").read_text() == "changed\n"


def test_processes_and_network_are_the_machines(ground: Box) -> None:
    inside = sh(ground, "cd /proc/self/ns; for name in net pid ipc uts; do readlink $name; done; echo $$")
    *namespaces, pid = inside.split()

    assert namespaces == [os.readlink(f"/proc/self/ns/{name}") for name in ("net", "pid", "ipc", "uts")]
    assert int(pid) > 2


def test_mounts_of_the_machine_are_seen_and_follow(ground: Box) -> None:
    place = ground.root / "mnt"
    subprocess.run(["mount", "-t", "tmpfs", "none", place], check=True)
    try:
        (place / "stick").touch()
        assert sh(ground, "ls /mnt") == "stick\n"
    finally:
        subprocess.run(["umount", place], check=True)


@pytest.mark.parametrize("user", [0, NOBODY])
def test_mount_that_tells_root_nothing_is_no_obstacle(ground: Box, user: int) -> None:
    """As the files of another user, or those whose server has died (0)."""
    place, server = ground.root / "mnt", os.open("/dev/fuse", os.O_RDWR)
    options = f"fd={server},rootmode=40000,user_id={user},group_id={user}"
    mounting.mount("none", str(place), "fuse", 0, options)
    if not user:
        os.close(server)
    try:
        assert " /mnt fuse " in sh(ground, "cat /proc/self/mounts")
    finally:
        mounting.unmount(str(place))
        if user:
            os.close(server)


def test_tree_can_not_be_written(ground: Box) -> None:
    done = ground.run("exec", "-g", "2", "--", "touch", "/etc/hostname", "/usr/bin/new")

    assert done.code == 1
    assert done.err.count("Read-only file system") == 2


@pytest.mark.parametrize(("script", "code"), [("exit 0", 0), ("exit 77", 77), ("kill -TERM $$", -15)])
def test_end_is_the_commands_own(ground: Box, script: str, code: int) -> None:
    assert ground.run("exec", "-g", "2", "--", "sh", "-c", script).code == code


def test_signals_are_the_commands_own(ground: Box) -> None:
    status = sh(ground, "cat /proc/self/status").splitlines()
    held = {line.split()[0]: int(line.split()[1], 16) for line in status if line.startswith(("SigB", "SigI"))}
    running = ground.start("exec", "-g", "2", "--", "sleep", "60")
    eventually(lambda: b"sleep" in Path(f"/proc/{running.pid}/cmdline").read_bytes())
    os.kill(running.pid, signal.SIGHUP)

    assert held["SigBlk:"] == 0
    assert held["SigIgn:"] & (1 << signal.SIGPIPE - 1 | 1 << signal.SIGXFSZ - 1) == 0
    assert running.wait().code == -signal.SIGHUP


def test_terminal_is_the_commands_own(ground: Box) -> None:
    pid, terminal = pty.fork()
    if not pid:
        words = ["exec", "-g", "2", "--", "sh", "-c", "test -t 0 && echo here; exec sleep 60"]
        os._exit(main.main(["--sysroot", str(ground.root), *words]))
    shown = b""
    while b"here" not in shown:
        shown += os.read(terminal, 1000)
    eventually(lambda: b"sleep" in Path(f"/proc/{pid}/cmdline").read_bytes())
    os.write(terminal, b"\x03")
    _, status = os.waitpid(pid, 0)
    os.close(terminal)

    assert os.waitstatus_to_exitcode(status) == -signal.SIGINT


@pytest.fixture(scope="module")
def asks_the_terminal(equipped: Box, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Give a program that makes the ioctl of its terminal that is named, and ends with the error's number."""
    source = tmp_path_factory.mktemp("source") / "asks.c"
    source.write_text(ASKS)
    command("gcc", "-static", "-o", equipped.root / "home/ann/asks", source)
    return "/home/ann/asks"


@pytest.mark.parametrize("number", [termios.TIOCSTI, TIOCLINUX])
@pytest.mark.parametrize("high", [0, 1 << 32])
def test_nothing_is_typed_into_roots_terminal_by_a_user(
    ground: Box, asks_the_terminal: str, number: int, high: int
) -> None:
    pid, terminal = pty.fork()
    if not pid:
        words = ["exec", "-g", "2", "-u", "nobody", "--", asks_the_terminal, str(number | high)]
        os._exit(main.main(["--sysroot", str(ground.root), *words]))
    _, status = os.waitpid(pid, 0)
    os.close(terminal)

    assert os.waitstatus_to_exitcode(status) == errno.EPERM


def test_a_user_gets_no_rights_from_the_files_of_the_past(ground: Box) -> None:
    """An update that mends a set-uid program would be worth nothing."""
    assert "nosuid" in sh(ground, "cat /proc/self/mounts", "--user", "nobody").split("\n")[0]
    assert "nosuid" not in sh(ground, "cat /proc/self/mounts").split("\n")[0]


def test_sudo_runs_it_as_who_called(ground: Box) -> None:
    script = "id; echo $HOME $USER $LOGNAME $SHELL ${SUDO_UID-none} ${SUDO_COMMAND-none}; touch /tmp/theirs"
    user = pwd.getpwuid(NOBODY)
    (ground.root / "tmp").chmod(0o1777)
    identity, environment = said(
        ground, script, SUDO_UID=str(NOBODY), SUDO_GID=str(NOBODY), SUDO_COMMAND="x"
    ).splitlines()

    assert f"uid={NOBODY} gid={user.pw_gid}" in identity
    assert "groups=0" not in identity
    assert environment == f"{user.pw_dir} {user.pw_name} {user.pw_name} {user.pw_shell} none none"
    assert (ground.root / "tmp/theirs").stat().st_uid == NOBODY


@pytest.mark.parametrize(
    ("environment", "uid"),
    [
        ({"SUDO_UID": "0"}, 0),
        ({"SUDO_UID": "-1"}, 0),
        ({"PKEXEC_UID": str(NOBODY)}, NOBODY),
        ({"DOAS_USER": "nobody"}, NOBODY),
        ({"SUDO_UID": "54321", "SUDO_GID": "54320"}, 54321),
    ],
)
def test_others_that_make_root_are_known(ground: Box, environment: dict[str, str], uid: int) -> None:
    assert f"uid={uid}" in said(ground, "id", **environment)


def test_user_can_be_named(ground: Box) -> None:
    assert f"uid={NOBODY}" in sh(ground, "id", "--user", "nobody")
    assert "uid=0" in said(ground, "id")
    assert ground.run("exec", "-g", "2", "-u", "nobody-at-all", "--", "id").code == 2
    root = ("exec", "-g", "2", "-u", "root", "--", "id")
    assert "uid=0" in ground.start(*root, before=as_if(SUDO_UID=str(NOBODY))).wait().out


NO_USER = ["4294967295", "9" * 20, "9" * 5000]
"""The first is what the kernel takes for "as it is"."""


@pytest.mark.parametrize("number", NO_USER)
@pytest.mark.parametrize("name", ["SUDO_UID", "PKEXEC_UID", "SUDO_GID"])
def test_number_that_no_user_can_have_is_refused(ground: Box, name: str, number: str) -> None:
    environment = {"SUDO_UID": "54321", name: number} if name != "PKEXEC_UID" else {name: number}
    done = ground.start("exec", "-g", "2", "--", "id", before=as_if(**environment)).wait()

    assert (done.code, done.out) == (2, "")
    assert name in done.complaint[0]
    assert "--user" in done.complaint[1]


@pytest.mark.parametrize("number", NO_USER)
def test_user_of_an_impossible_number_is_not_there(ground: Box, number: str) -> None:
    assert "no user" in ground.refuses(2, "exec", "-g", "2", "--user", number, "--", "id")


def test_starts_where_the_caller_is(ground: Box) -> None:
    ann = ground.root / "home/ann"

    assert (
        ground.start("exec", "-g", "2", "--", "pwd", before=lambda: os.chdir(ann)).wait().out == "/home/ann\n"
    )
    (ground.root / "var/gone").mkdir()
    away = ground.start(
        "exec", "-g", "2", "--", "pwd", before=lambda: os.chdir(ground.root / "var/gone")
    ).wait()
    (ground.root / "var/gone").rmdir()
    assert away.out == "/\n"
    assert "/var/gone can't be reached" in away.err


def test_is_on_record(ground: Box) -> None:
    sh(ground, "true")
    record = ground.audit()[-1]

    assert (record["verb"], record["generation"], record["result"]) == ("exec", 2, "begun")
    assert record["argv"][-3:] == ["sh", "-c", "true"]
    assert "unbroken" in ground.ok("log", "--verify")


@pytest.mark.parametrize("user", ["root", str(NOBODY)])
def test_command_that_never_ran_is_on_record_as_that(ground: Box, user: str) -> None:
    ground.refuses(31, "exec", "-g", "2", "--user", user, "--", "no-such-command")
    begun, failed = ground.audit()[-2:]

    assert (begun["result"], failed["result"]) == ("begun", "failed")
    assert failed["generation"] == 2
    assert failed["argv"][-1] == "no-such-command"
    assert "not found" in failed["error"]["message"]
    assert "CommandError: no-such-command" in ground.ok("log", "--last", "1")
    assert "unbroken" in ground.ok("log", "--verify")


def test_command_has_no_child_that_is_not_its_own(ground: Box) -> None:
    assert sh(ground, "sleep 0.2; cat /proc/$$/task/$$/children").split()[1:] == []


def test_refuses_what_it_can_not_run(ground: Box) -> None:
    assert "not found" in ground.refuses(31, "exec", "-g", "2", "--", "no-such-command")
    assert "no generation 9" in ground.refuses(51, "exec", "-g", "9", "--", "id")
    assert "no command" in ground.refuses(2, "exec", "-g", "2")
    assert "--generation" in ground.refuses(2, "exec", "--", "id")


def test_dry_run_says_what_it_would_show(ground: Box) -> None:
    before = ground.facts()
    result = ground.json("--dry-run", "exec", "-g", "2", "--", "touch", "/home/ann/x")

    assert result["command"] == ["touch", "/home/ann/x"]
    assert {"/home", "/tmp", "/run"} <= set(result["today"])
    assert changes(before, ground.facts()) == {}


def test_generation_in_use_is_not_removed(programs: Path) -> None:
    with made(source=programs) as box:
        for name in ("two", "three"):
            box.ok("run", "--base", "1", "--commit", "--", "touch", f"/etc/{name}")
        running = box.start("exec", "-g", "2", "--", "sh", "-c", "sleep 60 & exec sleep 60")
        eventually(lambda: b"sleep" in Path(f"/proc/{running.pid}/cmdline").read_bytes())
        assert box.json("prune", "2")["busy"] == [2]
        os.kill(running.pid, signal.SIGKILL)
        running.wait()
        assert box.json("prune", "2")["busy"] == [2]  # by the process it has left behind
        for process in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                if b"/@snaptx/generations/2/root / " in (process / "mountinfo").read_bytes():
                    os.kill(int(process.name), signal.SIGKILL)
        eventually(lambda: box.json("prune", "2")["removed"] == [2])


def test_generation_that_is_removed_meanwhile_is_not_entered(programs: Path) -> None:
    with made(source=programs) as box:
        box.ok("run", "--", "touch", "/etc/two")
        record = box.tree(2).parent / "generation.json"

        def removed_at_the_last_moment() -> None:
            enter = system.unshare
            system.unshare = lambda flags: (record.unlink(), enter(flags))[-1]  # type: ignore[func-returns-value]

        done = box.start("exec", "-g", "2", "--", "true", before=removed_at_the_last_moment).wait()

        assert done.code == 51
        assert "removed" in done.complaint[0]
