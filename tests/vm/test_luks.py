"""A root inside LUKS: the initramfs that a generation has made for itself opens it, too."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.vm import luks, product
from tests.vm.guests import LONG, root_of, take_over
from tests.vm.machine import Machine
from tests.vm.run import End, Run

pytestmark = pytest.mark.vm

KERNEL_AGAIN = "cp /root/vmlinuz-* /boot; update-initramfs -c -k all"
"""What a kernel's package does when it is installed once more."""


def makes_an_initramfs(run: Run) -> None:
    """Have a generation make one, which has to find out by itself that the root is to be opened."""
    take_over(run)
    run.script("sed -i s/,initramfs$// /etc/crypttab; cp /boot/vmlinuz-* /root")
    said = run.check(["snaptx", "run", "--commit", "--", "sh", "-ec", KERNEL_AGAIN], LONG)
    assert "Generating /boot/initrd.img" in said
    assert "cryptsetup:" not in said  # how its hook begins a complaint
    run.script("! cmp --quiet /boot/snaptx/[12]/*/initrd*")
    assert run.reboot() is End.REBOOT


def test_an_initramfs_made_in_a_generation_opens_the_root(tmp_path: Path) -> None:
    with Machine(luks.made(), tmp_path) as machine:
        product.install_on(machine.disk, luks.LAYOUT)
        with machine.boot() as run:
            makes_an_initramfs(run)
        with machine.boot() as run:
            run.choose(run.menu().entries[0])
            assert run.state(LONG) in ("running", "degraded")
            assert root_of(run) == "@snaptx/generations/2/root"
            assert run.poweroff() is End.POWEROFF
