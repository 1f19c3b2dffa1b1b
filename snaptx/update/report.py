"""What a machine tells of its updates without being asked: a line at login, figures for monitoring.

The line goes where pam_motd(8) looks, the figures into a textfile of
Prometheus' node_exporter.  Both are replaced as a whole: nobody reads half of
one.  Neither has to survive a power cut.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from snaptx import log
from snaptx.machine import Machine
from snaptx.update.state import Result, State

TEXTFILE = "snaptx.prom"


def line(state: State, booted: int, default: int) -> str:
    """Return one line for those who log in, "" if there is nothing to tell them."""
    told = _line(state, booted, default)
    return "".join(char if char.isprintable() else "?" for char in told)  # some of it is other people's


def _line(state: State, booted: int, default: int) -> str:
    if booted != default:
        return f"snaptx: generation {default} boots next; restart to update."
    last = state.last
    if last is None:
        return ""
    match last.result:
        case Result.FAILED:
            return f"snaptx: the last update failed: {last.message}"
        case Result.REJECTED | Result.HELD | Result.AVAILABLE | Result.DOWNLOADED | Result.STAGED:
            return f"snaptx: {last.message}"
    return ""


def metrics(state: State, booted: int, default: int) -> str:
    """Return the figures in Prometheus' text format."""
    return "".join(_metrics(state, booted, default))


def _metrics(state: State, booted: int, default: int) -> Iterator[str]:
    ran = state.last.time if state.last else 0
    figures = (
        ("update_last_run_timestamp_seconds", "When the last update ended.", ran),
        ("update_last_success_timestamp_seconds", "When all sources were last read.", state.succeeded),
        ("update_next_run_timestamp_seconds", "When the next update is due.", state.next),
        ("update_exit_status", "The exit status of the last update.", state.last.code if state.last else 0),
        ("update_failures", "Updates that failed since the last that did not.", state.failures),
        ("update_offers", "Updates that wait to be installed.", len(state.offered)),
        ("generation_booted", "The generation that runs.", booted),
        ("generation_default", "The generation that boots next.", default),
        ("restart_required", "Whether another generation boots next than runs.", int(booted != default)),
    )
    for name, about, value in figures:
        yield f"# HELP snaptx_{name} {about}\n# TYPE snaptx_{name} gauge\nsnaptx_{name} {value:.15g}\n"
    yield "# HELP snaptx_update_result What the last update came to.\n# TYPE snaptx_update_result gauge\n"
    for result in Result:
        value = int(state.last is not None and state.last.result is result)
        yield f'snaptx_update_result{{result="{result}"}} {value}\n'


def publish(machine: Machine, state: State) -> None:
    """Write both for a machine; what can't be written is no reason to fail."""
    config = machine.config.update
    booted, default = machine.booted, machine.boot_state().default
    if config.metrics and Path(config.metrics).is_dir():
        write(Path(config.metrics) / TEXTFILE, metrics(state, booted, default))
    if config.motd:
        write(Path(config.motd), line(state, booted, default))


def write(path: Path, text: str) -> None:
    """Replace a file that everybody may read; without a text, remove it."""
    fresh = path.with_name(f".{path.name}.tmp")
    try:
        if not text:
            path.unlink(missing_ok=True)
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh.unlink(missing_ok=True)
        with fresh.open("x", encoding="utf-8") as stream:
            os.fchmod(stream.fileno(), 0o644)
            stream.write(text if text.endswith("\n") else text + "\n")
        fresh.replace(path)
    except OSError as error:
        log.warning("could not be written", path=str(path), reason=error.strerror)
