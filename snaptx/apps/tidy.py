"""Old generations of applications: what the rules of the system's own let go, each under its own lock."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from snaptx import log, prune
from snaptx.apps import application, move
from snaptx.apps.application import App
from snaptx.errors import SnaptxError
from snaptx.machine import Machine
from snaptx.prune import Pruned
from snaptx.transaction import Request

Result = TypeVar("Result")


def tidy(app: App, request: Request, wanted: Sequence[int] = (), keep: int | None = None) -> Pruned:
    """Remove the generations named, or what the rules let go.

    Raises:
        LockError: another snaptx is at work on it.
        NotFoundError: a generation named does not exist.
        BusyError: a generation named is protected; the message says why.
    """
    with move.exclusive(app, request.verb):
        return prune.prune(app.machine, request, prune.plan(app.machine, wanted, keep).expendable)


def each(host: Machine, failures: list[SnaptxError], act: Callable[[App], Result]) -> dict[str, Result]:
    """Return what ``act`` returns for each application; one that fails keeps no other from it."""
    done = {}
    for app in application.described(host):
        try:
            done[app.name] = act(app)
        except SnaptxError as error:
            log.error("its generations are left alone", app=app.name, reason=error.message)
            failures.append(error)
    return done
