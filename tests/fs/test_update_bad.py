"""``update`` with a source that is wrong, hostile or gone: nothing of the machine changes."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from snaptx.update import index, publish
from tests.boxes import Box, changes, made
from tests.followers import cached, kept, source, trust, update
from tests.fs.conftest import command
from tests.updates import Server, Shop, overlay


def unsigned(shop: Shop) -> None:
    """Take the signature away."""
    shop.unsign()


def by_somebody_else(shop: Shop) -> None:
    """Sign with a key that nobody trusts."""
    shop.sign((shop.place / index.NAME).read_bytes(), 1)


def altered(shop: Shop) -> None:
    """Change a byte after signing."""
    path = shop.place / index.NAME
    path.write_bytes(path.read_bytes().replace(b"greeting", b"Greeting"))


def truncated(shop: Shop) -> None:
    """Cut the index off."""
    path = shop.place / index.NAME
    path.write_bytes(path.read_bytes()[:-20])


def truncated_and_signed(shop: Shop) -> None:
    """Sign half an index."""
    shop.sign((shop.place / index.NAME).read_bytes()[:-20])


def expired(shop: Shop) -> None:
    """Publish for a time that is over."""
    shop.publish(now=time.time() - 31 * publish.DAY)


def oversized(shop: Shop) -> None:
    """Publish more than anybody reads."""
    shop.sign(b" " * index.MAX_BYTES + b"{}")


def long_signature(shop: Shop) -> None:
    """Put something else where the signature is."""
    (shop.place / index.SIGNATURE).write_bytes(b"x" * 4096)


def wrong_size(shop: Shop) -> None:
    """Let the overlay be longer than announced."""
    with (shop.place / "motd.tar").open("ab") as stream:
        stream.write(b"x")


def wrong_content(shop: Shop) -> None:
    """Let the overlay be another one."""
    path = shop.place / "motd.tar"
    path.write_bytes(path.read_bytes().replace(b"hello", b"jello"))


def missing(shop: Shop) -> None:
    """Let the overlay be gone."""
    (shop.place / "motd.tar").unlink()


def _resized(shop: Shop, size: int) -> None:
    data = json.loads((shop.place / index.NAME).read_bytes())
    data["entries"][0]["size"] = size
    shop.sign(json.dumps(data).encode())


def too_large(shop: Shop) -> None:
    """Announce more than is allowed."""
    _resized(shop, 1 << 40)


def larger_than_the_disk(shop: Shop) -> None:
    """Announce more than there is room for."""
    _resized(shop, 3 << 30)


def hostile(shop: Shop) -> None:
    """Sign an overlay that reaches outside, after one that is sound."""
    shop.put("zz", {"../../outside": b"x"})


def malformed(shop: Shop) -> None:
    """Sign something that is no overlay."""
    (shop.place / "zz.tar").write_bytes(b"no tar")
    shop.publish()


Harm = Callable[[Shop], None]
BAD: dict[Harm, int] = {
    unsigned: 25, by_somebody_else: 25, altered: 25, truncated: 25, truncated_and_signed: 20, expired: 25,
    oversized: 22, long_signature: 25, wrong_size: 23, wrong_content: 23, missing: 24, too_large: 22,
    larger_than_the_disk: 53, hostile: 21, malformed: 20,
}  # fmt: skip


@pytest.fixture(scope="module")
def victim() -> Iterator[Box]:
    """Give a sandbox that trusts the shop to all tests of what is refused."""
    with made() as one:
        yield trust(one)


@pytest.mark.parametrize("harm", BAD, ids=lambda harm: harm.__name__)
def test_bad_input_changes_nothing(victim: Box, shop: Shop, server: Server, harm: Harm) -> None:
    harm(shop)
    before = kept(victim)
    said = victim.run("update", *source(server))

    assert said.code == BAD[harm], said.err
    message, hint = said.complaint
    assert message
    assert hint
    assert changes(before, kept(victim)) == {}
    told = victim.json("status")["updates"]
    assert (told["last"]["result"], told["last"]["code"]) == ("failed", BAD[harm])
    assert victim.run("update", *source(shop)).code == BAD[harm], "a directory is no better than a server"
    assert victim.json("verify")["problems"] == []


def test_no_key_is_trusted(box: Box, shop: Shop) -> None:
    assert "keys.d" in box.run("update", *source(shop)).complaint[1]
    (box.root / "etc/snaptx/keys.d").mkdir(parents=True)
    (box.root / "etc/snaptx/keys.d/bad.pub").write_text("nonsense")
    assert box.run("update", *source(shop)).code == 25


def test_an_old_index_is_not_taken_again(follower: Box, shop: Shop) -> None:
    old = {path: path.read_bytes() for path in shop.place.glob("index*")}
    shop.put("zz", {"etc/zz": b""})
    update(follower, shop, "--check")
    for path, data in old.items():
        path.write_bytes(data)
    before = kept(follower)

    said = follower.run("update", *source(shop))
    assert (said.code, "replayed" in said.err) == (25, True)
    assert changes(before, kept(follower)) == {}


def test_another_shop_in_its_place_is_refused(follower: Box, shop: Shop) -> None:
    update(follower, shop, "--check")
    data = json.loads((shop.place / index.NAME).read_bytes())
    shop.sign(json.dumps(data | {"name": "other", "version": 9}).encode())

    said = follower.run("update", *source(shop))
    assert (said.code, "was 'shop'" in said.err) == (25, True)


def _eventually(check: Callable[[], object]) -> None:
    deadline = time.monotonic() + 20
    while not check():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def _large(shop: Shop, server: Server) -> int:
    """Put a large overlay in the shop, which is sent slowly after half of it; return its size."""
    (shop.place / "zz.tar").write_bytes(data := overlay({"etc/large": os.urandom(3 << 20)}))
    shop.publish()
    server.cut["zz.tar"] = [len(data) // 2]
    server.hang = "zz.tar"
    return len(data)


def test_killed_in_the_middle_of_a_download_it_goes_on(follower: Box, shop: Shop, server: Server) -> None:
    size = _large(shop, server)
    before = kept(follower)
    work = follower.start("update", *source(server))
    _eventually(lambda: sum(path.stat().st_size for path in cached(follower)) > size // 2)
    os.kill(work.pid, signal.SIGKILL)
    os.waitpid(work.pid, 0)
    assert changes(before, kept(follower)) == {}
    server.hang = ""

    number = update(follower, server)["committed"]["number"]
    assert (follower.tree(number) / "etc/large").stat().st_size == 3 << 20
    assert server.asked[-1] == ("zz.tar", f"bytes={size // 2}-")


def test_two_updates_at_once(follower: Box, shop: Shop, server: Server) -> None:
    _large(shop, server)
    work = follower.start("update", *source(server))
    _eventually(lambda: server.count("zz.tar"))

    said = follower.run("update", *source(server))
    assert (said.code, "'snaptx update'" in said.err) == (4, True)
    assert follower.run("confirm").code == 0, "others are not kept from working by a download"
    os.kill(work.pid, signal.SIGINT)
    assert work.wait().code == 130


def test_a_rollback_during_a_download_loses_no_overlay(follower: Box, shop: Shop, server: Server) -> None:
    update(follower, server)
    shop.put("second", {"etc/second": b""})
    update(follower, server)
    _large(shop, server)
    work = follower.start("update", *source(server))
    _eventually(lambda: cached(follower))
    follower.ok("rollback", "2")
    server.hang = ""

    said = work.wait()
    assert (said.code, "was changed meanwhile" in said.err) == (4, True)
    assert follower.boot().default == 4, "the one that went back, with the content of 2"
    number = update(follower, server)["committed"]["number"]
    assert (follower.tree(number) / "etc/second").exists()
    assert (follower.tree(number) / "etc/large").exists()


@pytest.mark.parametrize("ending", ["", ".part"])
@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: path.symlink_to("/nowhere")])
def test_what_is_no_file_in_the_cache_keeps_nothing_from_arriving(
    follower: Box, shop: Shop, make: Callable[[Path], None], ending: str
) -> None:
    update(follower, shop, "--policy", "download")
    (own,) = cached(follower)
    own.unlink()
    make(own.with_name(own.name + ending))

    assert update(follower, shop, "--policy", "download")["result"] == "downloaded"
    assert cached(follower) == [own]
    assert own.is_file()


def test_what_others_left_in_the_cache_is_removed(follower: Box, shop: Shop, tmp_path: Path) -> None:
    update(follower, shop, "--policy", "download")
    cache, (own,) = follower.state / "update/cache", cached(follower)
    (tmp_path / "others").mkdir()
    for place in (cache, own.parent):
        (place / "file").write_text("x")
        (place / "link").symlink_to(tmp_path / "others")
        (place / "directory").mkdir()
        (place / "directory/file").write_text("x")

    assert update(follower, shop, "--policy", "download")["result"] == "downloaded"
    assert [path.name for path in cache.rglob("*")] == [own.parent.name, own.name]
    assert (tmp_path / "others").exists()


def test_what_the_filesystem_refuses_is_remembered(follower: Box, shop: Shop) -> None:
    update(follower, shop, "--policy", "download")
    (own,) = cached(follower)
    own.unlink()
    command("chattr", "+i", own.parent)
    said = follower.run("update", *source(shop))
    command("chattr", "-i", own.parent)

    assert said.code == 50
    told = follower.json("status")["updates"]
    assert (told["last"]["result"], told["last"]["code"], told["failures"]) == ("failed", 50, 1)
    assert "Operation not permitted" in told["last"]["message"]


def test_status_tells_since_when_updates_fail(follower: Box, shop: Shop) -> None:
    assert follower.run("update", "--source", "/nonexistent").code == 24
    assert "1 failure(s) in a row, and no success yet" in follower.ok("status")
    told = follower.run("--json", "update", "--source", "/nonexistent").json
    assert (told["result"], told["error"]["code"]) == ("failed", 24)
    follower.ok("update", "--source", str(shop.place))
    assert follower.run("update", "--source", "/nonexistent").code == 24
    assert "1 failure(s) in a row, since 20" in follower.ok("status")
