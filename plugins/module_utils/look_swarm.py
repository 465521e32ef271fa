# Copyright: (c) 2026, the Bulkhead authors
# Apache License 2.0 (see LICENSE)
"""Swarm: the node, its cluster, its certificates and its services.

``GET /swarm`` is never asked: its answer holds the join tokens. ``GET /info`` has the rest. Values
of variables, labels and secrets stay on the host. Source: the Engine API reference; moby
daemon/cluster/cluster.go (docker-state.json).
"""

from __future__ import annotations

import json
import posixpath
import re
import typing

from ansible_collections.bulkhead.hardening.plugins.module_utils import certificate
from ansible_collections.bulkhead.hardening.plugins.module_utils.host import Host
from ansible_collections.bulkhead.hardening.plugins.module_utils.look_common import (
    Mapping,
    Notes,
    address_class,
    integer,
    mapping,
    os_reason,
    reference,
    sequence,
    text,
    texts,
)
from ansible_collections.bulkhead.hardening.plugins.module_utils.look_containers import healthcheck

#: What is asked of a manager, beside /info.
LISTS = {"nodes": "/nodes", "services": "/services", "secrets": "/secrets", "configs": "/configs"}

_STATE_FILE = {
    "listen_addr": "ListenAddr",
    "advertise_addr": "AdvertiseAddr",
    "data_path_addr": "DataPathAddr",
    "local_addr": "LocalAddr",
}

_CERTIFICATES = (("root_ca", "swarm-root-ca.crt"), ("node", "swarm-node.crt"))


def swarm(
    host: Host, notes: Notes, info: Mapping, lists: dict[str, list[Mapping] | None]
) -> Mapping:
    """Return the section ``swarm``.

    :param info: the answer of ``/info``.
    :param lists: the answers that a manager gave, by the names of ``LISTS``; None for one that it
        did not give.
    """
    node = mapping(info.get("Swarm"))
    state = text(node.get("LocalNodeState")) or "inactive"
    active = state != "inactive"
    manager = node.get("ControlAvailable") is True
    role = ("manager" if manager else "worker") if state == "active" else None
    cluster = mapping(node.get("Cluster")) if manager else {}
    spec = mapping(cluster.get("Spec"))
    authority = mapping(spec.get("CAConfig"))
    nodes = lists.get("nodes")
    found: Mapping = {
        "state": state,
        "role": role,
        "node_id": text(node.get("NodeID")) or None,
        "node_addr": text(node.get("NodeAddr")) or None,
        "managers": integer(node.get("Managers")) if manager else None,
        "nodes": integer(node.get("Nodes")) if manager else None,
        "reachable_managers": _reachable(nodes),
        "autolock": _flag(mapping(spec.get("EncryptionConfig")), "AutoLockManagers", manager),
        "node_cert_expiry": _seconds(authority.get("NodeCertExpiry")),
        "external_cas": len(sequence(authority.get("ExternalCAs"))) if manager else None,
        "root_rotation_in_progress": _flag(cluster, "RootRotationInProgress", manager),
        "task_history_limit": integer(
            mapping(spec.get("Orchestration")).get("TaskHistoryRetentionLimit")
        ),
        "raft": _raft(mapping(spec.get("Raft"))) if manager else None,
        "data_path_port": integer(cluster.get("DataPathPort")),
        "subnet_size": integer(cluster.get("SubnetSize")),
        "secrets": _count(lists.get("secrets")),
        "configs": _count(lists.get("configs")),
        "node_list": [_node(item) for item in nodes] if nodes is not None else None,
        "certificates": [],
    }
    found.update(dict.fromkeys(_STATE_FILE))
    root = text(info.get("DockerRootDir"))
    if active and posixpath.isabs(root):
        found.update(_addresses(host, notes, root))
        found["certificates"] = _certificates(host, notes, root)
    return found


def is_node(host: Host, info: Mapping, root: str) -> bool | None:
    """Tell whether the node is in a swarm, or will be when its daemon starts; None: it cannot be seen.

    Of a daemon that does not run its data root tells, or the folder in it of a remapped one.

    :param info: the answer of ``/info``, empty without one.
    """
    if info:
        return (text(mapping(info.get("Swarm")).get("LocalNodeState")) or "inactive") != "inactive"
    root = host.resolve(root) or root
    try:
        remapped = [name for name in host.listdir(root) if re.match(r"\d+\.\d+\Z", name)]
        paths = [posixpath.join(root, name, "swarm/docker-state.json") for name in ["", *remapped]]
        return any(host.lstat(path) is not None for path in paths)
    except FileNotFoundError:
        return False
    except OSError:
        return None


def _flag(value: Mapping, name: str, known: bool) -> bool | None:
    return value.get(name) is True if known else None


def _count(rows: list[Mapping] | None) -> int | None:
    return len(rows) if rows is not None else None


def _seconds(nanoseconds: typing.Any) -> int | None:
    value = integer(nanoseconds)
    return value // 10**9 if value is not None else None


def _raft(value: Mapping) -> Mapping:
    return {
        "heartbeat_tick": integer(value.get("HeartbeatTick")),
        "election_tick": integer(value.get("ElectionTick")),
    }


def _reachable(nodes: list[Mapping] | None) -> int | None:
    if nodes is None:
        return None
    managers = [mapping(node.get("ManagerStatus")) for node in nodes]
    return sum(1 for status in managers if status.get("Reachability") == "reachable")


def _node(node: Mapping) -> Mapping:
    spec, status = mapping(node.get("Spec")), mapping(node.get("Status"))
    manager = mapping(node.get("ManagerStatus"))
    engine = mapping(mapping(node.get("Description")).get("Engine"))
    return {
        "id": text(node.get("ID")),
        "role": text(spec.get("Role")),
        "availability": text(spec.get("Availability")),
        "state": text(status.get("State")),
        "reachability": text(manager.get("Reachability")) or None,
        "leader": manager.get("Leader") is True,
        "addr_class": address_class(text(status.get("Addr"))),
        "engine_version": text(engine.get("EngineVersion")),
    }


def _addresses(host: Host, notes: Notes, root: str) -> Mapping:
    """Return what the node was told at ``swarm init`` or ``join``; empty texts are not set."""
    path = posixpath.join(root, "swarm/docker-state.json")
    try:
        document = mapping(json.loads(host.read_text(path)))
    except OSError as exc:
        notes.add("swarm", path, os_reason(exc))
        return {}
    except (ValueError, RecursionError):
        notes.add("swarm", path, "no valid JSON")
        return {}
    return {name: text(document.get(key)) for name, key in _STATE_FILE.items()}


# -- certificates --------------------------------------------------------------------------------
def _certificates(host: Host, notes: Notes, root: str) -> list[Mapping]:
    found = []
    for what, name in _CERTIFICATES:
        path = posixpath.join(root, "swarm/certificates", name)
        try:
            status = host.lstat(path)
            if status is None:
                continue
            first = certificate.read(host.read_text(path))[0]
        except OSError as exc:
            notes.add("swarm", path, os_reason(exc))
            continue
        except ValueError:
            notes.add("swarm", path, "no certificate")
            continue
        row: Mapping = {"what": what, "path": path, "changed_at": status.st_mtime}
        found.append({**row, "not_before": first.not_before, "not_after": first.not_after})
    return found


# -- services ----------------------------------------------------------------------------------
def service(entry: Mapping) -> Mapping:
    """Return one service of the swarm."""
    spec = mapping(entry.get("Spec"))
    task = mapping(spec.get("TaskTemplate"))
    container = mapping(task.get("ContainerSpec"))
    image = text(container.get("Image"))
    mode = sorted(mapping(spec.get("Mode")))
    limits = mapping(mapping(task.get("Resources")).get("Limits"))
    found: Mapping = {
        "id": text(entry.get("ID")),
        "name": text(spec.get("Name")),
        "image": image,
        "image_reference": reference(image),
        "mode": mode[0].lower() if mode else "",
        "user": text(container.get("User")),
        "env_names": [item.partition("=")[0] for item in texts(container.get("Env"))],
        "secrets": len(sequence(container.get("Secrets"))),
        "configs": len(sequence(container.get("Configs"))),
        "networks": [
            text(mapping(item).get("Target"))
            for item in sequence(task.get("Networks")) or sequence(spec.get("Networks"))
        ],
        "ports": [
            _port(mapping(item))
            for item in sequence(mapping(entry.get("Endpoint")).get("Ports"))
            or sequence(mapping(spec.get("EndpointSpec")).get("Ports"))
        ],
        "mounts": [_mount(mapping(item)) for item in sequence(container.get("Mounts"))],
        "cap_add": texts(container.get("CapabilityAdd")),
        "cap_drop": texts(container.get("CapabilityDrop")),
        "read_only": container.get("ReadOnly") is True,
        "memory_limit": integer(limits.get("MemoryBytes")) or 0,
        "cpu_limit": integer(limits.get("NanoCPUs")) or 0,
        "pids_limit": integer(limits.get("Pids")) or 0,
        "healthcheck": healthcheck(container),
        "label_count": len(mapping(spec.get("Labels"))) + len(mapping(container.get("Labels"))),
    }
    found.update(_privileges(mapping(container.get("Privileges"))))
    return found


def _port(port: Mapping) -> Mapping:
    return {
        "published": integer(port.get("PublishedPort")),
        "target": integer(port.get("TargetPort")),
        "protocol": text(port.get("Protocol")) or "tcp",
        "mode": text(port.get("PublishMode")) or "ingress",
    }


def _mount(mount: Mapping) -> Mapping:
    return {
        "type": text(mount.get("Type")),
        "source": text(mount.get("Source")),
        "target": text(mount.get("Target")),
        "rw": mount.get("ReadOnly") is not True,
    }


def _privileges(value: Mapping) -> Mapping:
    no_new = value.get("NoNewPrivileges")
    return {
        "privileges_seccomp": text(mapping(value.get("Seccomp")).get("Mode")) or None,
        "privileges_apparmor": text(mapping(value.get("AppArmor")).get("Mode")) or None,
        "no_new_privileges": no_new if isinstance(no_new, bool) else None,
    }
