# Copyright: (c) 2026, the Bulkhead authors
# Apache License 2.0 (see LICENSE)
"""The transactions that a host keeps, as lines for people. What a host said is hostile."""

from __future__ import annotations

import datetime
import typing

from ansible_collections.bulkhead.hardening.plugins.plugin_utils.plan import Json
from ansible_collections.bulkhead.hardening.plugins.plugin_utils.report import names, plain

_COLUMNS = ("id", "when (UTC)", "outcome", "profile", "what it changed")


def table(transactions: typing.Sequence[Json]) -> list[str]:
    """Return a table, a line each, the newest first; one line when there are none.

    :param transactions: ``bulkhead.transactions`` of an observation, the oldest first.
    """
    if not transactions:
        return ["no transactions are kept on this host"]
    rows = [_COLUMNS, *(_row(item) for item in reversed(transactions))]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_COLUMNS) - 1)]
    return [
        "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths)), row[-1]])
        for row in rows
    ]


def _row(item: Json) -> tuple[str, ...]:
    what = names(item["changes"])
    if item["undoes"]:
        what = f"undid {plain(item['undoes'])}: {what}"
    if item["reason"]:
        what = plain(item["reason"])
    outcome = plain(item["outcome"]).replace("_", " ")
    return plain(item["id"]), moment(item["at"]), outcome, plain(item["profile"]), what


def moment(at: typing.Any) -> str:
    """Return seconds since the epoch as date and time, UTC; a dash for what is none."""
    try:
        found = datetime.datetime.fromtimestamp(float(at), datetime.timezone.utc)
    except (TypeError, ValueError, OverflowError, OSError):
        return "-"
    return found.strftime("%Y-%m-%d %H:%M:%S")
