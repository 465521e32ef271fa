# Copyright: (c) 2026, the Bulkhead authors
# Apache License 2.0 (see LICENSE)
"""Checks as data: read, verified and selected. Nothing here knows a host.

The format is described by docs/reference/checks.md.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import pathlib
import re
import typing

import jmespath
import yaml
from jmespath.exceptions import JMESPathError

from ansible_collections.bulkhead.hardening.plugins.module_utils.look import SECTIONS
from ansible_collections.bulkhead.hardening.plugins.plugin_utils import audit_functions
from ansible_collections.bulkhead.hardening.plugins.plugin_utils.plan import Json, PolicyError

#: Where the checks of the collection are.
FOLDER = pathlib.Path(__file__).resolve().parents[2] / "roles" / "docker_audit" / "files" / "checks"

BENCHMARK: typing.Final = {"name": "CIS Docker Benchmark", "version": "1.8.0"}

#: What a check of each scope looks at: the objects, the sections that must be there, the label.
SCOPES: dict[str, tuple[str | None, tuple[str, ...], str | None]] = {
    "host": (None, (), None),
    "daemon": (None, ("engine",), None),
    "storage": ("host.storage", ("storage",), "object.path"),
    "file": ("host.files", ("files",), "object.path"),
    "container": ("host.containers", ("containers",), "object.name"),
    "image": ("host.images[?!bulkhead]", ("images",), "object.tags[0] || object.id"),
    "network": ("host.networks", ("networks",), "object.name"),
    "volume": ("host.volumes", ("volumes",), "object.name"),
    "service": ("host.services", ("services",), "object.name"),
}

_EXPRESSIONS = (
    *("select", "label", "known", "applies", "passes", "when_stopped", "pending"),
    *("manual_when", "evidence"),
)
_TEXTS = ("title", "otherwise", "why", "source", "remedy", "variable", "option", "was", "use")
_FIELDS = frozenset(
    {*_EXPRESSIONS, *_TEXTS, "id", "level", "ig", "scope", "severity", "tags", "needs", "manual"}
    | {"value"}
)
_REQUIRED = ("title", "remedy", "why", "source")
SEVERITIES = ("high", "medium", "low")


@dataclasses.dataclass(frozen=True)
class Check:
    """One check. ``namespace`` is cis, bulkhead or user; the other fields are those of its file.

    ``expressions`` are compiled, by the name of their field.
    """

    id: str
    namespace: str
    title: str
    section: str
    section_title: str
    scope: str
    remedy: str
    why: str
    source: str
    was: str | None = None
    level: int | None = None
    ig: int | None = None
    severity: str = "low"
    tags: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    otherwise: str = "it does not apply here"
    variable: str | None = None
    value: typing.Any = None
    manual: Json | None = None
    expressions: typing.Mapping[str, typing.Any] = dataclasses.field(default_factory=dict)

    @property
    def reads_process(self) -> bool:
        """Whether it asks about the process of a container, which only a running one has."""
        asked = (
            self.expressions[name].expression
            for name in ("known", "applies", "passes")
            if name in self.expressions
        )
        return self.scope == "container" and any("object.kernel" in text for text in asked)

    def described(self) -> Json:
        """Return the check as a report shows it."""
        return {
            "id": self.id,
            "namespace": self.namespace,
            "id_1_6": self.was,
            "title": self.title,
            "section": self.section,
            "section_title": self.section_title,
            "level": self.level,
            "ig": self.ig,
            "scope": self.scope,
            "severity": self.severity,
            "tags": list(self.tags),
            "rationale": self.why,
            "remedy": {"text": self.remedy, "variable": self.variable, "value": self.value},
            "source": self.source,
            "manual": self.manual,
        }


@functools.cache
def builtin() -> tuple[Check, ...]:
    """Return the checks of the collection, in the order of their ids."""
    found = [
        check
        for namespace in ("cis", "bulkhead")
        for path in sorted((FOLDER / namespace).glob("*.yml"))
        for check in from_document(yaml.safe_load(path.read_text("utf-8")), namespace, path.name)
    ]
    return tuple(sorted(found, key=_order))


def _order(check: Check) -> tuple[bool, list[int], str]:
    return check.namespace != "cis", [int(n) for n in re.findall(r"\d+", check.id)], check.id


def from_document(document: object, namespace: str, where: str) -> list[Check]:
    """Return the checks of one file.

    :param where: its name, for messages.
    :raises PolicyError: it is no such file, or an expression in it is not valid.
    """
    if not isinstance(document, dict) or not isinstance(document.get("checks"), list):
        raise PolicyError(where, type(document).__name__, "give a mapping with a list of checks")
    shared = document.get("shared") or {}
    if not isinstance(shared, dict) or not all(isinstance(part, dict) for part in shared.values()):
        raise PolicyError(f"{where}: shared", shared, "give a mapping of mappings")
    unknown = sorted(set(document) - {"checks", "shared", "section", "section_title", "scope"})
    if unknown:
        raise PolicyError(where, unknown, "there are no such fields in a file of checks")
    found = []
    for position, entry in enumerate(document["checks"]):
        place = f"{where}: checks[{position}]"
        if not isinstance(entry, dict):
            raise PolicyError(place, entry, "give a mapping")
        name = entry.get("use")
        if name is not None and (not isinstance(name, str) or name not in shared):
            raise PolicyError(f"{place}.use", name, f"shared has {', '.join(sorted(shared))}")
        merged = {"scope": document.get("scope", "host"), **shared.get(name, {}), **entry}
        merged.pop("use", None)
        section = str(document.get("section", "user"))
        title = str(document.get("section_title", "Your own checks"))
        found.append(_check(merged, namespace, section, title, place))
    return found


def _check(entry: Json, namespace: str, section: str, section_title: str, place: str) -> Check:
    identifier = entry.get("id")
    if not isinstance(identifier, str) or not identifier:
        # YAML reads 2.10 as the number 2.1.
        raise PolicyError(f"{place}.id", identifier, "give a text in quotes, such as 'my-1'")
    place = f"{place} ({identifier})"
    for name in entry:
        if name not in _FIELDS:
            near = difflib.get_close_matches(str(name), _FIELDS, 1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise PolicyError(f"{place}.{name}", entry[name], f"a check has no such field{hint}")
    _check_types(entry, place)
    scope = entry["scope"]
    if scope not in SCOPES:
        raise PolicyError(f"{place}.scope", scope, f"give one of {', '.join(SCOPES)}")
    if "passes" not in entry and "manual" not in entry:
        raise PolicyError(f"{place}.passes", None, "give an expression, or manual: {look_at, how}")
    if "when_stopped" in entry and scope != "container":
        raise PolicyError(f"{place}.when_stopped", scope, "only a container can be stopped")
    severity = entry.get("severity", "low")
    if severity not in SEVERITIES:
        raise PolicyError(f"{place}.severity", severity, f"give one of {', '.join(SEVERITIES)}")
    select, needs, label = SCOPES[scope]
    merged = {"select": select, "label": label, **_option(entry), **entry}
    expressions = {
        name: compiled(merged[name], f"{place}.{name}")
        for name in _EXPRESSIONS
        if merged.get(name) is not None
    }
    return Check(
        id=identifier,
        namespace=namespace,
        title=entry["title"],
        section=section,
        section_title=section_title,
        scope=scope,
        remedy=entry["remedy"],
        why=entry["why"],
        source=entry["source"],
        was=entry.get("was"),
        level=_number(entry, "level", (1, 2), place),
        ig=_number(entry, "ig", (1, 2, 3), place),
        severity=severity,
        tags=tuple(entry.get("tags", ())),
        needs=tuple(dict.fromkeys([*needs, *entry.get("needs", ())])),
        otherwise=entry.get("otherwise", "it does not apply here"),
        variable=entry.get("variable"),
        value=entry.get("value"),
        manual=entry.get("manual"),
        expressions=expressions,
    )


def _check_types(entry: Json, place: str) -> None:
    for name in (*_REQUIRED, *_TEXTS, "scope", "severity"):
        value = entry.get(name)
        empty = value is None and name not in _REQUIRED
        if not empty and not (isinstance(value, str) and value):
            raise PolicyError(f"{place}.{name}", value, "give a text")
    for name in ("tags", "needs"):
        value = entry.get(name, [])
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise PolicyError(f"{place}.{name}", value, "give a list of texts")
    for section in entry.get("needs", []):
        if section not in SECTIONS:
            raise PolicyError(f"{place}.needs", section, f"give some of {', '.join(SECTIONS)}")
    manual = entry.get("manual")
    if manual is None:
        if "manual_when" in entry:
            raise PolicyError(f"{place}.manual", None, "say what to look at: {look_at, how}")
    elif not isinstance(manual, dict) or not all(
        isinstance(manual.get(name), str) and len(manual) == 2 for name in ("look_at", "how")
    ):
        raise PolicyError(f"{place}.manual", manual, "give a mapping of the texts look_at and how")


def _option(entry: Json) -> Json:
    """Return what ``option`` stands for: an option of the daemon, by its name with underscores."""
    name = entry.get("option")
    if name is None:
        return {}
    path = f"host.engine.effective.{name}"
    return {
        "known": f"{path}.value",
        "evidence": f"{{option: '{name}', value: {path}.value, configured: {path}.configured, "
        f"source: {path}.source, where: {path}.where}}",
    }


def _number(entry: Json, name: str, allowed: tuple[int, ...], place: str) -> int | None:
    value = entry.get(name)
    if value is not None and (isinstance(value, bool) or value not in allowed):
        raise PolicyError(f"{place}.{name}", value, f"give one of {allowed}, or leave it out")
    return value


def compiled(expression: object, place: str) -> typing.Any:
    """Compile a JMESPath expression.

    :raises PolicyError: it is not valid, or calls a function that there is not.
    """
    if not isinstance(expression, str):
        raise PolicyError(place, expression, "give a JMESPath expression as text")
    try:
        found = jmespath.compile(expression)
    except (JMESPathError, ValueError) as exc:
        reason = str(exc).split("\n")[0]
        raise PolicyError(place, expression, f"this is no valid JMESPath: {reason}") from exc
    unknown = sorted(audit_functions.called(found.parsed) - audit_functions.names())
    if unknown:
        near = difflib.get_close_matches(unknown[0], audit_functions.names(), 1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise PolicyError(place, unknown[0], f"there is no such function{hint}")
    for name, given, wanted in audit_functions.miscounted(found.parsed):
        fix = f"{name} is called with {given} arguments, and takes {wanted}"
        raise PolicyError(place, expression, fix)
    return found


def with_own(own: typing.Sequence[Json], files: typing.Sequence[str]) -> list[Check]:
    """Return the collection's checks and a user's.

    :param own: checks as ``docker_audit_checks`` has them.
    :param files: paths of files of checks on the controller.
    :raises PolicyError: one cannot be read, is not valid, or has an id that is taken.
    """
    found = list(builtin())
    if own:
        found += from_document({"checks": list(own)}, "user", "docker_audit_checks")
    for path in files:
        if not isinstance(path, str):
            raise PolicyError("docker_audit_check_files", path, "give paths of files")
        try:
            document = yaml.safe_load(pathlib.Path(path).read_text("utf-8"))
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as exc:
            reason = str(exc).replace("\n", " ")
            raise PolicyError("docker_audit_check_files", path, reason) from exc
        found += from_document(document, "user", str(path))
    seen: set[str] = set()
    for check in found:
        if check.id in seen:
            raise PolicyError(
                "docker_audit_checks", check.id, "there is a check of that id already"
            )
        seen.add(check.id)
    return found


@dataclasses.dataclass(frozen=True)
class Selection:
    """Which checks are wanted; an empty field does not choose. ``skip`` takes away at the end."""

    levels: tuple[int, ...] = ()
    igs: tuple[int, ...] = ()
    sections: tuple[str, ...] = ()
    ids: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    skip: tuple[str, ...] = ()


def select(checks: typing.Sequence[Check], wanted: Selection) -> list[Check]:
    """Return the checks that are wanted, in their order.

    Levels and groups are cumulative, as the benchmark's are: level 2 includes level 1, group 3 the
    other two; checks without one are of the first. An id may be one of 1.6: ``1.6:2.9``.

    :raises PolicyError: a selector that matches no check.
    """
    known_ids = {check.id for check in checks}
    known_ids |= {f"1.6:{check.was}" for check in checks if check.was}
    _known("docker_audit_sections", wanted.sections, {check.section for check in checks})
    _known("docker_audit_ids", wanted.ids, known_ids)
    _known("docker_audit_skip", wanted.skip, known_ids)
    _known("docker_audit_tags", wanted.tags, {tag for check in checks for tag in check.tags})
    _known("docker_audit_levels", wanted.levels, {1, 2})
    _known("docker_audit_igs", wanted.igs, {1, 2, 3})

    def wants(check: Check) -> bool:
        names = {check.id, f"1.6:{check.was}"}
        return (
            (not wanted.levels or (check.level or 1) <= max(wanted.levels))
            and (not wanted.igs or (check.ig or 1) <= max(wanted.igs))
            and (not wanted.sections or check.section in wanted.sections)
            and (not wanted.ids or bool(names & set(wanted.ids)))
            and (not wanted.tags or bool(set(check.tags) & set(wanted.tags)))
            and not names & set(wanted.skip)
        )

    found = [check for check in checks if wants(check)]
    if not found:
        raise PolicyError(
            "docker_audit_ids", list(wanted.ids), "the selectors leave no check at all"
        )
    return found


def _known(
    variable: str, values: typing.Iterable[object], known: typing.Collection[object]
) -> None:
    for value in values:
        if value not in known:
            texts = sorted(map(str, known))
            near = difflib.get_close_matches(str(value), texts, 1)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(texts[:20])}"
            raise PolicyError(variable, value, f"no check matches it; {hint}")
