# Copyright: (c) 2026, the Bulkhead authors
# Apache License 2.0 (see LICENSE)
"""Runs over slices of a fleet leave reports that become one."""

from __future__ import annotations

import json
import os
import subprocess
import typing
from pathlib import Path

import pytest

from ansible_collections.bulkhead.hardening.plugins.filter.docker_drift import docker_drift
from ansible_collections.bulkhead.hardening.plugins.filter.drift_report import drift_report
from ansible_collections.bulkhead.hardening.plugins.plugin_utils import audit_merge, audit_report
from ansible_collections.bulkhead.hardening.plugins.plugin_utils.plan import PolicyError
from tests.unit import audit_results
from tests.unit.checkout import COLLECTIONS, ROOT

Json = dict[str, typing.Any]


@pytest.fixture
def slices(tmp_path: Path) -> list[str]:
    """Return the folders of two audits: of a and b, and of b, which is lost there, and c."""
    audit_results.write(tmp_path / "one", [audit_results.audited(name) for name in "ab"])
    lost = {"b": audit_report.Lost("unreachable", "no route")}
    audit_results.write(tmp_path / "two", [audit_results.audited("c")], lost)
    return [str(tmp_path / "one"), str(tmp_path / "two")]


def test_any_result_of_a_host_counts_more_than_none(tmp_path: Path, slices: list[str]) -> None:
    folder = audit_report.check_folder(str(tmp_path / "all"))
    found = audit_merge.collect(folder, slices, audit_results.checks())
    assert found == {"a": None, "b": None, "c": None}
    assert {path.name for path in (folder / "hosts").iterdir()} == {"a.json", "b.json", "c.json"}
    assert {path.stat().st_mode & 0o777 for path in (folder / "hosts").iterdir()} == {0o600}


def test_a_host_that_no_slice_reached_keeps_its_reason(tmp_path: Path, slices: list[str]) -> None:
    folder = audit_report.check_folder(str(tmp_path / "all"))
    found = audit_merge.collect(folder, slices[1:], audit_results.checks())
    assert found == {"b": audit_report.Lost("unreachable", "no route"), "c": None}


def test_slices_that_were_judged_by_other_checks_are_refused(
    tmp_path: Path, slices: list[str]
) -> None:
    folder = audit_report.check_folder(str(tmp_path / "all"))
    with pytest.raises(PolicyError, match=r"docker_audit_slices is .* choose the same for all"):
        audit_merge.collect(folder, slices, {"5.5"})


def test_slices_that_were_judged_by_fewer_checks_are_refused(
    tmp_path: Path, slices: list[str]
) -> None:
    """Their hosts would look as good as the others, with less asked."""
    folder = audit_report.check_folder(str(tmp_path / "all"))
    with pytest.raises(PolicyError, match=r"it lacks checks that this report has \(more-1\)"):
        audit_merge.collect(folder, slices, {*audit_results.checks(), "more-1"})


@pytest.mark.parametrize(("place", "says"), [("none", "cannot be read"), ("all", "another folder")])
def test_what_is_no_slice_is_refused_in_words(tmp_path: Path, place: str, says: str) -> None:
    folder = audit_report.check_folder(str(tmp_path / "all"))
    with pytest.raises(PolicyError, match=says):
        audit_merge.collect(folder, [str(tmp_path / place)], audit_results.checks())


def test_the_play_makes_one_report_of_each_kind(tmp_path: Path) -> None:
    for name in "ab":
        place = tmp_path / name
        audit_results.write(place / "audit", [audit_results.audited(name)])
        (place / "drift").mkdir()
        drifted = drift_report({name: docker_drift(None)}, "json", audit_results.NOW)
        (place / "drift/drift.json").write_text(drifted)
    given = {"bulkhead_slices": ["a", "b"], "docker_audit_fail_on": []}
    own = {name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")}
    done = subprocess.run(
        [
            *("ansible-playbook", "-i", "localhost,", "-e", json.dumps(given)),
            str(ROOT / "playbooks/merge_reports.yml"),
        ],
        cwd=tmp_path,
        check=False,
        capture_output=True,
        text=True,
        timeout=180,
        env={**own, "ANSIBLE_COLLECTIONS_PATH": str(COLLECTIONS), "ANSIBLE_NOCOLOR": "1"},
    )
    assert done.returncode == 2, done.stdout + done.stderr
    assert "docker_harden_drift_fail_on names: unknown" in done.stdout
    for kind, name in (("audit", "result.json"), ("drift", "drift.json")):
        report = json.loads((tmp_path / "reports/merged" / kind / name).read_text())
        assert [host["host"] for host in report["hosts"]] == ["a", "b"], kind
