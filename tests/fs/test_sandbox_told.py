"""``snaptx sandbox``: what it tells of what it does."""

from __future__ import annotations

import json
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
