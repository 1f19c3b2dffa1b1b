"""Verification and repair of the application trees, each as the machine is verified and repaired."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from snaptx import lock, repair, verify
from snaptx.apps import application, instances
from snaptx.apps.application import App
from snaptx.errors import BootError, NotFoundError, SnaptxError, storage_error
from snaptx.machine import Machine
from snaptx.overlay.failure import shown
from snaptx.transaction import Request
from snaptx.verify import Problem


def problems(host: Machine) -> Iterator[Problem]:
    """Compare what snaptx keeps about each application tree with itself and with the disk."""
    for stray in application.strays(host):
        yield Problem(_named(stray), "is no application")
    for name in application.removed(host):
        yield Problem(f"application {name}", "its removal was interrupted")
    for name in application.half_made(host):
        yield Problem(f"application {name}", "is half made")
    yield from _of_each(host, lambda app: verify.state(app.machine))


def differences(host: Machine, progress: Callable[[int, int], None] | None = None) -> Iterator[Problem]:
    """Compare the newest generation of each application tree with its manifest, every byte read."""

    def newest(app: App) -> Iterator[Problem]:
        number = app.machine.generations.recorded()[-1].number
        return verify.generation(app.machine, number, progress)

    yield from _of_each(host, newest)


def _of_each(host: Machine, look: Callable[[App], Iterator[Problem]]) -> Iterator[Problem]:
    """Yield the problems of every application, with its name."""
    for app in application.described(host):
        where = f"application {app.name}"
        try:
            yield from (found._replace(where=f"{where}: {found.where}") for found in look(app))
        except (SnaptxError, OSError) as error:
            yield Problem(where, _why(error))


def mend(host: Machine, request: Request) -> Iterator[str]:
    """Repair every application tree; yield what was done, and what could not be, in plain words."""
    for stray in application.strays(host):
        try:
            if application.set_aside(host, request, stray):
                yield f"{_named(stray)} is no application, and was set aside"
        except (SnaptxError, OSError) as error:
            yield f"{_named(stray)} was left as it is: {_why(error)}"
    acts = [(name, _swept) for name in application.removed(host)]
    acts += [(name, _mended) for name in application.names(host)]
    for name, act in acts:
        try:
            yield from (f"application {name}: {line}" for line in act(host, name, request))
        except (SnaptxError, OSError) as error:
            yield f"application {name} was left as it is: {_why(error)}"


def _named(stray: Path) -> str:
    return f"@snaptx/apps/{shown(os.fsencode(stray.name))}"


def _why(error: SnaptxError | OSError) -> str:
    """Return what one application's failure is; it keeps nobody from looking at the next."""
    known = (
        error if isinstance(error, SnaptxError) else storage_error(error, error.filename or "no file named")
    )
    return known.message


def _swept(host: Machine, name: str, request: Request) -> list[str]:
    application.sweep(host, name, request.verb)
    return ["its removal was interrupted, and is completed"]


def _mended(host: Machine, name: str, request: Request) -> list[str]:
    with application.making(host):
        app = application.look(host, name)
        if not app.machine.storage.state.is_dir():  # somebody has removed it meanwhile
            return []
        if not application.is_there(app):
            app.machine.storage.forsake("")
            return ["it was half made, and is gone"]
    # What runs would keep its generation busy; a pointer that can't be read the repair makes anew.
    with lock.exclusive(app.machine.lock, request.verb), suppress(BootError, NotFoundError):
        instances.settle(app)
    return repair.repair(application.reopen(host, app).machine, request)
