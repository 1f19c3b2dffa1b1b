"""Errors instead of cuts: ``python -m tests.crash.injury DIRECTORY``.

The last step of a recording is done again on the recorded base, again and
again, each time with another write or flush that fails, once or from then on.
What the disk has when the verb has ended is judged by what the verb said:
success means the new state, an unknown outcome either, any other failure the
old one.  One line of JSON for each attempt.

It runs in a process of its own, with mounts of its own.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from snaptx import system
from snaptx.errors import OutcomeUnknownError
from tests.crash import flow, settle, world
from tests.crash.bench import REMOVING, Bench
from tests.crash.census import Census
from tests.crash.driver import Driver
from tests.crash.judge import Progress
from tests.crash.loop import leave_for_private_mounts, loop_device
from tests.crash.recorder import Disk, Recorder
from tests.crash.replay import copy_sparse
from tests.crash.scratch import scratch

ROOT = Path(__file__).parents[2]
UNKNOWN = OutcomeUnknownError.code


@dataclass(frozen=True, slots=True)
class Injury:
    """The ``nth`` request of a kind fails, and all later ones if ``lasting``; 0 lets all go well."""

    kind: str
    nth: int
    lasting: bool


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of an injury: the verb's exit code and words, and what is wrong."""

    injury: Injury
    code: int
    said: str
    problems: tuple[str, ...]
    counts: dict[str, int]


def attempt(directory: Path, wanted: Sequence[Injury]) -> list[Outcome]:
    """Try every injury on the recording in ``directory``, in a process of its own."""
    command = [sys.executable, "-m", "tests.crash.injury", str(directory)]
    given = json.dumps([asdict(injury) for injury in wanted])
    result = subprocess.run(command, cwd=ROOT, input=given, capture_output=True, text=True, check=False)
    if result.returncode:
        raise RuntimeError(result.stderr)
    return [_outcome(json.loads(line)) for line in result.stdout.splitlines()]


def _outcome(data: dict[str, object]) -> Outcome:
    injury = data["injury"]
    assert isinstance(injury, dict)
    problems = data["problems"]
    assert isinstance(problems, list)
    return Outcome(**{**data, "injury": Injury(**injury), "problems": tuple(problems)})  # type: ignore[arg-type]


def _copy(source: Path, target: Path) -> None:
    with (
        system.descriptor(source, os.O_RDONLY) as old,
        system.descriptor(target, os.O_RDWR | os.O_CREAT) as new,
    ):
        copy_sparse(old, new)


def everywhere(counts: dict[str, int], stride: int = 1) -> list[Injury]:
    """Return an injury at every flush and every ``stride``-th write, once and lasting."""
    return [
        Injury(kind, nth, lasting)
        for kind, step in (("flush", 1), ("write", stride))
        for lasting in (False, True)
        for nth in range(1, counts[kind] + 1, step)
    ]


@dataclass
class _Ward:
    """Where the injured are treated."""

    directory: Path
    place: Path
    facts: flow.Facts
    bench: Bench

    def treat(self, injury: Injury) -> Outcome:
        """Do the verb with the injury, and judge the disk."""
        image, left = self.place / "disk.img", self.place / "left.img"
        _copy(self.directory / "base.img", image)
        disk = Disk("disk", image, self.place / "log")
        after: Census | None = None
        with (
            Recorder(self.place / "recorder", (disk,)) as recorder,
            loop_device(recorder.file("disk")) as device,
        ):
            driver = Driver(device, self.place, self.place, self.facts.booted)
            with suppress(OSError), driver:
                before = recorder.counts()
                if injury.nth:
                    recorder.fail(injury.kind, injury.nth, lasting=injury.lasting)
                code = driver.act(self.facts.steps[-1])
                counts = {kind: count - before[kind] for kind, count in recorder.counts().items()}
                said = driver.said()
                _copy(image, left)
                recorder.mend()
                after = driver.census() if code == 0 else None
        state, settled = self._expected(code, after)
        problems = self.bench.judge(state, lambda: _copy(left, self.place / "work"), settled)
        return Outcome(injury, code, said, problems, counts)

    def _expected(self, code: int, after: Census | None) -> tuple[Progress, Progress]:
        """Return what to expect of what the verb left, and after the reconcile."""
        verb, before, whole = self.facts.steps[-1][0], self.facts.stages[-2], self.facts.stages[-1]
        if code == 0 and after is not None:
            return (Progress(before, after, verb, 0),) * 2
        old, both = Progress(before, before, verb, None), Progress(before, whole, verb, None)
        if code == UNKNOWN or verb in REMOVING:
            return both, both
        # A verdict that is on record is put into effect by the next snaptx.
        return old, both if verb == "confirm" else old


def _treated(directory: Path, wanted: Iterable[Injury]) -> Iterator[Outcome]:
    settle.load()
    leave_for_private_mounts()
    facts = flow.load(directory)
    with scratch() as place:
        for name, version in world.UPDATES.items():
            world.write_update(place / name, version)
        _copy(directory / "base.img", place / "work")
        with loop_device(place / "work") as device:
            ward = _Ward(directory, place, facts, Bench(place, device, place / "work", facts.uuid))
            for injury in wanted:
                yield ward.treat(injury)


def main() -> int:
    """Treat the injuries that standard input names."""
    system.die_with_parent()
    wanted = [Injury(**item) for item in json.load(sys.stdin)]
    for outcome in _treated(Path(sys.argv[1]), wanted):
        print(json.dumps(asdict(outcome)), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
