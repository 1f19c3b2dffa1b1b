"""Look for swap files in the root: the kernel swaps to none that shares its blocks with a snapshot."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path

from snaptx import fstab, system
from snaptx.errors import LayoutError
from snaptx.machine import Machine
from snaptx.sharing import residents


def require_none(machine: Machine) -> None:
    """Refuse a root with a swap file in it, in use or in fstab: after one snapshot it is useless for good.

    Raises:
        LayoutError: there is one; all of them are in the message.
    """
    found = sorted({*_in_use(machine.sysroot), *_awaited(machine.sysroot)})
    if found:
        message = f"the root has a swap file inside, useless once it is in a snapshot: {', '.join(found)}"
        hint = "'swapoff' it, and make one anew in a subvolume that fstab mounts from beside the root"
        raise LayoutError(message, hint=hint)


def _in_use(sysroot: Path) -> Iterator[str]:
    """Yield the paths from the system root of what the kernel swaps to in its subvolume."""
    try:
        lines = os.fsdecode(Path("/proc/swaps").read_bytes()).split("\n")[1:]
    except OSError:
        return  # a kernel without swapping
    device = sysroot.stat().st_dev
    for line in filter(None, lines):
        path = re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), line.split()[0])
        try:
            known = os.stat(path)
        except OSError:
            continue  # seen from here it has another name, or none
        if stat.S_ISREG(known.st_mode) and known.st_dev == device:
            yield residents.below(sysroot, path)


def _awaited(sysroot: Path) -> Iterator[str]:
    """Yield the files in the subvolume of the root that its fstab names for swapping."""
    device = sysroot.stat().st_dev
    for entry in fstab.entries(fstab.read(sysroot)):
        if entry.fstype == "swap" and entry.source.startswith("/"):
            known = system.stat_in_root(sysroot, entry.source.strip("/"))
            if known and stat.S_ISREG(known.st_mode) and known.st_dev == device:
                yield entry.source
