"""What happens around a package manager that somebody calls without snaptx.

::

    before   a generation of the running system as it is: in the menu, not the default
    (the package manager changes the running system)
    after    what changed is put on record, the generation is indexed; unchanged: it goes again,
             unless somebody relies on it by now

The generation can be booted from the menu and rolled back to from the moment
``before`` ends, so that a power cut in the midst of the package manager's work
finds it there.  ``@snaptx/hook`` names it, and the process it was made for:
front ends call their hooks more than once in a run, and some stay for many runs.
What is only needed where packages have changed is imported there: people wait for this.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from snaptx import durable, idle, log, recover, switch, system, transaction
from snaptx.errors import BootError, NotFoundError, SnaptxError, UsageError
from snaptx.machine import Machine
from snaptx.model import Generation, Part, Phase, Tree, Verdict
from snaptx.packages import traces
from snaptx.packages.base import LockKind
from snaptx.packages.choose import MANAGERS
from snaptx.recover import Act
from snaptx.sharing import conversions
from snaptx.transaction import Request

if TYPE_CHECKING:
    from snaptx.inventory import Outcome

NOTE = "hook"

RUN_ENDS = 600.0
"""Seconds after its last work from which on a process, as packagekitd, begins another run."""


PATIENCE = 5.0
"""Seconds that another snaptx is waited for: most verbs need less, and somebody waits for this."""


class Caller(NamedTuple):
    """A run of a package manager: its process, told from later ones of the same number, in this boot."""

    manager: str
    pid: int
    start: int
    boot_id: str

    @classmethod
    def of(cls, manager: str, pid: int) -> Caller:
        """Return the caller that process ``pid`` is, or that it was forked from to call a hook.

        Raises:
            UsageError: there is no such process.
        """
        command = system.command_of(pid)
        if not command:
            raise UsageError(f"there is no process {pid}", hint="name the package manager's process")
        while system.command_of(parent := system.parent_of(pid)) == command:
            pid = parent
        return cls(manager, pid, system.process_start(pid), system.boot_id())

    @property
    def command(self) -> str:
        """Return its command line."""
        program, *words = system.command_of(self.pid) or [self.manager]
        return " ".join([os.path.basename(program), *words])


def is_enclosed() -> bool:
    """Return whether this process runs in a generation in the making: then snaptx is at work already.

    The environment can say so by accident, what is mounted can't.
    """
    return os.path.lexists(idle.MARK)


def before(machine: Machine, request: Request, caller: Caller) -> int:
    """Make a generation of the running system and return its number, 0 if there is one for this caller.

    Raises:
        NotFoundError: the running root is no generation.
        SnaptxError: it can't be made.
    """
    if _noted(machine, caller) and not _is_over(machine):
        return 0
    with transaction.exclusive(machine, request.verb, PATIENCE):
        return _keep(machine, request, caller)


def _note(machine: Machine, caller: Caller, number: int) -> None:
    started = machine.installer is not None and not machine.installer.is_replaced()
    note = json.dumps({"generation": number, "caller": caller._asdict(), "started": started})
    durable.replace(machine.storage.state / NOTE, note.encode())


def _noted(machine: Machine, caller: Caller) -> int:
    """Return the generation that was made for ``caller``, 0 if there is none."""
    try:
        note = json.loads(durable.read(machine.storage.state / NOTE))
        same = note["caller"] == caller._asdict() and machine.generations.has(note["generation"])
        return int(note["generation"]) if same else 0
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return 0


def _is_over(machine: Machine) -> bool:
    """Return whether the noted run has done its work, and that long ago."""
    return system.now() - (machine.storage.state / NOTE).stat().st_mtime > RUN_ENDS


def _keep(machine: Machine, request: Request, caller: Caller) -> int:
    machine.require_generation()
    running = machine.booted
    left_out = _left_out(machine)
    number = machine.generations.reserve()
    with transaction.begin(machine, Act.KEEP, request, generation=number, base=running) as txn:
        txn.step("snapshot")
        _snapshot(machine, running, number, caller)
        txn.step("record")
        _note(machine, caller, number)
        machine.generations.write(_record(machine, request, number, left_out))
        txn.step("menu")
        switch.refresh(machine)
        txn.succeed(manager=caller.manager)
    return number


def _left_out(machine: Machine) -> tuple[str, ...]:
    """Return the nested subvolumes that hold something and are left out.

    Raises:
        LayoutError: there are some, and the policy is to refuse.
    """
    if not machine.storage.running.nested:
        return ()
    from snaptx import nested

    return nested.check(machine, machine.booted, machine.config.staging.nested)


def _snapshot(machine: Machine, running: int, number: int, caller: Caller) -> None:
    """Make all parts of the generation from one instant."""
    storage = machine.storage
    machine.generations.directory(number).mkdir()
    origin, root = Tree(number, Part.ORIGIN), Tree(number, Part.ROOT)
    storage.snapshot(Tree(running, Part.ROOT), origin, writable=False)
    storage.snapshot(origin, root, writable=True)
    if storage.running.nested:
        from snaptx import nested

        nested.make_directories(machine, number, running)
    if conversions.read(machine.storage.state):
        from snaptx.sharing import attach

        attach.follow(machine, number)
    for lock in MANAGERS[caller.manager].locks:
        if lock.kind is LockKind.PRESENCE:  # nobody is at work in the copy
            with suppress(FileNotFoundError):
                (storage.path(root) / lock.path).unlink()
    storage.snapshot(root, Tree(number, Part.SEALED), writable=False)


def _record(machine: Machine, request: Request, number: int, left_out: tuple[str, ...]) -> Generation:
    running = machine.generations.read(machine.booted)
    return Generation(
        number=number,
        base=running.number,
        created=system.now(),
        verb=request.verb,
        message=request.message,
        verdict=running.verdict,
        nested=left_out,
        copy=running.number,
    )


def after(machine: Machine, request: Request, caller: Caller) -> tuple[int, Outcome | None]:
    """Record what the package manager did; return what ``before`` made and that, None if it did nothing.

    Raises:
        NotFoundError: ``before`` was not called, or made nothing.
        PackageError: the database can't be read.
    """
    number = _noted(machine, caller)
    if not number:
        hint = "'snaptx hook before' goes before it; what it said is above"
        raise NotFoundError(f"no generation was made before this run of {caller.manager}", hint=hint)
    sealed, running = Tree(number, Part.SEALED), Tree(machine.booted, Part.ROOT)
    paths = [machine.storage.path(tree) for tree in (sealed, running)]
    with transaction.exclusive(machine, request.verb, PATIENCE):
        _start_as_before(machine, request)
        if traces.touched(paths[0], paths[1], MANAGERS[caller.manager]) or _is_wanted(machine, number):
            outcome = _put_on_record(machine, request, caller, number)
            os.utime(machine.storage.state / NOTE)
            return number, outcome
        _drop(machine, request, number)
        return number, None


def _start_as_before(machine: Machine, request: Request) -> None:
    """Put the boot loader back whose place a package of GRUB has taken for its own."""
    note = json.loads(durable.read(machine.storage.state / NOTE))
    if not (note.get("started") and machine.installer and machine.installer.is_replaced()):
        return
    try:
        with transaction.begin(machine, Act.RECORD, request, generation=0) as txn:
            txn.step("boot loader")
            machine.installer.install()
            txn.succeed(boot_loader=machine.installer.steps)
    except SnaptxError as error:
        hint = "'snaptx repair' puts it back; until then the generation that runs is what starts"
        log.warning(f"a package has taken the place of snaptx's boot loader: {error.message}; {hint}")


def _put_on_record(machine: Machine, request: Request, caller: Caller, number: int) -> Outcome:
    from snaptx import inventory

    sealed, running = Tree(number, Part.SEALED), Tree(machine.booted, Part.ROOT)
    with transaction.begin(machine, Act.RECORD, request, generation=number) as txn:
        txn.step("packages")
        outcome = inventory.by(machine, MANAGERS[caller.manager], sealed, running)
        txn.step("menu")
        _refresh(machine)
        txn.step("index")
        _index(machine, number)
        txn.succeed(**outcome.told)
    return outcome


def _refresh(machine: Machine) -> None:
    """Let the menu follow a kernel or an initrd that came, went, or was made anew."""
    try:
        switch.refresh(machine)
    except BootError as error:
        log.warning("the boot entries could not be put right", reason=error.message)


def _is_wanted(machine: Machine, number: int) -> bool:
    """Return whether somebody relies on it by now: it is the default, pinned, …

    That it is the last good one is no reason, being true of every fresh copy.
    """
    from snaptx import retention, scene

    views = {view.number: view for view in scene.views(machine)}
    judged = views[number].generation._replace(verdict=Verdict.TRIAL)
    views[number] = views[number]._replace(generation=judged)
    return number in retention.protected(list(views.values()))


def _drop(machine: Machine, request: Request, number: int) -> None:
    """Let a generation go that would be the running system over again."""
    with transaction.begin(machine, Act.REMOVE, request, generation=number, targets=(number,)) as txn:
        txn.step("menu")
        switch.refresh(machine, without=(number,))
        txn.step("delete")
        recover.remove(machine, (number,))
        txn.succeed(removed=() if machine.generations.has(number) else (number,))


def _index(machine: Machine, number: int) -> None:
    """Make the manifest from that of the newest generation it has most in common with."""
    from snaptx import difference
    from snaptx.overlay.manifest import Manifest

    if machine.manifest(number).exists():
        return
    model = _model(machine, number)
    if not machine.manifest(model).exists():
        difference.index(machine, Tree(number, Part.SEALED))
        return
    with Manifest.fork(machine.manifest(model), machine.manifest(number)) as manifest:
        difference.reindex(machine, manifest, Tree(model, Part.SEALED), Tree(number, Part.SEALED))


def _model(machine: Machine, number: int) -> int:
    """Return the newest earlier copy of the same running root, else that generation itself."""
    original = machine.generations.read(number).copy
    copies = [
        other.number
        for other in machine.generations.recorded()
        if other.copy == original and other.number < number and machine.manifest(other.number).exists()
        if machine.phase(other.number) is Phase.COMMITTED
    ]
    return max(copies, default=original)
