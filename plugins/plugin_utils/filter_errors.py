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

#: What a decision gives: a plan, recommendations, what is read of the variables of a role.
Decision = typing.TypeVar("Decision")


def read(role: str, check: typing.Callable[[], Decision]) -> Decision:
    """Return what a role's variables say.

    :param check: reads them, without an observation.
    :raises AnsibleFilterError: naming the variable, its value and the fix.
    """
    blame = f"a variable of {role} has a form that it cannot have"
    return _told(check, blame, "compare them with the role's README")


def planned(decide: typing.Callable[[], Decision]) -> Decision:
    """Return what a planner decides.

    :param decide: the planner, with its observation and policy.
    :raises AnsibleFilterError: naming the variable or file, its value and the fix.
    """
    # The shape of an observation is the host's word; a broken one must not look like a bug.
    blame = f"the observation is not of schema {OBSERVATION_SCHEMA}"
    return _told(decide, blame, "look again with this collection's docker_host_info")


def _told(decide: typing.Callable[[], Decision], blame: str, fix: str) -> Decision:
    """Return a decision, or raise the error of Ansible's that says why there is none."""
    try:
        return decide()
    except PolicyError as exc:
        raise AnsibleFilterError(str(exc)) from exc
    except (KeyError, TypeError, AttributeError, IndexError, ValueError) as exc:
        raise AnsibleFilterError(f"{blame}: {type(exc).__name__}: {exc}; {fix}") from exc
