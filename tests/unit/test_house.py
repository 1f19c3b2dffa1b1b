"""The rules of the house hold, and each rule notices a breach."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import house
from tests.house import Module

ROOT = Path(__file__).parents[2]
MODULES = house.modules_of(ROOT)

# From top to bottom.  A module imports only what is below its own line.
LAYERS = (
    "__main__",
    "cli",
    "sandbox",
    "apps",
    "visit restart",
    "repair",
    "update",
    "upgrade",
    "enter",
    "stage verify commit confirm rollback pin prune discard initialise undo reconcile live hook",
    "nested",
    "sharing",
    "transaction",
    "recover",
    "late lived",
    "carry checks blame cache",
    "ground",
    "difference switch inuse liveswitch inventory",
    "scene views",
    "machine",
    "enclosure trees retention running packages",
    "storage bootloader overlay",
    "journal audit lock config generations",
    "durable spare run log places fstab window apart memory descent",
    "mounting chattr",
    "threads priority",
    "system",
    "model",
    "errors",
    "idle",
)

# (importer, imported) within one line, where that is meant.
BESIDE = {
    ("bootloader", "storage"),
    ("run", "log"),
}

# The one module, or package, that imports it; "" for nobody.
DOORS = {
    "sh": "run",
    "subprocess": "",
    "btrfsutil": "storage.btrfs",
    "libzfs_core": "storage.zfs",
    "structlog": "log",
    "ctypes": "system",
    "zstandard": "overlay",
    "cryptography": "update.signature",
}

MAY_EXIT = ("__main__", "cli.main")


def _text(path: Path) -> str:
    return path.read_bytes().decode("utf-8", "replace")


def _none(complaints: list[str]) -> None:
    assert not complaints, "\n" + "\n".join(complaints)


def _each(rule: Callable[[Module], list[str]]) -> list[str]:
    return [complaint for module in MODULES for complaint in rule(module)]


def test_imports_go_down() -> None:
    _none(house.layer_breaches(MODULES, LAYERS, BESIDE))


def test_readme_draws_these_layers() -> None:
    text = _text(ROOT / "README.md").partition("The modules are layered")[2].split("```")[1]
    drawn = [line.partition("  ")[0] for line in text.splitlines()]
    assert [names for names in drawn if names] == [names for names in LAYERS if names != "__main__"]


def test_imports_have_no_cycle() -> None:
    _none(house.cycle_breaches(MODULES))


def test_each_dependency_has_one_door() -> None:
    _none(house.door_breaches(MODULES, DOORS))


def test_no_command_is_a_string_for_a_shell() -> None:
    _none(house.shell_string_breaches(MODULES))


def test_init_holds_docstring_and_version() -> None:
    _none(house.init_breaches(MODULES))


def test_only_main_ends_the_process() -> None:
    _none(house.exit_breaches(MODULES, MAY_EXIT))


def test_public_names_have_docstrings() -> None:
    _none(_each(house.docstring_breaches))


def test_text_has_an_encoding_of_its_own() -> None:
    """The entry file that one user wrote has to be read by another, whatever the locale."""
    _none(_each(house.encoding_breaches))


def test_functions_say_what_they_return() -> None:
    _none(_each(house.annotation_breaches))


def test_functions_and_modules_are_small() -> None:
    sources = [path for path in house.project_files(ROOT) if path.suffix == ".py"]
    found = [
        line for path in sources for line in house.size_breaches(str(path.relative_to(ROOT)), _text(path))
    ]

    _none(found)


def test_hooks_are_small() -> None:
    sizes = {path.name: len(_text(path).splitlines()) for path in house.project_files(ROOT / "hooks")}

    assert {name: size for name, size in sizes.items() if size > house.HOOK_LINES} == {}


def test_nothing_is_left_for_later() -> None:
    files = house.project_files(ROOT)
    found = [
        line for path in files for line in house.unfinished_breaches(str(path.relative_to(ROOT)), _text(path))
    ]

    _none(found)


def _layers(name: str, source: str) -> list[str]:
    return house.layer_breaches([Module(name, source)], ("top", "left right", "bottom"), {("right", "left")})


@pytest.mark.parametrize(
    ("name", "source", "complaint"),
    [
        ("left", "import snaptx.top", "left imports top"),
        ("left", "from snaptx import top", "left imports top"),
        ("left", "from snaptx.top.deep import thing", "left imports top"),
        ("left.deep", "from .. import top", "left imports top"),
        ("left.deep", "from ..top import thing", "left imports top"),
        ("bottom", "def f():\n    from snaptx import left", "bottom imports left"),
        ("bottom", "importlib.import_module('snaptx.left.deep')", "bottom imports left"),
        ("left", "from snaptx import right", "left imports right"),
        ("elsewhere", "", "place it in LAYERS"),
    ],
)
def test_layer_rule_notices(name: str, source: str, complaint: str) -> None:
    (found,) = _layers(name, source)

    assert complaint in found


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("top", "from snaptx import bottom, __version__"),
        ("right", "from snaptx.left import thing"),
        ("left.deep", "from snaptx.left import base"),
        ("left", "if TYPE_CHECKING:\n    from snaptx import top"),
    ],
)
def test_layer_rule_lets_pass(name: str, source: str) -> None:
    assert _layers(name, source) == []


def test_cycle_rule_notices() -> None:
    lazy = "def f():\n    from snaptx.storage import base"
    found = house.cycle_breaches([Module("storage.base", "import snaptx.model"), Module("model", lazy)])

    assert "model" in found[0]
    assert "storage.base" in found[0]


@pytest.mark.parametrize(
    ("name", "source", "complaint"),
    [
        ("audit", "import sh", "its door is run"),
        ("runner", "from sh import Command", "its door is run"),
        ("run", "import subprocess", "its door is nowhere"),
        ("storage", "import btrfsutil", "its door is storage.btrfs"),
        ("audit", "def f():\n    import structlog", "its door is log"),
        ("audit", "import requests", "requests has no door"),
    ],
)
def test_door_rule_notices(name: str, source: str, complaint: str) -> None:
    (found,) = house.door_breaches([Module(name, source)], DOORS)

    assert complaint in found


BAD_SOURCES: dict[str, tuple[Callable[[Module], list[str]], str]] = {
    "code in init": (lambda module: house.init_breaches([module]), "from snaptx.model import Tree"),
    "exit": (lambda module: house.exit_breaches([module], ()), "import sys\nsys.exit(1)"),
    "raised exit": (lambda module: house.exit_breaches([module], ()), "raise SystemExit"),
    "raised exit with status": (lambda module: house.exit_breaches([module], ()), "raise SystemExit(3)"),
    "shell": (lambda module: house.shell_string_breaches([module]), "os.system('true')"),
    "module docstring": (house.docstring_breaches, "x = 1"),
    "function docstring": (house.docstring_breaches, '"""M."""\ndef f() -> None: ...'),
    "class docstring": (house.docstring_breaches, '"""M."""\nclass C: ...'),
    "method docstring": (house.docstring_breaches, '"""M."""\nclass C:\n    """C."""\n    def f(self): ...'),
    "encoding": (house.encoding_breaches, "path.read_text(errors='replace')"),
    "return annotation": (house.annotation_breaches, "def f():\n    pass"),
    "nested return annotation": (house.annotation_breaches, "def f() -> None:\n    def g(): ..."),
    "long function": (lambda module: house.size_breaches("x", module.source), "def f():\n" + "    x\n" * 40),
    "long module": (lambda module: house.size_breaches("x", module.source), "x\n" * 401),
    "unfinished": (lambda module: house.unfinished_breaches("x", module.source), "# FIX" + "ME: later"),
}


@pytest.mark.parametrize("breach", BAD_SOURCES)
def test_rule_notices(breach: str) -> None:
    rule, source = BAD_SOURCES[breach]

    assert len(rule(Module("x", source, is_package=True))) == 1


def _tool(*command: str, given: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=ROOT, input=given, capture_output=True, text=True, check=False)


def _python_tool(name: str, *arguments: str, given: str = "") -> subprocess.CompletedProcess[str]:
    return _tool(sys.executable, "-m", name, *arguments, given=given)


def _shellcheck() -> str:
    found = shutil.which("shellcheck")
    assert found, "shellcheck is missing; run: make venv"
    return found


def test_ruff_is_content() -> None:
    result = _python_tool("ruff", "check", "--output-format=concise", ".")

    assert result.returncode == 0, result.stdout + result.stderr


def test_ruff_notices() -> None:
    assert "F401" in _python_tool("ruff", "check", "-", given="import os\n").stdout


def test_source_is_formatted() -> None:
    result = _python_tool("ruff", "format", "--check", "--output-format=concise", ".")

    assert result.returncode == 0, result.stdout + result.stderr + "\nrun: make fix"


def test_format_check_notices() -> None:
    assert _python_tool("ruff", "format", "--check", "-", given="x=1\n").returncode == 1


def test_types_hold() -> None:
    result = _python_tool("mypy")

    assert result.returncode == 0, result.stdout + result.stderr


def test_type_check_notices(tmp_path: Path) -> None:
    bad = tmp_path / "bad.py"
    bad.write_text("def f(x):\n    return x\n")

    assert "no-untyped-def" in _python_tool("mypy", f"--cache-dir={os.devnull}", str(bad)).stdout


def test_shell_scripts_are_sound() -> None:
    scripts = house.shell_files(ROOT)
    result = _tool(_shellcheck(), *map(str, scripts))

    assert ROOT / ".ci/setup" in scripts
    assert result.returncode == 0, result.stdout + result.stderr


def test_shellcheck_notices() -> None:
    assert "SC2086" in _tool(_shellcheck(), "-", given="#!/bin/sh\nrm -r $1\n").stdout
