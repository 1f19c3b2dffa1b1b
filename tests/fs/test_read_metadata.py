"""A tar and the directory it was made from are the same payload, to the last attribute."""

from __future__ import annotations

import os
import random
import subprocess
from pathlib import Path

import pytest

from snaptx.errors import SourceError
from snaptx.model import Kind, Member
from snaptx.overlay import acl, xattrs
from snaptx.overlay.limits import Limits
from snaptx.overlay.payload import open_payload
from snaptx.overlay.tar import read_tar
from snaptx.overlay.tree import read_tree
from tests import tars
from tests.fs.conftest import command
from tests.specials import MAKERS

GNU = ["tar", "--format=pax", "--sparse", "--acls", "--xattrs"]
BSD = ["bsdtar", "--format=pax", "--xattrs", "--acls"]
NO_SYSTEM = [f"--xattrs-include={space}.*" for space in ("user", "security", "trusted")]
WRITERS = {
    "GNU tar": [*GNU, "--xattrs-include=*"],
    "GNU tar, ACLs as text": [*GNU, *NO_SYSTEM],
    "GNU tar, numbers": [*GNU, "--xattrs-include=*", "--numeric-owner", "--sparse-version=0.1"],
    "bsdtar": BSD,
}

Seen = dict[bytes, tuple[Member, bytes]]


def _tree(root: Path) -> None:
    """Fill ``root`` with one of everything, ACLs for people with a name and a default ACL among it."""
    rng = random.Random(11)
    for maker in MAKERS:
        maker(os.fsencode(root / f"{maker.__name__}"), rng)
    command("setfacl", "-m", "u:daemon:rwx,g:mail:r-x,g:4711:---", root / "text")
    (root / "with-default").mkdir()
    command("setfacl", "-d", "-m", "u:daemon:rwx,u:1234:r--", root / "with-default")
    command("setfacl", "-d", "-m", "o::---", root / "deep")
    os.mknod(root / "null", 0o20666, os.makedev(1, 3))
    os.chown(root / "null", 3, 4_000_000_000)
    os.setxattr(root / "text", b"user.a=b %41\xc3\xa9", b"1")
    for number, name in enumerate(sorted(os.listdir(root))):
        # None before 1970: libarchive writes -1.5 seconds as -2.5.
        times = (0, 1_700_000_000_123_456_789 - number * 10**16)
        os.utime(root / name, ns=times, follow_symlinks=False)


def _directory(root: Path) -> Seen:
    fd = os.open(root, os.O_RDONLY)
    try:
        return {m.path: (m, tars.content(m)) for m in read_tree(fd, Limits(allow_devices=True))}
    finally:
        os.close(fd)


def _archive(writer: list[str], root: Path) -> Seen:
    with subprocess.Popen([*writer, "-C", root, "-cf", "-", "."], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        members = read_tar(process.stdout, Limits(allow_devices=True))
        found = {member.path: (member, tars.content(member)) for member in members}
    assert process.returncode == 0
    found.pop(b"")
    return found


def _groups(seen: Seen) -> set[frozenset[bytes]]:
    """Return which names are one inode: which of them is the file depends on who walks."""
    groups: dict[bytes, set[bytes]] = {}
    for path, (member, _) in seen.items():
        if member.kind is Kind.HARDLINK:
            groups.setdefault(member.link, {member.link}).add(path)
    return {frozenset(group) for group in groups.values()}


def _comparable(seen: Seen) -> dict[bytes, object]:
    """Return what has to be equal of every path that is not one of several names of an inode."""
    linked = frozenset().union(*_groups(seen))
    found: dict[bytes, object] = {}
    for path, (m, content) in seen.items():
        owner = (oct(m.mode), m.uid, m.gid)
        if path not in linked:
            found[path] = (m.kind, owner, m.mtime_ns, m.link, m.device, dict(m.xattrs), m.size, content)
    return found


@pytest.mark.parametrize("writer", WRITERS.values(), ids=WRITERS.keys())
def test_an_archive_is_what_its_directory_is(btrfs: Path, writer: list[str]) -> None:
    _tree(btrfs)

    directory, archive = _directory(btrfs), _archive(writer, btrfs)

    assert sorted(archive) == sorted(directory)
    expected, found = _comparable(directory), _comparable(archive)
    assert {path for path in expected if expected[path] != found.get(path)} == set()
    assert _groups(archive) == _groups(directory)


def test_the_sample_holds_what_is_compared(btrfs: Path) -> None:
    _tree(btrfs)

    seen = _directory(btrfs)

    names = {name for member, _ in seen.values() for name in member.xattrs}
    assert {b"security.capability", b"trusted.note", b"user.empty", xattrs.ACCESS, xattrs.DEFAULT} <= names
    assert {member.kind for member, _ in seen.values()} == set(Kind) - {
        Kind.BLOCK, Kind.SOCKET, Kind.WHITEOUT, Kind.OPAQUE,
    }  # fmt: skip
    assert any(member.mtime_ns % 10**9 for member, _ in seen.values())
    assert any(member.mode & 0o6000 for member, _ in seen.values())
    assert sum(member.extents is not None for member, _ in seen.values()) == 1
    assert any(entry.tag == acl.GROUP for entry in acl.decode(seen[b"text"][0].xattrs[xattrs.ACCESS]))


@pytest.mark.parametrize("writer", WRITERS.values(), ids=WRITERS.keys())
def test_holes_survive(btrfs: Path, writer: list[str]) -> None:
    _tree(btrfs)

    (expected, data), (found, content) = _directory(btrfs)[b"sparse"], _archive(writer, btrfs)[b"sparse"]

    assert expected.extents
    assert content == data
    assert found.extents is not None
    assert [pair for pair in found.extents if pair[0] < 2 << 20][:2] == list(expected.extents)[:2]


def test_overlayfs_whiteouts_are_understood(btrfs: Path) -> None:
    (btrfs / "dir").mkdir()
    os.setxattr(btrfs / "dir", "trusted.overlay.opaque", b"y")
    os.mknod(btrfs / "gone", 0o20000, os.makedev(0, 0))
    os.link(btrfs / "gone", btrfs / "also-gone")

    expected = [
        (b"also-gone", Kind.WHITEOUT),
        (b"dir", Kind.DIRECTORY),
        (b"dir", Kind.OPAQUE),
        (b"gone", Kind.WHITEOUT),
    ]
    with open_payload(str(btrfs)) as payload:
        assert [(member.path, member.kind) for member in payload.members] == expected


def test_a_mount_point_inside_is_refused(btrfs: Path) -> None:
    (btrfs / "proc").mkdir()
    (btrfs / "before").touch()
    command("mount", "-t", "tmpfs", "tmpfs", btrfs / "proc")

    with pytest.raises(SourceError, match="mount point inside the payload: proc") as caught:
        _directory(btrfs)

    assert "unmount" in caught.value.hint
