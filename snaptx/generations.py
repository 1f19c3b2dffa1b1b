"""The records of the generations: ``generations/N/generation.json``.

A generation whose record exists is at least staged; a directory without one is
what an interruption left.  ``generations/last`` holds the highest number ever
given out, so that a number never comes back.
"""

from __future__ import annotations

import errno
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from snaptx import durable
from snaptx.errors import FormatError, NotFoundError, VerifyError
from snaptx.model import (
    GENERATION_FORMAT,
    LATEST,
    Counts,
    Generation,
    Payload,
    Verdict,
    jsonable,
    require_kinds,
)

RECORD = "generation.json"


class Generations:
    """The records below one directory."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._last = directory / "last"

    def directory(self, number: int) -> Path:
        """Return where the generation's parts lie."""
        return self._directory / str(number)

    def numbers(self) -> list[int]:
        """Return the numbers that have a directory, complete or not, ascending."""
        return sorted(int(path.name) for path in self._directory.glob("*") if is_number(path.name))

    def recorded(self) -> list[Generation]:
        """Return the generations that have a record, ascending."""
        found = (self.find(number) for number in self.numbers())
        return [generation for generation in found if generation]

    def has(self, number: int) -> bool:
        """Return whether the generation has a record."""
        return (self.directory(number) / RECORD).exists()

    def read(self, number: int) -> Generation:
        """Return a generation's record.

        Raises:
            NotFoundError: there is none.
            VerifyError: it is damaged.
            FormatError: a newer snaptx wrote it.
        """
        try:
            found = decode(json.loads(durable.read(self.directory(number) / RECORD)))
            if found.number != number:
                raise ValueError(f"it is that of {found.number}")
        except FileNotFoundError as error:
            hint = "'snaptx list' shows the generations"
            raise NotFoundError(f"there is no generation {number}", hint=hint) from error
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            message = f"the record of generation {number} is damaged: {error}"
            raise VerifyError(message, hint="run: snaptx repair") from error
        return found

    def find(self, number: int) -> Generation | None:
        """Return a generation's record, None if there is none.

        Raises:
            VerifyError: it is damaged.
            FormatError: a newer snaptx wrote it.
        """
        try:
            return self.read(number)
        except NotFoundError:
            return None

    def write(self, generation: Generation) -> None:
        """Make the record durable, in one step."""
        data = {"format": GENERATION_FORMAT, **jsonable(generation)}
        text = json.dumps(data, indent=1, sort_keys=True) + "\n"
        durable.replace(self.directory(generation.number) / RECORD, text.encode())

    def forget(self, number: int) -> None:
        """Remove the record and the directory, unless it holds what is not snaptx's."""
        directory = self.directory(number)
        for name in (RECORD, RECORD + ".tmp"):
            (directory / name).unlink(missing_ok=True)
        try:
            directory.rmdir()
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENOTEMPTY):
                raise

    def reserve(self) -> int:
        """Return a number that was never used before and make that durable."""
        number = max([self._highest(), *self.numbers()], default=0) + 1
        durable.replace(self._last, f"{number}\n".encode())
        return number

    def _highest(self) -> int:
        try:
            return int(durable.read(self._last))
        except (FileNotFoundError, ValueError):
            return 0


def is_number(name: str) -> bool:
    """Return whether a directory is named as a generation's is: "007" and "²" are somebody else's."""
    return name.isascii() and name.isdigit() and not name.startswith("0")


def decode(data: Any) -> Generation:
    """Return the generation that parsed JSON describes; unknown keys are ignored.

    Raises:
        FormatError: a newer snaptx wrote it.
        ValueError, TypeError, KeyError, AttributeError: it describes none.
    """
    if data["format"] > GENERATION_FORMAT:
        raise FormatError("a newer snaptx made this generation", hint="use that version or newer")
    values = {key: value for key, value in data.items() if key in Generation._fields}
    require_kinds(Generation, values)
    payload, counts = values.get("payload"), values.get("counts", {})
    require_kinds(Payload, payload or {})
    require_kinds(Counts, counts)
    _require_sense(values)
    return Generation(
        **{
            **values,
            "payload": Payload(**payload) if payload else None,
            "counts": Counts(**counts),
            "verdict": Verdict(values.get("verdict", Verdict.TRIAL)),
            "includes": tuple(values.get("includes", ())),
            "nested": tuple(values.get("nested", ())),
            "updates": dict(values.get("updates", {})),
        }
    )


def _require_sense(values: Mapping[str, Any]) -> None:
    """Refuse times without a date, and a base that is not older: who follows bases would come to no end.

    Raises:
        ValueError: there is such a thing.
        KeyError: there is none of it.
    """
    for name in ("created", "arrived"):
        if not abs(values.get(name, 0)) < LATEST:  # neither is NaN
            raise ValueError(f"{name} is no time")
    if values["base"] >= values["number"]:
        raise ValueError(f"its base, generation {values['base']}, is not older")
