# Copyright: (c) 2026, the Bulkhead authors
# Apache License 2.0 (see LICENSE)
"""The results of several runs, each over a slice of a fleet, put together for one report.

Read host by host: memory does not grow with the fleet.
"""

from __future__ import annotations

import pathlib
import shutil
import typing

from ansible_collections.bulkhead.hardening.plugins.plugin_utils import audit_compare, audit_report
from ansible_collections.bulkhead.hardening.plugins.plugin_utils.plan import Json, PolicyError

VARIABLE: typing.Final = "docker_audit_slices"


def collect(
    folder: pathlib.Path, slices: typing.Sequence[str], checks: typing.Collection[str]
) -> dict[str, audit_report.Lost | None]:
    """Copy the results of the hosts of slices into the folder of a report.

    Of a host that is in several slices the newest result counts; any counts more than none.

    :param folder: the folder of the report, made by :func:`audit_report.check_folder`.
    :param slices: folders of the reports of other runs.
    :param checks: ids of the checks of the report.
    :returns: all hosts, each with why it has no result.
    :raises PolicyError: a slice cannot be read, or was judged by other checks.
    """
    found: dict[str, tuple[str, audit_report.Lost | None]] = {}
    for place in map(pathlib.Path, slices):
        if place.resolve() == folder.resolve():
            raise PolicyError(
                VARIABLE, str(place), "the report takes another folder than its slices"
            )
        try:
            for host in audit_compare.hosts_of(place / audit_report.Result.name):
                at = host["audited_at"] or ""
                if at >= found.get(host["host"], ("", None))[0]:
                    found[host["host"]] = (at, _take(folder, place, host, checks))
        except (OSError, KeyError, TypeError) as exc:
            raise PolicyError(VARIABLE, str(place), f"it cannot be read: {exc!r}") from exc
    return {name: lost for name, (_, lost) in found.items()}


def _take(
    folder: pathlib.Path, place: pathlib.Path, host: Json, checks: typing.Collection[str]
) -> audit_report.Lost | None:
    """Copy the result of one host; return why it has none."""
    if host["state"] != "audited":
        return audit_report.Lost(host["state"], host["reason"])
    judged = {row["check"] for row in host["results"]}
    for rows, what in ((judged - set(checks), "has checks that this report has not"),
                       (set(checks) - judged, "lacks checks that this report has")):  # fmt: skip
        if rows:
            fix = f"it {what} ({min(rows)}); choose the same for all"
            raise PolicyError(VARIABLE, str(place), fix)
    name = audit_report.host_file(host["host"])
    target = folder / "hosts" / name
    shutil.copyfile(place / "hosts" / name, target)
    target.chmod(0o600)
    return None
