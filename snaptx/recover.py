"""What to do about a transaction that did not end: a pure table, then its application.

The journal says what was meant, the disk what exists.  One rule serves the
power cut, the killed process and the error: what the entry file names is
completed, what it does not name is discarded.  Every remedy can be applied
twice.  What only a few of them need is imported there: every verb that changes
something loads this module.
"""

from __future__ import annotations

import os
from enum import StrEnum
from functools import partial
from typing import Any, NamedTuple

from snaptx import log, scene, switch, system
from snaptx.errors import (
    BootError,
    BusyError,
    FormatError,
    NoSpaceError,
    SnaptxError,
    VerifyError,
    storage_error,
)
from snaptx.generations import RECORD
from snaptx.journal import Intent
from snaptx.machine import Machine
from snaptx.model import Part, Tree, Verdict


class Act(StrEnum):
    """The kinds of transaction; what a verb does, not how it is typed."""

    INIT = "init"
    STAGE = "stage"
    COMMIT = "commit"
    ROLLBACK = "rollback"
    ACTIVATE = "activate"
    REMOVE = "remove"
    RECORD = "record"
    JUDGE = "judge"
    LIVE = "live"
    KEEP = "keep"


class Remedy(StrEnum):
    """What becomes of an interrupted transaction."""

    COMPLETE = "completed"
    DISCARD = "discarded"
    UNSEAL = "undone"
    LEAVE = "not made"
    SETTLE = "settled"


class Facts(NamedTuple):
    """What there is of the intended generation.

    ``running`` is a generation that a boot has chosen since: a power cut can
    leave a state in which GRUB sees the new entry file and the kernel the old
    one (it reads another copy of the superblock).  The root that runs is right.
    """

    recorded: bool
    default: bool
    running: bool = False


def decide(act: Act, facts: Facts) -> Remedy:
    """Return the remedy: the whole table of recovery."""
    match act:
        case Act.STAGE | Act.KEEP:
            return Remedy.COMPLETE if facts.recorded else Remedy.DISCARD
        case Act.INIT:
            return Remedy.COMPLETE if facts.default else Remedy.DISCARD
        case Act.ROLLBACK:
            return Remedy.COMPLETE if facts.default or facts.running else Remedy.DISCARD
        case Act.COMMIT:
            return Remedy.COMPLETE if facts.default or facts.running else Remedy.UNSEAL
        case Act.ACTIVATE:
            # It is nothing but the switch: either that is there or it is not.
            return Remedy.COMPLETE if facts.default or facts.running else Remedy.LEAVE
        case Act.REMOVE:
            return Remedy.COMPLETE
        case Act.RECORD | Act.JUDGE | Act.LIVE:
            # Whether the record was written can't be told; what it says is put into effect.
            # A live switch that was seen anywhere is seen everywhere, one that was not nowhere.
            return Remedy.SETTLE


def look(machine: Machine, intent: Intent) -> Facts:
    """Return what there is of the generation a transaction was about."""
    number, state = intent.generation, machine.boot.read()
    return Facts(
        recorded=machine.generations.has(number),
        default=state is not None and state.default == number,
        running=number == machine.booted and intent.boot_id != system.boot_id(),
    )


def settle(machine: Machine, intent: Intent, failure: SnaptxError | None = None) -> Remedy:
    """End the open transaction: apply the remedy, write the audit record, close the journal.

    ``failure`` is why it did not end by itself, None if it was interrupted.

    Raises:
        FormatError: it is of a kind that this snaptx does not know; nothing was changed.
    """
    remedy = decide(_act(intent), look(machine, intent))
    machine.audit.with_all(partial(_apply, machine, intent, remedy))
    _record(machine, intent, remedy, failure)
    machine.journal.end()
    return remedy


def _apply(machine: Machine, intent: Intent, remedy: Remedy) -> None:
    act = _act(intent)
    match remedy:
        case Remedy.SETTLE if act is Act.LIVE:
            _settle_live(machine, intent)
        case Remedy.COMPLETE | Remedy.SETTLE:
            _choose_running(machine, intent)
            complete(machine, intent)
        case Remedy.LEAVE:
            machine.boot.discard()
        case Remedy.DISCARD:
            machine.boot.discard()
            discard(machine, intent.generation)
        case Remedy.UNSEAL:
            unseal(machine, intent.generation)


def _act(intent: Intent) -> Act:
    try:
        return Act(intent.act)
    except ValueError:
        message = f"a transaction of an unknown kind is open: {intent.act}"
        raise FormatError(message, hint="finish it with the snaptx that began it, or a newer one") from None


def _settle_live(machine: Machine, intent: Intent) -> None:
    from snaptx import lived, liveswitch

    if intent.boot_id == system.boot_id():
        liveswitch.settle(machine, intent.generation)
    lived.settle(machine)


def _choose_running(machine: Machine, intent: Intent) -> None:
    """Make the generation that a boot has chosen the default, where the entry file lags behind."""
    facts = look(machine, intent)
    if facts.running and not facts.default and Act(intent.act) in (Act.COMMIT, Act.ROLLBACK, Act.ACTIVATE):
        switch.perform(machine, switch.plan(machine, intent.generation))


def complete(machine: Machine, intent: Intent) -> None:
    """Do what is left of a transaction whose outcome stands."""
    if Act(intent.act) is Act.STAGE:
        remove(machine, intent.targets)
    elif machine.boot.read() is not None:
        machine.boot.discard()
        for part in (Part.BEFORE, Part.LATEST, Part.VIEWED):
            machine.storage.delete(Tree(intent.generation, part))
        machine.protect_pinned()
        if _refreshed(machine, intent):
            remove(machine, intent.targets)


def _refreshed(machine: Machine, intent: Intent) -> bool:
    """Put right what is derived; a default that can't boot must not keep anybody from leaving it."""
    try:
        _leave_bad(machine, intent)
        switch.refresh(machine, without=intent.targets)
    except BootError as error:
        log.warning("the boot entries could not be put right", reason=error.message)
        return False
    return True


def _leave_bad(machine: Machine, intent: Intent) -> None:
    """Go on to a good generation where an interrupted judgement had found the default bad."""
    number = machine.boot_state().default
    if Act(intent.act) is not Act.JUDGE or intent.generation != number:
        return
    good = switch.fallback(machine.views(), number)
    if machine.generations.read(number).verdict is Verdict.BAD and good != number:
        switch.perform(machine, switch.plan(machine, good))


def unseal(machine: Machine, number: int) -> None:
    """Take an interrupted commit back: the generation is staged as before."""
    machine.boot.discard()
    machine.boot.forget(number)
    machine.storage.delete(Tree(number, Part.LATEST))
    machine.storage.delete(Tree(number, Part.SEALED))
    before = Tree(number, Part.BEFORE)
    if machine.storage.describe(before):
        _restore(machine, number, before)
        _index_staged(machine, number)
        machine.storage.delete(before)  # last: who begins again tells by it that this is to be done
    elif scene.is_marked(machine, number):
        _index_staged(machine, number)


def _restore(machine: Machine, number: int, before: Tree) -> None:
    """Make a staged root what it was, unless something uses it or is lost with it.

    What was carried over stays in such a root, as if the update had brought it.
    """
    root = Tree(number, Part.ROOT)
    info = machine.storage.describe(root)
    reason = "it has subvolumes inside" if info and info.nested else ""  # no snapshot gives them back
    try:
        if not reason:
            machine.storage.delete(root)
    except BusyError as error:
        reason = error.message
    if reason:
        log.warning("what was carried over stays", generation=number, reason=reason)
    else:
        machine.storage.snapshot(before, root, writable=True)


def _index_staged(machine: Machine, number: int) -> None:
    """Index a staged root anew: its manifest may half know what was carried, or done while it was live."""
    from snaptx import difference

    _drop_manifest(machine, number)
    difference.index(machine, Tree(number, Part.ROOT))


def remove(machine: Machine, numbers: tuple[int, ...]) -> None:
    """Delete generations that no boot entry names; one that is in use stays."""
    for number in numbers:
        try:
            discard(machine, number)
        except BusyError as error:
            log.warning("could not be removed", generation=number, reason=error.message)


def guard(machine: Machine, number: int) -> None:
    """Refuse to let a generation go that something uses.

    Raises:
        BusyError: it is live, a part of it is mounted, the default, or has subvolumes inside that hold
            something, or a process uses files of it since it was live.
    """
    if number in scene.live(machine).values():
        raise BusyError(f"generation {number} is live", hint="first: snaptx live --off")
    for part in Part:
        machine.storage.guard(Tree(number, part))
    if number in scene.note(machine).used:
        from snaptx import inuse

        users = [f"{process.name} ({process.pid})" for process in inuse.users(machine, number)]
        if users:
            hint = "'snaptx restart' lets services go on with what is there; or end them"
            raise BusyError(f"generation {number} is used by {', '.join(users[:5])}", hint=hint)


def discard(machine: Machine, number: int) -> None:
    """Delete whatever exists of one generation; its record goes first, so that half of it is none.

    Raises:
        BusyError: something uses a part of it, or sends it; nothing was deleted.
    """
    if number == 1:
        _discard_adoption(machine)
        return
    guard(machine, number)
    machine.storage.claim(Tree(number, part) for part in Part)
    machine.boot.forget(number)
    (machine.generations.directory(number) / RECORD).unlink(missing_ok=True)
    for part in reversed(Part):
        machine.storage.delete(Tree(number, part))
    machine.generations.forget(number)
    _drop_manifest(machine, number)


def _discard_adoption(machine: Machine) -> None:
    """Forget the adoption of the first root, never the root itself: it is not snaptx's to delete.

    Where somebody else has deleted it, nothing of generation 1 is left.
    """
    machine.storage.delete(Tree(1, Part.SEALED))
    (machine.generations.directory(1) / RECORD).unlink(missing_ok=True)
    _drop_manifest(machine, 1)
    if machine.storage.describe(Tree(1, Part.ROOT)) is None:
        machine.boot.forget(1)
        machine.storage.delete(Tree(1, Part.ROOT))
        machine.generations.forget(1)


def _drop_manifest(machine: Machine, number: int) -> None:
    path, fresh = machine.manifest(number), machine.fresh_manifest(number)
    for each in (path, path.with_name(path.name + "-journal"), fresh):
        each.unlink(missing_ok=True)


def _record(machine: Machine, intent: Intent, remedy: Remedy, failure: SnaptxError | None) -> None:
    _mend_end(machine)
    if machine.audit.knows(intent.transaction):
        return  # only the journal came back after a power cut
    outcome: dict[str, Any] = {"result": "failed" if failure else "interrupted", "remedy": remedy.value}
    if failure:
        outcome["error"] = {"type": type(failure).__name__, "message": failure.message}
    else:
        outcome["step"] = machine.journal.last_step()
        outcome["boot_id"] = system.boot_id()
    machine.audit.append({"time": system.now(), **intent.actor, **outcome, "transaction": intent.transaction})


def _mend_end(machine: Machine) -> None:
    """Make sure that a record can be added."""
    try:
        machine.audit.last()
    except VerifyError:
        machine.audit.mend()


def renew(machine: Machine) -> None:
    """Commit the filesystem, whether or not anything has changed.

    A power cut can leave GRUB a newer superblock than the kernel, which then
    uses again the blocks that GRUB still looks into: a commit writes both.

    Raises:
        StorageError: it can't be written to; on a full one there was no reserve to part with either.
    """
    try:
        os.utime(machine.storage.state)
    except OSError as error:
        failure = storage_error(error, "cannot write to the state")
        if not (isinstance(failure, NoSpaceError) and machine.audit.release()):  # removing is a change, too
            raise failure from error
    machine.storage.barrier()
    machine.boot.barrier()


def leftovers(machine: Machine) -> Remedy | None:
    """Settle what an interrupted snaptx left, if anything; the caller holds the lock."""
    if scene.ended(machine):  # a restart ends what is live without asking
        from snaptx import lived

        lived.settle(machine)
    intent = machine.journal.open()
    if intent is None:
        return None
    step = machine.journal.last_step() or "the first step"
    remedy = settle(machine, intent)
    renew(machine)
    verb = intent.actor.get("verb")
    log.warning(f"'snaptx {verb}' was interrupted at {step}, {intent.end}: {remedy.value}")
    return remedy
