"""What may be between old and new, and until when: only a staged root that a verb is changing."""

from __future__ import annotations

from dataclasses import replace

import pytest

from snaptx.model import BootState
from tests.crash.census import Census, Tree
from tests.crash.judge import Progress, judge_app_claims, judge_claims, judge_settled, judge_view
from tests.crash.views import Seen

HALF = "the root of generation 2 is not whole"


def _tree(root: str, *, sealed: bool) -> Tree:
    return Tree("@", root, sealed, "/@/boot/", {})


def _disk(root: str, *, sealed: bool = False, default: int = 1) -> Census:
    return Census(default, trees={1: _tree("one", sealed=True), 2: _tree(root, sealed=sealed)})


def _seen(disk: Census) -> Seen:
    state = BootState(disk.default, fallback=1, nonce="", tries=0, confirmed=False, entries=())
    return Seen("log replay", state, census=disk)


def _commit(disk: Census, code: int | None = None) -> Progress:
    return Progress(disk, _disk("new", sealed=True, default=2), "commit", code)


@pytest.mark.parametrize(
    ("begun", "found", "code", "wrong"),
    [
        (_disk("old"), _disk("half"), None, False),
        (_disk("old"), _disk("half", default=2), None, True),
        (_disk("old"), _disk("half", sealed=True, default=2), 0, True),
        (_disk("old", sealed=True), _disk("half", sealed=True), None, True),
        (_disk("new"), _disk("half"), None, True),
    ],
    ids=["changing", "boots", "success", "committed", "not changing"],
)
def test_before_the_reconcile(begun: Census, found: Census, code: int | None, *, wrong: bool) -> None:
    problems = judge_view(_seen(found), _commit(begun, code))

    assert (f"log replay: {HALF}" in problems) is wrong


@pytest.mark.parametrize(("root", "wrong"), [("half", True), ("old", False), ("new", False)])
def test_after_the_reconcile(root: str, *, wrong: bool) -> None:
    disk = _disk(root)

    assert (HALF in judge_settled(disk, _seen(disk), _commit(_disk("old")), disk)) is wrong


@pytest.mark.parametrize(("records", "wrong"), [(0, True), (1, True), (2, False)])
def test_every_record_is_there_once_success_is_told(records: int, *, wrong: bool) -> None:
    """Of a verb that ends two transactions, as a switch of an application and its verdict are."""
    told = ({"result": "done"},) * 2
    state = Progress(_disk("old"), replace(_disk("old"), audit=told), "switch", 0)
    found = replace(_disk("old"), audit=told[:records])

    missing = "success was reported, but the audit trail does not know of it"
    assert (missing in judge_claims(_seen(found), _seen(found), state)) is wrong
    assert (f"application: {missing}" in judge_app_claims(found, state)) is wrong


def test_a_record_from_before_is_there_still() -> None:
    """A verb that has told of success is followed by another."""
    begun = replace(_disk("old"), audit=({"result": "done"},) * 2)
    state = Progress(begun, begun, "stop", None)
    found = replace(begun, audit=begun.audit[:1])

    lost = "the audit trail has lost what was in it"
    assert lost in judge_claims(_seen(found), _seen(found), state)
    assert f"application: {lost}" in judge_app_claims(found, state)
    assert lost not in judge_claims(_seen(begun), _seen(begun), state)
    gone = Progress(begun, replace(begun, audit=()), "remove", None)
    assert list(judge_app_claims(replace(begun, audit=()), gone)) == []


def test_the_default_subvolume_follows_before_success_is_told() -> None:
    """Nothing says it but the disk, and a repair may have been for that alone."""
    right, wrong = (replace(_disk("new", sealed=True), subvolume=name) for name in ("@", ""))

    told = "log replay: success was reported, but the default subvolume is ''"
    assert told in judge_view(_seen(wrong), Progress(wrong, right, "repair", 0))
    assert told not in judge_view(_seen(wrong), Progress(wrong, right, "repair", None))
