"""``run`` and ``shell``: a command's work is a generation like any other, its failure leaves nothing."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.boxes import Box, changes, inspect, made
from tests.fs.conftest import command
from tests.minimal_root import eventually


@pytest.fixture(scope="module")
def equipped(tmp_path_factory: pytest.TempPathFactory, programs: Path) -> Iterator[Box]:
    """Give a sandbox in whose root commands can run."""
    with made(source=programs) as one:
        (one.root / "tmp/outside").touch()
        yield one


@pytest.fixture
def ground(equipped: Box) -> Iterator[Box]:
    """Give that sandbox with nothing staged, and check that its running root stays as it is."""
    before = inspect(equipped.root, times=True)
    yield equipped
    for number, marks in equipped.marks().items():
        if marks.endswith("s"):
            equipped.ok("abort", str(number))
    assert changes(before, inspect(equipped.root, times=True)) == {}
    assert users(equipped) == []


def users(box: Box) -> list[str]:
    """Return the processes that see a generation's root mounted anywhere."""
    device = f"{os.major(box.top.stat().st_dev)}:{os.minor(box.top.stat().st_dev)}"
    source = next(line.split()[-2] for line in _mountinfo("self") if f" {box.top} " in line)
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        lines = _mountinfo(process.name)
        if any("@snaptx/generations" in line and (source in line or device in line) for line in lines):
            found.append(process.name)
    return found


def _mountinfo(process: str) -> list[str]:
    try:
        return Path(f"/proc/{process}/mountinfo").read_text(errors="replace").splitlines()
    except OSError:
        return []


SCRIPT = """
echo new > /etc/new
echo two > /etc/hostname
rm /usr/bin/touch
mkdir -p /opt/deep && echo x > /opt/deep/file && chmod 4755 /opt/deep/file
ln /etc/new /opt/hard
mv /etc/old /etc/renamed
"""


def test_what_a_command_changes_is_staged_and_indexed(ground: Box) -> None:
    ground.ok("run", "--", "sh", "-c", "echo old > /etc/old")
    staged = ground.json("run", "-m", "by hand", "--", "sh", "-e", "-c", SCRIPT)["staged"]
    tree = ground.tree(staged["number"])

    assert (tree / "etc/new").read_text() == (tree / "opt/hard").read_text() == "new\n"
    assert (tree / "opt/deep/file").stat().st_mode & 0o7777 == 0o4755
    assert not (tree / "usr/bin/touch").is_symlink()
    assert (tree / "etc/renamed").read_text() == "old\n"
    assert ground.json("verify")["problems"] == []
    changed = {line["path"] for line in ground.json("diff", str(staged["number"]))["changes"]}
    assert {"etc/new", "etc/hostname", "usr/bin/touch", "opt/deep/file", "etc/renamed"} <= changed
    assert sorted(ground.tree(staged["number"]).parent.iterdir()) == [
        ground.tree(staged["number"]).parent / name for name in ("generation.json", "origin", "root")
    ]


def test_the_view_inside(ground: Box) -> None:
    report = """
    cat /proc/self/mountinfo > /etc/report
    echo $SNAPTX_GENERATION $SNAPTX_TRANSACTION >> /etc/report
    ls /tmp | cat >> /etc/report; echo hidden > /tmp/hidden; test -c /dev/null && test -d /sys/kernel
    """
    number = ground.json("run", "--", "sh", "-e", "-c", report)["staged"]["number"]
    lines = (ground.tree(number) / "etc/report").read_text().splitlines()

    assert f" /@snaptx/generations/{number}/root / " in lines[0]
    assert "outside" not in lines
    assert f"{number} {ground.audit()[-1]['transaction']}" in lines
    assert not (ground.tree(number) / "tmp/hidden").exists()


def test_failing_command_leaves_nothing_and_is_reported(ground: Box) -> None:
    said = ground.refuses(31, "run", "--", "sh", "-c", "echo x > /etc/new; exit 7")

    assert "status 7" in said
    assert ground.audit()[-1]["error"]["message"] == "sh ended with status 7"
    assert "not found" in ground.refuses(31, "run", "--", "no-such-command")


def test_killed_command_leaves_nothing(ground: Box) -> None:
    assert "status 137" in ground.refuses(31, "run", "--", "sh", "-c", "echo x > /etc/new; kill -9 $$")


def test_keep_keeps_what_failed_and_still_says_so(ground: Box) -> None:
    said = ground.run("run", "--keep", "--commit", "--", "sh", "-c", "echo x > /etc/new; exit 7")

    assert said.code == 31
    assert "status 7" in said.complaint[0]
    assert list(ground.marks().values()) == ["NRG", "s"]
    assert (ground.tree(max(ground.marks())) / "etc/new").read_text() == "x\n"
    assert ground.json("verify")["problems"] == []


@pytest.mark.parametrize("script", ["echo x > /etc/new; exit 7", "exit 7"])
def test_what_was_kept_and_why_it_failed_are_one_object(ground: Box, script: str) -> None:
    said = ground.run("--json", "run", "--keep", "--", "sh", "-c", script).json

    assert bool(said["staged"]["number"]) == ("new" in script)
    assert said["error"]["code"] == 31
    assert ("abort' discards it" in said["error"]["hint"]) == ("new" in script)


def test_nothing_changed_makes_no_generation(ground: Box) -> None:
    before = ground.facts()

    assert "nothing changed" in ground.ok("run", "--", "true")
    assert ground.run("run", "--unchanged-exit-77", "--", "cat", "/etc/hostname").code == 77
    assert changes(before, ground.facts()) == {}
    assert ground.audit()[-1]["result"] == "unchanged"


def test_works_on_what_is_staged_and_on_another_base(ground: Box) -> None:
    first = ground.json("run", "--", "touch", "/etc/one")["staged"]["number"]
    second = ground.json("run", "--", "touch", "/etc/two")["staged"]
    third = ground.json("run", "--base", "1", "--", "touch", "/etc/three")["staged"]

    assert second["replaced"] == [first]
    assert {"one", "two"} <= set(os.listdir(ground.tree(second["number"]) / "etc"))
    assert "one" not in os.listdir(ground.tree(third["number"]) / "etc")


@pytest.mark.parametrize("words", [("run", "--", "sh", "-c", "cat; touch /etc/new"), ("shell",)])
def test_json_is_the_result_alone(ground: Box, words: tuple[str, ...]) -> None:
    said = ground.run("--json", *words, stdin=b"echo heard; touch /etc/new\n")

    assert said.json["staged"]["counts"]["added"] == 1
    assert "heard" in said.err


def test_shell_takes_the_generation_as_it_is_left(ground: Box) -> None:
    ground.ok("shell", stdin=b"echo shell > /etc/shell\nexit 3\n")

    assert (ground.tree(max(ground.marks())) / "etc/shell").read_text() == "shell\n"
    assert ground.audit()[-1]["verb"] == "shell"


def test_killed_shell_is_kept_and_not_committed(ground: Box) -> None:
    said = ground.run("shell", "--commit", stdin=b"echo half > /etc/shell\nkill -9 $$\n")

    assert said.code == 31
    assert f"{ground.program} abort" in said.complaint[1]
    assert list(ground.marks().values()) == ["NRG", "s"]
    assert (ground.tree(max(ground.marks())) / "etc/shell").read_text() == "half\n"


def test_shell_that_repeats_the_status_of_a_killed_command_is_committed(programs: Path) -> None:
    """As one does that is left with ^D after an interrupted command."""
    with made(source=programs) as box:
        box.ok("shell", "--commit", stdin=b"touch /etc/whole; sh -c 'kill -INT $$'; exit 130\n")

        assert box.boot().default == 2


def test_dry_run_runs_nothing(ground: Box) -> None:
    before = ground.facts()

    assert "generation 1" in ground.ok("--dry-run", "run", "--", "touch", "/etc/one")
    assert changes(before, ground.facts()) == {}


def test_shared_data_is_not_part_of_the_generation(tmp_path: Path, programs: Path) -> None:
    with made(layout="ubuntu", source=programs) as box:
        said = box.ok("run", "--", "sh", "-c", "echo mine > /home/file")

        assert "nothing changed" in said
        assert (box.root / "home/file").read_text() == "mine\n"


def test_signal_ends_command_and_generation(ground: Box) -> None:
    before = ground.facts()
    running = ground.start("run", "--", "sh", "-c", "echo x > /etc/new; sleep 60")
    eventually(lambda: users(ground))
    os.kill(running.pid, signal.SIGTERM)
    said = running.wait()

    assert said.code == 143
    assert "SIGTERM" in said.err
    assert changes(before, ground.facts()) == {}
    assert ground.audit()[-1]["result"] == "failed"


def test_boot_loader_and_services_are_left_alone(ground: Box) -> None:
    script = 'test "$(command -v grub-install)" = /run/snaptx/bin/grub-install && exec grub-install /dev/sda'
    assert "nothing changed" in ground.ok("run", "--", "sh", "-c", script)


def test_mounts_made_inside_end_with_the_command(ground: Box) -> None:
    script = "mkdir /etc/place; busybox mount -t tmpfs none /etc/place; echo x > /etc/place/x"
    number = ground.json("run", "--", "sh", "-e", "-c", script)["staged"]["number"]

    assert list((ground.tree(number) / "etc/place").iterdir()) == []
    assert users(ground) == []


def test_subvolume_made_inside_does_not_hinder_the_end(ground: Box) -> None:
    number = ground.json("run", "--", "mkdir", "/etc/place")["staged"]["number"]
    command("btrfs", "subvolume", "create", ground.tree(number) / "etc/place/inner")
    (ground.tree(number) / "etc/place/inner/precious").touch()
    said = ground.refuses(52, "abort", str(number))

    assert "subvolumes inside" in said
    command("btrfs", "subvolume", "delete", ground.tree(number) / "etc/place/inner")
