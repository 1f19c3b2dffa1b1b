"""snaptx as a package would install it in a guest: where each part of the checkout goes."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path

from tests.vm import offline, parcel
from tests.vm.layouts import Layout
from tests.vm.parcel import Content
from tests.vm.run import Run

ROOT = Path(__file__).parents[2]
COMMAND = """#!/usr/bin/python3
import sys
from snaptx.cli.main import main
sys.exit(main())
"""
PLACE = "/usr/lib/python3/dist-packages/snaptx"
COMPILING = 600.0
"""Seconds."""

# On a host that has other things to do, a disk of an emulated machine may need minutes to appear.
PATIENCE: dict[str, Content] = {
    "/etc/systemd/system.conf.d/patience.conf": (
        "[Manager]\nDefaultDeviceTimeoutSec=15min\nDefaultTimeoutStartSec=15min\n"
    )
}

COUNT = "/usr/share/initramfs-tools/scripts/local-premount/snaptx"
UNITS = "/usr/lib/systemd/system"
ENABLED = ("snaptx-boot.service", "snaptx-confirm.service", "snaptx-give-up.service", "snaptx-watchdog.timer")


def files() -> dict[str, Content]:
    """Return {path in the guest: what is there}."""
    hooks = {path.name: path for path in sorted((ROOT / "hooks").iterdir())}
    units = {f"{UNITS}/{name}": path for name, path in hooks.items() if name.endswith((".service", ".timer"))}
    return {
        PLACE: ROOT / "snaptx",
        "/usr/bin/snaptx": COMMAND,
        "/usr/share/snaptx/grub/grub.cfg": ROOT / "grub/grub.cfg",
        "/usr/lib/snaptx/initramfs-count.sh": hooks["initramfs-count.sh"],
        COUNT: hooks["initramfs-count.sh"],
        **units,
    }


def install(run: Run) -> None:
    """Install snaptx in a running guest, and enable its units."""
    run.put(files())
    # As a package does: every start of an emulated Python counts.
    run.check(["python3", "-m", "compileall", "-q", PLACE], COMPILING)
    run.check(["systemctl", "daemon-reload"])
    run.check(["systemctl", "enable", *ENABLED])


def install_on(disk: Path, layout: Layout) -> None:
    """Do the same on the qcow2 ``disk`` of a machine that is off: the host's processor is not emulated."""
    with offline.opened(disk) as parts, offline.system(parts, layout) as root:
        lay_into(root)
        unpack(root, PATIENCE)
        _chroot(root, "systemctl", "--quiet", "enable", *ENABLED)


def lay_into(root: Path) -> None:
    """Install snaptx in a mounted root; nothing of it is enabled."""
    unpack(root, files())
    _chroot(root, "python3", "-m", "compileall", "-q", PLACE)


def _chroot(root: Path, *command: str) -> None:
    subprocess.run(["chroot", f"{root}", *command], stdin=subprocess.DEVNULL, check=True)


def unpack(root: Path, content: Mapping[str, Content]) -> None:
    """Write files into a mounted root."""
    command = ["tar", "--extract", "--directory", f"{root}", "--no-overwrite-dir"]
    subprocess.run(command, input=parcel.packed(content), check=True)


def run_in(root: Path, script: str = ":", packages: Iterable[Path] = ()) -> None:
    """Run a script of sh in a mounted root that has /proc, with ``packages`` (of dpkg) installed before."""
    debs = {f"/root/packages/{package.name}": package for package in packages}
    if debs:
        unpack(root, debs)
        script = f"dpkg --install /root/packages/*.deb; rm -r /root/packages; {script}"
    command = ["unshare", "--mount", "chroot", f"{root}", "sh", "-euc", f"mount -t proc proc /proc; {script}"]
    subprocess.run(command, stdin=subprocess.DEVNULL, check=True)
