"""The used host: nothing lost, limits in force, and what was too risky named."""

from __future__ import annotations

import json
import pathlib
import typing

import pytest

testinfra_hosts = ["ansible://used"]

Json = dict[str, typing.Any]
Call = typing.Callable[..., str]

#: The limit that each container has: its own where it names one, else the default of the profile.
LIMITS = {"limited": 33, "roomy": 2000, "unlimited": 2048, "web": 2048}


def pids_max(host: typing.Any, docker: Call, container: str) -> str:
    """Return what the kernel enforces on a container."""
    identity = docker(f"inspect --format '{{{{.Id}}}}' {container}")
    path = f"/sys/fs/cgroup/system.slice/docker-{identity}.scope/pids.max"
    return str(host.check_output(f"cat {path}"))


def test_containers_kept_their_processes(docker: Call, notes: pathlib.Path, name: str) -> None:
    stock = json.loads((notes / f"{name}.stock.json").read_text())["pids"]
    for container in ("web", "limited", "roomy", "unlimited"):
        now = docker(f"inspect --format '{{{{.State.Pid}}}}' {container}")
        assert int(now) == stock[f"/{container}"]


def test_the_service_still_answers(host: typing.Any) -> None:
    assert host.check_output("busybox wget -q -O - http://127.0.0.1:8080/index.html") == "hello"


def test_foreign_keys_were_kept(host: typing.Any) -> None:
    config = json.loads(host.file("/etc/docker/daemon.json").content_string)
    assert config["shutdown-timeout"] == 20
    assert config["labels"] == ["owner=somebody"]
    assert config["live-restore"] is True


def test_what_strict_would_change_is_named(document: typing.Callable[..., Json]) -> None:
    plan = document("converge", "after")["plan"]
    assert plan["profile"] == "compatible"
    held = {row["setting"]: row for row in plan["settings"] if row["state"] == "held_back"}
    assert {"icc", "no-new-privileges", "userland-proxy", "userns-remap"} <= set(held)
    assert set(held["userns-remap"]["affected"]) == {"web", "limited", "roomy", "unlimited", "idle"}
    assert held["userland-proxy"]["affected"] == ["web"]


def test_a_new_container_gets_the_default_limit(host: typing.Any, docker: Call) -> None:
    docker("run -d --rm --name fresh lab:1")
    try:
        assert pids_max(host, docker, "fresh") == "2048"
        # Of its first process: on Docker 20.10 those of "docker exec" take the shim's limits instead.
        pid = docker("inspect --format '{{.State.Pid}}' fresh")
        limits = host.check_output(f"grep 'Max open files' /proc/{pid}/limits").split()[3:5]
        assert limits == ["65536", "524288"]
    finally:
        docker("rm -f fresh")


@pytest.mark.parametrize("event", ["daemon-reload", "daemon-reexec"])
def test_explicit_limits_outlive_systemd(host: typing.Any, docker: Call, event: str) -> None:
    host.check_output(f"systemctl {event}")
    for container, limit in LIMITS.items():
        assert pids_max(host, docker, container) == str(limit), container


def test_logs_rotate(docker: Call) -> None:
    docker("create --name logs lab:1")
    try:
        config = json.loads(docker("inspect --format '{{json .HostConfig.LogConfig}}' logs"))
        assert config == {"Type": "json-file", "Config": {"max-file": "5", "max-size": "10m"}}
    finally:
        docker("rm logs")


def test_no_request_was_lost(host: typing.Any) -> None:
    """Within the 2 seconds that a client waits, and as long as this host took for one by itself.

    Emulated, it is slow by itself at times: that is what the requests to the container's own address
    show, which meet no rule of Docker's.
    """
    seen: dict[str, Json] = {}
    for way in ("outside", "bridge"):
        seen[way] = json.loads(host.file(f"/run/probe-{way}.json").content_string)
        assert seen[way]["asked"] > 100
        assert seen[way]["lost"] == 0, seen
    limit = 2.0 + seen["bridge"]["slowest"]
    assert [took for took in seen["outside"]["slow"] if took > limit] == [], seen
