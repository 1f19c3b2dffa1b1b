"""Sift a payload: tell what the base holds already from what has to be written.

    member --> hash --> compare with the base's row and file --> Piece

Every byte of a payload is hashed here.  What equals the base leaves its content
behind, and of a large file what has the same beginning.  Nothing here looks at
the tree that is being made, so this runs beside the writer, in a process of its
own (see `feed`): a piece says what the base holds, and the writer what of that
is still so where it writes.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from enum import IntEnum
from hashlib import sha256
from typing import NamedTuple

from snaptx.errors import HostileError, SourceError
from snaptx.model import Kind, Member, Row
from snaptx.overlay import hashing, xattrs
from snaptx.overlay.base import Base, same_metadata
from snaptx.overlay.content import CHUNK, SMALL
from snaptx.overlay.failure import impossible, shown, translate
from snaptx.overlay.names import PATH_MAX

_FILE, _SYMLINK, _DIRECTORY = Kind.FILE, Kind.SYMLINK, Kind.DIRECTORY
_MAX_NS = (1 << 63) - 1  # what SQLite and the kernel's nanoseconds can hold
_TRUST = "do not trust this payload"
_NEW = (Kind.HARDLINK, Kind.WHITEOUT, Kind.OPAQUE)
_MOST_KEPT = 256
"""Paths that are told together."""


class Match(IntEnum):
    """How far a member is what the base's row says."""

    NONE = 0
    CONTENT = 1
    ALL = 2


class Piece(NamedTuple):
    """One member, or more of the content of the last one.

    ``member`` is None for more; its data was read already.  ``row`` is the
    base's at its path, ``same`` how many bytes of content the base's file and
    the member begin with alike.  ``data`` is what follows them, and ``digest``
    the SHA-256 of the whole content, b"" for a file of which more follows.
    """

    member: Member | None
    row: Row | None = None
    match: Match = Match.NONE
    same: int = 0
    digest: bytes = b""
    data: bytes | memoryview = b""


Sifted = Piece | list[bytes]
"""A piece, or only the paths of some members: those that the base's rows there describe in full."""


def sift(members: Iterable[Member], base: Base) -> Iterator[Sifted]:
    """Yield the pieces of every member.

    Raises:
        SourceError: the payload is shorter than it says, or what reading ``members`` raises.
        HostileError: a path, a time or an ACL that no reader lets pass.
        StorageError: the base can't be read.
    """
    kept: list[bytes] = []
    for told in _sifted(members, base):
        if isinstance(told, bytes):
            kept.append(told)
            if len(kept) < _MOST_KEPT:
                continue
        if kept:
            yield kept
            kept = []
        if not isinstance(told, bytes):
            yield told
    if kept:
        yield kept


def _sifted(members: Iterable[Member], base: Base) -> Iterator[Piece | bytes]:
    for member in members:
        try:
            if member.kind is not _FILE:
                yield _bare(member, base)
            elif member.size <= SMALL:
                yield _small(member, base)
            else:
                yield from _large(member, base)
        except OSError as err:
            raise translate(err, member.path) from err
        except (OverflowError, ValueError) as err:
            raise impossible(err, member.path) from err


def _checked(member: Member) -> Member:
    """Return ``member`` as the kernel will show it; refuse paths and times that no reader lets pass.

    What the base holds in the same way has been checked with it.
    """
    if member.path and _is_unclean(member.path):
        raise HostileError(f"{shown(member.path)} is not a path inside the root", hint=_TRUST)
    if len(member.path) > PATH_MAX:
        raise HostileError(f"{shown(member.path)}: the path is too long", hint=_TRUST)
    if member.kind is Kind.HARDLINK and (not member.link or _is_unclean(member.link)):
        raise HostileError(f"{shown(member.link)} is not a path inside the root", hint=_TRUST)
    if member.kind is Kind.SYMLINK and not member.link:
        raise HostileError(f"{shown(member.path)} is a symlink without a target", hint=_TRUST)
    if not -_MAX_NS <= member.mtime_ns <= _MAX_NS:
        raise HostileError(f"{shown(member.path)} has an impossible time", hint=_TRUST)
    if not member.xattrs:
        return member
    mode, attributes = xattrs.canonical(member.mode, member.xattrs)
    return member._replace(mode=mode, xattrs=attributes)


def _is_unclean(path: bytes) -> bool:
    find = (b"/" + path + b"/").find
    return find(b"//") >= 0 or find(b"/../") >= 0 or find(b"/./") >= 0 or find(b"\0") >= 0


def _bare(asked: Member, base: Base) -> Piece | bytes:
    """Sift what has no content of its own."""
    kind = asked.kind
    if kind is _DIRECTORY and base.has(asked, b""):
        return asked.path
    member = _checked(asked)
    if kind in _NEW:
        return Piece(member)
    row = base.row(member.path) if kind is _DIRECTORY else base.find(member.path)
    digest = sha256(member.link).digest() if kind is _SYMLINK else b""
    inner = (digest, os.makedev(*member.device))
    equal = row is not None and (row.sha256, row.device) == inner and same_metadata(row, member)
    return Piece(member, row, Match.ALL if equal else Match.NONE, 0, digest)


def _row(member: Member, base: Base) -> Row | None:
    """Return the base's row of a file of that size."""
    row = base.find(member.path)
    return row if row is not None and row.kind is _FILE and row.size == member.size else None


def _small(asked: Member, base: Base) -> Piece | bytes:
    data = take(asked, asked.size)
    digest = sha256(data).digest()
    if base.has(asked, digest):
        return asked.path
    member = _checked(asked)
    row = _row(member, base)
    if row is None or row.sha256 != digest:
        return Piece(member, None, Match.NONE, 0, digest, data)
    return Piece(member, row, _match(row, member), member.size, digest)


def _match(row: Row, member: Member) -> Match:
    return Match.ALL if same_metadata(row, member) else Match.CONTENT


def _large(asked: Member, base: Base) -> Iterator[Piece | bytes]:
    """Compare chunk by chunk while the content may be the base's, in constant memory."""
    member = _checked(asked)
    row, stream = _row(member, base), _Stream(member)
    source = base.open(row) if row is not None else None
    if row is None or source is None:
        yield from _rest(member, None, 0, stream, stream.read())
        return
    try:
        same, chunk = _common_start(stream, source)
    finally:
        os.close(source)
    if same == member.size and stream.digest() == row.sha256:
        whole = Piece(member, row, _match(row, member), same, row.sha256)
        yield member.path if base.has(member, row.sha256) else whole
    else:
        yield from _rest(member, row if same else None, same, stream, chunk)


def _rest(member: Member, row: Row | None, same: int, stream: _Stream, chunk: bytes) -> Iterator[Piece]:
    yield Piece(member, row, Match.NONE, same, b"", chunk)
    while chunk := stream.read():
        yield Piece(None, data=chunk)
    yield Piece(None, digest=stream.digest())


def _common_start(stream: _Stream, other_fd: int) -> tuple[int, bytes]:
    """Read ``stream`` while it equals the file ``other_fd``.

    Returns how many bytes are equal, a multiple of CHUNK unless all are, and
    the chunk after them, read already.
    """
    same = 0
    while chunk := stream.read():
        if os.pread(other_fd, len(chunk), same) != chunk:
            return same, chunk
        same += len(chunk)
    return same, b""


class _Stream:
    """The data of a large member by chunks, hashed on the way."""

    def __init__(self, member: Member) -> None:
        self._member = member
        self._left = member.size
        self._state = hashing.begin(member.size)

    def read(self) -> bytes:
        """Return the next chunk, b"" at the end."""
        data = take(self._member, min(CHUNK, self._left))
        self._left -= len(data)
        self._state.update(data)
        return data

    def digest(self) -> bytes:
        """Return the digest of what was read so far."""
        return self._state.digest()


def take(member: Member, size: int) -> bytes:
    """Return the next ``size`` bytes of a member's data.

    Raises:
        SourceError: it ends before, or can't be read.
    """
    data = _once(member, size) if size else b""
    if len(data) == size:
        return data
    pieces = [data]
    missing = size - len(data)
    while missing:
        pieces.append(_once(member, missing))
        missing -= len(pieces[-1])
    return b"".join(pieces)


def _once(member: Member, size: int) -> bytes:
    try:
        data = member.data.read(size) if member.data else b""
    except OSError as err:
        message = f"{shown(member.path)}: the payload can't be read: {os.strerror(err.errno or 0)}"
        raise SourceError(message, hint="fetch the payload again") from err
    if not data or len(data) > size:
        message = f"{shown(member.path)}: the payload does not hold the size it announced"
        raise SourceError(message, hint="fetch the payload again")
    return data
