# Copyright: (c) 2026, the Bulkhead authors
# Apache License 2.0 (see LICENSE)
"""Variables as Ansible hands them to the roles: names that are misspelt, files that are not there."""

from __future__ import annotations

import json
import subprocess
import typing
from pathlib import Path

import pytest
import yaml

from ansible_collections.bulkhead.hardening.plugins.filter.misspelt_variables import (
    misspelt_variables,
)
from ansible_collections.bulkhead.hardening.plugins.plugin_utils.misspelt import misspelt
from tests.unit import observations as obs
from tests.unit.checkout import ROOT, SETTINGS, attempt, names

Json = dict[str, typing.Any]
ROLES = [role for role in names("roles/*") if (ROOT / f"roles/{role}/tasks/plan.yml").exists()]


def variables(role: str) -> list[str]:
    return list(yaml.safe_load((ROOT / f"roles/{role}/defaults/main.yml").read_text()))


KNOWN = [name for role in ROLES for name in variables(role)]


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("docker_daemon_restarts", "docker_daemon_restart"),
        ("docker_daemon_no_new_privilege", "docker_daemon_no_new_privileges"),
        ("docker_daemon_usern_remap", "docker_daemon_userns_remap"),
        ("docker_daemon_iccc", "docker_daemon_icc"),
        ("docker_seccomp_profile", "docker_seccomp_profiles"),
        ("docker_kernel_sysctl", "docker_kernel_sysctls"),
        ("docker_daemon_restart", None),
        ("docker_daemon_foo", None),
        ("docker_daemon_log", None),
        ("docker_daemons_restart", None),
        ("docker_users", None),
        ("docker_options", None),
        ("__docker_daemon_restarts", None),
        ("restarts", None),
    ],
)
def test_a_name_that_is_nearly_a_variables(name: str, meant: str | None) -> None:
    assert misspelt([name], KNOWN, ROLES) == ({} if meant is None else {name: meant})


def test_of_a_misspelt_name_the_right_one_is_told() -> None:
    said = misspelt_variables(["docker_x_modes", "docker_x_mode"], ["docker_x_mode"], ["docker_x"])
    assert len(said) == 1
    assert said[0].startswith("docker_x_modes has no effect")
    assert said[0].endswith("did you mean docker_x_mode?")


def test_what_the_roles_themselves_leave_is_not_called_misspelt() -> None:
    left = ["look", "plan", "act", "result", "recovery", "purge", "drift"]
    facts = [f"docker_harden_{name}" for name in left]
    assert misspelt([*KNOWN, *facts], KNOWN, ROLES) == {}


def play(place: Path, roles: list[str], given: Json) -> subprocess.CompletedProcess[str]:
    """Let roles plan for a stock host, with these variables, as a run does after its look."""
    include = {"name": "bulkhead.hardening.docker_harden", "tasks_from": "plan"}
    held = {"docker_harden_look": {"observation": obs.stock()}, "docker_harden_roles": roles}
    task = {"ansible.builtin.include_role": include, "vars": {**held, **given}}
    plays = [{"hosts": "localhost", "gather_facts": False, "connection": "local", "tasks": [task]}]
    (place / "play.yml").write_text(json.dumps(plays))
    return attempt(place, ["ansible-playbook", "-i", "localhost,", "play.yml"], SETTINGS)


@pytest.mark.parametrize(
    ("roles", "given", "says"),
    [
        (["docker_daemon"], {"docker_daemon_restarts": "never"}, "did you mean docker_daemon_restart?"),
        (["docker_seccomp"], {"docker_daemon_restarts": "never"}, "did you mean docker_daemon_restart?"),
        (["docker_kernel"], {"docker_kernel_module": {}}, "did you mean docker_kernel_modules?"),
        (["docker_kernel"], {"docker_harden_role": []}, "did you mean docker_harden_roles?"),
        (["docker_trust"], {"docker_trust_key": {"changed": False}}, "did you mean docker_trust_keys?"),
        (["docker_daemon", "docker_kernel"], {"docker_daemon_foo": 1, "docker_users": []}, None),
    ],
)  # fmt: skip
def test_a_run_names_what_may_be_misspelt_and_goes_on(
    tmp_path: Path, roles: list[str], given: Json, says: str | None
) -> None:
    done = play(tmp_path, roles, given)
    said = " ".join((done.stdout + done.stderr).split())
    assert done.returncode == 0, said
    assert (says or "") in said
    assert ("did you mean" in said) is (says is not None)


@pytest.mark.parametrize(
    ("role", "variable"),
    [("docker_apparmor", "docker_apparmor_profiles"), ("docker_selinux", "docker_selinux_modules")],
)
@pytest.mark.parametrize(
    ("value", "says"),
    [
        ({"one": {"file": "there"}, "web": {"file": "nope/web"}}, "[web].file is 'nope/web': give the path"),
        ({"web": "x"}, "is 'x': give a mapping"),
    ],
)  # fmt: skip
def test_a_file_or_a_form_that_is_wrong_names_the_variable(
    tmp_path: Path, role: str, variable: str, value: object, says: str
) -> None:
    (tmp_path / "there").write_text("(block x)\n")
    done = play(tmp_path, [role], {variable: value})
    said = " ".join((done.stdout + done.stderr).split())
    assert done.returncode != 0
    assert variable in said
    assert says in said


def test_files_that_are_there_are_read_whole(tmp_path: Path) -> None:
    (tmp_path / "web").write_text("profile web {\n}\n\n")
    done = play(
        tmp_path, ["docker_apparmor"], {"docker_apparmor_profiles": {"web": {"file": "web"}}}
    )
    assert done.returncode == 0, done.stdout + done.stderr
