# Copyright: (c) 2026, the Bulkhead authors
# Apache License 2.0 (see LICENSE)
"""The page of an audit in a browser: hostile hosts, keyboard, filters, dark mode, no network."""

from __future__ import annotations

import pathlib
import shutil
import typing

import pytest
from playwright import sync_api

from tests.unit import audit_results

#: What Debian's package calls the browser, and what it needs as root on a machine without a network.
ARGUMENTS = ("--no-sandbox", "--disable-background-networking", "--disable-gpu")


@pytest.fixture(scope="module")
def browser() -> typing.Iterator[sync_api.Browser]:
    """Start Chromium; `make unit` has tools/bootstrap install it."""
    program = shutil.which("chromium")
    assert program, "there is no chromium: run `make unit`, or tools/bootstrap --package chromium"
    with sync_api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=program, args=list(ARGUMENTS))
        yield started
        started.close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """Write the page about a bad, a hostile and a lost host."""
    folder = tmp_path_factory.mktemp("page") / "r"
    waivers = [
        {"check": "5.5", "reason": "agreed", "owner": "ops", "expires": "2027-01-31"},
        {"check": "2.2", "reason": "old", "owner": "ops", "expires": "2020-01-31"},
    ]
    hosts = [
        audit_results.audited("bad", waivers=waivers),
        audit_results.audited("good", audit_results.look("audit-hardened")),
        audit_results.hostile("hostile " + audit_results.HOSTILE[0]),
    ]
    lost = {"zz-lost": audit_results.audit_report.Lost("unreachable", audit_results.HOSTILE[1])}
    audit_results.write(folder, hosts, lost, ["html"])
    return folder


class Opened(typing.NamedTuple):
    """The page, and what it should not do."""

    page: sync_api.Page
    requests: list[str]
    complaints: list[str]

    def rows(self) -> list[str]:
        """Return the texts of the findings that are shown."""
        return self.page.locator("#rows tr").all_inner_texts()


@pytest.fixture
def opened(browser: sync_api.Browser, folder: pathlib.Path) -> typing.Iterator[Opened]:
    """Open the page in a fresh tab; it must ask for nothing and complain of nothing."""
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    requests: list[str] = []
    complaints: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto((folder / "index.html").as_uri())
    yield Opened(page, requests, complaints)
    page.close()
    assert complaints == []
    assert [url for url in requests if not url.startswith("file:")] == []
    assert len(requests) == 1


def test_hostile_names_are_text(opened: Opened) -> None:
    page = opened.page
    page.locator("#verdict").select_option("fail")
    for summary in page.locator("#rows summary").all()[:40]:
        summary.click()
    assert page.evaluate("window.hacked") is None
    assert page.locator("img, iframe, object, embed, form[action]").count() == 0
    assert page.locator("script").count() == 2
    assert "<script>window.hacked = 1</script>" in page.locator("#matrix").inner_text()
    assert "\u202e" not in page.content()


def test_a_long_name_does_not_push_the_page_aside(opened: Opened) -> None:
    width = opened.page.evaluate("document.documentElement.scrollWidth")
    assert width <= 1280
    opened.page.set_viewport_size({"width": 400, "height": 800})
    assert opened.page.evaluate("document.documentElement.scrollWidth") <= 400


def test_every_host_is_a_row_and_a_lost_one_says_why(opened: Opened) -> None:
    rows = opened.page.locator("#matrix tr").all_inner_texts()
    assert len(rows) == 4
    assert rows[3].startswith("zz-lost")
    assert "unreachable" in rows[3]
    assert "zz-lost" in opened.page.locator("#lost").inner_text()


def test_filters_and_search_narrow_the_findings(opened: Opened) -> None:
    page = opened.page
    status = page.locator("#shown")
    everything = status.inner_text()
    page.locator("#verdict").select_option("fail")
    page.locator("#severity").select_option("high")
    page.locator("#host").select_option("bad")
    shown = opened.rows()
    assert shown
    assert all("\tfail\thigh\tbad\t" in row for row in shown)
    page.locator("#search").fill("privileged")
    assert 0 < len(opened.rows()) < len(shown)
    page.locator("#search").fill("no such thing")
    assert opened.rows() == []
    assert status.inner_text().startswith("0 of ")
    page.locator("#search").fill("")
    for name in ("verdict", "severity", "host"):
        page.locator(f"#{name}").select_option("")
    assert status.inner_text() == everything


def test_a_finding_shows_evidence_remedy_and_variable(opened: Opened) -> None:
    page = opened.page
    page.locator("#host").select_option("bad")
    page.locator("#search").fill("2.1 ")
    page.locator("#verdict").select_option("fail")
    page.locator("#search").fill("privileged")
    page.locator("#rows summary").first.click()
    details = sync_api.expect(page.locator("#rows details").first)
    for word in ("Evidence: ", "Remedy: ", "Why it matters: ", "Read from: "):
        details.to_contain_text(word)


def test_waivers_are_told_the_expired_first(opened: Opened) -> None:
    rows = opened.page.locator("#waivers tr").all_inner_texts()
    assert rows[0].startswith("expired\t2.2")
    assert rows[1].startswith("weak\t5.5")
    opened.page.locator("#verdict").select_option("waived")
    assert opened.rows()
    opened.page.locator("#rows summary").first.click()
    sync_api.expect(opened.page.locator("#rows details").first).to_contain_text(
        "Waived: by ops until 2027-01-31 (weak): agreed"
    )


def test_a_keyboard_is_enough(opened: Opened) -> None:
    page = opened.page
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    seen = set()
    for _ in range(60):
        page.keyboard.press("Tab")
        where = page.evaluate(
            "(e => [e.id || e.tagName, getComputedStyle(e).outlineStyle, "
            "parseFloat(getComputedStyle(e).outlineWidth)])(document.activeElement)"
        )
        assert where[1] != "none", where
        assert where[2] >= 2, where
        seen.add(where[0])
        if where[0] == "SUMMARY":
            break
    assert {"BUTTON", "search", "verdict", "severity", "host", "SUMMARY"} <= seen
    page.keyboard.press("Enter")
    assert page.locator("#rows details[open]").count() == 1
    page.locator("#matrix button").nth(1).focus()
    page.keyboard.press("Enter")
    assert page.locator("#host").input_value() == "good"


def test_controls_and_tables_have_names(opened: Opened) -> None:
    page = opened.page
    for name in ("Search", "Verdict", "Severity", "Host"):
        assert page.get_by_label(name, exact=True).count() == 1
    for name in ("Fleet", "Waivers", "Findings"):
        assert page.get_by_role("table", name=name).count() == 1
    assert page.get_by_role("status").count() == 1


def _luminance(colour: typing.Sequence[float]) -> float:
    """Return the relative luminance of WCAG 2.1 of a colour in 0 to 255."""
    parts = [c / 255 for c in colour[:3]]
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_verdicts_can_be_read_by_day_and_night(opened: Opened, scheme: str) -> None:
    page = opened.page
    page.emulate_media(color_scheme=typing.cast(typing.Any, scheme))
    found = page.evaluate(
        """() => [getComputedStyle(document.body).color, ...[...document.querySelectorAll(
        "#totals li")].map(e => getComputedStyle(e).color)].map(c => c.match(/[0-9.]+/g).map(Number))"""
    )
    page.evaluate("document.body.style.backgroundColor = 'Canvas'")
    ground = page.evaluate(
        "getComputedStyle(document.body).backgroundColor.match(/[0-9.]+/g).map(Number)"
    )
    assert (_luminance(ground) < 0.1) == (scheme == "dark")
    for colour in found:
        bright, dark = sorted((_luminance(colour), _luminance(ground)), reverse=True)
        assert (bright + 0.05) / (dark + 0.05) >= 4.5, colour


def test_print_shows_findings_and_no_controls(opened: Opened) -> None:
    page = opened.page
    page.emulate_media(media="print")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert not page.locator("form").is_visible()
    assert page.locator("#rows details[open]").count() == page.locator("#rows tr").count()
    sync_api.expect(page.locator("#rows tr").first).to_contain_text("Remedy: ")


def test_more_findings_come_when_asked_for(opened: Opened) -> None:
    page = opened.page
    before = len(opened.rows())
    total = int(page.locator("#shown").inner_text().partition(" of ")[0].replace(",", ""))
    while page.locator("#more").is_visible():
        page.locator("#more").click()
    assert len(opened.rows()) == total >= before


def test_a_row_of_many_containers_says_how_many_and_finds_each(
    browser: sync_api.Browser, tmp_path: pathlib.Path
) -> None:
    host = audit_results.audited("many", audit_results.look(containers=300))
    audit_results.write(tmp_path / "r", [host], formats=["html"])
    page = browser.new_page()
    page.goto((tmp_path / "r/index.html").as_uri())
    total = page.locator("#shown").inner_text()
    assert page.locator("#rows summary", has_text=" more").count() > 5
    page.locator("#search").fill("privileged-2")
    sync_api.expect(page.locator("#shown")).not_to_have_text(total)
    assert page.locator("#rows tr").count() > 5
    page.locator("#rows summary", has_text=" more").first.click()
    sync_api.expect(page.locator("#rows")).to_contain_text("All of them: ")
    page.close()
