# Copyright: (c) 2026, the Bulkhead authors
# Apache License 2.0 (see LICENSE)
"""The filter ``bulkhead.hardening.docker_apparmor_plan``."""

from __future__ import annotations

import typing

from ansible.errors import AnsibleFilterError

from ansible_collections.bulkhead.hardening.plugins.plugin_utils import apparmor_plan
from ansible_collections.bulkhead.hardening.plugins.plugin_utils.plan import Json, PolicyError


def docker_apparmor_plan(observation: Json, policy: Json) -> Json:
    """Plan what the role ``docker_apparmor`` changes on one host.

    :param observation: what ``docker_host_info`` answered, schema ``bulkhead.observation/1``.
    :param policy: the variables of ``docker_apparmor`` without their prefix, and ``texts``: the
        contents of the files that its profiles name, by path.
    :returns: a plan, schema ``bulkhead.plan/1`` (docs/schemas/plan.schema.json).
    :raises AnsibleFilterError: naming the variable or file, its value and the fix.
    """
    try:
        return apparmor_plan.plan(observation, apparmor_plan.read(policy))
    except PolicyError as exc:
        raise AnsibleFilterError(str(exc)) from exc
    except (KeyError, TypeError, AttributeError, IndexError, ValueError) as exc:
        # The shape of an observation is the host's word; a broken one must not look like a bug.
        raise AnsibleFilterError(
            f"the observation is not of schema {apparmor_plan.OBSERVATION_SCHEMA}: "
            f"{type(exc).__name__}: {exc}; look again with this collection's docker_host_info"
        ) from exc


class FilterModule:
    """Filters of this file."""

    def filters(self) -> dict[str, typing.Callable[..., typing.Any]]:
        """Return the filters by name."""
        return {"docker_apparmor_plan": docker_apparmor_plan}
