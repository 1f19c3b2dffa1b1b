"""What an interruption leaves of application trees, and what ``snaptx repair`` makes of it."""

from __future__ import annotations

import errno
import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import btrfsutil
import pytest
from pytest_mock import MockerFixture

from snaptx.journal import Journal
from snaptx.storage.btrfs import AppStorage
from tests.boxes import Box, killed_in

pytestmark = pytest.mark.root


def _killed(box: Box, before: Callable[[], None], *words: str) -> None:
    assert box.start("app", *words, before=before).wait().code < 0


def _names(box: Box) -> list[str]:
    return [row["name"] for row in box.json("app", "list")]


def _staged(box: Box, place: Path) -> None:
    (place / "tree/etc").mkdir(parents=True)
    (place / "tree/etc/release").write_text("2\n")
    box.ok("app", "apply", "web", str(place / "tree"))


@pytest.mark.parametrize("call", [1, 2, 3, 4])
def test_what_is_half_made_is_no_application_and_can_be_made(box: Box, call: int) -> None:
    _killed(box, killed_in(Journal, "step", call), "create", "web")
    assert _names(box) == []

    box.ok("app", "create", "web")
    assert _names(box) == ["web"]
    assert box.json("repair")["done"] == []


def test_what_is_half_made_is_gone_after_a_repair(box: Box) -> None:
    _killed(box, killed_in(Journal, "step", 2), "create", "web")
    btrfsutil.create_subvolume(str(box.state / "apps/begun"))
    for words in (("--dry-run", "repair"), ("verify",)):
        assert "application begun: is half made\napplication web: is half made" in box.run(*words).out

    assert box.json("repair")["done"] == [
        "application begun: it was half made, and is gone",
        "application web: it was half made, and is gone",
    ]
    assert os.listdir(box.state / "apps") == []


def test_an_application_whose_journal_can_not_be_read_is_listed(box: Box) -> None:
    """As on a filesystem that has failed in the midst of a switch."""
    box.ok("app", "create", "web")
    (journal,) = (box.state / "apps/web").rglob("journal")
    (journal / "open").mkdir()

    assert _names(box) == ["web"]


def test_an_application_that_can_not_be_looked_at_is_listed(box: Box, mocker: MockerFixture) -> None:
    box.ok("app", "create", "web")
    error = OSError(errno.EIO, os.strerror(errno.EIO))
    mocker.patch("snaptx.storage.apptree.os.listdir", side_effect=error)

    assert _names(box) == ["web"]


def test_what_was_made_stays_where_only_its_journal_came_back(box: Box) -> None:
    _killed(box, killed_in(Journal, "end"), "create", "web")
    assert _names(box) == ["web"]
    assert box.json("repair")["done"] == ["application web: an interrupted transaction was completed"]
    assert _names(box) == ["web"]


def test_a_removal_that_was_interrupted_is_completed(box: Box) -> None:
    box.ok("app", "create", "web")
    _killed(box, killed_in(AppStorage, "sweep", 2), "remove", "web")
    assert _names(box) == []
    assert os.listdir(box.state / "apps") == [".web"]
    for words in (("--dry-run", "repair"), ("verify",)):
        assert "application web: its removal was interrupted" in box.run(*words).out

    assert box.json("repair")["done"] == ["application web: its removal was interrupted, and is completed"]
    assert os.listdir(box.state / "apps") == []


def test_what_is_left_of_a_removal_keeps_nobody_from_that_name_nor_from_undoing(box: Box) -> None:
    for _ in range(2):
        box.ok("app", "create", "web")
        _killed(box, killed_in(AppStorage, "sweep", 2), "remove", "web")
    box.ok("init", "--undo")


def test_what_is_sound_verifies_and_is_not_mended(box: Box, tmp_path: Path) -> None:
    box.ok("app", "create", "web")
    _staged(box, tmp_path)
    box.ok("app", "switch", "web")

    assert box.json("verify")["problems"] == []
    assert box.json("--dry-run", "repair")["problems"] == []
    assert box.json("repair")["done"] == []


@pytest.mark.parametrize(
    ("damage", "where", "what"),
    [
        pytest.param("m=manifests/2.*; truncate -s 100 $m", "generation 2", "", id="a manifest"),
        pytest.param("rm manifests/2.*", "generation 2", "has no manifest", id="no manifest"),
        pytest.param("echo half >grub/current", "boot entry", "", id="the pointer"),
        pytest.param("echo '{}' >>audit/log", "audit log", "", id="the trail"),
    ],
)
def test_what_is_damaged_is_told_by_verify_and_before_it_is_mended(
    box: Box, tmp_path: Path, damage: str, where: str, what: str
) -> None:
    box.ok("app", "create", "web")
    _staged(box, tmp_path)
    box.ok("app", "switch", "web")
    subprocess.run(["sh", "-euc", damage], cwd=box.state / "apps/web", check=True)
    told = box.json("--dry-run", "repair")["problems"]

    assert [row["where"] for row in told] == [f"application web: {where}"]
    assert what in told[0]["what"]
    assert f"application web: {where}: " in box.run("verify").out
    assert box.run("verify").code == 40
    assert len(box.json("repair")["done"]) >= 1
    assert box.json("verify")["problems"] == []


def test_a_changed_byte_of_what_an_application_is_at_is_found(box: Box, tmp_path: Path) -> None:
    box.ok("app", "create", "web")
    _staged(box, tmp_path)
    box.ok("app", "switch", "web")
    sealed = box.state / "apps/web/generations/2/sealed"
    btrfsutil.set_subvolume_read_only(str(sealed), False)
    (sealed / "etc/release").write_text("3\n")

    assert "application web: /etc/release: differs in mtime_ns, sha256" in box.run("verify").out
    assert "application" not in box.run("verify", "1").out


@pytest.mark.parametrize("text", [None, "half of a"], ids=["lost", "damaged"])
def test_a_pointer_is_made_anew_and_names_the_newest_that_was_committed(
    box: Box, tmp_path: Path, text: str | None
) -> None:
    box.ok("app", "create", "web")
    _staged(box, tmp_path)
    box.ok("app", "switch", "web")
    pointer = box.state / "apps/web/grub/current"
    pointer.unlink()
    if text is not None:
        pointer.write_text(text)

    (done,) = box.json("repair")["done"]
    assert "generation 2 boots" in done
    assert [row["generation"] for row in box.json("app", "list")] == [2]


def test_a_switch_that_was_interrupted_is_settled_by_the_boot(box: Box, tmp_path: Path) -> None:
    box.ok("app", "create", "web")
    _staged(box, tmp_path)
    _killed(box, killed_in(Journal, "step", 3), "switch", "web")

    assert "application web: an interrupted transaction was undone" in box.ok("repair", "--boot")
    box.ok("app", "switch", "web")


def test_one_that_can_not_be_repaired_is_named_and_keeps_nobody(box: Box) -> None:
    for name in ("one", "two"):
        _killed(box, killed_in(Journal, "end"), "create", name)
    record = box.state / "apps/one/generations/1/generation.json"
    record.write_text(json.dumps(json.loads(record.read_text()) | {"format": 99}))

    first, second = box.json("repair")["done"]
    assert "application one was left as it is" in first
    assert second == "application two: an interrupted transaction was completed"


def test_one_whose_files_are_none_is_named_and_keeps_nobody(box: Box) -> None:
    for name in ("one", "two"):
        _killed(box, killed_in(Journal, "end"), "create", name)
    lock = box.state / "apps/one/lock"
    lock.unlink()
    lock.mkdir()

    first, second = box.json("repair")["done"]
    assert "application one was left as it is" in first
    assert str(lock.name) in first
    assert second == "application two: an interrupted transaction was completed"


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (("switch", "web"), "'snaptx app apply web' stages something"),
        (("switch", "web", "--dry-run"), "'snaptx app apply web' stages something"),
        (("switch", "web", "1"), "to go to it: snaptx app rollback web 1"),
        (("switch", "web", "9"), "'snaptx app list web' shows the generations"),
        (("rollback", "web"), "name one: snaptx app rollback web N"),
        (("create", "web"), "see: snaptx app list web"),
    ],
)
def test_what_is_wrong_with_an_application_is_no_cure_for_the_system(
    box: Box, words: tuple[str, ...], hint: str
) -> None:
    box.ok("app", "create", "web")

    assert box.run("app", *words).complaint[1] == hint.replace("snaptx", box.program)


def test_settings_that_are_broken_keep_nothing_from_being_repaired(box: Box) -> None:
    _killed(box, killed_in(Journal, "end"), "create", "web")
    settings = box.root / "etc/snaptx/apps/web.conf"
    settings.parent.mkdir(parents=True)
    settings.write_text("stop = 'NONSENSE'\n")

    assert _names(box) == ["web"]
    assert box.json("repair")["done"] == ["application web: an interrupted transaction was completed"]
