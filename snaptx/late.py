"""Late changes: what was changed in the old root between a commit and the restart is not lost.

On the first boot of a generation the root it was committed from is at rest.
What was changed there since, and by nobody here, is brought over.  Where the
new root has changed the same path, its version stays and the path is listed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from snaptx import carry, system, views
from snaptx.carry import Carried, Settled
from snaptx.config import Conflicts
from snaptx.machine import Machine
from snaptx.model import Part, Tree
from snaptx.trees import compare


def bring_over(machine: Machine, number: int) -> Carried:
    """Bring late changes into generation ``number``, which runs for the first time.

    Raises:
        StorageError: the filesystem refused.
    """
    record = _commit_record(machine, number)
    left = int(record.get("running", 0))
    ancestor = carry.reference(machine, number, left) if left not in (0, number) else None
    if ancestor is None or None in map(machine.storage.describe, (ancestor, Tree(left, Part.ROOT))):
        return Carried()
    with (
        views.passing(machine, number, Tree(left, Part.ROOT)) as view,
        _settled(machine, number, record) as settled,
    ):
        chosen, clashes = carry.choose(machine, number, ancestor, view, Conflicts.NEW, settled)
        chosen = [change for change in chosen if not carry.is_volatile(change.path)]
        carry.transfer(machine, view, Tree(number, Part.ROOT), chosen)
    known = {str(path).encode("utf-8", "surrogateescape") for path in record.get("conflicts", ())}
    listed = tuple(path for path in clashes if path not in known and not carry.is_volatile(path))
    return Carried(tuple(change.path for change in chosen), listed)


def _commit_record(machine: Machine, number: int) -> Mapping[str, Any]:
    """Return what the audit trail says of the commit of a generation, nothing if it was not committed."""
    found: Mapping[str, Any] = {}
    for record in machine.audit.records():
        if record.get("generation") == number and "running" in record:
            found = record
    return found


@contextmanager
def _settled(machine: Machine, number: int, record: Mapping[str, Any]) -> Iterator[Settled]:
    """Give a test for paths that the commit carried over and nobody has changed here since."""
    carried = {str(path).encode("utf-8", "surrogateescape") for path in record.get("carried", ())}
    with (
        system.descriptor(machine.storage.path(Tree(number, Part.SEALED)), system.DIRECTORY) as sealed,
        system.descriptor(machine.storage.path(Tree(number, Part.ROOT)), system.DIRECTORY) as root,
        compare.sameness(sealed, root) as same,
    ):
        yield lambda path: path in carried and same(path)
