"""Compressed streams in constant memory, told apart by their first bytes.

gzip (RFC 1952), xz, bzip2 and Zstandard (RFC 8878), each possibly of several
members; anything else passes as it is.  The standard library and
``zstandard`` take a stream that ends in the middle for one that ends, so every
end is checked here: at the end of the input a member must have ended too, and
what follows one must be another.

For Zstandard this is done by walking the frames: each holds the lengths of its
blocks, and one block unpacks to at most 128 KiB, which also bounds the memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Protocol

from snaptx.errors import LimitError, SourceError
from snaptx.model import Readable
from snaptx.overlay.buffer import CHUNK, Buffer, truncated

WINDOW_MAX = 128 << 20
"""Bytes of memory a payload may ask for: what ``zstd --long`` and more than ``xz -9`` need."""

_GZIP = b"\x1f\x8b\x08"
_XZ = b"\xfd7zXZ\x00"
_BZIP2 = b"BZh"
_ZSTD = b"\x28\xb5\x2f\xfd"
_SKIPPABLE = b"\x2a\x4d\x18"  # after one byte, 0x50 to 0x5f
_DAMAGED = "the payload is damaged: fetch or make it again"


def open_stream(raw: Readable) -> Readable:
    """Return the unpacked stream of ``raw``, whose ``read(n)`` gives at most n bytes and b"" at the end.

    Raises (from ``read``):
        SourceError: the stream is truncated, corrupt, or followed by something else.
        LimitError: unpacking needs too much memory.
    """
    buffer = Buffer(raw)
    head = buffer.peek(6)
    if head.startswith(_GZIP):
        return _Members(buffer, _Gzip, "gzip", _GZIP)
    if head.startswith(_XZ):
        return _Members(buffer, _xz, "xz", _XZ)
    if head.startswith(_BZIP2):
        return _Members(buffer, _bzip2, "bzip2", _BZIP2)
    if head.startswith(_ZSTD) or (head[1:4] == _SKIPPABLE and head[0] & 0xF0 == 0x50):
        return _zstd(buffer)
    return _Plain(buffer)


class _Plain:
    """The stream as it is."""

    def __init__(self, buffer: Buffer) -> None:
        self.read = buffer.some


class _Decompressor(Protocol):
    """What lzma and bz2 offer for one member."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int = -1) -> bytes: ...


class _Gzip:
    """zlib's object for one gzip member, with the manners of lzma's."""

    def __init__(self) -> None:
        import zlib

        self._inner: Any = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)

    @property
    def eof(self) -> bool:
        return bool(self._inner.eof)

    @property
    def needs_input(self) -> bool:
        return not self._inner.unconsumed_tail

    @property
    def unused_data(self) -> bytes:
        return bytes(self._inner.unused_data)

    def decompress(self, data: bytes, max_length: int = -1) -> bytes:
        inner = self._inner
        return bytes(inner.decompress(data or inner.unconsumed_tail, max_length))


def _xz() -> _Decompressor:
    import lzma

    return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=WINDOW_MAX)


def _bzip2() -> _Decompressor:
    import bz2

    return bz2.BZ2Decompressor()


class _Members:
    """One member after the other; what follows the last has to be another."""

    def __init__(self, buffer: Buffer, make: Callable[[], _Decompressor], name: str, magic: bytes) -> None:
        self._buffer, self._make, self._name, self._magic = buffer, make, name, magic
        self._member: _Decompressor | None = make()

    def read(self, size: int, /) -> bytes:
        """Return up to ``size`` bytes, b"" at the end."""
        while self._member is not None:
            if self._member.eof:
                self._next(self._member.unused_data)
                continue
            data = self._buffer.some(CHUNK) if self._member.needs_input else b""
            if not data and self._member.needs_input:
                raise truncated(f"the {self._name} stream does not end")
            part = self._unpack(self._member, data, size)
            if part:
                return part
        return b""

    def _next(self, rest: bytes) -> None:
        self._buffer.give_back(rest)
        if self._name == "xz":
            self._padding()
        head = self._buffer.peek(len(self._magic))
        if head and head != self._magic:
            raise SourceError(f"the {self._name} stream is followed by something else", hint=_DAMAGED)
        self._member = self._make() if head else None

    def _padding(self) -> None:
        """Pass over zeros by four, as the .xz file format (2.2, Stream Padding) allows them."""
        while self._buffer.peek(4) == bytes(4):
            self._buffer.skip(4)

    def _unpack(self, member: _Decompressor, data: bytes, size: int) -> bytes:
        import lzma
        import zlib

        try:
            return member.decompress(data, size)
        except (zlib.error, lzma.LZMAError, OSError, EOFError) as error:
            if "memory" in str(error).lower():
                raise too_hungry() from None
            raise SourceError(f"the {self._name} stream is corrupt: {error}", hint=_DAMAGED) from None


def too_hungry() -> LimitError:
    """Return the error for a stream that can't be unpacked within WINDOW_MAX."""
    hint = "compress it with a smaller window: zstd --long=27 at most, or xz -9"
    return LimitError(f"unpacking the payload needs more than {WINDOW_MAX >> 20} MiB of memory", hint=hint)


def _zstd(buffer: Buffer) -> Readable:
    try:
        import zstandard
    except ImportError:
        hint = "install python3-zstandard, or compress the payload with gzip or xz"
        raise SourceError("the payload is compressed with zstd, which needs zstandard", hint=hint) from None
    frames: Any = _Frames(buffer)
    decompressor = zstandard.ZstdDecompressor(max_window_size=WINDOW_MAX)
    return _Zstd(decompressor.stream_reader(frames, read_across_frames=True), zstandard.ZstdError)


class _Zstd:
    """zstandard's reader with this tree's errors."""

    def __init__(self, inner: Any, error: type[Exception]) -> None:
        self._inner, self._error = inner, error

    def read(self, size: int, /) -> bytes:
        """Return up to ``size`` bytes, b"" at the end."""
        try:
            return bytes(self._inner.read(size))
        except self._error as error:
            raise SourceError(f"the zstd stream is corrupt: {error}", hint=_DAMAGED) from None


class _Frames:
    """The input of zstandard's reader, cut into headers and blocks so that no end goes unnoticed."""

    def __init__(self, buffer: Buffer) -> None:
        self._buffer = buffer
        self._pieces = self._walk()

    def read(self, size: int, /) -> bytes:
        """Return the next piece, whatever ``size``; it is at most a block and its header."""
        return next(self._pieces, b"")

    def _walk(self) -> Iterator[bytes]:
        take = self._buffer.take
        while not self._buffer.ended():
            magic = take(4)
            if magic[1:] == _SKIPPABLE and magic[0] & 0xF0 == 0x50:
                self._buffer.skip(int.from_bytes(take(4), "little"))
            elif magic == _ZSTD:
                yield from self._frame(magic)
            else:
                raise SourceError("the zstd stream is followed by something else", hint=_DAMAGED)

    def _frame(self, magic: bytes) -> Iterator[bytes]:
        """Yield one frame (RFC 8878, 3.1.1): its header, its blocks, its checksum."""
        take = self._buffer.take
        descriptor = take(1)
        flags = descriptor[0]
        single, dictionary = flags >> 5 & 1, (0, 1, 2, 4)[flags & 3]
        content = (single, 2, 4, 8)[flags >> 6]
        rest = take(1 - single + dictionary + content)
        if window(rest, single, content) > WINDOW_MAX:
            raise too_hungry()
        yield magic + descriptor + rest
        last = 0
        while not last:
            header = take(3)
            value = int.from_bytes(header, "little")
            last, kind, size = value & 1, value >> 1 & 3, value >> 3
            if kind == 3 or size > 128 << 10:
                raise SourceError("the zstd stream is corrupt: impossible block", hint=_DAMAGED)
            yield header + take(1 if kind == 1 else size)
        if flags & 4:
            yield take(4)


def window(rest: bytes, single: int, content: int) -> int:
    """Return the bytes of memory a frame asks for, from its header after the descriptor."""
    if single:
        size = int.from_bytes(rest[len(rest) - content :], "little")
        return size + 256 if content == 2 else size
    base = 1 << 10 + (rest[0] >> 3)
    return base + base // 8 * (rest[0] & 7)
