# Copyright: (c) 2026, the Bulkhead authors
# Apache License 2.0 (see LICENSE)
"""Single options of daemon.json: would the engine start with this value, and its containers too?

``dockerd --validate`` does not see what only shows at the daemon's start or in the first container,
and engines before 23.0 do not have it. Sources: moby daemon/config/config.go (Validate),
daemon/daemon_unix.go (verifyDaemonSettings), daemon/runtime_unix.go, opts/hosts.go and
daemon/logger/*, of the releases 20.10 to 29.7; profiles/seccomp/seccomp_linux.go.
"""

from __future__ import annotations

import ipaddress
import json
import re
import socket
import stat
import typing
import urllib.parse

from ansible_collections.bulkhead.hardening.plugins.module_utils import daemon_options, look_tls
from ansible_collections.bulkhead.hardening.plugins.module_utils.host import Host
from ansible_collections.bulkhead.hardening.plugins.module_utils.look_options import (
    BOOLEANS,
    bare_address,
    parse_size,
)
from ansible_collections.bulkhead.hardening.plugins.module_utils.transaction_accounts import (
    SUBID_FILES,
    Accounts,
)

#: The first engine release that has --validate.
VALIDATE_SINCE = (23, 0, 0)

#: Log drivers that the engine brings along (daemon/logger, releases 20.10 to 29).
_LOG_DRIVERS = frozenset(
    {"awslogs", "etwlogs", "fluentd", "gcplogs", "gelf", "journald", "json-file", "local",
     "logentries", "none", "splunk", "syslog"}
)  # fmt: skip

#: What every driver takes: the engine itself uses it (daemon/logger, factory.go and cache/validate.go).
_LOG_ANY = frozenset(
    {
        "cache-compress",
        "cache-disabled",
        "cache-max-file",
        "cache-max-size",
        "max-buffer-size",
        "mode",
    }
)
_LOG_ATTRIBUTES = frozenset({"labels", "labels-regex", "env", "env-regex", "tag"})
#: What they take: options, and the prefix of more (ValidateLogOpt in daemon/logger/*/).
_LOG_OPTS: dict[str, tuple[frozenset[str], str]] = {
    "awslogs": (frozenset({"tag"}), "awslogs-"),
    "fluentd": (_LOG_ATTRIBUTES, "fluentd-"),
    "gelf": (_LOG_ATTRIBUTES, "gelf-"),
    "journald": (_LOG_ATTRIBUTES, ""),
    "json-file": (_LOG_ATTRIBUTES | {"max-file", "max-size", "compress"}, ""),
    "local": (frozenset({"max-file", "max-size", "compress"}), ""),
    "syslog": (_LOG_ATTRIBUTES, "syslog-"),
}


class Facts(typing.NamedTuple):
    """What else decides whether a daemon.json works on this host.

    ``version``: of the engine, or None when there is none yet. ``flags``: keys that are set on the
    daemon's command line, with the file that does. ``planned``: keys that this plan sets or puts
    back. ``contents``: files that the plan places or removes (None), by path. ``log_drivers``: what
    the running engine lists, plugins included. ``selinux``: whether SELinux is active. ``users``
    and ``ranges``: users that the plan creates or gives subordinate ids. ``plugins``: the engine's
    managed plugins that are enabled. ``systemd_cgroups``: whether its cgroup driver is systemd.
    """

    version: str | None
    flags: dict[str, str]
    planned: frozenset[str]
    contents: dict[str, bytes | None]
    log_drivers: frozenset[str]
    selinux: bool
    users: frozenset[str]
    ranges: frozenset[str]
    plugins: frozenset[str] = frozenset()
    systemd_cgroups: bool = False


_Check = typing.Callable[[Host, dict[str, typing.Any], Facts], typing.Optional[str]]


def _seccomp(host: Host, document: dict[str, typing.Any], facts: Facts) -> str | None:
    """The file is read at the daemon's start, and understood only at each container's start."""
    path = document["seccomp-profile"]
    old = facts.version is not None and daemon_options.release(facts.version) < VALIDATE_SINCE
    if path in ("builtin", "unconfined"):
        return "Docker Engine %s takes %r for a file name" % (facts.version, path) if old else None
    if path == "":
        return None
    if not path.startswith("/"):
        return "%r is not an absolute path" % path
    try:
        content = facts.contents[path] if path in facts.contents else host.read_bytes(path)
    except OSError as exc:
        return "%s: %s" % (path, exc.strerror)
    if content is None:
        return "%s is removed by the same plan" % path
    try:
        profile = json.loads(content.decode("utf-8"))
    except ValueError as exc:
        return "%s is not JSON (%s); every container would fail to start" % (path, exc)
    if not isinstance(profile, dict) or not isinstance(profile.get("defaultAction"), str):
        return "%s has no defaultAction; it is not a seccomp profile" % path
    wrong = _seccomp_rules(profile)
    return "%s: %s; every container would fail to start" % (path, wrong) if wrong else None


#: What a rule may do (runtime-spec config-linux.md "seccomp").
_ACTIONS = frozenset(
    "SCMP_ACT_" + name
    for name in ("ALLOW", "ERRNO", "KILL", "KILL_PROCESS", "KILL_THREAD", "LOG", "NOTIFY", "TRACE", "TRAP")
)  # fmt: skip


def _seccomp_rules(profile: dict[str, typing.Any]) -> str | None:
    """Return what of a profile the engine would refuse at each container's start."""
    if profile.get("architectures") and profile.get("archMap"):
        return "architectures and archMap exclude each other"
    rules = profile.get("syscalls") or []
    if not isinstance(rules, list) or not all(isinstance(rule, dict) for rule in rules):
        return "syscalls is no list of rules"
    for action in [profile["defaultAction"], *(rule.get("action") for rule in rules)]:
        if action not in _ACTIONS:
            return "%r is no action such as SCMP_ACT_ERRNO" % (action,)
    for rule in rules:
        names = rule.get("names") or [rule.get("name")]
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            return "there is a rule without names of calls"
        if rule.get("names") and rule.get("name"):
            return "name and names exclude each other"
    return None


def _userns(host: Host, document: dict[str, typing.Any], facts: Facts) -> str | None:
    value = document["userns-remap"]
    if value in ("", "host"):
        return None
    refused = _features(host, document, facts)
    if refused:
        return refused
    if value == "default":
        return "'default' lets the engine choose ids that may overlap others; name a user"
    user = value.partition(":")[0]
    accounts = Accounts(host)
    if not user.isdigit() and user not in facts.users and accounts.uid(user) is None:
        return "there is no user %r" % user
    for path in SUBID_FILES:
        named = any(name == user for name, _, _ in accounts.ranges(path))
        if not named and user not in facts.ranges:
            return "%s has no range for %s" % (path, user)
    return None


def _runtime(host: Host, document: dict[str, typing.Any], facts: Facts) -> str | None:
    value = document["default-runtime"]
    known = document.get("runtimes")
    if value in ("runc", "io.containerd.runc.v2") or (isinstance(known, dict) and value in known):
        return None
    if "runtimes" in facts.flags or re.match(r"io\.containerd\.|/", value):
        return None
    return "there is no runtime %r; define it under runtimes" % value


def _runtimes(host: Host, document: dict[str, typing.Any], facts: Facts) -> str | None:
    """The engine starts without the program of a runtime; containers that use it do not."""
    for name, item in sorted(document["runtimes"].items()):
        if name in ("runc", "io.containerd.runc.v2"):
            return "the name %s is the engine's own" % name
        fields = item if isinstance(item, dict) else {}
        path, shim = fields.get("path") or "", fields.get("runtimeType") or ""
        if not isinstance(path, str) or not isinstance(shim, str) or bool(path) == bool(shim):
            return "%s needs either a path or a runtimeType" % name
        if path.startswith("/") and path not in facts.contents:
            # What is a link may lead out of a tree that is not this process's root.
            st = host.lstat(host.resolve(path) or path)
            if st is None or not stat.S_ISREG(st.st_mode) or not st.st_mode & 0o111:
                return "%s: %s is no program" % (name, path)
    return None


def _log_driver(host: Host, document: dict[str, typing.Any], facts: Facts) -> str | None:
    value = document["log-driver"]
    if value in _LOG_DRIVERS or value in facts.log_drivers:
        # Options that stay as they were must suit the new driver too.
        return None if "log-opts" in facts.planned else _log_opts(host, document, facts)
    if not facts.log_drivers:  # not running: it may be a plugin
        return None
    return "there is no log driver %r; the engine lists %s" % (
        value,
        ", ".join(sorted(facts.log_drivers)),
    )


def _log_opts(host: Host, document: dict[str, typing.Any], facts: Facts) -> str | None:
    """Each driver refuses options that it does not know, at the daemon's start."""
    options = document.get("log-opts")
    if not isinstance(options, dict):
        return None
    wrong = sorted(k for k, v in options.items() if not isinstance(v, str))
    if wrong:
        return "the engine wants texts; %s is none" % ", ".join(wrong)
    if "log-driver" in facts.flags:
        return None
    driver = document.get("log-driver", "json-file")
    modes = ("", "blocking", "non-blocking")
    if driver != "none" and options.get("mode", "") not in modes:
        return "mode is %r, not blocking or non-blocking" % options["mode"]
    if driver != "none" and "max-buffer-size" in options and options.get("mode") != modes[2]:
        return "max-buffer-size needs mode non-blocking"
    accepted, prefix = _accepted_log_opts(driver, facts)
    if accepted is None:
        return None
    wrong_value = _log_values(driver, options)
    if wrong_value:
        return wrong_value + "; every container would fail to start"
    accepted |= {name for name in options if prefix and name.startswith(prefix)}
    unknown = sorted(set(options) - accepted)
    if unknown:
        return "the log driver %s does not take %s; the engine would not start" % (
            driver,
            ", ".join(unknown),
        )
    return None


def _log_values(driver: str, options: dict[str, str]) -> str | None:
    """The engine looks at names alone; each container's driver refuses values (jsonfilelog.go)."""
    for name in ("max-size", "max-buffer-size"):
        # -1 is without a limit
        size = parse_size(options[name]) if name in options else 1
        if not isinstance(size, int) or (size < 1 and (name, size) != ("max-size", -1)):
            return "%s is %r, not a size such as 10m" % (name, options[name])
    files = options.get("max-file", "1")
    if not re.match(r"[1-9]\d{0,8}\Z", files):
        return "max-file is %r, not a number from 1" % files
    compress = options.get("compress", "false")
    if compress not in BOOLEANS:
        return "compress is %r, not true or false" % compress
    rotates = files != "1" and options.get("max-size", "-1") != "-1"
    if driver == "json-file" and BOOLEANS[compress] and not rotates:
        return "compress needs max-size and a max-file of 2 or more"
    return None


def _accepted_log_opts(driver: str, facts: Facts) -> tuple[frozenset[str] | None, str]:
    """Return the options that a log driver takes and the prefix of others; None: not known."""
    accepted, prefix = _LOG_OPTS.get(driver, (None, ""))
    if accepted is not None:
        accepted |= _LOG_ANY
        if driver == "local" and daemon_options.release(facts.version or "29") >= (29, 0, 0):
            accepted |= _LOG_ATTRIBUTES
    return accepted, prefix


#: Words that an option is limited to (moby daemon/config and daemon/command, 20.10 to 29).
_WORDS: dict[str, frozenset[str]] = {
    "default-cgroupns-mode": frozenset({"host", "private"}),
    "default-ipc-mode": frozenset({"private", "shareable"}),
    "firewall-backend": frozenset({"", "iptables", "nftables"}),
    "log-format": frozenset({"json", "text"}),
    "log-level": frozenset(
        {"debug", "error", "fatal", "info", "panic", "trace", "warn", "warning"}
    ),
}


def _word(key: str) -> _Check:
    def check(host: Host, document: dict[str, typing.Any], facts: Facts) -> str | None:
        if document[key].lower() in _WORDS[key]:
            return None
        return "%r is none of %s" % (document[key], ", ".join(sorted(_WORDS[key])))

    return check


#: The smallest numbers that the engine takes.
_LEAST = {
    "max-concurrent-downloads": 0,
    "max-concurrent-uploads": 0,
    "max-download-attempts": 1,
    "mtu": 0,
}


def _number(key: str) -> _Check:
    def check(host: Host, document: dict[str, typing.Any], facts: Facts) -> str | None:
        value, least = document[key], _LEAST[key]
        return "%d is below %d" % (value, least) if value < least else None

    return check


def _exclude(first: str, second: str, value: object) -> _Check:
    """Two keys that the engine does not take together; the second only with that value, if any."""

    def check(host: Host, document: dict[str, typing.Any], facts: Facts) -> str | None:
        one, other = document.get(first), document.get(second)
        if one in (None, "", True) or other in (None, "") or (value is not None and other != value):
            return None
        return "the engine does not take %s and %s together" % (first, second)

    return check


def _exec_opts(host: Host, document: dict[str, typing.Any], facts: Facts) -> str | None:
    for item in document["exec-opts"]:
        name, separator, value = str(item).partition("=")
        if not separator:
            return "%r is not NAME=VALUE" % item
        if name == "native.cgroupdriver" and value not in ("cgroupfs", "systemd"):
            return "%r is neither cgroupfs nor systemd" % value
    return None


def _cgroup_parent(host: Host, document: dict[str, typing.Any], facts: Facts) -> str | None:
    parent = document["cgroup-parent"]
    if facts.systemd_cgroups and parent and not re.match(r".+\.slice\Z", parent):
        return "%r does not end in .slice, as the systemd cgroup driver wants" % parent
    return None


def _dns_search(host: Host, document: dict[str, typing.Any], facts: Facts) -> str | None:
    label = r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?"
    for item in document["dns-search"]:
        text = str(item).strip()
        named = re.match(r"%s(?:\.%s)*\.?\Z" % (label, label), text) and re.search("[A-Za-z]", text)
        if text != "." and not (named and len(text) < 255):
            return "%r is not a domain" % item
    return None


def _insecure_registries(host: Host, document: dict[str, typing.Any], facts: Facts) -> str | None:
    for item in document["insecure-registries"]:
        text = re.sub(r"\Ahttps?://", "", str(item), flags=re.IGNORECASE)
        if "://" in text or "@" in text:
            return "%r is not HOST, HOST:PORT or a network" % bare_address(str(item))
    return None


def _dns(host: Host, document: dict[str, typing.Any], facts: Facts) -> str | None:
    for item in document["dns"]:
        try:
            ipaddress.ip_address(str(item))
        except ValueError:
            return "%r is not an IP address" % item
    return None


def _mirrors(host: Host, document: dict[str, typing.Any], facts: Facts) -> str | None:
    """What may be a password is not shown (registry/config.go, ValidateMirror)."""
    for item in document["registry-mirrors"]:
        try:
            url = urllib.parse.urlsplit(str(item))
        except ValueError:
            return "one of them is not a URL"
        if url.scheme not in ("http", "https") or not url.netloc:
            return "%r is not an http or https URL" % bare_address(str(item))
        if "@" in url.netloc or url.query or url.fragment:
            return "%r must have no user, query or fragment" % bare_address(str(item))
    return None


def _tls(key: str) -> _Check:
    def check(host: Host, document: dict[str, typing.Any], facts: Facts) -> str | None:
        path = document[key]
        if path in facts.contents:
            return None if facts.contents[path] else "%s is removed by the same plan" % path
        named = {name: document[name] for name in look_tls.DEFAULT_NAMES if document.get(name)}
        found = {row["key"]: row["problem"] for row in look_tls.examine(host, named)}
        return "%s: %s" % (path, found[key]) if found.get(key) else None

    return check


#: Where dockerd finds a plugin that is no managed one (moby pkg/plugins/discovery_unix.go).
_PLUGIN_PLACES = (
    "/run/docker/plugins/%s.sock",
    "/run/docker/plugins/%s/%s.sock",
    "/etc/docker/plugins/%s.spec",
    "/etc/docker/plugins/%s.json",
    "/usr/lib/docker/plugins/%s.spec",
    "/usr/lib/docker/plugins/%s.json",
)


def _authorization(host: Host, document: dict[str, typing.Any], facts: Facts) -> str | None:
    """A plugin that is missing stops the daemon at its start, and at a reload."""
    for item in document["authorization-plugins"]:
        name = str(item)
        places = [place.replace("%s", name) for place in _PLUGIN_PLACES]
        managed = facts.plugins & {name, name + ":latest"}
        if not managed and not any(host.lstat(place) for place in places):
            return "there is no plugin %r on this host; the engine would not start" % name
    return None


def _features(host: Host, document: dict[str, typing.Any], facts: Facts) -> str | None:
    """From 29 on an explicit containerd-snapshotter is refused beside userns-remap (daemon.go)."""
    explicit = document.get("features") or {}
    if (
        isinstance(explicit, dict)
        and explicit.get("containerd-snapshotter") is True
        and document.get("userns-remap")
        and daemon_options.release(facts.version or "29") >= (29, 0, 0)
    ):
        return "containerd-snapshotter is refused beside userns-remap; remove it from features"
    return None


def _selinux(host: Host, document: dict[str, typing.Any], facts: Facts) -> str | None:
    if document["selinux-enabled"] and not facts.selinux:
        return "SELinux is not active on this host, so it would only look protected"
    return None


def _hosts(host: Host, document: dict[str, typing.Any], facts: Facts) -> str | None:
    for item in document["hosts"]:
        # An address without a scheme is TCP to dockerd (moby, opts/hosts.go).
        scheme, separator, _ = str(item).lower().partition("://")
        if separator and scheme not in ("fd", "tcp", "unix"):
            return "%s:// is none of fd, tcp and unix" % scheme
    local = ("unix://", "fd://", "/")
    remote = [str(item) for item in document["hosts"] if not str(item).lower().startswith(local)]
    if remote and document.get("tlsverify") is not True and "tlsverify" not in facts.flags:
        return "%s without tlsverify gives everybody on the network root" % ", ".join(remote)
    for item in remote:
        reason = _not_mine(item)
        if reason:
            return reason
    return None


def _not_mine(url: str) -> str | None:
    """Return why the daemon could not listen at an address, or None; names are left to the engine."""
    match = re.match(r"tcp://(?:\[([^\]]+)\]|([^:]+)):\d+\Z", url.lower())
    try:
        address = ipaddress.ip_address((match.group(1) or match.group(2)) if match else "")
    except ValueError:
        return None
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.bind((str(address), 0))  # any port: whether this one is free the daemon finds out
    except OSError as exc:
        return "%s: %s" % (url, exc.strerror)
    return None


def _tls_alone(key: str) -> _Check:
    def check(host: Host, document: dict[str, typing.Any], facts: Facts) -> str | None:
        if document[key] and not document.get("hosts") and "hosts" not in facts.flags:
            # moby cmd/dockerd, loadListeners: the default address changes with it.
            return (
                "without hosts the engine would leave its unix socket for TCP port 2376; set hosts"
            )
        return None

    return check


def _ulimits(host: Host, document: dict[str, typing.Any], facts: Facts) -> str | None:
    for name, value in sorted(document["default-ulimits"].items()):
        if not isinstance(value, dict) or value.get("Name") != name:
            return "%s is not {Name: %s, Soft, Hard}" % (name, name)
        soft, hard = value.get("Soft"), value.get("Hard")
        if not isinstance(soft, int) or not isinstance(hard, int):
            return "%s needs whole numbers for Soft and Hard" % name
        # -1 is unlimited
        if hard != -1 and (soft == -1 or soft > hard):
            return "%s: the soft limit %s is above the hard limit %s" % (name, soft, hard)
        most = _most_open_files(host) if name == "nofile" else None
        if most is not None and (hard == -1 or hard > most):
            return (
                "nofile: the hard limit %s is above fs.nr_open, %d, which the kernel grants nobody; "
                "every container would fail to start" % ("unlimited" if hard == -1 else hard, most)
            )
    return None


def _most_open_files(host: Host) -> int | None:
    """Return the highest limit of open files that the kernel grants (kernel/sys.c, do_prlimit)."""
    try:
        text = host.read_text("/proc/sys/fs/nr_open").strip()
    except OSError:
        return None
    return int(text) if re.match(r"[0-9]{1,10}\Z", text, re.ASCII) else None


CHECKS: dict[str, _Check] = {
    **{key: _word(key) for key in _WORDS},
    **{key: _number(key) for key in _LEAST},
    **{key: _tls(key) for key in ("tlscacert", "tlscert", "tlskey")},
    **{key: _tls_alone(key) for key in ("tls", "tlsverify")},
    **{key: _exclude("bridge", "bip", None) for key in ("bip", "bridge")},
    **{key: _exclude("icc", "iptables", False) for key in ("icc", "iptables")},
    "authorization-plugins": _authorization,
    "cgroup-parent": _cgroup_parent,
    "default-runtime": _runtime,
    "default-ulimits": _ulimits,
    "dns": _dns,
    "dns-search": _dns_search,
    "exec-opts": _exec_opts,
    "features": _features,
    "hosts": _hosts,
    "insecure-registries": _insecure_registries,
    "log-driver": _log_driver,
    "log-opts": _log_opts,
    "registry-mirrors": _mirrors,
    "runtimes": _runtimes,
    "seccomp-profile": _seccomp,
    "selinux-enabled": _selinux,
    "userns-remap": _userns,
}
