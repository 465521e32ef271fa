# Copyright: (c) 2026, the Bulkhead authors
# Apache License 2.0 (see LICENSE)
"""Every command that a page shows is run: here, on two hosts that recite an answer, or where a table says.

Ansible, roles, planners and reports are the real ones. A command takes seconds, so `make docs` runs them.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit import answers
from tests.unit.checkout import ROOT, copy_to, project_files

PAGES = [path for path in project_files() if path.suffix == ".md"]

_BLOCK = re.compile(r"```console\n(.*?)```", re.DOTALL)
_COMMAND = re.compile(r"^[$#] (.+?)(?:  +#.*)?$", re.MULTILINE)

#: Commands for a real host, an archive or the lab, by their first words: what runs them, and how.
ELSEWHERE = {
    "make demo": ("Makefile", "tools/demo/run"),
    "make test": (".ci/run", "make test"),
    "ansible-galaxy collection install bulkhead-": (
        "tests/unit/test_import.py",
        '"install", "--offline"',
    ),
    "ansible-galaxy collection install git+file:": ("tests/unit/test_import.py", "git+file:"),
    "journalctl --unit 'bulkhead-": (
        "molecule/fleet/tests/when_hardened/test_drift_by_pull.py",
        "journalctl",
    ),
    "systemctl list-units 'bulkhead-": ("molecule/faults/tests/target.py", "systemctl list-units"),
    "ls /var/lib/bulkhead/transactions": (
        "molecule/faults/tests/test_faults.py",
        "/var/lib/bulkhead/transactions",
    ),
    "bulkhead-pull": ("molecule/trust/tests/test_trust.py", "bulkhead-pull"),
    "docker pull": ("molecule/trust/tests/test_trust.py", "docker pull"),
    "docker run --rm web cat": (
        "molecule/selinux/tests/test_confined.py",
        "/proc/self/attr/current",
    ),
    "python3 -m lab up": ("tools/demo/run", "python -m lab up"),
    "python3 -m lab ssh": ("tests/unit/test_lab.py", 'main(["ssh"'),
    "python3 -m lab down": ("tools/demo/run", "python -m lab down"),
    "ansible -i inventories/lab": ("tests/benchmarks/test_audit.py", '"-i", "inventories/lab"'),
}
#: These want what the tests cannot have: a container registry with the base image of an environment.
NOT_RUN = ["ansible-builder build --context build/environment --tag bulkhead"]

APPLIED = {
    "id": "20261124T053348Z-831864",
    "at": 1767323045,
    "outcome": "committed",
    "changes": ["/etc/docker/daemon.json: icc"],
    "reason": None,
    "undoes": None,
    "profile": "compatible",
    "keys": [],
}


def commands() -> list[str]:
    """Return each command of a block for the console once."""
    found: dict[str, None] = {}
    for page in PAGES:
        for block in _BLOCK.findall(page.read_text("utf-8")):
            found.update(dict.fromkeys(_COMMAND.findall(block)))
    return [command for command in found if command not in NOT_RUN]


def elsewhere(command: str) -> list[str]:
    """Return the first words in the table that this command begins with."""
    return [words for words in ELSEWHERE if command.startswith(words)]


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of the checkout with a fleet of two hosts, to which harden was applied once."""
    place = tmp_path_factory.mktemp("checkout")
    copy_to(place)
    collection = place / "playbooks/collections/ansible_collections/bulkhead/hardening"
    collection.parent.mkdir(parents=True, exist_ok=True)
    collection.symlink_to(place)
    here = {
        "ansible_connection": "local",
        "ansible_become": False,
        "ansible_python_interpreter": sys.executable,
    }
    hosts = {"app01.example.org": here, "app02.example.org": here}
    fleet = {"docker_hosts": {"hosts": hosts}, "staging": {"hosts": {"app01.example.org": {}}}}
    # The answer is always the same: what a run would still change, it could not verify.
    settings = (
        *("live_restore", "no_new_privileges", "userland_proxy", "seccomp_profile", "log_opts"),
        *("ulimits", "pids_limit", "file_modes", "userns_remap"),
    )
    policy = {f"docker_daemon_{name}": "unmanaged" for name in settings}
    fleet["docker_hosts"]["vars"] = {**policy, "docker_harden_roles": ["docker_daemon"]}
    (place / "inventories/mine").mkdir()
    (place / "inventories/mine/hosts.yml").write_text(json.dumps(fleet))
    return place


def recite(place: Path, uninstalled: bool) -> None:
    """Let the hosts answer as ones to which harden was applied, and after an act as after its undo."""
    look = json.loads((ROOT / "tests/fixtures/observations/audit-hardened.json").read_text())
    kept = {**look["bulkhead"], "state": "ok", "owned": {}, "open_transaction": None}
    after = {**kept, "transactions": [{**APPLIED, "outcome": "undone"}]}
    answers.put(
        place / "plugins/modules",
        {**look, "bulkhead": {**kept, "transactions": [APPLIED]}},
        {**look, "bulkhead": {"state": "absent"} if uninstalled else after},
    )


@pytest.mark.parametrize("command", [c for c in commands() if not elsewhere(c)])
def test_a_command_of_the_pages_works(checkout: Path, command: str) -> None:
    # Two hosts are a fleet for these tests; five hundred would take minutes.
    meant = command.replace("[0:499]", "[0:0]").replace("[500:]", "[1:]")
    recite(checkout, uninstalled="uninstall" in command)
    own = {name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")}
    done = subprocess.run(
        ["bash", "-c", meant],
        cwd=checkout,
        check=False,
        capture_output=True,
        text=True,
        timeout=300,
        env={**own, "INVENTORY": "inventories/mine"},
    )
    said = done.stdout + done.stderr
    if command.startswith("make prove"):
        # It is refused where nobody allowed it; molecule/shared/prove.yml has it allowed.
        assert "docker_proof_allowed is false for app01.example.org" in " ".join(said.split())
    else:
        assert done.returncode == 0, said[-3000:]


@pytest.mark.parametrize("command", [c for c in commands() if elsewhere(c)])
def test_what_is_not_run_here_is_run_where_the_table_says(command: str) -> None:
    (words,) = elsewhere(command)
    place, proof = ELSEWHERE[words]
    assert proof in (ROOT / place).read_text()


@pytest.mark.parametrize("words", ELSEWHERE)
def test_the_table_has_no_command_that_no_page_has(words: str) -> None:
    assert any(words in elsewhere(command) for command in commands())
