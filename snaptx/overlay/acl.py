"""POSIX ACLs: the text that tar archives carry, and the bytes the kernel keeps.

The kernel's form (linux/posix_acl_xattr.h) is a 32-bit version, 2, followed by
entries of tag (16 bits), permissions (16 bits) and id (32 bits), little-endian.
It takes them only in the order of the tags; libacl sorts equal tags by id, and
so does ``encode``: one ACL has one form, whoever wrote the archive.

The text is that of acl(5), separated by newlines (GNU tar) or commas (libarchive,
star); the latter add the numeric id as a fourth field, which is then used.
A name without an id is looked up on this machine, as tar does.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import NamedTuple

from snaptx.errors import SourceError
from snaptx.overlay.names import show

USER_OBJ, USER, GROUP_OBJ, GROUP, MASK, OTHER = 0x01, 0x02, 0x04, 0x08, 0x10, 0x20

_VERSION = struct.Struct("<I")
_ENTRY = struct.Struct("<HHI")
_NO_ID = 0xFFFFFFFF
_TAGS = {
    b"user": USER_OBJ, b"u": USER_OBJ,
    b"group": GROUP_OBJ, b"g": GROUP_OBJ,
    b"mask": MASK, b"m": MASK,
    b"other": OTHER, b"o": OTHER,
}  # fmt: skip
_BITS = {ord("r"): 4, ord("w"): 2, ord("x"): 1, ord("-"): 0}


class Entry(NamedTuple):
    """One line of an ACL; ``identifier`` is the user or group of a named entry."""

    tag: int
    identifier: int
    permissions: int


def _malformed(text: bytes) -> SourceError:
    return SourceError(f"malformed ACL: {show(text[:100])}", hint="make the payload anew")


def from_text(text: bytes) -> tuple[Entry, ...]:
    """Return the entries of an ACL's text, empty for an empty text.

    Raises:
        SourceError: it is no ACL, or names a user or group this machine does not know.
    """
    lines = text.replace(b",", b"\n").split(b"\n")
    stripped = (line.partition(b"#")[0].strip() for line in lines)
    return _sound((_line(line) for line in stripped if line), text)


def _line(line: bytes) -> Entry:
    fields = line.split(b":")
    tag = _TAGS.get(fields[0])
    if tag is None or not 2 <= len(fields) <= 4:
        raise _malformed(line)
    if len(fields) == 2:
        fields.insert(1, b"")
    permissions = 0
    for letter in fields[2]:
        if letter not in _BITS:
            raise _malformed(line)
        permissions |= _BITS[letter]
    if not fields[1] and len(fields) == 3:
        return Entry(tag, _NO_ID, permissions)
    if tag not in (USER_OBJ, GROUP_OBJ):
        raise _malformed(line)
    number = fields[3] if len(fields) == 4 else fields[1]
    return Entry(tag << 1, _identifier(tag, number, line), permissions)


def _identifier(tag: int, text: bytes, line: bytes) -> int:
    if text.isdigit() and len(text) <= 10:
        return int(text)
    # Each is loaded by the few payloads that name people.
    import grp
    import pwd

    try:
        name = text.decode("utf-8", "surrogateescape")
        return pwd.getpwnam(name).pw_uid if tag == USER_OBJ else grp.getgrnam(name).gr_gid
    except (KeyError, ValueError, OSError):
        raise SourceError(
            f"an ACL names somebody unknown here: {show(line[:100])}",
            hint="make the archive with --numeric-owner, or with --xattrs-include='*'",
        ) from None


def decode(data: bytes) -> tuple[Entry, ...]:
    """Return the entries of the kernel's form.

    Raises:
        SourceError: the kernel would refuse it.
    """
    sized = len(data) >= _VERSION.size and (len(data) - _VERSION.size) % _ENTRY.size == 0
    if not sized or _VERSION.unpack_from(data)[0] != 2:
        raise _malformed(data)
    named = (USER, GROUP)
    raw = _ENTRY.iter_unpack(data[_VERSION.size :])
    return _sound((Entry(tag, id_ if tag in named else _NO_ID, mode) for tag, mode, id_ in raw), data)


def _sound(entries: Iterable[Entry], origin: bytes) -> tuple[Entry, ...]:
    """Sort ``entries`` and check them as the kernel's posix_acl_valid() does."""
    ordered = tuple(sorted(entries))
    if not ordered:
        return ()
    tags = [entry.tag for entry in ordered]
    once = all(tags.count(tag) == 1 for tag in (USER_OBJ, GROUP_OBJ, OTHER)) and tags.count(MASK) <= 1
    known = set(tags) <= {USER_OBJ, USER, GROUP_OBJ, GROUP, MASK, OTHER}
    masked = MASK in tags or not {USER, GROUP} & set(tags)
    distinct = len({entry[:2] for entry in ordered}) == len(ordered)
    named = (entry.identifier for entry in ordered if entry.tag in (USER, GROUP))
    fits = all(entry.permissions <= 7 for entry in ordered) and all(id_ < _NO_ID for id_ in named)
    if not (once and known and masked and distinct and fits):
        raise _malformed(origin)
    return ordered


def encode(entries: tuple[Entry, ...]) -> bytes:
    """Return ``entries`` as the value of the kernel's xattr."""
    packed = (_ENTRY.pack(tag, permissions, id_) for tag, id_, permissions in entries)
    return _VERSION.pack(2) + b"".join(packed)
