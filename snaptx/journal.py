"""The write-ahead note of the one open transaction: ``journal/open``.

It is durable before the first act and gone after the last, so whoever finds it
while holding the lock knows that a snaptx was interrupted.  It says what was
meant; what really exists is looked up on disk, and ``recover`` decides.  The
lines after the first name the steps begun; they are for people and are not
flushed.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from snaptx import durable, system
from snaptx.errors import FormatError, JournalError, storage_error
from snaptx.model import require_kinds
from snaptx.system import descriptor

FORMAT = 1
REPAIR_HINT = "run: snaptx repair"


class Intent(NamedTuple):
    """What a transaction set out to do.

    ``act`` is what kind of transaction it is (recover.Act).  ``generation`` is
    the one it makes or acts on, 0 if none; ``targets`` are the ones it removes;
    ``actor`` holds what the audit record will say of who, when and how, so that
    a recovery can still write it.  ``boot_id``, ``pid`` and ``start`` name the
    process (system.process_start).
    """

    transaction: str
    act: str
    generation: int
    base: int
    targets: tuple[int, ...]
    boot_id: str
    pid: int
    actor: dict[str, Any]
    format: int = FORMAT
    start: int = 0

    @property
    def at_work(self) -> bool:
        """Return whether another process is at it: for readers, who do not hold the lock."""
        began = system.process_start(self.pid) if self.boot_id == system.boot_id() else 0
        return began != 0 and began == self.start and self.pid != os.getpid()

    @property
    def end(self) -> str:
        """Say what ended it, for people."""
        restarted = self.boot_id != system.boot_id()
        return "the machine was restarted" if restarted else f"process {self.pid} ended"


class Journal:
    """The journal below one directory."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "open"

    def begin(self, intent: Intent, *, lasting: bool = True) -> None:
        """Make ``intent`` durable; without ``lasting`` it gets so with the next commit of the filesystem.

        Raises:
            StorageError: the filesystem refused; if it did at the last step, a transaction is open.
        """
        durable.replace(self.path, json.dumps(intent._asdict()).encode() + b"\n", lasting=lasting)

    def step(self, name: str) -> None:
        """Note that a step begins; a full disk is no reason not to begin it."""
        with suppress(OSError), descriptor(self.path, os.O_WRONLY | os.O_APPEND) as fd:
            os.write(fd, json.dumps({"step": name}).encode() + b"\n")
            durable.send_off(fd)

    def end(self) -> None:
        """Close the transaction; a power cut may bring it back, then it is closed again."""
        self.path.unlink(missing_ok=True)

    def open(self) -> Intent | None:
        """Return the intent of the open transaction, or None.

        Raises:
            JournalError: the journal is damaged.
            FormatError: a newer snaptx wrote it.
            StorageError: the filesystem does not give it back, as one that has just failed.
        """
        try:
            return _intent(json.loads(durable.read(self.path).partition(b"\n")[0]))
        except FileNotFoundError:
            return None
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise JournalError(f"the journal is damaged: {error}", hint=REPAIR_HINT) from error
        except OSError as error:
            raise storage_error(error, "cannot read the journal") from error

    def last_step(self) -> str:
        """Return the last step that was begun, "" if none."""
        step = ""
        for line in self.path.read_bytes().splitlines()[1:]:
            try:
                step = str(json.loads(line)["step"])
            except (ValueError, KeyError, TypeError):
                break
        return step


def _intent(data: Any) -> Intent:
    if data["format"] > FORMAT:
        raise FormatError("a newer snaptx left this transaction open", hint="finish it with that version")
    values = {key: value for key, value in data.items() if key in Intent._fields}
    require_kinds(Intent, values)
    if not isinstance(values["actor"], dict):
        raise TypeError("actor is no object")
    if not all(isinstance(number, int) for number in values["targets"]):
        raise TypeError("targets are no numbers")
    return Intent(**{**values, "targets": tuple(values["targets"])})
