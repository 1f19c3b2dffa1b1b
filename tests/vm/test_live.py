"""A live switch under a running systemd: services follow, are restarted, taken back, and a reboot ends it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.vm import image, product
from tests.vm.guests import root_of, snaptx
from tests.vm.machine import Machine
from tests.vm.run import End, Run

pytestmark = pytest.mark.vm

PROGRAM = "/usr/bin/busybox-answering"
"""Busybox goes by its own name: any other is an applet's."""

UNIT = f"""[Service]
ExecStart={PROGRAM} sleep 1000000
"""
APART = """[Service]
ExecStart=/usr/bin/sleep 1000000
ProtectSystem=strict
"""
BUSYBOX = Path("/bin/busybox")


def update(directory: Path, number: int, program: bytes) -> dict[str, Path]:
    """Return an update with another program."""
    (directory / "program").write_bytes(program)
    (directory / "program").chmod(0o755)
    (directory / "who").write_text(f"{number}\n")
    return {
        f"/run/{number}{PROGRAM}": directory / "program",
        f"/run/{number}/usr/share/who": directory / "who",
    }


def outdated(run: Run) -> list[str]:
    """Return the units that use what was replaced."""
    return [group["name"] for group in snaptx(run, "ps")]


def executable(run: Run) -> str:
    """Return what the service runs."""
    pid = run.check(["systemctl", "show", "--value", "--property=MainPID", "answer.service"]).strip()
    return run.check(["stat", "--dereference", "--format=%d %i", f"/proc/{pid}/exe"])


def goes_live(run: Run) -> None:
    """See the new trees, with the service on the old program until it is restarted."""
    done: dict[str, Any] = snaptx(run, "apply", "--live", "/run/2")["live"]
    assert done["number"] == 2
    assert "/usr" in done["paths"]
    assert {"apart.service", "systemd-logind.service"} <= {owner["name"] for owner in done["apart"]}
    assert run.check(["cat", "/usr/share/who"]) == "2\n"
    assert outdated(run) == ["answer.service"]
    plan = snaptx(run, "--dry-run", "restart")
    assert plan["restart"] == ["answer.service", "apart.service"]
    assert "systemd-logind.service" in dict(plan["left"])
    old = executable(run)
    snaptx(run, "restart")
    assert executable(run) != old
    assert executable(run) == run.check(["stat", "--format=%d %i", PROGRAM])
    assert outdated(run) == []
    assert run.check(["systemctl", "is-active", "answer.service", "apart.service"]).split() == [
        "active",
        "active",
    ]


def is_taken_back(run: Run) -> None:
    """Go on to a program that fails: what was live before is live again, and the service runs."""
    snaptx(run, "apply", "--base", "1", "--live", "/run/3")
    assert run.check(["cat", "/usr/share/who"]) == "3\n"
    failed = run.shell(["snaptx", "restart"], 300)
    assert failed.status == 32
    assert "answer.service" in failed.output
    assert run.check(["cat", "/usr/share/who"]) == "2\n"
    assert run.check(["systemctl", "is-active", "answer.service"]).strip() == "active"


def test_services_follow_and_a_reboot_ends_it(tmp_path: Path) -> None:
    program = BUSYBOX.read_bytes()
    with Machine(image.image("debian"), tmp_path) as machine:
        with machine.boot() as run:
            units = {"/etc/systemd/system/answer.service": UNIT, "/etc/systemd/system/apart.service": APART}
            run.put({**product.files(), PROGRAM: BUSYBOX, **units})
            adopted = root_of(run)
            # How it boots is for other tests: the boot loader stays what it was.
            snaptx(run, "init", "--accept-rollback", "--no-boot-loader")
            run.check(["systemctl", "daemon-reload"])
            run.check(["systemctl", "start", "answer.service", "apart.service"])
            assert run.check(["systemctl", "is-active", "answer.service"]).strip() == "active"
            assert outdated(run) == []
            run.put(update(tmp_path, 2, program + b"two"))
            run.put(update(tmp_path, 3, b"#!/bin/false\n"))
            goes_live(run)
            is_taken_back(run)
            assert run.check(["snaptx", "exec", "-g", "3", "--", "cat", "/usr/share/who"]) == "3\n"
            assert snaptx(run, "status")["live"].startswith("generation 2")
            assert run.reboot() is End.REBOOT
        with machine.boot() as run:
            run.state()
            assert root_of(run) == adopted
            assert run.shell(["cat", "/usr/share/who"]).status == 1
            assert snaptx(run, "status")["live"] == ""
