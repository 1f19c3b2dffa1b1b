"""Tar archives made by hand, down to the byte: what no tar would write."""

from __future__ import annotations

import io
from collections.abc import Iterable

from snaptx.model import Member
from snaptx.overlay.limits import Limits
from snaptx.overlay.tar import read_tar

BLOCK = 512
END = bytes(2 * BLOCK)

# Small, so that a header made to lie can't make a test slow.
SMALL = Limits(max_bytes=8 << 20, max_file_bytes=4 << 20, max_files=1000, allow_devices=True)


def seal(block: bytes) -> bytes:
    """Put the right checksum into a header."""
    bare = block[:148] + b" " * 8 + block[156:]
    return bare[:148] + b"%06o\0 " % sum(bare) + bare[156:]


def header(
    name: bytes,
    flag: bytes = b"0",
    size: int | bytes = 0,
    *,
    link: bytes = b"",
    mode: bytes = b"0000644",
    uid: bytes = b"0000000",
    mtime: bytes = b"00000000000",
    magic: bytes = b"ustar\x0000",
    device: tuple[bytes, bytes] = (b"", b""),
    tail: bytes = b"",
) -> bytes:
    """Return one header; ``tail`` is what stands from byte 345 on, the prefix as a rule."""
    told = size if isinstance(size, bytes) else b"%011o" % size
    fields = [(name, 100), (mode, 8), (uid, 8), (b"0000000", 8), (told, 12), (mtime, 12), (b"", 8), (flag, 1)]
    fields += [(link, 100), (magic, 8), (b"root", 32), (b"root", 32)]
    fields += [(device[0], 8), (device[1], 8), (tail, 167)]
    block = b"".join(value.ljust(width, b"\0") for value, width in fields)
    assert len(block) == BLOCK
    return seal(block)


def padded(data: bytes) -> bytes:
    """Fill ``data`` up to whole blocks."""
    return data + bytes(-len(data) % BLOCK)


def file(name: bytes, data: bytes = b"") -> bytes:
    """Return a whole member: a regular file."""
    return header(name, size=len(data)) + padded(data)


def record(key: bytes, value: bytes) -> bytes:
    """Return one record of an extended header."""
    bare = len(key) + len(value) + 3
    length = bare + len(str(bare))
    length = bare + len(str(length))
    return b"%d %s=%s\n" % (length, key, value)


def extended(records: Iterable[tuple[bytes, bytes]], flag: bytes = b"x") -> bytes:
    """Return an extended header with ``records``."""
    data = b"".join(record(*pair) for pair in records)
    return header(b"PaxHeaders/0", flag, len(data)) + padded(data)


def members(archive: bytes, limits: Limits = SMALL) -> list[tuple[Member, bytes]]:
    """Read a whole archive; every member comes with all of its data."""
    return [(member, content(member)) for member in read_tar(io.BytesIO(archive), limits)]


def content(member: Member, chunk: int = 100_000) -> bytes:
    """Read the data of a member, b"" if it has none."""
    parts = []
    while member.data and (part := member.data.read(chunk)):
        parts.append(part)
    return b"".join(parts)


def only(archive: bytes) -> Member:
    """Return the one member of an archive without its end marker."""
    ((member, _),) = members(archive + END)
    return member
