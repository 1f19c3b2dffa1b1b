"""Machines boot through their own firmware and GRUB, and the driver tells truly how they end."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.vm import product
from tests.vm.conftest import Maker
from tests.vm.machine import Machine
from tests.vm.run import End, MachineError, Run

pytestmark = pytest.mark.vm

TITLE = "Debian GNU/Linux"
PANIC = "echo c > /proc/sysrq-trigger"


def _run_snaptx(run: Run) -> None:
    product.install(run)
    assert run.check(["snaptx", "--version"]).startswith("snaptx ")


def _booted_by_grub(run: Run) -> None:
    line = run.check(["cat", "/proc/cmdline"])
    assert line.startswith("BOOT_IMAGE=/"), "the kernel was not loaded by GRUB"


@pytest.mark.parametrize("layout", ["debian", "ubuntu", "fedora", "opensuse"])
def test_bios(machine_of: Maker, layout: str) -> None:
    with machine_of(layout).boot() as run:
        run.choose(TITLE)
        _booted_by_grub(run)
        _run_snaptx(run)

        assert run.shell(["test", "-e", "/sys/firmware/efi"]).status == 1
        assert run.state() == "running"
        assert run.poweroff() is End.POWEROFF


@pytest.mark.parametrize("layout", ["debian-efi", "fedora-efi"])
def test_uefi(machine_of: Maker, layout: str) -> None:
    with machine_of(layout).boot() as run:
        run.choose(TITLE)
        _booted_by_grub(run)
        _run_snaptx(run)

        assert "debian" in run.check(["efibootmgr"])
        assert run.poweroff() is End.POWEROFF


def test_power_cut(machine_of: Maker) -> None:
    machine = machine_of("debian")
    with machine.boot() as run:
        run.script("echo kept > /root/kept; sync /root/kept; echo lost > /root/lost")
        run.cut()
        assert run.end is End.CUT
        first = run.boot_id
    with machine.boot() as run:
        assert run.check(["cat", "/root/kept"]) == "kept\n"
        assert run.shell(["cat", "/root/lost"]).status == 1
        assert run.boot_id != first
        assert run.reboot() is End.REBOOT


def test_panic(machine_of: Maker) -> None:
    with machine_of("debian").boot() as run:
        run.script(f"echo 5 > /proc/sys/kernel/panic; (sleep 1; {PANIC}) > /dev/null 2>&1 &")
        assert run.wait() is End.PANIC
        assert "sysrq" in run.panic
        assert run.rebooted


def test_advanced_options_are_reached_by_key(machine_of: Maker) -> None:
    with machine_of("debian").boot() as run:
        assert run.menu().entries[0] == TITLE
        run.choose(f"Advanced options for {TITLE}")
        recovery = next(title for title in run.menu().entries if title.endswith("(recovery mode)"))
        run.choose(recovery)
        assert " single" in run.check(["cat", "/proc/cmdline"])


def test_silence_is_a_failure(machine_of: Maker) -> None:
    with machine_of("debian").boot() as run:
        begun = time.monotonic()
        with pytest.raises(MachineError, match="no 'end of: sleep 600' within 3 seconds"):
            run.shell(["sleep", "600"], timeout=3)
        assert time.monotonic() - begun < 400


def test_unknown_entry_is_a_failure(machine_of: Maker) -> None:
    with machine_of("debian").boot() as run, pytest.raises(MachineError, match="the menu has no 'Plan 9'"):
        run.choose("Plan 9")


def test_power_off_while_waiting_is_a_failure(machine_of: Maker) -> None:
    with machine_of("debian").boot() as run:
        run.ready()
        run.serial_shell.send(b"systemctl poweroff --force --force\n")
        with pytest.raises(MachineError, match="it switched itself off before 'never'"):
            run.expect("never")


def test_file_arrives_and_returns(machine_of: Maker, tmp_path: Path) -> None:
    payload = bytes(range(256)) * 40
    tmp_path.joinpath("tree/below").mkdir(parents=True)
    tmp_path.joinpath("tree/below/file").write_bytes(payload)
    with machine_of("debian").boot() as run:
        run.put({"/srv/tree": tmp_path / "tree", "/srv/script": "#!/bin/sh\necho it runs\n"})
        assert run.get("/srv/tree/below/file") == payload
        assert run.check(["/srv/script"]) == "it runs\n"
        run.put({"/srv/script": "#!/bin/sh\necho another\n"})
        assert run.check(["/srv/script"]) == "another\n"


def test_machine_is_made_of_another(machine_of: Maker, tmp_path: Path) -> None:
    first = machine_of("debian")
    with first.boot() as run:
        run.check(["touch", "/root/made-by-the-first"])
        run.poweroff()
    with Machine(first.frozen(), tmp_path / "second") as second, second.boot() as run:
        run.check(["ls", "/root/made-by-the-first"])
