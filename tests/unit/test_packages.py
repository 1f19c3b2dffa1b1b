"""What package managers print, and which one is a tree's own."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import pytest

from snaptx.config import ManagerName
from snaptx.errors import PackageError
from snaptx.packages import difference, traces
from snaptx.packages.apt import Apt
from snaptx.packages.base import Upgrade
from snaptx.packages.choose import MANAGERS, choose, parse_release
from snaptx.packages.dnf import Dnf
from snaptx.packages.pacman import Pacman
from snaptx.packages.versions import debian_is_newer, pacman_is_newer, rpm_is_newer
from snaptx.packages.zypper import Zypper

COMMON = [
    ("1.10", "1.9"),
    ("2:1", "1:9"),
    ("1:1", "9"),
    ("1.0-2", "1.0-1"),
    ("1.0.1", "1.0"),
    ("1.01a", "1.1"),
]


@pytest.mark.parametrize(
    ("newer", "older"),
    [*COMMON, ("1.0-1", "1.0-1~bpo12+1"), ("1.0+b1", "1.0"), ("1.0a", "1.0"), ("1.0-1+deb12u1", "1.0-1"),
     ("1.0-1", "1.0-1~~"), ("1.a", "1.~a"), ("1+a", "1a")],
)  # fmt: skip
def test_debian_versions(newer: str, older: str) -> None:
    assert debian_is_newer(newer, older)
    assert not debian_is_newer(older, newer)
    assert not debian_is_newer(newer, newer)


@pytest.mark.parametrize(
    ("newer", "older"),
    [*COMMON, ("1.0", "1.0~rc1"), ("1.0^git1", "1.0"), ("1.0.1", "1.0^git1"), ("1.0a", "1.0"), ("1.1", "1.a"),
     ("5.5p2", "5.5p1"), ("10.1xyz", "10xyz")],
)  # fmt: skip
def test_rpm_versions(newer: str, older: str) -> None:
    assert rpm_is_newer(newer, older)
    assert not rpm_is_newer(older, newer)


@pytest.mark.parametrize(
    ("newer", "older"), [("1.0", "1.0rc1"), ("1.0.a", "1.0"), ("1.0rc2", "1.0rc1"), ("1:1", "2")]
)
def test_pacman_versions(newer: str, older: str) -> None:
    assert pacman_is_newer(newer, older)
    assert not pacman_is_newer(older, newer)


def test_odd_versions_do_not_fail() -> None:
    for text in ("", "-", ":", "~", "1:", ":1", "٣", "1-", "a:1"):
        for is_newer in (debian_is_newer, rpm_is_newer, pacman_is_newer):
            assert is_newer("1", text) in (True, False)


def test_apt_plan() -> None:
    said = (
        "NOTE: a simulation!\nRemv gone [1.0]\nInst libc6 [2.36-8] (2.36-9 Debian:12/stable [amd64])\n"
        "Inst fresh (1:2~a Debian:12/stable [all])\nConf libc6 (2.36-9 Debian:12/stable [amd64])\n"
    )

    assert Apt().parse_plan(said) == [
        Upgrade("gone", "1.0", ""), Upgrade("libc6", "2.36-8", "2.36-9"), Upgrade("fresh", "", "1:2~a")
    ]  # fmt: skip


def test_apt_installed() -> None:
    said = "a\t1\tinstalled\nb:i386\t2\tunpacked\nc\t3\tconfig-files\nd\t\tnot-installed\nodd line\n"

    assert Apt().parse_query(said) == {"a": ("1",), "b:i386": ("2",)}


def test_dnf_plan() -> None:
    said = (
        "\nbash.x86_64        5.2-1.fc40    updates\na-very-long-name.noarch   1:2-3   updates\n"
        "Obsoleting Packages\nold.noarch   1-1   updates\n    old.noarch   0-1   @System\n"
    )

    assert Dnf().parse_plan(said) == [
        Upgrade("bash.x86_64", "", "5.2-1.fc40"), Upgrade("a-very-long-name.noarch", "", "1:2-3")
    ]  # fmt: skip


def test_dnf_options_of_a_command_are_behind_it() -> None:
    """dnf 5 takes them nowhere else."""
    assert Dnf().fetch("/cache").argv[-2:] == ("upgrade", "--downloadonly")


def test_several_versions_of_one_package() -> None:
    said = "kernel.x86_64\t5-1\nkernel.x86_64\t6-1\n"
    before, after = Dnf().parse_query(said), Dnf().parse_query(said.replace("5-1", "7-1"))
    changes = difference.compare(before, after, rpm_is_newer)

    assert changes.upgraded == (Upgrade("kernel.x86_64", "5-1", "7-1"),)
    two = Dnf().parse_query(said + "kernel.x86_64\t7-1\n")
    assert difference.compare(before, two, rpm_is_newer).added == (Upgrade("kernel.x86_64", "", "7-1"),)


def test_zypper_plan() -> None:
    said = (
        "<stream><message>x</message><install-summary><to-upgrade><solvable name='a' edition='2-1' "
        "edition-old='1-1'/></to-upgrade><to-install><solvable name='b' edition='1-1'/></to-install>"
        "<to-remove><solvable name='c' edition='3-1'/></to-remove></install-summary></stream>"
    )

    assert Zypper().parse_plan(said) == [
        Upgrade("a", "1-1", "2-1"), Upgrade("b", "", "1-1"), Upgrade("c", "3-1", "")
    ]  # fmt: skip
    with pytest.raises(PackageError, match="no XML"):
        Zypper().parse_plan("no xml <")


def test_pacman_plan() -> None:
    said = ":: Starting full system upgrade...\ntarget linux 6.1-1\nwarning: x y\n"

    assert Pacman().parse_plan(said) == [Upgrade("linux", "", "6.1-1")]


def test_difference() -> None:
    old = {"a": ("1",), "b": ("2",), "c": ("1",)}
    found = difference.compare(old, {"a": ("2",), "b": ("1",), "d": ("1",)}, debian_is_newer)

    assert (found.upgraded, found.downgraded) == ((Upgrade("a", "1", "2"),), (Upgrade("b", "2", "1"),))
    assert (found.added, found.removed) == ((Upgrade("d", "", "1"),), (Upgrade("c", "1", ""),))
    assert not difference.compare(old, old, debian_is_newer)


@pytest.mark.parametrize(
    ("release", "present", "wanted", "chosen"),
    [
        ("ID=debian\n", {"apt"}, "auto", "apt"),
        ("ID=debian\n", {"apt", "dnf", "zypper"}, "auto", "apt"),
        ('ID=ubuntu\nID_LIKE="debian"\n', {"apt", "pacman"}, "auto", "apt"),
        ('ID="opensuse-leap"\nID_LIKE="suse opensuse"\n', {"dnf", "zypper"}, "auto", "zypper"),
        ("ID=fedora\n", {"apt", "dnf"}, "auto", "dnf"),
        ("ID=manjaro\nID_LIKE=arch\n", {"pacman"}, "auto", "pacman"),
        ("ID=unheard-of\n", {"pacman"}, "auto", "pacman"),
        ("", {"apt", "dnf"}, "dnf", "dnf"),
        ("# odd\n=\nID='unclosed\n", {"apt"}, "auto", "apt"),
    ],
)
def test_choice(release: str, present: set[str], wanted: str, chosen: str) -> None:
    assert choose(parse_release(release), present, ManagerName(wanted)).name == chosen


@pytest.mark.parametrize(
    ("release", "present", "wanted", "said"),
    [
        ("ID=debian\n", set(), "auto", "no package manager was found"),
        ("ID=x\n", {"apt", "dnf"}, "auto", "several package managers were found: apt, dnf"),
        ("ID=debian\n", {"apt"}, "dnf", "dnf is configured, but is not there"),
    ],
)
def test_no_choice(release: str, present: set[str], wanted: str, said: str) -> None:
    with pytest.raises(PackageError, match=said) as caught:
        choose(parse_release(release), present, ManagerName(wanted))
    assert caught.value.hint


@pytest.mark.parametrize(
    ("name", "path", "text", "held"),
    [
        ("pacman", "var/lib/pacman/db.lck", "", True),
        ("zypper", "run/zypp.pid", "1", True),
        ("zypper", "run/zypp.pid", str((1 << 22) + 1), False),
        ("zypper", "run/zypp.pid", "", False),
        ("zypper", "run/zypp.pid", "0\n", False),
        ("zypper", "run/zypp.pid", "no number", False),
        ("apt", "var/lib/dpkg/lock", "", False),
        ("dnf", "var/lib/rpm/.rpm.lock", "", False),
    ],
)
def test_locks(tmp_path: Path, name: str, path: str, text: str, held: bool) -> None:
    traces.require_unlocked(tmp_path, MANAGERS[name])
    (tmp_path / path).parent.mkdir(parents=True)
    (tmp_path / path).write_text(text)
    with pytest.raises(PackageError, match=f"{name} is at work") if held else nullcontext():
        traces.require_unlocked(tmp_path, MANAGERS[name])


def test_every_manager_can_be_configured() -> None:
    assert {"auto", *MANAGERS} == {name.value for name in ManagerName}
