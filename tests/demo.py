"""The demonstration: a whole transaction on a Btrfs sandbox, from nothing and back to nothing.

    python -m tests.demo [--files N] [--base-files N] [--seed N]

It runs the real command as a person would, in a directory of its own, and
checks with an independent oracle that what was committed is what the update
asked for.  Whatever happens, nothing is left.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests import oracle, workload

REPOSITORY = Path(__file__).resolve().parents[1]
NEEDED_BYTES = 3 << 30
TOOLS = {
    "mkfs.btrfs": "btrfs-progs",
    "losetup": "mount",
    "tar": "tar",
    "zstd": "zstd",
    "grub-fstest": "grub-common",
    "grub-script-check": "grub-common",
}
ENTRY = "@snaptx/grub/snaptx.cfg"
RUN = ("--sysroot", "box/root")


class FailedError(Exception):
    """A step did not do what it has to do."""


def environment() -> dict[str, str]:
    """Return the environment the command runs in, from a checkout or installed."""
    return os.environ | {"PYTHONPATH": str(REPOSITORY), "PATH": os.environ["PATH"] + ":/usr/sbin:/sbin"}


def snaptx_command() -> list[str]:
    """Return how to start the command: the installed one beside this Python, or the checkout's."""
    installed = Path(sys.executable).with_name("snaptx")
    return [str(installed)] if installed.exists() else [sys.executable, "-m", "snaptx"]


def missing() -> list[str]:
    """Return what this machine lacks, each with the way to get it."""
    lacks = [] if os.geteuid() == 0 else ["root's rights: run it with sudo"]
    if "btrfs" not in Path("/proc/filesystems").read_text().split():
        tried = shutil.which("modprobe", path="/usr/sbin:/sbin:/usr/bin")
        if not tried or subprocess.run([tried, "btrfs"], capture_output=True, check=False).returncode:
            lacks.append("Btrfs in the kernel: 'modprobe btrfs', or boot a kernel that has it")
    if not Path("/dev/loop-control").exists():
        lacks.append("loop devices: 'modprobe loop'; a container needs /dev/loop-control and /dev/loop*")
    path = environment()["PATH"]
    absent = [tool for tool in TOOLS if not shutil.which(tool, path=path)]
    return [*lacks, *(f"{tool}: apt-get install {TOOLS[tool]}" for tool in absent)]


class Stage:
    """The directory the demonstration plays in, what it ran and how long that took."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.times: list[tuple[str, float]] = []

    def prepare(self, what: str, work: Callable[[], Any]) -> Any:
        """Do something in this process that is not snaptx's work."""
        begun = time.monotonic()
        result = work()
        self.times.append((what, time.monotonic() - begun))
        return result

    def snaptx(self, *words: str, label: str = "", quiet: bool = False) -> str:
        """Run the command, show it and what it says; return its stdout."""
        label = label or next(word for word in words if word not in (*RUN, "--json"))
        return self._run(["snaptx", *words], [*snaptx_command(), *words], f"snaptx {label}", quiet=quiet)

    def other(self, *words: str, quiet: bool = False) -> str:
        """Run another program, show it and what it says; return its stdout."""
        return self._run([*words], [*words], words[0], quiet=quiet)

    def _run(self, shown: list[str], words: list[str], label: str, *, quiet: bool) -> str:
        print(f"\n# {shlex.join(shown)}", flush=True)
        begun = time.monotonic()
        with subprocess.Popen(
            words,
            cwd=self.directory,
            env=environment(),
            stdout=subprocess.PIPE,
            text=True,
            errors="surrogateescape",
        ) as running:
            try:
                said, _ = running.communicate()
            except BaseException:
                running.terminate()  # and wait, so that the command can undo what it began
                raise
        self.times.append((label, time.monotonic() - begun))
        if not quiet:
            print(said.encode(errors="backslashreplace").decode(), end="", flush=True)
        if running.returncode:
            raise FailedError(f"'{shlex.join(shown)}' ended with status {running.returncode}")
        return said

    def close(self) -> None:
        """Remove the sandbox if it is there, then everything else.

        Raises:
            FailedError: something holds the sandbox; nothing below it was touched.
        """
        if (self.directory / "box/sandbox.json").exists():
            command = [*snaptx_command(), "sandbox", "destroy", "box"]
            if subprocess.run(command, cwd=self.directory, env=environment(), check=False).returncode:
                raise FailedError(f"to clean up: snaptx sandbox destroy {self.directory}/box")
        shutil.rmtree(self.directory)

    def table(self) -> list[str]:
        """Return what took how long, in the order it began; of what was done more than once, the median."""
        found: dict[str, list[float]] = {}
        for label, seconds in self.times:
            found.setdefault(label, []).append(seconds)
        width = max(map(len, found))
        rows = ((label, statistics.median(times), len(times)) for label, times in found.items())
        return [f"  {name:<{width}} {middle:8.2f} s" + f"  ({n} times)" * (n > 1) for name, middle, n in rows]


def say(text: str) -> None:
    """Tell what happens beside the commands."""
    print(f"\n== {text}", flush=True)


def make_payload(stage: Stage, files: int, base_files: int, seed: int) -> None:
    """Make the base tree and the packed overlay."""
    at = stage.directory
    say(f"a root of about {base_files:,} files of this machine, an update of {files:,} entries (seed {seed})")
    count = stage.prepare("(copy files of this machine)", lambda: workload.make_base(at / "base", base_files))
    made: workload.Overlay = stage.prepare(
        "(make the update)", lambda: workload.make_overlay(at / "base", at / "overlay", files, seed)
    )
    packed = at / "update.tar.zst"
    stage.prepare("(pack the update)", lambda: workload.pack(at / "overlay", packed, "zstd"))
    print(f"   the root has {count:,} files; the update is {packed.stat().st_size >> 20} MiB packed:")
    print(f"   {made.unchanged:,} entries are as the root has them, {made.changed:,} changed,", end=" ")
    print(f"{made.new:,} new, {made.removed:,} removed")
    kinds = [f"{number} {kind.replace('_', ' ')}" for kind, number in sorted(made.kinds.items())]
    print(textwrap.indent(textwrap.fill("among them: " + ", ".join(kinds), 100), "   "))


def update(stage: Stage, message: str) -> float:
    """Adopt, apply, verify and commit; return the pause of the switch in seconds."""
    stage.snaptx("sandbox", "create", "box", "--size", "4G", "--from", "base", label="sandbox create")
    shutil.rmtree(stage.directory / "base")
    stage.snaptx(*RUN, "init")
    stage.snaptx(*RUN, "apply", "update.tar.zst", "--message", message)
    stage.snaptx(*RUN, "verify")
    stage.snaptx(*RUN, "list", label="list")
    committed = json.loads(stage.snaptx(*RUN, "--json", "commit"))
    return float(committed["switch_seconds"])


def check_tree(stage: Stage, number: int, overlay: Path | None) -> None:
    """Compare every path of a generation with what the update makes of the first one, or with that one."""
    top = stage.directory / "box/top"
    root = top / f"@snaptx/generations/{number}/root"
    say(f"is generation {number} what {'the update asks for' if overlay else 'the first one was'}?")
    found = stage.prepare(
        "(compare every path)", lambda: list(oracle.differences(top / "@rootfs", overlay, root))
    )
    if found:
        raise FailedError(f"generation {number} is not what it should be:\n  " + "\n  ".join(found[:20]))
    paths = sum(len(below) + len(names) for _, below, names in os.walk(root))
    print(f"   yes: type, mode, owner, time, attributes, content and links of all {paths:,} paths")


def check_grub(stage: Stage) -> None:
    """Let GRUB's own drivers read the entry file from the image, and its parser judge it."""
    say("what GRUB reads from the image, by its own drivers and without Linux")
    seen = stage.other("grub-fstest", "box/disk.img", "cat", f"/{ENTRY}", quiet=True)
    for line in seen.splitlines():
        print("  ", textwrap.shorten(line, 110) if line.startswith("#") else line)
    written = stage.directory / "box/top" / ENTRY
    if seen != written.read_text():
        raise FailedError("GRUB does not see the entry file that Linux sees")
    stage.other("grub-script-check", f"box/top/{ENTRY}")
    stage.other("grub-script-check", f"box/top/{Path(ENTRY).with_name('grub.cfg')}")
    for line in seen.splitlines():
        word, _, arguments = line.strip().partition(" ")
        if word in {"linux", "initrd"} and "/2/" in arguments:
            kernel = shlex.split(arguments)[0]
            stage.other("grub-fstest", "box/disk.img", "crc", kernel)


def play(stage: Stage, options: argparse.Namespace) -> None:
    """Show everything."""
    make_payload(stage, options.files, options.base_files, options.seed)
    pause = update(stage, f"{options.files:,} files")
    check_tree(stage, 2, stage.directory / "overlay")
    stage.snaptx(*RUN, "list")
    stage.snaptx(*RUN, "diff", "--stat", "1", "2")
    check_grub(stage)
    say("a restart: the entry file decides what is mounted as the root")
    stage.snaptx("sandbox", "reboot", "box", label="sandbox reboot")
    stage.snaptx(*RUN, "confirm")
    stage.snaptx(*RUN, "status")
    say("and back")
    stage.snaptx(*RUN, "rollback")
    stage.snaptx("sandbox", "reboot", "box", label="sandbox reboot")
    check_tree(stage, 3, None)
    stage.snaptx(*RUN, "list")
    stage.snaptx(*RUN, "log")
    stage.snaptx(*RUN, "log", "--verify", label="log --verify")
    stage.snaptx("sandbox", "destroy", "box", label="sandbox destroy")
    print("\nWhat took how long:", *stage.table(), sep="\n")
    print(f"  the switch itself, the one moment that counts: {pause * 1000:.2f} ms")


def arguments() -> argparse.Namespace:
    """Return what the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m tests.demo")
    parser.add_argument("--files", type=int, default=10_000, help="entries of the update")
    parser.add_argument("--base-files", type=int, default=20_000, help="files of the root")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--dir", default="/var/tmp", help="where the images go (default: %(default)s)")
    return parser.parse_args()


def main() -> int:
    """Show the demonstration and return the exit status."""
    options = arguments()
    lacks = missing()
    free = shutil.disk_usage(options.dir).free
    if free < NEEDED_BYTES:
        lacks.append(f"{NEEDED_BYTES >> 30} GiB in {options.dir}, where {free >> 20} MiB are free: use --dir")
    if lacks:
        print("the demonstration needs:", *lacks, sep="\n  ", file=sys.stderr)
        return 1
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    stage = Stage(Path(tempfile.mkdtemp(prefix="snaptx-demo-", dir=options.dir)))
    try:
        try:
            play(stage, options)
        finally:
            stage.close()
    except FailedError as error:
        print(f"\nthe demonstration failed: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\ninterrupted; everything is cleaned up", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
