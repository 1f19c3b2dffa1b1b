"""The record of what was moved out of the root: ``shared.json`` in snaptx's own files.

It tells a copy that snaptx made from somebody's subvolume of the same name, and
what is still to be brought over.  It belongs to no generation.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from snaptx import durable, fstab
from snaptx.errors import FormatError, JournalError
from snaptx.machine import Machine
from snaptx.model import Part, Tree

FORMAT = 1
NAME = "shared.json"


class Conversion(NamedTuple):
    """One place that became a subvolume.

    The copy is of the root of ``generation``; ``birth_ns`` is when its root
    directory was made.  What changed there after ``copied_ns`` is not in it
    yet; what changed in the copy after ``ready_ns`` is somebody's work in it.
    Times are in nanoseconds since the epoch.  ``settled`` is whether nothing
    is left to be brought over.
    """

    path: str
    subvolume: str
    generation: int
    birth_ns: int
    copied_ns: int
    ready_ns: int
    settled: bool = False


def read(state: Path) -> dict[str, Conversion]:
    """Return the conversions by path.

    Raises:
        JournalError: the record is damaged.
        FormatError: a newer snaptx wrote it.
    """
    try:
        data = json.loads(durable.read(state / NAME))
        if data["format"] > FORMAT:
            hint = "use that version or newer"
            raise FormatError(f"{NAME} was written by a newer snaptx", hint=hint)
        return {item["path"]: Conversion(**item) for item in data["converted"]}
    except FileNotFoundError:
        return {}
    except (ValueError, KeyError, TypeError) as error:
        hint = f"move @snaptx/{NAME} away; it only says which subvolumes snaptx has made"
        raise JournalError(f"{NAME} is damaged: {error}", hint=hint) from error


def write(state: Path, conversions: Iterable[Conversion]) -> None:
    """Replace the record, durable on return."""
    rows = [one._asdict() for one in sorted(conversions, key=lambda one: one.path)]
    durable.replace(
        state / NAME, (json.dumps({"format": FORMAT, "converted": rows}, indent=2) + "\n").encode()
    )


def put(state: Path, *conversions: Conversion) -> None:
    """Record conversions, in place of earlier ones of the same paths."""
    write(state, (read(state) | {one.path: one for one in conversions}).values())


def mounted_by(machine: Machine) -> list[tuple[str, str]]:
    """Return the (path, subvolume) pairs snaptx has made that the running or the default root's fstab mounts.

    Somebody may have booted a generation from before the conversion.
    """
    made = read(machine.storage.state).values()
    if not made:
        return []
    known = fstab.targets(fstab.read(machine.sysroot))
    default = machine.boot.read()
    if default and machine.storage.describe(Tree(default.default, Part.ROOT)):
        known |= fstab.targets(fstab.read(machine.storage.path(Tree(default.default, Part.ROOT))))
    return [(one.path, one.subvolume) for one in made if one.path in known]


def waiting(machine: Machine) -> tuple[str, ...]:
    """Return the converted paths that are not mounted yet, or not settled."""
    if not machine.storage.state.is_dir():
        return ()
    made, named = read(machine.storage.state), dict(mounted_by(machine))
    return tuple(path for path, one in made.items() if path in named and not one.settled)
