"""snaptx as a package would install it in a guest: where each part of the checkout goes."""

from __future__ import annotations

from pathlib import Path

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
        "/usr/share/initramfs-tools/scripts/local-premount/snaptx": hooks["initramfs-count.sh"],
        **units,
    }


def install(run: Run) -> None:
    """Install snaptx in a running guest, and enable its units."""
    run.put(files())
    # As a package does: every start of an emulated Python counts.
    run.check(["python3", "-m", "compileall", "-q", PLACE], COMPILING)
    run.check(["systemctl", "daemon-reload"])
    run.check(["systemctl", "enable", *ENABLED])
