"""What a command sees and leaves inside a generation's root, on a real Btrfs."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import btrfsutil
import pytest
from pytest_mock import MockerFixture

from snaptx import log, mounting, system
from snaptx.enclosure import standins
from snaptx.enclosure.chroot import Enclosure, enclosed_environment, run_enclosed
from snaptx.errors import CommandError, NotFoundError, PrivilegeError, StorageError, UsageError
from snaptx.storage.base import MountSpec
from tests.minimal_root import ROOT, Disk, Root, made_disk

pytestmark = pytest.mark.root

Said = Callable[[str], str]
NAMESERVERS = "nameserver 192.0.2.53\n"


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Disk]:
    """A file system for the roots of this module."""
    with made_disk(tmp_path_factory.mktemp("chroot")) as made:
        yield made


@pytest.fixture
def root(disk: Disk) -> Root:
    """A fresh root."""
    return disk.root()


@pytest.fixture
def said(root: Root, capfd: pytest.CaptureFixture[str]) -> Said:
    """Run a script in the root, which must succeed, and return what it said."""

    def run(script: str) -> str:
        capfd.readouterr()
        assert run_enclosed(root.enclosure, ["sh", "-c", script]) == 0
        return capfd.readouterr().out

    return run


@pytest.fixture
def warnings(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The warnings that are logged."""
    found: list[str] = []
    monkeypatch.setattr(log, "warning", found.append)
    return found


def own_mounts(root: Root) -> list[system.Mount]:
    """Return the mounts of this process that a call could have left behind."""
    ours = {"/", "/proc", "/sys", "/dev", "/tmp", "/run"}
    return [one for one in system.mounts() if one.source == root.device or one.target in ours]


@pytest.mark.parametrize(("script", "status"), [("exit 0", 0), ("exit 3", 3), ("kill -TERM $$", 128 + 15)])
def test_status_is_the_commands(root: Root, script: str, status: int) -> None:
    assert run_enclosed(root.enclosure, ["sh", "-c", script]) == status


def test_command_starts_clean(
    root: Root, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET", "1")
    inherited = os.open("/", os.O_RDONLY)
    os.set_inheritable(inherited, True)
    before = os.umask(0o077)
    try:
        run_enclosed(root.enclosure, ["env"])
        environment = dict(line.split("=", 1) for line in capfd.readouterr().out.splitlines())
        run_enclosed(root.enclosure, ["ls", "/proc/self/fd"])
        descriptors = capfd.readouterr().out.split()
        run_enclosed(root.enclosure, ["sh", "-c", "umask; pwd; cat /proc/self/status"])
        mask, directory, *status = capfd.readouterr().out.splitlines()
    finally:
        os.umask(before)
        os.close(inherited)
    assert environment == root.environment
    assert descriptors == ["0", "1", "2", "3"]  # the last is the directory that ls reads
    assert (mask, directory) == ("0022", "/")
    held = {line.split()[0]: int(line.split()[1], 16) for line in status if line.startswith(("SigB", "SigI"))}
    assert held["SigBlk:"] == 0
    # Python ignores these two; what the caller of the tests ignores may stay so.
    assert held["SigIgn:"] & (1 << signal.SIGPIPE - 1 | 1 << signal.SIGXFSZ - 1) == 0


def test_environment_takes_only_language_terminal_and_proxies() -> None:
    outside = {
        "TERM": "vt100",
        "LC_TIME": "de_DE",
        "https_proxy": "p",
        "NO_PROXY": "n",
        "HTTPS_PROXY": "not this one",
        "PATH": "/x",
        "A": "b",
    }
    assert enclosed_environment("t-7", 7, outside) == {
        "TERM": "vt100",
        "LC_TIME": "de_DE",
        "https_proxy": "p",
        "NO_PROXY": "n",
        "HTTPS_PROXY": "not this one",
        "no_proxy": "n",
        "PATH": standins.PATH,
        "APT_CONFIG": standins.APT_CONFIG,
        "HOME": "/root",
        "USER": "root",
        "LOGNAME": "root",
        "SYSTEMD_OFFLINE": "1",
        "SNAPTX_TRANSACTION": "t-7",
        "SNAPTX_GENERATION": "7",
    }


def test_tmp_and_run_are_private(root: Root, said: Said, tmp_path: Path) -> None:
    (root.path / "tmp/in-the-tree").touch()
    assert said("ls -A /tmp; echo -; ls -A /run; touch /tmp/x /run/x; stat -c %a /tmp /run") == (
        "-\nlock\nsnaptx\n1777\n755\n"
    )
    assert [one.name for one in (root.path / "tmp").iterdir()] == ["in-the-tree"]
    assert not list((root.path / "run").iterdir())
    assert not Path("/run/x").exists()


def test_proc_shows_its_own_processes_only(said: Said) -> None:
    assert sorted(name for name in said("ls /proc; :").split() if name.isdigit()) == ["1", "2", "3"]


@pytest.mark.parametrize("kind", ["mnt", "pid", "ipc", "uts"])
def test_namespaces_are_its_own(said: Said, kind: str) -> None:
    assert said(f"readlink /proc/self/ns/{kind}").strip() != os.readlink(f"/proc/self/ns/{kind}")


def test_root_is_a_mount_of_the_subvolume(root: Root, said: Said) -> None:
    mounts = {one.target: one for one in system.parse_mounts(said("cat /proc/self/mountinfo"))}
    assert (mounts["/"].root, mounts["/"].fstype) == (f"/{root.path.name}", "btrfs")
    assert "noatime" in mounts["/"].options
    assert mounts["/dev/pts"].fstype == "devpts"


def test_machine_can_not_be_steered(said: Said) -> None:
    name = socket.gethostname()
    for path in ("/proc/sys/kernel/core_pattern", "/proc/sysrq-trigger", "/sys/kernel/uevent_helper"):
        if Path(path).exists():
            assert said(f"(: >>{path}) 2>/dev/null || echo no") == "no\n"
    assert said("mkdir /sys/fs/cgroup/x || echo no") == "no\n"
    assert said("hostname elsewhere; hostname") == "elsewhere\n"
    assert socket.gethostname() == name


def test_written_files_stay(root: Root, said: Said) -> None:
    said("echo data >/etc/new")
    assert (root.path / "etc/new").read_text() == "data\n"


def test_what_is_left_running_dies_and_frees_the_root(disk: Disk, root: Root) -> None:
    script = "(sleep 1000 &) ; sleep 1000 </etc/file >/etc/out & cd /etc; echo $! >pid"
    (root.path / "etc/file").touch()
    assert run_enclosed(root.enclosure, ["sh", "-c", script]) == 0
    assert (root.path / "etc/pid").read_text()
    assert root.users() == []
    btrfsutil.delete_subvolume(str(root.path))


def test_file_system_is_free_afterwards(tmp_path: Path) -> None:
    with made_disk(tmp_path) as disk:
        root = disk.root()
        mounting.unmount(str(disk.place))
        try:
            assert run_enclosed(root.enclosure, ["sh", "-c", "sleep 1000 & :"]) == 0
            os.close(os.open(disk.device, os.O_RDONLY | os.O_EXCL))
        finally:
            mounting.mount(disk.device, str(disk.place), "btrfs")


def test_orphans_are_reaped(said: Said) -> None:
    states = said("for i in 1 2 3 4 5; do (sleep 0.05 &); done; sleep 0.3; cat /proc/[0-9]*/stat")
    assert [line.split()[2] for line in states.splitlines() if "sleep" in line] == []


def test_mounts_do_not_reach_the_machine(root: Root, tmp_path: Path) -> None:
    root = replace(root, shared=((str(tmp_path), "/home"),))
    (tmp_path / "sub").mkdir()
    busy = (
        "mount -t tmpfs none /home/sub && mount -t tmpfs none /dev/shm && cat /proc/self/mountinfo >/home/in"
    )
    # A namespace where everything spreads, as systemd sets the machine up.
    watch = f"cat /proc/self/mountinfo >{tmp_path}/$1"
    script = f'{watch}; shift; "$@" || exit; shift $#; set -- after; {watch}'
    spreading = ["unshare", "--mount", "--propagation", "shared", "sh", "-c", script, "sh", "before"]
    subprocess.run([*spreading, *root.runner(["sh", "-c", busy])], cwd=ROOT, check=True)
    before, after = (tmp_path / "before").read_text(), (tmp_path / "after").read_text()
    assert "shared:" in before
    assert after == before
    inside = [one.target for one in system.parse_mounts((tmp_path / "in").read_text())]
    assert "/home/sub" in inside
    assert str(tmp_path) not in inside


@pytest.mark.parametrize(
    ("link", "shown"),
    [
        (None, True),  # a file
        ("", False),  # nothing
        ("/run/systemd/resolve/stub-resolv.conf", True),
        ("../run/resolvconf/resolv.conf", True),
        ("../var/run/NetworkManager/resolv.conf", True),  # /var/run is a link itself
        ("../../../../run/resolv.conf", True),
        ("/etc/of-the-tree", True),
        ("/etc/nowhere", False),
        ("/nowhere/at/all", False),
        ("/etc", False),  # a directory
        ("resolv.conf", False),  # a loop
    ],
)
def test_name_servers(root: Root, tmp_path: Path, warnings: list[str], link: str | None, shown: bool) -> None:
    (root.path / "etc/of-the-tree").write_text("own\n")
    (root.path / "var/run").symlink_to("/run")
    place = root.path / "etc/resolv.conf"
    if link is None:
        place.write_text("old\n")
    elif link:
        place.symlink_to(link)
    before = root.snapshot()
    machine = tmp_path / "resolv.conf"
    machine.write_text(NAMESERVERS)
    enclosure = root.enclosure._replace(resolver=str(machine))
    seen = 'test "$(cat /etc/resolv.conf 2>/dev/null)" = "$1" || exit 1'
    script = f"{seen}; (echo x >>/etc/resolv.conf) 2>/dev/null && exit 2; exit 0"
    status = run_enclosed(enclosure, ["sh", "-c", script, "sh", NAMESERVERS.strip()])
    assert status == (0 if shown else 1)
    assert root.snapshot() == before
    assert machine.read_text() == NAMESERVERS
    assert [text.split(" ")[0] for text in warnings] == ([] if shown else ["/etc/resolv.conf"])


def test_no_name_servers_on_the_machine(root: Root, warnings: list[str], tmp_path: Path) -> None:
    (root.path / "etc/resolv.conf").write_text("own\n")
    enclosure = root.enclosure._replace(resolver=str(tmp_path / "none"))
    assert run_enclosed(enclosure, ["sh", "-c", "test $(cat /etc/resolv.conf) = own"]) == 0
    assert warnings == []


def test_shared_data_is_the_machines(root: Root, said: Said, tmp_path: Path) -> None:
    (tmp_path / "outer").mkdir()
    (tmp_path / "inner").mkdir()
    (tmp_path / "outer/a").write_text("one\n")
    (root.path / "home/user").mkdir()
    (tmp_path / "outer/user").mkdir()
    root.shared = ((str(tmp_path / "inner"), "/home/user"), (str(tmp_path / "outer"), "/home"))
    assert said("cat /home/a; echo two >/home/b; echo three >/home/user/c") == "one\n"
    assert (tmp_path / "outer/b").read_text() == "two\n"
    assert (tmp_path / "inner/c").read_text() == "three\n"
    assert [one.name for one in (root.path / "home").iterdir()] == ["user"]


def test_shared_data_that_is_missing_is_left_out(root: Root, warnings: list[str], tmp_path: Path) -> None:
    (root.path / "etc/resolv.conf").touch()
    root.shared = ((str(tmp_path / "none"), "/home"), (str(tmp_path), "/srv"), (str(tmp_path), "/bin/sh"))
    before = root.snapshot()
    assert run_enclosed(root.enclosure, ["sh", "-c", ":"]) == 0
    assert sorted(text.split(" ")[0] for text in warnings) == ["/bin/sh", "/srv"]
    assert root.snapshot() == before


def test_nothing_is_made_in_a_tree_without_mount_points(root: Root, warnings: list[str]) -> None:
    for name in ("dev", "etc", "home", "proc", "root", "run", "sys", "tmp"):
        (root.path / name).rmdir()
    before = root.snapshot()
    assert run_enclosed(root.enclosure, ["sh", "-c", "exit 5"]) == 5
    assert root.snapshot() == before
    left_out = [text.split(" ")[0] for text in warnings]
    assert left_out == ["/proc", "/sys", "/dev", "/tmp", "/run", "/etc/resolv.conf"]


def test_links_at_mount_points_stay_inside(root: Root, tmp_path: Path) -> None:
    (tmp_path / "precious").touch()
    (root.path / "tmp").rmdir()
    (root.path / "tmp").symlink_to(f"../../../..{tmp_path}")
    (root.path / "home").rmdir()
    (root.path / "home").symlink_to("/var/home")
    (root.path / "var/home").mkdir()
    root.shared = ((str(tmp_path), "/home"),)
    before = root.snapshot()
    assert run_enclosed(root.enclosure, ["sh", "-c", "test -e /var/home/precious"]) == 0
    assert root.snapshot() == before


def test_command_that_does_nothing_changes_nothing(root: Root) -> None:
    (root.path / "etc/resolv.conf").touch()
    before = root.snapshot()
    read = "for name in /bin/* /etc/*; do cat $name >/dev/null; done"
    assert run_enclosed(root.enclosure, ["sh", "-c", read]) == 0
    assert root.snapshot() == before


@pytest.mark.parametrize(
    ("name", "word"),
    [("nosuch", "127"), ("/bin/nosuch", "127"), ("script", "127"), ("/etc", "126"), ("plain", "126")],
)
def test_command_that_can_not_start(root: Root, name: str, word: str) -> None:
    (root.path / "bin/script").write_text("#!/nosuch\n")
    (root.path / "bin/script").chmod(0o755)
    (root.path / "bin/plain").touch(0o644)
    with pytest.raises(CommandError, match=f"^{name}: .*{word}") as caught:
        run_enclosed(root.enclosure, [name])
    assert caught.value.hint


def children() -> set[str]:
    """Return the processes that are this one's, also those that have ended and were not waited for."""
    tasks = Path("/proc/self/task").iterdir()
    return {pid for task in tasks for pid in (task / "children").read_text().split()}


def test_mount_that_fails_is_named_and_leaves_nothing(root: Root) -> None:
    descriptors, mounted, known = os.listdir("/proc/self/fd"), own_mounts(root), children()
    gone = Enclosure(MountSpec(root.device, "btrfs", "subvol=gone"))
    with pytest.raises(NotFoundError, match=r"mount btrfs /dev/loop.* \(subvol=gone\): No such file"):
        run_enclosed(gone, ["true"])
    with pytest.raises(StorageError, match=r"mount nosuchfs .*: No such device"):
        run_enclosed(Enclosure(MountSpec("none", "nosuchfs", "")), ["true"])
    assert os.listdir("/proc/self/fd") == descriptors
    assert own_mounts(root) == mounted
    assert children() == known


def test_only_root_may(root: Root, mocker: MockerFixture) -> None:
    mocker.patch("snaptx.system.is_root", return_value=False)
    with pytest.raises(PrivilegeError):
        run_enclosed(root.enclosure, ["true"])


def test_root_without_the_right_to_mount(root: Root) -> None:
    command = ["setpriv", "--bounding-set=-sys_admin", "--inh-caps=-sys_admin", *root.runner(["sh"])]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert "PrivilegeError: cannot leave the machine's namespaces" in done.stderr


def test_no_command(root: Root) -> None:
    with pytest.raises(UsageError):
        run_enclosed(root.enclosure, [])


def test_nothing_is_imported_after_the_view_is_built(root: Root) -> None:
    """Python's own files are out of reach then: the first call of a fresh process shows what is missing."""
    command = root.runner(["nosuch", "argument"])
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert "CommandError: nosuch: command not found" in done.stderr
