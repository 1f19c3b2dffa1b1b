"""What is known about ``/`` itself is carried like that of any other directory."""

from __future__ import annotations

import os

from tests.boxes import Box


def _known(box: Box, number: int) -> tuple[int, int, bytes]:
    place = box.tree(number)
    return place.stat().st_mode & 0o7777, place.stat().st_gid, os.getxattr(place, "user.note")


def test_a_change_of_the_root_itself_goes_along(box: Box, payload: str) -> None:
    box.root.chmod(0o751)
    os.setxattr(box.root, "user.note", b"before")
    number = box.json("apply", payload)["staged"]["number"]

    assert _known(box, number) == (0o751, 0, b"before")
    assert box.json("verify", str(number))["problems"] == []
    os.chown(box.root, 0, 7)
    os.setxattr(box.root, "user.note", b"between")
    assert box.json("commit")["carried"] == [""]
    assert _known(box, number) == (0o751, 7, b"between")
    assert box.json("verify", str(number))["problems"] == []


def test_a_late_change_of_the_root_itself_goes_along(box: Box, payload: str) -> None:
    os.setxattr(box.root, "user.note", b"before")
    number = box.json("apply", "--commit", payload)["committed"]["number"]
    box.root.chmod(0o711)
    box.reboot()
    box.ok("repair", "--boot")

    assert _known(box, number) == (0o711, 0, b"before")
    assert box.json("verify", str(number))["problems"] == []
