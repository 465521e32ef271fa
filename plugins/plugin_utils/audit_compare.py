# Copyright: (c) 2026, the Bulkhead authors
# Apache License 2.0 (see LICENSE)
"""Two results of an audit side by side, read host by host.

A finding is fixed when its check was judged again and does not find it any more. What this run did not
look at (another selection, a host that did not answer) is not compared rather than fixed.
"""

from __future__ import annotations

import json
import pathlib
import re
import typing

from ansible_collections.bulkhead.hardening.plugins.plugin_utils import audit_report, audit_run
from ansible_collections.bulkhead.hardening.plugins.plugin_utils.plan import Json, PolicyError

SCHEMA: typing.Final = "bulkhead.audit-comparison/1"

#: What can become of a finding.
STATES: typing.Final = ("new", "fixed", "gone", "waived", "unchanged", "not_compared")

_VARIABLE: typing.Final = "docker_audit_reference"
_OPEN: typing.Final = ("error", "fail", "pending")
_SCHEMA = re.compile(r'"schema"\s*:\s*"([^"]{0,100})"')

#: A finding: check, kind and name of its object; both None for the host itself.
_Key = tuple[str, "str | None", "str | None"]


def hosts_of(path: pathlib.Path, opened: typing.TextIO | None = None) -> typing.Iterator[Json]:
    """Return the hosts of a result.json, one after the other.

    :param opened: the file, when it may have another content under its name by now.
    :raises PolicyError: it is no result of this release's schema, or cannot be read.
    """
    try:
        with opened or path.open(encoding="utf-8") as stream:
            _refuse_other(path, stream.readline(4096))
            yield from _rows(path, stream)
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as exc:
        raise PolicyError(_VARIABLE, str(path), f"it cannot be read: {exc}") from exc


def _refuse_other(path: pathlib.Path, first: str) -> None:
    found = _SCHEMA.search(first)
    if found and found[1] != audit_run.SCHEMA:
        fix = f"its schema is {found[1]!r}, and this release reads {audit_run.SCHEMA}"
        raise PolicyError(_VARIABLE, str(path), f"{fix}; audit once without it")
    if not found or not first.startswith('{"schema":"'):
        fix = "this is no result.json as an audit writes it; give one, not formatted anew"
        raise PolicyError(_VARIABLE, str(path), fix)


def _rows(path: pathlib.Path, stream: typing.Iterable[str]) -> typing.Iterator[Json]:
    lines = iter(stream)
    for line in lines:
        if line.startswith('"hosts":[]'):
            return
        if line.startswith('"hosts":['):
            break
    for line in lines:
        if line.startswith("]"):
            return
        text = line.rstrip()
        yield json.loads(text.rstrip(",").removesuffix("]"))
        if text.endswith("],"):
            return
    raise PolicyError(_VARIABLE, str(path), "it ends in the middle of its hosts; give a whole one")


def check(path: pathlib.Path) -> None:
    """See that an earlier result can be compared with.

    :raises PolicyError: as :func:`hosts_of`.
    """
    for _ in hosts_of(path):
        break


def compare(
    folder: pathlib.Path, earlier: pathlib.Path, opened: typing.TextIO | None = None
) -> dict[str, int]:
    """Write comparison.json: what became of each finding since an earlier result.

    Hosts are the same by their name, findings by check and by the kind and name of their object. Both
    results are in the order of the hosts' names.

    :param opened: the earlier result, opened before this run's took its place.
    :returns: how many findings are in each of :data:`STATES`.
    """
    counts = dict.fromkeys(STATES, 0)
    before, after = hosts_of(earlier, opened), hosts_of(folder / audit_report.Result.name)
    with audit_report.written(folder / "comparison.json") as stream:
        stream.write('{"schema":"%s",\n"hosts":[' % SCHEMA)
        separator = "\n"
        for name, old, new in _pairs(before, after):
            row = {"host": name, **_host(old, new)}
            for state in STATES:
                counts[state] += row["counts"][state]
            stream.write(separator + audit_report.dumps(row))
            separator = ",\n"
        stream.write('],\n"counts":%s}\n' % audit_report.dumps(counts))
    return counts


def _pairs(
    before: typing.Iterator[Json], after: typing.Iterator[Json]
) -> typing.Iterator[tuple[str, Json | None, Json | None]]:
    old, new = next(before, None), next(after, None)
    while old is not None or new is not None:
        name = min(host["host"] for host in (old, new) if host is not None)
        mine: list[Json | None] = [None, None]
        if old is not None and old["host"] == name:
            mine[0], old = old, next(before, None)
        if new is not None and new["host"] == name:
            mine[1], new = new, next(after, None)
        yield name, mine[0], mine[1]


def _host(old: Json | None, new: Json | None) -> Json:
    """Return the findings of one host by state, with the numbers of all and the text of the changes."""
    found: list[tuple[str, _Key]] = []
    was, now = _verdicts(old), _verdicts(new)
    judged_before, judged_now = _judged(old), _judged(new)
    for key, verdict in now.items():
        if verdict in _OPEN:
            if was.get(key) in _OPEN:
                found.append(("unchanged", key))
            else:
                # A host that was not there before has new findings; a check that was not asked has none.
                known = old is None or key[0] in judged_before
                found.append(("new" if known else "not_compared", key))
    for key, verdict in was.items():
        if verdict in _OPEN and now.get(key) not in _OPEN:
            found.append((_became(key, now, judged_now), key))
    return {
        "state_before": old["state"] if old else "absent",
        "state": new["state"] if new else "absent",
        "counts": {state: sum(s == state for s, _ in found) for state in STATES},
        "findings": [
            {"state": state, "check": key[0], "kind": key[1], "name": key[2]}
            for state, key in sorted(found, key=lambda pair: (pair[0], *map(str, pair[1])))
            if state != "unchanged"
        ],
    }


def _became(key: _Key, now: dict[_Key, str], judged: dict[str, str]) -> str:
    """Tell what became of a finding that is open no more."""
    verdict = now.get(key)
    if verdict is not None:
        return "waived" if verdict == "waived" else "fixed"
    if judged.get(key[0], "error") == "error":
        return "not_compared"  # not asked, or not answered: nobody knows
    return "gone" if key[2] is not None else "fixed"


def _judged(host: Json | None) -> dict[str, str]:
    return {row["check"]: row["verdict"] for row in host["results"]} if host else {}


def _verdicts(host: Json | None) -> dict[_Key, str]:
    """Return the worst verdict for each check and object of a host."""
    found: dict[_Key, str] = {}
    if host is None:
        return found
    for row, item, thing in audit_report.findings(host):
        key: _Key = (row["check"], *((thing["kind"], thing["name"]) if thing else (None, None)))
        other = found.get(key, item["verdict"])
        found[key] = min(other, item["verdict"], key=audit_report.VERDICTS.index)
    return found
