"""A strict reader of tar archives, as a stream.

``tarfile`` is several times slower, loses extended attributes, ACLs and the
fractions of seconds, and is lenient where a payload has to be refused.

The formats are ustar and pax, and GNU tar's long names, base-256 numbers and
files with holes.  Strictness: every checksum is verified; the archive has to
end with a block of zeros and only zeros may follow it, in whole blocks;
headers that describe no member, come twice or contradict each other are
refused, as is what two readers could understand in two ways (a directory or a
link with data, a global path, multi-volume parts, types nobody knows).  User
and group names are not used: the numbers count.  Volume labels are passed over.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from snaptx.errors import SourceError
from snaptx.model import NO_XATTRS, Kind, Member, Readable
from snaptx.overlay import header as hdr
from snaptx.overlay import names, pax, sparse, whiteouts, xattrs
from snaptx.overlay.buffer import Buffer, truncated
from snaptx.overlay.header import BLOCK, Header
from snaptx.overlay.limits import Limits, checked

_ZERO = bytes(BLOCK)
_META_MAX = 1 << 20
# What belongs to one member and makes no sense for all that follow.
_NOT_GLOBAL = (b"path", b"linkpath", b"size", b"GNU.", b"SCHILY.xattr.", b"LIBARCHIVE.xattr.")
# How GNU tar labels an archive in the pax format; it is the whole archive's.
_LABEL = b"GNU.volume.label"
# What GNU tar writes and nothing here reads: the option that made it.
_OPTIONS = {b"D": "--incremental or --listed-incremental", b"M": "--multi-volume"}

_Content = tuple[Readable | None, int, tuple[tuple[int, int], ...] | None]
_NONE: _Content = (None, 0, None)
_LINKS = (Kind.HARDLINK, Kind.SYMLINK)
_DEVICES = (Kind.CHAR, Kind.BLOCK)
_FILE = Kind.FILE
_SPARSE = b"GNU.sparse."
_DESCRIBING = frozenset((b"x", b"g", b"L", b"K", b"V"))


class _Extra:
    """What the headers before a member's own say about it."""

    __slots__ = ("link", "name", "records")

    def __init__(self) -> None:
        self.name: bytes | None = None
        self.link: bytes | None = None
        self.records: pax.Records | None = None

    @property
    def given(self) -> bool:
        return self.records is not None or self.name is not None or self.link is not None


class _Data:
    """The stored bytes of one member, followed by padding to a whole block."""

    __slots__ = ("_buffer", "_left", "_padding")

    def __init__(self, buffer: Buffer, size: int) -> None:
        self._buffer = buffer
        self._left = size
        self._padding = -size % BLOCK

    def read(self, size: int, /) -> bytes:
        """Return up to ``size`` bytes, b"" at the end."""
        wanted = min(size, self._left)
        if not wanted:
            return b""
        part = self._buffer.some(wanted)
        if not part:
            raise truncated(f"it ends within a member, at byte {self._buffer.offset}")
        self._left -= len(part)
        return part

    def finish(self) -> None:
        """Leave out what was not read, and the padding; nothing can be read afterwards."""
        rest, self._left = self._left + self._padding, 0
        self._buffer.skip(rest)


def read_tar(stream: Readable, limits: Limits | None = None) -> Iterator[Member]:
    """Yield the members of the archive in ``stream``, and read it to its end.

    The data of a member can be read until the next one is asked for; what is
    not read is skipped.

    Raises:
        SourceError: it is no tar archive, damaged or truncated.
        HostileError: it holds a name, a size or a map that no tar writes.
        LimitError: it goes beyond ``limits``.
    """
    return checked(_Reader(stream).members(), limits or Limits())


class _Reader:
    """The state between two members: the position, and the global extended header."""

    def __init__(self, stream: Readable) -> None:
        self._buffer = Buffer(stream)
        self._globals = pax.NO_RECORDS
        self._data: _Data | None = None

    def members(self) -> Iterator[Member]:
        """Yield every member; see ``read_tar``."""
        while True:
            at = self._buffer.offset
            try:
                member = self._next()
                if member is None:
                    return
                meant = whiteouts.interpret(member) if whiteouts.is_special(member) else None
            except SourceError as error:
                raise type(error)(f"{error.message} (tar header at byte {at})", hint=error.hint) from None
            if meant is None:
                yield member
            else:
                yield from meant
            if self._data is not None:
                self._data.finish()
                self._data = None

    def _next(self) -> Member | None:
        """Return the next member, or None at the end of the archive."""
        extra = _Extra()
        while True:
            block = self._buffer.next(BLOCK)
            if not block:
                raise truncated("it has no end marker" if self._buffer.offset else "it is empty")
            if block == _ZERO:
                self._end(extra)
                return None
            header = hdr.parse(block)
            if header is None:
                raise self._no_header()
            if header.flag not in _DESCRIBING:
                return self._member(header, block, extra)
            self._describe(header, extra)

    def _no_header(self) -> SourceError:
        if self._buffer.offset > BLOCK:
            return pax.malformed("wrong checksum")
        hint = "a payload is a directory or a tar, plain or compressed with gzip, xz, zstd or bzip2"
        return SourceError("the payload is no tar archive", hint=hint)

    def _end(self, extra: _Extra) -> None:
        """Check that the archive may end here and that only zeros follow, in whole blocks."""
        if extra.given:
            raise pax.malformed("extended header without a member")
        while part := self._buffer.some(1 << 20):
            if part.count(0) != len(part):
                raise pax.malformed("data after the end of the archive")
        if self._buffer.offset % BLOCK:
            raise truncated("it ends within the end marker")

    def _describe(self, header: Header, extra: _Extra) -> None:
        """Take in a header that is no member: extended, long name or link, volume label."""
        size = hdr.number(header.size)
        if not 0 <= size <= _META_MAX:
            raise names.hostile(f"extended header of {size} bytes", hdr.stored_name(header))
        data = self._buffer.take(size)
        self._buffer.skip(-size % BLOCK)
        if header.flag == b"g":
            self._global(data, hdr.stored_name(header))
        elif header.flag == b"x":
            if extra.given:
                raise names.hostile("two extended headers for one member", hdr.stored_name(header))
            extra.records = pax.parse(data)
        elif header.flag in b"LK":
            slot = "name" if header.flag == b"L" else "link"
            if extra.records is not None or getattr(extra, slot) is not None:
                raise names.hostile("two long names for one member", hdr.stored_name(header))
            setattr(extra, slot, hdr.text(data))

    def _global(self, data: bytes, name: bytes) -> None:
        records = pax.parse(data)
        records.pop(_LABEL, None)
        if any(key.startswith(_NOT_GLOBAL) for key in records):
            raise names.hostile("global header that belongs to one member", name)
        kept = {key: value for key, value in {**self._globals, **records}.items() if value}
        self._globals = pax.Records(kept, uncommon=self._globals.uncommon or records.uncommon)
        if sum(map(len, self._globals)) + sum(map(len, self._globals.values())) > _META_MAX:
            raise names.hostile("global headers without end", name)

    def _member(self, header: Header, block: bytes, extra: _Extra) -> Member:
        records = pax.NO_RECORDS if extra.records is None else extra.records
        if self._globals:
            records = pax.Records(
                {**self._globals, **records}, uncommon=self._globals.uncommon or records.uncommon
            )
        get = records.get
        raw = extra.name or get(b"GNU.sparse.name") or get(b"path") or hdr.stored_name(header)
        path = names.clean(raw)
        kind = _kind(header, raw, path)
        size = hdr.size(header, records, kind, raw)
        mode, uid, gid = hdr.access(header.access, get(b"uid"), get(b"gid"))
        found: Mapping[bytes, bytes] = NO_XATTRS
        if records.uncommon:
            mode, found = xattrs.canonical(mode, pax.attributes(records))
        data, size, extents = self._content(header, block, records, size) if kind is _FILE else _NONE
        return Member(
            path,
            kind,
            mode,
            uid,
            gid,
            hdr.mtime_ns(header, records),
            size,
            _link(kind, header, extra, path) if kind in _LINKS else b"",
            hdr.device(header, records) if kind in _DEVICES else (0, 0),
            found,
            data,
            extents,
        )

    def _content(self, header: Header, block: bytes, records: pax.Records, size: int) -> _Content:
        """Return a file's data, its full size, and its extents if it has holes."""
        rare = records.uncommon or header.flag == b"S"
        layout = self._layout(header, block, records, size) if rare else None
        if layout is None:
            self._data = _Data(self._buffer, size)
            return self._data, size, None
        self._data = _Data(self._buffer, layout.stored)
        if layout.extents == ((0, layout.size),) or not layout.size:
            return self._data, layout.size, None
        return sparse.Expanded(self._data, layout), layout.size, layout.extents

    def _layout(self, header: Header, block: bytes, records: pax.Records, size: int) -> sparse.Layout | None:
        modern = any(key.startswith(_SPARSE) for key in records)
        path = hdr.stored_name(header)
        if header.flag == b"S":
            if modern:
                raise names.hostile("two sparse maps for one file", path)
            return sparse.from_header(block, self._buffer.take, size, path)
        if not modern:
            return None
        version = records.get(b"GNU.sparse.major", b"0"), records.get(b"GNU.sparse.minor", b"")
        if version == (b"1", b"0"):
            return sparse.from_data(self._buffer, records, size, path)
        if version[0] == b"0":
            return sparse.from_records(records, size, path)
        raise SourceError(f"sparse format of the future: {names.show(path)}", hint="make it without --sparse")


def _kind(header: Header, raw: bytes, path: bytes) -> Kind:
    kind = hdr.KINDS.get(header.flag)
    if kind is None or not raw:
        what = f"member of the unknown type {names.show(header.flag)}" if raw else "member without a name"
        option = _OPTIONS.get(header.flag)
        hint = f"make the payload without {option}" if option else "make the payload with GNU tar or bsdtar"
        raise SourceError(f"{what}: {names.show(path)}", hint=hint)
    # The sign of a directory before there were types; GNU tar still heeds it.
    if kind is _FILE and raw[-1:] == b"/":
        kind = Kind.DIRECTORY
    if not path and kind is not Kind.DIRECTORY:
        raise names.hostile(f"{kind} in the place of the root directory", raw)
    return kind


def _link(kind: Kind, header: Header, extra: _Extra, path: bytes) -> bytes:
    records = extra.records or pax.NO_RECORDS
    target = extra.link or records.get(b"linkpath") or hdr.text(header.link)
    if kind is Kind.SYMLINK:
        if not target or len(target) > names.PATH_MAX or b"\0" in target:
            raise names.hostile("symlink with an impossible target", path)
        return target
    joined = names.clean(target)
    if not joined or joined == path:
        raise names.hostile("hard link to itself or to the root directory", path)
    return joined
