from __future__ import annotations

import os
import resource
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from snaptx.errors import HostileError, LimitError, SourceError
from snaptx.model import Kind, Member
from snaptx.overlay.limits import Limits
from snaptx.overlay.tree import read_tree
from tests import tars


@contextmanager
def walk(root: Path, limits: Limits | None = None) -> Iterator[Iterator[Member]]:
    """Open ``root`` and read it as a payload."""
    fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield read_tree(fd, limits)
    finally:
        os.close(fd)


def read(root: Path, limits: Limits | None = None) -> list[tuple[Member, bytes]]:
    """Return all members with their data."""
    with walk(root, limits) as members:
        return [(member, tars.content(member)) for member in members]


def test_the_order_is_fixed_and_parents_come_first(tmp_path: Path) -> None:
    for name in ("b/z", "b/a/deep", "a", "b-/x", "Z"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())

    found = read(tmp_path)

    paths = [member.path for member, _ in found]
    assert paths == [b"Z", b"a", b"b", b"b-", b"b/a", b"b/z", b"b/a/deep", b"b-/x"]
    assert dict(zip(paths, (content for _, content in found), strict=True))[b"b/a/deep"] == b"b/a/deep"


def test_every_kind_comes_with_its_metadata(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo", 0o600)
    (tmp_path / "dir").mkdir()
    (tmp_path / "file").write_bytes(b"data")
    os.chmod(tmp_path / "dir", 0o1750)
    os.chmod(tmp_path / "file", 0o4711)
    os.utime(tmp_path / "file", ns=(0, -1_500_000_001))
    os.symlink(b"/nowhere/\xff", bytes(tmp_path / "link"))
    with socket.socket(socket.AF_UNIX) as server:
        directory = os.open(tmp_path, os.O_RDONLY)
        server.bind(f"/proc/self/fd/{directory}/socket")
        os.close(directory)

    found = {member.path: member for member, _ in read(tmp_path)}

    assert set(found) == {b"fifo", b"dir", b"file", b"link"}
    assert (found[b"dir"].kind, found[b"dir"].mode) == (Kind.DIRECTORY, 0o1750)
    assert (found[b"link"].kind, found[b"link"].link) == (Kind.SYMLINK, b"/nowhere/\xff")
    assert (found[b"fifo"].kind, found[b"fifo"].mode) == (Kind.FIFO, 0o600)
    file = found[b"file"]
    assert (file.kind, file.mode, file.mtime_ns, file.size) == (Kind.FILE, 0o4711, -1_500_000_001, 4)
    assert (file.uid, file.gid) == (os.getuid(), os.stat(tmp_path / "file").st_gid)


def test_names_of_one_inode_are_hard_links_whatever_it_is(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"data")
    (tmp_path / "sub").mkdir()
    os.symlink("a", tmp_path / "link")
    for source, target in (("a", "b"), ("a", "sub/c"), ("link", "sub/link")):
        os.link(tmp_path / source, tmp_path / target, follow_symlinks=False)

    found = {member.path: (member.kind, member.link) for member, _ in read(tmp_path)}

    assert found == {
        b"a": (Kind.FILE, b""),
        b"b": (Kind.HARDLINK, b"a"),
        b"link": (Kind.SYMLINK, b"a"),
        b"sub": (Kind.DIRECTORY, b""),
        b"sub/c": (Kind.HARDLINK, b"a"),
        b"sub/link": (Kind.HARDLINK, b"link"),
    }


def test_whiteouts_by_name_are_honoured(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    for name in (".wh.top", "etc/.wh..wh..opq", "etc/.wh.gone", ".wh..wh.aufs"):
        (tmp_path / name).touch()
    os.link(tmp_path / ".wh.top", tmp_path / "etc/.wh.linked")

    found = [(member.path, member.kind) for member, _ in read(tmp_path)]

    assert found == [
        (b"top", Kind.WHITEOUT),
        (b"etc", Kind.DIRECTORY),
        (b"etc", Kind.OPAQUE),
        (b"etc/gone", Kind.WHITEOUT),
        (b"etc/linked", Kind.WHITEOUT),
    ]


def test_an_empty_file_may_share_its_inode_with_a_whiteout(tmp_path: Path) -> None:
    (tmp_path / ".wh.gone").touch(mode=0o640)
    for name in ("empty", "other"):
        os.link(tmp_path / ".wh.gone", tmp_path / name)

    found = [(member.path, member.kind, member.mode, member.link) for member, _ in read(tmp_path)]

    assert found == [
        (b"gone", Kind.WHITEOUT, 0, b""),
        (b"empty", Kind.FILE, 0o640, b""),
        (b"other", Kind.HARDLINK, 0, b"empty"),
    ]


def test_a_whiteout_that_is_a_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / ".wh.dir").mkdir()

    with pytest.raises(HostileError):
        read(tmp_path)


def test_a_deep_tree_needs_few_descriptors(tmp_path: Path) -> None:
    tmp_path.joinpath(*["d"] * 200).mkdir(parents=True)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(map(int, os.listdir("/proc/self/fd")))
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 10, hard))
    try:
        assert len(read(tmp_path)) == 200
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_path_beyond_4095_bytes_is_refused(tmp_path: Path) -> None:
    fd = os.open(tmp_path, os.O_RDONLY)
    for _ in range(17):
        os.mkdir("d" * 250, dir_fd=fd)
        below = os.open("d" * 250, os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    os.close(fd)

    with pytest.raises(HostileError, match="4095"):
        read(tmp_path)


@pytest.mark.parametrize("change", ["shrink", "grow", "rewrite"])
def test_a_file_that_changes_while_it_is_read_is_named(tmp_path: Path, change: str) -> None:
    path = tmp_path / "growing.log"
    path.write_bytes(b"x" * 100_000)

    with walk(tmp_path) as members:
        member = next(members)
        assert member.data is not None
        member.data.read(1000)
        if change == "shrink":
            os.truncate(path, 500)
        else:
            with path.open("ab" if change == "grow" else "r+b") as target:
                target.write(b"y" * 10)
        with pytest.raises(SourceError, match=r"growing\.log") as caught:
            list(members)

    assert caught.value.hint


def test_what_vanishes_is_named(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    (tmp_path / "b").touch()
    (tmp_path / "dir").mkdir()

    with walk(tmp_path) as members:
        next(members)
        (tmp_path / "b").unlink()
        with pytest.raises(SourceError, match="vanished: b"):
            list(members)

    with walk(tmp_path) as members:
        assert [next(members).path, next(members).path] == [b"a", b"dir"]
        (tmp_path / "dir").rmdir()
        with pytest.raises(SourceError, match="vanished: dir"):
            list(members)


def test_a_directory_that_turns_into_a_link_is_not_followed(tmp_path: Path) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    (root / "dir").mkdir(parents=True)
    outside.mkdir()
    (outside / "secret").touch()

    with walk(root) as members:
        next(members)
        (root / "dir").rmdir()
        (root / "dir").symlink_to(outside)
        with pytest.raises(SourceError):
            list(members)


def test_limits_hold_for_directories_too(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x" * 100)

    assert len(read(tmp_path, Limits(max_bytes=100))) == 1
    with pytest.raises(LimitError):
        read(tmp_path, Limits(max_bytes=99))
    with pytest.raises(LimitError):
        read(tmp_path, Limits(max_file_bytes=99))


def test_holes_are_told_and_read_as_zeros(tmp_path: Path) -> None:
    with (tmp_path / "holes").open("wb") as target:
        target.truncate(4 << 20)
        target.seek(1 << 20)
        target.write(b"x" * 65536)
    os.truncate(tmp_path / "holes", 3 << 20)

    ((member, content),) = read(tmp_path)

    assert content == bytes(1 << 20) + b"x" * 65536 + bytes((2 << 20) - 65536)
    # A filesystem that keeps no holes says that there are none.
    assert member.extents in (((1 << 20, 65536),), None)
