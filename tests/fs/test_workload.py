"""The generated update and the oracle: GNU tar satisfies it, every kind of damage is noticed."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import oracle, workload
from tests.specials import MAKERS

pytestmark = pytest.mark.root


@pytest.fixture(scope="module")
def trees(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a directory with a base, an overlay over it and the result GNU tar makes of both."""
    place = tmp_path_factory.mktemp("workload")
    workload.make_base(place / "base", 600)
    made = workload.make_overlay(place / "base", place / "overlay", 300, seed=7)
    assert made.entries == 300
    workload.pack(place / "overlay", place / "update.tar.zst", "zstd")
    subprocess.run(["cp", "-a", place / "base", place / "result"], check=True)
    lay(place / "overlay", place / "update.tar.zst", place / "result")
    return place


def lay(overlay: Path, packed: Path, result: Path) -> None:
    """Apply an OCI layer with rm and tar."""
    root = os.fsencode(overlay)
    for place, _, names in os.walk(root):
        target = os.path.join(os.fsencode(result), place[len(root) + 1 :])
        for name in names:
            if name == b".wh..wh..opq":
                gone = [os.path.join(target, inside) for inside in os.listdir(target)]
            elif name.startswith(b".wh."):
                gone = [os.path.join(target, name[4:])]
            else:
                continue
            subprocess.run(["rm", "-rf", "--", *gone], check=True)
    keep = ["--xattrs", "--xattrs-include=*", "--acls", "--numeric-owner"]
    subprocess.run(["tar", "-xp", *keep, "--exclude=.wh.*", "-C", result, "-f", packed], check=True)


def test_tar_makes_what_the_oracle_expects(trees: Path) -> None:
    assert list(oracle.differences(trees / "base", trees / "overlay", trees / "result")) == []


def listing(tree: Path) -> list[tuple[object, ...]]:
    """Return what every path of a tree is, with the content of small files."""
    found: list[tuple[object, ...]] = []
    for place, below, names in os.walk(os.fsencode(tree)):
        for path in [os.path.join(place, name) for name in [*below, *names]]:
            info = os.lstat(path)
            small = stat.S_ISREG(info.st_mode) and info.st_size < 10_000
            data = Path(os.fsdecode(path)).read_bytes() if small else b""
            found.append((os.path.relpath(path, os.fsencode(tree)), info.st_mode, info.st_mtime_ns, data))
    return sorted(found)


def test_same_seed_makes_the_same_update(trees: Path, tmp_path: Path) -> None:
    workload.make_overlay(trees / "base", tmp_path / "again", 300, seed=7)
    workload.make_overlay(trees / "base", tmp_path / "other", 300, seed=8)

    assert listing(tmp_path / "again") == listing(trees / "overlay")
    assert listing(tmp_path / "other") != listing(trees / "overlay")


def test_every_kind_of_file_takes_part(trees: Path, tmp_path: Path) -> None:
    made = workload.make_overlay(trees / "base", tmp_path / "overlay", 300, seed=9)

    assert {maker.__name__ for maker in MAKERS} < set(made.kinds)
    assert {"symlink", "whiteout", "opaque", *workload.ALTERATIONS} < set(made.kinds)
    assert min(made.unchanged, made.changed, made.new, made.removed) > 0


def first(tree: Path, pattern: str) -> Path:
    """Return the first regular file of a tree that a pattern finds."""
    return next(path for path in sorted(tree.rglob(pattern)) if path.is_file() and not path.is_symlink())


def flip(path: Path) -> None:
    """Change one byte and keep size and time."""
    info = path.stat()
    data = bytearray(path.read_bytes())
    data[0] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(info.st_mtime_ns, info.st_mtime_ns))


DAMAGES: dict[str, Callable[[Path], object]] = {
    "content": lambda tree: flip(first(tree, "new-000000")),
    "mode": lambda tree: first(tree, "new-*").chmod(0o123),
    "owner": lambda tree: os.chown(first(tree, "new-*"), 77, 77),
    "time": lambda tree: os.utime(first(tree, "new-*"), ns=(1, 1)),
    "attributes": lambda tree: os.setxattr(first(tree, "new-*"), "user.more", b"1"),
    "missing": lambda tree: first(tree, "new-*").unlink(),
    "should not be": lambda tree: (tree / "usr/.wh.x").touch(),
    "hard link": lambda tree: os.replace(shutil.copy2(p := first(tree, "*-also"), f"{p}.x"), p),
}


@pytest.mark.parametrize("damage", sorted(DAMAGES))
def test_oracle_notices(trees: Path, tmp_path: Path, damage: str) -> None:
    subprocess.run(["cp", "-a", trees / "result", tmp_path / "result"], check=True)
    DAMAGES[damage](tmp_path / "result")

    found = list(oracle.differences(trees / "base", trees / "overlay", tmp_path / "result"))

    assert any(damage in line for line in found), found
