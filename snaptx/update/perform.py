"""One run of an update: look, check, download, stage, commit, restart, as far as the rules let it go.

::

    sources ──> check ──> download ──> stage ──> commit ──> restart
                  │                      │
                  │                      └─ the lock of all verbs is held from here to the commit
                  └─ an update that was judged bad is left out

Sources fail one by one: what the others have is installed all the same.  Work
that was staged here and can't be completed is discarded.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

from snaptx import blame, commit, discard, lock, log, run, stage, system, transaction
from snaptx.errors import LockError, PackageError, SnaptxError, SourceError, StorageError, every_error
from snaptx.machine import Machine
from snaptx.recover import Act
from snaptx.update import policy, report, situation, sources, state, timing
from snaptx.update.outcome import Outcome, remember
from snaptx.update.policy import Bound, Situation, Staged, Step
from snaptx.update.situation import VERB, Asked
from snaptx.update.source import Offer, Progress, Source
from snaptx.update.state import State

SYSTEMD = Path("/run/systemd/system")

Wanted = list[tuple[Source, Offer]]
Installed = Mapping[str, str]


def update(machine: Machine, asked: Asked, progress: Progress | None = None) -> Outcome:
    """Do what the policy and the moment allow, and remember how it went, also if it went wrong.

    Raises:
        LockError: another update runs.
        JournalError: what earlier ones left can't be understood.
    """
    place = state.directory(machine)
    sources.make(place)
    with lock.exclusive(place / "lock", VERB):
        outcome = Outcome()
        with outcome.keeping():
            _work(machine, asked, place, outcome, progress)
        _tell(machine, place, outcome)
        if outcome.restarts and not _restarts(machine, outcome):
            _tell(machine, place, outcome)  # it was said before that it does: afterwards nobody could
    return outcome


def _tell(machine: Machine, place: Path, outcome: Outcome) -> None:
    known = state.read(place) if outcome.early else _keep(machine, place, outcome)
    if system.is_running_root(machine.sysroot):
        report.publish(machine, known)  # what boots and what runs changes without an update, too


def _restarts(machine: Machine, outcome: Outcome) -> bool:
    """Restart the machine; return whether that has begun."""
    with outcome.keeping(), transaction.exclusive(machine, VERB):  # nobody is at work
        run.run(["systemctl", "reboot"] if SYSTEMD.is_dir() else ["reboot"])
        return True
    return False


def rehearse(machine: Machine, asked: Asked) -> Outcome:
    """Find out what would be done, asking the sources if it is time for that; nothing is remembered."""
    outcome = Outcome(rehearsed=True)
    with TemporaryDirectory(prefix="snaptx-") as name, outcome.keeping():
        place, now = Path(name), situation.look(machine, asked)
        state.write(place, state.read(state.directory(machine)))
        _look(machine, asked, now, place, outcome)
        outcome.restarts = outcome.bound.step >= Step.REBOOT and situation.wants_restart(machine, now)
    return outcome


def _keep(machine: Machine, place: Path, outcome: Outcome) -> State:
    """Remember a run, and return what is known now; that this failed is told along with what was done."""
    interval, draw = machine.config.update.interval, random.random()
    before = state.read(place)
    after = remember(before, outcome, now=system.now(), interval=interval, draw=draw)
    try:
        state.write(place, after)
    except StorageError as error:
        if outcome.failures:  # of several, the first is told
            log.warning("the update could not be recorded", reason=error.message)
        outcome.failures.append(error)
    return after


def _work(machine: Machine, asked: Asked, place: Path, outcome: Outcome, progress: Progress | None) -> None:
    now = situation.look(machine, asked)
    installed, wanted = situation.installed(machine, now), _look(machine, asked, now, place, outcome)
    if outcome.early or (outcome.off and not _waits(machine, now, outcome.bound)):
        return
    if outcome.bound.step >= Step.DOWNLOAD:
        wanted = _download(wanted, outcome, progress)
    if outcome.bound.step >= Step.STAGE:
        _install(machine, asked, installed, wanted, outcome)


def _look(machine: Machine, asked: Asked, now: Situation, place: Path, outcome: Outcome) -> Wanted:
    """Find out how far to go, and ask the sources if it is time for that."""
    outcome.bound = policy.reach(now)
    outcome.staged = machine.staged()[-1] if now.staged is Staged.UPDATE else 0
    if outcome.bound.step is Step.NOTHING:
        return []
    before = state.read(place)
    if not asked.unattended or timing.is_due(system.now(), before.next, machine.config.update.interval):
        outcome.off = asked.unattended and not asked.sources
        if outcome.off:
            return []
        return _check(machine, sources.make_all(machine, asked.sources, place), now, outcome)
    outcome.early = _stuck(before) or not _waits(machine, now, outcome.bound)
    return []


def _stuck(before: State) -> bool:
    """Return whether the last run failed at more than its sources: the same again is not tried early."""
    passable = {0, PackageError.code, *(error.code for error in every_error(SourceError))}
    return before.last is not None and before.failures > 0 and before.last.code not in passable


def _waits(machine: Machine, now: Situation, bound: Bound) -> bool:
    """Return whether there is something to do without asking the sources."""
    commits = now.staged is Staged.UPDATE and bound.step >= Step.COMMIT
    return commits or (bound.step >= Step.REBOOT and situation.wants_restart(machine, now))


def _check(machine: Machine, every: list[Source], now: Situation, outcome: Outcome) -> Wanted:
    """Ask every source, and leave out what was judged bad."""
    outcome.looked = True
    installed, rejected = situation.installed(machine, now), blame.rejected(machine)
    wanted: Wanted = []
    for source in every:
        with outcome.keeping():
            offer = source.check(installed)
            if offer and source.is_bad(offer, {bad for key, bad in rejected if key == offer.key}):
                outcome.rejected.append(offer)
            elif offer:
                outcome.offers.append(offer)
                wanted.append((source, offer))
    return wanted


def _download(wanted: Wanted, outcome: Outcome, progress: Progress | None) -> Wanted:
    """Bring what is wanted here; return what has arrived."""
    arrived: Wanted = []
    for source, offer in wanted:
        with outcome.keeping():
            source.download(offer, progress)
            arrived.append((source, offer))
    return arrived


def _install(machine: Machine, asked: Asked, installed: Installed, wanted: Wanted, outcome: Outcome) -> None:
    """Stage, commit, and find out whether to restart; somebody may have staged something since the look."""
    with transaction.exclusive(machine, VERB):
        now = situation.look(machine, asked)
        outcome.bound = policy.reach(now)
        if outcome.bound.step < Step.STAGE:
            return
        if wanted and situation.installed(machine, now) != installed:  # what is wanted goes on from that
            hint = "run it again: what was downloaded is kept"
            raise LockError("what is installed was changed meanwhile by another snaptx", hint=hint)
        outcome.staged = machine.staged()[-1] if now.staged is Staged.UPDATE else 0
        if now.staged is Staged.STALE:
            _drop(machine, asked)
        _stage(machine, asked, wanted, outcome)
        outcome.vain = bool(wanted) and len(wanted) == len(outcome.offers) and not outcome.staged
        if outcome.staged and outcome.bound.step >= Step.COMMIT:
            outcome.committed = commit.commit(machine, asked.request, outcome.staged)
    if outcome.bound.step >= Step.REBOOT:
        outcome.restarts = situation.wants_restart(machine, situation.look(machine, asked))


def _stage(machine: Machine, asked: Asked, wanted: Wanted, outcome: Outcome) -> None:
    try:
        for source, offer in wanted:
            done = source.stage(machine, asked.request, offer)
            outcome.staged = done.number or outcome.staged
            _note(machine, asked, offer)
    except (SnaptxError, OSError):
        outcome.staged = 0
        _drop(machine, asked)
        raise


def _note(machine: Machine, asked: Asked, offer: Offer) -> None:
    """Say in the record that a generation has an update, where installing it changed nothing."""
    base = machine.generations.read(stage.choose_base(machine, None).number)
    if base.updates.get(offer.key) == offer.identity:
        return
    updates = {offer.key: offer.identity}
    request = asked.request._replace(message=offer.summary, updates=updates)
    with transaction.begin(machine, Act.RECORD, request, generation=base.number) as txn:
        machine.generations.write(base._replace(updates={**base.updates, **updates}))
        txn.succeed()


def _drop(machine: Machine, asked: Asked) -> None:
    """Discard what updates have staged; none of anybody else's is there, or this would not run."""
    for number in machine.staged():
        discard.abort(machine, asked.request, number)
