# Copyright: (c) 2026, the Bulkhead authors
# Apache License 2.0 (see LICENSE)
"""The reports of an audit, written host by host: memory does not grow with the fleet.

``Reports`` gets one host's result after the other and hands it to a writer for each format. Every text
of a host is hostile: control characters go, markup is escaped, nothing is a template.
"""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import tempfile
import typing
import urllib.parse
from xml.sax import saxutils

from ansible_collections.bulkhead.hardening.plugins.plugin_utils import audit_evaluate, audit_run
from ansible_collections.bulkhead.hardening.plugins.plugin_utils.plan import Json, PolicyError
from ansible_collections.bulkhead.hardening.plugins.plugin_utils.report import plain

VERDICTS = audit_evaluate.VERDICTS
#: Verdicts that somebody has to see.
OPEN: typing.Final = ("error", "fail", "pending", "manual")
_TEMPLATE = pathlib.Path(__file__).with_name("audit.html")
_MARK = "/*DATA*/"
#: How many names, and how much evidence, the page shows of one finding; all is in result.json.
_NAMES, _EVIDENCE = 20, 600


def host_file(host: str) -> str:
    """Return the name of the file for a host's result."""
    return urllib.parse.quote(host, safe="") + ".json"


def check_folder(folder: str) -> pathlib.Path:
    """Make the folder of the reports, or see that it can be written.

    :raises PolicyError: it cannot; before any host is touched.
    """
    path = pathlib.Path(folder)
    try:
        (path / "hosts").mkdir(mode=0o700, parents=True, exist_ok=True)
        if path.is_symlink():
            raise PolicyError("docker_audit_report_dir", folder, "this is a link; name the folder")
        path.chmod(0o700)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as exc:
        fix = f"the folder cannot be written: {exc.strerror}"
        raise PolicyError("docker_audit_report_dir", folder, fix) from exc
    return path


@contextlib.contextmanager
def written(path: pathlib.Path) -> typing.Iterator[typing.TextIO]:
    """Open a file that takes its name when it is whole; mode 0600."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            yield stream
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise


def dumps(value: object) -> str:
    """Return a value as JSON on one line."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


class Writer:
    """Writes one format. ``begin`` comes first, then every host, then ``end``."""

    name = ""

    def __init__(self, stream: typing.TextIO) -> None:
        self.out = stream

    def begin(self, run: Json, checks: dict[str, Json]) -> None:
        """Write what comes before the hosts."""
        self.run, self.checks = run, checks

    def host(self, host: Json) -> None:
        """Write one host."""
        raise NotImplementedError

    def end(self, totals: Json) -> None:
        """Write what comes after the hosts."""


class Result(Writer):
    """The document from which everything else follows; docs/schemas/result.schema.json."""

    name = "result.json"
    _first = True

    def begin(self, run: Json, checks: dict[str, Json]) -> None:
        super().begin(run, checks)
        self.out.write('{"schema":"bulkhead.audit/1",\n"checks":%s,\n"hosts":[' % dumps(checks))

    def host(self, host: Json) -> None:
        self.out.write("\n" if self._first else ",\n")
        self._first = False
        self.out.write(dumps({k: v for k, v in host.items() if k != "waivers"}))

    def end(self, totals: Json) -> None:
        self.out.write('],\n"run":%s,\n' % dumps(totals["run"]))
        self.out.write('"counts":%s,\n' % dumps(totals["counts"]))
        self.out.write('"item_counts":%s}\n' % dumps(totals["item_counts"]))


def _findings(host: Json) -> typing.Iterator[tuple[Json, Json, Json | None]]:
    """Return (row, item, object) for every item of a host."""
    for row in host["results"]:
        for item in row["items"]:
            index = item["object"]
            yield row, item, None if index is None else host["objects"][index]


def _text(item: Json) -> str:
    parts = [plain(item["reason"])] if item["reason"] else []
    if item["evidence"] is not None:
        parts.append(plain(dumps(item["evidence"])))
    return "; ".join(parts)


class JUnit(Writer):
    """A test suite for each host, a test case for each check, as CI systems read them."""

    name = "junit.xml"

    def begin(self, run: Json, checks: dict[str, Json]) -> None:
        super().begin(run, checks)
        self.out.write(
            '<?xml version="1.0" encoding="UTF-8"?>\n<testsuites name="bulkhead.audit">\n'
        )

    def host(self, host: Json) -> None:
        rows = host["results"]
        total = {v: sum(row["verdict"] == v for row in rows) for v in VERDICTS}
        lost = host["state"] != "audited"
        quiet = total["manual"] + total["waived"] + total["not_applicable"]
        self.out.write(
            "<testsuite name=%s tests=%s failures=%s errors=%s skipped=%s>\n"
            % tuple(
                saxutils.quoteattr(str(value))
                for value in (
                    plain(host["host"]),
                    len(rows) + lost,
                    total["fail"] + total["pending"],
                    total["error"] + lost,
                    quiet,
                )
            )
        )
        if lost:
            self._case(
                host, "host", "the host is audited", "error", host["reason"] or host["state"]
            )
        for row in rows:
            bad = [
                (
                    item,
                    host["objects"][item["object"]]["name"] if item["object"] is not None else "",
                )
                for item in row["items"]
                if item["verdict"] == row["verdict"]
            ]
            lines = [": ".join(filter(None, [plain(name), _text(item)])) for item, name in bad]
            check = self.checks[row["check"]]
            self._case(host, row["check"], check["title"], row["verdict"], "\n".join(lines))
        self.out.write("</testsuite>\n")

    def _case(self, host: Json, check: str, title: str, verdict: str, text: str) -> None:
        name = saxutils.quoteattr(plain(f"{check} {title}"))
        owner = saxutils.quoteattr(plain(host["host"]))
        self.out.write(f"<testcase classname={owner} name={name}")
        tag = {"error": "error", "fail": "failure", "pending": "failure", "pass": ""}
        kind = tag.get(verdict, "skipped")
        if not kind:
            self.out.write("/>\n")
            return
        body = saxutils.escape("\n".join(plain(line) for line in text.split("\n")))
        if kind == "skipped":
            self.out.write(f'><skipped message="{verdict}"/></testcase>\n')
        else:
            self.out.write(f'><{kind} message="{verdict}">{body}</{kind}></testcase>\n')

    def end(self, totals: Json) -> None:
        self.out.write("</testsuites>\n")


class Sarif(Writer):
    """SARIF 2.1.0, as code-scanning services read it. Waived findings are suppressed ones."""

    name = "result.sarif"
    _first = True
    _LEVEL: typing.ClassVar = {"high": "error", "medium": "warning", "low": "note"}

    def begin(self, run: Json, checks: dict[str, Json]) -> None:
        super().begin(run, checks)
        rules = [
            {
                "id": check["id"],
                "shortDescription": {"text": check["title"]},
                "fullDescription": {"text": check["rationale"]},
                "help": {"text": check["remedy"]["text"]},
                "defaultConfiguration": {"level": self._LEVEL[check["severity"]]},
                "properties": {"tags": ["security", *check["tags"]]},
            }
            for check in checks.values()
        ]
        self._index = {check: number for number, check in enumerate(checks)}
        driver = {
            "name": "Bulkhead",
            "semanticVersion": run["collection_version"],
            "rules": rules,
        }
        self.out.write(
            '{"$schema":"https://json.schemastore.org/sarif-2.1.0.json","version":"2.1.0",'
            '"runs":[{"tool":{"driver":%s},"results":[' % dumps(driver)
        )

    def host(self, host: Json) -> None:
        if host["state"] != "audited":
            return  # it has no finding; the invocation below says that something is missing
        for row, item, thing in _findings(host):
            if item["verdict"] in ("pass", "not_applicable"):
                continue
            self.out.write("\n" if self._first else ",\n")
            self._first = False
            self.out.write(dumps(self._result(host, row, item, thing)))

    def _result(self, host: Json, row: Json, item: Json, thing: Json | None) -> Json:
        check = self.checks[row["check"]]
        name = plain(host["host"])
        path = [name, thing["kind"], plain(thing["name"])] if thing else [name]
        waived = item["waiver"]
        verdict = waived["waived_verdict"] if waived else item["verdict"]
        kinds = {"manual": "review", "error": "open"}
        found: Json = {
            "ruleId": check["id"],
            "ruleIndex": self._index[check["id"]],
            "kind": kinds.get(verdict, "fail"),
            # Only what fails has a level.
            "level": self._LEVEL[check["severity"]] if verdict not in kinds else "none",
            "message": {"text": f"{check['title']}: {verdict}. {_text(item)}".strip()},
            "locations": [{"logicalLocations": [{"fullyQualifiedName": "/".join(path)}]}],
            "partialFingerprints": {"bulkhead/v1": "/".join([check["id"], *path])},
        }
        if waived:
            text = f"{waived['reason']} ({waived['owner']}, until {waived['expires']})"
            found["suppressions"] = [{"kind": "external", "justification": plain(text)}]
        return found

    def end(self, totals: Json) -> None:
        lost = [
            {"level": "error", "message": {"text": plain(f"{name}: {why}")}}
            for name, why in totals["lost"][:1000]
        ]
        invocation = {
            "executionSuccessful": not lost,
            "toolExecutionNotifications": lost,
            "startTimeUtc": totals["run"]["started_at"],
            "endTimeUtc": totals["run"]["finished_at"],
        }
        self.out.write('],"invocations":[%s]}]}\n' % dumps(invocation))


class Prometheus(Writer):
    """A file for node_exporter's textfile collector."""

    name = "bulkhead.prom"

    def begin(self, run: Json, checks: dict[str, Json]) -> None:
        super().begin(run, checks)
        self.out.write(
            "# HELP bulkhead_audit_checks Checks of the last audit, by host and verdict.\n"
            "# TYPE bulkhead_audit_checks gauge\n"
        )
        self._failed: list[str] = []

    @staticmethod
    def _label(value: object) -> str:
        text = plain(value).replace("\\", "\\\\").replace('"', '\\"')
        return f'"{text}"'

    def host(self, host: Json) -> None:
        name = self._label(host["host"])
        for verdict, number in host["counts"].items():
            labels = f'host={name},verdict="{verdict}"'
            self.out.write(f"bulkhead_audit_checks{{{labels}}} {number}\n")

    def end(self, totals: Json) -> None:
        self.out.write(
            "# HELP bulkhead_audit_hosts Hosts of the last audit, by state.\n"
            "# TYPE bulkhead_audit_hosts gauge\n"
        )
        for state, number in sorted(totals["states"].items()):
            self.out.write(f'bulkhead_audit_hosts{{state="{state}"}} {number}\n')
        self.out.write(
            "# HELP bulkhead_audit_timestamp_seconds When the last audit ended.\n"
            "# TYPE bulkhead_audit_timestamp_seconds gauge\n"
            f"bulkhead_audit_timestamp_seconds {totals['finished']:.0f}\n"
        )


class Page(Writer):
    """One page that needs no network: fleet, matrix, findings."""

    name = "index.html"
    _first = True

    def begin(self, run: Json, checks: dict[str, Json]) -> None:
        super().begin(run, checks)
        self._before, _, self._after = _TEMPLATE.read_text("utf-8").partition(_MARK)
        self._order = {check: number for number, check in enumerate(checks)}
        self.out.write(self._before)
        head = {"checks": list(checks.values()), "verdicts": VERDICTS}
        self.out.write(_in_script(head)[:-1] + ',"hosts":[')

    def host(self, host: Json) -> None:
        self.out.write("\n" if self._first else ",\n")
        self._first = False
        codes = ["x"] * len(self._order)
        found = []
        for row in host["results"]:
            codes[self._order[row["check"]]] = str(VERDICTS.index(row["verdict"]))
            found += [self._finding(host, row, verdict) for verdict in (*OPEN, "waived")]
        self.out.write(
            _in_script(
                {
                    "name": plain(host["host"]),
                    "state": host["state"],
                    "reason": plain(host["reason"]) if host["reason"] else None,
                    "os": plain(host["os"]["name"]),
                    "engine": plain(host["engine"]["version"]),
                    "codes": "".join(codes),
                    "found": [row for row in found if row],
                }
            )
        )

    def _finding(self, host: Json, row: Json, verdict: str) -> list[typing.Any] | None:
        items = [item for item in row["items"] if item["verdict"] == verdict]
        if not items:
            return None
        names = [
            plain(host["objects"][i["object"]]["name"]) for i in items if i["object"] is not None
        ]
        first = items[0]
        evidence = dumps(first["evidence"]) if first["evidence"] is not None else ""
        return [
            self._order[row["check"]],
            VERDICTS.index(verdict),
            names[:_NAMES],
            len(items),
            plain(first["reason"]) if first["reason"] else "",
            plain(evidence[:_EVIDENCE]),
            first["waiver"],
        ]

    def end(self, totals: Json) -> None:
        tail = {"run": totals["run"], "counts": totals["counts"]}
        self.out.write("],\n" + _in_script(tail)[1:])
        self.out.write(self._after)


def _in_script(value: object) -> str:
    """Return JSON that can stand in a script element: no tag or comment can begin in it."""
    text = dumps(value)
    for char in "<>&\u2028\u2029":
        text = text.replace(char, "\\u%04x" % ord(char))
    return text


class Markdown(Writer):
    """A summary for a merge request or chat: bounded, whatever the size of the fleet."""

    name = "summary.md"
    _MOST = 30

    def begin(self, run: Json, checks: dict[str, Json]) -> None:
        super().begin(run, checks)
        self._bad: dict[str, list[str]] = {}

    def host(self, host: Json) -> None:
        for row in host["results"]:
            if row["verdict"] in ("fail", "error"):
                self._bad.setdefault(row["check"], []).append(plain(host["host"]))

    def end(self, totals: Json) -> None:
        write = self.out.write
        write("# Docker audit\n\n")
        hosts = ", ".join(f"{n} {state}" for state, n in sorted(totals["states"].items()))
        write(f"{totals['run']['finished_at']}: {hosts or 'no hosts'}.\n\n")
        write("| " + " | ".join(v.replace("_", " ") for v in VERDICTS) + " |\n")
        write("|" + " --- |" * len(VERDICTS) + "\n")
        write("| " + " | ".join(str(totals["counts"][v]) for v in VERDICTS) + " |\n\n")
        order = {name: number for number, name in enumerate(("high", "medium", "low"))}
        bad = sorted(
            self._bad.items(), key=lambda p: (order[self.checks[p[0]]["severity"]], -len(p[1]))
        )
        if bad:
            write("| check | severity | hosts | remedy |\n| --- | --- | --- | --- |\n")
        for check, hosts_of in bad[: self._MOST]:
            about = self.checks[check]
            remedy = about["remedy"]["variable"] or about["remedy"]["text"]
            cells = (f"{check} {about['title']}", about["severity"], str(len(hosts_of)), remedy)
            write("| " + " | ".join(_cell(cell) for cell in cells) + " |\n")
        if len(bad) > self._MOST:
            write(f"\n{len(bad) - self._MOST} more checks fail; see index.html.\n")
        for name, why in totals["lost"][: self._MOST]:
            write(f"\n- **not audited**: {_cell(name)}: {_cell(why)}\n")


def _cell(text: str) -> str:
    escaped = plain(text)
    for char in "\\|<>`*_[]":
        escaped = escaped.replace(char, "\\" + char)
    return escaped


WRITERS: dict[str, type[Writer]] = {
    "json": Result,
    "html": Page,
    "junit": JUnit,
    "sarif": Sarif,
    "markdown": Markdown,
    "prometheus": Prometheus,
}


# -- all of them -----------------------------------------------------------------------------------
class Lost(typing.NamedTuple):
    """A host of the play that left no result: ``unreachable`` or ``failed``, and why."""

    state: str
    reason: str


def write(
    folder: pathlib.Path,
    run: Json,
    checks: dict[str, Json],
    hosts: typing.Sequence[str],
    lost: typing.Mapping[str, Lost],
    formats: typing.Sequence[str],
    finished: float,
) -> Json:
    """Write the reports of one run from the results of its hosts, one host after the other.

    :param run: ``run`` of docs/schemas/result.schema.json, without waivers.
    :param checks: what :meth:`Check.described` returns, by id.
    :param hosts: all hosts of the play.
    :param lost: why hosts have no result, as far as it is known.
    :param finished: seconds since the epoch.
    :returns: ``counts``, ``item_counts``, ``states``, ``lost``, ``waivers``, ``open`` (how many items
        of each ``(severity, verdict)``), ``worst`` (hosts with most open findings) and ``paths``.
    """
    totals: Json = {
        "counts": audit_run.count([]),
        "item_counts": audit_run.count([]),
        "states": {},
        "lost": [],
        "open": {},
        "worst": [],
        "finished": finished,
        "run": run,
    }
    waivers: dict[str, Json] = {}
    with contextlib.ExitStack() as stack:
        writers = []
        for name in formats:
            kind = WRITERS[name]
            writers.append(kind(stack.enter_context(written(folder / kind.name))))
        for writer in writers:
            writer.begin(run, checks)
        for name in sorted(hosts):
            host = _read(folder, name, lost.get(name))
            for writer in writers:
                writer.host(host)
            _add(totals, host, checks)
            _add_waivers(waivers, host)
        totals["run"] = {**run, "waivers": [waivers[key] for key in sorted(waivers)]}
        for writer in writers:
            writer.end(totals)
    totals["waivers"] = totals["run"]["waivers"]
    totals["paths"] = [str(folder / WRITERS[name].name) for name in formats]
    return totals


def _read(folder: pathlib.Path, name: str, lost: Lost | None) -> Json:
    path = folder / "hosts" / host_file(name)
    try:
        host = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        state = lost or Lost("failed", "it left no result")
        return audit_run.without_result(name, state.state, state.reason)
    except (OSError, ValueError) as exc:
        return audit_run.without_result(name, "failed", f"{path.name}: {type(exc).__name__}")
    return typing.cast(Json, host)


def _add(totals: Json, host: Json, checks: dict[str, Json]) -> None:
    for kind in ("counts", "item_counts"):
        for verdict, number in host[kind].items():
            totals[kind][verdict] += number
    totals["states"][host["state"]] = totals["states"].get(host["state"], 0) + 1
    opened = 0
    if host["state"] != "audited":
        totals["lost"].append((host["host"], host["reason"]))
        totals["open"]["high:error"] = totals["open"].get("high:error", 0) + 1
    for row, item, _ in _findings(host):
        if item["verdict"] in OPEN:
            key = f"{checks[row['check']]['severity']}:{item['verdict']}"
            totals["open"][key] = totals["open"].get(key, 0) + 1
            opened += item["verdict"] != "manual"
    totals["worst"] = sorted([*totals["worst"], (-opened, host["host"])])[:5]


def _add_waivers(waivers: dict[str, Json], host: Json) -> None:
    """Put the states of a waiver on several hosts together: used somewhere is used."""
    rank = ("weak", "used", "expired", "unused")
    for waiver in host["waivers"]:
        key = dumps({k: v for k, v in waiver.items() if k not in ("state", "used")})
        known = waivers.setdefault(key, {**waiver, "used": 0})
        known["used"] += waiver["used"]
        known["state"] = min(known["state"], waiver["state"], key=rank.index)


def failed_on(totals: Json, wanted: typing.Sequence[str]) -> list[str]:
    """Return which entries of ``docker_audit_fail_on`` there are findings for."""
    found = []
    for entry in wanted:
        _, _, verdict = entry.rpartition(":")
        keys = [entry] if ":" in entry else [f"{s}:{verdict}" for s in ("high", "medium", "low")]
        if any(totals["open"].get(key) for key in keys):
            found.append(entry)
    return found


def summary(totals: Json, checks: dict[str, Json]) -> list[str]:
    """Return what fits on a screen: at most 20 lines of at most 100 characters."""
    states = ", ".join(f"{n} {state}" for state, n in sorted(totals["states"].items()))
    lines = [f"{states or 'no hosts'}; {len(checks)} checks"]
    counts, items = totals["counts"], totals["item_counts"]
    for verdict in VERDICTS:
        if items[verdict]:
            lines.append(
                f"{verdict.replace('_', ' '):<15}{counts[verdict]:>7} checks {items[verdict]:>8} items"
            )
    high = sum(totals["open"].get(f"high:{verdict}", 0) for verdict in ("error", "fail"))
    lines.append(f"of high severity, failed or in error: {high}")
    for number, name in totals["worst"][:3]:
        if number:
            lines.append(f"{-number} open findings on {plain(name)}"[:100])
    for name, why in totals["lost"][:3]:
        lines.append(f"not audited: {plain(name)}: {plain(why)}"[:100])
    for state in ("expired", "weak", "unused"):
        names = [w["check"] for w in totals["waivers"] if w["state"] == state]
        if names:
            lines.append(f"waivers that are {state}: {', '.join(names)}"[:100])
    return lines


# -- an earlier result -----------------------------------------------------------------------------
def hosts_of(path: pathlib.Path) -> typing.Iterator[Json]:
    """Return the hosts of a result.json, one after the other.

    :raises PolicyError: it is no result of this release's schema.
    """
    place = "docker_audit_reference"
    try:
        with path.open(encoding="utf-8") as stream:
            first = stream.readline()
            if not first.startswith('{"schema":"%s",' % audit_run.SCHEMA):
                fix = f"give a result.json of schema {audit_run.SCHEMA}"
                raise PolicyError(place, str(path), fix)
            inside = False
            for line in stream:
                if line.startswith('"hosts":['):
                    inside, line = True, line[len('"hosts":[') :]
                if inside and line.startswith("{"):
                    yield json.loads(line.rstrip().rstrip(",").removesuffix("]"))
                if line.startswith("]") or line.rstrip().endswith("],"):
                    return
    except (OSError, ValueError) as exc:
        if isinstance(exc, PolicyError):
            raise
        raise PolicyError(place, str(path), f"it cannot be read: {exc}") from exc


def compare(folder: pathlib.Path, earlier: pathlib.Path) -> dict[str, int]:
    """Write comparison.json: what is new, fixed and unchanged since an earlier result.

    Findings are the same when host, check and the object's name are; both results are read host by
    host, in the order of their names, in which they were written.
    """
    counts = {"new": 0, "fixed": 0, "unchanged": 0}
    before, after = hosts_of(earlier), hosts_of(folder / Result.name)
    with written(folder / "comparison.json") as stream:
        stream.write('{"schema":"bulkhead.audit-comparison/1",\n"hosts":[')
        separator = "\n"
        for name, old, new in _pairs(before, after):
            row = {
                "host": name,
                "new": sorted(new - old),
                "fixed": sorted(old - new),
                "unchanged": len(new & old),
            }
            counts["new"] += len(new - old)
            counts["fixed"] += len(old - new)
            counts["unchanged"] += len(new & old)
            stream.write(separator + dumps(row))
            separator = ",\n"
        stream.write('],\n"counts":%s}\n' % dumps(counts))
    return counts


_Open = set[tuple[str, str]]


def _pairs(
    before: typing.Iterator[Json], after: typing.Iterator[Json]
) -> typing.Iterator[tuple[str, _Open, _Open]]:
    old, new = next(before, None), next(after, None)
    while old is not None or new is not None:
        name = min(host["host"] for host in (old, new) if host is not None)
        mine: list[_Open] = [set(), set()]
        if old is not None and old["host"] == name:
            mine[0], old = _open(old), next(before, None)
        if new is not None and new["host"] == name:
            mine[1], new = _open(new), next(after, None)
        yield name, mine[0], mine[1]


def _open(host: Json) -> _Open:
    if host["state"] != "audited":
        return {("host", host["state"])}
    return {
        (row["check"], thing["name"] if thing else "")
        for row, item, thing in _findings(host)
        if item["verdict"] in ("error", "fail", "pending")
    }
