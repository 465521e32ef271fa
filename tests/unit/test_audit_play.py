# Copyright: (c) 2026, the Bulkhead authors
# Apache License 2.0 (see LICENSE)
"""The play as a user runs it, on hosts that cannot be reached, and with bad input."""

from __future__ import annotations

import json
import pathlib
import typing

import pytest

from tests.unit import audit_results
from tests.unit.checkout import ROOT, SETTINGS, attempt
from tests.unit.test_audit_bench import bench_file

Json = dict[str, typing.Any]


class Done(typing.NamedTuple):
    """How a run ended."""

    code: int
    said: str
    folder: pathlib.Path

    def result(self) -> Json:
        """Return its result.json."""
        found: Json = json.loads((self.folder / "result.json").read_text())
        return found


def play(place: pathlib.Path, *arguments: str, **variables: typing.Any) -> Done:
    """Run the audit on two hosts behind a port that nobody listens on.

    :param variables: for the play; ``of_b`` are those of the second host alone.
    """
    inventory = place / "hosts.yml"
    unreachable = {"ansible_host": "127.0.0.1", "ansible_port": 1}
    hosts = {"a": unreachable, "b": {**unreachable, **dict(variables.pop("of_b", {}))}}
    inventory.write_text(json.dumps({"docker_hosts": {"hosts": hosts}}))
    folder = place / "reports"
    given = {"docker_audit_report_dir": str(folder), **variables}
    done = attempt(
        pathlib.Path.cwd(),
        [
            *("ansible-playbook", "--inventory", str(inventory), "--extra-vars", json.dumps(given)),
            *arguments,
            str(ROOT / "playbooks" / "audit.yml"),
        ],
        SETTINGS,
    )
    return Done(done.returncode, done.stdout + done.stderr, folder)


def test_a_fleet_that_cannot_be_reached_is_reported_and_fails_in_check_mode_too(
    tmp_path: pathlib.Path,
) -> None:
    done = play(tmp_path, "--check")
    assert done.code != 0, done.said
    assert "docker_audit_fail_on" in done.said
    states = {host["host"]: host["state"] for host in done.result()["hosts"]}
    assert states == {"a": "unreachable", "b": "unreachable"}
    assert all(host["reason"] for host in done.result()["hosts"])
    for name in ("index.html", "junit.xml", "result.sarif", "summary.md", "bulkhead.prom"):
        assert (done.folder / name).stat().st_mode & 0o777 == 0o600


def test_the_last_result_may_be_the_one_to_compare_with(tmp_path: pathlib.Path) -> None:
    audit_results.write(tmp_path / "reports", [audit_results.audited("a")])
    bench = bench_file(tmp_path / "b.json", {"5.4": "PASS"})
    done = play(
        tmp_path,
        docker_audit_reference=str(tmp_path / "reports/result.json"),
        docker_audit_docker_bench={"a": str(bench)},
        docker_audit_fail_on=[],
    )
    assert done.code == 0, done.said
    compared = json.loads((done.folder / "comparison.json").read_text())
    assert compared["counts"]["not_compared"] > 50
    assert compared["counts"]["fixed"] == 0
    rows = {row["host"]: (row["state_before"], row["state"]) for row in compared["hosts"]}
    assert rows == {"a": ("audited", "unreachable"), "b": ("absent", "unreachable")}
    beside = json.loads((done.folder / "docker-bench.json").read_text())
    assert beside["counts"]["only_theirs"] == 1
    assert "beside docker-bench-security: 1 only theirs" in done.said


def test_a_host_that_chooses_other_checks_is_an_error_of_its_own(tmp_path: pathlib.Path) -> None:
    done = play(tmp_path, of_b={"docker_audit_levels": [1]}, docker_audit_fail_on=[])
    assert done.code == 0, done.said
    hosts = {host["host"]: host for host in done.result()["hosts"]}
    assert {name: host["state"] for name, host in hosts.items()} == {
        "a": "unreachable",
        "b": "failed",
    }
    assert "not to a host" in hosts["b"]["reason"]


@pytest.mark.parametrize(
    ("variables", "says"),
    [
        ({"docker_audit_report_dir": "/proc/1/reports"}, "docker_audit_report_dir is"),
        ({"docker_audit_reference": "/nonexistent.json"}, "docker_audit_reference is"),
        ({"docker_audit_docker_bench": {"c": "x"}}, "docker_audit_docker_bench.c is"),
        ({"docker_audit_ids": ["5,5"]}, "docker_audit_ids is '5,5'"),
        ({"docker_audit_formats": ["jsn"]}, "docker_audit_formats"),
        (
            {"docker_audit_waivers": [{"check": "5.5", "reason": "r", "owner": "o"}]},
            "docker_audit_waivers[0].expires is None",
        ),
    ],
)
def test_bad_input_ends_the_run_before_a_host_is_asked(
    tmp_path: pathlib.Path, variables: Json, says: str
) -> None:
    done = play(tmp_path, **variables)
    assert done.code != 0
    assert says in done.said
    assert "unreachable=0" in done.said
    assert "UNREACHABLE" not in done.said
    assert not (done.folder / "result.json").exists()
