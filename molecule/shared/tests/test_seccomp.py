"""Seccomp: the engine's own profile as Bulkhead knows it, and one that was composed from it."""

from __future__ import annotations

import json
import typing

import pytest

from ansible_collections.bulkhead.hardening.plugins.plugin_utils import (
    capabilities,
    seccomp_engines,
    seccomp_profile,
)

testinfra_hosts = ["ansible://used"]

Json = dict[str, typing.Any]
Call = typing.Callable[..., str]
PATH = "/etc/docker/seccomp/guarded.json"
OPTION = f"--security-opt seccomp={PATH}"


def answers(rules: list[Json]) -> set[tuple[str, str, int | None, str]]:
    """Return what rules say about each call, comparable whatever they are grouped by."""
    return {
        (
            name,
            rule["action"],
            rule.get("errnoRet") if rule["action"] != seccomp_engines.ALLOW else None,
            str([(a["index"], a["op"], a["value"]) for a in rule.get("args") or []]),
        )
        for rule in rules
        for name in rule["names"]
    }


@pytest.mark.parametrize(
    ("options", "mask"),
    [("", capabilities.DEFAULT), ("--cap-add ALL", capabilities.encode(["ALL"]))],
    ids=["default", "all-capabilities"],
)
def test_the_builtin_profile_is_what_this_engine_gives_to_runc(
    host: typing.Any, docker: Call, options: str, mask: str
) -> None:
    docker(f"run -d --name plain {options} lab:1")
    try:
        identity = docker("inspect --format '{{.Id}}' plain")
        path = f"/run/containerd/io.containerd.runtime.v2.task/moby/{identity}/config.json"
        given = json.loads(host.file(path).content_string)["linux"]["seccomp"]
    finally:
        docker("rm -f plain")
    version = docker("version --format '{{.Server.Version}}'")
    base = seccomp_engines.base(seccomp_engines.series(version))
    kernel = host.check_output("uname -r")
    caps = capabilities.decode(mask)
    kept = [r for r in base["syscalls"] if seccomp_profile.applies(r, caps, "x86_64", kernel)]
    assert answers(kept) == answers(given["syscalls"])
    assert base.get("defaultErrnoRet") == given.get("defaultErrnoRet")
    assert seccomp_engines.filter_architectures("x86_64") == given["architectures"]


def test_a_composed_profile_is_in_place(
    host: typing.Any, document: typing.Callable[..., Json]
) -> None:
    file = host.file(PATH)
    assert (file.user, file.group, file.mode) == ("root", "root", 0o644)
    plan = document("converge", "after")["plan"]
    rows = {row["setting"]: row for row in plan["settings"]}
    told = rows[f"seccomp profile {PATH}"]
    assert "system calls of x86_64 are blocked" in told["reason"]


def test_a_container_with_it_cannot_make_a_denied_call_and_can_everything_else(
    host: typing.Any, docker: Call
) -> None:
    docker(f"run -d --name guarded {OPTION} lab:1")
    try:
        docker("exec guarded sh -c 'echo text > /tmp/file && ls -l /tmp && cat /tmp/file'")
        denied = host.run("docker exec guarded busybox chmod 0700 /tmp/file")
        assert denied.rc != 0
        assert "Permission denied" in denied.stderr
        pid = docker("inspect --format '{{.State.Pid}}' guarded")
        status = host.check_output(f"grep Seccomp: /proc/{pid}/status")
        assert status.split() == ["Seccomp:", "2"]
    finally:
        docker("rm -f guarded")
    docker("run --rm lab:1 sh -c 'touch /tmp/file && busybox chmod 0700 /tmp/file'")
