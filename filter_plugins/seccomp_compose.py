# Copyright: (c) 2026, the Bulkhead authors
# Apache License 2.0 (see LICENSE)
"""The filter ``bulkhead.hardening.seccomp_compose``."""

from __future__ import annotations

import typing

from ansible.errors import AnsibleFilterError

from ansible_collections.bulkhead.hardening.plugins.plugin_utils import (
    seccomp_engines,
    seccomp_plan,
    seccomp_profile,
)
from ansible_collections.bulkhead.hardening.plugins.plugin_utils.plan import Json, PolicyError


def seccomp_compose(
    spec: Json, engine: str, name: str = "profile", machine: str = "x86_64"
) -> Json:
    """Compose a seccomp profile for an engine.

    :param spec: as in ``docker_seccomp_profiles``.
    :param engine: the engine's version such as ``26.1.5``.
    :param machine: of the host, as ``uname -m`` says it.
    :returns: the profile, in the engine's format.
    :raises AnsibleFilterError: the spec is wrong, no container would start under the profile, or the
        engine's builtin profile is not known exactly.
    """
    try:
        read = seccomp_profile.read(spec, name)
        base = read.base
        if isinstance(base, str):
            base = seccomp_engines.base(seccomp_engines.series(engine))
        return seccomp_plan.composed(read, base, name, machine)
    except (PolicyError, seccomp_engines.NoBaseError) as exc:
        raise AnsibleFilterError(f"seccomp_compose: {exc}") from exc


class FilterModule:
    """Filters of this file."""

    def filters(self) -> dict[str, typing.Callable[..., typing.Any]]:
        """Return the filters by name."""
        return {"seccomp_compose": seccomp_compose}
