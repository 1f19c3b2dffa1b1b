"""Who does not want an update, or a restart, now.

Three ways, for three kinds of people::

    touch /run/snaptx/inhibit            a script, for as long as it works; what the file says is the reason
    /etc/snaptx/hooks.d/update/NAME      a program that says no by its status, and why by its last line
    systemd-inhibit --what=shutdown …    anybody who does not want a restart
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from snaptx import checks, run, system
from snaptx.errors import SnaptxError
from snaptx.machine import Machine

FILE = "run/snaptx/inhibit"
STAGE = "update"
BUS = Path("/run/dbus/system_bus_socket")
SEATS = Path("/run/systemd/seats")
"""There if logind has started, or elogind: libsystemd, too, asks for it."""
LIST = (
    "busctl", "--system", "--json=short", "call", "org.freedesktop.login1", "/org/freedesktop/login1",
    "org.freedesktop.login1.Manager", "ListInhibitors",
)  # fmt: skip


def of_updates(machine: Machine) -> str:
    """Return why nothing is to be done unattended, "" if nobody minds."""
    if (machine.sysroot / FILE).exists():
        said = system.read_in_root(machine.sysroot, FILE, 200).decode(errors="replace")
        reason = " ".join(said.split()) or "it says no more"
        return f"/{FILE} is there: {reason}"
    for failure in checks.answers(machine, STAGE, machine.booted):
        return f"{failure.name} says no: {failure.reason}"
    return ""


def of_restart(machine: Machine) -> str:
    """Return why the machine is not to be restarted, "" if nobody minds."""
    if not system.is_running_root(machine.sysroot):
        return f"{machine.sysroot} is not the running system"
    if not (BUS.exists() and SEATS.exists()):
        return ""  # then there is no logind to keep anybody's wish
    try:
        blocking = blockers(json.loads(run.run(LIST).stdout))
    except (SnaptxError, ValueError, KeyError, TypeError) as error:
        return f"it can't be told whether somebody minds a restart: {error}"
    return "; ".join(blocking)


def blockers(answer: Any) -> list[str]:
    """Return who blocks a shutdown, from logind's ListInhibitors: what, who, why, mode, uid, pid of each."""
    (rows,) = answer["data"]
    return [
        f"{row[1]} blocks a restart: {row[2]}"
        for row in rows
        if "shutdown" in row[0].split(":") and row[3].startswith("block")
    ]
