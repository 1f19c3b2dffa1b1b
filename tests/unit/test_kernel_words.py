"""What the kernel of a generation is told: its own root, and what the administrator has configured."""

from __future__ import annotations

from pathlib import Path

import pytest

from snaptx.bootloader.inroot import GrubInRoot
from snaptx.storage.base import MountSpec, TreeInfo

NAME = "@snaptx/generations/7/root"
INFO = TreeInfo(
    NAME,
    False,
    (),
    MountSpec("/dev/null", "btrfs", f"subvol={NAME}"),
    ("root=UUID=1", f"rootflags=subvol={NAME}"),
    f"/{NAME}",
)


def told(root: Path, configured: str) -> list[str]:
    """Return what follows the place of the root in the entry of one that is configured like that."""
    for name, text in (("boot/vmlinuz-6.1", "kernel"), ("etc/default/grub", configured)):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    entry = GrubInRoot(root / "state/grub", lambda: "uuid").offer(7, "title", root, INFO)
    place, *words = entry.cmdline.split()
    assert place == "root=UUID=1"
    return words


@pytest.mark.parametrize(
    "flags",
    [
        "compress=zstd,subvol=@",
        "subvol=@,compress=zstd",
        "subvolid=256,compress=zstd,subvol=@",
        "compress=zstd",
    ],
)
def test_the_root_is_mounted_with_the_options_configured_but_from_its_own_subvolume(
    tmp_path: Path, flags: str
) -> None:
    """The initramfs believes the last ``rootflags=``, so there is one."""
    words = told(tmp_path, f"GRUB_CMDLINE_LINUX='a rootflags={flags} b'\n")

    assert words == [f"rootflags=subvol={NAME},compress=zstd", "ro", "a", "b"]


def test_of_several_flags_none_is_lost(tmp_path: Path) -> None:
    words = told(
        tmp_path, "GRUB_CMDLINE_LINUX='rootflags=noatime rootflags=subvol=@,ssd rootflags=subvolid=5'\n"
    )

    assert words == [f"rootflags=subvol={NAME},noatime,ssd", "ro"]
