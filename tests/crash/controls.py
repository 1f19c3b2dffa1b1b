"""Does the rig notice?  Every barrier and fsync is taken away, one at a time.

What nobody misses is named in SPARE, with the reason: something else makes the
same thing durable before it matters.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.crash import flow
from tests.crash.faults import LEFT_OUT
from tests.crash.points import FIRST, chosen
from tests.crash.replay import shown
from tests.crash.rig import Failure, Task, logs, run
from tests.crash.world import FLOWS

_AFTERWARDS = "the barrier of /boot writes it before it is named; recovery removes what no entry names"
_ENTRY_ONLY = (
    "nothing else is new, and Btrfs begins to write a file's data where it is renamed over another: "
    "that is seldom too late"
)
_POINTER = "nothing is new but the pointer, whose data has an fsync of its own"
_IN_ORDER = "Btrfs commits in order: where the trees are gone the entry file is the one from before they went"
_BY_BOOT = "the barrier of /boot after it commits the name"
_WRITTEN = "the barrier after it writes the data as well"
_SEALED = "the snapshots before it commit; what is new beside them has an fsync of its own"
_ON_BOOT = "what boots is on /boot, and the rest of the root's disk is derived from that"
_REMOVED_AGAIN = "what no entry names is removed by the next repair as well"
_AGAIN = "what is removed next is of the same directory, and that is flushed again"
_AFTER_CUT = "it renews what a power cut left, and there was none: every point's own repair needs it"
_IN_RUN = "it lies in /run, which ends with the boot"
_OF_THIS_BOOT = "the note names its boot: after a power cut it holds for nobody"
_STATES = ("@snaptx", "web")
"""Where the machine's state lies, and the application's."""

_COPIES_FIRST = [f"boot-{verb}: fsync @snaptx/journal 1" for verb in ("commit", "rebuilt")]
"""Needed where others of their kind are not: the kernel is copied to /boot before the root's disk commits."""

SPARE = {
    **dict.fromkeys(_COPIES_FIRST, ""),
    **{
        f"fsync {state}/journal": "what follows commits: a snapshot, a barrier, the fsync of a name"
        for state in _STATES
    },
    **{
        f"fsync {state}/generations": "a number is only promised once its snapshot is there, and that commits"
        for state in _STATES
    },
    "fsync generations/N": "a barrier or a snapshot follows before anything relies on the names",
    "fsync generations/last.tmp": "the directories themselves tell the highest number",
    "fsync grub/current.next": _WRITTEN,
    "fsync grub/grub.cfg.tmp": _WRITTEN,
    "fsync grub/settings.cfg.tmp": _WRITTEN,
    "fsync @snaptx/grub": "the barrier after it commits the name",
    **{
        f"fsync snaptx/{name}": "the barrier of /boot after it writes the data as well"
        for name in ("grub.cfg.tmp", "settings.cfg.tmp", "snaptx.env.tmp")
    },
    **{f"boot-init: fsync boot/snaptx {number}": _BY_BOOT for number in (1, 2, 3)},
    "boot-init: fsync boot/snaptx 4": _REMOVED_AGAIN,
    "boot-init: barrier 2": _ON_BOOT,
    "boot-prune: fsync boot/snaptx 1": _AGAIN,
    "boot-reconcile: fsync boot/snaptx 1": _AGAIN,
    **{f"boot-reconcile: fsync boot/snaptx {number}": _REMOVED_AGAIN for number in (2, 3)},
    **{
        f"boot-{verb}: barrier 1": _ON_BOOT
        for verb in ("commit", "rollback", "activate", "confirm", "reject")
    },
    "boot-confirm: barrier 2": _ON_BOOT,
    "boot-rebuilt: fsync boot/snaptx 1": _BY_BOOT,
    "boot-rebuilt: barrier 1": "the snapshot before it commits; the new initrd is on /boot",
    "boot-rebuilt: /boot barrier 3": "barrier 2 did it; it is for a recovery, which no switch precedes",
    "fsync web/N.json.tmp": _IN_RUN,
    "fsync apps/web": _IN_RUN,
    "fsync @snaptx/hook.tmp": _OF_THIS_BOOT,
    "fsync @snaptx": _OF_THIS_BOOT,
    **{f"fsync DIGEST.tmp/{name}-{of}.0": _AFTERWARDS for name in ("vmlinuz", "initrd.img") for of in (1, 2)},
    "fsync N/DIGEST.tmp": _AFTERWARDS,
    "init: barrier 1": "the snapshot after it commits, and writes the data of what it copies",
    "hook: barrier 1": _ENTRY_ONLY,
    "hook-drop: barrier 1": _ENTRY_ONLY,
    "hook-drop: barrier 3": _ENTRY_ONLY,
    "hook-drop: barrier 4": _IN_ORDER,
    **{
        f"{verb}: barrier 1": _ENTRY_ONLY
        for verb in ("commit", "rollback", "activate", "confirm", "reject", "prune")
    },
    "prune: barrier 2": _IN_ORDER,
    "prune: barrier 3": "deletions were flushed; an empty directory that comes back the next repair removes",
    **{f"{flow}: barrier 1": _AFTER_CUT for flow in ("repair", "reconcile")},
    "repair: barrier 2": "what is new is derived: the next repair makes it again",
    "reconcile: barrier 2": _AFTER_CUT,
    "reconcile: fsync audit/log 1": "the same file is flushed again before success is told",
    **{f"boot-reconcile: /boot barrier {number}": _AFTER_CUT for number in (1, 2)},
    "app-remove: barrier 1": "subvolumes went: Btrfs makes the fsync of the audit record a commit of all",
    "app-create: fsync N/generation.json.tmp 1": "a barrier follows before a pointer makes it one",
    "app-create: fsync journal/open.tmp 1": "an application that is not whole goes with its journal",
    "app-create: barrier 2": _POINTER,
    "app-create: barrier 1": "the snapshot after it commits, and what it copies is empty",
    "app-switch: barrier 1": _SEALED,
    "app-switch: barrier 3": _POINTER,
    "app-rollback: barrier 1": _SEALED,
    "app-rollback: barrier 3": _POINTER,
}
"""By the names that ``faults.Syncs`` gives; a barrier by flow, name and which of its name it is.

The most special name counts, and "" is no reason.
"""


@dataclass(frozen=True, slots=True)
class Control:
    """One barrier or fsync that was taken away, and what noticed: a point and its first problem, or ""."""

    label: str
    noticed: str


def reason(flow_name: str, label: str) -> str:
    """Return why nobody misses a barrier or fsync, "" if there is no reason."""
    verb = flow_name.removeprefix("boot-")
    keys = (f"{flow_name}: {label}", f"{verb}: {label}", label.rpartition(" ")[0])
    return next((SPARE[key] for key in keys if key in SPARE), "")


def without(name: str, number: int, place: Path, *, hasty: str = "", count: int = 0) -> Failure | None:
    """Record a flow without its ``number``-th barrier or fsync; return the first cut that notices.

    Up to there nothing differs from the flow as it is.
    """
    directory = place / f"{name}-without-{number}"
    flow.record(name, directory, without=number, hasty=hasty)
    return _first_failure(directory, count, LEFT_OUT)


def wrong(name: str, fault: str, place: Path, *, hasty: str = "", count: int = 0) -> Failure | None:
    """Record a flow with one of faults.FAULTS; return the first cut that notices."""
    directory = place / f"{name}-wrong"
    flow.record(name, directory, fault=fault, hasty=hasty)
    return _first_failure(directory, count)


def _first_failure(directory: Path, count: int, begin: str = FIRST) -> Failure | None:
    # What is missed is missed at the end more often than in the beginning.
    report = run(Task(directory), chosen(logs(directory), count, 1, begin)[::-1], stop_after=1)
    return report.failures[0] if report.failures else None


def number_of(recording: Path, wanted: str, which: int = -1) -> int:
    """Return the place of a barrier or fsync among those of a recording, the ``which``-th of its name."""
    return [number for number, sync in enumerate(flow.load(recording).syncs) if sync == wanted][which]


def all_of(name: str, place: Path, *, spare: bool = True) -> Iterator[Control]:
    """Take every barrier and fsync of a flow away, one at a time, first as it is, then with hasty commits.

    Without ``spare`` only those that SPARE does not name.
    """
    syncs = flow.record(name, place / f"{name}-whole").syncs
    for number, sync in enumerate(syncs):
        label = f"{sync} {syncs[: number + 1].count(sync)}"
        if spare or not reason(name, label):
            yield Control(label, _noticed(name, number, place))


def _noticed(name: str, number: int, place: Path) -> str:
    for hasty in ("", *FLOWS[name].disks):
        failure = without(name, number, place, hasty=hasty)
        if failure is not None:
            return f"{f'hasty {hasty} ' * bool(hasty)}{shown(failure.cut)}: {failure.problems[0]}"
    return ""
