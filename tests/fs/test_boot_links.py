"""On a /boot of its own, generations with the same kernel share one copy, as far as it is a good one."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from snaptx.bootloader.onboot import GrubOnBoot
from snaptx.model import BootEntry, BootState
from snaptx.storage.base import MountSpec, TreeInfo
from tests.crash.loop import loop_device, mounted
from tests.fs.conftest import command

INFO = TreeInfo("@", False, (), MountSpec("/dev/null", "btrfs", "subvol=@"), ("root=UUID=1",), "/@")
NAMES = ("vmlinuz-6.1", "initrd.img-6.1")
MIB = 1 << 20


@pytest.fixture
def loader(tmp_path: Path) -> Iterator[GrubOnBoot]:
    """Give a loader whose /boot is a filesystem with room for a few kernels."""
    image = tmp_path / "boot.img"
    with image.open("wb") as file:
        file.truncate(96 * MIB)
    command("mkfs.ext4", "-q", "-F", image)
    with loop_device(image) as device, mounted(device, tmp_path / "boot", fstype="ext4") as place:
        made = GrubOnBoot(place, lambda: "1234-5678")
        made.install(tmp_path, INFO)
        yield made
        os.close(made._fd)


def tree(tmp_path: Path, number: int, content: bytes = b"") -> Path:
    """Make a generation's root, with a kernel of 4 MiB in all, the times of which are the same in all."""
    root = tmp_path / f"root-{number}"
    (root / "boot").mkdir(parents=True)
    for name in NAMES:
        path = root / "boot" / name
        path.write_bytes(content.ljust(2 * MIB, name[:1].encode()))
        path.chmod(0o600)
        os.utime(path, ns=(1_700_000_000_123_456_789, 1_700_000_000_123_456_789))
    return root


def offer(loader: GrubOnBoot, number: int, root: Path) -> BootEntry:
    """Offer a root as a generation's."""
    return loader.offer(number, f"generation {number}", root, INFO)


def switch(loader: GrubOnBoot, *entries: BootEntry) -> None:
    """Make the entries what boots."""
    number = entries[0].number
    loader.prepare(BootState(number, number, "nonce", 2, True, entries))
    loader.barrier()
    loader.switch()
    loader.barrier()
    loader.discard()


def files(loader: GrubOnBoot, entry: BootEntry) -> list[Path]:
    """Return where the files of an entry are."""
    return [loader.home.parent / path[1:] for path in (entry.kernel, entry.initrd)]


def used(loader: GrubOnBoot) -> int:
    """Return the bytes in use."""
    loader.barrier()
    space = os.statvfs(loader.home)
    return (space.f_blocks - space.f_bfree) * space.f_frsize


@pytest.mark.root
def test_the_same_kernel_takes_room_once(loader: GrubOnBoot, tmp_path: Path) -> None:
    offer(loader, 1, tree(tmp_path, 1))
    before = used(loader)
    entries = [offer(loader, number, tree(tmp_path, number)) for number in range(2, 12)]

    assert used(loader) - before < 2 * MIB
    for entry in entries:
        assert entry.kernel.startswith(f"/snaptx/{entry.number}/")
        for path, name in zip(files(loader, entry), NAMES, strict=True):
            assert path.read_bytes() == name[:1].encode() * 2 * MIB
            assert path.stat().st_mtime_ns == 1_700_000_000_123_456_789
        assert stat.S_IMODE(files(loader, entry)[0].parent.stat().st_mode) == 0o700


@pytest.mark.root
def test_a_generation_that_goes_takes_nothing_from_the_others(loader: GrubOnBoot, tmp_path: Path) -> None:
    one, other = (offer(loader, number, tree(tmp_path, number)) for number in (1, 2))
    switch(loader, other, one)
    switch(loader, other)
    loader.forget(1)
    loader.barrier()

    assert [path.stat().st_size for path in files(loader, other)] == [2 * MIB, 2 * MIB]
    assert not any(path.exists() for path in files(loader, one))
    third = offer(loader, 3, tree(tmp_path, 3))
    assert [path.stat().st_nlink for path in files(loader, third)] == [2, 2]


@pytest.mark.root
def test_a_new_initrd_of_one_generation_changes_no_other(loader: GrubOnBoot, tmp_path: Path) -> None:
    roots = [tree(tmp_path, number) for number in (1, 2)]
    entries = [offer(loader, number, root) for number, root in enumerate(roots, 1)]
    switch(loader, *entries)
    (roots[1] / "boot" / NAMES[1]).write_bytes(b"another")
    renewed = offer(loader, 2, roots[1])
    switch(loader, renewed, entries[0])

    assert files(loader, renewed)[1].read_bytes() == b"another"
    assert files(loader, entries[0])[1].read_bytes() == b"i" * 2 * MIB


@pytest.mark.root
@pytest.mark.parametrize("damage", ["a bit", "cut short", "cannot be read"])
def test_a_damaged_copy_is_not_spread(loader: GrubOnBoot, tmp_path: Path, damage: str) -> None:
    first = files(loader, offer(loader, 1, tree(tmp_path, 1)))[0]
    found = first.stat()
    if damage == "cannot be read":
        first.unlink()
        first.mkdir()
    else:
        with first.open("r+b") as file:
            file.truncate(MIB if damage == "cut short" else 2 * MIB)
            file.write(b"V")
    os.utime(first, ns=(found.st_atime_ns, found.st_mtime_ns))
    kernel, initrd = files(loader, offer(loader, 2, tree(tmp_path, 2)))

    assert kernel.read_bytes() == b"v" * 2 * MIB
    assert initrd.stat().st_nlink == 2
    third, _ = files(loader, offer(loader, 3, tree(tmp_path, 3)))
    assert third.samefile(kernel)


@pytest.mark.root
def test_another_kernel_of_the_same_size_and_time_is_copied(loader: GrubOnBoot, tmp_path: Path) -> None:
    one = offer(loader, 1, tree(tmp_path, 1))
    other = offer(loader, 2, tree(tmp_path, 2, b"another"))

    assert files(loader, one)[0].parent.name == files(loader, other)[0].parent.name
    assert [path.read_bytes()[:7] for path in files(loader, other)] == [b"another", b"another"]


@pytest.mark.root
def test_the_kernel_that_is_only_in_a_copy_is_shared(loader: GrubOnBoot, tmp_path: Path) -> None:
    root = tree(tmp_path, 1)
    one = offer(loader, 1, root)
    for name in NAMES:
        (root / "boot" / name).unlink()
    other = offer(loader, 2, root)

    for path, twin in zip(files(loader, one), files(loader, other), strict=True):
        assert path.samefile(twin)


@pytest.mark.root
def test_what_the_distribution_has_on_boot_is_copied(loader: GrubOnBoot, tmp_path: Path) -> None:
    """It is written anew in place by who made it."""
    root = tree(tmp_path, 1)
    for name in NAMES:
        os.rename(root / "boot" / name, tmp_path / name)
        (loader.home.parent / name).write_bytes((tmp_path / name).read_bytes())
    entries = [offer(loader, number, root) for number in (1, 2)]

    assert not any(
        path.samefile(loader.home.parent / path.name) for entry in entries for path in files(loader, entry)
    )
    assert [path.stat().st_nlink for path in files(loader, entries[1])] == [2, 2]


@pytest.mark.root
def test_without_links_it_is_copied(
    loader: GrubOnBoot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(1, "Operation not permitted")  # as FAT does

    monkeypatch.setattr(os, "link", refuse)
    entries = [offer(loader, number, tree(tmp_path, number)) for number in (1, 2)]

    for entry in entries:
        assert [path.stat().st_nlink for path in files(loader, entry)] == [1, 1]
        assert [path.read_bytes()[:1] for path in files(loader, entry)] == [b"v", b"i"]
