"""What belongs to no generation: the rules, without a look at any disk.

A rollback that takes letters, tables and virtual machines back with the system
has destroyed data.  So what lives in the well-known places either is mounted
from outside of the root, or somebody has said that it may be rolled back.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from enum import StrEnum
from typing import NamedTuple

from snaptx.errors import LayoutError, UsageError
from snaptx.places import RULES, Rule, is_below

SKELETON = frozenset({
    ".bash_history", ".bash_logout", ".bash_profile", ".bashrc", ".cache", ".cshrc", ".lesshst", ".profile",
    ".python_history", ".tcshrc", ".viminfo", ".wget-hsts", ".zshrc",
})  # fmt: skip
"""What a system puts into /root by itself, or can do without."""


class State(StrEnum):
    """How a place lies."""

    MOUNT = "a mount of its own"
    NESTED = "a subvolume inside the root"
    AWAITED = "mounted at the next boot"
    EMPTY = "empty"
    INSIDE = "inside the root"


class Seen(NamedTuple):
    """What there is at a place.

    ``entries`` counts what is no directory, ``complete`` is False where
    counting was given up; ``names`` are the entries of the top.
    """

    mounted: bool = False
    nested: bool = False
    awaited: bool = False
    entries: int = 0
    complete: bool = True
    names: frozenset[str] = frozenset()


class Finding(NamedTuple):
    """One place that should belong to no generation, and how it lies."""

    path: str
    reason: str
    state: State
    blocks: bool
    entries: int
    complete: bool

    def __str__(self) -> str:
        more = "" if self.complete else "more than "
        count = f", {more}{self.entries} file(s)" if self.entries else ""
        return f"{self.path} ({self.reason}{count})"


def of(paths: Iterable[str], ignore: Sequence[str]) -> Iterator[Rule]:
    """Yield the rules of the configured paths, those above first; an unknown one is as good as a home."""
    for path in sorted({"/" + path.strip("/") for path in paths} - {"/"}):
        if not is_below(path, ignore):
            yield RULES.get(path, Rule(path, "as configured", True))


def judge(rule: Rule, path: str, seen: Seen) -> Finding:
    """Return how the place of a rule, found at ``path``, lies."""
    state = State.INSIDE
    if seen.mounted:
        state = State.MOUNT
    elif seen.nested:
        state = State.NESTED
    elif seen.awaited:
        state = State.AWAITED
    elif not seen.entries or (rule.path == "/root" and seen.names <= SKELETON):
        state = State.EMPTY
    return Finding(
        path, rule.reason, state, rule.blocks and state is State.INSIDE, seen.entries, seen.complete
    )


def chosen(findings: Iterable[Finding], keep: Sequence[str] = ()) -> tuple[Finding, ...]:
    """Return what is to become a subvolume: what lies inside the root, is not kept and not below another.

    Raises:
        UsageError: something to be kept lies below something to be converted.
    """
    found: list[Finding] = []
    for finding in sorted(findings, key=lambda finding: finding.path):
        above = is_below(finding.path, [other.path for other in found])
        if finding.state is State.INSIDE and not above and not is_below(finding.path, keep):
            found.append(finding)
    for path in keep:
        if is_below(path, [finding.path for finding in found]):
            raise UsageError(
                f"{path} can't stay where what lies above it goes",
                hint="--keep the directory above as well",
            )
    return tuple(found)


def require_safe(findings: Iterable[Finding], keep: Sequence[str] = ()) -> None:
    """Refuse to go on where a rollback would take somebody's data back with it.

    Raises:
        LayoutError: there is some, and nobody has said that it may.
    """
    found = [finding for finding in findings if finding.blocks and not is_below(finding.path, keep)]
    if found:
        message = "a rollback would take back with the system: " + ", ".join(map(str, found))
        hint = (
            "'snaptx init --convert' moves it into subvolumes of its own; "
            "'--keep PATH' or '--accept-rollback' leaves it where it is"
        )
        raise LayoutError(message, hint=hint)


def require_distinct(paths: Iterable[str]) -> None:
    """Refuse paths whose subvolumes would have one name.

    Raises:
        LayoutError: there are some.
    """
    owner: dict[str, str] = {}
    for path in paths:
        other = owner.setdefault(subvolume_name(path), path)
        if other != path:
            message = f"{other} and {path} would both become the subvolume {subvolume_name(path)}"
            raise LayoutError(message, hint=f"--keep {path}, or make a subvolume for it by hand")


def subvolume_name(path: str) -> str:
    """Return the name of the subvolume for ``path``, as Ubuntu, Arch and openSUSE have them: @var_log."""
    return "@" + path.strip("/").replace("/", "_")
