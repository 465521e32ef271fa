# Copyright: (c) 2026, the Bulkhead authors
# Apache License 2.0 (see LICENSE)
"""What others changed since the daemon started, and that a restart of ours would take up unasked."""

from __future__ import annotations

import typing

from ansible_collections.bulkhead.hardening.plugins.module_utils import health, hiding
from ansible_collections.bulkhead.hardening.plugins.module_utils.daemon_options import OPTIONS
from ansible_collections.bulkhead.hardening.plugins.plugin_utils.plan import Json

#: A key of daemon.json, and the member of its map or None.
Item = tuple[str, typing.Optional[str]]

#: Keys of which the daemon shows what it was told, whatever the host is like.
_TOLD = ("experimental", "log-driver", "no-new-privileges", "seccomp-profile")

#: Those of docker0, which stays as it is for as long as containers use it (daemon/daemon_unix.go).
_OF_DOCKER0 = ("icc", "ip", "ip-masq")


def of_others(look: Json, planned: typing.Collection[Item]) -> list[str]:
    """Return what others changed, as texts: ``data-root in /etc/default/docker``.

    Of daemon.json only what the running daemon is known to have otherwise: most keys it does not show, and
    the file is newer than the daemon as well when somebody reloads it.

    :param look: a document of schema ``bulkhead.observation/1``.
    :param planned: what the plan sets, removes or means the daemon to take up.
    """
    told = _flags(look, planned)
    if look["engine"]["config_loaded"] is not False:
        return told
    path = look["daemon_config"]["path"]
    document = _document(look)
    settings = hiding.values(document)
    texts = [
        f"{name} in {path}" if settings[name] is not None else f"{name}, which is gone from {path}"
        for name in hiding.unread(look["engine"], settings)
        if not {_item(name), (_item(name)[0], None)} & set(planned)
    ]
    ours = {*planned, *_ours(look)}
    texts += [
        f"{key} in {path}"
        for key, value in document.items()
        if (key, None) not in ours and _differs(look, key, value)
    ]
    return told + sorted(texts)


def _flags(look: Json, planned: typing.Collection[Item]) -> list[str]:
    """Return the options whose flags the next start would change, but those that become keys.

    What stands in a drop-in that systemd has not read, nobody knows; a run of ours may have it read.
    """
    becoming = {key for key, _ in planned}
    unit = (look.get("units") or {}).get("docker.service") or {}
    again = unit.get("need_daemon_reload")
    told = (
        ["docker.service, which systemd has to read first (systemctl daemon-reload)"]
        if again
        else []
    )
    return told + [
        f"{row['key']} in {row['where']}" if row["where"] else f"the flag of {row['key']}"
        for row in look["engine"].get("unread_flags") or []
        if row["key"] not in becoming
    ]


def needs_restart(key: str, member: str | None = None) -> bool:
    """Tell whether the daemon takes up a key, or a member of it, at a start only."""
    reloads = key in OPTIONS and OPTIONS[key].reload
    # The map of features is read again, and the image store stays what it was.
    return not reloads or hiding.name_of(key, member) is not None


def _item(name: str) -> Item:
    key, _, member = name.partition(".")
    return key, member or None


def _ours(look: Json) -> set[Item]:
    """Return what is in the file because Bulkhead wrote it, whichever role."""
    return {
        (item["key"], item.get("member"))
        for items in (look["bulkhead"].get("owned") or {}).values()
        for item in items
        if item["kind"] == "json_key" and item["intact"]
    }


def _document(look: Json) -> Json:
    """Return daemon.json as far as it is shown; None for what is not."""
    return {
        key: {name: item.get("value") for name, item in entry["members"].items()}
        if "members" in entry
        else entry.get("value")
        for key, entry in (look["daemon_config"].get("keys") or {}).items()
    }


def _differs(look: Json, key: str, value: object) -> bool:
    """Tell whether the running daemon shows another value than the file's, which a start would apply."""
    if key == "hosts":
        return bool(look["engine"].get("unread_hosts"))
    in_use = any(item["state"] in ("running", "paused") for item in look.get("containers") or [])
    option = (look["engine"].get("options") or {}).get(key) or {}
    told = key in _TOLD or (key in _OF_DOCKER0 and not in_use)
    if not told or value is None or "effective" not in option:
        return False
    return not health.agrees(key, value, option["effective"])
