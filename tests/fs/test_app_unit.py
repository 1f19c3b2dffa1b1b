"""Applications that systemd runs, as far as it goes without one: what it refuses is told, no dead end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from snaptx.errors import CommandError
from tests.boxes import Said
from tests.webapp import Web


def _systemd(place: Path, *, stops: bool) -> Callable[[], None]:
    """Return what has a file stand for an active unit, in the process of a verb."""

    def prepare() -> None:
        from snaptx import run

        before, active = run.run, place / "active"

        def manage(argv: Sequence[str], **how: Any) -> run.Result:
            if argv[0] != "systemctl":
                return before(argv, **how)
            if argv[1] == "start":
                active.touch()
            if argv[1] == "stop" and not stops:
                raise CommandError(f"systemctl ended with status 5: Failed to stop {argv[2]}", hint="")
            if argv[1] == "stop":
                active.unlink()
            return run.Result(3 if argv[1] == "is-active" and not active.exists() else 0, "", "")

        run.run = manage  # type: ignore[assignment]

    return prepare


@pytest.fixture
def unit(web: Web, tmp_path: Path) -> Callable[..., Said]:
    """Give a function that runs a verb on the application, which is a unit that runs."""
    web.box.ok("app", "stop", "web")
    web.configure(start="", listen="", check="", unit='"web@"')

    def act(*words: str, stops: bool = True) -> Said:
        return web.box.start(*words, before=_systemd(tmp_path, stops=stops)).wait()

    assert act("app", "start", "web").code == 0
    return act


def test_a_unit_that_does_not_stop_is_not_said_to_have_ended(unit: Callable[..., Said]) -> None:
    said = unit("app", "stop", "web", stops=False)

    assert said.code == CommandError.code
    assert "Failed to stop web@2.service" in said.err
    assert unit("--json", "app", "list").json[0]["running"] == [2]
    assert unit("app", "stop", "web").code == 0
    assert unit("--json", "app", "list").json[0]["running"] == []


def test_a_unit_that_is_gone_keeps_no_other_from_starting(unit: Callable[..., Said], tmp_path: Path) -> None:
    (tmp_path / "active").unlink()

    assert unit("app", "start", "web", stops=False).code == 0
    assert unit("--json", "app", "list").json[0]["running"] == [2]
