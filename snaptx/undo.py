"""Undo init: the machine starts as it did before, and nothing of snaptx is left on its disks.

The boot loader comes first: from there on the machine does not need what is
removed.  Interrupted, it can be run again until ``@snaptx`` is gone, which is
the last step.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from snaptx import cache, durable, transaction
from snaptx.errors import BusyError
from snaptx.machine import Machine
from snaptx.model import Part, Tree
from snaptx.recover import Act
from snaptx.storage.base import APPS
from snaptx.transaction import Request

LOG = "var/log/snaptx-audit.log"
"""Where the audit trail is kept, in the root; with a number after it beside those of earlier times."""


class Undoing(NamedTuple):
    """What is removed: generations, and steps in plain words."""

    generations: tuple[int, ...]
    steps: tuple[str, ...]


def plan(machine: Machine) -> Undoing:
    """Return what ``undo`` would do.

    Raises:
        BusyError: another root than the adopted one runs, one of the others is pinned or mounted, or
            there are application trees.
    """
    generations = machine.generations.recorded()  # the boot entries may be gone: it was interrupted
    if machine.booted != 1:
        hint = "snaptx rollback 1, restart, and try again"
        raise BusyError("only the root that was adopted, generation 1, can go on without snaptx", hint=hint)
    pinned = [str(generation.number) for generation in generations if generation.pinned]
    if pinned:
        raise BusyError(f"pinned: {', '.join(pinned)}", hint="snaptx unpin what is to go")
    apps = sorted(path.name for path in (machine.storage.state / APPS).glob("[!.]*"))
    if apps:
        message = f"there are application trees: {', '.join(apps)}"
        raise BusyError(message, hint="first: snaptx app remove NAME; 'snaptx repair' for what is none")
    gone = tuple(generation.number for generation in generations if generation.number != 1)
    return Undoing(gone, tuple(_steps(machine, gone)))


def _trees(gone: Iterable[int]) -> Iterator[Tree]:
    """Yield what ``undo`` deletes: all but the root that was adopted."""
    yield from (
        Tree(number, part) for number in (1, *gone) for part in Part if (number, part) != (1, Part.ROOT)
    )


def _trail(machine: Machine) -> bytes:
    return machine.audit.log.read_bytes() if machine.audit.log.is_file() else b""


def _place(machine: Machine) -> Path:
    """Return where the trail is kept: by its own name, or over what an interrupted undo has kept of it."""
    trail = _trail(machine)
    return next(
        path
        for path in durable.numbered(machine.sysroot / LOG)
        if not os.path.lexists(path) or (path.is_file() and trail.startswith(path.read_bytes()))
    )


def _steps(machine: Machine, gone: tuple[int, ...]) -> list[str]:
    loader = ["make the machine start by its own boot loader again"] if machine.installer else []
    numbers = ", ".join(map(str, gone)) or "none"
    return [
        *loader,
        f"remove the generations that were made (of {len(gone) + 1}: {numbers}), and all state",
        f"keep the audit trail as /{_place(machine).relative_to(machine.sysroot)}",
        "leave the running root, and shared data, as they are",
    ]


def undo(machine: Machine, request: Request) -> Undoing:
    """Take snaptx off the machine.

    Raises:
        BusyError: as ``plan`` does; nothing was changed.
        LockError: another snaptx is at work, or fetches packages; nothing was changed.
        BootError: the boot loader could not be put back; everything else is still there.
    """
    with ExitStack() as locks:
        locks.enter_context(transaction.exclusive(machine, request.verb))
        locks.enter_context(cache.sole_user(machine, request.verb))
        planned = plan(machine)
        default = _default_before(machine)
        machine.storage.claim(_trees(planned.generations))
        if machine.installer:
            machine.installer.undo()
        with transaction.begin(machine, Act.RECORD, request, generation=1) as txn:
            txn.succeed(undone=planned.steps)
        kept = _place(machine)
        kept.parent.mkdir(parents=True, exist_ok=True)
        durable.replace(kept, _trail(machine), 0o600)
        machine.boot.remove()
        machine.storage.forsake(default, locks.close)
    return planned


def _default_before(machine: Machine) -> str:
    """Return what the filesystem's default was before init, the adopted root if that is not on record."""
    adopted = machine.storage.running.name
    found = (record.get("default_subvolume") for record in machine.audit.records() if record.get("adopted"))
    name = next((str(name) for name in found if name is not None), adopted)
    return name if name in ("", adopted) else adopted
