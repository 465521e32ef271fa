# Copyright: (c) 2026, the Bulkhead authors
# Apache License 2.0 (see LICENSE)
"""What attacks were able to do, as people read it."""

from __future__ import annotations

import typing

from ansible_collections.bulkhead.hardening.plugins.plugin_utils.attacks import TOPICS
from ansible_collections.bulkhead.hardening.plugins.plugin_utils.plan import Json
from ansible_collections.bulkhead.hardening.plugins.plugin_utils.report import plain

#: Outcomes as a terminal shows them; capitals for what wants somebody's attention.
TOLD = {
    "breached": "BREACHED",
    "broken": "BROKEN",
    "error": "ERROR",
    "held": "held",
    "works": "works",
    "not_applicable": "-",
}

#: Whether Falco noticed an attack; shown where it watched.
SEEN = {"detected": "detected", "missed": "MISSED", None: "-"}


def paired(result: Json, before: Json | None) -> list[Json]:
    """Return the attacks of the default variant, each with its outcome in an earlier result.

    ``[{topic, title, id, outcome, before, detected, reason, row}]``; ``before`` is None where there is no
    earlier result, or the attack was not in it.
    """
    earlier = {row["id"]: row["outcome"] for row in _default(before)}
    return [
        {
            "topic": TOPICS[row["topic"]],
            "title": row["title"],
            "id": row["id"],
            "outcome": row["outcome"],
            "before": earlier.get(row["id"]),
            "detected": row.get("detected"),
            "reason": row["reason"],
            "row": row,
        }
        for row in _default(result)
    ]


def _default(result: Json | None) -> list[Json]:
    rows = (result or {}).get("attacks") or []
    return [row for row in rows if row["variant"] == "default"]


def summary(result: Json, before: Json | None = None) -> list[str]:
    """Return lines: topics, their attacks with outcomes, and a count at the end.

    :param before: an earlier result; None or empty when there is none.
    """
    rows = paired(result, before)
    lines: list[str] = []
    width = max((len(plain(row["title"])) for row in rows), default=0)
    topic, watched = None, any(row["detected"] for row in rows)
    for row in rows:
        if row["topic"] != topic:
            topic = row["topic"]
            lines.append(plain(topic))
        told = f"{TOLD[row['outcome']]:<9}"
        if before:
            told = f"{TOLD.get(row['before'] or '', '?'):<9} -> {told}"
        if watched:
            told += f" {SEEN[row['detected']]:<8}"
        line = f"  {told} {plain(row['title']):<{width}}"
        if row["outcome"] in ("error", "broken", "breached"):
            line += f"  {plain(row['reason'])[:100]}"
        elif " blocked; " in row["reason"]:
            line += f"  {plain(row['reason']).split(';')[0]}"
        lines.append(line.rstrip())
    lines.append(_counted(rows, bool(before)))
    return lines


def _counted(rows: typing.Sequence[Json], compared: bool) -> str:
    def counts(field: str) -> str:
        found = [row[field] for row in rows]
        return ", ".join(
            f"{found.count(name)} {name.replace('_', ' ')}" for name in TOLD if name in found
        )

    return f"{counts('before')} -> {counts('outcome')}" if compared else counts("outcome")
