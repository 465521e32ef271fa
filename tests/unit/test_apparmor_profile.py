"""A profile's text, by table; and the parser's own word on it."""

from __future__ import annotations

import pathlib
import subprocess
import typing

import pytest
import yaml

from ansible_collections.bulkhead.hardening.plugins.plugin_utils import apparmor_profile as profiles
from tests.unit.checkout import ROOT

Json = dict[str, typing.Any]

EXAMPLE: Json = yaml.safe_load(
    (ROOT / "roles/docker_apparmor/files/examples/nginx.yml").read_text()
)
NGINX: Json = EXAMPLE["docker_apparmor_profiles"]["docker-nginx"]
SNAPSHOT = ROOT / "tests/fixtures/apparmor/docker-nginx"

#: The features of a kernel, as the Debian package apparmor has them.
FEATURES = pathlib.Path("/usr/share/apparmor-features/features")


def render(spec: Json, mode: str = "enforce", abi: bool = True, daemon: str | None = None) -> str:
    checked = profiles.check(spec)
    return profiles.render("docker-x", checked, mode, profiles.Facts(abi, daemon))


def rules(text: str) -> list[str]:
    """Return the rules of a profile, comments and blank lines apart."""
    lines = [line.strip() for line in text.splitlines()]
    return [line for line in lines if line and not line.startswith("#")]


def parse(text: str) -> subprocess.CompletedProcess[str]:
    command = ["/usr/sbin/apparmor_parser", "--skip-kernel-load", "--skip-cache"]
    command += ["--kernel-features", str(FEATURES), "--policy-features", str(FEATURES)]
    return subprocess.run(command, input=text, capture_output=True, text=True, check=False)


# -- what it says --------------------------------------------------------------------------------
def test_the_nginx_profile_is_this_text() -> None:
    checked = profiles.check(NGINX)
    text = profiles.render("docker-nginx", checked, "enforce", profiles.Facts(abi=True))
    assert text == SNAPSHOT.read_text()


@pytest.mark.parametrize(
    ("spec", "there", "not_there"),
    [
        ({}, ["network,", "capability,", "file,", "umount,", "deny mount,"], []),
        ({"network": {"allow": []}}, ["capability,", "file,"], ["network,"]),
        ({"network": {"allow": ["inet stream"]}}, ["network inet stream,"], ["network,"]),
        ({"network": {"deny": ["raw"]}}, ["network,", "deny network raw,"], []),
        (
            {"capabilities": {"allow": ["chown"], "deny": ["net_raw"]}},
            ["capability chown,", "deny capability net_raw,"],
            ["capability,"],
        ),
        (
            {"files": {"read": ["/etc/**"], "write": ["/run/x"], "execute": ["/usr/bin/x"]}},
            ["/etc/** r,", "/run/x rwkl,", "/usr/bin/x mrix,"],
            ["file,"],
        ),
        ({"files": {"read": []}}, [], ["file,"]),
        (
            {"files": {"deny": ["/a"], "deny_write": ["/b"], "deny_execute": ["/c"]}},
            ["file,", "deny /a mrwklx,", "deny /b wl,", "deny /c mx,"],
            [],
        ),
        ({"abstractions": ["base"]}, ["include <abstractions/base>"], []),
        ({"raw": ["  deny /x w,"]}, ["deny /x w,"], []),
        ({}, ["include if exists <local/docker-x>"], []),
        ({"local": False}, [], ["include if exists <local/docker-x>"]),
    ],
)
def test_what_a_description_comes_to(spec: Json, there: list[str], not_there: list[str]) -> None:
    found = rules(render(spec))
    assert [rule for rule in there if rule not in found] == []
    assert [rule for rule in not_there if rule in found] == []


def test_what_complain_mode_lets_pass_is_audited_instead_of_denied() -> None:
    spec = {
        "network": {"deny": ["raw"]},
        "capabilities": {"deny": ["net_raw"]},
        "files": {"deny": ["/a"], "deny_write": ["/b"], "deny_execute": ["/c"]},
    }
    found = rules(render(spec, "complain"))
    assert "profile docker-x flags=(complain,attach_disconnected,mediate_deleted) {" in found
    audited = ["network raw,", "capability net_raw,", "/a mrwklix,", "/b wl,", "/c mix,"]
    assert [rule for rule in found if rule.startswith("audit ")] == [f"audit {r}" for r in audited]
    # Docker's own denials are no part of what is tried out.
    assert "deny mount," in found


def test_the_abi_is_named_where_the_host_has_it() -> None:
    assert "abi <abi/3.0>," in rules(render({}))
    assert "abi <abi/3.0>," not in rules(render({}, abi=False))


@pytest.mark.parametrize(
    ("daemon", "senders"),
    [
        (None, ["unconfined", "runc", "crun"]),
        ("snap.docker.dockerd", ["unconfined", "runc", "crun", "snap.docker.dockerd"]),
    ],
)
def test_those_who_stop_a_container_may_send_it_signals(
    daemon: str | None, senders: list[str]
) -> None:
    found = [rule for rule in rules(render({}, daemon=daemon)) if "signal (receive)" in rule]
    assert found == [f'signal (receive) peer="{sender}",' for sender in senders]


# -- what the parser says ------------------------------------------------------------------------
@pytest.mark.parametrize("mode", ["enforce", "complain"])
@pytest.mark.parametrize(
    "spec",
    [
        NGINX,
        {},
        profiles.HARDENED_DEFAULT,
        {
            "network": {"allow": ["inet stream", "unix"], "deny": ["packet"]},
            "capabilities": {"allow": ["chown"], "deny": ["sys_admin"]},
            "files": {
                "read": ["/etc/**", "@{PROC}/*/status", "/srv/{a,b}/**"],
                "write": ["/run/**"],
                "execute": ["/usr/bin/*"],
                "deny": ["/etc/shadow"],
                "deny_write": ["/etc/**"],
                "deny_execute": ["/usr/bin/dash"],
            },
            "abstractions": ["base"],
            "raw": ["deny /x w,"],
        },
    ],
    ids=["nginx", "nothing", "docker-default", "everything"],
)
def test_the_parser_takes_it(spec: Json, mode: str) -> None:
    done = parse(render(spec, mode))
    assert (done.returncode, done.stderr) == (0, "")


def test_the_parser_would_refuse_another() -> None:
    done = parse(render({"raw": ["bogus rule"]}))
    assert done.returncode == 1
    assert "line" in done.stderr


# -- what is refused -----------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("spec", "where", "words"),
    [
        ([], "the profile", "a mapping"),
        ({"netwrok": {}}, "the profile", "no such field; there are network"),
        ({"network": {"alow": []}}, "network", "no such field; there are allow, deny"),
        ({"network": {"allow": "raw"}}, "network.allow", "give a list"),
        ({"network": {"allow": ["inet stream,\n file"]}}, "network.allow", "a family, a type"),
        ({"capabilities": {"allow": ["CAP_CHOWN"]}}, "capabilities.allow", "without CAP_"),
        ({"files": {"read": ["etc/passwd"]}}, "files.read", "absolute paths"),
        ({"files": {"read": ["/etc/x r,"]}}, "files.read", "absolute paths"),
        ({"files": {"read": ["/x,"]}}, "files.read", "absolute paths"),
        ({"files": {"write": ["/a\nfile,"]}}, "files.write", "absolute paths"),
        ({"files": ["/a"]}, "files", "a mapping"),
        ({"abstractions": ["../x"]}, "abstractions", "abstractions/"),
        ({"raw": "file,"}, "raw", "a list of lines"),
        ({"raw": ["file,\n}"]}, "raw", "item of its own"),
        ({"local": "maybe"}, "local", "true or false"),
        ({"mode": "audit"}, "mode", "enforce or complain"),
        (
            {"files": {"write": ["/srv/x"], "deny_write": ["/srv/**"]}},
            "files.write",
            "denial always wins",
        ),
        ({"files": {"read": ["/a"], "deny": ["/a"]}}, "files.read", "denial always wins"),
        (
            {"files": {"execute": ["/b/c"], "deny_execute": ["/b/**"]}},
            "files.execute",
            "denial always wins",
        ),
        ({"network": {"allow": ["raw"], "deny": ["raw"]}}, "network.allow", "denial always wins"),
    ],
)
def test_a_wrong_description_is_refused(spec: typing.Any, where: str, words: str) -> None:
    with pytest.raises(profiles.Wrong, match=words) as caught:
        profiles.check(spec)
    assert caught.value.where == where


@pytest.mark.parametrize("name", ["", "Docker", "a/b", ".x", "x.dpkg-new", "a b", "x~", 3, "-x"])
def test_a_wrong_name_is_refused(name: object) -> None:
    with pytest.raises(profiles.Wrong, match="small letters"):
        profiles.check_name(name)


# -- texts of others -----------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("head", "mode", "expected"),
    [
        ("profile docker-x {", "enforce", "profile docker-x {"),
        ("profile docker-x {", "complain", "profile docker-x flags=(complain) {"),
        ('profile "docker-x" flags=(complain) {', "enforce", "profile docker-x {"),
        (
            "profile docker-x flags=(attach_disconnected, complain) {",
            "enforce",
            "profile docker-x flags=(attach_disconnected) {",
        ),
        (
            "profile docker-x flags=(mediate_deleted) {",
            "complain",
            "profile docker-x flags=(complain,mediate_deleted) {",
        ),
    ],
)
def test_a_given_text_gets_header_and_mode(head: str, mode: str, expected: str) -> None:
    text = profiles.adopt("docker-x", f"include <tunables/global>\n{head}\n  file,\n}}", mode)
    assert text.startswith("# Written by Bulkhead (role docker_apparmor)")
    assert text.endswith(f"include <tunables/global>\n{expected}\n  file,\n}}\n")
    assert parse(text).returncode == 0


@pytest.mark.parametrize(
    "text", ["", "profile other {\n}\n", "profile docker-x {}\nprofile b {}\n"]
)
def test_a_given_text_defines_one_profile_of_that_name(text: str) -> None:
    with pytest.raises(profiles.Wrong, match="named docker-x"):
        profiles.adopt("docker-x", text, "enforce")
