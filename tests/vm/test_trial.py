"""A generation that does not come up: the last good one runs again, nobody has helped, the reason is told.

On UEFI GRUB counts the tries, on the EFI system partition.  On BIOS, with /boot
inside the root, the initramfs does; what dies before it runs is not covered
there.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.vm import image
from tests.vm.guests import LONG, adopt, commit_update, root_of, snaptx
from tests.vm.machine import Image, Machine
from tests.vm.run import End, Run

pytestmark = pytest.mark.vm

MOST_BOOTS = 6


@dataclass(frozen=True)
class Fault:
    """What is done to generation 2, in ``$root``, after it was committed; what ``status`` says of it."""

    script: str
    reason: str
    verdict: str = "bad"


TRIES = "did not confirm itself in 2 tries"
LOAD = "could not be loaded"
UNIT = """[Unit]
DefaultDependencies=no
Before=sysinit.target
[Service]
Type=oneshot
ExecStart=sleep infinity
[Install]
WantedBy=sysinit.target
"""

LATE_FAULTS = {
    "init ends": Fault("printf '#!/bin/sh\\nexit 1\\n' >$root/usr/lib/systemd/systemd", TRIES),
    "emergency mode": Fault(
        "echo '/dev/none /none ext4 defaults,x-systemd.device-timeout=5s 0 0' >>$root/etc/fstab", TRIES
    ),
    "required check": Fault(
        "mkdir -p $root/etc/snaptx/hooks.d/check; cd $root/etc/snaptx/hooks.d/check;"
        " printf '#!/bin/sh\\necho no network >&2; exit 1\\n' >network; chmod +x network",
        "no network",
    ),
    "hang": Fault(
        f"printf '{UNIT}' >$root/etc/systemd/system/hang.service;"
        " mkdir -p $root/etc/systemd/system/sysinit.target.wants"
        " $root/etc/systemd/system/snaptx-watchdog.timer.d;"
        " ln -s /etc/systemd/system/hang.service $root/etc/systemd/system/sysinit.target.wants/;"
        " printf '[Timer]\\nOnBootSec=\\nOnBootSec=90s\\n'"
        " >$root/etc/systemd/system/snaptx-watchdog.timer.d/soon.conf",
        TRIES,
    ),
    "kernel missing": Fault("rm $root/boot/vmlinuz-*", LOAD),
    "kernel truncated": Fault("truncate --size 1M $root/boot/vmlinuz-*", LOAD),
    "initrd missing": Fault("rm $root/boot/initrd.img-*", LOAD),
}
EARLY_FAULTS = {
    "initrd truncated": Fault("truncate --size 1M $root/boot/initrd.img-*", TRIES),
    "no counter": Fault("rm /boot/efi/EFI/snaptx/snaptx.env", "could not be counted", "trial"),
}
CASES = [("debian", name) for name in LATE_FAULTS] + [
    ("debian-efi", name) for name in {**LATE_FAULTS, **EARLY_FAULTS}
]


@pytest.fixture(scope="module")
def adopted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Image]:
    """Give machines of two layouts that snaptx manages, each made when it is asked for first."""
    return _Adopted(tmp_path_factory)


class _Adopted(dict[str, Image]):
    def __init__(self, factory: pytest.TempPathFactory) -> None:
        super().__init__()
        self._factory = factory

    def __missing__(self, layout: str) -> Image:
        with Machine(image.image(layout), self._factory.mktemp(layout)) as machine:
            with machine.boot() as run:
                adopt(run)
                if layout == "debian":
                    run.check(["update-initramfs", "-u"], LONG)
                assert run.poweroff() is End.POWEROFF
            self[layout] = machine.frozen()
        return self[layout]


def commit_and_break(run: Run, fault: Fault) -> None:
    """Commit generation 2, then break it behind snaptx's back, and restart."""
    run.state(LONG)
    assert commit_update(run, "two") == 2
    run.script(
        "mkdir -p /run/top; mount -o subvolid=5 $(findmnt -no SOURCE / | sed 's/\\[.*//') /run/top;"
        f" root=/run/top/@snaptx/generations/2/root; {fault.script}; cd /; sync; umount /run/top"
    )
    assert run.reboot() is End.REBOOT


def came_back(machine: Machine, generation: int) -> Run:
    """Boot until a generation runs that is not the broken one; nobody touches a key."""
    for _ in range(MOST_BOOTS):
        run = machine.boot()
        try:
            run.ready()
        except AssertionError:
            run.wait(LONG)
            run.close()
            continue
        if root_of(run) != f"@snaptx/generations/{generation}/root":
            return run
        run.wait(LONG)
        run.close()
    raise AssertionError("the last good generation did not come back")


@pytest.mark.parametrize(("layout", "name"), CASES)
def test_the_last_good_one_comes_back(
    adopted: dict[str, Image], layout: str, name: str, tmp_path: Path
) -> None:
    fault = {**LATE_FAULTS, **EARLY_FAULTS}[name]
    with Machine(adopted[layout], tmp_path) as machine:
        with machine.boot() as run:
            commit_and_break(run, fault)
        with came_back(machine, 2) as run:
            run.state(LONG)
            status = snaptx(run, "status")
            assert (status["booted"], status["default"], status["failed"]) == (1, 1, 2)
            assert fault.reason in status["reason"]
            assert fault.reason in str(snaptx(run, "log"))
            assert [row["verdict"] for row in snaptx(run, "list")] == ["good", fault.verdict]
            assert run.poweroff() is End.POWEROFF
