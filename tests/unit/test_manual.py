"""What a user reads says what the program does: manual pages, README, units.

Each is compared with the parser, the error tree and the configuration in both
directions: nothing is missing and nothing is there that does not exist.
"""

from __future__ import annotations

import configparser
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from snaptx import config, errors
from snaptx.cli.main import VERBS, build_parser
from snaptx.model import jsonable
from snaptx.sandbox.layout import Layout
from tests import completions

ROOT = Path(__file__).parents[2]
MANUAL = ROOT / "snaptx/manual"
README = (ROOT / "README.md").read_text()
PAGE = (MANUAL / "snaptx.8").read_text().replace("\\\n", "")
CONFIG_PAGE = (MANUAL / "snaptx.conf.5").read_text().replace("\\\n", "")
COMMANDS = {command.name: command for command in completions.commands()}
ACTING = {"sandbox", "app"}
"""They have no entry themselves: their actions have."""

ENTRIES = sorted(COMMANDS.keys() - ACTING - {""})
STATUSES = {cls.code: (cls.__doc__ or "").strip() for cls in errors.every_error()}
CHOICES = (
    *(config.Nested, config.Conflicts, config.Policy),
    *(config.ManagerName, config.Conffiles, config.HookMode),
)
OTHER_STATUSES = {0, errors.NOTHING_TO_DO, 129, 130, 141, 143}


def _tool(name: str) -> str:
    found = shutil.which(name)
    assert found, f"{name} is missing; run: make venv"
    return found


def _run(*command: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    words = [_tool(str(command[0])), *map(str, command[1:])]
    given = os.environ | environment
    return subprocess.run(words, env=given, capture_output=True, text=True, check=False)


def _section(page: str, title: str) -> str:
    found = re.search(rf"^\.Sh {title}$(.*?)(?=^\.Sh |\Z)", page, re.MULTILINE | re.DOTALL)
    assert found, f"no section {title}"
    return found[1]


def _entry(name: str) -> tuple[str, str]:
    """Return a verb's heading and what stands below it."""
    text = re.sub(r"^\.Ss .*\n", "", _section(PAGE, "VERBS"), flags=re.MULTILINE)
    pattern = rf"^\.It Ic {name}(?= [A-Z]|$)([^\n]*)$\n(.*?)(?=^\.It Ic |\Z)"
    found = re.findall(pattern, text, re.MULTILINE | re.DOTALL)
    assert len(found) == 1, f"{name} has {len(found)} entries in the page"
    heading, body = found[0]
    return str(heading), str(body)


def _flags(text: str) -> list[str]:
    """Return the options in a line of mdoc, as they are typed."""
    return [f"-{name}" for name in re.findall(r"\bFl (-?\w[\w-]*)", text)]


def _described(body: str) -> dict[str, str]:
    """Return the options a list describes, each with the rest of its line."""
    lines = re.findall(r"^\.It (Fl .*)$", body, re.MULTILINE)
    return {flag: line for line in lines for flag in _flags(line)}


def _long(option: completions.Argument) -> str:
    return next(flag for flag in option.flags if flag.startswith("--"))


def test_page_has_every_verb_and_no_other() -> None:
    found = re.findall(r"^\.It Ic ([a-z ]+?)(?= [A-Z]|$)", _section(PAGE, "VERBS"), re.MULTILINE)

    assert sorted(found) == ENTRIES
    assert set(VERBS) - ACTING <= set(found)


@pytest.mark.parametrize("name", ENTRIES)
def test_page_describes_the_options_of(name: str) -> None:
    heading, body = _entry(name)
    options = [option for option in COMMANDS[name].options if "--help" not in option.flags]
    described = _described(body)

    assert sorted(described) == sorted(flag for option in options for flag in option.flags)
    assert sorted(_flags(heading)) == sorted(_long(option) for option in options)
    for option in options:
        takes = option.wants != "no" and not option.words
        assert not takes or f"Ar {option.metavar}" in described[option.flags[0]]


@pytest.mark.parametrize("name", ENTRIES)
def test_page_shows_the_operands_of(name: str) -> None:
    heading, _ = _entry(name)
    operand = COMMANDS[name].operand
    shown = re.sub(r"\bFl -?\w\S* (?:Ar \S+|Oo Ar \S+ Oc)", "", heading)

    if operand is None:
        assert "Ar" not in shown
    else:
        assert f"Ar {operand.metavar}" in shown or (operand.kind == completions.COMMAND and "Ar CMD" in shown)


def test_page_has_the_global_options() -> None:
    assert sorted(_described(_section(PAGE, "OPTIONS"))) == sorted(COMMANDS[""].flags)


def test_page_has_every_exit_status() -> None:
    text = _section(PAGE, "EXIT STATUS").replace("\\[u2026]", "…")
    rows = re.findall(r"^\.It ([\d, ]+)\n(.*?)(?=^\.(?:It|El))", text, re.MULTILINE | re.DOTALL)
    found = {int(code): said.strip() for codes, said in rows for code in codes.split(",")}

    assert found.keys() == STATUSES.keys() | OTHER_STATUSES
    assert {code: found[code] for code in STATUSES} == STATUSES


def _documented_configuration() -> dict[str, dict[str, object]]:
    tables: dict[str, dict[str, object]] = {}
    for line in CONFIG_PAGE.splitlines():
        if found := re.fullmatch(r"\.Ss \[(\w+)\]", line):
            tables[found[1]] = {}
        elif found := re.fullmatch(r"\.It Va (\w+) No = (.*)", line):
            value = re.sub(r"Qq (\S+)", r'"\1"', re.sub(r"Qo (\S+) Qc", r'"\1"', found[2]))
            tables[list(tables)[-1]][found[1]] = tomllib.loads(f"value = {value}")["value"]
    return tables


def _defaults() -> dict[str, dict[str, object]]:
    return {name: jsonable(section) for name, section in config.Config()._asdict().items()}


def test_configuration_page_has_every_key_with_its_default() -> None:
    assert _documented_configuration() == _defaults()


def test_configuration_page_has_every_choice() -> None:
    for choices in CHOICES:
        found = {choice.value for choice in choices if f".It Cm {choice.value}\n" in CONFIG_PAGE}
        assert found == {choice.value for choice in choices}


def test_example_says_the_defaults() -> None:
    text = (MANUAL / "snaptx.conf.example").read_text()
    active = re.sub(r"^#(\w+ = )", r"\1", text, flags=re.MULTILINE)

    assert tomllib.loads(active) == _defaults()
    assert config.merge(config.Config(), tomllib.loads(text), "example") == config.Config()


@pytest.mark.parametrize("name", ["snaptx.8", "snaptx.conf.5"])
def test_page_is_sound(name: str) -> None:
    result = _run("mandoc", "-T", "lint", "-W", "warning", MANUAL / name)

    assert result.stdout + result.stderr == ""
    assert result.returncode == 0


def test_lint_notices(tmp_path: Path) -> None:
    page = tmp_path / "bad.8"
    page.write_text((MANUAL / "snaptx.8").read_text() + ".Bl -tag\n")

    assert _run("mandoc", "-T", "lint", "-W", "warning", page).returncode != 0


def _units() -> dict[str, configparser.ConfigParser]:
    found = {}
    for path in sorted((ROOT / "hooks").glob("*.*")):
        if path.suffix not in (".service", ".timer"):
            continue
        unit = configparser.ConfigParser(interpolation=None, strict=True)
        unit.optionxform = str  # type: ignore[assignment,method-assign]
        unit.read(path)
        found[path.name] = unit
    return found


def test_units_run_commands_that_exist() -> None:
    services = {name: unit for name, unit in _units().items() if name.endswith(".service")}

    ours = [unit["Service"]["ExecStart"].split() for unit in services.values()]
    ours = [words for words in ours if words[0] != "systemctl"]
    assert len(ours) == len(services) - 1
    for command, *words in ours:
        assert command == "snaptx"
        build_parser(None).parse_args(words)


def test_cron_runs_commands_that_exist() -> None:
    lines = [line for line in (ROOT / "hooks/cron").read_text().splitlines() if " snaptx " in line]
    verbs = [_cron_verb(line) for line in lines if not line.startswith("#")]

    assert verbs == ["update", "prune"]


def _cron_verb(line: str) -> str:
    *moment, user, command = line.split(None, 6)
    words = command.partition("snaptx ")[2].partition(" >")[0].split()
    assert (len(moment), user) == (5, "root")
    return str(build_parser(None).parse_args(words).verb)


def test_timer_has_its_service() -> None:
    units = _units()
    timers = {name: unit["Timer"] for name, unit in units.items() if name.endswith(".timer")}
    started = [timer.get("Unit", name.replace(".timer", ".service")) for name, timer in timers.items()]

    assert len(started) > 1
    assert [name for name in started if name not in units] == []


def test_units_are_described() -> None:
    """By the manual, in the sections that services and timers have."""
    known = {"Unit", "Service", "Timer", "Install"}

    for name, unit in _units().items():
        assert set(unit.sections()) <= known, name
        assert unit["Unit"]["Documentation"].startswith("man:snaptx"), name


@pytest.mark.parametrize(
    ("listed", "status", "said"),
    [
        ("", 0, ""),
        ("snaptx-confirm.service loaded failed failed Confirm", 0, ""),
        (
            "a@b.service loaded failed failed A\nsnaptx-update.service\nsnaptx-confirm.service y\nc.mount x",
            1,
            "failed units: a@b.service c.mount\n",
        ),
    ],
)
def test_check_names_the_failed_units(tmp_path: Path, listed: str, status: int, said: str) -> None:
    (tmp_path / "listed").write_text(listed)
    fake = tmp_path / "systemctl"
    fake.write_text(f"#!/bin/sh\ncat {tmp_path}/listed\n")
    fake.chmod(0o755)
    result = _run("sh", ROOT / "hooks/check-failed-units", PATH=f"{tmp_path}:{os.environ['PATH']}")

    assert (result.returncode, result.stderr) == (status, said)


def test_check_fails_where_nobody_answers(tmp_path: Path) -> None:
    fake = tmp_path / "systemctl"
    fake.write_text("#!/bin/sh\nexit 1\n")
    fake.chmod(0o755)

    assert (
        _run("sh", ROOT / "hooks/check-failed-units", PATH=f"{tmp_path}:{os.environ['PATH']}").returncode != 0
    )


def _rows(title: str) -> list[list[str]]:
    """Return the cells of the table below a heading of the README."""
    found = re.search(rf"^## {title}$.*?\n\|[- |]+\|\n((?:\|[^\n]*\n)+)", README, re.MULTILINE | re.DOTALL)
    assert found, f"no table below {title}"
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", row)[1:-1]] for row in found[1].splitlines()]


def test_readme_has_every_verb() -> None:
    verbs = {re.findall(r"`(\w+)", row[0])[0]: row[1] for row in _rows("The verbs")}

    assert list(verbs) == list(VERBS)
    assert {name: said for name, said in verbs.items() if not said.startswith(VERBS[name])} == {}


def test_readme_has_every_exit_status() -> None:
    found = [int(code) for row in _rows("Exit status") for code in row[0].split(",")]

    assert sorted(found) == sorted(STATUSES.keys() | OTHER_STATUSES)


def test_readme_has_every_layout() -> None:
    assert [row[0].strip("`") for row in _rows("Layouts")] == list(Layout)


def test_readme_names_real_targets_and_files() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    links = re.findall(r"\]\((?!http|#)([^)]+)\)", README)

    assert set(re.findall(r"^(?:`)?make ([a-z-]+)", README, re.MULTILINE)) <= targets
    assert [link for link in links if not (ROOT / link).exists()] == []


def _example() -> str:
    marker = "<!-- tests/unit/test_manual.py runs the next block -->\n```sh\n"
    return README.partition(marker)[2].partition("```")[0]


@pytest.mark.root
def test_readme_example_runs(tmp_path: Path) -> None:
    command = tmp_path / "bin/snaptx"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nPYTHONPATH={ROOT} exec {sys.executable} -m snaptx "$@"\n')
    command.chmod(0o755)
    environment = os.environ | {"PATH": f"{command.parent}:{os.environ['PATH']}"}
    shell = [_tool("bash"), "-euxo", "pipefail"]
    try:
        result = subprocess.run(
            shell,
            input=_example(),
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )

        assert result.returncode == 0, result.stderr
        assert re.search(r"^3 +RT +committed .* back to 1$", result.stdout, re.MULTILINE)
        assert not (tmp_path / "box").exists()
    finally:
        if (tmp_path / "box/sandbox.json").exists():
            subprocess.run([command, "sandbox", "destroy", tmp_path / "box"], check=False)


def test_error_as_json_is_what_the_page_says(capsys: pytest.CaptureFixture[str]) -> None:
    from snaptx.cli.main import main

    assert main(["--json", "no-such-verb"]) == 2
    assert json.loads(capsys.readouterr().out)["error"]["code"] == 2
