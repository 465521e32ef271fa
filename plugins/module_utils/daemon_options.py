# Copyright: (c) 2026, the Bulkhead authors
# Apache License 2.0 (see LICENSE)
"""The options that dockerd accepts in daemon.json, by engine release.

Read from the moby sources of the release tags 20.10.0 to 29.7.2. An engine that does not know a key
refuses to start, so every write is checked against this table first. Both doors and the planners use
it: the doors to know which values may leave the host, the planners to know what a change costs.
"""

from __future__ import annotations

import re
import typing


class Option(typing.NamedTuple):
    """One key of daemon.json.

    ``kind`` is its JSON type: boolean, string, list, integer or map. ``first`` and ``last`` are the
    releases that know it (None: older than 20.10, still there). ``reload`` tells whether SIGHUP
    applies it. ``applies`` says what takes up a new value: the ``daemon``, a container at its next
    ``start``, or only containers at their ``create``. The value of a ``secret`` option may hold
    credentials and never leaves the host.
    """

    kind: str
    first: str | None = None
    last: str | None = None
    reload: bool = False
    applies: str = "daemon"
    secret: bool = False


OPTIONS: dict[str, Option] = {
    "allow-direct-routing": Option("boolean", first="28.2.0"),
    "allow-nondistributable-artifacts": Option("list", last="28.0.4"),
    "api-cors-header": Option("string", last="28.5.2"),
    "authorization-plugins": Option("list", reload=True),
    "bip": Option("string"),
    "bip6": Option("string", first="28.0.0"),
    "bridge": Option("string"),
    "bridge-accept-fwmark": Option("string", first="29.0.0"),
    "builder": Option("map"),
    "cdi-spec-dirs": Option("list", first="25.0.0"),
    "cgroup-parent": Option("string", applies="start"),
    "cluster-advertise": Option("string", last="23.0.18"),
    "cluster-store": Option("string", last="23.0.18"),
    "cluster-store-opts": Option("map", last="23.0.18", secret=True),
    "containerd": Option("string"),
    "containerd-namespace": Option("string"),
    "containerd-plugin-namespace": Option("string"),
    "cpu-rt-period": Option("integer"),
    "cpu-rt-runtime": Option("integer"),
    "cri-containerd": Option("boolean"),
    "data-root": Option("string"),
    "debug": Option("boolean", reload=True),
    "default-address-pools": Option("list"),
    "default-cgroupns-mode": Option("string", reload=True, applies="create"),
    "default-gateway": Option("string"),
    "default-gateway-v6": Option("string"),
    "default-init": Option("boolean"),
    "default-ipc-mode": Option("string", reload=True, applies="create"),
    "default-network-opts": Option("map", first="24.0.0", applies="create"),
    "default-runtime": Option("string", reload=True, applies="create"),
    "default-shm-size": Option("integer", reload=True, applies="create"),
    "default-stop-timeout": Option("integer", first="29.7.0", reload=True),
    "default-ulimits": Option("map", applies="start"),
    "deprecated-key-path": Option("string", last="23.0.18"),
    "device": Option("string", first="29.0.0"),
    "dns": Option("list"),
    "dns-opts": Option("list"),
    "dns-search": Option("list"),
    "exec-opts": Option("list"),
    "exec-root": Option("string"),
    "experimental": Option("boolean"),
    "features": Option("map", reload=True),
    "firewall-backend": Option("string", first="29.0.0"),
    "fixed-cidr": Option("string"),
    "fixed-cidr-v6": Option("string"),
    "graph": Option("string", last="23.0.18"),
    "group": Option("string"),
    "host-gateway-ip": Option("string"),
    "host-gateway-ips": Option("list", first="28.0.0"),
    "hosts": Option("list"),
    "http-proxy": Option("string", first="23.0.0", secret=True),
    "https-proxy": Option("string", first="23.0.0", secret=True),
    "icc": Option("boolean"),
    "init": Option("boolean", applies="start"),
    "init-path": Option("string"),
    "insecure-registries": Option("list", reload=True),
    "ip": Option("string"),
    "ip-forward": Option("boolean"),
    "ip-forward-no-drop": Option("boolean", first="28.0.0"),
    "ip-masq": Option("boolean"),
    "ip6tables": Option("boolean"),
    "iptables": Option("boolean"),
    "ipv6": Option("boolean"),
    "labels": Option("list", reload=True, secret=True),
    "live-restore": Option("boolean", reload=True),
    "log-driver": Option("string", applies="create"),
    "log-format": Option("string", first="25.0.0"),
    "log-level": Option("string"),
    "log-opts": Option("map", applies="create"),
    "max-concurrent-downloads": Option("integer", reload=True),
    "max-concurrent-uploads": Option("integer", reload=True),
    "max-download-attempts": Option("integer", reload=True),
    "metrics-addr": Option("string"),
    "min-api-version": Option("string", first="29.0.0"),
    "mtu": Option("integer"),
    "network-control-plane-mtu": Option("integer"),
    "network-diagnostic-port": Option("integer", reload=True),
    "network-host": Option("boolean"),
    "no-new-privileges": Option("boolean", applies="create"),
    "no-proxy": Option("string", first="23.0.0", secret=True),
    "node-generic-resources": Option("list", secret=True),
    "nri-opts": Option("map", first="29.2.0", reload=True),
    "oom-score-adjust": Option("integer", last="25.0.17"),
    "pidfile": Option("string"),
    "proxies": Option("map", first="23.0.0", secret=True),
    "raw-logs": Option("boolean"),
    "registry-mirrors": Option("list", reload=True),
    "resolv-conf": Option("string"),
    "rootless": Option("boolean"),
    "runtimes": Option("map", reload=True),
    "seccomp-profile": Option("string", applies="start"),
    "security-insecure": Option("boolean"),
    "selinux-enabled": Option("boolean"),
    "shutdown-timeout": Option("integer", reload=True),
    "storage-driver": Option("string"),
    "storage-opts": Option("list", secret=True),
    "swarm-default-advertise-addr": Option("string"),
    "swarm-raft-election-tick": Option("integer"),
    "swarm-raft-heartbeat-tick": Option("integer"),
    "tls": Option("boolean"),
    "tlscacert": Option("string"),
    "tlscert": Option("string"),
    "tlskey": Option("string"),
    "tlsverify": Option("boolean"),
    "userland-proxy": Option("boolean"),
    "userland-proxy-path": Option("string"),
    "userns-remap": Option("string"),
}

#: Keys inside ``log-opts`` that carry no credentials (splunk-token, gelf-address and others may).
PLAIN_LOG_OPTS = frozenset(
    {
        "cache-disabled",
        "cache-max-file",
        "cache-max-size",
        "compress",
        "max-buffer-size",
        "max-file",
        "max-size",
        "mode",
    }
)

_RELEASE = re.compile(r"^v?(\d+)\.(\d+)(?:\.(\d+))?")


def release(version: str) -> tuple[int, int, int]:
    """Return the numeric release of an engine version: ``26.1.5+dfsg1`` gives ``(26, 1, 5)``.

    :raises ValueError: the text does not begin with two numbers and a dot between them.
    """
    match = _RELEASE.match(version.strip())
    if not match:
        raise ValueError("%r is not an engine version such as 26.1.5" % version)
    return int(match.group(1)), int(match.group(2)), int(match.group(3) or 0)


def knows(version: str, key: str) -> bool:
    """Tell whether the engine of that version accepts the key in daemon.json."""
    option = OPTIONS.get(key)
    if option is None:
        return False
    engine = release(version)
    if option.first is not None and engine < release(option.first):
        return False
    return option.last is None or engine <= release(option.last)
