# Copyright: (c) 2026, the Bulkhead authors
# Apache License 2.0 (see LICENSE)
"""The filter ``bulkhead.hardening.change_window``."""

from __future__ import annotations

import datetime
import typing

from ansible.errors import AnsibleFilterError

from ansible_collections.bulkhead.hardening.plugins.plugin_utils import change_window as windows
from ansible_collections.bulkhead.hardening.plugins.plugin_utils.plan import Json, PolicyError


def change_window(allowed: list[Json], at: str) -> bool:
    """Tell whether changes are allowed at some moment.

    :param allowed: windows; none of them means always.
    :param at: date and time with its offset, as in RFC 3339.
    :raises AnsibleFilterError: a window is none, or the time is no time.
    """
    try:
        return windows.is_open(allowed, datetime.datetime.fromisoformat(at))
    except PolicyError as exc:
        raise AnsibleFilterError(str(exc)) from exc
    except (TypeError, ValueError) as exc:
        raise AnsibleFilterError(f"change_window: {at!r} is no date and time: {exc}") from exc


class FilterModule:
    """Filters of this file."""

    def filters(self) -> dict[str, typing.Callable[..., typing.Any]]:
        """Return the filters by name."""
        return {"change_window": change_window}
