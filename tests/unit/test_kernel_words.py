"""What the kernel of a generation is told: its own root, and what the administrator has configured."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from snaptx.bootloader import entryfile
from snaptx.bootloader.inroot import GrubInRoot
from snaptx.model import BootEntry, BootState
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


def entry_of(root: Path, configured: str) -> BootEntry:
    """Return the entry of a root with such an /etc/default/grub."""
    for name, text in (("boot/vmlinuz-6.1", "kernel"), ("etc/default/grub", configured)):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return GrubInRoot(root / "state/grub", lambda: "uuid").offer(7, "title", root, INFO)


def told(root: Path, configured: str) -> list[str]:
    """Return what its kernel is told besides the file system of the root."""
    place, *words = shlex.split(entry_of(root, configured).cmdline)
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


@pytest.mark.parametrize(
    ("configured", "word"),
    [
        (r'"acpi_osi=\"!Windows 2012\""', "acpi_osi=!Windows 2012"),
        ("\"dyndbg='file usb.c +p'\"", "dyndbg=file usb.c +p"),
        (r'"memmap=64M\\\$1G"', "memmap=64M$1G"),
        (r"'memmap=64M\$1G'", "memmap=64M$1G"),
        (r"""'a="64M\$1G \\ b"'""", r"a=64M$1G \ b"),
        ("'it`s'", "it`s"),
        ("'it\"s'", 'it"s'),
        ("'a(b);c'", "a(b);c"),
    ],
)
def test_a_word_is_what_grub_makes_of_it(tmp_path: Path, configured: str, word: str) -> None:
    """grub-mkconfig writes it into a script as it is; GRUB quotes what has blanks for the kernel."""
    assert told(tmp_path, f"GRUB_CMDLINE_LINUX={configured}\n")[2:] == [word]


def test_what_grub_does_not_know_is_nothing(tmp_path: Path) -> None:
    assert told(tmp_path, "GRUB_CMDLINE_LINUX='a $vt_handoff b'\n")[2:] == ["a", "b"]


def test_words_with_blanks_reach_the_script_of_grub_whole(tmp_path: Path) -> None:
    entry = entry_of(tmp_path, "GRUB_CMDLINE_LINUX='dyndbg=\"file a.c +p\"'\n")
    text = entryfile.render(BootState(7, 7, "nonce", 2, False, (entry,)), "uuid")

    assert " 'ro' 'dyndbg=file a.c +p'\n" in text
