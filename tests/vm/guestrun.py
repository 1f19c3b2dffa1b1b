"""A plugin of pytest: the tests marked ``zfs`` run in the guest, their results are reported here.

    pytest -p tests.vm.guestrun -m zfs tests/contract tests/zfs

Tests are collected here as ever; the first to run boots the guest, hands it
the checkout and the selection, and waits for pytest's report (JUnit's XML).
Each test then reports what the guest said of it.  What the guest says nothing
of has failed, and so has what it skipped: the report is the sentinel.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.vm import zfsguest
from tests.vm.run import MachineError

ROOT = Path(__file__).parents[2]
PLACE = "/srv/snaptx"
SENT = ("snaptx", "tests", "setup.cfg", "pyproject.toml", ".ci", "grub", "hooks")
LONG = 3 * 3600.0
"""Seconds for the whole selection."""


class GuestFailure(Exception):
    """A test failed in the guest; carries what pytest said there."""


@dataclass(frozen=True)
class Report:
    """What the guest said: {(class name, test name): why it failed, "" if it passed}, and how it ended."""

    outcomes: dict[tuple[str, str], str]
    tail: str

    def why(self, nodeid: str) -> str:
        """Return why a test failed, "" if it passed."""
        path, _, name = nodeid.partition("::")
        known = (path.removesuffix(".py").replace("/", "."), name)
        return self.outcomes.get(known, f"the guest says nothing of it; how it ended:\n{self.tail}")


def parse(xml: str, tail: str) -> Report:
    """Return the outcomes in JUnit's XML as pytest writes it; a damaged one holds none."""
    try:
        cases = ElementTree.fromstring(xml).iter("testcase")
    except ElementTree.ParseError as error:
        return Report({}, f"{error}\n{tail}")
    found: dict[tuple[str, str], str] = {}
    for case in cases:
        bad = [f"{kind.tag}: {kind.text or kind.get('message')}" for kind in case if _is_bad(kind)]
        name = (case.get("classname", ""), case.get("name", ""))
        found[name] = "\n".join(filter(None, [found.get(name, ""), *bad]))
    return Report(found, tail)


def _is_bad(kind: ElementTree.Element) -> bool:
    return kind.tag in ("failure", "error", "skipped")


def run(nodeids: Iterable[str]) -> Report:
    """Run the tests in the guest."""
    files = {f"{PLACE}/{name}": ROOT / name for name in SENT if (ROOT / name).exists()}
    options = ["-o", "faulthandler_timeout=0", "-p", "no:cacheprovider", "--junitxml=/tmp/report"]
    command = ["python3", "-m", "pytest", *options, "-m", "zfs"]
    with tempfile.TemporaryDirectory() as place:
        try:
            with zfsguest.running(Path(place)) as guest:
                guest.put({**files, "/tmp/selection": "\n".join(nodeids)})
                words = ["env", "-C", PLACE, *command, "--color=no", "@/tmp/selection"]
                ended = guest.shell(words, LONG)
                return parse(guest.get("/tmp/report").decode(), ended.output)
        except MachineError as error:
            return Report({}, str(error))


class GuestItem(pytest.Item):
    """A test whose outcome the guest knows."""

    reports: dict[pytest.Session, Report] = {}  # noqa: RUF012 - one for all items

    def runtest(self) -> None:
        """Fail as the guest did."""
        if self.session not in self.reports:
            selected = [item.nodeid for item in self.session.items if isinstance(item, GuestItem)]
            self.reports[self.session] = run(selected)
        why = self.reports[self.session].why(self.nodeid)
        if why:
            raise GuestFailure(why)

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: object = None) -> str:
        """Show what the guest showed."""
        return str(excinfo.value) if excinfo.errisinstance(GuestFailure) else str(excinfo.getrepr())

    def reportinfo(self) -> tuple[Path, int | None, str]:
        """Name the test as pytest would."""
        return self.path, None, self.name


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let the guest run what is marked ``zfs``."""
    for position, item in enumerate(items):
        if item.get_closest_marker("zfs"):
            assert item.parent
            items[position] = GuestItem.from_parent(item.parent, name=item.name)
