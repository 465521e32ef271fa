"""The checks of the audit: what each says of recorded hosts, and that none is left out."""

from __future__ import annotations

import copy
import functools
import json
import os
import re
import subprocess
import sys
import typing

import jmespath
import pytest
import yaml

from ansible_collections.bulkhead.hardening.plugins.plugin_utils import (
    audit_checks,
    audit_evaluate,
)
from ansible_collections.bulkhead.hardening.plugins.plugin_utils.plan import PolicyError
from tests.unit.checkout import ROOT

Json = dict[str, typing.Any]
CHECKS = {check.id: check for check in audit_checks.builtin()}
CASES: dict[str, dict[str, Json]] = yaml.safe_load(
    (ROOT / "tests/unit/audit_cases.yml").read_text()
)

#: Checks that apply to every host that there is.
ALWAYS = {
    "1.2.1": "every host has an operating system",
    "BH-10": "that no other daemon runs is worth knowing on every host",
    "BH-32": "every host can be watched",
    **dict.fromkeys(
        ("BH-18", "BH-19", "BH-20", "BH-22", "BH-23", "BH-26"),
        "every kernel that runs containers has these parameters",
    ),
}

#: Checks of audit rules; what makes one pass, in a file alone, makes it pending.
WATCHED = [f"1.1.{number}" for number in range(3, 19)]
NEVER = jmespath.compile("`false`")


@functools.cache
def _recorded(name: str) -> str:
    return (ROOT / f"tests/fixtures/observations/{name}.json").read_text()


def changed(case: Json) -> tuple[Json, Json]:
    """Return a recorded host and a policy, with the values of a case set."""
    document = {**json.loads(_recorded(case["on"])), "policy": copy.deepcopy(audit_evaluate.POLICY)}
    for path, value in case.get("set", {}).items():
        put(document, path, value)
    return document, document.pop("policy")


def put(document: Json, path: str, value: typing.Any) -> None:
    """Set ``a.b[name=x].c``, ``a[0].c``, ``a[=key.with.dots].c`` or, to append, ``a[+]``."""
    at: typing.Any = document
    words = re.findall(r"\[[^\]]*\]|[^.\[\]]+", path)
    for number, word in enumerate(words):
        last = number == len(words) - 1
        if word == "[+]":
            at.append(value)
        elif word.startswith("[="):
            at = at[word[2:-1]]
        elif word.startswith("["):
            key, _, wanted = word[1:-1].partition("=")
            at = at[int(key)] if not wanted else next(row for row in at if row[key] == wanted)
        elif last:
            at[word] = value
        else:
            at = at[word]


def verdicts(check: str, look: Json, policy: Json) -> dict[str | None, str]:
    """Return the verdict of one check on each object, by its name."""
    found = audit_evaluate.evaluate([CHECKS[check]], look, policy)
    names = [item["name"] for item in found["objects"]]
    return {
        None if item["object"] is None else names[item["object"]]: item["verdict"]
        for item in found["results"][0]["items"]
    }


@pytest.mark.parametrize(
    ("check", "verdict"), [(check, verdict) for check, rows in CASES.items() for verdict in rows]
)
def test_a_case(check: str, verdict: str) -> None:
    case = CASES[check][verdict]
    seen = verdicts(check, *changed(case))
    if "object" in case:
        assert seen[case["object"]] == verdict
    else:
        assert verdict in seen.values()


@pytest.mark.parametrize("check", CHECKS)
def test_every_check_has_its_cases(check: str) -> None:
    """One for each verdict that it can give, most of all one that passes, fails, does not apply."""
    rows, expressions = set(CASES[check]), CHECKS[check].expressions
    judges = "passes" in expressions
    assert "pass" in rows or not judges
    assert "manual" in rows or (judges and "manual_when" not in expressions)
    assert (
        "fail" in rows or not judges or expressions.get("manual_when", NEVER).expression == "`true`"
    )
    assert "pending" in rows or "pending" not in expressions or check in WATCHED
    assert "not_applicable" in rows or check in ALWAYS


@pytest.mark.parametrize("check", WATCHED)
def test_a_rule_that_is_in_a_file_alone_is_pending(check: str) -> None:
    case = copy.deepcopy(CASES[check]["pass"])
    case["set"]["audit.persistent"] = case["set"].pop("audit.loaded")
    assert "pending" in verdicts(check, *changed(case)).values()


def test_all_recommendations_of_the_benchmark_are_there() -> None:
    found = [check for check in CHECKS.values() if check.namespace == "cis"]
    assert len(found) == 118
    assert sum("passes" in check.expressions for check in found) == 110
    sections = {"1": 20, "2": 19, "3": 24, "4": 12, "5": 32, "6": 2, "7": 9}
    assert {s: sum(c.section == s for c in found) for s in sections} == sections
    assert [check.id for check in found if check.was is None] == ["2.7"]
    assert CHECKS["2.8"].was == "2.7"


def test_remedies_name_variables_that_there_are() -> None:
    defaults: set[str] = set()
    for path in (ROOT / "roles").glob("docker_*/defaults/main.yml"):
        defaults |= set(yaml.safe_load(path.read_text()))
    named = {check.variable for check in CHECKS.values() if check.variable}
    assert named
    assert named <= defaults


def test_nothing_is_a_pass_when_nothing_is_known() -> None:
    """An observation without a single section: errors, and no pass."""
    look: Json = {"unread": [{"section": "engine", "item": None, "reason": "no answer"}]}
    found = audit_evaluate.evaluate(list(CHECKS.values()), look, audit_evaluate.POLICY)
    assert {row["verdict"] for row in found["results"]} <= {"error", "manual"}
    daemon = next(row for row in found["results"] if row["check"] == "2.2")
    assert "no answer" in daemon["items"][0]["reason"]


def test_an_option_that_nothing_tells_is_an_error() -> None:
    look, policy = changed({"on": "audit-hardened", "set": {"engine.effective.icc.value": None}})
    assert verdicts("2.2", look, policy) == {None: "error"}


@pytest.mark.parametrize("hole", ["kernel", "processes"])
def test_a_container_of_which_something_is_unknown_never_passes_by_it(hole: str) -> None:
    look, policy = changed({"on": "audit-hardened", "set": {f"containers[name=good].{hole}": None}})
    before = audit_evaluate.evaluate(
        list(CHECKS.values()), json.loads(_recorded("audit-hardened")), policy
    )
    after = audit_evaluate.evaluate(list(CHECKS.values()), look, policy)
    pairs = zip(before["results"], after["results"])
    changed_to = {b["check"]: a["verdict"] for b, a in pairs if a["verdict"] != b["verdict"]}
    assert changed_to
    assert set(changed_to.values()) == {"error"}, changed_to


def test_a_container_that_could_not_be_read_is_an_error() -> None:
    change = {"containers[name=good].error": "status 500", "containers[name=good].config": None,
              "containers[name=good].kernel": None}  # fmt: skip
    look, policy = changed({"on": "audit-hardened", "set": change})
    for check in CHECKS.values():
        if check.scope == "container":
            assert verdicts(check.id, look, policy) == {"good": "error"}


# -- files of checks -------------------------------------------------------------------------------
OWN: Json = {
    "id": "my-1", "title": "t", "remedy": "r", "why": "w", "source": "s", "scope": "container",
    "passes": "object.config.init == `true`",
}  # fmt: skip


def test_a_check_of_ones_own() -> None:
    (check,) = [c for c in audit_checks.with_own([OWN], []) if c.namespace == "user"]
    look = json.loads(_recorded("audit-hardened"))
    found = audit_evaluate.evaluate([check], look, audit_evaluate.POLICY)
    assert found["results"][0]["verdict"] == "fail"
    assert found["objects"][0]["name"] == "good"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"id": 2.1}, "in quotes"),
        ({"id": "2.2"}, "of that id already"),
        ({"title": ""}, "title"),
        ({"scope": "contaner"}, "give one of host"),
        ({"passes": "object."}, "no valid JMESPath"),
        ({"passes": 7}, "as text"),
        ({"passes": "lenght(object)"}, "did you mean length"),
        ({"pases": "x"}, "did you mean passes"),
        ({"passes": None, "manual": None}, "passes"),
        ({"passes": "contains(object.name)"}, "called with 1 arguments, and takes 2"),
        ({"level": 3}, "level"),
        ({"level": True}, "level"),
        ({"tags": "limits"}, "list of texts"),
        ({"needs": ["container"]}, "give some of"),
        ({"manual": {"look_at": "x"}}, "look_at and how"),
        ({"manual_when": "`true`"}, "say what to look at"),
        ({"scope": ["container"]}, "give a text"),
        ({"use": ["x"]}, "use"),
        ({"scope": "image", "when_stopped": "`true`"}, "only a container"),
        ({"severity": "bad"}, "severity"),
    ],
)
def test_a_check_that_is_none_is_refused(change: Json, says: str) -> None:
    entry = {key: value for key, value in {**OWN, **change}.items() if value is not None}
    with pytest.raises(PolicyError) as caught:
        audit_checks.with_own([entry], [])
    assert says in str(caught.value)


@pytest.mark.parametrize("shared", [1, "x", ["x"], {"a": 1}])
def test_shared_parts_are_mappings(shared: typing.Any) -> None:
    with pytest.raises(PolicyError, match="shared"):
        audit_checks.from_document({"checks": [OWN], "shared": shared}, "user", "a.yml")


def test_a_file_of_checks_that_cannot_be_read_is_named(tmp_path: typing.Any) -> None:
    with pytest.raises(PolicyError, match="docker_audit_check_files"):
        audit_checks.with_own([], [str(tmp_path / "none.yml")])
    (tmp_path / "a.yml").write_text("checks: [")
    with pytest.raises(PolicyError, match="docker_audit_check_files"):
        audit_checks.with_own([], [str(tmp_path / "a.yml")])


@pytest.mark.parametrize(
    ("wanted", "some", "none"),
    [
        ({"levels": (1,)}, "2.2", "2.10"),
        ({"levels": (2,)}, "2.10", None),
        ({"igs": (1,)}, "5.5", "2.2"),
        ({"sections": ("3",)}, "3.1", "2.2"),
        ({"ids": ("2.8", "1.6:2.9")}, "2.10", "2.9"),
        ({"tags": ("limits",)}, "5.11", "5.5"),
        ({"skip": ("5.5",)}, "5.6", "5.5"),
    ],
)
def test_selection(wanted: Json, some: str, none: str | None) -> None:
    found = {
        c.id for c in audit_checks.select(audit_checks.builtin(), audit_checks.Selection(**wanted))
    }
    assert some in found
    assert none not in found


@pytest.mark.parametrize(
    ("wanted", "says"),
    [
        ({"ids": ("5.99",)}, "docker_audit_ids is '5.99'"),
        ({"tags": ("limit",)}, "did you mean limits"),
        ({"sections": ("8",)}, "docker_audit_sections"),
        ({"levels": (3,)}, "docker_audit_levels"),
        ({"sections": ("3",), "ids": ("2.2",)}, "no check at all"),
    ],
)
def test_a_mistyped_selector_is_an_error(wanted: Json, says: str) -> None:
    with pytest.raises(PolicyError) as caught:
        audit_checks.select(audit_checks.builtin(), audit_checks.Selection(**wanted))
    assert says in str(caught.value)


def test_the_reference_is_current() -> None:
    """If not: tools/checks-reference > docs/reference/checks.md."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "tools/checks-reference")],
        env={**os.environ, "PYTHONPATH": str(ROOT / "playbooks/collections")},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert (ROOT / "docs/reference/checks.md").read_text() == done.stdout
