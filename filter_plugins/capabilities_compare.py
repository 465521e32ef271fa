# Copyright: (c) 2026, the Bulkhead authors
# Apache License 2.0 (see LICENSE)
"""The filter ``bulkhead.hardening.capabilities_compare``."""

from __future__ import annotations

import typing

from ansible.errors import AnsibleFilterError

from ansible_collections.bulkhead.hardening.plugins.plugin_utils import capabilities as masks


def capabilities_compare(mask: str, reference: str = masks.DEFAULT) -> dict[str, list[str]]:
    """Compare two masks of capabilities.

    :param mask: up to 16 hexadecimal digits.
    :param reference: another; by default what a container gets that asks for nothing.
    :returns: names: ``beyond`` the reference, ``missing`` of it, and ``common``.
    :raises AnsibleFilterError: one of them is no mask.
    """
    try:
        return masks.compare(mask, reference)
    except ValueError as exc:
        raise AnsibleFilterError(f"capabilities_compare: {exc}") from exc


class FilterModule:
    """Filters of this file."""

    def filters(self) -> dict[str, typing.Callable[..., typing.Any]]:
        """Return the filters by name."""
        return {"capabilities_compare": capabilities_compare}
