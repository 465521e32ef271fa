# Copyright: (c) 2026, the Bulkhead authors
# Apache License 2.0 (see LICENSE)
"""What of a host is no longer as it was last applied, whose it is, and the reports about that.

The ledger on the host knows what Bulkhead wrote; a plan from the same look knows what the policy would
change. What a host said is hostile: lines lose their control characters, markup is escaped.
"""

from __future__ import annotations

import datetime
import json
import typing

from ansible_collections.bulkhead.hardening.plugins.module_utils.look_protection import MODULES_FILE
from ansible_collections.bulkhead.hardening.plugins.module_utils.transaction_plan import SLICE
from ansible_collections.bulkhead.hardening.plugins.plugin_utils import (
    auditd_plan,
    daemon_plan,
    daemon_policy,
    kernel_plan,
    uninstall_plan,
)
from ansible_collections.bulkhead.hardening.plugins.plugin_utils.audit_report import cell, label
from ansible_collections.bulkhead.hardening.plugins.plugin_utils.plan import Json
from ansible_collections.bulkhead.hardening.plugins.plugin_utils.report import names, plain
from ansible_collections.bulkhead.hardening.plugins.plugin_utils.transactions import moment

SCHEMA = "bulkhead.drift/1"

#: What a finding can be.
#:
#: ``changed``: Bulkhead wrote it, and somebody else changed or removed it since. ``unapplied``: the
#: policy asks for it, and the host does not show it. ``open``: a run was cut off. ``unknown``: the
#: host could not be looked at or planned for.
KINDS = ("changed", "unapplied", "open", "unknown")

#: What a host can be. ``never``: nothing was ever applied to it.
STATES = ("as_applied", "drifted", "never", "unknown")

#: The variable whose settings hold by a file, and have no thing of their own on the host.
_HOLDS_BY = {
    daemon_plan.SCOPE_DROPIN: daemon_policy.variable("pids_limit"),
    daemon_plan.SLICE_DROPIN: daemon_policy.variable("containers_tasks_max"),
    SLICE: daemon_policy.variable("containers_tasks_max"),
    auditd_plan.EARLY_FILE: auditd_plan.variable("rules"),
    auditd_plan.LATE_FILE: auditd_plan.variable("rules"),
    MODULES_FILE: kernel_plan.MODULES,
}

#: Most findings of one host that are kept, and most rows of the table for people.
_MOST = 500
_MOST_ROWS = 200


def drift(look: Json, plan: Json) -> Json:
    """Return what of one host is not as it was applied.

    :param look: the observation, with ``bulkhead``.
    :param plan: what the roles plan from it, merged.
    :returns: ``{"state", "profile", "last": None | {"id", "at"}, "findings": [FINDING, ...],
        "waiting": [{"setting", "state", "reason"}, ...]}`` with FINDING ``{"kind", "what", "where",
        "owner", "wanted", "effective", "reason"}``. ``waiting`` is what the policy asks for and a run
        would not do, so no drift.
    """
    left = look["bulkhead"]
    changes = [row for row in plan["settings"] if row["state"] == "change"]
    findings = _changed(left, plan["settings"])
    explained = {id(row) for finding in findings for row in finding.pop("rows")}
    rest = [row for row in changes if id(row) not in explained]
    findings += _not_read(look, plan, rest)
    findings += [_unapplied(row, plan["roles"]) for row in rest if not _is_in_file(row, look, plan)]
    if left.get("open_transaction"):
        findings.append(
            _finding("open", left["open_transaction"]["id"], reason="a run was cut off here")
        )
    last = _last(left)
    state = "drifted" if findings else "as_applied"
    return {
        "state": "never" if last is None and not left["owned"] else state,
        "profile": plan["profile"],
        "last": last,
        "findings": findings[:_MOST],
        "waiting": [
            {name: row[name] for name in ("setting", "state", "reason")}
            for row in plan["settings"]
            if row["state"] in ("blocked", "pending")
        ][:_MOST],
    }


def unknown(reason: str) -> Json:
    """Return the result of a host that could not be looked at, or planned for."""
    finding = _finding("unknown", "the host", reason=plain(reason))
    return {
        "state": "unknown", "profile": None, "last": None, "findings": [finding], "waiting": [],
    }  # fmt: skip


def _finding(kind: str, what: str, **more: typing.Any) -> Json:
    base = {"where": None, "owner": None, "wanted": None, "effective": None, "reason": None}
    return {"kind": kind, "what": what, **base, **more}


def _last(left: Json) -> Json | None:
    """Return the newest transaction that took effect and still holds."""
    kept = [item for item in left.get("transactions") or [] if item["outcome"] == "committed"]
    return {"id": kept[-1]["id"], "at": kept[-1]["at"]} if kept else None


def _changed(left: Json, settings: list[Json]) -> list[Json]:
    """Return what Bulkhead owns and somebody else changed, with the rows of a plan about it."""
    found = []
    for role, items in sorted(left["owned"].items()):
        for item in items:
            kernel_differs = item.get("in_kernel") is False
            if item["intact"] and not kernel_differs:
                continue
            rows = [row for row in settings if _about(row, role, item)]
            reason = "somebody else changed or removed it since"
            if item["intact"]:
                reason = "the kernel does not hold it as it was loaded"
            held = [row["reason"] for row in rows if row["state"] == "blocked"]
            if held:
                reason += f"; a run would not mend it: {held[0]}"
            named = rows[0] if len(rows) == 1 else None
            fallen = [row["setting"] for row in rows if row["state"] == "change"]
            if named is None and fallen:
                reason += f"; with it went {names(fallen)}"
            found.append(
                _finding(
                    "changed",
                    uninstall_plan.shown(item),
                    where=item.get("path"),
                    owner=role,
                    wanted=_member(named["wanted"], item) if named else None,
                    effective=_member(named["effective"], item) if named else None,
                    reason=reason,
                    rows=rows,
                )
            )
    return found


def _member(value: typing.Any, item: Json) -> typing.Any:
    """Return what a row says of one member of a map, where that alone is owned."""
    return value.get(item["member"]) if item.get("member") and isinstance(value, dict) else value


def _about(row: Json, role: str, item: Json) -> bool:
    """Tell whether a row of a plan is about an owned thing, or about a setting that holds by it."""
    if not row["variable"].startswith(f"{role}_"):
        return False
    if item["kind"] == "json_key":
        return bool(row["setting"].split(".")[0] == item["key"])
    called = [item[name] for name in ("path", "profile", "name", "user") if item.get(name)]
    # "seccomp profile /etc/docker/...", "AppArmor profile docker-web"
    if any(row["setting"] == name or row["setting"].endswith(f" {name}") for name in called):
        return True
    return item["kind"] == "file" and bool(_HOLDS_BY.get(item["path"]) == row["variable"])


def _is_in_file(row: Json, look: Json, plan: Json) -> bool:
    """Tell whether a row waits only for the daemon to read its file, in which it is as it was applied."""
    key = row["setting"].split(".")[0]
    mine = [item for item in _keys(look) if item["key"] == key]
    return (
        bool(mine)
        and not look["engine"]["config_loaded"]
        and all(item["intact"] for item in mine)
        and not any(op.get("key") == key for op in plan["operations"])
    )


def _keys(look: Json) -> list[Json]:
    """Return what is owned of daemon.json."""
    owned = [item for items in look["bulkhead"]["owned"].values() for item in items]
    return [item for item in owned if item["kind"] == "json_key"]


def _not_read(look: Json, plan: Json, rows: list[Json]) -> list[Json]:
    """Return a finding, once for all its keys, for a daemon.json that somebody changed since it was read.

    None where a key that they changed is one already.

    :param rows: what the plan changes and no finding explains.
    """
    path = look["daemon_config"]["path"]
    waiting = [row for row in rows if _is_in_file(row, look, plan)]
    if not waiting or not all(item["intact"] for item in _keys(look)):
        return []
    reason = (
        "somebody changed the file and the daemon has not read it since; what was applied is still in it: "
        + names([row["setting"] for row in waiting])
    )
    owner = _owner(waiting[0], plan["roles"])
    return [_finding("unapplied", path, where=path, owner=owner, reason=reason)]


def _owner(row: Json, roles: typing.Sequence[str]) -> str | None:
    """Return the role whose variable decides a row."""
    owners = [role for role in roles if row["variable"].startswith(f"{role}_")]
    return max(owners, key=len, default=None)


def _unapplied(row: Json, roles: typing.Sequence[str]) -> Json:
    return _finding(
        "unapplied",
        row["setting"],
        where=row["source"],
        owner=_owner(row, roles),
        wanted=row["wanted"],
        effective=row["effective"],
        reason=row["reason"] or "the policy asks for it, and the host does not show it",
    )


# -- lines about others who change what is ours ----------------------------------------------------
def told(look: Json) -> list[str]:
    """Return a line for each place where somebody else changed what Bulkhead had written.

    :param look: the observation, with ``bulkhead``.
    """
    places: dict[tuple[str, str], list[str]] = {}
    for finding in _changed(look["bulkhead"], []):
        where = finding["where"] or "accounts"
        places.setdefault((where, finding["owner"]), []).append(finding["what"])
    last = _last(look["bulkhead"])
    since = f" at {moment(last['at'])} UTC" if last else ""
    return [
        f"{'CHANGED SINCE':<14} {plain(where)}"
        + (f": {names(what)}" if what != [where] else "")
        + f" (set by {plain(owner)}{since}, changed by somebody else since; if another tool manages it, "
        "let one of the two do so)"
        for (where, owner), what in sorted(places.items())
    ]


# -- reports ---------------------------------------------------------------------------------------
def document(hosts: typing.Mapping[str, Json], created_at: str) -> Json:
    """Return the results of all hosts as one document, docs/schemas/drift.schema.json.

    :param hosts: what :func:`drift` or :func:`unknown` returned, by host.
    :param created_at: date and time, as in RFC 3339.
    """
    rows = [{"host": name, **hosts[name]} for name in sorted(hosts)]
    findings = [finding for row in rows for finding in row["findings"]]
    return {
        "schema": SCHEMA,
        "created_at": created_at,
        "states": {state: sum(row["state"] == state for row in rows) for state in STATES},
        "kinds": {kind: sum(f["kind"] == kind for f in findings) for kind in KINDS},
        "hosts": rows,
    }


def merged(documents: typing.Sequence[Json]) -> Json:
    """Make one document of those of several runs; of a host in more than one, the newest counts."""
    hosts: dict[str, Json] = {}
    created = [item["created_at"] for item in documents]
    for item in sorted(documents, key=lambda item: str(item["created_at"])):
        for row in item["hosts"]:
            hosts[row["host"]] = {k: v for k, v in row.items() if k != "host"}
    return document(hosts, max(created, default=""))


def lines(report: Json) -> list[str]:
    """Return the report for a terminal: a line for each finding, then the counts."""
    found = [
        f"{plain(host['host'])}  {finding['kind']:<9}  {_sentence(finding)}"
        for host in report["hosts"]
        for finding in host["findings"]
    ]
    shown = found[:_MOST_ROWS]
    if len(found) > len(shown):
        shown.append(f"and {len(found) - len(shown)} more")
    return [*shown, _states(report)]


def _states(report: Json) -> str:
    counts = [f"{n} {state.replace('_', ' ')}" for state, n in report["states"].items() if n]
    return ", ".join(counts) or "no hosts"


def _sentence(finding: Json) -> str:
    text = plain(finding["what"])
    if finding["wanted"] is not None:
        text += f": {plain(finding['wanted'])} wanted, {plain(finding['effective'])} in effect"
    if finding["owner"]:
        text += f"; owned by {plain(finding['owner'])}"
    return f"{text} ({plain(finding['reason'])})"


def markdown(report: Json) -> str:
    """Return the report as Markdown, bounded whatever the size of the fleet."""
    text = f"# Drift of Docker hosts\n\n{cell(report['created_at'])}: {_states(report)}.\n"
    rows = [(host["host"], finding) for host in report["hosts"] for finding in host["findings"]]
    if rows:
        text += (
            "\n| host | what | owner | finding | wanted | in effect | why |\n"
            + "|"
            + " --- |" * 7
            + "\n"
        )
    for name, finding in rows[:_MOST_ROWS]:
        values = [
            finding[key] for key in ("what", "owner", "kind", "wanted", "effective", "reason")
        ]
        text += "| " + " | ".join(cell(plain(value)) for value in (name, *values)) + " |\n"
    if len(rows) > _MOST_ROWS:
        text += f"\n{len(rows) - _MOST_ROWS} more are in the JSON report.\n"
    return text


def prometheus(report: Json) -> str:
    """Return the report for node_exporter's textfile collector."""
    compared_at = datetime.datetime.fromisoformat(report["created_at"]).timestamp()
    text = (
        "# HELP bulkhead_drift_findings What is not as it was applied, by host and kind.\n"
        "# TYPE bulkhead_drift_findings gauge\n"
    )
    for host in report["hosts"]:
        for kind in KINDS:
            number = sum(finding["kind"] == kind for finding in host["findings"])
            text += (
                f'bulkhead_drift_findings{{host={label(host["host"])},kind="{kind}"}} {number}\n'
            )
    return text + (
        "# HELP bulkhead_drift_timestamp_seconds When the hosts were last compared.\n"
        "# TYPE bulkhead_drift_timestamp_seconds gauge\n"
        f"bulkhead_drift_timestamp_seconds {compared_at:.0f}\n"
    )


def _json(report: Json) -> str:
    return json.dumps(report, indent=1, sort_keys=True) + "\n"


#: What a report can be made into.
FORMS: dict[str, typing.Callable[[Json], typing.Any]] = {
    "json": _json,
    "markdown": markdown,
    "prometheus": prometheus,
    "lines": lines,
    "kinds": lambda report: {kind: number for kind, number in report["kinds"].items() if number},
}
