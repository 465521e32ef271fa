"""Audit rules: in the kernel's list, beside those of others, and recording what they should."""

from __future__ import annotations

import typing

testinfra_hosts = ["ansible://all"]

Json = dict[str, typing.Any]


def kernel(host: typing.Any) -> list[str]:
    return str(host.check_output("auditctl -l")).splitlines()


def test_the_kernel_lists_the_rules(host: typing.Any) -> None:
    rules = kernel(host)
    for path in ("/usr/sbin/dockerd", "/etc/docker", "/run/containerd", "/run/docker.sock"):
        assert f"-w {path} -p wa -k docker" in rules
    assert (
        "-a always,exit -S all -F dir=/var/lib/docker -F perm=wa -F auid!=-1 -F key=docker" in rules
    )
    # By path and not by directory: what lies directly in it.
    assert "-w /var/lib/docker -p wa -k docker" in rules


def test_rules_of_others_were_kept(host: typing.Any) -> None:
    assert "-w /etc/hostname -p wa -k somebody" in kernel(host)


def test_the_rules_are_placed_for_the_next_boot(host: typing.Any) -> None:
    rules = host.file("/etc/audit/rules.d/50-bulkhead-docker.rules")
    assert (rules.user, rules.group, rules.mode) == ("root", "root", 0o640)
    dropin = host.check_output("systemctl show docker.service --property ExecStartPost")
    assert "/etc/audit/rules.d/50-bulkhead-docker.late" in dropin


def test_a_change_is_recorded(host: typing.Any) -> None:
    host.check_output("touch /etc/docker/recorded && rm /etc/docker/recorded")
    found = host.check_output("ausearch --input-logs --key docker --start recent --raw")
    assert 'name="/etc/docker/recorded"' in found


def test_the_verdicts_are_told(document: typing.Callable[..., Json]) -> None:
    observation = document("converge", "after")["observation"]
    assert observation["audit"]["lost"] == 0
    plan = document("converge", "after")["plan"]
    audits = [row for row in plan["settings"] if row["setting"].startswith("audit of /")]
    assert len(audits) > 10
    assert {row["state"] for row in audits} == {"change"}
