"""Regular files: skip, change in place, or replace.

Every byte is hashed.  A file whose row, live base and payload agree is skipped;
one whose content agrees gets new metadata, in place where it has no other name;
anything else is replaced by a new file, never written through, so that other
names of the old one keep what they had.
"""

from __future__ import annotations

import os

from snaptx.model import Kind, Member, Row
from snaptx.overlay import nodes
from snaptx.overlay.base import same_inode, same_metadata
from snaptx.overlay.content import CHUNK, SMALL, Meter, Sink, Stream, common_start, share
from snaptx.overlay.place import Places, Spot
from snaptx.overlay.record import Action


class Files:
    """Applies regular files; ``bytes_written`` counts content that was not shared."""

    def __init__(self, places: Places, meter: Meter) -> None:
        self._places = places
        self._meter = meter
        self.bytes_written = 0

    def apply(self, member: Member) -> None:
        """Bring one file into the tree."""
        member, row = self._places.find_row(member)
        if row is not None and (row.kind is not Kind.FILE or row.size != member.size):
            row = None
        stream = Stream(member, self._meter)
        if member.size <= SMALL:
            data = stream.read(member.size)
            equal = row is not None and stream.digest() == row.sha256
            self._put(member, row if equal else None, stream, data)
        else:
            self._large(member, row, stream)

    def _large(self, member: Member, row: Row | None, stream: Stream) -> None:
        """Compare chunk by chunk while the content may be the base's, in constant memory."""
        source = self._places.base.open(row) if row is not None else None
        if source is None:
            self._put(member, None, stream, b"")
            return
        try:
            same, chunk = common_start(stream, source)
            equal = row is not None and same == member.size and stream.digest() == row.sha256
            self._put(member, row if equal else None, stream, chunk, source, same)
        finally:
            os.close(source)

    def _put(
        self,
        member: Member,
        row: Row | None,
        stream: Stream,
        data: bytes,
        source: int | None = None,
        same: int = 0,
    ) -> None:
        """Decide: ``row`` is the base's if its content is equal.

        ``data`` was read from ``stream`` and follows the ``same`` bytes that
        ``source`` holds too.
        """
        if row is not None and same_metadata(row, member):
            self._places.refuse_twice(member.path)
            self._places.record.add(row, Action.UNCHANGED)
            return
        spot = self._places.locate(member)
        if row is None:
            self._replace(spot, member, stream, data, source, same)
        elif self._is_alone(spot, row):
            self._edit(spot, member, row)
        else:
            self._duplicate(spot, member, stream, data, row, source)

    def _is_alone(self, spot: Spot, row: Row) -> bool:
        """Return whether the tree holds the very file of ``row``, under this name only."""
        return spot.st is not None and spot.st.st_nlink == 1 and same_inode(spot.st, row)

    def _edit(self, spot: Spot, member: Member, row: Row) -> None:
        """Change only what is known about the file."""
        fd = nodes.edit_file(spot.parent, spot.name)
        try:
            st = nodes.dress(fd, member, fresh=False)
        finally:
            os.close(fd)
        self._places.note(spot, member, st, row.sha256)

    def _duplicate(
        self, spot: Spot, member: Member, stream: Stream, data: bytes, row: Row, source: int | None
    ) -> None:
        """Replace by a file that shares all content with the base's."""
        shared = source if source is not None else self._places.base.open(row)
        if shared is None:
            self._replace(spot, member, stream, data, None, 0)
            return
        try:
            self._replace(spot, member, stream, b"", shared, member.size)
        finally:
            if source is None:
                os.close(shared)

    def _replace(
        self, spot: Spot, member: Member, stream: Stream, data: bytes, source: int | None, same: int
    ) -> None:
        self._places.vacate(spot)
        fd = nodes.create_file(spot.parent, spot.name, member.mode)
        try:
            if source is not None:
                share(source, fd, same)
            sink = Sink(fd, member.extents, same)
            while data or (data := stream.read(CHUNK)):
                sink.write(data)
                data = b""
            sink.finish()
            st = nodes.dress(fd, member, fresh=not spot.parent.inherits)
        finally:
            os.close(fd)
        self.bytes_written += sink.written
        self._places.note(spot, member, st, stream.digest())
