# Copyright: (c) 2026, the Bulkhead authors
# Apache License 2.0 (see LICENSE)
"""How what goes wrong in a planner reaches the user of its filter."""

from __future__ import annotations

import typing

from ansible.errors import AnsibleFilterError

from ansible_collections.bulkhead.hardening.plugins.plugin_utils.plan import (
    OBSERVATION_SCHEMA,
    PolicyError,
)

#: What a decision gives: a plan, recommendations.
Decision = typing.TypeVar("Decision")


def planned(decide: typing.Callable[[], Decision]) -> Decision:
    """Return what a planner decides.

    :param decide: the planner, with its observation and policy.
    :raises AnsibleFilterError: naming the variable or file, its value and the fix.
    """
    try:
        return decide()
    except PolicyError as exc:
        raise AnsibleFilterError(str(exc)) from exc
    except (KeyError, TypeError, AttributeError, IndexError, ValueError) as exc:
        # The shape of an observation is the host's word; a broken one must not look like a bug.
        raise AnsibleFilterError(
            f"the observation is not of schema {OBSERVATION_SCHEMA}: "
            f"{type(exc).__name__}: {exc}; look again with this collection's docker_host_info"
        ) from exc
