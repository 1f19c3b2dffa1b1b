"""Errors instead of cuts: ``python -m tests.crash.injury DIRECTORY``.

The last step of a recording is done again on the recorded base, again and
again, each time with another read, write or flush that fails, for a moment or
from then on, or with a file system that turns read-only after another change.
What the disk has when the verb has ended is judged by what the verb said:
success means the new state, an unknown outcome either, any other failure the
old one.  Where nothing can be written any more, the next call has to say so.
A line of JSON for each attempt comes in, and one goes out.

It runs in a process of its own, guarded (see helper).
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import asdict, dataclass, replace
from itertools import filterfalse
from pathlib import Path
from typing import Any

from snaptx.errors import (
    CommandError,
    OutcomeUnknownError,
    ReadOnlyError,
    SnaptxError,
    StorageError,
    every_error,
)
from tests.crash import census, flow, settle, strike, world
from tests.crash.bench import REMOVING, Bench
from tests.crash.census import Census, Tree
from tests.crash.driver import Driver
from tests.crash.helper import answers, guarded
from tests.crash.judge import Progress
from tests.crash.loop import leave_for_private_mounts, loop_device, mounted
from tests.crash.recorder import KINDS, Disk, Recorder
from tests.crash.sparse import copy_image
from tests.crash.strike import FULL, Striker, is_read_only
from tests.crash.world import FLOWS

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

NO_TURNING_BACK = (*REMOVING, "apply", "run", "upgrade", "hook", "remove")
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
    requests = [json.dumps(asdict(injury)) for injury in wanted]
    with closing(answers(requests, workers, "tests.crash.injury", str(directory))) as found:
        outcomes = sorted(found)
    return [_outcome(json.loads(line)) for _, line in outcomes]


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
    """Where the injured are treated; ``before`` is the disk as they find it, ``app`` the application."""

    place: Path
    facts: flow.Facts
    before: Census
    app: Census
    bench: Bench

    def treat(self, injury: Injury) -> Outcome:
        """Do the verb with the injury, and judge the disk."""
        image, left = self.place / "disk.img", self.place / "left.img"
        copy_image(self._base(injury.kind), image)
        disk = Disk("disk", image, self.place / "log")
        after = app = None
        with (
            Recorder(self.place / "recorder", (disk,), exact=injury.kind == "read") as recorder,
            loop_device(recorder.file("disk")) as device,
        ):
            striker = self._striker(device, recorder, injury)
            with suppress(OSError), mounted(device, striker.above, "subvolid=5"), striker:
                for step in filter(_leaves_running, self.facts.steps[:-1]):
                    _require(striker, step)
                done = _hurt(striker, self.facts.steps[-1], injury)
                problems = [
                    *_words(done, self.facts.steps[-1][0]),
                    *_next_call(striker, self.facts.steps[-1]),
                ]
                if injury.kind in FILLING:
                    strike.relieve(injury.kind, striker.above)
                recorder.copy(disk.name, left)
                recorder.mend()
                problems += _listed(striker, self.facts)
            with suppress(OSError, SnaptxError):
                after, app = striker.census(), striker.census(census.APP)
            for found, stages in ((after, self.facts.stages), (app, self.facts.apps)):
                problems += [] if done.code or not stages else _lost(found, stages[-1])
        state, settled = self._expected(done.code, after, app)
        problems += self.bench.judge(state, lambda: copy_image(left, self.place / "work"), settled)
        return replace(done, problems=tuple(problems))

    def _striker(self, device: str, recorder: Recorder, injury: Injury) -> Striker:
        here, above = self.place, self.place / "above"
        return Striker(
            device, here, here, self.facts.booted,
            recorder=recorder, above=above, kind=injury.kind, room=injury.room,
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

    def _expected(self, code: int, after: Census | None, app: Census | None) -> tuple[Progress, Progress]:
        """Return what to expect of what the verb left, and after the reconcile."""
        verb, *words = self.facts.steps[-1]
        left, settled = _bounds(verb, code, self.before, after, self.facts.stages[-1])
        if not self.facts.apps:
            return left, settled
        its, _ = _bounds(words[0], code, self.app, app, self.facts.apps[-1])
        return replace(left, app=replace(its, verb=verb)), settled


def _bounds(
    verb: str, code: int, before: Census, after: Census | None, whole: Census
) -> tuple[Progress, Progress]:
    """Return what a verb may leave of a machine or an application, and what a reconcile may make of it.

    ``after`` is what is there, ``whole`` what there is where nothing fails.
    """
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


def _leaves_running(step: world.Step) -> bool:
    """Return whether a step leaves an instance and nothing on the disk: each of the injured needs its own."""
    return step[:2] == ("app", "start")


def _require(driver: Driver, step: world.Step) -> None:
    if driver.act(step):
        raise RuntimeError(f"{step}: {driver.said()}")


def _hurt(driver: Striker, step: world.Step, injury: Injury) -> Outcome:
    """Do the step with the injury and return what came of it, not judged yet."""
    assert driver.recorder is not None
    before = driver.recorder.counts()
    if injury.nth and injury.kind in KINDS:
        times = COPIES if injury.kind == "read" else 1
        driver.recorder.fail(injury.kind, injury.nth, lasting=injury.lasting, times=times)
    driver.nth = injury.nth if injury.kind in strike.KINDS else 0
    code = driver.act(step)
    driver.nth = 0
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
    words = step if step[0] == "init" else ("repair",)
    code, said = driver.act(words), driver.said()
    # Of what was never written the kernel can't say whether it is there.
    known = (ReadOnlyError.code, StorageError.code) if step[0] == "init" else (ReadOnlyError.code,)
    if code not in known or "hint: " not in said:
        yield f"then {' '.join(words)} on the read-only file system: exit code {code}, {said}"


def _listed(driver: Driver, facts: flow.Facts) -> Iterator[str]:
    """Yield what is wrong with what ``app list`` says when the disk obeys again."""
    if not facts.apps:
        return
    code, said = driver.act(("app", "list")), driver.said()
    allowed = {stage.default for stage in facts.apps[-2:]}
    if 0 in allowed and is_read_only(driver.root) and code == StorageError.code and "hint: " in said:
        return  # of what was never written the kernel can't say whether it is there
    line = re.search(rf"^{world.APP} +(\d+) +(\S+)$", said, re.MULTILINE)
    number = int(line[1]) if line else 0
    runs = str(number) if any(map(_leaves_running, facts.steps)) else "-"
    if code or number not in allowed or (line and line[2] != runs):
        yield f"then app list: exit code {code}, {said}"


def _treat(place: Path, directory: Path) -> int:
    """Treat the injuries that standard input names."""
    settle.load()
    leave_for_private_mounts()
    facts = _until_struck(flow.load(directory))
    world.write_payloads(place)
    copy_image(directory / "base.img", place / "base.img")
    before, app = _lead_up(place, facts)
    copy_image(place / "base.img", place / "work")
    with loop_device(place / "work") as device:
        ward = _Ward(place, facts, before, app, Bench(place, device, place / "work", facts.uuid))
        for line in sys.stdin:
            print(json.dumps(asdict(ward.treat(Injury(**json.loads(line))))), flush=True)
    return 0


def _until_struck(facts: flow.Facts) -> flow.Facts:
    """Return what is known of a recording up to the step that errors are tried on."""
    steps = FLOWS[facts.flow].struck + 1
    return replace(
        facts,
        steps=facts.steps[:steps],
        codes=facts.codes[:steps],
        stages=facts.stages[: steps + 1],
        apps=facts.apps[: steps + 1],
    )


def _lead_up(place: Path, facts: flow.Facts) -> tuple[Census, Census]:
    """Do all steps but the last on the base; return what the disk is then, and the application on it."""
    with (
        loop_device(place / "base.img") as device,
        Driver(device, place, place, facts.booted) as driver,
    ):
        for step in filterfalse(_leaves_running, facts.steps[:-1]):
            _require(driver, step)
        return driver.census(), driver.census(census.APP)


if __name__ == "__main__":
    sys.exit(guarded(lambda place: _treat(place, Path(sys.argv[1]))))
