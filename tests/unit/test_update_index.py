"""The signed index: what is accepted of it, and how it is made."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from snaptx.cli import main
from snaptx.errors import FormatError, LimitError, SnaptxError, SourceError, TrustError, UsageError
from snaptx.update import index, publish, signature
from snaptx.update.index import Entry, Index
from snaptx.update.state import Seen
from tests.updates import NOW, Shop, key, overlay

PUBLISHED = (index.NAME, index.SIGNATURE)
SHA = "ab" * 32
MADE = Index("shop", 7, NOW + 60, (Entry(1, "a.tar", 10, SHA, "why"), Entry(4, "b.tar.zst", 20, SHA)))
KEYS = {"mine.pub": key(0)[1], "other.pub": key(1)[1]}


def test_an_index_comes_back_as_it_was() -> None:
    found = index.parse(index.dump(MADE))

    assert replace(found, digest="") == MADE
    assert len(found.digest) == 64


def _changed(change: Callable[[Any], Any]) -> bytes:
    data = json.loads(index.dump(MADE))
    return json.dumps(change(data) or data).encode()


def _entry(**values: Any) -> Callable[[Any], None]:
    return lambda data: data["entries"][0].update(values)


@pytest.mark.parametrize(
    "change",
    [
        lambda data: [1],
        lambda data: 3,
        lambda data: data.pop("name") and None,
        lambda data: data.pop("expires") and None,
        lambda data: data.update(name="a/b"),
        lambda data: data.update(name="packages"),
        lambda data: data.update(name=".."),
        lambda data: data.update(name=7),
        lambda data: data.update(version=0),
        lambda data: data.update(version=1.5),
        lambda data: data.update(version=True),
        lambda data: data.update(version="7"),
        lambda data: data.update(version=1 << 60),
        lambda data: data.update(expires="tomorrow"),
        lambda data: data.update(expires="2026-12-23T00:00:00"),
        lambda data: data.update(expires=1),
        lambda data: data.update(expires="0001-01-01T00:00:00+14:00"),
        lambda data: data.update(expires="9999-12-31T23:59:59-14:00"),
        lambda data: data.update(format="1"),
        lambda data: data.update(entries={}) or data.update(entries=None),
        lambda data: data.update(entries=[3]),
        lambda data: data["entries"].reverse(),
        lambda data: data["entries"].append(data["entries"][1]),
        _entry(file="../a.tar"),
        _entry(file="/etc/passwd"),
        _entry(file="a/b.tar"),
        _entry(file=".hidden"),
        _entry(file="a.tar?x"),
        _entry(file="a\n.tar"),
        _entry(file=""),
        _entry(file="x" * 300),
        _entry(size=-1),
        _entry(size=0),
        _entry(size="10"),
        _entry(number=-1),
        _entry(sha256="AB" * 32),
        _entry(sha256="ab"),
        _entry(sha256=None),
        _entry(message="two\nlines"),
        _entry(message="\x1b[2J"),
        _entry(message=3),
        _entry(message="x" * 1000),
    ],
)
def test_what_is_no_index(change: Callable[[Any], Any]) -> None:
    with pytest.raises(SourceError, match="malformed") as caught:
        index.parse(_changed(change))
    assert caught.value.code == 20


@pytest.mark.parametrize("data", [b"", b"{", b"\xff\xfe", b"[" * 100_000, b'{"format": 1}', b"null"])
def test_what_is_not_even_json(data: bytes) -> None:
    with pytest.raises(SourceError):
        index.parse(data)


def test_cut_off_anywhere_it_is_no_index() -> None:
    whole = index.dump(MADE).rstrip()
    for cut in range(len(whole)):
        with pytest.raises(SourceError):
            index.parse(whole[:cut])


def test_an_index_that_is_too_large_or_too_new() -> None:
    with pytest.raises(LimitError):
        index.parse(b" " * (index.MAX_BYTES + 1))
    with pytest.raises(FormatError):
        index.parse(_changed(lambda data: {"format": 2}))


SEEN = Seen("shop", 7, "d")


@pytest.mark.parametrize(
    ("change", "seen", "complaint"),
    [
        ({"expires": NOW}, None, "expired"),
        ({"expires": NOW - 1e6}, SEEN, "expired"),
        ({"name": "other"}, SEEN, "has become 'other'"),
        ({"version": 6}, SEEN, "replayed: it has version 6, 7 was seen"),
        ({"digest": "e"}, SEEN, "replayed"),
    ],
)
def test_what_is_signed_and_still_refused(change: dict[str, Any], seen: Seen | None, complaint: str) -> None:
    with pytest.raises(TrustError, match=complaint):
        index.accept(replace(MADE, **{"digest": "d", **change}), seen, NOW)


def test_what_is_accepted() -> None:
    made = replace(MADE, digest="d")

    assert index.accept(made, None, NOW) == SEEN
    assert index.accept(made, SEEN, NOW) == SEEN
    assert index.accept(replace(made, version=9, digest="e"), SEEN, NOW) == Seen("shop", 9, "e")


@pytest.mark.parametrize(
    ("installed", "numbers"),
    [("", [1, 4]), ("1:x", [4]), ("3:x", [4]), ("4:x", []), ("9:x", []), ("x", [1, 4]), ("²:x", [1, 4])],
)
def test_what_a_generation_lacks(installed: str, numbers: list[int]) -> None:
    assert [entry.number for entry in index.pending(MADE, installed)] == numbers


def test_signatures() -> None:
    signed = signature.sign(b"data", key(1)[0])

    assert signature.verify(b"data", signed, KEYS) == "other.pub"
    for data, given, keys in (
        (b"data!", signed, KEYS),
        (b"data", signed, {"mine.pub": KEYS["mine.pub"]}),
        (b"data", signed, {}),
        (b"data", b"", KEYS),
        (b"data", signed[:-1], KEYS),
        (b"data", signed + b"x", KEYS),
        (b"data", bytes(64), KEYS),
        (b"data", signed, {"bad.pub": b"nonsense"}),
        (b"data", signed, {"private.pub": key(1)[0]}),
    ):
        with pytest.raises(TrustError):
            signature.verify(data, given, keys)


def test_keys_that_can_not_sign(tmp_path: Path) -> None:
    for text in (b"", b"nonsense", key(0)[1]):
        with pytest.raises(UsageError, match="no private Ed25519 key"):
            signature.sign(b"data", text)
    made = subprocess.run(["openssl", "genrsa", "1024"], capture_output=True, check=True).stdout
    with pytest.raises(UsageError, match="no private Ed25519 key"):
        signature.sign(b"data", made)
    command = ["openssl", "genpkey", "-algorithm", "ed25519", "-aes256", "-pass", "pass:x"]
    with pytest.raises(UsageError, match="encrypted"):
        signature.sign(b"data", subprocess.run(command, capture_output=True, check=True).stdout)


def test_openssl_signs_what_snaptx_reads(tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(key(0)[0])
    (tmp_path / "data").write_bytes(b"data")
    words = "openssl pkeyutl -sign -rawin -inkey key -in data -out data.sig"
    subprocess.run(words.split(), cwd=tmp_path, check=True)

    assert signature.verify(b"data", (tmp_path / "data.sig").read_bytes(), KEYS) == "mine.pub"


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    """Give a directory with one overlay, published."""
    made = Shop(tmp_path / "shop")
    made.put("one", {"etc/one": b"1"}, "first")
    return made


def _read(shop: Shop) -> Index:
    data = (shop.place / index.NAME).read_bytes()
    signature.verify(data, (shop.place / index.SIGNATURE).read_bytes(), KEYS)
    return index.parse(data)


def test_two_who_publish_at_once_come_one_after_the_other(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else one version was of two indexes, and who had seen the first refused the other."""
    (shop.place / "a.tar").write_bytes(overlay({"etc/a": b""}))
    write, reached, go_on = publish._write, threading.Event(), threading.Event()

    def slow(directory: Path, data: bytes, signed: bytes | None) -> None:
        if not reached.is_set():
            reached.set()
            go_on.wait(10)
        write(directory, data, signed)

    monkeypatch.setattr(publish, "_write", slow)
    with ThreadPoolExecutor() as pool:
        first = pool.submit(shop.publish)
        assert reached.wait(10)
        (shop.place / "b.tar").write_bytes(overlay({"etc/b": b""}))
        second = pool.submit(shop.publish)
        wait([second], timeout=0.3)
        go_on.set()

    assert (first.result().version, second.result().version) == (2, 3)
    assert [entry.file for entry in _read(shop).entries] == ["one.tar", "a.tar", "b.tar"]


def test_publishing_goes_on_from_what_was_published(shop: Shop) -> None:
    (shop.place / "b.tar").write_bytes(overlay({"b": b""}))
    (shop.place / "a.tar.zst").write_bytes(b"x")
    (shop.place / "notes.txt").write_bytes(b"x")
    shop.publish(message="second", now=NOW)
    made = _read(shop)

    assert (made.version, made.expires) == (2, NOW + 30 * publish.DAY)
    assert [(e.number, e.file, e.message) for e in made.entries] == [
        (1, "one.tar", "first"),
        (2, "a.tar.zst", "second"),
        (3, "b.tar", "second"),
    ]
    assert (shop.place / index.NAME).stat().st_mode & 0o777 == 0o644
    again = shop.publish()
    assert (again.version, again.entries) == (3, made.entries)


def test_all_can_read_what_was_published_whatever_the_umask(shop: Shop) -> None:
    (shop.place / f"{index.NAME}.tmp").write_bytes(b"")
    (shop.place / f"{index.NAME}.tmp").chmod(0o600)
    before = os.umask(0o077)
    try:
        shop.publish()
    finally:
        os.umask(before)

    assert [(shop.place / name).stat().st_mode & 0o777 for name in PUBLISHED] == [0o644, 0o644]


@contextmanager
def _links_put(place: Path, target: Path) -> Iterator[None]:
    """Put a link in the place of each file of an index as soon as there is one, for a with block."""
    pid = os.fork()
    if not pid:
        while True:
            for name in PUBLISHED:
                with suppress(OSError):
                    if not (place / name).is_symlink() and (place / name).exists():
                        (place / "trap").symlink_to(target)
                        (place / "trap").rename(place / name)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def test_a_link_that_the_owner_puts_in_leads_to_no_other_file(shop: Shop, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("secret")
    victim.chmod(0o600)
    for _ in range(50):
        for name in PUBLISHED:
            (shop.place / name).unlink(missing_ok=True)
        with _links_put(shop.place, victim), suppress(SnaptxError):
            shop.publish()

    assert oct(victim.stat().st_mode) == oct(0o100600)
    assert victim.read_text() == "secret"


@pytest.mark.parametrize("harm", ["changed", "gone"])
def test_what_was_published_stays(shop: Shop, harm: str) -> None:
    before = (shop.place / index.NAME).read_bytes()
    if harm == "gone":
        (shop.place / "one.tar").unlink()
    else:
        (shop.place / "one.tar").write_bytes(b"other")

    with pytest.raises(SourceError):
        shop.publish()
    assert (shop.place / index.NAME).read_bytes() == before


def test_publish_from_the_command_line(shop: Shop, capsys: pytest.CaptureFixture[str]) -> None:
    secret = shop.place.parent / "secret"
    secret.write_bytes(key(0)[0])
    (shop.place / "two.tar").write_bytes(overlay({"b": b""}))

    assert main.main(["publish", str(shop.place), "--key", str(secret), "-m", "more"]) == 0
    assert "2: two.tar" in capsys.readouterr().out
    assert _read(shop).version == 2
    assert main.main(["publish", str(shop.place)]) == 0
    assert "openssl pkeyutl -sign -rawin" in capsys.readouterr().out
    assert not (shop.place / index.SIGNATURE).exists()


def test_the_command_that_signs_can_be_pasted(shop: Shop, capsys: pytest.CaptureFixture[str]) -> None:
    place = shop.place.rename(shop.place.parent / "my shop")

    assert main.main(["publish", str(place)]) == 0
    words = shlex.split(capsys.readouterr().out.splitlines()[-1])
    assert words[-4:] == ["-in", str(place / index.NAME), "-out", str(place / index.SIGNATURE)]


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["{shop}", "--name", "other"], 2),
        (["{shop}", "--key", "/nowhere"], 2),
        (["{shop}", "--key", "{shop}/one.tar"], 2),
        (["{shop}", "--message", "two\nlines"], 2),
        (["{shop}/one.tar"], 2),
        (["{shop}/.."], 2),
        (["{shop}", "--dry-run"], 2),
        ([], 2),
    ],
)
def test_what_can_not_be_published(
    shop: Shop, words: list[str], code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    (shop.place / "more.tar").write_bytes(b"x")
    before = (shop.place / index.NAME).read_bytes()

    assert main.main(["publish", *(word.format(shop=shop.place) for word in words)]) == code
    assert (shop.place / index.NAME).read_bytes() == before
    assert "hint" in capsys.readouterr().err
