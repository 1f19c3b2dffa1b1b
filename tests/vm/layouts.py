"""How distributions lay out a disk: the machines that tests run on.

All of them are Debian inside.  What differs is what snaptx has to tell apart:
where the root is, what is mounted into it, where /boot is and what starts it.
"""

from __future__ import annotations

from dataclasses import dataclass

from tests.vm.machine import Firmware


@dataclass(frozen=True)
class Layout:
    """One disk.

    ``subvolumes`` are {where it is mounted: its path from the top level}, "/" among them.
    ``by_default``: the file system's default subvolume decides what the root is, and the kernel's
    command line names none.
    """

    name: str
    firmware: Firmware
    subvolumes: tuple[tuple[str, str], ...]
    options: str = "defaults"
    ext4_boot: bool = False
    by_default: bool = False

    @property
    def root(self) -> str:
        """The path of the root's subvolume from the top level."""
        return dict(self.subvolumes)["/"]


_DEBIAN = (("/", "@rootfs"),)
_UBUNTU = (("/", "@"), ("/home", "@home"))
_FEDORA = (("/", "root"), ("/home", "home"))
_OPENSUSE = (
    ("/", "@/.snapshots/1/snapshot"),
    ("/.snapshots", "@/.snapshots"),
    ("/boot/grub", "@/boot/grub"),
    *((f"/{name}", f"@/{name}") for name in ("home", "opt", "root", "srv", "usr/local", "var")),
)

LAYOUTS = {
    layout.name: layout
    for layout in (
        Layout("debian", Firmware.BIOS, _DEBIAN),
        Layout("debian-efi", Firmware.UEFI, _DEBIAN),
        Layout("ubuntu", Firmware.BIOS, _UBUNTU),
        Layout("fedora", Firmware.BIOS, _FEDORA, "compress=zstd:1", ext4_boot=True),
        Layout("fedora-efi", Firmware.UEFI, _FEDORA, "compress=zstd:1", ext4_boot=True),
        Layout("opensuse", Firmware.BIOS, _OPENSUSE, by_default=True),
    )
}
