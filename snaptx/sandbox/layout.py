"""How distributions lay out a Btrfs root, as data: one row of a table each.

::

    DIR/
        sandbox.json   layout and format; only a directory that has it is ever destroyed
        disk.img       Btrfs, sparse
        boot.img       ext4, sparse, only where the layout has a separate /boot
        top/           the top level (subvolid 5)
        root/          the booted root, with /home and /boot mounted as its fstab says
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from snaptx.errors import UsageError

LARGEST = (1 << 63) - 1
"""Bytes; the most that off_t can say."""

TOP_LEVEL = "subvolid=5"
"""The mount option for the top level (btrfs(5))."""


class Layout(StrEnum):
    """The ways distributions lay out a Btrfs root."""

    DEBIAN = "debian"
    UBUNTU = "ubuntu"
    FEDORA = "fedora"
    OPENSUSE = "opensuse"
    FLAT = "flat"


@dataclass(frozen=True, slots=True)
class Plan:
    """What one layout is made of.

    ``root`` is the root's subvolume, "" for the top level itself; ``parents``
    are made before it.  ``home`` is the subvolume of /home, "" for none.
    ``by_default`` mounts the root through the default subvolume.
    """

    root: str
    parents: tuple[str, ...] = ()
    home: str = ""
    boot: bool = False
    by_default: bool = False

    @property
    def options(self) -> str:
        """Return the mount options of the root, as fstab has them."""
        if self.by_default:
            return ""
        return f"subvol={self.root}" if self.root else TOP_LEVEL


PLANS = {
    Layout.DEBIAN: Plan("@rootfs"),
    Layout.UBUNTU: Plan("@", home="@home"),
    Layout.FEDORA: Plan("root", home="home", boot=True),
    Layout.OPENSUSE: Plan("@/.snapshots/1/snapshot", parents=("@", "@/.snapshots"), by_default=True),
    Layout.FLAT: Plan(""),
}


@dataclass(frozen=True, slots=True)
class Sandbox:
    """One sandbox: its directory, its layout and the UUIDs of its filesystems."""

    directory: Path
    layout: Layout
    disk_uuid: str
    boot_uuid: str

    @property
    def plan(self) -> Plan:
        """Return what its layout is made of."""
        return PLANS[self.layout]

    @property
    def disk(self) -> Path:
        """Return the Btrfs image."""
        return self.directory / "disk.img"

    @property
    def boot_image(self) -> Path:
        """Return the ext4 image of /boot."""
        return self.directory / "boot.img"

    @property
    def top(self) -> Path:
        """Return where the top level is mounted."""
        return self.directory / "top"

    @property
    def root(self) -> Path:
        """Return where the booted root is mounted."""
        return self.directory / "root"


def parse_size(text: str) -> int:
    """Return the bytes of ``4G``, ``512M``, ``512MiB`` or a plain number; units are powers of 1024.

    Raises:
        UsageError: it is none of these, or more than a file can have.
    """
    match = re.fullmatch(r"([0-9]+)(?:([KMGT])(?:i?B)?)?", text.strip(), re.IGNORECASE | re.ASCII)
    if match is None:
        raise UsageError(f"{text!r} is not a size", hint="a number with K, M, G or T after it: 4G, 512M")
    power = "KMGT".index(match[2].upper()) + 1 if match[2] else 0
    digits = match[1].lstrip("0")[: len(str(LARGEST)) + 1]  # more of them are too many in any case
    size = int(digits or "0") << (10 * power)
    if size > LARGEST:
        raise UsageError(f"{text!r} is more than a file can have", hint="the default is 4G")
    return size


def fstab(box: Sandbox) -> str:
    """Return the root's /etc/fstab, as the distribution would write it."""
    disk = f"UUID={box.disk_uuid}"
    options = ",".join(filter(None, ("defaults", box.plan.options if box.plan.root else "")))
    lines = [f"{disk} / btrfs {options} 0 0"]
    if box.plan.home:
        lines.append(f"{disk} /home btrfs defaults,subvol={box.plan.home} 0 0")
    if box.plan.boot:
        lines.append(f"UUID={box.boot_uuid} /boot ext4 defaults 1 2")
    return "".join(f"{line}\n" for line in lines)
