"""dnf, zypper and pacman, the real ones, with small repositories: in generations, and with their hooks."""

from __future__ import annotations

import fcntl
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.boxes import Box, changes, made
from tests.debs import Server, served
from tests.packages.kits import KITS, Kit, relayed
from tests.packages.trees import inside

SIZE = 3 << 30


def stamps(root: Path) -> dict[str, object]:
    """Return what tells that nothing was touched: whoever changes a path changes its ctime."""
    found: dict[str, object] = {}
    for place, below, names in os.walk(root):
        below[:] = [name for name in below if not os.path.ismount(os.path.join(place, name))]
        for name in ("", *names, *below):
            path = os.path.join(place, name)
            one = os.lstat(path)
            found[path] = (
                one.st_mode,
                one.st_ino,
                one.st_nlink,
                one.st_size,
                one.st_mtime_ns,
                one.st_ctime_ns,
            )
    return found


@dataclass(frozen=True)
class Ground:
    """A sandbox, its package manager, and the repository that is served to it."""

    box: Box
    kit: Kit
    repository: Path
    server: Server

    def offer(self, *packages: object) -> None:
        """Add packages to the repository."""
        self.kit.build(self.box.root, self.repository, *packages)

    def package(self, name: str, number: int, **more: object) -> object:
        """Return a package with one file."""
        version = f"{number}{self.kit.release}"
        return self.kit.make(name, version, {f"/usr/share/{name}": str(number)}, **more)

    def fails(self, code: int, *words: str) -> str:
        """Run a verb that has to fail and to change nothing, of the running root not even a time."""
        before, marks = stamps(self.box.root), self.box.marks()
        said = self.box.run(*words)
        assert said.code == code, (said.code, said.out, said.err)
        found = changes(before, stamps(self.box.root))
        assert not found, found
        assert self.box.marks() == marks
        return said.err

    def changed(self, kind: str) -> list[tuple[str, str, str]]:
        """Return the packages of the newest audit record that has any."""
        record = next(record for record in reversed(self.box.audit()) if "packages" in record)
        assert record["manager"] == self.kit.name
        return [(package["name"], package["old"], package["new"]) for package in record["packages"][kind]]


@pytest.fixture(scope="module", params=KITS, ids=lambda kit: kit.title or kit.name)
def whole(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    """Give a sandbox with four packages of version 1 installed, one of them with a configuration file."""
    kit: Kit = request.param
    repository = tmp_path_factory.mktemp(kit.name)
    with served(repository) as server, made(source=kit.tree(), size=SIZE, init=False) as box:
        ground = Ground(box, kit, repository, server)
        kit.prepare(box.root, f"http://127.0.0.1:{server.port}/")
        conf = kit.make("conf", f"1{kit.release}", {"/etc/conf": "of 1"})
        ground.offer(*(ground.package(f"p{number}", 1) for number in range(3)), conf, *kit.base)
        kit.put(box.root, repository)
        box.configure(f'[packages]\nmanager = "{kit.name}"\n')
        box.ok("init")
        box.ok("--dry-run", "upgrade")
        yield ground


@pytest.fixture
def ground(whole: Ground) -> Iterator[Ground]:
    """Give it with nothing staged, and nothing fetched or offered but version 1."""
    yield whole
    for number, marks in whole.box.marks().items():
        if marks.endswith("s"):
            whole.box.ok("abort", str(number))
    for path in [*whole.repository.glob("*"), *(whole.box.state / "cache").rglob("*.rpm")]:
        if path.is_file() and "-1-1" not in path.name:
            path.unlink()
    for path in (whole.box.state / "cache").rglob("*.pkg.tar"):
        path.unlink()
    whole.server.fetched.clear()
    whole.server.limit = None
    whole.offer()


def test_upgrade(ground: Ground) -> None:
    box, kit = ground.box, ground.kit
    conf = kit.make("conf", f"2{kit.release}", {"/etc/conf": "of 2"})
    ground.offer(*(ground.package(f"p{number}", 2) for number in range(3)), conf)
    (box.root / "etc/conf").write_text("mine\n")
    before = stamps(box.root)
    number = box.json("upgrade")["staged"]["number"]

    assert changes(before, stamps(box.root)) == {}
    assert ground.changed("upgraded") == [
        (kit.named(name), kit.version(1), kit.version(2)) for name in ("conf", "p0", "p1", "p2")
    ]
    assert (box.tree(number) / "usr/share/p1").read_text() == "2\n"
    assert (box.tree(number) / "etc/conf").read_text() == "mine\n"
    assert box.audit()[-1]["conffiles"] == [f"/etc/conf{kit.beside}"]
    assert box.audit()[-1]["conffile_policy"] == "the package manager's"
    assert "packages: 4 upgraded" in box.ok("log", "--last", "1")
    assert kit.named("p2") in box.ok("diff", "--packages", str(number))
    assert "up to date" in box.ok("upgrade")
    assert box.json("verify")["problems"] == []


def test_nothing_to_do(ground: Ground) -> None:
    ground.fails(77, "upgrade", "--unchanged-exit-77")


def test_install_and_remove(ground: Ground) -> None:
    ground.offer(ground.package("more", 1))
    ground.box.ok("run", "--", *ground.kit.install, "more")
    assert ground.changed("added") == [(ground.kit.named("more"), "", ground.kit.version(1))]
    ground.box.ok("run", "--", *ground.kit.remove, "more", "p0")
    assert [name for name, _, _ in ground.changed("removed")] == [
        ground.kit.named("more"),
        ground.kit.named("p0"),
    ]
    assert ground.box.json("verify")["problems"] == []


def test_failing_scriptlet(ground: Ground) -> None:
    scripts = {ground.kit.failing: "echo broken; exit 1"}
    ground.offer(ground.package("p0", 2), ground.package("p1", 2, scripts=scripts))
    if not ground.kit.aborts:
        ground.box.ok("upgrade")
        assert ground.box.json("verify")["problems"] == []
        assert "up to date" in ground.box.ok("upgrade")
        return
    ground.fails(31, "upgrade")
    fetched = len(ground.server.fetched)
    assert fetched == 2
    ground.fails(31, "upgrade")
    assert len(ground.server.fetched) == fetched


def test_network_gone_halfway(ground: Ground) -> None:
    ground.offer(*(ground.package(f"p{number}", 2) for number in range(3)))
    ground.server.limit = 1

    assert "what was fetched is kept" in ground.fails(34, "upgrade")
    ground.server.limit = None
    ground.box.ok("upgrade")
    assert len(ground.changed("upgraded")) == 3


@pytest.fixture
def proxied(ground: Ground) -> Iterator[Ground]:
    """Give it with something to upgrade from a repository that only a proxy knows: the server can be that."""
    ground.offer(ground.package("p0", 2))
    root, names = ground.box.root, ground.repository / "http:"
    names.mkdir()
    (names / "archive.invalid").symlink_to("..")
    ground.kit.prepare(root, "http://archive.invalid/")
    try:
        yield ground
    finally:
        (names / "archive.invalid").unlink()
        names.rmdir()
        ground.kit.prepare(root, f"http://127.0.0.1:{ground.server.port}/")


def test_proxy_of_the_environment_is_asked(proxied: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    assert "the proxy" in proxied.fails(34, "upgrade")
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{proxied.server.port}")
    proxied.box.ok("upgrade")

    (fetched,) = proxied.server.fetched
    assert fetched.startswith("http://archive.invalid/")


def test_cache_that_may_not_grow(ground: Ground) -> None:
    """By a quota of its own; zypper fetches elsewhere, and a copy that shares its blocks gets around that."""
    kit, top, limit = ground.kit, str(ground.box.top), str(ground.box.state / "cache")
    ground.offer(kit.make("p0", f"2{kit.release}", {"/usr/share/p0": os.urandom(4 << 20).hex()}))
    _btrfs("quota", "enable", top)
    try:
        _btrfs("quota", "rescan", "-w", top)
        _btrfs("qgroup", "limit", "2M", limit)
        if kit.name != "zypper":
            assert "there is no room for what it fetches" in ground.fails(53, "upgrade")
            _btrfs("qgroup", "limit", "none", limit)
        ground.box.ok("upgrade")
    finally:
        _btrfs("quota", "disable", top)


def _btrfs(*words: str) -> None:
    subprocess.run(["btrfs", *words], check=True, capture_output=True)


def test_no_upgrade_in_the_midst_of_another(ground: Ground) -> None:
    ground.offer(ground.package("p0", 2))
    if ground.kit.name == "pacman":
        lock = ground.box.root / "var/lib/pacman/db.lck"
        lock.touch()
        try:
            assert "/var/lib/pacman/db.lck says so" in ground.fails(34, "upgrade")
        finally:
            lock.unlink()
        return
    script = (
        "import fcntl,sys; f=open(sys.argv[1],'r+'); fcntl.lockf(f,fcntl.LOCK_EX); print(flush=True); input()"
    )
    lock = ground.box.root / "var/lib/rpm/.rpm.lock"
    lock.touch()
    words = ["python3", "-c", script, str(lock)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout
        holder.stdout.read(1)
        assert f"process {holder.pid}" in ground.fails(34, "upgrade")
        holder.communicate(b"\n")


def test_damaged_database(ground: Ground) -> None:
    name = (
        "var/lib/pacman/local/ALPM_DB_VERSION" if ground.kit.name == "pacman" else "var/lib/rpm/rpmdb.sqlite"
    )
    path = ground.box.root / name
    sound = path.read_bytes()
    path.write_bytes(b"\0" * len(sound))
    try:
        ground.offer(ground.package("p0", 2))
        ground.fails(34, "upgrade")
    finally:
        path.write_bytes(sound)


def test_hooks(ground: Ground) -> None:
    """A run of the package manager in the running system: made before, on record after, and a way back."""
    box, kit = ground.box, ground.kit
    ground.offer(ground.package("hooked", 1), ground.package("another", 1))
    for name in ("hooked", "another"):
        with relayed(box.root) as asked:
            inside(box.root, *kit.install, name)
        assert [line.split()[:3] for line in asked] == [["0", "hook", "before"], ["0", "hook", "after"]], (
            asked
        )
        assert ground.changed("added") == [(kit.named(name), "", kit.version(1))]
        number = max(box.marks())
        assert box.marks()[number] == "G"
        assert not (box.tree(number) / f"usr/share/{name}").exists()
        assert not (box.tree(number) / "var/lib/pacman/db.lck").exists()
        assert box.json("verify", str(number))["problems"] == []
    with relayed(box.root):
        inside(box.root, *kit.remove, "hooked", "another")
    assert len(ground.changed("removed")) == 2


def test_required_hook_stops_it(ground: Ground) -> None:
    box, kit = ground.box, ground.kit
    ground.offer(ground.package("stopped", 1))
    box.configure(f'[packages]\nmanager = "{kit.name}"\n[hooks]\nmode = "required"\n')
    try:
        with relayed(box.root) as asked, (box.state / "lock").open("r+") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            with pytest.raises(AssertionError):
                inside(box.root, *kit.install, "stopped")
        assert asked[0].startswith("4 hook before")
        assert not (box.root / "usr/share/stopped").exists()
    finally:
        box.configure(f'[packages]\nmanager = "{kit.name}"\n')


def test_the_hooks_that_snaptx_leaves_behind_hinder_nobody(ground: Ground) -> None:
    tool = ground.box.root / "usr/bin/snaptx"
    ground.offer(ground.package("free", 1))
    tool.rename(tool.with_name("gone"))
    try:
        inside(ground.box.root, *ground.kit.install, "free")
        inside(ground.box.root, *ground.kit.remove, "free")
    finally:
        tool.with_name("gone").rename(tool)
