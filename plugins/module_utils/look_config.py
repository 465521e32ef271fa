# Copyright: (c) 2026, the Bulkhead authors
# Apache License 2.0 (see LICENSE)
"""The daemon's configuration file: what state it is in, and which keys it holds.

The rules are those of moby's daemon/config/config.go: an empty file is fine, a byte order mark is
(from 24.0 on), duplicate keys pass in silence, comments do not.
"""

from __future__ import annotations

import codecs
import hashlib
import json
import os
import posixpath
import stat as stat_module
import typing

from ansible_collections.bulkhead.hardening.plugins.module_utils.host import Host
from ansible_collections.bulkhead.hardening.plugins.module_utils.look_common import (
    Mapping,
    os_reason,
)
from ansible_collections.bulkhead.hardening.plugins.module_utils.look_options import (
    json_type,
    shown,
)

# UTF-32 is not on the list: the engine does not know it either. Longest marks would come first.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)


_NOTHING = object()


class ConfigFile:
    """A read daemon.json. ``values`` still holds its secrets and stays on the host.

    ``sha256`` (of its bytes) and ``changed_at`` are None unless it is a file that could be read.
    ``changed_at`` is the later one of mtime and ctime: ``cp -p`` brings an old mtime along.
    """

    def __init__(self, host: Host, path: str) -> None:
        self.path = path
        self.state = "absent"
        self.reason: str | None = None
        self.values: Mapping = {}
        self.byte_order_mark = False
        self.duplicate_keys: list[str] = []
        self.sha256: str | None = None
        self.changed_at: float | None = None
        self.version = host.version(path)
        self._read(host)

    def _read(self, host: Host) -> None:
        try:
            status = host.lstat(self.path)
            if status is None:
                return
            if stat_module.S_ISLNK(status.st_mode):
                self.state, self.reason = "symlink", "a symbolic link"
            elif not stat_module.S_ISREG(status.st_mode):
                self.state, self.reason = "irregular", "not a regular file"
            else:
                data = host.read_bytes(self.path)
                self.sha256 = hashlib.sha256(data).hexdigest()
                self.changed_at = max(status.st_mtime, status.st_ctime)
                self._parse(data)
        except OSError as exc:
            self.state, self.reason = "unreadable", os_reason(exc)

    def _parse(self, data: bytes) -> None:
        encoding = "utf-8"
        for mark, name in _MARKS:
            if data.startswith(mark):
                self.byte_order_mark, encoding = True, name
                data = data[len(mark) :]
        content = data.decode(encoding, "replace")
        if not content.strip():
            self.state = "empty"
            return
        try:
            document = json.loads(
                content, object_pairs_hook=self._object, parse_constant=_refuse_constant
            )
        except json.JSONDecodeError as exc:
            self.state = "invalid"
            self.reason = "line %d column %d: %s" % (exc.lineno, exc.colno, exc.msg)
        except (ValueError, RecursionError) as exc:
            self.state = "invalid"
            self.reason = "nested too deeply" if isinstance(exc, RecursionError) else str(exc)
        else:
            if isinstance(document, dict):
                self.state, self.values = "valid", document
            else:
                self.state = "not_an_object"
                self.reason = "the top level is a %s, not an object" % json_type(document)

    def _object(self, pairs: list[tuple[str, typing.Any]]) -> Mapping:
        found: Mapping = {}
        for name, value in pairs:
            if name in found and name not in self.duplicate_keys:
                self.duplicate_keys.append(name)
            found[name] = value
        return found

    def observation(self, host: Host) -> Mapping:
        """Return the section ``daemon_config``: all keys, the values of known and harmless ones."""
        keys = {key: _key(key, value) for key, value in self.values.items()}
        return {
            "path": self.path,
            "state": self.state,
            "reason": self.reason,
            "version": self.version,
            "attributes": host.attributes(self.path),
            "read_only_filesystem": read_only(host, posixpath.dirname(self.path)),
            "byte_order_mark": self.byte_order_mark,
            "duplicate_keys": self.duplicate_keys,
            "keys": keys,
        }


def _key(key: str, value: typing.Any) -> Mapping:
    """Return ``{"type", "value"?, "redacted"?}`` of a key; of a map ``{"type", "members"}``."""
    visible = shown(key, value)
    if not isinstance(value, dict):
        return _entry(value, visible.value if visible.visible else _NOTHING, visible.redacted)
    members = {}
    for name, item in value.items():
        seen = visible.value.get(name, _NOTHING) if visible.visible else _NOTHING
        members[name] = _entry(item, seen, seen is _NOTHING or seen != item)
    return {"type": "map", "members": members}


def _entry(value: typing.Any, seen: typing.Any, redacted: bool) -> Mapping:
    entry: Mapping = {"type": json_type(value)}
    if seen is not _NOTHING:
        entry["value"] = seen
    if redacted:
        entry["redacted"] = True
    return entry


def _refuse_constant(name: str) -> typing.NoReturn:
    # Python would take NaN and Infinity, Go does not.
    raise ValueError("%s is not JSON" % name)


def read_only(host: Host, directory: str) -> bool:
    """Tell whether a directory, or the nearest one above that exists, is mounted read-only."""
    while True:
        try:
            return bool(os.statvfs(host.path(directory)).f_flag & os.ST_RDONLY)
        except OSError:
            if directory == "/":
                return False
            directory = posixpath.dirname(directory)
