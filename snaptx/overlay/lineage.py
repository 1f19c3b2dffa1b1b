"""Where a manifest may differ from the one it was forked from, without a look at both.

::

    meta     'identity'  random, another one each time the manifest is opened and written
             'parent'    the identity its base had when it was forked
    touched  path        every path whose row was put, changed or removed since

Triggers keep ``touched``, so that nobody who writes rows can forget it.  It
tells where to look and not what is there: a path too many costs a look.  It is
good for as long as the base still has the identity it had.  A manifest that was
made from a tree has neither parent nor ``touched``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from snaptx.overlay.manifest import Manifest

_KEPT = "INSERT OR IGNORE INTO touched VALUES"
_SCHEMA = (
    "CREATE TABLE IF NOT EXISTS touched (path BLOB PRIMARY KEY NOT NULL) WITHOUT ROWID",
    f"CREATE TRIGGER IF NOT EXISTS put AFTER INSERT ON rows BEGIN {_KEPT} (NEW.path); END",
    f"CREATE TRIGGER IF NOT EXISTS changed AFTER UPDATE ON rows BEGIN {_KEPT} (OLD.path), (NEW.path); END",
    f"CREATE TRIGGER IF NOT EXISTS gone AFTER DELETE ON rows BEGIN {_KEPT} (OLD.path); END",
)
_FORGET = "DELETE FROM touched"
_DESCEND = "INSERT OR REPLACE INTO meta SELECT 'parent', value FROM meta WHERE name = 'identity'"
_RENEW = "INSERT OR REPLACE INTO meta VALUES ('identity', randomblob(16))"


def renew(manifest: Manifest) -> None:
    """Give a manifest that will be written another identity: what stems from it as it was does not know."""
    with manifest.guard():
        manifest.db.execute(_RENEW)


def descend(manifest: Manifest) -> None:
    """Let a copy that is not renewed yet be the child of what it is a copy of."""
    with manifest.guard():
        for statement in (*_SCHEMA, _FORGET, _DESCEND):
            manifest.db.execute(statement)
