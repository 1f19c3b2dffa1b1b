"""The disk as a power cut leaves it, at any moment and with any luck.

A moment is a place in the log: everything up to the last flush before it is on
the disk.  Of what was written since, a disk keeps what it likes: a point names
the moment, and the seed that decides what is kept.  The same point of the same
log is always the same disk.  Where two disks are cut at once, a cut has a point for each.
"""

from __future__ import annotations

import os
import random
import re
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.crash.logfile import Entry, Flag, read_entries
from tests.crash.sparse import copy_sparse, punch

PART = 4096
"""Bytes a disk writes in one piece."""

NOTHING = 0
"""The seed that keeps nothing of what was not flushed."""


@dataclass(frozen=True, slots=True, order=True)
class Point:
    """The first ``cut`` entries were sent; ``seed`` chooses what is kept of the unflushed.

    None keeps all of it, NOTHING none.
    """

    cut: int
    seed: int | None = None

    def __str__(self) -> str:
        return f"{self.cut}" if self.seed is None else f"{self.cut}~{self.seed}"


def parse_point(text: str) -> Point:
    """Return the point that ``str`` named.

    Raises:
        ValueError: it is none.
    """
    match = re.fullmatch(r"(\d+)(?:~(\d+))?", text)
    if match is None:
        raise ValueError(f"{text!r} is not a point: CUT or CUT~SEED")
    return Point(int(match[1]), int(match[2]) if match[2] else None)


Cut = tuple[Point, ...]
"""One instant: a point of the log of each disk that was recorded."""


def shown(cut: Cut) -> str:
    """Return the name of a cut: its points, with a plus between them."""
    return "+".join(map(str, cut))


def parse_cut(text: str) -> Cut:
    """Return the cut that ``shown`` named.

    Raises:
        ValueError: it is none.
    """
    return tuple(map(parse_point, text.split("+")))


@dataclass(frozen=True, slots=True)
class Piece:
    """Some bytes of an entry: where they go, how many, where they lie in the log (None for a discard)."""

    offset: int
    length: int
    data_at: int | None


def _whole(entry: Entry) -> Piece:
    return Piece(entry.offset, entry.length, None if entry.flags & Flag.DISCARD else entry.data_at)


def _parts(entry: Entry) -> list[Piece]:
    if entry.flags & Flag.DISCARD:
        return [_whole(entry)]
    starts = range(0, entry.length, PART)
    return [Piece(entry.offset + at, min(PART, entry.length - at), entry.data_at + at) for at in starts]


def _each(pending: Sequence[Entry], rng: random.Random) -> Iterator[Piece]:
    """Keep each write or lose it."""
    likely = rng.choice((0.1, 0.5, 0.9))
    return (_whole(entry) for entry in pending if rng.random() < likely)


def _all_but_one(pending: Sequence[Entry], rng: random.Random) -> Iterator[Piece]:
    lost = rng.randrange(len(pending))
    return (_whole(entry) for number, entry in enumerate(pending) if number != lost)


def _only_one(pending: Sequence[Entry], rng: random.Random) -> Iterator[Piece]:
    return iter([_whole(rng.choice(pending))])


def _torn_last(pending: Sequence[Entry], rng: random.Random) -> Iterator[Piece]:
    """Keep the writes in their order, and a part of the last."""
    last = rng.randrange(len(pending))
    parts = _parts(pending[last])
    yield from map(_whole, pending[:last])
    yield from parts[: rng.randrange(len(parts) + 1)]


def _each_part(pending: Sequence[Entry], rng: random.Random) -> Iterator[Piece]:
    """Keep each 4 KiB or lose it."""
    likely = rng.choice((0.1, 0.5, 0.9))
    return (piece for entry in pending for piece in _parts(entry) if rng.random() < likely)


_LUCK: tuple[Callable[[Sequence[Entry], random.Random], Iterator[Piece]], ...] = (
    _each,
    _all_but_one,
    _only_one,
    _torn_last,
    _each_part,
)


class _Blocks:
    """Which write is the last on each 4 KiB; ``value`` stands for all of them."""

    def __init__(self) -> None:
        self._last: dict[int, int] = {}
        self.value = 0

    def copy(self) -> _Blocks:
        """Return the same blocks, to be changed."""
        made = _Blocks()
        made._last, made.value = dict(self._last), self.value
        return made

    def put(self, *pieces: Piece) -> _Blocks:
        """Write pieces."""
        for piece in pieces:
            for at in range(0, piece.length, PART):
                block = piece.offset + at
                source = -1 if piece.data_at is None else piece.data_at + at
                self.value ^= hash((block, self._last.get(block))) ^ hash((block, source))
                self._last[block] = source
        return self


class Log:
    """A log, and what a power cut at each of its points leaves.

    Raises:
        LogError: it is foreign, cut off or damaged.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.entries = read_entries(path)
        self._flushed: dict[int, _Blocks] = {}
        self._serials = [entry.serial for entry in self.entries]
        self.flushes = [n for n, entry in enumerate(self.entries) if entry.flags & Flag.FLUSH]

    def sent(self, serial: int) -> int:
        """Return how many entries were sent when all disks together had been told ``serial`` things."""
        return bisect_right(self._serials, serial)

    def durable(self, cut: int) -> int:
        """Return how many of the first entries are on the disk for certain: up to the last flush."""
        before = bisect_left(self.flushes, cut)
        return self.flushes[before - 1] + 1 if before else 0

    def pending(self, cut: int) -> list[Entry]:
        """Return the changes before ``cut`` that no flush covers."""
        return [entry for entry in self.entries[self.durable(cut) : cut] if entry.is_change]

    def kept(self, point: Point) -> tuple[Piece, ...]:
        """Return what is kept of what was not flushed."""
        pending = self.pending(point.cut)
        if point.seed is None or not pending:
            return tuple(map(_whole, pending))
        if point.seed == NOTHING:
            return ()
        rng = random.Random(f"{point.cut}~{point.seed}")
        return tuple(rng.choice(_LUCK)(pending, rng))

    def disk(self, point: Point) -> int:
        """Return a number that is the same for two points that leave the same disk."""
        durable = self.durable(point.cut)
        if durable not in self._flushed:
            self._flushed[durable] = _Blocks()
            for entry in self.entries[:durable]:
                if entry.is_change:
                    self._flushed[durable].put(_whole(entry))
        return self._flushed[durable].copy().put(*self.kept(point)).value

    def span(self, begin: str, end: str) -> tuple[int, int]:
        """Return the cuts just after the mark ``begin`` and just after the mark ``end``."""
        marks = {entry.text: n for n, entry in enumerate(self.entries) if entry.flags & Flag.MARK}
        return marks[begin] + 1, marks[end] + 1


class Replayer:
    """Makes the image of one point after the other in one file; going forward in the log is cheap."""

    def __init__(self, base: Path, log: Log, trunk: Path, work: Path) -> None:
        self._base, self.log, self.work = base, log, work
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
        self._trunk_fd, self._work_fd = os.open(trunk, flags), os.open(work, flags)
        self._log_fd = os.open(log.path, os.O_RDONLY | os.O_CLOEXEC)
        self._done = -1

    def make(self, point: Point) -> Path:
        """Make the disk of ``point`` and return its image, which may be written to."""
        self._advance(self.log.durable(point.cut))
        copy_sparse(self._trunk_fd, self._work_fd)
        for piece in self.log.kept(point):
            self._apply(piece, self._work_fd)
        return self.work

    def _advance(self, upto: int) -> None:
        if self._done < 0 or upto < self._done:
            base = os.open(self._base, os.O_RDONLY | os.O_CLOEXEC)
            copy_sparse(base, self._trunk_fd)
            os.close(base)
            self._done = 0
        for entry in self.log.entries[self._done : upto]:
            if entry.is_change:
                self._apply(_whole(entry), self._trunk_fd)
        self._done = upto

    def _apply(self, piece: Piece, fd: int) -> None:
        if piece.data_at is None:
            punch(fd, piece.offset, piece.length)
            return
        data = os.pread(self._log_fd, piece.length, piece.data_at)
        os.pwrite(fd, data, piece.offset)

    def close(self) -> None:
        """Close the files."""
        for fd in (self._trunk_fd, self._work_fd, self._log_fd):
            os.close(fd)
