"""Which kernel a root boots, and with which words."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from snaptx.bootloader import kernels
from snaptx.bootloader.kernels import Kernel
from snaptx.errors import BootError


def boot(tmp_path: Path, *names: str) -> Path:
    """Make a boot directory with empty files."""
    for name in names:
        (tmp_path / name).touch()
    return tmp_path


def newest(place: Path) -> Kernel:
    """Return the newest kernel in a boot directory."""
    return kernels.find(place)[0]


def test_the_newest_is_found_as_people_count(tmp_path: Path) -> None:
    place = boot(tmp_path, "vmlinuz-6.9.0-1-amd64", "vmlinuz-6.10.0-1-amd64", "vmlinuz-6.10.0~rc1-1-amd64")

    assert newest(place).version == "6.10.0-1-amd64"


@pytest.mark.parametrize(
    "initrd",
    ["initrd.img-6.1-x", "initramfs-6.1-x.img", "initrd-6.1-x", "initramfs-6.1-x", "initrd-6.1-x.gz"],
    ids=["debian", "fedora", "opensuse", "alpine", "slackware"],
)
def test_its_initrd_is_found_under_the_distributions_name(tmp_path: Path, initrd: str) -> None:
    assert newest(boot(tmp_path, "vmlinuz-6.1-x", initrd, "initrd.img-6.0-x")).initrd == tmp_path / initrd


def test_arch_names_kernels_without_a_version(tmp_path: Path) -> None:
    found = newest(boot(tmp_path, "vmlinuz-linux", "initramfs-linux.img", "initramfs-linux-fallback.img"))

    assert (found.image, found.initrd) == (tmp_path / "vmlinuz-linux", tmp_path / "initramfs-linux.img")


@pytest.mark.parametrize(
    ("kernel", "initrd"),
    [
        ("vmlinuz-lts", "initramfs-lts"),
        ("vmlinuz-linux", "booster-linux.img"),
        ("kernel-genkernel-x86_64-6.1", "initramfs-genkernel-x86_64-6.1"),
    ],
)
def test_other_makers_of_an_initrd_are_known(tmp_path: Path, kernel: str, initrd: str) -> None:
    assert newest(boot(tmp_path, kernel, initrd, "initramfs-virt", "booster.img")).initrd == tmp_path / initrd


def test_microcode_of_its_own_comes_along_in_grubs_order(tmp_path: Path) -> None:
    names = ("amd-ucode.img", "initramfs-linux.img", "intel-ucode.img", "other-ucode.img", "vmlinuz-linux")
    found = newest(boot(tmp_path, *names))

    assert [path.name for path in found.early] == ["intel-ucode.img", "amd-ucode.img"]
    assert [path.name for path in found.files] == ["vmlinuz-linux", *names[2::-2], "initramfs-linux.img"]


def test_the_administrator_names_other_early_images(tmp_path: Path) -> None:
    (tmp_path / "etc/default").mkdir(parents=True)
    (tmp_path / "boot").mkdir()
    (tmp_path / "etc/default/grub").write_text("GRUB_EARLY_INITRD_LINUX_CUSTOM='acpi.img ../x none.img'\n")
    boot(tmp_path / "boot", "vmlinuz-linux", "initramfs-linux.img", "acpi.img", "amd-ucode.img")
    (tmp_path / "x").touch()

    assert [path.name for path in kernels.choose(tmp_path).early] == ["amd-ucode.img", "acpi.img"]


def test_newer_microcode_in_the_roots_own_boot_counts(tmp_path: Path) -> None:
    for place in ("apart", "root/boot"):
        (tmp_path / place).mkdir(parents=True)
    boot(tmp_path / "apart", "vmlinuz-linux", "initramfs-linux.img", "amd-ucode.img", "intel-ucode.img")
    boot(tmp_path / "root/boot", "amd-ucode.img", "intel-ucode.img")
    for name, time in (("apart/amd-ucode.img", 1000), ("apart/intel-ucode.img", 9000)):
        os.utime(tmp_path / name, (time, time))
    for name in ("amd-ucode.img", "intel-ucode.img"):
        os.utime(tmp_path / "root/boot" / name, (5000, 5000))
    found = kernels.choose(tmp_path / "root", tmp_path / "apart")

    assert found.early == (tmp_path / "apart/intel-ucode.img", tmp_path / "root/boot/amd-ucode.img")


def test_backups_are_no_kernels(tmp_path: Path) -> None:
    assert newest(boot(tmp_path, "vmlinuz-6.1", "vmlinuz-6.2.old")).version == "6.1"


def test_no_kernel_is_an_error_with_a_hint(tmp_path: Path) -> None:
    with pytest.raises(BootError) as caught:
        kernels.choose(tmp_path)
    assert caught.value.hint


def test_modules_decide_which_kernel_a_root_boots(tmp_path: Path) -> None:
    (tmp_path / "apart").mkdir()
    place = boot(tmp_path / "apart", "vmlinuz-6.10", "vmlinuz-6.9")
    (tmp_path / "usr/lib/modules/6.9").mkdir(parents=True)

    assert kernels.choose(tmp_path, place).version == "6.9"


def test_a_roots_own_kernel_comes_before_others_of_its_version(tmp_path: Path) -> None:
    for name in ("boot", "apart"):
        (tmp_path / name).mkdir()
        boot(tmp_path / name, "vmlinuz-6.9")
    (tmp_path / "usr/lib/modules/6.9").mkdir(parents=True)

    assert kernels.choose(tmp_path, tmp_path / "apart").image.parent == tmp_path / "boot"


def test_without_modules_the_roots_own_kernel_is_taken(tmp_path: Path) -> None:
    for name, version in (("boot", "6.9"), ("apart", "6.10")):
        (tmp_path / name).mkdir()
        boot(tmp_path / name, f"vmlinuz-{version}")

    assert kernels.choose(tmp_path, tmp_path / "apart").version == "6.9"


@pytest.mark.parametrize(("age", "where"), [(60, "apart"), (-60, "boot"), (-1, "apart")])
def test_an_initrd_made_anew_without_its_kernel_is_taken(tmp_path: Path, age: int, where: str) -> None:
    """Seconds: a file seems a second older or younger than its copy on a FAT filesystem."""
    for name, files in (("boot", ["initramfs-6.9.img"]), ("apart", ["vmlinuz-6.9", "initramfs-6.9.img"])):
        (tmp_path / name).mkdir()
        boot(tmp_path / name, *files)
    times = 1_000_000_000, 1_000_000_000
    os.utime(tmp_path / "boot/initramfs-6.9.img", times)
    os.utime(tmp_path / "apart/initramfs-6.9.img", (times[0], times[1] + age))

    kernel = kernels.choose(tmp_path, tmp_path / "apart")

    assert kernel.image == tmp_path / "apart/vmlinuz-6.9"
    assert kernel.initrd == tmp_path / where / "initramfs-6.9.img"


def test_an_initrd_of_another_kernel_is_not_taken(tmp_path: Path) -> None:
    for name, file in (("boot", "initramfs-6.10.img"), ("apart", "vmlinuz-6.9")):
        (tmp_path / name).mkdir()
        boot(tmp_path / name, file)

    assert kernels.choose(tmp_path, tmp_path / "apart").initrd is None


def test_the_command_line_comes_from_default_grub(tmp_path: Path) -> None:
    place = tmp_path / "etc/default/grub"
    place.parent.mkdir(parents=True)
    place.write_text(
        "GRUB_CMDLINE_LINUX=\"console=ttyS0 root=/dev/sda1\"\nGRUB_CMDLINE_LINUX_DEFAULT='quiet  splash'\n"
    )

    assert kernels.command_line(tmp_path) == ["console=ttyS0", "quiet", "splash"]


@pytest.mark.parametrize("opening", ["cryptdevice=UUID=x:root", "rd.luks.uuid=luks-x", "rd.luks.name=x=root"])
def test_what_opens_an_encrypted_root_is_on_the_command_line(tmp_path: Path, opening: str) -> None:
    place = tmp_path / "etc/default/grub"
    place.parent.mkdir(parents=True)
    place.write_text(f'GRUB_CMDLINE_LINUX="{opening} root=/dev/mapper/root"\n')

    assert kernels.command_line(tmp_path) == [opening]


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


def test_a_kernel_without_its_initrd_gives_way_to_one_that_has_it(tmp_path: Path) -> None:
    """An upgrade that is cut off between the two leaves it so, and root=UUID= is for an initrd to find."""
    (tmp_path / "boot").mkdir()
    boot(tmp_path / "boot", "vmlinuz-6.10", "vmlinuz-6.9", "initrd.img-6.9")
    for version in ("6.9", "6.10"):
        (tmp_path / "usr/lib/modules" / version).mkdir(parents=True)

    assert kernels.choose(tmp_path).version == "6.9"


def test_where_no_kernel_has_an_initrd_the_newest_is_taken(tmp_path: Path) -> None:
    (tmp_path / "boot").mkdir()

    assert kernels.choose(boot(tmp_path / "boot", "vmlinuz-6.9", "vmlinuz-6.10").parent).version == "6.10"


@pytest.mark.parametrize(
    "names", [("6.10.0-rc7", "6.10.0"), ("6.10.0~rc7", "6.10.0"), ("6.10.0", "6.10.0-1")]
)
def test_a_release_candidate_is_older_than_its_release(tmp_path: Path, names: tuple[str, str]) -> None:
    older, newer = names

    assert newest(boot(tmp_path, f"vmlinuz-{older}", f"vmlinuz-{newer}")).version == newer


def image(path: Path, release: str) -> None:
    """Make what begins like a kernel for x86 (Documentation/arch/x86/boot.rst, kernel_version)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    header = bytes(0x202) + b"HdrS" + bytes(8) + (0x300).to_bytes(2, "little")
    path.write_bytes(header.ljust(0x500, b"\0") + f"{release} (linux@archlinux) #1 SMP\0".encode())


def test_a_kernel_named_without_a_version_says_itself_which_modules_it_needs(tmp_path: Path) -> None:
    """Arch puts each kernel in the place of the one before, also in a /boot that all generations see."""
    image(tmp_path / "apart/vmlinuz-linux", "6.11.2-arch1-1")
    image(tmp_path / "copy/vmlinuz-linux", "6.10.1-arch1-1")
    (tmp_path / "usr/lib/modules/6.10.1-arch1-1").mkdir(parents=True)

    assert kernels.choose(tmp_path, tmp_path / "apart", tmp_path / "copy").image.parent.name == "copy"


@pytest.mark.parametrize("content", [b"", b"HdrS", bytes(0x202) + b"HdrS" + bytes(8) + b"\xff\xff"])
def test_a_file_that_does_not_say_is_a_kernel_all_the_same(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "boot").mkdir()
    (tmp_path / "boot/vmlinuz-linux").write_bytes(content)
    (tmp_path / "usr/lib/modules/6.10.1-arch1-1").mkdir(parents=True)

    assert kernels.choose(tmp_path).version == "linux"


def several(root: Path, *versions: str) -> Path:
    """Make a root with kernels, each with its modules and, but for "bare", with an initrd."""
    (root / "boot").mkdir(exist_ok=True)
    for version in versions:
        boot(root / "boot", f"vmlinuz-{version}", *([] if "bare" in version else [f"initrd.img-{version}"]))
        (root / "usr/lib/modules" / version).mkdir(parents=True)
    return root


def set_top_level(root: Path, image: str) -> None:
    (root / "etc/default").mkdir(parents=True)
    (root / "etc/default/grub").write_text(f'GRUB_TOP_LEVEL="{image}"\n')


def test_the_administrator_says_which_of_several_kernels_is_the_one(tmp_path: Path) -> None:
    set_top_level(several(tmp_path, "6.1-amd64", "6.1-rt-amd64", "6.9-bare"), "/boot/vmlinuz-6.1-amd64")

    assert kernels.choose(tmp_path).version == "6.1-amd64"


@pytest.mark.parametrize("image", ["/boot/vmlinuz-6.0", "/boot/vmlinuz-6.9-bare", "/boot/", ""])
def test_one_that_is_gone_or_has_no_initrd_gives_way(tmp_path: Path, image: str) -> None:
    set_top_level(several(tmp_path, "6.1-amd64", "6.1-rt-amd64", "6.9-bare"), image)

    assert kernels.choose(tmp_path).version == "6.1-rt-amd64"


@pytest.mark.parametrize(
    ("running", "found"),
    [("6.1-amd64", ("6.1-amd64", "6.9-amd64")), ("6.9-amd64", None), ("5.0-gone", None), ("6.8-bare", None)],
)
def test_a_running_kernel_that_would_not_be_started_is_noticed(
    tmp_path: Path, running: str, found: tuple[str, str] | None
) -> None:
    several(tmp_path, "6.1-amd64", "6.9-amd64", "6.8-bare")
    passed = kernels.passed_over(tmp_path, running)

    assert (passed and tuple(kernel.version for kernel in passed)) == found


@pytest.mark.parametrize(
    ("now", "lost"),
    [
        (
            "BOOT_IMAGE=/@/boot/vmlinuz-6.1 root=UUID=1 ro rootflags=subvol=@ quiet splash a=1 vt.handoff=7",
            [],
        ),
        (
            "initrd=\\initrd.img root=/dev/sda2 rw a=1 intel_iommu=on rd.luks.uuid=2",
            ["intel_iommu=on", "rd.luks.uuid=2"],
        ),
        ('root=UUID=1 "dyndbg=file x +p" a=1', []),
        ('root=UUID=1 dyndbg="file y +p" a=1', ["dyndbg=file y +p"]),
        ("root=UUID=1 a=2 b='", ["a=2", "b='"]),
        ("", []),
    ],
)
def test_words_that_the_running_kernel_alone_was_told_are_noticed(
    tmp_path: Path, now: str, lost: list[str]
) -> None:
    (tmp_path / "etc/kernel").mkdir(parents=True)
    (tmp_path / "etc/kernel/cmdline").write_text("root=UUID=1 a=1 'dyndbg=file x +p'\n")

    assert kernels.untold(tmp_path, now) == lost
