"""What is not known is never a pass: every value that a check reads, taken away from a host that passes."""

from __future__ import annotations

import copy
import itertools
import random
import typing

import pytest

from ansible_collections.bulkhead.hardening.plugins.plugin_utils import audit_evaluate

from .test_audit_checks import CASES, CHECKS, changed, verdicts

Json = dict[str, typing.Any]

ROOTS = ("host", "object")

#: Values whose absence says something: what null means, and so why the check still passes.
SAYS_SOMETHING: dict[tuple[str, str], str] = {
    ("1.1.2", "host.docker_group.resolved_by"): "there is no name service beside the files",
    ("2.2", "host.engine.effective.bridge.value"): "icc is off, on whatever bridge",
    ("2.2", "host.engine.rootless"): "bridges are filtered, whoever runs the daemon",
    ("2.10", "host.engine.rootless"): "the daemon remaps users",
    ("2.16", "host.engine.info"): "what the option is was read all the same",
    ("4.1", "object.kernel.uid"): "the id on the host is not 0",
    ("4.1", "object.kernel.host_uid"): "the id inside is not 0",
    ("5.2", "host.engine.rootless"): "it is confined, whoever runs the daemon",
    ("5.12", "object.config.cpu_quota"): "another limit is set",
    ("5.12", "object.config.cpu_shares"): "another limit is set",
    ("5.12", "object.config.cpuset_cpus"): "another limit is set",
    ("5.12", "object.config.nano_cpus"): "another limit is set",
    ("5.12", "object.kernel.cpu_limit"): "null is no limit, and another one is set",
    ("5.15", "object.config.restart_policy.max"): "it is never started again",
    ("5.28", "object.image_reference.by_id"): "it was named by digest",
    ("7.2", "host.swarm.role"): "the address is that of one interface, whatever the node is",
    ("BH-7", "host.engine.effective.metrics_addr.value"): "it listens on loopback addresses alone",
    ("BH-7", "host.engine.effective.network_diagnostic_port.value"): "it listens on no other",
    ("BH-31", "object.image_reference.by_id"): "it was named by digest",
}


def chains(node: Json) -> set[tuple[str, ...]]:
    """Return the paths that an expression reads, such as ``('object', 'kernel', 'seccomp')``."""
    found: set[tuple[str, ...]] = set()
    path = _chain(node)
    if path is not None:
        return {path}
    for child in node["children"]:
        if isinstance(child, dict):
            found |= chains(child)
    return found


def _chain(node: Json) -> tuple[str, ...] | None:
    names = [node] if node["type"] == "field" else node["children"]
    if node["type"] not in ("field", "subexpression") or names[0].get("value") not in ROOTS:
        return None
    return tuple(
        child["value"] for child in itertools.takewhile(lambda c: c["type"] == "field", names)
    )


def read_by(check: str) -> set[tuple[str, tuple[str, ...]]]:
    """Return what a check reads, with the field whose expression does."""
    return {
        (name, path)
        for name in ("known", "applies", "passes", "when_stopped")
        if name in CHECKS[check].expressions
        for path in chains(CHECKS[check].expressions[name].parsed)
        if len(path) > 1
    }


def objects(check: str, look: Json) -> list[Json]:
    kind = {"container": "containers", "image": "images", "network": "networks"}
    kind |= {"service": "services", "volume": "volumes", "storage": "storage"}
    scope = CHECKS[check].scope
    if scope == "file":
        return list(look["audit"]["objects"] if check.startswith("1.") else look["files"])
    return list(look[kind[scope]])


def without(look: Json, check: str, name: str, path: tuple[str, ...]) -> list[str | None]:
    """Set one value to null, in every object that the expression is asked about; return which."""
    asked: list[Json] = [] if CHECKS[check].scope in ("host", "daemon") else objects(check, look)
    if "when_stopped" in CHECKS[check].expressions and name in ("passes", "when_stopped"):
        asked = [r for r in asked if (r["kernel"] is None) == (name == "when_stopped")]
    hit = []
    for root in [look] if path[0] == "host" else asked:
        at: typing.Any = root
        for key in path[1:-1]:
            at = at.get(key) if isinstance(at, dict) else None
        if isinstance(at, dict) and at.get(path[-1]) is not None:
            at[path[-1]] = None
            hit += [named(thing) for thing in (asked if root is look else [root])] or [None]
    return hit


def named(thing: Json) -> str:
    return str(
        thing.get("path") or thing.get("name") or (thing.get("tags") or [thing.get("id", "?")])[0]
    )


@pytest.mark.parametrize(
    ("check", "name", "path"),
    [
        (check, name, path)
        for check, rows in CASES.items()
        if "pass" in rows
        for name, path in sorted(read_by(check))
    ],
    ids=lambda value: ".".join(value) if isinstance(value, tuple) else value,
)
def test_a_value_that_is_not_known_is_no_pass(check: str, name: str, path: tuple[str, ...]) -> None:
    look, policy = changed(copy.deepcopy(CASES[check]["pass"]))
    before = verdicts(check, copy.deepcopy(look), policy)
    hit = without(look, check, name, path)
    after = verdicts(check, look, policy)
    still = [
        key for key, verdict in after.items() if verdict == before.get(key) == "pass" and key in hit
    ]
    assert bool(still) == ((check, ".".join(path)) in SAYS_SOMETHING), still


JUNK: tuple[typing.Any, ...] = (None, -1, 1e300, True, "", "zz", [], {}, [None], [{}], {"a": 1})


@pytest.mark.parametrize("seed", range(40))
def test_a_host_that_answers_nonsense_gets_verdicts_all_the_same(seed: int) -> None:
    """What a host says is hostile input: no value of any kind ends an audit."""
    chance = random.Random(seed)
    look, policy = changed({"on": chance.choice(("audit-hardened", "audit-swarm", "audit-daemon"))})
    places: list[tuple[typing.Any, typing.Any]] = []
    waiting: list[typing.Any] = [look]
    while waiting:
        branch = waiting.pop()
        for key, value in branch.items() if isinstance(branch, dict) else enumerate(branch):
            places.append((branch, key))
            if isinstance(value, (dict, list)):
                waiting.append(value)
    for branch, key in chance.sample(places, 80):
        branch[key] = copy.deepcopy(chance.choice(JUNK))
    found = audit_evaluate.evaluate(list(CHECKS.values()), look, policy)
    assert [row["check"] for row in found["results"]] == list(CHECKS)
    assert {row["verdict"] for row in found["results"]} <= set(audit_evaluate.VERDICTS)
