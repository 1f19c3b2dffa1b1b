"""Signals at the moments the work does not see: while Python loads, twice in a row, after the end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ENDS = {signal.SIGHUP: 129, signal.SIGINT: 130, signal.SIGTERM: 143}

WORKING = """
import os, sys
from snaptx.cli import main
def work(words):
    {work}
main._run = work
sys.exit(main.main([]))
"""

LOADING = """
import os, runpy, sys
class Finder:
    def find_spec(self, name, *_):
        if name == "snaptx.cli":
            os.kill(os.getpid(), 2)
sys.meta_path.insert(0, Finder())
sys.argv = ["snaptx", "--version"]
runpy.run_module("snaptx", run_name="__main__")
"""

ENDING = """
import atexit, os, sys
atexit.register(lambda: os.kill(os.getpid(), {number}))
sys.argv = ["snaptx", "--version"]
from snaptx.__main__ import main
sys.exit(main())
"""


def python(place: Path, code: str) -> subprocess.CompletedProcess[str]:
    """Run code as the module it is in ``place``, in a Python that hears every signal."""
    (place / "struck.py").write_text(code)
    before = {number: signal.signal(number, signal.SIG_DFL) for number in ENDS}
    try:
        words = [sys.executable, "-m", "struck"]
        env = {**os.environ, "PYTHONPATH": f"{place}:{ROOT}"}
        return subprocess.run(words, env=env, capture_output=True, text=True, check=False)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@pytest.mark.parametrize("number", ENDS)
def test_a_signal_while_code_is_compiled_ends_with_its_own_status(number: int, tmp_path: Path) -> None:
    """Every NamedTuple compiles a text, and Python ends itself by SIGINT if that is interrupted."""
    said = python(tmp_path, WORKING.format(work=f"exec('os.kill(os.getpid(), {number:d})')"))

    assert said.returncode == ENDS[signal.Signals(number)], said.stderr
    assert said.stderr.count("interrupted by") == 1


@pytest.mark.parametrize("number", ENDS)
def test_a_second_signal_does_not_keep_the_first_from_being_settled(number: int, tmp_path: Path) -> None:
    kill = f"os.kill(os.getpid(), {number:d})"
    work = f"try: {kill}\n    finally: {kill}; print('settled')"
    said = python(tmp_path, WORKING.format(work=work))

    assert (said.stdout, said.returncode) == ("settled\n", ENDS[signal.Signals(number)]), said.stderr
    assert "Traceback" not in said.stderr


@pytest.mark.parametrize("number", ENDS)
def test_a_signal_while_an_error_is_told(number: int, tmp_path: Path) -> None:
    work = f"main._tell = lambda *_, **__: os.kill(os.getpid(), {number:d}); raise OSError(5, 'bad')"
    said = python(tmp_path, WORKING.format(work=work))

    assert said.returncode == ENDS[signal.Signals(number)], said.stderr
    assert "Traceback" not in said.stderr


def test_an_interrupt_while_it_loads_is_quiet(tmp_path: Path) -> None:
    said = python(tmp_path, LOADING)

    assert (said.returncode, said.stderr) == (-signal.SIGINT, "")


@pytest.mark.parametrize("number", ENDS)
def test_a_signal_after_the_end_changes_nothing(number: int, tmp_path: Path) -> None:
    said = python(tmp_path, ENDING.format(number=int(number)))

    assert (said.returncode, said.stderr) == (0, "")
