"""Which services are restarted, in which order, and which are not: pure rules on what systemctl(1) shows.

A restart must not end the session of whoever asks for it, nor the machine's
network or machines inside it: those are listed, with what does it instead.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from graphlib import CycleError, TopologicalSorter
from typing import NamedTuple

PROPERTIES = (
    "Id", "Names", "Type", "ActiveState", "SubState", "After", "Before", "RefuseManualStop", "InvocationID",
)  # fmt: skip
"""What ``systemctl show --property`` is asked for."""

_SESSION, _NETWORK, _INSIDE = (
    "it would end sessions",
    "it would cut connections",
    "it would end what runs inside",
)
_LEFT = {
    "init.scope": "it is process 1: 'systemctl daemon-reexec' renews it",
    "dbus.service": "it would end sessions and disconnect services",
    "dbus-broker.service": "it would end sessions and disconnect services",
    "systemd-logind.service": _SESSION,
    "elogind.service": _SESSION,
    "display-manager.service": _SESSION,
    "user@*.service": _SESSION,
    "user-runtime-dir@*.service": _SESSION,
    **dict.fromkeys(
        ("gdm*.service", "sddm.service", "lightdm.service", "xdm.service", "lxdm.service", "slim.service",
         "greetd.service", "ly.service", "getty@*.service", "autovt@*.service", "serial-getty@*.service",
         "console-getty.service", "container-getty@*.service", "xrdp*.service"), _SESSION,
    ),
    **dict.fromkeys(
        ("NetworkManager.service", "networking.service", "network.service", "wpa_supplicant*.service",
         "iwd.service", "dhcpcd*.service", "ifup@*.service", "openvpn*.service", "wg-quick@*.service",
         "strongswan*.service", "pppd*.service"), _NETWORK,
    ),
    **dict.fromkeys(
        ("docker.service", "lxc*.service", "lxd.service", "incus*.service", "libvirt-guests.service",
         "systemd-nspawn@*.service", "machine-*.scope"), _INSIDE,
    ),
    "snaptx*.service": "it is what works here",
    "*.scope": "it was not started by systemd: end it and start it again",
}  # fmt: skip
"""Units that are left as they are, and why; the first that fits counts."""


class Unit(NamedTuple):
    """A unit as systemctl shows it; ``after`` are the units that start before it."""

    name: str
    names: frozenset[str]
    type: str
    active: str
    sub: str
    after: frozenset[str]
    before: frozenset[str]
    refuses: bool
    invocation: str

    @property
    def is_up(self) -> bool:
        """Return whether it runs, and is not about to be started again after a failure."""
        return self.active == "active"


class Decision(NamedTuple):
    """The units to restart, in their order, and those that are left, with the reason."""

    restart: tuple[str, ...]
    left: tuple[tuple[str, str], ...]


def parse(text: str) -> list[Unit]:
    """Return the units of ``systemctl show``, which separates them by empty lines."""
    return [_unit(dict(line.split("=", 1) for line in block.splitlines() if "=" in line))
            for block in text.strip().split("\n\n") if block.strip()]  # fmt: skip


def _unit(shown: Mapping[str, str]) -> Unit:
    def words(name: str) -> frozenset[str]:
        return frozenset(shown.get(name, "").split())

    return Unit(
        name=shown["Id"],
        names=words("Names") | {shown["Id"]},
        type=shown.get("Type", ""),
        active=shown.get("ActiveState", ""),
        sub=shown.get("SubState", ""),
        after=words("After"),
        before=words("Before"),
        refuses=shown.get("RefuseManualStop") == "yes",
        invocation=shown.get("InvocationID", ""),
    )


def decide(units: Sequence[Unit]) -> Decision:
    """Return what is restarted and what is left of the units concerned."""
    reasons = {unit.name: _reason(unit) for unit in units}
    left = tuple(sorted((name, reason) for name, reason in reasons.items() if reason))
    return Decision(_ordered([unit for unit in units if not reasons[unit.name]]), left)


def _reason(unit: Unit) -> str:
    for pattern, reason in _LEFT.items():
        if any(fnmatchcase(name, pattern) for name in unit.names):
            return reason
    if unit.refuses:
        return "it refuses to be stopped by hand"
    if unit.type == "oneshot":
        return "it does its work once"
    return "" if unit.is_up else f"it is {unit.active or 'unknown'}"


def _ordered(units: Sequence[Unit]) -> tuple[str, ...]:
    """Return the names with each after what it is to start after; by name where that says nothing."""
    names = {name: unit.name for unit in units for name in unit.names}
    graph: dict[str, set[str]] = {unit.name: set() for unit in units}
    for unit in units:
        graph[unit.name] |= {names[other] for other in unit.after if other in names} - {unit.name}
        for other in unit.before & names.keys() - unit.names:
            graph[names[other]].add(unit.name)
    try:
        return tuple(_sorted(graph))
    except CycleError:  # systemd breaks cycles in ways of its own
        return tuple(sorted(graph))


def _sorted(graph: Mapping[str, Iterable[str]]) -> Iterable[str]:
    sorter = TopologicalSorter(graph)
    sorter.prepare()
    while sorter.is_active():
        ready = sorted(sorter.get_ready())
        yield from ready
        sorter.done(*ready)


def not_back(before: Sequence[Unit], after: Sequence[Unit], restarted: Sequence[str]) -> tuple[str, ...]:
    """Return the restarted units that do not run, or were not restarted."""
    old = {unit.name: unit.invocation for unit in before}
    fine = {unit.name for unit in after if unit.is_up and unit.invocation != old.get(unit.name)}
    return tuple(name for name in restarted if name not in fine)
