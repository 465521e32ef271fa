# Copyright: (c) 2026, the Bulkhead authors
# Apache License 2.0 (see LICENSE)
"""The functions that checks may call in JMESPath, beside those of the language.

Each answers null when what it is asked about is null: what is not known is never a pass.
"""

from __future__ import annotations

import re
import typing
import urllib.parse

import jmespath
from jmespath import functions

from ansible_collections.bulkhead.hardening.plugins.module_utils import selinux
from ansible_collections.bulkhead.hardening.plugins.module_utils.daemon_options import release
from ansible_collections.bulkhead.hardening.plugins.module_utils.look_common import address_class
from ansible_collections.bulkhead.hardening.plugins.plugin_utils import (
    audit_watch,
    capabilities,
)
from ansible_collections.bulkhead.hardening.plugins.plugin_utils.audit_watch import within

Json = dict[str, typing.Any]

_OPTIONAL_TEXT = {"types": ["string", "null"]}
_OPTIONAL_NUMBER = {"types": ["number", "null"]}
_LIST = {"types": ["array", "null"]}
_TEXT = {"types": ["string"]}
#: Words in names of variables whose values are secrets.
_SECRET = re.compile(
    r"passw(?:or)?d|passphrase|secret|token|credential|private_?key|api_?key|access_?key", re.I
)


_Method = typing.TypeVar("_Method", bound=typing.Callable[..., typing.Any])


def _takes(*arguments: typing.Any) -> typing.Callable[[_Method], _Method]:
    return typing.cast("typing.Callable[[_Method], _Method]", functions.signature(*arguments))


class Functions(functions.Functions):
    """The language's own functions, and these."""

    @_takes(_OPTIONAL_TEXT, _TEXT)
    def _func_mode_within(self, mode: str | None, allowed: str) -> bool | None:
        """``mode_within('0640', '0644')``: no bit beyond the allowed ones is set."""
        return None if mode is None else not int(mode, 8) & ~int(allowed, 8)

    @_takes(_OPTIONAL_TEXT, _TEXT)
    def _func_path_within(self, path: str | None, directory: str) -> bool | None:
        """``path_within('/etc/docker', '/etc')``: it is the directory, or lies below it."""
        return None if path is None else within(path, directory)

    @_takes(_LIST)
    def _func_without_tls(self, urls: list[str] | None) -> list[str] | None:
        """Return those URLs on whose way others can be: neither by https nor on a loopback address."""
        if urls is None:
            return None
        return [url for url in urls if not url.lower().startswith("https://") and not _own(url)]

    @_takes(_LIST, _LIST)
    def _func_paths_touching(
        self, paths: list[str] | None, directories: list[str] | None
    ) -> list[str] | None:
        """Return those paths that are one of the directories, lie below one, or contain one."""
        if paths is None or directories is None:
            return None
        return [
            path
            for path in paths
            if path and any(within(path, one) or within(one, path) for one in directories)
        ]

    @_takes(_OPTIONAL_TEXT, _TEXT)
    def _func_before(self, text: str | None, mark: str) -> str | None:
        """``before('0:0', ':')``: the text up to the mark, all of it without one."""
        return None if text is None else text.partition(mark)[0]

    @_takes(_OPTIONAL_TEXT, _TEXT)
    def _func_version_at_least(self, version: str | None, least: str) -> bool | None:
        """``version_at_least('26.1.5+dfsg1', '25.0')``; null for what is no version."""
        try:
            return None if version is None else release(version) >= release(least)
        except ValueError:
            return None

    @_takes({"types": ["string", "array", "null"]})
    def _func_capabilities(self, value: str | list[str] | None) -> list[str] | None:
        """Return the names in a mask, or a list of names in their plain form; null when invalid."""
        if value is None:
            return None
        try:
            mask = value if isinstance(value, str) else capabilities.encode(value)
            return capabilities.decode(mask)
        except ValueError:
            return None

    @_takes(_LIST, _LIST)
    def _func_without(
        self, items: list[typing.Any] | None, others: list[typing.Any] | None
    ) -> list[typing.Any] | None:
        """Return the items of one list that are not in another."""
        if items is None or others is None:
            return None
        return [item for item in items if item not in others]

    @_takes(_OPTIONAL_NUMBER, _OPTIONAL_NUMBER)
    def _func_days_between(self, earlier: float | None, later: float | None) -> float | None:
        """Return the days from one moment to another; both are seconds since the epoch."""
        return None if earlier is None or later is None else (later - earlier) / 86400

    @_takes({"types": ["object"]}, _LIST, _TEXT)
    def _func_watched(self, thing: Json, rules: list[Json] | None, wanted: str) -> bool | None:
        """``watched(object, host.audit.loaded, 'wa')``: everybody's writes and changes are recorded."""
        return None if rules is None else audit_watch.watched(thing, rules, wanted)

    @_takes({"types": ["object"]}, _LIST, _TEXT)
    def _func_watched_sessions(
        self, thing: Json, rules: list[Json] | None, wanted: str
    ) -> bool | None:
        """``watched``, but of those who logged in, and of whatever they started, alone."""
        return None if rules is None else audit_watch.watched(thing, rules, wanted, sessions=True)

    @_takes({"types": ["object"]}, _LIST, _TEXT)
    def _func_silenced_by(self, thing: Json, rules: list[Json] | None, wanted: str) -> str | None:
        """Return the rule, as a line, that keeps some of those accesses from being recorded."""
        rule = None if rules is None else audit_watch.silencer(thing, rules, wanted)
        return None if rule is None else audit_watch.written(rule)

    @_takes({"types": ["object"]}, _LIST)
    def _func_records_of(self, image: Json, records: list[Json] | None) -> list[Json] | None:
        """``records_of(object, host.trust.records)``: those of bulkhead-pull about an image."""
        if records is None:
            return None
        names = {(_repository(row), row["digest"]) for row in image["references"]}
        return [row for row in records if (row["repository"], row["digest"]) in names]

    @_takes({"types": ["object"]}, _LIST)
    def _func_moved_tags(self, image: Json, records: list[Json] | None) -> list[str] | None:
        """Return the tags of an image under which bulkhead-pull last pulled another one."""
        if records is None:
            return None
        last = {(row["repository"], row["tag"]): row["digest"] for row in records}
        names = {(_repository(row), row["digest"]) for row in image["references"]}
        tags = {(_repository(row), row["tag"]) for row in image["references"] if row["tag"]}
        moved = [one for one in tags if one in last and (one[0], last[one]) not in names]
        return [f"{repository}:{tag}" for repository, tag in sorted(moved)]

    @_takes(_OPTIONAL_TEXT)
    def _func_selinux_type(self, label: str | None) -> str | None:
        """``selinux_type('system_u:system_r:container_t:s0')``; null for what is no label."""
        return selinux.type_of(label)

    @_takes(_LIST)
    def _func_secret_names(self, names: list[str] | None) -> list[str] | None:
        """Return the names that sound like a secret's, but not those that name a file of one."""
        if names is None:
            return None
        return [name for name in names if _SECRET.search(name) and not name.endswith("_FILE")]


def _repository(reference: Json) -> str:
    return f"{reference['registry']}/{reference['repository']}"


OPTIONS: typing.Final = jmespath.Options(custom_functions=Functions())


def names() -> frozenset[str]:
    """Return the names of all functions that an expression may call."""
    return frozenset(Functions.FUNCTION_TABLE)


def called(node: Json) -> set[str]:
    """Return the names of the functions that a parsed expression calls."""
    found = {node["value"]} if node["type"] == "function_expression" else set()
    for child in node["children"]:
        if isinstance(child, dict):
            found |= called(child)
    return found


def miscounted(node: Json) -> list[tuple[str, int, int]]:
    """Return the calls in a parsed expression with a wrong number of arguments.

    :returns: of each the name, how many it is given, and how many it takes.
    """
    found = []
    if node["type"] == "function_expression":
        wanted = Functions.FUNCTION_TABLE[node["value"]]["signature"]
        given = len(node["children"])
        open_ended = bool(wanted) and bool(wanted[-1].get("variadic"))
        if given < len(wanted) or (given > len(wanted) and not open_ended):
            found.append((node["value"], given, len(wanted)))
    for child in node["children"]:
        if isinstance(child, dict):
            found += miscounted(child)
    return found


def _own(url: str) -> bool:
    """Tell whether a URL names the host itself."""
    try:
        host = urllib.parse.urlsplit(url).hostname or ""
    except ValueError:
        return False
    return host == "localhost" or address_class(host) == "loopback"
