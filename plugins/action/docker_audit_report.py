# Copyright: (c) 2026, the Bulkhead authors
# Apache License 2.0 (see LICENSE)
"""Write the reports of an audit on the controller; no host is touched.

Documented beside the modules, in docker_audit_report.yml.
"""

from __future__ import annotations

import contextlib
import datetime
import pathlib
import textwrap
import typing

import yaml
from ansible.plugins.action import ActionBase

from ansible_collections.bulkhead.hardening.plugins.plugin_utils import (
    audit_bench,
    audit_checks,
    audit_compare,
    audit_merge,
    audit_report,
    audit_run,
)
from ansible_collections.bulkhead.hardening.plugins.plugin_utils.door import Json
from ansible_collections.bulkhead.hardening.plugins.plugin_utils.plan import PolicyError

_GALAXY = pathlib.Path(__file__).resolve().parents[2]


class ActionModule(ActionBase):
    """Put the results of all hosts together."""

    def run(self, tmp: str | None = None, task_vars: Json | None = None) -> Json:
        """Write every report, then say what a run should fail for."""
        super().run(tmp, task_vars)
        arguments = self._task.args
        try:
            run = audit_run.settings(arguments.get("settings") or {})
            formats = _formats(arguments.get("formats") or list(audit_report.WRITERS))
            folder = audit_report.check_folder(str(arguments["report_dir"]))
            return self._report(run, formats, folder, typing.cast(Json, task_vars))
        except PolicyError as exc:
            return {"failed": True, "changed": False, "msg": str(exc)}

    def _report(
        self, run: audit_run.Settings, formats: list[str], folder: pathlib.Path, variables: Json
    ) -> Json:
        arguments = self._task.args
        now = datetime.datetime.now(datetime.timezone.utc)
        finished = now.isoformat(timespec="seconds")
        header = {
            "started_at": arguments.get("started_at") or finished,
            "finished_at": finished,
            "collection_version": _version(),
            "benchmark": audit_checks.BENCHMARK,
            "selection": {
                name: list(getattr(run.selection, name))
                for name in ("levels", "igs", "sections", "ids", "tags", "skip")
            },
            "fail_on": list(run.fail_on),
        }
        checks = {check.id: check.described() for check in run.checks}
        if arguments.get("slices"):
            lost = audit_merge.collect(folder, arguments["slices"], checks)
        else:
            names = [str(name) for name in arguments["hosts"]]
            lost = {name: _lost(variables, name, arguments.get("result")) for name in names}
        hosts = list(lost)
        reference = pathlib.Path(arguments.get("reference") or folder / "result.json")
        with contextlib.ExitStack() as stack:
            # The earlier result may be the very file that this run's result takes the place of.
            earlier = None
            if arguments.get("reference"):
                with contextlib.suppress(OSError):  # said below, after the reports are written
                    earlier = stack.enter_context(reference.open(encoding="utf-8"))
            totals = audit_report.write(
                folder,
                header,
                checks,
                hosts,
                {name: why for name, why in lost.items() if why},
                formats,
                now.timestamp(),
            )
            lines = audit_report.summary(totals, checks)
            comparison = None
            if arguments.get("reference"):
                comparison = audit_compare.compare(folder, reference, earlier)
        if comparison:
            lines += _told("since the earlier result", comparison)
            totals["paths"].append(str(folder / "comparison.json"))
        bench = None
        files = audit_bench.check(arguments.get("docker_bench") or {}, hosts)
        if files:
            bench = audit_bench.write(folder, checks, files)
            lines += _told("beside docker-bench-security", bench)
            totals["paths"].append(str(folder / "docker-bench.json"))
        return {
            "changed": False,
            "summary": lines,
            "paths": totals["paths"],
            "counts": totals["counts"],
            "item_counts": totals["item_counts"],
            "comparison": comparison,
            "docker_bench": bench,
            "failed_on": audit_report.failed_on(totals, run.fail_on),
        }


def _told(about: str, counts: dict[str, int]) -> list[str]:
    parts = [f"{number} {state.replace('_', ' ')}" for state, number in counts.items() if number]
    return textwrap.wrap(f"{about}: {', '.join(parts) or 'nothing'}", 79, subsequent_indent="  ")


def _formats(wanted: object) -> list[str]:
    if not isinstance(wanted, (list, tuple)):
        raise PolicyError("docker_audit_formats", wanted, "give a list")
    known = list(audit_report.WRITERS)
    for name in wanted:
        if name not in known:
            raise PolicyError("docker_audit_formats", name, f"there are {', '.join(known)}")
    return ["json", *(name for name in known if name in wanted and name != "json")]


def _version() -> str:
    for name in ("MANIFEST.json", "galaxy.yml"):  # an installed collection, a checkout
        path = _GALAXY / name
        if path.is_file():
            document = yaml.safe_load(path.read_text("utf-8"))
            return str(document.get("collection_info", document)["version"])
    return "0.0.0"


def _lost(variables: Json, host: str, register: object) -> audit_report.Lost | None:
    """Return what Ansible says of a host that left no result."""
    try:
        answer = variables["hostvars"][host].get(str(register)) or {}
    except KeyError:
        return None
    if answer.get("unreachable"):
        return audit_report.Lost("unreachable", str(answer.get("msg") or "no connection"))
    if answer.get("failed"):
        return audit_report.Lost("failed", str(answer.get("msg") or "no reason given"))
    return None
