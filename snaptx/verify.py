"""Verify: is everything what its record says?  Finds, never changes."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator
from typing import NamedTuple

from snaptx import difference, system
from snaptx.errors import NotFoundError, SnaptxError
from snaptx.machine import Machine
from snaptx.model import BootEntry, Kind, Part, Phase, Row, Tree
from snaptx.overlay import scan
from snaptx.overlay.failure import from_root, shown
from snaptx.overlay.manifest import Manifest
from snaptx.recover import Act

LOOKS = 5
"""How often the state is looked at until nobody changes it meanwhile."""

STEADY = (Act.STAGE, Act.RECORD, Act.KEEP)
"""The acts that leave alone what boots."""


class Problem(NamedTuple):
    """One thing that is not as it should be."""

    where: str
    what: str


def generation(
    machine: Machine, number: int, progress: Callable[[int, int], None] | None = None
) -> Iterator[Problem]:
    """Compare a generation with its manifest, every byte read: the sealed tree, or the root while staged.

    Raises:
        NotFoundError: the generation, its tree or its manifest is missing.
        VerifyError: the manifest is damaged.
    """
    machine.generations.read(number)
    part = Part.SEALED if machine.phase(number) is Phase.COMMITTED else Part.ROOT
    manifest(machine, number)
    path = machine.storage.path(Tree(number, part))
    with (
        system.descriptor(path, system.DIRECTORY) as fd,
        Manifest.open(machine.manifest(number)) as index,
    ):
        yield from _compare(scan.scan_tree(fd, difference.within(machine)), index, progress)


def _compare(
    rows: Iterator[Row], index: Manifest, progress: Callable[[int, int], None] | None
) -> Iterator[Problem]:
    seen = size = 0
    unknown = 0
    for row in rows:
        recorded = index.get(row.path)
        seen, size = seen + 1, size + row.size
        if recorded is None:
            unknown += 1
            yield Problem(from_root(row.path), "is not in the manifest")
        elif differing := _differences(recorded, row):
            yield Problem(from_root(row.path), f"differs in {', '.join(differing)}")
        if progress and seen % 256 == 0:
            progress(seen, size)
    missing = index.count() - (seen - unknown)
    if missing:
        yield Problem("/", f"{missing} path(s) of the manifest are missing")


def _differences(recorded: Row, found: Row) -> list[str]:
    names = ["kind", "mode", "uid", "gid", "device", "xattrs"]
    if found.kind is not Kind.DIRECTORY:  # a directory's size and time follow from its entries
        names += ["size", "mtime_ns", "sha256"]
    return [name for name in names if getattr(recorded, name) != getattr(found, name)]


def state(machine: Machine) -> Iterator[Problem]:
    """Compare what snaptx keeps about the machine with itself and with the disk.

    What another snaptx is at work on is left out; where one has begun or ended
    meanwhile, what looks wrong is looked at again.
    """
    for _ in range(LOOKS):
        before, problems = _moment(machine), list(_state(machine))
        if not problems or before == _moment(machine):
            break
    yield from problems


def _moment(machine: Machine) -> object:
    """Return what is another one once somebody begins or ends a change; None where that can't be read."""
    try:
        return machine.journal.open(), machine.audit.head()
    except SnaptxError:
        return None


def _state(machine: Machine) -> Iterator[Problem]:
    intent = None if any(_told("journal", machine.journal.open)) else machine.journal.open()
    at_work = intent is not None and intent.at_work
    if not (intent and at_work and intent.act not in STEADY):
        yield from _boot(machine)
    yield from _generations(machine, {intent.generation, *intent.targets} if intent and at_work else ())
    yield from _told("audit log", machine.audit.verify)
    yield from _told("journal", machine.journal.open)
    if intent and not at_work:
        yield Problem("journal", f"'snaptx {intent.actor.get('verb')}' was interrupted: {intent.end}")


def _told(where: str, check: Callable[[], object]) -> Iterator[Problem]:
    try:
        check()
    except SnaptxError as error:
        yield Problem(where, error.message)


def _boot(machine: Machine) -> Iterator[Problem]:
    try:
        entry = machine.boot_state()
    except SnaptxError as error:
        yield Problem("boot entry", error.message)
        return
    info = machine.storage.describe(Tree(entry.default, Part.ROOT))
    if info is None or not machine.generations.has(entry.default):
        yield Problem("boot entry", f"its default, generation {entry.default}, does not exist")
    elif machine.phase(entry.default) is Phase.STAGED:
        yield Problem("boot entry", f"its default, generation {entry.default}, is not sealed")
    elif machine.storage.default_name() != info.name:
        yield Problem(
            "default subvolume", f"is {machine.storage.default_name() or 'the top level'}, not {info.name}"
        )
    for listed in entry.entries:
        yield from _offered(machine, listed)
    if machine.installer and machine.installer.is_replaced():
        yield Problem("boot loader", "the machine does not start by snaptx's menu any more; 'snaptx repair'")


def _offered(machine: Machine, entry: BootEntry) -> Iterator[Problem]:
    tree = Tree(entry.number, Part.ROOT)
    info = machine.storage.describe(tree)
    if info is None:
        yield Problem("boot entry", f"offers generation {entry.number}, which does not exist")
        return
    for path in machine.boot.missing(entry, machine.storage.path(tree), info):
        what = f"generation {entry.number} is to boot {shown(os.path.basename(os.fsencode(path)))}"
        yield Problem("boot entry", f"{what}, which is missing")


def _generations(machine: Machine, left_out: Collection[int]) -> Iterator[Problem]:
    for number in machine.generations.numbers():
        if number in left_out:
            continue
        where = f"generation {number}"
        if not machine.generations.has(number):
            yield Problem(where, "is a leftover without a record")
            continue
        yield from _told(where, lambda number=number: machine.generations.read(number))  # type: ignore[misc]
        if machine.storage.describe(Tree(number, Part.ROOT)) is None:
            yield Problem(where, "has no root")
        if not awaits_index(machine, number):
            yield from _told(where, lambda number=number: manifest(machine, number))  # type: ignore[misc]


def newest(machine: Machine) -> int:
    """Return the newest generation that can be compared with its manifest."""
    numbers = [generation.number for generation in machine.generations.recorded()]
    return max((one for one in numbers if not awaits_index(machine, one)), default=numbers[-1])


def awaits_index(machine: Machine, number: int) -> bool:
    """Return whether the manifest is still to be made: of a hook's copy, or what was restored from one.

    ``hook after`` makes it, which a package manager that was cut off never calls.
    """
    if machine.manifest(number).exists():
        return False
    try:
        record = machine.generations.read(number)
    except SnaptxError:
        return False
    return bool(record.copy or record.content)


def manifest(machine: Machine, number: int) -> None:
    """Look whether a generation's manifest can be read to its end.

    Raises:
        NotFoundError: there is none.
        VerifyError: it is damaged.
        FormatError: a newer snaptx wrote it.
    """
    path = machine.manifest(number)
    if not path.exists():
        raise NotFoundError(f"generation {number} has no manifest", hint="'snaptx repair' makes a new one")
    with Manifest.open(path) as index:
        index.count()
