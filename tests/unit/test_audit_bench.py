# Copyright: (c) 2026, the Bulkhead authors
# Apache License 2.0 (see LICENSE)
"""docker-bench-security beside the audit: read, matched by id, decided where an error is known."""

from __future__ import annotations

import json
import pathlib
import typing

import pytest

from ansible_collections.bulkhead.hardening.plugins.plugin_utils import (
    audit_bench,
    audit_evaluate,
)
from ansible_collections.bulkhead.hardening.plugins.plugin_utils.plan import PolicyError
from tests.unit import audit_results

Json = dict[str, typing.Any]
CHECKS = audit_results.checks()


def bench_file(path: pathlib.Path, results: dict[str, str], release: str = "1.6.0") -> pathlib.Path:
    """Write what docker-bench-security would."""
    rows = [
        {"id": number, "desc": "d", "result": result, "details": "\x1b[2Jsaid", "items": ["web"]}
        for number, result in results.items()
    ]
    document = {
        "dockerbenchsecurity": release,
        "start": 1,
        "tests": [{"id": "2", "desc": "d", "results": rows}],
        "checks": len(rows),
        "score": 0,
        "end": 2,
    }
    path.write_text(json.dumps(document))
    return path


def host(**verdicts: str) -> Json:
    """Return a host with one item for each check; ``c5_4="fail"`` is check 5.4."""
    found = audit_results.audited("h")
    found["results"] = [
        {
            "check": name[1:].replace("_", "."),
            "verdict": verdict,
            "items": [
                {"object": None, "verdict": verdict, "reason": "r", "evidence": 1, "waiver": None}
            ],
        }
        for name, verdict in verdicts.items()
    ]
    return found


def row(ours: str, theirs: str, check: str = "5.4") -> Json:
    """Return how one check stands."""
    old = CHECKS[check]["id_1_6"]
    (found,) = audit_bench.compare(
        host(**{f"c{check.replace('.', '_')}": ours}),
        CHECKS,
        {old: {"result": theirs, "details": "d", "items": []}},
    )
    return found


@pytest.mark.parametrize(
    ("ours", "theirs", "state"),
    [
        ("pass", "PASS", "agree"),
        ("not_applicable", "PASS", "agree"),
        ("fail", "WARN", "agree"),
        ("manual", "NOTE", "agree"),
        ("manual", "INFO", "agree"),
        ("fail", "PASS", "bulkhead_right"),
        ("pass", "WARN", "undecided"),
        ("error", "PASS", "undecided"),
        ("pending", "PASS", "undecided"),
        ("pass", "XYZ", "undecided"),
    ],
)
def test_how_two_verdicts_stand_to_each_other(ours: str, theirs: str, state: str) -> None:
    found = row(ours, theirs)
    assert found["state"] == state
    assert bool(found["because"]) == (state != "agree")
    assert bool(found["evidence"]) == (state != "agree")


def test_ids_are_matched_over_releases_of_the_benchmark() -> None:
    found = row("fail", "PASS", "2.8")
    assert (found["check"], found["id_1_6"], found["state"]) == ("2.8", "2.7", "bulkhead_right")


def test_what_only_one_of_them_judged_is_told() -> None:
    rows = audit_bench.compare(
        host(c5_4="pass"), CHECKS, {"9.1": {"result": "PASS", "details": "", "items": []}}
    )
    assert [(r["check"], r["id_1_6"], r["state"]) for r in rows] == [
        ("5.4", "5.3" if CHECKS["5.4"]["id_1_6"] == "5.3" else "5.4", "only_ours"),
        (None, "9.1", "only_theirs"),
    ]


def test_a_waiver_does_not_make_a_difference() -> None:
    waived = host(c5_4="waived")
    waived["results"][0]["items"][0]["waiver"] = {"waived_verdict": "fail"}
    old = CHECKS["5.4"]["id_1_6"]
    theirs = {old: {"result": "WARN", "details": "", "items": []}}
    assert audit_bench.compare(waived, CHECKS, theirs)[0]["state"] == "agree"


def test_every_known_error_is_a_difference_that_can_be() -> None:
    assert len(audit_bench.known_wrong()) > 30
    for known in audit_bench.known_wrong():
        assert set(known) == {"check", "they", "we", "because"}
        assert known["check"] in CHECKS
        assert known["because"].endswith(".")
        assert set(known["we"]) <= set(audit_evaluate.VERDICTS) - {"error"}
        states = {row(w, t, known["check"])["state"] for w in known["we"] for t in known["they"]}
        assert "bulkhead_right" in states


def test_both_sides_of_a_fleet(tmp_path: pathlib.Path) -> None:
    results = {check["id_1_6"]: "PASS" for check in CHECKS.values() if check["id_1_6"]}
    path = bench_file(tmp_path / "b.json", results)
    audit_results.write(
        tmp_path / "r", [audit_results.audited("a"), audit_results.audited("b")], formats=["json"]
    )
    counts = audit_bench.write(tmp_path / "r", CHECKS, {"a": str(path)})
    document = json.loads((tmp_path / "r/docker-bench.json").read_text())
    assert document["counts"] == counts
    assert [found["host"] for found in document["hosts"]] == ["a"]
    states = {found["check"]: found["state"] for found in document["hosts"][0]["checks"]}
    assert states["5.4"] == "bulkhead_right"
    assert len(states) == sum(check["namespace"] == "cis" for check in CHECKS.values())


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "no JSON"),
        ("[]", "not of docker-bench-security"),
        ('{"dockerbenchsecurity": "1.6.0"}', "not of docker-bench-security"),
        ('{"dockerbenchsecurity": "1.3.5", "tests": []}', "release '1.3.5'"),
        ('{"dockerbenchsecurity": "1.6.0", "tests": [{"results": [{}]}]}', "lacks id or result"),
        ('{"dockerbenchsecurity": "1.6.0", "tests": ["x"]}', "lacks id or result"),
    ],
)
def test_a_file_that_is_none_is_refused(tmp_path: pathlib.Path, text: str, says: str) -> None:
    (tmp_path / "b.json").write_text(text)
    with pytest.raises(PolicyError, match=r"docker_audit_docker_bench is ") as refusal:
        audit_bench.check({"h": str(tmp_path / "b.json")})
    assert says in str(refusal.value)


@pytest.mark.parametrize(
    ("files", "says"),
    [
        (["x"], "give a mapping"),
        ({"h": 1}, "give the path"),
        ({"h": "/nonexistent/b.json"}, "cannot be read"),
        ({"other": "b.json"}, "no host of the play"),
    ],
)
def test_a_variable_that_is_none_is_refused(files: object, says: str) -> None:
    with pytest.raises(PolicyError, match=says):
        audit_bench.check(files, ["h"])
