"""What a transaction did so far, on disk: memory does not grow with the payload.

Five tables in a file of their own without a name, attached to the manifest's
connection::

    written    path, the row asked for, action    every other path the payload named
    same       path                               every path named just as the base's row has it
    gone       path                               every path of the base that was removed
    disturbed  path                               every directory whose entries changed
    linked     path, inode                        files that gained or lost a name

None is called as a table of the manifest is, for SQLite would find that one first.

The manifest's own rows stay the base's until `settle` turns all of this into
rows: who tells what the base holds may read them meanwhile.  The tables stay
for the verification and go with `drop`.

The last thousand entries of ``written``, ``same`` and ``disturbed`` wait in
memory, and paths are looked up there first.  A bit per hash of a path (1 MiB for
each set) answers most questions for a path that was not named or removed yet.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from enum import StrEnum
from typing import Any

from snaptx.model import Counts, Kind, Row
from snaptx.overlay.manifest import COLUMNS, ROW_SCHEMA, Manifest, below, held, to_row, to_values

SCHEMA = "record"
"""What the tables' database is called beside the manifest's."""

_BATCH = 1000
_LOT = 10_000
"""Paths whose rows change at a time."""

_BITS = 1 << 23
_PUT = f"INSERT OR REPLACE INTO written VALUES ({', '.join('?' * 13)})"
_ACTION = "SELECT action FROM written WHERE path = ?1 UNION ALL SELECT 'unchanged' FROM same WHERE path = ?1"
_TABLES = {
    "written": ROW_SCHEMA.format(more=", action TEXT NOT NULL"),
    "same": "(path BLOB PRIMARY KEY NOT NULL) WITHOUT ROWID",
    "gone": "(path BLOB PRIMARY KEY NOT NULL) WITHOUT ROWID",
    "disturbed": "(path BLOB PRIMARY KEY NOT NULL) WITHOUT ROWID",
    "linked": "(path BLOB, inode INTEGER, PRIMARY KEY (path, inode)) WITHOUT ROWID",
}


class Action(StrEnum):
    """What became of a path the payload named."""

    ADDED = "added"
    CHANGED = "changed"
    UNCHANGED = "unchanged"
    KEPT = "kept"
    """A symlink of the base that leads to a directory, where the payload has a directory."""
    IMPLIED = "implied"
    """A parent directory the payload did not name."""


_MADE = "('added', 'changed', 'implied')"
# A directory's times are set last: the payload's where it gave them, else what they became.
_DIRECTORIES = f"""
    SELECT path, CASE action WHEN 'implied' THEN NULL ELSE mtime_ns END FROM written
     WHERE kind = '{Kind.DIRECTORY}' AND action != 'kept'
       AND (action != 'unchanged' OR path IN (SELECT path FROM disturbed)) AND path > ?1
    UNION ALL SELECT path, (SELECT mtime_ns FROM rows WHERE path IN same AND path = disturbed.path)
      FROM disturbed
     WHERE path > ?1 AND path NOT IN (SELECT path FROM written WHERE kind = '{Kind.DIRECTORY}')
    ORDER BY path LIMIT {_BATCH}"""


class _Bits:
    """A set of paths that knows for sure only what it does not hold."""

    __slots__ = ("_bits",)

    def __init__(self) -> None:
        self._bits = bytearray(_BITS // 8)

    def add(self, path: bytes) -> bool:
        """Add a path; return whether it may have been in the set."""
        bit = hash(path) % _BITS
        place, mark = bit >> 3, 1 << (bit & 7)
        before = self._bits[place]
        self._bits[place] = before | mark
        return before & mark != 0

    def add_new(self, paths: Iterable[bytes], other: _Bits) -> tuple[list[bytes], list[bytes]]:
        """Add the paths that are surely in neither set; return them, and those that may be in one."""
        new, rest = [], []
        # Most of a payload passes here: a call of `add` for each would take longer than the rest.
        bits, others = self._bits, other._bits
        for path in paths:
            bit = hash(path) % _BITS
            place, mark = bit >> 3, 1 << (bit & 7)
            before = bits[place]
            if (before | others[place]) & mark:
                rest.append(path)
            else:
                bits[place] = before | mark
                new.append(path)
        return new, rest

    def __contains__(self, path: bytes) -> bool:
        bit = hash(path) % _BITS
        return bool(self._bits[bit >> 3] & 1 << (bit & 7))


class Record:
    """The transaction's memory, in the file of ``manifest``."""

    def __init__(self, manifest: Manifest) -> None:
        self._manifest = manifest
        self._db = manifest.db
        self._pending: dict[bytes, tuple[Any, ...]] = {}
        self._same: dict[bytes, tuple[bytes]] = {}
        self._disturbed: dict[bytes, tuple[bytes]] = {}
        self._seen = _Bits()
        self._gone = _Bits()

    def begin(self) -> None:
        """Make the tables, empty."""
        self._manifest.attach(SCHEMA)
        with self._manifest.guard():
            for name, columns in _TABLES.items():
                self._db.execute(f"CREATE TABLE {SCHEMA}.{name} {columns}")

    def drop(self) -> None:
        """Remove the tables."""
        self._manifest.detach(SCHEMA)

    def add(self, row: Row, action: Action) -> None:
        """Note what became of ``row.path`` and what was asked for."""
        self.put(to_values(row), action)

    def put(self, values: tuple[Any, ...], action: Action) -> None:
        """Do as `add`, for a row given as `to_values` makes it."""
        path = values[0]
        self._pending[path] = (*values, str(action))
        self._seen.add(path)
        if len(self._pending) >= _BATCH:
            self.flush()

    def keep_new(self, paths: Sequence[bytes]) -> list[bytes]:
        """Do as `keep` for what was surely neither named nor removed before; return all others."""
        new, others = self._seen.add_new(paths, self._gone)
        self._same.update(zip(new, zip(new, strict=True), strict=True))
        if len(self._same) >= _BATCH:
            self.flush()
        return others

    def keep(self, path: bytes) -> bool:
        """Note that the payload names ``path`` just as the base has it; return whether that is news."""
        if self._seen.add(path) and self.action(path) is not None:
            return False
        self._same[path] = (path,)
        if len(self._same) >= _BATCH:
            self.flush()
        return True

    def flush(self) -> None:
        """Write what waits in memory."""
        if self._pending or self._same or self._disturbed:
            with self._manifest.guard():
                self._db.executemany(_PUT, self._pending.values())
                self._db.executemany("INSERT INTO same VALUES (?)", self._same.values())
                self._db.executemany("INSERT OR IGNORE INTO disturbed VALUES (?)", self._disturbed.values())
            for waiting in (self._pending, self._same, self._disturbed):
                waiting.clear()

    def action(self, path: bytes) -> Action | None:
        """Return what became of ``path``, None when the payload did not name it so far."""
        if path not in self._seen:
            return None
        waiting = self._pending.get(path)
        if waiting is not None:
            return Action(waiting[-1])
        if path in self._same:
            return Action.UNCHANGED
        try:
            found = self._db.execute(_ACTION, (path,)).fetchone()
        except sqlite3.Error as err:
            raise self._manifest.failure(err) from err
        return Action(found[0]) if found else None

    def row(self, path: bytes) -> Row | None:
        """Return what was asked for at ``path``, None when that is the base's row or nothing so far."""
        waiting = self._pending.get(path)
        if waiting is not None:
            return to_row(waiting[:-1])
        with self._manifest.guard():
            found = self._db.execute(f"SELECT {COLUMNS} FROM written WHERE path = ?", (path,)).fetchone()
        return to_row(found) if found else None

    def wrote(self, path: bytes) -> bool:
        """Return whether the payload itself put something at ``path``."""
        return self.action(path) in (Action.ADDED, Action.CHANGED)

    def any_below(self, path: bytes) -> bool:
        """Return whether the payload named anything below ``path``."""
        self.flush()
        inside = "SELECT 1 FROM {} WHERE path > ?1 AND path < ?2"
        query = f"{inside.format('written')} UNION ALL {inside.format('same')} LIMIT 1"
        with self._manifest.guard():
            return self._db.execute(query, below(path)).fetchone() is not None

    def remove(self, path: bytes) -> None:
        """Note that a path of the base was removed."""
        self._gone.add(path)
        with self._manifest.guard():
            self._db.execute("INSERT OR IGNORE INTO gone VALUES (?)", (path,))

    def is_gone(self, path: bytes) -> bool:
        """Return whether this transaction removed ``path`` from the base."""
        if path not in self._gone:
            return False
        with self._manifest.guard():
            return self._db.execute("SELECT 1 FROM gone WHERE path = ?", (path,)).fetchone() is not None

    def touch(self, path: bytes) -> None:
        """Note that the entries of the directory ``path`` changed."""
        self._disturbed[path] = (path,)
        if len(self._disturbed) >= _BATCH:
            self.flush()

    def link(self, path: bytes, inode: int) -> None:
        """Note that ``inode``, known as ``path``, gained or lost a name."""
        with self._manifest.guard():
            self._db.execute("INSERT OR IGNORE INTO linked VALUES (?, ?)", (path, inode))

    def is_linked(self, path: bytes) -> bool:
        """Return whether a hard link of this payload joined ``path``."""
        with self._manifest.guard():
            return self._db.execute("SELECT 1 FROM linked WHERE path = ?", (path,)).fetchone() is not None

    def directories(self) -> Iterator[tuple[bytes, int | None]]:
        """Yield the directories to look at again, by path, each with the mtime (ns) it has to get or None."""
        self.flush()
        yield from ((path, when if when is None else int(when)) for path, when in self._paged(_DIRECTORIES))

    def relinked(self) -> Iterator[bytes]:
        """Yield the paths in the manifest whose inode gained or lost a name: all rows are read for that."""
        with self._manifest.guard():
            if not self._db.execute("SELECT 1 FROM linked LIMIT 1").fetchone():
                return
        query = f"""SELECT path FROM rows WHERE inode IN (SELECT inode FROM linked)
                    AND path > ?1 ORDER BY path LIMIT {_BATCH}"""
        yield from (path for (path,) in self._paged(query))

    def _paged(self, query: str) -> Iterator[Any]:
        """Run ``query`` page by page, so that the tables may change between two results."""
        after: bytes | str = ""  # SQLite sorts text before all blobs
        while True:
            with self._manifest.guard():
                page = self._db.execute(query, (after,)).fetchall()
            if not page:
                return
            yield from page
            after = page[-1][0]

    def settle(self) -> None:
        """Put what was written into the manifest's rows."""
        self.flush()
        self._by_lots("gone", "DELETE FROM rows WHERE path IN (SELECT path FROM gone WHERE {})")
        copy = f"INSERT OR REPLACE INTO rows SELECT {COLUMNS} FROM written WHERE action IN {_MADE} AND {{}}"
        self._by_lots("written", copy)

    def _by_lots(self, table: str, change: str) -> None:
        """Make a change for all paths of ``table``, in lots: SQLite keeps in memory what it changes."""
        lot = f"SELECT max(path) FROM (SELECT path FROM {table} WHERE path > ? ORDER BY path LIMIT {_LOT})"
        after: bytes | str = ""
        with self._manifest.guard():
            while (upto := self._db.execute(lot, (after,)).fetchone()[0]) is not None:
                self._db.execute(change.format("path > ? AND path <= ?"), (after, upto))
                after = upto

    def refresh(self, path: bytes, inode: int, ctime_ns: int, mtime_ns: int) -> None:
        """Put the inode and the times (ns) a path has by now into its row."""
        with self._manifest.guard():
            query = "UPDATE rows SET inode = ?, ctime_ns = ?, mtime_ns = ? WHERE path = ?"
            self._db.execute(query, (inode, ctime_ns, held(mtime_ns), path))

    def made(self) -> Iterator[tuple[Row, Action]]:
        """Yield what was asked for at every path that was written, sorted."""
        query = f"""SELECT {COLUMNS}, action FROM written WHERE action IN {_MADE}
                    AND path > ?1 ORDER BY path LIMIT {_BATCH}"""
        for *values, action in self._paged(query):
            yield to_row(values), Action(action)

    def made_below(self, path: bytes) -> int:
        """Return how many paths below ``path`` the payload made or changed, those it implied left out."""
        made = f"written WHERE path > ? AND path < ? AND action IN ('{Action.ADDED}', '{Action.CHANGED}')"
        with self._manifest.guard():
            return self._count(made, below(path))

    def counts(self, bytes_written: int) -> Counts:
        """Return the sums; what was removed and written again counts as changed."""
        self.flush()
        with self._manifest.guard():
            sums = ", ".join(f"count(*) FILTER (WHERE action = '{action}')" for action in Action)
            found = self._db.execute(f"SELECT {sums} FROM written").fetchone()
            count: dict[Action, int] = dict(zip(Action, found, strict=True))
            again = self._count(f"gone JOIN written USING (path) WHERE action IN {_MADE}")
            gone, same = self._count("gone"), self._count("same")
        return Counts(
            added=count[Action.ADDED] + count[Action.IMPLIED] - again,
            changed=count[Action.CHANGED] + again,
            removed=gone - again,
            unchanged=count[Action.UNCHANGED] + count[Action.KEPT] + same,
            bytes_written=bytes_written,
        )

    def _count(self, what: str, values: tuple[bytes, ...] = ()) -> int:
        return int(self._db.execute(f"SELECT count(*) FROM {what}", values).fetchone()[0])
