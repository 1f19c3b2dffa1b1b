"""A root on ZFS, started by GRUB: taken over, forward, back by the menu, back by itself, and let go of."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.vm import product, zfsroot
from tests.vm.guests import LONG, commit_update, snaptx
from tests.vm.machine import Machine
from tests.vm.run import End, Run

pytestmark = pytest.mark.vm

OLD, NEW = zfsroot.ADOPTED, f"{zfsroot.POOL}/ROOT/snaptx-2"
COMMAND_LINE = r"Command line: [^\r\n]*[\r\n]"
RECORDED = r"Finished.*snaptx-boot\."
COUNT = "/usr/share/initramfs-tools/scripts/local-bottom/snaptx"


def root_of(run: Run) -> str:
    """Return the dataset that is mounted as the root."""
    return run.check(["findmnt", "--noheadings", "--output", "SOURCE", "/"]).strip()


def bootfs(run: Run) -> str:
    """Return the dataset that the pool says boots by default."""
    return run.check(["zpool", "get", "-H", "-o", "value", "bootfs", zfsroot.POOL]).strip()


def take_over(run: Run) -> None:
    """Install snaptx and adopt the root."""
    run.state(LONG)
    product.install(run)
    run.script(f"install -D {product.COUNT} {COUNT}; rm {product.COUNT}")
    run.script("echo 1 >/srv/of-the-root; echo 1 >/home/shared")
    plan = snaptx(run, "init", "--accept-rollback", "--dry-run")
    assert OLD in "\n".join(plan["steps"])
    assert f"{zfsroot.POOL}/snaptx/grub" in "\n".join(plan["steps"])
    snaptx(run, "init", "--accept-rollback")


def runs_the_new_one(run: Run) -> None:
    """See the menu, start its default, find the update there, its child mounted, and confirmed."""
    entries = run.menu().entries
    assert [entry.partition(":")[0] for entry in entries[:2]] == ["2", "1"]
    assert "Rescue" in entries[2]
    assert "As before" in entries[3]
    run.choose(entries[0])
    assert run.state(LONG) in ("running", "degraded")
    assert (root_of(run), bootfs(run)) == (NEW, NEW)
    assert run.check(["cat", "/etc/update"]) == "two"
    assert run.check(["findmnt", "--noheadings", "--output", "SOURCE", "/srv"]).strip() == f"{NEW}/srv"
    assert [row["marks"] for row in snaptx(run, "list")] == ["G", "NRG"]
    run.script("echo 2 >/srv/of-the-root; echo 2 >/home/shared")
    assert run.reboot() is End.REBOOT


def goes_back_and_lets_go(run: Run) -> None:
    """Choose the older generation by key: it boots as it is, can be made the default, and needs no snaptx."""
    run.choose(run.menu().entries[1])
    run.state(LONG)
    assert root_of(run) == OLD
    assert run.shell(["cat", "/etc/update"]).status == 1
    assert run.script("cat /srv/of-the-root /home/shared").split() == ["1", "2"]
    status = snaptx(run, "status")
    assert (status["booted"], status["default"]) == (1, 2)
    assert snaptx(run, "rollback")["number"] == 1
    assert (snaptx(run, "status")["default"], bootfs(run)) == (1, OLD)
    snaptx(run, "init", "--undo")
    assert "snaptx" not in run.check(["zfs", "list", "-H", "-t", "all"])
    assert run.reboot() is End.REBOOT


@pytest.mark.parametrize("layout", list(zfsroot.LAYOUTS))
def test_forward_and_back_and_away(layout: str, tmp_path: Path) -> None:
    with zfsroot.machine_of(layout, tmp_path) as machine:
        with machine.boot() as run:
            take_over(run)
            assert commit_update(run, "two") == 2
            assert run.reboot() is End.REBOOT
        with machine.boot() as run:
            runs_the_new_one(run)
        with machine.boot() as run:
            goes_back_and_lets_go(run)
        with machine.boot() as run:
            entries = run.menu().entries
            assert not entries[0].startswith("1:")
            run.choose(entries[0])
            assert root_of(run) == OLD
            assert run.poweroff() is End.POWEROFF


def comes_back(machine: Machine, boots: int) -> None:
    """Boot until the old generation runs and that is on record; nobody touches a key."""
    for _ in range(boots):
        with machine.boot() as run:
            if OLD in run.expect(COMMAND_LINE, LONG):
                run.expect(RECORDED, LONG)
                run.state(LONG)
                status = snaptx(run, "status")
                assert (status["booted"], status["default"], status["failed"]) == (1, 1, 2)
                assert "did not confirm itself in 2 tries" in status["reason"]
                assert bootfs(run) == OLD
                assert run.poweroff() is End.POWEROFF
                return
            run.wait(LONG)
    raise AssertionError("the last good generation did not come back")


@pytest.mark.parametrize("layout", list(zfsroot.LAYOUTS))
def test_the_last_good_one_comes_back(layout: str, tmp_path: Path) -> None:
    """On UEFI GRUB counts the tries, on BIOS the initramfs does: a pool can't be written by GRUB."""
    with zfsroot.machine_of(layout, tmp_path) as machine:
        with machine.boot() as run:
            take_over(run)
            if layout == "zfs-bios":
                run.check(["update-initramfs", "-u"], LONG)
            run.put({"/run/update/usr/lib/systemd/systemd": "#!/bin/sh\nexit 1\n"})
            words = ("apply", "--commit", "--message", "two", "/run/update")
            assert snaptx(run, *words)["committed"]["number"] == 2
            assert run.reboot() is End.REBOOT
        comes_back(machine, 4)
