"""Subvolumes inside the root, below what a live switch puts another tree over: no generation has them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.boxes import Box, made
from tests.fs.conftest import nested

CHANGE = ("run", "--base", "1", "--", "sh", "-c")


def seen(box: Box) -> tuple[str, list[str]]:
    """Return which generation's /usr is seen, and what is seen in the subvolume."""
    return (box.root / "usr/who").read_text().strip(), sorted(os.listdir(box.root / "usr/local"))


@pytest.fixture
def place(programs: Path) -> Path:
    """Give the tree of a root that has a place for the subvolume."""
    (programs / "usr/who").write_text("1\n")
    (programs / "usr/local").mkdir(exist_ok=True)
    return programs


@pytest.mark.parametrize("policy", ["share", "refuse"])
def test_they_are_seen_in_what_is_live(place: Path, policy: str) -> None:
    (place / "usr/local").rmdir()
    with made(source=place) as box:
        inside = nested(box, "usr/local", *(["data"] if policy == "share" else []))
        box.configure(f'[staging]\nnested = "{policy}"\n')
        for number in ("2", "3"):
            box.ok(*CHANGE, f"echo {number} > /usr/who")
        (inside / "data").touch()
        nested(box, "usr/local/inner", "deep")

        for number in ("2", "3"):
            box.ok("live", number)
            assert seen(box) == (number, ["data", "inner"])
            assert (box.root / "usr/local/inner/deep").exists()
        (box.root / "usr/local/more").touch()
        box.ok("live", "--off")
        assert seen(box) == ("1", ["data", "inner", "more"])


def test_what_a_generation_carries_is_its_own(place: Path) -> None:
    (place / "usr/local").rmdir()
    with made(source=place) as box:
        inside = nested(box, "usr/local", "data")
        box.configure('[staging]\nnested = "carry"\n')
        box.ok(*CHANGE, "echo 2 > /usr/who")
        (inside / "since").touch()

        box.ok("live", "2")
        assert seen(box) == ("2", ["data"])
        box.ok("live", "--off")
        assert seen(box) == ("1", ["data", "since"])


@pytest.mark.parametrize("instead", ["true", "echo > /usr/local"])
def test_one_without_a_place_is_an_obstacle(place: Path, instead: str) -> None:
    with made(source=place) as box:
        box.ok(*CHANGE, f"echo 2 > /usr/who; rm -r /usr/local; {instead}")
        (box.root / "usr/local").rmdir()
        nested(box, "usr/local", "data")

        assert "what is mounted at /usr/local has no place" in box.refuses(61, "live", "2")
        assert seen(box) == ("1", ["data"])
