"""``python -m tests.crash`` itself: what it says of a bad recording, and that it cleans up after itself."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from tests.crash import flow
from tests.crash import scratch as scratches
from tests.crash.conftest import Recorded
from tests.crash.loop import backing_files
from tests.crash.world import DISK, INSTANCE
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


@dataclass(frozen=True)
class _Found:
    """What there is of rigs anywhere and does not say of which: another one may be at work too.

    ``disks`` are loop devices over recorded disks, each with a number no other ever has; their backing
    file tells no more than its name.  ``instances`` are processes of applications.
    """

    disks: frozenset[str]
    instances: frozenset[str]


def _look() -> _Found:
    devices = [device for device, file in backing_files().items() if file.endswith(f"/{DISK}")]
    disks = {f"{device} {_text(Path('/sys/block', Path(device).name, 'diskseq'))}" for device in devices}
    program = b"\0".join(map(str.encode, (*INSTANCE, "")))
    found = (path for path in Path("/proc").glob("[0-9]*/cmdline") if _text(path).encode() == program)
    return _Found(frozenset(disks), frozenset(map(str, found)))


def _text(path: Path) -> str:
    """Return what is in a file of the kernel's, "" if it is gone."""
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def _owned(file: str) -> bool:
    """Return whether the process that made the directory of a loop device's file is there."""
    owner = re.search(rf"{scratches.PREFIX}(\d+)-", file)
    return owner is None or scratches.is_at_work(owner[1])


def _processes(mark: str) -> list[str]:
    """Return the processes with ``mark`` in their environment."""
    return [path.parent.name for path in Path("/proc").glob("[0-9]*/environ") if mark in _text(path)]


def _left(mark: str, before: _Found, after: _Found) -> list[str]:
    """Return what there is still of a run that has ended."""
    now = _look()
    return [
        *map(str, scratches.leftovers()),
        *(file for file in backing_files().values() if not _owned(file)),
        *((after.disks - before.disks) & now.disks),
        *((after.instances - before.instances) & now.instances),
        *_processes(mark),
    ]


def _own(mark: str) -> list[str]:
    """Return what is behind the loop devices of a run."""
    names = [f"{scratches.PREFIX}{pid}-" for pid in _processes(mark)]
    return [file for file in backing_files().values() if any(name in file for name in names)]


def _judges(mark: str) -> bool:
    """Return whether a run has a worker with a disk."""
    return any("disk.work" in file for file in _own(mark))


def _recorded(mark: str, before: _Found) -> bool:
    """Return whether a run has an instance on a disk that is recorded."""
    now = _look()
    return bool(now.disks - before.disks and now.instances - before.instances and _processes(mark))


def _builds(mark: str) -> bool:
    """Return whether a run makes the disk of a machine: its loop device does not end with its user."""
    return any("/box/" in file for file in _own(mark))


WHEN: dict[str, tuple[str, Callable[[str, _Found], bool]]] = {
    "building": ("--stride 0 --flow boot-init", lambda mark, _: _builds(mark)),
    "judging": ("--stride 0 --flow commit", lambda mark, _: _judges(mark)),
    "recording": ("--stride 0 --flow app-switch", _recorded),
    "errors": ("--points 0 --flow app-switch", _recorded),
    "controls": ("--flow commit controls", lambda mark, _: _judges(mark)),
}
"""The middle of a run: its words, and whether it has come there."""


@contextmanager
def _interrupted(
    when: str, **options: Any
) -> Iterator[tuple[subprocess.Popen[str], Callable[[], list[str]]]]:
    """Give a run in the middle, and what tells, after it, what there is still of it."""
    scratches.remove_leftovers()
    words, comes = WHEN[when]
    mark, before, ended = str(uuid4()), _look(), list[_Found]()

    def left() -> list[str]:
        ended.append(_look())
        return _left(mark, before, ended[0])

    with subprocess.Popen(
        [*COMMAND, "--workers", "2", *words.split()],
        cwd=ROOT, env={**os.environ, "SNAPTX_TESTED": mark}, text=True, start_new_session=True, **options,
    ) as run:  # fmt: skip
        try:
            eventually(lambda: comes(mark, before), 60)
            yield run, left
        finally:
            run.kill()


@pytest.mark.parametrize(
    ("when", "number", "end"),
    [
        *((when, signal.SIGTERM, os.killpg) for when in WHEN),
        *((when, signal.SIGINT, os.killpg) for when in ("judging", "recording")),
        ("errors", signal.SIGHUP, os.kill),
    ],
)
def test_an_interrupted_run_leaves_nothing(when: str, number: int, end: Callable[[int, int], None]) -> None:
    """A terminal sends its signal to the whole group."""
    with _interrupted(when, stderr=subprocess.PIPE) as (run, left):
        end(run.pid, number)
        _, said = run.communicate(timeout=20)

        assert (run.returncode, said) == (130, "interrupted\n")
        eventually(lambda: not left())
        assert scratches.PREFIX not in Path("/proc/self/mountinfo").read_text()


def test_what_a_process_left_is_a_leftover_before_anybody_waited_for_it() -> None:
    with subprocess.Popen(["true"]) as ended:
        os.waitid(os.P_PID, ended.pid, os.WEXITED | os.WNOWAIT)
        left = scratches.home() / f"{scratches.PREFIX}{ended.pid}-x"
        left.mkdir()

        scratches.remove_leftovers()

        assert not left.exists()


@pytest.mark.parametrize("when", ["building", "errors"])
def test_of_a_killed_run_the_next_removes_all_that_is_left(when: str) -> None:
    with _interrupted(when) as (run, left):
        run.kill()
        run.wait(20)

        eventually(lambda: all(scratches.PREFIX in what for what in left()))
        with scratches.scratch():
            eventually(lambda: not left())  # the kernel takes mounts away after their processes
