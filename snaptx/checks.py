"""Hook directories, and the health checks among them.

``/usr/lib/snaptx/hooks.d/STAGE`` holds what comes with packages,
``/etc/snaptx/hooks.d/STAGE`` what the administrator adds: a file there hides
one of the same name, a link to /dev/null switches it off.  They run in the
order of their names.  STAGE ``check`` are required health checks,
``check-wanted`` only warn; one in ``update`` that fails keeps the machine from
updating itself; those in ``live`` follow a live switch.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from snaptx import log, run
from snaptx.machine import Machine

DIRECTORIES = ("usr/lib/snaptx/hooks.d", "etc/snaptx/hooks.d")
REQUIRED, WANTED = "check", "check-wanted"
TIMED_OUT = (124, 137, -9)
"""timeout(1)'s status for a command that took too long: it ended, it was killed, both were killed."""

KILL_AFTER = 5
"""Seconds from there to SIGKILL."""

ANY_STATUS = range(-64, 256)
"""A signal's number is negative."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A check that did not pass, and what it said last."""

    name: str
    required: bool
    reason: str


def find(sysroot: Path, stage: str) -> list[str]:
    """Return the hooks of a stage as absolute paths inside the root, in running order."""
    found: dict[str, str] = {}
    for directory in DIRECTORIES:
        for path in sorted((sysroot / directory / stage).glob("*")):
            found[path.name] = f"/{directory}/{stage}/{path.name}"
    return [found[name] for name in sorted(found) if _is_hook(sysroot / found[name].lstrip("/"))]


def _is_hook(path: Path) -> bool:
    if path.is_symlink() and os.readlink(path) == "/dev/null":
        return False
    return path.is_file() and bool(path.stat().st_mode & stat.S_IXUSR)


def health(machine: Machine, number: int) -> Iterator[Failure]:
    """Run the checks of the running root and yield those that fail."""
    for stage in (REQUIRED, WANTED):
        yield from answers(machine, stage, number)


def answers(machine: Machine, stage: str, number: int) -> Iterator[Failure]:
    """Run the hooks of a stage in the running root and yield those that end with another status than 0."""
    for hook in find(machine.sysroot, stage):
        reason = _run(machine, hook, number)
        log.info("hook", stage=stage, hook=hook, result=reason or "passed")
        if reason:
            yield Failure(hook, stage == REQUIRED, reason)


def _run(machine: Machine, hook: str, number: int) -> str:
    limit = machine.config.health.timeout
    words = ["timeout", f"--kill-after={KILL_AFTER}", str(limit)]
    if machine.sysroot.resolve() != Path("/"):
        words += ["chroot", str(machine.sysroot)]
    begun = time.monotonic()
    done = run.run([*words, hook], env={"SNAPTX_GENERATION": str(number)}, ok=ANY_STATUS)
    if done.status in TIMED_OUT and time.monotonic() - begun >= limit:
        return f"took longer than {limit} seconds"
    said = (done.stderr or done.stdout).strip().splitlines()
    return f"status {done.status}: {said[-1] if said else 'it said nothing'}" if done.status else ""
