"""Switches and whole numbers as an inventory in INI or ``-e NAME=VALUE`` gives them: as texts."""

from __future__ import annotations

import typing

import pytest

from ansible_collections.bulkhead.hardening.plugins.plugin_utils import (
    apparmor_plan,
    apparmor_profile,
    auditd_plan,
    daemon_policy,
    falco_plan,
    kernel_plan,
    recommend,
    scalars,
    selinux_module,
    selinux_plan,
    trust_plan,
)
from ansible_collections.bulkhead.hardening.plugins.plugin_utils.plan import PolicyError

Json = dict[str, typing.Any]


@pytest.mark.parametrize(
    ("value", "meant"),
    [
        (True, True), (False, False), ("true", True), ("False", False), ("YES", True), ("no", False),
        ("on", True), ("off", False), ("1", True), ("0", False), (" true ", True),
        (1, True), (0, False), (2, None), (-1, None), (1.0, None),
        ("", None), ("yse", None), (None, None), ([], None), ({}, None),
    ],
)  # fmt: skip
def test_a_switch(value: object, meant: bool | None) -> None:
    assert scalars.as_boolean(value) is meant
    if meant is None:
        with pytest.raises(PolicyError, match=r"docker_x is .*: give true or false"):
            scalars.boolean("docker_x", value)
    else:
        assert scalars.boolean("docker_x", value) is meant


@pytest.mark.parametrize(
    ("value", "meant"),
    [(8192, 8192), ("8192", 8192), (0, 0), ("0", 0), (-1, -1),
     (True, None), ("-1", None), ("8k", None), ("٣", None), ("9" * 20, None), (1.0, None), (None, None)],
)  # fmt: skip
def test_a_whole_number(value: object, meant: int | None) -> None:
    assert scalars.as_integer(value) == meant
    if meant is None or meant < 0:
        with pytest.raises(
            PolicyError, match=r"docker_x is .*: give a whole number from 0 to 9000"
        ):
            scalars.integer("docker_x", value, 0, 9000)
    else:
        assert scalars.integer("docker_x", value, 0, 9000) == meant


def _rule(offline: object) -> Json:
    rule = {"pattern": "docker.io/*", "require": "signed", "offline": offline}
    return {
        "policy": [{**rule, "identity": {"issuer": "https://i.example", "subject": "a@b.example"}}]
    }


@pytest.mark.parametrize(
    ("read", "texts", "values"),
    [
        (apparmor_plan.read, {"default_profile": "true"}, {"default_profile": True}),
        (apparmor_profile.check, {"local": "no"}, {"local": False}),
        (auditd_plan.read, {"install": "yes", "backlog_limit": "8192"},
         {"install": True, "backlog_limit": 8192}),
        (daemon_policy.read, {"icc": "off", "userns_size": "70000"}, {"icc": False, "userns_size": 70000}),
        (falco_plan.read, {"enabled": "true", "own_rules": "False", "journal_burst": "5"},
         {"enabled": True, "own_rules": False, "journal_burst": 5}),
        (kernel_plan.read, {"modules": {"sctp": "true"}}, {"modules": {"sctp": True}}),
        (recommend.settings, {"memory_factor": "3"}, {"memory_factor": 3}),
        (selinux_module.check, {"network": "true"}, {"network": True}),
        (selinux_plan.read, {"enabled": "false", "enforcing": "true", "booleans": {"x": "on"}},
         {"enabled": False, "enforcing": True, "booleans": {"x": True}}),
        (trust_plan.read, _rule("true"), _rule(True)),
    ],
)  # fmt: skip
def test_every_role_reads_the_texts_of_both(
    read: typing.Callable[[Json], object], texts: Json, values: Json
) -> None:
    assert read(texts) == read(values)
