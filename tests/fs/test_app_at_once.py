"""Applications that are made by more than one snaptx at once, or looked at by a repair meanwhile."""

from __future__ import annotations

import time

import pytest

from snaptx.apps import application
from tests.boxes import Box


def test_of_several_that_make_one_application_one_does_and_the_others_are_told(box: Box) -> None:
    for number in range(10):
        name = f"web{number}"
        said = [run.wait() for run in [box.start("app", "create", name) for _ in range(3)]]

        assert sorted(one.code for one in said) == [0, 52, 52], [one.err for one in said]
        told = {one.complaint[0] for one in said if one.code}
        assert told == {f"there is an application {name}"}


def test_several_make_several_applications_one_after_the_other(box: Box) -> None:
    runs = [box.start("app", "create", f"web{number}") for number in range(4)]

    assert [run.wait().code for run in runs] == [0] * 4
    assert box.json("verify")["problems"] == []


def _slowly() -> None:
    """Have a verb take its time where the subvolumes are made and the lock in them is not taken."""
    from snaptx import initialise

    before = initialise.plan

    def late(*arguments: object, **how: object) -> object:
        time.sleep(0.5)
        return before(*arguments, **how)  # type: ignore[arg-type]

    initialise.plan = late  # type: ignore[assignment]


def test_a_repair_takes_nothing_away_that_is_being_made(box: Box) -> None:
    making = box.start("app", "create", "web", before=_slowly)
    while not (box.state / "apps/web/generations/1/root").exists():
        time.sleep(0.01)

    assert box.json("repair")["done"] == []
    assert making.wait().code == 0
    assert [row["name"] for row in box.json("app", "list")] == ["web"]


def test_what_is_removed_meanwhile_is_neither_half_made_nor_in_the_way(
    box: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    box.ok("app", "create", "web")
    gone = [box.state / "apps" / name for name in ("gone", ".gone")]
    before = application._listed
    monkeypatch.setattr(application, "_listed", lambda host: sorted([*before(host), *gone]))

    assert [row["name"] for row in box.json("app", "list")] == ["web"]
    assert box.json("repair")["done"] == box.json("verify")["problems"] == []
