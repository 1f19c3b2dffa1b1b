"""Regular files: skip, change in place, or replace.

A file whose row, live base and payload agree is skipped.  One that has no other
name is changed in place, in what is known about it or from where its content
differs on: that takes less than two thirds of what a new file takes, and its
directory stays as it was.  Anything else is replaced by a new file, never
written through, so that other names of the old one keep what they had.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager

from snaptx.errors import SourceError
from snaptx.model import Member, Row
from snaptx.overlay import nodes
from snaptx.overlay.base import open_base, same_inode
from snaptx.overlay.content import Sink, share
from snaptx.overlay.failure import shown
from snaptx.overlay.place import Places, Spot
from snaptx.overlay.sift import Match, Piece, Sifted


class Files:
    """Applies regular files; ``bytes_written`` counts content that was not shared.

    ``base_fd`` is the live base: content is shared with its files, for the
    pages of those are in memory.
    """

    def __init__(self, places: Places, base_fd: int) -> None:
        self._places = places
        self._base_fd = base_fd
        self.bytes_written = 0

    def apply(self, member: Member, piece: Piece, more: Iterator[Sifted]) -> None:
        """Bring one file into the tree; ``more`` yields what follows of its content."""
        if self._places.has(piece, member.path):
            return
        spot = self._places.locate(member)
        if self._places.has(piece, spot.path):
            return
        row = piece.row
        if row is not None and piece.match is not Match.NONE and _is_alone(spot, row):
            self._edit(spot, member, row)
        elif (fd := _writable(spot, piece)) is not None:
            self._rewrite(fd, spot, member, piece, more)
        else:
            self._replace(spot, member, piece, more)

    def _edit(self, spot: Spot, member: Member, row: Row) -> None:
        """Change only what is known about the file."""
        fd = nodes.edit_file(spot.parent, spot.name)
        try:
            st = nodes.dress(fd, member, fresh=False)
        finally:
            os.close(fd)
        self._places.note(spot, member, st, row.sha256)

    @contextmanager
    def _source(self, piece: Piece) -> Iterator[int]:
        """Open the base's file that begins with the same content.

        Raises SourceError when it changed since it was compared.
        """
        if piece.row is None:
            raise RuntimeError("content of the base without its row")
        fd = open_base(self._base_fd, piece.row)
        if fd is None:
            message = f"{shown(piece.row.path)} of the base changed while the payload was laid over it"
            raise SourceError(message, hint="apply the payload again")
        try:
            yield fd
        finally:
            os.close(fd)

    def _rewrite(self, fd: int, spot: Spot, member: Member, piece: Piece, more: Iterator[Sifted]) -> None:
        """Write new content into the file in the place, behind what it has of it already."""
        try:
            os.ftruncate(fd, piece.same)
            self._fill(fd, spot, member, piece, more, fresh=False)
        finally:
            os.close(fd)

    def _replace(self, spot: Spot, member: Member, piece: Piece, more: Iterator[Sifted]) -> None:
        """Put a new file in the place, which shares with the base's what both begin with."""
        if not piece.same:
            self._make(spot, member, piece, more)
            return
        with self._source(piece) as source:
            self._make(spot, member, piece, more, source)

    def _make(
        self, spot: Spot, member: Member, piece: Piece, more: Iterator[Sifted], source: int = -1
    ) -> None:
        self._places.vacate(spot)
        fd = nodes.create_file(spot.parent, spot.name, member.mode)
        try:
            share(source, fd, piece.same)
            self._fill(fd, spot, member, piece, more, fresh=not spot.parent.inherits)
        finally:
            os.close(fd)

    def _fill(
        self, fd: int, spot: Spot, member: Member, piece: Piece, more: Iterator[Sifted], *, fresh: bool
    ) -> None:
        """Write what follows the content that is there already, then what is known about the file."""
        sink = Sink(fd, member.extents, piece.same)
        sink.write(piece.data)
        while not piece.digest:
            piece = _following(more)
            sink.write(piece.data)
        sink.finish()
        st = nodes.dress(fd, member, fresh=fresh)
        self.bytes_written += sink.written
        self._places.note(spot, member, st, piece.digest)


def _is_alone(spot: Spot, row: Row) -> bool:
    """Return whether the tree holds the very file of ``row``, under this name only."""
    return spot.st is not None and spot.st.st_nlink == 1 and same_inode(spot.st, row)


def _writable(spot: Spot, piece: Piece) -> int | None:
    """Open the file in the place, if it may be written into: if it is one, and has no other name."""
    if spot.st is None or not stat.S_ISREG(spot.st.st_mode) or spot.st.st_nlink > 1:
        return None
    if piece.same and not (piece.row is not None and same_inode(spot.st, piece.row)):
        return None
    try:
        return nodes.write_file(spot.parent, spot.name)
    except PermissionError:
        return None  # fs-verity lets it be removed but not changed


def _following(more: Iterator[Sifted]) -> Piece:
    """Return the next piece of the same file."""
    piece = next(more)
    if isinstance(piece, list) or piece.member is not None:
        raise RuntimeError("a file without its end")
    return piece
