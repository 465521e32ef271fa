"""Kinds of host: reading ``kinds.yml``, checking it, and naming what was built from it."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .errors import LabError

KINDS_FILE = Path(__file__).with_name("kinds.yml")
GUEST_DIR = Path(__file__).with_name("guest")

_NAME = re.compile(r"[a-z][a-z0-9-]{0,31}")
_DISK = re.compile(r"[1-9][0-9]*[MG]")

_LISTS = ("packages", "apt_options", "dpkg_options", "enable", "mask", "append")
_STRINGS = ("description", "suite", "mirror", "disk")
_BOOLEANS = ("selinux",)
_MERGING = ("extends", "omit_packages", "omit_append")


#: Where packages come from, of hosts and of the emulator.
MIRROR = "http://deb.debian.org/debian"


@dataclasses.dataclass(frozen=True)
class Kind:
    """One kind of virtual host, with everything that decides what its image holds."""

    name: str
    suite: str
    packages: tuple[str, ...]
    description: str = ""
    mirror: str = MIRROR
    disk: str = "6G"
    apt_options: tuple[str, ...] = ()
    dpkg_options: tuple[str, ...] = ()
    enable: tuple[str, ...] = ()
    mask: tuple[str, ...] = ()
    append: tuple[str, ...] = ()
    selinux: bool = False


def load(path: Path = KINDS_FILE) -> dict[str, Kind]:
    """Read and check all kinds. Raises LabError that names the kind, the key and the fix."""
    # Here and not above: all but building and booting works without PyYAML.
    import yaml

    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise LabError(f"{path}: {error}") from error
    if not isinstance(document, dict) or not isinstance(document.get("kinds"), dict):
        raise LabError(f"{path}: expected a mapping with the key 'kinds'")
    unknown = sorted(set(document) - {"common", "kinds"})
    if unknown:
        raise LabError(f"{path}: unknown key {unknown[0]!r}; valid are common, kinds")
    common = _checked(document.get("common") or {}, f"{path.name}: common")
    entries = {}
    for name, entry in document["kinds"].items():
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise LabError(f"{path.name}: kind {name!r}: a name is lower case letters, digits, '-'")
        entries[name] = _checked(entry, f"{path.name}: kind {name!r}")
    return {name: _resolve(name, entries, common, path.name) for name in entries}


def get(name: str, path: Path = KINDS_FILE) -> Kind:
    """Return one kind. Raises LabError that lists the valid ones."""
    kinds = load(path)
    if name not in kinds:
        raise LabError(f"unknown kind {name!r}; valid kinds: {', '.join(sorted(kinds))}")
    return kinds[name]


def _checked(entry: Any, where: str) -> dict[str, Any]:
    """Check the types of one entry and return it."""
    if not isinstance(entry, dict):
        raise LabError(f"{where}: expected a mapping, not {type(entry).__name__}")
    valid = (*_LISTS, *_STRINGS, *_BOOLEANS, *_MERGING)
    for key, value in entry.items():
        if key not in valid:
            raise LabError(f"{where}: unknown key {key!r}; valid are {', '.join(sorted(valid))}")
        if key in _LISTS or key.startswith("omit_"):
            if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
                raise LabError(f"{where}: {key} must be a list of strings")
        elif key in _BOOLEANS:
            if not isinstance(value, bool):
                raise LabError(f"{where}: {key} must be true or false, not {value!r}")
        elif not isinstance(value, str) or not value:
            raise LabError(f"{where}: {key} must be a non-empty string, not {value!r}")
    if "disk" in entry and not _DISK.fullmatch(entry["disk"]):
        raise LabError(f"{where}: disk must look like 6G or 800M, not {entry['disk']!r}")
    return entry


def _resolve(
    name: str, entries: Mapping[str, dict[str, Any]], common: dict[str, Any], where: str
) -> Kind:
    """Merge a kind with what it extends and with what is common."""
    chain: list[dict[str, Any]] = []
    seen: list[str] = []
    current: str | None = name
    while current is not None:
        if current in seen:
            raise LabError(f"{where}: kinds extend each other in a circle: {' -> '.join(seen)}")
        if current not in entries:
            raise LabError(
                f"{where}: kind {seen[-1]!r} extends {current!r}, which is no kind; "
                f"valid kinds: {', '.join(sorted(entries))}"
            )
        seen.append(current)
        chain.insert(0, entries[current])
        current = entries[current].get("extends")
    merged: dict[str, Any] = {}
    for entry in [common, *chain]:
        for key, value in entry.items():
            if key in _LISTS:
                merged[key] = tuple(dict.fromkeys([*merged.get(key, ()), *value]))
            elif key.startswith("omit_"):
                target = key.removeprefix("omit_")
                merged[target] = tuple(item for item in merged.get(target, ()) if item not in value)
            elif key != "extends":
                merged[key] = value
    for key in ("suite", "packages"):
        if not merged.get(key):
            raise LabError(f"{where}: kind {name!r} needs {key}")
    return Kind(name=name, **merged)


def recipe_hash(
    kind: Kind, public_key: str, guest: Path = GUEST_DIR, format_version: int = 1
) -> str:
    """Name an image after all that decides its content: 12 hexadecimal digits.

    :param public_key: the key that may log in; part of the image.
    :param guest: tree of files that are put into the image.
    :param format_version: the builder's own version, raised when the builder changes its output.
    """
    recipe = dataclasses.asdict(kind)
    # Neither decides what is in the image: the one is prose, the other is given at boot.
    del recipe["description"], recipe["append"]
    digest = hashlib.sha256()
    digest.update(json.dumps([format_version, public_key, recipe], sort_keys=True).encode())
    for path in sorted(guest.rglob("*")):
        if path.is_file():
            content = hashlib.sha256(path.read_bytes()).hexdigest()
            digest.update(f"{path.relative_to(guest)} {content}\n".encode())
    return digest.hexdigest()[:12]
