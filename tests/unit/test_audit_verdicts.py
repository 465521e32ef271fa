"""Hosts on which a careless reading of the configuration would say the wrong thing."""

from __future__ import annotations

import copy
import typing

import pytest

from ansible_collections.bulkhead.hardening.plugins.plugin_utils import (
    audit_evaluate,
    audit_functions,
)

from .test_audit_checks import CASES, CHECKS, WATCHED, changed, verdicts

Json = dict[str, typing.Any]
GOOD = "containers[name=good]"
STOPPED: Json = {"state": "exited", "pid": None, "kernel": None}


def host(check: str, on: str = "audit-hardened", **values: typing.Any) -> str:
    """Return the worst-known verdict of a check about the host or daemon itself."""
    change = {path.replace("__", "."): value for path, value in values.items()}
    found = verdicts(check, *changed({"on": on, "set": change}))
    assert list(found) == [None]
    return found[None]


def container(check: str, values: Json, of_host: Json | None = None) -> str:
    change = {f"{GOOD}.{path}": value for path, value in values.items()}
    change |= of_host or {}
    return verdicts(check, *changed({"on": "audit-hardened", "set": change}))["good"]


# -- the audit system ------------------------------------------------------------------------------
RULE: Json = {
    "list": "exit", "action": "always", "kind": "dir", "path": "/etc/docker", "resolved": "/etc/docker",
    "perm": "wa", "syscalls": ["all"], "arch": None, "fields": [], "key": None, "keys": [],
}  # fmt: skip


@pytest.mark.parametrize(("enabled", "verdict"), [(0, "fail"), (1, "pass"), (2, "pass")])
def test_rules_record_nothing_while_auditing_is_off(enabled: int, verdict: str) -> None:
    change = {"audit.loaded": [RULE], "audit.enabled": enabled, "audit.persistent": []}
    found = verdicts("1.1.6", *changed({"on": "audit-hardened", "set": change}))
    assert set(found.values()) == {verdict}


@pytest.mark.parametrize(
    ("arches", "covered"),
    [
        ([None], True),
        (["b64"], False),
        (["i386"], False),
        (["b32", "b64"], True),
        (["x86_64", "i386"], True),
    ],
)
def test_programs_of_32_bits_are_recorded_too(arches: list[str | None], covered: bool) -> None:
    thing = {"path": "/etc/docker", "resolved": "/etc/docker", "type": "directory"}
    rules = [{**RULE, "arch": arch} for arch in arches]
    assert audit_functions.Functions()._func_watched(thing, rules, "wa") is covered


NEVER: Json = {
    **RULE,
    "action": "never",
    "kind": "syscall",
    "path": None,
    "resolved": None,
    "perm": None,
}
UID_0 = [{"field": "uid", "op": "=", "value": "0"}]


@pytest.mark.parametrize("check", WATCHED)
@pytest.mark.parametrize(
    ("change", "first", "verdict", "line"),
    [
        ({"list": "task", "syscalls": []}, True, "fail", "-a never,task"),
        ({"list": "task", "syscalls": []}, False, "fail", "-a never,task"),
        ({"list": "task", "fields": UID_0}, False, "fail", "-a never,task -F uid=0"),
        ({}, True, "fail", "-a never,exit"),
        ({"fields": UID_0}, True, "fail", "-a never,exit -F uid=0"),
        ({"syscalls": ["257"]}, True, "fail", "-a never,exit -S 257"),
        ({"syscalls": ["openat2"], "arch": "b64"}, True, "fail", "-a never,exit -F arch=b64 -S openat2"),
        ({"syscalls": ["fork", "chmod"]}, True, "fail", "-a never,exit -S fork,chmod"),
        ({"syscalls": ["adjtimex"]}, True, "pass", None),
        ({"syscalls": ["execve"], "arch": "b64", "fields": UID_0}, True, "pass", None),
        ({"syscalls": ["59", "322"], "arch": "x86_64"}, True, "pass", None),
        ({"syscalls": ["connect"], "arch": "b64"}, True, "pass", None),
        ({"syscalls": ["fork", "clone"]}, True, "pass", None),
        # 56 is clone on the one, and openat on the other
        ({"syscalls": ["56"], "arch": "x86_64"}, True, "pass", None),
        ({"syscalls": ["56"], "arch": "aarch64"}, True, "fail", "-a never,exit -F arch=aarch64 -S 56"),
        ({"syscalls": ["56"], "arch": "riscv64"}, True, "fail", "-a never,exit -F arch=riscv64 -S 56"),
        ({"syscalls": ["56"]}, True, "fail", "-a never,exit -S 56"),
        ({"syscalls": ["362"], "arch": "s390x"}, True, "fail", "-a never,exit -F arch=s390x -S 362"),
        ({"syscalls": ["connect"], "arch": "s390x"}, True, "pass", None),
        ({"syscalls": ["10"], "arch": "i386"}, True, "fail", "-a never,exit -F arch=i386 -S 10"),
        ({"syscalls": ["267"], "arch": "x86_64"}, True, "pass", None),  # readlinkat
        ({"syscalls": ["openat"], "perm": "r"}, True, "pass", None),
        ({"syscalls": []}, True, "pass", None),
        ({"arch": "x86_64"}, True, "fail", "-a never,exit -F arch=x86_64"),
        ({"kind": "dir", "path": "/"}, True, "fail", "-a never,exit -F dir=/"),
        ({}, False, "pass", None),
        ({"perm": "r"}, True, "pass", None),
        ({"kind": "dir", "path": "/srv", "fields": UID_0}, True, "pass", None),
        ({"list": "exclude", "syscalls": [], "fields": UID_0}, False, "fail", "-a never,exclude -F uid=0"),
        ({"list": "exclude", "fields": [{"field": "msgtype", "op": "=", "value": "1300"}]}, False, "fail",
         "-a never,exclude -F msgtype=1300"),
        ({"list": "exclude", "fields": [{"field": "msgtype", "op": "=", "value": "1307"}]}, False, "pass",
         None),
        ({"list": "user"}, True, "pass", None),
        ({"list": "task", "action": "always"}, True, "pass", None),
    ],
)  # fmt: skip
def test_rules_that_silence_a_watch(
    check: str, change: Json, first: bool, verdict: str, line: str | None
) -> None:
    look, policy = changed(copy.deepcopy(CASES[check]["pass"]))
    rules = look["audit"]["loaded"]
    look["audit"]["persistent"] = []
    rules.insert(0 if first else len(rules), {**NEVER, **change})
    found = audit_evaluate.evaluate([CHECKS[check]], look, policy)["results"][0]
    shown = {item["evidence"] and item["evidence"]["silenced_by"] for item in found["items"]}
    assert verdict in {item["verdict"] for item in found["items"]}
    assert line is None or line in shown


def test_members_that_a_directory_service_may_know() -> None:
    assert host("1.1.2", docker_group__other_sources=["sss"]) == "manual"
    asked = {"docker_group__other_sources": ["sss"], "docker_group__resolved_by": "getent"}
    assert host("1.1.2", **asked) == "pass"


@pytest.mark.parametrize(
    ("path", "mount", "verdict"),
    [
        ("/var/lib/docker", "/var/lib/docker", "pass"),
        ("/var/lib/docker/", "/var/lib/docker", "pass"),
        ("/var/lib/docker", "/data", "pass"),  # a link
        ("/var/lib/docker", "/", "fail"),
        ("/var/lib/docker", "/var", "fail"),
        ("/var/lib/docker", None, "error"),
    ],
)
def test_a_subvolume_is_no_file_system(path: str, mount: str | None, verdict: str) -> None:
    row = {"what": "data_root", "path": path, "exists": True, "used": True, "separate": True,
           "mount_point": mount, "filesystem": "btrfs"}  # fmt: skip
    found = verdicts("1.1.1", *changed({"on": "audit-hardened", "set": {"storage": [row]}}))
    assert found == {path: verdict}


# -- the daemon ------------------------------------------------------------------------------------
def test_the_iptables_option_is_about_nftables_too() -> None:
    change = {"engine__effective__firewall_backend__value": "nftables"}
    assert host("2.4", engine__effective__iptables__value=False, **change) == "fail"
    assert host("2.4", engine__effective__iptables__value=True, **change) == "pass"


@pytest.mark.parametrize(
    ("sysctls", "rootless", "verdict"),
    [
        ({"net.bridge.bridge-nf-call-iptables": "1"}, False, "pass"),
        ({"net.bridge.bridge-nf-call-iptables": "0"}, False, "fail"),
        ({}, False, "fail"),  # br_netfilter is not loaded
        ({}, True, "pass"),
        (None, False, "error"),
    ],
)
def test_icc_without_the_filter_of_bridges(
    sysctls: Json | None, rootless: bool, verdict: str
) -> None:
    change = {"engine__effective__icc__configured": False, "engine__rootless": rootless}
    assert host("2.2", sysctls=sysctls, **change) == verdict


@pytest.mark.parametrize(
    ("mirrors", "verdict"),
    [
        ([], "pass"),
        (["https://mirror.example/"], "pass"),
        (["http://mirror.example:5000/"], "fail"),
        (["https://mirror.example/", "http://other.example/"], "fail"),
        (["http://127.0.0.1:65001/", "http://localhost:5000/", "http://[::1]:5000/"], "pass"),
        (["http://localhost.example/"], "fail"),
        (["http://127.0.0.1.example:65001/"], "fail"),
        (["http://[::1"], "fail"),
        (None, "error"),
    ],
)
def test_a_mirror_without_tls_is_an_insecure_registry(
    mirrors: list[str] | None, verdict: str
) -> None:
    assert host("2.5", engine__effective__registry_mirrors__value=mirrors) == verdict


def test_a_stopped_daemon_is_no_swarm() -> None:
    change = {"engine__info": None, "engine__state": "stopped"}
    assert host("2.16", engine__effective__live_restore__value=None, **change) == "error"


def test_a_kernel_without_seccomp() -> None:
    none = {"engine__info__seccomp": False, "engine__effective__seccomp_profile__value": None}
    assert host("2.18", **none) == "fail"


@pytest.mark.parametrize(
    ("check", "path"),
    [
        ("2.3", "engine__effective__debug__value"),
        ("2.17", "engine__docker_proxies"),
        ("2.18", "engine__effective__seccomp_profile__value"),
    ],
)
def test_half_an_answer_is_none(check: str, path: str) -> None:
    assert host(check, **{path: None}) == "error"


def test_tls_that_cannot_be_told() -> None:
    assert host("2.8", on="audit-daemon", engine__tls=None) == "error"


@pytest.mark.parametrize("check", ["1.2.2", "4.2"])
def test_without_a_policy_somebody_has_to_look(check: str) -> None:
    assert set(verdicts(check, *changed({"on": "audit-hardened"})).values()) == {"manual"}


@pytest.mark.parametrize(
    ("data", "verdict"), [("10.0.0.5", "fail"), ("", "fail"), ("10.9.0.5", "pass")]
)
def test_the_advertised_address_has_a_port(data: str, verdict: str) -> None:
    change = {"swarm__advertise_addr": "10.0.0.5:2377", "swarm__node_addr": "10.0.0.1"}
    assert host("7.9", on="audit-swarm", swarm__data_path_addr=data, **change) == verdict


@pytest.mark.parametrize(
    ("address", "role", "verdict"),
    [
        ("10.0.0.5:3377", "manager", "pass"),
        ("0.0.0.0:3377", "manager", "fail"),
        ("[::]:3377", "manager", "fail"),
        (None, "manager", "error"),
        ("0.0.0.0:3377", "worker", "pass"),  # which does not listen there
    ],
)
def test_a_manager_on_another_port(address: str | None, role: str, verdict: str) -> None:
    socket = {"address_class": "wildcard", "purpose": "other", "port": 3377, "address": "0.0.0.0"}
    change = {"swarm__listen_addr": address, "swarm__role": role}
    assert host("7.2", on="audit-swarm", listeners=[socket], **change) == verdict


# -- containers ------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("mode", "verdict"), [("enforce", "pass"), ("complain", "fail"), (None, "fail")]
)
def test_a_profile_that_only_complains(mode: str | None, verdict: str) -> None:
    assert container("5.2", {"kernel.apparmor_mode": mode}) == verdict


@pytest.mark.parametrize(("uses", "verdict"), [(True, "pass"), (False, "fail")])
def test_a_daemon_that_does_not_use_apparmor(uses: bool, verdict: str) -> None:
    assert container("5.2", STOPPED, {"engine.info.apparmor": uses}) == verdict


@pytest.mark.parametrize("enforcing", [True, False])
def test_selinux_that_only_complains(enforcing: bool) -> None:
    of_host = {"lsm.selinux.enabled": True, "lsm.selinux.enforcing": enforcing}
    label = {"kernel.selinux_label": "system_u:system_r:container_t:s0:c1,c2"}
    assert container("5.3", label, of_host) == ("pass" if enforcing else "fail")


@pytest.mark.parametrize(
    ("label", "verdict"),
    [
        ("system_u:system_r:container_t:s0:c1,c2", "pass"),
        ("system_u:system_r:container_init_t:s0:c1,c2", "pass"),
        ("system_u:system_r:web.process:s0:c1,c2", "pass"),
        ("system_u:system_r:theirs_t:s0:c1,c2", "pass"),  # the policy's own for containers
        ("system_u:system_r:my_app_t:s0:c1,c2", "manual"),
        ("system_u:system_r:my_app_t:s0", "fail"),
        ("system_u:system_r:initrc_t:s0", "fail"),
        ("system_u:system_r:initrc_t:s0:c1,c2", "fail"),
        ("system_u:system_r:spc_t:s0:c1,c2", "fail"),
        ("system_u:system_r:unconfined_t:s0", "fail"),
        ("unconfined_u:unconfined_r:unconfined_t:s0-s0:c0.c1023", "fail"),
        ("kernel", "error"),
    ],
)
@pytest.mark.parametrize("stopped", [False, True])
def test_a_type_of_selinux_that_is_none_of_containers(
    label: str, verdict: str, stopped: bool
) -> None:
    theirs = {"process": "system_u:system_r:theirs_t:s0"} if label != "kernel" else None
    of_host = {"lsm.selinux.enabled": True, "lsm.selinux.enforcing": True,
               "lsm.selinux.contexts": theirs}  # fmt: skip
    values: Json = {"kernel.selinux_label": label}
    if stopped:
        values = {**STOPPED, "config.process_label": label, "config.label_disabled": False}
    assert container("5.3", values, of_host) == verdict


@pytest.mark.parametrize(
    ("engine", "mode", "verdict"),
    [
        ({"info.userns": False}, "default", "fail"),
        ({"info.userns": None}, "default", "fail"),
        ({"info.userns": True}, "default", "pass"),
        ({"info.userns": True}, "host", "fail"),
        ({"info.userns": False, "rootless": True}, "host", "pass"),
    ],
)
def test_root_of_a_stopped_container_that_will_be_nobody_outside(
    engine: Json, mode: str, verdict: str
) -> None:
    values = {**STOPPED, "config.user": "", "config.modes.user": mode}
    of_host = {f"engine.{path}": value for path, value in engine.items()}
    assert container("4.1", values, of_host) == verdict


def mount(**values: typing.Any) -> Json:
    made = {"rw": True, "kind": "bind", "resolved": "/srv/x", "destination": "/x", "sockets": []}
    return {"config.mounts": [{**made, "host_path": made["resolved"], **values}]}


@pytest.mark.parametrize(
    ("values", "verdict"),
    [
        ({}, "pass"),
        ({"resolved": "/etc"}, "fail"),
        ({"resolved": "/etc", "rw": False}, "manual"),
        ({"resolved": "/", "rw": False}, "manual"),
        ({"resolved": None, "host_path": "/etc/gone"}, "fail"),
        ({"resolved": "/dev/sda1", "kind": "volume_device"}, "fail"),
        ({"resolved": "/var/lib/docker/volumes/v/_data", "kind": "volume"}, "pass"),
        ({"resolved": "/var/lib/docker/plugins/p/mnt", "kind": "volume_other"}, "pass"),
        ({"resolved": None, "host_path": None, "kind": "tmpfs"}, "pass"),
    ],
)
def test_mounts_of_the_host(values: Json, verdict: str) -> None:
    assert container("5.6", mount(**values)) == verdict


@pytest.mark.parametrize("user", ["00", "000:5"])
def test_a_user_that_is_zero_by_another_name(user: str) -> None:
    change = {"config.user": user, "config.modes.user": None, **STOPPED}
    assert container("4.1", change) == "fail"


@pytest.mark.parametrize(("mode", "verdict"), [("private", "pass"), ("host", "fail")])
def test_a_stopped_container_will_be_remapped(mode: str, verdict: str) -> None:
    assert container("4.1", {"config.user": "", "config.modes.user": mode, **STOPPED}) == verdict


@pytest.mark.parametrize(("profile", "verdict"), [("unconfined", "fail"), ("builtin", "pass")])
def test_a_stopped_container_gets_the_daemons_profile(profile: str, verdict: str) -> None:
    of_host = {"engine.effective.seccomp_profile.value": profile}
    assert container("5.22", {"config.seccomp_profile": "default", **STOPPED}, of_host) == verdict


def test_a_root_that_was_mounted_writable_again() -> None:
    both = {"config.readonly_rootfs": True, "kernel.rootfs_readonly": False}
    assert container("5.13", both) == "fail"


@pytest.mark.parametrize("check", ["5.8", "5.9", "5.14"])
def test_what_listens_in_the_hosts_network_has_to_be_known(check: str) -> None:
    shared = {"kernel.host_namespaces": ["net"], "config.ports": []}
    assert container(check, {**shared, "listening": None}) == "error"
    assert container(check, {**shared, "listening": []}) == "pass"


def test_a_container_between_two_starts_has_no_process() -> None:
    waiting = {"state": "restarting", "pid": 0, "kernel": None}
    assert container("5.13", {**waiting, "config.readonly_rootfs": True}) == "pass"
    assert container("5.13", {**waiting, "pid": 77}) == "error"


@pytest.mark.parametrize("runtime", ["runsc", "io.containerd.kata.v2"])
def test_a_runtime_with_a_kernel_of_its_own(runtime: str) -> None:
    """What the host sees is the sandbox: the configuration counts, or somebody has to look."""
    sandbox = {"config.runtime": runtime, "kernel.seccomp": 2, "kernel.cap_bnd": "0" * 16}
    assert container("5.22", {**sandbox, "config.seccomp_profile": "unconfined"}) == "fail"
    assert container("5.4", {**sandbox, "config.privileged": True}) == "fail"
    assert container("5.7", sandbox) == "manual"


def test_names_of_secrets() -> None:
    names = ["db_password", "DB_PASSWORD_FILE", "ApiKey", "GITHUB_TOKEN", "PATH", "KEYBOARD"]
    found = audit_functions.Functions()._func_secret_names(names)
    assert found == ["db_password", "ApiKey", "GITHUB_TOKEN"]
