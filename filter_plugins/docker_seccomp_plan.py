# Copyright: (c) 2026, the Bulkhead authors
# Apache License 2.0 (see LICENSE)
"""The filter ``bulkhead.hardening.docker_seccomp_plan``."""

from __future__ import annotations

import typing

from ansible.errors import AnsibleFilterError

from ansible_collections.bulkhead.hardening.plugins.plugin_utils import seccomp_plan
from ansible_collections.bulkhead.hardening.plugins.plugin_utils.plan import Json, PolicyError


def docker_seccomp_plan(observation: Json, profiles: Json, daemon_plan: Json | None = None) -> Json:
    """Plan what the role ``docker_seccomp`` changes on one host.

    :param observation: what ``docker_host_info`` answered, schema ``bulkhead.observation/1``.
    :param profiles: the variable ``docker_seccomp_profiles``.
    :param daemon_plan: what ``docker_daemon`` plans in the same transaction, if it does.
    :returns: a plan, schema ``bulkhead.plan/1`` (docs/schemas/plan.schema.json).
    :raises AnsibleFilterError: naming the variable or file, its value and the fix.
    """
    try:
        return seccomp_plan.plan(observation, profiles, daemon_plan)
    except PolicyError as exc:
        raise AnsibleFilterError(str(exc)) from exc
    except (KeyError, TypeError, AttributeError, IndexError, ValueError) as exc:
        # The shape of an observation is the host's word; a broken one must not look like a bug.
        raise AnsibleFilterError(
            f"the observation cannot be planned from: {type(exc).__name__}: {exc}; look again with this "
            "collection's docker_host_info"
        ) from exc


class FilterModule:
    """Filters of this file."""

    def filters(self) -> dict[str, typing.Callable[..., typing.Any]]:
        """Return the filters by name."""
        return {"docker_seccomp_plan": docker_seccomp_plan}
