# Copyright: (c) 2026, the Bulkhead authors
# Apache License 2.0 (see LICENSE)
"""The collection in somebody else's project: their inventory, their configuration, their variables.

It is built and installed as users do it, and its roles run in check mode against a host that gives a
recorded answer, so nothing of the machine that the tests run on is read or changed.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit import answers
from tests.unit.checkout import ROOT, copy_to, names, run

COLLECTION = Path("collections/ansible_collections/bulkhead/hardening")
RECORDED = ROOT / "tests/fixtures/observations/trixie-stock-used.json"

#: Settings that differ from those of this checkout's ansible.cfg, and that are nobody's default.
THEIR_SETTINGS = """
[defaults]
collections_path = collections
roles_path = roles
inventory = hosts.ini
inject_facts_as_vars = False
gathering = smart
force_handlers = True
[ssh_connection]
pipelining = False
"""

THEIR_HOSTS = """
[web]
shop ansible_connection=local
[db]
[docker_hosts:children]
web
"""

#: Names that other projects use; a role of ours that read one of them would go astray.
THEIR_VARIABLES = {
    name: {"not": "ours"}
    for name in (
        *("plan", "policy", "profile", "options", "settings", "observation", "look", "result"),
        *(
            "report",
            "report_dir",
            "checks",
            "state",
            "containers",
            "docker",
            "docker_daemon_config",
        ),
        *("daemon", "docker_options", "pids_limit", "ulimits", "formats", "transaction"),
    )
}
#: Of geerlingguy.docker, which writes it to daemon.json.
THEIR_VARIABLES["docker_daemon_options"] = {"log-level": "debug"}

#: A role of theirs before, between and after ours.
THEIR_ROLE = """
- name: Say where we are
  ansible.builtin.debug:
    msg: "theirs knows {{ docker_harden_result.before.roles | default([]) }}, has {{ docker_daemon_options }}"
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a project of somebody else's into which the built artifact was installed."""
    place = project(tmp_path_factory.mktemp("artifact"))
    galaxy(place, "build", str(ROOT), "--output-path", str(place))
    (built,) = place.glob("*.tar.gz")
    galaxy(place, "install", "--offline", str(built))
    return with_recorded_host(place)


@pytest.fixture(scope="module")
def from_git(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return one into which the sources were installed from a repository."""
    source = tmp_path_factory.mktemp("source")
    copy_to(source)
    identity = ("-c", "user.name=Ann", "-c", "user.email=ann@example.org")
    for command in (("init", "--quiet"), ("add", "."), ("commit", "--quiet", "-m", "All")):
        subprocess.run(["git", *identity, *command], cwd=source, check=True)
    place = project(tmp_path_factory.mktemp("git"))
    galaxy(place, "install", "--offline", "--no-deps", f"git+file://{source}")
    return with_recorded_host(place)


def project(place: Path) -> Path:
    """Make somebody else's project."""
    (place / "ansible.cfg").write_text(THEIR_SETTINGS)
    (place / "hosts.ini").write_text(THEIR_HOSTS)
    (place / "group_vars").mkdir()
    (place / "group_vars/all.yml").write_text(
        json.dumps({**THEIR_VARIABLES, "ansible_python_interpreter": sys.executable})
    )
    (place / "roles/theirs/tasks").mkdir(parents=True)
    (place / "roles/theirs/tasks/main.yml").write_text(THEIR_ROLE)
    (place / "roles/theirs/meta").mkdir()
    (place / "roles/theirs/meta/main.yml").write_text("allow_duplicates: true\n")
    return place


def ansible(place: Path, *command: str) -> str:
    """Run a program of Ansible in a project as its owner does; return what it said."""
    settings = {"ANSIBLE_HOME": str(place / "home"), "ANSIBLE_NOCOLOR": "1"}
    return run(place, list(command), settings).stdout


def galaxy(place: Path, *arguments: str) -> None:
    """Run ansible-galaxy for collections."""
    ansible(place, "ansible-galaxy", "collection", *arguments)


def with_recorded_host(place: Path) -> Path:
    """Put a recorded host in the place of the machine that the tests run on."""
    answers.put(place / COLLECTION / "plugins/modules", json.loads(RECORDED.read_text()))
    return place


def play(place: Path, text: str, *arguments: str) -> str:
    """Run a playbook of theirs in check mode."""
    (place / "site.yml").write_text(text)
    return ansible(place, "ansible-playbook", "--check", *arguments, "site.yml")


SEVERAL = """
- hosts: web
  gather_facts: false
  roles:
    - theirs
    - bulkhead.hardening.docker_seccomp
    - role: theirs
      vars: {docker_daemon_options: {}}
    - role: bulkhead.hardening.docker_daemon
      docker_daemon_icc: false
    - theirs
"""

#: One role with a tag, in each way that a play can have it; one play each.
BY_TAG = """
- hosts: web
  gather_facts: false
  roles:
    - {role: bulkhead.hardening.docker_daemon, tags: [hardening]}

- hosts: web
  tasks:
    - name: Harden
      ansible.builtin.import_role:
        name: bulkhead.hardening.docker_daemon
      tags: [hardening]

- hosts: web
  tasks:
    - name: Harden
      ansible.builtin.include_role:
        name: bulkhead.hardening.docker_daemon
        apply: {tags: [hardening]}
      tags: [hardening]
"""


def test_roles_run_in_any_order_beside_roles_of_others(installed: Path) -> None:
    said = play(installed, SEVERAL)
    for known in ([], ["docker_seccomp"], ["docker_daemon"]):
        assert f"theirs knows {known}" in said
    # What docs/how-to/existing-inventories.md says of a role with a variable of the same name.
    assert "theirs knows ['docker_seccomp'], has {}" in said
    assert re.search(r"CHANGE +log-level: \S+ -> debug", said)


def test_a_role_runs_whole_or_not_at_all_by_its_tag(installed: Path) -> None:
    said = play(installed, BY_TAG, "--tags", "hardening")
    for task in ("Harden | look", "Harden | act", "Harden | keep what was planned and done"):
        assert said.count(f"docker_harden : {task}]") == 3, said
    for others in (("--tags", "other"), ("--skip-tags", "hardening")):
        assert "docker_harden" not in play(installed, BY_TAG, *others)


def test_the_audit_runs_in_check_mode_where_one_stands(installed: Path) -> None:
    given = {"docker_audit_fail_on": [], "bulkhead_hosts": "web", "ansible_become": False}
    command = ("ansible-playbook", "--check", "bulkhead.hardening.audit")
    ansible(installed, *command, "--extra-vars", json.dumps(given))
    result = json.loads((installed / "reports/audit/result.json").read_text())
    assert [host["state"] for host in result["hosts"]] == ["audited"]
    assert result["counts"]["fail"] > 0


def test_playbooks_are_found_by_their_full_names(installed: Path) -> None:
    found = names("playbooks/*.yml")
    given = json.dumps({"bulkhead_hosts": "web"})
    command = ("ansible-playbook", "--list-hosts", "--extra-vars", given)
    said = ansible(installed, *command, *(f"bulkhead.hardening.{name}" for name in found))
    for name in found:
        assert f"playbook: {installed / COLLECTION}/playbooks/{name}.yml" in said


def test_it_installs_from_a_repository_too(from_git: Path) -> None:
    assert not (from_git / COLLECTION / "tests").exists()
    assert "theirs knows ['docker_daemon']" in play(from_git, SEVERAL)
