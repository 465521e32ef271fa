# Copyright: (c) 2026, the Bulkhead authors
# Apache License 2.0 (see LICENSE)
"""Rules of Falco as data: checked before any host meets them, and written as Falco reads them.

Falco itself judges conditions, fields and overrides, on the host, before a file is put in place; what is
checked here is the shape, against the JSON Schema ``falco_rules.schema.json``.
"""

from __future__ import annotations

import dataclasses
import datetime
import functools
import json
import pathlib
import re
import typing

import yaml

from ansible_collections.bulkhead.hardening.plugins.plugin_utils.plan import Json, PolicyError

PRIORITIES: typing.Final = (
    *("emergency", "alert", "critical", "error", "warning", "notice", "informational", "info"),
    "debug",
)

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
@functools.lru_cache(maxsize=1)
def schema() -> Json:
    """Return the JSON Schema of rules, whose descriptions say how to put right what fails."""
    path = pathlib.Path(__file__).with_name("falco_rules.schema.json")
    return typing.cast(Json, json.loads(path.read_text(encoding="utf-8")))


def check(items: list[Json], variable: str) -> list[Json]:
    """Return rules, macros and lists that have the shape of such.

    :raises PolicyError: naming the object, its value and the fix.
    """
    if not items:
        return items
    try:
        # No part of ansible-core, so none but those who write rules have to have it.
        import jsonschema
    except ImportError as exc:
        fix = "rules are checked with the Python library jsonschema; install it on the controller"
        raise PolicyError(variable, f"{len(items)} rules", fix) from exc
    error = next(jsonschema.Draft202012Validator(schema()).iter_errors(items), None)
    if error is not None:
        steps = (f"[{step}]" if isinstance(step, int) else f".{step}" for step in error.path)
        fix = typing.cast(Json, error.schema)["description"]
        raise PolicyError(variable + "".join(steps), error.instance, fix)
    return items


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
