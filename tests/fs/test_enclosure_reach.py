"""What a command does in a generation reaches neither the disks nor the boot loader and services in use."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from snaptx import log, system
from snaptx.enclosure import bpf, guard, standins
from snaptx.enclosure.chroot import enclosed_environment, run_enclosed
from tests.fs.conftest import command
from tests.minimal_root import ROOT, Disk, Root, eventually, made_disk

pytestmark = pytest.mark.root

Run = Callable[..., tuple[int, str, str]]
SENTENCE = "snaptx: {} is left alone in a staged generation\n"
HARMFUL = "#!/bin/sh\necho done >>/etc/harm\n"


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Disk]:
    """A file system for the roots of this module."""
    with made_disk(tmp_path_factory.mktemp("reach")) as made:
        yield made


@pytest.fixture
def root(disk: Disk) -> Root:
    """A fresh root, with the environment that commands get."""
    made = disk.root()
    (made.path / "etc/resolv.conf").touch()
    return replace(made, environment=enclosed_environment("t", 1, {}))


@pytest.fixture
def run(root: Root, capfd: pytest.CaptureFixture[str]) -> Run:
    """Run a script in the root; return its status and what it said."""

    def once(script: str, *arguments: str) -> tuple[int, str, str]:
        capfd.readouterr()
        status = run_enclosed(root.enclosure, ["sh", "-c", script, "sh", *arguments])
        return status, *capfd.readouterr()

    return once


@pytest.fixture
def device(tmp_path: Path) -> Iterator[str]:
    """Some other disk, with a sentence at its beginning."""
    image = tmp_path / "other.img"
    image.write_bytes(b"boot sector\n".ljust(1 << 20, b"\0"))
    name = command("losetup", "--find", "--show", str(image)).strip()
    try:
        yield name
    finally:
        command("losetup", "--detach", name)


@pytest.fixture
def warnings(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The warnings that are logged."""
    found: list[str] = []
    monkeypatch.setattr(log, "warning", found.append)
    return found


def program(root: Root, name: str, text: str = HARMFUL) -> Path:
    """Put a program into the tree."""
    path = root.path / "bin" / name
    path.write_text(text)
    path.chmod(0o755)
    return path


def begins(device: str) -> bytes:
    """Return the first line on a disk, past the page cache."""
    with system.descriptor(device, os.O_RDONLY) as fd:
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        return os.read(fd, 12)


WRITE = "read line <$1; echo $line; echo harm >$1 || echo refused; echo harm 1<>$1 || echo refused"


def test_disk_can_be_read_not_written(run: Run, device: str, warnings: list[str]) -> None:
    assert run(WRITE, device)[1] == "boot sector\nrefused\nrefused\n"
    assert begins(device) == b"boot sector\n"
    assert warnings == []


def test_node_by_another_name_is_refused_too(run: Run, device: str) -> None:
    number = os.stat(device).st_rdev
    make = f"busybox mknod /root/disk b {os.major(number)} {os.minor(number)} && "
    assert run(make + WRITE, "/root/disk")[1] == "boot sector\nrefused\nrefused\n"
    assert begins(device) == b"boot sector\n"


def test_other_devices_and_the_tree_can_be_written(run: Run, root: Root) -> None:
    assert run("echo x >/dev/null && echo x >/etc/x && busybox dd if=/dev/zero of=/etc/y count=1")[0] == 0
    assert (root.path / "etc/x").read_text() == "x\n"


def test_disk_can_be_written_by_others_meanwhile(run: Run, device: str) -> None:
    run("exit 0")
    with system.descriptor(device, os.O_WRONLY) as fd:
        assert os.write(fd, b"harm") == 4


@pytest.fixture
def group() -> Iterator[Path]:
    """A control group for a process that runs commands; it has to be empty at the end."""
    top = next(one.target for one in system.mounts() if (one.fstype, one.root) == ("cgroup2", "/"))
    here = Path("/proc/self/cgroup").read_text().rpartition("0::/")[2].strip()
    made = Path(top, here, f"snaptx-test-{os.getpid()}")
    made.mkdir()
    try:
        yield made
    finally:
        for inner in made.glob("*/"):
            inner.rmdir()
        made.rmdir()


def start_in(group: Path, root: Root, *argv: str) -> subprocess.Popen[str]:
    """Run a command in the root, by a process in the control group."""
    enter = ["sh", "-c", 'echo 0 >"$1" && shift && exec "$@"', "sh", str(group / "cgroup.procs")]
    inner = root.runner(["sh", "-c", *argv])
    return subprocess.Popen([*enter, *inner], cwd=ROOT, stdout=subprocess.PIPE, text=True)


def inside(group: Path) -> list[str]:
    """Return the groups in a group."""
    return [path.name for path in group.iterdir() if path.is_dir()]


def test_group_is_shared_and_removed_by_the_last(group: Path, root: Root, device: str) -> None:
    wait = "touch /etc/ready; while ! test -e /etc/go; do sleep 0.02; done; "
    first = start_in(group, root, wait + WRITE, "sh", device)
    try:
        eventually((root.path / "etc/ready").exists)
        second = start_in(group, root, WRITE, "sh", device).communicate(timeout=20)[0]
        assert inside(group) == [guard.GROUP]
    finally:
        (root.path / "etc/go").touch()
        said = first.communicate(timeout=20)[0]
    assert said == second == "boot sector\nrefused\nrefused\nstatus 0\n"
    assert inside(group) == []


def test_group_is_not_removed_before_it_is_entered() -> None:
    with guard.disks_guarded(pytest.fail) as group:
        assert group is not None
        with guard.disks_guarded(pytest.fail):
            pass
        child = os.fork()
        if child == 0:
            try:
                guard.join(group)
                os._exit(0)
            finally:
                os._exit(1)
        assert os.waitpid(child, 0)[1] == 0


def test_group_left_by_a_kill_is_taken_over(group: Path, root: Root, device: str) -> None:
    killed = start_in(group, root, "touch /etc/ready; sleep 100")
    eventually((root.path / "etc/ready").exists)
    killed.kill()
    killed.communicate(timeout=20)
    assert inside(group) == [guard.GROUP]
    said = start_in(group, root, WRITE, "sh", device).communicate(timeout=20)[0]
    assert said == "boot sector\nrefused\nrefused\nstatus 0\n"
    assert inside(group) == []


def locked_by_a_user(directory: Path) -> bool:
    """Return whether a user without rights can lock a directory, and so keep others from it."""
    child = os.fork()
    if child == 0:
        try:
            os.setuid(65534)
            fcntl.flock(os.open(directory, os.O_RDONLY), fcntl.LOCK_SH)
            os._exit(0)
        finally:
            os._exit(1)
    return os.waitpid(child, 0)[1] == 0


@pytest.mark.parametrize("left", [False, True])
def test_users_can_not_lock_the_group(group: Path, root: Root, *, left: bool) -> None:
    """Nor one that was left where they could."""
    if left:
        (group / guard.GROUP).mkdir(mode=0o755)
        (group / guard.GROUP).chmod(0o755)
    running = start_in(group, root, "touch /etc/ready; while ! test -e /etc/go; do sleep 0.02; done")
    try:
        eventually((root.path / "etc/ready").exists)
        assert locked_by_a_user(group)
        assert not locked_by_a_user(group / guard.GROUP)
    finally:
        (root.path / "etc/go").touch()
        running.communicate(timeout=20)


def test_lock_that_is_held_for_good_keeps_no_command_waiting(group: Path, root: Root) -> None:
    (group / guard.GROUP).mkdir()
    with system.descriptor(group / guard.GROUP, system.DIRECTORY) as strangers:
        fcntl.flock(strangers, fcntl.LOCK_EX)
        said = start_in(group, root, "exit 4").communicate(timeout=20)[0]

    assert said.endswith("status 4\n")


def test_no_guard_is_said_and_the_command_runs(
    run: Run, device: str, warnings: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bpf, "_NUMBERS", {})
    assert run(WRITE, device)[1] == "boot sector\n"
    assert begins(device).startswith(b"harm")
    assert [text.partition(":")[0] for text in warnings] == ["disks are not protected from the command"]


def test_group_that_can_not_be_entered_is_said(
    run: Run, warnings: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: int) -> None:
        raise OSError(errno.EBUSY, "busy")

    monkeypatch.setattr(guard, "join", refuse)
    assert run("exit 4")[0] == 4
    assert warnings == ["disks are not protected from the command: busy"]


def test_control_groups_need_not_be_mounted(root: Root, device: str) -> None:
    hide = 'while umount -R /sys/fs/cgroup 2>/dev/null; do :; done; exec "$@"'
    # A namespace of its own for control groups, or the new mount would set the machine's options.
    hidden = ["unshare", "--mount", "--cgroup", "sh", "-c", hide, "sh"]
    inner = root.runner(["sh", "-c", WRITE, "sh", device])
    done = subprocess.run([*hidden, *inner], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout == "boot sector\nrefused\nrefused\nstatus 0\n"
    assert "not protected" not in done.stderr
    assert begins(device) == b"boot sector\n"


def test_firmware_variables_can_not_be_written(root: Root) -> None:
    """A file system below /sys, as efivarfs is one."""
    prepare = 'mount -t tmpfs none /sys/firmware && echo old >/sys/firmware/var && exec "$@"'
    script = "cat /sys/firmware/var; echo new >/sys/firmware/var || echo refused"
    command_line = ["unshare", "--mount", "sh", "-c", prepare, "sh", *root.runner(["sh", "-c", script])]
    done = subprocess.run(command_line, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout == "old\nrefused\nstatus 0\n"


@pytest.mark.parametrize("name", ["grub-install", "grub-bios-setup", "efibootmgr"])
def test_boot_loader_is_left_alone(run: Run, root: Root, name: str) -> None:
    program(root, name)
    assert run('"$1" /dev/sda', name) == (0, "", SENTENCE.format(name))
    assert not (root.path / "etc/harm").exists()


def test_program_that_the_command_installs_is_left_alone(run: Run, root: Root) -> None:
    script = "busybox cp /etc/new /bin/.new && busybox mv -f /bin/.new /bin/grub-install && grub-install"
    program(root, "grub-install", "old")
    program(root, "../etc/new")
    assert run(script) == (0, "", SENTENCE.format("grub-install"))
    assert (root.path / "bin/grub-install").read_text() == HARMFUL
    assert not (root.path / "etc/harm").exists()


@pytest.mark.parametrize("name", ["service", "rc-service", "initctl", "telinit", "update-bootloader"])
def test_stands_in_only_for_what_is_there(run: Run, root: Root, name: str) -> None:
    assert run(f"command -v {name} || echo none")[1] == "none\n"
    program(root, name)
    assert run(f"{name} restart sshd") == (0, "", SENTENCE.format(name))
    assert not (root.path / "etc/harm").exists()


@pytest.mark.parametrize(
    ("words", "status"),
    [
        ("ssh start", 0),
        ("--disclose-deny ssh start", 101),
        ("--query ssh restart", 101),
        ("ssh --query", 101),
    ],
)
def test_init_scripts_are_forbidden_as_by_policy(run: Run, root: Root, words: str, status: int) -> None:
    program(root, "invoke-rc.d")
    assert run(f"invoke-rc.d {words}") == (status, "", SENTENCE.format("invoke-rc.d"))


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        ("--container", (1, "none\n", "")),
        ("--quiet --container", (1, "", "")),
        ("-q -c", (1, "", "")),
        ("", (0, "real --vm\n", "")),
        ("--chroot", (0, "real --vm --chroot\n", "")),
    ],
)
def test_scripts_do_not_find_themselves_in_a_container(
    run: Run, root: Root, words: str, answer: tuple[int, str, str]
) -> None:
    program(root, "systemd-detect-virt", '#!/bin/sh\necho "real $*"\n')
    assert run(f"PATH=/elsewhere:$PATH; systemd-detect-virt {words}") == answer


def test_devices_can_be_asked_about_not_triggered(run: Run, root: Root) -> None:
    program(root, "udevadm", '#!/bin/sh\necho "real $*"\n')
    assert run("udevadm info -q 'a b'") == (0, "real info -q a b\n", "")
    assert run("udevadm trigger") == (0, "", SENTENCE.format("udevadm"))


def test_package_manager_is_told_where_they_are(run: Run) -> None:
    assert run('cat "$APT_CONFIG"; echo $PATH')[1] == f'DPkg::Path "{standins.PATH}";\n{standins.PATH}\n'


def test_nothing_of_it_is_left_in_the_tree(run: Run, root: Root) -> None:
    program(root, "service")
    before = root.snapshot()
    assert run("grub-install && service ssh start")[0] == 0
    assert root.snapshot() == before


def test_tree_without_run_has_no_stand_ins(run: Run, root: Root) -> None:
    (root.path / "run").rmdir()
    assert run("command -v grub-install || echo none")[1] == "none\n"


def test_no_service_manager_is_seen(run: Run) -> None:
    seen = "ls /run; echo $SYSTEMD_OFFLINE; test -e /run/systemd || test -e /run/dbus || test -S /dev/log"
    assert run(seen)[:2] == (1, "lock\nsnaptx\n1\n")


def test_signals_to_the_first_process_do_not_end_the_command(run: Run) -> None:
    """As telinit sends one, if it finds no other way to init."""
    assert run("kill -TERM 1; kill -HUP 1; kill -INT 1; sleep 0.3; echo alive")[:2] == (0, "alive\n")
