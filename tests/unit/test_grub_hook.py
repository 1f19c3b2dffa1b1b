"""The hook of grub-mkconfig: it calls for a repair, in the running system alone, and prints nothing."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from snaptx.model import EMPTY

HOOK = Path(__file__).parents[2] / "hooks/grub-mkconfig"


def run(tmp_path: Path, environment: Mapping[str, str] = EMPTY, *, status: int = 0) -> tuple[str, str]:
    """Run it with a snaptx that ends with ``status``; return what that was called with, and the complaint."""
    called = tmp_path / "called"
    program = tmp_path / "snaptx"
    program.write_text(f'#!/bin/sh\necho "$@" >{called}\necho out\nexit {status}\n')
    program.chmod(0o755)
    path = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
    done = subprocess.run([HOOK], env=path | dict(environment), capture_output=True, text=True, check=True)
    assert done.stdout == ""
    return called.read_text() if called.exists() else "", done.stderr


def test_it_repairs_and_grub_cfg_gets_nothing_of_it(tmp_path: Path) -> None:
    assert run(tmp_path) == ("--quiet repair\n", "out\n")


def test_a_failure_is_told_and_no_failure_of_update_grub(tmp_path: Path) -> None:
    assert "snaptx repair" in run(tmp_path, status=4)[1]


@pytest.mark.parametrize("environment", [{"DPKG_MAINTSCRIPT_PACKAGE": "linux-image"}, {"PATH": "/nowhere"}])
def test_it_keeps_out_of_package_runs_and_machines_without_snaptx(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    assert run(tmp_path, environment) == ("", "")
