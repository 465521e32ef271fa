# Copyright: (c) 2026, the Bulkhead authors
# Apache License 2.0 (see LICENSE)
"""The filter ``bulkhead.hardening.docker_kernel_plan``."""

from __future__ import annotations

import typing

from ansible_collections.bulkhead.hardening.plugins.plugin_utils import kernel_plan
from ansible_collections.bulkhead.hardening.plugins.plugin_utils.filter_errors import planned, read
from ansible_collections.bulkhead.hardening.plugins.plugin_utils.plan import Json


def docker_kernel_plan(observation: Json, policy: Json) -> Json:
    """Plan what the role ``docker_kernel`` changes on one host.

    :param observation: what ``docker_host_info`` answered, schema ``bulkhead.observation/1``.
    :param policy: the variables of ``docker_kernel`` without their prefix.
    :returns: a plan, schema ``bulkhead.plan/1`` (docs/schemas/plan.schema.json).
    :raises AnsibleFilterError: naming the variable or section, its value and the fix.
    """
    checked = read("docker_kernel", lambda: kernel_plan.read(policy))
    return planned(lambda: kernel_plan.plan(observation, checked))


class FilterModule:
    """Filters of this file."""

    def filters(self) -> dict[str, typing.Callable[..., typing.Any]]:
        """Return the filters by name."""
        return {"docker_kernel_plan": docker_kernel_plan}
