"""Files with holes: the maps of GNU tar's four sparse formats, and the whole file they describe.

- old GNU: typeflag S, four entries in the header, then blocks of 21 (tar.h of GNU tar);
- pax 0.0 and 0.1: ``GNU.sparse.map=OFFSET,SIZE,…`` in the extended header (``pax`` joins 0.0 to that);
- pax 1.0: the map in decimal lines before the data, filled up to 512 bytes.

A map is trusted as little as a path: its extents rise, do not overlap, lie
within the file and use up exactly the data the archive holds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

from snaptx.errors import SourceError
from snaptx.model import Readable
from snaptx.overlay import pax
from snaptx.overlay.buffer import Buffer
from snaptx.overlay.header import BLOCK, number
from snaptx.overlay.names import hostile

_MAX_EXTENTS = 65536
_ZEROS = bytes(256 << 10)

Extents = tuple[tuple[int, int], ...]


class Layout(NamedTuple):
    """A file with holes: its full size, the extents that carry data, and how many bytes these are."""

    size: int
    extents: Extents
    stored: int


def _too_many() -> SourceError:
    return SourceError("a file with too many holes", hint="make the archive without --sparse")


def checked(flat: list[int], size: int, stored: int, path: bytes) -> Layout:
    """Return the layout of a map given as offset, length, offset, length, …

    Raises:
        HostileError: it contradicts ``size`` or ``stored`` (bytes of data in the archive).
        SourceError: it has more extents than memory is meant for.
    """
    if len(flat) > 2 * _MAX_EXTENTS:
        raise _too_many()
    pairs = list(zip(flat[::2], flat[1::2], strict=False))
    last = total = 0
    for offset, length in pairs:
        if offset < last:
            raise hostile("sparse map that overlaps", path)
        last = offset + length
        total += length
    if len(flat) % 2 or last > size or total != stored:
        raise hostile("sparse map that lies about the size", path)
    return Layout(size, tuple(pair for pair in pairs if pair[1]), stored)


def from_records(records: Mapping[bytes, bytes], stored: int, path: bytes) -> Layout:
    """Return the layout that pax formats 0.0 and 0.1 put into the extended header."""
    if b"GNU.sparse.size" not in records:
        raise pax.malformed("sparse file without its size")
    text = records.get(pax.SPARSE_MAP, b"")
    if text.count(b",") > 2 * _MAX_EXTENTS:
        raise _too_many()
    flat = [pax.number(part) for part in text.split(b",")] if text else []
    if b"GNU.sparse.numblocks" in records and pax.number(records[b"GNU.sparse.numblocks"]) * 2 != len(flat):
        raise hostile("sparse map that lies about its length", path)
    return checked(flat, pax.number(records[b"GNU.sparse.size"]), stored, path)


def from_data(buffer: Buffer, records: Mapping[bytes, bytes], stored: int, path: bytes) -> Layout:
    """Read the map of pax format 1.0 off the front of the data and return the layout."""
    if b"GNU.sparse.realsize" not in records:
        raise pax.malformed("sparse file without its size")
    start = buffer.offset
    numbers = _lines(buffer, stored)
    count = next(numbers)
    if count > _MAX_EXTENTS:
        raise _too_many()
    flat = [next(numbers) for _ in range(2 * count)]
    left = stored - (buffer.offset - start)
    return checked(flat, pax.number(records[b"GNU.sparse.realsize"]), left, path)


def _lines(buffer: Buffer, stored: int) -> Iterator[int]:
    """Yield the numbers of a 1.0 map, taking blocks only as they are needed."""
    text = b""
    while True:
        line, newline, rest = text.partition(b"\n")
        if newline:
            text = rest
            yield pax.number(line)
        elif stored < BLOCK or len(text) > BLOCK:
            raise pax.malformed("sparse map")
        else:
            stored -= BLOCK
            text += buffer.take(BLOCK)


def from_header(block: bytes, take: Callable[[int], bytes], stored: int, path: bytes) -> Layout:
    """Return the layout of the old GNU format: ``block`` is the header, ``take`` gives what follows."""
    flat = _entries(block[386:482])
    more = block[482]
    while more:
        if len(flat) > 2 * _MAX_EXTENTS:
            raise _too_many()
        extension = take(BLOCK)
        flat += _entries(extension[:504])
        more = extension[504]
    return checked(flat, number(block[483:495]), stored, path)


def _entries(area: bytes) -> list[int]:
    cells = [area[at : at + 12] for at in range(0, len(area), 12)]
    flat: list[int] = []
    for offset, length in zip(cells[::2], cells[1::2], strict=True):
        if not length[0]:
            break
        flat += (number(offset), number(length))
    return flat


class Expanded:
    """The whole of a file with holes, from a Readable that gives only its data."""

    __slots__ = ("_data", "_extent", "_extents", "_position")

    def __init__(self, data: Readable, layout: Layout) -> None:
        self._data = data
        self._extents = iter((*layout.extents, (layout.size, 0)))
        self._extent = next(self._extents)
        self._position = 0

    def read(self, size: int, /) -> bytes:
        """Return up to ``size`` bytes, b"" at the end."""
        offset, length = self._extent
        while length and self._position == offset + length:
            offset, length = self._extent = next(self._extents)
        if self._position < offset:
            part = _ZEROS[: min(size, offset - self._position)]
        else:
            part = self._data.read(min(size, offset + length - self._position)) if length else b""
        self._position += len(part)
        return part
