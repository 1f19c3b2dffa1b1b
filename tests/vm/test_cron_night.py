"""A machine without systemd updates itself at night, by cron: the new generation runs, or the old one again.

Init is sysvinit, cron the distribution's own, and its table is snaptx's own.
Only the clock is set, and the update does not wait at random.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.updates import key
from tests.vm import archive, image, offline, product, sysvinit
from tests.vm.guests import LONG, root_of, snaptx
from tests.vm.layouts import LAYOUTS
from tests.vm.machine import Image, Machine
from tests.vm.parcel import Content
from tests.vm.run import End, Run
from tests.vm.test_overnight import CHECK, CONFIG, last_update, offer

pytestmark = pytest.mark.vm

HOOKS = product.ROOT / "hooks"
SPLAY = " --splay 1800"


def files() -> dict[str, Content]:
    """Return what an administrator installs for cron, as the README says, and configures."""
    table = (HOOKS / "cron").read_text()
    assert SPLAY in table
    return {
        "/etc/cron.d/snaptx": table.replace(SPLAY, ""),
        "/usr/lib/snaptx/boot-once": HOOKS / "boot-once",
        "/usr/lib/snaptx/on-mains": HOOKS / "on-mains",
        "/etc/snaptx/snaptx.conf": CONFIG,
        "/etc/snaptx/keys.d/mine.pub": key()[1],
    }


@pytest.fixture(scope="module")
def following(tmp_path_factory: pytest.TempPathFactory) -> Image:
    """Give a machine with a cron that snaptx manages and that follows a source."""
    layout = LAYOUTS["debian"]
    names = (*sysvinit.PACKAGES, "cron", "python3-cryptography")
    packages = archive.packages(tmp_path_factory.mktemp("archive"), names, without=sysvinit.REPLACED)
    with Machine(image.image(layout.name), tmp_path_factory.mktemp("following")) as machine:
        with offline.opened(machine.disk) as parts, offline.system(parts, layout) as root:
            sysvinit.convert(root, packages)
            product.lay_into(root)
            product.unpack(root, files())
        with machine.boot() as run:
            assert run.check(["cat", "/proc/1/comm"]) == "init\n"
            snaptx(run, "init", "--accept-rollback")
            assert run.poweroff() is End.POWEROFF
        return machine.frozen()


def night(run: Run, days: int = 1) -> None:
    """Let it be a minute before cron updates in a night in so many days."""
    run.script(f"date --set '03:16:30 {days} days'")


def test_it_is_up_to_date_in_the_morning(following: Image, tmp_path: Path) -> None:
    with Machine(following, tmp_path) as machine:
        with machine.boot() as run:
            offer(run, tmp_path, {"etc/update": b"two"})
            night(run)
            assert run.wait(LONG) is End.REBOOT
        with machine.boot() as run:
            assert root_of(run) == "@snaptx/generations/2/root"
            assert run.check(["cat", "/etc/update"]) == "two"
            run.script("until grep -q . /run/snaptx/boot; do sleep 5; done", LONG)
            assert [row["marks"] for row in snaptx(run, "list")] == ["G", "NRG"]
            assert run.poweroff() is End.POWEROFF


def test_a_bad_update_is_gone_in_the_morning_for_good(following: Image, tmp_path: Path) -> None:
    with Machine(following, tmp_path) as machine:
        with machine.boot() as run:
            offer(run, tmp_path, {"etc/update": b"two", "etc/snaptx/hooks.d/check/network": CHECK})
            night(run)
            assert run.wait(LONG) is End.REBOOT
        with machine.boot() as run:
            assert run.wait(LONG) is End.REBOOT, "it fails its check and is given up"
        with machine.boot() as run:
            assert root_of(run) == "@rootfs"
            assert [row["marks"] for row in snaptx(run, "list")] == ["NRG", "B"]
            assert "no network" in snaptx(run, "list")[1]["reason"]
            night(run, days=3)  # the sources are not asked twice in one night
            assert "the second" in last_update(run, lambda last: last["result"] == "rejected")["message"]
            assert run.poweroff() is End.POWEROFF
