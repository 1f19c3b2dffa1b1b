"""A guard and what works below it: whatever ends either, nothing is left that holds a disk."""

from __future__ import annotations

import selectors
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.crash import helper
from tests.crash.helper import ROOT, answers
from tests.crash.loop import backing_files
from tests.crash.scratch import remove_leftovers
from tests.minimal_root import eventually

pytestmark = pytest.mark.root

FROZEN = """
import fcntl, os, subprocess, sys, time
from snaptx.bootloader.freezing import FIFREEZE
from tests.crash.helper import guarded
from tests.crash.loop import leave_for_private_mounts, loop_device, mounted

def work(place):
    leave_for_private_mounts()
    image = place / "image"
    image.touch()
    os.truncate(image, 16 << 20)
    subprocess.run(["mkfs.ext4", "-q", "-F", image], check=True)
    with loop_device(image) as device, mounted(device, place / "mount", fstype="ext4") as top:
        fcntl.ioctl(os.open(top, os.O_RDONLY), FIFREEZE, 0)
        print(place, flush=True)
        time.sleep(1000)

sys.exit(guarded(work))
"""


@pytest.mark.parametrize("end", [subprocess.Popen.terminate, subprocess.Popen.kill])
def test_a_file_system_stays_frozen_for_nobody(end: Callable[[subprocess.Popen[str]], None]) -> None:
    """A barrier of /boot freezes it for a moment; with its process ids goes who would thaw it."""
    command = [sys.executable, "-c", FROZEN]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as guard:
        assert guard.stdout is not None
        place = Path(guard.stdout.readline().strip())
        end(guard)
        assert guard.stdout.read() == ""  # all are gone
    remove_leftovers()

    eventually(lambda: not any(place.name in name for name in backing_files().values()))
    assert not place.exists()


def test_a_helper_that_ends_is_told_of() -> None:
    with pytest.raises(RuntimeError, match="has ended with 2"):
        next(answers(["a", "b"], 2, "tests.crash.flow", "none of that name"))


def test_answers_that_come_at_once_are_all_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """One is left to be asked then, and more have nothing to do than that takes."""
    ask = helper._ask

    @contextmanager
    def repeating(*_: object, **__: object) -> Iterator[helper.Helper]:
        with subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            try:
                yield process
            finally:
                process.terminate()

    def slow(ready: selectors.BaseSelector, one: helper.Helper, number: int, request: str) -> None:
        ask(ready, one, number, request)
        time.sleep(0.2)

    monkeypatch.setattr(helper, "helper", repeating)
    monkeypatch.setattr(helper, "_ask", slow)

    assert sorted(answers(["a", "b", "c"], 2, "any")) == [(0, "a\n"), (1, "b\n"), (2, "c\n")]
