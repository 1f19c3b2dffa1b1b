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
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from snaptx import log, run, system
from snaptx.machine import Machine

DIRECTORIES = ("usr/lib/snaptx/hooks.d", "etc/snaptx/hooks.d")
REQUIRED, WANTED = "check", "check-wanted"
TIMED_OUT = (124, 137, -9)
"""timeout(1)'s status for a command that took too long: it ended, it was killed, both were killed."""

KILL_AFTER = 5
"""Seconds from there to SIGKILL, for a hook."""

ANY_STATUS = range(-64, 256)
"""A signal's number is negative."""


class Failure(NamedTuple):
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
    inside = [] if system.is_running_root(machine.sysroot) else ["chroot", str(machine.sysroot)]
    env = {"SNAPTX_GENERATION": str(number)}
    return ask([*inside, hook], env, limit=machine.config.health.timeout, kill_after=KILL_AFTER)


def ask(words: Sequence[str], env: Mapping[str, str], *, limit: int, kill_after: int) -> str:
    """Run a check; return what is wrong, "" if nothing is.

    It is ended after ``limit`` seconds, and killed ``kill_after`` seconds later if it is still there.
    """
    begun = time.monotonic()
    command = ["timeout", f"--kill-after={kill_after}", str(limit), *words]
    done = run.run(command, env=env, ok=ANY_STATUS, end_only=True)
    if done.status in TIMED_OUT and time.monotonic() - begun >= limit:
        return f"it took longer than {limit} seconds"
    return f"status {done.status}: {done.last_line}" if done.status else ""
