"""SELinux labels: written as a payload has them, shown, and nothing to carry where nothing else differs."""

from __future__ import annotations

import os
import shutil
import subprocess
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


def test_without_labels_what_is_there_keeps_its_own(box: Box, update: Path) -> None:
    for name in ("same", "changed"):
        os.removexattr(update / "etc" / name, LABEL)
    (update / "etc/new").write_text("by the update")
    box.ok("apply", str(update))
    labels = {name: label(box.tree(2) / "etc" / name) for name in ("same", "changed", "new")}

    assert labels.pop("new") != POLICIES["base"]
    assert set(labels.values()) == {POLICIES["base"]}


def test_a_new_label_alone_is_neither_carried_nor_a_conflict(box: Box, update: Path) -> None:
    box.ok("apply", str(update))
    for name in ("same", "changed"):
        os.setxattr(box.root / "etc" / name, LABEL, b"system_u:object_r:local_t:s0\0")
    (box.root / "etc/hostname").write_text("another\n")
    os.setxattr(box.root / "etc/hostname", LABEL, POLICIES["base"])

    assert box.json("commit")["carried"] == ["etc/hostname"]
    assert label(box.tree(2) / "etc/hostname") == POLICIES["base"]
    assert label(box.tree(2) / "etc/changed") == POLICIES["payload"]


def test_diff_tells_labels_from_other_attributes(box: Box, tmp_path: Path) -> None:
    box.ok("apply", str(_relabelled(tmp_path)))
    same = box.tree(2) / "etc/same"
    os.setxattr(same, LABEL, b"system_u:object_r:local_t:s0\0")
    os.setxattr(same, "user.note", b"another")
    os.setxattr(box.tree(2) / "etc/hostname", "user.note", b"another")
    found = {row["path"]: row["aspects"] for row in box.json("diff", "1", "2")["changes"]}

    assert found["etc/same"] == ["xattrs", "label"]
    assert found["etc/hostname"] == ["xattrs"]
    assert "c /etc/same  [xattrs, label]" in box.ok("diff", "1", "2")
    assert "changed" in box.ok("diff", "1", "2", "--stat")


def _relabelled(tmp_path: Path) -> Path:
    tree = tmp_path / "new"
    (tree / "etc").mkdir(parents=True)
    (tree / "etc/new").write_text("new\n")
    return tree


LABELLER = """
#include <sys/xattr.h>
int main(int argc, char **argv) {
    static const char label[] = "system_u:object_r:local_t:s0";
    return argc == 2 ? -setxattr(argv[1], "security.selinux", label, sizeof label, 0) : 2;
}
"""


def test_a_command_that_only_labels_makes_a_generation(programs: Path, tmp_path: Path) -> None:
    source, tree = tmp_path / "label.c", tmp_path / "tree"
    source.write_text(LABELLER)
    shutil.copytree(programs, tree, symlinks=True)
    subprocess.run(["cc", "-static", "-o", tree / "usr/bin/label", source], check=True)
    with made(source=tree) as one:
        one.ok("run", "--", "label", "/etc/hostname")

        found = {row["path"]: row["aspects"] for row in one.json("diff", "1", "2")["changes"]}
        assert found == {"etc/hostname": ["label"]}
        assert one.audit()[-1]["counts"]["changed"] == 1
        assert one.json("verify", "2")["problems"] == []
