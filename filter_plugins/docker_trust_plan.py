# Copyright: (c) 2026, the Bulkhead authors
# Apache License 2.0 (see LICENSE)
"""The filter ``bulkhead.hardening.docker_trust_plan``."""

from __future__ import annotations

import typing

from ansible_collections.bulkhead.hardening.plugins.plugin_utils import trust_plan
from ansible_collections.bulkhead.hardening.plugins.plugin_utils.filter_errors import planned, read
from ansible_collections.bulkhead.hardening.plugins.plugin_utils.plan import Json


def docker_trust_plan(observation: Json, variables: Json, program: str) -> Json:
    """Plan what the role ``docker_trust`` changes on one host.

    :param observation: what ``docker_host_info`` answered, schema ``bulkhead.observation/1``.
    :param variables: the role's public variables without their prefix.
    :param program: the text of ``bulkhead-pull``.
    :returns: a plan, schema ``bulkhead.plan/1`` (docs/schemas/plan.schema.json).
    :raises AnsibleFilterError: naming the variable or file, its value and the fix.
    """
    checked = read("docker_trust", lambda: trust_plan.read(variables))
    return planned(lambda: trust_plan.plan(observation, checked, program))


class FilterModule:
    """Filters of this file."""

    def filters(self) -> dict[str, typing.Callable[..., typing.Any]]:
        """Return the filters by name."""
        return {"docker_trust_plan": docker_trust_plan}
