"""What is remembered from one update to the next: ``@snaptx/update``.

    update/state.json   the last run, when the next is due, which indexes were seen
    update/cache/KEY/   what was downloaded from a source: SHA256, or SHA256.part
    update/lock         held while an update runs

Nothing of it is rolled back: an index that was seen stays seen.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any, NamedTuple

from snaptx import durable
from snaptx.errors import FormatError, JournalError, storage_error
from snaptx.machine import Machine
from snaptx.model import EMPTY, LATEST, jsonable, require_kinds

FORMAT = 1
NAME = "state.json"


class Result(StrEnum):
    """What an update came to."""

    OFF = "off"
    EARLY = "early"
    HELD = "held"
    CURRENT = "current"
    REJECTED = "rejected"
    AVAILABLE = "available"
    DOWNLOADED = "downloaded"
    STAGED = "staged"
    COMMITTED = "committed"
    REBOOTING = "rebooting"
    FAILED = "failed"


class Seen(NamedTuple):
    """The newest index that was accepted from a source."""

    name: str
    version: int
    digest: str


class Run(NamedTuple):
    """One run: when it ended (seconds since the epoch), what it came to, in words, and its exit status."""

    time: float
    result: Result
    message: str
    code: int = 0


class State(NamedTuple):
    """All that is remembered.

    ``succeeded`` is when all sources were last read, ``next`` when the next
    run is due, both in seconds since the epoch; ``failures`` counts runs that
    failed in a row; ``offered`` is what waits, in words; ``seen`` the newest
    index of each source.
    """

    last: Run | None = None
    succeeded: float = 0.0
    next: float = 0.0
    failures: int = 0
    offered: tuple[str, ...] = ()
    seen: Mapping[str, Seen] = EMPTY


def directory(machine: Machine) -> Path:
    """Return where the state lies."""
    return machine.storage.state / "update"


def read(place: Path) -> State:
    """Return what is remembered in ``place``.

    Raises:
        JournalError: it is damaged.
        FormatError: a newer snaptx wrote it.
        StorageError: it can't be read.
    """
    try:
        data = json.loads(durable.read(place / NAME))
        if data["format"] > FORMAT:
            raise FormatError("a newer snaptx has updated this machine", hint="use that version or newer")
        return _state(data)
    except FileNotFoundError:
        return State()
    except OSError as error:
        raise storage_error(error, "cannot read the state of the updates") from error
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        hint = f"move @snaptx/update/{NAME} away; old indexes are accepted once more then"
        raise JournalError(f"the state of the updates is damaged: {error}", hint=hint) from error


def _state(data: Any) -> State:
    last = data["last"]
    return State(
        last=_run(last) if last else None,
        succeeded=moment(data["succeeded"]),
        next=moment(data["next"]),
        failures=int(data["failures"]),
        offered=tuple(data["offered"]),
        seen={source: _seen(seen) for source, seen in data["seen"].items()},
    )


def _run(data: Any) -> Run:
    require_kinds(Run, data)
    return Run(**{**data, "time": moment(data["time"]), "result": Result(data["result"])})


def _seen(data: Any) -> Seen:
    require_kinds(Seen, data)
    return Seen(**data)


def moment(value: Any) -> float:
    """Return seconds since the epoch that are a time from 1970 to 9999.

    Raises:
        ValueError: they are not.
    """
    if not 0 <= float(value) < LATEST:
        raise ValueError(f"{value} is no time")
    return float(value)


def write(place: Path, state: State) -> None:
    """Replace what is remembered, durable on return."""
    text = json.dumps({"format": FORMAT, **jsonable(state)}, indent=1, sort_keys=True) + "\n"
    durable.replace(place / NAME, text.encode())


class Memory:
    """The indexes that were seen, durable as soon as one is put."""

    def __init__(self, place: Path) -> None:
        self._place = place

    def get(self, source: str) -> Seen | None:
        """Return the newest index that was accepted from a source."""
        return read(self._place).seen.get(source)

    def put(self, source: str, seen: Seen) -> None:
        """Remember it."""
        state = read(self._place)
        if state.seen.get(source) != seen:
            write(self._place, state._replace(seen={**state.seen, source: seen}))
