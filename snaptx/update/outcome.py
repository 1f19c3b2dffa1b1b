"""What one run of an update comes to, and how that is remembered until the next."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from snaptx.commit import Committed
from snaptx.errors import RejectedError, SnaptxError, no_memory, storage_error
from snaptx.update import timing
from snaptx.update.policy import Bound, Step
from snaptx.update.source import Offer
from snaptx.update.state import Result, Run, State

NOWHERE = Bound(Step.NOTHING, "")


@dataclass
class Outcome:
    """What a run comes to, filled in on the way.

    ``offers`` are the updates that were found, ``rejected`` those that were
    left out as bad; ``vain`` is whether all that was found is recorded as
    installed and changed nothing; ``staged`` is the generation that holds what
    is not committed yet; ``looked`` is whether the sources were asked, ``early``
    whether it was too soon for that; ``bound`` how far it could go, and why no
    further; ``failures`` what went wrong, with the whole or with a part.
    ``rehearsed`` is whether nothing was done: ``restarts`` says what would be then.
    ``off`` is whether nobody has configured a source that could be asked.
    """

    offers: list[Offer] = field(default_factory=list)
    rejected: list[Offer] = field(default_factory=list)
    vain: bool = False
    looked: bool = False
    early: bool = False
    staged: int = 0
    committed: Committed | None = None
    restarts: bool = False
    bound: Bound = NOWHERE
    failures: list[SnaptxError] = field(default_factory=list)
    rehearsed: bool = False
    off: bool = False

    @contextmanager
    def keeping(self) -> Iterator[None]:
        """Keep an error of the block, or of the filesystem or the memory, as a failure, and go on."""
        try:
            yield
        except SnaptxError as error:
            self.failures.append(error)
        except OSError as error:
            doing = f"the update could not go on ({error.filename or 'no file named'})"
            self.failures.append(storage_error(error, doing))
        except MemoryError:
            self.failures.append(no_memory())

    @property
    def result(self) -> Result:
        """Return it in a word: the first that applies."""
        told = {
            Result.FAILED: self.failures,
            Result.EARLY: self.early,
            Result.REBOOTING: self.restarts,
            Result.COMMITTED: self.committed,
            Result.STAGED: self.staged,
            Result.OFF: self.off,
            Result.HELD: not self.looked,
            Result.CURRENT: self.vain,
            Result.DOWNLOADED: self.offers and self.bound.step >= Step.DOWNLOAD and not self.rehearsed,
            Result.AVAILABLE: self.offers,
            Result.REJECTED: self.rejected,
        }
        return next((result for result, applies in told.items() if applies), Result.CURRENT)

    @property
    def code(self) -> int:
        """Return the exit status of the run, but for 77."""
        if self.failures:
            return self.failures[0].code
        return RejectedError.code if self.result is Result.REJECTED else 0

    @property
    def message(self) -> str:
        """Return it in a line."""
        offers = "; ".join(offer.summary for offer in self.offers)
        waits = f": {offers}" if offers else ""
        match self.result:
            case Result.FAILED:
                return "; ".join(failure.message for failure in self.failures)
            case Result.EARLY:
                return "it is not time yet"
            case Result.REBOOTING:
                return "the machine restarts, for the update that is committed"
            case Result.COMMITTED if self.committed:
                return f"generation {self.committed.number} boots next{waits}"
            case Result.STAGED:
                return f"an update is staged as generation {self.staged}{waits} ({self.bound.reason})"
            case Result.OFF:
                return "no source of updates is configured"
            case Result.HELD:
                return f"nothing is updated: {self.bound.reason}"
            case Result.DOWNLOADED | Result.AVAILABLE:
                return f"an update is {self.result}{waits} ({self.bound.reason})"
            case Result.REJECTED:
                bad = "; ".join(offer.summary for offer in self.rejected)
                return f"not installed, it was judged bad or rolled back before: {bad}"
            case Result.CURRENT if self.vain:
                return f"nothing changes with {offers}"
        return "nothing new"


def remember(before: State, outcome: Outcome, *, now: float, interval: int, draw: float) -> State:
    """Return the state after a run.

    ``now`` is in seconds since the epoch, ``interval`` in hours, ``draw`` random from 0 up to 1.
    A run that did not look at the sources leaves alone when that is due, unless it failed.
    """
    run = Run(now, outcome.result, outcome.message, outcome.code)
    after = before._replace(last=run, offered=_offered(before, outcome))
    if outcome.failures:
        failures = before.failures + 1
        return after._replace(failures=failures, next=timing.next_run(now, interval, failures, draw))
    if outcome.looked:
        due = timing.next_run(now, interval, 0, draw)
        failures = before.failures if outcome.restarts else 0  # the next run tells whether it did restart
        return after._replace(succeeded=now, failures=failures, next=due)
    if outcome.off:
        return after._replace(failures=0)
    return after


def _offered(before: State, outcome: Outcome) -> tuple[str, ...]:
    if outcome.committed or outcome.restarts or outcome.vain:
        return ()
    known = not outcome.looked or (outcome.staged and not outcome.offers)
    return before.offered if known else tuple(offer.summary for offer in outcome.offers)
