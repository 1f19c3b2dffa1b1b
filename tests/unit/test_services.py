"""Which services are restarted, in which order, and which are left: from what systemctl shows."""

from __future__ import annotations

import pytest

from snaptx.running import services
from snaptx.running.services import Unit

# As Debian 12 shows them, shortened.
SHOWN = """Type=notify
InvocationID=5e1f5d2f1c0d4f3db0f6f0a54b6e9b11
Id=nginx.service
Names=nginx.service
Before=shutdown.target multi-user.target
After=network-online.target remote-fs.target sysinit.target postgresql.service basic.target system.slice
ActiveState=active
SubState=running
RefuseManualStop=no

Type=oneshot
InvocationID=0c1a2f4e8d0d47a59d70f20b7c3ac2aa
Id=postgresql.service
Names=postgresql.service
Before=shutdown.target multi-user.target
After=sysinit.target postgresql@15-main.service
ActiveState=active
SubState=exited
RefuseManualStop=no

Type=forking
InvocationID=b5b0a9ff1d6f4d5a8c3f5a9a9b0c1d2e
Id=postgresql@15-main.service
Names=postgresql@15-main.service
Before=postgresql.service nginx.service shutdown.target
After=system-postgresql.slice network.target
ActiveState=active
SubState=running
RefuseManualStop=no

Type=dbus
InvocationID=5e1f5d2f1c0d4f3db0f6f0a54b6e9b22
Id=systemd-logind.service
Names=dbus-org.freedesktop.login1.service systemd-logind.service
ActiveState=active
SubState=running
RefuseManualStop=no

Type=simple
Id=my-greeter.service
Names=my-greeter.service display-manager.service
ActiveState=active
SubState=running
RefuseManualStop=no

Type=simple
Id=auditd.service
Names=auditd.service
ActiveState=active
SubState=running
RefuseManualStop=yes

Type=simple
Id=flaky.service
Names=flaky.service
ActiveState=activating
SubState=auto-restart
RefuseManualStop=no
"""


def unit(name: str, *, after: str = "", before: str = "", **facts: str) -> Unit:
    """Return a unit that runs."""
    names = frozenset([name])
    made = Unit(
        name,
        names,
        "simple",
        "active",
        "running",
        frozenset(after.split()),
        frozenset(before.split()),
        False,
        "1",
    )
    return made._replace(**facts)  # type: ignore[arg-type]


def test_output_of_systemctl_is_understood() -> None:
    found = services.parse(SHOWN)

    assert len(found) == 7
    assert found[0].name == "nginx.service"
    assert "postgresql.service" in found[0].after
    assert found[0].invocation == "5e1f5d2f1c0d4f3db0f6f0a54b6e9b11"
    assert services.parse("\n\n") == []


def test_captured_services_are_judged() -> None:
    decision = services.decide(services.parse(SHOWN))

    assert decision.restart == ("postgresql@15-main.service", "nginx.service")
    assert dict(decision.left) == {
        "postgresql.service": "it does its work once",
        "systemd-logind.service": "it would end sessions",
        "my-greeter.service": "it would end sessions",
        "auditd.service": "it refuses to be stopped by hand",
        "flaky.service": "it is activating",
    }


@pytest.mark.parametrize(
    "name",
    [
        "dbus.service", "dbus-broker.service", "gdm3.service", "lightdm.service", "user@1000.service",
        "init.scope", "getty@tty1.service", "serial-getty@ttyS0.service", "NetworkManager.service",
        "docker.service", "snaptx-boot.service", "session-3.scope", "systemd-nspawn@web.service",
    ],
)  # fmt: skip
def test_what_would_end_session_or_machine_is_left(name: str) -> None:
    decision = services.decide([unit(name), unit("cron.service")])

    assert decision.restart == ("cron.service",)
    assert [left for left, reason in decision.left if reason] == [name]


def test_order_follows_dependencies_both_ways() -> None:
    units = [
        unit("a.service", after="d.service"),
        unit("b.service", before="a.service"),
        unit("c.service", after="a.service elsewhere.service"),
        unit("d.service", after="b.service"),
        unit("e.service"),
    ]

    assert services.decide(units).restart == ("b.service", "e.service", "d.service", "a.service", "c.service")


def test_circles_are_no_reason_to_give_up() -> None:
    units = [unit("a.service", after="b.service"), unit("b.service", after="a.service")]

    assert services.decide(units).restart == ("a.service", "b.service")


def test_alias_stands_for_the_unit() -> None:
    mail = unit("postfix@-.service", names=frozenset(["postfix@-.service", "mail.service"]))  # type: ignore[arg-type]

    assert services.decide([unit("a.service", after="mail.service"), mail]).restart == (
        "postfix@-.service",
        "a.service",
    )


@pytest.mark.parametrize(
    ("facts", "back"),
    [
        ({"invocation": "2"}, True),
        ({"invocation": "1"}, False),
        ({"invocation": "2", "active": "failed"}, False),
        ({"invocation": "2", "active": "activating", "sub": "auto-restart"}, False),
    ],
)
def test_back_is_what_runs_anew(facts: dict[str, str], back: bool) -> None:
    before, after = [unit("a.service")], [unit("a.service", **facts)]

    assert services.not_back(before, after, ["a.service"]) == (() if back else ("a.service",))
    assert services.not_back(before, [], ["a.service"]) == ("a.service",)
