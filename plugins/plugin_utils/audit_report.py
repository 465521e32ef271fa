# Copyright: (c) 2026, the Bulkhead authors
# Apache License 2.0 (see LICENSE)
"""The reports of an audit, written host by host: memory does not grow with the fleet.

``Reports`` gets one host's result after the other and hands it to a writer for each format. Every text
of a host is hostile: control characters go, markup is escaped, nothing is a template.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
import pathlib
import stat
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
_FOLDER: typing.Final = "docker_audit_report_dir"
#: How many names, and how much evidence, the page has of one finding; all is in result.json.
_NAMES, _EVIDENCE = 100, 600
#: How many different findings of one check on one host it shows, and how many texts it keeps for all.
_GROUPS, _TEXTS = 8, 20_000


def host_file(host: str) -> str:
    """Return the name of the file for a host's result."""
    return urllib.parse.quote(host, safe="") + ".json"


def check_folder(folder: str) -> pathlib.Path:
    """Make the folder of the reports, or see that it can be written and is nobody else's.

    :raises PolicyError: it cannot, or is not; before any host is touched.
    """
    path = pathlib.Path(folder)
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        for place in (path, path / "hosts"):
            place.mkdir(mode=0o700, exist_ok=True)
            _refuse_shared(place)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as exc:
        fix = f"the folder cannot be written: {exc.strerror}"
        raise PolicyError(_FOLDER, folder, fix) from exc
    return path


def _refuse_shared(place: pathlib.Path) -> None:
    found = place.lstat()
    if not stat.S_ISDIR(found.st_mode):
        raise PolicyError(_FOLDER, str(place), "this is a link or a file; name the folder itself")
    if found.st_uid != os.geteuid() or found.st_mode & 0o022:
        fix = "somebody else can write here; name a folder that only you can write"
        raise PolicyError(_FOLDER, str(place), fix)


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


def findings(host: Json) -> typing.Iterator[tuple[Json, Json, Json | None]]:
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
        self.out.write(
            f'><{kind} message="{verdict}" type="{verdict}">{body}</{kind}></testcase>\n'
        )

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
        for row, item, thing in findings(host):
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
            "partialFingerprints": {"bulkhead/v1": _fingerprint(check["id"], host, thing)},
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
            "startTimeUtc": totals["run"]["started_at"].replace("+00:00", "Z"),
            "endTimeUtc": totals["run"]["finished_at"].replace("+00:00", "Z"),
        }
        self.out.write('],"invocations":[%s]}]}\n' % dumps(invocation))


def _fingerprint(check: str, host: Json, thing: Json | None) -> str:
    """Tell a finding from every other one, and know it again in the next run."""
    parts = [check, host["host"], thing and thing["kind"], thing and thing["name"]]
    return hashlib.sha256(dumps(parts).encode()).hexdigest()


def label(value: object) -> str:
    """Return a value as Prometheus takes it for a label, quotes included."""
    text = str(value)
    # Two hosts with the same labels would void the whole file, so nothing is cut or replaced.
    if not text.isprintable():
        text = urllib.parse.quote(text, safe="", errors="surrogatepass")
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


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

    def host(self, host: Json) -> None:
        name = label(host["host"])
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
    """One page that needs no network: fleet, matrix, findings.

    What passes is in it as numbers alone. Findings that differ in nothing but the object are one row;
    texts that come up again, in whatever host, are there once.
    """

    name = "index.html"
    _first = True

    def begin(self, run: Json, checks: dict[str, Json]) -> None:
        super().begin(run, checks)
        before, _, self._after = _page().partition(_MARK)
        self._order = {check: number for number, check in enumerate(checks)}
        self._texts: dict[str, int] = {}
        self.out.write(before)
        head = {"checks": list(checks.values()), "verdicts": VERDICTS}
        self.out.write(_in_script(head)[:-1] + ',"hosts":[')

    def host(self, host: Json) -> None:
        self.out.write("\n" if self._first else ",\n")
        self._first = False
        codes = ["x"] * len(self._order)
        found: list[Json] = []
        names: dict[str, int] = {}
        for row in host["results"]:
            codes[self._order[row["check"]]] = str(VERDICTS.index(row["verdict"]))
            found += self._findings(host, row, names)
        self.out.write(
            _in_script(
                {
                    "name": plain(host["host"]),
                    "state": host["state"],
                    "reason": plain(host["reason"]) if host["reason"] else None,
                    "os": plain(host["os"]["name"]),
                    "engine": plain(host["engine"]["version"]),
                    "codes": "".join(codes),
                    "names": list(names),
                    "found": found,
                }
            )
        )

    def _findings(self, host: Json, row: Json, names: dict[str, int]) -> list[typing.Any]:
        """Return ``[check, verdict, objects, how many, reason, evidence, waiver]`` of each group."""
        groups: dict[str, list[typing.Any]] = {}
        for item in row["items"]:
            if item["verdict"] not in (*OPEN, "waived"):
                continue
            index = item["object"]
            key = dumps([item["verdict"], item["reason"], item["evidence"], item["waiver"]])
            if key not in groups and len(groups) >= _GROUPS:
                # What is left of a verdict is one row; result.json has its evidence.
                key = item["verdict"]
            if key not in groups:
                groups[key] = self._group(row, item, key == item["verdict"])
            group = groups[key]
            group[3] += 1
            if index is not None and len(group[2]) < _NAMES:
                name = plain(host["objects"][index]["name"])
                group[2].append(names.setdefault(name, len(names)))
        return list(groups.values())

    def _group(self, row: Json, item: Json, rest: bool) -> list[typing.Any]:
        text, evidence = item["reason"], item["evidence"]
        if rest:
            text, evidence = "more of the same; each one's evidence is in result.json", None
        return [
            self._order[row["check"]],
            VERDICTS.index(item["verdict"]),
            [],
            0,
            self._text(plain(text) if text else ""),
            self._text("" if evidence is None else _shown(evidence)),
            None
            if item["waiver"] is None or rest
            else {k: plain(v) for k, v in item["waiver"].items()},
        ]

    def _text(self, text: str) -> int | str:
        """Return the number of a text; the text itself when there are too many."""
        if text not in self._texts and len(self._texts) >= _TEXTS:
            return text
        return self._texts.setdefault(text, len(self._texts))

    def end(self, totals: Json) -> None:
        tail = {
            "texts": list(self._texts),
            "run": totals["run"],
            "counts": totals["counts"],
            "states": totals["states"],
        }
        self.out.write("],\n" + _in_script(tail)[1:])
        self.out.write(self._after)


def _page() -> str:
    """Return the page without its data. Only its own script and style run: it names their hashes."""
    text = _TEMPLATE.read_text("utf-8")
    for kind in ("style", "script"):
        inner = text.rpartition(f"<{kind}>")[2].partition(f"</{kind}>")[0]
        digest = base64.b64encode(hashlib.sha256(inner.encode()).digest()).decode()
        text = text.replace(f"{kind}-src 'unsafe-inline'", f"{kind}-src 'sha256-{digest}'")
    return text


def _shown(evidence: object) -> str:
    """Return evidence as one line."""
    return plain(json.dumps(evidence, sort_keys=True, ensure_ascii=False)[:_EVIDENCE])


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
            write("| " + " | ".join(cell(text) for text in cells) + " |\n")
        if len(bad) > self._MOST:
            write(f"\n{len(bad) - self._MOST} more checks fail; see index.html.\n")
        if totals["lost"]:
            write("\n## Not audited\n\n")
        for name, why in totals["lost"][: self._MOST]:
            write(f"- {cell(name)}: {cell(why)}\n")
        if len(totals["lost"]) > self._MOST:
            write(f"- and {len(totals['lost']) - self._MOST} more\n")
        doubtful = [w for w in totals["run"]["waivers"] if w["state"] != "used"]
        if doubtful:
            write("\n## Waivers to look at\n\n| check | state | until | owner | reason |\n")
            write("| --- | --- | --- | --- | --- |\n")
        for waiver in doubtful[: self._MOST]:
            shown = [waiver[k] for k in ("check", "state", "expires", "owner", "reason")]
            write("| " + " | ".join(cell(text) for text in shown) + " |\n")
        if len(doubtful) > self._MOST:
            write(f"\n{len(doubtful) - self._MOST} more; see index.html.\n")


#: What Markdown, and what is often made of it (HTML, links, mentions), would read as more than text.
_MEANS: dict[str, str | int | None] = {letter: f"\\{letter}" for letter in "\\|`*_[]~"}
_MEANS |= {"<": "&lt;", ">": "&gt;", "&": "&amp;", "@": "&#64;", "#": "&#35;", ":": "&#58;"}


def cell(text: str) -> str:
    """Return one line that is nothing but text in Markdown."""
    return plain(text).replace("www.", "www .").translate(str.maketrans(_MEANS))


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
        return _without(name, state.state, state.reason)
    except (OSError, ValueError) as exc:
        return _without(name, "failed", f"its result cannot be read: {type(exc).__name__}")
    return typing.cast(Json, host)


def _without(name: str, state: str, reason: str) -> Json:
    lost = audit_run.without_result(name, state, reason)
    return {**lost, "audited_at": None, "duration_seconds": None}


def _add(totals: Json, host: Json, checks: dict[str, Json]) -> None:
    for kind in ("counts", "item_counts"):
        for verdict, number in host[kind].items():
            totals[kind][verdict] += number
    totals["states"][host["state"]] = totals["states"].get(host["state"], 0) + 1
    opened = 0
    if host["state"] != "audited":
        totals["lost"].append((host["host"], host["reason"]))
        totals["open"]["high:error"] = totals["open"].get("high:error", 0) + 1
    for row, item, _ in findings(host):
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
    """Return what fits on a screen: at most 18 lines of at most 79 characters."""
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
            lines.append(f"{-number} open findings on {plain(name)}"[:79])
    for name, why in totals["lost"][:3]:
        lines.append(f"not audited: {plain(name)}: {plain(why)}"[:79])
    for state in ("expired", "weak", "unused"):
        names = [w["check"] for w in totals["waivers"] if w["state"] == state]
        if names:
            lines.append(f"waivers that are {state}: {', '.join(names)}"[:79])
    return lines
