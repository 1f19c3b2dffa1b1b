"""What a package manager deletes once it is installed is still there for the next try.

``make test-packages`` shows the same with the real zypper.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from snaptx import cache
from snaptx.machine import Machine
from snaptx.packages.zypper import Zypper
from snaptx.storage.base import CACHE

NAME = "repo/noarch/p0-2-1.noarch.rpm"


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """Give what is asked of a machine: where its cache is; a package was fetched."""
    storage = SimpleNamespace(shared_path=lambda name: tmp_path / name)
    made = cast("Machine", SimpleNamespace(storage=storage))
    _put(made)
    return made


def _packages(machine: Machine) -> Path:
    return machine.storage.shared_path(CACHE) / Zypper.emptied


def _put(machine: Machine) -> None:
    path = _packages(machine) / NAME
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("2")


def test_deleted_packages_come_back(machine: Machine) -> None:
    cache.keep(machine, Zypper(), packages=True)
    shutil.rmtree(_packages(machine))
    cache.bring_back(machine, Zypper())

    assert (_packages(machine) / NAME).read_text() == "2"
    cache.bring_back(machine, Zypper())


def test_nothing_is_kept_without_an_upgrade(machine: Machine) -> None:
    cache.keep(machine, Zypper(), packages=True)
    shutil.rmtree(_packages(machine))
    cache.keep(machine, Zypper(), packages=False)
    cache.bring_back(machine, Zypper())

    assert not _packages(machine).exists()


def test_what_is_no_longer_fetched_is_not_kept(machine: Machine) -> None:
    cache.keep(machine, Zypper(), packages=True)
    shutil.rmtree(_packages(machine))
    cache.keep(machine, Zypper(), packages=True)
    cache.bring_back(machine, Zypper())

    assert not _packages(machine).exists()


def test_links_are_not_followed(machine: Machine, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    (_packages(machine) / "repo/link").symlink_to(tmp_path / "mine")
    (_packages(machine) / "out").symlink_to(tmp_path)
    cache.keep(machine, Zypper(), packages=True)

    kept = [
        path.name for path in (machine.storage.shared_path(CACHE) / cache.KEPT).rglob("*") if path.is_file()
    ]
    assert kept == ["p0-2-1.noarch.rpm"]
