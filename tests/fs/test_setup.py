"""What .ci/setup and the tests say on a machine that lacks something: each lack is made in a namespace."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SETUP = ROOT / ".ci/setup"
# The two capabilities let it read a checkout in a private directory.
READING = "+dac_override,+dac_read_search"
AS_NOBODY = (
    "setpriv",
    "--reuid=65534",
    "--clear-groups",
    f"--inh-caps={READING}",
    f"--ambient-caps={READING}",
)


def _run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    arguments = [str(part) for part in command]
    return subprocess.run(arguments, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)


def _where(command: str) -> tuple[str, ...]:
    """Return the start of a command that runs after ``command`` in a mount namespace of its own."""
    return ("unshare", "--mount", "sh", "-c", f'{command} && exec "$0" "$@"')


def test_check_is_content() -> None:
    result = _run(SETUP, "check")

    assert (result.returncode, result.stderr) == (0, "")


def test_says_that_root_is_missing() -> None:
    result = _run(*AS_NOBODY, SETUP, "check")

    assert result.returncode == 1
    assert "needs root" in result.stderr
    assert "make test-unit" in result.stderr


def test_says_that_root_may_not_mount() -> None:
    result = _run("setpriv", "--bounding-set", "-sys_admin", "--inh-caps", "-sys_admin", SETUP, "check")

    assert result.returncode == 1
    assert "CAP_SYS_ADMIN" in result.stderr


def test_says_that_btrfs_is_missing(tmp_path: Path) -> None:
    filesystems = tmp_path / "filesystems"
    filesystems.write_text("nodev\tproc\n\text4\n")
    result = _run(*_where(f"mount --bind {filesystems} /proc/filesystems"), SETUP, "check")

    assert result.returncode == 1
    assert "has no Btrfs" in result.stderr
    assert "CONFIG_BTRFS_FS" in result.stderr


def test_says_that_loop_devices_are_missing() -> None:
    result = _run(*_where("mount -t tmpfs tmpfs /dev"), SETUP, "check")

    assert result.returncode == 1
    assert "no loop device" in result.stderr
    assert "modprobe loop" in result.stderr


@pytest.mark.parametrize("target", ["packages", "venv"])
def test_names_missing_packages(tmp_path: Path, target: str) -> None:
    shutil.copytree(ROOT / ".ci", tmp_path / ".ci")
    tmp_path.joinpath(".ci/packages").write_text(
        "# comment\n\nsome-package  no-such-command  # why\nbash  bash  # why\n"
    )
    result = _run(*AS_NOBODY, tmp_path / ".ci/setup", target)

    assert result.returncode == 1
    assert "some-package" in result.stderr
    assert "bash" not in result.stderr


def test_root_test_fails_without_root() -> None:
    this = f"{Path(__file__).relative_to(ROOT)}::test_check_is_content"
    command = (sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--rootdir", ROOT, ROOT / this)
    result = _run(*AS_NOBODY, *command)

    assert result.returncode == 1
    assert "needs root" in result.stdout
    assert "1 error" in result.stdout or "1 failed" in result.stdout
    assert "skipped" not in result.stdout


def test_nothing_else_that_needs_root_runs_now() -> None:
    assert _run("flock", "--nonblock", ROOT / "tests", "true").returncode == 1
