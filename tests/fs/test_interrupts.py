"""Interrupts at every point of every verb: old or new, said at once, settled by whoever comes next."""

from __future__ import annotations

import os
import re
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path

import btrfsutil
import pytest

from tests.boxes import Box, changes, made
from tests.interrupts import Outsider, World, portrait

NUMBERS = {signal.SIGHUP: 129, signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGKILL: -9}
AT_STEPS = (signal.SIGTERM, signal.SIGKILL)
DEAF, DEAF_TOO = 0, ("apply", "commit", "prune")
"""Standing for no signal, with SIGHUP ignored; and the verbs that are tried like that too."""

BEGUN, WRITTEN, SWITCHED = "Journal begin", "Generations write", "GrubInRoot switch"


@dataclass(frozen=True)
class Scene:
    """A verb, the state it starts from, and the point from which on it is done, whatever comes."""

    start: str
    words: tuple[str, ...]
    turn: str

    @property
    def verb(self) -> str:
        """The verb's name."""
        return self.words[0]


SCENES = {
    "init": Scene("bare", ("init",), SWITCHED),
    "apply": Scene("adopted", ("apply", "PAYLOAD"), WRITTEN),
    "run": Scene("adopted", ("run", "--", "sh", "-c", "echo made > /etc/made; rm /etc/hostname"), WRITTEN),
    "commit": Scene("edited", ("commit",), SWITCHED),
    "abort": Scene("staged", ("abort",), BEGUN),
    "rollback as used": Scene("pending", ("rollback",), SWITCHED),
    "confirm": Scene("trial", ("confirm",), WRITTEN),
    "rollback": Scene("good", ("rollback", "1"), SWITCHED),
    "confirm bad": Scene("second trial", ("confirm", "--bad", "it smokes"), WRITTEN),
    "prune": Scene("three", ("prune", "2"), BEGUN),
    "repair": Scene("broken", ("repair",), BEGUN),
}


@pytest.fixture(scope="module")
def updates(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Give two small updates."""
    place = tmp_path_factory.mktemp("updates")
    for name in ("PAYLOAD", "OTHER"):
        (place / name / "etc").mkdir(parents=True)
        (place / name / "etc/release").write_text(name)
        (place / name / f"etc/new-{name}").write_bytes(os.urandom(50_000))
    return {name: str(place / name) for name in ("PAYLOAD", "OTHER")}


@pytest.fixture(scope="module")
def world(
    tmp_path_factory: pytest.TempPathFactory, programs: Path, updates: dict[str, str]
) -> Iterator[World]:
    """Give a machine in every state a scene starts from."""
    place = Path("/dev/shm") if shutil.disk_usage("/dev/shm").free > 1 << 30 else None
    kept = tmp_path_factory.mktemp("kept") if place is None else place / f"snaptx-kept-{os.getpid()}"
    kept.mkdir(exist_ok=True)
    try:
        with made(source=programs, init=False, size=256 << 20) as box:
            built = World(box, kept)
            _build(built, updates)
            yield built
    finally:
        shutil.rmtree(kept)


def _build(world: World, updates: dict[str, str]) -> None:
    box = world.box
    world.keep("bare")
    box.ok("init")
    world.keep("adopted")
    box.ok("apply", updates["PAYLOAD"])
    world.keep("staged")
    (box.root / "etc/edited").write_text("by hand")
    world.keep("edited")
    box.ok("commit")
    world.keep("pending")
    box.reboot()
    world.keep("trial")
    box.ok("confirm")
    world.keep("good")
    box.ok("apply", updates["OTHER"], "--commit")
    box.reboot()
    world.keep("second trial")
    box.ok("confirm")
    world.keep("three")
    world.load("good")
    (box.state / "manifests/1.sqlite").unlink()
    (box.state / "generations/7").mkdir()
    (box.state / "grub/snaptx.cfg.next").write_text("half of a")
    btrfsutil.set_default_subvolume(str(box.top))
    world.keep("broken")


@dataclass(frozen=True)
class Case:
    """One interrupt: where and by what, and what has to become of it."""

    point: str
    number: signal.Signals
    over: bool
    recorded: bool


def _cases(points: list[str], turn: str) -> Iterator[Case]:
    """Yield SIGTERM and SIGKILL at every step, and one signal in turn at every other point."""
    turned, recorded = points.index(turn), points.index("Audit append")
    others = cycle(NUMBERS)
    for index, point in enumerate(points):
        numbers = AT_STEPS if point.startswith("step ") else (next(others),)
        yield from (Case(point, number, index >= turned, index >= recorded) for number in numbers)


@dataclass(frozen=True)
class Run:
    """A scene on this machine: what it is before and after it, and the points on the way."""

    scene: Scene
    words: tuple[str, ...]
    before: dict[str, object]
    points: list[str]
    after: dict[str, object]


@pytest.fixture(params=SCENES)
def run(world: World, updates: dict[str, str], request: pytest.FixtureRequest) -> Run:
    """Let a scene go through undisturbed."""
    scene = SCENES[request.param]
    words = tuple(updates.get(word, word) for word in scene.words)
    world.load(scene.start)
    before = portrait(world.box)
    points = world.points(*words)
    after = portrait(world.box)
    assert changes(before, after)
    return Run(scene, words, before, points, after)


@contextmanager
def _named(run: Run, number: int, point: str) -> Iterator[None]:
    try:
        yield
    except AssertionError as error:
        error.add_note(f"{' '.join(run.words)}: signal {number} at {point!r} of {run.points}")
        raise


def test_old_or_new(world: World, run: Run) -> None:
    cases = list(_cases(run.points, run.scene.turn))
    assert len(cases) > len(run.points)
    for case in cases:
        world.load(run.scene.start)
        with _named(run, case.number, case.point):
            _interrupt(world, run, case)
    with _named(run, signal.SIGHUP, "a terminal"):
        _lose_the_terminal(world, run)


def _interrupt(world: World, run: Run, case: Case) -> None:
    scene, box, records = run.scene, world.box, len(world.box.audit())
    said = world.strike(case.point, case.number, *run.words)
    assert said.code == NUMBERS[case.number], said.err
    open_still = (box.state / "journal/open").exists()
    assert open_still == (case.number is signal.SIGKILL and case.point != "Journal end"), (
        "it settles what it can"
    )
    if open_still:
        _found_by_the_next(box, scene)
    elif case.number is not signal.SIGKILL:
        _said_at_once(box, scene, case, said.err)
    _settled(box, run, over=case.over)
    mine = [record for record in box.audit()[records:] if record["verb"] == scene.verb]
    assert len(mine) == 1 or scene.verb in ("init", "repair")
    assert mine[0]["result"] == _result(case), mine
    assert ("remedy" in mine[0]) != case.recorded


def _settled(box: Box, run: Run, *, over: bool) -> None:
    """Find the machine as before or as after the verb; what begins or mends a machine is called again."""
    again = run.scene.verb in ("init", "repair")
    if again:
        box.ok(run.scene.verb)
    found = changes(run.after if over or again else run.before, portrait(box))
    assert found == {}
    assert box.json("verify")["problems"] == []
    assert [str(path) for path in box.state.rglob("*.tmp")] == []


def _result(case: Case) -> str:
    if case.recorded:
        return "done"
    return "interrupted" if case.number is signal.SIGKILL else "failed"


def _said_at_once(box: Box, scene: Scene, case: Case, err: str) -> None:
    lines = [line for line in err.splitlines() if not line.startswith("{")]
    assert len(lines) == 1, err
    became = box.audit()[-1].get("remedy", "(completed|settled)")
    boots = f", generation {box.boot().default} boots next" if box.entry.exists() else ""
    expected = f"snaptx: interrupted by {case.number.name}: 'snaptx {scene.verb}' was {became}{boots}"
    assert re.fullmatch(expected, lines[0]), err


def _found_by_the_next(box: Box, scene: Scene) -> None:
    was = f"'snaptx {scene.verb}' was interrupted"
    if scene.verb != "init":
        assert was in box.ok("status")
    said = box.run("init" if scene.verb == "init" else "repair")
    assert said.code == 0, said.err
    assert re.search(f"{was} at .*, process [0-9]+ ended: ", said.err)


def _lose_the_terminal(world: World, run: Run) -> None:
    """Close the terminal at a step: SIGHUP, and nowhere to say so; with SIGHUP ignored the work goes on."""
    point = [point for point in run.points if point.startswith("step ")][-1]
    turned = run.points.index(point) >= run.points.index(run.scene.turn)
    ends = {signal.SIGHUP: 129, DEAF: 6} if run.scene.verb in DEAF_TOO else {signal.SIGHUP: 129}
    for number, code in ends.items():
        world.load(run.scene.start)
        with Outsider(world.box, point, number, run.words) as outsider:
            outsider.hang_up()
            outsider.go_on()
            assert outsider.wait() == code
        assert not (world.box.state / "journal/open").exists()
        _settled(world.box, run, over=turned or number == DEAF)
