"""``restart``: what happens when services come back, and when one does not."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import pytest

from snaptx import machine, restart, run
from snaptx.errors import CommandError, HealthError
from snaptx.machine import Machine
from snaptx.run import Result
from snaptx.running import services
from snaptx.running.services import Decision
from snaptx.transaction import Request, exclusive
from tests.boxes import Box


class Manager:
    """Stands for systemd: a service called bad runs only while ``fit`` says so."""

    def __init__(self, fit: Callable[[], bool]) -> None:
        self._fit = fit
        self.invocations = {"bad.service": 1, "good.service": 1}
        self.up = dict.fromkeys(self.invocations, True)

    def __call__(self, argv: Sequence[str]) -> Result:
        """Do what systemctl is told."""
        names = argv[argv.index("--") + 1 :]
        if argv[1] == "show":
            return Result(0, "\n\n".join(map(self._shown, names)), "")
        for name in names:
            self.invocations[name] += 1
            self.up[name] = name != "bad.service" or self._fit()
        if not all(self.up.values()):
            raise CommandError("Job for bad.service failed", hint="")
        return Result(0, "", "")

    def _shown(self, name: str) -> str:
        state = "active" if self.up[name] else "failed"
        return f"Id={name}\nType=simple\nActiveState={state}\nInvocationID={self.invocations[name]}"


@pytest.fixture
def opened(two_staged: Box, monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    """Give its machine, with no time to wait; nothing stays live."""
    monkeypatch.setattr(restart, "SETTLE", 0)
    yield machine.open_machine(two_staged.root)
    two_staged.ok("live", "--off")


def go(one: Machine, manager: Manager, monkeypatch: pytest.MonkeyPatch) -> restart.Restarted:
    """Restart both services."""
    monkeypatch.setattr(run, "run", manager)
    names = tuple(manager.invocations)
    units = services.parse(manager(["systemctl", "show", "--", *names]).stdout)
    with exclusive(one, "restart"):
        return restart.make(one, Request("restart"), Decision(names, ()), units)


def seen(box: Box) -> str:
    """Return which generation is seen."""
    return (box.root / "usr/who").read_text().strip()


def test_services_that_come_back_go_on(
    two_staged: Box, opened: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    two_staged.ok("live", "2")
    done = go(opened, Manager(lambda: True), monkeypatch)

    assert done.restarted == ("bad.service", "good.service")
    assert seen(two_staged) == "2"
    assert two_staged.audit()[-1]["restarted"] == ["bad.service", "good.service"]


@pytest.mark.parametrize("before", ["1", "2"])
def test_live_switch_is_taken_back_if_one_does_not(
    two_staged: Box, opened: Machine, monkeypatch: pytest.MonkeyPatch, before: str
) -> None:
    if before == "2":
        two_staged.ok("live", "2")
    two_staged.ok("live", "3")
    manager = Manager(lambda: seen(two_staged) != "3")
    with pytest.raises(HealthError) as caught:
        go(opened, manager, monkeypatch)

    assert seen(two_staged) == before
    assert manager.up == {"bad.service": True, "good.service": True}
    assert "bad.service" in caught.value.message
    assert "they run" in caught.value.message
    assert [record["result"] for record in two_staged.audit()[-2:]] == ["failed", "done"]


def test_what_was_never_live_is_not_taken_back(
    two_staged: Box, opened: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(HealthError, match=r"^did not come back: bad\.service$"):
        go(opened, Manager(lambda: False), monkeypatch)


def test_services_of_another_root_are_refused(two_staged: Box) -> None:
    assert "--sysroot" in two_staged.refuses(2, "restart")
