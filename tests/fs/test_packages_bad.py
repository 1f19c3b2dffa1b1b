"""What can stand in the way of the real apt: proxies, quotas, questions, a dpkg that was interrupted."""

from __future__ import annotations

import subprocess

import pytest

from tests.boxes import Box
from tests.debs import Archive, Deb, Server
from tests.fs.test_packages_apt import (  # noqa: F401 - fixtures among them
    archive,
    equipped,
    fails,
    held,
    package,
    server,
    small,
)

NOWHERE = "archive.invalid"


@pytest.fixture
def proxied(equipped: Box, archive: Archive) -> Box:  # noqa: F811
    """Give a root whose source only a proxy knows; the server can be that proxy."""
    archive.add(package(0, "2"))
    (archive.directory / "http:").mkdir()
    (archive.directory / "http:" / NOWHERE).symlink_to("..")
    source = f"deb [trusted=yes] http://{NOWHERE}/ ./\n"
    (equipped.root / "etc/apt/sources.list").write_text(source)
    return equipped


@pytest.mark.parametrize("variable", ["http_proxy", "HTTP_PROXY"])
def test_proxy_of_the_environment_is_asked(
    proxied: Box,
    server: Server,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    variable: str,
) -> None:
    monkeypatch.setenv(variable, f"http://127.0.0.1:{server.port}")
    proxied.ok("upgrade")

    assert server.fetched == [f"http://{NOWHERE}/./p0_2_all.deb"]


@pytest.mark.parametrize("proxy", ["http://127.0.0.1:9", "what is that"])
def test_proxy_that_does_not_answer_is_named(
    proxied: Box,
    server: Server,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    proxy: str,
) -> None:
    monkeypatch.setenv("http_proxy", proxy)

    assert "look at the network, the proxy and the sources" in fails(proxied, 34, "upgrade").err
    assert server.fetched == []


def test_cache_that_may_not_grow(equipped: Box, archive: Archive) -> None:  # noqa: F811
    """By a quota of its own: the filesystem has room."""
    archive.add(Deb("p0", "2", {"/usr/share/p0": "x" * (8 << 20)}))
    top, limit = str(equipped.top), str(equipped.state / "cache")
    _btrfs("quota", "enable", top)
    try:
        _btrfs("quota", "rescan", "-w", top)
        _btrfs("qgroup", "limit", "2M", limit)
        assert "there is no room for what it fetches" in fails(equipped, 53, "upgrade").err
        _btrfs("qgroup", "limit", "none", limit)
        equipped.ok("upgrade")
    finally:
        _btrfs("quota", "disable", top)


def _btrfs(*words: str) -> None:
    subprocess.run(["btrfs", *words], check=True, capture_output=True)


def test_script_that_asks_gets_no_answer(equipped: Box, archive: Archive) -> None:  # noqa: F811
    asks = "if read answer; then echo $answer >/var/answer; else touch /var/unanswered; fi\n"
    archive.add(package(0, "2", scripts={"postinst": asks}))
    said = equipped.run("--json", "upgrade", stdin=b"y\n")
    tree = equipped.tree(said.json["staged"]["number"])

    assert (tree / "var/unanswered").exists()
    assert not (tree / "var/answer").exists()


def test_dpkg_that_was_interrupted(equipped: Box, archive: Archive) -> None:  # noqa: F811
    archive.add(package(0, "2"))
    journal = equipped.root / "var/lib/dpkg/updates/0001"
    journal.write_text("Package: p0\nStatus: install ok half-configured\n")
    try:
        assert "dpkg was interrupted" in fails(equipped, 34, "upgrade").err
    finally:
        journal.unlink()


def test_unattended_update_waits_for_the_package_manager(equipped: Box, archive: Archive) -> None:  # noqa: F811
    archive.add(package(0, "2"))
    words = ("update", "--policy", "stage", "--source", "packages")
    with held(equipped.root / "var/lib/dpkg/lock") as holder:
        assert f"apt is at work in the running system: process {holder}" in equipped.run(*words).err
        assert [marks for marks in equipped.marks().values() if marks.endswith("s")] == []
        assert equipped.json("status")["updates"]["failures"] == 1
    equipped.ok(*words)
    assert equipped.json("status")["updates"]["failures"] == 0
