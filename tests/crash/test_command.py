"""``python -m tests.crash`` itself: what it says of a bad recording, and that it cleans up after itself."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.crash import flow
from tests.crash import scratch as scratches
from tests.crash.conftest import Recorded
from tests.crash.world import DISK
from tests.minimal_root import eventually

pytestmark = pytest.mark.root
ROOT = Path(__file__).parents[2]
COMMAND = (sys.executable, "-m", "tests.crash")


def _cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [(_cut, "cut off"), (lambda path: path.write_bytes(b"\0" * 4096), "not a log")],
    ids=["truncated", "foreign"],
)
def test_a_bad_recording_is_named(
    recorded: Recorded, tmp_path: Path, damage: Callable[[Path], object], complaint: str
) -> None:
    whole = recorded("commit")
    for path in (whole / "facts.json", flow.log(whole, DISK)):
        shutil.copy(path, tmp_path)
    damage(flow.log(tmp_path, DISK))

    done = subprocess.run(
        [*COMMAND, "point", str(tmp_path), "9"], cwd=ROOT, capture_output=True, text=True, check=False
    )

    assert done.returncode == 2, done.stderr
    assert complaint in done.stderr
    assert "Traceback" not in done.stderr


def _left(pid: int) -> Iterator[str]:
    """Yield what there is of a run: its directories, and the loop devices over files in them."""
    mine = f"{scratches.PREFIX}{pid}-"
    yield from (str(path) for path in scratches.home().glob(f"{mine}*"))
    for backing in Path("/sys/block").glob("loop*/loop/backing_file"):
        try:
            yield from (str(backing) for _ in range(mine in backing.read_text()))
        except OSError:
            continue  # it was freed meanwhile


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_leaves_nothing(number: int) -> None:
    words = ("--points", "400", "--stride", "0", "--workers", "2", "--flow", "commit")
    run = subprocess.Popen([*COMMAND, *words], cwd=ROOT, stderr=subprocess.PIPE, text=True)
    try:
        # A worker at work has a loop device over its disk.
        eventually(lambda: any("loop" in what for what in _left(run.pid)), 60)
        run.send_signal(number)
        _, said = run.communicate(timeout=60)
    finally:
        run.kill()

    assert run.returncode == 130
    assert "interrupted" in said
    eventually(lambda: not list(_left(run.pid)))
