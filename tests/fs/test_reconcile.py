"""What a boot shows is put on record: the fallback stays, late changes come along."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from snaptx import reconcile, transaction
from snaptx.machine import open_machine
from snaptx.reconcile import Arrival, Reconciled, Why
from snaptx.storage.btrfs import BtrfsStorage
from snaptx.transaction import Request
from tests.boxes import Box, made

pytestmark = pytest.mark.root


@pytest.fixture
def box(tmp_path: Path, programs: Path) -> Iterator[Box]:
    """Give a sandbox that runs generation 1; 2 is on trial and boots next."""
    for name, text in (("update", "the update's"), ("both", "the update's")):
        (tmp_path / "payload/etc").mkdir(parents=True, exist_ok=True)
        (tmp_path / "payload/etc" / name).write_text(text)
    with made(source=programs) as one:
        one.json("apply", "--commit", str(tmp_path / "payload"))
        yield one


def booted(box: Box, why: Why) -> Reconciled:
    """Do what snaptx-boot.service does on a boot that the boot loader gave a reason for."""
    machine = open_machine(box.root)
    assert isinstance(machine.storage, BtrfsStorage)
    try:
        with transaction.exclusive(machine, "repair"):
            return reconcile.reconcile(machine, Request("repair"), why)
    finally:
        machine.storage.close()


@pytest.mark.parametrize("why", [Why.TRIES, Why.LOAD])
def test_what_did_not_come_up_is_bad_and_stays_behind(box: Box, why: Why) -> None:
    done = booted(box, why)

    assert (done.arrival, done.booted, done.failed) == (Arrival.FELL_BACK, 1, 2)
    assert box.marks() == {1: "NRG", 2: "B"}
    records = box.json("log")
    assert done.reason
    assert done.reason in str(records)
    assert box.run("verify").code == 0


def test_what_was_not_tried_is_not_judged(box: Box) -> None:
    done = booted(box, Why.COUNTER)

    assert done.arrival is Arrival.NOT_TRIED
    assert box.marks() == {1: "NRG", 2: "T"}


def test_a_choice_at_the_menu_changes_nothing(box: Box) -> None:
    assert booted(box, Why.NOTHING).arrival is Arrival.BY_HAND
    assert box.marks() == {1: "NG", 2: "RT"}


def test_late_changes_come_along_once(box: Box) -> None:
    (box.root / "etc/late").write_text("by the administrator")
    (box.root / "etc/both").write_text("by the administrator")
    (box.root / "etc/hostname").unlink(missing_ok=True)
    box.reboot()
    done = box.json("repair", "--boot")

    assert done["arrival"] == "as chosen"
    assert (box.root / "etc/late").read_text() == "by the administrator"
    assert (box.root / "etc/both").read_text() == "the update's"
    assert not (box.root / "etc/hostname").exists()
    assert done["late"]["conflicts"] == ["etc/both"]
    (box.root / "etc/late").write_text("changed since")
    assert box.json("repair", "--boot")["late"] == {"carried": [], "conflicts": []}
    assert (box.root / "etc/late").read_text() == "changed since"
    assert box.run("verify").code == 0


def test_a_file_that_was_carried_and_changed_again_comes_along(box: Box, tmp_path: Path) -> None:
    (tmp_path / "more/etc").mkdir(parents=True)
    (tmp_path / "more/etc/third").write_text("3")
    box.reboot()
    box.json("confirm")
    box.json("apply", str(tmp_path / "more"))
    (box.root / "etc/edited").write_text("before the commit")
    box.json("commit")
    (box.root / "etc/edited").write_text("after the commit")
    box.reboot()
    done = box.json("repair", "--boot")

    assert done["late"] == {"carried": ["etc/edited"], "conflicts": []}
    assert (box.root / "etc/edited").read_text() == "after the commit"
