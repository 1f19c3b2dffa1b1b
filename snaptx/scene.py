"""What is live: the mount table is the authority.

``/run/snaptx/live`` keeps what that does not tell: since when, what was live
before, and which generations were at all since the boot.  Both end with the
boot: what the entry file names boots, whatever was live.
"""

from __future__ import annotations

import json
import os
from typing import Any, NamedTuple

from snaptx import durable, system
from snaptx.config import is_place
from snaptx.machine import Machine
from snaptx.model import LATEST, Part, Tree, View, jsonable, require_kinds
from snaptx.running.stack import stack
from snaptx.system import Mount

STATE = "run/snaptx/live"
FORMAT = 1
ETC = "/etc"
"""Switched only when asked, and last."""

FOREIGN = -1
"""Stands for a mount that is no generation's."""


class Note(NamedTuple):
    """The file in /run; ``since`` in seconds since the epoch, ``used`` what was live since the boot.

    ``paths`` are where something is live, after a switch to none where something was.
    """

    generation: int = 0
    previous: int = 0
    paths: tuple[str, ...] = ()
    since: float = 0.0
    used: tuple[int, ...] = ()


def note(machine: Machine) -> Note:
    """Return the note of this boot, an empty one if there is none or it is damaged."""
    try:
        data = json.loads(durable.read(machine.sysroot / STATE))
        if data.pop("format") != FORMAT or data.pop("boot_id") != system.boot_id():
            return Note()
        return _note(data)
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return Note()


def _note(data: dict[str, Any]) -> Note:
    values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in data.items()}
    require_kinds(Note, values)
    found = Note(**values)
    if not 0 <= found.since < LATEST:
        raise ValueError("since is no time")
    if not all(isinstance(path, str) and is_place(path) and "\0" not in path for path in found.paths):
        raise ValueError("paths are no directories")
    if not all(isinstance(number, int) for number in found.used):
        raise ValueError("used are no generations")
    return found


def write(machine: Machine, fresh: Note) -> None:
    """Replace the note in one step.

    Raises:
        StorageError: the filesystem refused.
    """
    path = machine.sysroot / STATE
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    data = {"format": FORMAT, "boot_id": system.boot_id(), **jsonable(fresh)}
    durable.replace(path, json.dumps(data).encode() + b"\n", 0o644)


class Scene(NamedTuple):
    """What is mounted; ``names`` gives the number of a generation by the name of its root."""

    sysroot: str
    mounts: tuple[Mount, ...]
    names: dict[str, int]

    @property
    def root(self) -> Mount:
        """Return the mount of the running root."""
        return stack(self.mounts, self.sysroot)[0]

    def target(self, path: str) -> str:
        """Return where the machine has ``path``."""
        return os.path.normpath(f"{self.sysroot}/{path}")

    def over(self, path: str) -> tuple[int, ...]:
        """Return the generations that lie over the root's own ``path``, the one that is seen first."""
        return tuple(self._owner(mount, path) for mount in stack(self.mounts, self.target(path)))

    def _owner(self, mount: Mount, path: str) -> int:
        if mount.device != self.root.device or not mount.root.endswith(path):
            return FOREIGN
        return self.names.get(mount.root.removesuffix(path).strip("/"), FOREIGN)

    def seen(self, path: str) -> int:
        """Return the number of the mount that ``path`` is seen in."""
        found = stack(self.mounts, self.target(path))
        return found[0].number if found else self.root.number


def look(machine: Machine) -> Scene:
    """Return what is mounted."""
    found = Scene(str(machine.sysroot.resolve()), tuple(system.mounts()), {})
    targets = {found.target(path) for path in paths(machine)}
    if any(mount.target in targets for mount in found.mounts):
        return found._replace(names=_names(machine))
    return found


def _names(machine: Machine) -> dict[str, int]:
    numbers = [generation.number for generation in machine.generations.recorded()]
    names = {number: machine.storage.name(Tree(number, Part.ROOT)) for number in numbers}
    return {name: number for number, name in names.items() if name}


def live(machine: Machine) -> dict[str, int]:
    """Return the generation that is live at each directory where one is."""
    found = look(machine)
    stacks = {path: found.over(path) for path in paths(machine)}
    return {path: stack[0] for path, stack in stacks.items() if stack and stack[0] != FOREIGN}


def is_marked(machine: Machine, number: int) -> bool:
    """Return whether it is kept how a generation was when it went live."""
    return bool(machine.storage.name(Tree(number, Part.LIVE)))


def ended(machine: Machine) -> tuple[int, ...]:
    """Return the generations that are live no more, but keep how they were."""
    numbers = machine.generations.numbers() if machine.initialised else []
    marked = [number for number in numbers if is_marked(machine, number)]
    shown = live(machine).values() if marked else ()
    return tuple(number for number in marked if number not in shown)


def views(machine: Machine) -> list[View]:
    """Return every recorded generation with what is derived about it, ascending."""
    numbers = set(live(machine).values())
    return [view._replace(live=view.number in numbers) for view in machine.views()]


def paths(machine: Machine) -> tuple[str, ...]:
    """Return the paths at which something can be live: also those that were configured when it went live."""
    return tuple(dict.fromkeys((*machine.config.live.paths, *note(machine).paths, ETC)))


def said(machine: Machine) -> str:
    """Return what is live in words, "" if nothing is."""
    found = live(machine)
    places = {number: [path for path in found if found[path] == number] for number in found.values()}
    return "; ".join(f"generation {number} at {', '.join(paths)}" for number, paths in places.items())
