"""A conversion cut short, or gone wrong: the machine boots, no data is lost, and a second call goes on."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from snaptx import mounting
from snaptx.errors import StorageError
from snaptx.sharing import attach, conversions
from snaptx.storage.btrfs import BtrfsStorage
from snaptx.transaction import Transaction
from snaptx.trees import copies
from tests.boxes import Box, changes
from tests.furnished import NAMES, PLACES, data, is_sound, lines, mounted, subvolumes


def dying(act: Callable[..., Any], *, after: bool) -> Callable[..., Any]:
    """Return ``act`` with the end of the process right before or after it."""

    def die(*args: Any, **words: Any) -> Any:
        if after:
            act(*args, **words)
        os._exit(9)

    return die


def failing(act: Callable[..., Any], *, after: bool) -> Callable[..., Any]:
    """Return ``act`` with an error right before or after it."""

    def fail(*args: Any, **words: Any) -> Any:
        if after:
            act(*args, **words)
        raise StorageError("the disk is tired", hint="let it rest")

    return fail


MOMENTS = {
    "copying": (copies, "clone"),
    "recording": (conversions, "put"),
    "naming": (BtrfsStorage, "keep_shared"),
    "fstab": (attach, "_replace"),
    "mounting": (mounting, "mount"),
}


@pytest.mark.parametrize(("how", "after"), [(dying, False), (dying, True), (failing, False)])
@pytest.mark.parametrize("moment", sorted(MOMENTS))
def test_cut_short_it_boots_loses_nothing_and_goes_on(
    full: Box, monkeypatch: pytest.MonkeyPatch, moment: str, how: Callable[..., Any], after: bool
) -> None:
    before, old = data(full.root), (full.root / "etc/fstab").read_text()
    where, name = MOMENTS[moment]
    with monkeypatch.context() as patch:
        patch.setattr(where, name, how(getattr(where, name), after=after))
        assert full.run("init", "--convert").code == (9 if how is dying else 50)

    assert changes(before, data(full.root)) == {}
    complete = (full.root / "etc/fstab").read_text() != old
    assert complete == (moment == "mounting" or (moment == "fstab" and after))
    assert lines(full) == (["/", *(f"/{name}" for name in PLACES)] if complete else ["/"])
    is_sound(full)
    full.reboot()
    assert mounted(full) == (NAMES if complete else {})
    assert changes(before, data(full.root)) == {}

    full.ok("init", "--convert")
    assert mounted(full) == NAMES
    assert changes(before, data(full.root)) == {}
    assert subvolumes(full) == {"@rootfs", "@snaptx", *NAMES.values()}
    assert full.marks() == {1: "NRG"}
    assert full.ok("log", "--verify")


@pytest.mark.parametrize("step", ["copy", "keep", "fstab", "mount"])
def test_an_error_at_each_step_is_told_once(full: Box, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    take = Transaction.step

    def stop(txn: Transaction, name: str) -> None:
        if name == step:
            raise StorageError("the disk is tired", hint="let it rest")
        take(txn, name)

    with monkeypatch.context() as patch:
        patch.setattr(Transaction, "step", stop)
        said = full.run("init", "--convert")
    assert (said.code, said.complaint) == (50, ("the disk is tired", "let it rest"))
    assert full.audit()[-1]["result"] == "failed"
    assert [name for name in subvolumes(full) if "unfinished" in name] == []
    full.ok("init", "--convert")
    assert mounted(full) == NAMES


@pytest.mark.parametrize(
    ("spoil", "where"),
    [
        (lambda home: (home / "ann/named").write_text("other\n"), "ann/named"),
        (lambda home: home.chmod(0o711), "the directory itself"),
    ],
)
def test_a_copy_that_is_not_one_is_thrown_away(
    full: Box, monkeypatch: pytest.MonkeyPatch, spoil: Callable[[Path], object], where: str
) -> None:
    clone = copies.clone

    def forget(source: Path, target: Path) -> None:
        clone(source, target)
        if (target / "ann/named").exists():
            spoil(target)

    with monkeypatch.context() as patch:
        patch.setattr(copies, "clone", forget)
        said = full.run("init", "--convert")
    assert said.code == 40
    assert f"the copy of /home differs from it: {where}" in said.complaint[0]
    assert subvolumes(full) == {"@rootfs", "@snaptx"}
    assert lines(full) == ["/"]
