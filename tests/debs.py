"""Debian packages made on the spot, an archive of them, and a small root with the real dpkg and apt."""

from __future__ import annotations

import functools
import hashlib
import shutil
import subprocess
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

PROGRAMS = (
    "dpkg", "dpkg-deb", "dpkg-query", "dpkg-split", "dpkg-divert", "apt-get", "apt-config", "tar",
)  # fmt: skip
APPLETS = (
    "cat", "chmod", "cp", "dd", "diff", "echo", "env", "false", "find", "grep", "kill", "ln", "ls", "mkdir",
    "mv", "rm", "sed", "sh", "sleep", "stat", "test", "touch", "true",
)  # fmt: skip
PACKAGES = (".deb", ".rpm", ".pkg.tar")
METHODS = Path("/usr/lib/apt/methods")
RELEASE = 'ID=debian\nNAME="a small Debian"\nPRETTY_NAME="a small Debian"\n'


@dataclass(frozen=True)
class Deb:
    """A package: its files by path, its scripts by name."""

    name: str
    version: str
    files: Mapping[str, str] = field(default_factory=dict)
    scripts: Mapping[str, str] = field(default_factory=dict)
    depends: str = ""
    conffiles: tuple[str, ...] = ()

    def build(self, directory: Path) -> Path:
        """Make it in ``directory``."""
        tree = directory / f"{self.name}.tree"
        (tree / "DEBIAN").mkdir(parents=True)
        fields = {
            "Package": self.name,
            "Version": self.version,
            "Architecture": "all",
            "Maintainer": "Nobody <nobody@example.org>",
            "Depends": self.depends,
            "Description": "made for a test",
        }
        control = "".join(f"{key}: {value}\n" for key, value in fields.items() if value)
        (tree / "DEBIAN/control").write_text(control)
        if self.conffiles:
            (tree / "DEBIAN/conffiles").write_text("".join(f"{path}\n" for path in self.conffiles))
        for name, text in self.scripts.items():
            (tree / "DEBIAN" / name).write_text("#!/bin/sh\nset -e\n" + text)
            (tree / "DEBIAN" / name).chmod(0o755)
        for path, text in self.files.items():
            place = tree / path.lstrip("/")
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(text)
        target = directory / f"{self.name}_{self.version.replace(':', '%3a')}_all.deb"
        command = ("dpkg-deb", "--root-owner-group", "-Znone", "--build", str(tree), str(target))
        subprocess.run(command, check=True, capture_output=True)
        shutil.rmtree(tree)
        return target


class Archive:
    """A flat archive below a directory, without signatures."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        directory.mkdir(exist_ok=True)

    def add(self, *packages: Deb) -> None:
        """Put packages in and make the index anew."""
        for package in packages:
            package.build(self.directory)
        self.index()

    def index(self) -> None:
        """Write ``Packages``: what each package says of itself, and where it is."""
        stanzas = []
        for path in sorted(self.directory.glob("*.deb")):
            said = subprocess.run(("dpkg-deb", "-f", path), check=True, capture_output=True, text=True).stdout
            data = path.read_bytes()
            about = (
                f"Filename: ./{path.name}\nSize: {len(data)}\nSHA256: {hashlib.sha256(data).hexdigest()}\n"
            )
            stanzas.append(said.rstrip("\n") + "\n" + about)
        (self.directory / "Packages").write_text("\n".join(stanzas))

    def source(self, port: int) -> str:
        """Return the line of sources.list for it, as ``served`` shows it."""
        return f"deb [trusted=yes] http://127.0.0.1:{port}/ ./\n"


class Server(ThreadingHTTPServer):
    """Shows an archive, remembers which packages were fetched, and hangs up after ``limit`` of them."""

    daemon_threads = True

    def __init__(self, directory: Path) -> None:
        super().__init__(("127.0.0.1", 0), functools.partial(_Handler, directory=str(directory)))
        self.limit: int | None = None
        self.fetched: list[str] = []

    @property
    def port(self) -> int:
        """Return where it listens."""
        return int(self.server_address[1])


class _Handler(SimpleHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        if self.path.endswith(PACKAGES):
            if self.server.limit is not None and len(self.server.fetched) >= self.server.limit:
                self.close_connection = True
                self.connection.close()
                return
            self.server.fetched.append(self.path)
        super().do_GET()

    def log_message(self, format: str, *args: object) -> None:
        return


@contextmanager
def served(directory: Path) -> Iterator[Server]:
    """Show ``directory`` by HTTP on this machine alone."""
    server = Server(directory)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def make_root(root: Path) -> None:
    """Fill ``root`` with what dpkg and apt need, taken from this machine, and an empty database."""
    for name in (
        "usr/bin",
        "usr/sbin",
        "usr/lib64",
        "etc/apt/apt.conf.d",
        "etc/apt/preferences.d",
        "root",
        "tmp",
    ):
        (root / name).mkdir(parents=True)
    for name in (
        "var/lib/dpkg/info",
        "var/lib/dpkg/updates",
        "var/lib/dpkg/triggers",
        "var/log/apt",
        "var/tmp",
    ):
        (root / name).mkdir(parents=True)
    for name in ("var/lib/apt/lists/partial", "var/cache/apt/archives/partial", "etc/dpkg/dpkg.cfg.d"):
        (root / name).mkdir(parents=True)
    for name in ("bin", "sbin", "lib", "lib64"):
        (root / name).symlink_to(f"usr/{name}")
    (root / "usr/lib").mkdir()
    _programs(root)
    shutil.copytree("/usr/share/dpkg", root / "usr/share/dpkg")
    (root / "etc/resolv.conf").touch()
    (root / "etc/apt/apt.conf.d/quick").write_text('Acquire::Retries "0";\nAcquire::Languages "none";\n')
    (root / "etc/os-release").write_text(RELEASE)
    (root / "etc/passwd").write_text(
        "root:x:0:0:root:/root:/bin/sh\n_apt:x:42:65534::/nonexistent:/bin/false\n"
    )
    (root / "etc/group").write_text("root:x:0:\nnogroup:x:65534:\n")
    (root / "var/lib/dpkg/arch").write_text("amd64\n")
    for name in ("status", "available"):
        (root / "var/lib/dpkg" / name).touch()


def _programs(root: Path) -> None:
    shutil.copy("/bin/busybox", root / "usr/bin/busybox")
    for name in APPLETS:
        (root / "usr/bin" / name).symlink_to("busybox")
    for name in ("ldconfig", "start-stop-daemon"):
        (root / "usr/sbin" / name).symlink_to("../bin/true")
    found = [Path(shutil.which(name) or name) for name in PROGRAMS]
    found += [METHODS / name for name in ("http", "store", "file", "copy")]
    for path in found:
        _put(root, path)
    put_libraries(root, *found)


def put_libraries(root: Path, *programs: Path) -> None:
    """Copy the libraries that programs of this machine are linked with."""
    said = subprocess.run(("ldd", *programs), check=True, capture_output=True, text=True).stdout
    for word in {word for word in said.split() if word.startswith("/") and ".so" in word}:
        _put(root, Path(word.rstrip(":")))


def _put(root: Path, path: Path) -> None:
    """Copy a file to where it is on this machine, below /usr."""
    relative = path.relative_to("/")
    place = root / (relative if relative.parts[0] == "usr" else "usr" / relative)
    place.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(path, place)


def install(root: Path, *packages: Path) -> None:
    """Install packages into ``root`` by its own dpkg."""
    inside = root / "tmp/packages"
    inside.mkdir()
    for package in packages:
        shutil.copy(package, inside)
    names = [f"/tmp/packages/{package.name}" for package in packages]
    command = ("chroot", str(root), "dpkg", "--install", *names)
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    shutil.rmtree(inside)
