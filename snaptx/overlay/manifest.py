"""The index of a whole tree: what every path is, in one SQLite file.

::

    meta   name TEXT, value          ("format", 1), and what `lineage` keeps beside
    rows   path BLOB PRIMARY KEY     relative, b"" is the root itself
           kind, mode, uid, gid, size, mtime_ns, device, sha256, xattrs, inode, ctime_ns

A time that SQLite's 64 bits don't hold, before 1677 or after 2262, is its digits
as a BLOB, which a column of integers leaves as it is.

``rows`` has no rowid, so the file itself is the index and is sorted by the
bytes of the path.  A new generation's manifest starts as a reflink of its
base's: it costs nothing until it differs.

There is no journal and no fsync here (``journal_mode=OFF``,
``synchronous=OFF``).  A manifest under construction belongs to a generation
under construction and is thrown away with it; what makes a finished one
durable is the caller's barrier (``syncfs``) before the switch.  Everything
done to a writable manifest is one SQLite transaction that ends with `commit`
or `close`; memory is bounded by the page cache of 4 MiB.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from snaptx import mounting
from snaptx.errors import (
    FormatError,
    NoSpaceError,
    ReadOnlyError,
    SnaptxError,
    StorageError,
    VerifyError,
    storage_error,
)
from snaptx.model import Kind, Row
from snaptx.overlay import lineage
from snaptx.overlay.failure import translate
from snaptx.system import descriptor

FORMAT = 1
COLUMNS = "path, kind, mode, uid, gid, size, mtime_ns, device, sha256, xattrs, inode, ctime_ns"
ROW_SCHEMA = """(path BLOB PRIMARY KEY NOT NULL, kind TEXT NOT NULL, mode INTEGER NOT NULL,
    uid INTEGER NOT NULL, gid INTEGER NOT NULL, size INTEGER NOT NULL,
    mtime_ns INTEGER NOT NULL, device INTEGER NOT NULL,
    sha256 BLOB NOT NULL, xattrs BLOB NOT NULL, inode INTEGER NOT NULL, ctime_ns INTEGER NOT NULL{more})
    WITHOUT ROWID"""

_FAR = 1 << 63
"""Nanoseconds that are too many for SQLite."""

FICLONE = 0x40049409  # linux/fs.h
READ_AHEAD = 64 << 20
"""Bytes of a new copy that are read at once: an index of 200,000 paths."""
_WINDOW = 128 << 10
"""The kernel reads no more for one call than a file system's read-ahead, which is seldom less."""

_PRAGMAS = (
    "journal_mode=OFF",
    "synchronous=OFF",
    "cache_size=-4096",
    "locking_mode=EXCLUSIVE",
    "temp_store=MEMORY",
)
_SLASH, _AFTER_SLASH = b"/", b"0"
_GET = f"SELECT {COLUMNS} FROM rows WHERE path = ?"
_FOLLOWING = f"SELECT {COLUMNS} FROM rows WHERE path >= ? ORDER BY path LIMIT ?"
_PUT = f"INSERT OR REPLACE INTO rows VALUES ({', '.join('?' * 12)})"
_AT_REST = "mode=ro&immutable=1"
_KINDS = {kind.value: kind for kind in Kind}
_BY_CODE = {"SQLITE_FULL": NoSpaceError, "SQLITE_READONLY": ReadOnlyError, "SQLITE_CANTOPEN": StorageError}


def to_row(values: Sequence[Any]) -> Row:
    """Return the Row of a result in the order of COLUMNS."""
    path, kind, mode, uid, gid, size, mtime, *rest = values
    return Row(path, _KINDS[kind], mode, uid, gid, size, int(mtime), *rest)


def held(time_ns: int) -> int | bytes:
    """Return a time as its column holds it; ``int`` gives it back."""
    return time_ns if -_FAR <= time_ns < _FAR else b"%d" % time_ns


def to_values(row: Row) -> tuple[Any, ...]:
    """Return ``row`` in the order of COLUMNS."""
    return (
        row.path, str(row.kind), row.mode, row.uid, row.gid, row.size, held(row.mtime_ns),
        row.device, row.sha256, row.xattrs, row.inode, row.ctime_ns,
    )  # fmt: skip


def below(path: bytes) -> tuple[bytes, bytes]:
    """Return the open interval of all paths below ``path``; ``a-b`` and ``a.b`` are not below ``a``."""
    return (path + _SLASH, path + _AFTER_SLASH) if path else (b"", b"\xff" * 256)


class Manifest:
    """One index file, open.  Use it as a context manager or call `close`."""

    def __init__(self, path: Path, db: sqlite3.Connection) -> None:
        self.path = path
        self.db = db
        self._renewed = False

    @classmethod
    def create(cls, path: Path) -> Self:
        """Make a new, empty, writable manifest; the file must not exist."""
        with _os_errors(path):
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_WRONLY, 0o600))
        manifest = cls(path, _connect(path, writable=True))
        with manifest.guard():
            manifest.db.execute("CREATE TABLE meta (name TEXT PRIMARY KEY, value) WITHOUT ROWID")
            manifest.db.execute("INSERT INTO meta VALUES ('format', ?)", (FORMAT,))
            manifest.db.execute("CREATE TABLE rows " + ROW_SCHEMA.format(more=""))
            manifest._renew()
            manifest.commit()
        return manifest

    @classmethod
    def open(cls, path: Path, *, writable: bool = False) -> Self:
        """Open an existing manifest.

        Raises FormatError when a newer snaptx wrote it, VerifyError when it is
        damaged or missing.
        """
        if not path.exists():
            raise VerifyError(f"{path}: the manifest is missing", hint="run: snaptx repair")
        manifest = cls(path, _connect(path, writable=writable))
        try:
            manifest._check_format()
        except BaseException:
            manifest.db.close()
            raise
        return manifest

    @classmethod
    def fork(cls, base: Path, path: Path, *, successor: bool = False) -> Self:
        """Start a writable manifest as a copy of ``base``, sharing its blocks where the filesystem can.

        It is a child of ``base`` (see `lineage`), or as its ``successor`` one of what ``base`` is a child of.
        """
        _require_file(base)
        with _os_errors(path), base.open("rb") as source:
            target = os.open(path, os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_WRONLY, 0o600)
            try:
                _clone(source.fileno(), target)
                _read_ahead(target)
            finally:
                os.close(target)
        return cls._open_fork(path, successor=successor)

    @classmethod
    def _open_fork(cls, path: Path, *, successor: bool) -> Self:
        manifest = cls(path, _connect(path, writable=True))
        try:
            manifest._check_format()
            if not successor:
                lineage.descend(manifest)
            manifest._renew()
        except BaseException:
            manifest.db.close()
            raise
        return manifest

    def _check_format(self) -> None:
        with self.guard():
            found = self.db.execute("SELECT value FROM meta WHERE name = 'format'").fetchone()
        if found is None or not isinstance(found[0], int) or found[0] < 1:
            raise self._damaged("it names no format")
        if found[0] > FORMAT:
            message = f"{self.path}: manifest format {found[0]}, this snaptx knows {FORMAT}"
            raise FormatError(message, hint="use the snaptx that wrote it, or a newer one")

    def _damaged(self, why: object) -> VerifyError:
        return VerifyError(f"{self.path}: the manifest is damaged: {why}", hint="run: snaptx repair")

    def failure(self, err: Exception) -> SnaptxError:
        """Return what an error of sqlite3, or a value it should not hold, means."""
        code = str(getattr(err, "sqlite_errorname", ""))
        for prefix, error in _BY_CODE.items():
            if code.startswith(prefix):
                return error(f"{self.path}: {err}", hint="free space, or look for errors with: dmesg")
        if code.startswith("SQLITE_IOERR"):
            return self._refusal() or StorageError(f"{self.path}: {err}", hint="look for errors with: dmesg")
        return self._damaged(err)

    def _refusal(self) -> StorageError | None:
        """Return why nothing can be written here, if so: sqlite3 calls a full quota an I/O error."""
        try:
            with descriptor(self.path.parent, os.O_TMPFILE | os.O_WRONLY) as fd:
                os.write(fd, bytes(1 << 16))
        except OSError as error:
            return storage_error(error, f"cannot write {self.path.name}")
        return None

    @contextmanager
    def guard(self) -> Iterator[None]:
        """Translate errors of sqlite3 inside a with block."""
        try:
            yield
        except (sqlite3.Error, KeyError, TypeError, ValueError) as err:
            raise self.failure(err) from err

    def get(self, path: bytes) -> Row | None:
        """Return the row of one path, or None."""
        try:
            found = self.db.execute(_GET, (path,)).fetchone()
            return None if found is None else to_row(found)
        except (sqlite3.Error, KeyError, TypeError, ValueError) as err:
            raise self.failure(err) from err

    def following(self, path: bytes, count: int) -> list[tuple[Any, ...]]:
        """Return up to ``count`` rows from ``path`` on, sorted, as `to_row` takes them."""
        with self.guard():
            return self.db.execute(_FOLLOWING, (path, count)).fetchall()

    def put(self, rows: Iterable[Row]) -> None:
        """Add or replace rows, in one streamed batch."""
        self._renew()
        with self.guard():
            self.db.executemany(_PUT, map(to_values, rows))

    def remove_tree(self, path: bytes) -> None:
        """Forget a path and everything below it."""
        self._renew()
        with self.guard():
            query = "DELETE FROM rows WHERE path = ? OR (path > ? AND path < ?)"
            self.db.execute(query, (path, *below(path)))

    def _renew(self) -> None:
        """Give it another identity before rows of it change."""
        if not self._renewed:
            lineage.renew(self)
            self._renewed = True

    def children(self, path: bytes) -> Iterator[Row]:
        """Yield what lies directly in the directory ``path``, sorted; jumps over whole subtrees."""
        after, end = below(path)
        start = len(path) + 1 if path else 0
        query = f"SELECT {COLUMNS} FROM rows WHERE path > ? AND path < ? ORDER BY path LIMIT 1"
        while True:
            with self.guard():
                found = self.db.execute(query, (after, end)).fetchone()
            if found is None:
                return
            cut = found[0].find(_SLASH, start)
            if cut < 0:
                yield to_row(found)
                after = found[0]
            else:
                after = found[0][:cut] + _SLASH + b"\xff" * 256

    def count(self) -> int:
        """Return the number of rows."""
        with self.guard():
            return int(self.db.execute("SELECT count(*) FROM rows").fetchone()[0])

    def attach(self, schema: str) -> None:
        """Add an empty database under the name ``schema``, in a file beside this one that has no name."""
        beside = self.path.with_name(self.path.name + ".new")
        with _os_errors(beside):  # SQLite does not say why it can't make a file
            beside.unlink(missing_ok=True)
            beside.touch(0o600)
        with self.guard():
            self.db.execute("COMMIT")
            mounting.with_real_path(
                beside, lambda real: self.db.execute(f"ATTACH ? AS {schema}", (str(real),))
            )
            for pragma in _PRAGMAS[:3]:
                self.db.execute(f"PRAGMA {schema}.{pragma}")
            self.db.execute("BEGIN")
        with _os_errors(beside):
            beside.unlink()

    def detach(self, schema: str) -> None:
        """Take that database away with all that is in it; what else was done is committed."""
        with self.guard():
            self.db.execute("COMMIT")
            self.db.execute(f"DETACH {schema}")
            self.db.execute("BEGIN")

    @contextmanager
    def joined(self, other: Manifest, schema: str) -> Iterator[None]:
        """Have the tables of ``other`` under the name ``schema``, to read them, in a with block."""
        with self.guard():
            self.db.execute("COMMIT")
            query = f"ATTACH ? AS {schema}"
            mounting.with_real_path(other.path, lambda real: self.db.execute(query, (_uri(real, _AT_REST),)))
        try:
            yield
        finally:
            with self.guard():
                self.db.execute(f"DETACH {schema}")
                self.db.execute("BEGIN")

    def commit(self) -> None:
        """End the open SQLite transaction and start the next: the file is complete, not yet durable."""
        with self.guard():
            self.db.execute("COMMIT")
            self.db.execute("BEGIN")

    def close(self) -> None:
        """Commit and close; closing twice is harmless."""
        with self.guard():
            if self._is_open() and self.db.in_transaction:
                self.db.execute("COMMIT")
            self.db.close()

    def _is_open(self) -> bool:
        try:
            self.db.total_changes  # noqa: B018
        except sqlite3.ProgrammingError:
            return False
        return True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, err: BaseException | None, trace: TracebackType | None
    ) -> None:
        if err is None:
            self.close()
        else:
            self.db.close()


def _connect(path: Path, *, writable: bool) -> sqlite3.Connection:
    """Open the database; a read-only one is taken as immutable, so no lock and no side file is needed."""
    mode = "mode=rw" if writable else _AT_REST
    _require_file(path)
    try:
        db = mounting.with_real_path(path, lambda real: _open(real, mode))
    except sqlite3.Error as err:
        message = f"{path}: the manifest can't be opened: {err}"
        raise StorageError(message, hint="look for errors with: dmesg") from err
    try:
        for pragma in _PRAGMAS:
            db.execute(f"PRAGMA {pragma}")
        db.execute("BEGIN")
    except sqlite3.Error as err:
        db.close()
        raise VerifyError(f"{path}: the manifest is damaged: {err}", hint="run: snaptx repair") from err
    return db


def _require_file(path: Path) -> None:
    """Refuse what is there and no regular file: who opens a FIFO waits."""
    if path.exists() and not path.is_file():
        raise VerifyError(f"{path}: the manifest is no regular file", hint="run: snaptx repair")


def _open(path: Path, mode: str) -> sqlite3.Connection:
    return sqlite3.connect(_uri(path, mode), uri=True, isolation_level=None, check_same_thread=False)


def _uri(path: Path, mode: str) -> str:
    return f"{path.absolute().as_uri()}?{mode}"


def _clone(source: int, target: int) -> None:
    try:
        fcntl.ioctl(target, FICLONE, source)
    except OSError:
        while os.copy_file_range(source, target, 1 << 24):
            pass


def _read_ahead(copy: int) -> None:
    """Have a copy's pages read: they are not the original's, and each is read alone when first needed."""
    for start in range(0, min(os.fstat(copy).st_size, READ_AHEAD), _WINDOW):
        os.posix_fadvise(copy, start, _WINDOW, os.POSIX_FADV_WILLNEED)


@contextmanager
def _os_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as err:
        raise translate(err, os.fsencode(path)) from err
