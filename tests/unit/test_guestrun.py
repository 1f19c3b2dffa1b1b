"""What the guest's report means: nothing passes that is not said to have passed."""

from __future__ import annotations

from tests.vm import guestrun

REPORT = """<?xml version="1.0"?><testsuites><testsuite>
<testcase classname="tests.zfs.test_a" name="test_good"/>
<testcase classname="tests.zfs.test_a" name="test_bad[1]"><failure message="m">assert 0</failure></testcase>
<testcase classname="tests.zfs.test_a" name="test_late"/>
<testcase classname="tests.zfs.test_a" name="test_late"><error message="m">at teardown</error></testcase>
<testcase classname="tests.zfs.test_a" name="test_left"><skipped message="why"/></testcase>
</testsuite></testsuites>"""


def test_only_what_passed_has_passed() -> None:
    report = guestrun.parse(REPORT, "")

    assert report.why("tests/zfs/test_a.py::test_good") == ""
    assert "assert 0" in report.why("tests/zfs/test_a.py::test_bad[1]")
    assert "at teardown" in report.why("tests/zfs/test_a.py::test_late")
    assert "why" in report.why("tests/zfs/test_a.py::test_left")


def test_what_is_not_mentioned_has_failed() -> None:
    assert "the end" in guestrun.parse(REPORT, "the end").why("tests/zfs/test_a.py::test_missing")


def test_without_a_report_all_has_failed() -> None:
    for cut in ("", REPORT[:200]):
        assert "no good" in guestrun.parse(cut, "no good").why("tests/zfs/test_a.py::test_good")
