"""The rules of updates: how far one goes, when, and which is left out."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from snaptx import blame, window
from snaptx.commit import Committed
from snaptx.config import Config, Policy, merge
from snaptx.errors import ConfigError, FetchError, FormatError, JournalError
from snaptx.model import Verdict
from snaptx.update import inhibit, policy, report, state, timing
from snaptx.update.outcome import Outcome, remember
from snaptx.update.packages import PackageSource
from snaptx.update.policy import Bound, Situation, Staged, Step
from snaptx.update.source import Offer
from snaptx.update.state import Memory, Result, Run, Seen, State

FREE = Situation(Policy.REBOOT)
OFFER = Offer("shop", "3:abc", "shop 3: TLS", 10)


@pytest.mark.parametrize("name", Policy)
def test_a_policy_is_the_last_step_it_names(name: Policy) -> None:
    reached = policy.reach(replace(FREE, policy=name))

    assert reached.step.name.lower() == name.value.replace("none", "nothing")
    assert reached.reason == f"the policy is '{name}'"


@pytest.mark.parametrize(
    ("change", "step", "reason"),
    [
        ({"held": "a backup runs"}, Step.NOTHING, "a backup runs"),
        ({"staged": Staged.MANUAL}, Step.DOWNLOAD, "by hand"),
        ({"staged": Staged.UPDATE}, Step.REBOOT, "policy"),
        ({"staged": Staged.STALE}, Step.REBOOT, "policy"),
        ({"verdict": Verdict.TRIAL}, Step.DOWNLOAD, "generation 1 runs on trial"),
        ({"verdict": Verdict.TRIAL, "running": False}, Step.REBOOT, "policy"),
        ({"verdict": Verdict.BAD}, Step.REBOOT, "policy"),
        ({"window_open": False}, Step.STAGE, "window"),
        ({"reboot_held": "somebody writes"}, Step.COMMIT, "somebody writes"),
        ({"window_open": False, "reboot_held": "x"}, Step.STAGE, "window"),
        ({"window_open": False, "staged": Staged.MANUAL}, Step.DOWNLOAD, "by hand"),
        ({"policy": Policy.CHECK, "window_open": False, "staged": Staged.MANUAL}, Step.CHECK, "policy"),
        ({"policy": Policy.NONE, "held": "x"}, Step.NOTHING, "policy"),
    ],
)
def test_what_stands_in_the_way(change: dict[str, object], step: Step, reason: str) -> None:
    reached = policy.reach(replace(FREE, **change))  # type: ignore[arg-type]

    assert reached.step is step
    assert reason in reached.reason


@pytest.mark.parametrize(
    ("updated", "arrived", "running", "verdict", "wanted"),
    [
        (True, False, False, Verdict.TRIAL, True),
        (False, False, False, Verdict.TRIAL, False),  # somebody else's commit waits for them
        (True, True, False, Verdict.TRIAL, False),  # it ran, and somebody left it at the menu
        (True, False, True, Verdict.TRIAL, False),
        (True, False, False, Verdict.GOOD, False),
        (True, False, False, Verdict.BAD, False),
    ],
)
def test_when_a_restart_is_the_updates_doing(
    updated: bool, arrived: bool, running: bool, verdict: Verdict, wanted: bool
) -> None:
    now = replace(FREE, running=running, verdict=verdict)

    assert policy.wants_restart(now, updated=updated, arrived=arrived) is wanted


def _at(day: str, clock: str) -> time.struct_time:
    hours, minutes = map(int, clock.split(":"))
    return time.struct_time((2026, 1, 1, hours, minutes, 0, window.DAYS.index(day), 1, 0))


@pytest.mark.parametrize(
    ("text", "inside", "outside"),
    [
        ("02:00-05:00", ["Mon 02:00", "Sun 04:59"], ["Mon 01:59", "Mon 05:00", "Mon 14:00"]),
        ("22:00-06:00", ["Mon 22:00", "Tue 00:00", "Tue 05:59"], ["Mon 06:00", "Mon 21:59"]),
        ("Sat,Sun 22:00-06:00", ["Sat 23:00", "Sun 05:00", "Mon 05:59"], ["Sat 05:00", "Mon 23:00"]),
        ("Fri..Mon 01:00-02:00", ["Fri 01:30", "Sat 01:30", "Mon 01:30"], ["Tue 01:30", "Thu 01:30"]),
        ("sat 00:00-24:00", ["Sat 00:00", "Sat 23:59"], ["Sun 00:00", "Fri 23:59"]),
        ("03:00-03:00", ["Mon 03:00", "Tue 02:59"], []),
    ],
)  # fmt: skip
def test_windows(text: str, inside: list[str], outside: list[str]) -> None:
    made = window.parse(text)

    assert [moment for moment in inside if not made.holds(_at(*moment.split()))] == []
    assert [moment for moment in outside if made.holds(_at(*moment.split()))] == []


@pytest.mark.parametrize(
    "text", ["", "2-5", "25:00-26:00", "02:60-03:00", "24:00-02:00", "Son 02:00-05:00", "Mon.. 02:00-03:00x"]
)  # fmt: skip
def test_what_is_no_window_is_an_error_of_the_configuration(text: str) -> None:
    with pytest.raises(ConfigError, match="update") as caught:
        merge(Config(), {"update": {"window": ["02:00-05:00", text]}}, "here")
    assert "Sat,Sun" in caught.value.hint


def test_without_windows_it_is_always_open() -> None:
    now = time.mktime((2026, 11, 23, 3, 0, 0, 0, 0, -1))

    assert window.is_open((), now)
    assert window.is_open(("Tue 01:00-02:00", "Mon 02:00-05:00"), now)
    assert not window.is_open(("Tue 02:00-05:00",), now)


def test_pauses_grow_and_are_never_the_same_for_all() -> None:
    draw = random.Random(1).random
    pauses = [timing.backoff(failures, draw(), first=2, most=60) for failures in range(1, 100)]

    for failures, pause in enumerate(pauses, 1):
        whole = min(60, 2.0**failures)
        assert whole / 2 <= pause <= whole
    assert len(set(pauses)) == len(pauses)


def test_the_next_run_is_within_the_interval() -> None:
    draw = random.Random(2).random
    hours = [(timing.next_run(0, 24, 0, draw()) / timing.HOUR) for _ in range(200)]

    assert min(hours) >= 18
    assert max(hours) <= 24
    assert max(hours) - min(hours) > 5
    assert timing.next_run(0, 24, 1, 0) < timing.HOUR
    assert timing.next_run(0, 24, 50, 1) <= 24 * timing.HOUR
    assert timing.next_run(0, 1, 50, 1) <= timing.HOUR


@pytest.mark.parametrize(
    ("ahead", "due"), [(-1, True), (0, True), (1, False), (24, False), (24.1, True), (24 * 36_500, True)]
)
def test_a_clock_that_was_ahead_puts_no_run_off_for_good(ahead: float, due: bool) -> None:
    assert timing.is_due(1000, 1000 + ahead * timing.HOUR, 24) is due


def test_the_trail_says_what_is_not_wanted() -> None:
    trail: list[dict[str, object]] = [
        {"verb": "init"},
        {"rejects": {"shop": "1:a", "packages": "x"}},
        {"accepts": {"packages": "x"}},
        {"rejects": {"shop": "2:b"}},
    ]

    assert blame.unwanted(trail) == {("shop", "1:a"), ("shop", "2:b")}
    assert blame.unwanted([*trail, {"accepts": {"shop": "1:a"}}]) == {("shop", "2:b")}
    assert blame.news({"a": "2", "b": "1"}, {"a": "1", "b": "1"}) == {"a": "2"}


COMMITTED = Committed(4, 3, (), (), 0.1)


@pytest.mark.parametrize(
    ("outcome", "result", "message"),
    [
        (Outcome(looked=True), Result.CURRENT, "nothing new"),
        (Outcome(early=True), Result.EARLY, "not time"),
        (Outcome(bound=Bound(Step.NOTHING, "because")), Result.HELD, "nothing is updated: because"),
        (Outcome([OFFER], looked=True, bound=Bound(Step.CHECK, "why")), Result.AVAILABLE, "TLS (why)"),
        (Outcome([OFFER], looked=True, bound=Bound(Step.DOWNLOAD, "why")), Result.DOWNLOADED, "(why)"),
        (Outcome([OFFER], looked=True, staged=7, bound=Bound(Step.STAGE, "why")), Result.STAGED, "7: shop 3"),
        (Outcome([OFFER], looked=True, vain=True), Result.CURRENT, "nothing changes with shop 3"),
        (Outcome([OFFER], looked=True, staged=4, committed=COMMITTED), Result.COMMITTED, "4 boots"),
        (Outcome(looked=True, committed=COMMITTED, restarts=True), Result.REBOOTING, "restarts"),
        (Outcome([], [OFFER], looked=True), Result.REJECTED, "judged bad"),
        (Outcome([OFFER], committed=COMMITTED, failures=[FetchError("no net")]), Result.FAILED, "no net"),
    ],
)  # fmt: skip
def test_outcomes_in_a_word_and_in_a_line(outcome: Outcome, result: Result, message: str) -> None:
    assert outcome.result is result
    assert message in outcome.message


def _after(outcome: Outcome, before: State = State()) -> State:  # noqa: B008
    return remember(before, outcome, now=1000, interval=24, draw=0)


def test_what_is_remembered() -> None:
    failed = Outcome([OFFER], looked=True, failures=[FetchError("no net")])
    once = _after(failed)
    twice = _after(failed, once)
    assert (once.failures, twice.failures, once.succeeded) == (1, 2, 0)
    assert once.last == Run(1000, Result.FAILED, "no net", 24)
    assert 1000 < once.next < twice.next < 1000 + timing.HOUR
    well = _after(Outcome(looked=True), twice)
    assert (well.failures, well.succeeded, well.next) == (0, 1000, 1000 + 24 * timing.HOUR)


def test_a_run_that_did_not_look_leaves_the_next_alone() -> None:
    before = State()._replace(next=77.0, succeeded=5.0, failures=2, offered=("x",))
    held = _after(Outcome(bound=Bound(Step.NOTHING, "backup")), before)

    assert (held.next, held.succeeded, held.failures, held.offered) == (77, 5, 2, ("x",))
    assert _after(Outcome(committed=COMMITTED, staged=4), before).offered == ()


def test_the_state_comes_back_as_it_was(tmp_path: Path) -> None:
    full = State(Run(1.5, Result.STAGED, "x", 0), 2.5, 3.5, 4, ("a",), {"/src": Seen("shop", 3, "ab")})
    assert state.read(tmp_path) == State()
    state.write(tmp_path, full)
    assert state.read(tmp_path) == full
    Memory(tmp_path).put("http://b", Seen("b", 1, "cd"))
    assert Memory(tmp_path).get("http://b") == Seen("b", 1, "cd")
    assert state.read(tmp_path).seen.keys() == {"/src", "http://b"}
    assert state.read(tmp_path).last == full.last


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"format": 1}', '{"format": 1, "last": 3}'])
def test_a_damaged_state(tmp_path: Path, text: str) -> None:
    (tmp_path / state.NAME).write_text(text)

    with pytest.raises(JournalError, match="damaged") as caught:
        state.read(tmp_path)
    assert "move" in caught.value.hint


def test_a_newer_state(tmp_path: Path) -> None:
    (tmp_path / state.NAME).write_text('{"format": 2}')

    with pytest.raises(FormatError):
        state.read(tmp_path)


def test_who_blocks_a_restart() -> None:
    rows = [
        ["shutdown:sleep", "apt", "packages are installed", "block", 0, 1],
        ["sleep", "lid", "closed", "block", 0, 2],
        ["shutdown", "late", "a moment", "delay", 0, 3],
        ["idle:shutdown", "me", "I write", "block-weak", 0, 4],
    ]

    assert inhibit.blockers({"type": "a(ssssuu)", "data": [rows]}) == [
        "apt blocks a restart: packages are installed",
        "me blocks a restart: I write",
    ]
    assert inhibit.blockers({"data": [[]]}) == []


@pytest.mark.parametrize("logind", [False, True])
def test_a_bus_alone_keeps_nobody_from_restarting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, logind: bool
) -> None:
    (tmp_path / "bus").touch()
    if logind:
        (tmp_path / "seats").mkdir()
    monkeypatch.setattr(inhibit, "BUS", tmp_path / "bus")
    monkeypatch.setattr(inhibit, "SEATS", tmp_path / "seats")
    monkeypatch.setattr(inhibit, "LIST", ("false",))
    machine: Any = SimpleNamespace(sysroot=Path("/"))

    assert ("it can't be told" in inhibit.of_restart(machine)) is logind


def test_the_line_at_login() -> None:
    def line(result: Result, message: str = "so it is", booted: int = 1) -> str:
        return report.line(State(Run(0, result, message)), booted, 1)

    assert report.line(State(), 1, 1) == ""
    assert line(Result.CURRENT) == ""
    assert line(Result.STAGED) == "snaptx: so it is"
    assert line(Result.FAILED, "no\nnet\x1b[31m") == "snaptx: the last update failed: no?net?[31m"
    assert "restart" in line(Result.CURRENT, booted=2)


def test_the_figures_are_what_prometheus_reads() -> None:
    given = State(Run(1_800_000_000.5, Result.FAILED, "x", 24), 5, 6, 2, ("a", "b"))
    text = report.metrics(given, 3, 4)
    figures = dict(line.split() for line in text.splitlines() if not line.startswith("#"))

    assert figures["snaptx_update_last_run_timestamp_seconds"] == "1800000000.5"
    assert figures["snaptx_update_exit_status"] == "24"
    assert figures["snaptx_update_offers"] == "2"
    assert figures["snaptx_restart_required"] == "1"
    assert figures['snaptx_update_result{result="failed"}'] == "1"
    assert figures['snaptx_update_result{result="current"}'] == "0"
    assert text.endswith("\n")


def test_files_for_others_do_not_depend_on_the_locale(tmp_path: Path) -> None:
    where = str(tmp_path / "motd")
    code = f"import pathlib, snaptx.update.report as r; r.write(pathlib.Path({where!r}), chr(8594))"
    strict = ("-X", "warn_default_encoding", "-W", "error::EncodingWarning")
    subprocess.run([sys.executable, *strict, "-c", code], check=True)

    assert (tmp_path / "motd").read_text(encoding="utf-8") == "\u2192\n"


def test_files_for_others_are_replaced_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "new/motd"
    report.write(path, "one")
    assert path.read_text() == "one\n"
    assert path.stat().st_mode & 0o777 == 0o644
    report.write(path, "")
    report.write(path, "")
    assert list(path.parent.iterdir()) == []
    report.write(path, "two")
    report.write(path / "below", "nobody can write this, and that is no failure")
    assert path.read_text() == "two\n"


class Upgrades:
    """A package manager with a list of upgrades."""

    def __init__(self, *names: str) -> None:
        self.names = names

    def pending(self) -> tuple[str, ...]:
        """Return the upgrades."""
        return self.names


def test_packages_are_one_offer_known_by_what_it_holds() -> None:
    def offer(*names: str) -> Offer | None:
        return PackageSource(Upgrades(*names)).check({})  # type: ignore[arg-type]

    source = PackageSource(Upgrades())  # type: ignore[arg-type]
    assert offer() is None
    some, same, other = offer("a=2", "b=3"), offer("b=3", "a=2"), offer("a=2", "b=4")
    assert some == same
    assert some
    assert other
    assert some.identity != other.identity
    assert PackageSource(Upgrades("a=2", "b=3")).check({"packages": some.identity}) is None  # type: ignore[arg-type]
    assert offer(*"abcde") == replace(offer(*"abcde") or some, summary="5 package(s): a, b, c and 2 more")
    more = replace(some, identity="a=2 aa=1 b=3")
    assert [source.is_bad(one, {some.identity}) for one in (some, more, other)] == [True, True, False]
    assert not source.is_bad(some, {more.identity})
    assert not source.is_bad(some, ())
