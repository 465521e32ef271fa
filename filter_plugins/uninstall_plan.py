# Copyright: (c) 2026, the Bulkhead authors
# Apache License 2.0 (see LICENSE)
"""The filter ``bulkhead.hardening.uninstall_plan``."""

from __future__ import annotations

import typing

from ansible_collections.bulkhead.hardening.plugins.plugin_utils import uninstall_plan as planner
from ansible_collections.bulkhead.hardening.plugins.plugin_utils.filter_errors import planned
from ansible_collections.bulkhead.hardening.plugins.plugin_utils.plan import Json


def uninstall_plan(
    observation: Json, *, stops_containers: bool = False, hides_data: bool = False
) -> Json:
    """Plan what takes everything of Bulkhead's off a host.

    :param observation: what ``docker_host_info`` answered, schema ``bulkhead.observation/1``.
    :param stops_containers: accept a restart of the daemon that ends running containers.
    :param hides_data: accept that what a remapped daemon holds is hidden.
    :returns: a plan, schema ``bulkhead.plan/1``; without operations when a row is ``blocked``.
    :raises AnsibleFilterError: what Bulkhead noted on the host, or the look, cannot be read.
    """
    return planned(
        lambda: planner.plan(observation, stops_containers=stops_containers, hides_data=hides_data)
    )


class FilterModule:
    """Filters of this file."""

    def filters(self) -> dict[str, typing.Callable[..., typing.Any]]:
        """Return the filters by name."""
        return {"uninstall_plan": uninstall_plan}
