# Copyright: (c) 2026, the Bulkhead authors
# Apache License 2.0 (see LICENSE)
"""What docker-bench-security says of a host, beside what this audit says of it.

Its JSON (release 1.6, which follows CIS 1.6.0) is ``{dockerbenchsecurity, tests: [{id, results: [{id, desc,
result, details, items}]}]}``, with the results PASS, WARN, INFO and NOTE.
"""

from __future__ import annotations

import functools
import json
import pathlib
import typing

import yaml

from ansible_collections.bulkhead.hardening.plugins.plugin_utils import (
    audit_compare,
    audit_report,
)
from ansible_collections.bulkhead.hardening.plugins.plugin_utils.plan import Json, PolicyError

SCHEMA: typing.Final = "bulkhead.audit-docker-bench/1"

#: The variable that names its files.
VARIABLE: typing.Final = "docker_audit_docker_bench"

#: How the two can stand to each other.
STATES: typing.Final = ("agree", "bulkhead_right", "undecided", "only_theirs", "only_ours")

#: Verdicts of ours that say the same as a result of theirs. INFO and NOTE leave it to the reader, and
#: PASS is also what they say of what does not apply.
_SAME: typing.Final = {
    "PASS": ("pass", "not_applicable"),
    "WARN": ("fail",),
    "INFO": ("manual", "not_applicable"),
    "NOTE": ("manual", "not_applicable"),
}
_KNOWN = (
    pathlib.Path(__file__).resolve().parents[2]
    / "roles"
    / "docker_audit"
    / "files"
    / "docker_bench.yml"
)
#: Largest file that is read, in bytes, and most items that are shown of one result.
_LARGEST: typing.Final = 16 * 1024 * 1024
_ITEMS: typing.Final = 50


@functools.cache
def known_wrong() -> tuple[Json, ...]:
    """Return ``{check, they, we, because}`` for each known error of docker-bench-security."""
    return tuple(yaml.safe_load(_KNOWN.read_text("utf-8")))


def read(path: pathlib.Path) -> dict[str, Json]:
    """Return the results of one file, ``{result, details, items}`` by id of CIS 1.6.0.

    :raises PolicyError: it cannot be read, is not that tool's, or of a release with other ids.
    """
    try:
        if path.stat().st_size > _LARGEST:
            raise PolicyError(VARIABLE, str(path), f"it is larger than {_LARGEST} bytes")
        document = json.loads(path.read_text("utf-8"))
    except OSError as exc:
        raise PolicyError(VARIABLE, str(path), f"it cannot be read: {exc.strerror}") from exc
    except ValueError as exc:
        fix = "it is no JSON; give the .log.json of a run of docker-bench-security that ended"
        raise PolicyError(VARIABLE, str(path), f"{fix} ({exc})") from exc
    release = document.get("dockerbenchsecurity") if isinstance(document, dict) else None
    if not isinstance(release, str) or not isinstance(document.get("tests"), list):
        fix = "it is not of docker-bench-security; give the .log.json that it writes"
        raise PolicyError(VARIABLE, str(path), fix)
    if not release.startswith("1.6"):
        fix = f"it is of release {release!r}; the ids of release 1.6 are known here"
        raise PolicyError(VARIABLE, str(path), fix)
    try:
        return {
            row["id"]: {
                "result": str(row["result"]),
                "details": str(row.get("details") or ""),
                "items": [str(item) for item in (row.get("items") or [])[:_ITEMS]],
            }
            for section in document["tests"]
            for row in section["results"]
        }
    except (KeyError, TypeError, AttributeError) as exc:
        fix = f"a result in it lacks id or result ({exc!r})"
        raise PolicyError(VARIABLE, str(path), fix) from exc


def compare(host: Json, checks: dict[str, Json], theirs: dict[str, Json]) -> list[Json]:
    """Set one host's results beside theirs.

    :param host: one of ``hosts`` of docs/schemas/result.schema.json.
    :param checks: by id, as there.
    :param theirs: from :func:`read`.
    :returns: for each check ``{check, id_1_6, state, they, we, because, details, items,
        evidence}``; state is
        one of :data:`STATES`. Community checks of theirs and extras of ours have no counterpart.
    """
    rows = {row["check"]: row for row in host["results"]}
    found, seen = [], set()
    for number, check in checks.items():
        old = check["id_1_6"]
        if number not in rows or check["namespace"] != "cis":
            continue
        seen.add(old)
        found.append(_row(number, old, rows[number], theirs.get(old) if old else None))
    for old, row in theirs.items():
        if old not in seen:
            found.append({**_row(None, old, None, row), "state": "only_theirs"})
    return found


def _row(check: str | None, old: str | None, ours: Json | None, theirs: Json | None) -> Json:
    we = _verdict(ours) if ours else None
    they = theirs["result"] if theirs else None
    state, because = _decide(check, they, we)
    evidence = []
    if ours and state != "agree":
        fields = ("verdict", "reason", "evidence")
        worst = [item for item in ours["items"] if item["verdict"] == ours["verdict"]]
        evidence = [{name: item[name] for name in fields} for item in worst[:5]]
    return {
        "check": check,
        "id_1_6": old,
        "state": state,
        "they": they,
        "we": we,
        "because": because,
        "details": theirs["details"] if theirs and state != "agree" else None,
        "items": theirs["items"] if theirs and state != "agree" else [],
        "evidence": evidence,
    }


def _verdict(row: Json) -> str:
    """Return the verdict on a check as if nothing had been waived."""
    verdicts = [
        item["waiver"]["waived_verdict"] if item["waiver"] else item["verdict"]
        for item in row["items"]
    ]
    return min(verdicts, key=audit_report.VERDICTS.index, default="not_applicable")


def _decide(check: str | None, they: str | None, we: str | None) -> tuple[str, str]:
    if they is None:
        return "only_ours", "docker-bench-security gave no result"
    if we is None:
        return "only_theirs", "this run did not judge it"
    if we in _SAME.get(they, ()):
        return "agree", ""
    for known in known_wrong():
        if known["check"] == check and they in known["they"] and we in known["we"]:
            return "bulkhead_right", known["because"]
    return (
        "undecided",
        "no error of docker-bench-security is known that explains this; look at both",
    )


def write(
    folder: pathlib.Path, checks: dict[str, Json], files: typing.Mapping[str, str]
) -> dict[str, int]:
    """Write docker-bench.json: both sides for every host of the result that a file is named for.

    :param files: files of docker-bench-security by host.
    :returns: how many checks are in each of :data:`STATES`.
    """
    counts = dict.fromkeys(STATES, 0)
    result = folder / audit_report.Result.name
    with audit_report.written(folder / "docker-bench.json") as stream:
        stream.write('{"schema":"%s",\n"hosts":[' % SCHEMA)
        separator = "\n"
        for host in audit_compare.hosts_of(result):
            if host["host"] not in files:
                continue
            rows = compare(host, checks, read(pathlib.Path(files[host["host"]])))
            for row in rows:
                counts[row["state"]] += 1
            stream.write(separator + audit_report.dumps({"host": host["host"], "checks": rows}))
            separator = ",\n"
        stream.write('],\n"counts":%s}\n' % audit_report.dumps(counts))
    return counts


def check(files: object, hosts: typing.Collection[str] | None = None) -> dict[str, str]:
    """Check the variable, and that each of its files can be read, before any host is touched.

    :raises PolicyError: naming the file and the fix.
    """
    if not isinstance(files, dict):
        raise PolicyError(VARIABLE, files, "give a mapping of hosts to files")
    for host, path in files.items():
        if hosts is not None and host not in hosts:
            raise PolicyError(f"{VARIABLE}.{host}", path, "no host of the play has that name")
        if not isinstance(path, str) or not path:
            raise PolicyError(f"{VARIABLE}.{host}", path, "give the path of a file")
        read(pathlib.Path(path))
    return {str(host): str(path) for host, path in files.items()}
