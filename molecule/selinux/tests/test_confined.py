"""A host that enforces from its boot on: what the run did to its policy, and what containers then may."""

from __future__ import annotations

import json
import os
import pathlib
import re
import subprocess
import sys
import typing

import pytest

testinfra_hosts = ["ansible://confined"]

Json = dict[str, typing.Any]
Call = typing.Callable[..., str]
ROOT = pathlib.Path(os.environ["MOLECULE_PROJECT_DIRECTORY"])

#: What the scenario's converge.yml sets.
POLICY: Json = {
    "docker_selinux_enforcing": True,
    "docker_selinux_booleans": {"container_use_nfs": True},
    "docker_selinux_modules": {"lab_reader": {"read": ["var_t"]}},
}
#: What the scenario's side_effect.yml sets.
PROOF: Json = {
    "docker_proof_attacks": ["selinux", "work_labelled_volume", "work_storage"],
    "docker_proof_variants": ["default", "weakened"],
}


def outcomes(folder: pathlib.Path, variant: str) -> dict[str, str]:
    rows = json.loads((folder / "confined.json").read_text())["attacks"]
    return {row["id"]: row["outcome"] for row in rows if row["variant"] == variant}


def selinux(document: typing.Callable[..., Json]) -> Json:
    return typing.cast(Json, document("converge", "after")["observation"]["lsm"]["selinux"])


def denied(host: typing.Any) -> list[tuple[float, str]]:
    """Return when what was denied, but for Ansible's login.

    Debian's policy does not let its own sshd keep wtmp.db.
    """
    log = host.check_output("cat /var/log/audit/audit.log")
    return [
        (float(moment), what)
        for moment, what in re.findall(r"audit\((\d+\.\d+):\d+\): avc:  denied (.*)", log)
        if "scontext=system_u:system_r:sshd_t:" not in what
    ]


def mode(host: typing.Any) -> tuple[bool, str]:
    """Return whether the kernel denies now, and what it will do after a boot."""
    config = host.file("/etc/selinux/config").content_string
    found = re.search(r"(?m)^SELINUX=(\w+)$", config)
    return host.check_output("cat /sys/fs/selinux/enforce") == "1", found.group(1) if found else ""


# -- the transaction -----------------------------------------------------------------------------
def test_one_transaction_did_it_with_one_restart(document: typing.Callable[..., Json]) -> None:
    transaction = document("converge", "after")["transaction"]
    assert (transaction["outcome"], transaction["daemon_restarts"]) == ("committed", 1)


def test_nothing_was_denied_up_to_its_end(
    host: typing.Any, document: typing.Callable[..., Json]
) -> None:
    end = document("converge", "after")["observation"]["collected_at"]
    denials = denied(host)
    assert [what for moment, what in denials if moment <= end] == []
    assert denials, "the attacks that came later must have left denials, or nothing is logged"
    assert [row for row in selinux(document)["denials"] if row["source"] != "sshd_t"] == []


def test_the_policy_shows_what_was_set(
    host: typing.Any, document: typing.Callable[..., Json]
) -> None:
    found = selinux(document)
    assert found["types_known"] is True
    assert (found["enforcing"], found["configured"]) == (True, "enforcing")
    assert found["booleans"]["container_use_nfs"] is True
    assert found["modules"]["lab_reader"] == 400
    assert host.check_output("cat /sys/fs/selinux/booleans/container_use_nfs").startswith("1")


def test_data_of_the_remapped_daemon_survives_a_relabel(host: typing.Any, docker: Call) -> None:
    root = docker("info --format '{{.DockerRootDir}}'")
    assert re.fullmatch(r"/var/lib/docker/\d+\.\d+", root)
    docker("run --rm --volume kept:/data lab:1 touch /data/file")
    command = f"stat -c %C {root} {root}/overlay2 {root}/volumes/kept/_data {root}/volumes/kept/_data/file"
    before = host.check_output(command)
    assert "container_ro_file_t" in before
    assert host.check_output(f"restorecon -R -v {root}/overlay2 {root}/volumes/kept/_data") == ""
    assert host.check_output(command) == before


# -- containers ----------------------------------------------------------------------------------
def test_containers_are_confined_each_by_itself(docker: Call) -> None:
    labels = {docker("run --rm lab:1 cat /proc/self/attr/current").strip("\0") for _ in range(2)}
    pattern = r"system_u:system_r:container_t:s0:c\d+,c\d+"
    assert all(re.fullmatch(pattern, label) for label in labels)
    assert len(labels) == 2
    assert "name=selinux" in docker("info --format '{{.SecurityOptions}}'")


def test_a_type_of_its_own_reads_what_its_description_says(host: typing.Any, docker: Call) -> None:
    """In a directory that containers may enter lies a file of the host's."""
    host.check_output(
        "mkdir -p /srv/shown && chcon -t container_file_t /srv/shown && echo hello > /srv/shown/file"
        " && chcon -t var_t /srv/shown/file && chmod 755 /srv /srv/shown"
    )
    show = "--volume /srv/shown:/shown lab:1 cat /shown/file"
    denied = host.run(f"docker run --rm {show}")
    assert (denied.rc, "Permission denied" in denied.stderr) == (1, True)
    assert docker(f"run --rm --security-opt label=type:lab_reader.process {show}") == "hello"


def assert_held(folder: pathlib.Path) -> None:
    """Assert that SELinux stopped each attack, that nothing else would have, and that work goes on."""
    found, weakened = outcomes(folder, "default"), outcomes(folder, "weakened")
    assert {found["selinux_host_file"], found["selinux_neighbour_file"]} == {"held"}
    assert {weakened["selinux_host_file"], weakened["selinux_neighbour_file"]} == {"breached"}
    work = {outcome for attack, outcome in found.items() if attack.startswith("work_")}
    assert work == {"works"}


def test_attacks_hold_and_succeed_without_a_label(notes: pathlib.Path) -> None:
    assert_held(notes / "proof")


# -- a boot --------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def rebooted(request: pytest.FixtureRequest) -> None:
    notes = pathlib.Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"])
    lab = {**os.environ, "BULKHEAD_LAB_STATE": str(notes / "lab")}
    command = [sys.executable, "-m", "lab", "reboot", "confined"]
    subprocess.run(command, cwd=ROOT, env=lab, check=True)


@pytest.mark.usefixtures("rebooted")
def test_a_boot_finds_it_all_again(
    host: typing.Any, docker: Call, play: typing.Callable[..., str]
) -> None:
    assert host.check_output("cat /sys/fs/selinux/enforce") == "1"
    assert host.check_output("cat /sys/fs/selinux/booleans/container_use_nfs").startswith("1")
    label = docker("run --rm lab:1 cat /proc/self/attr/current")
    assert "container_t" in label
    said = play("harden", **POLICY)
    assert " changed=0 " in said
    assert " failed=0 " in said


@pytest.mark.usefixtures("rebooted")
def test_attacks_hold_after_the_boot(notes: pathlib.Path, play: typing.Callable[..., str]) -> None:
    folder = notes / "proof-after-boot"
    play("prove", docker_proof_allowed=True, docker_proof_report_dir=str(folder), **PROOF)
    assert_held(folder)


# -- back ----------------------------------------------------------------------------------------
def test_a_rollback_takes_all_but_the_enforcing_back(
    host: typing.Any, docker: Call, play: typing.Callable[..., str]
) -> None:
    said = play("rollback", bulkhead_rollback="last")
    assert " failed=0 " in said
    assert "name=selinux" not in docker("info --format '{{.SecurityOptions}}'")
    assert host.check_output("cat /sys/fs/selinux/booleans/container_use_nfs").startswith("0")
    assert "lab_reader" not in host.check_output("semodule --list=full")
    assert docker("info --format '{{.DockerRootDir}}'") == "/var/lib/docker"
    assert not host.file("/etc/docker/daemon.json").exists
    # Bulkhead switches it on where it is asked to, and never off.
    assert mode(host) == (True, "enforcing")


# -- from permissive to enforcing, with a data root elsewhere --------------------------------------
def test_a_permissive_host_stays_so_unless_asked(
    host: typing.Any, docker: Call, play: typing.Callable[..., str]
) -> None:
    permissive = "setenforce 0 && sed -i s/^SELINUX=.*/SELINUX=permissive/ /etc/selinux/config"
    host.check_output(permissive)
    play("harden", docker_harden_roles=["docker_selinux"])
    assert mode(host) == (False, "permissive")
    assert "name=selinux" in docker("info --format '{{.SecurityOptions}}'")


def test_it_enforces_when_asked_and_works_in_the_data_root_of_then(
    host: typing.Any, docker: Call, play: typing.Callable[..., str]
) -> None:
    play(
        "harden",
        docker_harden_roles=["docker_daemon", "docker_selinux"],
        docker_daemon_options={"data-root": "/srv/docker"},
        docker_daemon_options_accept_hidden_data=True,
        docker_selinux_enforcing=True,
    )
    assert mode(host) == (True, "enforcing")
    root = docker("info --format '{{.DockerRootDir}}'")
    assert re.fullmatch(r"/srv/docker/\d+\.\d+", root)
    host.check_output("tar -C /usr -c bin/busybox | docker import - bare:1")
    docker("run --rm --volume kept:/data bare:1 busybox touch /data/file")
    assert ":container_t:" in docker("run --rm bare:1 busybox cat /proc/self/attr/current")
    relabel = f"restorecon -R -n -v {root}/overlay2 {root}/volumes/kept/_data"
    assert host.check_output(relabel) == ""


def test_a_rollback_brings_the_daemon_home_without_a_denial(
    host: typing.Any, docker: Call, play: typing.Callable[..., str]
) -> None:
    before = denied(host)
    play("rollback", bulkhead_rollback="last", docker_harden_rollback_hides_data=True)
    assert docker("info --format '{{.DockerRootDir}}'") == "/var/lib/docker"
    assert host.check_output("stat -c %C /srv/docker").split(":")[2] == "var_t"
    assert host.run("cat /etc/selinux/default/contexts/files/file_contexts.subs").stdout == ""
    assert mode(host) == (True, "enforcing")
    assert [what for _, what in denied(host)[len(before) :]] == []
