"""The table of recovery: what an interrupted transaction becomes."""

from __future__ import annotations

import pytest

from snaptx.recover import Act, Facts, Remedy, decide

TABLE = [
    # act, recorded, default, remedy
    (Act.STAGE, False, False, Remedy.DISCARD),
    (Act.STAGE, True, False, Remedy.COMPLETE),
    (Act.INIT, False, False, Remedy.DISCARD),
    (Act.INIT, True, False, Remedy.DISCARD),
    (Act.INIT, True, True, Remedy.COMPLETE),
    (Act.COMMIT, True, False, Remedy.UNSEAL),
    (Act.COMMIT, True, True, Remedy.COMPLETE),
    (Act.ROLLBACK, False, False, Remedy.DISCARD),
    (Act.ROLLBACK, True, False, Remedy.DISCARD),
    (Act.ROLLBACK, True, True, Remedy.COMPLETE),
    (Act.ACTIVATE, True, False, Remedy.LEAVE),
    (Act.ACTIVATE, True, True, Remedy.COMPLETE),
    (Act.REMOVE, False, False, Remedy.COMPLETE),
    (Act.REMOVE, True, False, Remedy.COMPLETE),
    (Act.RECORD, True, True, Remedy.SETTLE),
    (Act.RECORD, True, False, Remedy.SETTLE),
    (Act.JUDGE, True, True, Remedy.SETTLE),
    (Act.JUDGE, True, False, Remedy.SETTLE),
    (Act.LIVE, True, False, Remedy.SETTLE),
    (Act.LIVE, False, False, Remedy.SETTLE),
    (Act.KEEP, False, False, Remedy.DISCARD),
    (Act.KEEP, True, False, Remedy.COMPLETE),
]


@pytest.mark.parametrize(("act", "recorded", "default", "remedy"), TABLE)
def test_each_state_has_its_remedy(act: Act, recorded: bool, default: bool, remedy: Remedy) -> None:
    assert decide(act, Facts(recorded=recorded, default=default)) is remedy


@pytest.mark.parametrize("act", [Act.COMMIT, Act.ROLLBACK, Act.ACTIVATE])
def test_what_a_boot_has_chosen_since_is_kept(act: Act) -> None:
    assert decide(act, Facts(recorded=True, default=False, running=True)) is Remedy.COMPLETE


def test_what_boots_is_never_discarded() -> None:
    for act in Act:
        assert decide(act, Facts(recorded=True, default=True)) in (Remedy.COMPLETE, Remedy.SETTLE)


def test_the_table_above_is_complete() -> None:
    assert {row[0] for row in TABLE} == set(Act)
