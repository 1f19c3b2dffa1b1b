"""Recordings of flows as they are meant to be: each is made once, and judged by every test that asks."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.crash import flow

Recorded = Callable[..., Path]


@pytest.fixture(scope="session")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    """Give ``recorded(name, hasty="")``: the directory of a recording, to be read only.

    All workers share them: tests that need root run one at a time.
    """
    base = tmp_path_factory.getbasetemp()
    home = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base

    def made(name: str, hasty: str = "") -> Path:
        directory = home / "recordings" / f"{name}{f'-hasty-{hasty}' * bool(hasty)}"
        if not directory.exists():
            under_way = directory.with_suffix(f".{os.getpid()}")
            flow.record(name, under_way, hasty=hasty)
            under_way.rename(directory)
        return directory

    return made
