"""Words of the command line that make no sense: each is refused with a hint, none ends in a traceback."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from snaptx.cli import main
from snaptx.errors import OutputError
from tests.updates import overlay

ROOT = Path(__file__).parents[2]


def _refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """Return the message of a command line that is refused with a hint."""
    assert main.main(words) == 2
    message, hint = capsys.readouterr().err.splitlines()
    assert hint.startswith("  hint: ")
    return message


@pytest.mark.parametrize("words", [("run", "--", ""), ("exec", "-g", "1", "--", ""), ("run", "--"), ("run",)])
def test_a_command_has_a_name(words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert _refused(capsys, *words) == "snaptx: no command given"


@pytest.mark.parametrize("words", [("update", "--splay"), ("confirm", "--wait")])
@pytest.mark.parametrize("given", ["nan", "inf", "-1", "1e400", "9" * 400, "soon", ""])
def test_a_time_has_an_end(words: tuple[str, ...], given: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert "is no time in seconds" in _refused(capsys, *words, given)


@pytest.mark.parametrize("days", ["0", "36501", "99999999", "9" * 20])
def test_an_index_is_true_for_a_while(days: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.tar").write_bytes(overlay({"a": b"a"}))

    assert "can't be true for" in _refused(capsys, "publish", str(tmp_path), "--days", days)
    assert os.listdir(tmp_path) == ["a.tar"]


@pytest.mark.parametrize("option", ["--name", "--message"])
def test_an_index_is_text(option: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.tar").write_bytes(overlay({"a": b"a"}))

    assert "not UTF-8" in _refused(capsys, "publish", str(tmp_path), option, os.fsdecode(b"a\xff"))
    assert os.listdir(tmp_path) == ["a.tar"]


@pytest.mark.parametrize("words", [("--help",), ("--version",), ("list", "--help"), ("--json", "app", "-h")])
def test_help_that_can_not_be_written_is_an_error(words: tuple[str, ...]) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "snaptx", *words],
            cwd=ROOT,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )

    assert done.returncode == OutputError.code
    assert done.stderr.splitlines()[0] == "snaptx: the result could not be written: No space left on device"
    assert len(done.stderr.splitlines()) == 2


NUMBERED = (
    *(("verify",), ("commit",), ("abort",), ("rollback",), ("confirm",), ("prune",), ("pin",), ("unpin",)),
    *(("diff", "1"), ("diff",), ("ps",), ("live",), ("log", "-g"), ("apply", "x", "--base")),
    *(("app", "switch", "x"), ("app", "rollback", "x"), ("app", "log", "x", "--generation"), ("exec", "-g")),
)


@pytest.mark.parametrize("words", NUMBERED)
@pytest.mark.parametrize("given", ["0", "-1", "1_0", " 1", "+1", "\uff11", "", "1.0", "9" * 5000])
def test_a_generation_is_a_plain_number(
    words: tuple[str, ...], given: str, capsys: pytest.CaptureFixture[str]
) -> None:
    message = _refused(capsys, *words, given)

    assert message.endswith("is no number of a generation, 1 or more")
    assert len(message) < 160


@pytest.mark.parametrize("words", [("log", "--last"), ("prune", "--keep"), ("publish", ".", "--days")])
def test_a_count_that_python_can_not_read(words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    message = _refused(capsys, *words, "9" * 5000)

    assert message.endswith("is no whole number, 0 or more")
    assert len(message) < 160


@pytest.mark.parametrize(
    ("words", "message", "hint"),
    [
        (("comit",), "unknown verb: 'comit'", "did you mean 'commit'? see: snaptx --help"),
        (
            ("--json", "rollbck", "3"),
            "unknown verb: 'rollbck'",
            "did you mean 'rollback'? see: snaptx --help",
        ),
        (("xyzzy",), "unknown verb: 'xyzzy'", "see: snaptx --help"),
        (("",), "unknown verb: ''", "see: snaptx --help"),
        (("app", "swich", "x"), "unknown action: 'swich'", "did you mean 'switch'? see: snaptx app --help"),
        (("list", "--jsn"), "unknown: --jsn", "did you mean --json? see: snaptx list --help"),
        (("--jsn", "list"), "unknown: --jsn", "did you mean --json? see: snaptx list --help"),
        (
            ("apply", "x", "--mesage=y"),
            "unknown: --mesage=y",
            "did you mean --message? see: snaptx apply --help",
        ),
        (("app", "list", "--quite"), "unknown: --quite", "did you mean --quiet? see: snaptx app --help"),
        (
            ("app", "log", "x", "--lst", "3"),
            "unknown: --lst 3",
            "did you mean --last? see: snaptx app --help",
        ),
        (("list", "extra"), "unknown: extra", "see: snaptx list --help"),
        (("--versoin",), "unknown: --versoin", "did you mean --version? see: snaptx --help"),
        (("--config", "x", "--unchanged"), "unknown: --unchanged", "see: snaptx --help"),
    ],
)
def test_what_is_misspelt_is_recognised(
    words: tuple[str, ...], message: str, hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.main(words) == 2
    assert capsys.readouterr().err.endswith(f"snaptx: {message}\n  hint: {hint}\n")


@pytest.mark.parametrize(
    "words",
    [
        ("--sysroot", "", "list"),
        ("list", "--config="),
        ("init", "--keep", ""),
        ("sandbox", "create", ""),
        ("sandbox", "destroy", ""),
        ("sandbox", "create", "box", "--from", ""),
        ("publish", ""),
        ("publish", ".", "--key", ""),
        ("apply", ""),
        ("app", "apply", "x", ""),
        ("update", "--source", ""),
    ],
)
def test_an_empty_word_is_no_path(
    words: tuple[str, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """It comes of a variable that is not set, and would mean the current directory, or all of the root."""
    monkeypatch.chdir(tmp_path)

    assert _refused(capsys, *words).endswith("it is empty")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("words", "pair"),
    [
        (("init", "--undo", "--convert"), "--undo and --convert"),
        (("init", "--undo", "--keep", "/home"), "--undo and --keep"),
        (("init", "--undo", "--accept-rollback"), "--undo and --accept-rollback"),
        (("init", "--undo", "--no-boot-loader"), "--undo and --no-boot-loader"),
        (("init", "--convert", "--accept-rollback"), "--convert and --accept-rollback"),
        (("update", "--check", "--policy", "reboot"), "--check and --policy reboot"),
        (("prune", "2", "--keep", "5"), "numbers and --keep"),
        (("live", "2", "--off"), "a generation and --off"),
    ],
)
def test_what_contradicts_itself_is_refused(
    words: tuple[str, ...], pair: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before anything is looked at: one of the two would be left out without a word."""
    assert _refused(capsys, *words) == f"snaptx: {pair} contradict each other"
