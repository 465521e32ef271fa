# Copyright: (c) 2026, the Bulkhead authors
# Apache License 2.0 (see LICENSE)
"""What every planner shares: the shape of a plan, and how plans of several roles become one.

A plan is ``{schema, roles, profile, settings, operations, daemon}``. ``settings`` has one row for each
setting that a policy speaks of, also for those that need no change; ``operations`` is what
``docker_host_apply`` would do (docs/schemas/plan.schema.json).
"""

from __future__ import annotations

import hashlib
import typing

from ansible_collections.bulkhead.hardening.plugins.module_utils.look_common import NO_SYSTEMD

Json = dict[str, typing.Any]

SCHEMA = "bulkhead.plan/1"

#: Of the observations that planners read.
OBSERVATION_SCHEMA = "bulkhead.observation/1"

#: What a row can say of its setting.
#:
#: ``ok``: in effect. ``change``: this plan changes it. ``pending``: set, and takes effect later.
#: ``blocked``: wanted, but not safe here; ``accept`` names the variable that accepts it.
#: ``held_back``: the strict profile would change it, the one in force does not.
#: ``not_applicable``: has no meaning on this host. ``unmanaged``: the policy leaves it alone.
STATES = ("ok", "change", "pending", "blocked", "held_back", "not_applicable", "unmanaged")

#: Daemon effects, weakest first.
EFFECTS = ("none", "reload", "restart")


class PolicyError(ValueError):
    """A policy, or the host that it meets, cannot be planned for.

    :param variable: the variable or file at fault.
    :param value: what it holds; shown as it is, so never a secret.
    :param fix: what to do about it, a sentence.
    """

    def __init__(self, variable: str, value: object, fix: str) -> None:
        super().__init__(f"{variable} is {value!r}: {fix}")
        self.variable = variable


def check_sections(look: Json, *names: str) -> None:
    """Refuse an observation in which a section could not be read.

    :raises PolicyError: naming the first of them, with the reasons that the look gives.
    """
    for name in names:
        if look.get(name) is None:
            reasons = [str(r["reason"]) for r in look.get("unread") or [] if r["section"] == name]
            fix = f"it could not be read ({'; '.join(reasons)})" if reasons else "it is not there"
            raise PolicyError(
                f"the look's section {name}", None, f"{fix}; {_remedy(look, reasons)}"
            )


def _remedy(look: Json, reasons: typing.Sequence[str]) -> str:
    """Return what to do about a section that is missing, by why it is."""
    if not reasons:
        return "gather it: gather_subset must have hardening"
    if any("permi" in reason.lower() for reason in reasons):  # EACCES, EPERM
        return "look as root (become: true)"
    if any(NO_SYSTEMD in reason for reason in reasons):
        return "this role manages hosts that systemd runs: leave it out of docker_harden_roles here"
    return "see to that on the host, and run again"


def check_look(look: Json, *names: str) -> None:
    """Refuse what no planner can plan from.

    :param names: the sections that this one needs besides ``bulkhead``.
    :raises PolicyError: it is no observation of the schema, a section is missing, or what an earlier
        transaction left cannot be trusted.
    """
    if not isinstance(look, dict) or look.get("schema") != OBSERVATION_SCHEMA:
        found = look.get("schema") if isinstance(look, dict) else type(look).__name__
        raise PolicyError("observation", found, f"hand in one of schema {OBSERVATION_SCHEMA}")
    check_sections(look, "bulkhead", *names)
    left = look["bulkhead"]
    if left["state"] not in ("absent", "ok"):
        reason = left.get("reason") or "its state cannot be trusted"
        fix = f"{reason}; nothing is changed until that is cleared up"
        raise PolicyError("/var/lib/bulkhead", left["state"], fix)


def row(setting: str, variable: str, state: str, **more: typing.Any) -> Json:
    """Return one row of a plan's settings.

    :param setting: what it is, as the daemon or the kernel calls it.
    :param variable: the variable that decides it.
    :param more: ``wanted``, ``effective``, ``source``, ``control`` (a CIS id), ``reason``,
        ``affected`` (names of containers, images or volumes), ``accept`` (a variable).
    """
    if state not in STATES:
        raise AssertionError(f"{state} is no state of a setting")
    base: Json = {
        "setting": setting,
        "variable": variable,
        "state": state,
        "wanted": None,
        "effective": None,
        "source": None,
        "control": None,
        "reason": None,
        "affected": [],
        "accept": None,
    }
    unknown = set(more) - set(base)
    if unknown:
        raise AssertionError(f"a row has no {sorted(unknown)}")
    return {**base, **more}


def file_operation(
    path: str, content: str | None, owned: Json | None, seen: Json, mode: str = "0644"
) -> Json | None:
    """Return what brings a whole file of root's to a content, or takes it away; None for nothing to do.

    :param content: None for no file.
    :param owned: what Bulkhead noted of it; None when it is not ours.
    :param seen: ``version``, and for a content ``sha256``, of the look.
    :returns: an operation without ``role``, ``undo`` and ``why``.
    """
    ours = owned is not None and owned["intact"]
    if content is not None:
        if ours and seen["sha256"] == hashlib.sha256(content.encode()).hexdigest():
            return None
        return {"op": "file_present", "path": path, "observed": seen["version"], "content": content,
                "mode": mode, "owner": "root", "group": "root"}  # fmt: skip
    if ours:
        return {"op": "file_absent", "path": path, "observed": seen["version"]}
    return None if owned is None else {"op": "disown", "kind": "file", "path": path}


def empty(profile: str | None = None) -> Json:
    """Return a plan that does nothing."""
    return {
        "schema": SCHEMA,
        "roles": [],
        "profile": profile,
        "profile_reason": None,
        "settings": [],
        "operations": [],
        "daemon": {
            "effect": "none",
            "why": [],
            "live_restore_first": False,
            "allow_container_restart": False,
        },
    }


def is_empty(plan: Json) -> bool:
    """Tell whether a plan would change nothing on the host."""
    return not plan["operations"] and plan["daemon"]["effect"] == "none"


def _target(operation: Json) -> tuple[str, ...]:
    """Return what an operation writes to, so that two roles at the same place are noticed."""
    kind = "mode" if operation["op"] == "mode" else operation["op"].split("_")[0]
    fields = ("path", "key", "member", "name", "user")
    return (kind, *(str(operation[field]) for field in fields if operation.get(field)))


def merge(plans: typing.Sequence[Json]) -> Json:
    """Make one plan of the plans of several roles, in their order.

    :raises PolicyError: two roles would write to the same place, or their profiles differ.
    """
    merged = empty()
    owners: dict[tuple[str, ...], str] = {}
    for plan in plans:
        if plan.get("schema") != SCHEMA:
            raise PolicyError("plan", plan.get("schema"), f"hand in plans of schema {SCHEMA}")
        merged["roles"] += plan["roles"]
        merged["settings"] += plan["settings"]
        for operation in plan["operations"]:
            other = owners.setdefault(_target(operation), operation["role"])
            if other != operation["role"]:
                raise PolicyError(
                    operation.get("path") or operation["op"],
                    operation["role"],
                    f"the role {other} writes there too; let one of the two manage it",
                )
            merged["operations"].append(operation)
        if plan["profile"] is not None:
            if merged["profile"] not in (None, plan["profile"]):
                raise PolicyError(
                    "profile", plan["profile"], f"other roles use {merged['profile']}"
                )
            merged["profile"] = plan["profile"]
            merged["profile_reason"] = plan["profile_reason"]
        merged["profile_reason"] = merged["profile_reason"] or plan["profile_reason"]
        daemon, more = merged["daemon"], plan["daemon"]
        daemon["effect"] = max(daemon["effect"], more["effect"], key=EFFECTS.index)
        daemon["why"] = daemon["why"] + more["why"]
        for flag in ("live_restore_first", "allow_container_restart"):
            daemon[flag] = daemon[flag] or more[flag]
    return merged
