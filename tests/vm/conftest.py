"""Machines for the tests: each its own, made of the cached image of a layout."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.conftest import missing
from tests.vm.image import image
from tests.vm.machine import Machine

Maker = Callable[[str], Machine]


@pytest.fixture
def machine_of(tmp_path: Path) -> Iterator[Maker]:
    """Return a function that makes a machine of a layout; it is switched off at the end of the test."""
    if missing() or not shutil.which("qemu-system-x86_64"):
        pytest.fail(missing() or "QEMU is missing; run: make test-vm", pytrace=False)
    with ExitStack() as stack:

        def make(layout: str) -> Machine:
            return stack.enter_context(Machine(image(layout), tmp_path / layout))

        yield make
