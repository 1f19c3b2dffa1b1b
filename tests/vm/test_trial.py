"""A generation that does not come up: the last good one runs again, nobody has helped, the reason is told.

On UEFI GRUB counts the tries, on the EFI system partition; on BIOS in an ext4
/boot ("fedora") or, with /boot inside the root, in a partition made for it
("debian-gap").  Where there is none the initramfs counts, made by
initramfs-tools or by dracut ("debian-dracut"), and what dies before it finds
the disk is not covered.

A machine is taken over and generation 2 committed once for each layout.  Each
test damages a copy of that disk while the machine is off, and starts it.
"""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.vm import archive, image, offline, product
from tests.vm.guests import LONG, commit_update, snaptx
from tests.vm.layouts import LAYOUTS
from tests.vm.machine import Image, Machine
from tests.vm.run import End, MachineError, Run

pytestmark = pytest.mark.vm

MOST_BOOTS = 6
MAIN = ("debian-efi", "debian")
COUNTED_BY_GRUB = ("debian-efi", "debian-gap")
NEW = "@snaptx/generations/2/root"
COMMAND_LINE = r"Command line: [^\r\n]*[\r\n]"
RECORDED = r"Finished.*snaptx-boot\."
ENVIRONMENT = b"# GRUB Environment Block\n"
SEAL = "sed -i '/^# sha256/d' $entry; sum=$(sha256sum <$entry); echo \"# sha256 ${sum%% *}\" >>$entry"
"""What follows a change of the entry file, so that snaptx believes it."""


@dataclass(frozen=True)
class Fault:
    """What is done to the disk, and what ``status`` says of generation 2 then.

    ``script`` is for sh: ``$top`` is the top level, ``$root`` generation 2's root, ``$entry`` the entry
    file, ``$esp`` the EFI system partition as mtools call it.
    """

    script: str
    reason: str
    verdict: str = "bad"
    layouts: tuple[str, ...] = MAIN
    read_only: bool = False
    """Whether the sectors of GRUB's environment can't be written."""


TRIES = "did not confirm itself in 2 tries"
LOAD = "could not be loaded"
COUNT = "could not be counted"


def unit(name: str, command: str) -> str:
    """Return the script that runs ``command`` early in generation 2's boot, which waits for its end."""
    text = (
        "[Unit]\\nDefaultDependencies=no\\nBefore=sysinit.target\\n"
        f"[Service]\\nType=oneshot\\nExecStart={command}\\n"
    )
    return (
        f"cd $root/etc/systemd/system; printf '{text}' >{name}.service; mkdir -p sysinit.target.wants;"
        f" ln -s /etc/systemd/system/{name}.service sysinit.target.wants/"
    )


def told(old: str, new: str) -> str:
    """Return the script that changes what the kernel of generation 2 is told."""
    return f'sed -i "/^menuentry .2:/,/^}}/s,{old},{new}," $entry; {SEAL}'


FAULTS = {
    "kernel missing": Fault("rm $root/boot/vmlinuz-*", LOAD),
    "kernel truncated": Fault("truncate --size 1M $root/boot/vmlinuz-*", LOAD),
    "initrd missing": Fault("rm $root/boot/initrd.img-*", LOAD),
    "initrd truncated": Fault("truncate --size 1M $root/boot/initrd.img-*", LOAD),
    "counter missing": Fault("mdel -i $esp ::/EFI/snaptx/snaptx.env", COUNT, "trial", ("debian-efi",)),
    "counter read-only": Fault(":", COUNT, "trial", ("debian-efi",), read_only=True),
    "required check": Fault(
        "mkdir -p $root/etc/snaptx/hooks.d/check; cd $root/etc/snaptx/hooks.d/check;"
        " printf '#!/bin/sh\\necho no network >&2; exit 1\\n' >network; chmod +x network",
        "no network",
    ),
    "required service": Fault(
        f"install -D {product.ROOT}/hooks/check-failed-units $root/etc/snaptx/hooks.d/check/failed-units;"
        " cd $root/etc/systemd/system; mkdir -p multi-user.target.wants;"
        " printf '[Service]\\nType=oneshot\\nExecStart=/bin/false\\n' >web.service;"
        " ln -s ../web.service multi-user.target.wants/",
        "failed units: web.service",
    ),
    "init ends": Fault(
        "printf '#!/bin/sh\\nexit 1\\n' >$root/usr/lib/systemd/systemd",
        TRIES,
        layouts=(*MAIN, "debian-gap", "debian-dracut", "fedora"),
    ),
    "init stands still": Fault(
        "rm -f $root/etc/systemd/system/default.target; cd $root/usr/lib/systemd/system;"
        " rm default.target rescue.target",
        TRIES,
    ),
    "kernel panic": Fault(unit("panic", 'sh -c "echo c >/proc/sysrq-trigger"'), TRIES),
    "root subvolume not found": Fault(
        told("subvol=@snaptx", "subvol=@lost"), TRIES, layouts=(*MAIN, "debian-dracut")
    ),
    "root device not found": Fault(
        told("root=UUID=[0-9a-f]*", "root=UUID=00000000"), TRIES, layouts=COUNTED_BY_GRUB
    ),
    "emergency mode": Fault(
        "echo '/dev/none /none ext4 defaults,x-systemd.device-timeout=5s 0 0' >>$root/etc/fstab", TRIES
    ),
    "hang": Fault(
        unit("hang", "sleep infinity") + "; mkdir snaptx-watchdog.timer.d; printf"
        " '[Timer]\\nOnBootSec=\\nOnBootSec=60s\\n' >snaptx-watchdog.timer.d/soon.conf",
        TRIES,
    ),
}
CASES = [(layout, name) for name, fault in FAULTS.items() for layout in fault.layouts]

IN_THE_GAP = ("sgdisk", "--set-alignment=1", "--new=9:64:95", "--change-name=9:snaptx-counter")
BY_DRACUT = (
    "dracut --quiet --force --no-hostonly --compress 'zstd -1' --force-drivers 'btrfs virtio_pci virtio_blk'"
    ' /boot/initrd.img-* "$(ls /lib/modules)"'
)
DRACUT_MODULE = "/usr/lib/dracut/modules.d/90snaptx/module-setup.sh"

MOMENTS = (
    "Memory: ",
    "Run /init",
    "Journal Service",
    r"Starting.*snaptx-boot\.",
    r"Starting.*snaptx-confi",
)
"""What the console shows when the power is cut: from the kernel's first line to the health checks."""

AT_FAULT = """
for root in $root $top/@rootfs; do
    mv $root/usr/lib/systemd/systemd $root/usr/lib/systemd/systemd.real
    cat >$root/usr/lib/systemd/systemd <<'END'
#!/bin/sh
grep -q snaptx.why=stopped /proc/cmdline || [ -s /run/snaptx/why ] || echo b >/proc/sysrq-trigger
exec /usr/lib/systemd/systemd.real "$@"
END
    chmod +x $root/usr/lib/systemd/systemd
done
"""
"""The machine restarts as soon as the kernel is up, until somebody has looked after it."""


@pytest.fixture(scope="session")
def committed(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> dict[str, Image]:
    """Give machines that boot generation 2 next, each made when its layout is asked for first."""
    own = tmp_path_factory.getbasetemp()
    return _Committed(own if worker_id == "master" else own.parent)


class _Committed(dict[str, Image]):
    """Machines in ``place``, which the workers of a run share."""

    def __init__(self, place: Path) -> None:
        super().__init__()
        self._place = place

    def __missing__(self, layout: str) -> Image:
        name = image_of(layout)
        # Once for all workers, like an image; an absolute name is no place in the cache.
        found = image._made(f"{self._place / layout}", lambda directory: self._make(layout, directory))
        variables = found / "variables.fd"
        self[layout] = Image(
            found / "disk.qcow2",
            LAYOUTS[name].firmware,
            variables if variables.exists() else None,
            "qcow2",
        )
        return self[layout]

    def _make(self, layout: str, directory: Path) -> None:
        """Take a machine over and commit generation 2; the emulated processor has the least of the work."""
        name = image_of(layout)
        with Machine(image.image(name), directory) as machine:
            product.install_on(machine.disk, LAYOUTS[name])
            with offline.opened(machine.disk) as parts, offline.system(parts, LAYOUTS[name]) as root:
                self._make_counter(layout, parts[offline.ROOT].disk, root, directory)
                offline.snaptx(root, "init", "--accept-rollback")
            with machine.boot() as run:
                run.state(LONG)
                snaptx(run, "init")  # GRUB is left
                assert commit_update(run, "two") == 2
                assert run.poweroff() is End.POWEROFF

    def _make_counter(self, layout: str, disk: Path, root: Path, directory: Path) -> None:
        """Do what an administrator does, or a package."""
        match layout:
            case "debian-gap":
                subprocess.run([*IN_THE_GAP, disk], check=True)
            case "debian":
                product.run_in(root, "update-initramfs -u")
            case "debian-dracut":
                product.unpack(root, {DRACUT_MODULE: product.ROOT / "hooks/dracut-module"})
                packages = archive.package(directory / "packages", "dracut-core")
                product.run_in(root, f"rm {product.COUNT}; {BY_DRACUT}", packages)


def image_of(layout: str) -> str:
    """Return the image that a layout here is made of."""
    return layout.removesuffix("-gap").removesuffix("-dracut")


def damage(machine: Machine, script: str, *, read_only: bool = False) -> None:
    """Run a script on the disk of a machine that is off."""
    with offline.opened(machine.disk) as parts:
        system = parts.get(offline.SYSTEM)
        with offline.mounted(parts[offline.ROOT]) as top:
            places = {"top": top, "root": top / NEW, "entry": top / "@snaptx/grub/snaptx.cfg"}
            words = [f"{name}={place}" for name, place in places.items()]
            words += [f"esp={system.mtools}"] if system else []
            subprocess.run(["env", *words, "sh", "-euc", script], check=True)
        if read_only and system:
            machine.unwritable = system.sector_of(ENVIRONMENT)


def records(machine: Machine, layout: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the status and the last audit record, as the machine's last run has left them."""
    with (
        offline.opened(machine.disk) as parts,
        offline.system(parts, LAYOUTS[image_of(layout)]) as root,
    ):
        return offline.snaptx(root, "status"), offline.snaptx(root, "log")[-1]


def came_back(machine: Machine) -> None:
    """Boot until a generation runs that is not the new one, and is on record; nobody touches a key."""
    for _ in range(MOST_BOOTS):
        with machine.boot() as run:
            if NEW not in run.expect(COMMAND_LINE, LONG):
                run.expect(RECORDED, LONG)
                return
            run.wait(LONG)
    raise AssertionError("the last good generation did not come back")


@pytest.mark.parametrize(("layout", "name"), CASES)
def test_the_last_good_one_comes_back(
    committed: dict[str, Image], layout: str, name: str, tmp_path: Path
) -> None:
    fault = FAULTS[name]
    with Machine(committed[layout], tmp_path) as machine:
        damage(machine, fault.script, read_only=fault.read_only)
        came_back(machine)
        status, last = records(machine, layout)
        assert (status["default"], status["failed"]) == (1, 2)
        assert fault.reason in status["reason"]
        assert fault.reason in last["reason"]
        assert (last["generation"], last["verdict"]) == (2, fault.verdict)


@pytest.mark.parametrize("layout", MAIN)
def test_a_power_cut_is_no_failure(committed: dict[str, Image], layout: str, tmp_path: Path) -> None:
    with Machine(committed[layout], tmp_path) as machine:
        tries = len(MOMENTS) + 1
        tries_of_both = f"s/tries='2'/tries='{tries}'/; s/tries.: 2/tries\\\": {tries}/"
        damage(machine, f'sed -i "{tries_of_both}" $entry; {SEAL}')
        for moment in MOMENTS:
            with machine.boot() as run:
                assert NEW in run.expect(COMMAND_LINE, LONG)
                print("power cut at:", run.expect(moment, LONG))
                run.cut()
        with machine.boot() as run:
            assert NEW in run.expect(COMMAND_LINE, LONG)
            run.expect(r"Finished.*snaptx-confirm\.", LONG)
        status, last = records(machine, layout)
        assert (status["default"], status["verdict"], status["failed"]) == (2, "good", 0)
        assert (last["generation"], last["verdict"]) == (2, "good")


@pytest.mark.parametrize("layout", [*MAIN, "debian-gap"])
def test_a_machine_that_is_at_fault_stops(committed: dict[str, Image], layout: str, tmp_path: Path) -> None:
    with Machine(committed[layout], tmp_path) as machine:
        damage(machine, AT_FAULT)
        for _ in range(4 if layout in COUNTED_BY_GRUB else 5):
            with machine.boot() as run:
                assert run.wait(LONG) is End.REBOOT
        with machine.boot() as run:
            run.expect("STOPPED", LONG)
            with pytest.raises(MachineError):
                run.expect("Command line|systemd", timeout=20)
            somebody_tries_again(run, layout)
            run.expect(RECORDED, LONG)
        status, last = records(machine, layout)
        assert (status["default"], status["failed"]) == (1, 2)
        assert "neither" in status["reason"]
        assert (last["generation"], last["verdict"]) == (2, "trial")


def somebody_tries_again(run: Run, layout: str) -> None:
    """Do what the message asks for."""
    if layout in COUNTED_BY_GRUB:
        run.choose(next(title for title in run.menu().entries if title.startswith("1:")))
    else:
        run.console.send(b"\r")
