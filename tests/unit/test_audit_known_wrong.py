"""Hosts of which other auditors say the wrong thing. Each was seen in a public tool."""

from __future__ import annotations

import json
import os
import pathlib
import typing

import pytest

from ansible_collections.bulkhead.hardening.plugins.module_utils import look
from ansible_collections.bulkhead.hardening.plugins.plugin_utils import audit_evaluate, audit_run
from ansible_collections.bulkhead.hardening.plugins.plugin_utils.plan import PolicyError

from .fake_engine import DAEMON_PID, FakeHost, fake_host, inspection
from .test_audit_checks import CHECKS, changed, verdicts

Json = dict[str, typing.Any]
DAEMON = "/usr/sbin/dockerd"
ON = "audit-hardened"
GOOD = "containers[name=good]"


@pytest.fixture
def host() -> typing.Iterator[FakeHost]:
    with fake_host() as made:
        yield made


def judged(host: FakeHost, check: str, **policy: typing.Any) -> set[str]:
    """Look at a host and return the verdicts of one check."""
    return set(verdicts(check, look.observe(host), audit_run.policy(policy)).values())


def configured(host: FakeHost, text: str) -> None:
    host.write("/etc/docker/daemon.json", text)
    host.old("/etc/docker/daemon.json")
    host.old("/etc/docker")


# -- the daemon ------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("flags", "verdict"),
    [
        (["-H", "tcp://0.0.0.0:2375"], "fail"),
        (["-H", "tcp://0.0.0.0:2375", "--tlsverify=false"], "fail"),  # TLS, but for everybody
        (["-H", "tcp://0.0.0.0:2376", "--tlsverify"], "pass"),
        (["-H", "tcp://0.0.0.0:2376", "--tls"], "pass"),  # without tlsverify it verifies too
        (["-H", "unix:///run/docker.sock"], "not_applicable"),
    ],
)
def test_an_api_on_tcp_by_a_flag(host: FakeHost, flags: list[str], verdict: str) -> None:
    host.process(DAEMON_PID, [DAEMON, *flags])
    assert judged(host, "2.8") == {verdict}


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ('{"hosts": ["tcp://0.0.0.0:2376"], "tlsverify": true}', "pass"),
        ('{\n "hosts": [\n  "tcp://0.0.0.0:2375"\n ]\n}', "fail"),
        (
            '{"hosts": ["unix:///run/docker.sock"], "log-opts": {"tag": "tcp://x"}}',
            "not_applicable",
        ),
    ],
)
def test_an_api_on_tcp_by_the_file(host: FakeHost, text: str, verdict: str) -> None:
    host.process(DAEMON_PID, [DAEMON])
    configured(host, text)
    assert judged(host, "2.8") == {verdict}


def test_an_api_on_tcp_by_the_socket_unit_alone(host: FakeHost) -> None:
    host.socket_unit["Listen"] = ["/run/docker.sock (Stream)", "0.0.0.0:2375 (Stream)"]
    assert judged(host, "2.8") == {"fail"}


@pytest.mark.parametrize(
    ("flag", "verdict"),
    [("--log-level=debug", "fail"), ("-D", "fail"), ("--log-level=info", "pass")],
)
def test_the_log_level_by_a_flag(host: FakeHost, flag: str, verdict: str) -> None:
    host.engine.answers["/info"]["Debug"] = flag == "-D"
    host.process(DAEMON_PID, [DAEMON, flag])
    assert judged(host, "2.3") == {verdict}


def test_debug_in_the_file(host: FakeHost) -> None:
    host.engine.answers["/info"]["Debug"] = True
    configured(host, '{"debug": true}')
    assert judged(host, "2.3") == {"fail"}


@pytest.mark.parametrize(("text", "verdict"), [("false", "fail"), ("true", "pass")])
def test_the_effective_value_counts_and_not_a_shell(
    host: FakeHost, text: str, verdict: str
) -> None:
    configured(host, '{"iptables": %s}' % text)
    assert judged(host, "2.4") == {verdict}


@pytest.mark.parametrize(("allowed", "verdict"), [("false", "pass"), ("true", "fail")])
def test_traffic_between_containers_by_the_bridge_itself(
    host: FakeHost, allowed: str, verdict: str
) -> None:
    options = host.engine.answers["/networks"][0]["Options"]
    options["com.docker.network.bridge.enable_icc"] = allowed
    configured(host, '{\n  "icc":\n    %s\n}' % allowed)
    host.write("/proc/sys/net/bridge/bridge-nf-call-iptables", "1\n")
    assert judged(host, "2.2") == {verdict}
    host.write("/proc/sys/net/bridge/bridge-nf-call-iptables", "0\n")
    assert judged(host, "2.2") == {"fail"}


def test_a_registry_without_tls_in_the_file(host: FakeHost) -> None:
    configured(host, '{"insecure-registries": [\n"registry.example:5000"\n]}')
    indexes = host.engine.answers["/info"]["RegistryConfig"]["IndexConfigs"]
    indexes["registry.example:5000"] = {"Name": "registry.example:5000", "Secure": False}
    assert judged(host, "2.5") == {"fail"}


@pytest.mark.parametrize("flag", ["--iptables=0", "--iptables=f", "--iptables=FALSE"])
def test_booleans_as_the_daemon_reads_them(host: FakeHost, flag: str) -> None:
    host.process(DAEMON_PID, [DAEMON, flag])
    assert judged(host, "2.4") == {"fail"}


def test_the_loopback_registries_that_are_always_there(host: FakeHost) -> None:
    host.engine.answers["/info"]["RegistryConfig"] = {
        "InsecureRegistryCIDRs": ["::1/128", "127.0.0.0/8"],
        "IndexConfigs": {"docker.io": {"Name": "docker.io", "Secure": True}},
    }
    assert judged(host, "2.5") == {"pass"}


def test_a_cgroup_parent_in_the_file(host: FakeHost) -> None:
    configured(host, '{"cgroup-parent": "/foobar"}')
    assert judged(host, "2.11") == {"manual"}


@pytest.mark.parametrize("driver", ["none", "local", "json-file"])
def test_logs_that_stay_on_the_host(host: FakeHost, driver: str) -> None:
    host.engine.answers["/info"]["LoggingDriver"] = driver
    assert judged(host, "2.14") == {"fail"}


def test_the_builtin_seccomp_profile_of_newer_engines(host: FakeHost) -> None:
    host.engine.answers["/info"]["SecurityOptions"] = ["name=seccomp,profile=builtin"]
    assert judged(host, "2.18") == {"pass"}


@pytest.mark.parametrize(
    ("unit", "owner", "mode"), [("service", "3.1", "3.2"), ("socket", "3.3", "3.4")]
)
def test_a_unit_below_usr_lib_with_a_drop_in(
    host: FakeHost, unit: str, owner: str, mode: str
) -> None:
    fragment = f"/usr/lib/systemd/system/docker.{unit}"
    path = f"/etc/systemd/system/docker.{unit}.d/a.conf"
    host.write(fragment, "[Unit]\n")
    os.chown(host.write(path, "[Unit]\n", 0o606), 1000, 0)
    properties = host.service if unit == "service" else host.socket_unit
    properties["DropInPaths"] = path
    for check in (owner, mode):
        found = verdicts(check, look.observe(host), audit_run.policy({}))
        assert found == {fragment: "pass", path: "fail"}


# -- containers and images -------------------------------------------------------------------------
def container(check: str, **values: typing.Any) -> str:
    change = {f"{GOOD}.{path.replace('__', '.')}": value for path, value in values.items()}
    return verdicts(check, *changed({"on": ON, "set": change}))["good"]


NO_REMAP = {"kernel__uid_map": [[0, 0, 4294967295]], "kernel__host_namespaces": ["time", "user"]}


@pytest.mark.parametrize("user", ["0:0", "root:root", "root", "0", "", "0:1000"])
def test_users_that_are_root(user: str) -> None:
    stopped: Json = {"state": "exited", "pid": None, "kernel": None, "config__modes__user": "host"}
    assert container("4.1", config__user=user, **stopped) == "fail"


def test_an_entrypoint_that_drops_to_a_user() -> None:
    found = container("4.1", config__user="", kernel__uid=101, kernel__host_uid=101, **NO_REMAP)
    assert found == "pass"


@pytest.mark.parametrize(
    ("version", "verdict"), [("29.0.0", "not_applicable"), ("26.1.5+dfsg1", "manual")]
)
def test_content_trust(version: str, verdict: str) -> None:
    set_in = [{"path": "/etc/environment", "variable": "DOCKER_CONTENT_TRUST"}]
    change = {"client.version": version, "client.content_trust": set_in}
    found = audit_evaluate.evaluate([CHECKS["4.5"]], *changed({"on": ON, "set": change}))
    (item,) = found["results"][0]["items"]
    assert item["verdict"] == verdict
    if verdict == "manual":
        assert item["evidence"]["set_in"] == set_in
    else:
        assert item["reason"].startswith("retired")


@pytest.mark.parametrize(("check", "module"), [("5.2", "apparmor"), ("5.3", "selinux")])
def test_hosts_without_the_security_module(check: str, module: str) -> None:
    look_, policy = changed({"on": ON, "set": {f"lsm.{module}.enabled": False}})
    assert verdicts(check, look_, policy) == {"good": "not_applicable"}


@pytest.mark.parametrize("check", ["5.4", "5.22"])
def test_a_privileged_container_of_a_recorded_host(check: str) -> None:
    found = verdicts(check, *changed({"on": "audit-bad"}))
    assert (found["privileged"], found["user-app"]) == ("fail", "pass")


@pytest.mark.parametrize("path", ["/etc/docker", "/root", "/var/run", "/var/run/docker", "/"])
def test_sensitive_directories(path: str) -> None:
    mount = {"rw": True, "kind": "bind", "resolved": path, "destination": "/x", "sockets": []}
    assert container("5.6", config__mounts=[mount]) == "fail"


def test_an_image_without_ps() -> None:
    found = verdicts("5.7", *changed({"on": "audit-bad"}))
    assert set(found.values()) == {"pass", "not_applicable"}  # the one that never ran


@pytest.mark.parametrize(("port", "verdict"), [(1024, "pass"), (1023, "fail")])
def test_the_first_port_that_is_not_privileged(port: int, verdict: str) -> None:
    row = {"container": "80/tcp", "host_ip": "127.0.0.1", "host_port": port}
    assert container("5.8", config__ports=[{**row, "address_class": "loopback"}]) == verdict


@pytest.mark.parametrize(
    "limit", [{"config__cpu_quota": 50000}, {"config__cpuset_cpus": "0"}, {"config__nano_cpus": 1}]
)
def test_limits_of_processors(limit: Json) -> None:
    none = {
        "config__cpu_quota": 0,
        "config__nano_cpus": 0,
        "config__cpu_shares": 0,
        "kernel__cpu_limit": None,
    }
    assert container("5.12", **none) == "fail"
    assert container("5.12", **{**none, **limit}) == "pass"


def test_no_new_privileges_false(host: FakeHost) -> None:
    host.engine.add(
        inspection("web", pid=0, HostConfig={"SecurityOpt": ["no-new-privileges=false"]})
    )
    host.engine.answers["/info"]["SecurityOptions"].append("name=no-new-privileges")
    assert judged(host, "5.26") == {"fail"}


@pytest.mark.parametrize("check", ["7.1", "7.5"])
def test_a_worker_of_a_swarm(check: str) -> None:
    look_, policy = changed({"on": "audit-swarm", "set": {"swarm.role": "worker"}})
    assert verdicts(check, look_, policy) == {None: "not_applicable"}


# -- the host --------------------------------------------------------------------------------------
def test_a_name_that_is_part_of_a_trusted_one() -> None:
    member = {"name": "al", "uid": 1001, "by": "secondary", "exists": True}
    change = {"docker_group.members": [member], "policy.trusted_users": ["alice"]}
    assert verdicts("1.1.2", *changed({"on": ON, "set": change})) == {None: "fail"}


def test_a_member_by_primary_group(host: FakeHost) -> None:
    passwd = pathlib.Path(host.path("/etc/passwd"))
    passwd.write_text(passwd.read_text() + "eve:x:1002:102:E:/e:/bin/sh\n")
    assert judged(host, "1.1.2", trusted_users=["ann"]) == {"fail"}
    assert judged(host, "1.1.2", trusted_users=["ann", "eve"]) == {"pass"}


RULE = {
    "list": "exit", "action": "always", "kind": "dir", "path": "/etc/docker", "resolved": "/etc/docker",
    "perm": "wa", "syscalls": ["all"], "arch": None, "fields": [], "key": None, "keys": [],
}  # fmt: skip


def rules(check: str, *loaded: Json) -> set[str]:
    change: Json = {"audit.loaded": list(loaded)}
    return set(verdicts(check, *changed({"on": ON, "set": change})).values())


def test_a_rule_on_the_directory_covers_the_file() -> None:
    assert rules("1.1.11", RULE) == {"pass"}


def test_a_rule_on_a_file_does_not_cover_its_directory() -> None:
    path = {"path": "/etc/docker/daemon.json", "resolved": "/etc/docker/daemon.json"}
    assert rules("1.1.6", {**RULE, "kind": "path", **path}) == {"fail"}
    inode = {**RULE, "kind": "path"}  # on a directory this watches the inode alone
    assert rules("1.1.6", inode) == {"fail"}


@pytest.mark.parametrize(
    "change",
    [
        {"perm": "x"},
        {"fields": [{"field": "auid", "op": "=", "value": "1000"}]},
        {"action": "never"},
    ],
)
def test_a_rule_that_records_less(change: Json) -> None:
    assert rules(
        "1.1.11", {**RULE, **change}, RULE if change.get("action") else {**RULE, **change}
    ) == {"fail"}


@pytest.mark.parametrize("check", ["1.1.15", "1.1.16"])
def test_shims_that_containerd_2_has_no_more(check: str) -> None:
    look_, policy = changed({"on": ON, "set": {f"audit.objects[control={check}].exists": False}})
    assert set(verdicts(check, look_, policy).values()) == {"not_applicable"}


def test_a_mistyped_check_is_an_error() -> None:
    with pytest.raises(PolicyError, match="no check matches"):
        audit_run.settings({"ids": ["5,5"]})


def test_recordings_are_whole() -> None:
    """The rows above rest on recordings in which nothing is missing."""
    for name in ("audit-bad", "audit-hardened", "audit-daemon", "audit-swarm", "audit-rootless"):
        text = (
            pathlib.Path(__file__).parents[1] / f"fixtures/observations/{name}.json"
        ).read_text()
        assert json.loads(text)["unread"] == []
