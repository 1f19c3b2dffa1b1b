"""A guard and what works below it: whatever ends either, nothing is left that holds a disk."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

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
