# Copyright: (c) 2026, the Bulkhead authors
# Apache License 2.0 (see LICENSE)
"""Services beside Docker's: enabled and started, seen to stay up, and put back as they were.

Source: systemctl(1).
"""

from __future__ import annotations

import typing

from ansible_collections.bulkhead.hardening.plugins.module_utils import look_systemd
from ansible_collections.bulkhead.hardening.plugins.module_utils.host import Host, HostError
from ansible_collections.bulkhead.hardening.plugins.module_utils.look_common import UnreadableError

#: Seconds that a service must stay up after its start before it counts as well. One that ends sooner
#: is started again by systemd, or waits for that, as another process.
STEADY: typing.Final = 10.0

_TIMEOUT = 90.0
_POLL = 0.5

State = dict[str, bool]


def state(host: Host, name: str) -> State:
    """Return ``{loaded, enabled, active}`` of a service.

    :raises HostError: systemd does not answer.
    """
    found = _states(host, name)
    return {
        "loaded": found["load_state"] == "loaded",
        "enabled": found["unit_file_state"] == "enabled",
        "active": found["active_state"] == "active",
    }


def start(host: Host, name: str) -> None:
    """Enable a service, start it anew, and see that it stays up.

    :raises HostError: it does not.
    """
    _systemctl(host, "enable", name)
    _systemctl(host, "restart", name)
    began = _states(host, name)
    deadline = host.monotonic() + STEADY
    while True:
        now = _states(host, name)
        if now["active_state"] != "active" or now["main_pid"] != began["main_pid"]:
            raise HostError(
                "%s does not stay up (it is %s); see journalctl -u %s"
                % (name, now["active_state"], name)
            )
        if host.monotonic() > deadline:
            return
        host.sleep(_POLL)


def put_back(host: Host, name: str, before: typing.Mapping[str, bool]) -> str | None:
    """Let a service be as it was, with the files of now; return a note when it is gone."""
    if not state(host, name)["loaded"]:
        return "%s is no longer there, and is left alone" % name
    if not before["enabled"]:
        _systemctl(host, "disable", name)
    _systemctl(host, "restart" if before["active"] else "stop", name)
    return None


def _states(host: Host, name: str) -> dict[str, typing.Any]:
    try:
        return look_systemd.unit_states(host, name, _TIMEOUT)
    except UnreadableError as exc:
        raise HostError(str(exc)) from exc


def _systemctl(host: Host, verb: str, name: str) -> None:
    done = host.run(["systemctl", verb, name], timeout=_TIMEOUT)
    if done.rc != 0:
        said = done.err.strip().split("\n")[0][:300] or "exit status %d" % done.rc
        raise HostError("systemctl %s %s: %s" % (verb, name, said))
