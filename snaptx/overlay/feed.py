"""The pieces of a payload, sifted by a second process and taken up by the writer.

    child:   read, unpack, hash, sift ──> batches ──> pipe
    here:                                              └──> pieces ──> writer

A batch is the length of its head, the head, and the data of its pieces one
after the other.  The head is ``(raw bytes read so far, [piece, ...])`` in
Python's marshal format, with the length of the data in each piece, of the last
batch ``(raw bytes read, (source, sha256, size))``: both ends are one program at
one moment, so the format need not outlive it.  A chunk of zeros, which is what
the holes of a file are read as, does not travel; of members that are the base's
in everything only the paths do, those in a row in one list.
"""

from __future__ import annotations

import marshal
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from struct import Struct
from typing import Any

from snaptx import apart
from snaptx.model import NO_XATTRS, Kind, Member, Payload, Row
from snaptx.overlay.base import Base
from snaptx.overlay.content import CHUNK
from snaptx.overlay.manifest import Manifest
from snaptx.overlay.payload import OpenPayload
from snaptx.overlay.sift import Match, Piece, Sifted, sift

_BATCH_BYTES = 256 << 10
_BATCH_PIECES = 256
_KINDS = {str(kind): kind for kind in Kind}
_MATCHES = tuple(Match)
_LENGTH = Struct("=I")
_ZEROS = bytes(CHUNK)
_Told = tuple[Any, ...] | list[bytes]
_HOLE = -1
"""The length of a chunk of zeros."""


class Feed:
    """The pieces of a payload as they arrive."""

    def __init__(self, frames: Iterator[bytes]) -> None:
        self._frames = frames
        self.bytes_read = 0
        self._payload: Payload | None = None

    def pieces(self) -> Iterator[Sifted]:
        """Yield all pieces, once."""
        for frame in self._frames:
            view = memoryview(frame)
            at = _LENGTH.size + _LENGTH.unpack_from(frame)[0]
            self.bytes_read, found = marshal.loads(view[_LENGTH.size : at])
            if isinstance(found, tuple):
                self._payload = Payload(*found)
                continue
            for told in found:
                if isinstance(told, list):
                    yield told
                    continue
                member, row, match, same, digest, length = told
                zeros = length == _HOLE
                yield Piece(
                    None if member is None else _member(member),
                    None if row is None else Row(row[0], _KINDS[row[1]], *row[2:]),
                    _MATCHES[match],
                    same,
                    digest,
                    _ZEROS if zeros else view[at : at + length],
                )
                at += 0 if zeros else length

    @property
    def payload(self) -> Payload:
        """Return what the payload was, once all pieces have been taken."""
        if self._payload is None:
            raise RuntimeError("the pieces have to be taken before the payload is known")
        return self._payload


@contextmanager
def feed(payload: OpenPayload, base_fd: int, index: Path) -> Iterator[Feed]:
    """Sift a payload in a process of its own for the length of a with block.

    ``base_fd`` is the live base, ``index`` the manifest that tells what it
    holds; its rows may not change meanwhile.

    Raises (while the pieces are taken):
        SourceError: what the payload is refused for.
        StorageError: the base can't be read.
        SnaptxError: the process was ended from outside.
    """
    with apart.working(lambda send: _produce(payload, base_fd, index, send)) as frames:
        yield Feed(frames)


def _produce(payload: OpenPayload, base_fd: int, index: Path, send: apart.Send) -> None:
    with Manifest.open(index) as manifest, closing(Base(base_fd, manifest)) as base:
        for frame in frames(sift(payload.members, base), lambda: payload.bytes_read):
            send(frame)
    found = payload.finish()
    send(_frame(payload.bytes_read, (found.source, found.sha256, found.size), ()))


def frames(pieces: Iterator[Sifted], bytes_read: Callable[[], int]) -> Iterator[list[bytes]]:
    """Yield the pieces as they travel."""
    for told, data in _batches(pieces):
        yield _frame(bytes_read(), told, data)


def _frame(bytes_read: int, told: Any, data: Sequence[bytes]) -> list[bytes]:
    head = marshal.dumps((bytes_read, told))
    return [_LENGTH.pack(len(head)), head, *data]


def _batches(pieces: Iterator[Sifted]) -> Iterator[tuple[list[_Told], list[bytes]]]:
    """Yield what is told of some pieces, and their data."""
    told: list[_Told] = []
    data: list[bytes] = []
    size = members = 0
    for piece in pieces:
        if isinstance(piece, list):
            told.append(piece)
            members += len(piece)
        else:
            members += 1
            zeros = piece.data == _ZEROS
            told.append(_told(piece, _HOLE if zeros else len(piece.data)))
            if piece.data and not zeros:
                data.append(bytes(piece.data))
                size += len(piece.data)
        if size >= _BATCH_BYTES or members >= _BATCH_PIECES:
            yield told, data
            told, data = [], []
            size = members = 0
    yield told, data


def _told(piece: Piece, length: int) -> tuple[Any, ...]:
    member, row, match, same, digest, _ = piece
    values = None if member is None else _values(member)
    known = None if row is None else (row[0], str(row[1]), *row[2:])
    return values, known, int(match), same, digest, length


def _values(member: Member) -> tuple[Any, ...]:
    path, kind, mode, uid, gid, mtime_ns, size, link, device, xattrs, _, extents = member
    attributes = dict(xattrs) if xattrs else None
    return path, str(kind), mode, uid, gid, mtime_ns, size, link, device, attributes, extents


def _member(values: tuple[Any, ...]) -> Member:
    path, kind, mode, uid, gid, mtime_ns, size, link, device, attributes, extents = values
    xattrs = attributes or NO_XATTRS
    return Member(path, _KINDS[kind], mode, uid, gid, mtime_ns, size, link, device, xattrs, None, extents)
