"""Stage: make a generation from a base and an overlay, invisible to the running system.

``origin`` is the base as it was when the work began, so that what the
administrator changes meanwhile can be told apart from what the update changes.
A staged base hands its own ``origin`` on: work upon work still counts from the
last committed state, and the generation it grew from is dropped once its work
lives on.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple

from snaptx import difference, log, nested, priority, system, transaction
from snaptx.config import Priority
from snaptx.machine import Machine
from snaptx.model import Counts, Generation, Part, Payload, Phase, Tree
from snaptx.overlay.feed import feed
from snaptx.overlay.manifest import Manifest
from snaptx.overlay.payload import Limits, OpenPayload, open_payload
from snaptx.overlay.readback import reading_back
from snaptx.overlay.record import Record
from snaptx.overlay.writer import Writer
from snaptx.recover import Act, remove
from snaptx.sharing import attach, outside
from snaptx.transaction import Request, Transaction


class Base(NamedTuple):
    """What a new generation grows from."""

    number: int
    staged: bool


class Staged(NamedTuple):
    """The result of staging; ``number`` is 0 where nothing changed, ``replaced`` are those it took over."""

    number: int
    base: int
    counts: Counts
    payload: Payload | None = None
    replaced: tuple[int, ...] = ()


class Workspace(NamedTuple):
    """A generation in the making."""

    machine: Machine
    txn: Transaction
    base: Base
    number: int
    nested: tuple[str, ...]

    @property
    def root(self) -> Path:
        """Return where the new root can be reached."""
        return self.machine.storage.path(Tree(self.number, Part.ROOT))

    def keep(self, counts: Counts, payload: Payload | None = None, **details: Any) -> Staged:
        """Make the work durable as a staged generation, or drop it if it changed nothing.

        ``details`` are for its audit record.
        """
        committed = self._committed_base()
        if not counts.touched:
            self.txn.drop(counts=counts, payload=payload)
            return Staged(0, committed, counts, payload)
        self.txn.step("record")
        self.machine.storage.barrier()
        self.machine.generations.write(self._record(counts, payload, committed))
        remove(self.machine, self.txn.intent.targets)
        replaced = tuple(n for n in self.txn.intent.targets if not self.machine.generations.has(n))
        self.txn.succeed(counts=counts, payload=payload, replaced=replaced, **details)
        return Staged(self.number, committed, counts, payload, replaced)

    def _committed_base(self) -> int:
        return self.machine.generations.read(self.base.number).base if self.base.staged else self.base.number

    def _record(self, counts: Counts, payload: Payload | None, committed: int) -> Generation:
        request = self.txn.intent.actor
        base = self.machine.generations.read(self.base.number)
        before = base if self.base.staged else None
        inside = {*self.nested, *(before.nested if before else ())}
        messages = [before.message if before else "", request["message"]]
        return Generation(
            number=self.number,
            base=committed,
            created=request["started"],
            verb=request["verb"],
            message="; ".join(filter(None, messages)),
            payload=payload,
            counts=before.counts.plus(counts) if before else counts,
            includes=(*before.includes, before.number) if before else (),
            nested=tuple(sorted(inside)),
            updates={**base.updates, **request.get("updates", {})},
        )


def choose_base(machine: Machine, wanted: int | None) -> Base:
    """Return what to build on: ``wanted``, else the newest staged generation, else the default.

    Raises:
        NotFoundError: there is no such generation.
    """
    staged = machine.staged()
    if wanted is None:
        return Base(staged[-1], True) if staged else Base(machine.boot_state().default, False)
    machine.generations.read(wanted)
    return Base(wanted, machine.phase(wanted) is Phase.STAGED)


@contextmanager
def staging(machine: Machine, request: Request, wanted: int | None) -> Iterator[Workspace]:
    """Open a workspace on a fresh snapshot; whoever leaves without ``keep`` leaves nothing behind."""
    base = choose_base(machine, wanted)
    policy = machine.config.staging.nested
    left_out = nested.check(machine, base.number, policy)
    number = machine.generations.reserve()
    grown_from = base.staged and wanted is None and not machine.generations.read(base.number).pinned
    targets = (base.number,) if grown_from else ()
    with transaction.begin(
        machine, Act.STAGE, request, generation=number, base=base.number, targets=targets, lasting=False
    ) as txn:  # a snapshot comes first, and commits the journal with it
        txn.step("snapshot")
        _snapshot(machine, base, number)
        txn.step("index")
        _fork_manifest(machine, base, number)
        nested.settle(machine, base.number, number, left_out, policy)
        attach.follow(machine, number)
        yield Workspace(machine, txn, base, number, left_out)


def _snapshot(machine: Machine, base: Base, number: int) -> None:
    """Make the origin and the root; for a committed base both from one instant."""
    storage = machine.storage
    machine.require_root(base.number)
    machine.generations.directory(number).mkdir()
    origin = Part.ORIGIN if base.staged else Part.ROOT
    storage.snapshot(Tree(base.number, origin), Tree(number, Part.ORIGIN), writable=False)
    source = Tree(base.number, Part.ROOT) if base.staged else Tree(number, Part.ORIGIN)
    storage.snapshot(source, Tree(number, Part.ROOT), writable=True)


def _fork_manifest(machine: Machine, base: Base, number: int) -> None:
    """Start from the base's index, brought up to what the base has become since it was sealed."""
    origin, index = machine.manifest(base.number), machine.manifest(number)
    if not base.staged and not origin.exists():
        difference.index(
            machine, Tree(base.number, Part.SEALED)
        )  # `hook after` makes it, and did not get there
    with Manifest.fork(origin, index, successor=base.staged) as manifest:
        if not base.staged:
            difference.reindex(machine, manifest, Tree(base.number, Part.SEALED), Tree(number, Part.ORIGIN))


def limits(machine: Machine, allow_devices: bool) -> Limits:
    """Return the configured limits of a payload."""
    return Limits(**machine.config.limits._asdict(), allow_devices=allow_devices)


def apply(
    machine: Machine,
    source: str,
    request: Request,
    *,
    base: int | None = None,
    sha256: str | None = None,
    allow_devices: bool = False,
    idle: bool = False,
    called: str = "",
    progress: Callable[[int, int, int | None], None] | None = None,
    reread: Callable[[int], None] | None = None,
) -> Staged:
    """Lay a payload over a snapshot of the base and leave the result staged.

    ``idle`` lets every other process go first while it is written, whatever is configured.
    ``called`` is what the records call it, by default ``source``.
    ``progress`` is told members, packed bytes read and packed bytes in all
    (None if unknown); then ``reread`` what of them has been read back.

    Raises:
        SourceError: the payload is unreadable, hostile, too large or not the announced one.
        StorageError: the filesystem refused.
    """
    allowed = limits(machine, allow_devices)
    with (
        open_payload(source, limits=allowed, expected_sha256=sha256) as payload,
        staging(machine, request, base) as work,
    ):
        work.txn.step("write")
        with _priority(machine, idle):
            counts, origin, hidden = _write(work, payload, progress, reread)
        details = {"hidden": hidden} if hidden else {}
        return work.keep(counts, origin._replace(source=called or origin.source), **details)


def _priority(machine: Machine, idle: bool) -> AbstractContextManager[None]:
    """Return how the work is to be scheduled; what comes after it is waited for by others."""
    wanted = idle or machine.config.staging.priority is Priority.IDLE
    return priority.idling() if wanted else nullcontext()


def rehearse(
    machine: Machine, source: str, *, sha256: str | None, allow_devices: bool
) -> tuple[int, Payload]:
    """Read a payload to its end as ``apply`` would; return its members and what it is."""
    with open_payload(source, limits=limits(machine, allow_devices), expected_sha256=sha256) as payload:
        members = sum(1 for _ in payload.members)
        return members, payload.finish()


def _write(
    work: Workspace,
    payload: OpenPayload,
    progress: Callable[[int, int, int | None], None] | None,
    reread: Callable[[int], None] | None,
) -> tuple[Counts, Payload, dict[str, int]]:
    storage = work.machine.storage
    live, index = storage.path(Tree(work.base.number, Part.ROOT)), work.machine.manifest(work.number)
    with (
        system.descriptor(work.root, system.DIRECTORY) as root_fd,
        system.descriptor(live, system.DIRECTORY) as base_fd,
        feed(payload, base_fd, index) as source,
        Manifest.open(index, writable=True) as manifest,
    ):
        tell = (lambda files: progress(files, source.bytes_read, payload.total)) if progress else None
        with Writer(root_fd, base_fd, manifest, progress=tell) as writer:
            writer.write(source.pieces())
            with reading_back(root_fd, manifest, reread):
                counts = writer.finish()
                hidden = _hidden(work.machine, Record(manifest))
                work.txn.step("verify")
        return counts, source.payload, hidden


def _hidden(machine: Machine, record: Record) -> dict[str, int]:
    """Return how much of what was written nobody will see, by the place where something else is mounted."""
    counted = {place: record.made_below(os.fsencode(place[1:])) for place in outside.covered(machine)}
    found = {place: count for place, count in counted.items() if count}
    for place, count in found.items():
        log.warning(f"{count} path(s) of this update will not be seen: something else is mounted at {place}")
    return found
