"""The packages in a tree of the machine, as the tree's own package manager knows them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple

from snaptx import log, run, system
from snaptx.enclosure.chroot import Enclosure, Streams, enclosed_environment, run_enclosed
from snaptx.errors import NotFoundError, PackageError, SnaptxError
from snaptx.machine import Machine
from snaptx.model import Change, Op, Tree
from snaptx.packages import difference, traces
from snaptx.packages.base import Command, Installed, Manager
from snaptx.packages.choose import MANAGERS, choose, parse_release
from snaptx.packages.difference import PackageChanges
from snaptx.storage.base import MountSpec

RELEASE = "etc/os-release"


class Outcome(NamedTuple):
    """What a command did to packages.

    ``conffiles`` are files it put beside a changed configuration file, ``left``
    the packages it was to change and did not.
    """

    manager: str
    packages: PackageChanges
    conffiles: tuple[bytes, ...] = ()
    left: tuple[str, ...] = ()

    @property
    def told(self) -> dict[str, Any]:
        """Return what an audit record says of it."""
        told = {"manager": self.manager, "packages": self.packages, "conffiles": self.conffiles}
        return told | ({"left": self.left} if self.left else {})


def manager_of(machine: Machine, tree: Tree) -> Manager:
    """Return the package manager of a tree.

    Raises:
        PackageError: there is none, or several and nothing says which.
    """
    root = machine.storage.path(tree)
    release = parse_release(system.read_in_root(root, RELEASE).decode(errors="replace"))
    present = {name for name, manager in MANAGERS.items() if system.stat_in_root(root, manager.program)}
    return choose(release, present, machine.config.packages.manager)


def ask(machine: Machine, tree: Tree, command: Command, cache: MountSpec | None = None) -> str:
    """Run a command of the package manager in a tree and return what it printed.

    Raises:
        PackageError: it failed; the message has the last line of its complaint.
    """
    with collected() as result, collected() as complaint:
        view = enclosure(machine, tree, command, cache)
        status = run_enclosed(view, command.argv, streams=Streams(result, complaint))
        if status not in command.accepted:
            raise _failure(command, status, text_of(complaint) or text_of(result))
        return text_of(result)


@contextmanager
def collected() -> Iterator[int]:
    """Give a descriptor that keeps in memory what is written to it."""
    fd = os.memfd_create("collected")
    try:
        yield fd
    finally:
        os.close(fd)


def text_of(fd: int) -> str:
    """Return what was written to such a descriptor."""
    return os.pread(fd, os.fstat(fd).st_size, 0).decode(errors="replace")


def enclosure(machine: Machine, tree: Tree, command: Command, cache: MountSpec | None) -> Enclosure:
    """Return how to run a command in a tree, with nothing shared but the cache; name servers go with that.

    Raises:
        NotFoundError: there is no such tree.
    """
    info = machine.storage.describe(tree)
    if info is None:
        raise NotFoundError(f"generation {tree} is missing", hint="run: snaptx repair")
    language = {"LC_ALL": "C.UTF-8", "LANGUAGE": ""}
    environment = enclosed_environment("", tree.number) | language | dict(command.environment)
    view = Enclosure(root=info.mount, environment=environment, cache=cache)
    return view if cache else view._replace(resolver="")


def _failure(command: Command, status: int, said: str) -> PackageError:
    hint = "its database may be damaged: look at it with 'snaptx shell', or go back with 'snaptx rollback'"
    return PackageError(f"{command.argv[0]} ended with status {status}: {run.last_line(said)}", hint=hint)


def installed(machine: Machine, tree: Tree, manager: Manager) -> Installed:
    """Return what is installed in a tree.

    Raises:
        PackageError: its database can't be read.
    """
    return manager.parse_query(ask(machine, tree, manager.query()))


def between(machine: Machine, old: Tree, new: Tree) -> Outcome:
    """Return what differs between the packages of two trees.

    Raises:
        PackageError: a package manager or a database is missing or damaged.
    """
    return by(machine, manager_of(machine, new), old, new)


def by(machine: Machine, manager: Manager, old: Tree, new: Tree) -> Outcome:
    """Return what differs between the packages of two trees, by the word of ``manager``.

    Raises:
        PackageError: a database is damaged.
    """
    return Outcome(manager.name, _compare(machine, old, new, manager))


def _compare(machine: Machine, old: Tree, new: Tree, manager: Manager) -> PackageChanges:
    before, after = (installed(machine, tree, manager) for tree in (old, new))
    return difference.compare(before, after, manager.is_newer)


class Watch:
    """What to look for in the changes of a command, to be able to tell its outcome."""

    def __init__(self, machine: Machine, tree: Tree) -> None:
        self._machine = machine
        self._conffiles: list[bytes] = []
        self._manager: Manager | None = None
        with suppress(PackageError):  # a tree without packages is a tree as well
            self._manager = manager_of(machine, tree)
        self._endings = tuple(map(os.fsencode, self._manager.leftovers)) if self._manager else ()

    def __call__(self, change: Change) -> None:
        """Take note of one change."""
        if self._endings and change.op is not Op.REMOVED and change.path.endswith(self._endings):
            self._conffiles.append(b"/" + change.path)

    def outcome(self, old: Tree, new: Tree, promised: Iterable[str] = ()) -> Outcome | None:
        """Return what became of the packages; None if nothing, or if nobody can tell, which is no failure.

        ``promised`` are those that were to change.
        """
        paths = [self._machine.storage.path(tree) for tree in (old, new)]
        if self._manager is None or not traces.touched(paths[0], paths[1], self._manager):
            return None
        try:
            packages = _compare(self._machine, old, new, self._manager)
        except SnaptxError as error:
            log.warning("which packages changed can't be told", reason=error.message)
            return None
        left = tuple(name for name in promised if name not in _names(packages))
        return Outcome(self._manager.name, packages, tuple(self._conffiles), left)


def _names(packages: PackageChanges) -> set[str]:
    """Return the names of the packages that changed, with the architecture and without."""
    found = [package.name for kind in difference.KINDS for package in getattr(packages, kind)]
    return {short for name in found for short in (name, name.partition(":")[0], name.rpartition(".")[0])}
