# Copyright: (c) 2026, the Bulkhead authors
# Apache License 2.0 (see LICENSE)
"""The filter ``bulkhead.hardening.docker_seccomp_plan``."""

from __future__ import annotations

import typing

from ansible_collections.bulkhead.hardening.plugins.plugin_utils import seccomp_plan
from ansible_collections.bulkhead.hardening.plugins.plugin_utils.filter_errors import planned, read
from ansible_collections.bulkhead.hardening.plugins.plugin_utils.plan import Json


def docker_seccomp_plan(
    observation: Json,
    profiles: Json,
    daemon_plan: Json | None = None,
    daemon_restart: str = "when_needed",
    daemon_stops_containers: bool = False,
) -> Json:
    """Plan what the role ``docker_seccomp`` changes on one host.

    :param observation: what ``docker_host_info`` answered, schema ``bulkhead.observation/1``.
    :param profiles: the variable ``docker_seccomp_profiles``.
    :param daemon_plan: what ``docker_daemon`` plans in the same transaction, if it does.
    :param daemon_restart: the variable ``docker_daemon_restart``.
    :param daemon_stops_containers: the variable ``docker_daemon_restart_stops_containers``.
    :returns: a plan, schema ``bulkhead.plan/1`` (docs/schemas/plan.schema.json).
    :raises AnsibleFilterError: naming the variable or file, its value and the fix.
    """
    checked = read("docker_seccomp", lambda: seccomp_plan.read(profiles))
    return planned(
        lambda: seccomp_plan.plan(
            observation, checked, daemon_plan, daemon_restart, daemon_stops_containers
        )
    )


class FilterModule:
    """Filters of this file."""

    def filters(self) -> dict[str, typing.Callable[..., typing.Any]]:
        """Return the filters by name."""
        return {"docker_seccomp_plan": docker_seccomp_plan}
