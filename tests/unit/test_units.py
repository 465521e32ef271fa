"""Options that a distribution's unit gives dockerd as flags: seen, named, refused, taken over.

The units are those of docker-ce, Debian and Fedora, as their packages have them; Fedora's sets of
flags in /etc/sysconfig/docker are known from its reports, not from a host.
"""

from __future__ import annotations

import os
import typing

import pytest

from ansible_collections.bulkhead.hardening.plugins.action.docker_host_apply import _FOR_PEOPLE
from ansible_collections.bulkhead.hardening.plugins.module_utils.flags_dropin import FLAGS_DROPIN
from ansible_collections.bulkhead.hardening.plugins.module_utils.transaction import apply
from ansible_collections.bulkhead.hardening.plugins.module_utils.transaction_undo import undo
from ansible_collections.bulkhead.hardening.plugins.plugin_utils import daemon_plan, daemon_policy

from .fakes import ActHost, act_host, json_set, observe, plan
from .test_look_systemd import DEBIAN, DOCKER_CE, DROPIN, FEDORA, UNIT

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="changes owners, as root does")

Json = dict[str, typing.Any]


class Case(typing.NamedTuple):
    """A unit with files beside it; and of an option what its flag says, where, and what is wanted."""

    files: dict[str, str]
    key: str
    flag: typing.Any
    source: str
    place: str
    wanted: Json
    value: typing.Any


CASES = {
    "docker-ce": Case(
        {UNIT: DOCKER_CE},
        "hosts", ["fd://"], "flag", UNIT,
        {"options": {"hosts": ["unix:///run/docker.sock"]}}, ["unix:///run/docker.sock"],
    ),
    "docker-ce, a drop-in": Case(
        {
            UNIT: DOCKER_CE,
            DROPIN: "[Service]\nExecStart=\nExecStart=/usr/bin/dockerd -H fd:// --icc=true\n",
        },
        "icc", True, "flag", DROPIN, {"icc": False}, False,
    ),
    "Debian": Case(
        {UNIT: DEBIAN, "/etc/default/docker": "DOCKER_OPTS='--debug --log-level=debug'\n"},
        "log-level", "debug", "environment", "/etc/default/docker",
        {"options": {"log-level": "info"}}, "info",
    ),
    "Fedora": Case(
        {
            UNIT: FEDORA,
            "/etc/sysconfig/docker": 'OPTIONS="--selinux-enabled \\\n  --log-driver=journald \\\n'
            '  --live-restore \\\n  --default-ulimit nofile=1024:1024 \\\n"\n',
        },
        "log-driver", "journald", "environment", "/etc/sysconfig/docker",
        {"options": {"log-driver": "local"}}, "local",
    ),
}  # fmt: skip


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> Case:
    return CASES[request.param]


@pytest.fixture
def host(case: Case) -> typing.Iterator[ActHost]:
    """Give a host whose daemon runs with that unit."""
    with act_host() as made:
        for path, content in case.files.items():
            made.write(path, content)
        made._systemctl("daemon-reload")
        assert made._systemctl("restart").rc == 0
        made.calls.clear()
        yield made


def planned(host: ActHost, **policy: typing.Any) -> Json:
    """Plan that one thing alone."""
    names = ("live_restore", "log_opts", "ulimits", "pids_limit", "file_modes", "seccomp_profile")
    quiet = dict.fromkeys(names, "unmanaged")
    policy = {"profile": "compatible", **quiet, **policy}
    return daemon_plan.plan(observe(host), daemon_policy.read(policy))


def test_the_look_says_where_the_flag_stands(host: ActHost, case: Case) -> None:
    found = observe(host)["engine"]["options"][case.key]
    assert (found["configured"], found["source"], found["where"]) == (
        case.flag,
        case.source,
        case.place,
    )


def test_the_plan_names_the_place_and_the_variable(host: ActHost, case: Case) -> None:
    made = planned(host, **case.wanted)
    row = next(row for row in made["settings"] if row["setting"] == case.key)
    assert row["state"] == "blocked"
    assert case.place in row["reason"]
    assert "docker_daemon_take_over_flags" in row["reason"]
    assert made["operations"] == []


def test_the_key_beside_the_flag_is_refused(host: ActHost, case: Case) -> None:
    before = host.tree()
    answer = apply(host, plan(json_set(host, case.key, case.value), effect="restart"))
    assert answer["transaction"]["outcome"] == "refused"
    assert "%s: it is also set as a flag in %s" % (case.key, case.place) in answer["msg"]
    assert (host.tree(), host.calls) == (before, [])


def test_the_option_is_taken_over_and_given_back(host: ActHost, case: Case) -> None:
    before, flags = host.tree(), dict(host.flags)
    made = planned(host, take_over_flags=[case.key], **case.wanted)
    answer = apply(host, {key: part for key, part in made.items() if key not in _FOR_PEOPLE})
    assert answer["transaction"]["outcome"] == "committed", answer["msg"]
    assert host.config() == {case.key: case.value}
    assert host.daemon.effective[case.key] == case.value
    assert host.flags == {key: value for key, value in flags.items() if key != case.key}
    changed = {path for path in host.tree() if host.tree()[path] != before.get(path)}
    new = {"/etc/docker/daemon.json", FLAGS_DROPIN}
    assert changed - {os.path.dirname(path) for path in new} == new
    assert planned(host, take_over_flags=[case.key], **case.wanted)["operations"] == []
    # And back.
    assert undo(host, "last")["transaction"]["outcome"] == "committed"
    assert (host.tree(), host.flags) == (before, flags)


@pytest.mark.parametrize("effect", ["reload", "restart", "none"])
def test_a_flag_that_the_daemon_gets_at_its_next_start(effect: str) -> None:
    """Somebody wrote it after the daemon's start: the key beside it would end the next one."""
    with act_host() as host:
        host.write(UNIT, DEBIAN)
        host._systemctl("restart")
        host.calls.clear()
        host.write("/etc/default/docker", "DOCKER_OPTS=--live-restore\n")
        before = host.tree()
        answer = apply(host, plan(json_set(host, "live-restore", True), effect=effect))
        assert answer["transaction"]["outcome"] == "refused"
        assert "live-restore: it is also set as a flag in /etc/default/docker" in answer["msg"]
        assert (host.tree(), host.calls) == (before, [])


def test_the_engine_is_asked_with_the_flags_of_its_next_start(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with act_host() as host:
        host.write("/etc/default/docker", "DOCKER_OPTS=--ip-forward=false\n")
        asked: list[list[str]] = []
        run = host.run

        def note(argv: list[str], *arguments: typing.Any, **options: typing.Any) -> typing.Any:
            asked.append(argv)
            return run(argv, *arguments, **options)

        monkeypatch.setattr(host, "run", note)
        apply(host, plan(json_set(host, "icc", False), effect="restart"))
        (command,) = (argv for argv in asked if "--validate" in argv)
        assert "--ip-forward=false" in command
