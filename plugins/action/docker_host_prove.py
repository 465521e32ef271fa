# Copyright: (c) 2026, the Bulkhead authors
# Apache License 2.0 (see LICENSE)
"""Attacks one host: chooses on the controller, runs on the host, judges on the controller.

Documented with the module of the same name.
"""

from __future__ import annotations

import datetime
import json
import pathlib
import secrets
import typing

from ansible_collections.bulkhead.hardening.plugins.plugin_utils import attacks, door
from ansible_collections.bulkhead.hardening.plugins.plugin_utils.door import Door, Json, wrap_var
from ansible_collections.bulkhead.hardening.plugins.plugin_utils.plan import PolicyError


class ActionModule(Door):
    """Run the chosen attacks on a host and judge what they answered."""

    module = "bulkhead.hardening.docker_host_prove"
    answers_with = ("results", list)

    def run(self, tmp: str | None = None, task_vars: Json | None = None) -> Json:
        """Attack one host."""
        super().run(tmp, task_vars)
        arguments = self._task.args
        try:
            folders = [pathlib.Path(path) for path in arguments.get("attack_dirs") or []]
            chosen = attacks.select(attacks.read(folders), arguments.get("attacks") or [])
            variants = arguments.get("variants") or ["default"]
            for variant in set(variants) - set(attacks.VARIANTS):
                raise PolicyError("docker_proof_variants", variant, "default or weakened")
        except PolicyError as exc:
            return {"failed": True, "changed": False, "msg": str(exc)}
        jobs = attacks.jobs(chosen, variants)
        if self._task.check_mode:
            names = [item["id"] for job in jobs for item in job["attacks"]]
            return {"changed": False, "skipped": True, "msg": f"would run {', '.join(names)}"}
        started = datetime.datetime.now(datetime.timezone.utc)
        asked = {"jobs": jobs, "programs": attacks.programs(chosen), "run": secrets.token_hex(4)}
        answer = self.enter(typing.cast(Json, task_vars), asked)
        if answer.get("failed") or answer.get("unreachable"):
            return self.finish(answer, None)
        rows = attacks.judge(chosen, jobs, answer)
        document: Json = {
            "schema": attacks.SCHEMA,
            "host": str(typing.cast(Json, task_vars)["inventory_hostname"]),
            "started_at": started.isoformat(timespec="seconds"),
            "attacks": rows,
            "counts": attacks.count(rows),
        }
        # As it will be read back: nothing in it is more than text and numbers.
        result: Json = {"changed": False, **json.loads(json.dumps(document))}
        kept = door.stored(document, arguments.get("document"))
        if kept.get("failed"):
            return {"changed": False, **kept}
        result.update(kept)
        return typing.cast(Json, wrap_var(result))
