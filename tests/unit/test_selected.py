# Copyright: (c) 2026, the Bulkhead authors
# Apache License 2.0 (see LICENSE)
"""A run that selects no host is no success, whichever way the hosts were lost."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.unit.checkout import ROOT, SETTINGS, attempt, names


def run(place: Path, playbook: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a playbook on an inventory of which docker_hosts has one host, and other groups two."""
    unreachable = {"ansible_host": "127.0.0.1", "ansible_port": 1}
    hosts = {
        name: {"hosts": {name[0]: unreachable}} for name in ("docker_hosts", "web", "builders")
    }
    (place / "hosts.yml").write_text(json.dumps(hosts))
    path = str(ROOT / f"playbooks/{playbook}.yml")
    return attempt(place, ["ansible-playbook", "-i", "hosts.yml", *arguments, path], SETTINGS)


@pytest.mark.parametrize("playbook", names("playbooks/*.yml"))
def test_what_acts_on_hosts_first_asks_whether_there_are_any(playbook: str) -> None:
    plays = yaml.safe_load((ROOT / f"playbooks/{playbook}.yml").read_text())
    if any("bulkhead_hosts" in str(play.get("hosts")) for play in plays):
        assert plays[0]["ansible.builtin.import_playbook"] == "selected.yml"
    else:
        assert playbook in ("merge_reports", "selected", "site")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["-e", "bulkhead_hosts=nobody"], "bulkhead_hosts is nobody"),
        (["-e", "bulkhead_hosts=nobody", "--tags", "docker_daemon"], "bulkhead_hosts is nobody"),
        (["--limit", "web"], "is docker_hosts, and that is no host of this inventory with --limit web"),
        # As ansible-pull limits a play.
        (["--limit", "localhost,w,127.0.0.1"], "bulkhead_hosts is docker_hosts"),
    ],
)  # fmt: skip
def test_a_run_on_no_host_fails_and_says_how_to_name_some(
    tmp_path: Path, arguments: list[str], says: str
) -> None:
    done = run(tmp_path, "audit", *arguments)
    said = " ".join((done.stdout + done.stderr).split())
    assert done.returncode != 0
    assert says in said
    assert "Name a group or hosts with bulkhead_hosts" in said
    assert "Audit Docker hosts" not in said


@pytest.mark.parametrize("pattern", ["docker_hosts", "all:!web", "web:&all", "builders[0]"])
def test_a_run_on_some_goes_on_and_counts_no_others(tmp_path: Path, pattern: str) -> None:
    done = run(tmp_path, "recommend", "-e", f"bulkhead_hosts={pattern}")
    assert "Recommend options for the containers" in done.stdout
    assert "nothing was looked at" not in done.stdout
    counted = {
        line.split(" ")[0] for line in done.stdout.rpartition("PLAY RECAP")[2].split("\n")[1:]
    }
    meant = {"docker_hosts": {"d"}, "all:!web": {"d", "b"}, "web:&all": {"w"}, "builders[0]": {"b"}}
    assert counted - {""} == meant[pattern]
