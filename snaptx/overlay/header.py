"""One header block of a tar archive, and the numbers in it.

The layout is that of POSIX.1-2017 (pax, "ustar Interchange Format") and of
tar.h of GNU tar:

    0 name  100 mode  108 uid  116 gid  124 size  136 mtime  148 checksum  156 typeflag
    157 linkname  257 magic  265 uname  297 gname  329 devmajor  337 devminor  345 prefix

Everything here is pure: 512 bytes in, values out.
"""

from __future__ import annotations

import zlib
from functools import lru_cache
from struct import Struct
from typing import NamedTuple

from snaptx.errors import SourceError
from snaptx.model import Kind
from snaptx.overlay import names, pax

BLOCK = 512
KINDS = {
    b"0": Kind.FILE, b"\0": Kind.FILE, b"7": Kind.FILE, b"S": Kind.FILE,
    b"1": Kind.HARDLINK, b"2": Kind.SYMLINK, b"3": Kind.CHAR, b"4": Kind.BLOCK,
    b"5": Kind.DIRECTORY, b"6": Kind.FIFO,
}  # fmt: skip

_LAYOUT = Struct("100s24s12s12s8sc100s6s66x8s8s155s12x")
# (uid_t) -1 means "leave it" to chown(2).
_ID_MAX = 0xFFFFFFFE
# linux/kdev_t.h: 12 bits of major, 20 of minor
_MAJOR_MAX, _MINOR_MAX = 0xFFF, 0xFFFFF
_NANO = 10**9
_FILE = Kind.FILE


class Header(NamedTuple):
    """The fields as they stand; ``access`` is mode, uid and gid, of which all three mostly repeat."""

    name: bytes
    access: bytes
    size: bytes
    mtime: bytes
    checksum: bytes
    flag: bytes
    link: bytes
    magic: bytes
    major: bytes
    minor: bytes
    prefix: bytes


def parse(block: bytes) -> Header | None:
    """Return the fields of ``block``, or None if its checksum says that it is no header."""
    header = Header._make(_LAYOUT.unpack(block))
    digits = header.checksum.strip(b" \0")
    # The low half of Adler-32 is one plus the sum of the bytes, modulo 65521: a sum at the speed of C.
    total = (zlib.adler32(block[156:], zlib.adler32(block[:148])) & 0xFFFF) - 1 + 8 * 0x20
    try:
        return header if digits.isdigit() and (total - int(digits, 8)) % 65521 == 0 else None
    except ValueError:
        return None


@lru_cache(1024)
def number(field: bytes) -> int:
    """Return the value of a numeric field: octal, or base-256 as GNU tar has it.

    Raises:
        SourceError: it is neither, or does not fit into 64 bits.
    """
    digits = field.strip(b" \0")
    if not digits:
        return 0
    if digits.isdigit():
        try:
            return int(digits, 8)
        except ValueError:
            raise pax.malformed("octal number") from None
    if field[0] not in (0x80, 0xFF):
        raise pax.malformed("octal number")
    # The first byte is the mark, the rest two's complement.
    value = int.from_bytes(field[1:], "big") - (field[0] == 0xFF) * (1 << 8 * (len(field) - 1))
    if not -(1 << 63) <= value < 1 << 63:
        raise pax.malformed("number of more than 64 bits")
    return value


def text(field: bytes) -> bytes:
    """Return ``field`` up to its first NUL."""
    return field.partition(b"\0")[0]


def stored_name(header: Header) -> bytes:
    """Return the name in the header itself; only ustar proper has a prefix."""
    name = text(header.name)
    if header.prefix[0] and header.magic == b"ustar\0":
        return text(header.prefix) + b"/" + name
    return name


def size(header: Header, records: pax.Records, kind: Kind, name: bytes) -> int:
    """Return how many bytes of data follow; only a file may have any."""
    told = records.get(b"size")
    value = pax.number(told) if told else number(header.size)
    if value < 0 or (value and kind is not _FILE):
        raise names.hostile(f"{kind} with a size of {value} bytes", name)
    return value


def mtime_ns(header: Header, records: pax.Records) -> int:
    """Return the time of modification in nanoseconds since the epoch."""
    told = records.get(b"mtime")
    return pax.nanoseconds(told) if told else _time(header.mtime)


@lru_cache(1024)
def _time(field: bytes) -> int:
    value = number(field) * _NANO
    if not -(1 << 63) <= value < 1 << 63:
        raise pax.malformed("time out of range")
    return value


@lru_cache(1024)
def access(field: bytes, uid: bytes | None, gid: bytes | None) -> tuple[int, int, int]:
    """Return mode, user and group id; ``uid`` and ``gid`` are what the extended header says."""
    return number(field[:8]) & 0o7777, _owner(field[8:16], uid), _owner(field[16:], gid)


def _owner(field: bytes, told: bytes | None) -> int:
    value = pax.number(told) if told else number(field)
    if not 0 <= value <= _ID_MAX:
        raise SourceError(f"impossible user or group id {value}", hint="make the payload anew")
    return value


def device(header: Header, records: pax.Records) -> tuple[int, int]:
    """Return major and minor of a device node."""
    told = records.get(b"SCHILY.devmajor"), records.get(b"SCHILY.devminor")
    major = pax.number(told[0]) if told[0] else number(header.major)
    minor = pax.number(told[1]) if told[1] else number(header.minor)
    if not (0 <= major <= _MAJOR_MAX and 0 <= minor <= _MINOR_MAX):
        raise SourceError(f"impossible device {major}:{minor}", hint="make the payload anew")
    return major, minor
