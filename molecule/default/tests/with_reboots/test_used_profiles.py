"""What becomes of a profile while a container is under it: upgraded, no longer wanted, broken, booted."""

from __future__ import annotations

import copy
import os
import pathlib
import subprocess
import sys
import typing

import pytest
import yaml

testinfra_hosts = ["ansible://used"]

Json = dict[str, typing.Any]
Call = typing.Callable[..., str]

ROOT = pathlib.Path(os.environ["MOLECULE_PROJECT_DIRECTORY"])
EXAMPLE = ROOT / "roles" / "docker_apparmor" / "files" / "examples" / "nginx.yml"
#: Runs of the role alone.
ALONE: Json = {"docker_harden_roles": ["docker_apparmor"]}
FILE = "/etc/apparmor.d/docker-nginx"


def profiles(**files: list[str]) -> Json:
    """Return the example's profiles, with more of its files."""
    found = yaml.safe_load(EXAMPLE.read_text())["docker_apparmor_profiles"]
    found = typing.cast(Json, copy.deepcopy(found))
    found["docker-nginx"]["files"].update(files)
    return found


@pytest.fixture(scope="module", autouse=True)
def confined(request: pytest.FixtureRequest) -> typing.Iterator[None]:
    """Have a container under the profile, from BusyBox."""
    host = request.getfixturevalue("host")
    host.check_output(
        "docker run -d --name confined --restart always --security-opt apparmor=docker-nginx lab:1"
    )
    yield
    host.check_output("docker rm -f confined")


def policy(host: typing.Any) -> str:
    """Return the digest of what the kernel holds."""
    found = "/sys/kernel/security/apparmor/policy/profiles/docker-nginx.*/sha*"
    return str(host.check_output(f"cat {found}"))


def test_an_upgrade_holds_for_a_running_container(
    host: typing.Any, docker: Call, play: Call
) -> None:
    pid = docker("inspect --format '{{.State.Pid}}' confined")
    docker("exec confined touch /tmp/before")
    said = play("harden", docker_apparmor_profiles=profiles(deny_write=["/tmp/**"]), **ALONE)
    assert "replaced, for the containers under it at once) [confined]" in said
    run = host.run("docker exec confined touch /tmp/after")
    assert (run.rc, "Permission denied" in run.stderr) == (1, True)
    assert docker("inspect --format '{{.State.Pid}}' confined") == pid


def test_one_in_use_is_not_taken_away(host: typing.Any, play: Call) -> None:
    held = policy(host)
    said = play("harden", docker_apparmor_profiles={}, **ALONE)
    assert "BLOCKED AppArmor profile docker-nginx (no longer wanted" in said
    assert "[confined]" in said
    assert (policy(host), host.file(FILE).exists) == (held, True)


def test_a_syntax_error_leaves_the_host_as_it_is(host: typing.Any, play: Call) -> None:
    held, before = policy(host), host.check_output(f"stat -c '%i %Y %s' {FILE}")
    wrong = profiles()
    wrong["docker-nginx"]["raw"] = ["bogus rule"]
    said = play("harden", fails=True, docker_apparmor_profiles=wrong, **ALONE)
    assert "the profile docker-nginx is not valid: AppArmor parser error at line" in said
    assert policy(host) == held
    assert host.check_output(f"stat -c '%i %Y %s' {FILE}") == before


def test_complain_mode_tells_what_it_would_deny(host: typing.Any, docker: Call, play: Call) -> None:
    policy = {
        "docker_apparmor_profiles": profiles(deny_write=["/tmp/**"]),
        "docker_apparmor_mode": "complain",
        "docker_apparmor_default_profile": True,
        **ALONE,
    }
    play("harden", **policy)
    loaded = host.check_output("cat /sys/kernel/security/apparmor/profiles")
    assert {"docker-nginx (complain)", "docker-default (complain)"} <= set(loaded.splitlines())
    docker("exec confined touch /tmp/after")
    said = play("harden", **policy)
    assert "AppArmor profile docker-nginx (in complain mode; it would have denied" in said
    assert "/tmp (" in said


def test_a_boot_loads_them_before_containers_start(
    host: typing.Any, docker: Call, notes: pathlib.Path, name: str, play: Call
) -> None:
    policy = {
        "docker_apparmor_profiles": profiles(deny_write=["/tmp/**"]),
        "docker_apparmor_default_profile": True,
        **ALONE,
    }
    play("harden", **policy)
    lab = {**os.environ, "BULKHEAD_LAB_STATE": str(notes / "lab")}
    subprocess.run([sys.executable, "-m", "lab", "reboot", name], cwd=ROOT, env=lab, check=True)
    host.check_output("for i in $(seq 60); do docker top confined && exit; sleep 1; done; exit 1")
    pid = docker("inspect --format '{{.State.Pid}}' confined")
    assert "docker-nginx (enforce)" in host.check_output(f"cat /proc/{pid}/attr/apparmor/current")
    # A new file: the times of one that is there may be changed, AppArmor has no rule for that.
    run = host.run("docker exec confined touch /tmp/booted")
    assert (run.rc, "Permission denied" in run.stderr) == (1, True)
    # Docker's own profile lets everybody read this file; the hardened one was there before it.
    run = host.run("docker run --rm lab:1 cat /proc/kallsyms")
    assert (run.rc, "Permission denied" in run.stderr) == (1, True)
    # What the kernel took at the boot is what was loaded before, so nothing is left to do.
    assert " changed=0 " in play("harden", **policy)
