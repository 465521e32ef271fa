# Copyright: (c) 2026, the Bulkhead authors
# Apache License 2.0 (see LICENSE)
"""The door to look, from the controller's side. Documented with the module of the same name."""

from __future__ import annotations

import typing

from ansible_collections.bulkhead.hardening.plugins.plugin_utils.door import Door, Json


class ActionModule(Door):
    """Run ``docker_host_info`` and keep its document."""

    module = "bulkhead.hardening.docker_host_info"

    def run(self, tmp: str | None = None, task_vars: Json | None = None) -> Json:
        """Look at the host once."""
        super().run(tmp, task_vars)
        arguments = dict(self._task.args)
        document = arguments.pop("document", None)
        return self.finish(self.enter(typing.cast(Json, task_vars), arguments), document)
