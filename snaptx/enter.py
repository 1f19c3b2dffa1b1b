"""Run a command, or a shell, inside a generation in the making."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from snaptx import difference, system
from snaptx.enclosure.chroot import Enclosure, enclosed_environment, run_enclosed
from snaptx.errors import CommandError, NotFoundError
from snaptx.machine import Machine
from snaptx.model import Counts, Part, Tree
from snaptx.overlay.manifest import Manifest
from snaptx.stage import Staged, Workspace, staging
from snaptx.transaction import Request


@dataclass(frozen=True, slots=True)
class Ran:
    """A command's exit status and the generation it left (number 0: it changed nothing)."""

    status: int
    staged: Staged


def run(
    machine: Machine,
    request: Request,
    argv: Sequence[str],
    *,
    base: int | None = None,
    keep: bool = False,
    interactive: bool = False,
) -> Ran:
    """Run ``argv`` in a fresh generation and leave that staged if it changed something.

    ``keep`` keeps the generation of a command that failed.

    Raises:
        CommandError: the command failed and its generation was discarded.
    """
    with staging(machine, request, base) as work:
        _snapshot(work, Part.BEFORE)
        work.txn.step("run")
        status = run_enclosed(_enclosure(work), argv, interactive=interactive)
        if status and not keep and not interactive:
            hint = "nothing was kept; '--keep' keeps what a failing command leaves"
            raise CommandError(f"{argv[0]} ended with status {status}", hint=hint)
        work.txn.step("index")
        counts = _index(work)
        return Ran(status, work.keep(counts))


def _snapshot(work: Workspace, part: Part) -> None:
    tree = Tree(work.number, part)
    work.machine.storage.snapshot(Tree(work.number, Part.ROOT), tree, writable=False)


def _index(work: Workspace) -> Counts:
    """Compare what the command found with what it left, and bring the manifest up to it."""
    machine, number = work.machine, work.number
    _snapshot(work, Part.LATEST)
    before, latest = Tree(number, Part.BEFORE), Tree(number, Part.LATEST)
    with Manifest.open(machine.manifest(number), writable=True) as manifest:
        counts = difference.reindex(machine, manifest, before, latest)
    machine.storage.delete(before)
    machine.storage.delete(latest)
    return counts


def _enclosure(work: Workspace) -> Enclosure:
    info = work.machine.storage.describe(Tree(work.number, Part.ROOT))
    if info is None:
        raise NotFoundError(f"the root of generation {work.number} is missing", hint="run: snaptx repair")
    return Enclosure(
        root=info.mount,
        shared=tuple(_shared(work.machine)),
        environment=enclosed_environment(work.txn.intent.transaction, work.number),
    )


def _shared(machine: Machine) -> list[tuple[str, str]]:
    """Return the shared paths that are filesystems of their own: others are part of the generation."""
    mounted = {mount.target for mount in system.mounts()}
    places = [(machine.sysroot / path.lstrip("/"), path) for path in machine.config.shared.paths]
    return [(str(place), path) for place, path in places if str(Path(place).resolve()) in mounted]
