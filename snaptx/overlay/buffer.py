"""Exact reads from a stream: a tar reader asks 512 bytes at a time, the stream gives plenty."""

from __future__ import annotations

from snaptx.errors import SourceError
from snaptx.model import Readable

CHUNK = 256 << 10


def truncated(what: str) -> SourceError:
    """Return the error for a stream that ends too early."""
    return SourceError(f"the payload is truncated: {what}", hint="fetch or make it again")


class Buffer:
    """A window of at most a chunk over a stream; ``offset`` is the position of the next byte."""

    __slots__ = ("_block", "_end", "_gone", "_pos", "_read")

    def __init__(self, stream: Readable) -> None:
        self._read = stream.read
        self._block = b""
        self._pos = self._end = self._gone = 0

    @property
    def offset(self) -> int:
        """Return how many bytes have been taken."""
        return self._gone + self._pos

    def take(self, size: int) -> bytes:
        """Return exactly ``size`` bytes.

        Raises:
            SourceError: the stream ends before.
        """
        start = self._pos
        stop = start + size
        if stop <= self._end:
            self._pos = stop
            return self._block[start:stop]
        return self._gather(size)

    def next(self, size: int) -> bytes:
        """Return exactly ``size`` bytes, or b"" if the stream ends here; see ``take``."""
        start = self._pos
        stop = start + size
        if stop <= self._end:
            self._pos = stop
            return self._block[start:stop]
        return b"" if start == self._end and not self._fill() else self._gather(size)

    def some(self, size: int) -> bytes:
        """Return at least one and at most ``size`` bytes, b"" only at the end of the stream."""
        if self._pos == self._end and not self._fill():
            return b""
        start = self._pos
        self._pos = min(start + size, self._end)
        return self._block[start : self._pos]

    def skip(self, size: int) -> None:
        """Leave out ``size`` bytes; raise SourceError if the stream ends before."""
        stop = self._pos + size
        while stop > self._end:
            stop -= self._end
            self._pos = self._end
            if not self._fill():
                raise truncated(f"it ends within a member, at byte {self.offset}")
        self._pos = stop

    def peek(self, size: int) -> bytes:
        """Return the next ``size`` bytes, fewer at the end of the stream, without taking them."""
        part = self._block[self._pos : self._pos + size]
        while len(part) < size:
            more = self._read(CHUNK)
            if not more:
                break
            self.give_back(b"", more)
            part = self._block[self._pos : self._pos + size]
        return part

    def give_back(self, data: bytes, more: bytes = b"") -> None:
        """Put the ``data`` last taken back in front of what is left, and ``more`` behind it."""
        self._gone += self._pos - len(data)
        self._block = data + self._block[self._pos :] + more
        self._pos, self._end = 0, len(self._block)

    def ended(self) -> bool:
        """Return whether nothing is left."""
        return self._pos == self._end and not self._fill()

    def _fill(self) -> bool:
        """Replace a used up block by the next one; say whether there was one."""
        self._gone += self._end
        self._block = self._read(CHUNK)
        self._pos, self._end = 0, len(self._block)
        return self._end > 0

    def _gather(self, size: int) -> bytes:
        parts = []
        while size:
            part = self.some(size)
            if not part:
                raise truncated(f"it ends within a member, at byte {self.offset}")
            parts.append(part)
            size -= len(part)
        return b"".join(parts)
