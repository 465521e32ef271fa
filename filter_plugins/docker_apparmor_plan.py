# Copyright: (c) 2026, the Bulkhead authors
# Apache License 2.0 (see LICENSE)
"""The filter ``bulkhead.hardening.docker_apparmor_plan``."""

from __future__ import annotations

import typing

from ansible_collections.bulkhead.hardening.plugins.plugin_utils import apparmor_plan
from ansible_collections.bulkhead.hardening.plugins.plugin_utils.filter_errors import planned, read
from ansible_collections.bulkhead.hardening.plugins.plugin_utils.plan import Json


def docker_apparmor_plan(observation: Json, policy: Json) -> Json:
    """Plan what the role ``docker_apparmor`` changes on one host.

    :param observation: what ``docker_host_info`` answered, schema ``bulkhead.observation/1``.
    :param policy: the variables of ``docker_apparmor`` without their prefix, and ``texts``: the
        contents of the files that its profiles name, by path.
    :returns: a plan, schema ``bulkhead.plan/1`` (docs/schemas/plan.schema.json).
    :raises AnsibleFilterError: naming the variable or file, its value and the fix.
    """
    checked = read("docker_apparmor", lambda: apparmor_plan.read(policy))
    return planned(lambda: apparmor_plan.plan(observation, checked))


class FilterModule:
    """Filters of this file."""

    def filters(self) -> dict[str, typing.Callable[..., typing.Any]]:
        """Return the filters by name."""
        return {"docker_apparmor_plan": docker_apparmor_plan}
