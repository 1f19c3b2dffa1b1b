"""The hooks, called by the real apt, which works on the sandbox's running root from outside."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from snaptx import idle
from tests.boxes import Box, changes, made
from tests.debs import Archive, Deb, install, make_root, put_libraries

ROOT = Path(__file__).parents[2]
APT = """
Dir::Etc "{root}/etc/apt";
Dir::State "{root}/var/lib/apt";
Dir::State::status "{root}/var/lib/dpkg/status";
Dir::Cache "{root}/var/cache/apt";
Dir::Log "{root}/var/log/apt";
DPkg::Options:: "--root={root}";
APT::Sandbox::User "root";
"""


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a root with a package, and an archive with more inside it."""
    place = tmp_path_factory.mktemp("apt")
    root, old = place / "root", Archive(place / "old")
    root.mkdir()
    make_root(root)
    old.add(Deb("p0", "1", {"/usr/share/p0": "1"}))
    install(root, *old.directory.glob("*.deb"))
    new = Archive(root / "new")
    new.add(Deb("p0", "2", {"/usr/share/p0": "2"}), Deb("p1", "1", depends="p0 (>= 2)"))
    kernel = {"/boot/vmlinuz-9.9": "9.9", "/boot/initrd.img-9.9": "9.9", "/lib/modules/9.9/x": ""}
    new.add(Deb("kernel", "1", kernel))
    new.add(Deb("bad", "1", scripts={"postinst": "exit 3\n"}))
    return root


@pytest.fixture
def machine(small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Box]:
    """Give a sandbox with that root, and a ``snaptx`` for hooks that works on it."""
    with made(source=small) as one:
        (one.root / "etc/apt/sources.list").write_text(f"deb [trusted=yes] copy:{one.root}/new ./\n")
        bin_ = tmp_path / "bin"
        bin_.mkdir()
        (bin_ / "snaptx").write_text(
            f'#!/bin/sh\nexec {sys.executable} -m snaptx --sysroot {one.root} "$@"\n'
        )
        (bin_ / "snaptx").chmod(0o755)
        monkeypatch.setenv("PATH", f"{bin_}:{os.environ['PATH']}")
        monkeypatch.setenv("PYTHONPATH", str(ROOT))
        updated = _apt(one, "update")
        assert updated.returncode == 0, updated.stderr
        yield one


def _apt(box: Box, *words: str) -> subprocess.CompletedProcess[str]:
    """Run this machine's apt on the sandbox's root, with the hooks as they are shipped."""
    config = box.sandbox.directory.parent / f"{box.sandbox.directory.name}.apt"
    config.write_text(APT.format(root=box.root))
    command = ("apt-get", "-q", "-y", "-c", str(ROOT / "hooks/apt.conf"), *words)
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "APT_CONFIG": str(config)}
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    finally:
        config.unlink()


def test_apt_leaves_a_way_back(machine: Box) -> None:
    done = _apt(machine, "install", "p1")

    assert done.returncode == 0, done.stdout + done.stderr
    assert f"'{machine.program} rollback 2' goes back" in done.stdout
    assert machine.marks() == {1: "NRG", 2: "G"}
    assert (machine.root / "usr/share/p0").read_text() == "2"
    assert (machine.tree(2) / "usr/share/p0").read_text() == "1"
    assert [entry.number for entry in machine.boot().entries] == [1, 2]
    assert (machine.boot().default, machine.boot().fallback) == (1, 2)
    before, after = machine.audit()[-2:]
    assert (before["verb"], before["generation"], before["base"]) == ("hook", 2, 1)
    assert before["message"].startswith("before apt-get -q -y")
    assert after["packages"]["upgraded"] == [{"name": "p0", "old": "1", "new": "2"}]
    assert after["packages"]["added"] == [{"name": "p1", "old": "", "new": "1"}]
    assert machine.json("verify", "2")["problems"] == []
    assert machine.json("verify")["problems"] == []


def test_rollback_goes_to_before_the_run(machine: Box) -> None:
    _apt(machine, "install", "p1")
    machine.ok("rollback")
    machine.reboot()

    assert machine.boot().default == 3
    assert (machine.root / "usr/share/p0").read_text() == "1"
    assert not (machine.root / "var/lib/dpkg/info/p1.list").exists()


def test_run_without_work_leaves_nothing(machine: Box) -> None:
    trail = machine.audit()

    assert _apt(machine, "install", "p0=1").returncode == 0
    assert machine.audit() == trail
    caller = str(os.getpid())
    assert "is the system as it is before" in machine.ok(
        "hook", "before", "--manager", "apt", "--caller", caller
    )
    assert machine.ok("hook", "after", "--manager", "apt", "--caller", caller) == ""
    assert machine.marks() == {1: "NRG"}
    assert [entry.number for entry in machine.boot().entries] == [1]


def test_one_generation_for_each_run(machine: Box) -> None:
    words = ("--manager", "apt", "--caller", str(os.getpid()))
    machine.ok("hook", "before", *words)

    assert machine.ok("hook", "before", *words) == ""
    assert list(machine.marks()) == [1, 2]
    machine.ok("hook", "before", "--manager", "apt", "--caller", "1")
    assert list(machine.marks()) == [1, 2, 3]


def test_the_menu_follows_a_new_kernel(machine: Box) -> None:
    assert "sandbox" in machine.boot().entries[0].kernel
    done = _apt(machine, "install", "kernel")

    assert done.returncode == 0, done.stderr
    kernels = {entry.number: entry.kernel for entry in machine.boot().entries}
    assert kernels[1].endswith("/vmlinuz-9.9")
    assert "sandbox" in kernels[2]
    assert machine.json("verify")["problems"] == []


def test_failed_run_is_on_record(machine: Box) -> None:
    done = _apt(machine, "install", "bad")

    assert done.returncode == 100
    assert machine.audit()[-1]["packages"]["added"] == [{"name": "bad", "old": "", "new": "1"}]
    assert list(machine.marks()) == [1, 2]


def test_the_next_generation_is_indexed_from_the_last(machine: Box) -> None:
    _apt(machine, "install", "p0")
    _apt(machine, "install", "p1")

    assert list(machine.marks()) == [1, 2, 3]
    assert machine.json("verify", "3")["problems"] == []
    listed = {row["number"]: row for row in machine.json("list")}
    assert (listed[3]["copy"], listed[3]["base"]) == (1, 1)


def _locked(box: Box, *words: str) -> subprocess.CompletedProcess[str]:
    """Run apt while another snaptx is at work."""
    with (box.state / "lock").open("r+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return _apt(box, *words)


def test_failing_hook_warns_and_lets_apt_go_on(machine: Box) -> None:
    done = _locked(machine, "install", "p1")

    assert done.returncode == 0
    assert "snaptx: warning: no generation was made: another snaptx is at work" in done.stderr
    assert "hint: wait for it to end" in done.stderr
    assert (machine.root / "usr/share/p0").read_text() == "2"
    assert machine.marks() == {1: "NRG"}


def test_required_hook_stops_apt_before_it_begins(machine: Box) -> None:
    machine.configure('[hooks]\nmode = "required"\n')
    done = _locked(machine, "install", "p1")

    assert done.returncode == 100
    assert "another snaptx is at work" in done.stderr
    assert (machine.root / "usr/share/p0").read_text() == "1"
    assert _apt(machine, "install", "p1").returncode == 0


def test_hook_that_is_off_does_nothing(machine: Box) -> None:
    machine.configure('[hooks]\nmode = "off"\n')
    before = machine.facts()
    words = ("--manager", "apt", "--caller", str(os.getpid()))

    assert machine.ok("hook", "before", *words) == machine.ok("hook", "after", *words) == ""
    assert changes(before, machine.facts()) == {}


def test_mistaken_configuration_warns(machine: Box) -> None:
    machine.configure('[hooks]\nmode = "sometimes"\n')

    said = machine.run("hook", "before", "--manager", "apt")
    assert (said.code, said.out) == (0, "")
    assert "'sometimes' is not possible" in said.err


def test_after_without_before_warns(machine: Box) -> None:
    said = machine.run("hook", "after", "--manager", "apt")

    assert said.code == 0
    assert "no generation was made before this run of apt" in said.err


def test_caller_that_does_not_exist(machine: Box) -> None:
    said = machine.run("hook", "before", "--manager", "apt", "--caller", str((1 << 22) + 1))

    assert said.code == 0
    assert "there is no process" in said.err


def test_root_that_nobody_manages_is_left_alone(small: Path) -> None:
    with made(init=False) as box:
        said = box.run("hook", "before", "--manager", "apt")
        assert (said.code, said.out, said.err) == (0, "", "")
        box.configure('[hooks]\nmode = "required"\n')
        assert "not managed by snaptx" in box.run("hook", "before", "--manager", "apt").err


def test_work_in_a_generation_calls_no_hook(
    machine: Box, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """By what is mounted there; a variable that somebody has set does not count."""
    words = ("hook", "before", "--manager", "apt")
    monkeypatch.setattr(idle, "MARK", str(tmp_path))
    assert machine.ok(*words) == ""
    monkeypatch.setattr(idle, "MARK", str(tmp_path / "missing"))
    monkeypatch.setenv("SNAPTX_TRANSACTION", "0")
    assert "generation 2" in machine.ok(*words)


def test_mark_is_there_in_an_enclosure(machine: Box) -> None:
    machine.ok("run", "--", "test", "-e", idle.MARK)


@pytest.fixture(scope="module")
def programmed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a root that has snaptx, and apt with its hooks; what snaptx is asked lands in /var/asked."""
    root = tmp_path_factory.mktemp("programmed") / "root"
    root.mkdir()
    make_root(root)
    python, library = Path(sys.executable).resolve(), Path(sysconfig.get_path("stdlib"))
    put_libraries(root, python)
    shutil.copy(python, root / "usr/bin/python3")
    unneeded = shutil.ignore_patterns("test", "dist-packages", "site-packages", "__pycache__", "config-*")
    shutil.copytree(library, root / "usr/lib" / library.name, ignore=unneeded)
    shutil.copytree(ROOT / "snaptx", root / "opt/snaptx", ignore=unneeded)
    settings = f"PYTHONHOME=/usr PYTHONPATH=/opt LD_LIBRARY_PATH=/usr{sysconfig.get_config_var('LIBDIR')}"
    script = f'#!/bin/sh\necho "$*" >>/var/asked\n{settings} exec python3 -S -m snaptx "$@"\n'
    (root / "usr/bin/snaptx").write_text(script)
    (root / "usr/bin/snaptx").chmod(0o755)
    shutil.copy(ROOT / "hooks/apt.conf", root / "etc/apt/apt.conf.d/80snaptx")
    (root / "etc/apt/sources.list").write_text("deb [trusted=yes] copy:/new ./\n")
    Archive(root / "new").add(Deb("p1", "1", {"/usr/share/p1": "1"}))
    return root


def test_apt_in_a_generation_makes_no_second_one(programmed: Path) -> None:
    """Its hooks call a snaptx that could not even load what it needs for more than to see where it is."""
    with made(source=programmed) as box:
        box.configure('[hooks]\nmode = "required"\n')
        box.ok("run", "--", "sh", "-c", "apt-get -q update && apt-get -q -y install p1")

        asked = [line.split()[:2] for line in (box.tree(2) / "var/asked").read_text().splitlines()]
        assert asked == [["hook", "before"], ["hook", "after"]]
        assert (box.tree(2) / "usr/share/p1").read_text() == "1"
        assert list(box.marks()) == [1, 2]
        assert [record["verb"] for record in box.audit()] == ["init", "run"]


@pytest.mark.parametrize("mode", ["snapshot", "required"])
def test_database_that_is_damaged_afterwards_is_told(machine: Box, mode: str) -> None:
    """What was done is done; the way back stays."""
    machine.configure(f'[hooks]\nmode = "{mode}"\n')
    words = ("--manager", "apt", "--caller", str(os.getpid()))
    machine.ok("hook", "before", *words)
    (machine.root / "var/lib/dpkg/status").write_bytes(b"Package: p0\nno field\n\n")
    said = machine.run("hook", "after", *words)

    assert said.code == 0
    assert "snaptx: warning: this is not on record: dpkg-query ended with status 2: " in said.err
    assert machine.json("list")[-1]["number"] == 2
    machine.ok("rollback", "2")
    machine.reboot()
    assert b"no field" not in (machine.root / "var/lib/dpkg/status").read_bytes()


def test_power_cut_in_the_midst_of_apt_finds_it_in_the_menu(machine: Box) -> None:
    machine.ok("hook", "before", "--manager", "apt")
    machine.reboot()

    assert [entry.number for entry in machine.boot().entries] == [1, 2]
    assert machine.boot().default == 1
    machine.ok("repair")
    assert machine.json("verify", "2")["problems"] == []


def test_killed_hook_is_settled(machine: Box) -> None:
    """Before its record is written it is discarded, after that it gets into the menu."""
    words = ("hook", "before", "--manager", "apt", "--caller", "1")
    for step, kept in (("record", [1]), ("menu", [1, 3])):
        running = machine.start(*words, before=lambda step=step: _killed_at(step))  # type: ignore[misc]
        _, status = os.waitpid(running.pid, 0)
        assert os.WIFSIGNALED(status)
        machine.ok("repair")
        assert [
            entry.number for entry in sorted(machine.boot().entries, key=lambda entry: entry.number)
        ] == kept
        assert list(machine.marks()) == kept


def _killed_at(step: str) -> None:
    from snaptx.journal import Journal

    def stop(self: Journal, name: str) -> None:
        if name == step:
            os.kill(os.getpid(), 9)

    Journal.step = stop  # type: ignore[method-assign]


def test_what_builds_on_the_copy_leaves_behind_what_came_after_it(machine: Box) -> None:
    _apt(machine, "install", "p1")
    machine.ok("run", "--base", "2", "--commit", "--", "touch", "/etc/new")

    assert (machine.tree(3) / "usr/share/p0").read_text() == "1"
    assert not (machine.tree(3) / "var/lib/dpkg/info/p1.list").exists()
    assert (machine.boot().default, machine.boot().fallback) == (3, 1)


@pytest.mark.parametrize("way", [("--base", "2"), ()], ids=["upon it", "after a rollback to it"])
def test_work_goes_on_after_a_run_that_was_cut(machine: Box, tmp_path: Path, way: tuple[str, ...]) -> None:
    (tmp_path / "new").mkdir()
    (tmp_path / "new/file").write_text("new")
    machine.ok("hook", "before", "--manager", "apt")
    machine.reboot()
    assert machine.json("verify")["problems"] == []
    if not way:
        machine.ok("rollback", "2")
        machine.reboot()
        machine.ok("confirm")
    number = machine.json("apply", *way, str(tmp_path / "new"))["staged"]["number"]

    assert (machine.tree(number) / "file").read_text() == "new"
    assert machine.json("verify", str(number))["problems"] == []


def test_what_cannot_be_noted_is_not_made(machine: Box) -> None:
    def refused() -> None:
        from snaptx import durable
        from snaptx.errors import NoSpaceError

        before = durable.replace

        def replace(path: Path, *data: Any, **how: Any) -> None:
            if path.name == "hook":
                raise NoSpaceError("cannot write hook: No space left on device", hint="make room")
            before(path, *data, **how)

        durable.replace = replace

    said = machine.start("hook", "before", "--manager", "apt", before=refused).wait()

    assert "no generation was made" in said.err
    assert list(machine.marks()) == [1]
