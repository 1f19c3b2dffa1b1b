"""Old generations of an application go by the same rules as those of the system."""

from __future__ import annotations

import fcntl
import os

import pytest

from snaptx.errors import BusyError, LockError, NotFoundError
from tests.appload import ask
from tests.webapp import Web


@pytest.fixture
def old(web: Web) -> Web:
    """Give an application at generation 4, which runs."""
    for version in ("two", "three"):
        web.apply(version)
        web.box.ok("app", "switch", "web")
    return web


def _numbers(web: Web) -> list[int]:
    return [one["number"] for one in web.box.json("app", "list", "web")]


def test_the_rules_let_go_what_nobody_needs(old: Web) -> None:
    done = old.box.json("app", "prune", "web", "--keep", "2")

    assert done == {"removed": [2], "busy": []}
    assert _numbers(old) == [1, 3, 4]
    assert ask(old.port).split()[0] == "three"
    assert old.box.json("app", "log", "web")[-1]["verb"] == "app"
    old.box.ok("app", "rollback", "web")
    assert ask(old.port).split()[0] == "two"


def test_the_system_s_prune_tidies_applications_too(old: Web) -> None:
    plan = old.box.ok("--dry-run", "prune", "--keep", "2")
    before = _numbers(old)
    done = old.box.json("prune", "--keep", "2")

    assert "web: would remove: 2" in plan
    assert before == [1, 2, 3, 4]
    assert done == {"removed": [], "busy": [], "applications": {"web": {"removed": [2], "busy": []}}}
    assert _numbers(old) == [1, 3, 4]
    assert old.box.run("prune", "--unchanged-exit-77").code == 77
    old.box.ok("verify")


def test_what_is_named_goes_and_what_is_needed_stays(old: Web) -> None:
    assert old.box.json("app", "prune", "web", "2")["removed"] == [2]
    assert old.box.run("app", "prune", "web", "4").code == BusyError.code
    assert old.box.run("app", "prune", "web", "2").code == NotFoundError.code
    assert _numbers(old) == [1, 3, 4]


def test_one_that_somebody_is_at_keeps_no_other_from_it(old: Web) -> None:
    old.box.ok("app", "create", "other")
    lock = old.box.top / "@snaptx/apps/web/lock"
    fd = os.open(lock, os.O_RDWR)
    fcntl.flock(fd, fcntl.LOCK_EX)
    said = old.box.run("--json", "prune", "--keep", "0")
    os.close(fd)

    assert said.code == LockError.code
    assert '"other"' in said.out
    assert _numbers(old) == [1, 2, 3, 4]
