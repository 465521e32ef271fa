"""What a look says of AppArmor, and that no path of a process leaves the host."""

from __future__ import annotations

import json
import os
import typing

import jsonschema
import pytest

from ansible_collections.bulkhead.hardening.plugins.module_utils import apparmor, look
from ansible_collections.bulkhead.hardening.plugins.module_utils.look_apparmor import path_class
from ansible_collections.bulkhead.hardening.plugins.module_utils.transaction import apply

from .checkout import ROOT
from .fakes import ActHost, act_host, plan, profile

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="places files of root's")

Json = dict[str, typing.Any]
SCHEMA = json.loads((ROOT / "docs/schemas/observation.schema.json").read_text())
LATER = 4_000_000_000


def line(moment: int, **fields: str) -> str:
    """Return a line of the audit log about a profile, as the kernel writes it."""
    words = " ".join(f'{name}="{value}"' for name, value in fields.items())
    return f"type=AVC msg=audit({moment}.123:45): {words} pid=7 comm=secret-name"


def event(moment: int = LATER, **fields: str) -> str:
    """Return a line on something that docker-web let pass."""
    return line(moment, **{"apparmor": "ALLOWED", "profile": "docker-web", **fields})


@pytest.fixture
def host() -> typing.Iterator[ActHost]:
    """Give a host with a profile of ours in complain mode."""
    with act_host() as made:
        answer = apply(made, plan(profile(made, "docker-web", mode="complain")))
        assert answer["transaction"]["outcome"] == "committed", answer["msg"]
        yield made


def seen(host: ActHost) -> Json:
    answer = look.observe(host, ["lsm"])
    jsonschema.Draft202012Validator(SCHEMA).validate(answer)
    return typing.cast(Json, answer["lsm"]["apparmor"])


def reports(host: ActHost, *lines: str) -> list[tuple[typing.Any, ...]]:
    host.write("/var/log/audit/audit.log", "".join(text + "\n" for text in lines))
    rows = seen(host)["reports"]
    assert {row["profile"] for row in rows} <= {"docker-web"}
    return [(row["operation"], row["what"], row["access"], row["count"]) for row in rows]


def test_reports_are_counted_by_kind(host: ActHost) -> None:
    found = reports(
        host,
        event(operation="open", name="/etc/passwd", requested_mask="r"),
        event(operation="open", name="/etc/secret/plan", requested_mask="r"),
        event(operation="exec", name="/usr/bin/dash", requested_mask="x"),
        event(operation="capable", capname="net_raw"),
        event(operation="create", family="inet", sock_type="raw", requested_mask="create"),
        event(apparmor="AUDIT", operation="mknod", name="/root/thing", requested_mask="c"),
    )
    assert found == [
        ("capable", "net_raw", "", 1),
        ("create", "inet raw", "", 1),
        ("exec", "/usr/bin", "x", 1),
        ("mknod", "/root", "c", 1),
        ("open", "/etc", "r", 2),
    ]


@pytest.mark.parametrize(
    "text",
    [
        event(moment=1_000_000_000, operation="open", name="/etc/x"),
        event(apparmor="DENIED", operation="open", name="/etc/x"),
        event(profile="docker-default", operation="open", name="/etc/x"),
        "type=AVC apparmor=ALLOWED profile=docker-web operation=open",
        "\x00\xff not a line",
    ],
    ids=["before it was loaded", "denied", "another's", "without a time", "broken"],
)
def test_what_does_not_count(host: ActHost, text: str) -> None:
    assert reports(host, text) == []


def test_no_word_of_a_process_leaves_the_host(host: ActHost) -> None:
    secret = "hunter2"
    lines = [
        event(operation=secret + "!", name=f"/srv/{secret}", requested_mask=secret.upper()),
        event(operation="open", name=f"/srv/{secret} x".encode().hex().upper()),
        event(operation="open", name=f"/{secret}/x"),
        event(operation="capable", capname=f"{secret} x"),
        event(profile=f"docker-web//{secret}", operation="open", name="/etc/x"),
    ]
    reports(host, *lines)
    assert secret not in json.dumps(seen(host))


def test_without_auditd_the_kernels_log_is_read(host: ActHost) -> None:
    host.daemon.log = [event(operation="open", name="/etc/passwd", requested_mask="r")]
    rows = seen(host)["reports"]
    assert [(row["what"], row["count"]) for row in rows] == [("/etc", 1)]


def test_no_log_is_read_where_nothing_of_ours_complains(host: ActHost) -> None:
    host.apparmor.replace("profile docker-web {\n}\n")
    host.apparmor.replace("profile other flags=(complain) {\n}\n")
    assert reports(host, event(operation="open", name="/etc/passwd")) == []


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/etc/passwd", "/etc"),
        ("/usr/bin/dash", "/usr/bin"),
        ("/usr/games/x", "/usr"),
        ("/home/ann/x", "/home"),
        ("/etcetera/x", "other"),
        ("/x", "/"),
        ("relative", "other"),
        ("2F6574632F612062", "/etc"),
    ],
)
def test_the_class_of_a_path(path: str, expected: str) -> None:
    assert path_class(path) == expected


def test_the_daemons_own_profile(host: ActHost) -> None:
    pid = host.service["MainPID"]
    assert seen(host)["daemon_profile"] is None
    host.write(f"/proc/{pid}/attr/current", "snap.docker.dockerd (enforce)\n")
    assert seen(host)["daemon_profile"] == "snap.docker.dockerd"


@pytest.mark.parametrize(
    ("label", "expected"),
    [
        ("docker-web (enforce)", True),
        ("docker-web//child (complain)", True),
        ("other//&docker-web (enforce)", True),
        ("docker-webs (enforce)", False),
        ("unconfined", False),
    ],
)
def test_which_processes_a_profile_confines(host: ActHost, label: str, expected: bool) -> None:
    host.write("/proc/9/attr/current", label + "\n")
    assert apparmor.confines(host, "docker-web") is expected
