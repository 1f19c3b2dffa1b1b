"""Machines that can't be changed, or not now: one message, one hint, nothing changed, nothing left."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from pytest_mock import MockerFixture

from snaptx import idle, mounting, system
from tests.boxes import Box, Running, changes, made, snaptx
from tests.fs.conftest import command, nested
from tests.minimal_root import eventually

CHANGING = (
    ("apply", "PAYLOAD"), ("run", "--", "true"), ("commit",), ("abort",), ("rollback",), ("confirm", "--bad"),
    ("pin", "1"), ("prune", "1"), ("repair",),
)  # fmt: skip


def words_of(template: tuple[str, ...], payload: str) -> list[str]:
    """Return a command line with the payload in its place."""
    return [payload if word == "PAYLOAD" else word for word in template]


def test_a_second_snaptx_is_told_who_is_first(shared: Box, tmp_path: Path, payload: str) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    first = shared.start("apply", str(fifo))
    try:
        eventually(lambda: f'"pid": {first.pid}' in (shared.state / "lock").read_text())
        for template in CHANGING:
            said = shared.refuses((4, 51, 52), *words_of(template, payload))
            if template not in (("commit",), ("abort",), ("rollback",)):
                assert f"'snaptx apply', process {first.pid}" in said
        for template in (("list",), ("status",), ("log",), ("verify",), ("diff", "1")):
            shared.ok(*template)
    finally:
        with fifo.open("wb"):
            pass
        assert first.wait().code == 20
    assert shared.run("pin", "1").code == 0, "the lock ends with its holder"
    shared.ok("unpin", "1")


@pytest.mark.parametrize(
    "name", ["a\fb", "a\rb", "a\x1cb", "a\x85b", "a\u2028b", "a\udcffb", "a b\nc\td\\\\"]
)
def test_what_somebody_mounts_may_have_any_name(shared: Box, tmp_path: Path, name: str) -> None:
    place = tmp_path / name
    place.mkdir()
    mounting.mount("none", str(place), "tmpfs")
    try:
        assert system.mount_at(place)
        shared.ok("list")
        assert not idle.is_idle_hook(["--sysroot", str(shared.root), "hook", "before", "--manager", "apt"])
    finally:
        mounting.unmount(str(place))


def test_what_somebody_has_mounted_where_nobody_else_sees_it_stays(tmp_path: Path, payload: str) -> None:
    with made() as box:
        box.ok("apply", payload)
        device = next(mount.source for mount in system.mounts() if mount.target == str(box.root))
        options = "subvol=@snaptx/generations/2/root"
        script = 'mount -o "$0" "$1" "$2" && echo mounted && read answer'
        words = ["unshare", "--mount", "sh", "-c", script, options, device, str(tmp_path)]
        with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as user:
            assert user.stdout
            assert user.stdout.readline() == b"mounted\n"
            assert f"is mounted at {tmp_path}" in box.refuses(52, "abort", "2")
            user.communicate(b"\n")
        box.ok("abort", "2")


@pytest.mark.parametrize("template", [*CHANGING, ("init",), ("list",), ("log",), ("verify",), ("diff",)])
def test_without_root(shared: Box, mocker: MockerFixture, payload: str, template: tuple[str, ...]) -> None:
    mocker.patch.object(system, "is_root", return_value=False)

    said = shared.refuses(5, *words_of(template, payload))
    assert "needs root" in said
    assert f"sudo {shared.program} {template[0]}" in said


def test_a_filesystem_that_is_not_btrfs(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    command("mount", "-t", "tmpfs", "none", tmp_path / "root")
    try:
        for verb in ("init", "list"):
            said = snaptx("--sysroot", str(tmp_path / "root"), verb)
            assert said.code == 55
            assert "is tmpfs, not btrfs" in said.complaint[0]
        assert list((tmp_path / "root").iterdir()) == []
    finally:
        command("umount", tmp_path / "root")


def test_a_sysroot_that_is_no_mount_point(shared: Box, tmp_path: Path) -> None:
    for place in (shared.root / "etc", tmp_path, tmp_path / "missing", Path(__file__)):
        said = snaptx("--sysroot", str(place), "init")
        assert said.code == 2
        assert "not the root of a mounted filesystem" in said.complaint[0]


def test_a_machine_that_was_not_adopted(payload: str) -> None:
    with made(init=False) as box:
        for template in (*CHANGING, ("list",), ("status",), ("log",), ("verify",), ("diff",)):
            assert f"snaptx --sysroot {box.root} init" in box.refuses(51, *words_of(template, payload))


@contextlib.contextmanager
def halfway(box: Box, payload: str, place: Path) -> Iterator[Running]:
    """Give an ``apply`` that has written a part and waits for more."""
    command("tar", "-cf", place / "tar", "-C", payload, "opt")
    os.mkfifo(place / "fifo")
    running = box.start("apply", str(place / "fifo"))
    with (place / "fifo").open("wb") as stream:
        stream.write((place / "tar").read_bytes()[:2_000_000])
        stream.flush()
        eventually(lambda: list(box.state.glob("generations/*/root/opt/*")))
        yield running


def test_a_signal_leaves_nothing(shared: Box, payload: str, tmp_path: Path) -> None:
    before = shared.facts()
    with halfway(shared, payload, tmp_path) as running:
        os.kill(running.pid, signal.SIGTERM)
        said = running.wait()

    assert said.code == 143
    assert changes(before, shared.facts()) == {}
    assert shared.audit()[-1]["result"] == "failed"


def test_what_was_killed_is_settled_by_the_next(shared: Box, payload: str, tmp_path: Path) -> None:
    before = shared.facts()
    with halfway(shared, payload, tmp_path) as running:
        os.kill(running.pid, signal.SIGKILL)
        assert running.wait().code == -signal.SIGKILL

    assert shared.json("status")["interrupted"] == "apply"
    assert shared.run("verify").code == 40
    shared.ok("apply", payload)
    shared.ok("abort")
    assert changes(before, shared.facts()) == {}
    assert [record["result"] for record in shared.audit()[-3:]] == ["interrupted", "done", "done"]
    assert shared.audit()[-3]["remedy"] == "discarded"


@pytest.fixture
def read_only(box: Box, payload: str) -> Iterator[Box]:
    """Give a sandbox with a staged generation that turned read-only."""
    box.ok("apply", payload)
    command("mount", "-o", "remount,ro", box.root)
    yield box
    command("mount", "-o", "remount,rw", box.root)


def test_a_read_only_filesystem(read_only: Box, payload: str) -> None:
    for template in CHANGING:
        assert "is read-only" in read_only.refuses(54, *words_of(template, payload))
    before = read_only.facts()
    for template in (
        ("list",),
        ("status",),
        ("log", "--verify"),
        ("verify",),
        ("--dry-run", "apply", payload),
    ):
        read_only.ok(*template)
    assert changes(before, read_only.facts()) == {}, "looking must not make it writable"


def test_a_read_only_subvolume_cannot_be_adopted() -> None:
    with made(init=False) as box:
        command("btrfs", "property", "set", "-ts", box.root, "ro", "true")

        assert "is read-only" in box.refuses(54, "init")
        assert not box.state.exists()


def test_a_swap_file_in_the_root(box: Box, payload: str) -> None:
    swap = box.root / "swap"
    swap.touch()
    command("chattr", "+C", swap)
    command("dd", "if=/dev/zero", f"of={swap}", "bs=1M", "count=16")
    swap.chmod(0o600)
    command("mkswap", swap)
    command("swapon", swap)
    try:
        said = box.refuses(52, "apply", payload)
        assert "swap file" in said
        assert "swapoff" in said
    finally:
        command("swapoff", swap)
    box.ok("apply", payload)


def test_nested_subvolumes_are_refused_by_default(box: Box, payload: str) -> None:
    nested(box, "var/lib/data", "file")
    said = box.refuses(55, "apply", payload)

    assert "/var/lib/data" in said
    assert "nested" in said


def test_empty_nested_subvolumes_become_directories(box: Box, payload: str) -> None:
    path = nested(box, "var/lib/machines")
    path.chmod(0o700)
    os.chown(path, 12, 34)
    number = box.json("apply", payload)["staged"]["number"]
    inside = box.tree(number) / "var/lib/machines"

    assert (inside.stat().st_mode & 0o7777, inside.stat().st_uid, inside.stat().st_gid) == (0o700, 12, 34)
    (inside / "new").touch()
    (inside / "new").unlink()
    assert box.json("verify", str(number))["problems"] == []


def test_nested_subvolumes_are_carried(box: Box, payload: str) -> None:
    box.configure('[staging]\nnested = "carry"\n')
    path = nested(box, "var/lib/data", "file")
    os.setxattr(path / "file", "user.note", b"kept")
    nested(box, "var/lib/data/deep er", "file")
    number = box.json("apply", payload)["staged"]["number"]
    data = box.tree(number) / "var/lib/data"

    assert (data / "file").read_text() == (data / "deep er/file").read_text() == "file"
    assert os.getxattr(data / "file", "user.note") == b"kept"
    assert box.json("list")[-1]["nested"] == ["var/lib/data", "var/lib/data/deep er"]
    assert box.json("verify", str(number))["problems"] == []
    assert box.json("commit")["conflicts"] == []
    assert (path / "file").read_text() == "file"


def test_nested_subvolumes_are_shared(box: Box, payload: str) -> None:
    box.configure('[staging]\nnested = "share"\n')
    nested(box, "var/lib/data", "file")
    nested(box, "srv/with space", "file")
    with (box.root / "etc/fstab").open("a") as table:
        table.write("# /var/lib/data was on /dev/sda5 during installation\n")
    number = box.json("apply", payload)["staged"]["number"]
    lines = (box.tree(number) / "etc/fstab").read_text().splitlines()

    uuid = box.sandbox.disk_uuid
    assert f"UUID={uuid} /var/lib/data btrfs defaults,subvol=@rootfs/var/lib/data 0 0" in lines
    assert f"UUID={uuid} /srv/with\\040space btrfs defaults,subvol=@rootfs/srv/with\\040space 0 0" in lines
    assert "with" not in (box.root / "etc/fstab").read_text()
    assert box.json("verify", str(number))["problems"] == []
    again = box.json("apply", "--base", "1", payload)["staged"]["number"]
    assert (box.tree(again) / "etc/fstab").read_text().splitlines() == lines


CONFIGURATIONS = {
    "no TOML": "[limits\n",
    "unknown table": "[limit]\n",
    "unknown key": "[limits]\nmax_byte = 1\n",
    "a table that is none": "limits = 1\n",
    "a choice that is none": '[staging]\nnested = "keep"\n',
    "a list as a choice": '[staging]\nnested = ["carry"]\n',
    "text for a number": '[limits]\nmax_bytes = "1G"\n',
    "below zero": "[limits]\nmax_bytes = -1\n",
    "true for a number": "[limits]\nmax_bytes = true\n",
    "a part for a number": "[limits]\nmax_bytes = 0.5\n",
    "a list of numbers": "[staging]\nignore = [1]\n",
    "an empty menu": "[boot]\nmenu = 0\n",
    "no tries": "[boot]\ntries = 0\n",
    "no end of a check": "[health]\ntimeout = 0\n",
    "not UTF-8": "[limits]\n# \udcff\n",
}


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_configuration_that_cannot_be(shared: Box, tmp_path: Path, name: str) -> None:
    path = tmp_path / "snaptx.conf"
    path.write_bytes(CONFIGURATIONS[name].encode(errors="surrogateescape"))

    assert str(path) in shared.refuses(3, "--config", str(path), "pin", "1")


def test_configuration_that_is_missing(shared: Box, tmp_path: Path) -> None:
    assert "missing.conf" in shared.refuses(3, "--config", str(tmp_path / "missing.conf"), "pin", "1")


@pytest.mark.parametrize(
    "words",
    [
        (), ("fly",), ("list", "--fly"), ("apply",), ("commit", "two"), ("pin",), ("run",), ("run", "--"),
        ("commit", "--conflicts=mine"), ("log", "--last=-1"), ("--sysroot",), ("sandbox",),
        ("diff", "a", "b"),
    ],
)  # fmt: skip
def test_command_lines_that_make_no_sense(shared: Box, words: tuple[str, ...]) -> None:
    shared.refuses(2, *words)


def test_error_as_json(shared: Box) -> None:
    said = shared.run("--json", "pin", "9")

    assert said.json["error"]["code"] == said.code == 51
    assert said.json["error"]["type"] == "NotFoundError"
    assert said.json["error"]["hint"]


def test_output_that_nobody_reads(shared: Box) -> None:
    words = [sys.executable, "-m", "snaptx", "--sysroot", str(shared.root), "log"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout
        process.stdout.close()
        assert process.stderr
        assert "Traceback" not in process.stderr.read()
    assert process.returncode in (0, 141)


def test_a_boot_that_is_not_mounted_is_not_taken_for_none() -> None:
    """Its entry file decides; another one beside it would be a second authority."""
    with made(layout="fedora") as box:
        (box.root / "etc/fstab").write_text("UUID=1234 /boot ext4 defaults 0 2\n")
        subprocess.run(["umount", box.root / "boot"], check=True)
        said = box.refuses(60, "status")
        box.refuses(60, "repair")

        assert "/boot is not mounted" in said
        assert "mount /boot" in said
