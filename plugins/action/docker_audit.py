# Copyright: (c) 2026, the Bulkhead authors
# Apache License 2.0 (see LICENSE)
"""Audit one host: look through the door, judge in the worker, keep the result on disk.

Neither the observation nor the result goes into Ansible's memory, so a run over a fleet needs no more of
it than one over a host. Documented beside the modules, in docker_audit.yml.
"""

from __future__ import annotations

import datetime
import pathlib
import time
import typing

from ansible_collections.bulkhead.hardening.plugins.plugin_utils import (
    audit_bench,
    audit_compare,
    audit_report,
    audit_run,
    door,
)
from ansible_collections.bulkhead.hardening.plugins.plugin_utils.door import Door, Json
from ansible_collections.bulkhead.hardening.plugins.plugin_utils.plan import PolicyError


class ActionModule(Door):
    """Look at a host and write its result; or only check what a run would do."""

    module = "bulkhead.hardening.docker_host_info"

    def run(self, tmp: str | None = None, task_vars: Json | None = None) -> Json:
        """Audit one host."""
        super().run(tmp, task_vars)
        arguments = self._task.args
        started = time.time()
        try:
            run = audit_run.settings(arguments.get("settings") or {})
            folder = audit_report.check_folder(str(arguments["report_dir"]))
            if arguments.get("prepare"):
                return self._prepare(run, folder, arguments)
            _same_checks(run, arguments.get("checks"))
        except PolicyError as exc:
            return {"failed": True, "changed": False, "msg": str(exc)}
        look: Json = {"gather_subset": ["all"], "timeout": int(arguments.get("timeout") or 60)}
        if arguments.get("rootless_user"):
            look["rootless_user"] = str(arguments["rootless_user"])
        variables = typing.cast(Json, task_vars)
        answer = self.enter(variables, look)
        if answer.get("failed") or answer.get("unreachable"):
            return self.finish(answer, None)
        now = datetime.datetime.now(datetime.timezone.utc)
        host = str(variables["inventory_hostname"])
        result = audit_run.audit(host, answer["observation"], run, now.date())
        result["audited_at"] = now.isoformat(timespec="seconds")
        result["duration_seconds"] = round(time.time() - started, 2)
        path = folder / "hosts" / audit_report.host_file(host)
        digest = door.store(result, str(path))
        return {
            "changed": False,
            "counts": result["counts"],
            "item_counts": result["item_counts"],
            "path": str(path),
            "digest": digest,
        }

    @staticmethod
    def _prepare(run: audit_run.Settings, folder: pathlib.Path, arguments: Json) -> Json:
        """Check what the reports will need, and forget the hosts of an earlier run."""
        audit_bench.check(arguments.get("docker_bench") or {}, arguments.get("hosts"))
        if arguments.get("reference"):
            audit_compare.check(pathlib.Path(arguments["reference"]))
        for path in (folder / "hosts").glob("*.json"):
            path.unlink()
        started = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
        checks = [check.id for check in run.checks]
        return {"changed": False, "started_at": started, "checks": checks}


def _same_checks(run: audit_run.Settings, wanted: list[str] | None) -> None:
    """Refuse a host whose own variables choose other checks: the reports have one list for all."""
    differing = sorted({check.id for check in run.checks} ^ set(wanted or ()))
    if wanted is not None and differing:
        fix = "a run has one list of checks; give what chooses and adds them to the play, not to a host"
        raise PolicyError(
            "docker_audit_*, by which checks differ between hosts,", differing[:5], fix
        )
