"""A machine updates itself at night, by its timer: the new generation runs, or the old one again.

The timer is snaptx's own.  Only the clock is set, to shortly before an hour of
the night, and the timer does not wait at random after it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.updates import Shop, key
from tests.vm import archive, image, offline, product
from tests.vm.guests import LONG, root_of, snaptx, take_over
from tests.vm.layouts import LAYOUTS
from tests.vm.machine import Image, Machine
from tests.vm.run import End, Run

pytestmark = pytest.mark.vm

CONFIG = """[update]
policy = "reboot"
sources = ["/srv/updates"]
window = ["02:00-05:00"]
"""
PUNCTUAL = "[Timer]\nRandomizedDelaySec=0\nAccuracySec=1s\n"

CHECK = b"#!/bin/sh\necho no network >&2\nexit 1\n"


@pytest.fixture(scope="module")
def following(tmp_path_factory: pytest.TempPathFactory) -> Image:
    """Give a machine that snaptx manages and that follows a source."""
    with Machine(image.image("debian-efi"), tmp_path_factory.mktemp("following")) as machine:
        product.install_on(machine.disk, LAYOUTS["debian-efi"])
        libraries = archive.package(tmp_path_factory.mktemp("archive"), "python3-cryptography")
        with offline.opened(machine.disk) as parts, offline.system(parts, LAYOUTS["debian-efi"]) as root:
            product.run_in(root, packages=libraries)
        with machine.boot() as run:
            take_over(run)
            run.put(
                {
                    "/etc/snaptx/snaptx.conf": CONFIG,
                    "/etc/snaptx/keys.d/mine.pub": key()[1],
                    "/etc/systemd/system/snaptx-update.timer.d/punctual.conf": PUNCTUAL,
                }
            )
            run.check(["systemctl", "enable", "snaptx-update.timer"])
            assert run.poweroff() is End.POWEROFF
        return machine.frozen()


def offer(run: Run, place: Path, files: Mapping[str, bytes]) -> None:
    """Publish an overlay where the guest looks, which shares no clock with us."""
    shop = Shop(place / "shop")
    shop.put("two", files, "the second")
    shop.publish(days=3650)
    run.put({"/srv/updates": shop.place})


def night(run: Run, hour: int, days: int = 1) -> None:
    """Let it be shortly before an hour of a night in so many days."""
    run.state(LONG)
    run.script(f"date --set '{hour - 1:02d}:59:50 {days} days'; systemctl restart snaptx-update.timer")


def last_update(run: Run, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """Wait until the last update is what is wanted, and return it."""
    deadline = time.monotonic() + LONG
    while True:
        last = snaptx(run, "status")["updates"]["last"]
        if last and wanted(last):
            return dict(last)
        assert time.monotonic() < deadline, last
        time.sleep(5)


def test_it_is_up_to_date_in_the_morning(following: Image, tmp_path: Path) -> None:
    with Machine(following, tmp_path) as machine:
        with machine.boot() as run:
            offer(run, tmp_path, {"etc/update": b"two"})
            run.script(
                "systemd-run --quiet --unit=holder systemd-inhibit --what=shutdown --who=backup"
                " --why='it writes' --mode=block sleep infinity"
            )
            night(run, 3)
            last_update(run, lambda last: last["result"] == "committed")
            bound = snaptx(run, "--dry-run", "update")["bound"]
            assert bound == {"step": "commit", "reason": "backup blocks a restart: it writes"}
            assert "generation 2 boots next" in run.check(["cat", "/run/motd.d/snaptx"])
            run.check(["systemctl", "stop", "holder"])
            night(run, 4)
            assert run.wait(LONG) is End.REBOOT
        with machine.boot() as run:
            run.state(LONG)
            assert root_of(run) == "@snaptx/generations/2/root"
            assert run.check(["cat", "/etc/update"]) == "two"
            assert [row["marks"] for row in snaptx(run, "list")] == ["G", "NRG"]
            assert snaptx(run, "update", "--check")["result"] == "current"
            assert run.poweroff() is End.POWEROFF


def test_a_bad_update_is_gone_in_the_morning_for_good(following: Image, tmp_path: Path) -> None:
    with Machine(following, tmp_path) as machine:
        with machine.boot() as run:
            offer(run, tmp_path, {"etc/update": b"two", "etc/snaptx/hooks.d/check/network": CHECK})
            night(run, 3)
            assert run.wait(LONG) is End.REBOOT
        with machine.boot() as run:
            assert run.wait(LONG) is End.REBOOT, "it fails its check and is given up"
        with machine.boot() as run:
            run.state(LONG)
            assert root_of(run) == "@rootfs"
            assert [row["marks"] for row in snaptx(run, "list")] == ["NRG", "B"]
            assert "no network" in snaptx(run, "list")[1]["reason"]
            night(run, 3, days=3)  # the sources are not asked twice in one night
            last = last_update(run, lambda last: last["result"] == "rejected")
            assert last["code"] == 33
            assert "the second" in last["message"]
            state = run.shell(["systemctl", "is-failed", "snaptx-update.service"]).output.strip()
            assert state in ("inactive", "activating")
            assert run.poweroff() is End.POWEROFF
