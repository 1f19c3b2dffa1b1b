"""The menu of many generations, by key; what does not reach it: a plan, and GRUB in a staged generation."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.vm import offline, product
from tests.vm.conftest import Maker
from tests.vm.guests import LONG, root_of, snaptx
from tests.vm.layouts import LAYOUTS
from tests.vm.run import End, Run

pytestmark = pytest.mark.vm

OLDER = "Older generations"
TITLE = re.compile(r"(\d+): \d{4}-\d\d-\d\d \d\d:\d\d (?:\[(\w+)\] )?(.*) \((.*)\)")
LIMIT = "[boot]\nmenu = 7\n"
AT_TOP = "mkdir -p /run/top; mount -o subvolid=5 $(findmnt -no SOURCE / | sed 's/\\[.*//') /run/top"
STARTS = (
    "dd if=/dev/vda bs=1M count=2 status=none | sha256sum; find /boot {} -type f -exec sha256sum '{{}}' +"
)

# By the name that package scripts use, then past the stand-ins: the real one, which the kernel refuses.
TRIES = "; ".join(
    (
        "sed -i s/GRUB_TIMEOUT=3/GRUB_TIMEOUT=33/ /etc/default/grub",
        "grub-install /dev/vda",
        "update-grub",
        "! /usr/sbin/grub-install /dev/vda",
    )
)


def what_starts(run: Run, *places: str) -> str:
    """Return digests of the disk's first sectors, of /boot and of ``places``."""
    run.check(["sync"])
    return "\n".join(sorted(run.script(STARTS.format(" ".join(places)), LONG).splitlines()))


def plans_only(run: Run) -> None:
    """See that a plan changes nothing."""
    everything = (
        "sync; btrfs subvolume list / | sed 's/ gen [0-9]*//'; cat /etc/fstab; ls -A /etc /var/lib /usr/lib"
    )
    before = what_starts(run), run.script(everything)
    plan = snaptx(run, "init", "--accept-rollback", "--dry-run")

    assert "install GRUB (i386-pc) on /dev/vda, its files and menu in @snaptx/grub" in plan["steps"]
    assert (what_starts(run), run.script(everything)) == before


def stays_inside(run: Run) -> None:
    """See that a GRUB that is installed in a staged generation stays there; the generation is number 2."""
    run.script(AT_TOP)
    menu = "/run/top/@snaptx/grub"
    before = what_starts(run, menu)
    run.check(["snaptx", "--quiet", "run", "--message", "another menu", "--", "sh", "-ec", TRIES], LONG)

    assert what_starts(run, menu) == before
    inside = "/run/top/@snaptx/generations/2/root/boot/grub/grub.cfg"
    assert "timeout=33" in run.check(["cat", inside])
    run.check(["umount", "/run/top"])
    snaptx(run, "commit")


def said(titles: tuple[str, ...]) -> list[tuple[str, str, str]]:
    """Return number, mark and message of entries that name a kernel."""
    found = [match for match in map(TITLE.fullmatch, titles) if match and "cloud" in match[4]]
    return [(match[1], match[2] or "", match[3]) for match in found]


def commits_many(disk: Path, place: Path) -> None:
    """Commit generations 3 to 9 while the machine is off; one of them was bad."""
    with offline.opened(disk) as parts, offline.mounted(parts[offline.ROOT], "@rootfs") as root:
        root.joinpath("etc/snaptx").mkdir(exist_ok=True)
        root.joinpath("etc/snaptx/snaptx.conf").write_text(LIMIT)
        place.joinpath("etc").mkdir(parents=True)
        for number in range(3, 10):
            place.joinpath("etc/update").write_text(f"update {number}")
            message = f"update {number} " + "long " * 20
            # The journal went on after a commit had carried it over.
            commit = ("--commit", "--conflicts", "old", "--message", message)
            offline.snaptx(root, "apply", *commit, f"{place}")
        offline.snaptx(root, "confirm", "4", "--bad", "it was slow")


def shows_them(run: Run) -> None:
    """See five in the menu and the others in the submenu; start one that is there."""
    first = run.menu().entries
    print(run.screen)
    assert [number for number, _, _ in said(first)] == ["9", "8", "7", "6", "1"]
    assert said(first)[0][1] == "trial"
    assert said(first)[0][2].startswith("update 9 l")
    assert [title.split()[0] for title in first[5:]] == [OLDER.split()[0], "Rescue:", "As"]
    run.choose(OLDER)
    older = run.menu().entries
    print(run.screen)
    assert [(number, mark) for number, mark, _ in said(older)] == [("5", "trial"), ("4", "bad")]
    run.choose(older[1])


def test_older_generations_are_in_a_submenu(machine_of: Maker, tmp_path: Path) -> None:
    machine = machine_of("debian")
    product.install_on(machine.disk, LAYOUTS["debian"])
    with machine.boot() as run:
        run.state(LONG)
        plans_only(run)
        snaptx(run, "init", "--accept-rollback")
        stays_inside(run)
        assert run.poweroff() is End.POWEROFF
    commits_many(machine.disk, tmp_path / "payload")
    with machine.boot() as run:
        shows_them(run)
        run.state(LONG)
        assert root_of(run) == "@snaptx/generations/4/root"
        assert run.check(["cat", "/etc/update"]) == "update 4"
        status = snaptx(run, "status")
        assert (status["booted"], status["default"]) == (4, 9)
        assert run.poweroff() is End.POWEROFF
