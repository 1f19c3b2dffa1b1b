"""The instances of an application, from their mount to their end.

::

    /run/snaptx/apps/NAME/
        N               the root of generation N, mounted while an instance runs in it
        N.json          who that is
        N.log           what it wrote
        0.sock          where it is checked, if that is a Unix socket of its own

The pointer decides which of them should run.  What else does is what an
interruption left, and is ended by ``settle``; what is lacking it starts.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import asdict, replace

from snaptx import checks, durable, generations, log, mounting, system
from snaptx.apps import logs, process, runners, sockets
from snaptx.apps.application import App, subtree
from snaptx.apps.runners import Instance
from snaptx.errors import CommandError, HealthError, NotFoundError, storage_error
from snaptx.model import Part, Tree

PAUSE = 0.05
"""Seconds between two attempts of a check."""

KILL_AFTER = 1
"""Seconds that a check has to end in once its time is over: meanwhile the old instance stands still."""


def recorded(app: App) -> Iterator[Instance]:
    """Yield the instances that this boot has a record of, alive or not."""
    for path in sorted(app.place.glob("*.json")):
        with suppress(OSError, ValueError, TypeError, KeyError, AttributeError):
            data = json.loads(durable.read(path))
            if data.pop("boot_id") == system.boot_id():
                yield Instance(**data)


def running(app: App) -> list[Instance]:
    """Return the instances that run."""
    return [instance for instance in recorded(app) if runners.runner(instance).is_alive()]


def current(app: App) -> Instance | None:
    """Return the instance that runs of what the pointer names."""
    default = app.machine.boot_state().default
    return next((instance for instance in running(app) if instance.generation == default), None)


def start(app: App, number: int, before: Instance | None) -> Instance:
    """Mount a generation's root and start an instance in it, which inherits the sockets of ``before``.

    Raises:
        CommandError: it can't be started; nothing of it is left.
    """
    require_startable(app)
    logs.bound(app.place)
    made = None
    try:
        _mount(app, number)
        with _undisturbed(app):
            made = runners.start(app.settings, number, subtree(app, number), before)
            data = {**asdict(made), "boot_id": system.boot_id()}
            durable.replace(app.place / f"{number}.json", json.dumps(data).encode(), 0o600)
    except BaseException:
        if made:
            runners.runner(made).stop()
        _leave(app, number)
        raise
    return made


def _undisturbed(app: App) -> AbstractContextManager[None]:
    """Let no signal come between a process and its record; systemctl(1) may take long, and keeps its own."""
    return nullcontext() if app.settings.unit else system.undisturbed()


def stop(app: App, instance: Instance) -> bool:
    """End an instance and unmount its root; return whether it had to be killed."""
    killed = runners.runner(instance).stop()
    if killed:
        log.warning("killed: it did not end in time", app=app.name, generation=instance.generation)
    _leave(app, instance.generation)
    return killed


def _mount(app: App, number: int) -> None:
    info = app.machine.storage.describe(Tree(number, Part.ROOT))
    if info is None:
        raise NotFoundError(f"the root of generation {number} is missing", hint="snaptx app list")
    root = subtree(app, number)
    root.mkdir(mode=0o755, parents=True, exist_ok=True)
    if not root.is_mount():
        try:
            mounting.mount(info.mount.source, str(root), info.mount.fstype, options=info.mount.options)
        except OSError as error:
            raise storage_error(error, f"cannot mount generation {number}") from error


def _leave(app: App, number: int) -> None:
    root = subtree(app, number)
    (app.place / f"{number}.json").unlink(missing_ok=True)
    if root.is_mount():
        process.end_inside(root)
        mounting.unmount(str(root), mounting.MNT_DETACH)
    with suppress(OSError):
        root.rmdir()


def require_healthy(app: App, instance: Instance) -> float:
    """Wait until the check passes; return the seconds that took.

    Raises:
        HealthError: the instance ended, or the check did not pass in time.
    """
    begun = time.monotonic()
    reason = "it was not checked"
    while time.monotonic() - begun < app.settings.timeout:
        _require_alive(app, instance)
        reason = _complaint(app, instance)
        if not reason:
            _require_alive(app, instance)  # or it was another one that answered
            return time.monotonic() - begun
        time.sleep(PAUSE)
    raise _ill(app, instance, reason)


def _require_alive(app: App, instance: Instance) -> None:
    if not runners.runner(instance).is_alive():
        raise _ill(app, instance, "it ended")


def _ill(app: App, instance: Instance, reason: str) -> HealthError:
    text = f"generation {instance.generation} of {app.name} did not come up: {reason}"
    hint = f"what it said is in {subtree(app, instance.generation)}.log"
    return HealthError(text, hint=hint)


def _complaint(app: App, instance: Instance) -> str:
    """Run the check once; return what is wrong, "" if nothing is."""
    if not app.settings.check:
        return ""
    env = {
        "SNAPTX_APP": app.name,
        "SNAPTX_GENERATION": str(instance.generation),
        "SNAPTX_PID": str(instance.pid),
        "SNAPTX_ROOT": str(subtree(app, instance.generation)),
        "SNAPTX_CHECK_ADDRESS": instance.address,
    }
    return checks.ask(app.settings.check, env, limit=app.settings.wait, kill_after=KILL_AFTER)


def settle(app: App) -> Instance | None:
    """End what the pointer does not name; return what runs of what it names."""
    default = app.machine.boot_state().default
    kept = None
    for instance in recorded(app):
        if instance.generation == default and runners.runner(instance).is_alive():
            kept = instance
        else:
            stop(app, instance)
    for number in _unrecorded(app):
        _leave(app, number)
    return kept


def _unrecorded(app: App) -> list[int]:
    """Return the generations that are mounted for an instance of which there is no record."""
    known = {instance.generation for instance in recorded(app)}
    places = [path for path in app.place.glob("*") if generations.is_number(path.name)]
    return sorted({int(path.name) for path in places if path.is_mount()} - known)


def bring_up(app: App) -> Instance:
    """Start what the pointer names, unless it runs; the check has to pass.

    Raises:
        HealthError: it did not; the instance was ended.
        CommandError: it can't be started.
    """
    return settle(app) or started(app, app.machine.boot_state().default, None)


def started(app: App, number: int, before: Instance | None) -> Instance:
    """Start an instance and wait for its check; end it if that fails."""
    made = start(app, number, before)
    try:
        require_healthy(app, made)
    except BaseException:
        stop(app, made)
        raise
    return made


def rehearse(app: App, number: int) -> None:
    """Start an instance at addresses of its own, check it there, and end it: nobody else meets it.

    Raises:
        HealthError: the check did not pass.
        CommandError: it can't be started.
    """
    listen = sockets.private(app.settings.listen, app.place)
    settings = app.settings._replace(listen=listen)
    apart = replace(app, read_settings=lambda: settings)
    stop(apart, started(apart, number, None))


def is_startable(app: App) -> bool:
    """Return whether there is anything to start."""
    return bool(app.settings.start or app.settings.unit)


def require_startable(app: App) -> None:
    """Refuse an application of which nothing can be started.

    Raises:
        CommandError: its settings name neither a command nor a unit.
        ConfigError: its settings are broken.
    """
    if not is_startable(app):
        raise CommandError("there is no command to start it", hint="name start or unit in its settings")


def is_known(app: App) -> bool:
    """Return whether this boot has anything to stop."""
    return any(recorded(app)) or bool(_unrecorded(app))


def bring_down(app: App) -> list[int]:
    """End all instances; return their generations.

    Raises:
        CommandError: one can't be ended; the others were.
    """
    ended = []
    failure = None
    for instance in list(recorded(app)):
        try:
            stop(app, instance)
            ended.append(instance.generation)
        except CommandError as error:
            failure = error
    if failure:
        raise failure
    return ended
