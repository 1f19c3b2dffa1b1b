"""What is called how on a pool, and what a listing means: no pool needed."""

from __future__ import annotations

import pytest

from snaptx.model import Part, Tree
from snaptx.storage.base import CACHE, UNFINISHED
from snaptx.storage.zfs import names
from snaptx.storage.zfs.names import Dataset, Listing, Snapshot

POOL = "tank"
TOP = "tank/ROOT/debian"


def dataset(
    name: str,
    *snapshots: Snapshot,
    tree: str = "",
    mountpoint: str = "/",
    canmount: str = "on",
    origin: str = "",
) -> Dataset:
    return Dataset(
        name, tree=tree, mountpoint=mountpoint, canmount=canmount, origin=origin, snapshots=snapshots
    )


def listing(*datasets: Dataset) -> Listing:
    return Listing({one.name: one for one in datasets})


def snapshot(name: str, txg: int = 1, *clones: str) -> Snapshot:
    return Snapshot(name, txg, clones)


def test_a_writable_tree_is_found_by_its_property_wherever_it_is() -> None:
    known = listing(dataset(TOP, tree="1/root"), dataset("tank/ROOT/renamed", tree="2/root"))

    assert known.find(Tree(2, Part.ROOT)) == "tank/ROOT/renamed"
    assert known.find(Tree(3, Part.ROOT)) == ""


def test_a_read_only_tree_is_found_by_its_snapshot_on_whatever_dataset() -> None:
    known = listing(
        dataset(TOP, tree="1/root"),
        dataset("tank/ROOT/snaptx-2", snapshot("tank/ROOT/snaptx-2@snaptx-1-sealed"), tree="2/root"),
        dataset("tank/ROOT/snaptx-2/var", snapshot("tank/ROOT/snaptx-2/var@snaptx-1-sealed")),
    )

    assert known.find(Tree(1, Part.SEALED)) == "tank/ROOT/snaptx-2@snaptx-1-sealed"


@pytest.mark.parametrize(
    ("short", "tree"),
    [
        ("snaptx-12-sealed", Tree(12, Part.SEALED)),
        ("snaptx-12-other", None),
        ("snaptx-gone-abcd", None),
        ("snaptx--1-sealed", None),
        ("autosnap_2026-01-01", None),
    ],
)
def test_only_names_of_snaptx_are_trees(short: str, tree: Tree | None) -> None:
    assert names.tree_of(short) == tree


def test_the_clone_of_the_newest_snapshot_is_promoted_for_each_dataset() -> None:
    known = listing(
        dataset(
            TOP,
            snapshot(f"{TOP}@a", 1, "tank/ROOT/snaptx-2"),
            snapshot(f"{TOP}@b", 2, "tank/ROOT/snaptx-3"),
            snapshot(f"{TOP}@c", 3),
        ),
        dataset(f"{TOP}/var", snapshot(f"{TOP}/var@b", 2, "tank/ROOT/snaptx-3/var")),
        dataset("tank/ROOT/debian-old", snapshot("tank/ROOT/debian-old@a", 1, "tank/ROOT/else")),
    )

    assert known.dependents(TOP) == ["tank/ROOT/snaptx-3", "tank/ROOT/snaptx-3/var"]


def test_children_follow_their_boot_environment() -> None:
    known = listing(
        dataset(TOP, snapshot(f"{TOP}@a", 1, "tank/ROOT/snaptx-2", "tank/ROOT/snaptx-2-x")),
        dataset(
            f"{TOP}/var", snapshot(f"{TOP}/var@a", 1, "tank/ROOT/snaptx-2-x/var", "tank/ROOT/snaptx-2/var")
        ),
    )

    assert known.dependents(TOP) == ["tank/ROOT/snaptx-2", "tank/ROOT/snaptx-2/var"]


def test_clones_inside_of_what_goes_need_no_promotion() -> None:
    known = listing(dataset(TOP, snapshot(f"{TOP}@a", 1, f"{TOP}/copy")), dataset(f"{TOP}/copy"))

    assert known.dependents(TOP) == []


def test_two_snapshots_meet_where_their_origins_do() -> None:
    known = listing(
        dataset("tank/a", snapshot("tank/a@1", 1), snapshot("tank/a@5", 5), snapshot("tank/a@9", 9)),
        dataset("tank/b", snapshot("tank/b@6", 6), origin="tank/a@5"),
        dataset("tank/c", snapshot("tank/c@3", 3), origin="tank/a@1"),
        dataset("tank/d", snapshot("tank/d@1", 1)),
    )

    assert known.common("tank/b@6", "tank/c@3") == "tank/a@1"
    assert known.common("tank/a@1", "tank/b@6") == "tank/a@1"
    assert known.common("tank/a@9", "tank/b@6") == "tank/a@5"
    assert known.common("tank/b@6", "tank/d@1") == ""


@pytest.mark.parametrize(
    ("name", "expected"),
    [("@home", "home"), ("@var_log", "var_log"), ("@a b", "a:20b"), ("@é:", ":c3:a9:3a"), ("x.new", "x.new")],
)
def test_a_shared_name_has_only_what_zfs_allows(name: str, expected: str) -> None:
    assert names.shared_name(name) == expected


def test_what_lies_in_the_state_directory_elsewhere_lies_beside_it() -> None:
    assert names.shared_place("tank/snaptx", "@home") == "tank/snaptx/shared/home"
    assert names.shared_place("tank/snaptx", CACHE) == "tank/snaptx/cache"
    assert names.shared_place("tank/snaptx", CACHE + UNFINISHED) == "tank/snaptx/cache.unfinished"


def test_what_is_removed_with_snaptx_leaves_shared_data() -> None:
    home = [
        dataset(f"tank/snaptx{name}") for name in ("", "/cache", "/shared", "/state", "/trees", "/trees/a")
    ]

    assert listing(*home).without_shared("tank/snaptx") == ["tank/snaptx"]
    with_data = listing(*home, dataset("tank/snaptx/shared/home"))
    assert with_data.without_shared("tank/snaptx") == [
        "tank/snaptx/cache", "tank/snaptx/state", "tank/snaptx/trees"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("mountpoint", "canmount", "top", "expected"),
    [
        ("/var/lib", "on", "/", "var/lib"),
        ("/var/lib", "noauto", "legacy", "var/lib"),
        ("/mnt/var", "on", "/mnt", "var"),
        ("/mntvar", "on", "/mnt", None),
        ("/var", "off", "/", None),
        ("legacy", "on", "/", None),
        ("none", "on", "/", None),
        ("/", "on", "/", None),
    ],
)
def test_a_child_is_mounted_below_its_root(
    mountpoint: str, canmount: str, top: str, expected: str | None
) -> None:
    child = dataset(f"{TOP}/child", mountpoint=mountpoint, canmount=canmount)

    assert names.place_below(child, dataset(TOP, mountpoint=top)) == expected


def test_the_kernel_is_told_a_space_as_zfs_initramfs_reads_it() -> None:
    assert names.kernel_words("tank/ROOT/my system") == ("root=ZFS=tank/ROOT/my+system",)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("tank/ROOT/snaptx-2.unfinished", True),
        ("tank/snaptx/trees/2-before.unfinished", True),
        ("tank/ROOT/snaptx-2", False),
        ("tank/ROOT/debian.unfinished", False),
        ("tank/ROOT/snaptx-2.unfinished/var", False),
    ],
)
def test_what_is_being_made_is_told_by_its_name(name: str, *, expected: bool) -> None:
    assert names.is_unfinished(name) is expected


def test_what_is_being_made_is_no_tree_yet_and_snaptxs_already() -> None:
    known = listing(
        dataset("tank/ROOT/snaptx-2.unfinished", tree="2/root"),
        dataset("tank/ROOT/snaptx-2.unfinished/var"),
        dataset("tank/mine"),
    )

    assert known.find(Tree(2, Part.ROOT)) == ""
    assert known.is_ours("tank/ROOT/snaptx-2.unfinished/var", "tank/snaptx")
    assert known.is_ours("tank/snaptx/trees/a", "tank/snaptx")
    assert not known.is_ours("tank/mine", "tank/snaptx")


def test_a_snapshot_that_waits_for_nothing_is_a_stray() -> None:
    known = listing(
        dataset(
            "tank/a",
            names.Snapshot("tank/a@snaptx-gone-1", 1),
            names.Snapshot("tank/a@snaptx-gone-2", 2, clones=("tank/b",)),
            names.Snapshot("tank/a@snaptx-gone-3", 3, holds=("mine",)),
            names.Snapshot("tank/a@daily", 4),
        )
    )

    assert known.strays() == ["tank/a@snaptx-gone-1"]
