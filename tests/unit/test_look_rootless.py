"""The rootless daemon of a user, looked at and judged as what it is."""

from __future__ import annotations

import json
import os
import pathlib
import typing

import jsonschema
import pytest

from ansible_collections.bulkhead.hardening.plugins.module_utils import look
from ansible_collections.bulkhead.hardening.plugins.plugin_utils import audit_evaluate

from .checkout import ROOT
from .fake_engine import FakeEngine, FakeHost, fake_host
from .test_audit_checks import CHECKS, changed, verdicts

Json = dict[str, typing.Any]
SCHEMA = json.loads((ROOT / "docs/schemas/observation.schema.json").read_text())
ROOTLESS_PID = 5000
#: What moby's rootless daemon says beyond the system's own.
SECURITY = ["name=seccomp,profile=builtin", "name=rootless", "name=cgroupns"]


@pytest.fixture
def host() -> typing.Iterator[FakeHost]:
    """Give a host whose system's daemon runs, and a rootless one of ann."""
    with fake_host() as made:
        made.process(
            ROOTLESS_PID,
            ["dockerd", "--iptables=false"],
            environ="HOME=/a\0XDG_RUNTIME_DIR=/run/user/1000\0SECRET=hunter2\0",
            status="Name:\tdockerd\nUid:\t1000\t1000\t1000\t1000\n",
            uid_map="0 1000 1\n1 100000 65536\n",
            gid_map="0 1000 1\n1 100000 65536\n",
            cgroup="0::/user.slice/user-1000.slice/user@1000.service/app.slice/docker.service\n",
        )
        (made.base / f"proc/{ROOTLESS_PID}/exe").symlink_to("/usr/sbin/dockerd")
        own(made, "/a/.config/docker/daemon.json", '{"log-level": "info", "icc": false}')
        made.old("/a/.config/docker/daemon.json")
        made.old("/a/.config/docker")
        engine = FakeEngine(made.base / "run/user/1000/docker.sock")
        engine.answers["/info"]["SecurityOptions"] = SECURITY
        engine.answers["/info"]["DockerRootDir"] = "/a/.local/share/docker"
        engine.start()
        # The group docker, 102, as it is on the host; the daemon sets the sticky bit itself.
        os.chown(engine.socket, 1000, 100101)
        engine.socket.chmod(0o1660)
        try:
            yield made
        finally:
            engine.stop()


def own(host: FakeHost, path: str, content: str) -> None:
    """Write a file of ann, in directories of ann."""
    place: pathlib.Path = host.write(path, content)
    while place != host.base / "a":
        os.chown(place, 1000, 1000)
        place = place.parent


def looked_at(host: FakeHost, user: str = "ann") -> Json:
    found = look.observe(host, rootless_user=user)
    jsonschema.Draft202012Validator(SCHEMA).validate(found)
    return found


def test_everything_is_that_of_the_users_daemon(host: FakeHost) -> None:
    found = looked_at(host)
    engine = found["engine"]
    assert (engine["state"], engine["pid"], engine["rootless"]) == ("running", ROOTLESS_PID, True)
    assert engine["socket"] == "/run/user/1000/docker.sock"
    assert engine["config_file"] == "/a/.config/docker/daemon.json"
    assert engine["owner"] == {"user": "ann", "uid": 1000, "gid": 1000}
    assert engine["effective"]["iptables"]["value"] is False
    assert engine["effective"]["hosts"]["value"] == ["unix:///run/user/1000/docker.sock"]
    assert engine["effective"]["log_level"]["where"] == "/a/.config/docker/daemon.json"
    assert {row["path"] for row in found["files"] if row["control"]} == {
        "/a/.config/docker",
        "/a/.config/docker/daemon.json",
        "/run/user/1000/docker.sock",
        "/run/user/1000/docker/containerd/containerd.sock",
    }
    assert host.engine.requests == []  # the system's daemon
    assert [row["kind"] for row in found["daemons"]] == []
    assert "hunter2" not in json.dumps(found)


def test_it_is_judged_as_rootless(host: FakeHost) -> None:
    found = looked_at(host)
    found["lsm"]["apparmor"]["enabled"] = True
    expected = {
        "2.1": {"pass"}, "2.4": {"fail"}, "2.10": {"not_applicable"},  # remapped by its nature
        "1.1.2": {"pass"}, "1.1.7": {"not_applicable"}, "1.1.10": {"not_applicable"},
        "3.1": {"not_applicable"}, "3.5": {"pass"}, "3.15": {"pass"}, "3.16": {"pass"}, "3.17": {"pass"},
        "3.19": {"not_applicable"}, "3.23": {"not_applicable"},
    }  # fmt: skip
    policy = audit_evaluate.POLICY
    assert {check: set(verdicts(check, found, policy).values()) for check in expected} == expected


def test_a_socket_of_another_group_fails(host: FakeHost) -> None:
    os.chown(host.path("/run/user/1000/docker.sock"), 1000, 100)
    found = verdicts("3.15", looked_at(host), audit_evaluate.POLICY)
    assert found == {"/run/user/1000/docker.sock": "fail"}


def test_a_file_of_another_user_fails(host: FakeHost) -> None:
    os.chown(host.path("/a/.config/docker/daemon.json"), 1001, 1000)
    found = verdicts("3.17", looked_at(host), audit_evaluate.POLICY)
    assert found == {"/a/.config/docker/daemon.json": "fail"}


def test_files_of_a_user_are_not_right_for_the_systems_daemon(host: FakeHost) -> None:
    os.chown(host.path("/run/docker.sock"), 1000, 1000)
    found = verdicts("3.15", look.observe(host), audit_evaluate.POLICY)
    assert found == {"/run/docker.sock": "fail"}


@pytest.mark.parametrize("user", ["bob", "root"])
def test_a_user_without_a_daemon_is_an_error_everywhere(host: FakeHost, user: str) -> None:
    found = audit_evaluate.evaluate(
        list(CHECKS.values()), looked_at(host, user), audit_evaluate.POLICY
    )
    states = {row["check"]: row["verdict"] for row in found["results"]}
    assert {states[check] for check in ("2.2", "3.15", "5.4", "4.6", "BH-6")} == {"error"}
    daemon = next(row for row in found["results"] if row["check"] == "2.2")
    assert daemon["items"][0]["reason"].endswith(f"no rootless daemon of a user {user} runs")


def test_a_socket_behind_a_link_is_not_asked(host: FakeHost) -> None:
    """The directory is the user's: a link would let the system's daemon speak for theirs."""
    path = host.base / "run/user/1000/docker.sock"
    path.rename(path.with_name("other"))
    path.symlink_to("/run/docker.sock")
    found = looked_at(host)
    assert (found["engine"]["state"], found["containers"]) == ("broken", None)
    assert "lies behind a link" in found["engine"]["reason"]
    assert host.engine.requests == []


def test_a_recorded_one() -> None:
    """Of Debian 13: a plain container, a privileged one, one in the network that it calls the host's."""
    found, policy = changed({"on": "audit-rootless"})
    expected = {
        "2.1": {None: "pass"}, "2.3": {None: "fail"}, "2.15": {None: "pass"}, "1.1.2": {None: "pass"},
        "3.15": {"/run/user/1000/docker.sock": "pass"}, "3.16": {"/run/user/1000/docker.sock": "pass"},
        "4.1": {"inside": "pass", "priv": "pass", "nethost": "pass"},  # root inside is the user
        "5.2": dict.fromkeys(("inside", "priv", "nethost"), "not_applicable"),
        "5.5": {"inside": "pass", "priv": "fail", "nethost": "pass"},
        "5.10": {"inside": "pass", "priv": "pass", "nethost": "pass"},  # the daemon's, not the host's
        "BH-10": {None: "manual"},
    }  # fmt: skip
    assert {check: verdicts(check, found, policy) for check in expected} == expected
    judged = audit_evaluate.evaluate(list(CHECKS.values()), found, policy)
    assert "error" not in {row["verdict"] for row in judged["results"]}
