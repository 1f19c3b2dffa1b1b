"""Who runs an instance: snaptx itself, or systemd.

The settings say how one is started.  How it is ended says its record, because
the settings may be others by then, or damaged.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from snaptx import run, system
from snaptx.apps import process, sockets
from snaptx.apps.process import Start
from snaptx.apps.settings import Settings
from snaptx.errors import CommandError


@dataclass(frozen=True, slots=True)
class Instance:
    """One run of a generation; ``pid`` and ``start`` (clock ticks since the boot) are 0 for a unit's.

    ``address`` is the first that it was given to listen at, "" if it was given
    none.  A process is ended by ``signal``, and killed after ``drain`` seconds.
    """

    generation: int
    pid: int = 0
    start: int = 0
    address: str = ""
    unit: str = ""
    signal: str = "TERM"
    drain: int = 30


class Runner(Protocol):
    """Has started an instance, and ends it."""

    def is_alive(self) -> bool:
        """Return whether it runs."""
        ...

    def held(self) -> AbstractContextManager[None]:
        """Let it pause for the length of a with block."""
        ...

    def stop(self) -> bool:
        """End it; return whether it had to be killed."""
        ...


def runner(instance: Instance) -> Runner:
    """Return who runs an instance."""
    return Unit(instance.unit) if instance.unit else Process(instance)


def overlaps(settings: Settings) -> bool:
    """Return whether two may run at the same time: what opens its address itself finds it taken."""
    return bool(settings.unit or settings.listen) or not settings.start


def start(settings: Settings, number: int, root: Path, before: Instance | None) -> Instance:
    """Start an instance in the tree mounted at ``root``; it inherits the sockets of ``before``.

    Raises:
        CommandError: it can't be started.
    """
    if settings.unit:
        return _started_unit(f"{settings.unit}{number}.service", number)
    return _started_process(settings, number, root, before)


def _started_unit(name: str, number: int) -> Instance:
    run.run(["systemctl", "start", name])
    return Instance(number, unit=name)


def _started_process(settings: Settings, number: int, root: Path, before: Instance | None) -> Instance:
    heir_of = before.pid if before and runner(before).is_alive() else 0
    listening = sockets.listening(
        settings.listen, heir_of, nonblocking=settings.nonblocking, mode=settings.socket_mode
    )
    with listening as given:
        addresses = [sockets.shown(one) for one in given]
        env = {"SNAPTX_GENERATION": str(number), "SNAPTX_LISTEN": " ".join(addresses)}
        pid = process.spawn(Start(root, settings.start, given, env, root.with_name(f"{number}.log")))
    begun, address = system.process_start(pid), addresses[0] if addresses else ""
    return Instance(number, pid, begun, address, signal=settings.stop, drain=settings.drain)


class Process:
    """An instance that snaptx has started itself."""

    def __init__(self, instance: Instance) -> None:
        self._instance = instance

    def is_alive(self) -> bool:
        """Return whether its first process runs."""
        return process.is_alive(self._instance.pid, self._instance.start)

    def held(self) -> AbstractContextManager[None]:
        """Stop its process group."""
        return process.held(self._instance.pid) if self.is_alive() else nullcontext()

    def stop(self) -> bool:
        """Send its signal and wait."""
        one = self._instance
        return process.stop(one.pid, one.start, one.signal, one.drain)


class Unit:
    """An instance of a template unit; its socket unit keeps the sockets (``Sockets=`` in the template)."""

    def __init__(self, name: str) -> None:
        self._name = name

    def is_alive(self) -> bool:
        """Ask systemd."""
        return run.run(["systemctl", "is-active", "--quiet", self._name], ok=range(256)).status == 0

    @contextmanager
    def held(self) -> Iterator[None]:
        """Freeze the unit's control group."""
        frozen = run.run(["systemctl", "freeze", self._name], ok=range(256)).status == 0
        try:
            yield
        finally:
            if frozen:
                run.run(["systemctl", "thaw", self._name])

    def stop(self) -> bool:
        """Stop the unit: how, and for how long, it says itself; one that is gone can't be stopped."""
        try:
            run.run(["systemctl", "stop", self._name])
        except CommandError:
            if self.is_alive():
                raise
        return False
