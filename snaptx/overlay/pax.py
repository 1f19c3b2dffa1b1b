"""Extended headers of tar archives: records of text that say what a header has no room for.

The format is POSIX.1-2017, pax, "pax Extended Header": ``LENGTH KEY=VALUE\\n``,
the length in decimal and counting itself.  Extended attributes come in the
dialects of star and GNU tar (``SCHILY.xattr.NAME``, raw value), libarchive
(``LIBARCHIVE.xattr.NAME``, name URL-encoded, value in base64 without padding)
and Red Hat (``RHT.security.selinux``); ACLs as text (``SCHILY.acl.access``).
Where an attribute comes twice, its binary form counts.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Mapping
from typing import Final

from snaptx.errors import SourceError
from snaptx.overlay import acl, names, xattrs

SPARSE_MAP = b"GNU.sparse.map"
_PIECES = (b"GNU.sparse.offset", b"GNU.sparse.numbytes")
# The first letters of GNU.sparse, SCHILY, LIBARCHIVE and RHT.
_UNCOMMON = b"GSLR"
_SCHILY = b"SCHILY.xattr."
_LIBARCHIVE = b"LIBARCHIVE.xattr."
_TEXT_ACLS = {b"SCHILY.acl.access": xattrs.ACCESS, b"SCHILY.acl.default": xattrs.DEFAULT}
_SELINUX = b"RHT.security.selinux"
_NAMESPACES = (b"user.", b"trusted.", b"security.", b"btrfs.", xattrs.ACCESS, xattrs.DEFAULT)
# linux/limits.h: XATTR_SIZE_MAX
_VALUE_MAX = 65536
_HINT = "the payload is damaged: fetch or make it again"


def malformed(what: str) -> SourceError:
    """Return the error for what no tar writes."""
    return SourceError(f"malformed tar: {what}", hint=_HINT)


class Records(dict[bytes, bytes]):
    """The records of an extended header; ``uncommon`` if they may say more than names, numbers and times."""

    __slots__ = ("uncommon",)

    def __init__(self, known: Mapping[bytes, bytes] | tuple[()] = (), *, uncommon: bool = False) -> None:
        super().__init__(known)
        self.uncommon = uncommon


NO_RECORDS: Final = Records()


def parse(data: bytes) -> Records:
    """Return the records of an extended header; of a repeated key the last counts.

    The repeated offsets and sizes of GNU's sparse format 0.0 become one list
    under the key of format 0.1.

    Raises:
        SourceError: the records do not fill ``data`` exactly.
    """
    records = Records()
    for line in data[:-1].split(b"\n"):
        head, equals, value = line.partition(b"=")
        digits, _, key = head.partition(b" ")
        if not (equals and key and digits.isdigit()) or len(digits) > 7 or int(digits) != len(line) + 1:
            return _parse_any(data)
        if key[0] in _UNCOMMON:
            return _parse_any(data)
        records[key] = value
    return records if data[-1:] == b"\n" else _parse_any(data)


def _parse_any(data: bytes) -> Records:
    """Do the same, half as fast, for records with newlines in their values and repeated keys."""
    records = Records()
    pieces: list[bytes] = []
    position, end = 0, len(data)
    while position < end:
        space = data.find(b" ", position, position + 9)
        digits = data[position:space]
        if space < 0 or not digits.isdigit():
            raise malformed("extended header")
        stop = position + int(digits)
        if not space < stop <= end or data[stop - 1] != 0x0A:
            raise malformed("extended header")
        key, equals, value = data[space + 1 : stop - 1].partition(b"=")
        if not equals or not key:
            raise malformed("extended header")
        if key[0] in _UNCOMMON:
            records.uncommon = True
            if key in _PIECES:
                if key != _PIECES[len(pieces) % 2]:
                    raise malformed("sparse map")
                pieces.append(value)
        records[key] = value
        position = stop
    if pieces:
        records[SPARSE_MAP] = b",".join(pieces)
    return records


def number(text: bytes) -> int:
    """Return the value of a decimal field that fits 63 bits.

    Raises:
        SourceError: it is negative, too large or no number.
    """
    if not text.isdigit() or len(text) > 19:
        raise malformed(f"number {names.show(text[:40])} in an extended header")
    value = int(text)
    if value >> 63:
        raise malformed(f"number {value} in an extended header")
    return value


def nanoseconds(text: bytes) -> int:
    """Return a time given in decimal seconds, with a fraction or without, as nanoseconds.

    What is finer than that is rounded down, as POSIX has it, also before the epoch.
    """
    negative = text[:1] == b"-"
    whole, _, fraction = text[negative:].partition(b".")
    if not whole.isdigit() or len(whole) > 10 or not (fraction + b"0").isdigit():
        return nanoseconds(_written_out(text))
    value = int(whole + fraction[:9].ljust(9, b"0"))
    if value >> 63:
        raise malformed(f"time {names.show(text[:40])}")
    return -value - bool(fraction[9:].strip(b"0")) if negative else value


def _written_out(text: bytes) -> bytes:
    """Return a time below a ten-thousandth of a second, which Python's tarfile writes as 1e-05, in full."""
    found = re.fullmatch(rb"(-?)(\d)(?:\.(\d+))?e-0?([1-9]\d{0,2})", text)
    if not found:
        raise malformed(f"time {names.show(text[:40])}")
    sign, whole, fraction, power = found.groups(b"")
    return sign + b"0." + b"0" * (int(power) - 1) + whole + fraction


def attributes(records: Mapping[bytes, bytes]) -> dict[bytes, bytes]:
    """Return the extended attributes that ``records`` hold, ACLs in the kernel's form.

    Raises:
        SourceError: one is malformed, or Linux has no place for it.
    """
    found: dict[bytes, bytes] = {}
    text: dict[bytes, bytes] = {}
    encoded = any(key.startswith(_LIBARCHIVE) for key in records)
    for key, value in records.items():
        if key.startswith(_SCHILY):
            found[_unescape(key[len(_SCHILY) :], encoded)] = value
        elif key.startswith(_LIBARCHIVE):
            found[_unquoted(key[len(_LIBARCHIVE) :])] = _base64(value)
        elif key in _TEXT_ACLS:
            text[_TEXT_ACLS[key]] = acl.encode(acl.from_text(value))
        elif key == _SELINUX:
            # libselinux keeps the final NUL in the attribute, GNU tar leaves it out.
            text[xattrs.LABEL] = value + b"\0"
        elif key == b"SCHILY.acl.ace":
            raise SourceError("NFSv4 ACL in the payload", hint="make the archive without NFSv4 ACLs")
    return _sound({**text, **found})


def _unescape(name: bytes, encoded: bool) -> bytes:
    """Undo what GNU tar does to "=" and "%" in a key; libarchive URL-encodes the whole name here too."""
    if encoded:
        return _unquoted(name)
    return name.replace(b"%3D", b"=").replace(b"%25", b"%")


def _unquoted(name: bytes) -> bytes:
    from urllib.parse import unquote_to_bytes  # not for every start-up

    return unquote_to_bytes(name)


def _base64(value: bytes) -> bytes:
    try:
        return binascii.a2b_base64(value + b"=" * (-len(value) % 4), strict_mode=True)
    except binascii.Error:
        raise malformed("extended attribute that is no base64") from None


def _sound(found: dict[bytes, bytes]) -> dict[bytes, bytes]:
    for name, value in found.items():
        if len(name) > names.NAME_MAX or b"\0" in name or name.endswith(b".") or len(value) > _VALUE_MAX:
            raise malformed(f"extended attribute {names.show(name[:100])}")
        if not name.startswith(_NAMESPACES):
            raise SourceError(
                f"extended attribute Linux can't store: {names.show(name)}",
                hint="make the archive without it, for example with --no-xattrs",
            )
        if name in (xattrs.ACCESS, xattrs.DEFAULT):
            found[name] = acl.encode(acl.decode(value))
    return found
