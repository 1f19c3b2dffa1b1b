"""The table, the file it is kept in, and the comparison with the one kept before."""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.bench.measure import cpu, seconds
from tests.bench.results import Figure, shown
from tests.demo import environment, snaptx_command

KEPT = Path.home() / ".cache/snaptx/bench.json"
OTHERS = ("btrfs", "zfs", "tar", "bsdtar", "dpkg", "ostree", "rsync")
VERDICTS = {True: "met", False: "missed", None: ""}


def machine(seed: int) -> dict[str, Any]:
    """Return what the figures depend on."""
    model = re.search(r"model name\s*:\s*(.*)", Path("/proc/cpuinfo").read_text())
    return {
        "processor": f"{os.cpu_count()} x {model[1] if model else platform.machine()}",
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') >> 30} GiB",
        "kernel": platform.release(),
        "python": platform.python_version(),
        **{name: _version(name, "--version") for name in OTHERS},
        "snaptx": _version(*snaptx_command(), "--version"),
        "load": "{:.1f} {:.1f} {:.1f} (1, 5, 15 minutes)".format(*os.getloadavg()),
        "seed": seed,
    }


def _version(*command: str) -> str:
    """Return the first line a program says about its version."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, env=environment(), check=False)
    except FileNotFoundError:
        return "not installed"
    return (done.stdout + done.stderr).strip().splitlines()[0]


def lines(figure: Figure, before: float | None) -> list[str]:
    """Return a figure as the table shows it; ``before`` is the median kept from last time."""
    against = f" / {figure.against}" if figure.against else ""
    bar = f"<= {figure.target:g}: {VERDICTS[figure.met]}" if figure.target is not None else ""
    was = f"was {shown(before, figure.unit)}" if before is not None else ""
    value = f"{shown(figure.median, figure.unit)} {figure.unit}"
    first = f"{figure.label + against:<62} {value:>9}  {figure.spread:<14}  {bar:<15} {was}"
    sides = [
        f"{name} {seconds(samples):.3f} s ({cpu(samples):.2f} s of processor)"
        for name, samples in figure.sides.items()
    ]
    more = "; ".join(filter(None, [*sides, figure.note]))
    return [first.rstrip(), *([f"    {more}"] if more else [])]


def kept(path: Path) -> dict[str, Any]:
    """Return the table kept in a file, empty if there is none."""
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return {"rows": {}}
    return found if isinstance(found, dict) and isinstance(found.get("rows"), dict) else {"rows": {}}


def medians(table: dict[str, Any], row: str) -> dict[str, float]:
    """Return the medians of a row in a table, by label without the payload's size."""
    return {_plain(figure["label"]): figure["median"] for figure in table["rows"].get(row, [])}


def before(medians: dict[str, float], figure: Figure) -> float | None:
    """Return what a figure's median was."""
    return medians.get(_plain(figure.label))


def _plain(label: str) -> str:
    return re.sub(r", \d+ MB$", "", label)


def keep(path: Path, about: dict[str, Any], rows: Mapping[str, Sequence[Figure]]) -> None:
    """Write the rows measured now over those of the same name; the others stay."""
    old = kept(path)["rows"]
    fresh = {name: [{**figure.json, "machine": about} for figure in found] for name, found in rows.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"rows": {**old, **fresh}}, indent=1) + "\n")
