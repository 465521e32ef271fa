# Copyright: (c) 2026, the Bulkhead authors
# Apache License 2.0 (see LICENSE)
"""The filter ``bulkhead.hardening.merge_plans``."""

from __future__ import annotations

import typing

from ansible.errors import AnsibleFilterError

from ansible_collections.bulkhead.hardening.plugins.plugin_utils import plan as plans
from ansible_collections.bulkhead.hardening.plugins.plugin_utils.plan import Json, PolicyError


def merge_plans(contributions: list[Json]) -> Json:
    """Make one plan of what several roles contribute, so that a host is acted on once.

    :param contributions: plans of schema ``bulkhead.plan/1``, in the order of their roles.
    :raises AnsibleFilterError: two roles would write to the same place, or disagree on the profile.
    """
    if not isinstance(contributions, list) or not all(isinstance(c, dict) for c in contributions):
        raise AnsibleFilterError("merge_plans takes a list of plans, one for each role")
    try:
        return plans.merge(contributions)
    except PolicyError as exc:
        raise AnsibleFilterError(str(exc)) from exc


class FilterModule:
    """Filters of this file."""

    def filters(self) -> dict[str, typing.Callable[..., typing.Any]]:
        """Return the filters by name."""
        return {"merge_plans": merge_plans}
