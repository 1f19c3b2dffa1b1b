"""Somebody makes the file system, or the running root, read-only while a verb is at work.

The kernel refuses the first as long as the verb holds its lock, which is open
for writing; the second does not concern the verb, which has a mount of its own.
What a file system that fails and so turns read-only makes of a verb is shown by
tests/crash.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.boxes import Box, made
from tests.points import watch


def remount(place: Path, options: str) -> bool:
    """Return whether the kernel has let somebody do that."""
    words = ["mount", "-o", f"remount,{options}", str(place)]
    return subprocess.run(words, capture_output=True, check=False).returncode == 0


@pytest.mark.parametrize(("options", "allowed"), [("ro", {False}), ("bind,ro", {True})])
def test_the_work_goes_on(tmp_path: Path, options: str, allowed: set[bool]) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/motd").write_text("new")
    with made(size=256 << 20) as box:
        for words in (("apply", str(tmp_path)), ("commit",)):
            assert _tried(box, options, words) == allowed
            assert remount(box.root, "bind,rw")
        assert box.marks() == {1: "NG", 2: "RT"}
        assert box.json("verify")["problems"] == []
        assert box.run("repair", "--unchanged-exit-77").code == 77
        assert remount(box.top, "ro"), "nothing holds it any more"
        assert box.run("apply", str(tmp_path)).code == 54


def _tried(box: Box, options: str, words: tuple[str, ...]) -> set[bool]:
    """Run a verb, remount at each of its steps, and return whether that was possible."""
    reading, writing = os.pipe()

    def arrived(point: str) -> None:
        if point.startswith("step "):
            os.write(writing, b"y" if remount(box.root, options) else b"n")

    said = box.start(*words, before=lambda: watch(arrived)).wait()
    os.close(writing)
    with os.fdopen(reading, "rb") as stream:
        answers = stream.read()
    assert said.code == 0, said.err
    assert len(answers) > 2
    return {answer == b"y"[0] for answer in answers}
