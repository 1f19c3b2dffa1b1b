"""``upgrade`` with the real apt and dpkg, on a small root and packages made on the spot."""

from __future__ import annotations

import fcntl
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import btrfsutil
import pytest

from snaptx import cache, inventory
from snaptx.errors import LockError
from tests.boxes import Box, Said, changes, made
from tests.debs import Archive, Deb, Server, install, make_root, served
from tests.minimal_root import eventually

COUNT = 5
FAILING = "echo broken >&2; exit 3\n"


def package(number: int, version: str, **more: object) -> Deb:
    return Deb(f"p{number}", version, {f"/usr/share/p{number}": f"{version}\n"}, **more)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a root with five packages of version 1, one of them with a configuration file."""
    place = tmp_path_factory.mktemp("apt")
    root, archive = place / "root", Archive(place / "old")
    root.mkdir()
    make_root(root)
    archive.add(*(package(number, "1") for number in range(COUNT)), _configured("1"))
    install(root, *sorted(archive.directory.glob("*.deb")))
    return root


def _configured(version: str) -> Deb:
    return Deb("conf", version, {"/etc/conf": f"of {version}\n"}, conffiles=("/etc/conf",))


@pytest.fixture(scope="module")
def equipped(small: Path) -> Iterator[Box]:
    """Give a sandbox with that root, in which something was asked for before."""
    with made(source=small) as one:
        (one.root / "etc/apt/sources.list").touch()
        one.ok("upgrade")
        yield one


@pytest.fixture
def server(equipped: Box, tmp_path: Path) -> Iterator[Server]:
    """Give a server of an empty archive, which is the root's source; afterwards nothing is staged."""
    archive = Archive(tmp_path / "new")
    archive.index()
    with served(archive.directory) as one:
        (equipped.root / "etc/apt/sources.list").write_text(archive.source(one.port))
        yield one
    for number, marks in equipped.marks().items():
        if marks.endswith("s"):
            equipped.ok("abort", str(number))
    for path in (equipped.state / "cache").rglob("*.deb"):
        path.unlink()


@pytest.fixture
def archive(server: Server, tmp_path: Path) -> Archive:
    """Give the archive that is served."""
    return Archive(tmp_path / "new")


def fails(box: Box, code: int, *words: str) -> Said:
    """Run a verb that has to fail and to change nothing, of the running root not even a time."""
    before = box.facts()
    said = box.run(*words)
    assert said.code == code, (said.code, said.out, said.err)
    found = changes(before, box.facts())
    assert not found, found
    return said


def _repaired_before_each_question(box: Box) -> None:
    before = inventory.ask

    def ask(*args: Any) -> str:
        assert box.run("repair").code in (0, LockError.code)  # while it fetches, and while it stages
        return before(*args)

    setattr(inventory, "ask", ask)  # noqa: B010


def test_a_repair_meanwhile_takes_nothing_away(equipped: Box, archive: Archive) -> None:
    archive.add(package(1, "2"))
    said = equipped.start("upgrade", before=lambda: _repaired_before_each_question(equipped)).wait()

    assert said.code == 0, said.err


def test_upgrade_stages_what_the_archive_has(equipped: Box, archive: Archive) -> None:
    archive.add(*(package(number, "2") for number in range(COUNT)), Deb("more", "1"))
    archive.add(Deb("conf", "1.5", {"/etc/conf": "of 1\n"}, depends="more", conffiles=("/etc/conf",)))
    before = equipped.facts()
    done = equipped.json("upgrade")
    number = done["staged"]["number"]

    assert {package["name"] for package in done["outcome"]["packages"]["upgraded"]} == {
        "conf", *(f"p{number}" for number in range(COUNT))
    }  # fmt: skip
    assert done["outcome"]["packages"]["added"] == [{"name": "more", "old": "", "new": "1"}]
    assert (equipped.tree(number) / "usr/share/p3").read_text() == "2\n"
    running = {name: fact for name, fact in before.items() if name.startswith("running")}
    after = equipped.facts()
    assert changes(running, {name: after[name] for name in running}) == {}
    record = equipped.audit()[-1]
    assert (record["verb"], record["manager"]) == ("upgrade", "apt")
    assert record["packages"] == done["outcome"]["packages"]
    assert "packages: 6 upgraded, 1 added" in equipped.ok("log", "--last", "1")
    assert "upgrade of 7 package(s) by apt" in equipped.ok("list")
    assert equipped.json("verify")["problems"] == []


def test_diff_tells_packages(equipped: Box, archive: Archive) -> None:
    archive.add(package(0, "2"), package(1, "1.0"))
    number = str(equipped.json("upgrade")["staged"]["number"])

    assert equipped.ok("diff", "--packages", number) == ">  p0  1 -> 2\n>  p1  1 -> 1.0\n"
    assert equipped.ok("diff", "--packages", "--stat", number).endswith("packages: 2 upgraded\n")
    assert equipped.ok("diff", "--packages", "--name-only", number) == "p0\np1\n"
    back = equipped.json("diff", "--packages", number, "1")
    assert back["packages"]["downgraded"][0] == {"name": "p0", "old": "2", "new": "1"}
    assert not back["packages"]["upgraded"]


def test_diff_tells_packages_where_the_base_was_removed(small: Path, tmp_path: Path) -> None:
    archive = Archive(tmp_path / "new")
    with made(source=small) as one, served(archive.directory) as server:
        (one.root / "etc/apt/sources.list").write_text(archive.source(server.port))
        for version in "23":
            archive.add(package(0, version))
            later = time.time() + 60 * int(version)
            os.utime(archive.directory / "Packages", (later, later))  # or the client keeps the one it has
            one.ok("upgrade", "--commit")
            one.reboot()
        one.ok("confirm")
        one.ok("prune", "--keep", "1")

        newest = one.json("list")[-1]
        assert newest["base"] not in one.marks()
        assert one.ok("diff", "--packages") == ">  p0  2 -> 3\n"
        assert one.json("diff", "--packages")["old"] == newest["base"]


def test_nothing_to_do_makes_no_generation(equipped: Box, server: Server) -> None:
    assert "up to date" in fails(equipped, 77, "upgrade", "--unchanged-exit-77").out
    assert "up to date" in fails(equipped, 0, "upgrade").out


def test_dry_run_says_what_would_be_done_and_fetches_nothing(
    equipped: Box, archive: Archive, server: Server
) -> None:
    archive.add(package(0, "2"))

    assert "  p0  1 -> 2\n" in fails(equipped, 0, "--dry-run", "upgrade").out
    assert server.fetched == []


def test_failing_script_leaves_nothing_but_what_was_fetched(
    equipped: Box, archive: Archive, server: Server
) -> None:
    archive.add(package(0, "2"), package(1, "2", scripts={"postinst": FAILING}), package(2, "2"))

    assert "apt-get ended with status 100" in fails(equipped, 31, "upgrade").err
    assert len(server.fetched) == 3
    fails(equipped, 31, "upgrade")
    assert len(server.fetched) == 3
    assert equipped.audit()[-1]["remedy"] == "discarded"


def test_network_that_goes_away_costs_only_what_is_missing(
    equipped: Box, archive: Archive, server: Server
) -> None:
    archive.add(*(package(number, "2") for number in range(COUNT)))
    server.limit = 2

    said = fails(equipped, 34, "upgrade")
    assert "what was fetched is kept" in said.err
    assert len(server.fetched) == 2
    server.limit = None
    equipped.ok("upgrade")
    assert sorted(server.fetched) == [f"/./p{number}_2_all.deb" for number in range(COUNT)]


def test_source_that_is_gone_is_no_answer(equipped: Box, server: Server) -> None:
    (equipped.root / "etc/apt/sources.list").write_text("deb [trusted=yes] http://127.0.0.1:9/ ./\n")

    assert "look at the network" in fails(equipped, 34, "upgrade").err


@contextmanager
def held(lock: Path) -> Iterator[int]:
    """Let a process hold a lock as dpkg does, for the length of a with block; give its number."""
    lock.touch()
    holder = os.fork()
    if not holder:
        with lock.open("r+") as file:
            fcntl.lockf(file, fcntl.LOCK_EX)
            signal.pause()
        os._exit(0)
    try:
        eventually(lambda: f":{lock.stat().st_ino} " in Path("/proc/locks").read_text())
        yield holder
    finally:
        os.kill(holder, signal.SIGKILL)
        os.waitpid(holder, 0)


@pytest.mark.parametrize("name", ["lock-frontend", "lock"])
def test_no_upgrade_in_the_midst_of_another(equipped: Box, server: Server, name: str) -> None:
    with held(equipped.root / "var/lib/dpkg" / name) as holder:
        message, hint = fails(equipped, 34, "upgrade").complaint
        assert message == f"apt is at work in the running system: process {holder}"
        assert hint == "wait for it to end, then try again"


def test_damaged_database_is_named(equipped: Box, archive: Archive) -> None:
    archive.add(package(0, "2"))
    status = equipped.root / "var/lib/dpkg/status"
    sound = status.read_bytes()
    status.write_bytes(b"Package: p0\nno field\n\n")
    try:
        assert "status" in fails(equipped, 34, "upgrade").err
        number = equipped.json("run", "--", "sh", "-c", "echo x > /etc/x")["staged"]["number"]
        assert (
            f"look at it with '{equipped.program} shell'"
            in equipped.run("diff", "--packages", str(number)).err
        )
    finally:
        status.write_bytes(sound)


def test_interrupt_leaves_nothing(equipped: Box, archive: Archive) -> None:
    archive.add(package(0, "2", scripts={"postinst": "touch /var/reached; exec sleep 60\n"}))
    before = equipped.facts()
    running = equipped.start("upgrade")
    eventually(lambda: any(equipped.state.glob("generations/*/root/var/reached")), 30)
    os.kill(running.pid, signal.SIGINT)

    assert running.wait().code == 130
    assert changes(before, equipped.facts()) == {}


@pytest.mark.parametrize(
    ("policy", "kept", "beside"),
    [("keep", "mine\n", "/etc/conf.dpkg-dist"), ("new", "of 2\n", "/etc/conf.dpkg-old")],
)
def test_configuration_files_follow_the_policy(
    equipped: Box, archive: Archive, policy: str, kept: str, beside: str
) -> None:
    archive.add(_configured("2"))
    equipped.configure(f'[packages]\nconffiles = "{policy}"\n')
    (equipped.root / "etc/conf").write_text("mine\n")
    try:
        done = equipped.json("upgrade")
        assert (equipped.tree(done["staged"]["number"]) / "etc/conf").read_text() == kept
        assert done["outcome"]["conffiles"] == [beside]
        record = equipped.audit()[-1]
        assert (record["conffile_policy"], record["conffiles"]) == (policy, [beside])
    finally:
        (equipped.root / "etc/conf").write_text("of 1\n")
        equipped.configure("")


def test_run_tells_packages_as_well(equipped: Box, archive: Archive) -> None:
    archive.add(Deb("more", "7"))
    equipped.ok("run", "--", "apt-get", "-q", "update")
    equipped.ok("run", "--", "apt-get", "-q", "-y", "install", "more")
    record = equipped.audit()[-1]

    assert record["packages"]["added"] == [{"name": "more", "old": "", "new": "7"}]
    assert "packages" not in equipped.audit()[-2]


def test_two_managers_have_to_be_told_apart(equipped: Box, server: Server) -> None:
    rpm, release = equipped.root / "usr/bin/zypper", equipped.root / "etc/os-release"
    rpm.touch()
    known = release.read_text()
    try:
        equipped.ok("upgrade")
        release.write_text("ID=another\n")
        message, hint = fails(equipped, 34, "upgrade").complaint
        assert message == "several package managers were found: apt, zypper"
        assert hint == "set manager in [packages] of snaptx.conf"
        equipped.configure('[packages]\nmanager = "apt"\n')
        equipped.ok("upgrade")
    finally:
        rpm.unlink()
        release.write_text(known)
        equipped.configure("")


def test_root_without_a_manager_says_so(shared: Box) -> None:
    assert "no package manager was found" in fails(shared, 34, "upgrade").err


def test_full_disk(small: Path, tmp_path: Path) -> None:
    """While fetching, and while unpacking; either leaves the running root as it was."""
    archive = Archive(tmp_path / "new")
    archive.add(Deb("p0", "2", {"/usr/share/p0": "x" * (60 << 20)}))
    with made(source=small, size=512 << 20) as box, served(archive.directory) as server:
        (box.root / "etc/apt/sources.list").write_text(archive.source(server.port))
        box.ok("--dry-run", "upgrade")
        with _filled(box, 40 << 20):
            assert "there is no room for what it fetches" in fails(box, 53, "upgrade").err
        with _filled(box, 90 << 20):
            assert "No space left on device" in fails(box, 31, "upgrade").err
        box.ok("upgrade")


def test_undo_takes_what_was_fetched(small: Path, tmp_path: Path) -> None:
    archive = Archive(tmp_path / "new")
    archive.add(package(0, "2"))
    with made(source=small, init=False) as box, served(archive.directory) as server:
        (box.root / "etc/apt/sources.list").write_text(archive.source(server.port))
        before = _subvolumes(box)
        box.ok("init")
        box.ok("upgrade")
        assert "@snaptx/cache" in _subvolumes(box)
        with (box.state / cache.LOCK).open("r+") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            assert "another snaptx is at work" in box.refuses(4, "init", "--undo")
        box.ok("init", "--undo")

        assert _subvolumes(box) == before
        assert (box.root / "usr/share/p0").read_text() == "1\n"


def _subvolumes(box: Box) -> set[str]:
    return {path for path, _ in btrfsutil.SubvolumeIterator(str(box.top), top=5)}


class _filled:
    """Leaves so many bytes free, outside of every generation."""

    def __init__(self, box: Box, left: int) -> None:
        self._path, self._left = box.top / "filler", left

    def __enter__(self) -> None:
        space = os.statvfs(self._path.parent)
        with self._path.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, space.f_bavail * space.f_frsize - self._left)
            os.fsync(file.fileno())

    def __exit__(self, *_: object) -> None:
        self._path.unlink()
        os.sync()


def test_unattended_update_takes_packages_as_a_source(equipped: Box, archive: Archive) -> None:
    archive.add(package(0, "2"))
    words = ("update", "--policy", "stage", "--source", "packages")

    equipped.ok(*words)
    staged = max(equipped.marks())
    assert (equipped.tree(staged) / "usr/share/p0").read_text() == "2\n"
    listed = {row["number"]: row for row in equipped.json("list")}
    assert listed[staged]["updates"] == {"packages": "p0=2"}
    assert listed[staged]["message"] == "1 package(s): p0=2"
