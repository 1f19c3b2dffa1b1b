"""Repair of the application trees, each as the machine is repaired."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

from snaptx import lock, repair
from snaptx.apps import application, instances
from snaptx.errors import BootError, NotFoundError, SnaptxError
from snaptx.machine import Machine
from snaptx.transaction import Request


def mend(host: Machine, request: Request) -> Iterator[str]:
    """Repair every application tree; yield what was done, and what could not be, in plain words."""
    acts = [(name, _swept) for name in application.removed(host)]
    acts += [(name, _mended) for name in application.names(host)]
    for name, act in acts:
        try:
            yield from (f"application {name}: {line}" for line in act(host, name, request))
        except SnaptxError as error:
            yield f"application {name} was left as it is: {error.message}"


def _swept(host: Machine, name: str, request: Request) -> list[str]:
    application.sweep(host, name, request.verb)
    return ["its removal was interrupted, and is completed"]


def _mended(host: Machine, name: str, request: Request) -> list[str]:
    app = application.look(host, name)
    with lock.exclusive(app.machine.lock, request.verb):
        if not application.is_there(app):
            app.machine.storage.forsake("")
            return ["it was half made, and is gone"]
        with suppress(BootError, NotFoundError):  # of a pointer that the repair makes anew
            instances.settle(app)  # what runs would keep its generation busy
    return repair.repair(application.reopen(host, app).machine, request)
