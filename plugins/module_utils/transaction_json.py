# Copyright: (c) 2026, the Bulkhead authors
# Apache License 2.0 (see LICENSE)
"""Setting and removing top-level members of a JSON file while every other byte stays as it is.

A file that people also edit by hand keeps their order, indentation and spelling of numbers. What
was set and is removed again leaves the bytes of before.
"""

from __future__ import annotations

import json
import typing
from json.decoder import scanstring  # type: ignore[attr-defined]

_BLANK = " \t\r\n"
_BYTE_ORDER_MARK = "\ufeff"
#: Indentation of a file that has none yet, as in Docker's own documentation.
_INDENT = "  "


class _Member(typing.NamedTuple):
    key: str
    start: int
    value_start: int
    end: int
    value: typing.Any


class JsonFile:
    """The text of a JSON object and its members.

    :raises ValueError: not UTF-8, not a JSON object, or a key twice; the message says where.
    """

    def __init__(self, data: bytes) -> None:
        text = data.decode("utf-8")
        self._mark = _BYTE_ORDER_MARK if text.startswith(_BYTE_ORDER_MARK) else ""
        text = text[len(self._mark) :]
        # The engine takes an empty file for an empty object (daemon/config/config.go).
        self._text = text if text.strip() else "{}\n"
        self._members = _scan(self._text)

    @property
    def value(self) -> dict[str, typing.Any]:
        """The object as Python sees it."""
        return {member.key: member.value for member in self._members}

    def render(self) -> bytes:
        """Return the file's content."""
        return (self._mark + self._text).encode("utf-8")

    def set(self, key: str, value: typing.Any) -> None:
        """Set a member; an equal value stays as it is written, a new one goes to the end."""
        for member in self._members:
            if member.key == key:
                if not same(member.value, value):
                    text = self._dump(value)
                    self._replace(member.value_start, member.end, text)
                return
        added = "%s: %s" % (json.dumps(key, ensure_ascii=False), self._dump(value))
        newline, indent = self._layout()
        if self._members:
            end = self._members[-1].end
            self._replace(end, end, "," + (newline + indent if newline else " ") + added)
            return
        opening, closing = self._text.index("{") + 1, self._text.rindex("}")
        self._replace(opening, closing, "\n%s%s\n" % (indent, added))

    def set_member(self, key: str, member: str, value: typing.Any) -> None:
        """Set one member of the object under a key; the object's other members stay as they are.

        :raises ValueError: there is something else than an object under that key.
        """
        outer = self._find(key)
        if outer is None or outer.value == {}:
            self.set(key, {member: value})
            return
        inner = self._inner(outer)
        inner.set(member, value)
        self._replace(outer.value_start, outer.end, inner._text)

    def remove_member(self, key: str, member: str) -> None:
        """Remove one member of the object under a key, if both are there; the object stays."""
        outer = self._find(key)
        if outer is not None and isinstance(outer.value, dict):
            inner = self._inner(outer)
            inner.remove(member)
            self._replace(outer.value_start, outer.end, inner._text)

    def _find(self, key: str) -> _Member | None:
        return next((member for member in self._members if member.key == key), None)

    def _inner(self, outer: _Member) -> JsonFile:
        if not isinstance(outer.value, dict):
            raise ValueError("%r is not an object there" % outer.key)
        return JsonFile(self._text[outer.value_start : outer.end].encode("utf-8"))

    def remove(self, key: str) -> None:
        """Remove a member, if it is there, with its comma."""
        for number, member in enumerate(self._members):
            if member.key != key:
                continue
            if number:
                self._replace(self._members[number - 1].end, member.end, "")
            elif len(self._members) > 1:
                self._replace(member.start, self._members[1].start, "")
            else:
                self._replace(self._text.index("{") + 1, self._text.rindex("}"), "")
            return

    def _replace(self, start: int, end: int, text: str) -> None:
        self._text = self._text[:start] + text + self._text[end:]
        self._members = _scan(self._text)

    def _layout(self) -> tuple[str, str]:
        """Return line break ("" for a file on one line) and indentation of the members."""
        if not self._members:
            return "\n", _INDENT
        blank = self._text[self._text.index("{") + 1 : self._members[0].start]
        if "\n" not in blank:
            return "", ""
        return ("\r\n" if "\r\n" in blank else "\n"), blank.rpartition("\n")[2]

    def _dump(self, value: typing.Any) -> str:
        newline, indent = self._layout()
        if not newline:
            return json.dumps(value, ensure_ascii=False)
        text = json.dumps(value, ensure_ascii=False, indent=indent)
        return text.replace("\n", newline + indent)


def same(left: typing.Any, right: typing.Any) -> bool:
    """Tell whether two JSON values are equal; unlike Python, 1, 1.0 and true differ."""
    return json.dumps(left, sort_keys=True) == json.dumps(right, sort_keys=True)


def _reject(name: str) -> typing.Any:
    raise ValueError("%s is not JSON" % name)


# json.JSONDecoder's raw_decode also tells where a value ends.
_DECODER = json.JSONDecoder(parse_constant=_reject)


def _scan(text: str) -> list[_Member]:
    position = _skip(text, 0)
    if text[position : position + 1] != "{":
        # Let the decoder name the place when it is not JSON at all.
        json.loads(text)
        raise ValueError("it is valid JSON, but not an object")
    members: list[_Member] = []
    seen: set[str] = set()
    position = _skip(text, position + 1)
    if text[position : position + 1] == "}":
        _expect_end(text, position + 1)
        return members
    while True:
        start = position
        if text[position : position + 1] != '"':
            raise json.JSONDecodeError("expected a key in double quotes", text, position)
        key, position = scanstring(text, position + 1, True)
        position = _skip(text, position)
        if text[position : position + 1] != ":":
            raise json.JSONDecodeError("expected ':'", text, position)
        value_start = _skip(text, position + 1)
        value, end = _DECODER.raw_decode(text, value_start)
        if key in seen:
            raise ValueError("the key %r is there twice: remove one of them" % key)
        seen.add(key)
        members.append(_Member(key, start, value_start, end, value))
        position = _skip(text, end)
        sign = text[position : position + 1]
        if sign == "}":
            _expect_end(text, position + 1)
            return members
        if sign != ",":
            raise json.JSONDecodeError("expected ',' or '}'", text, position)
        position = _skip(text, position + 1)


def _skip(text: str, position: int) -> int:
    while position < len(text) and text[position] in _BLANK:
        position += 1
    return position


def _expect_end(text: str, position: int) -> None:
    position = _skip(text, position)
    if position < len(text):
        raise json.JSONDecodeError("unexpected text after the object", text, position)
