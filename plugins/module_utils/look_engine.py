# Copyright: (c) 2026, the Bulkhead authors
# Apache License 2.0 (see LICENSE)
"""The engine section: its state, what it says of itself, and each option with its source.

What the API confirms of the daemon's options: moby daemon/info.go and daemon/info_unix.go (the
fields and ``SecurityOptions`` of ``GET /info``), daemon/daemon_unix.go initBridgeDriver (the
options of the network ``bridge``).
"""

from __future__ import annotations

import posixpath
import re
import stat as stat_module
import typing

from ansible_collections.bulkhead.hardening.plugins.module_utils import ledger
from ansible_collections.bulkhead.hardening.plugins.module_utils.daemon_options import (
    OPTIONS,
    release,
)
from ansible_collections.bulkhead.hardening.plugins.module_utils.host import Host
from ansible_collections.bulkhead.hardening.plugins.module_utils.look_common import (
    Mapping,
    integer,
    mapping,
    sequence,
    text,
    texts,
)
from ansible_collections.bulkhead.hardening.plugins.module_utils.look_config import ConfigFile
from ansible_collections.bulkhead.hardening.plugins.module_utils.look_daemon import (
    PROGRAM,
    Daemon,
)
from ansible_collections.bulkhead.hardening.plugins.module_utils.look_options import (
    bare_address,
    shown,
)

#: Names among the security options of ``/info`` that stand for a mechanism that is on.
_MECHANISMS = ("apparmor", "cgroupns", "rootless", "seccomp", "selinux", "userns")

# Always insecure, whatever is configured (moby registry/config.go).
_LOOPBACK = ("127.0.0.0/8", "::1/128")


def engine(
    daemon: Daemon, version: Mapping, info: Mapping, bridge: Mapping, loaded: bool | None
) -> Mapping:
    """Return the section ``engine``.

    :param version: the answer of ``/version``; empty without one, as the next two.
    :param info: the answer of ``/info``.
    :param bridge: the network named ``bridge``.
    :param loaded: what :func:`config_loaded` says.
    """
    number = text(version.get("Version")) or text(info.get("ServerVersion"))
    confirmed = _confirmed(info, bridge, number)
    security = texts(info.get("SecurityOptions"))
    return {
        "state": daemon.state,
        "reason": daemon.reason,
        "binary": daemon.binary,
        "version": number or None,
        "api_version": text(version.get("ApiVersion")) or None,
        "rootless": daemon.places.user is not None or _has(security, "rootless"),
        "socket": daemon.socket,
        "pid": daemon.pid,
        "started_at": daemon.started_at,
        "config_file": daemon.config.path,
        "config_loaded": loaded,
        "unread_flags": daemon.unread_flags(),
        "options": _options(daemon, confirmed, loaded),
        "info": _info(info) if info else None,
    }


def binary_version(host: Host, binary: str | None, timeout: float) -> str | None:
    """Return what ``dockerd --version`` says: ``26.1.5+dfsg1``; None when it says nothing."""
    # Whatever else a unit starts, an init script perhaps, is not run to see what it does.
    if not binary or posixpath.basename(binary) != PROGRAM:
        return None
    done = host.run([binary, "--version"], timeout=timeout)
    match = re.search(r"\bversion (\d[^\s,]*)", done.out)
    return match.group(1) if done.rc == 0 and match else None


def config_loaded(host: Host, daemon: Daemon, info: Mapping) -> bool | None:
    """Tell whether the running daemon has read its file as it is now; None when it does not run.

    It has when the file is older than the process, or when the ledger says that this very content
    (or none) was loaded into this very process. That a file is not there is as old as the process where
    nothing shows that one was read, and nothing that it was taken away since.

    :param info: the answer of ``/info``; empty without one.
    """
    config = daemon.config
    if daemon.pid is None:
        return None
    if daemon.started_at is None or config.state in ("symlink", "irregular", "unreadable"):
        return False
    if config.changed_at is not None and config.changed_at <= daemon.started_at:
        return True
    known = ledger.loaded_into(ledger.read_ledger(host)[0], daemon.pid, daemon.start_ticks)
    if config.state != "absent":
        return known is not None and known == config.sha256
    if known is not None:
        return known == ledger.NO_CONFIG
    return not _read_a_file(daemon, info) and _absence_is_old(host, config.path, daemon.started_at)


#: What a daemon shows of itself in ``/info`` without flags and without a file.
_DEFAULTS: Mapping = {
    "default-runtime": "runc",
    "insecure-registries": [],
    "live-restore": False,
    "log-driver": "json-file",
    "no-new-privileges": False,
    "registry-mirrors": [],
    "selinux-enabled": False,
    "userns-remap": False,
}
# Said for each TCP address that asks for no client certificate (moby daemon/info.go fillAPIInfo).
_OPEN = "API is accessible on "


def _read_a_file(daemon: Daemon, info: Mapping) -> bool:
    """Tell whether the daemon shows something that none of its flags says: it read that in a file."""
    found = {
        key
        for key, value in _confirmed(info, {}, "").items()
        if key in _DEFAULTS and value not in ("", _DEFAULTS[key])
    }
    if any(_OPEN in warning for warning in texts(info.get("Warnings"))):
        found.add("hosts")
    return not found <= set(daemon.settings)


def _absence_is_old(host: Host, path: str, started_at: float) -> bool:
    """Tell whether nothing shows that a file was taken away from its directory after a time.

    To take it away sets both times of the directory; ``rsync`` puts one of them back. Engines before 23.0
    write a key there after they read their configuration, and users add certificates. A directory that is
    not there tells nothing: too much changes the times of the one above it.
    """
    directory = host.resolve(posixpath.dirname(path))
    status = host.lstat(directory) if directory else None
    if directory is None or status is None:
        return True
    if max(status.st_mtime, status.st_ctime) <= started_at:
        return True
    try:
        later = _later(host, directory, started_at)
        places = [*later, *(path for entry in later for path in _later(host, entry, started_at))]
    except OSError:
        return False
    # What was made there last is as old as the directory's own change, to a tick of the kernel.
    explained = any(moment >= status.st_mtime - 0.1 for moment in later.values())
    return (
        status.st_mtime > started_at
        and explained
        and not any(_was_it(host, place) for place in places)
    )


def _later(host: Host, path: str, started_at: float) -> dict[str, float]:
    """Return what changed in a directory after a time: ``{path: when}``. Raises OSError."""
    status = host.lstat(path)
    if status is None or not stat_module.S_ISDIR(status.st_mode):
        return {}
    entries = [posixpath.join(path, name) for name in host.listdir(path)]
    found = {entry: host.lstat(entry) for entry in entries}
    times = {
        entry: max(status.st_mtime, status.st_ctime)
        for entry, status in found.items()
        if status is not None
    }
    return {entry: moment for entry, moment in times.items() if moment > started_at}


def _was_it(host: Host, path: str) -> bool:
    """Tell whether a file may be a daemon.json under another name, or a link to one."""
    entry = ConfigFile(host, host.resolve(path) or path)
    return entry.state == "unreadable" or not OPTIONS.keys().isdisjoint(entry.values)


# -- options -----------------------------------------------------------------------------------
def _options(daemon: Daemon, confirmed: Mapping, loaded: bool | None) -> Mapping:
    """Return every option that flags, environment or file set, or that the API confirms."""
    found: dict[str, Mapping] = {}
    for key, value in daemon.config.values.items():
        effective = value if loaded else _UNKNOWN
        found[key] = _option(key, value, "file", daemon.config.path, effective, "file")
    for key, setting in daemon.settings.items():
        effective = setting.value if daemon.pid is not None else _UNKNOWN
        where = setting.where or None
        found[key] = _option(key, setting.value, setting.source, where, effective, "process")
    for key, value in confirmed.items():
        entry = found.setdefault(key, {"source": None, "where": None})
        entry["effective"], entry["read_from"] = value, "api"
    return {key: found[key] for key in sorted(found)}


_UNKNOWN = object()


def _option(
    key: str,
    value: typing.Any,
    source: str,
    where: str | None,
    effective: typing.Any,
    read_from: str,
) -> Mapping:
    entry: Mapping = {"source": source, "where": where}
    configured = shown(key, value)
    if configured.visible:
        entry["configured"] = configured.value
    if configured.redacted:
        entry["redacted"] = True
    if effective is not _UNKNOWN:
        entry["read_from"] = read_from
        if configured.visible:
            entry["effective"] = configured.value
    return entry


def _has(security: list[str], name: str) -> bool:
    return any(option.split(",")[0] == "name=" + name for option in security)


def _confirmed(info: Mapping, bridge: Mapping, version: str) -> Mapping:
    """Return the options whose effective value the daemon itself shows, by daemon.json key."""
    found: Mapping = {}
    if info:
        security = texts(info.get("SecurityOptions"))
        found = {
            "data-root": data_root(info),
            "debug": info.get("Debug") is True,
            "default-runtime": text(info.get("DefaultRuntime")),
            "exec-opts": ["native.cgroupdriver=%s" % text(info.get("CgroupDriver"))],
            "experimental": info.get("ExperimentalBuild") is True,
            "live-restore": info.get("LiveRestoreEnabled") is True,
            "log-driver": text(info.get("LoggingDriver")),
            "selinux-enabled": _has(security, "selinux"),
            "storage-driver": text(info.get("Driver")),
            "userns-remap": _has(security, "userns"),
        }
        if _has(security, "no-new-privileges") or _tells_no_new_privileges(version):
            found["no-new-privileges"] = _has(security, "no-new-privileges")
        found.update(_registries(mapping(info.get("RegistryConfig"))))
        seccomp = _seccomp(security)
        if seccomp:
            found["seccomp-profile"] = seccomp
        pools = [
            {"base": text(pool.get("Base")), "size": integer(pool.get("Size"))}
            for pool in map(mapping, sequence(info.get("DefaultAddressPools")))
        ]
        if pools:
            found["default-address-pools"] = pools
        backend = text(mapping(info.get("FirewallBackend")).get("Driver"))
        if backend:  # 29 and later; firewalld may be named with it: iptables+firewalld
            found["firewall-backend"] = backend.split("+")[0]
    found.update(_bridge(mapping(bridge.get("Options"))))
    return found


def _tells_no_new_privileges(version: str) -> bool:
    """Tell whether an engine names that option in ``/info``: since 24.0, moby pull request 45320."""
    try:
        return release(version) >= (24, 0, 0)
    except ValueError:
        return False


def data_root(info: Mapping) -> str:
    """Return the data root as configured: with userns-remap the daemon works one level deeper.

    Empty when the answer of ``/info`` does not tell it.
    """
    root = text(info.get("DockerRootDir"))
    if _has(texts(info.get("SecurityOptions")), "userns"):
        return re.sub(r"/\d+\.\d+\Z", "", root)
    return root


def _seccomp(security: list[str]) -> str | None:
    """Return ``builtin``, ``unconfined`` or a path; None when the kernel has no seccomp."""
    for option in security:
        fields = dict(field.partition("=")[::2] for field in option.split(","))
        if fields.get("name") == "seccomp":
            profile = fields.get("profile", "")
            return "builtin" if profile == "default" else profile  # before 23.0 it was "default"
    return None


def _registries(config: Mapping) -> Mapping:
    insecure = [net for net in texts(config.get("InsecureRegistryCIDRs")) if net not in _LOOPBACK]
    for name, index in sorted(mapping(config.get("IndexConfigs")).items()):
        if mapping(index).get("Secure") is False:
            insecure.append(name)
    return {
        "insecure-registries": [bare_address(item) for item in insecure],
        "registry-mirrors": [bare_address(item) for item in texts(config.get("Mirrors"))],
    }


def _bridge(options: Mapping) -> Mapping:
    prefix = "com.docker.network.bridge."
    found: Mapping = {}
    for key, name in (("icc", "enable_icc"), ("ip-masq", "enable_ip_masquerade")):
        if text(options.get(prefix + name)):
            found[key] = options[prefix + name] == "true"
    if text(options.get(prefix + "host_binding_ipv4")):
        found["ip"] = options[prefix + "host_binding_ipv4"]
    return found


# -- info --------------------------------------------------------------------------------------
def _info(info: Mapping) -> Mapping:
    driver_status = [tuple(texts(row)) for row in sequence(info.get("DriverStatus"))]
    security = texts(info.get("SecurityOptions"))
    return {
        "security_options": security,
        **{name: _has(security, name) for name in _MECHANISMS},
        "no_new_privileges": _has(security, "no-new-privileges"),
        "live_restore": info.get("LiveRestoreEnabled") is True,
        "experimental": info.get("ExperimentalBuild") is True,
        "authorization_plugins": texts(mapping(info.get("Plugins")).get("Authorization")),
        "cdi_spec_dirs": texts(info.get("CDISpecDirs")),
        "cgroup_driver": text(info.get("CgroupDriver")),
        # Absent from the answer of engines older than cgroup v2 support.
        "cgroup_version": 2 if text(info.get("CgroupVersion")) == "2" else 1,
        "docker_root_dir": text(info.get("DockerRootDir")),
        "storage_driver": text(info.get("Driver")),
        "containerd_image_store": ("driver-type", "io.containerd.snapshotter.v1") in driver_status,
        "log_driver": text(info.get("LoggingDriver")),
        "default_runtime": text(info.get("DefaultRuntime")),
        "runtimes": sorted(mapping(info.get("Runtimes"))),
        "swarm": text(mapping(info.get("Swarm")).get("LocalNodeState")) or "inactive",
        "warnings": texts(info.get("Warnings")),
        "containers": {
            "total": integer(info.get("Containers")) or 0,
            "running": integer(info.get("ContainersRunning")) or 0,
            "paused": integer(info.get("ContainersPaused")) or 0,
            "stopped": integer(info.get("ContainersStopped")) or 0,
        },
        "images": integer(info.get("Images")) or 0,
    }
