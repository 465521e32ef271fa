# Copyright: (c) 2026, the Bulkhead authors
# Apache License 2.0 (see LICENSE)
"""The filter ``bulkhead.hardening.docker_drift``."""

from __future__ import annotations

import typing

from ansible_collections.bulkhead.hardening.plugins.plugin_utils import drift, filter_errors
from ansible_collections.bulkhead.hardening.plugins.plugin_utils.plan import Json


def docker_drift(
    look: Json | None, plan: Json | None = None, reason: str = "it was not looked at"
) -> Json:
    """Find what of a host is no longer as it was applied.

    :param look: the observation, with ``bulkhead``; None for a host that has none.
    :param plan: what all roles plan from it.
    :param reason: why there is no observation or plan.
    :raises AnsibleFilterError: the observation is not of its schema.
    """
    if not look or not plan:
        return drift.unknown(reason)
    return filter_errors.planned(lambda: drift.drift(look, plan))


class FilterModule:
    """Filters of this file."""

    def filters(self) -> dict[str, typing.Callable[..., typing.Any]]:
        """Return the filters by name."""
        return {"docker_drift": docker_drift}
