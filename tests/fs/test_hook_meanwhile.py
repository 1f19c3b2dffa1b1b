"""The generation that a hook made, and what becomes of it while the package manager is at work."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.boxes import Box, Said, snaptx
from tests.fs.conftest import command
from tests.fs.test_packages_hook import machine, small  # noqa: F401
from tests.minimal_root import eventually

ME = ("--manager", "apt", "--caller", str(os.getpid()))


@pytest.mark.parametrize("wish", ["rollback --as-used 2", "pin 2"])
def test_what_somebody_relies_on_meanwhile_stays(machine: Box, wish: str) -> None:  # noqa: F811
    machine.ok("hook", "before", *ME)
    machine.ok(*wish.split())
    machine.ok("hook", "after", *ME)

    assert 2 in machine.marks()
    assert {entry.number for entry in machine.boot().entries} == {1, 2}
    assert machine.audit()[-1]["result"] == "done"
    assert machine.json("verify")["problems"] == machine.json("verify", "2")["problems"] == []


@pytest.mark.parametrize("mode", ["snapshot", "required"])
def test_work_in_a_staged_root_that_somebody_mounted_gets_none(
    machine: Box,  # noqa: F811
    tmp_path: Path,
    mode: str,
) -> None:
    place, staged = tmp_path / "mnt", machine.tree(2)
    place.mkdir()
    machine.configure(f'[hooks]\nmode = "{mode}"\n')
    machine.ok("run", "--", "touch", "/etc/new")
    source = command("findmnt", "-n", "-v", "-o", "SOURCE", machine.top).strip()
    command("mount", "-o", f"subvol={staged.relative_to(machine.top)}", source, place)
    try:
        said = [snaptx("--sysroot", str(place), "hook", moment, *ME) for moment in ("before", "after")]
    finally:
        command("umount", place)

    assert said == [Said(0, "", "")] * 2
    assert machine.marks() == {1: "NRG", 2: "s"}


def test_service_that_stays_begins_another_run_after_a_while(machine: Box) -> None:  # noqa: F811
    note, status = machine.state / "hook", machine.root / "var/lib/dpkg/status"
    machine.ok("hook", "before", *ME)
    os.utime(note, (time.time() - 3600,) * 2)
    status.write_text(status.read_text().replace("Version: 1", "Version: 1.1"))
    machine.ok("hook", "after", *ME)  # an hour of work is one run

    assert machine.ok("hook", "before", *ME) == ""
    os.utime(note, (time.time() - 3600,) * 2)
    assert "generation 3 is the system as it is" in machine.ok("hook", "before", *ME)
    status.write_text(status.read_text().replace("Version: 1.1", "Version: 1.2"))
    assert f"'{machine.program} rollback 3'" in machine.ok("hook", "after", *ME)
    assert machine.audit()[-1]["packages"]["upgraded"] == [{"name": "p0", "old": "1.1", "new": "1.2"}]


def test_what_is_in_use_is_not_said_to_be_removed(machine: Box) -> None:  # noqa: F811
    machine.ok("hook", "before", *ME)
    visitor = machine.start("exec", "--generation", "2", "--", "sleep", "100")
    eventually(lambda: b"sleep" in Path(f"/proc/{visitor.pid}/cmdline").read_bytes().split(b"\0"))
    try:
        machine.ok("hook", "after", *ME)
    finally:
        os.kill(visitor.pid, signal.SIGKILL)
        visitor.wait()

    assert machine.marks() == {1: "NRG", 2: "G"}
    assert machine.audit()[-1]["removed"] == []


@pytest.mark.parametrize("mode", ["snapshot", "required"])
def test_another_snaptx_that_ends_soon_is_waited_for(machine: Box, mode: str) -> None:  # noqa: F811
    status = machine.root / "var/lib/dpkg/status"
    machine.configure(f'[hooks]\nmode = "{mode}"\n')
    for moment in ("before", "after"):
        with subprocess.Popen(["flock", machine.state / "lock", "sleep", "1.5"]):
            time.sleep(0.5)
            said = machine.run("hook", moment, *ME)
        assert (said.code, "snaptx: warning" in said.err) == (0, False), said.err
        status.write_text(status.read_text().replace("Version: 1", "Version: 1.1"))

    assert 2 in machine.marks()
    assert machine.audit()[-1]["argv"][-1:] == [ME[-1]]
    assert machine.audit()[-1]["result"] == "done"
