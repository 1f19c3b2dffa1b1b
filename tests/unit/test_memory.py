"""How a command spends memory."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from snaptx import memory


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    before = gc.get_threshold()
    yield
    gc.set_threshold(*before)
    gc.unfreeze()


def test_garbage_is_looked_for_seldom_and_not_at_the_end() -> None:
    memory.spend()
    memory.leave()

    assert gc.isenabled()
    assert gc.get_threshold()[0] > 10_000
    assert gc.get_freeze_count()
