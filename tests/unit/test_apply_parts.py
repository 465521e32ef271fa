"""What a transaction is made of, each on its own: plan, JSON merge, checks, accounts, the witness."""

from __future__ import annotations

import copy
import io
import json
import os
import pathlib
import platform
import re
import shutil
import signal
import subprocess
import tarfile
import time
import typing

import pytest

from ansible_collections.bulkhead.hardening.plugins.module_utils import (
    health,
    health_image,
    ledger,
    transaction_files as files,
    validate,
)
from ansible_collections.bulkhead.hardening.plugins.module_utils.host import Host, HostError
from ansible_collections.bulkhead.hardening.plugins.module_utils.option_checks import Facts
from ansible_collections.bulkhead.hardening.plugins.module_utils.transaction_journal import (
    explicit_reload,
)
from ansible_collections.bulkhead.hardening.plugins.module_utils.transaction_json import (
    JsonFile,
    same,
)
from ansible_collections.bulkhead.hardening.plugins.module_utils.transaction_plan import parse_plan

from .fakes import CONFIG, operation, plan

Json = dict[str, typing.Any]
ROOT = pathlib.Path(__file__).resolve().parents[2]


# -- plan ----------------------------------------------------------------------------------------------
IDS = {"start": 300000, "count": 65536}
VALID: list[Json] = [
    operation("group_present", name="bulkhead-userns"),
    operation("user_present", name="bulkhead-userns", group="bulkhead-userns"),
    operation("subid_present", user="u", subuid=IDS, subgid=IDS, observed={"subuid": "1", "subgid": "2"}),
    operation("file_present", path="/etc/docker/seccomp.json", content="{}", mode="0644",
              owner="root", group="root", observed="absent"),
    operation("file_absent", path="/etc/apparmor.d/sub/x", observed="1"),
    operation("json_set", path=CONFIG, key="icc", value=False, observed="1"),
    operation("json_set", path=CONFIG, key="log-opts", member="max-size", value="1m", observed="1"),
    operation("json_remove", path=CONFIG, key="icc", observed="1"),
    operation("json_remove", path=CONFIG, key="log-opts", member="max-size", observed="1"),
    operation("mode", path="/run/docker.sock", mode="0660", owner=None, group="docker", observed="1"),
    operation("mode", path="/run/docker.sock", mode=None, owner="root", group=None, observed="1"),
    operation("mode_restore", path="/run/docker.sock", observed="1"),
    operation("disown", kind="json_key", path=CONFIG, key="icc"),
    operation("disown", kind="json_key", path=CONFIG, key="log-opts", member="max-size"),
    operation("disown", kind="file", path="/etc/docker/x"),
    operation("disown", kind="mode", path="/etc/docker/x"),
    operation("disown", kind="subids", user="u"),
    operation("disown", kind="user", name="u"),
    operation("disown", kind="group", name="u"),
    operation("audit_load", path="/etc/audit/rules.d/50-x.rules", observed="1"),
    operation("sysctl_set", name="kernel.kptr_restrict", value="2", observed="0"),
    operation("sysctl_restore", name="kernel.kptr_restrict"),
    operation("disown", kind="sysctl", name="kernel.kptr_restrict"),
    operation("apparmor_profile", path="/etc/apparmor.d/docker-x", profile="docker-x",
              content="profile docker-x {}\n", observed="absent"),
]  # fmt: skip

# Field, value: neither the module nor the schema may take it in an operation that has this field.
INVALID = [
    ("op", "shell"), ("role", "Docker"), ("role", ""), ("undo", "later"), ("why", ""), ("why", 3),
    ("name", "Ann Lee"), ("name", "-x"), ("group", ""), ("user", "a:b"),
    ("subuid", {"start": 999, "count": 1}), ("subuid", {"start": 100000}), ("subgid", [100000, 1]),
    ("subgid", {"start": 100000, "count": 0}), ("subuid", {"start": True, "count": 65536}),
    ("observed", ""), ("observed", None),
    ("path", "etc/docker/x"), ("path", "/etc/docker/../x"), ("path", "/etc/docker//x"),
    ("path", "/etc/docker/"), ("path", ""), ("path", "/etc/docker/."),
    ("mode", "644"), ("mode", "0666"), ("mode", "4755"), ("mode", 420), ("mode", "0648"),
    ("content", 3), ("key", ""), ("member", ""), ("value", None), ("extra", 1), ("kind", "thing"),
    ("profile", "Docker"), ("profile", "a/b"), ("profile", ""), ("profile", "x.dpkg-new"),
    ("name", "net.ipv4.ip_forward "), ("name", 3),
]  # fmt: skip


@pytest.fixture(scope="module")
def accepts() -> typing.Callable[[Json], bool]:
    jsonschema = pytest.importorskip("jsonschema")
    schema = json.loads((ROOT / "docs/schemas/plan.schema.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    return lambda document: bool(validator.is_valid(document))


def module_accepts(document: Json) -> bool:
    try:
        parse_plan(document)
    except HostError:
        return False
    return True


@pytest.mark.parametrize("row", VALID, ids=lambda row: row["op"])
def test_every_operation_is_in_module_and_schema(
    row: Json, accepts: typing.Callable[[Json], bool]
) -> None:
    parse_plan(plan(row))
    assert accepts(plan(row))
    for field in set(row) - {"member"}:
        broken = plan({name: value for name, value in row.items() if name != field})
        assert not module_accepts(broken), field
        assert not accepts(broken), field


@pytest.mark.parametrize(("field", "value"), INVALID, ids=str)
def test_module_and_schema_refuse_the_same(
    field: str, value: object, accepts: typing.Callable[[Json], bool]
) -> None:
    rows = [row for row in VALID if field in row or field == "extra"]
    assert rows
    for row in rows:
        if field == "mode" and row["op"] not in ("mode", "file_present"):
            continue
        broken = plan({**row, field: value})
        assert not module_accepts(broken), row
        assert not accepts(broken), row


@pytest.mark.parametrize(
    "path",
    [
        "/etc/passwd",
        "/etc/dockerx/y",
        "/etc/systemd/system/x.service",
        "/etc/sudoers.d/x",
        "/etc/docker",
    ],
)
def test_files_go_to_few_places(path: str, accepts: typing.Callable[[Json], bool]) -> None:
    row = {**VALID[3], "path": path}
    assert not module_accepts(plan(row))
    assert not accepts(plan(row))


@pytest.mark.parametrize(
    ("daemon", "fits"),
    [
        ({}, True),
        ({"allow_container_restart": True}, True),
        ({"effect": "stop"}, False),
        ({"why": "icc"}, False),
        ({"why": [1]}, False),
        ({"live_restore_first": 1}, False),
        ({"allow_container_restart": "yes"}, False),
        ({"kill": True}, False),
    ],
)
def test_daemon(daemon: Json, fits: bool, accepts: typing.Callable[[Json], bool]) -> None:
    document = plan(VALID[0], **daemon)
    assert module_accepts(document) is fits
    assert accepts(document) is fits


def test_a_profile_lies_where_its_name_says() -> None:
    row = {**VALID[-1], "path": "/etc/apparmor.d/docker-y"}
    with pytest.raises(HostError, match="path is not that of the profile docker-x"):
        parse_plan(plan(row))


def test_two_operations_on_one_thing() -> None:
    remove = operation("json_remove", path=CONFIG, key="icc", observed="1")
    with pytest.raises(HostError, match="already an operation on key"):
        parse_plan(plan(VALID[5], remove))


# -- JSON ----------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", '{\n  "icc": false\n}\n'),
        ("{}", '{\n  "icc": false\n}'),
        ("{ }\n", '{\n  "icc": false\n}\n'),
        ('{"a": 1}', '{"a": 1, "icc": false}'),
        ('{\n\t"a": 1\n}\n', '{\n\t"a": 1,\n\t"icc": false\n}\n'),
        ('{\r\n    "a": 1e2}\r\n', '{\r\n    "a": 1e2,\r\n    "icc": false}\r\n'),
        ('{"icc" : true , "a": 1}', '{"icc" : false , "a": 1}'),
        ('{"icc":   false}', '{"icc":   false}'),
        ('\ufeff{"a": 1}', '\ufeff{"a": 1, "icc": false}'),
        ('{"a": "ü\\u00fc"}', '{"a": "ü\\u00fc", "icc": false}'),
    ],
)
def test_set_keeps_every_other_byte(before: str, after: str) -> None:
    document = JsonFile(before.encode())
    document.set("icc", False)
    assert document.render() == after.encode()
    if before.strip() and "icc" not in before:
        document.remove("icc")
        assert document.render().decode() == before.replace("{ }", "{}")


def test_nested_values_follow_the_indentation() -> None:
    document = JsonFile(b'{\n    "a": 1\n}\n')
    document.set("default-ulimits", {"nofile": {"Soft": 1}})
    assert document.render().decode() == (
        '{\n    "a": 1,\n    "default-ulimits": {\n        "nofile": {\n            "Soft": 1\n'
        "        }\n    }\n}\n"
    )


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ('{"a": 1, "b": 2, "c": 3}', '{"a": 1, "c": 3}'),
        ('{"b": 2, "c": 3}', '{"c": 3}'),
        ('{"a": 1,\n "b": 2\n}', '{"a": 1\n}'),
        ('{\n "b": {"x": [1, "}"]}\n}', "{}"),
        ('{"a": 1}', '{"a": 1}'),
    ],
)
def test_remove(before: str, after: str) -> None:
    document = JsonFile(before.encode())
    document.remove("b")
    assert document.render().decode() == after


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("{}", '{\n  "log-opts": {\n    "max-size": "1m"\n  }\n}'),
        ('{"log-opts": {}}', '{"log-opts": {"max-size": "1m"}}'),
        (
            '{"log-opts": {"tag" : "x"}, "a": 1}',
            '{"log-opts": {"tag" : "x", "max-size": "1m"}, "a": 1}',
        ),
        ('{"log-opts": {"max-size": "9m", "t": 1}}', '{"log-opts": {"max-size": "1m", "t": 1}}'),
    ],
)
def test_members_of_a_map(before: str, after: str) -> None:
    document = JsonFile(before.encode())
    document.set_member("log-opts", "max-size", "1m")
    assert document.render().decode() == after
    document.remove_member("log-opts", "max-size")
    assert "max-size" not in document.value["log-opts"]


def test_a_member_needs_a_map() -> None:
    with pytest.raises(ValueError, match="'log-opts' is not an object"):
        JsonFile(b'{"log-opts": "x"}').set_member("log-opts", "a", "b")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "not an object"),
        ('"x"', "not an object"),
        ('{"a": 1,}', "line 1 column 9"),
        ('{"a" 1}', "expected ':'"),
        ('{"a": 1} x', "unexpected text"),
        ('{"a": 1 "b": 2}', "expected ','"),
        ("{", "expected a key"),
        ('{"a": Infinity}', "Infinity is not JSON"),
        ('{"a": 1, "a": 1}', "'a' is there twice"),
        ("// no\n{}", "Expecting value"),
    ],
)
def test_what_is_no_object(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        JsonFile(text.encode())


def test_same() -> None:
    assert same({"a": 1, "b": [True]}, {"b": [True], "a": 1})
    assert not same(1, True)
    assert not same(1, 1.0)


def test_a_reload_spells_out_what_vanished() -> None:
    explicit = explicit_reload(b'{"debug": true}', {"live-restore", "debug", "icc", "runtimes"})
    assert explicit is not None
    assert json.loads(explicit) == {"debug": True, "live-restore": False}
    assert explicit_reload(b"{}", {"icc"}) is None


# -- checks --------------------------------------------------------------------------------------------
def facts(**more: typing.Any) -> Facts:
    values: Json = {
        "version": "26.1.5+dfsg1", "flags": {}, "contents": {}, "log_drivers": frozenset(),
        "selinux": False, "users": frozenset(), "ranges": frozenset(), "planned": None, **more,
    }  # fmt: skip
    return Facts(**values)


def seccomp(*rules: object, **more: object) -> tuple[Json, Json]:
    """Return a choice of a seccomp profile, and the profile with these rules."""
    profile = {"defaultAction": "SCMP_ACT_ERRNO", "syscalls": list(rules), **more}
    return {"seccomp-profile": "/p"}, {"contents": {"/p": json.dumps(profile).encode()}}


@pytest.mark.parametrize(
    ("document", "more", "expected"),
    [
        ({"icc": False}, {}, None),
        ({"icc": "false"}, {}, "icc: the engine wants a JSON boolean"),
        ({"mtu": True}, {}, "mtu: the engine wants a JSON integer"),
        ({"mtu": 1400.0}, {}, "mtu: the engine wants a JSON integer"),
        ({"content-trust": {}}, {}, "content-trust: Docker Engine 26.1.5+dfsg1 does not know"),
        ({"firewall-backend": "nftables"}, {}, "firewall-backend: Docker Engine 26.1.5+dfsg1"),
        ({"firewall-backend": "nftables"}, {"version": "29.0.0"}, None),
        ({"young": 1}, {"planned": frozenset()}, None),
        ({"young": 1}, {"planned": frozenset(), "version": "20.10.24"}, "young: Docker Engine 20"),
        ({"young": 1}, {"version": None}, "young: no supported engine"),
        ({"hosts": ["fd://"]}, {"flags": {"hosts": "/u/d.service"}}, "as a flag in /u/d.service"),
        ({"runtimes": {}}, {"flags": {"runtimes": "x"}}, None),
        ({"seccomp-profile": "builtin"}, {}, None),
        ({"seccomp-profile": "builtin"}, {"version": "20.10.24"}, "takes 'builtin' for a file"),
        ({"seccomp-profile": "/no/such.json"}, {}, "/no/such.json: No such file"),
        ({"seccomp-profile": "rel.json"}, {}, "not an absolute path"),
        ({"seccomp-profile": "/p"}, {"contents": {"/p": b"{"}}, "/p is not JSON"),
        ({"seccomp-profile": "/p"}, {"contents": {"/p": b"{}"}}, "/p has no defaultAction"),
        ({"seccomp-profile": "/p"}, {"contents": {"/p": None}}, "removed by the same plan"),
        ({"seccomp-profile": "/p"}, {"contents": {"/p": b'{"defaultAction": "SCMP_ACT_ERRNO"}'}}, None),
        ({"seccomp-profile": "/p"}, {"contents": {"/p": b'{"defaultAction": "DENY"}'}}, "'DENY' is no"),
        (*seccomp({"names": ["read"], "action": "SCMP_ACT_ALLOW"}), None),
        (*seccomp({"name": "read", "action": "SCMP_ACT_ALLOW"}), None),
        (*seccomp({"names": ["read"]}), "None is no action"),
        (*seccomp({"action": "SCMP_ACT_ALLOW"}), "a rule without names"),
        (*seccomp({"name": "a", "names": ["b"], "action": "SCMP_ACT_LOG"}), "name and names"),
        (*seccomp("read"), "no list of rules"),
        (*seccomp(architectures=["SCMP_ARCH_X86"], archMap=[{}]), "exclude each other"),
        ({"userns-remap": "default"}, {}, "name a user"),
        ({"userns-remap": "nobody-here"}, {}, "there is no user 'nobody-here'"),
        ({"userns-remap": "u"}, {"users": {"u"}}, "/etc/subuid has no range for u"),
        ({"userns-remap": "u"}, {"users": {"u"}, "ranges": {"u"}}, None),
        ({"default-runtime": "kata"}, {}, "there is no runtime 'kata'"),
        ({"default-runtime": "kata", "runtimes": {"kata": {"runtimeType": "a.kata.v2"}}}, {}, None),
        ({"default-runtime": "kata", "runtimes": {"kata": {"path": "/usr/bin/kata"}}}, {},
         "kata: /usr/bin/kata is no program"),
        ({"runtimes": {"kata": {"path": "/k"}}}, {"contents": {"/k": b"x"}}, None),
        ({"runtimes": {"kata": {"path": "kata"}}}, {}, None),
        ({"runtimes": {"kata": {}}}, {}, "either a path or a runtimeType"),
        ({"runtimes": {"kata": {"path": "/k", "runtimeType": "t"}}}, {}, "either a path or a"),
        ({"runtimes": {"kata": "/usr/bin/kata"}}, {}, "either a path or a runtimeType"),
        ({"runtimes": {"runc": {"path": "/usr/bin/other"}}}, {}, "the engine's own"),
        ({"log-driver": "lokii"}, {"log_drivers": frozenset({"loki"})}, "the engine lists loki"),
        ({"log-driver": "lokii"}, {}, None),
        ({"log-opts": {"max-file": 3}}, {}, "log-opts: the engine wants texts; max-file"),
        ({"log-opts": {"max-size": "1m", "tag": "x", "mode": "non-blocking"}}, {}, None),
        ({"log-opts": {"max-sizes": "1m"}}, {}, "json-file does not take max-sizes"),
        ({"log-opts": {"max-size": "1m"}, "log-driver": "journald"}, {}, "journald does not take max-size"),
        ({"log-opts": {"max-size": "1m"}, "log-driver": "journald"},
         {"planned": frozenset({"log-driver"})}, "log-driver: the log driver journald does not take"),
        ({"log-opts": {"max-size": "1m"}, "log-driver": "none"}, {}, None),
        ({"log-opts": {"max-size": "1m"}, "log-driver": "loki"}, {}, None),
        ({"log-opts": {"max-size": "1m"}}, {"flags": {"log-driver": "x"}}, None),
        ({"log-opts": {"tag": "x"}, "log-driver": "local"}, {}, "local does not take tag"),
        ({"log-opts": {"tag": "x"}, "log-driver": "local"}, {"version": "29.1.0"}, None),
        ({"log-opts": {"syslog-facility": "user", "env": "A"}, "log-driver": "syslog"}, {}, None),
        ({"log-opts": {"gelf-address": "udp://x:1"}, "log-driver": "syslog"}, {}, "take gelf-address"),
        ({"log-opts": {"mode": "fast"}}, {}, "mode is 'fast'"),
        ({"log-opts": {"max-buffer-size": "1m"}}, {}, "needs mode non-blocking"),
        ({"log-opts": {"cache-disabled": "true"}, "log-driver": "syslog"}, {}, None),
        ({"log-opts": {"max-size": "ten"}}, {}, "max-size is 'ten', not a size"),
        ({"log-opts": {"max-size": "-1"}}, {}, None),
        ({"log-opts": {"max-size": "0"}}, {}, "max-size is '0'"),
        ({"log-opts": {"max-buffer-size": "x", "mode": "non-blocking"}}, {}, "max-buffer-size is 'x'"),
        ({"log-opts": {"max-size": "1m", "max-file": "0"}}, {}, "max-file is '0'"),
        ({"log-opts": {"compress": "often"}}, {}, "compress is 'often'"),
        ({"log-opts": {"compress": "true"}}, {}, "compress needs max-size"),
        ({"log-opts": {"compress": "true", "max-size": "1m", "max-file": "2"}}, {}, None),
        ({"log-opts": {"compress": "true"}, "log-driver": "local"}, {}, None),
        ({"log-format": "xml"}, {}, "log-format: 'xml' is none of json, text"),
        ({"firewall-backend": "pf"}, {"version": "29.1.0"}, "'pf' is none of"),
        ({"log-level": "info"}, {}, None),
        ({"log-level": "loud"}, {}, "log-level: 'loud' is none of debug, error"),
        ({"default-ipc-mode": "host"}, {}, "'host' is none of private, shareable"),
        ({"default-cgroupns-mode": "shared"}, {}, "none of host, private"),
        ({"mtu": -1}, {}, "mtu: -1 is below 0"),
        ({"mtu": 1400}, {}, None),
        ({"max-concurrent-downloads": -1}, {}, "max-concurrent-downloads: -1 is below 0"),
        ({"max-download-attempts": 0}, {}, "max-download-attempts: 0 is below 1"),
        ({"exec-opts": ["native.cgroupdriver=systemd"]}, {}, None),
        ({"exec-opts": ["native.cgroupdriver=runit"]}, {}, "'runit' is neither cgroupfs nor systemd"),
        ({"exec-opts": ["systemd"]}, {}, "'systemd' is not NAME=VALUE"),
        ({"cgroup-parent": "/all"}, {}, None),
        ({"cgroup-parent": "/all"}, {"systemd_cgroups": True}, "does not end in .slice"),
        ({"cgroup-parent": "all.slice"}, {"systemd_cgroups": True}, None),
        ({"bridge": "br0", "bip": "10.0.0.1/24"}, {}, "bip: the engine does not take bridge and bip"),
        ({"bridge": "", "bip": "10.0.0.1/24"}, {}, None),
        # also when the other one was there before
        ({"icc": False, "iptables": False}, {"planned": frozenset({"icc"})}, "icc and iptables together"),
        ({"icc": True, "iptables": False}, {}, None),
        ({"icc": False, "iptables": True}, {}, None),
        ({"dns-search": ["example.org", "a-b.c.", "."]}, {}, None),
        ({"dns-search": ["-a.org"]}, {}, "'-a.org' is not a domain"),
        ({"dns-search": ["10.1"]}, {}, "'10.1' is not a domain"),
        ({"insecure-registries": ["10.0.0.0/8", "r.example:5000", "http://r.example"]}, {}, None),
        ({"insecure-registries": ["ftp://r.example"]}, {}, "'ftp://r.example' is not HOST"),
        ({"tlsverify": True}, {}, "would leave its unix socket for TCP port 2376"),
        ({"tls": True}, {"flags": {"hosts": "/u/docker.service"}}, None),
        ({"tls": True, "hosts": ["fd://"]}, {}, None),
        ({"hosts": ["npipe://x"]}, {}, "npipe:// is none of fd, tcp and unix"),
        ({"hosts": ["0.0.0.0:2375"]}, {}, "without tlsverify"),
        ({"dns": ["192.0.2.1", "2001:db8::1"]}, {}, None),
        ({"dns": ["nowhere"]}, {}, "dns: 'nowhere' is not an IP address"),
        ({"registry-mirrors": ["https://m.example/path"]}, {}, None),
        ({"registry-mirrors": ["m.example"]}, {}, "'m.example' is not an http"),
        ({"registry-mirrors": ["https://u:p@m.example"]}, {}, "'https://m.example' must have no user"),
        ({"tlscacert": "/no/ca.pem"}, {}, "/no/ca.pem: No such file"),
        ({"tlscert": "/p"}, {"contents": {"/p": b"x"}}, None),
        ({"authorization-plugins": ["guard"]}, {}, "no plugin 'guard'"),
        ({"authorization-plugins": ["guard"]}, {"plugins": frozenset({"guard:latest"})}, None),
        ({"features": {"containerd-snapshotter": True}, "userns-remap": "u"},
         {"version": "29.7.2", "users": {"u"}, "ranges": {"u"}}, "refused beside userns-remap"),
        ({"features": {"containerd-snapshotter": True}, "userns-remap": "u"},
         {"version": "28.5.2", "users": {"u"}, "ranges": {"u"}}, None),
        ({"features": {"containerd-snapshotter": True}}, {"version": "29.7.2"}, None),
        ({"selinux-enabled": True}, {}, "SELinux is not active"),
        ({"selinux-enabled": True}, {"selinux": True}, None),
        ({"hosts": ["tcp://0.0.0.0:2375"]}, {}, "without tlsverify"),
        ({"hosts": ["tcp://0.0.0.0:2376"], "tlsverify": True}, {}, None),
        ({"default-ulimits": {"nofile": {"Name": "nofile", "Soft": 1, "Hard": 2}}}, {}, None),
        ({"default-ulimits": {"nofile": {"Name": "nofile", "Soft": 3, "Hard": 2}}}, {}, "above the hard"),
        ({"default-ulimits": {"nofile": {"Name": "nofile", "Soft": -1, "Hard": 2}}}, {}, "above the hard"),
        ({"default-ulimits": {"nofile": {"Soft": 3, "Hard": 4}}}, {}, "is not {Name: nofile"),
        ({"default-ulimits": {"nofile": {"Name": "nofile", "Soft": "1", "Hard": 2}}}, {}, "whole numbers"),
    ],
)  # fmt: skip
def test_problems(tmp_path: pathlib.Path, document: Json, more: Json, expected: str | None) -> None:
    planned = more.get("planned", frozenset(document))
    found = validate.problems(Host(str(tmp_path)), document, facts(**{**more, "planned": planned}))
    if expected is None:
        assert found == []
    else:
        assert expected in "; ".join(found)


@pytest.mark.parametrize(
    ("name", "hard", "expected"),
    [
        ("nofile", 1048576, None),
        ("nofile", 1048577, "above fs.nr_open, 1048576"),
        ("nofile", -1, "unlimited is above fs.nr_open"),
        ("memlock", -1, None),
    ],
)
def test_a_limit_of_open_files_that_the_kernel_refuses(
    tmp_path: pathlib.Path, name: str, hard: int, expected: str | None
) -> None:
    (tmp_path / "proc/sys/fs").mkdir(parents=True)
    (tmp_path / "proc/sys/fs/nr_open").write_text("1048576\n")
    document = {"default-ulimits": {name: {"Name": name, "Soft": 1024, "Hard": hard}}}
    planned = facts(planned=frozenset(document))
    found = "; ".join(validate.problems(Host(str(tmp_path)), document, planned))
    assert (expected or "") in found
    assert bool(found) == (expected is not None)


def test_the_engine_is_not_asked_when_that_would_create_a_user(tmp_path: pathlib.Path) -> None:
    host = Host(str(tmp_path))
    document = {"userns-remap": "default"}
    said = validate.ask_engine(host, ["/bin/false"], "26.1.5", "/x", document)
    assert "would create a user" in said
    assert "no --validate" in validate.ask_engine(host, ["/bin/false"], "20.10.24", "/x", {})
    with pytest.raises(HostError, match="dockerd --validate: exit status 1"):
        validate.ask_engine(host, ["/bin/false", "--config-file", "/y"], "26.1.5", "/x", {})


# -- files ---------------------------------------------------------------------------------------------
def test_files_are_not_written_through_links(tmp_path: pathlib.Path) -> None:
    host = Host(str(tmp_path))
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    meta = files.Meta(0o644, os.getuid(), os.getgid(), 0, 0, {})
    files.stage(host, "/real/f", b"x", meta)
    for action in (
        lambda: files.stage(host, "/link/f", b"y", meta),
        lambda: files.read(host, "/link/f"),
        lambda: files.remove(host, "/link/f"),
        lambda: files.make_directory(host, "/link/d", 0o755),
        lambda: files.set_mode(host, "/link", 0o600, os.getuid(), os.getgid()),
    ):
        with pytest.raises(HostError, match="link"):
            action()
    assert (tmp_path / "real/f").read_bytes() == b"x"


def test_staging_replaces_a_link_instead_of_following_it(tmp_path: pathlib.Path) -> None:
    (tmp_path / "victim").write_text("safe")
    (tmp_path / "f").symlink_to("victim")
    meta = files.Meta(0o600, os.getuid(), os.getgid(), 0, 0, {})
    files.stage(Host(str(tmp_path)), "/f", b"x", meta)
    assert (tmp_path / "victim").read_text() == "safe"
    assert not (tmp_path / "f").is_symlink()


def test_extended_attributes_are_kept(tmp_path: pathlib.Path) -> None:
    host = Host(str(tmp_path))
    (tmp_path / "f").write_text("old")
    try:
        os.setxattr(tmp_path / "f", "user.bulkhead", b"kept")
    except OSError:
        pytest.skip("no extended attributes here")
    _, meta = files.read(host, "/f")
    files.stage(host, "/.f.new", b"new", meta)
    files.swap(host, "/.f.new", "/f")
    assert os.getxattr(tmp_path / "f", "user.bulkhead") == b"kept"
    assert (tmp_path / "f").read_text() == "new"


@pytest.mark.skipif(os.geteuid() != 0, reason="sets a label, as root does")
def test_a_new_file_has_the_label_of_its_directory(tmp_path: pathlib.Path) -> None:
    label = b"system_u:object_r:etc_t:s0\0"
    os.setxattr(tmp_path, "security.selinux", label)
    meta = files.Meta(0o644, os.getuid(), os.getgid(), 0, 0, {})
    files.place(Host(str(tmp_path)), "/f", b"x", meta)
    assert os.getxattr(tmp_path / "f", "security.selinux") == label


# -- ledger --------------------------------------------------------------------------------------------
def test_what_a_process_loaded() -> None:
    known = {"loaded": {"sha256": "a", "pid": 1, "start_ticks": 2}}
    assert ledger.loaded_into(known, 1, 2) == "a"
    assert ledger.loaded_into(known, 1, 3) is None
    assert ledger.loaded_into(known, 1, None) is None
    assert ledger.loaded_into({"loaded": None}, 1, 2) is None
    assert ledger.loaded_into(None, 1, 2) is None


def test_start_ticks_of_a_process_with_a_strange_name(tmp_path: pathlib.Path) -> None:
    (tmp_path / "proc/7").mkdir(parents=True)
    fields = " ".join(["S", *["0"] * 18, "4711", "0"])
    (tmp_path / "proc/7/stat").write_text("7 (a) b (c) %s\n" % fields)
    assert ledger.start_ticks(Host(str(tmp_path)), 7) == 4711
    assert ledger.start_ticks(Host(str(tmp_path)), 8) is None


# -- the witness ---------------------------------------------------------------------------------------
def program(tmp_path: pathlib.Path, architecture: str) -> pathlib.Path:
    with tarfile.open(fileobj=io.BytesIO(health_image.archive(architecture))) as tar:
        assert tar.getnames() == ["health"]
        member = tar.extractfile("health")
        assert member is not None
        target = tmp_path / "health"
        target.write_bytes(member.read())
        target.chmod(tar.getmember("health").mode)
    return target


def ends_with(command: list[str], number: int) -> int:
    process = subprocess.Popen(command)
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        status = pathlib.Path("/proc/%d/status" % process.pid).read_text()
        if "State:\tS" in status:
            break
        time.sleep(0.02)
    time.sleep(0.1 if len(command) == 1 else 1)
    os.kill(process.pid, number)
    return process.wait(20)


@pytest.mark.skipif(platform.machine() not in ("x86_64", "aarch64"), reason="no program for it")
def test_the_program_takes_sigterm(tmp_path: pathlib.Path) -> None:
    target = program(tmp_path, platform.machine())
    assert ends_with([str(target)], signal.SIGTERM) == 0
    assert ends_with([str(target)], signal.SIGUSR1) == -signal.SIGUSR1


@pytest.mark.parametrize("architecture", ["x86_64", "aarch64"])
def test_the_program_under_emulation(tmp_path: pathlib.Path, architecture: str) -> None:
    emulator = shutil.which("qemu-%s-static" % architecture)
    if emulator is None:
        pytest.skip("no emulator for it")
    assert ends_with([emulator, str(program(tmp_path, architecture))], signal.SIGTERM) == 0


@pytest.mark.parametrize(
    ("architecture", "tool", "calls"),
    [("x86_64", "objdump", "syscall"), ("aarch64", "aarch64-linux-gnu-objdump", "svc")],
)
def test_the_program_disassembles(
    tmp_path: pathlib.Path, architecture: str, tool: str, calls: str
) -> None:
    if shutil.which(tool) is None:
        pytest.skip("no %s" % tool)
    target = program(tmp_path, architecture)
    machine = {"x86_64": "i386:x86-64", "aarch64": "aarch64"}[architecture]
    shown = subprocess.run(
        [tool, "-D", "-b", "binary", "-m", machine, "--start-address=0x78", str(target)],
        check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    assert shown.count(calls) == 3
    assert "(bad)" not in shown.split("hlt")[0]


def test_there_is_no_program_for_others() -> None:
    assert not health_image.supports("riscv64")
    assert health_image.supports("aarch64")


# -- comparing -----------------------------------------------------------------------------------------
def observed(**states: Json) -> Json:
    rows = [
        {"id": name, "name": name, "state": "running", "started_at": 0.0, "pid": 7, "kernel": {"pids_max": 5},
         **more}
        for name, more in states.items()
    ]  # fmt: skip
    return {"collected_at": 100.0, "containers": rows}


def test_stable_containers() -> None:
    look = observed(
        a={}, young={"started_at": 95.0}, gone={"state": "exited"}, looping={"state": "restarting"},
        held={"state": "paused"}, unknown={"started_at": None},
    )  # fmt: skip
    assert [row["name"] for row in health.stable(look)] == ["a", "held"]


def test_containers_before_and_after() -> None:
    after = copy.deepcopy(observed(a={"pid": 9, "kernel": {"pids_max": None}}))
    assert health.compare_containers(observed(a={}, b={}), after) == [
        {
            "name": "a",
            "pids_max_before": 5,
            "pids_max_after": None,
            "pid_before": 7,
            "pid_after": 9,
        },
        {
            "name": "b",
            "pids_max_before": 5,
            "pids_max_after": None,
            "pid_before": 7,
            "pid_after": None,
        },
    ]


def test_pending_icc_is_no_failure() -> None:
    def after(running: int) -> Json:
        option = {"effective": True, "read_from": "api"}
        info = {"containers": {"running": running, "paused": 0}}
        return {"engine": {"options": {"icc": option}, "info": info}}

    pending = health.check_options({"icc": False}, ["icc"], after(1), True)
    assert pending == ["icc is True instead of False until no container runs"]
    with pytest.raises(HostError, match="icc is True instead of False"):
        health.check_options({"icc": False}, ["icc"], after(0), True)
    assert health.check_options({"icc": False}, ["icc"], after(0), False) == []
