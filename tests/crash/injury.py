"""Errors instead of cuts: ``python -m tests.crash.injury DIRECTORY``.

The last step of a recording is done again on the recorded base, again and
again, each time with another read, write or flush that fails, for a moment or
from then on, or with a file system that turns read-only after another change.
What the disk has when the verb has ended is judged by what the verb said:
success means the new state, an unknown outcome either, any other failure the
old one.  Where nothing can be written any more, the next call has to say so.
One line of JSON for each attempt.

It runs in a process of its own, with mounts of its own.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from snaptx import system
from snaptx.errors import (
    CommandError,
    OutcomeUnknownError,
    ReadOnlyError,
    SnaptxError,
    StorageError,
    every_error,
)
from tests.crash import flow, settle, strike, world
from tests.crash.bench import REMOVING, Bench
from tests.crash.census import Census, Tree
from tests.crash.driver import Driver
from tests.crash.judge import Progress
from tests.crash.loop import leave_for_private_mounts, loop_device, mounted
from tests.crash.recorder import KINDS, Disk, Recorder
from tests.crash.scratch import scratch
from tests.crash.sparse import copy_image
from tests.crash.strike import FULL, Striker, is_read_only

ROOT = Path(__file__).parents[2]
UNKNOWN = OutcomeUnknownError.code
CODES = {0, *(error.code for error in every_error())}
FILLING = tuple(kind for kind in strike.KINDS if kind != "read-only")
COPIES = 8
"""Pages of the two copies of a node: so many reads in a row fail, or the kernel takes the other copy."""

WORKERS = 3
"""Processes that try injuries side by side: each waits for its disk more than it computes."""

ROOMS = (0, 1 << 16)
"""Bytes that are left on a full disk."""

COMMANDED = ("run", "upgrade")
"""Verbs that may end because a command in the generation did, which met the full disk first."""

NO_TURNING_BACK = (*REMOVING, "apply", "run", "upgrade", "hook")
"""Verbs that what they have begun is completed of, also where something fails: nothing that boots changes."""


@dataclass(frozen=True, slots=True)
class Injury:
    """The ``nth`` request of a kind fails, and all later ones if ``lasting``; 0 lets all go well.

    Of the kinds in ``strike`` it is what snaptx does that is counted, and after that it befalls the file
    system; ``room``: so many bytes are left.
    """

    kind: str
    nth: int
    lasting: bool = False
    room: int = 0


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of an injury: the verb's exit code and words, and what is wrong.

    ``counts`` are its requests by kind, ``points`` what it came to (see strike).
    """

    injury: Injury
    code: int
    said: str
    problems: tuple[str, ...]
    counts: dict[str, int]
    points: tuple[str, ...]

    def at_steps(self, kinds: Iterable[str]) -> list[Injury]:
        """Return a strike of each kind, of all sorts, where a step of the transaction begins."""
        steps = [nth for nth, name in enumerate(self.points, 1) if name.startswith("step ")]
        return [replace(sort, nth=nth) for kind in kinds for sort in _sorts(kind) for nth in steps]

    def everywhere(self, strides: Mapping[str, int]) -> list[Injury]:
        """Return all sorts of injuries at every so many requests, or points, of each kind in ``strides``."""
        every = {**self.counts, **dict.fromkeys(strike.KINDS, len(self.points))}
        return [
            replace(sort, nth=nth)
            for kind, stride in strides.items()
            for sort in _sorts(kind)
            for nth in range(1, every[kind] + 1, stride)
        ]


def attempt(directory: Path, wanted: Sequence[Injury], workers: int = WORKERS) -> list[Outcome]:
    """Try every injury on the recording in ``directory``, in processes of their own."""
    shares = [share for number in range(workers) if (share := wanted[number::workers])]
    with ThreadPoolExecutor(workers) as pool:
        return [
            outcome
            for found in pool.map(lambda share: _attempt(directory, share), shares)
            for outcome in found
        ]


def _attempt(directory: Path, wanted: Sequence[Injury]) -> list[Outcome]:
    command = [sys.executable, "-m", "tests.crash.injury", str(directory)]
    given = json.dumps([asdict(injury) for injury in wanted])
    result = subprocess.run(command, cwd=ROOT, input=given, capture_output=True, text=True, check=False)
    if result.returncode:
        raise RuntimeError(result.stderr)
    return [_outcome(json.loads(line)) for line in result.stdout.splitlines()]


def told(outcomes: Iterable[Outcome]) -> str:
    """Describe what is wrong with outcomes, "" if nothing is."""
    return "\n".join(
        f"{outcome.injury} after {outcome.points[: outcome.injury.nth][-1:]}: exit code {outcome.code}, "
        f"{'; '.join(outcome.problems)}\n    {outcome.said}"
        for outcome in outcomes
        if outcome.problems
    )


def _outcome(data: dict[str, Any]) -> Outcome:
    lists = {name: tuple(data[name]) for name in ("problems", "points")}
    return Outcome(**{**data, **lists, "injury": Injury(**data["injury"])})


def _sorts(kind: str) -> list[Injury]:
    if kind == "space":
        return [Injury(kind, 0, room=room) for room in ROOMS]
    return [Injury(kind, 0, lasting) for lasting in ((False,) if kind in strike.KINDS else (False, True))]


@dataclass
class _Ward:
    """Where the injured are treated; ``before`` is the disk as they find it."""

    place: Path
    facts: flow.Facts
    before: Census
    bench: Bench

    def treat(self, injury: Injury) -> Outcome:
        """Do the verb with the injury, and judge the disk."""
        image, left = self.place / "disk.img", self.place / "left.img"
        copy_image(self._base(injury.kind), image)
        disk = Disk("disk", image, self.place / "log")
        after: Census | None = None
        with (
            Recorder(self.place / "recorder", (disk,), exact=injury.kind == "read") as recorder,
            loop_device(recorder.file("disk")) as device,
        ):
            striker = self._striker(device, recorder, injury)
            with suppress(OSError), mounted(device, striker.above, "subvolid=5"), striker:
                done = _hurt(striker, self.facts.steps[-1], injury)
                problems = [
                    *_words(done, self.facts.steps[-1][0]),
                    *_next_call(striker, self.facts.steps[-1]),
                ]
                if injury.kind in FILLING:
                    strike.relieve(injury.kind, striker.above)
                recorder.copy(disk.name, left)
                recorder.mend()
            with suppress(OSError, SnaptxError):
                after = None if done.code else striker.census()
            problems += [] if done.code else _lost(after, self.facts.stages[-1])
        state, settled = self._expected(done.code, after)
        problems += self.bench.judge(state, lambda: copy_image(left, self.place / "work"), settled)
        return replace(done, problems=tuple(problems))

    def _striker(self, device: str, recorder: Recorder, injury: Injury) -> Striker:
        nth = injury.nth if injury.kind in strike.KINDS else 0
        here, above = self.place, self.place / "above"
        return Striker(
            device, here, here, self.facts.booted,
            recorder=recorder, above=above, kind=injury.kind, nth=nth, room=injury.room,
        )  # fmt: skip

    def _base(self, kind: str) -> Path:
        """Return the disk as it is before, made ready for a kind of strike."""
        base, ready = self.place / "base.img", self.place / f"base-{kind}.img"
        if kind not in FILLING:
            return base
        if not ready.exists():
            copy_image(base, ready)
            with loop_device(ready) as device, mounted(device, self.place / "above", "subvolid=5") as top:
                strike.prepare(kind, top)
        return ready

    def _expected(self, code: int, after: Census | None) -> tuple[Progress, Progress]:
        """Return what to expect of what the verb left, and after the reconcile."""
        verb, before, whole = self.facts.steps[-1][0], self.before, self.facts.stages[-1]
        if code == 0 and after is not None:
            # What is deleted after the last barrier may come back, and goes again.
            trees = {number: after.trees.get(number, tree) for number, tree in whole.trees.items()}
            done = replace(after, default=whole.default, trees=trees, audit=whole.audit)
            return (Progress(before, done, verb, 0),) * 2
        # What a commit has carried over may stay in a staged root: the next one takes it from there.
        trees = {number: whole.trees.get(number, tree) for number, tree in before.trees.items()}
        old = Progress(before, replace(before, trees=trees), verb, None)
        both = Progress(before, whole, verb, None)
        left = both if code == UNKNOWN or verb in NO_TURNING_BACK else old
        if verb == "init":  # the reconcile of what nobody has adopted is another init
            return left, Progress(whole, whole, verb, None)
        # A verdict that is on record is put into effect by the next snaptx.
        return left, both if verb == "confirm" else left


def _hurt(driver: Striker, step: world.Step, injury: Injury) -> Outcome:
    """Do the step with the injury and return what came of it, not judged yet."""
    assert driver.recorder is not None
    before = driver.recorder.counts()
    if injury.nth and injury.kind in KINDS:
        times = COPIES if injury.kind == "read" else 1
        driver.recorder.fail(injury.kind, injury.nth, lasting=injury.lasting, times=times)
    code = driver.act(step)
    counts = {kind: count - before[kind] for kind, count in driver.recorder.counts().items()}
    return Outcome(injury, code, driver.said(), (), counts, driver.points)


def _words(done: Outcome, verb: str) -> Iterator[str]:
    """Yield what is wrong with the exit code and the words of a verb."""
    said = [line for line in done.said.splitlines() if not line.startswith("{")]
    full = (*FULL, CommandError.code) if verb in COMMANDED else FULL
    if done.code not in (full if done.injury.kind in FILLING else CODES):
        yield f"exit code {done.code}"
    wanted = ("snaptx: ", "  hint: ")
    if done.code and [line[: len(start)] for line, start in zip(said[-2:], wanted, strict=False)] != [
        *wanted
    ]:
        yield "a message and a hint are wanted"


def _lost(after: Census | None, whole: Census) -> Iterator[str]:
    """Yield what a verb that was a success has not left on the disk."""
    for number, tree in whole.trees.items():
        found = after.trees.get(number) if after else None
        if found is None or _standing(found) != _standing(tree):
            yield f"success was reported, but generation {number} is not on the disk as it has to be"


def _standing(tree: Tree) -> tuple[object, ...]:
    return tree.subvolume, tree.sealed, tree.verdict, tree.pinned, tree.recorded


def _next_call(driver: Striker, step: world.Step) -> Iterator[str]:
    """Yield what is wrong with what the next snaptx says where nothing can be written any more."""
    if not is_read_only(driver.root):
        return
    driver.nth = 0
    words = step if step[0] == "init" else ("repair",)
    code, said = driver.act(words), driver.said()
    # Of what was never written the kernel can't say whether it is there.
    known = (ReadOnlyError.code, StorageError.code) if step[0] == "init" else (ReadOnlyError.code,)
    if code not in known or "hint: " not in said:
        yield f"then {' '.join(words)} on the read-only file system: exit code {code}, {said}"


def _treated(directory: Path, wanted: Iterable[Injury]) -> Iterator[Outcome]:
    settle.load()
    leave_for_private_mounts()
    facts = flow.load(directory)
    with scratch() as place:
        for name, version in world.UPDATES.items():
            world.write_update(place / name, version)
        copy_image(directory / "base.img", place / "base.img")
        before = _lead_up(place, facts)
        copy_image(place / "base.img", place / "work")
        with loop_device(place / "work") as device:
            ward = _Ward(place, facts, before, Bench(place, device, place / "work", facts.uuid))
            for injury in wanted:
                yield ward.treat(injury)


def _lead_up(place: Path, facts: flow.Facts) -> Census:
    """Do all steps but the last on the base; return what the disk is then."""
    with (
        loop_device(place / "base.img") as device,
        Driver(device, place, place, facts.booted) as driver,
    ):
        for step in facts.steps[:-1]:
            if driver.act(step):
                raise RuntimeError(f"{step}: {driver.said()}")
        return driver.census()


def main() -> int:
    """Treat the injuries that standard input names."""
    system.die_with_parent()
    wanted = [Injury(**item) for item in json.load(sys.stdin)]
    for outcome in _treated(Path(sys.argv[1]), wanted):
        print(json.dumps(asdict(outcome)), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
