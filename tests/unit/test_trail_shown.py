"""``snaptx log`` over a trail of many years."""

from __future__ import annotations

import json
import tracemalloc
from argparse import Namespace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from snaptx.audit import Audit
from snaptx.cli import log
from snaptx.machine import Machine

RECORDS = 4000


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """Give what has a long trail."""
    trail = Audit(tmp_path)
    base = {"format": 1, "hash": "", "verb": "pin", "time": 0.0, "argv": ["x" * 400], "result": "done"}
    records = ({**base, "seq": number, "generation": number % 3} for number in range(1, RECORDS + 1))
    trail.log.write_text("".join(f"{json.dumps(record)}\n" for record in records))
    return cast(Machine, SimpleNamespace(audit=trail))


def shown(machine: Machine, capsys: pytest.CaptureFixture[str], **options: Any) -> list[int]:
    """Return the numbers of the records that are shown."""
    words = {"verify": False, "last": None, "generation": None, "json": True, "quiet": False} | options
    log.show(Namespace(**words), machine)
    return [record["seq"] for record in json.loads(capsys.readouterr().out)]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"last": 2}, [RECORDS - 1, RECORDS]),
        ({"last": 2, "generation": 2}, [RECORDS - 5, RECORDS - 2]),
        ({"last": RECORDS + 9}, list(range(1, RECORDS + 1))),
        ({"last": 10**100}, list(range(1, RECORDS + 1))),
        ({}, list(range(1, RECORDS + 1))),
    ],
)
def test_the_newest_records(
    machine: Machine, capsys: pytest.CaptureFixture[str], options: dict[str, int], expected: list[int]
) -> None:
    assert shown(machine, capsys, **options) == expected


def test_the_newest_records_take_no_memory_for_the_others(
    machine: Machine, capsys: pytest.CaptureFixture[str]
) -> None:
    shown(machine, capsys, last=5)  # loads what it needs
    tracemalloc.start()
    shown(machine, capsys, last=5)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert peak < machine.audit.log.stat().st_size / 4
