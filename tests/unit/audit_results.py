# Copyright: (c) 2026, the Bulkhead authors
# Apache License 2.0 (see LICENSE)
"""Results of audits made to measure: recorded hosts judged by the real checks, and hostile ones."""

from __future__ import annotations

import copy
import datetime
import functools
import json
import pathlib
import typing

from ansible_collections.bulkhead.hardening.plugins.plugin_utils import (
    audit_checks,
    audit_report,
    audit_run,
)
from tests.unit.checkout import ROOT

Json = dict[str, typing.Any]

TODAY = datetime.date(2026, 11, 24)
NOW = "2026-11-24T12:00:00+00:00"

#: Names that a host, an image or a container could bring along.
HOSTILE = (
    "<script>window.hacked = 1</script>",
    "</script><img src=x onerror=window.hacked=2>",
    "\x1b]0;owned\x07\x1b[2J\u202egnp.exe",
    "\u0634\u0628\u0643\u0629 \u05e8\u05e9\u05ea",
    "x" * 5000,
    "a|b`c`*d*[e](https://evil.example/) @everyone \\",
    "quote\" and ' and \n newline and ]]> and --> &amp; \ud800",
)


@functools.cache
def _recorded(name: str) -> str:
    return (ROOT / f"tests/fixtures/observations/{name}.json").read_text("utf-8")


def look(recorded: str = "audit-bad", containers: int | None = None) -> Json:
    """Return a recorded host, its containers repeated under other names up to a number."""
    document: Json = json.loads(_recorded(recorded))
    if containers is not None:
        known = document["containers"]
        document["containers"] = []
        for number in range(containers):
            row = copy.deepcopy(known[number % len(known)])
            if number >= len(known):
                row["name"] = f"{row['name']}-{number // len(known)}"
                row["id"] = f"{number:064x}"
            document["containers"].append(row)
    return document


def header() -> Json:
    """Return ``run`` of a result, without its waivers."""
    return {
        "started_at": NOW,
        "finished_at": NOW,
        "collection_version": "0.1.0",
        "benchmark": audit_checks.BENCHMARK,
        "selection": {name: [] for name in ("levels", "igs", "sections", "ids", "tags", "skip")},
        "fail_on": ["error", "high:fail"],
    }


def audited(name: str, seen: Json | None = None, **settings: typing.Any) -> Json:
    """Return what the audit of one host leaves on the controller.

    :param seen: an observation; that of a host with bad containers by default.
    :param settings: as variables, without their prefix.
    """
    found = audit_run.audit(
        name, seen if seen is not None else look(), audit_run.settings(settings), TODAY
    )
    return {**found, "audited_at": NOW, "duration_seconds": 1.5}


def hostile(name: str) -> Json:
    """Return a host each of whose objects, reasons and evidence is an attack."""
    found = audited(name)
    for number, thing in enumerate(found["objects"]):
        thing["name"] = HOSTILE[number % len(HOSTILE)] + str(number)
    number = 0
    for row in found["results"]:
        for item in row["items"]:
            if item["verdict"] in ("fail", "manual"):
                item["reason"] = HOSTILE[number % len(HOSTILE)]
                item["evidence"] = {HOSTILE[(number + 1) % len(HOSTILE)]: HOSTILE[number % 3]}
                number += 1
    found["os"]["name"] = HOSTILE[0]
    found["engine"]["version"] = HOSTILE[1]
    assert number > len(HOSTILE)
    return found


def checks() -> dict[str, Json]:
    """Return the checks of the collection as a report shows them."""
    return {check.id: check.described() for check in audit_checks.builtin()}


def store(folder: pathlib.Path, hosts: typing.Iterable[Json]) -> list[str]:
    """Write hosts where the reports look for them; return their names."""
    audit_report.check_folder(str(folder))
    names = []
    for host in hosts:
        path = folder / "hosts" / audit_report.host_file(host["host"])
        path.write_text(json.dumps(host), "utf-8")
        names.append(host["host"])
    return names


def write(
    folder: pathlib.Path,
    hosts: typing.Iterable[Json],
    lost: typing.Mapping[str, audit_report.Lost] | None = None,
    formats: typing.Sequence[str] = tuple(audit_report.WRITERS),
) -> Json:
    """Write the reports about some hosts and those that were lost; return their totals."""
    lost = lost or {}
    names = store(folder, hosts)
    return audit_report.write(
        folder, header(), checks(), [*names, *lost], lost, formats, 1795521600.0
    )
