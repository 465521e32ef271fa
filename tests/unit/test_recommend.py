"""Tests of what is recommended for running containers: options, reasons, evidence, hostile names."""

from __future__ import annotations

import json
import pathlib
import typing

import pytest
import yaml
from ansible.errors import AnsibleFilterError

from ansible_collections.bulkhead.hardening.plugins.filter.container_recommendations import (
    container_recommendations,
)
from ansible_collections.bulkhead.hardening.plugins.plugin_utils import recommend

Json = dict[str, typing.Any]
RECORDED = pathlib.Path(__file__).parents[1] / "fixtures" / "observations"
DEFAULT = "00000000a80425fb"
NONE = "0" * 16


def process(uid: int = 0, mask: str = DEFAULT, comm: str = "app") -> Json:
    return {"comm": comm, "host_uid": uid, "cap_eff": mask}


def container(name: str = "web", **more: typing.Any) -> Json:
    """Return a running container of root with the engine's defaults; dictionaries update its parts."""
    found: Json = {
        "id": "0123456789abcdef",
        "name": name,
        "labels": {},
        "processes": [process()],
        "listening": None,
        "layer_writes": {"count": 0, "directories": []},
        "config": {"user": "", "ports": [], "cap_add": [], "pids_limit": None, "memory": 0},
        "kernel": {
            "cap_bnd": DEFAULT,
            "cap_eff": DEFAULT,
            "host_uid": 0,
            "no_new_privs": False,
            "rootfs_readonly": False,
            "pids_current": 3,
            "pids_max": 2048,
            "memory_current": 70 * 2**20,
            "seccomp": 2,
            "lsm_label": "docker-default (enforce)",
        },
    }
    for key, value in more.items():
        found[key] = {**found[key], **value} if isinstance(found[key], dict) and value else value
    return found


def one(item: Json, **policy: int) -> Json:
    look = {"containers": [item], "lsm": {"apparmor": {"enabled": True}}}
    (found,) = recommend.recommendations(look, policy)
    return found


def options(item: Json, **policy: int) -> Json:
    return {option["name"]: option["value"] for option in one(item, **policy)["options"]}


def test_a_plain_container_gets_every_option() -> None:
    assert options(container()) == {
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges:true"],
        "read_only": True,
        "pids_limit": 64,
        "mem_limit": "192m",
    }


def test_one_that_complies_gets_none() -> None:
    kernel = {"cap_bnd": NONE, "cap_eff": NONE, "no_new_privs": True, "rootfs_readonly": True}
    config = {"pids_limit": 64, "memory": 2**26}
    good = container(kernel=kernel, config=config, processes=[process(mask=NONE)])
    found = one(good)
    assert found["options"] == found["notes"] == []
    assert yaml.safe_load(found["compose"]) == {}


def test_limits_follow_use_and_factors() -> None:
    busy = container(kernel={"pids_current": 100, "memory_current": 1})
    assert options(busy, pids_factor=3, memory_factor=1)["pids_limit"] == 300
    assert options(busy)["mem_limit"] == "64m"
    assert "pids_limit" not in options(container(kernel={"pids_current": 600}))


@pytest.mark.parametrize(
    ("more", "needed"),
    [
        ({}, {}),
        (
            {"config": {"cap_add": ["CAP_SYS_TIME"]}, "kernel": {"cap_bnd": "00000000aa0425fb"}},
            {"SYS_TIME"},
        ),
        # Added, but not in the bounding set: a user namespace, or a kernel that lacks it.
        ({"config": {"cap_add": ["SYS_TIME"]}}, set()),
        (
            {"processes": [process(), process(33, NONE, "worker")]},
            {"CHOWN", "KILL", "SETGID", "SETUID"},
        ),
        ({"config": {"ports": [{"container_port": 80}]}}, {"NET_BIND_SERVICE"}),
        ({"config": {"ports": [{"container_port": 8080}]}}, set()),
        ({"listening": [{"port": 443}]}, {"NET_BIND_SERVICE"}),
        # No process of it holds anything, so it needs nothing, whatever port it has.
        (
            {
                "config": {"user": "1000", "ports": [{"container_port": 80}]},
                "kernel": {"cap_eff": NONE, "host_uid": 1000},
                "processes": [process(1000, NONE)],
            },
            set(),
        ),
    ],
)
def test_what_a_container_seems_to_need(more: Json, needed: set[str]) -> None:
    found = recommend.needed_capabilities(container(**more))
    assert set(found) == set(needed)
    assert all(found.values())


def test_what_is_needed_is_added_with_its_evidence() -> None:
    found = one(container(processes=[process(), process(33, NONE, "worker")]))
    add = next(option for option in found["options"] if option["name"] == "cap_add")
    assert add["value"] == ["CHOWN", "KILL", "SETGID", "SETUID"]
    assert "its processes run as 2 users (app, worker)" in add["evidence"]
    assert "--cap-drop ALL\n--cap-add CHOWN --cap-add KILL" in found["docker_run"]


def test_what_is_beyond_the_default_is_named() -> None:
    found = one(container(kernel={"cap_bnd": "00000000a82425fb"}))
    assert "beyond the engine's default: CAP_SYS_ADMIN" in found["options"][0]["evidence"]


def test_it_is_said_that_use_is_not_recorded() -> None:
    assert "does not record the use of capabilities" in one(container())["docker_run"]


@pytest.mark.parametrize(
    ("written", "says"),
    [
        (None, "was not read"),
        ({"count": 2, "directories": ["/var/cache", "/run"]}, "in /var/cache, /run"),
    ],
)
def test_one_that_writes_keeps_its_root_writable(written: Json | None, says: str) -> None:
    found = one(container(layer_writes=written))
    assert "read_only" not in [option["name"] for option in found["options"]]
    assert any(says in note for note in found["notes"])


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"config": {"privileged": True}, "kernel": {"seccomp": 0}}, "Leave --privileged out"),
        ({"kernel": {"seccomp": 0}}, "take seccomp=unconfined out"),
        ({"kernel": {"lsm_label": "unconfined"}}, "take apparmor=unconfined out"),
        ({"config": {"user": "1000"}}, "sudo or su"),
        ({"config": {"cap_add": ["SYS_TIME"]}}, "SYS_TIME was added by name"),
    ],
)
def test_what_an_override_cannot_do_is_told(more: Json, says: str) -> None:
    found = one(container(**more))
    assert any(says in note for note in found["notes"])
    assert says in found["compose"]


def test_a_privileged_container_is_made_an_ordinary_one() -> None:
    found = one(container(config={"privileged": True}))
    assert yaml.safe_load(found["compose"])["services"]["web"]["privileged"] is False
    lines = [line for line in found["docker_run"].splitlines() if not line.startswith("#")]
    assert lines[0] == "--cap-drop ALL"


def test_selinux_that_was_switched_off_is_told() -> None:
    look = {
        "containers": [container(config={"label_disabled": True})],
        "lsm": {"selinux": {"enabled": True}},
    }
    (found,) = recommend.recommendations(look, {})
    assert any("label=disable" in note for note in found["notes"])


def test_an_override_is_for_the_service_of_compose() -> None:
    found = one(container("shop-web-1", labels={"com.docker.compose.service": "web"}))
    document = yaml.safe_load(found["compose"])
    assert list(document["services"]) == ["web"]
    assert document["services"]["web"]["security_opt"] == ["no-new-privileges:true"]


@pytest.mark.parametrize(
    "hostile", ["../../etc/x", "a\n  privileged: true", "\x1b[2J", "x: {y", "{{ 7 * 7 }}", "‮moc"]
)
def test_hostile_names_are_neutralised(hostile: str) -> None:
    item = container(
        hostile,
        labels={"com.docker.compose.service": hostile},
        processes=[process(comm=hostile), process(5, comm=hostile)],
        layer_writes={"count": 1, "directories": [hostile]},
    )
    found = one(item)
    assert "/" not in found["file"]
    assert list(yaml.safe_load(found["compose"])["services"]) == ["container-0123456789ab"]
    for text in (found["compose"], found["docker_run"]):
        assert all(character.isprintable() for character in text.replace("\n", ""))
        assert "privileged: true" not in [line.strip() for line in text.splitlines()]
        comments = [line for line in text.splitlines() if line.startswith("#")]
        assert len(comments) == 2 + 2 * len(found["options"]) + len(found["notes"])


@pytest.mark.parametrize(
    "policy", [[1], {"memory_factor": 0}, {"memory_factor": True}, {"pids_factor": "4.5"}, {"x": 1}]
)
def test_a_wrong_setting_is_refused(policy: object) -> None:
    with pytest.raises(AnsibleFilterError, match="docker_recommend"):
        container_recommendations({"containers": []}, typing.cast(Json, policy))


def test_a_look_without_containers_is_refused_with_the_reason() -> None:
    unread = [{"section": "containers", "item": None, "reason": "docker.service is inactive"}]
    with pytest.raises(AnsibleFilterError, match=r"docker\.service is inactive"):
        container_recommendations({"containers": None, "unread": unread})
    with pytest.raises(AnsibleFilterError, match="look again"):
        container_recommendations({"containers": [{"name": 1, "config": 2, "kernel": 3}]})


def test_recorded_containers() -> None:
    look = json.loads((RECORDED / "audit-bad.json").read_text())
    found = {item["container"]: item for item in recommend.recommendations(look, {})}
    assert "never-started" not in found
    names = {option["name"]: option["value"] for option in found["cap-sys-admin"]["options"]}
    assert names["cap_add"] == ["SYS_ADMIN"]
    assert any("--privileged out" in note for note in found["privileged"]["notes"])
    assert any("seccomp=unconfined" in note for note in found["seccomp-off"]["notes"])
    assert any("apparmor=unconfined" in note for note in found["apparmor-off"]["notes"])
    assert "NET_BIND_SERVICE" in str(found["port-low"]["options"])
    good = [option["name"] for option in found["good"]["options"]]
    assert "cap_add" not in good
