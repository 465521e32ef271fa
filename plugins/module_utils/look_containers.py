# Copyright: (c) 2026, the Bulkhead authors
# Apache License 2.0 (see LICENSE)
"""Containers, projected to what a judgement needs.

Environment values, label values (but for an allow-list), command lines and health checks stay on
the host. Source of the fields: the Engine API reference.
"""

from __future__ import annotations

import json
import posixpath
import re
import typing

from ansible_collections.bulkhead.hardening.plugins.module_utils import ledger
from ansible_collections.bulkhead.hardening.plugins.module_utils.daemon_options import (
    PLAIN_LOG_OPTS,
)
from ansible_collections.bulkhead.hardening.plugins.module_utils.look_common import (
    Mapping,
    address_class,
    integer,
    mapping,
    reference,
    sequence,
    text,
    texts,
    timestamp,
)
from ansible_collections.bulkhead.hardening.plugins.module_utils.look_kernel import MASKED, READONLY
from ansible_collections.bulkhead.hardening.plugins.module_utils.look_mounts import Mounts
from ansible_collections.bulkhead.hardening.plugins.module_utils.redact import (
    without_credentials,
)

_LABELS = frozenset(
    {"com.docker.compose.project", "com.docker.compose.service", "com.docker.stack.namespace"}
)
_LABEL_PREFIXES = ("org.opencontainers.image.", "bulkhead.")
_LABEL_LENGTH = 256

# What the kernel's parameters of namespaces hold; another text may be anything.
_NUMBERS = re.compile(r"[0-9 \t-]{1,64}\Z")

# strconv.ParseBool
_TRUE = ("1", "t", "T", "TRUE", "true", "True")
_FALSE = ("0", "f", "F", "FALSE", "false", "False")


class Surroundings(typing.NamedTuple):
    """What of the host a container is read against.

    ``digests`` are the repository digests of each image id; ``ulimits`` the daemon's own defaults,
    by name; ``profiles`` the names of the AppArmor profiles in the kernel, None when unknown.
    """

    mounts: Mounts
    digests: dict[str, list[str]]
    ulimits: Mapping
    profiles: frozenset[str] | None


def container(inspect: Mapping, around: Surroundings) -> Mapping:
    """Return one container from its inspection; its ``kernel`` is for the caller to fill in."""
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
        "image_digest": _digest(image, around.digests.get(image_id, [])),
        "image_reference": reference(image),
        "state": text(state.get("Status")),
        "created_at": timestamp(inspect.get("Created")),
        "started_at": timestamp(state.get("StartedAt")),
        "finished_at": timestamp(state.get("FinishedAt")),
        "exit_code": integer(state.get("ExitCode")),
        "restart_count": integer(inspect.get("RestartCount")) or 0,
        "exec_count": len(sequence(inspect.get("ExecIDs"))),
        "pid": integer(state.get("Pid")) or None,
        "labels": plain_labels(labels),
        "label_count": len(labels),
        "config": _config(inspect, around),
        "networks": sorted(mapping(mapping(inspect.get("NetworkSettings")).get("Networks"))),
        "kernel": None,
        "error": None,
        "unread": [],
    }


def failed(summary: Mapping, reason: str) -> Mapping:
    """Return a container that could not be inspected, from what the list says of it."""
    names = texts(summary.get("Names"))
    labels = mapping(summary.get("Labels"))
    image = text(summary.get("Image"))
    created = integer(summary.get("Created"))
    found: Mapping = dict.fromkeys(
        ("image_digest", "started_at", "finished_at", "exit_code", "pid", "config", "kernel")
    )
    found.update(
        id=text(summary.get("Id")),
        name=names[0].lstrip("/") if names else "",
        image=image,
        image_id=text(summary.get("ImageID")),
        image_reference=reference(image),
        state=text(summary.get("State")),
        created_at=float(created) if created is not None else None,
        restart_count=0,
        exec_count=0,
        labels=plain_labels(labels),
        label_count=len(labels),
        networks=sorted(mapping(mapping(summary.get("NetworkSettings")).get("Networks"))),
        error=reason,
        unread=[],
    )
    return found


def plain_labels(labels: Mapping) -> dict[str, str]:
    """Return the allow-listed labels, each value without credentials and cut at 256 characters."""
    return {
        name: without_credentials(text(value))[:_LABEL_LENGTH]
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


def _config(inspect: Mapping, around: Surroundings) -> Mapping:
    config = mapping(inspect.get("Config"))
    host_config = mapping(inspect.get("HostConfig"))
    log = mapping(host_config.get("LogConfig"))
    restart = mapping(host_config.get("RestartPolicy"))
    init = host_config.get("Init")
    found: Mapping = {
        "user": text(config.get("User")),
        "readonly_rootfs": host_config.get("ReadonlyRootfs") is True,
        "init": init if isinstance(init, bool) else None,
        "runtime": text(host_config.get("Runtime")),
        "restart_policy": {
            "name": text(restart.get("Name")) or "no",
            "max": integer(restart.get("MaximumRetryCount")) or 0,
        },
        "log_driver": text(log.get("Type")),
        "log_opts": plain_log_opts(mapping(log.get("Config"))),
        "publish_all": host_config.get("PublishAllPorts") is True,
        "ports": _ports(inspect, config, host_config),
        "env_names": [item.partition("=")[0] for item in texts(config.get("Env"))],
        "mounts": around.mounts.rows(inspect, host_config),
        "volumes_from": len(sequence(host_config.get("VolumesFrom"))),
        "auto_remove": host_config.get("AutoRemove") is True,
        "healthcheck": {"state": healthcheck(config)},
        "health": _health(mapping(inspect.get("State"))),
        "sysctls": [
            {"name": name, "value": text(value) if _NUMBERS.match(text(value)) else None}
            for name, value in sorted(mapping(host_config.get("Sysctls")).items())
        ],
    }
    found.update(_modes(host_config))
    found.update(_resources(host_config, around.ulimits))
    found.update(_devices(host_config))
    found.update(_privileges(inspect, host_config, around.profiles))
    found.update(_hidden_paths(host_config))
    return found


def healthcheck(config: Mapping) -> str:
    """Return ``set``, ``none`` or ``disabled`` from the configuration of a container or image."""
    test = texts(mapping(config.get("Healthcheck")).get("Test"))
    if not test:
        return "none"
    return "disabled" if test[0] == "NONE" else "set"


def _health(state: Mapping) -> str | None:
    status = text(mapping(state.get("Health")).get("Status"))
    return status if status in ("starting", "healthy", "unhealthy") else None


def _modes(host_config: Mapping) -> Mapping:
    return {
        "network_mode": text(host_config.get("NetworkMode")),
        "pid_mode": text(host_config.get("PidMode")),
        "ipc_mode": text(host_config.get("IpcMode")),
        "uts_mode": text(host_config.get("UTSMode")),
        "userns_mode": text(host_config.get("UsernsMode")),
        "cgroupns_mode": text(host_config.get("CgroupnsMode")),
        "cgroup_parent": text(host_config.get("CgroupParent")),
        "modes": {},  # for :func:`resolve_modes`, which needs the other containers
    }


def _resources(host_config: Mapping, defaults: Mapping) -> Mapping:
    names = {
        "memory": "Memory",
        "memory_reservation": "MemoryReservation",
        "memory_swap": "MemorySwap",
        "cpu_shares": "CpuShares",
        "cpu_quota": "CpuQuota",
        "cpu_period": "CpuPeriod",
        "nano_cpus": "NanoCpus",
        "oom_score_adj": "OomScoreAdj",
        "shm_size": "ShmSize",
    }
    found: Mapping = {name: integer(host_config.get(field)) or 0 for name, field in names.items()}
    found.update(
        pids_limit=integer(host_config.get("PidsLimit")),
        cpuset_cpus=text(host_config.get("CpusetCpus")),
        cpuset_mems=text(host_config.get("CpusetMems")),
        oom_kill_disable=host_config.get("OomKillDisable") is True,
        ulimits=[
            _ulimit(limit, defaults) for limit in map(mapping, sequence(host_config.get("Ulimits")))
        ],
    )
    return found


def _ulimit(limit: Mapping, defaults: Mapping) -> Mapping:
    name, soft, hard = (
        text(limit.get("Name")),
        *map(integer, (limit.get("Soft"), limit.get("Hard"))),
    )
    default = mapping(defaults.get(name))
    same = bool(default) and (default.get("Soft"), default.get("Hard")) == (soft, hard)
    return {"name": name, "soft": soft, "hard": hard, "default": same}


def _devices(host_config: Mapping) -> Mapping:
    requests = [mapping(item) for item in sequence(host_config.get("DeviceRequests"))]
    return {
        "devices": [
            {
                "path_on_host": text(device.get("PathOnHost")),
                "path_in_container": text(device.get("PathInContainer")),
                "permissions": text(device.get("CgroupPermissions")),
            }
            for device in map(mapping, sequence(host_config.get("Devices")))
        ],
        "device_cgroup_rules": texts(host_config.get("DeviceCgroupRules")),
        "device_requests": len(requests),
        "device_request_list": [
            {
                "driver": text(item.get("Driver")),
                "count": integer(item.get("Count")) or 0,
                "device_ids": texts(item.get("DeviceIDs")),
                "capabilities": [texts(group) for group in sequence(item.get("Capabilities"))],
            }
            for item in requests
        ],
    }


def _privileges(inspect: Mapping, host_config: Mapping, profiles: frozenset[str] | None) -> Mapping:
    options = texts(host_config.get("SecurityOpt"))
    apparmor = text(inspect.get("AppArmorProfile"))
    known = profiles is not None and apparmor not in ("", "unconfined")
    found: Mapping = {
        "privileged": host_config.get("Privileged") is True,
        "cap_add": texts(host_config.get("CapAdd")),
        "cap_drop": texts(host_config.get("CapDrop")),
        "group_add": texts(host_config.get("GroupAdd")),
        "security_opt": [_security_option(item) for item in options],
        "apparmor_profile": apparmor,
        "apparmor_loaded": apparmor in (profiles or ()) if known else None,
        "process_label": text(inspect.get("ProcessLabel")),
        "mount_label": text(inspect.get("MountLabel")),
    }
    found.update(security(options))
    return found


def security(options: typing.Sequence[str]) -> Mapping:
    """Return what a container's security options set, as the engine reads them.

    ``no_new_privileges`` is None and ``seccomp_profile`` ``default`` where they say nothing; where they
    hold a whole seccomp profile, ``seccomp_inline`` tells which. Source:
    moby daemon/daemon_unix.go parseSecurityOpt; a colon stands for the equals sign in old options.
    """
    found: Mapping = {
        "no_new_privileges": None,
        "seccomp_profile": "default",
        "seccomp_inline": None,
        "label_disabled": False,
    }
    for option in options:
        if option in ("no-new-privileges", "disable"):
            found["no_new_privileges" if option != "disable" else "label_disabled"] = True
            continue
        name, separator, value = option.partition("=")
        if not separator:
            name, _, value = option.partition(":")
        if name == "no-new-privileges" and value in (*_TRUE, *_FALSE):
            found["no_new_privileges"] = value in _TRUE
        elif name == "label" and value == "disable":
            found["label_disabled"] = True
        elif name == "seccomp":
            inline = value[:1] == "{"
            found["seccomp_profile"] = "inline" if inline else value
            found["seccomp_inline"] = _inline_profile(value) if inline else None
    return found


#: Begins the comment of the first rule of a profile that Bulkhead wrote.
_MARK = re.compile(
    r"Written by Bulkhead \(role docker_seccomp\), profile ([a-z0-9][a-z0-9_.-]{0,63})\Z"
)


def _inline_profile(value: str) -> Mapping | None:
    """Return which of Bulkhead's profiles a container has a copy of, and the digest of that copy.

    The client sends the text of the file that it was told, so a container keeps the profile that it was
    made with. ``bulkhead`` is what the text says of itself.
    """
    try:
        profile = json.loads(value)
        first = sequence(mapping(profile).get("syscalls"))[:1]
        mark = _MARK.match(text(mapping(first[0]).get("comment"))) if first else None
        return {
            "bulkhead": mark.group(1) if mark else None,
            "sha256": ledger.value_digest(profile),
        }
    except (ValueError, RecursionError):
        return None


def _hidden_paths(host_config: Mapping) -> Mapping:
    """Return which paths of /proc and /sys are configured to be hidden and write-protected."""
    found: Mapping = {}
    privileged = host_config.get("Privileged") is True
    for name, missing, default, key in (
        ("masked_paths", "unmasked_paths", MASKED, "MaskedPaths"),
        ("readonly_paths", "writable_paths", READONLY, "ReadonlyPaths"),
    ):
        paths = host_config.get(key)
        # nothing said: privileged containers hide nothing, others the default
        shown = None if paths is None else texts(paths)
        covered = shown if shown is not None else () if privileged else default
        found[name] = shown
        found[missing] = [path for path in default if path not in covered]
        found[name + "_default"] = not found[missing]
    found["systempaths_unconfined"] = (
        not privileged and found["masked_paths"] == [] and found["readonly_paths"] == []
    )
    return found


#: How deep and how many directories are named that a container wrote to.
_DIRECTORY_DEPTH = 2
_MAX_DIRECTORIES = 20


def layer_writes(answer: typing.Any, destinations: typing.Sequence[str]) -> Mapping:
    """Return what a container wrote outside of its mounts: ``{count, directories}``.

    A directory is a change as soon as something in it is; only the innermost counts. What the engine
    made for a mount to stand on is none of the container's.

    :param answer: of ``/containers/ID/changes``: ``[{"Path", "Kind"}]``, or null when there is nothing.
    :param destinations: where its mounts are.
    """
    paths = {text(mapping(item).get("Path")) for item in sequence(answer)}
    parents = {posixpath.dirname(path) for path in paths}
    made = set(destinations)
    for path in destinations:
        while path not in ("/", ""):
            path = posixpath.dirname(path)
            made.add(path)
    written = sorted(path for path in paths - parents - made if path.startswith("/"))
    directories = {
        "/" + "/".join(posixpath.dirname(path).split("/")[1 : 1 + _DIRECTORY_DEPTH])
        for path in written
    }
    return {"count": len(written), "directories": sorted(directories)[:_MAX_DIRECTORIES]}


def plain_log_opts(options: Mapping) -> dict[str, str]:
    """Return the log options that carry no credentials."""
    return {name: text(options[name]) for name in sorted(options) if name in PLAIN_LOG_OPTS}


def _security_option(option: str) -> str:
    """Shorten ``seccomp={...}``: the CLI sends the whole profile, which may be a long text."""
    name, separator, value = option.partition("=")
    return "seccomp=inline" if name == "seccomp" and separator and value[:1] == "{" else option


def _ports(inspect: Mapping, config: Mapping, host_config: Mapping) -> list[Mapping]:
    """Return the published ports: as they are while it runs, as they are configured otherwise."""
    if mapping(inspect.get("State")).get("Running") is True:
        bindings = mapping(mapping(inspect.get("NetworkSettings")).get("Ports"))
    else:
        bindings = {**_at_random(config, host_config), **mapping(host_config.get("PortBindings"))}
    found: list[Mapping] = []
    for port in sorted(bindings):
        for binding in map(mapping, sequence(bindings[port])):
            number, address = text(binding.get("HostPort")), text(binding.get("HostIp"))
            found.append(
                {
                    "container": port,
                    "host_ip": address,
                    "host_port": int(number) if re.match(r"\d{1,5}\Z", number) else None,
                    "address_class": address_class(address) if address else "wildcard",
                    **_port(port),
                }
            )
    return found


def _at_random(config: Mapping, host_config: Mapping) -> Mapping:
    """Return the bindings of ``--publish-all``: every exposed port, each on a free port of the host.

    Source: moby daemon/network.go, buildPortsRelatedCreateEndpointOptions.
    """
    mode = text(host_config.get("NetworkMode"))
    if host_config.get("PublishAllPorts") is not True or re.match(
        r"(host|none|container:.*)\Z", mode
    ):
        return {}
    return {port: [{}] for port in mapping(config.get("ExposedPorts"))}


def _port(port: str) -> Mapping:
    number, _, protocol = port.partition("/")
    valid = re.match(r"\d{1,5}\Z", number)
    return {"container_port": int(number) if valid else None, "protocol": protocol or "tcp"}


def resolve_modes(rows: typing.Sequence[Mapping]) -> None:
    """Fill in ``config.modes`` of all containers: what their namespaces come to.

    A namespace that is another container's is followed to that one: ``host`` when it is the host's
    after all, ``container`` otherwise.
    """
    known: dict[str, Mapping] = {}
    for row in rows:
        known[row["id"]] = known[row["name"]] = row
    for row in rows:
        if row["config"] is not None:
            row["config"]["modes"] = {
                "network": _network(row, known),
                "pid": _followed(row, known, "pid_mode") or "private",
                "ipc": _followed(row, known, "ipc_mode") or "private",
                "uts": row["config"]["uts_mode"] or "private",
                "user": row["config"]["userns_mode"] or "default",
                "cgroup": row["config"]["cgroupns_mode"] or "default",
            }


def _network(row: Mapping, known: dict[str, Mapping]) -> str:
    mode = _followed(row, known, "network_mode")
    return mode if mode in ("host", "none", "container") else "private"


def _followed(row: Mapping, known: dict[str, Mapping], name: str) -> str:
    mode = str(row["config"][name])
    if not mode.startswith("container:"):
        return mode
    for _ in range(len(known)):  # a circle cannot be longer
        other = known.get(mode.partition(":")[2])
        if other is None or other["config"] is None:
            break
        mode = str(other["config"][name])
        if not mode.startswith("container:"):
            return mode if mode in ("host", "none") else "container"
    return "container"
