"""``snaptx sandbox``: what it tells of what it does."""

from __future__ import annotations

import json
import os
import shlex
from pathlib import Path

import pytest

from snaptx.cli import main


def test_what_is_done_is_told_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    box = str(tmp_path / "box")
    told = []
    for words in (
        ("create", box, "--size", "1G"), ("--dry-run", "reboot", box), ("reboot", box), ("destroy", box),
    ):  # fmt: skip
        assert main.main(["--json", "sandbox", *words]) == 0
        told.append(json.loads(capsys.readouterr().out))

    assert told[0]["root"] == f"{box}/root"
    assert told[1:] == [
        {"would": {"action": "reboot", "directory": box}},
        {"subvolume": "@rootfs"},
        {"destroyed": box, "left": []},
    ]


def test_the_next_command_can_be_pasted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    box = tmp_path / "my box"
    assert main.main(["sandbox", "create", str(box), "--size", "1G"]) == 0
    command = capsys.readouterr().out.rpartition("try: ")[2]
    assert main.main(["sandbox", "destroy", str(box)]) == 0

    assert shlex.split(command) == ["snaptx", "--sysroot", str(box / "root"), "init"]


def _refused(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    """Return the exit status and message of an action; its rehearsal has to say the same first."""
    told = []
    for flags in (("--dry-run",), ()):
        code = main.main([*flags, "sandbox", *words])
        told.append((code, capsys.readouterr().err))
    assert told[0] == told[1]
    return told[0]


def test_a_rehearsal_refuses_what_the_action_would(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "full/inside").mkdir(parents=True)
    full, fresh = str(tmp_path / "full"), str(tmp_path / "fresh")

    for words, code, message in (
        (("destroy", "/nonexistent"), 2, "not a sandbox"),
        (("reboot", full), 2, "not a sandbox"),
        (("create", full), 2, "not empty"),
        (("create", fresh, "--size", "1M"), 2, "too few"),
        (("create", fresh, "--size", "huge"), 2, "not a size"),
        (("create", fresh, "--size", "99999999999999999999T"), 2, "more than a file can have"),
        (("create", fresh, "--size", "9" * 5000), 2, "more than a file can have"),
        (("create", fresh, "--from", "/nonexistent"), 20, "cannot read"),
    ):
        found, said = _refused(capsys, *words)
        assert found == code, said
        assert message in said
    assert [path.name for path in tmp_path.iterdir()] == ["full"]


def test_a_root_that_is_not_there_is_not_booted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    box = tmp_path / "box"
    assert main.main(["sandbox", "create", str(box), "--size", "1G"]) == 0
    try:
        (box / "top/plain").mkdir()
        capsys.readouterr()
        for target in ("nosuch", "plain", "a\0b"):
            code, said = _refused(capsys, "reboot", str(box), "--target", target)
            assert code == 51
            assert "the sandbox has no subvolume" in said
        assert (box / "root").is_mount()
    finally:
        assert main.main(["sandbox", "destroy", str(box)]) == 0


def test_its_directory_may_have_any_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    box = os.fsdecode(os.fsencode(tmp_path) + b"/\xff \xc3\xa9")

    for action in (("create", box, "--size", "1G"), ("reboot", box), ("destroy", box)):
        assert main.main(["sandbox", *action]) == 0, capsys.readouterr().err
    assert not os.listdir(tmp_path)
