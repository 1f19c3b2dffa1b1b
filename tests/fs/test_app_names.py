"""Names that look like a generation's number and are none, where an application's generations are told."""

from __future__ import annotations

import subprocess

import pytest

from snaptx import mounting
from tests.webapp import Web


@pytest.mark.parametrize("name", ["1²", "7.bak", "007"])
def test_what_is_mounted_beside_an_instance_is_not_one(web: Web, name: str) -> None:
    place = web.box.root / "run/snaptx/apps/web" / name
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "none", place], check=True)
    try:
        web.box.ok("app", "stop", "web")
        web.box.ok("app", "start", "web")
        assert web.at() == (2, [2])
        assert place.is_mount()
    finally:
        if place.is_mount():
            mounting.unmount(str(place))


@pytest.mark.parametrize("name", ["1²", "7.bak", "007"])
def test_what_lies_beside_the_generations_keeps_none_from_being_removed(web: Web, name: str) -> None:
    (web.box.state / "apps/web/generations" / name).mkdir()
    pointer = web.box.state / "apps/web/grub/current"
    pointer.unlink()
    web.box.ok("repair")
    assert web.at()[0] == 2
    web.box.ok("app", "stop", "web")
    web.box.ok("app", "remove", "web")

    assert web.box.json("app", "list") == []
