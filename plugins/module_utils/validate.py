# Copyright: (c) 2026, the Bulkhead authors
# Apache License 2.0 (see LICENSE)
"""Is this daemon.json one with which the engine will start, and its containers too?

``dockerd --validate`` knows best where it exists (23.0 and later), given the flags of the unit: an
option that is both a flag and a key stops the daemon, even with equal values. It misses what only
shows at start or in the first container, so that is checked here; see :func:`problems`.
"""

from __future__ import annotations

import ipaddress
import json
import re
import typing
import urllib.parse

from ansible_collections.bulkhead.hardening.plugins.module_utils import (
    daemon_options,
    transaction_files as files,
)
from ansible_collections.bulkhead.hardening.plugins.module_utils.host import Host, HostError
from ansible_collections.bulkhead.hardening.plugins.module_utils.look_options import bare_address
from ansible_collections.bulkhead.hardening.plugins.module_utils.redact import redact, secrets_of
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

_JSON_TYPES: dict[str, tuple[type, ...]] = {
    "boolean": (bool,),
    "string": (str,),
    "list": (list,),
    "integer": (int,),
    "map": (dict,),
}


class Facts(typing.NamedTuple):
    """What else decides whether a daemon.json works on this host.

    ``version``: of the engine, or None when there is none yet. ``flags``: keys that are set on the
    daemon's command line, with the file that does. ``planned``: keys that this plan sets or puts
    back. ``contents``: files that the plan places or removes (None), by path. ``log_drivers``: what
    the running engine lists, plugins included. ``selinux``: whether SELinux is active. ``users``
    and ``ranges``: users that the plan creates or gives subordinate ids. ``plugins``: the engine's
    managed plugins that are enabled.
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


_Check = typing.Callable[[Host, dict[str, typing.Any], Facts], typing.Optional[str]]


def problems(host: Host, document: dict[str, typing.Any], facts: Facts) -> list[str]:
    """Return what would keep the engine from starting, or all containers; empty when nothing."""
    found: list[str] = []
    for key, value in document.items():
        found.extend(_key_problems(key, value, facts))
    for key in sorted(facts.planned & set(document)):
        check = _CHECKS.get(key)
        option = daemon_options.OPTIONS.get(key)
        # What has the wrong type was reported above.
        if check and option and _is_type(document[key], option.kind):
            reason = check(host, document, facts)
            if reason:
                found.append("%s: %s" % (key, reason))
    return found


def _key_problems(key: str, value: typing.Any, facts: Facts) -> list[str]:
    found = []
    option = daemon_options.OPTIONS.get(key)
    if not _known(key, facts):
        engine = "Docker Engine " + facts.version if facts.version else "no supported engine"
        hint = "%s: %s does not know this key and would not start; remove it from the policy"
        found.append(hint % (key, engine))
    elif option is not None and not _is_type(value, option.kind):
        found.append("%s: the engine wants a JSON %s" % (key, option.kind))
    # The one option for which flags and file are merged (daemon/config/config.go).
    if key in facts.flags and key != "runtimes":
        found.append(
            "%s: it is also set as a flag in %s, with which the engine refuses to start; "
            "remove one of the two" % (key, facts.flags[key])
        )
    return found


def _known(key: str, facts: Facts) -> bool:
    if facts.version is None:
        return key in daemon_options.OPTIONS or key not in facts.planned
    if daemon_options.knows(facts.version, key):
        return True
    # A key that was there before may be younger than our table; --validate has the last word.
    return key not in facts.planned and daemon_options.release(facts.version) >= VALIDATE_SINCE


def _is_type(value: typing.Any, kind: str) -> bool:
    if isinstance(value, bool):
        return kind == "boolean"
    return isinstance(value, _JSON_TYPES[kind])


# -- what --validate does not see ----------------------------------------------------------------
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
    accepted |= {name for name in options if prefix and name.startswith(prefix)}
    unknown = sorted(set(options) - accepted)
    if unknown:
        return "the log driver %s does not take %s; the engine would not start" % (
            driver,
            ", ".join(unknown),
        )
    return None


def _accepted_log_opts(driver: str, facts: Facts) -> tuple[frozenset[str] | None, str]:
    """Return the options that a log driver takes and the prefix of others; None: not known."""
    accepted, prefix = _LOG_OPTS.get(driver, (None, ""))
    if accepted is not None:
        accepted |= {"mode", "max-buffer-size"}
        if driver == "local" and daemon_options.release(facts.version or "29") >= (29, 0, 0):
            accepted |= _LOG_ATTRIBUTES
    return accepted, prefix


#: Words that an option is limited to (moby daemon/config and daemon/command, 20.10 to 29).
_WORDS: dict[str, frozenset[str]] = {
    "default-cgroupns-mode": frozenset({"host", "private"}),
    "default-ipc-mode": frozenset({"private", "shareable"}),
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


def _mtu(host: Host, document: dict[str, typing.Any], facts: Facts) -> str | None:
    return "%d is below 0" % document["mtu"] if document["mtu"] < 0 else None


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
        if facts.contents.get(path) is not None:
            return None
        try:
            empty = not host.read_bytes(path).strip() or path in facts.contents
        except OSError as exc:
            return "%s: %s" % (path, exc.strerror)
        return "%s is empty, or removed by the same plan" % path if empty else None

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
    # An address without a scheme is TCP to dockerd (moby, opts/hosts.go).
    local = ("unix://", "fd://", "/")
    remote = [str(item) for item in document["hosts"] if not str(item).lower().startswith(local)]
    if remote and document.get("tlsverify") is not True and "tlsverify" not in facts.flags:
        return "%s without tlsverify gives everybody on the network root" % ", ".join(remote)
    return None


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
    return None


_CHECKS: dict[str, _Check] = {
    **{key: _word(key) for key in _WORDS},
    **{key: _tls(key) for key in ("tlscacert", "tlscert", "tlskey")},
    "authorization-plugins": _authorization,
    "default-runtime": _runtime,
    "default-ulimits": _ulimits,
    "dns": _dns,
    "features": _features,
    "hosts": _hosts,
    "log-driver": _log_driver,
    "log-opts": _log_opts,
    "mtu": _mtu,
    "registry-mirrors": _mirrors,
    "seccomp-profile": _seccomp,
    "selinux-enabled": _selinux,
    "userns-remap": _userns,
}


# -- --validate ------------------------------------------------------------------------------------
def ask_engine(
    host: Host,
    command: typing.Sequence[str],
    version: str | None,
    staged: str,
    document: dict[str, typing.Any],
) -> str:
    """Let the engine itself check a staged daemon.json; return what was done, for the report.

    :param command: the daemon's program and arguments as its unit runs it. Values that must not be
        shown are taken out of what it says.
    :raises HostError: the engine refuses the file; with its own words.
    """
    if version is None or not command:
        return "there is no engine to ask yet"
    if daemon_options.release(version) < VALIDATE_SINCE:
        return "Docker Engine %s has no --validate" % version
    if document.get("userns-remap") == "default" and Accounts(host).uid("dockremap") is None:
        # It would create that user, also when it only validates (daemon/config, 23.0 to 29).
        return "not asked: with userns-remap 'default' the engine would create a user"
    argv = [*_without_config_file(command), "--validate", "--config-file=" + host.path(staged)]
    done = host.run(argv, timeout=60.0)
    if done.rc != 0:
        lines = [line for line in (done.err + "\n" + done.out).split("\n") if line.strip()]
        said = " | ".join(lines[-5:]) or "exit status %d" % done.rc
        said = said.replace(host.path(staged), "daemon.json")
        raise HostError(
            "dockerd --validate: " + redact(said, secrets_of(host, staged, command[1:]))
        )
    return "dockerd --validate accepts it"


def _without_config_file(command: typing.Sequence[str]) -> list[str]:
    kept: list[str] = []
    skip = False
    for word in command:
        if skip:
            skip = False
        elif word == "--config-file":
            skip = True
        elif not word.startswith("--config-file="):
            kept.append(word)
    return kept


def files_problem(host: Host, path: str) -> str | None:
    """Return why a file cannot be placed or replaced at a path, or None.

    :raises HostError: a link lies on the way.
    """
    st = files.status(host, path)
    for candidate in (path, path.rpartition("/")[0] or "/"):
        attributes = host.attributes(candidate)
        if attributes:
            return "%s is %s; take that off with chattr first" % (
                candidate,
                " and ".join(attributes).replace("_", " "),
            )
    if st is not None and not _regular(st.st_mode):
        return "%s is a link or no regular file" % path
    if files.free_space(host, path)[2]:
        return "%s lies on a file system that is mounted read-only" % path
    return None


def _regular(mode: int) -> bool:
    return (mode & 0o170000) == 0o100000
