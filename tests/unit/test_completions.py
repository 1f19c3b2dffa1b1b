"""The shells complete what the parser takes, and generations where they can be listed."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from argparse import Namespace
from pathlib import Path

import pytest

from snaptx.cli import common
from snaptx.cli.main import VERBS
from snaptx.model import Generation, jsonable
from snaptx.sandbox.layout import Layout
from tests import completions

COMMANDS = {command.name: command for command in completions.commands()}
TAKING_COMMON = [name for name in COMMANDS if name not in ("", "sandbox", "app") and " " not in name]


def _run(*command: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    program = shutil.which(command[0])
    assert program, f"{command[0]} is missing; run: make venv"
    words = [program, *map(str, command[1:])]
    given = os.environ | environment
    return subprocess.run(words, env=given, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("name", completions.FILES)
def test_completion_is_up_to_date(name: str) -> None:
    assert (completions.DIRECTORY / name).read_text() == completions.updated(name), (
        "python -m tests.completions"
    )


@pytest.fixture
def listing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    """Return a directory with a ``snaptx`` that lists two generations of the root ``box``."""
    generations = [
        Generation(1, 0, 0.0, "init", "as found: it works"),
        Generation(23, 1, 0.0, "apply", "a greeting"),
    ]
    body = [jsonable(generation) | {"phase": "committed"} for generation in generations]
    common.emit(Namespace(json=True), body, "")
    (tmp_path / "listing").write_text(capsys.readouterr().out)
    command = tmp_path / "snaptx"
    command.write_text(f'#!/bin/sh\n[ "$*" = "--sysroot box list --json" ] && cat {tmp_path}/listing\n')
    command.chmod(0o755)
    return tmp_path


BASH = """
source "$1"; shift
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _snaptx
printf '%s\\n' "${COMPREPLY[@]}"
"""


def _bash(*words: str, path: Path | None = None) -> list[str]:
    place = completions.DIRECTORY / "snaptx"
    search = f"{path}:{os.environ['PATH']}" if path else os.environ["PATH"]
    result = _run("bash", "--norc", "-c", BASH, "bash", place, *words, PATH=search)

    assert result.stderr == ""
    return sorted(result.stdout.split())


def test_bash_completes_verbs() -> None:
    assert _bash("snaptx", "") == sorted(VERBS)
    assert _bash("snaptx", "--sysroot", "list", "ro") == ["rollback"]
    assert _bash("snaptx", "sandbox", "") == ["create", "destroy", "reboot"]
    assert {"apply", "create", "switch"} <= set(_bash("snaptx", "app", ""))


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_bash_completes_the_options_of(name: str) -> None:
    command = COMMANDS[name]
    expected = command.flags + (COMMANDS[""].flags if command.common and name else [])

    assert _bash("snaptx", *name.split(), "-") == sorted(expected)


def test_bash_completes_values() -> None:
    assert _bash("snaptx", "commit", "--conflicts", "") == ["fail", "new", "old"]
    assert _bash("snaptx", "commit", "--conflicts", "=", "n") == ["new"]
    assert _bash("snaptx", "sandbox", "create", "--layout", "") == sorted(Layout)
    assert "bash" in _bash("snaptx", "run", "--", "bas")


def test_bash_completes_files(tmp_path: Path) -> None:
    (tmp_path / "update.tar").touch()
    (tmp_path / "update").mkdir()

    assert _bash("snaptx", "apply", f"{tmp_path}/up") == [f"{tmp_path}/update", f"{tmp_path}/update.tar"]
    assert _bash("snaptx", "sandbox", "destroy", f"{tmp_path}/up") == [f"{tmp_path}/update"]


def test_bash_completes_generations(listing: Path) -> None:
    assert _bash("snaptx", "--sysroot", "box", "rollback", "", path=listing) == ["1", "23"]
    assert _bash("snaptx", "apply", "--sysroot", "=", "box", "--base", "2", path=listing) == ["23"]


def test_bash_offers_nothing_where_listing_fails(listing: Path) -> None:
    assert _bash("snaptx", "--sysroot", "other", "rollback", "", path=listing) == []
    assert _bash("no-such-command", "rollback", "") == []


def test_bash_completion_is_sound() -> None:
    result = _run("shellcheck", completions.DIRECTORY / "snaptx")

    assert result.stdout == ""
    assert result.returncode == 0


def _fish(line: str, path: Path) -> dict[str, str]:
    script = "source $argv[1]; complete -C $argv[2]"
    place = completions.DIRECTORY / "snaptx.fish"
    search = f"{path}:{os.environ['PATH']}"
    result = _run("fish", "--no-config", "-c", script, place, line, PATH=search, HOME=str(path))

    assert result.stderr == ""
    return dict(row.partition("\t")[::2] for row in result.stdout.splitlines())


def test_fish_completes(listing: Path) -> None:
    assert _fish("snaptx ", listing).items() >= VERBS.items()
    assert list(_fish("snaptx --sysroot list ro", listing)) == ["rollback"]
    assert list(_fish("snaptx apply --conflicts ", listing)) == ["fail", "new", "old"]
    assert sorted(_fish("snaptx sandbox create --layout ", listing)) == sorted(Layout)
    assert "--sha256" in _fish("snaptx --quiet apply --", listing)
    assert "--sha256" not in _fish("snaptx --", listing)
    assert "--json" in _fish("snaptx sandbox create --", listing)
    assert {"apply", "create", "switch"} <= set(_fish("snaptx app ", listing))


def test_fish_completes_generations(listing: Path) -> None:
    expected = {"1": "as found: it works", "23": "a greeting"}

    assert _fish("snaptx --sysroot box rollback ", listing) == expected
    assert _fish("snaptx apply --sysroot=box --base ", listing) == expected
    assert _fish("snaptx --sysroot other rollback ", listing) == {}


# The first call of _arguments finds the verb, the next one gets what the verb takes.
ZSH = """
_arguments() {
    if (( asked++ )); then print -rl -- "$@"; return; fi
    state=argument; words=("${(@)words[2,-1]}")
    return 1
}
file=$1; shift
words=("$@")
source $file
"""


@pytest.mark.parametrize("name", TAKING_COMMON)
def test_zsh_knows_the_options_of(name: str) -> None:
    command = COMMANDS[name]
    result = _run("zsh", "-f", "-c", ZSH, "zsh", completions.DIRECTORY / "_snaptx", "snaptx", name, "")
    found = re.findall(r"^(?:\([^)]*\))?(--?[\w-]+)[=+]?\[", result.stdout, re.MULTILINE)

    assert result.stderr == ""
    assert sorted(found) == sorted(command.flags + COMMANDS[""].flags)
