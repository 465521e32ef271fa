# Copyright: (c) 2026, the Bulkhead authors
# Apache License 2.0 (see LICENSE)
"""The filter ``bulkhead.hardening.transaction_table``."""

from __future__ import annotations

import typing

from ansible.errors import AnsibleFilterError

from ansible_collections.bulkhead.hardening.plugins.plugin_utils import transactions
from ansible_collections.bulkhead.hardening.plugins.plugin_utils.plan import Json


def transaction_table(kept: list[Json]) -> list[str]:
    """Show the transactions that a host keeps as a table, the newest first.

    :param kept: ``bulkhead.transactions`` of an observation.
    :returns: lines without control characters.
    """
    try:
        return transactions.table(kept)
    except (KeyError, TypeError, AttributeError) as exc:
        raise AnsibleFilterError(
            f"transaction_table takes bulkhead.transactions of an observation: {exc!r}"
        ) from exc


class FilterModule:
    """Filters of this file."""

    def filters(self) -> dict[str, typing.Callable[..., typing.Any]]:
        """Return the filters by name."""
        return {"transaction_table": transaction_table}
