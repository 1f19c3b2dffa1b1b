"""A live system is taken over: it starts by snaptx's menu, goes forward and back, and is let go of again."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.vm import image, luks, product
from tests.vm.guests import LONG, commit_update, root_of, snaptx, take_over
from tests.vm.layouts import LAYOUTS, Layout
from tests.vm.machine import Firmware, Image, Machine
from tests.vm.run import End, Run

pytestmark = pytest.mark.vm


def runs_the_new_one(run: Run) -> None:
    """See the menu, start its default, find the update there and confirmed."""
    entries = run.menu().entries
    assert [entry.partition(":")[0] for entry in entries[:2]] == ["2", "1"]
    assert "two" in entries[0]
    assert "Rescue" in entries[2]
    assert "As before" in entries[3]
    run.choose(entries[0])
    assert run.state(LONG) in ("running", "degraded")
    assert root_of(run) == "@snaptx/generations/2/root"
    assert run.check(["cat", "/etc/update"]) == "two"
    assert [row["marks"] for row in snaptx(run, "list")] == ["G", "NRG"]
    assert run.reboot() is End.REBOOT


def choose_the_way_before(run: Run) -> None:
    """Start what booted before snaptx where the distribution's menu would mix roots."""
    title = run.menu().entries[3]
    assert title.endswith("the root that it found")
    run.choose(title)
    run.choose(run.menu().entries[0])


def goes_back_and_lets_go(run: Run, adopted: str, *, by_default: bool) -> None:
    """Choose the older generation by key: it boots as it is, can be made the default, and needs no snaptx."""
    if by_default:
        choose_the_way_before(run)
    else:
        run.choose(run.menu().entries[1])
    run.state(LONG)
    assert root_of(run) == adopted
    assert run.shell(["cat", "/etc/update"]).status == 1
    status = snaptx(run, "status")
    assert (status["booted"], status["default"]) == (1, 2)
    assert snaptx(run, "rollback")["number"] == 1
    assert snaptx(run, "status")["default"] == 1
    snaptx(run, "init", "--undo")
    assert "@snaptx" not in run.check(["btrfs", "subvolume", "list", "/"])
    assert run.reboot() is End.REBOOT


def stays_first(run: Run, layout: Layout) -> None:
    """Let packages of GRUB take the place of snaptx's menu: that is told, and put right."""
    if layout.ext4_boot or layout is luks.LAYOUT:
        return  # the distribution's GRUB leads to the menu
    install = ["grub-install", *(["/dev/vda"] if layout.firmware is Firmware.BIOS else [])]
    run.check(install, LONG)
    assert "does not start by snaptx's menu" in run.shell(["snaptx", "verify"], LONG).output
    assert "starts by snaptx's menu again" in run.check(["snaptx", "repair"], LONG)
    assert "nothing to repair" in run.check(["snaptx", "repair"], LONG)


def image_of(layout: Layout) -> Image:
    """Return the disk of a layout."""
    return luks.made() if layout is luks.LAYOUT else image.image(layout.name)


@pytest.mark.parametrize("layout", [*LAYOUTS.values(), luks.LAYOUT], ids=lambda layout: layout.name)
def test_forward_and_back_and_away(layout: Layout, tmp_path: Path) -> None:
    with Machine(image_of(layout), tmp_path) as machine:
        product.install_on(machine.disk, layout)
        with machine.boot() as run:
            adopted = take_over(run)
            stays_first(run, layout)
            assert commit_update(run, "two") == 2
            assert run.reboot() is End.REBOOT
        with machine.boot() as run:
            runs_the_new_one(run)
        with machine.boot() as run:
            goes_back_and_lets_go(run, adopted, by_default=layout.by_default)
        with machine.boot() as run:
            entries = run.menu().entries
            assert not entries[0].startswith("1:")
            run.choose(entries[0])
            assert root_of(run) == adopted
            assert run.poweroff() is End.POWEROFF
