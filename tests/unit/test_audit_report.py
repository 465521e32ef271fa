# Copyright: (c) 2026, the Bulkhead authors
# Apache License 2.0 (see LICENSE)
"""The reports of an audit: valid in their formats, true to the result, and proof against hostile hosts."""

from __future__ import annotations

import copy
import html.parser
import io
import json
import os
import pathlib
import re
import stat
import typing
import xml.etree.ElementTree as ElementTree

import jsonschema
import pytest
import xmlschema
from prometheus_client.parser import text_fd_to_metric_families

from ansible_collections.bulkhead.hardening.plugins.plugin_utils import (
    audit_compare,
    audit_report,
)
from ansible_collections.bulkhead.hardening.plugins.plugin_utils.plan import PolicyError
from tests.unit import audit_results
from tests.unit.checkout import ROOT

Json = dict[str, typing.Any]

SCHEMAS = ROOT / "tests/fixtures/schemas"
LOST = {
    "gone": audit_report.Lost("unreachable", "no route to host"),
    "torn": audit_report.Lost("failed", audit_results.HOSTILE[2]),
}
WAIVERS = [
    {"check": "5.5", "host": "bad", "reason": "agreed", "owner": "ops", "expires": "2027-01-31"},
    {"check": "2.2", "host": "bad", "reason": "old", "owner": "ops", "expires": "2020-01-31"},
    {
        "check": "7.1",
        "reason": "spare",
        "owner": "o",
        "expires": "2027-01-31",
    },
]


class Written(typing.NamedTuple):
    """The reports about one bad, one hostile and two lost hosts."""

    folder: pathlib.Path
    totals: Json
    result: Json

    def text(self, name: str) -> str:
        """Return one report."""
        return (self.folder / name).read_text("utf-8")


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Written:
    """Write every report once."""
    folder = tmp_path_factory.mktemp("audit") / "reports"
    hosts = [audit_results.audited("bad", waivers=WAIVERS), audit_results.hostile("hostile")]
    totals = audit_results.write(folder, hosts, LOST)
    return Written(folder, totals, json.loads((folder / "result.json").read_text("utf-8")))


def test_the_result_fits_its_schema(written: Written) -> None:
    schema = json.loads((ROOT / "docs/schemas/result.schema.json").read_text("utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.Draft202012Validator(schema).validate(written.result)


def test_every_host_of_the_play_is_in_the_result(written: Written) -> None:
    states = {host["host"]: host["state"] for host in written.result["hosts"]}
    assert states == {
        "bad": "audited",
        "hostile": "audited",
        "gone": "unreachable",
        "torn": "failed",
    }
    assert written.result["hosts"][1]["reason"] == "no route to host"


def test_the_counts_are_those_of_the_hosts(written: Written) -> None:
    for kind in ("counts", "item_counts"):
        for verdict, number in written.result[kind].items():
            assert number == sum(host[kind][verdict] for host in written.result["hosts"])
    assert written.result["counts"]["error"] >= len(LOST)


def test_the_waivers_of_all_hosts_are_told_once(written: Written) -> None:
    states = {w["check"]: w["state"] for w in written.result["run"]["waivers"]}
    assert states == {"5.5": "weak", "2.2": "expired", "7.1": "unused"}
    for state in ("weak", "expired", "unused"):
        assert state in written.text("summary.md")


def test_all_hosts_lost_is_a_report_too(tmp_path: pathlib.Path) -> None:
    totals = audit_results.write(tmp_path / "r", [], LOST)
    result = json.loads((tmp_path / "r/result.json").read_text("utf-8"))
    assert [host["state"] for host in result["hosts"]] == ["unreachable", "failed"]
    assert result["counts"]["error"] == 2
    assert audit_report.failed_on(totals, ["error"]) == ["error"]
    assert "gone" in (tmp_path / "r/summary.md").read_text("utf-8")


@pytest.mark.parametrize("left", ["{", "", "\xff"])
def test_a_damaged_result_of_a_host_is_an_error(tmp_path: pathlib.Path, left: str) -> None:
    names = audit_results.store(tmp_path / "r", [audit_results.audited("a")])
    (tmp_path / "r/hosts/a.json").write_text(left, "latin-1")
    totals = audit_report.write(
        tmp_path / "r", audit_results.header(), audit_results.checks(), names, {}, ["json"], 0.0
    )
    ((name, why),) = totals["lost"]
    assert name == "a"
    assert why.startswith("its result cannot be read: ")


# -- formats --------------------------------------------------------------------------------------
def test_sarif_is_valid(written: Written) -> None:
    schema = json.loads((SCHEMAS / "sarif-2.1.0.json").read_text("utf-8"))
    jsonschema.Draft4Validator(schema).validate(json.loads(written.text("result.sarif")))


def _open_items(written: Written, *verdicts: str) -> int:
    return sum(
        item["verdict"] in verdicts
        for host in written.result["hosts"]
        for row in host["results"]
        for item in row["items"]
    )


def test_sarif_holds_each_open_finding_once(written: Written) -> None:
    (run,) = json.loads(written.text("result.sarif"))["runs"]
    wanted = _open_items(written, *audit_report.OPEN, "waived")
    assert len(run["results"]) == wanted
    assert sum("suppressions" in row for row in run["results"]) == _open_items(written, "waived")
    assert not run["invocations"][0]["executionSuccessful"]


def test_fingerprints_are_stable_and_tell_findings_apart(
    written: Written, tmp_path: pathlib.Path
) -> None:
    def prints(text: str) -> list[str]:
        rows = json.loads(text)["runs"][0]["results"]
        return [row["partialFingerprints"]["bulkhead/v1"] for row in rows]

    audit_results.write(
        tmp_path / "r",
        [audit_results.audited("bad", waivers=WAIVERS), audit_results.hostile("hostile")],
        LOST,
    )
    first = prints(written.text("result.sarif"))
    assert first == prints((tmp_path / "r/result.sarif").read_text("utf-8"))
    assert len(set(first)) == len(first)


def test_junit_is_valid_and_counts_what_it_holds(written: Written) -> None:
    xmlschema.XMLSchema(str(SCHEMAS / "junit-10.xsd")).validate(str(written.folder / "junit.xml"))
    root = ElementTree.parse(written.folder / "junit.xml").getroot()
    assert [suite.get("name") for suite in root] == ["bad", "gone", "hostile", "torn"]
    for suite in root:
        assert len(suite.findall("testcase")) == int(suite.get("tests", ""))
        for kind, tag in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
            assert len(suite.findall(f"testcase/{tag}")) == int(suite.get(kind, ""))


def test_prometheus_reads_its_file(written: Written) -> None:
    families = {
        family.name: family
        for family in text_fd_to_metric_families(io.StringIO(written.text("bulkhead.prom")))
    }
    checks = {
        (s.labels["host"], s.labels["verdict"]): s.value
        for s in families["bulkhead_audit_checks"].samples
    }
    for host in written.result["hosts"]:
        for verdict, number in host["counts"].items():
            assert checks[host["host"], verdict] == number
    states = {s.labels["state"]: s.value for s in families["bulkhead_audit_hosts"].samples}
    assert states == {"audited": 2, "unreachable": 1, "failed": 1}


def test_two_hosts_never_share_labels() -> None:
    names = ["a\x01" + "y" * 400, "a\x02" + "y" * 400, 'a"\\']
    names += ["y" * 400 + "1", "y" * 400 + "2"]
    out = io.StringIO()
    writer = audit_report.Prometheus(out)
    writer.begin(audit_results.header(), {})
    for name in names:
        writer.host({"host": name, "counts": {"error": 1}})
    (family,) = text_fd_to_metric_families(io.StringIO(out.getvalue()))
    assert len({sample.labels["host"] for sample in family.samples}) == len(names)


class _Tags(html.parser.HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def handle_starttag(self, tag: str, attrs: typing.Any) -> None:
        self.seen.append(tag)
        for name, value in attrs:
            assert name not in ("src", "action", "onerror"), value
            assert name != "href" or value.startswith("#"), value


def test_no_markup_or_terminal_escape_of_a_host_gets_through(written: Written) -> None:
    for name in ("index.html", "summary.md", "junit.xml", "bulkhead.prom"):
        text = written.text(name)
        assert "\x1b" not in text, name
        assert "\u202e" not in text, name
        assert "<script>window" not in text, name
        assert "<img" not in text, name
    tags = _Tags()
    tags.feed(written.text("index.html"))
    assert tags.seen.count("script") == 2
    for word in ("@everyone", "](http", "://evil"):
        assert word not in written.text("summary.md")


def test_the_page_runs_its_own_script_alone(written: Written) -> None:
    policy = written.text("index.html").partition('Content-Security-Policy" content="')[2]
    policy = policy.partition('"')[0]
    assert policy.startswith("default-src 'none'; ")
    assert "unsafe" not in policy
    assert policy.count("sha256-") == 2


def test_a_screen_holds_the_summary(written: Written) -> None:
    totals = copy.deepcopy(written.totals)
    totals["lost"] = [(f"host{n}" * 40, "because " * 90) for n in range(1000)]
    lines = audit_report.summary(totals, audit_results.checks())
    assert len(lines) <= 18
    for line in lines:
        assert len(line) < 80
        assert line.isprintable()


def test_the_markdown_stays_short_whatever_the_fleet(tmp_path: pathlib.Path) -> None:
    lost = {f"host{n:05}": audit_report.Lost("failed", "because " * 90) for n in range(2000)}
    audit_results.write(tmp_path / "r", [audit_results.audited("a")], lost, ["markdown"])
    assert (tmp_path / "r/summary.md").stat().st_size < 64 * 1024


# -- files ----------------------------------------------------------------------------------------
def test_reports_are_their_owners_alone(written: Written) -> None:
    files = [path for path in written.folder.rglob("*.*") if path.parent == written.folder]
    assert {path.name for path in files} == {kind.name for kind in audit_report.WRITERS.values()}
    for path in files:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(written.folder.stat().st_mode) == 0o700


def test_a_report_never_goes_through_a_link(tmp_path: pathlib.Path) -> None:
    folder = tmp_path / "r"
    audit_report.check_folder(str(folder))
    victim = tmp_path / "victim"
    victim.write_text("mine")
    (folder / "summary.md").symlink_to(victim)
    audit_results.write(folder, [], LOST)
    assert victim.read_text() == "mine"
    assert not (folder / "summary.md").is_symlink()


def test_a_writer_that_fails_leaves_the_earlier_report(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    audit_results.write(tmp_path / "r", [], LOST)
    before = sorted((p.name, p.read_bytes()) for p in (tmp_path / "r").glob("*.*"))

    def fail(self: audit_report.Markdown, totals: Json) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(audit_report.Markdown, "end", fail)
    with pytest.raises(OSError, match="disk full"):
        audit_results.write(tmp_path / "r", [audit_results.audited("a")], formats=["markdown"])
    assert sorted((p.name, p.read_bytes()) for p in (tmp_path / "r").glob("*.*")) == before


def test_a_folder_that_is_a_link_is_refused(tmp_path: pathlib.Path) -> None:
    (tmp_path / "real").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with pytest.raises(PolicyError, match=r"docker_audit_report_dir.*link"):
        audit_report.check_folder(str(tmp_path / "link"))


def test_a_folder_that_others_can_write_is_refused_and_stays_as_it_is(
    tmp_path: pathlib.Path,
) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o1777)
    with pytest.raises(PolicyError, match="only you can write"):
        audit_report.check_folder(str(shared))
    assert stat.S_IMODE(shared.stat().st_mode) == 0o1777


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: pathlib.Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(PolicyError, match=r"docker_audit_report_dir is .*cannot be written"):
        audit_report.check_folder(os.fspath(tmp_path / "file" / "reports"))


# -- an earlier result ----------------------------------------------------------------------------
def _compared(folder: pathlib.Path, before: list[Json], after: list[Json], **lost: str) -> Json:
    audit_results.write(folder / "before", before)
    gone = {name: audit_report.Lost("unreachable", why) for name, why in lost.items()}
    audit_results.write(folder / "after", after, gone)
    counts = audit_compare.compare(folder / "after", folder / "before/result.json")
    document: Json = json.loads((folder / "after/comparison.json").read_text("utf-8"))
    assert document["counts"] == counts
    return document


def _item(host: Json, check: str) -> Json:
    """Return the first failing item of a check."""
    row = next(row for row in host["results"] if row["check"] == check)
    item: Json = next(item for item in row["items"] if item["verdict"] == "fail")
    return item


def test_a_run_compared_with_itself_is_unchanged(tmp_path: pathlib.Path) -> None:
    host = audit_results.audited("a")
    counts = _compared(tmp_path, [host], [host])["counts"]
    assert counts.pop("unchanged") > 50
    assert set(counts.values()) == {0}


def test_new_fixed_and_waived_are_told_apart(tmp_path: pathlib.Path) -> None:
    before, after = audit_results.audited("a"), audit_results.audited("a")
    _item(before, "5.5")["verdict"] = "pass"
    _item(after, "5.4")["verdict"] = "pass"
    _item(after, "5.6")["verdict"] = "waived"
    document = _compared(tmp_path, [before], [after])
    states = {row["check"]: row["state"] for row in document["hosts"][0]["findings"]}
    assert states == {"5.5": "new", "5.4": "fixed", "5.6": "waived"}


def test_a_container_that_was_removed_is_gone_not_fixed(tmp_path: pathlib.Path) -> None:
    before, after = audit_results.audited("a"), audit_results.audited("a")
    index = _item(before, "5.5")["object"]
    for row in after["results"]:
        row["items"] = [item for item in row["items"] if item["object"] != index]
    findings = _compared(tmp_path, [before], [after])["hosts"][0]["findings"]
    assert {row["state"] for row in findings} <= {"gone", "not_compared"}
    assert "gone" in {row["state"] for row in findings}


def test_a_host_that_does_not_answer_any_more_has_nothing_fixed(tmp_path: pathlib.Path) -> None:
    counts = _compared(tmp_path, [audit_results.audited("a")], [], a="no route")["counts"]
    assert counts["not_compared"] > 50
    assert sum(counts.values()) == counts["not_compared"]


def test_a_check_that_was_not_asked_is_not_compared(tmp_path: pathlib.Path) -> None:
    whole, part = audit_results.audited("a"), audit_results.audited("a", sections=["2"])
    later = _compared(tmp_path / "1", [whole], [part])["counts"]
    assert (later["fixed"], later["gone"], later["new"]) == (0, 0, 0)
    assert later["not_compared"] > 0
    earlier = _compared(tmp_path / "2", [part], [whole])["counts"]
    assert (earlier["fixed"], earlier["gone"], earlier["new"]) == (0, 0, 0)
    assert earlier["not_compared"] > 0


def test_all_of_a_new_host_is_new(tmp_path: pathlib.Path) -> None:
    counts = _compared(tmp_path, [], [audit_results.audited("a")])["counts"]
    assert counts["new"] == sum(counts.values()) > 50


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"schema":"bulkhead.audit/2",\n"hosts":[]}', r"schema is 'bulkhead\.audit/2'.*audit/1"),
        ('{\n  "schema": "bulkhead.audit/1",\n', "not formatted anew"),
        ('{"tests":[]}', "not formatted anew"),
        ("", "not formatted anew"),
        ('{"schema":"bulkhead.audit/1",\n"checks":{},\n"hosts":[\n{"host":', "cannot be read"),
        ('{"schema":"bulkhead.audit/1",\n"checks":{},\n', "in the middle"),
    ],
)
def test_what_is_no_earlier_result_is_refused(tmp_path: pathlib.Path, text: str, says: str) -> None:
    path = tmp_path / "result.json"
    path.write_text(text)
    with pytest.raises(PolicyError, match=r"^docker_audit_reference is ") as refusal:
        audit_compare.check(path)
    assert re.search(says, str(refusal.value))


def test_an_earlier_result_that_is_missing_is_refused(tmp_path: pathlib.Path) -> None:
    with pytest.raises(PolicyError, match=r"docker_audit_reference is .*cannot be read"):
        audit_compare.check(tmp_path / "nothing.json")
