"""Tests of what people read: lines for a terminal and the page."""

from __future__ import annotations

import html.parser
import typing

from ansible_collections.bulkhead.hardening.plugins.plugin_utils import (
    daemon_plan,
    daemon_policy,
    report,
)
from tests.unit import observations as obs

Json = dict[str, typing.Any]

HOSTILE = "<script>alert(1)</script>\x1b[2J\u202e" + "x" * 5000


def result(*names: str) -> Json:
    look = obs.stock(containers=[obs.container(name) for name in names])
    before = daemon_plan.plan(look, daemon_policy.read({}))
    after = daemon_plan.plan(obs.apply(look, before), daemon_policy.read({}))
    return {
        "before": before,
        "after": after,
        "transaction": {"outcome": "committed", "daemon_restarts": 1},
        "running_containers": [
            {"name": n, "pid_before": 1, "pid_after": 1, "pids_max_before": 9, "pids_max_after": 9}
            for n in names
        ],
        "witness": {"log_driver": "json-file"},
    }


class _Tags(html.parser.HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.seen: set[str] = set()

    def handle_starttag(self, tag: str, attrs: typing.Any) -> None:
        self.seen.add(tag)
        for name, value in attrs:
            assert name not in ("src", "href"), value


def test_a_summary_tells_what_changes_and_why_the_rest_does_not() -> None:
    lines = report.summary(result("web")["before"])
    assert lines[0].startswith("profile compatible: 1 containers")
    assert any(line.startswith("CHANGE         live-restore: off -> on") for line in lines)
    assert any("held back" in line and "[web]" in line for line in lines)
    assert lines[-1].endswith("daemon restart")


def test_hostile_names_are_inert_in_lines() -> None:
    for line in report.summary(result(HOSTILE)["before"]):
        assert line.isprintable()
        assert len(line) < 2000


def test_long_lists_of_names_say_how_many_more() -> None:
    assert report.names([f"c{n}" for n in range(9)]).endswith("c5 and 3 more")


def test_the_page_escapes_what_hosts_said_and_loads_nothing() -> None:
    page = report.page({HOSTILE: result(HOSTILE)}, "Title & more")
    tags = _Tags()
    tags.feed(page)
    assert "script" not in tags.seen
    assert "Title &amp; more" in page
    assert "\x1b" not in page
    assert "&lt;script&gt;" in page


def test_the_page_shows_each_setting_before_and_after() -> None:
    page = report.page({"h1": result("web")}, "t")
    for row in result("web")["before"]["settings"]:
        assert row["variable"] in page
    assert "in effect" in page
    assert "held back" in page
