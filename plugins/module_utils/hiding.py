# Copyright: (c) 2026, the Bulkhead authors
# Apache License 2.0 (see LICENSE)
"""The settings that decide which containers, images and volumes the daemon finds again.

Whoever changes one of them hides what the daemon holds; nothing is deleted. Source of the defaults:
moby daemon/config/config_linux.go. Which image store is used: docs.docker.com/engine/storage/containerd.
"""

from __future__ import annotations

import posixpath
import typing

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
    return {**{key: document.get(key) for key in KEYS}, STORE: store}


def in_effect(engine: Json) -> Json:
    """Return those that the running daemon is known to have, by name.

    Of userns-remap it tells whether it is on, True, and not for which account.

    :param engine: the observation's section ``engine``.
    """
    options = engine.get("options") or {}
    found = {
        key: options[key]["effective"] for key in KEYS if "effective" in (options.get(key) or {})
    }
    store = (engine.get("info") or {}).get("containerd_image_store")
    return found if store is None else {**found, STORE: store}


def same(name: str, one: typing.Any, other: typing.Any) -> bool:
    """Tell whether two values of a setting come to the same; None is the default."""
    one, other = _plain(name, one), _plain(name, other)
    if name == "userns-remap" and True in (one, other):
        return bool(one) == bool(other)
    return bool(one == other)


def _plain(name: str, value: typing.Any) -> typing.Any:
    value = _DEFAULTS.get(name) if value is None else value
    if name in ("data-root", "exec-root") and isinstance(value, str):
        path = posixpath.normpath(value)
        return path[len("/var") :] if path.startswith("/var/run/") else path
    return "" if name == "userns-remap" and value in (False, "host") else value
