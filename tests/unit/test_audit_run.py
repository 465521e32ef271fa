"""A run of the audit: its settings, waivers, reports and comparison."""

from __future__ import annotations

import datetime
import json
import pathlib
import re
import typing
import xml.etree.ElementTree

import jsonschema
import pytest

from ansible_collections.bulkhead.hardening.plugins.plugin_utils import (
    audit_report,
    audit_run,
    audit_waivers,
    door,
)
from ansible_collections.bulkhead.hardening.plugins.plugin_utils.plan import PolicyError
from tests.unit.checkout import ROOT

Json = dict[str, typing.Any]
TODAY = datetime.date(2026, 11, 24)
SCHEMA = json.loads((ROOT / "docs/schemas/result.schema.json").read_text())
HOSTILE = "</script><script>alert(1)</script>\x1b[31m\u202egnp.\u2028" + "x" * 3000


def recorded(name: str) -> Json:
    return typing.cast(
        Json, json.loads((ROOT / f"tests/fixtures/observations/{name}.json").read_text())
    )


def audited(name: str, host: str = "h1", **settings: typing.Any) -> Json:
    return audit_run.audit(host, recorded(name), audit_run.settings(settings), TODAY)


def item(result: Json, check: str, name: str | None) -> Json:
    (row,) = (row for row in result["results"] if row["check"] == check)
    for found in row["items"]:
        index = found["object"]
        if name == (None if index is None else result["objects"][index]["name"]):
            return typing.cast(Json, found)
    raise AssertionError(f"{check} says nothing of {name}")


# -- settings --------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"level": [1]}, "docker_audit_level"),
        ({"levels": 1}, "docker_audit_levels is 1: give a list"),
        ({"ids": [2.1]}, "in quotes"),
        ({"policy": {"pids_limt": 1}}, "did you mean pids_limit"),
        ({"policy": {"pids_limit": "many"}}, "give a int"),
        ({"policy": {"trusted_users": [1]}}, "give a list of str"),
        ({"policy": {"engine_at_least": "new"}}, "'new' is not an engine version"),
        ({"policy": {"capabilities": ["CAP_CHWON"]}}, "CAP_CHWON"),
        ({"check_files": [1]}, "docker_audit_check_files is 1"),
        ({"fail_on": ["warn"]}, "docker_audit_fail_on is 'warn'"),
        ({"waivers": [{"check": "5.5"}]}, "docker_audit_waivers[0].reason"),
        ({"waivers": [{"check": "5.5", "reason": "r", "owner": "o"}]}, "[0].expires"),
        (
            {"waivers": [{"check": "5.5", "reason": "r", "owner": "o", "expires": "soon"}]},
            "[0].expires is 'soon'",
        ),
        (
            {"waivers": [{"check": "9", "reason": "r", "owner": "o", "expires": "2027-01-01"}]},
            "no such check",
        ),
        (
            {
                "waivers": [
                    {
                        "check": "5.5",
                        "reason": "r",
                        "owner": "o",
                        "expires": "2027-01-01",
                        "label": "x=y",
                    }
                ]
            },
            "[0].label is 'x=y': give NAME=VALUE",
        ),
    ],
)
def test_bad_settings_are_refused(settings: Json, says: str) -> None:
    with pytest.raises(PolicyError) as caught:
        audit_run.settings(settings)
    assert says in str(caught.value)


# -- waivers ---------------------------------------------------------------------------------------
LABEL = "com.docker.compose.service"


def waived(**fields: typing.Any) -> tuple[Json, Json]:
    """Return the item of 5.5 on the privileged container, and the waiver as it is reported."""
    base = {"check": "5.5", "reason": "r", "owner": "o", "expires": "2026-11-24"}
    look = recorded("audit-bad")
    for container in look["containers"]:
        container["labels"] = {LABEL: container["name"]}
    run = audit_run.settings({"waivers": [{**base, **fields}]})
    result = audit_run.audit("h1", look, run, TODAY)
    return item(result, "5.5", "privileged"), result["waivers"][0]


def digest() -> str:
    found = item(audited("audit-bad"), "5.5", "privileged")["object"]
    return str(audited("audit-bad")["objects"][found]["image_digest"])


def test_a_waiver_that_names_host_and_digest_is_strong() -> None:
    found, report = waived(host="h1", name="privileged", image_digest=digest())
    assert (found["verdict"], found["waiver"]["binding"]) == ("waived", "strong")
    assert found["waiver"]["waived_verdict"] == "fail"
    assert (report["state"], report["used"]) == ("used", 1)


@pytest.mark.parametrize(
    "fields",
    [
        {"name": "privileged"},
        {"host": "h*", "image": "lab:*"},
        {"label": f"{LABEL}=priv*", "host": "h1"},
    ],
)
def test_a_waiver_by_name_or_label_alone_is_weak(fields: Json) -> None:
    found, report = waived(**fields)
    assert (found["verdict"], found["waiver"]["binding"]) == ("waived", "weak")
    assert report["state"] == "weak"


@pytest.mark.parametrize(
    ("fields", "state"),
    [
        ({"expires": "2026-11-23", "name": "privileged"}, "expired"),
        ({"host": "h2"}, "unused"),
        ({"name": "other"}, "unused"),
        ({"label": f"{LABEL}=web"}, "unused"),
        ({"label": "bulkhead.owner=*"}, "unused"),
        ({"image_digest": "sha256:0"}, "unused"),
    ],
)
def test_a_waiver_that_does_not_hold(fields: Json, state: str) -> None:
    found, report = waived(**fields)
    assert (found["verdict"], found["waiver"]) == ("fail", None)
    assert (report["state"], report["used"]) == (state, 0)


@pytest.mark.parametrize("expires", [datetime.date(2027, 1, 1), datetime.datetime(2027, 1, 1, 9)])
def test_a_day_that_yaml_has_read_already(expires: datetime.date) -> None:
    found, report = waived(name="privileged", expires=expires)
    assert (found["verdict"], report["expires"]) == ("waived", "2027-01-01")


def test_an_error_is_never_waived() -> None:
    waiver = {"check": "2.2", "reason": "r", "owner": "o", "expires": "2027-01-01"}
    result = audited("trixie-stopped", waivers=[waiver])
    assert item(result, "2.2", None)["verdict"] == "error"
    assert "error" not in audit_waivers.WAIVABLE


# -- reports ---------------------------------------------------------------------------------------
RUN: Json = {
    "started_at": "2026-11-24T10:00:00+00:00",
    "finished_at": "2026-11-24T10:01:00+00:00",
    "collection_version": "0.1.0",
    "benchmark": {"name": "CIS Docker Benchmark", "version": "1.8.0"},
    "selection": {name: [] for name in ("levels", "igs", "sections", "ids", "tags", "skip")},
    "fail_on": ["error"],
}


def keep(folder: pathlib.Path, result: Json) -> None:
    path = audit_report.check_folder(str(folder)) / "hosts" / audit_report.host_file(result["host"])
    document = {**result, "audited_at": "2026-11-24T10:00:30+00:00", "duration_seconds": 1.5}
    door.store(document, str(path))


def reports(folder: pathlib.Path, *results: Json, lost: typing.Sequence[str] = ()) -> Json:
    for result in results:
        keep(folder, result)
    checks = {check.id: check.described() for check in audit_run.settings({}).checks}
    names = [*(result["host"] for result in results), *lost]
    why = {name: audit_report.Lost("unreachable", "no route") for name in lost}
    return audit_report.write(
        audit_report.check_folder(str(folder)), RUN, checks, names, why,
        list(audit_report.WRITERS), 1800000000.0,
    )  # fmt: skip


def hostile() -> Json:
    look = recorded("audit-bad")
    look["os"]["name"] = look["engine"]["version"] = HOSTILE
    for container in look["containers"]:
        container["name"] = HOSTILE + container["name"]
        container["image"] = HOSTILE
    return audit_run.audit("h1" + HOSTILE[:60], look, audit_run.settings({}), TODAY)


@pytest.fixture
def folder(tmp_path: pathlib.Path) -> pathlib.Path:
    return tmp_path / "reports" / "audit"


def test_the_result_fits_its_schema(folder: pathlib.Path) -> None:
    totals = reports(folder, audited("audit-bad"), hostile(), lost=["gone"])
    document = json.loads((folder / "result.json").read_text())
    jsonschema.Draft202012Validator(SCHEMA).validate(document)
    assert totals["counts"] == document["counts"]
    assert totals["states"] == {"audited": 2, "unreachable": 1}
    gone = next(host for host in document["hosts"] if host["host"] == "gone")
    assert (gone["reason"], gone["counts"]["error"]) == ("no route", 1)
    # Every verdict that was counted is there, and none twice.
    items = sum(len(r["items"]) for h in document["hosts"] for r in h["results"])
    assert sum(document["item_counts"].values()) == items + 1


def test_reports_are_for_their_owner_alone(folder: pathlib.Path) -> None:
    totals = reports(folder, audited("audit-bad"))
    assert {pathlib.Path(path).stat().st_mode & 0o777 for path in totals["paths"]} == {0o600}
    assert folder.stat().st_mode & 0o777 == 0o700
    assert [path for path in folder.rglob("*") if path.name.startswith(".")] == []


def test_junit_counts_what_it_holds(folder: pathlib.Path) -> None:
    reports(folder, audited("audit-bad"), hostile(), lost=["gone"])
    root = xml.etree.ElementTree.parse(folder / "junit.xml").getroot()
    suites = {suite.get("name"): suite for suite in root}
    assert len(suites) == 3
    for suite in suites.values():
        assert int(suite.get("tests", "0")) == len(suite)
        for tag, name in (("failure", "failures"), ("error", "errors"), ("skipped", "skipped")):
            assert int(suite.get(name, "0")) == len(suite.findall(f"testcase/{tag}"))
    case = next(c for c in suites["h1"] if str(c.get("name")).startswith("5.5 "))
    (failure,) = case
    assert "privileged" in str(failure.text)
    assert suites["gone"][0][0].tag == "error"


def test_sarif_has_what_the_standard_asks_for(folder: pathlib.Path) -> None:
    waiver = {"check": "5.5", "reason": "r", "owner": "o", "expires": "2027-01-01"}
    reports(folder, audited("audit-bad", waivers=[waiver]), lost=["gone"])
    document = json.loads((folder / "result.sarif").read_text())
    assert document["version"] == "2.1.0"
    (run,) = document["runs"]
    rules = run["tool"]["driver"]["rules"]
    assert len({rule["id"] for rule in rules}) == len(rules)
    seen = set()
    for result in run["results"]:
        assert rules[result["ruleIndex"]]["id"] == result["ruleId"]
        assert result["kind"] in ("fail", "review", "open")
        # SARIF 2.1.0, 3.27.10: what does not fail has the level none.
        assert (result["kind"] == "fail") == (result["level"] != "none")
        seen.add(result["partialFingerprints"]["bulkhead/v1"])
    assert len(seen) == len(run["results"])
    suppressed = [r for r in run["results"] if r.get("suppressions")]
    assert {r["ruleId"] for r in suppressed} == {"5.5"}
    assert run["invocations"][0]["executionSuccessful"] is False


def test_prometheus_lines(folder: pathlib.Path) -> None:
    reports(folder, audited("audit-bad"), hostile())
    line = re.compile(r'[a-z_]+(\{([a-z]+="([^"\\\n]|\\.)*",?)+\})? \d+\Z')
    lines = (folder / "bulkhead.prom").read_text().splitlines()
    assert all(line.match(text) for text in lines if not text.startswith("# "))
    assert 'bulkhead_audit_hosts{state="audited"} 2' in lines


def test_markdown_is_bounded_and_inert(folder: pathlib.Path) -> None:
    reports(folder, *(audited("audit-bad", f"h{n}") for n in range(3)), hostile())
    text = (folder / "summary.md").read_text()
    assert len(text) < 20000
    assert "<script" not in text
    assert "\x1b" not in text


def test_the_page_holds_no_tag_of_a_host(folder: pathlib.Path) -> None:
    reports(folder, hostile(), lost=["gone<b>"])
    text = (folder / "index.html").read_text()
    assert text.count("<script") == 2
    assert "http://" not in text
    assert "https://" not in text
    data = text.partition('type="application/json">')[2].partition("</script>")[0]
    assert "<" not in data
    document = json.loads(data)
    assert [host["state"] for host in document["hosts"]] == ["unreachable", "audited"]
    assert len(document["hosts"][1]["codes"]) == len(document["checks"])


def test_the_summary_fits_a_screen(folder: pathlib.Path) -> None:
    totals = reports(
        folder, hostile(), *(audited("audit-bad", f"h{n}") for n in range(4)), lost=list("abcdef")
    )
    checks = {check.id: check.described() for check in audit_run.settings({}).checks}
    lines = audit_report.summary(totals, checks)
    assert len(lines) <= 20
    assert max(map(len, lines)) <= 100
    assert not any(ord(char) < 32 for line in lines for char in line)


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        (["error"], []),
        (["high:fail", "low:error"], ["high:fail"]),
        (["fail", "manual"], ["fail", "manual"]),
    ],
)
def test_what_a_run_fails_for(folder: pathlib.Path, wanted: list[str], found: list[str]) -> None:
    assert audit_report.failed_on(reports(folder, audited("audit-bad")), wanted) == found


def test_a_host_that_was_lost_is_an_error(folder: pathlib.Path) -> None:
    totals = reports(folder, lost=["gone"])
    assert audit_report.failed_on(totals, ["error"]) == ["error"]
    assert totals["counts"]["error"] == 1


def test_a_folder_that_cannot_be_used_is_named(tmp_path: pathlib.Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    (tmp_path / "real").mkdir()
    for name in ("file", "link"):
        with pytest.raises(PolicyError, match="docker_audit_report_dir"):
            audit_report.check_folder(str(tmp_path / name))
