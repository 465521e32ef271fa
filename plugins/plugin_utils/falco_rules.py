# Copyright: (c) 2026, the Bulkhead authors
# Apache License 2.0 (see LICENSE)
"""Rules of Falco as data: checked before any host meets them, and written as Falco reads them.

Falco itself judges conditions and fields, on the host, before a file is put in place; what is checked here
is the shape. Source: https://falco.org/docs/concepts/rules/basic-elements and
https://falco.org/docs/concepts/rules/overriding.
"""

from __future__ import annotations

import dataclasses
import datetime
import functools
import pathlib
import re
import typing

import yaml

from ansible_collections.bulkhead.hardening.plugins.plugin_utils.plan import Json, PolicyError

PRIORITIES: typing.Final = (
    *("emergency", "alert", "critical", "error", "warning", "notice", "informational", "info"),
    "debug",
)

#: By what an object is: the type of each of its fields.
_FIELDS: dict[str, dict[str, type]] = {
    "rule": {
        **dict.fromkeys(("rule", "desc", "condition", "output", "priority", "source"), str),
        "tags": list,
        "exceptions": list,
        "enabled": bool,
        "override": dict,
    },
    "macro": {"macro": str, "condition": str, "override": dict},
    "list": {"list": str, "items": list, "override": dict},
}
_NEEDED = {
    "rule": ("desc", "condition", "output", "priority"),
    "macro": ("condition",),
    "list": ("items",),
}
_NAMES = {
    "rule": re.compile(r"[A-Za-z][\x20-\x7e]{2,99}\Z"),
    "macro": re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,99}\Z"),
    "list": re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,99}\Z"),
}
_WAYS = ("append", "replace")
#: Falco's own names for lists of values may hold lists and macros; here they are single words.
_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9_./:@+-]{0,254}\Z")
_LINE = re.compile(r"[^\x00-\x1f\x7f-\x9f\u2028\u2029]{3,300}\Z")


@dataclasses.dataclass(frozen=True)
class Excepted:
    """Where a rule is not to fire, and why.

    :ivar image: repository of the container's image; None for any.
    :ivar process: name of the process; None for any.
    :ivar expires: the last day on which it holds.
    """

    rule: str
    reason: str
    owner: str
    expires: datetime.date
    image: str | None = None
    process: str | None = None


@functools.lru_cache(maxsize=1)
def known() -> Json:
    """Return ``{stable: [names], ours: [rules]}``, which is data."""
    path = pathlib.Path(__file__).with_name("falco_rules.yml")
    return typing.cast(Json, yaml.safe_load(path.read_text(encoding="utf-8")))


def names() -> frozenset[str]:
    """Return the rules that an attack may name."""
    return frozenset([*known()["stable"], *(item["rule"] for item in known()["ours"])])


# -- the shape of rules ----------------------------------------------------------------------------
def check(items: object, variable: str) -> list[Json]:
    """Return rules, macros and lists that have the shape of such.

    :raises PolicyError: naming the object, its value and the fix.
    """
    if not isinstance(items, list):
        raise PolicyError(variable, items, "make it a list of rules, macros and lists")
    for number, item in enumerate(items):
        _check_object(item, f"{variable}[{number}]")
    return items


def _check_object(item: object, place: str) -> None:
    kinds = [kind for kind in _FIELDS if isinstance(item, dict) and kind in item]
    if not isinstance(item, dict) or len(kinds) != 1:
        raise PolicyError(place, item, "make it a map with one of rule, macro and list")
    kind = kinds[0]
    if "append" in item:
        raise PolicyError(f"{place}.append", item["append"], "say override: {condition: append}")
    for name, value in item.items():
        _check_field(f"{place}.{name}", value, _FIELDS[kind].get(name), kind)
    if not _NAMES[kind].match(item[kind]):
        raise PolicyError(f"{place}.{kind}", item[kind], "use letters, digits and plain signs")
    if str(item.get("priority", "debug")).lower() not in PRIORITIES:
        raise PolicyError(f"{place}.priority", item["priority"], f"one of {', '.join(PRIORITIES)}")
    _check_override(item, kind, place)
    _check_values(item, place)


def _check_field(place: str, value: typing.Any, wanted: type | None, kind: str) -> None:
    if wanted is None:
        raise PolicyError(place, value, f"a {kind} has {', '.join(sorted(_FIELDS[kind]))} alone")
    if not isinstance(value, wanted):
        raise PolicyError(place, value, f"make it a {wanted.__name__}")
    if isinstance(value, str) and not value.strip():
        raise PolicyError(place, value, "give a text")


def _check_values(item: Json, place: str) -> None:
    for field in ("tags", "items"):
        for value in item.get(field, []):
            if isinstance(value, bool) or not isinstance(value, (str, int)):
                raise PolicyError(f"{place}.{field}", value, "make it a list of texts")
    for value in item.get("exceptions", []):
        if not isinstance(value, dict) or not isinstance(value.get("name"), str):
            raise PolicyError(f"{place}.exceptions", value, "make it a list of maps with a name")


def _check_override(item: Json, kind: str, place: str) -> None:
    if "override" not in item:
        missing = [name for name in _NEEDED[kind] if name not in item]
        if missing:
            raise PolicyError(place, item[kind], f"add {', '.join(missing)}, or an override")
        return
    for name, way in item["override"].items():
        if name not in item or name == kind or way not in _WAYS:
            raise PolicyError(
                f"{place}.override", item["override"],
                "name fields of this object, each with append or replace",
            )  # fmt: skip


# -- exceptions --------------------------------------------------------------------------------------
def exceptions(items: object, variable: str) -> list[Excepted]:
    """Return exceptions that say what they except and why.

    :raises PolicyError: naming the exception, its value and the fix.
    """
    if not isinstance(items, list):
        raise PolicyError(variable, items, "make it a list")
    return [_exception(item, f"{variable}[{number}]") for number, item in enumerate(items)]


def _exception(item: object, place: str) -> Excepted:
    fields = [field.name for field in dataclasses.fields(Excepted)]
    if not isinstance(item, dict) or set(item) - set(fields):
        raise PolicyError(place, item, f"make it a map of {', '.join(fields)}")
    for name in ("rule", "reason", "owner"):
        if not isinstance(item.get(name), str) or not _LINE.match(item[name]):
            raise PolicyError(f"{place}.{name}", item.get(name), "give a line of text")
    for name in ("image", "process"):
        value = item.get(name)
        if value is not None and not (isinstance(value, str) and _WORD.match(value)):
            raise PolicyError(
                f"{place}.{name}", value, "name one, as Falco shows it, without a tag"
            )
    if item.get("image") is None and item.get("process") is None:
        raise PolicyError(place, item["rule"], "name an image or a process; or disable the rule")
    try:
        expires = datetime.date.fromisoformat(str(item.get("expires")))
    except ValueError as exc:
        raise PolicyError(f"{place}.expires", item.get("expires"), "a day as 2027-01-31") from exc
    return Excepted(**{**item, "expires": expires})


# -- as Falco reads them -----------------------------------------------------------------------------
def render(items: typing.Sequence[Json], excepted: typing.Sequence[Excepted]) -> str:
    """Return a file of rules: objects, and then exceptions, each with its reason as a comment."""
    return "".join([*map(_text, items), *map(_rendered, excepted)])


def _text(item: Json) -> str:
    return yaml.safe_dump([item], sort_keys=False, width=1000, allow_unicode=True) + "\n"


def _rendered(one: Excepted) -> str:
    tests = [
        f'{field} = "{value}"'
        for field, value in (
            ("container.image.repository", one.image),
            ("proc.name", one.process),
        )
        if value is not None
    ]
    item = {
        "rule": one.rule,
        "condition": f"and not ({' and '.join(tests)})",
        "override": {"condition": "append"},
    }
    return f"# {one.reason} ({one.owner}, until {one.expires.isoformat()})\n{_text(item)}"
