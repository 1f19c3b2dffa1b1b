"""``snaptx init`` on every layout: the root is adopted where it is, and nothing else changes."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from snaptx import durable, system
from snaptx.bootloader import kernels
from tests.boxes import Box, changes, inspect, made, snaptx
from tests.fs.conftest import command

SUBVOLUMES = {"debian": "@rootfs", "ubuntu": "@", "fedora": "root", "opensuse": "@/.snapshots/1/snapshot"}


@pytest.mark.parametrize("layout", sorted(SUBVOLUMES))
def test_root_is_adopted_where_it_is(tmp_path: Path, layout: str) -> None:
    with made(layout=layout, init=False) as box:
        before = inspect(box.root, times=True)
        box.ok("init")
        state = box.boot()

        assert changes(before, inspect(box.root, times=True)) == {}
        assert box.marks() == {1: "NRG"}
        assert (state.default, state.fallback, state.confirmed) == (1, 1, True)
        assert f"rootflags=subvol={SUBVOLUMES[layout]}" in state.entries[0].cmdline.split()
        assert box.default_subvolume() == SUBVOLUMES[layout]
        assert box.state.stat().st_mode & 0o777 == 0o700
        assert [record["result"] for record in box.audit()] == ["done"]
        assert box.json("verify")["problems"] == []


@pytest.mark.parametrize("layout", sorted(SUBVOLUMES))
def test_entry_names_files_that_grub_can_read(tmp_path: Path, layout: str) -> None:
    with made(layout=layout) as box:
        entry = box.boot().entries[0]
        image = box.sandbox.boot_image if box.sandbox.plan.boot else box.sandbox.disk
        path = "/snaptx/snaptx.cfg" if box.sandbox.plan.boot else "/@snaptx/grub/snaptx.cfg"

        assert command("grub-fstest", image, "cat", f"(loop0){path}") == box.entry.read_text()
        for name in (entry.kernel, entry.initrd):
            assert "stands in" in command("grub-fstest", image, "cat", f"(loop0){name}")
        command("grub-script-check", box.entry)
        command("grub-script-check", box.entry.with_name("grub.cfg"))


def test_nobody_but_root_reads_a_copied_initramfs() -> None:
    with made(layout="fedora") as box:
        assert box.entry.parent.stat().st_mode & 0o777 == 0o700


def test_flat_layout_is_refused_and_nothing_is_left(tmp_path: Path) -> None:
    with made(layout="flat", init=False) as box:
        said = box.refuses(55, "init")

        assert "is the top level of its filesystem" in said
        assert "rootflags=subvol=@" in said
        assert not box.state.exists()


def test_twice_is_once(shared: Box) -> None:
    before, records = shared.facts(), len(shared.audit())

    assert "already" in shared.ok("init")
    assert shared.run("init", "--unchanged-exit-77").code == 77
    assert changes(before, shared.facts()) == {}
    assert len(shared.audit()) == records


def test_twice_is_not_done_where_the_journal_can_not_be_read(shared: Box) -> None:
    """As on a disk that failed while the first one was at work: nobody can tell how far that came."""

    def broken() -> None:
        def fails(path: Path) -> bytes:
            raise OSError(errno.EIO, os.strerror(errno.EIO), path.name)

        durable.read = fails

    said = shared.start("init", before=broken).wait()

    assert (said.code, said.out) == (50, "")
    assert "the journal" in said.complaint[0]


def test_twice_is_not_done_on_a_read_only_file_system(box: Box) -> None:
    """What a disk that has failed still shows may never have been written."""
    command("mount", "-o", "remount,ro", box.root)
    try:
        for words in (("init",), ("--dry-run", "init")):
            assert "is read-only" in box.refuses(54, *words)
    finally:
        command("mount", "-o", "remount,rw", box.root)
    assert "already" in box.ok("init")


def test_dry_run_shows_the_plan_and_changes_nothing(tmp_path: Path) -> None:
    with made(init=False) as box:
        before = box.facts()
        plan = json.loads(box.ok("--json", "--dry-run", "init"))

        assert plan["root"] == "@rootfs"
        assert plan["uuid"] == box.sandbox.disk_uuid
        assert "adopt @rootfs as generation 1, where it is" in plan["steps"]
        assert changes(before, box.facts()) == {}
        assert not box.state.exists()


def test_without_kernel_it_is_refused_and_can_be_tried_again(tmp_path: Path) -> None:
    with made(init=False) as box:
        kernel = box.root / "boot/vmlinuz-0.0.0-sandbox"
        kernel.rename(box.root / "kept")
        for words in (("init",), ("init", "--dry-run")):
            assert "no kernel in /boot" in box.refuses(60, *words)
        assert not box.state.exists()

        (box.root / "kept").rename(kernel)
        box.ok("init")
        assert box.marks() == {1: "NRG"}
        assert box.json("verify")["problems"] == []


def test_a_kernel_that_would_not_find_the_root_is_refused(adoptable: Box) -> None:
    initrd = adoptable.root / "boot/initrd.img-0.0.0-sandbox"
    initrd.rename(initrd.with_name("ramdisk"))
    for words in (("init",), ("init", "--dry-run")):
        said = adoptable.refuses(60, *words)
        assert "0.0.0-sandbox" in said
        assert "initrd.img-" in said
    assert not adoptable.state.exists()

    adoptable.ok("init", "--no-boot-loader")
    assert adoptable.marks() == {1: "NRG"}


def test_words_for_the_kernel_that_a_shell_would_have_to_make_are_not_dropped(adoptable: Box) -> None:
    place = adoptable.root / "etc/default/grub"
    place.write_text('GRUB_CMDLINE_LINUX="cryptdevice=UUID=$(blkid -s UUID -o value /dev/sda2):root"\n')
    for words in (("init",), ("init", "--dry-run")):
        said = adoptable.refuses(60, *words)
        assert "GRUB_CMDLINE_LINUX" in said
        assert "/etc/kernel/cmdline" in said
    assert not adoptable.state.exists()

    place.write_text("GRUB_CMDLINE_LINUX=cryptdevice=UUID=1:root\nGRUB_DISTRIBUTOR=$(hostname)\n")
    adoptable.ok("init")
    assert "cryptdevice=UUID=1:root" in adoptable.boot().entries[0].cmdline


def test_a_command_line_that_loses_words_later_is_told(box: Box, update: str) -> None:
    place = Path(update) / "etc/default/grub"
    place.parent.mkdir()
    place.write_text("GRUB_CMDLINE_LINUX_DEFAULT=$(cat /etc/words)\n")
    box.ok("apply", update)
    said = box.run("commit")

    assert said.code == 0
    assert "GRUB_CMDLINE_LINUX_DEFAULT" in said.err
    assert "counts as not set" in said.err


def test_init_says_if_another_kernel_would_start(adoptable: Box) -> None:
    for name in ("vmlinuz-9.9", "initrd.img-9.9"):
        (adoptable.root / "boot" / name).write_text("newer")

    def runs() -> None:
        setattr(kernels, "running", lambda _sysroot: "0.0.0-sandbox")  # noqa: B010

    for words in (("init", "--dry-run"), ("init",)):
        said = adoptable.start(*words, before=runs).wait()
        assert said.code == 0
        assert "the menu starts vmlinuz-9.9, not vmlinuz-0.0.0-sandbox, which runs" in said.out
        assert "GRUB_TOP_LEVEL=/boot/vmlinuz-0.0.0-sandbox" in said.out


def test_init_says_what_the_running_kernel_alone_was_told(adoptable: Box) -> None:
    (adoptable.root / "etc/default/grub").write_text("GRUB_CMDLINE_LINUX=intel_iommu=on\n")
    (adoptable.root / "etc/kernel").mkdir()
    (adoptable.root / "etc/kernel/cmdline").write_text("root=UUID=1 quiet\n")

    def runs() -> None:
        setattr(kernels, "told", lambda _sysroot: "root=UUID=1 ro quiet intel_iommu=on")  # noqa: B010

    for words in (("init", "--dry-run"), ("init",)):
        said = adoptable.start(*words, before=runs).wait()
        assert said.code == 0
        assert "the running kernel was told intel_iommu=on, the menu does not" in said.out
        assert "/etc/kernel/cmdline" in said.out


def test_subvolumes_inside_are_refused_before_anything_is_made(tmp_path: Path) -> None:
    with made(init=False) as box:
        command("btrfs", "subvolume", "create", box.root / "srv")
        (box.root / "srv/data").write_text("would be missing\n")

        for words in (("init",), ("init", "--dry-run")):
            said = box.refuses(55, *words)
            assert "/srv" in said
            assert "nested" in said
        assert not box.state.exists()


def test_a_lost_entry_file_is_for_repair_and_not_adopted_again(box: Box) -> None:
    box.entry.unlink()
    before = box.facts()
    box.run("init")

    assert changes(before, box.facts()) == {}
    box.ok("repair")
    assert box.marks() == {1: "NRG"}


def test_progress_is_for_terminals_only(tmp_path: Path) -> None:
    with made(init=False) as box:
        said = box.run("init")

        assert (said.code, said.err) == (0, "")
        assert said.out == "generation 1 is @rootfs, as it is\n"


def test_real_command_does_the_same(tmp_path: Path) -> None:
    with made(init=False) as box:
        words = [sys.executable, "-m", "snaptx", "--sysroot", str(box.root), "init"]
        done = subprocess.run(words, capture_output=True, text=True, check=False)

        assert (done.returncode, done.stderr) == (0, "")
        assert box.marks() == {1: "NRG"}


def test_a_second_system_on_the_filesystem_is_not_taken_for_the_first(tmp_path: Path) -> None:
    with made() as box:
        other = tmp_path / "other"
        other.mkdir()
        command("btrfs", "subvolume", "snapshot", box.root, box.top / "@other")
        device = next(mount.source for mount in system.mounts() if mount.target == str(box.top))
        command("mount", "-o", "subvol=@other", device, other)
        try:
            before = box.facts()
            for words in (("init",), ("init", "--dry-run"), ("init", "--convert"), ("live", "1")):
                said = snaptx("--sysroot", str(other), *words)
                assert said.code == (51 if "live" in words else 55)
                assert "no generation" in said.complaint[0]
            assert changes(before, box.facts()) == {}
        finally:
            command("umount", other)
