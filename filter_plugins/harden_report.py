# Copyright: (c) 2026, the Bulkhead authors
# Apache License 2.0 (see LICENSE)
"""The filter ``bulkhead.hardening.harden_report``."""

from __future__ import annotations

import typing

from ansible.errors import AnsibleFilterError

from ansible_collections.bulkhead.hardening.plugins.plugin_utils import proof_report, report
from ansible_collections.bulkhead.hardening.plugins.plugin_utils.plan import Json


def harden_report(
    results: dict[str, Json],
    title: str = "Bulkhead: hardening run",
    proofs: dict[str, Json] | None = None,
) -> str:
    """Render what a run found and changed, and what attacks did, as one self-contained HTML page.

    :param results: ``docker_harden_result`` of each host, by the host's name.
    :param title: the page's heading.
    :param proofs: ``docker_proof_comparison`` of each host, ``{before, after}``.
    :returns: HTML that loads nothing and in which everything a host said is escaped.
    """
    try:
        attacks = {
            name: proof_report.paired(proof["after"], proof.get("before"))
            for name, proof in (proofs or {}).items()
        }
        return report.page(results, title, attacks)
    except (KeyError, TypeError, AttributeError) as exc:
        raise AnsibleFilterError(f"harden_report takes results by host name: {exc!r}") from exc


class FilterModule:
    """Filters of this file."""

    def filters(self) -> dict[str, typing.Callable[..., typing.Any]]:
        """Return the filters by name."""
        return {"harden_report": harden_report}
