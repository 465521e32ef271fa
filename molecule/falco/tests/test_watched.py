"""docker_falco on a host whose Falco is a stand-in: installed, told, refused, rolled back, taken away.

The tests go from one state of the host to the next, in the order in which they stand here. What a real
Falco watches none of them can show.
"""

from __future__ import annotations

import hashlib
import pathlib
import typing

import pytest

testinfra_hosts = ["ansible://watched"]

Json = dict[str, typing.Any]
Play = typing.Callable[..., str]
Harden = typing.Callable[..., str]

UNIT = "falco-modern-bpf.service"
CONFIG, RULES = "/etc/falco/config.d/50-bulkhead.yaml", "/etc/falco/rules.d/50-bulkhead.yaml"
DROPIN = f"/etc/systemd/system/{UNIT}.d/50-bulkhead.conf"
SOURCE = "/etc/apt/sources.list.d/bulkhead-falco.sources"
FOLLOW = "falcoctl-artifact-follow.service"


@pytest.fixture
def package(notes: pathlib.Path) -> Json:
    """Return the variables that name the stand-in's package."""
    path = notes / "stand-in" / "falco.deb"
    return {
        "docker_falco_package_file": str(path),
        "docker_falco_package_sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
    }


@pytest.fixture
def repository(notes: pathlib.Path) -> Json:
    """Return the variable that names the stand-in's repository, and the key that has to sign it."""
    made = notes / "stand-in"
    return {
        "docker_falco_repository": {
            "uris": "file:///srv/repository",
            "suites": "stable",
            "components": "main",
            "key": (made / "pinned.asc").read_text(),
            "fingerprint": (made / "pinned.fingerprint").read_text().strip(),
        }
    }


@pytest.fixture
def harden(play: Play) -> Harden:
    """Return a runner of this role alone."""

    def run(**variables: typing.Any) -> str:
        base = {"docker_harden_roles": ["docker_falco"], "docker_falco_enabled": True}
        return play("harden", **{**base, **variables})

    return run


def rule(text: str) -> Json:
    """Return a rule of the user's with a word for the stand-in in it."""
    return {
        "rule": "A rule of a test",
        "desc": text,
        "condition": "evt.type = execve",
        "output": "a test",
        "priority": "NOTICE",
    }


def state(host: typing.Any) -> tuple[str, str]:
    """Return ActiveState and UnitFileState of Falco's unit."""
    said = host.check_output(f"systemctl show -p ActiveState -p UnitFileState {UNIT}")
    found = dict(line.split("=", 1) for line in said.splitlines())
    return found["ActiveState"], found["UnitFileState"]


def sign(host: typing.Any, key: str) -> None:
    """Give the repository on the host the signature of a key."""
    release = "/srv/repository/dists/stable/InRelease"
    host.check_output(f"cp {release}.{key} {release}")


def untouched(host: typing.Any) -> bool:
    """Return whether a failed installation left nothing of itself, and apt works."""
    places = ["/usr/bin/falco", SOURCE, "/var/lib/bulkhead/ledger.json"]
    masked = host.run(f"systemctl is-enabled {FOLLOW}").stdout == "masked\n"
    left = host.check_output("ls -d /tmp/*bulkhead-falco-* 2>/dev/null || true")
    if masked or left or any(host.file(path).exists for path in places):
        return False
    return bool(host.run("apt-get --quiet update --error-on=any").rc == 0)


def pid(host: typing.Any) -> str:
    """Return the process of Falco's unit."""
    return str(host.check_output(f"systemctl show -p MainPID --value {UNIT}"))


# -- before it is there ----------------------------------------------------------------------------
def test_an_absent_package_without_a_source_is_a_clear_error(
    harden: Harden, host: typing.Any
) -> None:
    said = harden(fails=True)
    assert "docker_falco_package_file is ''" in said
    assert "name its package file, or set docker_falco_repository" in said
    assert untouched(host)


def test_another_file_than_the_pinned_one_is_not_installed(
    harden: Harden, package: Json, host: typing.Any
) -> None:
    said = harden(fails=True, **{**package, "docker_falco_package_sha256": "0" * 64})
    assert "find out which of both is the right one" in said
    assert untouched(host)


def test_a_repository_that_another_key_signed_is_not_installed_from(
    harden: Harden, repository: Json, host: typing.Any
) -> None:
    sign(host, "other")
    said = harden(fails=True, **repository)
    assert "has to be signed by docker_falco_repository.key: " in said
    assert untouched(host)


# -- installed, told, run ----------------------------------------------------------------------------
def test_it_is_installed_from_the_repository_told_and_run(
    harden: Harden, repository: Json, host: typing.Any
) -> None:
    sign(host, "pinned")
    harden(**repository)
    assert host.file(SOURCE).exists
    assert state(host) == ("active", "enabled")
    assert host.file(CONFIG).mode == 0o600
    assert "kind: modern_ebpf" in host.file(CONFIG).content_string
    assert "Bulkhead mount in a container" in host.file(RULES).content_string
    limits = host.check_output(f"systemctl show -p LogRateLimitBurst --value {UNIT}")
    assert limits == "1000"
    assert host.run(f"systemctl is-enabled {FOLLOW}").stdout == "masked\n"


def test_a_second_run_changes_and_restarts_nothing(harden: Harden, host: typing.Any) -> None:
    before = pid(host)
    assert "changed=0" in harden()
    assert pid(host) == before


def test_a_rule_that_falco_refuses_changes_nothing(harden: Harden, host: typing.Any) -> None:
    before, files = pid(host), host.check_output(f"sha256sum {CONFIG} {RULES} {DROPIN}")
    said = harden(fails=True, docker_falco_rules=[rule("STAND-IN REFUSES")])
    assert "Refused before anything was changed" in said
    assert f"Falco does not take {RULES}: the stand-in refuses it" in said
    assert pid(host) == before
    assert host.check_output(f"sha256sum {CONFIG} {RULES} {DROPIN}") == files


def test_a_service_that_does_not_stay_up_is_rolled_back(harden: Harden, host: typing.Any) -> None:
    files = host.check_output(f"sha256sum {CONFIG} {RULES} {DROPIN}")
    said = harden(fails=True, docker_falco_rules=[rule("STAND-IN DIES")])
    assert "Rolled back; the host is as it was" in said
    assert f"{UNIT} does not stay up" in said
    assert host.check_output(f"sha256sum {CONFIG} {RULES} {DROPIN}") == files
    assert state(host) == ("active", "enabled")


# -- taken back --------------------------------------------------------------------------------------
def test_a_rollback_stops_it_and_takes_its_files(play: Play, host: typing.Any) -> None:
    play("rollback", docker_harden_rollback="last")
    assert state(host) == ("inactive", "disabled")
    assert [path for path in (CONFIG, RULES, DROPIN) if host.file(path).exists] == []
    assert host.package("falco").is_installed


def test_uninstall_leaves_the_package_as_it_was_installed(
    harden: Harden, play: Play, host: typing.Any
) -> None:
    harden()
    play("uninstall")
    assert state(host) == ("inactive", "disabled")
    assert [path for path in (CONFIG, RULES, DROPIN) if host.file(path).exists] == []
    assert not host.file("/var/lib/bulkhead").exists
    assert host.package("falco").is_installed


# -- once more, from a file --------------------------------------------------------------------------
def test_it_is_installed_from_a_package_file(
    harden: Harden, package: Json, host: typing.Any
) -> None:
    host.check_output("dpkg --purge falco")
    harden(**package)
    assert state(host) == ("active", "enabled")
    assert host.check_output("ls -d /tmp/*bulkhead-falco-* 2>/dev/null || true") == ""
