"""What was touched since a fork: every difference is among it, or it is not told at all."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snaptx.errors import VerifyError
from snaptx.model import Row
from snaptx.overlay.differing import differing, touched
from snaptx.overlay.manifest import Manifest
from tests.unit.test_manifest import TREE, row

PATHS = st.sampled_from([*TREE, b"new", b"a/new", b"b/new"])
STEPS = st.lists(st.tuples(st.sampled_from(["put", "remove", "remove_tree", "refresh"]), PATHS), max_size=6)
Step = tuple[str, bytes]


def work(manifest: Manifest, steps: list[Step], size: int = 77) -> None:
    """Do what writers do to the rows of a manifest."""
    for what, path in steps:
        if what == "put":
            manifest.put([row(path, size=size)])
        elif what == "refresh":
            manifest.db.execute("UPDATE rows SET inode = 77 WHERE path = ?", (path,))
        elif what == "remove":
            manifest.db.execute("DELETE FROM rows WHERE path = ?", (path,))
        else:
            manifest.remove_tree(path)


def first(place: Path, name: str = "1") -> Path:
    with Manifest.create(place / name) as manifest:
        manifest.put(map(row, TREE))
    return place / name


def fork(base: Path, name: str, steps: list[Step], *, successor: bool = False) -> Path:
    with Manifest.fork(base, base.with_name(name), successor=successor) as manifest:
        work(manifest, steps, size=int(name) + 100)
    return base.with_name(name)


def told(one: list[Path], other: list[Path]) -> set[bytes] | None:
    """Return what two lines of manifests say may differ."""
    with ExitStack() as stack:
        lines = [[stack.enter_context(Manifest.open(path)) for path in line] for line in (one, other)]
        return touched(*lines)


def apart(old: Path, new: Path, among: set[bytes] | None) -> dict[bytes, tuple[Row | None, Row | None]]:
    with Manifest.open(old) as one, Manifest.open(new) as other:
        return dict(differing(one, other, among))


@given(STEPS, STEPS, STEPS)
def test_differences_are_among_what_was_touched(
    tmp_path_factory: pytest.TempPathFactory, before: list[Step], after: list[Step], beside: list[Step]
) -> None:
    base = first(tmp_path_factory.mktemp("m"))
    child, sibling = fork(base, "2", before), fork(base, "4", beside)
    grandchild = fork(child, "3", after)

    for one, other in (
        ([base], [child, base]),
        ([child, base], [base]),
        ([base], [grandchild, child, base]),
        ([grandchild, child, base], [sibling, base]),
    ):
        among = told(one, other)
        assert among is not None
        assert apart(one[0], other[0], among) == apart(one[0], other[0], None)


def test_only_what_was_touched_is_looked_at(tmp_path: Path) -> None:
    base = first(tmp_path)
    child = fork(base, "2", [("put", b"a"), ("put", b"b")])

    assert told([base], [child, base]) == {b"a", b"b"}
    assert apart(base, child, {b"b"}).keys() == {b"b"}


def test_work_upon_work_counts_from_the_first_base(tmp_path: Path) -> None:
    base = first(tmp_path)
    staged = fork(base, "2", [("put", b"a")])
    successor = fork(staged, "3", [("remove", b"b")], successor=True)
    staged.unlink()

    assert told([base], [successor, base]) == {b"a", b"b"}


def test_a_base_that_was_written_since_tells_nothing(tmp_path: Path) -> None:
    base = first(tmp_path)
    child = fork(base, "2", [("put", b"a")])
    with Manifest.open(base, writable=True) as manifest:
        manifest.put([row(b"b", size=9)])

    assert told([base], [child, base]) is None


def test_what_is_not_related_tells_nothing(tmp_path: Path) -> None:
    base, other = first(tmp_path), first(tmp_path, "other")
    child = fork(base, "2", [("put", b"a")])

    assert told([other], [child, other]) is None
    assert told([child], [base, child]) is None


def test_a_child_without_what_was_touched_is_damaged(tmp_path: Path) -> None:
    base = first(tmp_path)
    child = fork(base, "2", [("put", b"a")])
    with Manifest.open(child, writable=True) as manifest:
        manifest.db.execute("DROP TABLE touched")

    with pytest.raises(VerifyError):
        told([base], [child, base])
