# Copyright: (c) 2026, the Bulkhead authors
# Apache License 2.0 (see LICENSE)
"""One run of the audit: its settings, checked before any host is touched, and one host's result."""

from __future__ import annotations

import collections
import dataclasses
import datetime
import difflib
import re
import typing

from ansible_collections.bulkhead.hardening.plugins.module_utils.daemon_options import release
from ansible_collections.bulkhead.hardening.plugins.plugin_utils import (
    audit_checks,
    audit_evaluate,
    audit_waivers,
    capabilities,
)
from ansible_collections.bulkhead.hardening.plugins.plugin_utils.audit_checks import (
    Check,
    Selection,
)
from ansible_collections.bulkhead.hardening.plugins.plugin_utils.plan import Json, PolicyError

SCHEMA: typing.Final = "bulkhead.audit/1"

#: Verdicts, or ``SEVERITY:VERDICT``, that make a run fail.
_FAIL_ON = re.compile(r"(?:(high|medium|low):)?(error|fail|pending|manual)\Z")


@dataclasses.dataclass(frozen=True)
class Settings:
    """What a run judges, and how. The fields are the variables ``docker_audit_*``."""

    checks: tuple[Check, ...]
    selection: Selection
    policy: Json
    waivers: tuple[Json, ...]
    fail_on: tuple[str, ...]

    def read_waivers(self) -> list[audit_waivers.Waiver]:
        """Return the waivers afresh, unused."""
        known = {check.id for check in self.checks}
        return audit_waivers.read(self.waivers, known)


def settings(raw: typing.Mapping[str, typing.Any]) -> Settings:
    """Check the settings of a run, without a host.

    :param raw: the public variables of ``docker_audit`` without their prefix.
    :raises PolicyError: naming the variable, its value and the fix.
    """
    known = {"checks", "check_files", "policy", "waivers", "fail_on", "reference"}
    known |= {field.name for field in dataclasses.fields(Selection)}
    for name in raw:
        if name not in known:
            raise PolicyError(f"docker_audit_{name}", raw[name], "there is no such variable")
    checks = audit_checks.with_own(_list(raw, "checks"), _list(raw, "check_files"))
    selection = Selection(
        levels=_numbers(raw, "levels"),
        igs=_numbers(raw, "igs"),
        **{name: _texts(raw, name) for name in ("sections", "ids", "tags", "skip")},
    )
    found = Settings(
        checks=tuple(audit_checks.select(checks, selection)),
        selection=selection,
        policy=policy(raw.get("policy", {})),
        waivers=tuple(_list(raw, "waivers")),
        fail_on=fail_on(_list(raw, "fail_on")),
    )
    audit_waivers.read(found.waivers, {check.id for check in checks})
    return dataclasses.replace(found, waivers=tuple(w for w in found.waivers if _about(w, found)))


def _about(waiver: Json, found: Settings) -> bool:
    """Tell whether a waiver is about a check that is selected."""
    return any(check.id == waiver["check"] for check in found.checks)


def _list(raw: typing.Mapping[str, typing.Any], name: str) -> list[typing.Any]:
    value = raw.get(name, [])
    if not isinstance(value, (list, tuple)):
        raise PolicyError(f"docker_audit_{name}", value, "give a list")
    return list(value)


def _numbers(raw: typing.Mapping[str, typing.Any], name: str) -> tuple[int, ...]:
    try:
        return tuple(int(item) for item in _list(raw, name))
    except (TypeError, ValueError):
        raise PolicyError(f"docker_audit_{name}", raw[name], "give a list of numbers") from None


def _texts(raw: typing.Mapping[str, typing.Any], name: str) -> tuple[str, ...]:
    found = _list(raw, name)
    for item in found:
        if not isinstance(item, str) and not (name == "sections" and isinstance(item, int)):
            # YAML reads 2.10 as the number 2.1.
            raise PolicyError(f"docker_audit_{name}", item, "give texts in quotes, such as '2.10'")
    return tuple(str(item) for item in found)


def fail_on(values: typing.Sequence[object]) -> tuple[str, ...]:
    """Check ``docker_audit_fail_on``.

    :raises PolicyError: an entry is none of the verdicts, alone or behind a severity.
    """
    for value in values:
        if not isinstance(value, str) or not _FAIL_ON.match(value):
            raise PolicyError(
                "docker_audit_fail_on", value, "give error, fail, pending or manual, or high:fail"
            )
    return tuple(str(value) for value in values)


def policy(raw: object) -> Json:
    """Return ``docker_audit_policy`` over its defaults.

    :raises PolicyError: a name that there is not, or a value of another type.
    """
    if not isinstance(raw, dict):
        raise PolicyError("docker_audit_policy", raw, "give a mapping")
    for name, value in raw.items():
        if name not in audit_evaluate.POLICY:
            near = difflib.get_close_matches(str(name), audit_evaluate.POLICY, 1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise PolicyError(f"docker_audit_policy.{name}", value, f"there is no such value{hint}")
        default = audit_evaluate.POLICY[name]
        kind = type(default)
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise PolicyError(f"docker_audit_policy.{name}", value, f"give a {kind.__name__}")
        if kind is list:
            item_kind = int if name == "swarm_managers" else str
            if not all(isinstance(item, item_kind) for item in value):
                fix = f"give a list of {item_kind.__name__}"
                raise PolicyError(f"docker_audit_policy.{name}", value, fix)
    try:
        release(raw.get("engine_at_least") or "0.0")
        capabilities.encode(raw.get("capabilities", []))
    except ValueError as exc:
        raise PolicyError("docker_audit_policy", raw, str(exc)) from exc
    return {**audit_evaluate.POLICY, **raw}


def audit(host: str, look: Json, run: Settings, today: datetime.date) -> Json:
    """Judge one host; see ``hosts`` in docs/schemas/result.schema.json.

    :param host: its name in the inventory.
    """
    found = audit_evaluate.evaluate(run.checks, look, run.policy)
    waivers = run.read_waivers()
    labels = {
        container["id"]: container["labels"]
        for container in look.get("containers") or []
        if isinstance(container, dict) and isinstance(container.get("labels"), dict)
    }
    audit_waivers.apply(waivers, host, found, today, labels)
    for row in found["results"]:
        row["verdict"] = audit_evaluate.worst(item["verdict"] for item in row["items"])
    engine, system = look.get("engine") or {}, look.get("os") or {}
    return {
        "host": host,
        "state": "audited",
        "reason": None,
        "os": {"name": system.get("name"), "kernel": system.get("kernel")},
        "engine": {name: engine.get(name) for name in ("state", "version", "rootless")},
        **found,
        "counts": count(row["verdict"] for row in found["results"]),
        "item_counts": count(i["verdict"] for row in found["results"] for i in row["items"]),
        "waivers": [waiver.described(today) for waiver in waivers],
    }


def without_result(host: str, state: str, reason: str) -> Json:
    """Return the row of a host that was not audited: an error, not an absence."""
    return {
        "host": host,
        "state": state,
        "reason": reason,
        "os": {"name": None, "kernel": None},
        "engine": {"state": None, "version": None, "rootless": None},
        "objects": [],
        "results": [],
        "counts": count(["error"]),
        "item_counts": count(["error"]),
        "waivers": [],
    }


def count(verdicts: typing.Iterable[str]) -> dict[str, int]:
    """Count verdicts; each has a number, also none."""
    found = collections.Counter(verdicts)
    return {verdict: found[verdict] for verdict in audit_evaluate.VERDICTS}
