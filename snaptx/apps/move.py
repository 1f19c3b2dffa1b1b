"""Moving an application over to another generation, and back where that fails.

With sockets handed on, the old instance runs on until the new one has passed
its check; while that runs the old one is held, so that it is the new one that
answers.  A check that fails lets the old one go on, and nothing was switched.
A check at a private address comes before that, of an instance for it alone:
what fails there nobody has met.
Without, the old one has to give its address away first, and is started again
where the new one fails.

The pointer is switched between the check and the end of the old instance: an
interruption on either side of it leaves an instance too many, which the next
verb ends (``instances.settle``).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field

from snaptx import commit, confirm, lock, log, rollback, transaction
from snaptx.apps import instances, runners
from snaptx.apps.application import App, reopen
from snaptx.apps.runners import Instance
from snaptx.apps.settings import CheckAt, Settings
from snaptx.config import Conflicts
from snaptx.errors import OutcomeUnknownError, SnaptxError
from snaptx.machine import Machine
from snaptx.transaction import Request


@dataclass(frozen=True, slots=True, kw_only=True)
class Turned:
    """What the switch of the pointer did.

    ``content`` is the generation whose content this has.  ``left`` is what was
    changed in the tree before and stays there, for the new one does not stem
    from it.
    """

    number: int
    previous: int
    content: int
    carried: tuple[bytes, ...] = ()
    conflicts: tuple[bytes, ...] = ()
    left: tuple[bytes, ...] = ()


Act = Callable[[Callable[[int], None]], Turned]
"""Makes the switch, and calls what it is given before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Moved(Turned):
    """What a move did.

    ``pause_seconds`` is how long the old instance was held where its sockets
    were ``handed_on`` (requests that it had begun waited), and else how long
    nobody answered, ``start_seconds`` from the start to the check's success,
    ``drain_seconds`` until the old instance had ended, ``killed`` whether it
    had to be.
    """

    handed_on: bool
    pause_seconds: float
    start_seconds: float
    drain_seconds: float
    killed: bool


@dataclass
class _Move:
    """One move under way."""

    app: App
    settings: Settings
    before: Instance | None
    after: Instance | None = None
    pause: float = 0.0
    start: float = 0.0
    killed: bool = False
    _begun: float = field(default_factory=time.monotonic)

    @property
    def overlaps(self) -> bool:
        return runners.overlaps(self.settings)

    def bring_over(self, number: int) -> None:
        """Start the new instance and check it: what it raises keeps the pointer where it is."""
        if not instances.is_startable(self.app):
            return
        if self.settings.check_at is CheckAt.PRIVATE:
            instances.rehearse(self.app, number)
        begun = time.monotonic()
        if self.overlaps or self.before is None:
            self._beside(number)
        else:
            self._instead(number, self.before)
        self.start = time.monotonic() - begun

    def _beside(self, number: int) -> None:
        made = instances.start(self.app, number, self.before)
        try:
            with self._only_the_new():
                instances.require_healthy(self.app, made)
        except BaseException:
            instances.stop(self.app, made)
            raise
        self.after = made

    @contextmanager
    def _only_the_new(self) -> Iterator[None]:
        """Hold the old instance, and note for how long."""
        if self.before is None:
            yield
            return
        begun = time.monotonic()
        with runners.runner(self.before).held():
            yield
        self.pause = time.monotonic() - begun

    def _instead(self, number: int, before: Instance) -> None:
        begun = time.monotonic()
        self.killed = instances.stop(self.app, before)
        try:
            self.after = instances.started(self.app, number, None)
        except BaseException:
            self._back_to(before.generation)
            raise
        self.pause = time.monotonic() - begun

    def _back_to(self, number: int) -> None:
        try:
            instances.started(self.app, number, None)
        except SnaptxError as error:
            log.error("the old instance did not come back either", reason=error.message)

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Let what the pointer names run, whatever ends the block after the new instance had its place."""
        try:
            yield
        except BaseException:
            if self.after:
                with suppress(SnaptxError):
                    instances.bring_up(self.app)
            raise

    def retire(self) -> float:
        """End the old instance; return the seconds that took."""
        begun = time.monotonic()
        if self.before and self.overlaps:
            self.killed = instances.stop(self.app, self.before)
        return time.monotonic() - begun


@contextmanager
def exclusive(app: App, verb: str) -> Iterator[Instance | None]:
    """Be the only one that changes an application; give the instance that runs.

    What an interruption left running is ended before its generation is settled,
    which it would keep busy.  Between the two another snaptx may have its turn.

    Raises:
        LockError: another snaptx is at work on it.
    """
    with lock.exclusive(app.machine.lock, verb):
        instances.settle(app)
    with transaction.exclusive(app.machine, verb):
        yield instances.settle(app)


def switch(
    host: Machine, app: App, request: Request, wanted: int | None, policy: Conflicts | None = None
) -> Moved:
    """Make a staged generation the application's.

    Raises:
        HealthError: its check failed; the old instance runs on.
        ConflictError: the application changed in its tree what the update changed.
        OutcomeUnknownError: something failed after the switch.
    """

    def act(ready: Callable[[int], None]) -> Turned:
        done = commit.commit(app.machine, request, wanted, policy, ready)
        return Turned(
            number=done.number,
            previous=done.previous,
            content=done.number,
            carried=done.carried,
            conflicts=done.conflicts,
            left=done.left,
        )

    return _move(host, app, request, act)


def back(host: Machine, app: App, request: Request, wanted: int | None) -> Moved:
    """Go back to an earlier generation of the application.

    Raises:
        HealthError: its check failed; what ran runs on.
        NotFoundError: there is nothing to go back to.
        OutcomeUnknownError: something failed after the switch.
    """

    def act(ready: Callable[[int], None]) -> Turned:
        done = rollback.rollback(app.machine, request, wanted, ready=ready)
        return Turned(number=done.number, previous=done.previous, content=done.content)

    return _move(host, app, request, act)


def foresee(app: App, choose: Callable[[Machine, int | None], int], wanted: int | None) -> int:
    """Return the generation that a move would go to, by the rule ``choose`` of a commit or a rollback.

    Raises:
        ConfigError: the settings are broken.
        StorageError: there is no such generation, or it is not one to go to.
    """
    _ = app.settings  # if they are broken nothing begins
    return choose(app.machine, wanted)


@contextmanager
def _moved(app: App, number: int) -> Iterator[None]:
    """Let nothing that fails from now on look as if the pointer were where it was.

    Raises:
        OutcomeUnknownError: something failed.
    """
    try:
        yield
    except (SnaptxError, OSError) as error:
        message = f"{app.name} is at generation {number}, but something failed: {error}"
        raise OutcomeUnknownError(message, hint="run: snaptx repair") from error


def _move(host: Machine, app: App, request: Request, act: Act) -> Moved:
    settings = app.settings  # if they are broken nothing begins
    with exclusive(app, request.verb) as before:
        move = _Move(app, settings, before)
        with move.kept():
            turned = act(move.bring_over)
        with _moved(app, turned.number):
            drained = move.retire()
            confirm.confirm(reopen(host, app).machine, request, turned.number)
    return Moved(
        **asdict(turned),
        handed_on=before is not None and move.overlaps,
        pause_seconds=move.pause,
        start_seconds=move.start,
        drain_seconds=drained,
        killed=move.killed,
    )
