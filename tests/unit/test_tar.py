"""What archives of Python's tarfile, GNU tar and hand-made headers say is what the reader says."""

from __future__ import annotations

import io
import math
import os
import subprocess
import tarfile
import time
from fractions import Fraction
from pathlib import Path

import pytest

from snaptx.errors import SourceError
from snaptx.model import Kind
from snaptx.overlay.tar import read_tar
from tests import tars
from tests.tars import END, extended, file, header, members, only

KINDS = {
    tarfile.REGTYPE: Kind.FILE,
    tarfile.DIRTYPE: Kind.DIRECTORY,
    tarfile.SYMTYPE: Kind.SYMLINK,
    tarfile.LNKTYPE: Kind.HARDLINK,
    tarfile.FIFOTYPE: Kind.FIFO,
    tarfile.CHRTYPE: Kind.CHAR,
    tarfile.BLKTYPE: Kind.BLOCK,
}
LONG = "directory/" * 20 + "f" * 200


def _infos() -> list[tuple[tarfile.TarInfo, bytes]]:
    found = []
    for number, (flag, name, link, data) in enumerate(
        [
            (tarfile.DIRTYPE, "usr", "", b""),
            (tarfile.REGTYPE, "usr/empty", "", b""),
            (tarfile.REGTYPE, "usr/block", "", b"x" * 512),
            (tarfile.REGTYPE, "usr/large", "", os.urandom(1 << 20)),
            (tarfile.REGTYPE, "usr/\udcff\udcfe", "", b"not UTF-8"),
            (tarfile.REGTYPE, LONG, "", b"long name"),
            (tarfile.SYMTYPE, "usr/link", "../../etc/\udcff", b""),
            (tarfile.SYMTYPE, LONG + "-link", "/" + LONG, b""),
            (tarfile.LNKTYPE, "usr/hard", "usr/block", b""),
            (tarfile.LNKTYPE, LONG + "-hard", LONG, b""),
            (tarfile.FIFOTYPE, "usr/fifo", "", b""),
            (tarfile.CHRTYPE, "usr/char", "", b""),
            (tarfile.BLKTYPE, "usr/block-device", "", b""),
        ]
    ):
        info = tarfile.TarInfo(name)
        info.type, info.linkname, info.size = flag, link, len(data)
        info.mode, info.mtime = 0o4755 - number, 1_700_000_000 + number
        info.uid, info.gid = 1000 + number, 65534
        info.devmajor, info.devminor = 7, number
        found.append((info, data))
    return found


def _written(form: int, infos: list[tuple[tarfile.TarInfo, bytes]]) -> bytes:
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w", format=form, errors="surrogateescape") as archive:
        for info, data in infos:
            archive.addfile(info, io.BytesIO(data))
    return target.getvalue()


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_everything_tarfile_writes_is_read(form: int) -> None:
    infos = _infos()

    found = members(_written(form, infos))

    assert len(found) == len(infos)
    for (info, data), (member, content) in zip(infos, found, strict=True):
        devices = (Kind.CHAR, Kind.BLOCK)
        assert (member.kind, member.path) == (KINDS[info.type], os.fsencode(info.name))
        assert (member.mode, member.uid, member.gid) == (info.mode, info.uid, info.gid)
        assert member.mtime_ns == info.mtime * 10**9
        assert (member.size, content) == (len(data), data)
        assert member.link == os.fsencode(info.linkname)
        assert member.device == ((info.devmajor, info.devminor) if member.kind in devices else (0, 0))


def test_large_numbers_and_old_times_come_in_base_256() -> None:
    info = tarfile.TarInfo("x")
    info.uid, info.gid, info.mtime = 4_000_000_000, 3_000_000, -5

    ((member, _),) = members(_written(tarfile.GNU_FORMAT, [(info, b"")]))

    assert (member.uid, member.gid, member.mtime_ns) == (4_000_000_000, 3_000_000, -5 * 10**9)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"1795381509.752876579", 1795381509752876579),
        (b"1795381509.5", 1795381509500000000),
        (b"7", 7 * 10**9),
        (b"7.", 7 * 10**9),
        (b"0.0000000019", 1),
        (b"-1.5", -1_500_000_000),
        (b"-1.0000000001", -1_000_000_001),
        (b"-1.0000000000", -(10**9)),
    ],
)
def test_times_are_exact_to_the_nanosecond(text: bytes, expected: int) -> None:
    assert only(extended([(b"mtime", text)]) + file(b"x")).mtime_ns == expected


@pytest.mark.parametrize("mtime", [1e-07, 1.5e-05, 1e-09, -1e-09, 2.5e-10])
def test_the_small_times_that_tarfile_writes_as_powers_of_ten_are_read(mtime: float) -> None:
    info = tarfile.TarInfo("x")
    info.mtime = mtime

    ((member, _),) = members(_written(tarfile.PAX_FORMAT, [(info, b"")]))

    assert member.mtime_ns == math.floor(Fraction(str(mtime)) * 10**9)


def test_the_extended_header_overrides_the_header() -> None:
    records = [(b"path", b"p" * 200), (b"size", b"3"), (b"comment", b"x\ny")]
    records += [(b"uid", b"70000"), (b"gid", b"4294967294")]
    archive = extended(records) + header(b"ignored", size=99) + tars.padded(b"abc") + END

    ((member, content),) = members(archive)

    assert (member.path, member.uid, member.gid, content) == (b"p" * 200, 70000, 4294967294, b"abc")


def test_a_global_header_counts_until_it_is_taken_back() -> None:
    archive = extended([(b"uid", b"5"), (b"gid", b"6")], b"g") + file(b"a")
    archive += extended([(b"uid", b"")]) + file(b"b") + file(b"c")
    archive += extended([(b"uid", b"")], b"g") + file(b"d") + END

    assert [(m.uid, m.gid) for m, _ in members(archive)] == [(5, 6), (0, 6), (5, 6), (0, 6)]


def test_the_prefix_belongs_to_ustar_alone() -> None:
    posix = header(b"name", tail=b"some/prefix")
    gnu = header(b"name", magic=b"ustar  \0", tail=b"11111111111\0")
    old = header(b"old", magic=b"", flag=b"\0")

    assert [m.path for m, _ in members(posix + gnu + old + END)] == [b"some/prefix/name", b"name", b"old"]


def test_a_trailing_slash_makes_a_directory_as_it_did_before_types() -> None:
    assert only(header(b"dir/", b"\0")).kind is Kind.DIRECTORY


def test_volume_labels_are_passed_over() -> None:
    assert [m.path for m, _ in members(header(b"label", b"V") + file(b"x") + END)] == [b"x"]


@pytest.mark.parametrize("form", ["gnu", "posix"])
def test_the_label_of_gnu_tar_is_passed_over_in_every_format_that_has_one(tmp_path: Path, form: str) -> None:
    (tmp_path / "x").write_bytes(b"data")
    command = ["tar", "-c", f"--format={form}", "--label=root of 2026", "-C", str(tmp_path), "x"]
    archive = subprocess.run(command, check=True, capture_output=True).stdout

    ((member, content),) = members(archive)

    assert (member.path, content, dict(member.xattrs)) == (b"x", b"data", {})


@pytest.mark.parametrize(
    ("records", "expected"),
    [
        ([(b"SCHILY.xattr.user.a", b"x\ny\0")], {b"user.a": b"x\ny\0"}),
        ([(b"SCHILY.xattr.user.empty", b"")], {b"user.empty": b""}),
        ([(b"SCHILY.xattr.user.a%3Db%25", b"1")], {b"user.a=b%": b"1"}),
        ([(b"SCHILY.xattr.user.a%20b", b"1")], {b"user.a%20b": b"1"}),
        ([(b"LIBARCHIVE.xattr.user.a%20b", b"cQ")], {b"user.a b": b"q"}),
        (
            [(b"LIBARCHIVE.xattr.user.a%20b", b"cQ"), (b"SCHILY.xattr.user.a%20b", b"q")],
            {b"user.a b": b"q"},
        ),
        ([(b"RHT.security.selinux", b"u:r:t:s0")], {b"security.selinux": b"u:r:t:s0\0"}),
        (
            [(b"RHT.security.selinux", b"a"), (b"SCHILY.xattr.security.selinux", b"b\0")],
            {b"security.selinux": b"b\0"},
        ),
    ],
)
def test_extended_attributes_are_read_in_every_dialect(
    records: list[tuple[bytes, bytes]], expected: dict[bytes, bytes]
) -> None:
    assert only(extended(records) + file(b"x")).xattrs == expected


def test_whiteouts_become_members_of_their_own() -> None:
    archive = file(b"./etc/.wh.gone") + file(b"var/.wh..wh..opq") + file(b".wh..wh.aufs", b"metadata")
    archive += header(b"usr/.wh.aufs", b"1", link=b".wh..wh.aufs")
    archive += header(b"old", b"3", device=(b"0", b"0")) + END

    found = [(m.path, m.kind, m.link) for m, _ in members(archive)]

    assert found == [
        (b"etc/gone", Kind.WHITEOUT, b""),
        (b"var", Kind.OPAQUE, b""),
        (b"usr/aufs", Kind.WHITEOUT, b""),
        (b"old", Kind.WHITEOUT, b""),
    ]


def test_an_upper_directory_of_an_overlayfs_is_understood() -> None:
    overlay = b"SCHILY.xattr.trusted.overlay."
    records = [(overlay + b"opaque", b"y"), (overlay + b"origin", b"\0\1"), (b"SCHILY.xattr.user.kept", b"1")]
    archive = extended(records) + header(b"dir", b"5") + END

    directory, mark = (member for member, _ in members(archive))

    assert (directory.kind, directory.xattrs) == (Kind.DIRECTORY, {b"user.kept": b"1"})
    assert (mark.path, mark.kind) == (b"dir", Kind.OPAQUE)


def test_content_kept_in_another_layer_is_refused() -> None:
    redirect = extended([(b"SCHILY.xattr.trusted.overlay.redirect", b"/old")])

    with pytest.raises(SourceError, match="another layer") as caught:
        members(redirect + header(b"dir", b"5") + END)

    assert "merged" in caught.value.hint


def _holes(path: Path) -> bytes:
    """Make a file with more extents than one old GNU header holds, and return its content."""
    with path.open("wb") as target:
        for number in range(60):
            target.seek(number * 65536)
            target.write(b"%d" % number * 1000)
        target.truncate(60 * 65536 + 12345)
    return path.read_bytes()


@pytest.mark.parametrize(
    "form", [("gnu",), ("pax", "0.0"), ("pax", "0.1"), ("pax", "1.0"), ("oldgnu",)], ids="-".join
)
def test_holes_are_found_in_every_format_of_gnu_tar(tmp_path: Path, form: tuple[str, ...]) -> None:
    expected = _holes(tmp_path / "holes")
    (tmp_path / "only-a-hole").touch()
    os.truncate(tmp_path / "only-a-hole", 1 << 20)
    version = [f"--sparse-version={form[1]}"] if len(form) > 1 else []
    what = ["--sparse", f"--format={form[0]}", *version, "holes", "only-a-hole"]
    archive = subprocess.run(["tar", "-C", tmp_path, "-c", *what], capture_output=True, check=True).stdout

    (holes, content), (hole, zeros) = members(archive)

    assert (holes.size, content) == (len(expected), expected)
    assert holes.extents is not None
    assert len(holes.extents) == 60
    assert all(expected[end : end + 1] in (b"", b"\0") for end in map(sum, holes.extents))
    data = b"".join(expected[offset : offset + length] for offset, length in holes.extents)
    assert len(data) - data.count(0) == len(expected) - expected.count(0)
    assert (hole.size, hole.extents, zeros) == (1 << 20, (), bytes(1 << 20))


class _Trickle(io.BytesIO):
    """A stream that gives as little as it may."""

    def read(self, size: int | None = -1, /) -> bytes:
        return super().read(min(size or 0, 37))


def test_a_stream_may_give_little_at_a_time() -> None:
    archive = _written(tarfile.PAX_FORMAT, _infos()[:3])

    slow = [(m.path, tars.content(m, 7)) for m in read_tar(_Trickle(archive))]

    assert slow == [(m.path, content) for m, content in members(archive)]


def test_what_is_not_read_is_skipped_and_can_not_be_read_later() -> None:
    archive = file(b"a", b"1" * 5000) + file(b"b", b"2" * 5000) + END
    reader = read_tar(io.BytesIO(archive))
    first = next(reader)
    assert first.data is not None
    assert first.data.read(10) == b"1" * 10

    second = next(reader)

    assert tars.content(second) == b"2" * 5000
    assert first.data.read(10) == b""


def test_reading_is_several_times_faster_than_tarfile() -> None:
    infos = []
    for number in range(5000):
        info = tarfile.TarInfo(f"usr/share/d{number % 50}/file-{number}")
        info.pax_headers = dict.fromkeys(("mtime", "atime", "ctime"), "1795381509.752876579")
        infos.append((info, b""))
    archive = _written(tarfile.PAX_FORMAT, infos)

    def seconds(fast: bool) -> float:
        start = time.process_time()
        stream = io.BytesIO(archive)
        if fast:
            count = sum(1 for _ in read_tar(stream))
        else:
            with tarfile.open(fileobj=stream, mode="r|") as reader:
                count = sum(1 for _ in reader)
        assert count == len(infos)
        return time.process_time() - start

    assert min(seconds(True) for _ in range(3)) < 0.6 * min(seconds(False) for _ in range(3))
