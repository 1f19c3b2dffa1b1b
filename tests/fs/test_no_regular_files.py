"""FIFOs, sockets, devices and directories where snaptx keeps its files: no verb waits for them."""

from __future__ import annotations

import os
import signal
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from snaptx.errors import BootError, JournalError, VerifyError
from tests.boxes import Box, Said, made

PATIENCE = 10
"""Seconds."""

Make = Callable[[Path], None]

KINDS: dict[str, Make] = {
    "fifo": os.mkfifo,
    "socket": lambda path: os.mknod(path, stat.S_IFSOCK | 0o600),
    "endless": lambda path: os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(1, 5)),
    "directory": os.mkdir,
}

FILES = [kind for kind in KINDS if kind != "directory"]

READ = {
    "journal/open": JournalError,
    "generations/2/generation.json": VerifyError,
    "manifests/2.sqlite": VerifyError,
    "grub/snaptx.cfg": BootError,
}
"""What can't be done without, and the error where it is no file."""

SPARE = ("audit/head", "generations/last", "hook")
"""What is made anew."""

PASSING = ("journal/open", "audit/head", "generations/last", "generations/2/generation.json")
"""What is written under a name with ".tmp" first."""


OF_AN_APPLICATION = ("run/snaptx/apps/web/1.json", "@snaptx/apps/web/generations/1/generation.json")


def bounded(seconds: int) -> None:
    """Let this process live for some seconds at most."""
    signal.alarm(seconds)


def attempt(box: Box, *words: str) -> Said:
    """Run a verb to its end, for which it has some seconds."""
    said = box.start(*words, before=lambda: bounded(PATIENCE)).wait()
    assert said.code != -signal.SIGALRM, f"{' '.join(words)} waits"
    return said


def _named(said: Said, kind: str) -> bool:
    return "no regular file" in said.complaint[0]


@pytest.fixture
def updated(box: Box, tmp_path: Path) -> Box:
    """Give a sandbox whose second generation is staged."""
    (tmp_path / "up/etc").mkdir(parents=True)
    (tmp_path / "up/etc/motd").write_text("hi\n")
    box.ok("apply", str(tmp_path / "up"))
    return box


def _put(path: Path, make: Make) -> None:
    if path.is_file():
        path.unlink()
    make(path)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", READ)
def test_what_is_needed_is_named_and_repaired(updated: Box, name: str, kind: str) -> None:
    _put(updated.state / name, KINDS[kind])
    said = [attempt(updated, *words.split()) for words in ("status", "verify", "diff 1 2", "pin 2")]

    assert {one.code for one in said} <= {0, READ[name].code, VerifyError.code}
    assert any(_named(one, kind) for one in said if one.code == READ[name].code)
    assert attempt(updated, "repair").code == 0
    assert updated.json("verify")["problems"] == []
    assert updated.ok("commit", "2")


@pytest.mark.parametrize("layout", ["debian", "fedora"])
def test_a_directory_in_place_of_the_entry_file_is_kept(layout: str) -> None:
    with made(layout=layout) as box:
        box.entry.unlink()
        box.entry.mkdir()
        (box.entry / "file").write_text("somebody's")

        assert "the boot entry file is damaged" in box.refuses(60, "list")
        assert box.ok("repair")
        assert box.json("verify")["problems"] == []
        assert (box.entry.with_name("damaged-snaptx.cfg") / "file").read_text() == "somebody's"


def test_what_a_directory_is_in_the_way_of_is_told(updated: Box, tmp_path: Path) -> None:
    _put(updated.state / "generations/last", os.mkdir)
    said = attempt(updated, "apply", str(tmp_path / "up"))

    assert (said.code, said.complaint[0]) == (50, "cannot replace last: Is a directory")
    assert "move it away" in said.complaint[1]


@pytest.mark.parametrize("kind", FILES)
@pytest.mark.parametrize("name", SPARE)
def test_what_can_be_done_without_is_made_anew(updated: Box, tmp_path: Path, name: str, kind: str) -> None:
    _put(updated.state / name, KINDS[kind])
    for words in (("status",), ("verify",), ("hook", "--manager", "apt", "before"), ("pin", "1")):
        said = attempt(updated, *words, *(("--caller", "1") if words[0] == "hook" else ()))
        assert said.code == 0, said.err
    assert attempt(updated, "apply", str(tmp_path / "up")).code == 0
    assert (updated.state / name).is_file()


@pytest.mark.parametrize("kind", FILES)
@pytest.mark.parametrize("name", PASSING)
def test_what_has_the_name_to_write_first_goes(updated: Box, tmp_path: Path, name: str, kind: str) -> None:
    KINDS[kind](updated.state / f"{name}.tmp")
    (tmp_path / "up/etc/more").touch()

    assert attempt(updated, "pin", "2").code == 0
    assert attempt(updated, "apply", str(tmp_path / "up")).code == 0
    assert updated.json("verify")["problems"] == []
    assert not [path for path in updated.state.glob("*/*.tmp") if not path.is_file()]


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_remembered_of_conversions(updated: Box, kind: str) -> None:
    KINDS[kind](updated.state / "shared.json")
    said = attempt(updated, "init", "--convert")

    assert (said.code, "no regular file" in said.complaint[0]) == (JournalError.code, True)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_remembered_of_updates(updated: Box, kind: str) -> None:
    (updated.state / "update").mkdir()
    _put(updated.state / "update/state.json", KINDS[kind])
    said = attempt(updated, "update", "--check", "--source", "/nonexistent")

    assert (said.code, "no regular file" in said.complaint[0]) == (JournalError.code, True)
    assert "move @snaptx/update/state.json away" in said.complaint[1]


@pytest.mark.parametrize("kind", KINDS)
def test_a_note_of_what_is_live_is_as_good_as_none(updated: Box, kind: str) -> None:
    (updated.root / "run/snaptx").mkdir(parents=True)
    _put(updated.root / "run/snaptx/live", KINDS[kind])

    for words in (("status",), ("list",), ("live",), ("abort",)):
        assert attempt(updated, *words).code == 0


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", OF_AN_APPLICATION)
def test_an_application_does_not_wait_either(updated: Box, name: str, kind: str) -> None:
    updated.ok("app", "create", "web")
    place = (updated.top if name.startswith("@") else updated.root) / name
    place.parent.mkdir(parents=True, exist_ok=True)
    _put(place, KINDS[kind])

    for words in (("app", "list"), ("app", "list", "web"), ("verify",), ("repair",)):
        said = attempt(updated, *words)
        assert said.code in (0, VerifyError.code), said.err
