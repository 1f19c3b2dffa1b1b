"""A wheel built from the checkout brings the command and every file beside the package."""

from __future__ import annotations

import configparser
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import snaptx
from tests import house

ROOT = Path(__file__).parents[2]

# Where the files beside the package arrive below the prefix.
PLACES = {
    "hooks/*": "share/snaptx/hooks",
    "grub/*": "share/snaptx/grub",
    "snaptx/manual/*.5": "share/man/man5",
    "snaptx/manual/*.8": "share/man/man8",
    "snaptx/manual/*.example": "share/doc/snaptx",
    "snaptx/manual/completions/snaptx": "share/bash-completion/completions",
    "snaptx/manual/completions/_*": "share/zsh/site-functions",
    "snaptx/manual/completions/*.fish": "share/fish/vendor_completions.d",
}
BESIDE = ("hooks", "grub", "snaptx/manual")


def _pip(*arguments: str | Path) -> None:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *map(str, arguments)]
    result = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)

    assert result.returncode == 0, result.stdout + result.stderr


def _copy_of_checkout(place: Path) -> Path:
    for path in house.project_files(ROOT):
        target = place / path.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, target)
    return place


@pytest.fixture(scope="module")
def prefix(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a prefix into which the wheel of a copy of the checkout is installed, without network."""
    base = tmp_path_factory.mktemp("packaging")
    source = _copy_of_checkout(base / "source")
    # A hook of its own, so that the test does not depend on what the checkout has.
    source.joinpath("hooks").mkdir(exist_ok=True)
    hook = source / "hooks/of-the-test"
    hook.write_text("#!/bin/sh\n")
    hook.chmod(0o755)
    offline = ("--no-deps", "--no-index")
    _pip("wheel", *offline, "--no-build-isolation", "--wheel-dir", base / "wheels", source)
    (wheel,) = base.joinpath("wheels").glob("*.whl")
    _pip("install", *offline, "--ignore-installed", "--prefix", base / "prefix", wheel)
    return base / "prefix"


def _site(prefix: Path) -> Path:
    (site,) = prefix.glob("lib/python3*/site-packages")
    return site


def test_whole_package_arrives(prefix: Path) -> None:
    sources = {path.relative_to(ROOT) for path in house.project_files(ROOT / "snaptx")}
    package = {path for path in sources if not path.is_relative_to("snaptx/manual")}
    arrived = {path.relative_to(_site(prefix)) for path in (_site(prefix) / "snaptx").rglob("*")}

    assert package - arrived == set()


def test_tests_do_not_arrive(prefix: Path) -> None:
    (info,) = _site(prefix).glob("*.dist-info")

    assert {path.name for path in _site(prefix).iterdir()} == {"snaptx", info.name}


def test_files_beside_the_package_arrive(prefix: Path) -> None:
    missing = []
    for path in (path for directory in BESIDE for path in house.project_files(ROOT / directory)):
        name = path.relative_to(ROOT)
        places = [place for pattern, place in PLACES.items() if name.match(pattern)]
        arrived = [prefix / place / name.name for place in places]
        if not arrived or not arrived[0].is_file() or arrived[0].read_bytes() != path.read_bytes():
            missing.append(f"{name} -> {places}")

    assert missing == []


def test_hook_stays_executable(prefix: Path) -> None:
    assert os.access(prefix / "share/snaptx/hooks/of-the-test", os.X_OK)


def test_installed_command_runs(prefix: Path) -> None:
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(_site(prefix))}
    command = [str(prefix / "bin/snaptx"), "--version"]
    result = subprocess.run(command, env=environment, cwd="/", capture_output=True, text=True, check=False)

    assert result.returncode == 0, result.stderr
    assert snaptx.__version__ in result.stdout


def test_every_door_is_a_requirement() -> None:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    required = setup["options"]["install_requires"]

    for library in ("btrfsutil", "cryptography", "sh", "structlog", "zstandard"):
        assert f"\n{library}>=" in required


def test_every_package_names_its_reason() -> None:
    lines = ROOT.joinpath(".ci/packages").read_text().splitlines()
    rows = [line.split(None, 2) for line in lines if not line.startswith("#")]

    assert rows
    assert [row for row in rows if len(row) < 3 or not row[2].startswith("# ")] == []
