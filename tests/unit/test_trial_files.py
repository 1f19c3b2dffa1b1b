"""What lies beside the entry file while a generation is on trial: digests for GRUB, and its counter."""

from __future__ import annotations

import io
import subprocess
import tarfile
from pathlib import Path

import pytest

from snaptx.bootloader.counter import HEADER, SIZE, Counter, InPartition
from snaptx.bootloader.grub import static_config
from snaptx.bootloader.inroot import GrubInRoot
from snaptx.errors import BootError, StorageError
from snaptx.model import BootEntry, BootState

ENTRY = BootEntry(2, "2: two", "/two/boot/vmlinuz-6", "/two/boot/initrd.img-6", "root=UUID=1")
STATE = BootState(2, 1, "0123abcd", 2, False, (ENTRY,), "1:/x")


@pytest.fixture
def loader(tmp_path: Path) -> GrubInRoot:
    """Give a GRUB whose menu knows generation 2."""
    (tmp_path / "two/boot").mkdir(parents=True)
    (tmp_path / "@snaptx/grub").mkdir(parents=True)
    for path in (ENTRY.kernel, ENTRY.initrd):
        (tmp_path / path.lstrip("/")).write_text(path)
    counter = Counter("1", "/x", tmp_path / "esp/EFI/snaptx/snaptx.env")
    return GrubInRoot(tmp_path / "@snaptx/grub", lambda: "1234-5678", lambda: counter)


def switch(loader: GrubInRoot, state: BootState) -> None:
    """Make ``state`` current."""
    loader.prepare(state)
    loader.switch()
    loader.discard()


def sums(loader: GrubInRoot) -> list[Path]:
    """Return the files of digests."""
    return sorted(loader.home.glob("sums-*"))


def test_the_digests_are_those_of_kernel_and_initrd(loader: GrubInRoot, tmp_path: Path) -> None:
    switch(loader, STATE)

    (found,) = sums(loader)
    assert found.name == "sums-0123abcd"
    text = found.read_text()
    assert [line.split()[1] for line in text.splitlines()] == [ENTRY.kernel, ENTRY.initrd]
    here = text.replace("  /", f"  {tmp_path}/")
    subprocess.run(["sha256sum", "--check", "--quiet"], input=here, text=True, check=True)


def test_what_was_damaged_since_is_not_taken_for_whole(loader: GrubInRoot, tmp_path: Path) -> None:
    switch(loader, STATE)
    before = sums(loader)[0].read_text()
    (tmp_path / ENTRY.kernel.lstrip("/")).write_text("cut sh")
    switch(loader, STATE)

    assert sums(loader)[0].read_text() == before


@pytest.mark.parametrize("change", [{"confirmed": True}, {"nonce": "4567ef"}])
def test_digests_go_with_their_trial(loader: GrubInRoot, change: dict[str, object]) -> None:
    switch(loader, STATE)
    after = STATE._replace(**change)  # type: ignore[arg-type]
    switch(loader, after)

    assert [path.name for path in sums(loader)] == ([] if after.confirmed else ["sums-4567ef"])


def test_a_kernel_that_can_not_be_read_is_not_committed(loader: GrubInRoot, tmp_path: Path) -> None:
    (tmp_path / ENTRY.initrd.lstrip("/")).unlink()

    with pytest.raises(StorageError):
        loader.prepare(STATE)


def test_an_older_grub_configuration_makes_room_for_the_one_that_knows_the_entries(
    loader: GrubInRoot,
) -> None:
    path = loader.home / "grub.cfg"
    path.write_text("# an older one\n")
    loader.prepare(STATE)

    assert path.read_bytes() == static_config()
    assert (loader.home / "grub.cfg.old").read_text() == "# an older one\n", "GRUB may still need it"
    loader.switch()
    loader.discard()
    assert {path.name for path in loader.home.iterdir()} == {"grub.cfg", "snaptx.cfg", "sums-0123abcd"}


@pytest.mark.parametrize("left", [None, b"", b"\0" * SIZE])
def test_a_counter_that_is_gone_is_made_anew(loader: GrubInRoot, tmp_path: Path, left: bytes | None) -> None:
    switch(loader, STATE._replace(confirmed=True))
    file = tmp_path / "esp/EFI/snaptx/snaptx.env"
    file.parent.mkdir(parents=True, exist_ok=True)
    if left is not None:
        file.write_bytes(left)
    switch(loader, STATE)

    assert file.read_bytes() == HEADER.ljust(SIZE, b"#")


def test_what_grub_has_counted_stays(loader: GrubInRoot, tmp_path: Path) -> None:
    file = tmp_path / "esp/EFI/snaptx/snaptx.env"
    file.parent.mkdir(parents=True)
    counted = (HEADER + b"snaptx_left=1\n").ljust(SIZE, b"#")
    file.write_bytes(counted)
    switch(loader, STATE)

    assert file.read_bytes() == counted


@pytest.fixture
def partition(tmp_path: Path) -> InPartition:
    """Give a partition of 32 sectors, as empty as a new one."""
    device = tmp_path / "vda4"
    device.write_bytes(bytes(32 * 512))
    return InPartition(device, "aa-bb")


def members(partition: InPartition) -> dict[str, bytes]:
    """Return what is in the archive on a partition."""
    with tarfile.open(partition.device) as archive:
        return {member.name: (archive.extractfile(member) or io.BytesIO()).read() for member in archive}


def test_a_partition_holds_the_block_as_a_member_of_an_archive(partition: InPartition) -> None:
    partition.make()

    assert members(partition) == {"snaptx-aa-bb.env": HEADER.ljust(SIZE, b"#")}
    assert partition.name == ":/snaptx-aa-bb.env"
    assert partition.device.stat().st_size == 32 * 512


def test_what_grub_has_counted_in_a_partition_stays(partition: InPartition) -> None:
    partition.make()
    with partition.device.open("r+b") as file:
        file.seek(512 + len(HEADER))
        file.write(b"snaptx_left=1\n")
    partition.make()

    assert b"snaptx_left=1\n" in members(partition)["snaptx-aa-bb.env"]


def test_a_partition_that_holds_something_else_is_left_alone(partition: InPartition) -> None:
    other = b"data" + bytes(32 * 512 - 4)
    partition.device.write_bytes(other)

    with pytest.raises(BootError, match="not empty"):
        partition.make()
    assert partition.device.read_bytes() == other


def test_what_is_removed_from_a_partition_can_be_made_again(partition: InPartition) -> None:
    partition.make()
    partition.remove()

    assert not partition.device.read_bytes().strip(b"\0")
    partition.make()
    assert members(partition)
