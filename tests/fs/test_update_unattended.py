"""``update`` and what stands in its way: people, trials, windows, its time, whoever says no."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from snaptx import lock, run
from snaptx.run import Result
from snaptx.update import index, inhibit, perform
from tests.boxes import Box, changes, made
from tests.followers import cached, kept, source, trust, update
from tests.updates import Server, Shop


def test_what_was_staged_by_hand_is_left_alone(follower: Box, shop: Shop, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/file").write_text("mine")
    follower.ok("apply", str(tmp_path / "mine"))
    before = kept(follower)
    done = update(follower, shop)

    assert done["result"] == "downloaded"
    assert "by hand" in done["message"]
    assert changes(before, kept(follower)) == {}
    assert len(cached(follower)) == 1


def test_work_on_top_of_a_staged_update_is_somebodys(follower: Box, shop: Shop, tmp_path: Path) -> None:
    update(follower, shop, "--policy", "stage")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/file").write_text("mine")
    follower.ok("apply", str(tmp_path / "mine"))

    assert "by hand" in follower.json("update", *source(shop))["bound"]["reason"]
    assert follower.boot().default == 1


def test_a_generation_on_trial_is_waited_for(follower: Box, shop: Shop) -> None:
    update(follower, shop)
    follower.reboot()
    shop.put("zz", {"etc/zz": b""})
    before = kept(follower)

    assert "runs on trial" in update(follower, shop)["message"]
    assert changes(before, kept(follower)) == {}
    follower.ok("confirm")
    assert update(follower, shop)["result"] == "committed"


@pytest.fixture
def closed(follower: Box) -> Box:
    """Give that sandbox with a window that is not open now, by more than an hour."""
    now = time.localtime()
    begin = (now.tm_hour + 12) % 24
    follower.configure(f'[update]\nwindow = ["{begin:02d}:00-{(begin + 1) % 24:02d}:00"]\n')
    return follower


def test_outside_of_the_window_nothing_is_committed(closed: Box, shop: Shop) -> None:
    done = update(closed, shop, "--unattended")

    assert (done["result"], "window" in done["message"]) == ("staged", True)
    assert closed.boot().default == 1
    again = update(closed, shop, "--unattended")
    assert again["result"] == "early"
    closed.configure("")
    (shop.place / index.NAME).unlink()  # what is staged needs no source any more
    assert update(closed, shop, "--unattended")["result"] == "committed"


def test_a_source_that_is_gone_does_not_keep_what_is_staged_from_the_window(closed: Box, shop: Shop) -> None:
    words = ("update", *source(shop), "--source", "/nonexistent", "--unattended")
    assert closed.run(*words).code == 24
    assert closed.marks() == {1: "NRG", 2: "s"}
    assert closed.run(*words).code == 0, "it is not asked again before its time"
    assert closed.boot().default == 1
    closed.configure("")
    closed.ok(*words)

    assert closed.boot().default == 2
    assert closed.json("status")["updates"]["failures"] == 1


def test_what_can_not_be_committed_is_not_tried_each_hour(closed: Box, shop: Shop) -> None:
    words = ("update", *source(shop), "--unattended")
    closed.ok(*words)
    closed.configure("")
    (closed.root / "etc/motd").write_text("mine\n")
    assert closed.run(*words).code == 41

    assert closed.json(*words)["result"] == "early"


def test_whoever_types_it_needs_no_window(closed: Box, shop: Shop) -> None:
    assert update(closed, shop)["result"] == "committed"


def test_an_unattended_run_keeps_to_its_time(follower: Box, shop: Shop) -> None:
    assert update(follower, shop, "--unattended", "--policy", "check")["result"] == "available"
    told = follower.json("status")["updates"]
    assert update(follower, shop, "--unattended")["result"] == "early"
    assert follower.run("update", *source(shop), "--unattended", "--unchanged-exit-77").code == 77
    assert follower.json("status")["updates"] == told
    assert update(follower, shop)["result"] == "committed"


def test_a_clock_that_was_ahead_puts_no_run_off_for_good(follower: Box, shop: Shop) -> None:
    update(follower, shop, "--check")
    path = follower.state / "update/state.json"
    told = json.loads(path.read_text())
    path.write_text(json.dumps({**told, "next": told["next"] + 100 * 365 * 86400}))

    assert update(follower, shop, "--unattended")["result"] == "committed"
    assert follower.json("status")["updates"]["next"] < time.time() + 24 * 3600


def test_a_rehearsal_of_an_unattended_run_keeps_to_its_time(follower: Box, shop: Shop) -> None:
    update(follower, shop, "--check")
    rehearsed = update(follower, shop, "--unattended", "--dry-run")

    assert (rehearsed["result"], rehearsed["offers"]) == ("early", [])
    assert rehearsed == update(follower, shop, "--unattended")


def test_a_rehearsal_asks_nobody_where_nothing_may_be_done(follower: Box, shop: Shop, server: Server) -> None:
    words = (*source(server), "--policy", "none", "--unchanged-exit-77")

    assert follower.run("update", *words, "--dry-run") == follower.run("update", *words)
    assert server.asked == []


def test_a_rehearsal_tells_of_what_waits_for_commit_and_restart(
    follower: Box, shop: Shop, restarts: Path
) -> None:
    words = ("update", *source(shop), "--dry-run", "--unchanged-exit-77")
    assert update(follower, shop, "--dry-run")["result"] == "available", "it was not downloaded"
    update(follower, shop, "--policy", "stage")
    assert "would commit (the policy is 'commit'): generation 2\n" in follower.ok(*words)
    update(follower, shop)
    assert follower.run(*words).code == 77
    assert "would restart" in follower.ok(*words, "--policy", "reboot")
    assert _restarts(restarts) == 0


def test_what_others_read_is_true_after_a_restart(
    follower: Box, shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = SimpleNamespace(now=time.time, is_running_root=lambda _: True)
    monkeypatch.setattr(perform, "system", running)
    follower.configure(f'[update]\nmetrics = "{tmp_path}"\nmotd = "{tmp_path}/motd"\n')
    update(follower, shop, "--unattended")
    assert "generation 2 boots next" in (tmp_path / "motd").read_text()
    assert "snaptx_restart_required 1\n" in (tmp_path / "snaptx.prom").read_text()
    follower.reboot()

    assert update(follower, shop, "--unattended")["result"] == "early"
    assert not (tmp_path / "motd").exists()
    told = (tmp_path / "snaptx.prom").read_text()
    assert "snaptx_restart_required 0\n" in told
    assert "snaptx_generation_booted 2\n" in told


def test_a_failure_is_put_off_longer_each_time(follower: Box, shop: Shop) -> None:
    shop.unsign()
    pauses = []
    for failures in (1, 2, 3):
        assert follower.run("update", *source(shop)).code == 25
        told = follower.json("status")["updates"]
        pauses.append(told["next"] - told["last"]["time"])
        assert told["failures"] == failures

    assert pauses == sorted(pauses)
    assert 400 < pauses[0] < 1000
    assert update(follower, shop, "--unattended")["result"] == "early"


def _held(follower: Box, shop: Shop, reason: str) -> None:
    before = kept(follower)
    done = update(follower, shop, "--unattended")

    assert (done["result"], done["offers"]) == ("held", [])
    assert reason in done["message"]
    assert changes(before, kept(follower)) == {}
    assert follower.run("update", *source(shop), "--unattended", "--unchanged-exit-77").code == 77


def test_a_file_holds_it_back(follower: Box, shop: Shop) -> None:
    (follower.root / "run/snaptx").mkdir(parents=True)
    (follower.root / "run/snaptx/inhibit").write_text("the backup\nruns\n")
    _held(follower, shop, "/run/snaptx/inhibit is there: the backup runs")
    (follower.root / "run/snaptx/inhibit").unlink()
    assert update(follower, shop, "--unattended")["result"] == "committed"


def test_a_program_holds_it_back(programs: Path, shop: Shop) -> None:
    with made(source=programs) as one:
        hook = trust(one).root / "etc/snaptx/hooks.d/update/metered"
        hook.parent.mkdir(parents=True)
        hook.write_text("#!/bin/sh\necho the network is metered >&2; exit 1\n")
        hook.chmod(0o755)
        _held(one, shop, "status 1: the network is metered")
        assert update(one, shop)["result"] == "committed"


@pytest.fixture
def restarts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give a file with a line for each restart that is asked for, of a machine that may be restarted."""
    asked, real = tmp_path / "restarts", run.run

    def noted(argv: Sequence[str | Path], **options: Any) -> Result:
        if argv[0] not in ("systemctl", "reboot"):
            return real(argv, **options)
        with asked.open("a") as stream:
            stream.write(f"{' '.join(map(str, argv))}\n")
        return Result(0, "", "")

    monkeypatch.setattr(run, "run", noted)
    monkeypatch.setattr(inhibit, "of_restart", lambda _: "")
    asked.touch()
    return asked


def _restarts(asked: Path) -> int:
    return len(asked.read_text().splitlines())


def test_a_restart_is_asked_for_until_it_came(follower: Box, shop: Shop, restarts: Path) -> None:
    words = ("--policy", "reboot", "--unattended")
    assert update(follower, shop, *words)["result"] == "rebooting"
    assert update(follower, shop, *words)["result"] == "rebooting"
    assert _restarts(restarts) == 2
    follower.reboot()
    assert update(follower, shop, *words)["result"] == "early"
    follower.ok("confirm")
    assert update(follower, shop, *words[:2])["result"] == "current"
    assert _restarts(restarts) == 2


def test_a_commit_of_somebody_else_is_no_reason_to_restart(
    follower: Box, shop: Shop, restarts: Path, tmp_path: Path
) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/file").write_text("mine")
    update(follower, shop)
    follower.ok("apply", "--commit", str(tmp_path / "mine"))

    assert update(follower, shop, "--policy", "reboot")["result"] == "current"
    assert _restarts(restarts) == 0


@pytest.mark.parametrize(("systemd", "command"), [(True, "systemctl reboot\n"), (False, "reboot\n")])
def test_every_init_is_asked_its_way(
    follower: Box, shop: Shop, restarts: Path, monkeypatch: pytest.MonkeyPatch, systemd: bool, command: str
) -> None:
    """busybox and runit have no shutdown; that of sysvinit is what its reboot calls."""
    monkeypatch.setattr(perform, "SYSTEMD", restarts.parent if systemd else restarts.parent / "missing")
    update(follower, shop, "--policy", "reboot")

    assert restarts.read_text() == command


def test_nothing_is_restarted_while_somebody_is_at_work(follower: Box, shop: Shop, restarts: Path) -> None:
    update(follower, shop)
    with lock.exclusive(follower.state / "lock", "shell"):
        said = follower.run("update", *source(shop), "--policy", "reboot")

    assert (said.code, "'snaptx shell'" in said.err) == (4, True)
    assert _restarts(restarts) == 0
    assert _last(follower)["result"] == "failed"


def _last(box: Box) -> Any:
    return json.loads((box.state / "update/state.json").read_bytes())["last"]


def test_a_restart_that_fails_is_remembered_as_that_and_tried_again(
    follower: Box, shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inhibit, "of_restart", lambda _: "")
    monkeypatch.setattr(run, "find_program", lambda name: f"/bin/{'false' if 'reboot' in name else name}")
    monkeypatch.setattr(perform, "SYSTEMD", Path("/nonexistent"))
    words = ("--policy", "reboot", "--unattended")
    said = follower.run("--json", "update", *source(shop), *words)

    assert (said.code, said.json["committed"]["number"], said.json["result"]) == (31, 2, "failed")
    assert (_last(follower)["result"], _last(follower)["code"]) == ("failed", 31)
    assert "false ended with status 1" in _last(follower)["message"]
    assert follower.boot().default == 2
    follower.run("update", *source(shop), *words[:2])
    assert json.loads((follower.state / "update/state.json").read_bytes())["failures"] == 2
    monkeypatch.setattr(run, "find_program", lambda _: "/bin/true")
    assert update(follower, shop, *words[:2])["result"] == "rebooting"
    assert _last(follower)["result"] == "rebooting"


def test_a_sandbox_is_not_restarted(follower: Box, shop: Shop) -> None:
    done = update(follower, shop, "--policy", "reboot")

    assert done["result"] == "committed"
    assert "not the running system" in done["bound"]["reason"]


def test_policy_none_does_nothing(follower: Box, shop: Shop) -> None:
    follower.configure('[update]\npolicy = "none"\n')
    before = kept(follower)

    assert update(follower, shop)["result"] == "held"
    assert changes(before, kept(follower)) == {}


def _make_due(box: Box) -> None:
    """Let the sources be asked by the next unattended run."""
    remembered = box.state / "update/state.json"
    remembered.write_text(json.dumps({**json.loads(remembered.read_text()), "next": 0}))


def test_the_timer_without_a_source_is_no_failure(box: Box, tmp_path: Path) -> None:
    """As on a machine where the timer was enabled and nobody has configured where updates come from."""
    motd = tmp_path / "motd"
    box.configure(f'[update]\nmotd = "{motd}"\n')
    assert box.run("update").code == 3
    assert "1 failure(s) in a row" in box.ok("status")
    _make_due(box)
    before = kept(box)
    said = box.json("update", "--unattended")

    assert (said["result"], said["offers"]) == ("off", [])
    assert "no source of updates is configured" in said["message"]
    assert box.run("update", "--unattended", "--unchanged-exit-77").code == 77
    assert changes(before, kept(box)) == {}
    told = box.json("status")["updates"]
    assert (told["last"]["result"], told["last"]["code"], told["failures"]) == ("off", 0, 0)
    assert " off: no source of updates is configured" in box.ok("status")
    assert "next is due" not in box.ok("status")
    assert not motd.exists()


def test_what_is_staged_needs_no_source_any_more(closed: Box, shop: Shop) -> None:
    assert update(closed, shop, "--unattended")["result"] == "staged"
    closed.configure("[update]\npolicy = 'commit'\n")
    _make_due(closed)

    assert closed.json("update", "--unattended")["result"] == "committed"
    assert closed.boot().default == 2
