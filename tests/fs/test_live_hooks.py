"""What is loaded of the trees follows a live switch by hooks, and a hook that fails takes it back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from tests.boxes import Box


@pytest.fixture
def ground(two_staged: Box) -> Iterator[Box]:
    """Give that sandbox; nothing stays live."""
    yield two_staged
    two_staged.ok("live", "--off")
    assert seen(two_staged) == 1


def seen(box: Box) -> int:
    """Return the generation whose tree is seen."""
    return int((box.root / "usr/who").read_text())


@contextmanager
def hooked(box: Box, *lines: str) -> Iterator[Callable[[], list[str]]]:
    """Have a hook that does ``lines`` after each switch; give what it wrote to /tmp/loaded, by lines."""
    hook, loaded = box.root / "etc/snaptx/hooks.d/live/policy", box.root / "tmp/loaded"
    hook.parent.mkdir(parents=True)
    loaded.parent.mkdir(exist_ok=True)
    hook.write_text("\n".join(["#!/usr/bin/sh", "read who </usr/who", *lines]) + "\n")
    hook.chmod(0o755)
    try:
        yield lambda: loaded.read_text().splitlines()
    finally:
        loaded.unlink(missing_ok=True)
        hook.unlink()
        hook.parent.rmdir()


LOADS = "echo $SNAPTX_GENERATION sees $who >>/tmp/loaded"


def test_a_policy_is_loaded_after_each_switch(ground: Box) -> None:
    with hooked(ground, LOADS) as loaded:
        for words in (("2",), ("3",), ("3",), ("--off",)):
            ground.ok("live", *words)

        assert loaded() == ["2 sees 2", "3 sees 3", "0 sees 1"]


@pytest.mark.parametrize("before", ["1", "2"])
def test_a_policy_that_does_not_load_takes_the_switch_back(ground: Box, before: str) -> None:
    with hooked(ground, LOADS, '[ "$who" != 3 ] || { echo no such policy; exit 9; }') as loaded:
        ground.ok("live", before)
        said = ground.run("live", "3")

        assert said.code == 32
        assert "no such policy" in said.complaint[0]
        assert said.complaint[0].endswith(
            "generation 2 is live again" if before == "2" else "the live switch was taken back"
        )
        assert seen(ground) == int(before)
        assert loaded()[-2:] == ["3 sees 3", f"{before if before == '2' else 0} sees {before}"]
    assert [record["result"] for record in ground.audit()[-2:]] == ["done", "done"]


def test_the_way_back_stands_where_a_hook_fails(ground: Box) -> None:
    ground.ok("live", "2")
    with hooked(ground, "exit 1"):
        said = ground.run("live", "--off")

    assert said.code == 32
    assert "what booted is seen again" in said.complaint[0]
    assert seen(ground) == 1
