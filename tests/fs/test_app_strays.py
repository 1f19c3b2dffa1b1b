"""What lies among the application trees and is none, or in their pointers' place: set aside, never lost."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import btrfsutil
import pytest

from tests.boxes import Box

pytestmark = pytest.mark.root


def _as_directory(path: Path) -> None:
    (path / "inside").mkdir(parents=True)
    (path / "inside/file").write_text("precious")


def _as_file(path: Path) -> None:
    path.write_text("precious")


def _as_link(path: Path) -> None:
    path.symlink_to("web")


def _as_copy(path: Path) -> None:
    shutil.copytree(path.with_name("web"), path, symlinks=True)


def _as_subvolume(path: Path) -> None:
    btrfsutil.create_subvolume(str(path))
    _as_file(path / "notes")


KINDS = (_as_directory, _as_file, _as_link, _as_copy, _as_subvolume)


@pytest.mark.parametrize("name", ["stray", ".stray", ".web", "No Name", "\udcff" * 250], ids=ascii)
@pytest.mark.parametrize("make", KINDS[:2], ids=lambda make: make.__name__)
def test_a_stray_is_set_aside_whatever_its_name(box: Box, name: str, make: Callable[[Path], None]) -> None:
    box.ok("app", "create", "web")
    make(box.state / "apps" / name)
    _is_set_aside(box)


@pytest.mark.parametrize("make", KINDS, ids=lambda make: make.__name__)
def test_a_stray_of_any_kind_is_set_aside_with_what_is_in_it(box: Box, make: Callable[[Path], None]) -> None:
    box.ok("app", "create", "web")
    make(box.state / "apps/stray")
    before = sorted(os.listdir(box.state / "apps/stray")) if make not in (_as_file, _as_link) else []
    kept = _is_set_aside(box)

    assert before == (sorted(os.listdir(kept)) if before else [])
    box.ok("app", "create", "stray")
    box.ok("app", "remove", "stray")


def _is_set_aside(box: Box) -> Path:
    """Expect that the only stray is told, and set aside, and that all works then; return where it is."""
    assert [row["name"] for row in box.json("app", "list")] == ["web"]
    (told,) = box.json("--dry-run", "repair")["problems"]
    assert told["what"] == "is no application"
    (done,) = box.json("repair")["done"]
    assert done.endswith("is no application, and was set aside")
    kept = [path for path in (box.state / "journal").iterdir() if path.name.startswith("stray-")]

    assert len(kept) == 1
    assert os.listdir(box.state / "apps") == ["web"]
    assert box.json("repair")["done"] == box.json("verify")["problems"] == []
    assert "set aside" in box.audit()[-1]["result"]
    box.ok("app", "remove", "web")
    return kept[0]


def test_a_stray_keeps_its_name_until_it_is_set_aside(box: Box) -> None:
    _as_directory(box.state / "apps/web")
    for words in (("create", "web"), ("create", "web", "--dry-run")):
        assert box.refuses(52, "app", *words).endswith(f"'{box.program} repair' sets it aside")
    assert f"'{box.program} repair'" in box.refuses(52, "init", "--undo")


def test_what_is_in_the_way_of_a_removal_is_told(box: Box) -> None:
    box.ok("app", "create", "web")
    _as_directory(box.state / "apps/.web")
    said = box.run("app", "remove", "web")

    assert (said.code, said.complaint[1]) == (52, f"'{box.program} repair' sets it aside")
    assert [row["name"] for row in box.json("app", "list")] == ["web"]


def _staged(box: Box, place: Path) -> None:
    box.ok("app", "create", "web")
    (place / "file").touch()
    box.ok("app", "apply", "web", str(place))


def test_a_pointer_that_is_a_directory_is_set_aside_and_made_anew(box: Box, tmp_path: Path) -> None:
    _staged(box, tmp_path)
    box.ok("app", "switch", "web")
    pointer = box.state / "apps/web/grub/current"
    pointer.unlink()
    _as_directory(pointer)

    assert "application web: boot entry: " in box.ok("--dry-run", "repair")
    (done,) = box.json("repair")["done"]
    assert done.endswith("a new one was written, generation 2 boots")
    assert (box.state / "apps/web/grub/damaged-current/inside/file").exists()
    assert box.json("repair")["done"] == box.json("verify")["problems"] == []
    box.ok("app", "rollback", "web", "1")
    box.ok("app", "remove", "web")


def test_a_directory_in_the_place_of_the_next_pointer_keeps_nobody(box: Box, tmp_path: Path) -> None:
    _staged(box, tmp_path)
    _as_directory(box.state / "apps/web/grub/current.next")
    box.ok("app", "switch", "web")

    assert (box.state / "apps/web/grub/damaged-current.next/inside/file").exists()
    assert box.json("repair")["done"] == box.json("verify")["problems"] == []
