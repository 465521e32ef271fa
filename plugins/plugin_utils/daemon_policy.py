# Copyright: (c) 2026, the Bulkhead authors
# Apache License 2.0 (see LICENSE)
"""The policy of ``docker_daemon``: its variables read, checked and resolved against a profile.

Every setting takes ``profile`` (what the profile in force says), ``unmanaged`` (leave the host's value
alone) or a value of its own. Nothing here knows a host.
"""

from __future__ import annotations

import dataclasses
import difflib
import ipaddress
import re
import typing

from ansible_collections.bulkhead.hardening.plugins.module_utils.daemon_options import (
    OPTIONS,
    PLAIN_LOG_OPTS,
    release,
)
from ansible_collections.bulkhead.hardening.plugins.plugin_utils import scalars
from ansible_collections.bulkhead.hardening.plugins.plugin_utils.plan import Json, PolicyError

ROLE = "docker_daemon"
PROFILE = "profile"
UNMANAGED = "unmanaged"
PROFILES = ("auto", "compatible", "strict")

#: The user whose sub-ids containers run as. The only one that Bulkhead creates itself.
DEFAULT_USERNS_USER = "bulkhead-remap"

#: How many ids a container has: every one that an image may use (nobody is 65534).
DEFAULT_USERNS_SIZE = 65536

#: A registry as images name it: HOST or HOST:PORT.
REGISTRY = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]*(?::[0-9]{1,5})?\Z")

#: What each profile sets. None: the profile does not speak of it.
#: The reasons for the numbers are in roles/docker_daemon/README.md.
COMPATIBLE: Json = {
    "live_restore": True,
    "seccomp_profile": "builtin",
    "log_opts": {"max-size": "10m", "max-file": "5"},
    "ulimits": {"nofile": {"soft": 65536, "hard": 524288}},
    "pids_limit": 2048,
    "file_modes": True,
    "userns_remap": None,
    "icc": None,
    "no_new_privileges": None,
    "userland_proxy": None,
}
STRICT: Json = {
    **COMPATIBLE,
    "ulimits": {"nofile": {"soft": 16384, "hard": 65536}},
    "pids_limit": 1024,
    "userns_remap": True,
    "icc": False,
    "no_new_privileges": True,
    "userland_proxy": False,
}
PROFILE_VALUES: dict[str, Json] = {"compatible": COMPATIBLE, "strict": STRICT}

#: The settings that are one whole key of daemon.json: policy name, key, CIS Docker 1.8.0 id.
KEY_SETTINGS: tuple[tuple[str, str, str], ...] = (
    ("live_restore", "live-restore", "2.16"),
    ("icc", "icc", "2.2"),
    ("no_new_privileges", "no-new-privileges", "2.15"),
    ("userland_proxy", "userland-proxy", "2.17"),
    ("seccomp_profile", "seccomp-profile", "2.18"),
)

#: Keys of daemon.json that have a variable of their own.
OWN_VARIABLE = {
    **{key: name for name, key, _ in KEY_SETTINGS},
    "default-ulimits": "ulimits",
    "log-opts": "log_opts",
    "userns-remap": "userns_remap",
}

#: The files of the API's TLS: members of docker_daemon_tls, and their keys in daemon.json.
TLS_FILES = {"cacert": "tlscacert", "cert": "tlscert", "key": "tlskey"}

#: Values that would weaken a host; docker_daemon_options refuses them.
WEAKENING: dict[str, tuple[object, str]] = {
    "iptables": (False, "containers would lose their isolation and NAT rules"),
    "ip6tables": (False, "containers would be reachable over IPv6 without a filter"),
    "tls": (False, "a daemon on TCP without TLS gives root to whoever reaches it"),
    "tlsverify": (False, "without client certificates anybody who reaches the API is root"),
    "allow-direct-routing": (True, "container ports would be reachable past their publishing"),
    "ip-forward-no-drop": (True, "the host would route for anyone"),
    "rootless": (True, "a rootless daemon is another installation, not an option"),
    "security-insecure": (True, "builds could run without any confinement"),
    "experimental": (True, "CIS 2.19 wants experimental features off in production"),
    "debug": (True, "CIS 2.3 wants the log level info"),
}

#: Names of resource limits that the daemon accepts (docker/go-units, ulimit.go).
ULIMITS = frozenset(
    {"core", "cpu", "data", "fsize", "locks", "memlock", "msgqueue", "nice", "nofile", "nproc"}
    | {"rss", "rtprio", "rttime", "sigpending", "stack"}
)


def variable(name: str) -> str:
    """Return the public variable behind a policy name: ``icc`` gives ``docker_daemon_icc``."""
    return f"{ROLE}_{name}"


@dataclasses.dataclass(frozen=True)
class Policy:
    """The checked policy.

    ``settings`` maps the names of :data:`COMPATIBLE` to ``profile``, ``unmanaged`` or a value of the
    right type. The other fields are the variables of the same names.
    """

    profile: str
    settings: Json
    options: Json
    options_accept_hidden_data: bool
    expect_engine: str
    userns_user: str
    userns_start: int
    userns_size: int
    userns_accept_hidden_data: bool
    restart: str
    restart_stops_containers: bool
    take_over_flags: tuple[str, ...]
    containers_tasks_max: int
    tcp_hosts: tuple[str, ...]
    tcp_any_address: bool
    tls: dict[str, str]
    accept_insecure_registries: frozenset[str]


def _boolean(name: str, value: object) -> bool:
    return scalars.boolean(variable(name), value)


def _integer(name: str, value: object, low: int, high: int) -> int:
    return scalars.integer(variable(name), value, low, high)


def _text(name: str, value: object) -> str:
    if not isinstance(value, str) or len(value) > 4096 or any(ord(c) < 32 for c in value):
        raise PolicyError(variable(name), value, "give a line of text")
    return value


def _seccomp_profile(name: str, value: object) -> str:
    text = _text(name, value)
    if text == "unconfined":
        raise PolicyError(
            variable(name),
            value,
            "this would switch seccomp off for every container; give builtin or the path of a profile",
        )
    if text != "builtin" and not text.startswith("/"):
        raise PolicyError(variable(name), value, "give builtin or the absolute path of a profile")
    return text


def _log_opts(name: str, value: object) -> dict[str, str]:
    if not isinstance(value, dict):
        raise PolicyError(variable(name), value, "give a mapping such as {max-size: 10m}")
    checked = {}
    for key, item in value.items():
        if key not in PLAIN_LOG_OPTS:
            raise PolicyError(
                f"{variable(name)}[{key}]",
                item,
                f"only {', '.join(sorted(PLAIN_LOG_OPTS))} are managed; others may hold credentials",
            )
        if isinstance(item, bool) or not isinstance(item, (str, int)) or item == "":
            raise PolicyError(f"{variable(name)}[{key}]", item, "give a text such as '10m' or '5'")
        checked[str(key)] = str(item)
    return checked


def _ulimits(name: str, value: object) -> dict[str, dict[str, int]]:
    if not isinstance(value, dict):
        raise PolicyError(
            variable(name), value, "give a mapping such as {nofile: {soft: 65536, hard: 524288}}"
        )
    checked = {}
    for key, item in value.items():
        where = f"{name}[{key}]"
        if key == "nproc":
            raise PolicyError(
                variable(where),
                item,
                "nproc counts per user id over all containers, not per container; "
                "use docker_daemon_pids_limit",
            )
        if key not in ULIMITS:
            raise PolicyError(variable(where), item, f"the limits are {', '.join(sorted(ULIMITS))}")
        if not isinstance(item, dict) or set(item) != {"soft", "hard"}:
            raise PolicyError(variable(where), item, "give {soft: N, hard: N}; -1 is unlimited")
        limits = {}
        for side in ("soft", "hard"):
            limits[side] = (
                -1
                if str(item[side]) == "-1"
                else _integer(f"{where}.{side}", item[side], 0, 2**63 - 1)
            )
        if limits["hard"] != -1 and (limits["soft"] == -1 or limits["soft"] > limits["hard"]):
            raise PolicyError(
                variable(where),
                item,
                "the soft limit is above the hard one; lower soft or raise hard",
            )
        checked[str(key)] = limits
    return checked


def _pids_limit(name: str, value: object) -> int:
    # Below some tens no ordinary image starts; above, the kernel's own pid limit is what counts.
    return _integer(name, value, 16, 4194304)


def _tasks_max(name: str, value: object) -> int:
    """Check a limit of processes that 0 switches off."""
    try:
        return 0 if _integer(name, value, 0, 4194304) == 0 else _pids_limit(name, value)
    except PolicyError:
        fix = "give 0 for no limit, or a whole number from 16 to 4194304"
        raise PolicyError(variable(name), value, fix) from None


_READERS: dict[str, typing.Callable[[str, object], object]] = {
    "live_restore": _boolean,
    "icc": _boolean,
    "no_new_privileges": _boolean,
    "userland_proxy": _boolean,
    "userns_remap": _boolean,
    "file_modes": _boolean,
    "seccomp_profile": _seccomp_profile,
    "log_opts": _log_opts,
    "ulimits": _ulimits,
    "pids_limit": _pids_limit,
}

_KINDS: dict[str, tuple[type, ...]] = {
    "boolean": (bool,),
    "string": (str,),
    "integer": (int,),
    "list": (list,),
    "map": (dict,),
}


#: What the elements of a list are, where they are no texts.
_ELEMENTS: dict[str, tuple[type, str]] = {"default-address-pools": (dict, "mappings")}


def is_local(address: object) -> bool:
    """Tell whether an address of the API is on no network."""
    # An address without a scheme is TCP to dockerd (moby, opts/hosts.go).
    return str(address).strip().lower().startswith(("unix://", "fd://", "/"))


def _insecure(value: object) -> frozenset[str]:
    """Check the names of registries that may be spoken to without a good certificate."""
    name = variable("accept_insecure_registries")
    if not isinstance(value, (list, tuple)):
        raise PolicyError(name, value, "give a list such as [registry.example.com:5000]")
    for item in value:
        if not REGISTRY.match(str(item)):
            raise PolicyError(name, item, "give HOST or HOST:PORT, not a network and not a URL")
    return frozenset(map(str, value))


def _registries(options: Json, accepted: frozenset[str]) -> None:
    """Refuse registries and mirrors whose images anybody on the way could swap."""
    where = f"{variable('options')}[insecure-registries]"
    for item in options.get("insecure-registries", []):
        if item not in accepted:
            raise PolicyError(
                where,
                item,
                "anybody on the way could hand out other images; give the registry a certificate and place "
                "its authority (docker_trust_registry_cas), or accept it by its name in "
                f"{variable('accept_insecure_registries')}",
            )
    for item in options.get("registry-mirrors", []):
        if not str(item).startswith("https://") or "@" in str(item):
            shown = "(hidden)" if "@" in str(item) else item
            fix = "give an https URL without a user: anybody on the way could hand out other images"
            raise PolicyError(f"{variable('options')}[registry-mirrors]", shown, fix)


def _kind(where: str, key: str, value: object) -> None:
    """Refuse a value of a key, or an element of it, that is not of the type that dockerd wants."""
    kind = OPTIONS[key].kind
    if not isinstance(value, _KINDS[kind]) or (kind == "integer" and isinstance(value, bool)):
        raise PolicyError(where, value, f"dockerd wants a {kind} here")
    element, called = _ELEMENTS.get(key, (str, "texts"))
    for one in value if isinstance(value, list) else ():
        if not isinstance(one, element):
            raise PolicyError(where, one, f"dockerd wants a list of {called} here")


def _options(value: object, insecure: frozenset[str]) -> Json:
    """Check ``docker_daemon_options``: further keys of daemon.json, each with a value of its type.

    :param insecure: registries that may be named as insecure.
    """
    name = variable("options")
    if not isinstance(value, dict):
        raise PolicyError(name, value, "give a mapping of daemon.json keys to values")
    for key, item in value.items():
        option = OPTIONS.get(key)
        where = f"{name}[{key}]"
        if option is None:
            near = difflib.get_close_matches(str(key), OPTIONS, 1)
            hint = f"; did you mean {near[0]}?" if near else ""
            if key == "default-pids-limit":
                hint = "; use docker_daemon_pids_limit"
            raise PolicyError(
                where, item, f"no engine knows this key, and dockerd does not start with it{hint}"
            )
        if key in OWN_VARIABLE:
            raise PolicyError(where, item, f"use {variable(OWN_VARIABLE[key])} for it")
        if option.secret:
            raise PolicyError(
                where,
                "(hidden)",
                "this key may hold credentials and is not managed; write it to daemon.json by other "
                "means, it is kept there",
            )
        _kind(where, key, item)
        if isinstance(item, dict) and {} in list(item.values()):
            raise PolicyError(where, item, "an empty member says nothing; leave it out")
        weak = WEAKENING.get(str(key))
        if weak and item == weak[0]:
            raise PolicyError(where, item, f"this would weaken the host: {weak[1]}; leave it out")
    _registries(value, insecure)
    remote = [item for item in value.get("hosts", []) if not is_local(item)]
    if remote:
        raise PolicyError(
            f"{name}[hosts]",
            remote,
            f"give TCP addresses in {variable('tcp_hosts')}, which sees to it that they ask for client "
            "certificates (tlsverify): whoever reaches one that does not is root",
        )
    return dict(value)


def _take_over_flags(value: object) -> tuple[str, ...]:
    """Check the keys whose flags daemon.json is to take over."""
    name = variable("take_over_flags")
    if not isinstance(value, (list, tuple)):
        raise PolicyError(name, value, "give a list of daemon.json keys such as [hosts]")
    for key in value:
        if not isinstance(key, str) or key not in OPTIONS:
            near = difflib.get_close_matches(str(key), OPTIONS, 1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise PolicyError(name, key, f"give keys as daemon.json names them{hint}")
        if OPTIONS[key].secret or key == "userns-remap":
            raise PolicyError(name, key, "this one cannot be taken over; move it by hand")
    return tuple(sorted(set(value)))


def _tcp_hosts(value: object, any_address: bool) -> tuple[str, ...]:
    """Check the addresses at which the API is reached over the network."""
    name = variable("tcp_hosts")
    if not isinstance(value, (list, tuple)):
        raise PolicyError(name, value, "give a list such as [tcp://192.0.2.10:2376]")
    for item in value:
        match = re.match(r"tcp://(?:\[([0-9a-f:.]+)\]|([0-9.]+)):([1-9][0-9]{0,4})\Z", str(item))
        try:
            address = ipaddress.ip_address((match.group(1) or match.group(2)) if match else "")
        except ValueError:
            match = None
        if match is None or int(match.group(3)) > 65535:
            raise PolicyError(
                name,
                item,
                "give tcp://ADDRESS:PORT with an IP address of the host, such as "
                "tcp://192.0.2.10:2376 or tcp://[2001:db8::10]:2376",
            )
        if address.is_unspecified and not any_address:
            raise PolicyError(
                name,
                item,
                "this is every address of the host, also those that it gets one day; name the one that "
                f"its clients use, or accept it with {variable('tcp_any_address')}: true",
            )
    return tuple(dict.fromkeys(value))


def _tls(value: object) -> dict[str, str]:
    """Check the paths of the files for the API's TLS; returned by the keys of daemon.json."""
    name = variable("tls")
    if not isinstance(value, dict) or set(value) - set(TLS_FILES):
        raise PolicyError(
            name, value, "give a mapping {cacert: PATH, cert: PATH, key: PATH} of files on the host"
        )
    for key, path in value.items():
        parts = path[1:].split("/") if isinstance(path, str) and path.startswith("/") else [""]
        if {"", ".", ".."} & set(parts):
            raise PolicyError(
                f"{name}[{key}]", path, "give the absolute path of a file on the host"
            )
        _text(f"tls[{key}]", path)
    return {TLS_FILES[key]: path for key, path in value.items()}


def _check_api(policy: Policy) -> Policy:
    """Refuse an API on the network whose settings are incomplete, or given twice."""
    if not policy.tcp_hosts:
        return policy
    missing = [key for key, name in TLS_FILES.items() if name not in policy.tls]
    if missing:
        raise PolicyError(
            variable("tls"),
            {key: policy.tls[name] for key, name in TLS_FILES.items() if name in policy.tls},
            f"{variable('tcp_hosts')} needs {', '.join(missing)} too: paths on the host of the authority "
            "that signs its clients' certificates, of the server's certificate and of its private key",
        )
    for key in ("tls", "tlsverify", *TLS_FILES.values()):
        if key in policy.options:
            raise PolicyError(
                f"{variable('options')}[{key}]",
                policy.options[key],
                f"{variable('tcp_hosts')} and {variable('tls')} set it; leave it out here",
            )
    return policy


def restart(value: object) -> str:
    """Check ``docker_daemon_restart``, which other roles ask too."""
    if value not in ("when_needed", "never"):
        raise PolicyError(variable("restart"), value, "give when_needed or never")
    return str(value)


def restart_stops_containers(value: object) -> bool:
    """Check ``docker_daemon_restart_stops_containers``, which other roles ask too."""
    return _boolean("restart_stops_containers", value)


def read(raw: typing.Mapping[str, typing.Any]) -> Policy:
    """Check a policy as the role hands it in, without a host.

    :param raw: the public variables of ``docker_daemon`` without their prefix.
    :raises PolicyError: naming the variable, its value and the fix.
    """
    if not isinstance(raw, dict):
        raise PolicyError("policy", raw, "give a mapping of the docker_daemon variables")
    known = set(_READERS) | {field.name for field in dataclasses.fields(Policy)} - {"settings"}
    for name in raw:
        if name not in known:
            raise PolicyError(variable(str(name)), raw[name], "there is no such variable")
    profile = raw.get("profile", "auto")
    if profile not in PROFILES:
        raise PolicyError(variable("profile"), profile, f"give one of {', '.join(PROFILES)}")
    settings: Json = {}
    for name, reader in _READERS.items():
        value = raw.get(name, PROFILE)
        settings[name] = value if value in (PROFILE, UNMANAGED) else reader(name, value)
    expect = _text("expect_engine", raw.get("expect_engine", ""))
    if expect:
        try:
            release(expect)
        except ValueError:
            raise PolicyError(
                variable("expect_engine"), expect, "give an engine version such as 26.1.5"
            ) from None
    user = _text("userns_user", raw.get("userns_user", DEFAULT_USERNS_USER))
    if user in ("", "default", "root") or ":" in user:
        raise PolicyError(
            variable("userns_user"),
            user,
            "give the name of a user: default lets dockerd pick ranges that may overlap, "
            "and root switches remapping off",
        )
    insecure = _insecure(raw.get("accept_insecure_registries", []))
    any_address = _boolean("tcp_any_address", raw.get("tcp_any_address", False))
    checked = Policy(
        profile=profile,
        settings=settings,
        options=_options(raw.get("options", {}), insecure),
        options_accept_hidden_data=_boolean(
            "options_accept_hidden_data", raw.get("options_accept_hidden_data", False)
        ),
        accept_insecure_registries=insecure,
        expect_engine=expect,
        userns_user=user,
        userns_start=_integer("userns_start", raw.get("userns_start", 0), 0, 2**32 - 65537),
        userns_size=_integer(
            "userns_size",
            raw.get("userns_size", DEFAULT_USERNS_SIZE),
            DEFAULT_USERNS_SIZE,
            2**24,
        ),
        userns_accept_hidden_data=_boolean(
            "userns_accept_hidden_data", raw.get("userns_accept_hidden_data", False)
        ),
        restart=restart(raw.get("restart", "when_needed")),
        restart_stops_containers=restart_stops_containers(
            raw.get("restart_stops_containers", False)
        ),
        take_over_flags=_take_over_flags(raw.get("take_over_flags", [])),
        containers_tasks_max=_tasks_max("containers_tasks_max", raw.get("containers_tasks_max", 0)),
        tcp_hosts=_tcp_hosts(raw.get("tcp_hosts", []), any_address),
        tcp_any_address=any_address,
        tls=_tls(raw.get("tls", {})),
    )
    return _check_api(checked)
