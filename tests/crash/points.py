"""Which points of a recording are judged: those that must be, and seeded ones up to a number.

No two leave the same disks at the same stage of a verb.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

from tests.crash.replay import NOTHING, Cut, Log, Point

SUPERBLOCKS = (64 << 10, 64 << 20)
"""Where Btrfs keeps them on a disk of this size."""

FIRST = "begin 1"
"""The mark at the beginning of the first step."""

SEEDED = 4
"""How many subsets of the unflushed writes of one disk are tried beside those of the other."""

Found = dict[tuple[int, ...], Cut]


def chosen(logs: Sequence[Log], count: int, seed: int, begin: str = FIRST) -> list[Cut]:
    """Return the cuts to judge between the mark ``begin`` and the last ``end``, in their order."""
    steps = sum(entry.text.startswith("end ") for entry in logs[0].entries)
    spans = [log.span(begin, f"end {steps}") for log in logs]
    if len(logs) == 1:
        return [(point,) for point in points(logs[0], spans[0], count, seed)]
    first, last = (logs[0].entries[cut - 1].serial for cut in spans[0])
    return _pairs(logs, (first, last), count, random.Random(seed))


def points(log: Log, span: tuple[int, int], count: int, seed: int) -> list[Point]:
    """Return every flush boundary, write in its order, mark and split of the superblocks, and more.

    Seeded ones fill up to ``count``.
    """
    begin, end = span
    found: Found = {}
    boundaries = [n + 1 for n in log.flushes if begin <= n < end]
    ordered = [n + 1 for n in range(begin, end) if log.entries[n].is_change]
    told = [n + 1 for n in range(begin, end) if log.entries[n].text]
    for cut in [begin, *boundaries, *ordered, *told, end]:
        _add(found, [log], (Point(cut),))
    for cut in ordered:
        _add(found, [log], (_split(log, cut) or Point(cut),))
    rng = random.Random(seed)
    torn = [cut for cut in range(begin, end + 1) if len(log.pending(cut)) > 0]
    misses = 0
    while torn and len(found) < count and misses < 10 * count:
        misses += not _add(found, [log], (Point(rng.choice(torn), rng.randrange(1 << 31)),))
    return [cut[0] for cut in sorted(found.values(), key=_place)]


def _pairs(logs: Sequence[Log], span: tuple[int, int], count: int, rng: random.Random) -> list[Cut]:
    """Return every write in its order; before and after every flush any luck of both disks; and more.

    ``span`` are serials: they count what all disks were told.
    """
    begin, end = span
    found: Found = {}
    flushes = {log.entries[number].serial for log in logs for number in log.flushes}
    for serial in range(begin, end + 1):
        combined = list(_combined(logs, serial, rng))
        bounded = serial in (begin, end) or flushes & {serial, serial + 1}
        for cut in combined if bounded else combined[:1]:
            _add(found, logs, cut)
    misses = 0
    while len(found) < count and misses < 10 * count:
        luck = list(_combined(logs, rng.randrange(begin, end + 1), rng))
        misses += not _add(found, logs, rng.choice(luck))
    return sorted(found.values(), key=_place)


def _combined(logs: Sequence[Log], serial: int, rng: random.Random) -> Iterator[Cut]:
    """Yield one instant with every luck of one disk beside every luck of the other."""
    one, other = ([*_lucks(log, log.sent(serial), rng)] for log in logs)
    yield from ((first, second) for first in one for second in other)


def _lucks(log: Log, cut: int, rng: random.Random) -> Iterator[Point]:
    """Yield the points where all is kept, nothing, some, and one superblock of two."""
    pending = len(log.pending(cut))
    yield Point(cut)
    if pending:
        yield Point(cut, NOTHING)
        for _ in range(min(pending, SEEDED)):
            yield Point(cut, rng.randrange(NOTHING + 1, 1 << 31))
        split = _split(log, cut)
        if split:
            yield split


def _split(log: Log, cut: int) -> Point | None:
    """Return the point where only the second of two superblocks is written.

    GRUB reads the newest of them, the kernel the first.
    """
    pending = log.pending(cut)
    if tuple(entry.offset for entry in pending) != SUPERBLOCKS:
        return None
    seeded = (Point(cut, seed) for seed in range(1000))
    return next(point for point in seeded if [piece.offset for piece in log.kept(point)] == [SUPERBLOCKS[1]])


def _add(found: Found, logs: Sequence[Log], cut: Cut) -> bool:
    """Add a cut unless one that leaves the same disks, at the same stage of the verb, is there."""
    marks = sum(1 for entry in logs[0].entries[: cut[0].cut] if entry.text)
    key = (marks, *(log.disk(point) for log, point in zip(logs, cut, strict=True)))
    if key in found:
        return False
    found[key] = cut
    return True


def _place(cut: Cut) -> list[tuple[int, int]]:
    return [(point.cut, point.seed or 0) for point in cut]
