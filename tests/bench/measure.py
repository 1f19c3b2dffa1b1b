"""One process, measured whole; and two or more that take turns."""

from __future__ import annotations

import json
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.demo import FailedError, environment

# A process of its own: ru_maxrss starts from the size of the process that forked, which here is small.
MEASURE = """
import json, os, signal, sys, time
out = os.open(os.devnull, os.O_WRONLY)
begun = time.monotonic()
child = os.fork()
if not child:
    os.dup2(out, 1)
    os.execvp(sys.argv[1], sys.argv[1:])
signal.signal(signal.SIGTERM, lambda *_: None)  # the child ends, this waits for it
_, status, usage = os.wait4(child, 0)
seconds = time.monotonic() - begun
status = os.waitstatus_to_exitcode(status)
cpu = usage.ru_utime + usage.ru_stime
print(json.dumps({"seconds": seconds, "cpu": cpu, "kib": usage.ru_maxrss, "status": status}))
"""


@dataclass(frozen=True, slots=True)
class Sample:
    """What one run took: seconds of the clock, seconds of a processor, KiB of its largest process."""

    seconds: float
    cpu: float
    kib: int


Side = Callable[[], Sample]
"""Prepares, runs and measures one contestant, and takes away what it left."""


def as_installed() -> dict[str, str]:
    """Return the environment of a measured process: as with an installed snaptx, bytecode is kept."""
    return {k: v for k, v in environment().items() if k != "PYTHONDONTWRITEBYTECODE"} | {"LC_ALL": "C.UTF-8"}


def run(command: Sequence[str | Path], cwd: Path) -> Sample:
    """Run a command to its end and return what it took.

    Raises:
        FailedError: it ended with another status than 0.
    """
    words = [sys.executable, "-S", "-c", MEASURE, *map(str, command)]
    with subprocess.Popen(
        words,
        cwd=cwd,
        env=as_installed(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        start_new_session=True,
    ) as running:
        try:
            said, complaints = running.communicate()
        except BaseException:
            os.killpg(running.pid, signal.SIGTERM)  # and wait: nobody may still write when all is removed
            raise
    found = json.loads(said or '{"status": "unknown"}')
    if found.pop("status"):
        raise FailedError(f"{' '.join(words[4:])} failed: {complaints.strip()[-500:]}")
    return Sample(**found)


def alternate(
    sides: Mapping[str, Side], rounds: int, seconds: float, settle: Callable[[], None]
) -> dict[str, list[Sample]]:
    """Let all sides run ``rounds`` times, beginning with another one each time.

    ``settle`` comes before each run.  No round begins that would end after ``seconds``.
    """
    found: dict[str, list[Sample]] = {name: [] for name in sides}
    names, begun, longest = list(sides), time.monotonic(), 0.0
    for number in range(rounds):
        started = time.monotonic()
        if number and started - begun + longest > seconds:
            print(f"  time is up after {number} rounds", file=sys.stderr)
            break
        for step in range(len(names)):
            name = names[(step + number) % len(names)]
            settle()
            found[name].append(sides[name]())
        longest = max(longest, time.monotonic() - started)
    return found


def seconds(samples: Sequence[Sample]) -> float:
    """Return the median of the clock's seconds."""
    return statistics.median(sample.seconds for sample in samples)


def cpu(samples: Sequence[Sample]) -> float:
    """Return the median of the processor's seconds."""
    return statistics.median(sample.cpu for sample in samples)
