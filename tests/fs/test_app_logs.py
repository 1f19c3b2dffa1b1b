"""What instances leave in /run, which is memory: bounded while they run, gone with their application."""

from __future__ import annotations

import os
from pathlib import Path

from snaptx.apps import logs
from tests.appload import ask
from tests.webapp import Web


def _place(web: Web) -> Path:
    return web.box.root / "run/snaptx/apps/web"


def test_a_removed_application_leaves_nothing_in_run(web: Web, tmp_path: Path) -> None:
    web.check_privately(tmp_path / "asked", unix=True)
    web.apply("two")
    web.box.ok("app", "switch", "web")
    web.box.ok("app", "stop", "web")
    (_place(web) / "3.json.tmp").write_text("of one that was killed")
    web.box.ok("app", "remove", "web")

    assert os.listdir(_place(web).parent) == []


def test_a_long_log_is_cut_by_the_next_prune_and_goes_on(web: Web) -> None:
    log = _place(web) / "2.log"
    with log.open("ab", buffering=0) as writes:
        writes.write(b"".join(b"line %d\n" % number for number in range(500_000)))
        web.box.ok("prune")
        writes.write(b"the newest\n")

    kept = log.read_bytes()
    assert len(kept) <= logs.LIMIT + 100
    assert len(kept) > logs.LIMIT // 2
    assert kept.startswith(b"line ")
    assert kept.endswith(b"line 499999\nthe newest\n")
    assert ask(web.port).startswith("one ")


def test_a_long_log_is_cut_by_the_next_start(web: Web) -> None:
    log = _place(web) / "2.log"
    log.write_bytes(bytes(3 * logs.LIMIT))
    web.box.ok("app", "stop", "web")
    web.box.ok("app", "start", "web")

    assert log.stat().st_size == logs.LIMIT


def test_the_logs_of_the_newest_stay_and_that_of_what_runs(web: Web) -> None:
    for number in (*range(11, 30), "²", "1²"):
        (_place(web) / f"{number}.log").touch()
    web.box.ok("prune", "--dry-run")
    assert len(list(_place(web).glob("*.log"))) == 22
    web.box.ok("prune")

    left = {path.stem for path in _place(web).glob("*.log")}
    assert left == {"2", "²", "1²", *map(str, range(30 - logs.KEPT, 30))}
