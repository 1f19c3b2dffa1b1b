"""Test data at the size of real updates: a base tree from this machine and an overlay over it.

Everything follows from the machine's files and a seed.  None of the package's
code takes part, so that what is generated can judge it.  GNU tar copies and
packs, because it loses nothing.
"""

from __future__ import annotations

import itertools
import os
import random
import stat
import subprocess
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from tests.specials import MAKERS, acl, large, sparse, text, write_file

SOURCES = (b"etc", b"usr/bin", b"usr/sbin", b"usr/lib", b"usr/share")
LARGEST = 8 << 20
MOST_BYTES = 200_000_000
"""Of a base of 20,000 files: an update of 10,000 of them is of 110 to 120 MB."""

OFTEN = tuple(maker for maker in MAKERS if maker not in (sparse, large))
"""What an update has more than one of: those of megabytes would be most of its bytes."""

MOST_NAMES = 500
"""So many files of one directory: the manual pages would be half of a small base."""
DIRECTORIES = ("boot", "dev", "home", "proc", "root", "run", "srv", "sys", "tmp", "var/lib", "var/log")
ESSENTIAL = ("sh", "dash", "bash", "cat", "cp", "env", "false", "ls", "mkdir", "mv", "rm", "sleep", "touch")
"""Programs every base has, with their libraries, so that commands can run in it."""

METADATA = ("--xattrs", "--xattrs-include=*", "--acls", "--numeric-owner", "--format=pax")
COMPRESSION = {"": (), "gzip": ("--gzip",), "xz": ("--xz",), "zstd": ("--zstd",)}
ALTERATIONS = ("rewritten", "rewritten", "blocks", "blocks", "grown", "cut", "mode", "time", "xattr", "owner")
NOT_TOUCHED = {b"etc/fstab", b"etc/default/grub"}
"""What a sandbox writes itself."""

LONG_AGO = 1_700_000_000_000_000_000
"""Nanoseconds since the epoch: the time of everything new."""

Walk = list[tuple[bytes, list[bytes]]]


def make_base(target: Path, files: int) -> int:
    """Fill ``target`` with about ``files`` files of this machine, 200 MB at most; return their number.

    Whole directories are taken, spread evenly over /usr and /etc.  Where the
    machine has too few files they come again below opt/again-N.
    """
    target.mkdir(parents=True)
    found = _survey()
    total = sum(len(names) for _, names in found)
    count, turn = 0, 0
    while count < files * 0.9:
        taken = _take(found, min(1.0, (files - count) / total), MOST_BYTES * min(total, files) // files)
        place = _made(target / f"opt/again-{turn}") if turn else target
        _tar_copy(Path("/"), place, [*_ancestors(taken), *taken, *_essential()])
        count, turn = count + len(taken), turn + 1
    for name in DIRECTORIES:
        _made(target / name)
    (target / "tmp").chmod(0o1777)
    for name in ("bin", "sbin", "lib", "lib64"):
        if os.path.islink(f"/{name}"):
            (target / name).symlink_to(os.readlink(f"/{name}"))
    return count


def _made(directory: Path) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    return directory


def _survey() -> Walk:
    found: Walk = []
    for source in SOURCES:
        for place, below, names in os.walk(b"/" + source):
            below.sort()
            found.append((place[1:], sorted(names)[:MOST_NAMES]))
    return found


def _take(found: Walk, share: float, most_bytes: int) -> list[bytes]:
    """Return the files of every so many directories, without the largest where they are too much."""
    sized: list[tuple[int, bytes]] = []
    seen = 0
    for place, names in found:
        seen += len(names)
        if len(sized) >= seen * share:
            continue
        for name in names:
            path = place + b"/" + name
            info = os.lstat(b"/" + path)
            regular = stat.S_ISREG(info.st_mode)
            if (regular and info.st_size <= LARGEST) or stat.S_ISLNK(info.st_mode):
                sized.append((info.st_size, path))
    sized.sort()
    total = 0
    for index, (size, _) in enumerate(sized):
        total += size
        if total > most_bytes:
            del sized[index:]
            break
    return sorted(path for _, path in sized)


def _ancestors(paths: Iterable[bytes]) -> list[bytes]:
    """Return every directory above ``paths``, parents first."""
    found: set[bytes] = set()
    for path in paths:
        place = os.path.dirname(path)
        while place and place not in found:
            found.add(place)
            place = os.path.dirname(place)
    return sorted(found)


def _essential() -> list[bytes]:
    programs = [path for name in ESSENTIAL if os.path.exists(path := f"/usr/bin/{name}")]
    said = subprocess.run(["ldd", *programs], capture_output=True, text=True, check=False).stdout
    paths = set(programs)
    for word in said.split():
        if word.startswith("/") and not word.endswith(":"):
            real = os.path.join(os.path.realpath(os.path.dirname(word)), os.path.basename(word))
            paths |= {real, os.path.realpath(real)}
    return sorted(os.fsencode(path).lstrip(b"/") for path in paths)


def _tar_copy(source: Path, target: Path, paths: list[bytes]) -> None:
    """Copy ``paths`` with hard links, holes, attributes and times; a directory only as itself."""
    out = ["tar", "--create", *METADATA, "--sparse", "--no-recursion", "--null", "--verbatim-files-from"]
    command = ["tar", "--extract", "-p", *METADATA, "--directory", str(target), "--file=-"]
    with tempfile.TemporaryFile() as listing:
        listing.write(b"\0".join(dict.fromkeys(paths)))
        listing.seek(0)
        with subprocess.Popen(
            [*out, "--directory", str(source), "--files-from=-", "--file=-"],
            stdin=listing,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        ) as packing:
            unpacked = subprocess.run(command, stdin=packing.stdout, check=False).returncode
        # 1 is "file changed as we read it": this machine is alive.
        if unpacked or packing.returncode not in (0, 1):
            raise RuntimeError(f"tar could not copy {source} to {target}")


@dataclass
class Overlay:
    """How many paths of each sort an overlay got."""

    unchanged: int = 0
    changed: int = 0
    new: int = 0
    removed: int = 0
    kinds: dict[str, int] = field(default_factory=dict)

    @property
    def entries(self) -> int:
        """Return the number of entries that are not plain directories."""
        return self.unchanged + self.changed + self.new + self.removed


def make_overlay(
    base: Path,
    target: Path,
    files: int,
    seed: int,
    *,
    changed: float = 0.3,
    new: float = 0.05,
    removed: float = 0.02,
) -> Overlay:
    """Fill ``target`` with an update of ``files`` entries over ``base``, removals as OCI whiteouts."""
    writer = _Writer(base, target, random.Random(seed))
    writer.pick(files, changed=int(files * changed), new=int(files * new), removed=int(files * removed))
    writer.write()
    return writer.made


class _Writer:
    """Makes one overlay: first chooses the base's paths, then copies, alters, adds and removes."""

    def __init__(self, base: Path, target: Path, rng: random.Random) -> None:
        self.base, self.target = os.fsencode(base), os.fsencode(target)
        self.rng = rng
        self.made = Overlay()
        self.same: list[bytes] = []
        self.altered: list[bytes] = []
        self.gone: list[bytes] = []
        self.links: list[bytes] = []
        self.gone_directories: list[bytes] = []
        self.opaque: list[bytes] = []
        self.new = 0

    def pick(self, files: int, *, changed: int, new: int, removed: int) -> None:
        """Decide what happens to which path of the base: whole directories are touched, as by packages."""
        regular, links, leaves = self._survey()
        chosen = self.rng.sample(leaves, min(3, len(leaves)))
        self.gone_directories, self.opaque = chosen[:2], chosen[2:]
        closed = {*chosen}
        regular = [path for path in regular if os.path.dirname(path) not in closed]
        links = [path for path in links if os.path.dirname(path) not in closed]
        wanted = min(len(links), files // 30)
        picked = self._together(regular)[: max(changed + removed, files - new - wanted - len(chosen))]
        self.links = self._nearest(links, picked)[:wanted]
        self.rng.shuffle(picked)
        self.gone, rest = picked[:removed], picked[removed:]
        self.altered, self.same = rest[:changed], rest[changed:]
        missing = files - len(self.gone) - len(self.altered) - len(self.same) - len(self.links) - len(chosen)
        self.new = max(missing, len(MAKERS))

    def _together(self, paths: list[bytes]) -> list[bytes]:
        """Return the paths directory by directory, in an order drawn for those."""
        places: dict[bytes, list[bytes]] = {}
        for path in paths:
            places.setdefault(os.path.dirname(path), []).append(path)
        order = list(places)
        self.rng.shuffle(order)
        return [path for place in order for path in places[place]]

    def _nearest(self, links: list[bytes], paths: list[bytes]) -> list[bytes]:
        """Return links in an order drawn for them, first those that lie beside one of the paths."""
        beside = {os.path.dirname(path) for path in paths}
        drawn = self.rng.sample(links, len(links))
        return sorted(drawn, key=lambda link: os.path.dirname(link) not in beside)

    def _survey(self) -> tuple[list[bytes], list[bytes], list[bytes]]:
        regular, links, leaves = [], [], []
        for place, below, names in os.walk(self.base):
            below.sort()
            inside = place[len(self.base) + 1 :]
            if not below and 2 <= len(names) <= 20:
                leaves.append(inside)
            for name in sorted(names):
                path = os.path.join(inside, name)
                mode = os.lstat(os.path.join(place, name)).st_mode
                if path in NOT_TOUCHED or path.startswith(b"boot/"):
                    continue
                if stat.S_ISREG(mode):
                    regular.append(path)
                elif stat.S_ISLNK(mode) and not os.path.isdir(os.path.join(place, name)):
                    links.append(path)
        return regular, links, leaves

    def write(self) -> None:
        """Make the overlay's tree."""
        os.mkdir(self.target)
        removed = [*self.gone, *self.gone_directories]
        touched = [*self.same, *self.altered, *self.links, *removed, *(path + b"/x" for path in self.opaque)]
        keep, turned = self.links[2:], self.links[:2]
        directories = _ancestors(touched)
        _tar_copy(
            Path(os.fsdecode(self.base)),
            Path(os.fsdecode(self.target)),
            [*directories, *sorted(self.same + keep)],
        )
        self._count("unchanged", len(self.same) + len(keep))
        for index, path in enumerate(self.altered):
            self._alter(path, index)
        for index, path in enumerate(turned):
            self._replace_link(path, index)
        self._add()
        self._remove(removed)
        self._restore_times(directories)

    def _count(self, sort: str, number: int = 1, kind: str = "") -> None:
        setattr(self.made, sort, getattr(self.made, sort) + number)
        if kind:
            self.made.kinds[kind] = self.made.kinds.get(kind, 0) + number

    def _alter(self, path: bytes, index: int) -> None:
        """Write a changed version of a file of the base."""
        source, target = os.path.join(self.base, path), os.path.join(self.target, path)
        info, kind = os.lstat(source), ALTERATIONS[index % len(ALTERATIONS)]
        with open(source, "rb") as old, open(target, "wb") as fresh:
            fresh.write(self._altered(old.read(), kind))
        os.chown(target, info.st_uid, info.st_gid + (kind == "owner"))
        for name in os.listxattr(source):
            os.setxattr(target, name, os.getxattr(source, name))
        if kind == "xattr":
            os.setxattr(target, b"user.version", b"%d" % index)
        os.chmod(target, stat.S_IMODE(info.st_mode) ^ (0o020 if kind == "mode" else 0))
        keeps_time = kind in {"mode", "xattr", "owner"}
        mtime = info.st_mtime_ns - (0 if keeps_time else self.rng.randint(1, 10**15))
        os.utime(target, ns=(mtime, mtime))
        self._count("changed", kind=kind)

    def _altered(self, data: bytes, kind: str) -> bytes:
        stamp = b"version %d\n" % self.rng.getrandbits(40)
        match kind:
            case "rewritten":
                middle = len(data) // 3
                return stamp + data[middle:] + data[:middle]
            case "blocks":
                changed = bytearray(data or stamp)
                for _ in range(min(3, len(changed) // 4096 + 1)):
                    changed[self.rng.randrange(len(changed))] ^= 0xFF
                return bytes(changed)
            case "grown":
                return data + stamp * self.rng.randint(1, 200)
            case "cut":
                return data[: len(data) // 2] + stamp
        return data

    def _replace_link(self, path: bytes, index: int) -> None:
        """Give a symlink another target, or put a file where it was."""
        target = os.path.join(self.target, path)
        if index % 2:
            os.symlink(b"elsewhere/" + os.path.basename(path), target)
        else:
            write_file(target, b"a file where a symlink was\n")
        os.utime(target, ns=(LONG_AGO, LONG_AGO + index), follow_symlinks=False)
        self._count("changed", kind="symlink")

    def _add(self) -> None:
        """Add new files of every kind, most of them small text, in new and existing directories."""
        known = [os.path.dirname(path) for path in self.same[:50]] or [b"usr/lib"]
        specials, places = itertools.chain(MAKERS, itertools.cycle(OFTEN)), set()
        for index in range(self.new):
            special = index < len(MAKERS) or index % 3 == 0
            maker = next(specials) if special else text
            place = b"usr/lib/new-package-%d" % (index // 40) if special else known[index % len(known)]
            if self.opaque and index in {0, 5}:
                place = self.opaque[0]
            directory = os.path.join(self.target, place)
            os.makedirs(directory, exist_ok=True)
            maker(os.path.join(directory, b"new-%06d" % index), self.rng)
            places.add(directory)
            self._count("new", kind=maker.__name__)
        for directory in sorted(places):
            self._date(directory)

    def _date(self, directory: bytes) -> None:
        """Give what is new in a directory and below it a time with nanoseconds."""
        for place, below, names in os.walk(directory):
            links = [name for name in below if os.path.islink(os.path.join(place, name))]  # to a directory
            below[:] = sorted(name for name in below if name.startswith((b"new-", b"level-")))
            for name in sorted([*names, *links]):
                if b"new-" in name:
                    mtime = LONG_AGO + self.rng.randrange(10**12)
                    os.utime(os.path.join(place, name), ns=(mtime, mtime), follow_symlinks=False)

    def _remove(self, removed: list[bytes]) -> None:
        for path in removed:
            place, name = os.path.split(os.path.join(self.target, path))
            self._mark(os.path.join(place, b".wh." + name))
        for path in self.opaque:
            self._mark(os.path.join(self.target, path, b".wh..wh..opq"))
        self._count("removed", len(removed), "whiteout")
        self._count("removed", len(self.opaque), "opaque")

    def _mark(self, path: bytes) -> None:
        write_file(path, b"")
        os.utime(path, ns=(LONG_AGO, LONG_AGO))

    def _restore_times(self, directories: list[bytes]) -> None:
        """Give directories their times: the base's or, to new ones, a fixed one; a few change otherwise."""
        known = {os.path.join(self.target, path) for path in directories} | {self.target}
        for place, _, _ in os.walk(self.target, topdown=False):
            if place not in known:
                os.utime(place, ns=(LONG_AGO, LONG_AGO))
        for index, path in enumerate(reversed(directories)):
            target = os.path.join(self.target, path)
            if index % 100 == 1:
                os.setxattr(target, b"system.posix_acl_default", acl(1000))
            info = os.lstat(os.path.join(self.base, path))
            if index % 100 == 2:
                os.chmod(target, stat.S_IMODE(info.st_mode) ^ 0o020)
            os.utime(target, ns=(info.st_mtime_ns, info.st_mtime_ns))
        info = os.lstat(self.base)
        os.chmod(self.target, stat.S_IMODE(info.st_mode))
        os.utime(self.target, ns=(info.st_mtime_ns, info.st_mtime_ns))


def pack(tree: Path, tar: Path, compression: str = "") -> None:
    """Pack ``tree`` with GNU tar: sorted, nanosecond times, everything a file can carry."""
    options = [*METADATA, "--sparse", "--sort=name", "--pax-option=delete=atime,delete=ctime"]
    command = ["tar", "--create", *options, *COMPRESSION[compression], "--file", str(tar)]
    subprocess.run([*command, "--directory", str(tree), "."], check=True)
