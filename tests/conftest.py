"""A test that needs root fails, and says what is missing, where root, Btrfs or loop devices are.

It is never skipped: a run that could not test is not a run that passed.
"make test-unit" leaves these tests out by name.

They run one at a time, however many workers there are: a mount namespace made
by one keeps alive what another has mounted, and with it the loop device.
"""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
from collections.abc import Generator, Iterator
from contextlib import contextmanager, nullcontext
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# A shell starts what runs in the background with SIGINT ignored, and so would be what tests interrupt.
for _number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, signal.default_int_handler if _number is signal.SIGINT else signal.SIG_DFL)


@cache
def missing() -> str:
    """Return what tests that need root lack on this machine, and how to get it; "" for nothing."""
    result = subprocess.run([ROOT / ".ci/setup", "check"], capture_output=True, text=True, check=False)
    return "" if result.returncode == 0 else result.stderr or ".ci/setup check failed"


def _needs_root(item: pytest.Item) -> bool:
    return item.get_closest_marker("root") is not None


@contextmanager
def _alone() -> Iterator[None]:
    """Keep other workers, and other runs of this checkout, from tests that need root."""
    directory = os.open(ROOT / "tests", os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(directory, fcntl.LOCK_EX)
        yield
    finally:
        # Closing is not enough: a process that a test left behind shares the lock.
        fcntl.flock(directory, fcntl.LOCK_UN)
        os.close(directory)


MARKERS = {"fs": ("root",), "packages": ("root",), "zfs": ("root", "zfs")}
"""What the tests in a directory need."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests by their directory."""
    for item in items:
        for directory, markers in MARKERS.items():
            if item.path.is_relative_to(ROOT / "tests" / directory):
                for marker in markers:
                    item.add_marker(marker)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Run a test that needs root, from the first fixture to the last, alone."""
    with _alone() if _needs_root(item) and not missing() else nullcontext():
        return (yield)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Fail a test that can't run here before its fixtures touch anything."""
    if _needs_root(item) and missing():
        pytest.fail(missing(), pytrace=False)
