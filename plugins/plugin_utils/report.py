# Copyright: (c) 2026, the Bulkhead authors
# Apache License 2.0 (see LICENSE)
"""Plans and results as people read them: lines for a terminal, a page for a browser.

What a host said is hostile: lines lose their control characters, the page escapes everything.
"""

from __future__ import annotations

import pathlib
import typing

import jinja2

from ansible_collections.bulkhead.hardening.plugins.plugin_utils.plan import Json

_TEMPLATE = pathlib.Path(__file__).with_name("report.html.j2")

#: Longest text shown of anything, in characters, and most names listed before "and N more".
_LONGEST = 300
_MOST_NAMES = 6

#: The order in which states are told, and how a terminal calls them.
_TOLD = {
    "change": "CHANGE",
    "blocked": "BLOCKED",
    "pending": "PENDING",
    "held_back": "held back",
    "not_applicable": "not applicable",
}


def plain(value: object) -> str:
    """Return a value as one line without control characters or right-to-left overrides."""
    text = value if isinstance(value, str) else _compact(value)
    kept = "".join(c if c.isprintable() else "?" for c in text)
    return kept if len(kept) <= _LONGEST else kept[: _LONGEST - 1] + "\u2026"


def _compact(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, dict):
        if "Soft" in value and "Hard" in value:
            return f"{value['Soft']}:{value['Hard']}"
        return ", ".join(f"{k}={_compact(v)}" for k, v in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(_compact(item) for item in value)
    return str(value)


def names(affected: typing.Sequence[object]) -> str:
    """Return names as a short list: the first few and how many more there are."""
    shown = ", ".join(plain(name) for name in affected[:_MOST_NAMES])
    more = len(affected) - _MOST_NAMES
    return f"{shown} and {more} more" if more > 0 else shown


def _line(row: Json) -> str:
    text = f"{_TOLD[row['state']]:<14} {plain(row['setting'])}"
    if row["state"] == "change" and row["wanted"] is not None:
        text += f": {plain(row['effective'])} -> {plain(row['wanted'])}"
    if row["reason"]:
        text += f" ({plain(row['reason'])})"
    if row["affected"]:
        text += f" [{names(row['affected'])}]"
    if row["accept"]:
        text += f" accept with {row['accept']}"
    return text


def summary(plan: Json) -> list[str]:
    """Return lines that say what a plan changes and what it leaves."""
    lines = [plain(plan["profile_reason"])] if plan["profile_reason"] else []
    if plan["profile"] is not None:
        lines = [f"profile {plan['profile']}: {lines[0]}"]
    for state in _TOLD:
        lines += [_line(row) for row in plan["settings"] if row["state"] == state]
    ok = sum(row["state"] == "ok" for row in plan["settings"])
    effect = plan["daemon"]["effect"]
    lines.append(f"{ok} settings in effect, {len(plan['operations'])} operations, daemon {effect}")
    return lines


def _matched(result: Json) -> list[Json]:
    """Pair each setting's row from before with the one from after."""
    after = {row["setting"]: row for row in result["after"]["settings"]}
    pairs = []
    for row in result["before"]["settings"]:
        now = after.pop(row["setting"], {**row, "state": "ok", "effective": row["wanted"]})
        pairs.append({"before": row, "after": now})
    return pairs + [{"before": row, "after": row} for row in after.values()]


#: What of a throw-away container is worth a line, and how to call it.
_WITNESS = {
    "host_uid": "root is user of the host",
    "uid_map": "user ids (inside, outside, how many)",
    "pids_max": "processes at most",
    "nofile": "open files",
    "no_new_privs": "cannot gain rights",
    "seccomp": "seccomp mode (2 filters system calls)",
    "lsm_label": "confined by",
    "cap_eff": "capabilities",
    "log_driver": "log driver",
    "log_opts": "log options",
}


def _shown_witness(witness: Json) -> Json:
    """Return the lines to show of a witness, by their names for people."""
    flat = {**witness, **(witness.get("kernel") or {})}
    return {text: flat[name] for name, text in _WITNESS.items() if name in flat}


def page(
    results: typing.Mapping[str, Json],
    title: str,
    attacks: typing.Mapping[str, typing.Sequence[Json]] | None = None,
) -> str:
    """Return one self-contained HTML page for the results of a run.

    :param results: ``{before, after, transaction, running_containers}`` by host name.
    :param attacks: what :func:`proof_report.paired` returned, by host name.
    """
    attacks = attacks or {}
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["plain"] = plain
    environment.filters["names"] = names
    template = environment.from_string(_TEMPLATE.read_text(encoding="utf-8"))
    hosts = [
        {
            "name": name,
            "result": results.get(name),
            "pairs": _matched(results[name]) if name in results else [],
            "witness": _shown_witness((results.get(name) or {}).get("witness") or {}),
            "attacks": attacks.get(name) or [],
        }
        for name in sorted({*results, *attacks})
    ]
    return template.render(title=title, hosts=hosts, told=_TOLD)
