"""What of the machine a command in a generation sees: a decision on the table of mounts."""

from __future__ import annotations

from snaptx.enclosure import caller, today
from snaptx.system import Mount


def mount(target: str, device: str = "0:9", root: str = "/") -> Mount:
    """Return a mount of some other filesystem."""
    return Mount(root, target, "ext4", "/dev/x", device, "rw", "rw")


ROOT = mount("/", "0:5", "/@")


def test_what_is_mounted_is_todays() -> None:
    mounts = [ROOT, mount("/data"), mount("/usr/local"), mount("/home/ann/disk"), mount("/etc/hosts")]

    assert set(today.places(mounts, "/", ["/var/log"])) == {
        *today.PLACES, "/var/log", "/data", "/usr/local", "/etc/hosts",
    }  # fmt: skip


def test_kernels_filesystems_are_not_listed_twice() -> None:
    assert set(
        today.places([ROOT, mount("/proc"), mount("/sys/fs/cgroup"), mount("/dev/pts")], "/", [])
    ) == set(today.PLACES)


def test_a_generations_live_tree_is_not_todays() -> None:
    mounts = [ROOT, mount("/usr", "0:5", "/@snaptx/generations/3/root/usr"), mount("/opt", "0:5", "/@/opt")]

    assert {"/usr", "/opt"} & set(today.places(mounts, "/", [], {"/usr": 3})) == {"/opt"}


def test_other_roots_are_worked_on_below_their_place() -> None:
    mounts = [mount("/"), mount("/data"), mount("/box/root", "0:5", "/@"), mount("/box/root/opt")]

    assert "/opt" in today.places(mounts, "/box/root", [])
    assert "/data" not in today.places(mounts, "/box/root", [])


def test_nothing_is_shown_inside_of_what_is_shown() -> None:
    shown = today.places([ROOT, mount("/var"), mount("/run/user/1000")], "/", ["/var/log", "/home-2"])

    assert {"/var", "/run", "/home", "/home-2"} <= set(shown)
    assert not {"/var/log", "/var/tmp", "/run/user/1000"} & set(shown)


def test_environment_is_the_users() -> None:
    ann = caller.Caller(1000, 1000, (1000,), "ann", "/home/ann", "/bin/zsh")
    outside = {"HOME": "/root", "USER": "root", "TERM": "vt100", "SUDO_UID": "1000", "DOAS_USER": "ann"}

    assert caller.environment_of(None, outside) == outside
    assert caller.environment_of(ann, outside) == {
        "HOME": "/home/ann", "USER": "ann", "LOGNAME": "ann", "SHELL": "/bin/zsh", "TERM": "vt100",
    }  # fmt: skip
