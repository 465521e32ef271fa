# Copyright: (c) 2026, the Bulkhead authors
# Apache License 2.0 (see LICENSE)
"""The filter ``bulkhead.hardening.seccomp_describe``."""

from __future__ import annotations

import typing

from ansible.errors import AnsibleFilterError

from ansible_collections.bulkhead.hardening.plugins.plugin_utils import (
    seccomp_check,
    seccomp_engines,
    seccomp_profile,
)
from ansible_collections.bulkhead.hardening.plugins.plugin_utils.plan import Json


def seccomp_describe(profile: Json, engine: str = "", machine: str = "x86_64") -> Json:
    """Say what is wrong with a seccomp profile and what it does, next to the engine's own.

    :param profile: in the engine's format.
    :param engine: the engine's version to compare with; empty compares with none.
    :param machine: of the host, as ``uname -m`` says it.
    :returns: ``problems`` (``level``, ``where``, ``text``) and, unless one is an error, what
        ``seccomp_profile.describe`` says.
    :raises AnsibleFilterError: the engine's builtin profile is not known exactly.
    """
    problems = seccomp_check.problems(profile, machine=machine)
    found: Json = {"problems": [dict(problem._asdict()) for problem in problems]}
    if any(problem.level == "error" for problem in problems):
        return found
    try:
        base = seccomp_engines.base(seccomp_engines.series(engine)) if engine else None
    except seccomp_engines.NoBaseError as exc:
        raise AnsibleFilterError(f"seccomp_describe: {exc}") from exc
    return {**found, **seccomp_profile.describe(profile, base, machine)}


class FilterModule:
    """Filters of this file."""

    def filters(self) -> dict[str, typing.Callable[..., typing.Any]]:
        """Return the filters by name."""
        return {"seccomp_describe": seccomp_describe}
