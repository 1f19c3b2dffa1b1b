"""Any change of the pool is the last one that happens: what was begun can be taken away, all of it."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest

from snaptx.model import Part, Tree
from snaptx.storage.zfs import library
from snaptx.storage.zfs import pool as commands
from snaptx.storage.zfs.backend import ZfsStorage
from tests.zfs.conftest import MakePool, Pool
from tests.zfs.small import everything, opened

CHANGES = (
    (library, ("together", "create", "clone", "snapshot", "destroy_snapshots", "hold", "release", "rename")),
    (commands, ("set_properties", "set_bootfs")),
)
"""All that changes a pool."""

CLONE: Callable[..., Any] = library.clone


class Cut(BaseException):
    """The power is gone."""


class Power:
    """Lasts for a number of changes; a clone is two, for its properties are written later than itself."""

    def __init__(self, changes: int) -> None:
        self.left = changes

    def spend(self) -> None:
        """Take one change, if there is power for it."""
        if not self.left:
            raise Cut
        self.left -= 1

    def limit(self, change: Callable[..., Any]) -> Callable[..., Any]:
        """Let a change need power."""

        def limited(*args: Any, **kwargs: Any) -> Any:
            self.spend()
            if change is CLONE and not self.left:
                change(args[0], args[1], {})
            if change is CLONE:
                self.spend()
            return change(*args, **kwargs)

        return limited


def work(storage: ZfsStorage) -> None:
    """Make and remove trees in all the ways there are."""
    origin, root, before = (Tree(2, part) for part in (Part.ORIGIN, Part.ROOT, Part.BEFORE))
    storage.snapshot(Tree(1, Part.ROOT), origin, writable=False)
    storage.snapshot(origin, root, writable=True)
    storage.snapshot(root, before, writable=True)
    storage.snapshot(origin, Tree(2, Part.LATEST), writable=False)
    storage.delete(before)
    storage.snapshot(root, Tree(2, Part.SEALED), writable=False)
    storage.protect([2])
    storage.delete(origin)


def cut_short(pool: Pool, changes: int, act: Callable[[ZfsStorage], None]) -> bool:
    """Act as long as there is power; return whether it was enough."""
    with pytest.MonkeyPatch.context() as patch:
        storage, power = opened(pool), Power(changes)
        for module, functions in CHANGES:
            _limit(patch, module, functions, power)
        try:
            act(storage)
        except Cut:
            return False
        finally:
            storage.close()
    return True


def _limit(patch: pytest.MonkeyPatch, module: ModuleType, functions: tuple[str, ...], power: Power) -> None:
    for name in functions:
        patch.setattr(module, name, power.limit(getattr(module, name)))


def test_what_was_begun_goes_whole(make_pool: MakePool) -> None:
    pool = make_pool(children=("var",))
    opened(pool).close()
    before, changes, enough = everything(pool), 0, False
    while not enough:
        enough = cut_short(pool, changes, work)
        storage = opened(pool)
        for part in reversed(Part):
            storage.delete(Tree(2, part))
        storage.close()
        assert everything(pool) == before, f"after {changes} changes"
        changes += 1

    assert changes > 25, "there is more to be cut short"


def test_what_was_begun_can_be_made_again(make_pool: MakePool) -> None:
    pool = make_pool()
    opened(pool).close()
    made = Tree(2, Part.ROOT)

    def make(storage: ZfsStorage) -> None:
        storage.snapshot(Tree(1, Part.ROOT), made, writable=True)

    for changes in range(1, 6):
        assert not cut_short(pool, changes, make)
        storage = opened(pool)
        make(storage)

        assert storage.name(made) == f"{pool.container}/snaptx-2"
        storage.delete(made)
        storage.close()
