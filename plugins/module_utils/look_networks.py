# Copyright: (c) 2026, the Bulkhead authors
# Apache License 2.0 (see LICENSE)
"""Volumes and networks, projected to what a judgement needs.

Values of volume options, which may hold passwords, stay on the host. Source of the fields: the
Engine API reference, moby libnetwork/drivers/bridge and overlay (labels).
"""

from __future__ import annotations

import re

from ansible_collections.bulkhead.hardening.plugins.module_utils.host import Host
from ansible_collections.bulkhead.hardening.plugins.module_utils.look_common import (
    Mapping,
    address_class,
    integer,
    mapping,
    sequence,
    text,
)
from ansible_collections.bulkhead.hardening.plugins.module_utils.look_mounts import is_bind

_BRIDGE = "com.docker.network.bridge."
_ENCRYPTED = "encrypted"


def volume(
    host: Host, entry: Mapping, sizes: dict[str, int | None], used: dict[str, int]
) -> Mapping:
    """Return one volume. ``bind_source`` is the host directory behind a bind in disguise.

    :param used: how many containers mount a volume, by its name.
    """
    name = text(entry.get("Name"))
    driver = text(entry.get("Driver"))
    options = mapping(entry.get("Options"))
    source = text(options.get("device")) or None if is_bind(options) else None
    kind = "device" if options.get("device") else "local"
    return {
        "name": name,
        "driver": driver,
        "scope": text(entry.get("Scope")),
        "mountpoint": text(entry.get("Mountpoint")),
        "size": sizes.get(name),
        "kind": "other" if driver != "local" else "bind" if source else kind,
        "fs_type": _fs_type(options) if driver == "local" else None,
        "bind_source": source,
        "resolved": host.resolve(source) if source and source.startswith("/") else None,
        "option_names": sorted(options),
        "label_count": len(mapping(entry.get("Labels"))),
        "used_by": used.get(name, 0),
        "anonymous": re.match(r"[0-9a-f]{64}\Z", name) is not None,
    }


def _fs_type(options: Mapping) -> str | None:
    match = re.match(r"[a-z0-9._-]{1,16}\Z", text(options.get("type")))
    return match.group(0) if match else None


def volume_sizes(usage: list[Mapping]) -> dict[str, int | None]:
    """Return the bytes of each volume, from the daemon's disk usage; None where it says -1."""
    found: dict[str, int | None] = {}
    for entry in usage:
        size = integer(mapping(entry.get("UsageData")).get("Size"))
        found[text(entry.get("Name"))] = size if size is not None and size >= 0 else None
    return found


def users_of_volumes(summaries: list[Mapping]) -> dict[str, int]:
    """Count the containers that mount each volume, from the list of containers."""
    found: dict[str, int] = {}
    for summary in summaries:
        mounts = [mapping(mount) for mount in sequence(summary.get("Mounts"))]
        for name in {text(mount.get("Name")) for mount in mounts if mount.get("Name")}:
            found[name] = found.get(name, 0) + 1
    return found


def network(entry: Mapping, attached: dict[str, int]) -> Mapping:
    """Return one network. ``icc`` is None where the driver knows no such thing.

    :param attached: how many containers are attached, by network id.
    """
    driver = text(entry.get("Driver"))
    options = mapping(entry.get("Options"))
    icc = text(options.get(_BRIDGE + "enable_icc"))
    binding = text(options.get(_BRIDGE + "host_binding_ipv4")) or None
    pools = sequence(mapping(entry.get("IPAM")).get("Config"))
    return {
        "id": text(entry.get("Id")),
        "name": text(entry.get("Name")),
        "driver": driver,
        "scope": text(entry.get("Scope")),
        "internal": entry.get("Internal") is True,
        "attachable": entry.get("Attachable") is True,
        "ingress": entry.get("Ingress") is True,
        "ipv6": entry.get("EnableIPv6") is True,
        "default_bridge": options.get(_BRIDGE + "default_bridge") == "true",
        "icc": None if driver != "bridge" else icc.lower() not in ("false", "0", "f"),
        "encrypted": _ENCRYPTED in options if driver == "overlay" else None,
        "subnets": [text(mapping(pool).get("Subnet")) for pool in pools],
        "host_binding_ipv4": binding,
        "host_binding_class": address_class(binding) if binding else None,
        "gateway_modes": [
            text(options[name])
            for name in (_BRIDGE + "gateway_mode_ipv4", _BRIDGE + "gateway_mode_ipv6")
            if text(options.get(name))
        ],
        "options": [{"name": name, "value": _shown(name, options)} for name in sorted(options)],
        "containers": attached.get(text(entry.get("Id")), 0),
    }


def _shown(name: str, options: Mapping) -> str | None:
    """Return the value of a driver's option; None for one that is not Docker's own."""
    own = name.startswith("com.docker.network.") or name == _ENCRYPTED
    return text(options[name]) if own else None


def attachments(summaries: list[Mapping]) -> dict[str, int]:
    """Count the containers of each network id, from the list of containers."""
    found: dict[str, int] = {}
    for summary in summaries:
        networks = mapping(mapping(summary.get("NetworkSettings")).get("Networks"))
        for endpoint in map(mapping, networks.values()):
            identifier = text(endpoint.get("NetworkID"))
            found[identifier] = found.get(identifier, 0) + 1
    return found
