"""Init: adopt the root as generation 1, where it is and as it is."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from snaptx import difference, lock, nested, recover, system, transaction
from snaptx.errors import JournalError, LayoutError, NotFoundError
from snaptx.machine import Machine
from snaptx.model import Generation, Part, Row, Tree, Verdict
from snaptx.overlay import scan
from snaptx.overlay.manifest import Manifest
from snaptx.recover import Act, Remedy
from snaptx.storage.base import STATE, TreeInfo
from snaptx.transaction import Request

UNTOLD = {"a blank": r"\s", "a comma": ",", "a quotation mark": '"'}
"""What ends a word, an option of it, or the quoting, for who reads ``rootflags=`` or ``root=``."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What init found and would do; ``steps`` in plain words."""

    root: str
    uuid: str
    nested: tuple[str, ...]
    cmdline: tuple[str, ...]
    steps: tuple[str, ...]


def plan(machine: Machine, *, boot_loader: bool = True) -> Plan:
    """Return what init would do, ``boot_loader`` or without it.

    Raises:
        LayoutError: the root can't be adopted.
        ReadOnlyError: it is read-only.
    """
    info = machine.storage.running
    machine.require_writable()
    nested.check_running(machine, machine.config.staging.nested)
    machine.boot.check(machine.sysroot, bare=not boot_loader)
    steps = (
        f"adopt {info.name} as generation 1, where it is",
        "make a place of snaptx's own (state, generations, boot entries) on the same filesystem",
        "take a read-only snapshot of the root and index its files",
        "write snaptx's menu, with the present system as its default",
        *_boot_steps(machine, boot_loader=boot_loader),
    )
    return Plan(info.name, machine.storage.uuid, info.nested, info.cmdline, steps)


def require_fit(machine: Machine) -> None:
    """Refuse a root whose name would not reach the initramfs whole, or that lies in snaptx's own place.

    Raises:
        LayoutError: it is one.
    """
    name = machine.storage.running.name
    if f"{name}/".startswith(f"{STATE}/"):
        hint = "boot the root that the distribution made, or 'snaptx repair' from there"
        raise LayoutError(f"{name} lies in {STATE}, which is snaptx's own", hint=hint)
    for what, pattern in UNTOLD.items():
        if re.search(pattern, name):
            message = f"the name of the root, {name!r}, has {what}: the kernel's command line can't carry it"
            hint = "give it another ('mount -o subvolid=5 DEVICE /mnt', 'mv' in there), in fstab and GRUB too"
            raise LayoutError(message, hint=hint)


def _boot_steps(machine: Machine, *, boot_loader: bool) -> tuple[str, ...]:
    if machine.installer is None or not boot_loader:
        return ("leave the boot loader alone",)
    machine.installer.check()
    return machine.installer.steps


def boot_steps_due(machine: Machine) -> tuple[str, ...]:
    """Return what is still to be done so that the machine starts by snaptx's menu, in plain words.

    Raises:
        BootError: the boot loader can't be installed.
    """
    if machine.installer is None or machine.installer.is_installed():
        return ()
    machine.installer.check()
    return machine.installer.steps


def take_over(machine: Machine, request: Request) -> bool:
    """Make the machine start by snaptx's menu; return whether anything had to be done.

    Nothing is lost if that fails: it starts as before, and the next init tries again.

    Raises:
        BootError: the boot loader could not be installed.
    """
    installer = machine.installer
    if installer is None or not (steps := boot_steps_due(machine)):
        return False
    with (
        transaction.exclusive(machine, request.verb),
        transaction.begin(machine, Act.RECORD, request, generation=1) as txn,
    ):
        txn.step("boot loader")
        installer.install()
        machine.storage.barrier()
        txn.succeed(boot_loader=steps)
    return True


def is_complete(machine: Machine) -> bool:
    """Return whether there is nothing for init to do; what is lost or damaged since then is for repair.

    Raises:
        StorageError: the journal can't be read, so that nobody can tell.
    """
    if not (machine.storage.state.is_dir() and machine.initialised):
        return False
    try:
        intent = machine.journal.open()
    except JournalError:
        return True
    return intent is None or intent.act != Act.INIT


def require_ours(machine: Machine) -> None:
    """Refuse the root of another system on a filesystem that holds the generations of one.

    Raises:
        LayoutError: the running root is no generation.
    """
    if not machine.booted:
        known = machine.generations.recorded()
        adopted = next((one.subvolume for one in known if one.subvolume), "another root")
        message = f"{machine.storage.running.name} is no generation: those that are here come from {adopted}"
        hint = "one system is managed on each filesystem; boot a generation of it ('snaptx list')"
        raise LayoutError(message, hint=hint)


def initialise(
    machine: Machine,
    request: Request,
    progress: Callable[[int, int], None] | None = None,
    about: str = "the system as found",
) -> Generation:
    """Adopt the root; ``progress`` is told files and bytes indexed, ``about`` is its message.

    Raises:
        LayoutError: the root can't be adopted.
        BootError: it has no kernel.
    """
    plan(machine, boot_loader=False)
    info, default = machine.storage.running, machine.storage.default_name()
    machine.storage.prepare(info)
    with lock.exclusive(machine.lock, request.verb):
        if recover.leftovers(machine) is Remedy.COMPLETE and is_complete(machine):
            return machine.generations.read(1)
        if is_complete(machine):
            raise NotFoundError("another snaptx has just adopted this root", hint="snaptx status")
        with transaction.begin(machine, Act.INIT, request, generation=1) as txn:
            txn.step("snapshot")
            machine.storage.barrier()
            machine.storage.snapshot(Tree(1, Part.ROOT), Tree(1, Part.SEALED), writable=False)
            txn.step("index")
            _index(machine, progress)
            txn.step("record")
            record = _record(request.verb, about, info)
            machine.generations.write(record)
            machine.boot.install(machine.sysroot, info)
            txn.switch(1)
            found = {"nested": info.nested, "cmdline": info.cmdline, "default_subvolume": default}
            txn.succeed(adopted=info.name, **found)
    return record


def _record(verb: str, about: str, adopted: TreeInfo) -> Generation:
    return Generation(
        number=1,
        base=0,
        created=system.now(),
        verb=verb,
        message=about,
        subvolume=adopted.name,
        verdict=Verdict.GOOD,
        nested=adopted.nested,
    )


def _index(machine: Machine, progress: Callable[[int, int], None] | None) -> None:
    tree = machine.storage.path(Tree(1, Part.SEALED))
    with (
        system.descriptor(tree, system.DIRECTORY) as fd,
        Manifest.create(machine.manifest(1)) as manifest,
    ):
        manifest.put(_told(scan.scan_tree(fd, difference.within(machine)), progress))


def _told(rows: Iterator[Row], progress: Callable[[int, int], None] | None) -> Iterator[Row]:
    files = size = 0
    for row in rows:
        files, size = files + 1, size + row.size
        if progress and files % 256 == 0:
            progress(files, size)
        yield row
