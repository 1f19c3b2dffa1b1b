"""``snaptx status``: the state of the machine in a few lines."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from dataclasses import dataclass

from snaptx import prune
from snaptx.cli import common
from snaptx.machine import Machine
from snaptx.model import Verdict


@dataclass(frozen=True, slots=True)
class Status:
    """What ``status`` shows; 0 stands for none."""

    sysroot: str
    booted: int
    default: int
    verdict: Verdict
    fallback: int
    staged: tuple[int, ...]
    reboot_needed: bool
    interrupted: str
    generations: int
    free_percent: float


def gather(machine: Machine) -> Status:
    """Read the state of the machine."""
    entry = machine.boot_state()
    intent = machine.journal.open()
    return Status(
        sysroot=str(machine.sysroot),
        booted=machine.booted,
        default=entry.default,
        verdict=machine.generations.read(entry.default).verdict,
        fallback=entry.fallback,
        staged=tuple(machine.staged()),
        reboot_needed=machine.booted != entry.default,
        interrupted=str(intent.actor.get("verb", "")) if intent else "",
        generations=len(machine.generations.recorded()),
        free_percent=round(prune.free_percent(machine), 1),
    )


def _lines(status: Status) -> Iterator[str]:
    yield f"booted:   {f'generation {status.booted}' if status.booted else 'a root that is no generation'}"
    fallback = f"fallback {status.fallback}" if status.fallback != status.default else "no fallback"
    yield f"default:  generation {status.default} ({status.verdict}), {fallback}"
    yield f"staged:   {', '.join(map(str, status.staged)) or 'nothing'}"
    if status.reboot_needed:
        yield f"pending:  reboot into generation {status.default}; 'snaptx rollback' takes it back"
    if status.interrupted:
        yield f"found:    'snaptx {status.interrupted}' was interrupted; 'snaptx repair' settles it"
    yield f"kept:     {status.generations} generation(s), {status.free_percent} % of the filesystem free"


def add_arguments(parser: ArgumentParser) -> None:
    """Add nothing."""


def run(args: Namespace) -> int:
    """Show the state."""
    status = gather(common.machine(args))
    common.emit(args, status, _lines(status))
    return 0
