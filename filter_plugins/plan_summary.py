# Copyright: (c) 2026, the Bulkhead authors
# Apache License 2.0 (see LICENSE)
"""The filter ``bulkhead.hardening.plan_summary``."""

from __future__ import annotations

import typing

from ansible.errors import AnsibleFilterError

from ansible_collections.bulkhead.hardening.plugins.plugin_utils import drift, report
from ansible_collections.bulkhead.hardening.plugins.plugin_utils.plan import Json


def plan_summary(plan: Json, look: Json | None = None) -> list[str]:
    """Say in lines of text what a plan changes and what it leaves, each with its reason.

    :param plan: schema ``bulkhead.plan/1``.
    :param look: the observation that it was planned from, to say too what somebody else changed of it.
    :returns: lines without control characters, whatever a host named its containers.
    """
    try:
        return (drift.told(look) if look else []) + report.summary(plan)
    except (KeyError, TypeError, AttributeError) as exc:
        raise AnsibleFilterError(f"plan_summary takes a plan: {exc!r}") from exc


class FilterModule:
    """Filters of this file."""

    def filters(self) -> dict[str, typing.Callable[..., typing.Any]]:
        """Return the filters by name."""
        return {"plan_summary": plan_summary}
