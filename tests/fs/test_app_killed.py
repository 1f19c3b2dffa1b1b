"""A switch of an application that ends before its time, or fails when it has moved: old or new, and known."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from snaptx import system
from snaptx.errors import HealthError, NoSpaceError, OutcomeUnknownError
from tests.appload import ask
from tests.webapp import Web

STEPS = ("carry", "seal", "ready", "switch")


def _killed_at(step: str) -> Callable[[], None]:
    """Return what makes a verb be killed where it begins a step."""

    def prepare() -> None:
        from snaptx.journal import Journal

        before = Journal.step

        def stops(self: Journal, name: str) -> None:
            before(self, name)
            if name == step:
                os.kill(os.getpid(), signal.SIGKILL)

        Journal.step = stops  # type: ignore[method-assign]

    return prepare


@pytest.mark.parametrize("step", STEPS)
def test_a_switch_that_is_killed_is_settled_by_the_next_verb(web: Web, step: str) -> None:
    web.apply("two")
    assert web.box.start("app", "switch", "web", before=_killed_at(step)).wait().code < 0
    assert ask(web.port).partition(" ")[0] in ("one", "two")

    web.box.ok("app", "start", "web")
    assert web.at() == (2, [2])
    assert ask(web.port).startswith("one ")
    web.box.ok("app", "switch", "web")
    assert ask(web.port).startswith("two ")


def _killed_while(name: str) -> Callable[[], None]:
    """Return what makes a verb be killed where it would call a function of the instances."""

    def prepare() -> None:
        from snaptx.apps import instances

        def dies(*_: object) -> None:
            os.kill(os.getpid(), signal.SIGKILL)

        setattr(instances, name, dies)

    return prepare


def test_the_old_one_goes_on_when_snaptx_dies_while_it_is_held(web: Web) -> None:
    web.apply("bad", "broken")
    old = int(ask(web.port).split()[1])
    assert web.box.start("app", "switch", "web", before=_killed_while("require_healthy")).wait().code < 0

    assert _answers(web.port, f"one {old}")
    web.box.ok("app", "start", "web")
    assert web.at() == (2, [2])


def _answers(port: int, wanted: str) -> bool:
    """Return whether the answer comes that is wanted, of one of two servers."""
    for _ in range(200):
        with suppress(OSError):
            if ask(port) == wanted:
                return True
    return False


def test_the_new_one_stays_when_snaptx_dies_after_the_switch(web: Web) -> None:
    web.apply("two")
    assert web.box.start("app", "switch", "web", before=_killed_while("stop")).wait().code < 0
    assert web.at() == (3, [2, 3])

    web.box.ok("app", "start", "web")
    assert web.at() == (3, [3])
    assert ask(web.port).startswith("two ")


def _without_room_in_run() -> None:
    from snaptx import durable
    from snaptx.errors import NoSpaceError

    before = durable.replace

    def refused(path: Path, *data: Any, **how: Any) -> None:
        if path.parent.name == "web":
            raise NoSpaceError(f"cannot write {path.name}: No space left on device", hint="make room")
        before(path, *data, **how)

    durable.replace = refused


def test_nothing_runs_that_is_not_on_record(web: Web) -> None:
    web.apply("two")
    said = web.box.start("app", "switch", "web", before=_without_room_in_run).wait()

    assert said.code == NoSpaceError.code
    assert web.at() == (2, [2])
    assert {ask(web.port).split()[0] for _ in range(50)} == {"one"}


def test_what_snaptx_had_no_time_to_record_is_ended(web: Web) -> None:
    web.apply("bad", "broken")
    assert web.box.start("app", "switch", "web", before=_killed_before_the_record).wait().code < 0
    web.box.ok("app", "start", "web")

    assert web.at() == (2, [2])
    assert {ask(web.port).split()[0] for _ in range(50)} == {"one"}


def _killed_before_the_record() -> None:
    from snaptx import durable

    before = durable.replace

    def dies(path: Path, *data: Any, **how: Any) -> None:
        if path.name == "3.json":
            os.kill(os.getpid(), signal.SIGKILL)
        before(path, *data, **how)

    durable.replace = dies


@pytest.mark.parametrize("text", ["", "null", '"2"', "[]", "{}", '{"pid": 1'])
def test_one_with_a_damaged_record_is_ended_and_started_anew(web: Web, text: str) -> None:
    before = ask(web.port)
    (web.box.root / "run/snaptx/apps/web/2.json").write_text(text)
    assert web.at() == (2, [])

    web.box.ok("app", "start", "web")
    assert web.at() == (2, [2])
    assert not _answers(web.port, before)


@pytest.mark.parametrize("marks", [("forks",), ("forks", "apart")], ids="-".join)
@pytest.mark.parametrize("verb", ["start", "stop"])
def test_workers_end_where_their_master_was_killed(web: Web, verb: str, marks: tuple[str, ...]) -> None:
    web.apply("two", *marks)
    web.box.ok("app", "switch", "web")
    worker = int(ask(web.port).split()[1])
    os.kill(system.parent_of(worker), signal.SIGKILL)
    assert ask(web.port) == f"two {worker}"

    web.box.ok("app", verb, "web")
    assert not _answers(web.port, f"two {worker}")
    assert web.at() == (3, [3] if verb == "start" else [])


def test_what_went_into_the_background_ends_with_what_did_not_come_up(web: Web) -> None:
    web.apply("two", "daemon")
    said = web.box.run("app", "switch", "web")

    assert said.code == HealthError.code
    assert said.complaint[0].endswith("did not come up: it ended")
    assert {ask(web.port).split()[0] for _ in range(50)} == {"one"}


def test_an_answer_is_not_taken_for_that_of_one_that_ended(web: Web) -> None:
    web.apply("two")
    check = web.place / "check"
    check.write_text(
        '#!/bin/sh\nkill -KILL "$SNAPTX_PID"\nwhile kill -0 "$SNAPTX_PID"; do sleep 0.01; done\n'
    )
    said = web.box.run("app", "switch", "web")

    assert said.code == HealthError.code
    assert said.complaint[0].endswith("did not come up: it ended")
    assert web.at() == (2, [2])


def test_one_that_ended_has_ended_also_when_time_is_up(web: Web) -> None:
    web.apply("two")
    seen = web.place / "seen"
    first = f"[ -e {seen} ] || {{ touch {seen}; sleep 1.5; exit 1; }}"
    web.place.joinpath("check").write_text(f'#!/bin/sh\n{first}\nkill -KILL "$SNAPTX_PID"\nsleep 1\n')
    said = web.box.run("app", "switch", "web")

    assert said.complaint[0].endswith("did not come up: it ended")


def _without_room_for_records() -> None:
    from snaptx.errors import NoSpaceError
    from snaptx.generations import Generations

    def refused(*_: object) -> None:
        raise NoSpaceError("cannot write generation.json: No space left on device", hint="make room")

    Generations.write = refused  # type: ignore[method-assign, assignment]


def test_what_fails_after_the_switch_does_not_hide_it(web: Web) -> None:
    web.apply("two")
    said = web.box.start("app", "switch", "web", before=_without_room_for_records).wait()

    assert said.code == OutcomeUnknownError.code
    assert said.complaint[0].startswith("web is at generation 3, but something failed: cannot write")
    assert web.at() == (3, [3])
    web.box.ok("app", "rollback", "web")
    assert ask(web.port).startswith("one ")
