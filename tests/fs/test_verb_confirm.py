"""``confirm``, ``pin``, ``unpin`` and ``prune``: what proves itself stays, what does not goes."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from snaptx import checks
from tests.boxes import Box, changes, made
from tests.fs.conftest import command


def update(box: Box, place: Path, name: str, *options: str) -> int:
    """Commit a generation with one more file and return its number."""
    (place / name / "etc").mkdir(parents=True)
    (place / name / "etc" / name).write_text(name)
    return int(box.json("apply", "--commit", *options, str(place / name))["committed"]["number"])


@pytest.fixture(scope="module")
def trial(tmp_path_factory: pytest.TempPathFactory, programs: Path) -> Iterator[Box]:
    """Give a sandbox that runs generation 2 on trial, 1 is good."""
    with made(source=programs) as one:
        update(one, tmp_path_factory.mktemp("payload"), "two")
        one.reboot()
        yield one


@pytest.fixture
def tried(trial: Box) -> Iterator[Box]:
    """Give that sandbox without health checks, and put its state back afterwards."""
    record = trial.state / "generations/2/generation.json"
    kept = record.read_bytes()
    yield trial
    for directory in ("etc/snaptx", "usr/lib/snaptx"):
        shutil.rmtree(trial.root / directory, ignore_errors=True)
    record.write_bytes(kept)
    trial.run("rollback", "2", "--as-used")
    assert trial.marks()[2] == "NRT"


def hook(box: Box, name: str, script: str, stage: str = "check", top: str = "etc") -> Path:
    """Put a health check in place."""
    path = box.root / top / "snaptx/hooks.d" / stage / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


def test_what_passes_is_good_and_the_entry_says_so(tried: Box) -> None:
    hook(tried, "10-sees", 'test "$SNAPTX_GENERATION" = 2 && test -e /etc/two')
    done = tried.json("confirm")

    assert (done["verdict"], done["failures"], done["default"]) == ("good", [], 2)
    assert tried.marks() == {1: "G", 2: "NRG"}
    assert tried.boot().confirmed
    assert "good already" in tried.ok("confirm")
    assert tried.run("confirm", "--unchanged-exit-77").code == 77


def test_what_fails_is_bad_and_the_last_good_boots_next(tried: Box) -> None:
    hook(tried, "20-fails", "echo the reason >&2; exit 3")
    said = tried.run("--json", "confirm")

    assert said.code == 32
    done = said.json
    assert (done["verdict"], done["default"]) == ("bad", 1)
    assert "the reason" in done["failures"][0]["reason"]
    assert done["error"]["code"] == 32
    assert tried.marks() == {1: "RG", 2: "NB"}
    assert (tried.boot().default, tried.boot().confirmed) == (1, True)
    assert tried.default_subvolume() == "@rootfs"
    assert "status 3: the reason" in tried.json("list")[1]["reason"]
    assert tried.json("verify", "1")["problems"] == []


def test_the_administrators_hook_hides_one_of_a_package(tried: Box) -> None:
    hook(tried, "10-a", "exit 1", top="usr/lib")
    hook(tried, "20-b", "exit 1", top="usr/lib")
    hook(tried, "10-a", "exit 0")
    (tried.root / "etc/snaptx/hooks.d/check/20-b").symlink_to("/dev/null")
    hook(tried, "30-not-executable", "exit 1").chmod(0o644)

    assert tried.json("confirm")["failures"] == []


def test_a_wanted_check_only_warns(tried: Box) -> None:
    hook(tried, "10-warns", "echo low memory; exit 1", stage="check-wanted")
    said = tried.ok("confirm")

    assert "warning: " in said
    assert "low memory" in said
    assert tried.marks()[2] == "NRG"


@pytest.mark.parametrize("script", ["sleep 60", "trap '' TERM; sleep 60; sleep 60"])
def test_a_check_that_hangs_fails(tried: Box, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "KILL_AFTER", 0.5)
    tried.configure("[health]\ntimeout = 1\n")
    hook(tried, "10-hangs", script)
    said = tried.run("confirm")

    assert said.code == 32
    assert "took longer than 1 seconds" in said.out


def test_a_check_that_cannot_start_fails(tried: Box) -> None:
    hook(tried, "10-odd", "").write_text("#!/no/such/interpreter\n")

    assert tried.run("confirm").code == 32


def test_the_administrators_word(tried: Box) -> None:
    hook(tried, "10-fails", "exit 1")

    assert "would judge" in tried.ok("--dry-run", "confirm")
    tried.ok("confirm", "2", "--bad", "it is slow")
    assert tried.marks() == {1: "RG", 2: "NB"}
    assert tried.json("list")[1]["reason"] == "it is slow"
    assert "--bad" in tried.refuses(2, "confirm", "--bad", "2")


def test_only_committed_generations_are_judged(tried: Box, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    number = tried.json("apply", str(tmp_path))["staged"]["number"]

    assert f"{tried.program} commit {number}" in tried.refuses(52, "confirm", str(number))
    assert "no generation 99" in tried.refuses(51, "confirm", "99")
    tried.ok("abort")


def test_pin_and_unpin(tried: Box) -> None:
    tried.ok("pin", "1")
    assert tried.marks()[1] == "GP"
    before = tried.facts()
    assert tried.run("pin", "1", "--unchanged-exit-77").code == 77
    assert "would be not pinned" in tried.ok("--dry-run", "unpin", "1")
    assert changes(before, tried.facts()) == {}
    tried.refuses(51, "pin", "99")
    tried.ok("unpin", "1")
    assert tried.marks()[1] == "G"


@pytest.fixture
def several(box: Box, tmp_path: Path) -> Box:
    """Give a sandbox that runs 1: 2 is bad, 3 and 4 (default) good, 5 bad but pinned, 6 staged.

    What boots next does not stem from 2 and 3, which may go.
    """
    for name in ("two", "three", "four", "five"):
        update(box, tmp_path, name, "--base", "1")
    for number in ("3", "4"):
        box.ok("confirm", number)
    for number in ("2", "5"):
        box.ok("confirm", number, "--bad")
    box.ok("pin", "5")
    (tmp_path / "file").write_text("x")
    box.ok("apply", str(tmp_path / "two"), "--base", "4")
    return box


def test_prune_by_the_rules(several: Box) -> None:
    plan = several.json("--dry-run", "prune", "--keep", "0")
    assert plan["expendable"] == [2, 3]
    assert plan["protected"] == {"1": "running", "4": "default", "5": "pinned", "6": "staged"}

    assert several.json("prune")["removed"] == []
    assert several.run("prune", "--unchanged-exit-77").code == 77
    assert several.json("prune", "--keep", "0")["removed"] == [2, 3]
    assert list(several.marks()) == [1, 4, 5, 6]
    assert [entry.number for entry in several.boot().entries] == [4, 5, 1]
    for number in (2, 3):
        assert not (several.state / f"generations/{number}").exists()
        assert not (several.state / f"manifests/{number}.sqlite").exists()
    assert several.json("verify", "4")["problems"] == []


def test_prune_of_what_is_protected(several: Box) -> None:
    for number, reason in {1: "running", 4: "default", 5: "pinned", 6: "staged"}.items():
        assert reason in several.refuses(52, "prune", "2", str(number))
    assert "no generation 9" in several.refuses(51, "prune", "2", "9")


def test_prune_by_name_and_never_a_number_again(several: Box, tmp_path: Path) -> None:
    assert several.json("prune", "2", "3")["removed"] == [2, 3]
    several.ok("abort", "6")
    assert update(several, tmp_path, "seven") == 7


def test_prune_leaves_what_tells_of_changes_since(box: Box, tmp_path: Path) -> None:
    """All between what runs and what boots next; its restart ends that."""
    for name in ("two", "three", "four", "five"):
        update(box, tmp_path, name)
    reason = box.json("--dry-run", "prune", "--keep", "1")["protected"]["3"]

    assert reason in box.refuses(52, "prune", "3")
    assert "restart" in box.refuses(52, "prune", "3")
    assert box.json("prune", "--keep", "1")["removed"] == []
    (box.root / "etc/mine").write_text("mine")
    update(box, tmp_path, "six")
    box.reboot()
    assert (box.root / "etc/mine").read_text() == "mine"
    assert box.json("prune", "3")["removed"] == [3]


def test_prune_leaves_what_is_in_use(several: Box, tmp_path: Path) -> None:
    (tmp_path / "look").mkdir()
    command("mount", "--bind", several.tree(2), tmp_path / "look")
    try:
        said = several.ok("prune", "2", "3")
    finally:
        command("umount", tmp_path / "look")

    assert "removed: 3" in said
    assert "still in use, left: 2" in said
    assert several.tree(2).is_dir()
    assert several.marks()[2] == "B"
    assert several.json("prune", "2")["removed"] == [2]
    assert several.json("verify", "1")["problems"] == []


@pytest.mark.parametrize("keep", ["-1", "many"])
def test_prune_keeps_a_number(shared: Box, keep: str) -> None:
    shared.refuses(2, "prune", f"--keep={keep}")
