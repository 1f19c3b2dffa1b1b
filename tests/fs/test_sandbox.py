"""Sandboxes on real loop devices: what is mounted where, and that nothing is ever left."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pytest_mock import MockerFixture

from snaptx import mounting, system
from snaptx.bootloader import entryfile
from snaptx.errors import (
    BootError,
    BusyError,
    CommandError,
    FormatError,
    LayoutError,
    NoSpaceError,
    PrivilegeError,
    SnaptxError,
    SourceError,
    StorageError,
    UsageError,
)
from snaptx.model import BootEntry, BootState
from snaptx.sandbox import box as sandbox
from snaptx.sandbox import tree as sandbox_tree
from snaptx.sandbox.layout import Layout, Sandbox

pytestmark = pytest.mark.root

SIZE = 512 << 20
REPOSITORY = Path(__file__).parents[2]


def mounted(place: Path) -> list[tuple[str, str, str]]:
    """Return (path below ``place``, filesystem, root of the mount) of all that is mounted there."""
    return [
        (str(Path(one.target).relative_to(place)), one.fstype, one.root)
        for one in system.mounts()
        if Path(one.target).is_relative_to(place)
    ]


def loops(place: Path) -> list[str]:
    """Return the images below ``place`` that are attached to loop devices."""
    found = subprocess.run(["losetup", "-nO", "BACK-FILE"], capture_output=True, text=True, check=True)
    return [line for line in found.stdout.splitlines() if line.startswith(f"{place}/")]


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """Give a directory where nothing of a sandbox may be left after the test."""
    yield tmp_path
    for record in tmp_path.glob("*/sandbox.json"):
        sandbox.destroy(record.parent)
    assert (mounted(tmp_path), loops(tmp_path)) == ([], [])


def make(directory: Path, layout: str = "debian", source: Path | None = None) -> Sandbox:
    """Make a small sandbox."""
    return sandbox.create(directory, size=SIZE, source=source, layout=Layout(layout))


MOUNTS = {
    "debian": [("top", "btrfs", "/"), ("root", "btrfs", "/@rootfs")],
    "ubuntu": [("top", "btrfs", "/"), ("root", "btrfs", "/@"), ("root/home", "btrfs", "/@home")],
    "fedora": [
        ("top", "btrfs", "/"),
        ("root", "btrfs", "/root"),
        ("root/home", "btrfs", "/home"),
        ("root/boot", "ext4", "/"),
    ],
    "opensuse": [("top", "btrfs", "/"), ("root", "btrfs", "/@/.snapshots/1/snapshot")],
    "flat": [("top", "btrfs", "/"), ("root", "btrfs", "/")],
}


@pytest.mark.parametrize("layout", sorted(MOUNTS))
def test_layout_is_mounted_as_its_distribution_does_and_leaves_nothing(place: Path, layout: str) -> None:
    box = make(place / "box", layout)

    assert mounted(box.directory) == MOUNTS[layout]
    assert (box.root / "etc/fstab").read_text().startswith(f"UUID={box.disk_uuid} / btrfs ")
    assert (box.root / "boot/vmlinuz-0.0.0-sandbox").exists()
    assert "GRUB_CMDLINE_LINUX=" in (box.root / "etc/default/grub").read_text()
    assert json.loads((box.directory / "sandbox.json").read_text())["layout"] == layout
    assert sandbox.find(box.directory) == box
    assert box.disk.stat().st_blocks * 512 < SIZE / 4

    assert sandbox.destroy(box.directory) == ()
    assert not box.directory.exists()
    assert (mounted(place), loops(place)) == ([], [])


@pytest.mark.parametrize("layout", sorted(MOUNTS))
def test_findmnt_and_blkid_see_what_fstab_says(place: Path, layout: str) -> None:
    box = make(place / "box", layout)

    for line in (box.root / "etc/fstab").read_text().splitlines():
        device, target, fstype, options, *_ = line.split()
        command = ["findmnt", "-nro", "FSTYPE,OPTIONS,SOURCE", str(box.root / target.lstrip("/")).rstrip("/")]
        found = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
        source = found[2].partition("[")[0]
        blkid = ["blkid", "-p", "-s", "UUID", "-o", "value", source]
        uuid = subprocess.run(blkid, capture_output=True, text=True, check=True).stdout.strip()
        assert (f"UUID={uuid}", found[0]) == (device, fstype)
        for option in options.split(","):
            if option.startswith("subvol="):
                assert option.replace("subvol=", "subvol=/") in found[1].split(",")


def test_opensuse_boots_what_the_default_subvolume_says(place: Path) -> None:
    box = make(place / "box", "opensuse")

    command = ["btrfs", "subvolume", "get-default", str(box.top)]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout

    assert said.rstrip().endswith("path @/.snapshots/1/snapshot")


def test_unmounting_by_hand_frees_the_loop_device_and_reboot_brings_it_back(place: Path) -> None:
    box = make(place / "box", "fedora")
    for target in ("root/boot", "root/home", "root", "top"):
        mounting.unmount(str(box.directory / target))
    assert loops(place) == []

    sandbox.reboot(box.directory)

    assert mounted(box.directory) == MOUNTS["fedora"]


def test_tree_is_copied_with_everything(place: Path) -> None:
    tree = place / "tree"
    (tree / "etc").mkdir(parents=True)
    name = os.fsencode(tree) + b"/etc/not-utf-8-\xff"
    with open(name, "wb") as file:
        file.write(b"content")
    os.setxattr(name, "user.note", b"kept")
    os.link(name, os.fsencode(tree) + b"/etc/second")
    os.chown(name, 12, 34)
    os.chmod(name, 0o4755)
    os.utime(name, ns=(1, 1_000_000_007))
    (tree / "etc/fstab").symlink_to("/etc/nowhere")

    box = make(place / "box", source=tree)

    copy = os.fsencode(box.root) + b"/etc/not-utf-8-\xff"
    found = os.lstat(copy)
    assert (found.st_uid, found.st_gid, found.st_mode & 0o7777) == (12, 34, 0o4755)
    assert (found.st_nlink, found.st_mtime_ns) == (2, 1_000_000_007)
    assert os.getxattr(copy, "user.note") == b"kept"
    assert not (box.root / "etc/fstab").is_symlink()


def test_tar_is_unpacked_and_its_own_kernel_kept(place: Path) -> None:
    tree = place / "tree"
    (tree / "boot").mkdir(parents=True)
    (tree / "boot/vmlinuz-6.1.0").write_text("a kernel")
    os.setxattr(tree / "boot/vmlinuz-6.1.0", "user.note", b"kept")
    subprocess.run(
        ["tar", "--xattrs", "-czf", str(place / "tree.tar.gz"), "-C", str(tree), "."], check=True, timeout=60
    )

    box = make(place / "box", "fedora", place / "tree.tar.gz")

    assert [path.name for path in box.root.glob("boot/vmlinuz*")] == ["vmlinuz-6.1.0"]
    assert os.getxattr(box.root / "boot/vmlinuz-6.1.0", "user.note") == b"kept"


@pytest.mark.parametrize("layout", sorted(MOUNTS))
@pytest.mark.parametrize("made_before", [True, False])
def test_failure_at_the_end_leaves_nothing(
    place: Path, mocker: MockerFixture, layout: str, made_before: bool
) -> None:
    directory = place / "box"
    if made_before:
        directory.mkdir()
    mocker.patch.object(sandbox_tree, "complete", side_effect=KeyboardInterrupt)

    with pytest.raises(KeyboardInterrupt):
        make(directory, layout)

    assert (list(directory.iterdir()) if made_before else directory.exists()) in ([], False)
    assert (mounted(place), loops(place)) == ([], [])


@pytest.mark.parametrize("failing", ["mkfs.btrfs", "mkfs.ext4", "losetup", "btrfs", "cp"])
def test_failing_program_leaves_nothing(place: Path, mocker: MockerFixture, failing: str) -> None:
    (place / "bin").mkdir()
    fake = place / "bin" / failing
    fake.write_text("#!/bin/sh\necho it broke >&2\nexit 7\n")
    fake.chmod(0o755)
    mocker.patch("snaptx.run.SAFE_PATH", f"{place}/bin:/usr/sbin:/usr/bin:/sbin:/bin")
    (place / "tree").mkdir()

    with pytest.raises((CommandError, StorageError), match="it broke") as caught:
        make(place / "box", "fedora", place / "tree")

    assert caught.value.hint
    assert not (place / "box").exists()
    assert (mounted(place), loops(place)) == ([], [])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_interruption_ends_the_copying_and_leaves_nothing(place: Path, number: signal.Signals) -> None:
    os.mkfifo(place / "tree.tar")  # tar waits there for a writer
    command = [sys.executable, "-m", "snaptx", "sandbox", "create", "box", "--from", "../tree.tar"]
    (place / "here").mkdir()
    with subprocess.Popen(
        command, cwd=place / "here", env=os.environ | {"PYTHONPATH": str(REPOSITORY)}
    ) as running:
        while not [one for one in mounted(place) if one[0] == "here/box/root"]:
            time.sleep(0.02)
            assert running.poll() is None
        time.sleep(0.3)
        running.send_signal(number)

    assert running.returncode == 128 + number
    assert list((place / "here").iterdir()) == []
    assert (mounted(place), loops(place)) == ([], [])


def test_broken_tar_leaves_nothing(place: Path) -> None:
    (place / "bad.tar").write_bytes(b"no tar at all" * 1000)

    with pytest.raises(CommandError, match="tar"):
        make(place / "box", source=place / "bad.tar")

    assert not (place / "box").exists()


def test_symlink_where_a_mount_goes_is_refused(place: Path) -> None:
    (place / "tree").mkdir()
    (place / "tree/boot").symlink_to("/boot")

    with pytest.raises(LayoutError, match="/boot is a symbolic link"):
        make(place / "box", source=place / "tree")


def test_missing_mkfs_names_its_package(place: Path, mocker: MockerFixture) -> None:
    mocker.patch("snaptx.run.SAFE_PATH", str(place))
    (place / "losetup").write_text("#!/bin/sh\n")
    (place / "losetup").chmod(0o755)

    with pytest.raises(SnaptxError, match=r"mkfs\.btrfs is not installed") as caught:
        make(place / "box")

    assert "btrfs-progs" in caught.value.hint
    assert not (place / "box").exists()


def test_without_root_nothing_is_begun(place: Path, mocker: MockerFixture) -> None:
    mocker.patch.object(system, "is_root", return_value=False)

    for act in (lambda: make(place / "box"), lambda: sandbox.destroy(place), lambda: sandbox.reboot(place)):
        with pytest.raises(PrivilegeError):
            act()

    assert not (place / "box").exists()


def test_unusable_directories_are_refused(place: Path) -> None:
    (place / "full").mkdir()
    (place / "full/file").write_text("mine")
    (place / "file").write_text("mine")

    for name in ("full", "file"):
        with pytest.raises(UsageError):
            make(place / name)

    assert (place / "full/file").read_text() == (place / "file").read_text() == "mine"


def test_sizes_that_cannot_be_are_refused(place: Path, mocker: MockerFixture) -> None:
    (place / "tree").mkdir()
    with open(place / "tree/big", "wb") as file:
        file.write(b"x" * (1 << 20))
    with pytest.raises(UsageError, match="too few"):
        sandbox.create(place / "box", size=1 << 20, source=None, layout=Layout.DEBIAN)
    with pytest.raises(UsageError, match="inside"):
        make(place / "tree/box", source=place / "tree")
    with pytest.raises(SourceError):
        make(place / "box", source=place / "missing")

    mocker.patch.object(sandbox_tree, "size_of", return_value=SIZE + 1)
    with pytest.raises(NoSpaceError, match="the image"):
        make(place / "box", source=place / "tree")

    mocker.patch.object(sandbox_tree, "size_of", return_value=1 << 60)
    with pytest.raises(NoSpaceError, match="are needed"):
        sandbox.create(place / "box", size=1 << 61, source=place / "tree", layout=Layout.DEBIAN)
    assert not (place / "box").exists()


def test_destroy_refuses_what_is_no_sandbox(place: Path) -> None:
    (place / "foreign").mkdir()
    (place / "foreign/disk.img").write_text("mine")
    (place / "newer").mkdir()
    (place / "newer/sandbox.json").write_text('{"format": 99, "snaptx": "9.0"}')

    with pytest.raises(UsageError, match="not a sandbox"):
        sandbox.destroy(place / "foreign")
    with pytest.raises(UsageError, match="not a sandbox"):
        sandbox.destroy(place / "missing")
    with pytest.raises(FormatError):
        sandbox.destroy(place / "newer")

    assert (place / "foreign/disk.img").read_text() == "mine"
    (place / "newer/sandbox.json").unlink()


def test_destroy_keeps_foreign_files(place: Path) -> None:
    box = make(place / "box")
    (box.directory / "notes").write_text("mine")

    assert sandbox.destroy(box.directory) == ("notes",)
    assert [path.name for path in box.directory.iterdir()] == ["notes"]


@pytest.mark.parametrize(
    ("act", "used"), [(sandbox.destroy, "root"), (sandbox.destroy, "top"), (sandbox.reboot, "root")]
)
def test_a_used_sandbox_stays_as_it_is(place: Path, act: Callable[[Path], object], used: str) -> None:
    box = make(place / "box", "ubuntu")
    with open(box.directory / used / "file", "w"), pytest.raises(BusyError) as caught:
        act(box.directory)

    assert "fuser" in caught.value.hint
    assert sorted(mounted(box.directory)) == sorted(MOUNTS["ubuntu"])
    assert loops(place) == [str(box.disk)]


def entry(number: int, subvolume: str) -> BootEntry:
    """Return a boot entry of the kind that a commit writes."""
    return BootEntry(number, "title", "/k", "/i", f"root=UUID=x rootflags=subvol={subvolume} ro quiet")


def write_entry_file(home: Path, default: int, *entries: BootEntry) -> None:
    """Write an entry file that names ``default``."""
    home.mkdir(parents=True, exist_ok=True)
    state = BootState(default, 1, "nonce", 3, False, entries)
    (home / entryfile.NAME).write_text(entryfile.render(state, "uuid"))


@pytest.mark.parametrize(("layout", "home"), [("debian", "top/@snaptx/grub"), ("fedora", "root/boot/snaptx")])
def test_reboot_mounts_what_the_entry_file_names(place: Path, layout: str, home: str) -> None:
    box = make(place / "box", layout)
    first = box.plan.root
    (box.top / "@snaptx/generations/2").mkdir(parents=True)
    second = "@snaptx/generations/2/root"
    command = ["btrfs", "-q", "subvolume", "snapshot", str(box.top / first), str(box.top / second)]
    subprocess.run(command, check=True)
    write_entry_file(box.directory / home, 2, entry(1, first), entry(2, second))

    assert sandbox.reboot(box.directory) == second
    assert ("root", "btrfs", f"/{second}") in mounted(box.directory)
    assert len(mounted(box.directory)) == len(MOUNTS[layout])
    write_entry_file(box.directory / home, 1, entry(1, first), entry(2, second))
    assert sandbox.reboot(box.directory) == first
    assert sorted(mounted(box.directory)) == sorted(MOUNTS[layout])
    assert sandbox.reboot(box.directory, target=second) == second


def test_reboot_refuses_a_damaged_entry_file_and_a_missing_generation(place: Path) -> None:
    box = make(place / "box")
    home = box.top / "@snaptx/grub"
    write_entry_file(home, 3, entry(1, "@rootfs"))
    with pytest.raises(BootError):
        sandbox.reboot(box.directory)
    (home / entryfile.NAME).write_text("cut short")
    with pytest.raises(BootError):
        sandbox.reboot(box.directory)
    assert ("root", "btrfs", "/@rootfs") in mounted(box.directory)

    write_entry_file(home, 3, entry(3, "@snaptx/generations/3/root"))
    with pytest.raises(StorageError):
        sandbox.reboot(box.directory)
    write_entry_file(home, 1, entry(1, "@rootfs"))
    assert sandbox.reboot(box.directory) == "@rootfs"
