"""Who takes part: snaptx, and what a user would pick instead.

Each is a function that prepares outside of the measured time, runs one process
until the files are on disk, and takes away what it left.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from tests.bench.arena import Arena
from tests.bench.measure import Sample

KEEP = "--xattrs --xattrs-include='*' --acls"
# bsdtar complains of names that are not UTF-8 and unpacks them all the same.
DURABLY = 'cd "$1" && { %s; } 2>/dev/null; [ $? -le 1 ] && exec sync -f "$1"'


def apply(arena: Arena, payload: Path, *options: str) -> Sample:
    """Stage a payload on the first generation."""
    taken = arena.snaptx("apply", payload, "--base", "1", *options)
    arena.snaptx("abort")
    return taken


def unpack(arena: Arena, script: str, payload: Path) -> Sample:
    """Run a script in a fresh snapshot of the root until all is on disk; it finds the payload in ``$2``."""
    with arena.snapshot() as target:
        return arena.run("sh", "-c", DURABLY % script, "sh", target, payload)


def tar(arena: Arena, payload: Path) -> Sample:
    """Unpack with GNU tar."""
    return unpack(arena, f'tar {KEEP} -xpf "$2"', payload)


def bsdtar(arena: Arena, payload: Path) -> Sample:
    """Unpack with bsdtar."""
    return unpack(arena, 'bsdtar -xpf "$2"', payload)


def zstd_tar(arena: Arena, payload: Path) -> Sample:
    """Unpack with zstd and GNU tar in a pipe."""
    return unpack(arena, f'zstd -dc "$2" | tar {KEEP} -xpf -', payload)


def dpkg(arena: Arena, package: Path, safety: str = "--no-force-unsafe-io") -> Sample:
    """Unpack a package in a fresh snapshot, by default as durably as Debian ships dpkg.

    Images of containers switch that off in its configuration.
    """
    with arena.snapshot() as target:
        database = target / "var/lib/dpkg"
        shutil.rmtree(database, ignore_errors=True)
        for name in ("info", "updates", "triggers"):
            (database / name).mkdir(parents=True)
        for name in ("status", "available"):
            (database / name).touch()
        script = 'dpkg --root="$1" "$3" --no-triggers --unpack "$2" >&2 && exec sync -f "$1"'
        return arena.run("sh", "-c", script, "sh", target, package, safety)


def ostree(arena: Arena, payload: Path) -> Sample:
    """Commit a payload over the root's commit and check the whole out, as a deployment does.

    Boot loader and /etc come on top in ``ostree admin deploy``; they are left out.
    """
    work = arena.top / "ostree"
    repository = _repository(arena, payload, work)
    script = (
        'ostree --repo="$1" commit -b new --tree=ref=base --tree=dir="$2/tree" && '
        'ostree --repo="$1" checkout -H new "$2/deployed" && exec sync -f "$2"'
    )
    try:
        return arena.run("sh", "-c", script, "sh", repository, work)
    finally:
        shutil.rmtree(work / "deployed", ignore_errors=True)
        subprocess.run(["ostree", f"--repo={repository}", "refs", "--delete", "new"], check=True)
        prune = ["ostree", f"--repo={repository}", "prune", "--refs-only"]
        subprocess.run(prune, stdout=subprocess.DEVNULL, check=True)


def _repository(arena: Arena, payload: Path, work: Path) -> Path:
    """Return a repository with the base's commit, and the payload beside it as a tree."""
    repository, tree = work / "repo", work / "tree"
    if not repository.exists():
        tree.mkdir(parents=True)
        subprocess.run(["ostree", f"--repo={repository}", "init", "--mode=bare"], check=True)
        words = ["commit", "-b", "base", f"--tree=dir={arena.base}"]
        subprocess.run(["ostree", f"--repo={repository}", *words], stdout=subprocess.DEVNULL, check=True)
        subprocess.run(["tar", "--xattrs", "--acls", "-xpf", payload, "-C", tree], check=True)
    return repository
