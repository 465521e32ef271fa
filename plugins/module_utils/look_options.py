# Copyright: (c) 2026, the Bulkhead authors
# Apache License 2.0 (see LICENSE)
"""dockerd's options: from its command line, from daemon.json, and what of a value may be shown.

Names and types of the flags: moby cmd/dockerd/options.go, config.go and config_unix.go of the
releases 20.10 to 29.7. Flags are parsed as github.com/spf13/pflag does.
"""

from __future__ import annotations

import re
import typing

from ansible_collections.bulkhead.hardening.plugins.module_utils.daemon_options import (
    OPTIONS,
    PLAIN_LOG_OPTS,
)
from ansible_collections.bulkhead.hardening.plugins.module_utils.look_common import Mapping
from ansible_collections.bulkhead.hardening.plugins.module_utils.look_systemd import Word

CONFIG_FILE = "/etc/docker/daemon.json"

#: Flags whose key in daemon.json has another name.
_KEYS = {
    "add-runtime": "runtimes",
    "authorization-plugin": "authorization-plugins",
    "cdi-spec-dir": "cdi-spec-dirs",
    "cluster-store-opt": "cluster-store-opts",
    "containerd-plugins-namespace": "containerd-plugin-namespace",
    "default-address-pool": "default-address-pools",
    "default-network-opt": "default-network-opts",
    "default-ulimit": "default-ulimits",
    "dns-opt": "dns-opts",
    "exec-opt": "exec-opts",
    "feature": "features",
    "graph": "data-root",
    "host": "hosts",
    "insecure-registry": "insecure-registries",
    "label": "labels",
    "log-opt": "log-opts",
    "node-generic-resource": "node-generic-resources",
    "nri-opt": "nri-opts",
    "registry-mirror": "registry-mirrors",
    "storage-opt": "storage-opts",
}

_SHORT = {
    "D": "debug",
    "G": "group",
    "H": "host",
    "b": "bridge",
    "g": "graph",
    "h": "help",
    "l": "log-level",
    "p": "pidfile",
    "r": "restart",
    "s": "storage-driver",
    "v": "version",
}

#: Flags (by long name) that are no option of daemon.json.
COMMANDS = frozenset({"config-file", "help", "restart", "validate", "version"})
_COMMAND_SWITCHES = COMMANDS - {"config-file"}

#: Options whose value is, or may hold, an address with a user and password in front.
_ADDRESSES = frozenset(
    {"cluster-advertise", "cluster-store", "containerd", "hosts", "insecure-registries",
     "metrics-addr", "registry-mirrors"}
)  # fmt: skip


class Setting(typing.NamedTuple):
    """The value of one option as flags or the environment set it (still with its secrets)."""

    value: typing.Any
    source: str
    where: str | None


def parse_flags(
    words: typing.Sequence[Word], config_file: str = CONFIG_FILE
) -> tuple[dict[str, Setting], str]:
    """Return what a daemon's arguments set, by daemon.json key, and its configuration file.

    :param words: the arguments without the program. Source and place of an option that is given
        several times are those of the last one.
    :param config_file: the one that counts when no argument names another.
    """
    settings: dict[str, Setting] = {}
    for name, text, word in flags_of(words):
        if name == "config-file":
            config_file = text
        elif name not in COMMANDS:
            key = key_of(name)
            before = settings[key].value if key in settings else None
            settings[key] = Setting(_convert(key, text, before), word.source, word.where)
    return settings, config_file


def key_of(name: str) -> str:
    """Return the key of daemon.json for the long name of a flag."""
    return _KEYS.get(name, name)


def flags_of(arguments: typing.Sequence[Word]) -> list[tuple[str, str, Word]]:
    """Take arguments apart into (long name, value, the word that names the flag)."""
    found = []
    words = list(arguments)
    while words:
        word = words.pop(0)
        if word.text == "--":
            break
        if word.text.startswith("--"):
            name, separator, value = word.text[2:].partition("=")
            if not separator:
                value = "true" if _is_switch(name) else _take(words)
            found.append((name, value, word))
        elif word.text.startswith("-") and len(word.text) > 1:
            found.extend(_short_flags(word, words))
    return found


def _short_flags(word: Word, words: list[Word]) -> list[tuple[str, str, Word]]:
    """Take ``-D``, ``-DH x``, ``-Hx`` and ``-H=x`` apart."""
    found = []
    rest = word.text[1:]
    while rest:
        name, rest = _SHORT.get(rest[0], rest[0]), rest[1:]
        if rest.startswith("="):
            value, rest = rest[1:], ""
        elif _is_switch(name):
            value = "true"
        elif rest:
            value, rest = rest, ""
        else:
            value = _take(words)
        found.append((name, value, word))
    return found


def _take(words: list[Word]) -> str:
    return words.pop(0).text if words else ""


def _is_switch(name: str) -> bool:
    option = OPTIONS.get(key_of(name))
    return name in _COMMAND_SWITCHES or (option is not None and option.kind == "boolean")


# -- values ------------------------------------------------------------------------------------
#: strconv.ParseBool
BOOLEANS = {"1": True, "t": True, "T": True, "TRUE": True, "true": True, "True": True}
BOOLEANS.update({"0": False, "f": False, "F": False, "FALSE": False, "false": False})
BOOLEANS["False"] = False


def _convert(key: str, text: str, before: typing.Any) -> typing.Any:
    """Return a flag's text as the value that daemon.json would hold; lists and maps accumulate."""
    option = OPTIONS.get(key)
    kind = option.kind if option else "string"
    if kind == "boolean":
        return BOOLEANS.get(text, text)
    if kind == "integer":
        return parse_size(text)
    if kind == "list":
        item = _address_pool(text) if key == "default-address-pools" else text
        return [*(before or []), item]
    if kind == "map":
        return dict(before or {}, **_map_entry(key, text, before or {}))
    return text


def _map_entry(key: str, text: str, before: Mapping) -> Mapping:
    name, _, value = text.partition("=")
    if key == "default-ulimits":
        return {name: parse_ulimit(text)}
    if key == "runtimes":
        return {name: {"path": value}}
    if key == "features":
        return {name: BOOLEANS.get(value or "true", value)}
    if key == "default-network-opts":  # bridge=com.docker.network.bridge.enable_icc=false
        option, _, value = value.partition("=")
        return {name: dict(before.get(name, {}), **{option: value})}
    return {name: value}


def _address_pool(text: str) -> Mapping:
    """``base=10.0.0.0/8,size=24`` gives ``{"base": "10.0.0.0/8", "size": 24}``."""
    pool: Mapping = dict(part.partition("=")[::2] for part in text.split(","))
    if "size" in pool:
        pool["size"] = parse_size(pool["size"])
    return pool


def parse_ulimit(text: str) -> Mapping:
    """``nofile=1024:2048`` gives ``{"Name": "nofile", "Soft": 1024, "Hard": 2048}``.

    Without a hard limit it equals the soft one (go-units ulimit.go). What is no number stays text.
    """
    name, _, limits = text.partition("=")
    soft, _, hard = limits.partition(":")
    return {"Name": name, "Soft": _number(soft), "Hard": _number(hard or soft)}


def _number(text: str) -> typing.Any:
    return int(text) if re.match(r"-?\d{1,19}\Z", text) else text


_SIZE = re.compile(r"(\d{1,15}(?:\.\d+)?) ?([kKmMgGtTpP]?)i?[bB]?\Z")


def parse_size(text: str) -> typing.Any:
    """Return a number of bytes: ``64M`` is 67108864 (go-units size.go); other text as it is."""
    if re.match(r"-?\d{1,19}\Z", text):
        return int(text)
    match = _SIZE.match(text)
    if not match:
        return text
    return int(float(match.group(1)) * 1024 ** (" kmgtp".index(match.group(2).lower() or " ")))


# -- what may be shown ---------------------------------------------------------------------------
def json_type(value: typing.Any) -> str:
    """Return the name of a JSON value's type, in the words of daemon_options."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int):
        return "integer"
    if isinstance(value, float):
        return "number"
    if isinstance(value, str):
        return "string"
    return "list" if isinstance(value, (list, tuple)) else "map"


class Shown(typing.NamedTuple):
    """What of a value may leave the host. ``redacted``: something was taken out, or all of it."""

    visible: bool
    value: typing.Any
    redacted: bool


_HIDDEN = Shown(False, None, True)


def shown(key: str, value: typing.Any) -> Shown:
    """Return what of an option's value may leave the host.

    Nothing of unknown and secret options, and nothing whose type is not the option's own: it was
    put there for another purpose. Of log-opts and runtimes the harmless part, of addresses all but
    user, password and query.
    """
    option = OPTIONS.get(key)
    if option is None or option.secret or json_type(value) != option.kind:
        return _HIDDEN
    if key == "log-opts":
        plain = {
            name: item
            for name, item in value.items()
            if name in PLAIN_LOG_OPTS and isinstance(item, str)
        }
        return Shown(True, plain, len(plain) != len(value))
    if key == "runtimes":
        return _shown_runtimes(value)
    plain_list = option.kind == "list" and key != "default-address-pools"
    if plain_list and not all(isinstance(item, str) for item in value):
        return _HIDDEN
    if key in _ADDRESSES:
        bare = [bare_address(item) for item in value] if option.kind == "list" else None
        plain_value = bare if bare is not None else bare_address(value)
        return Shown(True, plain_value, plain_value != value)
    return Shown(True, value, False)


def _shown_runtimes(value: Mapping) -> Shown:
    """Show where runtimes are, not their arguments and options: they are command lines."""
    plain = {
        name: {
            field: item[field]
            for field in ("path", "runtimeType")
            if isinstance(item, dict) and isinstance(item.get(field), str)
        }
        for name, item in value.items()
    }
    return Shown(True, plain, plain != value)


def bare_address(address: str) -> str:
    """Return an address without user, password, query and fragment.

    Takes out too much rather than too little: everything up to the last ``@``.
    """
    scheme, separator, rest = address.partition("://")
    if not separator:
        scheme, rest = "", address
    rest = rest.rpartition("@")[2]
    return scheme + separator + re.split(r"[?#]", rest, maxsplit=1)[0]
