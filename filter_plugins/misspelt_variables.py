# Copyright: (c) 2026, the Bulkhead authors
# Apache License 2.0 (see LICENSE)
"""The filter ``bulkhead.hardening.misspelt_variables``."""

from __future__ import annotations

import typing

from ansible_collections.bulkhead.hardening.plugins.plugin_utils.misspelt import misspelt


def misspelt_variables(names: list[str], known: list[str], roles: list[str]) -> list[str]:
    """Return a sentence for each variable whose name is nearly that of a role's variable.

    :param names: of all variables that there are for a host.
    :param known: of the variables of the roles.
    :param roles: with whose names their variables begin.
    """
    return [
        f"{name} has no effect on Bulkhead, unless it is one of your own: did you mean {near}?"
        for name, near in sorted(misspelt(names, known, roles).items())
    ]


class FilterModule:
    """Filters of this file."""

    def filters(self) -> dict[str, typing.Callable[..., typing.Any]]:
        """Return the filters by name."""
        return {"misspelt_variables": misspelt_variables}
