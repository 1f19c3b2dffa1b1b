"""Run a command, or a shell, inside a generation in the making."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

from snaptx import difference, system
from snaptx.enclosure.chroot import (
    Enclosure,
    Ended,
    Streams,
    enclosed_environment,
    run_enclosed,
    run_interactive,
)
from snaptx.errors import CommandError
from snaptx.inventory import Outcome, Watch
from snaptx.machine import Machine
from snaptx.model import EMPTY, Counts, Part, Tree
from snaptx.overlay.manifest import Manifest
from snaptx.packages.choose import MANAGERS
from snaptx.sharing import outside
from snaptx.stage import Staged, Workspace, staging
from snaptx.storage.base import MountSpec
from snaptx.transaction import Request


class Ran(NamedTuple):
    """A command's exit status and the generation it left (number 0: it changed nothing).

    ``killed`` is whether an interactive one did not end by itself.
    """

    status: int
    staged: Staged
    outcome: Outcome | None = None
    killed: bool = False


class Manner(NamedTuple):
    """How a command is run, and what goes ``first``.

    ``environment`` goes over the usual one; ``streams`` and ``cache`` are the
    enclosure's; ``accepted`` are the exit statuses of success, ``hint`` the
    cure if it fails, ``details`` go into the audit record, and ``promised``
    are the packages that are to change.
    """

    keep: bool = False
    interactive: bool = False
    environment: Mapping[str, str] = EMPTY
    streams: Streams | None = None
    cache: MountSpec | None = None
    accepted: Collection[int] = (0,)
    first: tuple[str, ...] = ()
    hint: str = "nothing was kept; '--keep' keeps what a failing command leaves"
    details: Mapping[str, Any] = EMPTY
    promised: tuple[str, ...] = ()


AS_USUAL = Manner()


def run(
    machine: Machine,
    request: Request,
    argv: Sequence[str],
    *,
    base: int | None = None,
    manner: Manner = AS_USUAL,
) -> Ran:
    """Run ``argv`` in a fresh generation and leave that staged if it changed something.

    Raises:
        CommandError: the command failed and its generation was discarded.
    """
    with staging(machine, request, base) as work:
        _snapshot(work, Part.BEFORE)
        work.txn.step("run")
        view = _enclosure(work, manner)
        status, by_itself = _performed(view, argv, manner)
        work.txn.step("index")
        counts, outcome = _index(work, manner.promised)
        details = {**manner.details, **(outcome.told if outcome else {})}
        return Ran(status, work.keep(counts, **details), outcome, not by_itself)


def _performed(view: Enclosure, argv: Sequence[str], manner: Manner) -> Ended:
    """Run the command, and what goes first.

    Raises:
        CommandError: it failed, or could not be run.
    """
    if manner.first and (status := run_enclosed(view, manner.first, streams=manner.streams)):
        raise CommandError(f"{manner.first[0]} ended with status {status}", hint=manner.hint)
    if manner.interactive:
        return run_interactive(view, argv, streams=manner.streams)
    status = run_enclosed(view, argv, streams=manner.streams)
    if status not in manner.accepted and not manner.keep:
        raise CommandError(f"{argv[0]} ended with status {status}", hint=manner.hint)
    return Ended(status, by_itself=True)


def _snapshot(work: Workspace, part: Part) -> None:
    tree = Tree(work.number, part)
    work.machine.storage.snapshot(Tree(work.number, Part.ROOT), tree, writable=False)


def _index(work: Workspace, promised: tuple[str, ...]) -> tuple[Counts, Outcome | None]:
    """Compare what the command found with what it left, and bring the manifest up to it."""
    machine, number = work.machine, work.number
    _snapshot(work, Part.LATEST)
    before, latest = Tree(number, Part.BEFORE), Tree(number, Part.LATEST)
    watch = Watch(machine, latest)
    with Manifest.open(machine.manifest(number), writable=True) as manifest:
        counts = difference.reindex(machine, manifest, before, latest, watch)
    outcome = watch.outcome(before, latest, promised)
    machine.storage.delete(before)
    machine.storage.delete(latest)
    return counts, outcome


def _enclosure(work: Workspace, manner: Manner) -> Enclosure:
    usual = enclosed_environment(work.txn.intent.transaction, work.number)
    return Enclosure(
        root=work.machine.require_root(work.number).mount,
        shared=tuple(_shared(work.machine)),
        environment=usual | dict(manner.environment),
        cache=manner.cache,
    )


def _shared(machine: Machine) -> list[tuple[str, str]]:
    """Return the shared paths that are filesystems of their own: others are part of the generation."""
    mounted = {mount.target for mount in system.mounts()}
    paths = dict.fromkeys((*machine.config.shared.paths, *outside.data(machine, MANAGERS.values())))
    places = [(machine.sysroot / path.lstrip("/"), path) for path in paths]
    return [(str(place), path) for place, path in places if str(place.resolve()) in mounted]
