"""Modules of the caller's that have the name of one that snaptx needs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from snaptx.errors import UsageError

ROOT = Path(__file__).parents[2]
NAMES = ("argparse", "btrfsutil", "json", "sh", "sqlite3", "structlog", "tempfile", "tomllib", "zstandard")
COMMAND = "import sys; from snaptx.__main__ import main; sys.exit(main())"
WRONG = ("--json", "list", "--nonsense")
"""What is told with JSON that it is called in a wrong way."""


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    """Give a directory of modules whose loading ends everything."""
    for name in NAMES:
        (tmp_path / f"{name}.py").write_text(f"raise SystemExit('foreign {name}')\n")
    return tmp_path


def run(
    place: Path, python_path: str, *start: str, words: tuple[str, ...] = WRONG
) -> subprocess.CompletedProcess[str]:
    """Run snaptx in a directory with a PYTHONPATH."""
    env = {**os.environ, "PYTHONPATH": python_path}
    return subprocess.run(
        [sys.executable, *start, *words], cwd=place, env=env, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize(
    "python_path",
    ["{foreign}:{root}", "{root}:{foreign}", ":{root}", "{root}:", "./:{root}", "{foreign}/:{root}"],
)
def test_no_module_of_the_callers_is_loaded(foreign: Path, python_path: str) -> None:
    given = python_path.format(foreign=foreign, root=ROOT)
    said = run(foreign, given, "-P", "-c", COMMAND)

    assert "foreign" not in said.stderr
    assert said.returncode == UsageError.code, said.stderr


def test_started_as_a_module_beside_foreign_ones(foreign: Path) -> None:
    said = run(foreign, str(ROOT), "-m", "snaptx")

    assert "foreign" not in said.stderr
    assert said.returncode == UsageError.code, said.stderr


def test_a_hook_with_nothing_to_do_reads_its_configuration_by_pythons_own(foreign: Path) -> None:
    (foreign / "etc/snaptx").mkdir(parents=True)
    (foreign / "etc/snaptx/snaptx.conf").write_text('[hooks]\nmode = "off"\n')
    words = ("--sysroot", str(foreign), "hook", "before")
    said = run(foreign, f"{foreign}:{ROOT}", "-P", "-c", COMMAND, words=words)

    assert (said.returncode, said.stdout, said.stderr) == (0, "", "")


def test_a_directory_that_is_gone_hinders_nobody(foreign: Path) -> None:
    gone = f"import os; os.mkdir('gone'); os.chdir('gone'); os.rmdir('../gone'); {COMMAND}"
    said = run(foreign, str(ROOT), "-P", "-c", gone)

    assert said.returncode == UsageError.code, said.stderr
