"""Trees with real package managers from the Debian archive, kept between runs.

A tree is named by what it is made of; SNAPTX_CACHE names another place for them than ~/.cache/snaptx.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

SUITE = "bookworm"
MANAGERS = ("dnf", "zypper", "pacman-package-manager", "createrepo-c", "rpm", "libarchive-tools", "makepkg")
NEWER_SUITE = "forky"
NEWER_MANAGERS = ("dnf5", "createrepo-c", "rpm")
_COMMON = ("mmdebstrap", "--quiet", "--mode=root", "--aptopt=APT::Install-Recommends false")


def cache() -> Path:
    """Return the directory of the trees; makes it."""
    chosen = os.environ.get("SNAPTX_CACHE")
    directory = (Path(chosen) if chosen else Path.home() / ".cache/snaptx") / "packages"
    directory.mkdir(parents=True, exist_ok=True)
    return directory


def kept(name: str, recipe: str, make: Callable[[Path], None]) -> Path:
    """Return the directory of what ``recipe`` describes, which ``make`` fills if the cache has none."""
    target = cache() / f"{name}-{hashlib.sha256(recipe.encode()).hexdigest()[:16]}"
    with target.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not target.exists():
            with tempfile.TemporaryDirectory(prefix=f"{name}.", dir=cache()) as scratch:
                whole = Path(scratch) / "whole"
                whole.mkdir()
                make(whole)
                whole.rename(target)
    return target


def archive() -> str:
    """Return the address of the Debian archive that this machine's apt is set to."""
    command = ["apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages", "Label: Debian"]
    found = subprocess.run(command, capture_output=True, text=True, check=False).stdout.split()
    return found[0] if found else "http://deb.debian.org/debian"


def managers() -> Path:
    """Return a tar of a root with dnf, zypper, pacman and what makes their repositories, without apt."""
    return _tree("managers", SUITE, MANAGERS)


def newer_managers() -> Path:
    """Return a tar of a root with dnf 5, which no released Debian has; it is called dnf, as in Fedora."""
    link = '--customize-hook=ln -s dnf5 "$1/usr/bin/dnf"'
    return _tree(
        "newer-managers", NEWER_SUITE, NEWER_MANAGERS, "--aptopt=Acquire::Check-Valid-Until false", link
    )


def _tree(name: str, suite: str, packages: tuple[str, ...], *options: str) -> Path:
    def make(directory: Path) -> None:
        given = (*options, "--variant=essential", f"--include={','.join(packages)}")
        command = [*_COMMON, *given, suite, str(directory / "root.tar"), archive()]
        subprocess.run(command, check=True, stdin=subprocess.DEVNULL)

    return kept(name, f"{suite} {packages} {_COMMON}{''.join(options)}", make) / "root.tar"


def inside(root: Path, *command: str, cwd: str = "/", text: str = "") -> str:
    """Run a command in ``root``, with /dev and /proc, and return what it printed; ``text`` is its input."""
    script = (
        'mount --rbind /dev "$0/dev"; mount -t proc proc "$0/proc"; '
        'place=$1; shift; exec chroot "$0" sh -c \'cd "$0" && exec "$@"\' "$place" "$@"'
    )
    words = ("unshare", "--mount", "sh", "-e", "-c", script, str(root), cwd, *command)
    environment = {
        "PATH": "/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin",
        "LC_ALL": "C.UTF-8",
    }
    environment |= {name: os.environ[name] for name in os.environ if name.lower().endswith("_proxy")}
    result = subprocess.run(words, input=text, capture_output=True, text=True, check=False, env=environment)
    assert result.returncode == 0, f"{' '.join(command)}: {result.stdout}{result.stderr}"
    return result.stdout


@contextmanager
def scratch(root: Path, name: str) -> Iterator[Path]:
    """Give a directory inside ``root`` for the length of a with block."""
    path = root / "tmp" / name
    path.mkdir()
    try:
        yield path
    finally:
        shutil.rmtree(path)
