# Copyright: (c) 2026, the Bulkhead authors
# Apache License 2.0 (see LICENSE)
"""Taking secrets out of what other programs say, before it leaves the host.

dockerd quotes values in its messages: a flag and a key that contradict each other with both values,
an address with its password. So known values are replaced wherever they stand, and what looks like
a secret is replaced too. It takes out too much rather than too little.
"""

from __future__ import annotations

import json
import re
import typing

from ansible_collections.bulkhead.hardening.plugins.module_utils.host import Host
from ansible_collections.bulkhead.hardening.plugins.module_utils.look_options import (
    parse_flags,
    shown,
)
from ansible_collections.bulkhead.hardening.plugins.module_utils.look_systemd import Word

HIDDEN = "(hidden)"

#: Shorter values say little, and would hide half of every message.
_SHORTEST = 4

_PATTERNS = (
    # dockerd: the following directives are specified both as a flag and in the configuration file
    (re.compile(r"\(from flag: .*?, from file: .*?\)(?=, [\w-]+: \(from flag: |[^)]*$)"), HIDDEN),
    (re.compile(r"(?<=://)[^/\s\"']+@"), HIDDEN + "@"),
    (re.compile(r"(?i)\b((?:bearer|basic)\s+)[\w.~+/=-]+"), r"\1" + HIDDEN),
    (
        re.compile(
            r"(?i)([\w-]*(?:token|secret|passw(?:or)?d|passphrase|credential|api-?key|access-?key"
            r"|private-?key|authorization)[\w-]*[\"']?\s*[=:]\s*)(?:\"[^\"]*\"|'[^']*'|[^\s\"',;\]}]+)"
        ),
        r"\1" + HIDDEN,
    ),
)
_OPAQUE = re.compile(r"[A-Za-z0-9+_=-]{24,}")
_IDENTIFIER = re.compile(r"\A[0-9a-f]{64}\Z")


def redact(text: str, secrets: typing.Iterable[str] = ()) -> str:
    """Return a text without these secrets, and without what looks like one.

    A container's id is shortened to its twelve digits.
    """
    for secret in sorted({item for item in secrets if len(item) >= _SHORTEST}, key=len)[::-1]:
        text = text.replace(secret, HIDDEN)
    return _OPAQUE.sub(_opaque, without_credentials(text))


def without_credentials(text: str) -> str:
    """Return a text without what is marked as a secret: in an address, or behind a name of one."""
    for pattern, replacement in _PATTERNS:
        text = pattern.sub(replacement, text)
    return text


def _opaque(match: re.Match[str]) -> str:
    word = match.group(0)
    if _IDENTIFIER.match(word):
        return word[:12]
    mixed = re.search(r"[0-9]", word) and re.search(r"[A-Za-z]", word)
    # Words joined by hyphens are names: of options, units and files.
    return HIDDEN if mixed and max(map(len, re.split(r"[-_]", word))) >= 20 else word


def secrets_of(host: Host, config: str, arguments: typing.Sequence[str]) -> set[str]:
    """Return the values in a daemon.json and on a daemon's command line that may not be shown."""
    found: set[str] = set()
    try:
        document = json.loads(host.read_bytes(config).decode("utf-8-sig", "replace"))
    except (OSError, ValueError):
        document = None
    if isinstance(document, dict):
        for key, value in document.items():
            found |= _hidden(str(key), value)
    settings, _ = parse_flags([Word(text, "flag", "") for text in arguments])
    for key, setting in settings.items():
        found |= _hidden(key, setting.value)
    return found


def _hidden(key: str, value: typing.Any) -> set[str]:
    seen = shown(key, value)
    if not seen.redacted:
        return set()
    return _texts(value) - (_texts(seen.value) if seen.visible else set())


def _texts(value: typing.Any) -> set[str]:
    if isinstance(value, dict):
        return set().union(*map(_texts, value.values())) if value else set()
    if isinstance(value, (list, tuple)):
        return set().union(*map(_texts, value)) if value else set()
    return {value} if isinstance(value, str) else set()
