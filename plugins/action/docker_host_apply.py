# Copyright: (c) 2026, the Bulkhead authors
# Apache License 2.0 (see LICENSE)
"""The door to act, from the controller's side. Documented with the module of the same name."""

from __future__ import annotations

import typing

from ansible_collections.bulkhead.hardening.plugins.plugin_utils import plan as plans
from ansible_collections.bulkhead.hardening.plugins.plugin_utils.door import Door, Json

#: What the module has no use for: rows are for people, and stay on the controller.
_FOR_PEOPLE = ("settings", "roles", "profile_reason")

#: What can be asked for instead of applying a plan.
_WITHOUT_PLAN = frozenset({"recover", "undo", "purge"})


class ActionModule(Door):
    """Run ``docker_host_apply``, unless the plan is empty: then the host is not troubled again."""

    module = "bulkhead.hardening.docker_host_apply"

    def run(self, tmp: str | None = None, task_vars: Json | None = None) -> Json:
        """Apply one plan."""
        super().run(tmp, task_vars)
        arguments = dict(self._task.args)
        document = arguments.pop("document", None)
        plan = arguments.get("plan")
        if plan is None and _WITHOUT_PLAN & set(arguments):
            return self.finish(self.enter(typing.cast(Json, task_vars), arguments), document)
        if not isinstance(plan, dict) or plan.get("schema") != plans.SCHEMA:
            return {"failed": True, "msg": f"plan: hand in a mapping of schema {plans.SCHEMA}"}
        if plans.is_empty(plan):
            transaction: Json = {"id": None, "outcome": "nothing", "steps": [], "stays": [], "reason": None,
                           "failed_step": None, "daemon_restarts": 0, "daemon_reloads": 0}  # fmt: skip
            return {"changed": False, "transaction": transaction, "running_containers": []}
        arguments["plan"] = {k: v for k, v in plan.items() if k not in _FOR_PEOPLE}
        answer = self.enter(typing.cast(Json, task_vars), arguments)
        return self.finish({**answer, "plan": plan}, document)
