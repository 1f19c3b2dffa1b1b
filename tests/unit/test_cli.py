"""The command line: what is understood, what is said, and with which status it ends."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path

import pytest
from pytest_mock import MockerFixture

from snaptx import errors, log
from snaptx.cli import common, main
from snaptx.errors import NOTHING_TO_DO, SnaptxError, every_error

ROOT = Path(__file__).parents[2]
CODES = {
    "SnaptxError": 1, "UsageError": 2, "ConfigError": 3, "LockError": 4, "PrivilegeError": 5,
    "OutputError": 6,
    "SourceError": 20, "HostileError": 21, "LimitError": 22, "DigestError": 23,
    "FetchError": 24, "TrustError": 25,
    "CommandError": 31, "HealthError": 32, "RejectedError": 33, "PackageError": 34,
    "VerifyError": 40, "ConflictError": 41,
    "StorageError": 50, "NotFoundError": 51, "BusyError": 52, "NoSpaceError": 53, "ReadOnlyError": 54,
    "LayoutError": 55, "OutcomeUnknownError": 59,
    "BootError": 60, "LiveError": 61, "JournalError": 70, "FormatError": 71,
}  # fmt: skip


def test_every_error_keeps_its_code() -> None:
    assert {cls.__name__: cls.code for cls in every_error()} == CODES
    assert len(set(CODES.values())) == len(CODES)
    assert NOTHING_TO_DO not in CODES.values()


@pytest.mark.parametrize("verb", main.VERBS)
def test_every_verb_has_help(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main.main([verb, "--help"])

    assert ended.value.code == 0
    out = capsys.readouterr().out
    assert f"snaptx {verb}" in out
    assert main.VERBS[verb][1:] in " ".join(out.split())


def test_what_cannot_be_read_is_no_trouble_of_the_output() -> None:
    def lines() -> Iterator[str]:
        yield "first"
        raise OSError(errno.EIO, "Input/output error")

    with pytest.raises(OSError, match="Input/output"):
        common.emit(Namespace(json=False, quiet=False), None, lines())


def test_no_verb_at_all(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main([]) == 2
    assert capsys.readouterr().err == "snaptx: no verb given\n  hint: see: snaptx --help\n"


@pytest.mark.parametrize(
    "words", [["fly"], ["list", "--fly"], ["pin", "one"], ["commit", "--conflicts=mine"]]
)
def test_misunderstandings_have_a_hint(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(words) == 2
    said = capsys.readouterr()
    assert said.out == ""
    message, hint = said.err.splitlines()
    assert message.startswith("snaptx: ")
    assert "--help" in hint


def test_globals_go_before_and_after_the_verb() -> None:
    for words in (["--json", "--sysroot", "/x", "list"], ["list", "--sysroot", "/x", "--json"]):
        args = main.build_parser("list").parse_args(words)
        assert (args.json, args.sysroot, args.quiet) == (True, Path("/x"), False)


def test_help_before_a_verb_is_of_all_verbs(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main.main(["--help", "list"])

    out = capsys.readouterr().out
    assert [verb for verb in main.VERBS if f"\n    {verb} " not in out] == []


def test_a_directory_may_be_called_like_a_verb(mocker: MockerFixture) -> None:
    seen = mocker.patch("snaptx.cli.list.run", return_value=0)

    assert main.main(["--sysroot", "apply", "list"]) == 0
    assert seen.call_args.args[0].sysroot == Path("apply")


def test_a_command_keeps_its_own_options(mocker: MockerFixture) -> None:
    perform = mocker.patch("snaptx.cli.run.perform", return_value=0)
    for words in (["run", "--", "ls", "--json", "-l"], ["run", "ls", "--json", "-l"]):
        assert main.main(words) == 0
        assert list(perform.call_args.args[1]) == ["ls", "--json", "-l"]
        assert not perform.call_args.args[0].json


def _ending(mocker: MockerFixture, error: BaseException) -> None:
    mocker.patch("snaptx.cli.list.run", side_effect=error)


@pytest.mark.parametrize("cls", list(every_error()))
def test_errors_become_words_and_codes(
    cls: type[SnaptxError], mocker: MockerFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    _ending(mocker, cls("it broke", hint="mend it"))

    assert main.main(["list"]) == cls.code
    assert capsys.readouterr().err == "snaptx: it broke\n  hint: mend it\n"
    assert main.main(["list", "--json"]) == cls.code
    said = capsys.readouterr()
    body = {"type": cls.__name__, "message": "it broke", "hint": "mend it", "code": cls.code}
    assert json.loads(said.out) == {"error": body}


def test_a_result_and_the_failure_it_goes_with_are_one_object(
    mocker: MockerFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(args: Namespace) -> None:
        common.emit(args, {"path": b"a"}, "one", SnaptxError("it broke", hint="mend it"))

    mocker.patch("snaptx.cli.list.run", run)

    assert main.main(["list"]) == 1
    assert capsys.readouterr() == ("one\n", "snaptx: it broke\n  hint: mend it\n")
    assert main.main(["list", "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert (told["path"], told["error"]["message"]) == ("a", "it broke")


@pytest.mark.parametrize(
    ("number", "code"),
    [(errno.ENOSPC, 53), (errno.EDQUOT, 53), (errno.EROFS, 54), (errno.EBUSY, 52), (errno.EIO, 50)],
)
def test_what_nobody_translated_still_has_a_code(
    number: int, code: int, mocker: MockerFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    _ending(mocker, OSError(number, os.strerror(number), "/some/file"))

    assert main.main(["list"]) == code
    assert "/some/file" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "code", "name"),
    [(KeyboardInterrupt(), 130, "SIGINT"), (KeyboardInterrupt(signal.SIGTERM), 143, "SIGTERM")],
)
def test_signals(
    error: KeyboardInterrupt, code: int, name: str, mocker: MockerFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    _ending(mocker, error)

    assert main.main(["list"]) == code
    assert name in capsys.readouterr().err


def test_mistakes_of_a_programmer_keep_their_traceback(mocker: MockerFixture) -> None:
    _ending(mocker, RuntimeError("a bug"))

    with pytest.raises(RuntimeError):
        main.main(["list"])


def test_json_of_a_command_inside_is_not_asked_of_snaptx(
    mocker: MockerFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    mocker.patch("snaptx.cli.run.run", side_effect=errors.CommandError("it broke", hint="mend it"))
    for words in (["--", "tool", "--json"], ["tool", "--json"], ["--keep", "tool", "--json"]):
        assert main.main(["run", *words]) == 31
        assert capsys.readouterr().out == ""
    for words in (
        ["run", "--json", "tool"],
        ["--json", "run", "--keep", "tool"],
        ["run", "--json", "--base"],
    ):
        main.main(words)
        assert json.loads(capsys.readouterr().out)["error"]["code"]


@pytest.mark.parametrize(
    "words",
    [["--js", "list"], ["list", "--js"], ["app", "list", "--js"], ["sandbox", "create", "--si", "1G", "x"]],
)
def test_options_are_written_out(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(words) == 2
    message = capsys.readouterr().err.splitlines()[0]
    assert "--js" in message or "--si" in message


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain é …", "plain é …"),
        ("a\nb\tc", "a\\nb\\tc"),
        ("\x1b[31m", "\\x1b[31m"),
        ("\udcff", "\\xff"),
        ("\u202e", "\\u202e"),
        ("\ud800", "\\ud800"),
    ],
)
def test_other_peoples_text_does_nothing_to_a_terminal(text: str, shown: str) -> None:
    assert log.printable(text) == shown


def test_what_failed_is_named_safely_on_a_terminal(
    mocker: MockerFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line each for the message and the hint, whatever names are in them."""
    _ending(mocker, SnaptxError("no \x1b[31m\nred", hint="not \x9b2J"))
    name = "a\x1b]0;title\x07\n"

    assert main.main(["list"]) == 1
    assert capsys.readouterr().err == "snaptx: no \\x1b[31m\\nred\n  hint: not \\x9b2J\n"
    assert main.main(["sandbox", "destroy", f"/none/{name}"]) in (2, 5)
    assert main.main(["list", name]) == 2
    assert all(line.isprintable() for line in capsys.readouterr().err.splitlines())


def test_a_log_line_is_one_line_that_does_nothing_to_a_terminal() -> None:
    line = log._plain(None, "warning", {"event": "left", "path": "a\x1b[31m\nb"})

    assert line == "snaptx: warning: left (path=a\\x1b[31m\\nb)"


def test_lines_and_json(capsys: pytest.CaptureFixture[str]) -> None:
    common.emit(Namespace(json=False), {"a": 1}, ["one", "two"])
    common.emit(Namespace(json=True), {"path": b"a\xff"}, "not this")
    out = capsys.readouterr().out

    assert out.startswith("one\ntwo\n{")
    assert json.loads(out.removeprefix("one\ntwo\n")) == {"path": "a\udcff"}


def test_tables_sizes_and_counts() -> None:
    assert common.table([("NR", "X", "LAST"), ("1", "long", "a"), ("22", "", "b c")]) == [
        "NR  X     LAST",
        "1   long  a",
        "22        b c",
    ]
    assert common.table([("NR", "LAST"), ("é", "x"), ("e\u0301", "x"), ("プロ", "x"), ("\x1b", "x")]) == [
        "NR    LAST",
        "é     x",
        "e\u0301     x",
        "プロ  x",
        "\\x1b  x",
    ]
    sizes = {
        0: "0 B",
        1023: "1023 B",
        1024: "1.0 KiB",
        1536: "1.5 KiB",
        3 << 30: "3.0 GiB",
        1 << 60: "1048576.0 TiB",
    }
    assert {number: common.size(number) for number in sizes} == sizes
    assert common.count("007") == 7


def test_progress_is_silent_without_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with common.Progress(Namespace(quiet=False, json=False), "staging") as progress:
        progress(10, 1000, 2000)

    assert capsys.readouterr().err == ""


def test_progress_tells_of_writing_and_of_reading_back(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    with common.Progress(Namespace(quiet=False, json=False), "staging") as progress:
        progress(10, 1000, 2000)
    with common.Progress(Namespace(quiet=False, json=False), "staging") as progress:
        progress.reread(10)
    staged, _, read_back, _ = capsys.readouterr().err.removeprefix("\r\x1b[K").split("\r\x1b[K")

    assert staged.startswith("staging [###")
    assert "10 files" in staged
    assert read_back == "reading back 10 files"


@pytest.mark.parametrize("columns", [10, 40, 80, 200])
def test_progress_fits_the_terminal(
    columns: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A line that is wrapped can't be cleared: each step would leave one behind."""
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", str(columns))
    with common.Progress(Namespace(quiet=False, json=False), "downloading") as progress:
        progress(123_456, 10**9, 2 * 10**9)
    told = capsys.readouterr().err.split("\r\x1b[K")[1]

    assert 0 < len(told) < columns
    assert told.startswith("downloading "[: columns - 1])
    assert told.endswith(" files/s") == ("[###" in told) == (columns >= 80)


@pytest.mark.parametrize("columns", ["", "²", "wide", "-5", "9" * 5000])
def test_a_width_that_is_none_is_not_believed(
    columns: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", columns)
    with common.Progress(Namespace(quiet=False, json=False), "staging") as progress:
        progress(10, 1000, 2000)

    assert "10 files" in capsys.readouterr().err


def test_a_terminal_that_can_not_clear_a_line_shows_no_progress(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    monkeypatch.setenv("TERM", "dumb")
    with common.Progress(Namespace(quiet=False, json=False), "staging") as progress:
        progress(10, 1000, 2000)

    assert capsys.readouterr().err == ""


def test_help_starts_fast_and_loads_little() -> None:
    script = "import sys; from snaptx.cli import main\ntry: main.main(['--help'])\nexcept SystemExit: pass\n"
    heavy = "{'sh', 'structlog', 'btrfsutil', 'sqlite3', 'zstandard', 'tomllib'}"
    script += f"print(sorted({heavy} & set(sys.modules)), file=sys.stderr)"
    times = []
    for _ in range(3):
        begun = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
        )
        times.append(time.monotonic() - begun)

    assert done.stderr == "[]\n"
    assert min(times) < 1.0, "0.2 s on a quiet machine"


def _printed(script: str) -> str:
    """Return what a fresh interpreter prints."""
    command = [sys.executable, "-c", script]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout


def test_verbs_in_daily_use_make_no_dataclass() -> None:
    """To make the classes takes longer than many a verb's work, and so does loading what makes them."""
    verbs = "list", "status", "log", "diff", "apply", "commit", "rollback", "confirm", "prune", "live", "hook"
    inner = (
        "stage",
        "commit",
        "rollback",
        "confirm",
        "prune",
        "hook",
        "audit",
        "trees.compare",
        "trees.conflicts",
    )
    backends = "storage.btrfs", "storage.sendstream", "bootloader.inroot", "bootloader.onboot"
    names = ("cli.main", *(f"cli.{verb}" for verb in verbs), *inner, *backends)
    script = f"import sys, importlib\nfor name in {names}: importlib.import_module(f'snaptx.{{name}}')\n"
    script += "print(sorted({'dataclasses', 'inspect'} & set(sys.modules)))"
    assert _printed(script) == "[]\n"


def test_no_verb_asks_how_wide_the_terminal_is_before_help_is_wanted() -> None:
    script = "import sys; from snaptx.cli import main\n"
    script += "for verb in ('list', 'apply', 'commit', 'hook'): main.build_parser(verb)\n"
    script += "print('shutil' in sys.modules)"
    assert _printed(script) == "False\n"


def test_no_verb_needs_a_filesystem_s_library_before_it_has_seen_the_filesystem() -> None:
    script = "import sys; from snaptx.cli import main\nfor verb in main.VERBS: main.module_of(verb)\n"
    script += "print(sorted({'btrfsutil', 'libzfs_core'} & set(sys.modules)))"
    assert _printed(script) == "[]\n"
