# Copyright: (c) 2026, the Bulkhead authors
# Apache License 2.0 (see LICENSE)
"""The filter ``bulkhead.hardening.proof_summary``."""

from __future__ import annotations

import typing

from ansible.errors import AnsibleFilterError

from ansible_collections.bulkhead.hardening.plugins.plugin_utils import proof_report
from ansible_collections.bulkhead.hardening.plugins.plugin_utils.plan import Json


def proof_summary(result: Json, before: Json | None = None) -> list[str]:
    """Say what held and what did not as lines for a terminal.

    :param result: what ``docker_host_prove`` answered, or the document that it wrote.
    :param before: an earlier result of the same host, to set beside this one.
    :raises AnsibleFilterError: it is no such result.
    """
    try:
        return proof_report.summary(result, before)
    except (KeyError, TypeError, AttributeError) as exc:
        raise AnsibleFilterError(f"proof_summary takes a result of attacks: {exc!r}") from exc


class FilterModule:
    """Filters of this file."""

    def filters(self) -> dict[str, typing.Callable[..., typing.Any]]:
        """Return the filters by name."""
        return {"proof_summary": proof_summary}
