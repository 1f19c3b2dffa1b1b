"""What must hold at every point, whatever the disk kept.

1. Each view boots one complete generation, the old or the new, with its own
   kernel; after success was reported, the new.
2. What is good, pinned, booted or staged is whole; a staged root that the verb
   is changing is whole again after the reconcile.
3. After the reconcile, whichever generation booted: entry file, default
   subvolume and records agree, everything verifies, nothing is left over, the
   audit trail says what happened and nothing else, and GRUB sees the result.
"""

from __future__ import annotations

from collections.abc import Container, Iterator
from dataclasses import dataclass
from typing import Any

from snaptx.model import jsonable
from tests.crash.census import Census, Tree
from tests.crash.faults import LEFT_OUT
from tests.crash.flow import Facts
from tests.crash.logfile import Flag
from tests.crash.replay import Log
from tests.crash.views import Seen

FINISHED = ("done", "unchanged")


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the recording was at a point: ``before`` and ``after`` are the disk around the open step.

    ``code`` is None until the step has ended; ``app`` is the same of the application tree, if there is one.
    """

    before: Census
    after: Census
    verb: str
    code: int | None
    app: Progress | None = None

    @property
    def succeeded(self) -> bool:
        """Return whether success was reported."""
        return self.code == 0

    @property
    def told(self) -> tuple[dict[str, Any], ...]:
        """Return the records of the audit trail that the step leaves."""
        return self.after.audit[len(self.before.audit) :]

    @property
    def defaults(self) -> set[int]:
        """Return the generations that may boot."""
        return {self.after.default} if self.succeeded else {self.before.default, self.after.default}

    def trees(self, number: int) -> list[Tree]:
        """Return what a generation may look like."""
        stages = (self.after,) if self.succeeded else (self.before, self.after)
        return [stage.trees[number] for stage in stages if number in stage.trees]

    def required(self) -> dict[int, Tree]:
        """Return the generations that must be there: those that are before and after."""
        if self.succeeded:
            return self.after.trees
        return {number: tree for number, tree in self.before.trees.items() if number in self.after.trees}

    def changing(self) -> set[int]:
        """Return the staged generations whose roots the step is changing."""
        if self.succeeded:
            return set()
        staged = {number: tree for number, tree in self.before.trees.items() if not tree.sealed}
        return {
            number
            for number, tree in staged.items()
            if number in self.after.trees and self.after.trees[number].root != tree.root
        }


def progress(facts: Facts, log: Log, cut: int) -> Progress:
    """Return how far the recording was when ``cut`` entries were sent."""
    marks = [entry.text for entry in log.entries[:cut] if entry.flags & Flag.MARK and entry.text != LEFT_OUT]
    kind, number = marks[-1].split() if marks else ("begin", "1")
    step = int(number)
    code = facts.codes[step - 1] if kind == "end" else None
    verb = facts.steps[step - 1][0]
    app = Progress(facts.apps[step - 1], facts.apps[step], verb, code) if facts.apps else None
    return Progress(facts.stages[step - 1], facts.stages[step], verb, code, app)


def adopting(state: Progress) -> Progress:
    """Return what to expect of the reconcile: where nothing was adopted yet, it is another ``init``."""
    if state.verb != "init" or state.succeeded:
        return state
    return Progress(state.after, state.after, state.verb, None)


def judge_view(seen: Seen, state: Progress, chosen: int = 0) -> Iterator[str]:
    """Yield what is wrong with what a view boots; ``chosen`` is what GRUB would have it boot."""
    for problem in _view_problems(seen, state, chosen):
        yield f"{seen.name}: {problem}"


def _view_problems(seen: Seen, state: Progress, chosen: int) -> Iterator[str]:
    if seen.problem:
        yield seen.problem
    if seen.default not in state.defaults and not seen.problem:
        yield f"boots {seen.default}, allowed: {sorted(state.defaults)}"
    if state.succeeded and not seen.problem and jsonable(seen.state or {}) != state.after.entry:
        yield "success was reported, but the entry file is not the new one"
    entry = seen.entry
    if seen.state is not None and entry is None:
        yield f"generation {seen.default} has no entry"
    if entry is not None:
        yield from _own_kernel(entry.kernel, entry.initrd, entry.cmdline, state.trees(entry.number))
    for path, digest in seen.files.items():
        if not any(digest == wanted for wanted in _boot_files(path, state)):
            yield f"{path} is not what was installed" if digest else f"{path} is missing"
    if seen.census is not None:
        if state.succeeded and seen.census.subvolume != state.after.subvolume:
            yield f"success was reported, but the default subvolume is {seen.census.subvolume!r}"
        yield from _whole(seen.census, state, chosen, state.changing() - {seen.census.default, chosen})


def judge_app(found: Census, state: Progress) -> Iterator[str]:
    """Yield what is wrong with an application tree before anything is reconciled."""
    if found.default not in state.defaults:
        yield f"application: it is at {found.default}, allowed: {sorted(state.defaults)}"
    if state.succeeded and found.entry != state.after.entry:
        yield "application: success was reported, but the pointer is not the new one"
    for problem in _whole(found, state, changing=state.changing() - {found.default}):
        yield f"application: {problem}"


def judge_app_claims(found: Census, state: Progress) -> Iterator[str]:
    """Yield what an application's audit trail claims, or does not say, contrary to what there is of it."""
    for problem in _lost_records(found, state):
        yield f"application: {problem}"
    fresh = found.audit[len(state.before.audit) :]
    claimed = any(record.get("result") == "done" for record in fresh)
    if claimed and found.default != state.after.default:
        yield f"application: the audit trail says done, the pointer {found.default}"
    if state.succeeded and _ended(fresh) < _ended(state.told):
        yield "application: success was reported, but the audit trail does not know of it"


def judge_app_settled(after: Census, state: Progress, last: Census) -> Iterator[str]:
    """Yield what is wrong with an application tree after the reconcile; ``last`` is what was before it."""
    if after.default == 0 and 0 in state.defaults:
        return  # it was to be made, and is not; or it is gone, with its trail
    for problem in _settled(after, state, last):
        yield f"application: {problem}"


def _own_kernel(kernel: str, initrd: str, cmdline: str, trees: list[Tree]) -> Iterator[str]:
    places = {(tree.subvolume, tree.kernels) for tree in trees}
    for subvolume, kernels in places or {("?", "?")}:
        if not kernel.startswith(kernels) or not initrd.startswith(kernels):
            yield f"{kernel} and {initrd} are not of {subvolume}"
        if f"rootflags=subvol={subvolume} " not in cmdline + " ":
            yield f"{cmdline!r} does not name {subvolume}"


def _boot_files(path: str, state: Progress) -> Iterator[str]:
    for stage in (state.before, state.after):
        for tree in stage.trees.values():
            if path.startswith(tree.kernels):
                name = path.removeprefix(tree.kernels)
                yield tree.boot.get(name) or tree.boot.get(name.rpartition("/")[2], "?")


def _whole(found: Census, state: Progress, chosen: int = 0, changing: Container[int] = ()) -> Iterator[str]:
    """Check the roots of all that must be there, and of what boots; ``changing`` ones may differ."""
    required = state.required()
    for number in sorted({*required, *filter(None, [found.default, chosen])}):
        allowed = [tree.root for tree in state.trees(number)]
        tree = found.trees.get(number)
        if tree is None:
            yield f"generation {number} is gone"
        elif tree.root not in allowed and number not in changing:
            yield f"the root of generation {number} is not whole"
        elif number in required and required[number].kept and not tree.sealed:
            yield f"generation {number} is not sealed"


def judge_claims(seen: Seen, grub: Seen, state: Progress) -> Iterator[str]:
    """Yield what the audit trail claims, or does not say, contrary to what is on the disk."""
    if seen.census is None:
        return
    yield from _lost_records(seen.census, state)
    fresh = seen.census.audit[len(state.before.audit) :]
    claimed = any(record.get("result") == "done" for record in fresh)
    if claimed and grub.default != state.after.default:
        yield f"the audit trail says done, GRUB boots {grub.default}, not {state.after.default}"
    if state.succeeded and _ended(fresh) < _ended(state.told):
        yield "success was reported, but the audit trail does not know of it"


def _lost_records(found: Census, state: Progress) -> Iterator[str]:
    """Check that the audit trail still has what it had when the step began, unless it goes as a whole."""
    old = state.before.audit
    if found.audit[: len(old)] != old and state.after.audit[: len(old)] == old:
        yield "the audit trail has lost what was in it"


def _ended(records: tuple[dict[str, Any], ...]) -> int:
    return sum(record.get("result") in FINISHED for record in records)


def judge_settled(after: Census, grub: Seen, state: Progress, last: Census) -> Iterator[str]:
    """Yield what is wrong after the reconcile; ``last`` is what was there before it."""
    if grub.default != after.default or grub.problem:
        yield f"GRUB boots {grub.default}, the entry file says {after.default} {grub.problem}"
    yield from _settled(after, state, last)


def _settled(after: Census, state: Progress, last: Census) -> Iterator[str]:
    if after.default not in state.defaults:
        yield f"boots {after.default}, allowed: {sorted(state.defaults)}"
    yield from _whole(after, state)
    yield from _copies(after, state)
    for number, tree in last.trees.items():
        if tree.kept and number not in after.trees and number in state.required():
            yield f"generation {number} was good and is gone"
    yield from _trail(after, state)


def _copies(after: Census, state: Progress) -> Iterator[str]:
    """Check what is on a /boot of its own under its final name: the next commit takes that as it is."""
    for number, tree in after.trees.items():
        stages = [stage.trees[number].boot for stage in (state.before, state.after) if number in stage.trees]
        for name in [name for name in tree.boot if "/" in name]:
            known = [boot[name] for boot in stages if name in boot]
            if known and tree.boot[name] not in known:
                yield f"generation {number}: its copy {name} is not whole"


def _trail(after: Census, state: Progress) -> Iterator[str]:
    """Check that what happened is recorded, and what did not is not."""
    fresh = [record for record in after.audit[len(state.before.audit) :] if record.get("verb") == state.verb]
    told = any(record["result"] == "done" or record.get("remedy") == "completed" for record in fresh)
    known = told or any(record.get("remedy") == "settled" for record in fresh)
    switched = state.before.default != state.after.default and after.default == state.after.default
    if switched and not known:
        yield f"{state.verb} happened, but is not in the audit trail"
    if told and state.before.default != state.after.default and not switched:
        yield f"the audit trail says that {state.verb} was done; {after.default} boots"
