"""Who runs an instance: snaptx itself, systemd, or nobody."""

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

    ``address`` is the first that it was given to listen at, "" if it was given none.
    """

    generation: int
    pid: int = 0
    start: int = 0
    address: str = ""


class Runner(Protocol):
    """Starts and ends instances; ``overlaps`` is whether two may run at the same time."""

    overlaps: bool

    def start(self, number: int, root: Path, before: Instance | None) -> Instance:
        """Start an instance in the tree mounted at ``root``; it inherits the sockets of ``before``.

        Raises:
            CommandError: it can't be started.
        """
        ...

    def is_alive(self, instance: Instance) -> bool:
        """Return whether it runs."""
        ...

    def held(self, instance: Instance) -> AbstractContextManager[None]:
        """Let it pause for the length of a with block."""
        ...

    def stop(self, instance: Instance) -> bool:
        """End it; return whether it had to be killed."""
        ...


def runner(settings: Settings) -> Runner:
    """Return who runs the instances of an application."""
    if settings.unit:
        return Units(settings)
    return Processes(settings) if settings.start else Nobody()


class Processes:
    """Instances that snaptx starts itself."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.overlaps = bool(settings.listen)  # what opens its address itself finds it taken

    def start(self, number: int, root: Path, before: Instance | None) -> Instance:
        """Fork and execute the start command."""
        env = {"SNAPTX_GENERATION": str(number)}
        heir_of = before.pid if before and self.is_alive(before) else 0
        with sockets.listening(self._settings.listen, heir_of) as given:
            log = root.with_name(f"{number}.log")
            pid = process.spawn(Start(root, self._settings.start, given, env, log))
            address = sockets.shown(given[0]) if given else ""
        return Instance(number, pid, system.process_start(pid), address)

    def is_alive(self, instance: Instance) -> bool:
        """Return whether its first process runs."""
        return process.is_alive(instance.pid, instance.start)

    def held(self, instance: Instance) -> AbstractContextManager[None]:
        """Stop its process group."""
        return process.held(instance.pid) if self.is_alive(instance) else nullcontext()

    def stop(self, instance: Instance) -> bool:
        """Send its signal and wait."""
        how, drain = self._settings.stop, self._settings.drain
        return process.stop(instance.pid, instance.start, how, drain)


class Units:
    """Instances of a template unit; its socket unit keeps the sockets (``Sockets=`` in the template)."""

    overlaps = True

    def __init__(self, settings: Settings) -> None:
        self._template = settings.unit

    def _name(self, number: int) -> str:
        return f"{self._template}{number}.service"

    def start(self, number: int, root: Path, before: Instance | None) -> Instance:
        """Start the unit and wait for it."""
        run.run(["systemctl", "start", self._name(number)])
        return Instance(number)

    def is_alive(self, instance: Instance) -> bool:
        """Ask systemd."""
        name = self._name(instance.generation)
        return run.run(["systemctl", "is-active", "--quiet", name], ok=range(256)).status == 0

    @contextmanager
    def held(self, instance: Instance) -> Iterator[None]:
        """Freeze the unit's control group."""
        name = self._name(instance.generation)
        frozen = run.run(["systemctl", "freeze", name], ok=range(256)).status == 0
        try:
            yield
        finally:
            if frozen:
                run.run(["systemctl", "thaw", name])

    def stop(self, instance: Instance) -> bool:
        """Stop the unit: how, and for how long, it says itself."""
        run.run(["systemctl", "stop", self._name(instance.generation)])
        return False


class Nobody:
    """An application that is only a tree."""

    overlaps = True

    def start(self, number: int, root: Path, before: Instance | None) -> Instance:
        """Refuse.

        Raises:
            CommandError: always.
        """
        raise CommandError("there is no command to start it", hint="name start or unit in its settings")

    def is_alive(self, instance: Instance) -> bool:
        """Return False."""
        return False

    def held(self, instance: Instance) -> AbstractContextManager[None]:
        """Do nothing."""
        return nullcontext()

    def stop(self, instance: Instance) -> bool:
        """Do nothing."""
        return False
