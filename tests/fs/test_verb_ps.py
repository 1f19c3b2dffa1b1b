"""``ps``: who still uses what was replaced or deleted, and nobody else."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.boxes import Box, changes, made
from tests.minimal_root import eventually

Start = Callable[..., int]

HOLDER = """
import ctypes, mmap, os, sys, tempfile
kept = []
def hold(path, prot=mmap.PROT_READ):
    with open(path, "rb") as file:
        kept.append(mmap.mmap(file.fileno(), 0, prot=prot))
root = sys.argv[1].encode()
exec(sys.argv[2])
print("ready", flush=True)
sys.stdin.read()
"""


@pytest.fixture(scope="module")
def equipped(tmp_path_factory: pytest.TempPathFactory, programs: Path) -> Iterator[Box]:
    """Give a sandbox with two generations."""
    with made(source=programs) as box:
        box.ok("run", "--", "touch", "/etc/two")
        yield box


@pytest.fixture
def ground(equipped: Box) -> Box:
    """Give that sandbox with an empty /opt/app and /tmp."""
    for name in ("opt/app", "tmp", "home"):
        shutil.rmtree(equipped.root / name, ignore_errors=True)
        (equipped.root / name).mkdir(parents=True)
    return equipped


@pytest.fixture
def start() -> Iterator[Start]:
    """Give a function that starts a process, or one that holds what a script says, to the end of the test."""
    with ExitStack() as stack:

        def begin(*argv: str | Path, script: str = "", cwd: Path | None = None) -> int:
            words = [sys.executable, "-c", HOLDER, *argv, script] if script else list(argv)
            process = subprocess.Popen(
                words, stdin=subprocess.PIPE, stdout=subprocess.PIPE if script else None, cwd=cwd
            )
            stack.callback(process.wait)
            stack.callback(process.kill)
            assert not script or (process.stdout and process.stdout.readline() == b"ready\n")
            return process.pid

        yield begin


def uses(box: Box, pid: int, *words: str) -> list[tuple[str, str, str]]:
    """Return what ``ps`` says of a process: how, path and state."""
    found = [process for group in box.json("ps", *words) for process in group["processes"]]
    return [
        (use["how"], use["path"], use["state"])
        for process in found
        if process["pid"] == pid
        for use in process["uses"]
    ]


def program(box: Box, name: str) -> Path:
    """Return a program of the running root that sleeps."""
    path = box.root / "opt/app" / name
    shutil.copy(box.root / "usr/bin/busybox", path)
    return path


def replace(path: Path) -> None:
    """Put a new file in its place, as a package manager does."""
    fresh = path.with_name("fresh")
    shutil.copy(path, fresh)
    fresh.rename(path)


def running(pid: int) -> Callable[[], bool]:
    """Return whether the process has become what it was told to."""
    return lambda: b"busybox" in Path(f"/proc/{pid}/cmdline").read_bytes()


def test_replaced_and_deleted_programs_are_found(ground: Box, start: Start) -> None:
    replaced, deleted, kept = (program(ground, f"busybox-{name}") for name in "abc")
    pids = [start(path, "sleep", "60") for path in (replaced, deleted, kept)]
    for pid in pids:
        eventually(running(pid))
    assert [uses(ground, pid) for pid in pids] == [[], [], []]
    replace(replaced)
    deleted.unlink()

    assert uses(ground, pids[0]) == [("executable", "/opt/app/busybox-a (deleted)", "replaced")]
    assert uses(ground, pids[1]) == [("executable", "/opt/app/busybox-b (deleted)", "deleted")]
    assert uses(ground, pids[2]) == []
    assert str(pids[0]) in ground.ok("ps")


LIBRARY = """
hold(root + b"/opt/app/lib.so", mmap.PROT_READ | mmap.PROT_EXEC)
hold(root + b"/opt/app/data")
kept.append(open(root + b"/opt/app/open"))
os.chdir(root + b"/opt/app/dir")
"""


def test_libraries_files_and_directories_are_found(ground: Box, start: Start) -> None:
    app = ground.root / "opt/app"
    (app / "dir").mkdir()
    for name in ("lib.so", "data", "open"):
        (app / name).write_bytes(b"x" * 5000)
    pid = start(ground.root, script=LIBRARY)
    assert uses(ground, pid) == []
    for name in ("lib.so", "data", "open"):
        replace(app / name)
    (app / "dir").rmdir()

    assert sorted(uses(ground, pid)) == [
        ("directory", "/opt/app/dir (deleted)", "deleted"),
        ("library", "/opt/app/lib.so (deleted)", "replaced"),
        ("mapped", "/opt/app/data (deleted)", "replaced"),
        ("open", "/opt/app/open (deleted)", "replaced"),
    ]


INNOCENT = """
fd = os.memfd_create("jit"); os.truncate(fd, 4096)
kept.append(mmap.mmap(fd, 4096, prot=mmap.PROT_READ | mmap.PROT_EXEC))
kept.append(mmap.mmap(-1, 4096))
libc = ctypes.CDLL(None)
libc.shmat.restype = ctypes.c_void_p
segment = libc.shmget(0, 4096, 0o1600)
assert libc.shmat(segment, None, 0) not in (None, 2**64 - 1)
libc.shmctl(segment, 0, None)
for place in (b"/tmp", b"/home"):
    with tempfile.NamedTemporaryFile(dir=root + place) as file:
        file.write(b"x" * 5000); file.flush()
        hold(file.name, mmap.PROT_READ | mmap.PROT_EXEC)
        kept.append(open(file.name))
kept.append(open("/dev/zero"))
for name in (b"real (deleted)", b"new\\nline", b"back\\\\012slash", b"\\xff not utf-8", b"x\\\\"):
    hold(root + b"/opt/app/" + name)
"""


def test_nothing_is_said_of_what_is_no_systems(ground: Box, start: Start) -> None:
    for name in (b"real (deleted)", b"new\nline", b"back\\012slash", b"\xff not utf-8", b"x\\"):
        path = os.fsencode(ground.root / "opt/app") + b"/" + name
        Path(os.fsdecode(path)).write_bytes(b"x" * 5000)
    pid = start(ground.root, script=INNOCENT)

    assert uses(ground, pid) == []


def test_odd_names_are_told_apart(ground: Box, start: Start) -> None:
    app = ground.root / "opt/app"
    for name in ("a", "a (deleted)", "new\nline"):
        (app / name).write_bytes(b"x" * 5000)
    script = "for name in (b'a', b'a (deleted)', b'new\\nline'): hold(root + b'/opt/app/' + name)"
    pid = start(ground.root, script=script)
    (app / "a").unlink()
    replace(app / "new\nline")

    found = uses(ground, pid)
    assert len(found) == 2
    assert ("mapped", "/opt/app/new\nline (deleted)", "replaced") in found
    assert "new\\nline" in ground.ok("ps")


def test_other_views_are_looked_at_from_inside(ground: Box) -> None:
    """A command in generation 2 uses that one, and is not outdated until its own tree changes."""
    inside = ground.start("exec", "-g", "2", "--", "busybox", "sleep", "60")
    eventually(running(inside.pid))
    try:
        assert uses(ground, inside.pid) == []
        assert ("executable", "/usr/bin/busybox", "current") in uses(ground, inside.pid, "2")
        assert uses(ground, inside.pid, "1") == []
        replace(ground.tree(2) / "usr/bin/busybox")
        assert uses(ground, inside.pid) == [("executable", "/usr/bin/busybox (deleted)", "replaced")]
    finally:
        os.kill(inside.pid, 9)
        inside.wait()


def _with_dead_filesystems() -> None:
    before = os.stat

    def dead(path: Any, **how: Any) -> os.stat_result:
        far = isinstance(path, bytes) and b"/fd/" in path and os.readlink(path).endswith(b"/far")
        if far or (isinstance(path, bytes) and path.endswith(b"/root")):
            raise OSError(errno.ENOTCONN, os.strerror(errno.ENOTCONN), path)
        return before(path, **how)

    os.stat = dead


def test_what_lies_on_a_dead_filesystem_keeps_nothing_from_being_found(ground: Box, start: Start) -> None:
    place = ground.root / "opt/app"
    (place / "far").mkdir()
    (place / "near").touch()
    script = 'kept += [os.open(root + b"/opt/app/far", os.O_PATH), os.open(root + b"/opt/app/near", 0)]'
    pid = start(ground.root, script=script)
    (place / "near").unlink()

    said = ground.start("ps", before=_with_dead_filesystems).wait()
    assert said.code == 0, said.err
    assert str(pid) in said.out
    assert "/opt/app/near" in said.out


def test_groups_say_who_answers(ground: Box, start: Start) -> None:
    path = program(ground, "busybox-a")
    pid = start(path, "sleep", "60")
    eventually(running(pid))
    path.unlink()
    groups: list[dict[str, Any]] = ground.json("ps")

    (group,) = [one for one in groups if pid in [process["pid"] for process in one["processes"]]]
    assert group["kind"] in {"unit", "session", "container", "other"}
    assert group["processes"][0].keys() == {"pid", "name", "uid", "owner", "uses"}
    assert f"{group['name']} ({group['kind']})" in ground.ok("ps")


def test_looks_and_changes_nothing(ground: Box) -> None:
    before = ground.facts()

    assert ground.json("ps") == []
    assert "nothing" not in ground.ok("--dry-run", "ps")
    assert "no process uses what was replaced" in ground.ok("ps")
    assert "no generation 9" in ground.refuses(51, "ps", "9")
    assert changes(before, ground.facts()) == {}
