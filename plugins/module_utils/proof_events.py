# Copyright: (c) 2026, the Bulkhead authors
# Apache License 2.0 (see LICENSE)
"""What Falco said of an attack, from the file that docker_falco has it write.

An event holds command lines and more; of it go out the rule's name, the time and the container.
Source: https://falco.org/docs/concepts/outputs/formatting, JSON output.
"""

from __future__ import annotations

import calendar
import json
import re
import time
import typing

from ansible_collections.bulkhead.hardening.plugins.module_utils import falco, services
from ansible_collections.bulkhead.hardening.plugins.module_utils.host import Host, HostError

#: Seconds that Falco may take from what happened to the line in its file.
GRACE: typing.Final = 2.0

#: Most that is read of the file at a time, and events that go out.
_MOST_BYTES = 1024 * 1024
_MOST_EVENTS = 200

#: As docker_falco writes it (plugin_utils/falco_plan.py).
_FILE_OUTPUT = "file_output:\n  enabled: true\n"

_RULE = re.compile(r"[\x20-\x7e]{1,100}\Z")
_CONTAINER = re.compile(r"[0-9a-f]{12,64}\Z")
_MOMENT = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(\.\d{1,9})?(?:Z|\+0000|\+00:00)\Z")

Json = dict[str, typing.Any]


class Events:
    """Follows Falco's file from now on. Reads only."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self.watching = _watching(host)
        self._offset = self._size()

    def _size(self) -> int:
        found = self._host.lstat(falco.EVENTS)
        return found.st_size if found else 0

    def read(self) -> list[Json] | None:
        """Return the events since the last call, as :func:`parse` does; None where nobody watches."""
        if not self.watching:
            return None
        self._host.sleep(GRACE)
        if self._size() < self._offset:  # rotated
            self._offset = 0
        try:
            with open(self._host.path(falco.EVENTS), "rb") as stream:
                stream.seek(self._offset)
                data = stream.read(_MOST_BYTES)
                self._offset = stream.tell()
        except OSError:  # it is made with the first event
            return []
        found = [parse(line) for line in data.decode("utf-8", "replace").splitlines()]
        return [event for event in found if event is not None][:_MOST_EVENTS]


def _watching(host: Host) -> bool:
    """Tell whether Falco runs and writes the file."""
    try:
        return (
            _FILE_OUTPUT in host.read_text(falco.CONFIG)
            and services.state(host, falco.UNIT)["active"]
        )
    except (OSError, HostError):
        return False


def parse(line: str) -> Json | None:
    """Return ``{rule, at, container}`` of an event, in seconds since the epoch; None for all else.

    An event without a container is none of an attack.
    """
    try:
        event = json.loads(line)
        rule, container = event["rule"], event["output_fields"]["container.id"]
        moment = _MOMENT.match(event["time"])
        if not (_RULE.match(rule) and _CONTAINER.match(container) and moment):
            return None
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    whole = calendar.timegm(time.strptime(moment.group(1), "%Y-%m-%dT%H:%M:%S"))
    return {"rule": rule, "at": whole + float(moment.group(2) or 0), "container": container[:12]}
