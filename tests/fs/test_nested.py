"""Subvolumes nested inside a root: no verb loses what they hold, and none is held up by them."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from snaptx import system
from tests.boxes import Box, changes, inspect
from tests.fs.conftest import command, nested

PLACE = "var/lib/machines"
"""What systemd makes a subvolume of."""


def usable(path: Path) -> bool:
    """Return whether something can be made in a directory."""
    try:
        (path / "new").touch()
    except PermissionError:
        return False
    (path / "new").unlink()
    return True


@pytest.mark.parametrize("gone", [False, True])
def test_what_a_rollback_makes_has_a_directory_in_its_place(adoptable: Box, update: str, gone: bool) -> None:
    path = nested(adoptable, PLACE)
    path.chmod(0o700)
    adoptable.ok("init")
    if gone:
        command("btrfs", "subvolume", "delete", path)
    adoptable.ok("apply", "--commit", update)
    adoptable.reboot()
    adoptable.ok("confirm")
    adoptable.ok("rollback")
    adoptable.reboot()

    assert adoptable.json("verify", "3")["problems"] == []
    assert usable(adoptable.root / PLACE)
    assert gone or (adoptable.root / PLACE).stat().st_mode & 0o7777 == 0o700
    adoptable.ok("apply", update)


def test_a_copy_for_a_package_manager_has_a_directory_in_its_place(box: Box) -> None:
    nested(box, PLACE)
    box.ok("hook", "before", "--manager", "apt", "--caller", str(os.getpid()))

    assert usable(box.tree(2) / PLACE)
    box.ok("rollback", "2")
    assert usable(box.tree(3) / PLACE)


def test_a_root_made_anew_has_a_directory_in_its_place(box: Box, update: str) -> None:
    box.ok("apply", update)
    inside = box.tree(2) / PLACE
    inside.parent.mkdir(parents=True, exist_ok=True)
    command("btrfs", "subvolume", "create", inside)
    box.ok("commit")
    nested(box, PLACE)
    command("btrfs", "subvolume", "delete", inside)
    command("btrfs", "subvolume", "set-default", box.top)
    command("btrfs", "subvolume", "delete", box.tree(2))
    box.ok("repair")

    assert usable(box.tree(2) / PLACE)
    assert box.json("verify", "2")["problems"] == []


def left_behind(box: Box, update: str) -> Path:
    """Bring a box to generation 3; return the nested subvolume that 2 got while it ran."""
    box.ok("apply", "--commit", update)
    box.reboot()
    box.ok("confirm")
    nested(box, PLACE)
    (Path(update) / "etc/motd").write_text("three\n")
    box.ok("apply", "--commit", update)
    box.reboot()
    box.ok("confirm")
    return box.tree(2) / PLACE


def test_an_empty_one_goes_with_its_generation(box: Box, update: str) -> None:
    left_behind(box, update)

    assert box.json("prune", "2")["removed"] == [2]
    assert not box.tree(2).parent.exists()


def test_one_that_holds_something_keeps_its_generation(box: Box, update: str) -> None:
    (left_behind(box, update) / "precious").write_text("precious\n")

    assert box.json("prune", "2")["busy"] == [2]
    assert (box.tree(2) / PLACE / "precious").read_text() == "precious\n"
    assert box.json("verify", "2")["problems"] == []


def test_what_is_staged_is_discarded_with_an_empty_one(box: Box, update: str) -> None:
    box.ok("apply", update)
    inside = box.tree(2) / PLACE
    inside.parent.mkdir(parents=True, exist_ok=True)
    command("btrfs", "subvolume", "create", inside)
    (inside / "precious").touch()

    assert PLACE in box.refuses(52, "abort")
    (inside / "precious").unlink()
    box.ok("abort")
    assert box.marks() == {1: "NRG"}
    assert not box.tree(2).parent.exists()


@pytest.fixture
def kernelless(box: Box, update: str) -> Box:
    """Give a box whose staged generation has no kernel, and an edit to be carried into it."""
    (Path(update) / "boot").mkdir()
    (Path(update) / "boot/.wh.vmlinuz-0.0.0-sandbox").touch()
    box.ok("apply", update)
    (box.root / "etc/mine").write_text("mine\n")
    command("sync", "-f", box.root)
    return box


def is_settled(box: Box) -> bool:
    """Return whether nothing is left of a commit, and what is staged is known."""
    parts = {path.name for path in box.tree(2).parent.iterdir()} & {"before", "sealed", "latest"}
    problems = box.json("verify", "2")["problems"]
    return not (parts or problems or (box.state / "journal/open").exists())


@pytest.mark.parametrize("file", ["", "precious"])
def test_a_commit_is_taken_back_around_one(kernelless: Box, update: str, file: str) -> None:
    inside = kernelless.tree(2) / "etc/sub"
    command("btrfs", "subvolume", "create", inside)
    (inside / (file or "passing")).touch()
    if not file:
        (inside / "passing").unlink()
    said = kernelless.run("commit")

    assert "no kernel" in said.complaint[0]
    assert said.code == 60
    assert "what was carried over stays" in said.err
    assert is_settled(kernelless)
    assert usable(inside)
    assert sorted(path.name for path in inside.iterdir()) == [file] * bool(file)
    kernelless.ok("pin", "2")
    assert kernelless.json("repair")["done"] == []
    kernelless.ok("unpin", "2")
    assert "no kernel" in kernelless.run("commit").complaint[0]


def test_a_commit_is_taken_back_in_a_root_that_is_mounted(kernelless: Box, tmp_path: Path) -> None:
    (tmp_path / "mnt").mkdir()
    command("mount", "--bind", kernelless.tree(2), tmp_path / "mnt")
    try:
        assert kernelless.run("commit").code == 60
        assert is_settled(kernelless)
        kernelless.ok("pin", "2")
    finally:
        command("umount", tmp_path / "mnt")
    kernelless.ok("unpin", "2")
    kernelless.ok("abort")


def test_one_that_is_filled_after_staging_stops_the_commit(box: Box, update: str) -> None:
    path = nested(box, PLACE)
    box.ok("apply", update)
    (path / "precious").write_text("precious\n")

    for words in (["commit"], ["commit", "--dry-run"]):
        said = box.refuses(55, *words)
        assert f"generation 2 knows nothing of: /{PLACE}" in said
        assert "nested" in said
    assert box.marks() == {1: "NRG", 2: "s"}
    (path / "precious").unlink()
    box.ok("commit")


@pytest.mark.parametrize("policy", ["refuse", "share"])
def test_one_that_is_made_after_staging_stops_the_commit(box: Box, update: str, policy: str) -> None:
    box.configure(f'[staging]\nnested = "{policy}"\n')
    box.ok("apply", update)
    nested(box, "srv/data", "precious")

    assert "/srv/data" in box.refuses(55, "commit")


@pytest.mark.parametrize("on_disk", [False, True])
def test_what_is_carried_is_carried_again(box: Box, tmp_path: Path, update: str, on_disk: bool) -> None:
    box.configure('[staging]\nnested = "carry"\n')
    data = nested(box, "srv/data", "same", "edited", "both")
    (data / "below/deep").mkdir(parents=True)
    (data / "old").mkdir()
    (data / "old/file").write_text("moved\n")
    (data / "file").mkdir()
    (data / "file/gone").touch()
    (Path(update) / "srv/data").mkdir(parents=True)
    (Path(update) / "srv/data/same").write_text("by the update\n")
    box.ok("apply", update)
    (Path(update) / "etc/motd").write_text("three\n")
    box.ok("apply", update)
    (data / "edited").write_text("mine\n")
    (data / "below/deep/new").write_text("new\n")
    (data / "old").rename(data / "below/moved")
    (data / "file/gone").unlink()
    (data / "file").rmdir()
    (data / "file").touch()
    (data / "both").unlink()
    (data / "both").mkdir(mode=0o700)
    (data / "both/inside").write_text("inside\n")
    made = nested(box, "srv/made", "precious")
    made.chmod(0o700)
    if on_disk:
        command("sync", "-f", data)
    done = box.json("commit")
    new = box.tree(3) / "srv"

    texts = [(new / name).read_text() for name in ("data/edited", "data/below/deep/new", "made/precious")]
    assert texts == ["mine\n", "new\n", "precious"]
    assert (new / "data/same").read_text() == "by the update\n"
    assert (new / "data/below/moved/file").read_text() == "moved\n"
    assert (new / "data/both/inside").read_text() == "inside\n"
    assert (new / "data/file").is_file()
    assert (new / "made").stat().st_mode & 0o777 == 0o700
    assert {"srv/data/edited", "srv/made"} <= set(done["carried"])
    assert "srv/data/same" not in done["carried"]
    assert len(done["carried"]) == len(set(done["carried"]))
    assert box.json("verify", "3")["problems"] == []


def test_what_has_not_changed_is_not_carried_again(box: Box, update: str) -> None:
    box.configure('[staging]\nnested = "carry"\n')
    nested(box, "srv/data", "file")
    box.ok("apply", update)
    command("sync", "-f", box.root)

    assert box.json("commit", "--dry-run")["carried"] == []
    assert box.json("commit")["carried"] == []


def test_what_is_shared_needs_nothing(box: Box, update: str) -> None:
    box.configure('[staging]\nnested = "share"\n')
    data = nested(box, "srv/data", "file")
    box.ok("apply", update)
    (Path(update) / "etc/motd").write_text("three\n")
    box.ok("apply", update)
    (data / "file").write_text("mine\n")
    nested(box, "srv/data/deep", "file")

    assert box.json("list")[-1]["nested"] == ["srv/data"]
    assert box.json("commit")["carried"] == []
    assert not list((box.tree(3) / "srv/data").iterdir())


def test_what_lies_in_a_shared_one_comes_with_it(box: Box, update: str) -> None:
    """A line of its own for each of snapper's snapshots stops the boot once snapper has removed it."""
    box.configure('[staging]\nnested = "share"\n')
    nested(box, ".snapshots")
    nested(box, ".snapshots-of-mine", "file")
    snapshot = box.root / ".snapshots/1/snapshot"
    snapshot.parent.mkdir()
    command("btrfs", "subvolume", "snapshot", "-r", box.root, snapshot)
    box.ok("apply", update)
    box.ok("commit")
    lines = (box.tree(2) / "etc/fstab").read_text().splitlines()

    assert [line.split()[1] for line in lines] == ["/", "/.snapshots", "/.snapshots-of-mine"]
    box.reboot()
    assert (snapshot / "etc/fstab").exists()
    command("btrfs", "subvolume", "delete", snapshot)
    (Path(update) / "etc/motd").write_text("three\n")
    box.ok("confirm")
    box.ok("apply", update)
    box.ok("commit")
    assert box.json("verify")["problems"] == []


def test_those_that_lie_in_others_are_not_named_one_by_one(adoptable: Box) -> None:
    for number in range(30):
        nested(adoptable, f"layers/{number:02}", "file")
        nested(adoptable, f"layers/{number:02}/inner", "file")
    said = adoptable.refuses(55, "init")

    assert "/layers/00, /layers/01, " in said
    assert "inner" not in said
    assert "/layers/04 and 25 more" in said


def test_a_commit_that_carried_again_is_taken_back(box: Box, update: str) -> None:
    box.configure('[staging]\nnested = "carry"\n')
    data = nested(box, "srv/data", "file")
    (Path(update) / "boot").mkdir()
    (Path(update) / "boot/.wh.vmlinuz-0.0.0-sandbox").touch()
    box.ok("apply", update)
    (data / "file").write_text("mine\n")
    (data / "new").write_text("mine\n")

    before = inspect(box.tree(2))
    assert "no kernel" in box.run("commit").complaint[0]
    assert changes(before, inspect(box.tree(2))) == {}
    assert is_settled(box)


@contextmanager
def swapped(directory: Path, one: str, other: str, pause: float) -> Iterator[None]:
    """Let the owner of a directory exchange two names in it every ``pause`` seconds, for a with block."""
    pid = os.fork()
    if not pid:
        with system.descriptor(directory, os.O_RDONLY) as fd:
            while True:
                system.exchange(fd, one, other)
                time.sleep(pause)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


@pytest.mark.parametrize(("level", "pause"), [("work", 5e-4), ("work/sub/inner", 2e-5)])
def test_what_is_carried_is_the_subvolume_and_not_where_a_link_leads(
    box: Box, update: str, level: str, pause: float
) -> None:
    box.configure('[staging]\nnested = "carry"\n')
    inner = nested(box, "home/ann/work/sub") / "inner/sub"
    secret = box.root / "root/sub/inner/sub"
    for place, name in ((inner, "theirs"), (secret, "secret"), (box.root / "root/sub", "secret")):
        place.mkdir(parents=True, exist_ok=True)
        (place / name).touch()
    moved = box.root / "home/ann" / level
    (moved.parent / "link").symlink_to(box.root / "root")
    seen: list[str] = []
    for _ in range(20):
        with swapped(moved.parent, moved.name, "link", pause):
            box.run("apply", "--base", "1", update)
        seen += [path.name for path in box.state.glob("generations/*/root/home/ann/**/*") if path.is_file()]
        box.run("abort")

    assert "theirs" in seen
    assert set(seen) == {"theirs"}
