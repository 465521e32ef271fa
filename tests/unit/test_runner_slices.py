# Copyright: (c) 2026, the Bulkhead authors
# Apache License 2.0 (see LICENSE)
"""The audit as AWX runs it, by ansible-runner over slices of the inventory, whose reports become one."""

from __future__ import annotations

import json
import shutil
import sys
import typing
from pathlib import Path

import pytest

from tests.unit import answers
from tests.unit.checkout import ROOT, run

Json = dict[str, typing.Any]
RECORDED = ROOT / "tests/fixtures/observations/audit-bad.json"
HOSTS = [f"host{number}" for number in range(4)]

#: What says when a run took place, and nothing about what it found.
TIMES = {"started_at", "finished_at", "audited_at", "duration_seconds"}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Return a directory as ansible-runner takes it, whose hosts give a recorded answer."""
    answers.collection(tmp_path / "collections", json.loads(RECORDED.read_text()))
    for name in ("project", "inventory", "env"):
        (tmp_path / name).mkdir()
    for name in ("selected", "audit", "merge_reports"):
        shutil.copy(ROOT / f"playbooks/{name}.yml", tmp_path / "project")
    here = {
        "ansible_connection": "local",
        "ansible_become": False,
        "ansible_python_interpreter": sys.executable,
    }
    hosts = {"docker_hosts": {"hosts": dict.fromkeys(HOSTS, here)}}
    (tmp_path / "inventory/hosts.yml").write_text(json.dumps(hosts))
    return tmp_path


def by_runner(project: Path, play: str, *options: str, **variables: typing.Any) -> None:
    """Run a playbook with ansible-runner; it must succeed."""
    (project / "env/extravars").write_text(json.dumps({"docker_audit_fail_on": [], **variables}))
    settings = {"ANSIBLE_COLLECTIONS_PATH": str(project / "collections")}
    command = ["ansible-runner", "run", str(project), "--playbook", f"{play}.yml", *options]
    run(project, command, settings)


def without_times(value: typing.Any) -> typing.Any:
    """Return a document without what differs between any two runs."""
    if isinstance(value, dict):
        return {k: without_times(v) for k, v in value.items() if k not in TIMES}
    return [without_times(item) for item in value] if isinstance(value, list) else value


def test_slices_give_the_report_of_a_run_over_all(project: Path) -> None:
    limits = {"all": "docker_hosts", "1": "docker_hosts[0:1]", "2": "docker_hosts[2:3]"}
    for name, limit in limits.items():
        folder = str(project / f"slices/{name}/audit")
        by_runner(project, "audit", "--limit", limit, docker_audit_report_dir=folder)
    slices = [str(project / "slices" / name) for name in "12"]
    given = {"bulkhead_slices": slices, "bulkhead_merged": str(project / "merged")}
    by_runner(project, "merge_reports", **given)

    def result(folder: str) -> Json:
        found: Json = json.loads((project / folder / "audit/result.json").read_text())
        return found

    whole, merged = result("slices/all"), result("merged")
    assert [host["host"] for host in result("slices/2")["hosts"]] == HOSTS[2:]
    assert [host["state"] for host in whole["hosts"]] == ["audited"] * len(HOSTS)
    assert whole["counts"]["fail"] > 0
    assert without_times(merged) == without_times(whole)
    written = {path.name for path in (project / "slices/all/audit").iterdir()}
    assert {path.name for path in (project / "merged/audit").iterdir()} == written
