"""Real Btrfs filesystems on loop devices, one image each, that never outlive their test."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from snaptx.update import download
from tests.appload import build, free_port
from tests.boxes import Box, made
from tests.followers import trust
from tests.updates import Server, Shop, serving
from tests.webapp import Web

MIB = 1 << 20
SMALLEST = 128 * MIB
"""In bytes; mkfs.btrfs refuses less than about 110 MiB."""

APPLETS = (
    "cat", "chmod", "env", "false", "id", "ln", "ls", "mkdir", "mv", "pwd", "readlink", "rm", "sed", "sh",
    "sleep", "stat", "touch", "true",
)  # fmt: skip
"""The programs that busybox stands in for in ``programs``."""

MakeBtrfs = Callable[..., Path]


def command(*argv: str | Path) -> str:
    """Run a command and return its output; a failure shows what it said."""
    result = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert result.returncode == 0, f"{' '.join(map(str, argv))}: {result.stderr or result.stdout}"
    return result.stdout


def nested(box: Box, name: str, *files: str) -> Path:
    """Make a subvolume inside the running root."""
    path = box.root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    command("btrfs", "subvolume", "create", path)
    for file in files:
        (path / file).write_text(file)
    return path


def shared_bytes(path: Path) -> int:
    """Return how many bytes of a file share their blocks with another, by FIEMAP."""
    os.sync()
    fields = command("btrfs", "filesystem", "du", "--raw", path).splitlines()[-1].split()
    return int(fields[0]) - int(fields[1])


def _unmount(target: Path) -> None:
    """Unmount with whatever a test left mounted inside; the loop device goes with the last mount."""
    if target.is_mount():
        command("umount", "--recursive", target)


@pytest.fixture
def make_btrfs(tmp_path: Path) -> Iterator[MakeBtrfs]:
    """Give a function ``(size=…, options=…) -> Path`` that makes and mounts a new Btrfs.

    ``size`` is in bytes (the image is sparse), ``options`` are mount options.
    The path is the top level's mount point.
    """
    with ExitStack() as stack:
        made: list[Path] = []

        def make(*, size: int = 512 * MIB, options: str = "") -> Path:
            image, target = tmp_path / f"btrfs-{len(made)}.img", tmp_path / f"btrfs-{len(made)}"
            made.append(target)
            target.mkdir()
            with image.open("wb") as file:
                file.truncate(size)
            stack.callback(image.unlink)
            command("mkfs.btrfs", "--quiet", "--nodiscard", image)
            stack.callback(_unmount, target)
            command("mount", "-t", "btrfs", "-o", ",".join(filter(None, ("loop", options))), image, target)
            return target

        yield make


@pytest.fixture
def btrfs(make_btrfs: MakeBtrfs) -> Path:
    """Give the mount point of a new Btrfs of 512 MiB."""
    return make_btrfs()


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Box]:
    """Give a sandbox of the layout ``debian`` that snaptx manages, for this test alone."""
    with made() as one:
        yield one


@pytest.fixture
def adoptable() -> Iterator[Box]:
    """Give such a sandbox, not adopted."""
    with made(init=False) as one:
        yield one


@pytest.fixture
def full(tmp_path: Path) -> Iterator[Box]:
    """Give a sandbox with data inside its root, not adopted."""
    from tests.furnished import furnish

    with made(init=False) as one:
        furnish(one.root)
        yield one


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    """Give such a sandbox to all tests of a module: for verbs that change nothing."""
    with made() as one:
        yield one


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a tree with a shell, a kernel and a few files, for sandboxes in which commands run."""
    tree = tmp_path_factory.mktemp("tree") / "root"
    (tree / "usr/bin").mkdir(parents=True)
    (tree / "usr/sbin").mkdir()
    for name, target in {"bin": "usr/bin", "sbin": "usr/sbin"}.items():
        (tree / name).symlink_to(target)
    shutil.copy("/bin/busybox", tree / "usr/bin/busybox")
    for name in APPLETS:
        (tree / "usr/bin" / name).symlink_to("busybox")
    (tree / "etc").mkdir()
    (tree / "etc/hostname").write_text("one\n")
    return tree


@pytest.fixture(scope="module")
def payload(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Give an update of a few megabytes in some files."""
    tree = tmp_path_factory.mktemp("payload")
    (tree / "opt").mkdir()
    for number in range(200):
        (tree / f"opt/{number}").write_bytes(os.urandom(100_000))
    return str(tree)


@pytest.fixture
def update(tmp_path: Path) -> str:
    """Give an update of one file."""
    (tmp_path / "update/etc").mkdir(parents=True)
    (tmp_path / "update/etc/motd").write_text("two\n")
    return str(tmp_path / "update")


@pytest.fixture
def follower(box: Box) -> Box:
    """Give a sandbox that trusts the shop."""
    return trust(box)


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shop:
    """Give a shop with one overlay, and nobody waits long before trying again."""
    monkeypatch.setattr(download, "FIRST_PAUSE", 0.001)
    one = Shop(tmp_path / "shop")
    one.put("motd", {"etc/motd": b"hello\n"}, "a greeting")
    return one


@pytest.fixture
def server(shop: Shop) -> Iterator[Server]:
    """Serve that shop."""
    with serving(shop.place) as one:
        yield one


@pytest.fixture(scope="module")
def two_staged(programs: Path) -> Iterator[Box]:
    """Give a sandbox whose /usr/who tells the generation: 1 runs, 2 and 3 are staged."""
    (programs / "usr/who").write_text("1\n")
    with made(source=programs) as box:
        for number in (2, 3):
            box.ok("run", "--base", "1", "--", "sh", "-c", f"echo {number} > /usr/who")
        yield box


@pytest.fixture(scope="module")
def web_server(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the program of an application's server."""
    return build(tmp_path_factory.mktemp("server"))


@pytest.fixture
def web(box: Box, web_server: Path, tmp_path: Path) -> Iterator[Web]:
    """Give an application of which version one runs."""
    one = Web(box, tmp_path, web_server, free_port())
    one.configure()
    box.ok("app", "create", "web")
    one.apply("one")
    box.ok("app", "switch", "web")
    yield one
    box.run("app", "stop", "web")
