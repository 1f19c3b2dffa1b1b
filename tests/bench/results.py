"""What a row of the table holds: figures by round, what they are to be, and whether they are."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from tests.bench.measure import Sample


class Unit(StrEnum):
    """What a row's figure counts."""

    RATIO = "x"
    SECONDS = "s"
    MIB = "MiB"
    PERCENT = "%"


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of the table: values by round in ``unit``, the most the median may be (None: no bar)."""

    label: str
    against: str
    unit: Unit
    values: tuple[float, ...]
    target: float | None = None
    note: str = ""
    sides: Mapping[str, tuple[Sample, ...]] = field(default_factory=dict)

    @property
    def median(self) -> float:
        """Return the median of the rounds."""
        return statistics.median(self.values)

    @property
    def met(self) -> bool | None:
        """Return whether the median is within the target, None without one."""
        return None if self.target is None else self.median <= self.target

    @property
    def spread(self) -> str:
        """Return the least and the greatest value."""
        return f"{shown(min(self.values), self.unit)} to {shown(max(self.values), self.unit)}"

    @property
    def json(self) -> dict[str, Any]:
        """Return everything for a file."""
        sides = {name: [[s.seconds, s.cpu, s.kib] for s in samples] for name, samples in self.sides.items()}
        return {
            "label": self.label,
            "against": self.against,
            "unit": self.unit.value,
            "median": self.median,
            "values": self.values,
            "target": self.target,
            "note": self.note,
            "sides": sides,
        }


def shown(value: float, unit: Unit) -> str:
    """Return a value as the table has it, without its unit."""
    return f"{value:.0f}" if unit in (Unit.MIB, Unit.PERCENT) else f"{value:.2f}"


def ratio(
    label: str, against: str, target: float | None, found: Mapping[str, Sequence[Sample]], note: str = ""
) -> Figure:
    """Return the ratios by round of the first side's seconds to the second's; the others are on record."""
    mine, theirs = list(found.values())[:2]
    values = tuple(one.seconds / other.seconds for one, other in zip(mine, theirs, strict=True))
    sides = {name: tuple(samples) for name, samples in found.items()}
    return Figure(label, against, Unit.RATIO, values, target, note, sides)
