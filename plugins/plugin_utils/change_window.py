# Copyright: (c) 2026, the Bulkhead authors
# Apache License 2.0 (see LICENSE)
"""Whether changes are allowed at some moment."""

from __future__ import annotations

import datetime
import re
import typing
import zoneinfo

from ansible_collections.bulkhead.hardening.plugins.plugin_utils.plan import Json, PolicyError

VARIABLE = "bulkhead_rollout_window"
DAYS: typing.Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")

_TIME = re.compile(r"([01]\d|2[0-3]):([0-5]\d)")
_FIELDS = {"days", "from", "to", "timezone"}


class Window(typing.NamedTuple):
    """A span of time that comes again on some days; it belongs to the day on which it begins."""

    days: frozenset[int]
    begins: datetime.time
    ends: datetime.time
    timezone: zoneinfo.ZoneInfo

    def holds(self, now: datetime.datetime) -> bool:
        """Tell whether a moment lies in it; where both times are the same, it is the whole day."""
        there = now.astimezone(self.timezone)
        today, yesterday = there.weekday(), (there.weekday() - 1) % 7
        if self.begins < self.ends:
            return today in self.days and self.begins <= there.time() < self.ends
        return (today in self.days and there.time() >= self.begins) or (
            yesterday in self.days and there.time() < self.ends
        )


def is_open(windows: object, now: datetime.datetime) -> bool:
    """Tell whether a moment lies in one of some windows.

    :param windows: a list of ``{"days": ["mon", ...], "from": "22:00", "to": "04:00",
        "timezone": "Europe/Berlin"}``; without days every day, without timezone UTC. Empty: always.
    :param now: with its offset.
    :raises PolicyError: a window is none.
    """
    if not isinstance(windows, (list, tuple)):
        raise PolicyError(VARIABLE, windows, "give a list of mappings")
    read = [_read(f"{VARIABLE}[{number}]", window) for number, window in enumerate(windows)]
    return not read or any(window.holds(now) for window in read)


def _read(where: str, window: object) -> Window:
    if not isinstance(window, dict) or not {"from", "to"} <= set(window) <= _FIELDS:
        raise PolicyError(where, window, "give from and to, and if you like days and timezone")
    return Window(
        _days(f"{where}.days", window),
        _time(f"{where}.from", window["from"]),
        _time(f"{where}.to", window["to"]),
        _timezone(f"{where}.timezone", window),
    )


def _days(where: str, window: Json) -> frozenset[int]:
    days = window.get("days", list(DAYS))
    if not isinstance(days, (list, tuple)) or not days or set(days) - set(DAYS):
        raise PolicyError(where, days, f"give a list of {', '.join(DAYS)}")
    return frozenset(DAYS.index(day) for day in days)


def _time(where: str, value: object) -> datetime.time:
    match = _TIME.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise PolicyError(where, value, "give hours and minutes in quotes, as in '22:00'")
    return datetime.time(int(match[1]), int(match[2]))


def _timezone(where: str, window: Json) -> zoneinfo.ZoneInfo:
    name = window.get("timezone", "UTC")
    try:
        return zoneinfo.ZoneInfo(str(name))
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError) as exc:
        raise PolicyError(where, name, "give a name as in Europe/Berlin") from exc
