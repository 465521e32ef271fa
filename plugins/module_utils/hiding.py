# Copyright: (c) 2026, the Bulkhead authors
# Apache License 2.0 (see LICENSE)
"""The settings that decide which containers, images and volumes the daemon finds again.

Whoever changes one of them hides what the daemon holds; nothing is deleted. Source of the defaults:
moby daemon/config/config_linux.go. Which image store is used: docs.docker.com/engine/storage/containerd.
"""

from __future__ import annotations

import posixpath
import typing

from ansible_collections.bulkhead.hardening.plugins.module_utils.daemon_options import release
from ansible_collections.bulkhead.hardening.plugins.module_utils.look_common import run_path

Json = dict[str, typing.Any]

#: Keys of daemon.json that do.
KEYS = ("userns-remap", "data-root", "exec-root", "storage-driver", "containerd-namespace")

#: The member of ``features`` that chooses between the two image stores, and its name here.
STORE_MEMBER = "containerd-snapshotter"
STORE = "features." + STORE_MEMBER

#: All of them, as messages name them.
NAMES = (*KEYS, STORE)

_DEFAULTS: Json = {
    "userns-remap": "",
    "data-root": "/var/lib/docker",
    "exec-root": "/var/run/docker",
    "containerd-namespace": "moby",
    # From 29.0 on new hosts have the other store, and those with data of before keep this one.
    STORE: False,
}


def name_of(key: str | None, member: str | None = None) -> str | None:
    """Return the name of the setting that a key, or a member of it, is; None when it hides nothing."""
    name = "%s.%s" % (key, member) if member else key
    return name if name in NAMES else None


def values(document: Json) -> Json:
    """Return these settings of a daemon.json, by name; None for what it does not say."""
    features = document.get("features")
    store = features.get(STORE_MEMBER) if isinstance(features, dict) else None
    found = {**{key: document.get(key) for key in KEYS}, STORE: store}
    if found["data-root"] is None:  # its name of before, which engines before 24.0 know too
        found["data-root"] = document.get("graph")
    return found


def is_so(engine: Json, name: str, value: typing.Any) -> bool | None:
    """Tell whether the running daemon has a setting as ``value``; None when that is not known.

    :param engine: the observation's section ``engine``.
    :param value: None is the default.
    """
    known = _in_effect(engine)
    if name not in known:
        return None
    now = known[name]
    if name == "userns-remap" and now is True and _plain(name, value):
        return None  # for which account, it does not tell
    if same(name, value, now):
        return True
    # The daemon follows the links in its data root before it tells it (moby daemon/daemon.go).
    root = engine.get("data_root") or {}
    linked = name == "data-root" and root.get("resolved") == now
    return linked and same(name, value, root["path"])


def unread(engine: Json, written: Json) -> list[str]:
    """Return the settings, by name, that the running daemon is known to have otherwise than its file.

    :param engine: the observation's section ``engine``, of a daemon that has not read its file as it is.
    :param written: what :func:`values` returns of the file.
    """
    options, version = engine.get("options") or {}, engine.get("version")
    found = []
    for name in NAMES:
        kept = written[name] is None and (
            name in _keeps_unset(version)
            or (options.get(name.partition(".")[0]) or {}).get("source") in ("flag", "environment")
        )
        if not kept and is_so(engine, name, written[name]) is False:
            found.append(name)
    return found


def _keeps_unset(version: str | None) -> tuple[str, ...]:
    """Return the settings without which an engine finds again what it holds."""
    keeps = ("exec-root", "storage-driver")
    try:
        older = version is not None and release(version) < (29, 0, 0)
    except ValueError:
        older = False
    # From 29.0 on the daemon keeps the image store that holds something.
    return keeps if older else (*keeps, STORE)


def _in_effect(engine: Json) -> Json:
    """Return the settings that the running daemon shows; of userns-remap whether it is on."""
    options = engine.get("options") or {}
    found = {
        key: options[key]["effective"] for key in KEYS if "effective" in (options.get(key) or {})
    }
    store = (engine.get("info") or {}).get("containerd_image_store")
    return found if store is None else {**found, STORE: store}


def same(name: str, one: typing.Any, other: typing.Any) -> bool:
    """Tell whether two values of a setting come to the same, as texts; None is the default."""
    return bool(_plain(name, one) == _plain(name, other))


def _plain(name: str, value: typing.Any) -> typing.Any:
    value = _DEFAULTS.get(name) if value is None else value
    if name in ("data-root", "exec-root") and isinstance(value, str):
        return run_path(posixpath.normpath(value))
    return "" if name == "userns-remap" and value in (False, "host") else value
