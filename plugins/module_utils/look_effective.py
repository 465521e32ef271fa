# Copyright: (c) 2026, the Bulkhead authors
# Apache License 2.0 (see LICENSE)
"""What is in effect of the daemon's options, defaults included, and where its API can be reached.

Defaults: moby daemon/config/config.go and config_linux.go of the releases 20.10 to 29.7. TLS:
daemon/command/daemon.go loadDaemonCliConfig.
"""

from __future__ import annotations

import ipaddress
import posixpath
import re
import typing

from ansible_collections.bulkhead.hardening.plugins.module_utils.daemon_options import release
from ansible_collections.bulkhead.hardening.plugins.module_utils.host import Host
from ansible_collections.bulkhead.hardening.plugins.module_utils.look_common import (
    Mapping,
    address_class,
    integer,
    mapping,
    run_path,
    sequence,
    text,
    texts,
)
from ansible_collections.bulkhead.hardening.plugins.module_utils.look_daemon import Daemon
from ansible_collections.bulkhead.hardening.plugins.module_utils.look_options import bare_address

#: The options that an audit judges, and the engine's own default where nothing sets them. None: the
#: default depends on the release or the host (see :func:`_default`), or there is none.
_DEFAULTS: Mapping = {
    "authorization-plugins": [],
    "bridge": "",
    "cgroup-parent": "",
    "containerd": "",
    "data-root": None,
    "debug": False,
    "default-cgroupns-mode": None,
    "default-ipc-mode": "private",
    "default-runtime": "runc",
    "default-ulimits": {},
    "exec-opts": [],
    "experimental": False,
    "firewall-backend": None,
    "group": "docker",
    "hosts": None,
    "icc": True,
    "insecure-registries": [],
    "ip": "0.0.0.0",
    "ip6tables": None,
    "iptables": True,
    "live-restore": False,
    "log-driver": "json-file",
    "log-level": "info",
    "log-opts": {},
    "metrics-addr": "",
    "network-diagnostic-port": 0,
    "no-new-privileges": False,
    "registry-mirrors": [],
    "seccomp-profile": "builtin",
    "selinux-enabled": False,
    "storage-driver": None,
    "storage-opts": [],
    "tls": False,
    "tlscacert": None,
    "tlscert": None,
    "tlskey": None,
    "tlsverify": False,
    "userland-proxy": True,
    "userns-remap": "",
}


class Engine(typing.NamedTuple):
    """What is known of the engine when its options are judged.

    ``options`` are those of the section ``engine``; ``known``: it runs, and has read its
    configuration file as it is now.
    """

    options: Mapping
    known: bool
    version: str | None
    info: Mapping
    cgroup_version: int


def effective(daemon: Daemon, engine: Engine) -> Mapping:
    """Return ``{"log_level": {"value", "configured", "source", "where", "read_from", "redacted"}}``.

    ``value`` is what is in effect, None when nothing tells; ``configured`` what flags, environment
    or file set, None when nothing does. ``source`` is then ``default``.
    """
    found = {name.replace("-", "_"): _entry(name, daemon, engine) for name in sorted(_DEFAULTS)}
    authorization = mapping(engine.info.get("Plugins"))
    if "Authorization" in authorization:
        plugins = texts(authorization.get("Authorization"))
        found["authorization_plugins"].update(value=plugins, read_from="api")
    if found["bridge"]["value"] == "none":
        found["icc"].update(value=None, read_from=None)  # there is no default bridge
    for name, value in zip(("tls", "tlsverify"), _tls(daemon)):
        if found[name]["value"] is not None:
            found[name]["value"] = value
    return found


def _entry(name: str, daemon: Daemon, engine: Engine) -> Mapping:
    option = mapping(engine.options.get(name))
    configured = _configured(name, option, daemon)
    entry: Mapping = {
        "value": None,
        "configured": configured,
        "source": option.get("source") or "default",
        "where": option.get("where"),
        "read_from": None,
        "redacted": option.get("redacted") is True,
    }
    if option.get("read_from") == "api":
        entry["value"] = option["effective"]
        if name == "userns-remap" and option["effective"] is True and configured:
            entry["value"] = configured  # the API tells only that it is on
    elif "read_from" in option:
        entry["value"] = configured
    elif not option and engine.known:
        entry["value"] = _default(name, daemon, engine)
        option = {"read_from": "default"}
    entry["value"] = _listed(name, entry["value"])
    entry["read_from"] = option.get("read_from")
    return entry


def _configured(name: str, option: Mapping, daemon: Daemon) -> typing.Any:
    if name == "storage-opts":  # devices and sizes; iSCSI targets and passwords with some drivers
        return [
            item.partition("=")[0] for item in texts(daemon.option(name)) if "=" in item
        ] or None
    value = option.get("configured")
    return _listed(name, value) if value is not None else None


def _listed(name: str, value: typing.Any) -> typing.Any:
    """Return the maps among the values as lists of objects, which is what queries can search."""
    if name == "default-ulimits" and isinstance(value, dict):
        return [
            {
                "name": text(key),
                "soft": integer(mapping(limit).get("Soft")),
                "hard": integer(mapping(limit).get("Hard")),
            }
            for key, limit in sorted(value.items())
        ]
    if name == "log-opts" and isinstance(value, dict):
        return [{"name": key, "value": value[key]} for key in sorted(value)]
    return value


def _default(name: str, daemon: Daemon, engine: Engine) -> typing.Any:
    """Return the engine's own value of an option that nothing sets; None when it is not known."""
    if name == "default-cgroupns-mode":
        return "private" if engine.cgroup_version == 2 else "host"
    if name == "data-root":
        return daemon.places.data_root
    if name == "hosts":
        return ["unix://" + daemon.places.socket]
    if name in ("ip6tables", "firewall-backend"):
        try:
            version = release(engine.version or "")
        except ValueError:
            return None
        if name == "ip6tables":  # off by default, and experimental, before 27.0
            return version >= (27, 0, 0)
        return "iptables" if version >= (29, 0, 0) else None
    return _DEFAULTS[name]


# -- how the API is reached ------------------------------------------------------------------------
def _tls(daemon: Daemon) -> tuple[bool, bool]:
    """Return whether TCP addresses speak TLS, and whether they ask for a client's certificate.

    Whatever ``tlsverify`` is set to turns TLS on, and ``tls`` alone verifies.
    """
    tls, verify = daemon.option("tls"), daemon.option("tlsverify")
    if verify is None:
        return tls is True, tls is True
    return True, verify is True


def tls_state(found: Mapping) -> str | None:
    """Return ``verify``, ``unverified`` or ``none`` from what is in effect; None when unknown."""
    if found["tls"]["value"] is None or found["tlsverify"]["value"] is None:
        return None
    if not found["tls"]["value"]:
        return "none"
    return "verify" if found["tlsverify"]["value"] else "unverified"


def address(url: str, source: str) -> Mapping:
    """Return one address of the API taken apart: ``tcp://0.0.0.0:2375``, ``unix:///run/x``."""
    url = bare_address(url)
    scheme, separator, rest = url.partition("://")
    if not separator:  # a path, or host and port
        scheme, rest = ("unix" if url.startswith("/") else "tcp"), url
    row: Mapping = {"address": "%s://%s" % (scheme, rest), "scheme": scheme, "source": source}
    row.update(host=None, port=None, path=None, address_class=None)
    if scheme in ("tcp", "http", "https"):
        host, port = _host_and_port(rest.partition("/")[0])
        row.update(scheme="tcp", host=host, port=port)
        # dockerd makes an empty host localhost; in a socket unit it is every address.
        wildcard = host in ("", "*") and source in ("socket_unit", "listening")
        row["address_class"] = "wildcard" if wildcard else address_class(host or "127.0.0.1")
        if host == "localhost":
            row["address_class"] = "loopback"
    elif scheme == "unix":
        row["path"] = rest or "/var/run/docker.sock"
    elif scheme not in ("fd", "npipe", "ssh"):
        row["scheme"] = "other"
    return row


def _host_and_port(text_: str) -> tuple[str, int | None]:
    match = re.match(r"(?:\[([^\]]*)\]|([^:]*))(?::(\d{1,5}))?\Z", text_)
    if not match:
        return text_, None
    port = match.group(3)
    return match.group(1) or match.group(2) or "", int(port) if port else None


def api_addresses(
    daemon: Daemon, socket_unit: Mapping, listeners: typing.Sequence[Mapping] | None
) -> list[Mapping]:
    """Return every address of the API: configured, of docker.socket, and really listened on.

    :param listeners: the rows of the section ``listeners``, None without them.
    """
    rows: list[Mapping] = []
    option = daemon.option("hosts")
    hosts = texts(option) if isinstance(option, list) else []
    setting = daemon.settings.get("hosts")
    source = (setting.source if setting else "file") if hosts else "default"
    rows += [address(url, source) for url in hosts or ["unix://" + daemon.places.socket]]
    if any(row["scheme"] == "fd" for row in rows):
        rows += [_unit_address(item) for item in texts(socket_unit.get("listen"))]
    for row in listeners or ():
        if row["purpose"] == "api" and row["protocol"] != "unix":
            shown = "[%s]" % row["address"] if ":" in row["address"] else row["address"]
            rows.append(address("tcp://%s:%d" % (shown, row["port"]), "listening"))
        elif row["purpose"] == "api":
            rows.append(address("unix://" + row["path"], "listening"))
    found: dict[str, Mapping] = {}
    for row in rows:
        # /var/run is /run: one socket, one row
        found.setdefault(row["address"].replace("unix:///var/run/", "unix:///run/"), row)
    return list(found.values())


def _unit_address(item: str) -> Mapping:
    """Return an address of a socket unit: a path, ``[::]:2375`` or ``127.0.0.1:2375``."""
    if item.startswith("/"):
        return address("unix://" + item, "socket_unit")
    return address("tcp://" + (":" + item if item.isdigit() else item), "socket_unit")


def listened(row: Mapping, listeners: typing.Sequence[Mapping]) -> bool:
    """Tell whether a daemon listens on an address, or may: of systemd's sockets and names it is not known.

    :param row: what :func:`address` returns. ``listeners``: the daemon's sockets.
    """
    if row["scheme"] == "unix":
        return _is_among(row, listeners)
    if row["scheme"] != "tcp":
        return True
    ports = [row["port"]] if row["port"] else [2375, 2376]
    found = [
        item["address"]
        for item in listeners
        if item["protocol"].startswith("tcp") and item["port"] in ports
    ]
    try:
        wanted = str(ipaddress.ip_address(row["host"]))
    except ValueError:
        return bool(found)
    everywhere = {"0.0.0.0", "::"}
    return wanted in found or (wanted in everywhere and bool(everywhere & {*found}))


def _is_among(row: Mapping, others: typing.Sequence[Mapping]) -> bool:
    """Tell whether one of several sockets is the unix socket of a row."""
    return run_path(row["path"]) in [run_path(item["path"] or "") for item in others]


class Served(typing.NamedTuple):
    """What dockerd listens for beside its API: whether as a member of a swarm, and for containers."""

    swarm: bool
    published: frozenset[tuple[str, int]]


def purpose(
    row: Mapping,
    addresses: typing.Sequence[Mapping],
    found: Mapping,
    served: Served | None = None,
) -> str:
    """Return what a socket of dockerd or containerd is for.

    :param served: given when it is not known where it serves its API: that may then be wherever else
        it listens.
    """
    if row["process"] == "containerd":
        return "containerd"
    if row["protocol"] == "unix":
        if _is_among(row, addresses):
            return "api"
        return "plugin" if "/plugins/" in row["path"] else "other"
    if row["protocol"].startswith("tcp") and row["port"] in _ports(addresses):
        return "api"
    metrics = _host_and_port(text(found["metrics_addr"]["configured"]))[1]
    diagnostic = found["network_diagnostic_port"]["configured"]
    known = {2377: "swarm_management", 7946: "swarm_gossip", 4789: "overlay"}
    if metrics:
        known[metrics] = "metrics"
    if diagnostic:
        known[diagnostic] = "diagnostic"
    guess = known.get(row["port"], "other")
    if served is None or not row["protocol"].startswith("tcp"):
        return guess
    if guess.startswith("swarm") and not served.swarm:
        return "api"
    if guess == "other" and (row["address"], row["port"]) not in served.published:
        return "api"
    return guess


def published(
    summaries: typing.Sequence[Mapping], services: typing.Sequence[Mapping]
) -> frozenset[tuple[str, int]]:
    """Return the addresses and TCP ports at which the daemon may serve containers and services.

    It holds them itself where ``userland-proxy`` is off, and those of services in any case.

    :param summaries: the rows of ``/containers/json``. ``services``: those of ``/services``.
    """
    ports = [mapping(port) for row in summaries for port in sequence(row.get("Ports"))]
    found = {
        (text(port.get("IP")), port["PublicPort"])
        for port in ports
        if port.get("Type") == "tcp" and integer(port.get("PublicPort"))
    }
    for row in services:
        for port in map(mapping, sequence(mapping(row.get("Endpoint")).get("Ports"))):
            if integer(port.get("PublishedPort")):
                found |= {(address, port["PublishedPort"]) for address in ("::", "0.0.0.0")}
    return frozenset(found)


def _ports(addresses: typing.Sequence[Mapping]) -> set[int]:
    return {item["port"] or 2375 for item in addresses if item["scheme"] == "tcp"}


# -- what changed since the start -----------------------------------------------------------------
def newer_files(
    host: Host, daemon: Daemon, unit: Mapping, loaded: bool | None
) -> list[Mapping] | None:
    """Return what the daemon was started from and changed after its start; None: it does not run.

    The daemon's own file is among them only when the daemon has not read it since.
    """
    if daemon.pid is None or daemon.started_at is None:
        return None
    profile = daemon.option("seccomp-profile")
    candidates: list[tuple[str, str | None]] = [
        ("unit", unit.get("fragment")),
        *(("dropin", path) for path in sequence(unit.get("dropins"))),
        *(("environment", path) for path in sequence(unit.get("environment_files"))),
        ("seccomp_profile", profile if isinstance(profile, str) else None),
    ]
    for key in ("tlscacert", "tlscert", "tlskey"):
        path = daemon.option(key)
        candidates.append(("certificate", path if isinstance(path, str) else None))
    if loaded is False:
        candidates.append(("config", daemon.config.path))
    found: list[Mapping] = []
    if loaded is False and daemon.config.state == "absent":  # it was taken away
        found.append({"path": daemon.config.path, "kind": "config", "changed_at": None})
    for kind, path in candidates:
        if not path or not posixpath.isabs(path) or path == "/dev/null":
            continue
        try:
            status = host.lstat(host.resolve(path) or path)
        except OSError:
            continue
        # Not the time of the inode: to tighten a mode changes nothing of what was read.
        if status is not None and status.st_mtime > daemon.started_at:
            found.append({"path": path, "kind": kind, "changed_at": status.st_mtime})
    if binary_replaced(host, daemon) and daemon.binary:
        status = host.lstat(daemon.binary)
        moment = status.st_ctime if status is not None else None
        found.append({"path": daemon.binary, "kind": "binary", "changed_at": moment})
    return found


def binary_replaced(host: Host, daemon: Daemon) -> bool | None:
    """Tell whether another program is where the daemon's was; None when it cannot be told."""
    if daemon.pid is None:
        return None
    try:
        return host.readlink("/proc/%d/exe" % daemon.pid).endswith(" (deleted)")
    except OSError:
        return None


def components(version: Mapping) -> list[Mapping]:
    """Return name and version of what the engine is made of, from the answer of ``/version``."""
    rows = [mapping(item) for item in sequence(version.get("Components"))]
    return [{"name": text(row.get("Name")), "version": text(row.get("Version"))} for row in rows]
