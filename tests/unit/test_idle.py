"""Hooks with nothing to do are told apart without loading anything, and by the same rules as all others."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from snaptx import idle
from snaptx.config import HookMode

ROOT = Path(__file__).parents[2]
HOOK = ("hook", "before", "--manager", "apt", "--caller", "1")


@pytest.fixture
def sysroot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give a root on Btrfs, as far as the mount table tells."""
    monkeypatch.setattr(idle, "MARK", str(tmp_path / "missing"))
    monkeypatch.setattr(idle, "MOUNTS", str(tmp_path / "mounts"))
    _mount(tmp_path, "btrfs")
    return tmp_path


def _mount(sysroot: Path, fstype: str) -> None:
    lines = (
        "1 0 0:1 / / rw - ext4 /dev/a rw",
        f"2 1 0:2 / {sysroot} rw shared:1 - {fstype} /dev/b rw",
        "3 2 0:3 / /proc rw - proc proc rw",
    )
    (sysroot / "mounts").write_text("\n".join(lines) + "\n")


def _configure(sysroot: Path, text: str, name: str = "etc/snaptx/snaptx.conf") -> None:
    path = sysroot / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def _is_idle(sysroot: Path, *words: str) -> bool:
    return idle.is_idle_hook(["--sysroot", str(sysroot), *(words or HOOK)])


def test_a_root_that_may_be_managed_takes_a_closer_look(sysroot: Path) -> None:
    assert not _is_idle(sysroot)


@pytest.mark.parametrize("fstype", ["ext4", "xfs", "overlay"])
def test_a_root_that_holds_no_generations(sysroot: Path, fstype: str) -> None:
    _mount(sysroot, fstype)

    assert _is_idle(sysroot)


def test_a_required_generation_is_missed_by_the_whole_command(sysroot: Path) -> None:
    _mount(sysroot, "ext4")
    _configure(sysroot, '[hooks]\nmode = "required"\n')

    assert not _is_idle(sysroot)


def test_a_root_that_is_not_mounted_takes_a_closer_look(sysroot: Path) -> None:
    (sysroot / "mounts").write_text("1 0 0:1 / / rw - ext4 /dev/a rw\n")

    assert not _is_idle(sysroot)


def test_an_enclosure(sysroot: Path) -> None:
    (sysroot / "missing").touch()

    assert _is_idle(sysroot)


def test_mode_off(sysroot: Path) -> None:
    _configure(sysroot, '[hooks]\nmode = "off"\n')

    assert _is_idle(sysroot)


def test_the_last_file_decides(sysroot: Path) -> None:
    _configure(sysroot, '[hooks]\nmode = "off"\n', "usr/lib/snaptx/snaptx.conf")
    assert _is_idle(sysroot)
    _configure(sysroot, '[hooks]\nmode = "snapshot"\n', "etc/snaptx/snaptx.conf.d/9.conf")
    assert not _is_idle(sysroot)
    _configure(sysroot, '[hooks]\nmode = "off"\n', "etc/snaptx/snaptx.conf.d/99.txt")
    assert not _is_idle(sysroot)


@pytest.mark.parametrize("text", ["[hooks", "hooks = 1", "[hooks]\nmode = 1", '[hooks]\nmode = "sometimes"'])
def test_mistakes_are_told_by_the_whole_command(sysroot: Path, text: str) -> None:
    _configure(sysroot, text + "\n")

    assert not _is_idle(sysroot)


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("status",),
        ("hook",),
        ("hook", "--help"),
        ("hook", "before", "after", "--manager", "apt"),
        ("hook", "before", "--manager"),
        ("hook", "before", "--manager", "apt", "--caller", "1", "more"),
        ("--json", *HOOK),
        ("run", "--", *HOOK),
    ],
)
def test_other_words_are_for_the_whole_command(words: tuple[str, ...], sysroot: Path) -> None:
    (sysroot / "missing").touch()

    assert not idle.is_idle_hook(list(words))


def test_modes_are_those_of_the_configuration() -> None:
    assert {HookMode.OFF.value, HookMode.SNAPSHOT.value, HookMode.REQUIRED.value} == {*HookMode}
    assert (HookMode.OFF, HookMode.SNAPSHOT) == ("off", "snapshot")


def test_nothing_is_loaded_for_it() -> None:
    script = (
        "import sys; before = set(sys.modules); from snaptx import __main__, idle;"
        "idle.is_idle_hook(['hook', 'before', '--manager', 'apt']);"
        "print(*sorted(set(sys.modules) - before))"
    )
    words = [sys.executable, "-c", script]
    said = subprocess.run(words, capture_output=True, text=True, check=True, cwd=ROOT).stdout.split()

    assert set(said) - {"__future__"} == {"snaptx", "snaptx.__main__", "snaptx.idle"}
