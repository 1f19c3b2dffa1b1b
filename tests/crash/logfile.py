"""The log of everything a disk was told, in the format of dm-log-writes, version 1.

::

    sector 0     magic, version, number of entries, sector size
    then for each entry
        1 sector     sector, nr_sectors, flags, data_len; a mark's text follows in the same sector
        nr_sectors   the data, unless it is a flush, a discard or a mark

All numbers are little-endian and 64 bits wide, but for the 32-bit sector size
(linux/drivers/md/dm-log-writes.c).  The last 8 bytes of an entry's sector, which
the format leaves unused, number the entries of all disks that are recorded
together, so that they can be cut at the same instant.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from enum import IntFlag
from pathlib import Path
from typing import BinaryIO

MAGIC = 0x6A736677736872
VERSION = 1
SECTOR = 512

_SUPER = struct.Struct("<QQQI")
_ENTRY = struct.Struct("<QQQQ")
_SERIAL = struct.Struct("<Q")


class Flag(IntFlag):
    """What an entry is; a write has none of these."""

    FLUSH = 1
    FUA = 2
    DISCARD = 4
    MARK = 8
    METADATA = 16


class LogError(Exception):
    """The log is foreign, cut off or damaged."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing the disk was told; ``offset`` and ``length`` are bytes on the disk.

    ``data_at`` is where the data lies in the log; ``serial`` counts over all
    disks of one recording; ``text`` is a mark's.
    """

    offset: int
    length: int
    flags: Flag
    data_at: int
    serial: int
    text: str = ""

    @property
    def is_write(self) -> bool:
        """Return whether it changes data on the disk."""
        return not self.flags & (Flag.MARK | Flag.DISCARD) and self.length > 0

    @property
    def is_change(self) -> bool:
        """Return whether it is a write or a discard."""
        return self.is_write or bool(self.flags & Flag.DISCARD)


class LogWriter:
    """Writes a log; entries are complete on return, their number in the first sector after ``close``."""

    def __init__(self, path: Path) -> None:
        self._file: BinaryIO = path.open("wb", buffering=1 << 20)
        self._count = 0
        self._super()

    def _super(self) -> None:
        self._file.seek(0)
        self._file.write(_SUPER.pack(MAGIC, VERSION, self._count, SECTOR).ljust(SECTOR, b"\0"))
        self._file.seek(0, os.SEEK_END)

    def _entry(self, serial: int, values: tuple[int, int, int, int], text: bytes = b"") -> None:
        head = _ENTRY.pack(*values) + text
        if len(head) > SECTOR - _SERIAL.size:
            raise LogError(f"a mark of {len(text)} bytes is too long")
        self._file.write(head.ljust(SECTOR - _SERIAL.size, b"\0") + _SERIAL.pack(serial))
        self._count += 1

    def write(self, serial: int, offset: int, data: bytes | memoryview) -> None:
        """Log a write; offset and length must be multiples of a sector."""
        if offset % SECTOR or len(data) % SECTOR:
            raise LogError(f"a write of {len(data)} bytes at {offset} is not of whole sectors")
        self._entry(serial, (offset // SECTOR, len(data) // SECTOR, 0, 0))
        self._file.write(data)

    def flush(self, serial: int) -> None:
        """Log that everything before is on the disk."""
        self._entry(serial, (0, 0, Flag.FLUSH, 0))

    def discard(self, serial: int, offset: int, length: int) -> None:
        """Log that the disk may forget a range."""
        self._entry(serial, (offset // SECTOR, length // SECTOR, Flag.DISCARD, 0))

    def mark(self, serial: int, text: str) -> None:
        """Log a remark."""
        data = text.encode()
        self._entry(serial, (0, 0, Flag.MARK, len(data)), data)

    def close(self) -> None:
        """Write the number of entries and close the file."""
        self._super()
        self._file.close()


def read_entries(path: Path) -> list[Entry]:
    """Return the entries of a log.

    Raises:
        LogError: it is no such log, of another version, or cut off.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        count = _count(path, file.read(SECTOR))
        found: list[Entry] = []
        for number in range(count):
            head = file.read(SECTOR)
            if len(head) < SECTOR:
                raise LogError(f"{path} is cut off: {number} of {count} entries are there")
            entry = _decode(path, head, file.tell())
            if entry.is_write:
                file.seek(entry.length, os.SEEK_CUR)
            if file.tell() > size:
                raise LogError(f"{path} is cut off in the data of entry {number} of {count}")
            found.append(entry)
    return found


def _count(path: Path, head: bytes) -> int:
    if len(head) < SECTOR:
        raise LogError(f"{path} is too short for a log of writes")
    magic, version, count, sector = _SUPER.unpack_from(head)
    if magic != MAGIC:
        raise LogError(f"{path} is not a log of writes: its magic is {magic:#x}")
    if version != VERSION or sector != SECTOR:
        raise LogError(f"{path} has version {version}, sectors of {sector}; read are {VERSION} and {SECTOR}")
    if not count:
        raise LogError(f"{path} is empty: it was not closed, or nothing was recorded")
    return int(count)


def _decode(path: Path, head: bytes, at: int) -> Entry:
    sector, sectors, flags, length = _ENTRY.unpack_from(head)
    serial = _SERIAL.unpack_from(head, SECTOR - _SERIAL.size)[0]
    if flags >= 2 * Flag.METADATA or length > SECTOR - _ENTRY.size - _SERIAL.size:
        raise LogError(f"{path} is damaged at byte {at - SECTOR}")
    text = head[_ENTRY.size : _ENTRY.size + length].decode(errors="replace") if flags & Flag.MARK else ""
    return Entry(sector * SECTOR, sectors * SECTOR, Flag(flags), at, serial, text)
