"""A kernel is upgraded inside a generation, beside data that belongs to none; the way back is whole."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.vm import archive, product
from tests.vm.conftest import Maker
from tests.vm.guests import LONG, root_of, snaptx
from tests.vm.layouts import LAYOUTS
from tests.vm.run import End, Run

pytestmark = pytest.mark.vm

DATA = {
    "/home/user/letter": "a letter",
    "/srv/table": "a table",
    "/var/log/service.log": "a line",
    "/var/lib/mysql/ibdata": "a database",
}
LATE = {"/etc/late": "late", "/srv/late": "late", "/var/log/late.log": "late"}
DEBS = "/opt/kernel"
MODULE = "loop"


def has(run: Run, files: dict[str, str]) -> None:
    """See that files are there with their content."""
    for path, text in files.items():
        assert run.check(["cat", path]) == text, path


def kernel_of(run: Run) -> str:
    """Return the version of the running kernel, which finds its modules."""
    run.check(["modprobe", MODULE])
    assert f"{MODULE} " in run.check(["lsmod"])
    return run.check(["uname", "--kernel-release"]).strip()


def upgrades_the_kernel(run: Run) -> None:
    """Adopt the root, its data apart; commit a generation with another kernel; change something after it."""
    run.state(LONG)
    run.put(dict(DATA))
    converted = snaptx(run, "init", "--convert")["converted"]
    assert {"/srv", "/var/log", "/var/lib/mysql"} <= {one["path"] for one in converted}
    assert "/home" not in {one["path"] for one in converted}, "it is a subvolume already"
    has(run, DATA)
    install = ["sh", "-c", f"apt-get install --yes {DEBS}/*.deb"]
    run.check(["snaptx", "--quiet", "run", "--commit", "--message", "another kernel", "--", *install], LONG)
    run.put(dict(LATE))
    assert run.reboot() is End.REBOOT


def goes_back(run: Run) -> str:
    """See what was committed and what came late; write something; roll back; return the kernel."""
    assert run.state(LONG) in ("running", "degraded")
    assert root_of(run) == "@snaptx/generations/2/root"
    has(run, {**DATA, **LATE})
    for path in ("/home", "/srv", "/var/log", "/var/lib/mysql"):
        place = run.check(["findmnt", "--noheadings", "--output", "FSROOT", path]).strip()
        assert place == "/@" + path[1:].replace("/", "_")
    assert [row["marks"] for row in snaptx(run, "list")] == ["G", "NRG"]
    kernel = kernel_of(run)
    run.put({"/srv/newer": "written by generation 2"})
    assert snaptx(run, "rollback")["number"] == 3
    assert run.reboot() is End.REBOOT
    return kernel


def test_kernel_goes_forward_and_back_and_data_stays(machine_of: Maker, tmp_path: Path) -> None:
    packages = archive.newer_kernel(tmp_path / "packages")
    machine = machine_of("ubuntu")
    product.install_on(machine.disk, LAYOUTS["ubuntu"])
    with machine.boot() as run:
        run.put({f"{DEBS}/{path.name}": path for path in packages})
        old = kernel_of(run)
        upgrades_the_kernel(run)
    with machine.boot() as run:
        new = goes_back(run)
    with machine.boot() as run:
        assert run.state(LONG) in ("running", "degraded")
        assert root_of(run) == "@snaptx/generations/3/root"
        assert kernel_of(run) == old != new
        has(run, {**DATA, "/srv/newer": "written by generation 2", "/srv/late": "late"})
        assert run.shell(["test", "-e", f"/lib/modules/{new}"]).status == 1
        assert snaptx(run, "status")["unsettled"] == []
        assert run.poweroff() is End.POWEROFF
