"""Repair: bring the machine back to a state that verifies, and say what was done.

What an interruption left is completed or discarded; what is derived is made
anew from what it derives from; what is damaged is set aside, never thrown
away.  A newer snaptx's files are not touched.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from snaptx import difference, durable, lock, log, nested, recover, switch, system, transaction, verify, views
from snaptx.errors import (
    BootError,
    FormatError,
    JournalError,
    NotFoundError,
    SnaptxError,
    VerifyError,
)
from snaptx.generations import RECORD
from snaptx.machine import Machine
from snaptx.model import Generation, Part, Phase, Tree, Verdict
from snaptx.recover import Act
from snaptx.storage.base import TreeInfo
from snaptx.transaction import Request


def repair(machine: Machine, request: Request) -> list[str]:
    """Repair what is wrong and return what was done, in plain words; nothing done, nothing returned.

    Raises:
        FormatError: a newer snaptx left something; nothing was touched.
        NotFoundError: no generation that could boot is left.
    """
    machine.require_writable()
    with lock.exclusive(machine.lock, request.verb):
        _refuse_newer(machine)
        recover.renew(machine)
        done: list[str] = []
        machine.audit.with_all(partial(_mend, machine, request, done))
    return done


def _mend(machine: Machine, request: Request, done: list[str]) -> None:
    """Repair what is wrong and add to ``done`` what was done; where it breaks off it can be done again."""
    done.extend(_foundations(machine))
    if not done and not _has_work(machine) and not switch.is_due(machine):
        return
    with transaction.begin(machine, Act.RECORD, request, generation=0) as txn:
        txn.step("repair")
        done.extend(_derived(machine))
        txn.succeed(done=done)


def _has_work(machine: Machine) -> bool:
    recorded = (generation.number for generation in machine.generations.recorded())
    return any(verify.state(machine)) or any(verify.awaits_index(machine, number) for number in recorded)


def _refuse_newer(machine: Machine) -> None:
    """Raise FormatError before anything is touched."""
    reads: list[Callable[[], object]] = [machine.journal.open, machine.boot.read, machine.audit.verify]
    for number in machine.generations.numbers():
        reads.append(partial(machine.generations.read, number))
        reads.append(partial(verify.manifest, machine, number))
    for read in reads:
        try:
            read()
        except FormatError:
            raise
        except SnaptxError:
            continue  # that is what a repair is for


def _foundations(machine: Machine) -> Iterator[str]:
    """Mend what recovery itself relies on, then recover."""
    if problem := machine.audit.mend():
        yield f"audit log: {problem}; the sound part was kept, the rest set aside"
    try:
        machine.journal.open()
    except JournalError as error:
        yield f"{error.message}; set aside"
        set_aside(machine, machine.journal.path, f"damaged-{int(system.now())}")
    yield from _records(machine)
    yield from _entry_file(machine)
    yield from _menu(machine)
    remedy = recover.leftovers(machine)
    if remedy:
        yield f"an interrupted transaction was {remedy.value}"
    if machine.protect_pinned():
        yield "what is pinned is protected in the filesystem again"
    for number in machine.generations.numbers():
        if views.removes_left(machine, number):
            yield f"generation {number}: a view that nobody looks at any more was removed"


def set_aside(machine: Machine, path: Path, name: str) -> None:
    """Keep what is in the way beside the journal, as ``name`` or the first such name that is free."""
    os.replace(path, durable.unused(machine.journal.path.with_name(name)))


def _records(machine: Machine) -> Iterator[str]:
    for number in machine.generations.numbers():
        try:
            machine.generations.read(number)
            continue
        except NotFoundError:
            if not _is_needed(machine, number):
                continue
            problem = f"the record of generation {number} is missing"
        except VerifyError as error:
            problem = error.message
            path = machine.generations.directory(number) / RECORD
            set_aside(machine, path, f"damaged-record-{number}")
        machine.generations.write(_guess(machine, number))
        yield f"{problem}; replaced by what can be told from the disk"


def _is_needed(machine: Machine, number: int) -> bool:
    """Return whether a generation without a record is more than a leftover: it boots, runs or was adopted."""
    try:
        state = machine.boot.read()
    except BootError:
        state = None
    adopted = (machine.generations.directory(number) / Part.ROOT).is_symlink()
    return adopted or number == machine.booted or (state is not None and number == state.default)


def _guess(machine: Machine, number: int) -> Generation:
    root = machine.generations.directory(number) / Part.ROOT
    adopted = machine.storage.describe(Tree(number, Part.ROOT)) if root.is_symlink() else None
    return Generation(
        number, 0, system.now(), "repair", "record lost", subvolume=adopted.name if adopted else ""
    )


def _entry_file(machine: Machine) -> Iterator[str]:
    """Write a new entry file where it is missing, damaged or names what does not exist."""
    try:
        state = machine.boot.read()
        problem = "" if state else "the boot entry file is missing"
        if state and machine.storage.describe(Tree(state.default, Part.ROOT)) is None:
            problem = f"the default, generation {state.default}, has no root"
    except BootError as error:
        problem = error.message
    if problem:
        number = _choose_default(machine)
        machine.boot.install(machine.sysroot, _adopted(machine))
        switch.perform(machine, switch.plan(machine, number))
        yield f"{problem}; a new one was written, generation {number} boots"


def _menu(machine: Machine) -> Iterator[str]:
    """Let the menu have the settings that the running generation has for GRUB, and be what starts."""
    try:
        if machine.booted and machine.boot.install(machine.sysroot, _adopted(machine)):
            yield "the menu's settings are those of today"
        if machine.booted and machine.installer and machine.installer.is_replaced():
            machine.installer.install()
            yield "the machine starts by snaptx's menu again"
    except BootError as error:
        log.warning("the boot loader stays as it is", reason=error.message)


def _adopted(machine: Machine) -> TreeInfo:
    return machine.storage.describe(Tree(1, Part.ROOT)) or machine.storage.running


def _choose_default(machine: Machine) -> int:
    """Return the running generation unless it was judged bad, else the newest good one, else the newest."""
    whole = [
        generation
        for generation in machine.generations.recorded()
        if generation.number == machine.booted or machine.phase(generation.number) is Phase.COMMITTED
        if machine.storage.describe(Tree(generation.number, Part.ROOT))
    ]
    if not whole:
        raise NotFoundError(
            "no generation that could boot is left", hint="boot a rescue system and look at @snaptx"
        )
    if any(one.number == machine.booted and one.verdict is not Verdict.BAD for one in whole):
        return machine.booted
    good = [one for one in whole if one.verdict is Verdict.GOOD]
    unjudged = [one for one in whole if one.verdict is not Verdict.BAD]
    return max(one.number for one in good or unjudged or whole)


def _derived(machine: Machine) -> list[str]:
    done = [*_leftovers(machine), *_roots(machine), *_seal(machine), *_manifests(machine)]
    if switch.refresh(machine):
        done.append("the boot entries and the default subvolume were put right")
    return done


def _leftovers(machine: Machine) -> Iterator[str]:
    for number in machine.generations.numbers():
        if not machine.generations.has(number) and number != machine.boot_state().default:
            recover.remove(machine, (number,))
            yield f"generation {number}, a leftover without a record, was removed"
    machine.boot.discard()


def _roots(machine: Machine) -> Iterator[str]:
    for generation in machine.generations.recorded():
        root, sealed = Tree(generation.number, Part.ROOT), Tree(generation.number, Part.SEALED)
        if machine.storage.describe(root) is not None:
            continue
        if machine.storage.describe(sealed) is not None and not generation.subvolume:
            machine.storage.snapshot(sealed, root, writable=True)
            nested.make_directories(machine, generation.number, generation.number)
            yield f"the root of generation {generation.number} was missing; made anew from its sealed tree"
        else:
            recover.remove(machine, (generation.number,))
            yield f"generation {generation.number} had no root; its record was removed"


def _seal(machine: Machine) -> Iterator[str]:
    """What boots is committed, whatever became of the tree that says so."""
    number = machine.boot_state().default
    if machine.phase(number) is Phase.STAGED:
        machine.storage.snapshot(Tree(number, Part.ROOT), Tree(number, Part.SEALED), writable=False)
        machine.manifest(number).unlink(missing_ok=True)
        yield f"generation {number} boots and was not sealed; sealed anew as it is"


def _manifests(machine: Machine) -> Iterator[str]:
    for generation in machine.generations.recorded():
        number = generation.number
        try:
            verify.manifest(machine, number)
        except SnaptxError as error:
            if machine.manifest(number).is_dir():
                set_aside(machine, machine.manifest(number), f"damaged-manifest-{number}")
            machine.manifest(number).unlink(missing_ok=True)
            part = Part.SEALED if machine.phase(number) is Phase.COMMITTED else Part.ROOT
            difference.index(machine, Tree(number, part))
            yield f"generation {number}: {error.message}; its files were indexed anew"
