"""Late changes: what was changed in the old root between a commit and the restart is not lost.

On the first boot of a generation the root it was committed from is at rest.
What was changed there since, and by nobody here, is brought over.  Where the
new root has changed the same path, its version stays and the path is listed.
What the commit has carried over counts as the same on both sides: only what was
done to it since is a change.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from snaptx import carry, views
from snaptx.carry import Carried
from snaptx.config import Conflicts
from snaptx.ground import Ground
from snaptx.machine import Machine
from snaptx.model import Part, Tree


def origin(machine: Machine, number: int) -> tuple[int, Ground] | None:
    """Return the generation that ran when ``number`` was committed, and what both started from.

    None if nothing of it comes over.
    """
    record = _commit_record(machine, number)
    left = int(record.get("running", 0))
    common = carry.reference(machine, number, left) if left not in (0, number) else None
    if common is None or None in map(machine.storage.describe, (common.tree, Tree(left, Part.ROOT))):
        return None
    return left, common


def bring_over(machine: Machine, number: int, left: int, common: Ground) -> Carried:
    """Bring late changes of ``left`` into generation ``number``, which runs for the first time.

    Raises:
        StorageError: the filesystem refused.
    """
    with views.passing(machine, number, Tree(left, Part.ROOT)) as view:
        chosen, clashes = carry.choose(machine, number, common, view, Conflicts.NEW)
        chosen = [change for change in chosen if not carry.is_volatile(change.path)]
        carry.transfer(machine, view, Tree(number, Part.ROOT), chosen)
    listed = tuple(path for path in clashes if not carry.is_volatile(path))
    return Carried(tuple(change.path for change in chosen), listed)


def _commit_record(machine: Machine, number: int) -> Mapping[str, Any]:
    """Return what the audit trail says of the commit of a generation, nothing if it was not committed."""
    found: Mapping[str, Any] = {}
    for record in machine.audit.records():
        if record.get("generation") == number and "running" in record:
            found = record
    return found
