# Copyright: (c) 2026, the Bulkhead authors
# Apache License 2.0 (see LICENSE)
"""What of a daemon's is out of its sight once it looks for its data elsewhere."""

from __future__ import annotations

import typing

from ansible_collections.bulkhead.hardening.plugins.plugin_utils.plan import Json

#: Networks that every daemon makes for itself, the last one in a swarm.
_OWN_NETWORKS = ("bridge", "host", "none", "docker_gwbridge")


def held(look: Json, containers: typing.Iterable[str]) -> list[str]:
    """Return what a running daemon holds, as texts: ``image shop:1``, ``volume data``.

    All of it lies below the data root, the state of a swarm's node and networks too. Networks of a
    swarm are the swarm's.

    :param containers: the names of those that count.
    """
    found = [f"container {name}" for name in containers]
    found += [
        f"image {(image['tags'] or [image['id'][:19]])[0]}"
        for image in look.get("images") or []
        if not image["bulkhead"]
    ]
    found += [f"volume {volume['name']}" for volume in look.get("volumes") or []]
    found += [
        f"network {network['name']}"
        for network in look.get("networks") or []
        if network.get("scope") != "swarm" and network["name"] not in _OWN_NETWORKS
    ]
    return found + (["membership of its swarm"] if look["engine"].get("swarm_node") else [])
