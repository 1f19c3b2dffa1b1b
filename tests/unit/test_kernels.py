"""Which kernel a root boots, and with which words."""

from __future__ import annotations

from pathlib import Path

import pytest

from snaptx.bootloader import kernels
from snaptx.errors import BootError


def boot(tmp_path: Path, *names: str) -> Path:
    """Make a boot directory with empty files."""
    for name in names:
        (tmp_path / name).touch()
    return tmp_path


def test_the_newest_is_found_as_people_count(tmp_path: Path) -> None:
    place = boot(tmp_path, "vmlinuz-6.9.0-1-amd64", "vmlinuz-6.10.0-1-amd64", "vmlinuz-6.10.0~rc1-1-amd64")

    assert kernels.newest(place).version == "6.10.0-1-amd64"


@pytest.mark.parametrize(
    "initrd",
    ["initrd.img-6.1-x", "initramfs-6.1-x.img", "initrd-6.1-x"],
    ids=["debian", "fedora", "opensuse"],
)
def test_its_initrd_is_found_under_the_distributions_name(tmp_path: Path, initrd: str) -> None:
    assert kernels.newest(boot(tmp_path, "vmlinuz-6.1-x", initrd, "initrd.img-6.0-x")).initrd == initrd


def test_arch_names_kernels_without_a_version(tmp_path: Path) -> None:
    found = kernels.newest(
        boot(tmp_path, "vmlinuz-linux", "initramfs-linux.img", "initramfs-linux-fallback.img")
    )

    assert (found.image, found.initrd) == ("vmlinuz-linux", "initramfs-linux.img")


def test_backups_are_no_kernels(tmp_path: Path) -> None:
    assert kernels.newest(boot(tmp_path, "vmlinuz-6.1", "vmlinuz-6.2.old")).version == "6.1"


def test_no_kernel_is_an_error_with_a_hint(tmp_path: Path) -> None:
    with pytest.raises(BootError) as caught:
        kernels.newest(tmp_path)
    assert caught.value.hint


def test_the_command_line_comes_from_default_grub(tmp_path: Path) -> None:
    place = tmp_path / "etc/default/grub"
    place.parent.mkdir(parents=True)
    place.write_text(
        "GRUB_CMDLINE_LINUX=\"console=ttyS0 root=/dev/sda1\"\nGRUB_CMDLINE_LINUX_DEFAULT='quiet  splash'\n"
    )

    assert kernels.command_line(tmp_path) == ["console=ttyS0", "quiet", "splash"]


def test_fragments_add_to_the_command_line(tmp_path: Path) -> None:
    place = tmp_path / "etc/default/grub.d"
    place.mkdir(parents=True)
    (tmp_path / "etc/default/grub").write_text("GRUB_CMDLINE_LINUX=console=ttyS0\n")
    (place / "20-more.cfg").write_text('GRUB_CMDLINE_LINUX="$GRUB_CMDLINE_LINUX net.ifnames=0"\n')
    (place / "10-one.cfg").write_text('GRUB_CMDLINE_LINUX="${GRUB_CMDLINE_LINUX} mce=off"\n')
    (place / "30-none.cfg.dpkg-old").write_text("GRUB_CMDLINE_LINUX=single\n")

    assert kernels.command_line(tmp_path) == ["console=ttyS0", "mce=off", "net.ifnames=0"]


def test_an_empty_command_line_stays_so(tmp_path: Path) -> None:
    assert kernels.command_line(tmp_path) == ["quiet"]

    place = tmp_path / "etc/default/grub"
    place.parent.mkdir(parents=True)
    place.write_text('GRUB_CMDLINE_LINUX=""\n')

    assert kernels.command_line(tmp_path) == []


def test_what_a_shell_would_run_is_not_on_the_command_line(tmp_path: Path) -> None:
    place = tmp_path / "etc/default/grub"
    place.parent.mkdir(parents=True)
    place.write_text('GRUB_CMDLINE_LINUX="console=$(tty)"\nGRUB_CMDLINE_LINUX_DEFAULT=quiet\n')

    assert kernels.command_line(tmp_path) == ["quiet"]


def test_a_kernel_cmdline_file_comes_first(tmp_path: Path) -> None:
    place = tmp_path / "etc/kernel/cmdline"
    place.parent.mkdir(parents=True)
    place.write_text("root=UUID=x rootflags=subvol=@ rootflags=noatime mitigations=off\n")

    assert kernels.command_line(tmp_path) == ["rootflags=noatime", "mitigations=off"]


def test_a_link_out_of_the_root_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret\n")
    root = tmp_path / "root"
    (root / "etc").mkdir(parents=True)
    (root / "etc/kernel").symlink_to(tmp_path)
    (tmp_path / "cmdline").write_text("secret\n")

    assert "secret" not in kernels.command_line(root)
