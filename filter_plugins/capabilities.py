# Copyright: (c) 2026, the Bulkhead authors
# Apache License 2.0 (see LICENSE)
"""The filter ``bulkhead.hardening.capabilities``."""

from __future__ import annotations

import typing

from ansible.errors import AnsibleFilterError

from ansible_collections.bulkhead.hardening.plugins.plugin_utils import capabilities as masks


def capabilities(value: str | list[str]) -> list[str] | str:
    """Decode a mask of capabilities into names, or encode names into a mask.

    :param value: up to 16 hexadecimal digits, or a list of names.
    :raises AnsibleFilterError: it is neither.
    """
    try:
        if isinstance(value, str):
            return masks.decode(value)
        if isinstance(value, (list, tuple)):
            return masks.encode(value)
    except ValueError as exc:
        raise AnsibleFilterError(f"capabilities: {exc}") from exc
    raise AnsibleFilterError(f"capabilities takes a mask or a list of names, not {value!r}")


class FilterModule:
    """Filters of this file."""

    def filters(self) -> dict[str, typing.Callable[..., typing.Any]]:
        """Return the filters by name."""
        return {"capabilities": capabilities}
