"""The writer on real Btrfs: what only root, snapshots and shared blocks can show."""

from __future__ import annotations

import os
import stat
import struct
from contextlib import closing
from pathlib import Path

import pytest

from snaptx import system
from snaptx.errors import (
    HostileError,
    NoSpaceError,
    ReadOnlyError,
    StorageError,
)
from snaptx.model import Counts, Kind, Member
from snaptx.overlay import xattrs
from snaptx.overlay.base import Base
from snaptx.overlay.manifest import Manifest
from snaptx.overlay.readback import reading_back
from snaptx.overlay.sift import sift
from snaptx.overlay.tar import read_tar
from snaptx.overlay.writer import Writer
from snaptx.system import descriptor
from tests import oracle, workload
from tests.fs.conftest import MIB, MakeBtrfs, command, shared_bytes
from tests.payloads import (
    Ground,
    directory,
    every_row,
    existing,
    file,
    hardlink,
    index,
    member,
    opaque,
    rows,
    symlink,
    whiteout,
)
from tests.specials import acl

CAPABILITY = struct.pack("<5I", 0x02000001, 1 << 10, 0, 0, 0)
ACCESS, DEFAULT = b"system.posix_acl_access", b"system.posix_acl_default"
MINIMAL = struct.pack("<I", 2) + b"".join(
    struct.pack("<HHI", tag, perm, 0) for tag, perm in ((1, 7), (4, 5), (0x20, 0))
)
RANDOM = os.urandom(8 * MIB)


def _snapshot(base: Path, root: Path) -> None:
    command("btrfs", "subvolume", "snapshot", base, root)


@pytest.fixture
def ground(btrfs: Path) -> Ground:
    """Give a base subvolume with what a root has and tar loses."""
    ground = Ground(btrfs, _snapshot)
    command("btrfs", "subvolume", "create", ground.base)
    base = ground.base
    (base / "d/e").mkdir(parents=True)
    (base / "plain").write_text("plain\n")
    (base / "large").write_bytes(RANDOM)
    (base / "cap").write_bytes(b"\x7fELF" + bytes(5000))
    (base / "cap").chmod(0o755)
    os.setxattr(base / "cap", "security.capability", CAPABILITY)
    os.setxattr(base / "plain", "user.old", b"old")
    (base / "one").write_bytes(RANDOM[: 2 * MIB])
    (base / "two").hardlink_to(base / "one")
    return ground


def lay(ground: Ground, *members: Member) -> Counts:
    """Lay a payload; the manifest must be what a scan of the tree finds, with inodes and ctimes."""
    counts = ground.lay(*members)
    assert ground.indexed() == rows(ground.root)
    return counts


def attributes(path: Path) -> dict[bytes, bytes]:
    with descriptor(path, os.O_RDONLY) as fd:
        return xattrs.read(fd)


def test_set_uid_capabilities_and_acls_survive(ground: Ground) -> None:
    wanted = {b"security.capability": CAPABILITY, b"user.x": b"", b"trusted.y": b"\0\n="}
    lay(
        ground,
        file("suid", b"\x7fELF", mode=0o6755, uid=7, gid=8, xattrs=wanted),
        file("sgid", b"x", mode=0o2644, uid=7, gid=8),
        file("acl", b"x", mode=0o664, xattrs={ACCESS: acl(1000)}),
        directory("dir", mode=0o3775, gid=8, xattrs={DEFAULT: acl(1001), b"user.z": b"z"}),
    )
    st, gst = (ground.root / "suid").stat(), (ground.root / "sgid").stat()

    assert (stat.S_IMODE(st.st_mode), st.st_uid, st.st_gid) == (0o6755, 7, 8)
    assert stat.S_IMODE(gst.st_mode) == 0o2644
    assert attributes(ground.root / "suid") == wanted
    assert attributes(ground.root / "acl") == {ACCESS: acl(1000)}
    assert attributes(ground.root / "dir") == {DEFAULT: acl(1001), b"user.z": b"z"}
    assert stat.S_IMODE((ground.root / "dir").stat().st_mode) == 0o3775


def test_nothing_is_inherited_from_the_directory(ground: Ground) -> None:
    parent = directory("dir", mode=0o2775, gid=8, xattrs={DEFAULT: acl(1001)})
    lay(
        ground,
        parent,
        file("dir/f", b"x", mode=0o640),
        directory("dir/d", mode=0o750),
        file("dir/p/q", b"x"),
        member("dir/fifo", Kind.FIFO, mode=0o600),
        file("dir/acl", b"x", mode=0o664, xattrs={ACCESS: acl(1000)}),
        symlink("dir/link", "f"),
    )

    for name, mode in (("f", 0o640), ("d", 0o750), ("p", 0o755), ("p/q", 0o644), ("fifo", 0o600)):
        st = (ground.root / "dir" / name).stat()
        assert (name, stat.S_IMODE(st.st_mode), st.st_gid) == (name, mode, 0)
        assert os.listxattr(ground.root / "dir" / name) == []
    assert attributes(ground.root / "dir/acl") == {ACCESS: acl(1000)}


def test_default_acl_of_the_base_is_not_inherited_either(ground: Ground) -> None:
    os.setxattr(ground.base / "d", DEFAULT.decode(), acl(1001))
    lay(ground, file("d/f", b"x", mode=0o644), directory("d/g"))

    assert attributes(ground.root / "d/f") == {}
    assert attributes(ground.root / "d/g") == {}


def test_directory_that_gets_a_default_acl_after_it_was_used(ground: Ground) -> None:
    lay(ground, file("d/before"), directory("d", xattrs={DEFAULT: acl(1001)}), file("d/after"))

    assert attributes(ground.root / "d/before") == {}
    assert attributes(ground.root / "d/after") == {}
    assert attributes(ground.root / "d") == {DEFAULT: acl(1001)}


def test_acl_without_named_entries_is_the_mode(ground: Ground) -> None:
    lay(ground, file("f", b"x", mode=0o4644, xattrs={ACCESS: MINIMAL}))

    assert stat.S_IMODE((ground.root / "f").stat().st_mode) == 0o4750
    assert attributes(ground.root / "f") == {}


def test_attributes_change_in_place_and_old_ones_go(ground: Ground) -> None:
    ground.start()
    before = (ground.root / "plain").stat().st_ino
    same = existing(ground.base, "plain")
    counts = lay(ground, same)

    assert attributes(ground.root / "plain") == {}
    assert (ground.root / "plain").stat().st_ino == before
    assert counts == Counts(changed=1)
    assert attributes(ground.base / "plain") == {b"user.old": b"old"}


def test_change_of_owner_in_place_keeps_what_the_payload_asks(ground: Ground) -> None:
    data = (ground.base / "cap").read_bytes()
    lay(ground, file("cap", data, mode=0o4755, uid=5, xattrs={b"security.capability": CAPABILITY}))
    st = (ground.root / "cap").stat()

    assert (stat.S_IMODE(st.st_mode), st.st_uid) == (0o4755, 5)
    assert attributes(ground.root / "cap") == {b"security.capability": CAPABILITY}


@pytest.mark.parametrize("mode", [0o4755, 0o2755, 0o6711, 0o2644, 0o755])
def test_change_of_owner_alone_keeps_the_mode(ground: Ground, mode: int) -> None:
    (ground.base / "suid").write_bytes(b"x")
    (ground.base / "suid").chmod(mode)
    lay(ground, file("suid", b"x", mode=mode, uid=5, gid=6))
    st = (ground.root / "suid").stat()

    assert (stat.S_IMODE(st.st_mode), st.st_uid, st.st_gid) == (mode, 5, 6)


def test_identical_with_attributes_is_skipped(ground: Ground) -> None:
    data = (ground.base / "cap").read_bytes()
    st = (ground.base / "cap").stat()
    asked = file(
        "cap", data, mode=0o755, mtime_ns=st.st_mtime_ns, xattrs={b"security.capability": CAPABILITY}
    )

    assert lay(ground, asked) == Counts(unchanged=1)


def test_equal_start_of_a_large_file_is_shared(ground: Ground) -> None:
    data = RANDOM[: 6 * MIB] + os.urandom(2 * MIB)
    counts = lay(ground, file("large", data))

    assert (ground.root / "large").read_bytes() == data
    assert counts.bytes_written == 2 * MIB
    assert shared_bytes(ground.root / "large") == 6 * MIB


@pytest.mark.parametrize("name", ["one", "two"])
def test_metadata_of_one_name_only_shares_all_content(ground: Ground, name: str) -> None:
    counts = lay(ground, file(name, RANDOM[: 2 * MIB], mode=0o600))
    modes = [stat.S_IMODE((ground.root / one).stat().st_mode) for one in ("one", "two")]

    assert sorted(modes) == [0o600, 0o644]
    assert counts == Counts(changed=1)
    assert shared_bytes(ground.root / name) == 2 * MIB


def test_small_file_with_another_name_shares_too(ground: Ground) -> None:
    (ground.base / "s").write_bytes(RANDOM[:100_000])
    (ground.base / "t").hardlink_to(ground.base / "s")
    counts = lay(ground, file("s", RANDOM[:100_000], mode=0o600))

    assert counts.bytes_written == 0
    assert shared_bytes(ground.root / "s") > 90_000


def test_sparse_file_has_holes(ground: Ground) -> None:
    data = bytearray(64 * MIB)
    data[40 * MIB : 40 * MIB + 4] = b"data"
    lay(ground, file("sparse", bytes(data), extents=((40 * MIB, 4),)))
    os.sync()
    st = (ground.root / "sparse").stat()

    assert st.st_size == 64 * MIB
    assert st.st_blocks * 512 <= 8192


def test_hard_links_keep_a_true_manifest(ground: Ground) -> None:
    lay(
        ground,
        file("n/one", b"x"),
        hardlink("n/two", "n/one"),
        hardlink("n/three", "n/two"),
        hardlink("plain", "n/one"),
        hardlink("d/large", "large"),
        file("two", b"no longer one"),
    )

    assert (ground.root / "n/one").stat().st_nlink == 4
    assert (ground.root / "one").stat().st_nlink == 1


@pytest.mark.parametrize("gone", [whiteout("two"), whiteout("d"), opaque("d")])
def test_other_names_of_what_is_removed_keep_a_true_manifest(ground: Ground, gone: Member) -> None:
    (ground.base / "d/plain").hardlink_to(ground.base / "plain")
    lay(ground, gone)

    assert (ground.root / ("one" if gone.path == b"two" else "plain")).stat().st_nlink == 1


def test_devices_sockets_and_odd_names(ground: Ground) -> None:
    lay(
        ground,
        member("null", Kind.CHAR, device=(1, 3), mode=0o666),
        member("disk", Kind.BLOCK, device=(7, 300), mode=0o660, gid=6),
        member("socket", Kind.SOCKET, mode=0o600),
        file(b"\xff\xfe\n", b"x"),
        file(b"-rf " + b"\xc3" * 251, b"x"),
        symlink(b"\xfe", b"\xff", uid=3, xattrs={b"trusted.x": b"on a symlink"}),
    )
    null, disk = (ground.root / "null").stat(), (ground.root / "disk").stat()

    assert (null.st_rdev, stat.S_IMODE(null.st_mode)) == (os.makedev(1, 3), 0o666)
    assert (disk.st_rdev, disk.st_gid) == (os.makedev(7, 300), 6)
    assert rows(ground.root)[b"\xfe"].xattrs == xattrs.digest({b"trusted.x": b"on a symlink"})


def test_second_payload_on_the_first(ground: Ground) -> None:
    same = file("new", b"x" * 5000)
    lay(ground, same, file("two", b"2"), whiteout("d"), directory("e"))
    second = Ground(ground.root.parent / "second", _snapshot)
    second.root.parent.mkdir()
    second.base = ground.root
    index(ground.root, second.root.parent / "base.manifest")
    (second.root.parent / "base.manifest").unlink()
    (ground.root.parent / "root.manifest").rename(second.root.parent / "base.manifest")
    _snapshot(second.base, second.root)

    assert lay(second, same, file("two", b"2"), directory("e")) == Counts(unchanged=3)


@pytest.mark.parametrize(
    "asked", [whiteout("d"), opaque("d"), file("d/nested/x"), whiteout("d/nested/f"), opaque("d/nested")]
)
@pytest.mark.parametrize("how", ["subvolume", "mount", "placeholder"])
def test_nested_subvolumes_and_mounts_are_refused(ground: Ground, asked: Member, how: str) -> None:
    nested = ground.base / "d/nested"
    if how == "placeholder":
        command("btrfs", "subvolume", "create", nested)
    ground.start()
    nested = ground.root / "d/nested"
    if how == "subvolume":
        command("btrfs", "subvolume", "create", nested)
    elif how == "mount":
        nested.mkdir()
        command("mount", "-t", "tmpfs", "tmpfs", nested)
    if how != "placeholder":
        (nested / "f").write_text("precious")
    with pytest.raises(HostileError):
        ground.lay(asked)

    assert how == "placeholder" or (nested / "f").read_text() == "precious"
    assert b"d/nested" not in rows(ground.root)


def test_full_filesystem(make_btrfs: MakeBtrfs) -> None:
    ground = Ground(make_btrfs(size=128 * MIB), _snapshot)
    command("btrfs", "subvolume", "create", ground.base)
    members = [file(f"fill/{number}", os.urandom(4 * MIB)) for number in range(40)]
    with pytest.raises(NoSpaceError, match=r"fill/\d+: the filesystem is full") as caught:
        ground.lay(*members)

    assert "prune" in caught.value.hint


def test_full_quota(ground: Ground) -> None:
    command("btrfs", "quota", "enable", ground.base)
    ground.start()
    command("btrfs", "qgroup", "limit", "20M", ground.root)
    with pytest.raises(NoSpaceError, match="quota"):
        ground.lay(*(file(f"fill/{number}", os.urandom(4 * MIB)) for number in range(10)))


def test_readonly_tree(ground: Ground) -> None:
    ground.start()
    command("btrfs", "property", "set", ground.root, "ro", "true")
    for asked in (
        file("new"),
        file("plain"),
        whiteout("plain"),
        directory("d", mode=0o700),
        symlink("s", "x"),
    ):
        with pytest.raises(ReadOnlyError):
            ground.lay(asked)


def test_an_immutable_file_is_named_with_the_cure(ground: Ground) -> None:
    ground.start()
    command("chattr", "+i", ground.root / "plain")
    try:
        with pytest.raises(StorageError, match="plain: Operation not permitted") as caught:
            ground.lay(file("plain", b"new"))
    finally:
        command("chattr", "-i", ground.root / "plain")
    assert "chattr -i" in caught.value.hint


def test_real_update_by_the_rules_of_oci(btrfs: Path, tmp_path: Path) -> None:
    """Three thousand files of this machine, judged by a second implementation of the rules."""
    source, base, root = btrfs / "source", btrfs / "base", btrfs / "root"
    workload.make_base(source, 3000)
    command("btrfs", "subvolume", "create", base)
    command("cp", "-a", "--reflink=always", f"{source}/.", base)
    made = workload.make_overlay(base, tmp_path / "overlay", 1500, 7)
    workload.pack(tmp_path / "overlay", tmp_path / "payload.tar")
    index(base, btrfs / "old")
    _snapshot(base, root)
    counts = _apply_tar(base, root, btrfs, tmp_path / "payload.tar")

    assert list(oracle.differences(base, tmp_path / "overlay", root)) == []
    assert counts.unchanged >= made.unchanged
    with Manifest.open(btrfs / "new") as manifest:
        assert {row.path: row for row in every_row(manifest)} == rows(root)


def _apply_tar(base: Path, root: Path, place: Path, payload: Path) -> Counts:
    with (
        descriptor(root, os.O_RDONLY) as root_fd,
        descriptor(base, os.O_RDONLY) as base_fd,
        Manifest.fork(place / "old", place / "new") as manifest,
        payload.open("rb") as stream,
    ):
        with (
            closing(Base(base_fd, manifest)) as known,
            Writer(root_fd, base_fd, manifest) as writer,
        ):
            writer.write(sift(read_tar(stream), known))
            with reading_back(root_fd, manifest):
                counts = writer.finish()
        system.syncfs(root_fd)
    return counts
