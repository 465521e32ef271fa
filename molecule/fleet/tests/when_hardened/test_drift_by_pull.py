"""A hardened host compares itself by ansible-pull, with the units that the documentation gives."""

from __future__ import annotations

import json
import os
import pathlib
import re
import typing

import pytest

Json = dict[str, typing.Any]

testinfra_hosts = ["ansible://omega"]

PAGE = pathlib.Path(os.environ["MOLECULE_PROJECT_DIRECTORY"]) / "docs" / "how-to" / "drift.md"
KEPT = "/var/lib/bulkhead-drift"
UNSIGNED = """
cd /root/policy
cat >> playbooks/drift.yml << 'EOF'
- hosts: all
  tasks:
    - ansible.builtin.file: {path: /root/was-run, state: touch, mode: "0600"}
EOF
git commit --quiet --no-gpg-sign --all --message 'Run something else'
"""


@pytest.fixture(scope="module", autouse=True)
def _units(host: typing.Any) -> None:
    """Install the units of the page as they are, but for the address of the repository."""
    units = re.findall(r"```ini\n# (\S+)\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert [pathlib.Path(path).suffix for path, _ in units] == [".service", ".timer"]
    for path, text in units:
        here = text.replace("https://git.example.org/policy.git", "file:///root/policy")
        host.check_output("printf %%s %s > %s", here, path)
    host.check_output("mkdir -p /var/lib/prometheus/node-exporter && systemctl daemon-reload")


@pytest.fixture
def compare(host: typing.Any) -> typing.Callable[[], tuple[int, list[Json]]]:
    """Return a runner of the unit, whose answer is its exit code and what drifted."""

    def run() -> tuple[int, list[Json]]:
        host.run("systemctl start bulkhead-drift.service")
        show = "systemctl show --property=ExecMainStatus --value bulkhead-drift.service"
        code = int(host.check_output(show))
        report = json.loads(host.check_output(f"cat {KEPT}/reports/drift.json"))
        (compared,) = report["hosts"]
        return code, compared["findings"]

    return run


def test_a_host_finds_itself_as_it_was_hardened(host: typing.Any, compare: typing.Any) -> None:
    assert compare() == (0, [])
    told = host.file("/var/lib/prometheus/node-exporter/bulkhead-drift.prom").content_string
    assert 'bulkhead_drift_findings{host="omega",kind="changed"} 0' in told


def test_it_finds_what_somebody_changed(host: typing.Any, compare: typing.Any) -> None:
    host.check_output("sysctl --write kernel.yama.ptrace_scope=0")
    code, findings = compare()
    host.check_output("sysctl --write kernel.yama.ptrace_scope=1")
    assert code == 2
    assert ["kernel.yama.ptrace_scope" in str(finding) for finding in findings] == [True]


def test_what_nobody_signed_is_not_run(host: typing.Any, compare: typing.Any) -> None:
    written = f"stat --format %y {KEPT}/reports/drift.json"
    before = host.check_output(written)
    host.check_output(UNSIGNED)
    # Git has it in the checkout after the first run already; the second verifies it again.
    for _ in range(2):
        code, _ = compare()
        assert code != 0
        run = host.check_output("systemctl show --property=InvocationID --value bulkhead-drift")
        said = host.check_output(f"journalctl _SYSTEMD_INVOCATION_ID={run}")
        assert "Failed to verify GPG signature" in said
        assert "Compare Docker hosts" not in said
    assert not host.file("/root/was-run").exists
    assert host.check_output(written) == before


def test_the_timer_starts_it_every_day(host: typing.Any) -> None:
    host.check_output("systemctl enable --now bulkhead-drift.timer")
    next_run = host.check_output(
        "systemctl show --property=NextElapseUSecRealtime --value bulkhead-drift.timer"
    )
    assert next_run
