# Copyright: (c) 2026, the Bulkhead authors
# Apache License 2.0 (see LICENSE)
"""The filter ``bulkhead.hardening.container_recommendations``."""

from __future__ import annotations

import typing

from ansible_collections.bulkhead.hardening.plugins.plugin_utils import door, recommend
from ansible_collections.bulkhead.hardening.plugins.plugin_utils.filter_errors import planned
from ansible_collections.bulkhead.hardening.plugins.plugin_utils.plan import Json


def container_recommendations(observation: Json, policy: Json | None = None) -> list[Json]:
    """Say which options would bring the running containers of a host to policy, and why.

    :param observation: what ``docker_host_info`` answered, with details and what containers wrote.
    :param policy: the variables of ``docker_recommend`` without their prefix.
    :returns: a list, one entry a running container; see ``recommend.recommendations``.
    :raises AnsibleFilterError: naming the variable or the section, its value and the fix.
    """
    # Names of files and processes are the host's word.
    return planned(
        lambda: typing.cast(
            "list[Json]", door.inert(recommend.recommendations(observation, policy or {}))
        )
    )


class FilterModule:
    """Filters of this file."""

    def filters(self) -> dict[str, typing.Callable[..., typing.Any]]:
        """Return the filters by name."""
        return {"container_recommendations": container_recommendations}
