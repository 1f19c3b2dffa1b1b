"""``live``: another generation under the running system, at once, for every reader old or new, and back."""

from __future__ import annotations

import errno
import itertools
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from snaptx import liveswitch, machine, mounting, system
from snaptx.running import obstacles
from tests.boxes import Box, changes, made

SWITCHES = 300
PATHS = ("/lib64", "/usr", "/opt")
LIVE = "for name in usr/who usr/lib/who opt/who lib64/who; do echo {0} > /$name; done"


@pytest.fixture(scope="module")
def equipped(tmp_path_factory: pytest.TempPathFactory, programs: Path) -> Iterator[Box]:
    """Give a sandbox with two staged generations; all trees say which they are of."""
    for name in ("usr/lib", "usr/local/there", "opt", "lib64"):
        (programs / name).mkdir(parents=True)
    for name in ("usr/who", "usr/lib/who", "opt/who", "lib64/who"):
        (programs / name).write_text("1\n")
    with made(source=programs) as box:
        for number in (2, 3):
            box.ok("run", "--base", "1", "--", "sh", "-c", LIVE.format(number))
        yield box


@pytest.fixture
def ground(equipped: Box) -> Iterator[Box]:
    """Give that sandbox, and check that nothing stays live."""
    before = mounts(equipped)
    yield equipped
    equipped.ok("live", "--off", "--force")
    assert mounts(equipped) == before
    assert seen(equipped) == {1}


def mounts(box: Box) -> list[str]:
    """Return what is mounted in the sandbox's root."""
    return [mount.target for mount in system.mounts() if mount.target.startswith(str(box.root))]


def seen(box: Box) -> set[int]:
    """Return the generations whose trees are seen."""
    names = ("usr/who", "usr/lib/who", "opt/who", "lib64/who")
    return {int((box.root / name).read_text()) for name in names}


def test_switches_and_goes_back(ground: Box) -> None:
    before = ground.facts()
    done = ground.json("live", "2")
    assert seen(ground) == {2}
    assert (done["number"], done["previous"], tuple(done["paths"])) == (2, 0, PATHS)
    assert 0 < done["pause_seconds"] < done["seconds"]
    assert ground.json("live", "3")["previous"] == 2
    assert seen(ground) == {3}
    assert len(mounts(ground)) == 1 + len(PATHS)
    assert "generation 3 at /usr, /lib64, /opt, since 2" in ground.ok("live")
    ground.ok("live", "--off")

    assert seen(ground) == {1}
    told = {
        name
        for name in changes(before, ground.facts())
        if "run/snaptx" not in name and name != "running /run"
    }
    assert told == set()


def test_is_told_and_recorded(ground: Box) -> None:
    ground.ok("live", "2", "-m", "at once")
    status = ground.json("status")

    assert status["live"].startswith("generation 2 at ")
    assert status["default"] == 1
    assert "live:     generation 2" in ground.ok("status")
    assert ground.marks()[2] == "Ls"
    record = ground.audit()[-1]
    assert (record["verb"], record["live"], record["result"]) == ("live", 2, "done")
    assert record["message"] == "at once"
    assert tuple(record["paths"]) == PATHS


def test_nothing_to_do_is_said(ground: Box) -> None:
    assert ground.run("live", "--off", "--unchanged-exit-77").code == 77
    assert ground.run("live", "1", "--unchanged-exit-77").code == 77
    ground.ok("live", "2")
    assert ground.run("live", "2", "--unchanged-exit-77").code == 77
    ground.ok("live", "1")  # what booted
    assert ground.json("live")["live"] == {}


def test_dry_run_changes_nothing(ground: Box) -> None:
    before = ground.facts()

    assert tuple(ground.json("--dry-run", "live", "2")["paths"]) == PATHS
    assert changes(before, ground.facts()) == {}


def test_is_refused_without_a_generation(ground: Box) -> None:
    ground.refuses(51, "live", "9")
    ground.refuses(2, "live", "2", "--off")


def test_live_generation_is_not_removed(ground: Box) -> None:
    ground.ok("live", "2")

    assert "live --off" in ground.refuses(52, "abort", "2")


def test_what_is_written_while_live_is_the_generations(ground: Box) -> None:
    ground.ok("live", "2")
    (ground.root / "opt/new").write_text("x")

    assert (ground.tree(2) / "opt/new").exists()
    assert not (ground.tree(1) / "opt/new").exists()
    (ground.root / "opt/new").unlink()


def test_what_went_live_goes_back_whatever_is_configured_since(ground: Box) -> None:
    ground.ok("live", "2")
    ground.configure('[live]\npaths = ["/usr"]\n')
    try:
        assert sorted(ground.json("live")["live"]) == sorted(PATHS)
        ground.ok("live", "3")
        assert ground.json("live")["live"] == {"/usr": 3, "/lib64": 2, "/opt": 2}
        ground.ok("live", "--off")
        assert seen(ground) == {1}
    finally:
        shutil.rmtree(ground.root / "etc/snaptx")


@contextmanager
def mounted(place: Path) -> Iterator[None]:
    """Mount something at ``place``."""
    subprocess.run(["mount", "-t", "tmpfs", "none", place], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", place], check=True)


def test_what_is_mounted_inside_comes_along(ground: Box) -> None:
    local = ground.root / "usr/local"
    with mounted(local):
        (local / "tool").touch()
        ground.ok("live", "2")
        assert (local / "tool").exists()
        ground.ok("live", "3")
        assert (local / "tool").exists()
        assert seen(ground) == {3}
        ground.ok("live", "--off")
        assert (local / "tool").exists()


def test_what_was_mounted_since_is_not_lost_unasked(ground: Box) -> None:
    ground.ok("live", "2")
    with mounted(ground.root / "usr/local"):
        assert "usr/local was mounted since" in ground.refuses(61, "live", "--off")
        ground.ok("live", "3")
        assert ground.json("--dry-run", "live", "--off", "--force")["obstacles"][0]["forcible"]


def test_mount_without_a_place_is_an_obstacle(ground: Box) -> None:
    (ground.root / "opt/only-here").mkdir()
    with mounted(ground.root / "opt/only-here"):
        said = ground.refuses(61, "live", "2", "--force")
    (ground.root / "opt/only-here").rmdir()

    assert "mounted at /opt/only-here has no place" in said
    assert "reboot" in said


def test_tree_that_is_a_filesystem_of_its_own_is_an_obstacle(ground: Box) -> None:
    with mounted(ground.root / "usr"):
        assert "/usr is a filesystem of its own" in ground.refuses(61, "live", "2", "--force")


def test_other_filesystems_are_the_same_for_all(ground: Box) -> None:
    """As openSUSE's /opt."""
    with mounted(ground.root / "opt"):
        assert "/opt" not in ground.json("live", "2")["paths"]
        assert (ground.root / "usr/who").read_text() == "2\n"
        assert list((ground.root / "opt").iterdir()) == []
        ground.ok("live", "--off")


@pytest.mark.parametrize("shared", [False, True])
def test_others_follow_or_are_listed(ground: Box, shared: bool) -> None:
    if shared:
        mounting.mount("none", str(ground.root), flags=1 << 20)  # MS_SHARED
    code = "import sys; print(1, flush=True); sys.stdin.read()"
    with subprocess.Popen(
        ["unshare", "--mount", "--propagation", "slave", sys.executable, "-c", code],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    ) as other:  # fmt: skip
        assert other.stdout
        other.stdout.readline()
        there = Path(f"/proc/{other.pid}/root{ground.root}/usr/who")
        apart = [ground.json("live", number)["apart"] for number in ("2", "3")]
        read = int(there.read_text())
        assert other.stdin
        other.stdin.close()
    ground.ok("live", "--off")
    mounting.mount("none", str(ground.root), flags=mounting.MS_PRIVATE)

    assert read == (3 if shared else 1)
    assert all(bool(found) is not shared for found in apart)


def test_protection_that_is_lost_is_listed(ground: Box) -> None:
    """A namespace whose root is read-only sees the new tree as it is: it could write to it."""
    mounting.mount("none", str(ground.root), flags=1 << 20)  # MS_SHARED
    protect = f"mount -o remount,bind,ro {ground.root} && echo && exec sleep 60"
    with subprocess.Popen(
        ["unshare", "--mount", "--propagation", "slave", "sh", "-c", protect], stdout=subprocess.PIPE
    ) as other:
        assert other.stdout
        other.stdout.readline()
        apart = ground.json("live", "2")["apart"]
        there = Path(f"/proc/{other.pid}/root{ground.root}/usr/who").read_text()
        other.kill()
    ground.ok("live", "--off")
    mounting.mount("none", str(ground.root), flags=mounting.MS_PRIVATE)

    assert there == "2\n"
    assert apart != []


READER = """
import os, sys
root, paths, mixed, rounds = sys.argv[1], 0, 0, 0
print("ready", flush=True)
os.set_blocking(0, False)
while os.read(0, 1) if False else True:
    rounds += 1
    first, second = (open(root + name).read() for name in ("/usr/who", "/usr/lib/who"))
    assert first in ("2\\n", "3\\n") and second in ("2\\n", "3\\n"), (first, second)
    mixed += first != second
    fd = os.open(root + "/usr", os.O_RDONLY)
    both = {os.read(os.open(name, os.O_RDONLY, dir_fd=fd), 9) for name in ("who", "lib/who")}
    os.closerange(fd, fd + 3)
    assert len(both) == 1, both
    try:
        if os.read(0, 1): break
    except BlockingIOError:
        pass
print(rounds, mixed)
"""


def test_readers_see_old_or_new_and_never_nothing(ground: Box) -> None:
    """By full paths one of each is possible; through an open directory it is not."""
    ground.ok("live", "2")
    one = machine.open_machine(ground.root)
    reader = subprocess.Popen(
        [sys.executable, "-c", READER, ground.root], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert reader.stdout
    reader.stdout.readline()
    for index in range(SWITCHES):
        liveswitch.perform(one, liveswitch.plan(one, 3 - index % 2))
    said, _ = reader.communicate("x")

    assert reader.returncode == 0
    rounds, mixed = map(int, said.split())
    assert rounds > 10
    assert mixed <= 2 * SWITCHES


def failing(call: int, act: Callable[[], object]) -> Callable[[], None]:
    """Return what makes a verb's process do ``act`` instead of its ``call``-th visible step.

    The steps are made at once; here one is done before the next begins.
    """

    def change() -> None:
        real, calls, turn = mounting.unmount, itertools.count(1), threading.Lock()

        def unmount(target: str, flags: int = 0) -> None:
            with turn:
                if next(calls) == call:
                    act()
                real(target, flags)

        mounting.unmount = unmount

    return change


def refuse() -> None:
    """Refuse as the kernel does."""
    raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), "umount")


@pytest.mark.parametrize("call", [1, 2, 3])
def test_failure_brings_back_what_was_seen(ground: Box, call: int) -> None:
    ground.ok("live", "2")
    done = ground.start("live", "3", before=failing(call, refuse)).wait()

    assert done.code == 50
    assert "live switch failed" in done.complaint[0]
    assert seen(ground) == {2}
    assert ground.audit()[-1]["result"] == "failed"


@pytest.mark.parametrize(("call", "after"), [(1, 2), (2, 3), (3, 3)])
@pytest.mark.parametrize("number", ["3", "--off"])
def test_kill_leaves_nothing_half(ground: Box, call: int, after: int, number: str) -> None:
    """What was seen anywhere is made whole by the next verb, what was seen nowhere is not made."""
    ground.ok("live", "2")
    kill = failing(call, lambda: os.kill(os.getpid(), signal.SIGKILL))
    assert ground.start("live", number, before=kill).wait().code == -signal.SIGKILL
    ground.ok("repair")

    assert seen(ground) == {1 if number == "--off" and after == 3 else after}
    ground.ok("live", "3")
    assert seen(ground) == {3}


def test_first_switch_that_is_killed_leaves_nothing_half(ground: Box) -> None:
    def change() -> None:
        real, calls, turn = mounting.attach, itertools.count(1), threading.Lock()

        def attach(mounted: int, target: int, *, beneath: bool = False) -> None:
            with turn:
                if next(calls) == 3:  # the first is out of sight
                    os.kill(os.getpid(), signal.SIGKILL)
                real(mounted, target, beneath=beneath)

        mounting.attach = attach

    assert ground.start("live", "2", before=change).wait().code == -signal.SIGKILL
    assert seen(ground) == {1, 2}
    ground.ok("repair")
    assert seen(ground) == {2}


def test_update_goes_live_as_it_is_applied(ground: Box, tmp_path: Path) -> None:
    (tmp_path / "usr").mkdir()
    (tmp_path / "usr/who").write_text("4\n")
    done = ground.json("apply", "--base", "1", "--live", str(tmp_path))

    assert (ground.root / "usr/who").read_text() == "4\n"
    assert done["live"]["number"] == done["staged"]["number"]
    ground.ok("live", "--off")
    ground.ok("abort", str(done["staged"]["number"]))


def test_update_that_can_not_go_live_stays_staged(ground: Box, tmp_path: Path) -> None:
    (tmp_path / "opt").mkdir()
    (tmp_path / ".wh.opt").touch()
    (tmp_path / "opt").rmdir()
    said = ground.run("apply", "--base", "1", "--live", "--commit", str(tmp_path))

    assert said.code == 61
    assert "/opt" in said.complaint[0]
    assert ground.boot().default == 1
    ground.ok("abort")


def test_kernel_and_content_are_looked_at(ground: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    one = machine.open_machine(ground.root)
    release = os.uname().release
    for root in (1, 2):
        (ground.tree(root) / "usr/lib/x86_64-linux-gnu").mkdir()
        (ground.tree(root) / "usr/lib/x86_64-linux-gnu/libc.so.6").write_text("same")
        (ground.tree(root) / f"usr/lib/modules/{release}").mkdir(parents=True)
    assert liveswitch.plan(one, 2).obstacles == ()
    (ground.tree(2) / "usr/lib/x86_64-linux-gnu/libc.so.6").write_text("new")
    (ground.tree(2) / f"usr/lib/modules/{release}").rmdir()
    said = ground.refuses(61, "live", "2")

    assert "C library" in said
    assert f"no modules for the kernel that runs, {release}" in said
    assert "--force" in said
    ground.ok("live", "2", "--force")
    assert seen(ground) == {2}
    ground.ok("live", "--off")
    monkeypatch.setattr(obstacles, "OLDEST_KERNEL", (99, 0))
    assert "older than 99.0" in ground.refuses(61, "live", "2", "--force")
