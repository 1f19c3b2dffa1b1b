"""SELinux labels: written as a payload has them, and nobody's change where nothing else differs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.boxes import Box, made

LABEL = "security.selinux"
POLICIES = {"base": b"system_u:object_r:etc_t:s0\0", "payload": b"system_u:object_r:conf_t:s0\0"}


def label(path: Path) -> bytes:
    """Return the label of a file, b"" if it has none."""
    return os.getxattr(path, LABEL) if LABEL in os.listxattr(path) else b""


@pytest.fixture
def box() -> Iterator[Box]:
    """Give a machine with two files that have labels."""
    with made(init=False) as one:
        for name in ("same", "changed"):
            (one.root / "etc" / name).write_text(name)
            os.setxattr(one.root / "etc" / name, LABEL, POLICIES["base"])
        one.ok("init")
        yield one


@pytest.fixture
def update(box: Box, tmp_path: Path) -> Path:
    """Give an update with the labels of another policy than the base's: of its two files one is changed."""
    tree = tmp_path / "update"
    (tree / "etc").mkdir(parents=True)
    for name, text in {"same": "same", "changed": "by the update"}.items():
        (tree / "etc" / name).write_text(text)
        os.setxattr(tree / "etc" / name, LABEL, POLICIES["payload"])
    found = (box.root / "etc/same").stat()
    os.utime(tree / "etc/same", ns=(found.st_atime_ns, found.st_mtime_ns))
    os.chmod(tree / "etc", (box.root / "etc").stat().st_mode)
    return tree


def test_labels_of_another_policy_are_written(box: Box, update: Path) -> None:
    box.ok("apply", str(update))

    assert [label(box.tree(2) / "etc" / name) for name in ("same", "changed")] == [POLICIES["payload"]] * 2
    shown = {row["path"]: row["aspects"] for row in box.json("diff", "1", "2")["changes"]}
    assert shown == {"etc/same": ["label"], "etc/changed": ["content", "label", "time"]}
    assert box.json("verify", "2")["problems"] == []


def test_without_labels_the_unchanged_keep_theirs(box: Box, update: Path) -> None:
    for name in ("same", "changed"):
        os.removexattr(update / "etc" / name, LABEL)
    box.ok("apply", str(update))

    assert label(box.tree(2) / "etc/same") == POLICIES["base"]
    assert label(box.tree(2) / "etc/changed") != POLICIES["base"]


def test_a_new_label_alone_is_neither_carried_nor_a_conflict(box: Box, update: Path) -> None:
    box.ok("apply", str(update))
    for name in ("same", "changed"):
        os.setxattr(box.root / "etc" / name, LABEL, b"system_u:object_r:local_t:s0\0")
    (box.root / "etc/hostname").write_text("another\n")
    os.setxattr(box.root / "etc/hostname", LABEL, POLICIES["base"])

    assert box.json("commit")["carried"] == ["etc/hostname"]
    assert label(box.tree(2) / "etc/hostname") == POLICIES["base"]
    assert label(box.tree(2) / "etc/changed") == POLICIES["payload"]
