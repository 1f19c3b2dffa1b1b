"""What differs between two manifests, by all their rows or by what their lineage says was touched."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Any

from snaptx.model import Row
from snaptx.overlay.manifest import COLUMNS, Manifest, to_row

_WIDTH = COLUMNS.count(",") + 1


def _columns(table: str, skip: int = 0) -> str:
    return ", ".join(f"{table}.{name}" for name in COLUMNS.split(", ")[skip:])


_DIFFERING = f"""
    SELECT {_columns("o")}, {_columns("n")} FROM main.rows n LEFT JOIN old.rows o USING (path)
     WHERE ({_columns("n", 1)}) IS NOT ({_columns("o", 1)})
    UNION ALL SELECT {_columns("o")}, {_columns("n")} FROM old.rows o LEFT JOIN main.rows n USING (path)
     WHERE n.path IS NULL"""
_DIFFERING_AMONG = f"""
    SELECT {_columns("o")}, {_columns("n")} FROM temp.among a
      LEFT JOIN main.rows n ON n.path = a.path LEFT JOIN old.rows o ON o.path = a.path
     WHERE ({_columns("n")}) IS NOT ({_columns("o")})"""


def differing(
    old: Manifest, new: Manifest, among: Iterable[bytes] | None = None
) -> Iterator[tuple[bytes, tuple[Row | None, Row | None]]]:
    """Yield each path whose rows differ in anything, with both; one is None where there is no such path.

    Only the paths ``among`` which all of them are get looked at, if given.
    Neither may be written meanwhile.
    """
    with new.joined(old, "old"), new.guard():
        if among is not None:
            new.db.execute("CREATE TEMP TABLE among (path BLOB PRIMARY KEY NOT NULL) WITHOUT ROWID")
            new.db.executemany("INSERT INTO among VALUES (?)", ((path,) for path in among))
        for values in new.db.execute(_DIFFERING if among is None else _DIFFERING_AMONG):
            one, other = values[:_WIDTH], values[_WIDTH:]
            rows = (
                to_row(one) if one[0] is not None else None,
                to_row(other) if other[0] is not None else None,
            )
            yield (one[0] if other[0] is None else other[0]), rows


def touched(one: Sequence[Manifest], other: Sequence[Manifest]) -> set[bytes] | None:
    """Return every path at which the first of ``one`` and the first of ``other`` may differ.

    Both begin with a manifest and go on with its base, that one's base, and so
    on; they end with the same one.  None if that can't be told.

    Raises:
        VerifyError: one is damaged.
    """
    found: set[bytes] = set()
    for line in (one, other):
        for child, base in pairwise(line):
            parent = _meta(child, "parent")
            if parent is None or parent != _meta(base, "identity"):
                return None
            found.update(_paths(child))
    return found


def _meta(manifest: Manifest, name: str) -> Any:
    with manifest.guard():
        found = manifest.db.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
    return found[0] if found else None


def _paths(manifest: Manifest) -> Iterator[bytes]:
    with manifest.guard():
        yield from (path for (path,) in manifest.db.execute("SELECT path FROM touched"))
