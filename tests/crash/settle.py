"""The reconcile, as at a boot, on the disk that a power cut left; and what is wrong after it.

Runs in a forked child: what snaptx opens and mounts ends with it.
"""

from __future__ import annotations

import json
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path

from snaptx import initialise, repair, switch, system, verify
from snaptx.apps import application, mend
from snaptx.bootloader import counter, entryfile, grub, pointer, settings
from snaptx.bootloader.grub import PER_TRIAL
from snaptx.errors import SnaptxError
from snaptx.log import Level, set_threshold
from snaptx.machine import Machine, open_machine
from snaptx.model import BootState
from snaptx.storage.base import APPS
from snaptx.transaction import Request
from tests.crash.census import BOOT_HOME
from tests.crash.world import APP

PARTS = {"origin", "root", "sealed", "generation.json", "generation.json.tmp"}
KNOWN = {
    "grub": {"grub.cfg", "grub.cfg.tmp", "settings.cfg", "settings.cfg.tmp", "snaptx.cfg", pointer.NAME},
    "journal": {"open.tmp"},
    "audit": {"log", "head", "head.tmp", "reserve", "spare", "spare.tmp"},
    "generations": {"last", "last.tmp"},
}
BOOT_FILES = ("grub.cfg", grub.ACCESS, settings.NAME, counter.NAME, entryfile.NAME)
"""What may lie there. A file that was to replace another is no leftover: the next of its name replaces it."""

_STAMP = re.compile(r"/[0-9a-f]{8}/")


def load() -> None:
    """Import what snaptx imports late: once here, not in every child."""
    names = (
        "concurrent.futures.thread",
        "sh",
        "snaptx.audit",
        "snaptx.bootloader.inroot",
        "snaptx.bootloader.onboot",
        "snaptx.overlay.manifest",
        "snaptx.storage.btrfs",
        "sqlite3",
    )
    for name in names:
        import_module(name)


def in_child(work: Callable[[], list[str]]) -> list[str]:
    """Return what ``work`` returns in a forked child; a child that fails is a problem too."""
    reader, writer = os.pipe()
    pid = os.fork()
    if not pid:
        _child(work, writer)
    os.close(writer)
    with os.fdopen(reader, "rb") as stream:
        text = stream.read()
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    found: list[str] = json.loads(text) if text else [f"the reconcile ended with {status}"]
    return found


def _child(work: Callable[[], list[str]], writer: int) -> None:
    try:
        system.die_with_parent()
        found = work()
    except SnaptxError as error:
        found = [f"{type(error).__name__}: {error.message}"]
    except BaseException:  # noqa: BLE001 - a forked process must not return into its parent's code
        found = [traceback.format_exc()]
    with os.fdopen(writer, "wb") as stream:
        stream.write(json.dumps(found).encode())
    sys.stdout.flush()
    os._exit(0)


def reconcile(root: Path) -> list[str]:
    """Reconcile the machine whose root is mounted at ``root``; return what is wrong afterwards."""
    set_threshold(Level.ERROR)
    system.boot_id = lambda: "the boot after the power cut"
    machine = open_machine(root)
    if not (machine.storage.state.is_dir() and machine.initialised):
        return _adopt(machine)
    repair.repair(machine, Request("repair", ("snaptx", "repair")))
    found = _not_mended(machine)
    again = repair.repair(open_machine(root), Request("repair", ("snaptx", "repair")))
    found += [f"a second repair found: {line}" for line in again]
    return [*found, *_problems(open_machine(root)), *_app_problems(open_machine(root))]


def _not_mended(machine: Machine) -> list[str]:
    """Repair the application trees; return what could not be, and what a second time found."""
    request = Request("repair", ("snaptx", "repair"))
    left = [line for line in mend.mend(machine, request) if "left as it is" in line]
    return left + [f"a second repair found: {line}" for line in mend.mend(machine, request)]


def _app_problems(host: Machine) -> Iterator[str]:
    """Look at the application trees; where there is none, one can be made, and removed."""
    state = host.storage.state
    left = {path.name for path in (state / APPS).glob("*")} - {
        app.name for app in application.described(host)
    }
    yield from (f"left over: {APPS}/{name}" for name in sorted(left))
    for app in application.described(host):
        yield from (f"application: {problem}" for problem in _problems(app.machine))
    if (state / APPS).is_dir() and not application.names(host):
        made = application.create(host, Request("app", ("snaptx", "app", "create")), APP)
        yield from (f"application, made again: {problem}" for problem in _problems(made.machine))
        gone = Request("app", ("snaptx", "app", "remove"))
        application.remove(host, application.open_app(host, APP), gone)


def _adopt(machine: Machine) -> list[str]:
    """Nothing of snaptx's is here yet: ``init`` must start over without ado."""
    initialise.initialise(machine, Request("init", ("snaptx", "init")))
    return list(_problems(machine))


def _problems(machine: Machine) -> Iterator[str]:
    yield from (f"verify: {problem.where}: {problem.what}" for problem in verify.state(machine))
    for generation in machine.generations.recorded():
        problems = verify.generation(machine, generation.number)
        yield from (f"verify {generation.number}: {problem.where}: {problem.what}" for problem in problems)
    machine.audit.verify()
    if machine.journal.open() is not None:
        yield "a transaction is open"
    state = machine.boot_state()
    yield from _leftovers(machine)
    if os.path.ismount(machine.sysroot / "boot"):
        yield from _boot_leftovers(machine.sysroot / "boot" / BOOT_HOME, state)
    if _of_the_records(switch.plan(machine, state.default)) != _of_the_records(state):
        yield "the entry file is not what the records say"
    machine.boot.discard()  # planning copies an initrd that was made anew


def _of_the_records(state: BootState) -> BootState:
    """Return a state without what tells the copies of an initrd on /boot from each other."""
    entries = (
        entry._replace(kernel=_STAMP.sub("/", entry.kernel), initrd=_STAMP.sub("/", entry.initrd))
        for entry in state.entries
    )
    return state._replace(entries=tuple(entries))


def _leftovers(machine: Machine) -> Iterator[str]:
    state = machine.storage.state
    numbers = {str(generation.number) for generation in machine.generations.recorded()}
    known = {**KNOWN, "generations": KNOWN["generations"] | numbers}
    known["grub"] = KNOWN["grub"] | _of_the_trial(machine.boot_state())
    known["manifests"] = {f"{number}.sqlite" for number in numbers}
    for directory, names in known.items():
        left = {path.name for path in (state / directory).iterdir()} - names
        yield from (f"left over: {directory}/{name}" for name in sorted(left))
    for number in numbers:
        left = {path.name for path in (state / "generations" / number).iterdir()} - PARTS
        yield from (f"left over: generations/{number}/{name}" for name in sorted(left))


def _of_the_trial(state: BootState) -> set[str]:
    return {name.format(nonce=state.nonce) for name in PER_TRIAL}


def _boot_leftovers(home: Path, state: BootState) -> Iterator[str]:
    """On a /boot of its own lie what GRUB needs and the kernels that the entry file names, and no more."""
    named = {Path(path) for entry in state.entries for path in (entry.kernel, entry.initrd) if path}
    files = {Path("/", BOOT_HOME, name) for name in {*BOOT_FILES, *_of_the_trial(state)}} | named
    known = files | {above for path in named for above in (path.parent, path.parent.parent)}
    left = {"/" / path.relative_to(home.parent) for path in home.rglob("*")} - known
    yield from (f"left over on /boot: {path}" for path in sorted(left))
