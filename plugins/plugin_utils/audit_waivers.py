# Copyright: (c) 2026, the Bulkhead authors
# Apache License 2.0 (see LICENSE)
"""Waivers: findings that somebody accepted, with reason, owner and a last day.

A waiver binds when it names the host and, for a container or image, the digest of its image. One that
matches by name or label alone holds too, and is reported as weak: a container names itself.
"""

from __future__ import annotations

import dataclasses
import datetime
import fnmatch
import typing

from ansible_collections.bulkhead.hardening.plugins.module_utils.look_containers import plain_labels
from ansible_collections.bulkhead.hardening.plugins.plugin_utils.plan import Json, PolicyError

VARIABLE = "docker_audit_waivers"
#: Verdicts that can be accepted. An error cannot: nobody knows what it would be.
WAIVABLE: typing.Final = ("fail", "pending", "manual")

_TEXTS = ("check", "reason", "owner", "host", "name", "label", "image", "image_digest")
_NEEDED = ("check", "reason", "owner", "expires")


@dataclasses.dataclass
class Waiver:
    """One waiver. ``host``, ``name`` and ``image`` are shell patterns; None matches everything.

    ``label`` is the name of a label, an equals sign, and a pattern for its value.
    """

    check: str
    reason: str
    owner: str
    expires: datetime.date
    host: str | None = None
    name: str | None = None
    label: str | None = None
    image: str | None = None
    image_digest: str | None = None
    used: int = 0
    weak: bool = False

    def matches(self, check: str, host: str, thing: Json | None, labels: Json) -> bool:
        """Tell whether it is about this finding, whatever the day; ``labels`` are those of the object."""
        if self.check != check or not _fits(self.host, host):
            return False
        if thing is None:
            return {self.name, self.label, self.image, self.image_digest} == {None}
        if self.label is not None:
            name, _, pattern = self.label.partition("=")
            if not _fits(pattern, labels.get(name)):
                return False
        digest = self.image_digest in (None, thing.get("image_digest"))
        return digest and _fits(self.name, thing["name"]) and _fits(self.image, thing.get("image"))

    def binds(self, thing: Json | None) -> bool:
        """Tell whether nothing else can slip below it."""
        if self.host is None or any(letter in self.host for letter in "*?["):
            return False
        of_image = thing is not None and thing.get("image_digest") is not None
        return not of_image or self.image_digest is not None

    def described(self, today: datetime.date) -> Json:
        """Return it as a report shows it."""
        state = "used" if self.used else "unused"
        if self.expires < today:
            state = "expired"
        elif self.weak:
            state = "weak"
        found = {name: getattr(self, name) for name in _TEXTS}
        return {**found, "expires": self.expires.isoformat(), "state": state, "used": self.used}


def _fits(pattern: str | None, value: object) -> bool:
    return pattern is None or (value is not None and fnmatch.fnmatchcase(str(value), pattern))


def read(raw: object, known: typing.Collection[str]) -> list[Waiver]:
    """Check the waivers of a policy.

    :param known: ids of all checks.
    :raises PolicyError: naming the waiver, its value and the fix.
    """
    if not isinstance(raw, (list, tuple)):
        raise PolicyError(VARIABLE, raw, "give a list of waivers")
    return [_read(entry, known, f"{VARIABLE}[{number}]") for number, entry in enumerate(raw)]


def _read(entry: object, known: typing.Collection[str], place: str) -> Waiver:
    if not isinstance(entry, dict):
        raise PolicyError(place, entry, "give a mapping with check, reason, owner and expires")
    for name in _NEEDED:
        if not entry.get(name):
            raise PolicyError(f"{place}.{name}", entry.get(name), "every waiver needs one")
    for name in entry:
        if name not in (*_TEXTS, "expires"):
            raise PolicyError(f"{place}.{name}", entry[name], "a waiver has no such field")
    for name in _TEXTS:
        if entry.get(name) is not None and not isinstance(entry[name], str):
            raise PolicyError(f"{place}.{name}", entry[name], "give a text in quotes")
    label = entry.get("label")
    if label is not None and not ("=" in label and plain_labels({label.partition("=")[0]: ""})):
        fix = (
            "give NAME=VALUE; the labels that leave a host are those of Compose and stacks, "
            "org.opencontainers.image.* and bulkhead.*"
        )
        raise PolicyError(f"{place}.label", label, fix)
    if entry["check"] not in known:
        raise PolicyError(f"{place}.check", entry["check"], "there is no such check")
    expires = entry["expires"]
    if isinstance(expires, datetime.datetime):
        expires = expires.date()
    try:
        # YAML makes a date of an unquoted one.
        day = (
            expires if isinstance(expires, datetime.date) else datetime.date.fromisoformat(expires)
        )
    except (TypeError, ValueError):
        raise PolicyError(f"{place}.expires", expires, "give a day such as '2027-01-31'") from None
    fields = {name: entry.get(name) for name in _TEXTS}
    return Waiver(**typing.cast("dict[str, typing.Any]", fields), expires=day)


def apply(
    waivers: typing.Sequence[Waiver],
    host: str,
    result: Json,
    today: datetime.date,
    labels: typing.Mapping[str, Json],
) -> None:
    """Waive what the waivers of today accept in the result of one host.

    :param result: ``objects`` and ``results``, changed in place. The caller computes the verdict of a
        check anew.
    :param labels: of containers, by id.
    """
    if not waivers:
        return
    for row in result["results"]:
        for item in row["items"]:
            if item["verdict"] in WAIVABLE:
                thing = None if item["object"] is None else result["objects"][item["object"]]
                fitting = [
                    waiver
                    for waiver in waivers
                    if waiver.expires >= today
                    and waiver.matches(
                        row["check"], host, thing, labels.get(thing["id"], {}) if thing else {}
                    )
                ]
                if fitting:
                    _waive(fitting, thing, item)


def _waive(fitting: typing.Sequence[Waiver], thing: Json | None, item: Json) -> None:
    waiver = next((w for w in fitting if w.binds(thing)), fitting[0])
    binding = waiver.binds(thing)
    waiver.used += 1
    waiver.weak = waiver.weak or not binding
    item["waiver"] = {
        "reason": waiver.reason,
        "owner": waiver.owner,
        "expires": waiver.expires.isoformat(),
        "binding": "strong" if binding else "weak",
        "waived_verdict": item["verdict"],
    }
    item["verdict"] = "waived"
