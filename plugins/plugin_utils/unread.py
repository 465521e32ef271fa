# Copyright: (c) 2026, the Bulkhead authors
# Apache License 2.0 (see LICENSE)
"""What others changed since the daemon started, and that a restart of ours would take up unasked."""

from __future__ import annotations

import typing

from ansible_collections.bulkhead.hardening.plugins.module_utils import hiding
from ansible_collections.bulkhead.hardening.plugins.module_utils.daemon_options import (
    OPTIONS,
    release,
)
from ansible_collections.bulkhead.hardening.plugins.plugin_utils.plan import Json

#: A key of daemon.json, and the member of its map or None.
Item = tuple[str, typing.Optional[str]]


def of_others(look: Json, planned: typing.Collection[Item]) -> list[str]:
    """Return what others changed, as texts: ``data-root in /etc/default/docker``.

    A key of daemon.json that a reload applies as well is not among them, nor one that the daemon shows
    to have.

    :param look: a document of schema ``bulkhead.observation/1``.
    :param planned: what the plan sets, removes or means the daemon to take up.
    """
    told = _flags(look, planned)
    if look["engine"]["config_loaded"] is not False:
        return told
    path = look["daemon_config"]["path"]
    keys = look["daemon_config"].get("keys") or {}
    skipped = {*planned, *_ours(look)}
    there = [
        item for item in _items(keys) if item not in skipped and (item[0], None) not in skipped
    ]
    found = {_shown(item) for item in there if not _is_so(look, item)}
    texts = [f"{name} in {path}" for name in sorted(found)]
    gone = [name for name in _gone(look, keys) if _item(name) not in skipped]
    return told + texts + [f"{name}, which is gone from {path}" for name in gone]


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


def keeps_unset(version: str | None) -> tuple[str, ...]:
    """Return the settings without which an engine finds again what it holds."""
    keeps = ("exec-root", "storage-driver")
    older = version is not None and release(version) < (29, 0, 0)
    # From 29.0 on the daemon keeps the image store that holds something.
    return keeps if older else (*keeps, hiding.STORE)


def _item(name: str) -> Item:
    key, _, member = name.partition(".")
    return key, member or None


def _shown(item: Item) -> str:
    return hiding.name_of(*item) or item[0]


def _ours(look: Json) -> set[Item]:
    """Return what is in the file because Bulkhead wrote it, whichever role."""
    return {
        (item["key"], item.get("member"))
        for items in (look["bulkhead"].get("owned") or {}).values()
        for item in items
        if item["kind"] == "json_key" and item["intact"]
    }


def _items(keys: Json) -> list[Item]:
    """Return what the file holds and only a restart applies."""
    items = [
        (key, member) for key, entry in keys.items() for member in entry.get("members", [None])
    ]
    return [item for item in items if needs_restart(*item)]


def _is_so(look: Json, item: Item) -> bool:
    """Tell whether the running daemon shows what the file says."""
    key, member = item
    entry = look["daemon_config"]["keys"][key]
    value = (entry["members"][member] if member else entry).get("value")
    name, now = hiding.name_of(key, member), hiding.in_effect(look["engine"])
    if name:
        remapped = (
            name == "userns-remap" and now.get(name) is True
        )  # for which account, it does not say
        return name in now and not remapped and hiding.same(name, value, now[name])
    option = (look["engine"].get("options") or {}).get(key) or {}
    return member is None and value is not None and option.get("effective") == value


def _gone(look: Json, keys: Json) -> list[str]:
    """Return the settings of the running daemon that hide what it holds when they are not there."""
    engine = look["engine"]
    options, now = engine.get("options") or {}, hiding.in_effect(engine)
    found = []
    for name in sorted(set(now) - set(keeps_unset(engine.get("version")))):
        key, member = _item(name)
        by_flag = (options.get(key) or {}).get("source") in ("flag", "environment")
        entry = keys.get(key) or {}
        there = member in (entry.get("members") or {}) if member else bool(entry)
        if not there and not by_flag and not hiding.same(name, None, now[name]):
            found.append(name)
    return found
