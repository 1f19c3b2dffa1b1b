"""The pieces of a payload, sifted by a second process and taken up by the writer.

    child:   read, unpack, hash, sift ──> batches ──> pipe
    here:                                              └──> pieces ──> writer

A batch is ``(raw bytes read so far, [piece, ...])`` in Python's marshal format,
the last one ``(raw bytes read, (source, sha256, size))``: both ends are one
program at one moment, so the format need not outlive it.  A chunk of zeros,
which is what the holes of a file are read as, travels as None.
"""

from __future__ import annotations

import marshal
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from snaptx import apart
from snaptx.model import NO_XATTRS, Kind, Member, Payload, Row
from snaptx.overlay.base import Base
from snaptx.overlay.content import CHUNK
from snaptx.overlay.manifest import Manifest
from snaptx.overlay.payload import OpenPayload
from snaptx.overlay.sift import Match, Piece, sift

_BATCH_BYTES = 256 << 10
_BATCH_PIECES = 256
_KINDS = {str(kind): kind for kind in Kind}
_MATCHES = tuple(Match)
_ZEROS = bytes(CHUNK)


class Feed:
    """The pieces of a payload as they arrive."""

    def __init__(self, frames: Iterator[bytes]) -> None:
        self._frames = frames
        self.bytes_read = 0
        self._payload: Payload | None = None

    def pieces(self) -> Iterator[Piece]:
        """Yield all pieces, once."""
        for frame in self._frames:
            self.bytes_read, found = marshal.loads(frame)
            if isinstance(found, tuple):
                self._payload = Payload(*found)
                continue
            for member, row, match, same, digest, data in found:
                yield Piece(
                    None if member is None else _member(member),
                    None if row is None else Row(row[0], _KINDS[row[1]], *row[2:]),
                    _MATCHES[match],
                    same,
                    digest,
                    _ZEROS if data is None else data,
                )

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
    with Manifest.open(index) as manifest, closing(Base(base_fd, manifest, valid=True)) as base:
        for batch in _batches(sift(payload.members, base)):
            send(marshal.dumps((payload.bytes_read, batch)))
    found = payload.finish()
    send(marshal.dumps((payload.bytes_read, (found.source, found.sha256, found.size))))


def _batches(pieces: Iterator[Piece]) -> Iterator[list[tuple[Any, ...]]]:
    batch: list[tuple[Any, ...]] = []
    size = 0
    for member, row, match, same, digest, data in pieces:
        told = None if row is None else (row.path, str(row.kind), *row[2:])
        sent = None if data == _ZEROS else data
        batch.append((None if member is None else _values(member), told, int(match), same, digest, sent))
        size += len(data)
        if size >= _BATCH_BYTES or len(batch) >= _BATCH_PIECES:
            yield batch
            batch, size = [], 0
    yield batch


def _values(member: Member) -> tuple[Any, ...]:
    path, kind, mode, uid, gid, mtime_ns, size, link, device, xattrs, _, extents = member
    attributes = dict(xattrs) if xattrs else None
    return path, str(kind), mode, uid, gid, mtime_ns, size, link, device, attributes, extents


def _member(values: tuple[Any, ...]) -> Member:
    path, kind, mode, uid, gid, mtime_ns, size, link, device, attributes, extents = values
    xattrs = attributes or NO_XATTRS
    return Member(path, _KINDS[kind], mode, uid, gid, mtime_ns, size, link, device, xattrs, None, extents)
