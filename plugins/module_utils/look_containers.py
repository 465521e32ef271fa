# Copyright: (c) 2026, the Bulkhead authors
# Apache License 2.0 (see LICENSE)
"""Containers, images, volumes and networks, projected to what a judgement needs.

Environment values, label values (but for an allow-list), command lines, health checks and volume
options stay on the host. Source of the fields: the Engine API reference.
"""

from __future__ import annotations

import re
import typing

from ansible_collections.bulkhead.hardening.plugins.module_utils.daemon_options import (
    PLAIN_LOG_OPTS,
)
from ansible_collections.bulkhead.hardening.plugins.module_utils.look_common import (
    Mapping,
    integer,
    mapping,
    sequence,
    text,
    texts,
    timestamp,
)

_LABELS = frozenset(
    {"com.docker.compose.project", "com.docker.compose.service", "com.docker.stack.namespace"}
)
_LABEL_PREFIXES = ("org.opencontainers.image.", "bulkhead.")
_LABEL_LENGTH = 256

# What Docker 20.10 hides and write-protects below /proc and /sys (moby oci/defaults.go). Later
# releases hide more, so a container has the default when it has at least these.
_MASKED = frozenset(
    {"/proc/asound", "/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
     "/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware"}
)  # fmt: skip
_READONLY = frozenset({"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"})


def container(inspect: Mapping, digests: dict[str, list[str]]) -> Mapping:
    """Return one container from its inspection; its ``kernel`` is for the caller to fill in.

    :param digests: the repository digests of each image id.
    """
    state = mapping(inspect.get("State"))
    config = mapping(inspect.get("Config"))
    labels = mapping(config.get("Labels"))
    image_id = text(inspect.get("Image"))
    image = text(config.get("Image"))
    return {
        "id": text(inspect.get("Id")),
        "name": text(inspect.get("Name")).lstrip("/"),
        "image": image,
        "image_id": image_id,
        "image_digest": _digest(image, digests.get(image_id, [])),
        "state": text(state.get("Status")),
        "started_at": timestamp(state.get("StartedAt")),
        "finished_at": timestamp(state.get("FinishedAt")),
        "exit_code": integer(state.get("ExitCode")),
        "restart_count": integer(inspect.get("RestartCount")) or 0,
        "pid": integer(state.get("Pid")) or None,
        "labels": plain_labels(labels),
        "label_count": len(labels),
        "config": _config(inspect, config, mapping(inspect.get("HostConfig"))),
        "networks": sorted(mapping(mapping(inspect.get("NetworkSettings")).get("Networks"))),
        "kernel": None,
    }


def plain_labels(labels: Mapping) -> dict[str, str]:
    """Return the allow-listed labels, each value cut at 256 characters."""
    return {
        name: text(value)[:_LABEL_LENGTH]
        for name, value in sorted(labels.items())
        if name in _LABELS or name.startswith(_LABEL_PREFIXES)
    }


def _digest(image: str, digests: list[str]) -> str | None:
    """Return the registry digest of an image, of its own repository where several have it."""
    repository = re.sub(r":[^/:]*\Z", "", image.partition("@")[0])
    found = None
    for entry in digests:
        name, _, digest = entry.partition("@")
        if name == repository:
            return digest
        found = found or digest
    return found


def _config(inspect: Mapping, config: Mapping, host_config: Mapping) -> Mapping:
    log = mapping(host_config.get("LogConfig"))
    restart = mapping(host_config.get("RestartPolicy"))
    privileged = host_config.get("Privileged") is True
    return {
        "user": text(config.get("User")),
        "privileged": privileged,
        "network_mode": text(host_config.get("NetworkMode")),
        "pid_mode": text(host_config.get("PidMode")),
        "ipc_mode": text(host_config.get("IpcMode")),
        "uts_mode": text(host_config.get("UTSMode")),
        "userns_mode": text(host_config.get("UsernsMode")),
        "cgroupns_mode": text(host_config.get("CgroupnsMode")),
        "cgroup_parent": text(host_config.get("CgroupParent")),
        "runtime": text(host_config.get("Runtime")),
        "readonly_rootfs": host_config.get("ReadonlyRootfs") is True,
        "init": host_config.get("Init") if isinstance(host_config.get("Init"), bool) else None,
        "cap_add": texts(host_config.get("CapAdd")),
        "cap_drop": texts(host_config.get("CapDrop")),
        "security_opt": [_security_option(item) for item in texts(host_config.get("SecurityOpt"))],
        "pids_limit": integer(host_config.get("PidsLimit")),
        "memory": integer(host_config.get("Memory")) or 0,
        "cpu_quota": integer(host_config.get("CpuQuota")) or 0,
        "nano_cpus": integer(host_config.get("NanoCpus")) or 0,
        "ulimits": [
            {
                "name": text(limit.get("Name")),
                "soft": integer(limit.get("Soft")),
                "hard": integer(limit.get("Hard")),
            }
            for limit in map(mapping, sequence(host_config.get("Ulimits")))
        ],
        "devices": [
            {
                "path_on_host": text(device.get("PathOnHost")),
                "path_in_container": text(device.get("PathInContainer")),
                "permissions": text(device.get("CgroupPermissions")),
            }
            for device in map(mapping, sequence(host_config.get("Devices")))
        ],
        "device_requests": len(sequence(host_config.get("DeviceRequests"))),
        "restart_policy": {
            "name": text(restart.get("Name")) or "no",
            "max": integer(restart.get("MaximumRetryCount")) or 0,
        },
        "log_driver": text(log.get("Type")),
        "log_opts": plain_log_opts(mapping(log.get("Config"))),
        "publish_all": host_config.get("PublishAllPorts") is True,
        "ports": _ports(inspect, host_config),
        "env_names": [item.partition("=")[0] for item in texts(config.get("Env"))],
        "mounts": _mounts(inspect, host_config),
        "masked_paths_default": _covers(host_config.get("MaskedPaths"), _MASKED, privileged),
        "readonly_paths_default": _covers(host_config.get("ReadonlyPaths"), _READONLY, privileged),
        "auto_remove": host_config.get("AutoRemove") is True,
    }


def plain_log_opts(options: Mapping) -> dict[str, str]:
    """Return the log options that carry no credentials."""
    return {name: text(options[name]) for name in sorted(options) if name in PLAIN_LOG_OPTS}


def _security_option(option: str) -> str:
    """Shorten ``seccomp={...}``: the CLI sends the whole profile, which may be a long text."""
    name, separator, value = option.partition("=")
    return "seccomp=inline" if name == "seccomp" and separator and value[:1] == "{" else option


def _covers(paths: typing.Any, base: frozenset[str], privileged: bool) -> bool:
    if paths is None:  # nothing said: privileged containers hide nothing, others the default
        return not privileged
    return base <= set(texts(paths))


def _ports(inspect: Mapping, host_config: Mapping) -> list[Mapping]:
    """Return the published ports: as they are while it runs, as they are configured otherwise."""
    if mapping(inspect.get("State")).get("Running") is True:
        bindings = mapping(mapping(inspect.get("NetworkSettings")).get("Ports"))
    else:
        bindings = mapping(host_config.get("PortBindings"))
    found: list[Mapping] = []
    for port in sorted(bindings):
        for binding in map(mapping, sequence(bindings[port])):
            number = text(binding.get("HostPort"))
            found.append(
                {
                    "container": port,
                    "host_ip": text(binding.get("HostIp")),
                    "host_port": int(number) if re.match(r"\d{1,5}\Z", number) else None,
                }
            )
    return found


def _mounts(inspect: Mapping, host_config: Mapping) -> list[Mapping]:
    found = [
        {
            "type": text(mount.get("Type")),
            "source": text(mount.get("Source")),
            "destination": text(mount.get("Destination")),
            "rw": mount.get("RW") is True,
            "propagation": text(mount.get("Propagation")),
        }
        for mount in map(mapping, sequence(inspect.get("Mounts")))
    ]
    seen = {mount["destination"] for mount in found}
    for destination, options in sorted(mapping(host_config.get("Tmpfs")).items()):
        if destination not in seen:  # --tmpfs is not among the mounts that Docker lists
            found.append(
                {
                    "type": "tmpfs",
                    "source": "",
                    "destination": destination,
                    "rw": "ro" not in text(options).split(","),
                    "propagation": "",
                }
            )
    return found


# -- images, volumes, networks -------------------------------------------------------------------
def image(entry: Mapping) -> Mapping:
    """Return one image from the list of images. ``created`` is in seconds since the epoch."""
    return {
        "id": text(entry.get("Id")),
        "tags": [tag for tag in texts(entry.get("RepoTags")) if tag != "<none>:<none>"],
        "digests": [
            item for item in texts(entry.get("RepoDigests")) if not item.startswith("<none>@")
        ],
        "size": integer(entry.get("Size")) or 0,
        "created": integer(entry.get("Created")) or 0,
        "bulkhead": "bulkhead.role" in mapping(entry.get("Labels")),
    }


def volume(entry: Mapping, sizes: dict[str, int | None]) -> Mapping:
    """Return one volume. ``bind_source`` is the host directory behind a bind in disguise."""
    name = text(entry.get("Name"))
    options = mapping(entry.get("Options"))
    bind = "bind" in text(options.get("o")).split(",") or options.get("type") == "bind"
    return {
        "name": name,
        "driver": text(entry.get("Driver")),
        "mountpoint": text(entry.get("Mountpoint")),
        "size": sizes.get(name),
        "bind_source": text(options.get("device")) or None if bind else None,
    }


def volume_sizes(usage: list[Mapping]) -> dict[str, int | None]:
    """Return the bytes of each volume, from the daemon's disk usage; None where it says -1."""
    found: dict[str, int | None] = {}
    for entry in usage:
        size = integer(mapping(entry.get("UsageData")).get("Size"))
        found[text(entry.get("Name"))] = size if size is not None and size >= 0 else None
    return found


def network(entry: Mapping, attached: dict[str, int]) -> Mapping:
    """Return one network. ``icc`` is None where the driver knows no such thing.

    :param attached: how many containers are attached, by network id.
    """
    driver = text(entry.get("Driver"))
    icc = text(mapping(entry.get("Options")).get("com.docker.network.bridge.enable_icc"))
    return {
        "id": text(entry.get("Id")),
        "name": text(entry.get("Name")),
        "driver": driver,
        "internal": entry.get("Internal") is True,
        "icc": None if driver != "bridge" else icc.lower() not in ("false", "0", "f"),
        "containers": attached.get(text(entry.get("Id")), 0),
    }


def attachments(summaries: list[Mapping]) -> dict[str, int]:
    """Count the containers of each network id, from the list of containers."""
    found: dict[str, int] = {}
    for summary in summaries:
        networks = mapping(mapping(summary.get("NetworkSettings")).get("Networks"))
        for endpoint in map(mapping, networks.values()):
            identifier = text(endpoint.get("NetworkID"))
            found[identifier] = found.get(identifier, 0) + 1
    return found
