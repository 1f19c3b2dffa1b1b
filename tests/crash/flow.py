"""Records one flow: ``python -m tests.crash.flow NAME DIRECTORY [--without N] [--fault F] [--hasty DISK]``.

The directory then holds everything that judging it takes::

    base.img    the disk before
    log         what it was told (see logfile)
    facts.json  the steps, their exit codes, and a census of the disk before the first and after each

A /boot of its own is a second disk: ``boot.img`` and ``boot.log``.

It runs in a process of its own, guarded (see helper).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from snaptx.sandbox import box as sandbox
from snaptx.sandbox.layout import PLANS
from snaptx.sandbox.mounts import unmount_below
from tests.crash import census, world
from tests.crash.census import Census
from tests.crash.driver import Driver
from tests.crash.faults import FAULTS
from tests.crash.helper import guarded, helper
from tests.crash.loop import leave_for_private_mounts, loop_device
from tests.crash.recorder import Disk, Recorder
from tests.crash.world import BOOT, DISK, FLOWS, Flow


@dataclass(frozen=True, slots=True)
class Facts:
    """What a recording is judged by; ``stages[k]`` is the disk after the k-th recorded step.

    ``apps[k]`` is the application tree then, where the flow is about one.
    """

    flow: str
    uuid: str
    booted: str
    steps: tuple[tuple[str, ...], ...]
    codes: tuple[int, ...]
    stages: tuple[Census, ...]
    syncs: tuple[str, ...] = ()
    disks: tuple[str, ...] = (DISK,)
    apps: tuple[Census, ...] = ()

    @property
    def failed(self) -> bool:
        """Return whether a step failed, by its exit code or by the audit trail: a hook's code is always 0."""
        trails = (stages[-1].audit for stages in (self.stages, self.apps) if stages)
        return any(self.codes) or any(record["result"] == "failed" for trail in trails for record in trail)

    def as_json(self) -> dict[str, Any]:
        """Return what ``load`` reads."""
        names = ("flow", "uuid", "booted", "steps", "codes", "syncs", "disks")
        return {
            **{name: getattr(self, name) for name in names},
            "stages": [stage.as_json() for stage in self.stages],
            "apps": [stage.as_json() for stage in self.apps],
        }


def load(directory: Path) -> Facts:
    """Read the facts of a recording."""
    data = json.loads((directory / "facts.json").read_text())
    for name in ("stages", "apps"):
        data[name] = tuple(map(census.from_json, data[name]))
    for name in ("steps", "codes", "syncs", "disks"):
        data[name] = tuple(map(tuple, data[name])) if name == "steps" else tuple(data[name])
    return Facts(**data)


def base(directory: Path, disk: str) -> Path:
    """Return where a recording keeps what a disk was before."""
    return directory / ("base.img" if disk == DISK else f"{disk}.img")


def log(directory: Path, disk: str) -> Path:
    """Return where a recording keeps what a disk was told."""
    return directory / ("log" if disk == DISK else f"{disk}.log")


def record(name: str, directory: Path, *, without: int = -1, fault: str = "", hasty: str = "") -> Facts:
    """Record a flow into ``directory``, in a process of its own.

    Raises:
        RuntimeError: a step failed that nothing was done to.
    """
    directory.mkdir(parents=True, exist_ok=True)
    words = (name, str(directory), f"--without={without}", f"--fault={fault}", f"--hasty={hasty}")
    with helper("tests.crash.flow", *words, stderr=subprocess.STDOUT) as process:
        said, _ = process.communicate()
    if process.returncode:
        raise RuntimeError(f"{name} could not be recorded:\n{said}")
    facts = load(directory)
    if without < 0 and not fault and facts.failed:
        raise RuntimeError(f"{name} failed: exit codes {facts.codes}, recorded {facts.stages[-1].audit[-1]}")
    return facts


def _images(place: Path, flow: Flow) -> dict[str, Path]:
    """Return the images of a fresh machine by the names of its disks."""
    system_root = place / "system"
    world.write_root(system_root, shell=flow.has_shell)
    world.write_app_settings(system_root)
    box = sandbox.create(place / "box", size=world.SIZE, source=system_root, layout=flow.layout)
    unmount_below(box.directory)
    return {DISK: box.disk, **({BOOT: box.boot_image} if box.plan.boot else {})}


@contextmanager
def _driver(place: Path, images: Mapping[str, Path], booted: str, **faults: Any) -> Iterator[Driver]:
    """Give a driver of the machine that is made of the images."""
    with ExitStack() as stack:
        devices = {name: stack.enter_context(loop_device(image)) for name, image in images.items()}
        driver = Driver(devices[DISK], place, place, booted, boot=devices.get(BOOT, ""), **faults)
        yield stack.enter_context(driver)


def _record_here(place: Path, flow: Flow, directory: Path, **faults: Any) -> int:
    leave_for_private_mounts()
    images = _images(place, flow)
    world.write_payloads(place)
    with _driver(place, images, PLANS[flow.layout].root) as driver:
        for step in flow.prepare:
            _require(driver, step)
    for name, image in images.items():
        subprocess.run(["cp", "--sparse=always", image, base(directory, name)], check=True)
    disks = tuple(Disk(name, image, log(directory, name)) for name, image in images.items())
    with Recorder(place / "recorder", disks) as recorder:
        exported = {name: recorder.file(name) for name in images}
        with _driver(place, exported, driver.booted, mark=recorder.mark, **faults) as driver:
            facts = replace(_steps(flow, recorder, driver), disks=tuple(images))
    (directory / "facts.json").write_text(json.dumps(facts.as_json()))
    return 0


def _require(driver: Driver, step: tuple[str, ...]) -> None:
    code = driver.act(step)
    if code and step[0] != "die":
        raise RuntimeError(f"{step} gave {code}: {driver.said()}")


def _steps(flow: Flow, recorder: Recorder, driver: Driver) -> Facts:
    booted, uuid = driver.booted, _uuid(driver)
    stages, codes = [driver.census()], []
    apps = [driver.census(census.APP)] if flow.has_app else []
    syncs: list[str] = []
    without = driver.without
    for number, step in enumerate(flow.record, 1):
        driver.without = without - len(syncs)  # each verb counts from the beginning
        recorder.mark(f"begin {number}")
        codes.append(driver.act(step))
        recorder.mark(f"end {number}")
        syncs += driver.syncs
        stages.append(driver.census())
        apps += [driver.census(census.APP)] if flow.has_app else []
    facts = Facts(flow.name, uuid, booted, flow.record, tuple(codes), tuple(stages), tuple(syncs))
    return replace(facts, apps=tuple(apps))


def _uuid(driver: Driver) -> str:
    found = subprocess.run(
        ["blkid", "-p", "-s", "UUID", "-o", "value", driver.device],
        capture_output=True,
        text=True,
        check=True,
    )
    return found.stdout.strip()


def main() -> int:
    """Record what the command line says."""
    parser = argparse.ArgumentParser(description="Record one flow.")
    parser.add_argument("flow", choices=sorted(FLOWS))
    parser.add_argument("directory", type=Path)
    parser.add_argument("--without", type=int, default=-1, help="leave this barrier or fsync out")
    parser.add_argument("--fault", choices=("", *FAULTS), default="", help="do this wrong")
    parser.add_argument("--hasty", choices=("", DISK, BOOT), default="", help="commit it after every change")
    args = parser.parse_args()
    faults = {name: getattr(args, name) for name in ("without", "fault", "hasty")}
    return guarded(lambda place: _record_here(place, FLOWS[args.flow], args.directory, **faults))


if __name__ == "__main__":
    sys.exit(main())
