"""Archives that are cut, damaged, or made to do harm."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from snaptx.errors import HostileError, LimitError, SnaptxError, SourceError
from snaptx.model import Kind
from snaptx.overlay.limits import Limits
from tests import tars
from tests.tars import BLOCK, END, extended, file, header, members, padded, record

BASE256 = b"\xff" * 12


def _sparse_one(flat: list[int], real: int, data: bytes) -> bytes:
    """Return a member in GNU's sparse format 1.0."""
    numbers = [len(flat) // 2, *flat]
    body = padded(b"".join(b"%d\n" % number for number in numbers)) + data
    records = [(b"GNU.sparse.major", b"1"), (b"GNU.sparse.minor", b"0"), (b"GNU.sparse.name", b"holes")]
    records.append((b"GNU.sparse.realsize", b"%d" % real))
    return extended(records) + header(b"x", size=len(body)) + padded(body)


def _sparse_old(flat: list[int], real: int, data: bytes, more: bytes = b"") -> bytes:
    """Return a member in the old GNU format; the area of the map starts at byte 386."""
    area = b"".join(b"%011o\0" % number for number in flat).ljust(96, b"\0")
    tail = bytes(41) + area + (b"\1" if more else b"\0") + b"%011o\0" % real
    return header(b"holes", b"S", len(data), magic=b"ustar  \0", tail=tail) + more + padded(data)


def _long(flag: bytes, name: bytes) -> bytes:
    """Return GNU tar's header for a long name (L) or link (K)."""
    return header(b"././@LongLink", flag, len(name) + 1) + padded(name + b"\0")


def _everything() -> bytes:
    """Return one archive with every kind of header the reader knows, without its end marker."""
    attributes = [
        (b"SCHILY.xattr.user.a", b"value\n"),
        (b"LIBARCHIVE.xattr.user.b", b"cQ"),
        (b"RHT.security.selinux", b"u:r:t"),
        (b"SCHILY.acl.access", b"user::rwx,user:root:r-x:0,group::r-x,mask::r-x,other::---"),
        (b"mtime", b"1795381509.752876579"),
    ]
    return b"".join(
        (
            extended([(b"comment", b"all")], b"g"),
            header(b"./", b"5"),
            extended(attributes) + file(b"usr/file", b"some data" * 100),
            _long(b"L", b"l" * 150 + b"/" + b"m" * 148) + file(b"l", b"1"),
            _long(b"K", b"t" * 200) + header(b"s", b"2", link=b"t"),
            header(b"hard", b"1", link=b"usr/file"),
            header(b"fifo", b"6") + header(b"null", b"3", device=(b"0000001", b"0000003")),
            header(b"big", uid=b"\x80\0\0\0\xee\0\0\0", mtime=b"\xff" * 11 + b"\xfe"),
            _sparse_one([0, 512, 4096, 5], 10_000, b"d" * 517),
            _sparse_old([512, 512], 2048, b"e" * 512),
            file(b"etc/.wh.gone") + file(b"var/.wh..wh..opq"),
            file(b"last", b"x" * 700),
        )
    )


def test_the_sample_is_sound() -> None:
    found = members(_everything() + END)

    assert len(found) == 13
    assert {member.kind for member, _ in found} == set(Kind) - {Kind.SOCKET, Kind.BLOCK}
    by_path = {member.path: content for member, content in found}
    assert by_path[b"holes"] == bytes(512) + b"e" * 512 + bytes(1024)


def _cuts() -> list[int]:
    end = len(_everything())
    odd = [1, 100, 511, 513, 1000, end - 1, end - 300]
    marker = [end + 1, end + 511, end + BLOCK + 1, end + 2 * BLOCK - 1]
    return sorted({*range(0, end + 1, BLOCK), *odd, *marker})


@pytest.mark.parametrize("cut", _cuts())
def test_a_tar_cut_anywhere_is_never_taken_for_whole(cut: int) -> None:
    with pytest.raises(SourceError, match=r"truncated|malformed"):
        members((_everything() + END)[:cut])


@pytest.mark.parametrize("blocks", [1, 2, 3, 20])
def test_one_block_of_zeros_is_an_end_and_more_do_no_harm(blocks: int) -> None:
    assert len(members(_everything() + bytes(blocks * BLOCK))) == 13


def test_nothing_but_zeros_is_an_empty_archive() -> None:
    assert members(END) == []


@pytest.mark.parametrize(
    ("archive", "message"),
    [
        (b"", "empty"),
        (b"#!/bin/sh\n" * 100, "no tar archive"),
        (b"\0" * 100, "truncated"),
        (file(b"a") + b"garbage" * 100 + END, "checksum"),
        (file(b"a") + END + file(b"b") + END, "data after the end"),
        (file(b"a") + END + bytes(BLOCK * 3) + b"x".ljust(BLOCK, b"\0"), "data after the end"),
        (extended([(b"path", b"x")]) + END, "without a member"),
        (extended([(b"path", b"x")], b"g") + END, "global"),
        (header(b"", b"0") + END, "without a name"),
        (header(b"x", b"D") + END, "unknown type"),
        (header(b"x", b"M") + END, "unknown type"),
        (header(b"x", b"Z") + END, "unknown type"),
    ],
)
def test_what_is_no_archive_is_called_so(archive: bytes, message: str) -> None:
    with pytest.raises(SourceError, match=message) as caught:
        members(archive)

    assert caught.value.hint


def test_every_bit_of_a_header_is_under_its_checksum() -> None:
    archive = bytearray(file(b"name", b"x") + END)
    for position in range(345):
        archive[position] ^= 0x01
        with pytest.raises(SourceError):
            members(bytes(archive))
        archive[position] ^= 0x01


HOSTILE: dict[str, bytes] = {
    "absolute": file(b"/etc/passwd"),
    "dotdot": file(b"a/../../etc/passwd"),
    "prefix with dotdot": header(b"passwd", tail=b"../../etc"),
    "absolute by prefix": header(b"etc/passwd", tail=b"/"),
    "long name": _long(b"L", b"n" * 256) + file(b"n"),
    "NUL in the path": extended([(b"path", b"a\0b")]) + file(b"a"),
    "dotdot in the extended header": extended([(b"path", b"../x")]) + file(b"x"),
    "dotdot in the sparse name": extended([(b"GNU.sparse.name", b"../x")]) + file(b"x"),
    "file as the root": file(b"./"[:1]),
    "symlink as the root": header(b".", b"2", link=b"/"),
    "symlink to nothing": header(b"x", b"2"),
    "symlink of 4096 bytes": extended([(b"linkpath", b"t" * 4096)]) + header(b"x", b"2"),
    "symlink with NUL": extended([(b"linkpath", b"a\0b")]) + header(b"x", b"2"),
    "hard link to an absolute path": header(b"x", b"1", link=b"/etc/shadow"),
    "hard link with dotdot": header(b"x", b"1", link=b"../etc/shadow"),
    "hard link to the root": header(b"x", b"1", link=b"./"),
    "hard link to itself": header(b"x", b"1", link=b"./x"),
    "hard link to a whiteout": header(b"x", b"1", link=b"a/.wh.b"),
    "negative size": header(b"x", size=BASE256),
    "directory with data": header(b"x", b"5", 512) + bytes(512),
    "old directory with data": header(b"x/", b"0", 512) + bytes(512),
    "hard link with data": header(b"x", b"1", 5, link=b"y") + padded(b"12345"),
    "symlink with data": header(b"x", b"2", 5, link=b"y") + padded(b"12345"),
    "extended header of 2 MiB": header(b"x", b"x", 2 << 20) + bytes(2 << 20) + file(b"x"),
    "extended header of negative size": header(b"x", b"x", BASE256) + file(b"x"),
    "two extended headers": extended([(b"uid", b"1")]) * 2 + file(b"x"),
    "extended header and long name": extended([(b"path", b"a")]) + _long(b"L", b"b") + file(b"x"),
    "two long names": _long(b"L", b"b") * 2 + file(b"x"),
    "global path": extended([(b"path", b"all")], b"g") + file(b"x"),
    "one part of many": extended([(b"GNU.volume.label", b"l"), (b"GNU.volume.offset", b"512")], b"g")
    + file(b"x"),
    "global size": extended([(b"size", b"0")], b"g") + file(b"x"),
    "global headers without end": b"".join(
        extended([(b"k%d" % n, b"v" * 500_000)], b"g") for n in range(3)
    ) + file(b"x"),
    "whiteout of nothing": file(b"a/.wh."),
    "whiteout of dotdot": file(b"a/.wh..."),
    "whiteout with data": file(b"a/.wh.b", b"data"),
    "whiteout that is a directory": header(b"a/.wh.b", b"5"),
    "whiteout that is a device": header(b"a/.wh.b", b"3", device=(b"1", b"3")),
    "below a whiteout": file(b"a/.wh.b/c"),
    "sparse overlap": _sparse_one([0, 512, 100, 5], 10_000, b"d" * 517),
    "sparse beyond its size": _sparse_one([0, 512, 9_999, 5], 10_000, b"d" * 517),
    "sparse with too little data": _sparse_one([0, 512, 4096, 600], 10_000, b"d" * 517),
    "sparse with too much data": _sparse_one([0, 512], 10_000, b"d" * 517),
    "old sparse overlap": _sparse_old([0, 512, 0, 512], 2048, b"e" * 1024),
    "old sparse beyond its size": _sparse_old([2048, 512], 2048, b"e" * 512),
    "old sparse negative": header(
        b"h", b"S", magic=b"ustar  \0", tail=bytes(41) + BASE256 * 2 + bytes(73) + b"%011o" % 10
    ),
}  # fmt: skip


@pytest.mark.parametrize("archive", HOSTILE.values(), ids=HOSTILE.keys())
def test_the_hostile_is_refused_as_such(archive: bytes) -> None:
    with pytest.raises(HostileError) as caught:
        members(archive + END)

    assert caught.value.hint


DAMAGED: dict[str, bytes] = {
    "record too long": tars.header(b"p", b"x", 8) + padded(b"99 a=bc\n") + file(b"x"),
    "record too short": tars.header(b"p", b"x", 8) + padded(b"4 a=bcd\n") + file(b"x"),
    "record of length zero": tars.header(b"p", b"x", 8) + padded(b"0 a=bcd\n") + file(b"x"),
    "record without a length": tars.header(b"p", b"x", 8) + padded(b"abc=def\n") + file(b"x"),
    "record with a signed length": tars.header(b"p", b"x", 8) + padded(b"+8 a=bc\n") + file(b"x"),
    "record without a key": extended([(b"", b"x")]) + file(b"x"),
    "record without =": tars.header(b"p", b"x", 7) + padded(b"7 abcd\n") + file(b"x"),
    "size of 2^63": extended([(b"size", b"9223372036854775808")]) + file(b"x"),
    "size of many digits": extended([(b"size", b"9" * 5000)]) + file(b"x"),
    "negative size in words": extended([(b"size", b"-1")]) + file(b"x"),
    "size in octal with an 8": header(b"x", size=b"00000000008"),
    "size with an underscore": header(b"x", size=b"0000000_001"),
    "size of 2^64 in base-256": header(b"x", size=b"\x80\0\0\1" + bytes(8)),
    "owner -1": extended([(b"uid", b"4294967295")]) + file(b"x"),
    "owner beyond 32 bits": extended([(b"gid", b"4294967296")]) + file(b"x"),
    "negative owner": header(b"x", uid=b"\xff" * 8),
    "time that is none": extended([(b"mtime", b"1e9")]) + file(b"x"),
    "time to no power of ten": extended([(b"mtime", b"1e-")]) + file(b"x"),
    "time to two powers of ten": extended([(b"mtime", b"1e-1e-1")]) + file(b"x"),
    "time to a great power of ten": extended([(b"mtime", b"1e-" + b"9" * 5000)]) + file(b"x"),
    "time with a long mantissa": extended([(b"mtime", b"12.5e-3")]) + file(b"x"),
    "time out of range": extended([(b"mtime", b"9999999999")]) + file(b"x"),
    "fraction that is none": extended([(b"mtime", b"1.x")]) + file(b"x"),
    "device out of range": header(b"x", b"3", device=(b"7777777", b"0")),
    "attribute without a name": extended([(b"SCHILY.xattr.user.", b"1")]) + file(b"x"),
    "attribute of no namespace": extended([(b"SCHILY.xattr.com.apple.x", b"1")]) + file(b"x"),
    "attribute with a long name": extended([(b"SCHILY.xattr.user." + b"n" * 300, b"1")]) + file(b"x"),
    "attribute of 70 kB": extended([(b"SCHILY.xattr.user.n", b"1" * 70_000)]) + file(b"x"),
    "attribute with NUL in its name": extended([(b"LIBARCHIVE.xattr.user.%00", b"cQ")]) + file(b"x"),
    "attribute that is no base64": extended([(b"LIBARCHIVE.xattr.user.n", b"c!Q")]) + file(b"x"),
    "ACL of NFSv4": extended([(b"SCHILY.acl.ace", b"owner@:rw:allow")]) + file(b"x"),
    "ACL that is none": extended([(b"SCHILY.acl.access", b"user::rwx")]) + file(b"x"),
    "binary ACL that is none": extended([(b"SCHILY.xattr.system.posix_acl_access", b"\2\0")]) + file(b"x"),
    "sparse without its size": extended([(b"GNU.sparse.map", b"0,1")]) + file(b"x", b"1"),
    "sparse format 2": extended([(b"GNU.sparse.major", b"2"), (b"GNU.sparse.minor", b"0")]) + file(b"x"),
    "sparse map without end": _sparse_one([0, 0], 5, b"").replace(b"1\n0\n0\n", b"999999"),
    "sparse map of many extents": _sparse_one([0, 0], 5, b"").replace(b"1\n0\n0\n", b"99999\n"),
    "old sparse map without end": _sparse_old([0, 0], 0, b"", (b"0" * 504 + b"\1" + bytes(7)) * 3300),
    "sparse offsets out of turn": tars.header(b"p", b"x", 52)
    + padded(record(b"GNU.sparse.offset", b"0") * 2) + file(b"x"),
}  # fmt: skip


@pytest.mark.parametrize("archive", DAMAGED.values(), ids=DAMAGED.keys())
def test_the_damaged_is_refused(archive: bytes) -> None:
    with pytest.raises(SourceError) as caught:
        members(archive + END)

    assert not isinstance(caught.value, LimitError)
    assert caught.value.hint


@pytest.mark.parametrize(
    ("flag", "cure"),
    [(b"D", "--listed-incremental"), (b"M", "--multi-volume"), (b"Z", "GNU tar or bsdtar")],
)
def test_a_member_that_can_not_be_read_comes_with_what_to_do_about_it(flag: bytes, cure: str) -> None:
    with pytest.raises(SourceError) as caught:
        members(header(b"x", flag, 8) + padded(b"Yname\0\0") + END)

    assert cure in str(caught.value.hint)


def test_an_error_says_where() -> None:
    with pytest.raises(HostileError, match=r"path with \.\.: a/\.\./b \(tar header at byte 1024\)"):
        members(file(b"ok", b"x") + file(b"a/../b") + END)


@pytest.mark.parametrize(
    ("limits", "setting"),
    [
        (Limits(max_files=2), "max_files"),
        (Limits(max_file_bytes=99), "max_file_bytes"),
        (Limits(max_bytes=250), "max_bytes"),
    ],
)
def test_limits_are_kept_and_named(limits: Limits, setting: str) -> None:
    archive = b"".join(file(b"f%d" % number, b"x" * 100) for number in range(3)) + END

    with pytest.raises(LimitError) as caught:
        members(archive, limits)

    assert setting in caught.value.hint
    assert len(members(archive, Limits(max_files=3, max_file_bytes=100, max_bytes=300))) == 3


def test_a_sparse_bomb_meets_the_limits() -> None:
    with pytest.raises(LimitError):
        members(_sparse_one([0, 5], 1 << 50, b"12345") + END)


def test_devices_come_in_only_when_allowed() -> None:
    archive = header(b"sda", b"4", device=(b"10", b"0")) + END

    assert members(archive, Limits(allow_devices=True))[0][0].device == (8, 0)
    with pytest.raises(HostileError, match="device") as caught:
        members(archive, Limits())
    assert "--allow-devices" in caught.value.hint


def _tarfile_sample() -> bytes:
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name in ("a", "b" * 300, "c/\u00e9"):
            info = tarfile.TarInfo(name)
            info.size, info.mtime = 100, 1.5
            archive.addfile(info, io.BytesIO(b"x" * 100))
    return target.getvalue()[: 10 * BLOCK] + END


SAMPLES: list[Callable[[], bytes]] = [lambda: _everything() + END, _tarfile_sample]


@settings(max_examples=400, deadline=None)
@given(
    sample=st.sampled_from([make() for make in SAMPLES]),
    flips=st.lists(st.tuples(st.integers(0, 1 << 30), st.integers(0, 255)), min_size=1, max_size=6),
    mend=st.booleans(),
)
def test_no_damage_causes_anything_but_an_error_of_ours(
    sample: bytes, flips: list[tuple[int, int]], mend: bool
) -> None:
    damaged = bytearray(sample)
    for position, value in flips:
        position %= len(damaged)
        damaged[position] = value
        if mend and (position % BLOCK < 148 or damaged[position - position % BLOCK + 257 :][:5] == b"ustar"):
            start = position - position % BLOCK
            damaged[start : start + BLOCK] = tars.seal(bytes(damaged[start : start + BLOCK]))
    try:
        members(bytes(damaged))
    except SnaptxError as error:
        hint = error.hint
    else:
        return
    assert hint
