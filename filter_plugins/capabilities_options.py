# Copyright: (c) 2026, the Bulkhead authors
# Apache License 2.0 (see LICENSE)
"""The filter ``bulkhead.hardening.capabilities_options``."""

from __future__ import annotations

import typing

from ansible.errors import AnsibleFilterError

from ansible_collections.bulkhead.hardening.plugins.plugin_utils import capabilities as masks


def capabilities_options(needed: str | list[str]) -> dict[str, list[str]]:
    """Return the least options that leave a container the capabilities that it needs.

    :param needed: a mask, or a list of names.
    :returns: ``cap_drop`` and ``cap_add``, as Compose takes them.
    :raises AnsibleFilterError: it is neither, or there is no such capability.
    """
    if not isinstance(needed, (str, list, tuple)):
        raise AnsibleFilterError(
            f"capabilities_options takes a mask or a list of names, not {needed!r}"
        )
    try:
        return masks.options(needed)
    except ValueError as exc:
        raise AnsibleFilterError(f"capabilities_options: {exc}") from exc


class FilterModule:
    """Filters of this file."""

    def filters(self) -> dict[str, typing.Callable[..., typing.Any]]:
        """Return the filters by name."""
        return {"capabilities_options": capabilities_options}
