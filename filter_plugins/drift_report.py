# Copyright: (c) 2026, the Bulkhead authors
# Apache License 2.0 (see LICENSE)
"""The filter ``bulkhead.hardening.drift_report``."""

from __future__ import annotations

import typing

from ansible.errors import AnsibleFilterError

from ansible_collections.bulkhead.hardening.plugins.plugin_utils import drift
from ansible_collections.bulkhead.hardening.plugins.plugin_utils.plan import Json


def drift_report(
    found: dict[str, Json] | list[Json],
    form: str,
    created_at: str = "1970-01-01T00:00:00+00:00",
) -> typing.Any:
    """Make a report of what drifted on a fleet, or one of several.

    :param found: what ``docker_drift`` returned, by host; or reports in JSON.
    :param form: one of :data:`drift.FORMS`.
    :param created_at: date and time of the comparison, with its offset.
    :raises AnsibleFilterError: the form is unknown, or what was handed in is no such thing.
    """
    if form not in drift.FORMS:
        known = ", ".join(drift.FORMS)
        raise AnsibleFilterError(f"drift_report: form is {form!r}: there are {known}")
    try:
        whole = (
            drift.document(found, created_at) if isinstance(found, dict) else drift.merged(found)
        )
        return drift.FORMS[form](whole)
    except (KeyError, TypeError, AttributeError, ValueError) as exc:
        raise AnsibleFilterError(
            f"drift_report takes what docker_drift found, by host, or its reports: {exc!r}"
        ) from exc


class FilterModule:
    """Filters of this file."""

    def filters(self) -> dict[str, typing.Callable[..., typing.Any]]:
        """Return the filters by name."""
        return {"drift_report": drift_report}
