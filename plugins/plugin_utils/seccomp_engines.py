# Copyright: (c) 2026, the Bulkhead authors
# Apache License 2.0 (see LICENSE)
"""What the Docker engine's builtin seccomp profile allows, by release, and which system calls there are.

The facts are in seccomp_engines.yml. A release whose profile is not known exactly has none here: a profile
made from a neighbour's would block or allow what that engine does not.
"""

from __future__ import annotations

import copy
import difflib
import functools
import pathlib
import typing

import yaml

from ansible_collections.bulkhead.hardening.plugins.module_utils.daemon_options import release
from ansible_collections.bulkhead.hardening.plugins.plugin_utils.plan import Json

ALLOW: typing.Final = "SCMP_ACT_ALLOW"
ERRNO: typing.Final = "SCMP_ACT_ERRNO"

#: What the builtin profile answers a call that it does not allow.
EPERM: typing.Final = 1

#: What tells a C library that the kernel has no such call, so that it takes the older one.
ENOSYS: typing.Final = 38

#: Fields of a rule that say when it applies, and to which arguments.
CONDITIONS: typing.Final = ("includes", "excludes", "args")

#: Architectures as a profile's conditions name them, by the machine of the host.
GO_ARCHITECTURES: typing.Final = {
    "x86_64": "amd64",
    "aarch64": "arm64",
    "s390x": "s390x",
    "riscv64": "riscv64",
}

_FILE = pathlib.Path(__file__).with_name("seccomp_engines.yml")


class NoBaseError(ValueError):
    """The builtin profile of an engine is not known exactly."""


@functools.lru_cache(maxsize=1)
def _facts() -> Json:
    facts: Json = yaml.safe_load(_FILE.read_text(encoding="utf-8"))
    return facts


def series(version: str) -> str:
    """Return the series whose builtin profile an engine has.

    :param version: an engine's version such as ``26.1.5+dfsg1``.
    :raises NoBaseError: its profile is not known exactly.
    """
    try:
        found = release(version)
    except ValueError as exc:
        raise NoBaseError(str(exc)) from exc
    known = []
    for name, facts in _facts()["series"].items():
        for first, last in facts["releases"]:
            if release(first) <= found <= release(last):
                return str(name)
            known.append(first if first == last else f"{first} to {last}")
    raise NoBaseError(
        f"the builtin seccomp profile of engine {version} is not known exactly, only that of "
        f"{', '.join(known)}; give a profile of your own as base"
    )


def counts(name: str) -> Json:
    """Return what is known of a series: ``releases``, ``rules``, ``default_errno``, ``always``, ``union``."""
    return dict(_facts()["series"][name])


def all_series() -> list[str]:
    """Return the names of the series, oldest first."""
    return list(_facts()["series"])


def base(name: str) -> Json:
    """Return the builtin profile of a series, in the engine's format; a rule for each condition."""
    facts = _facts()
    rules: dict[str, Json] = {}
    for row in facts["rules"]:
        if name not in row.get("series", all_series()):
            continue
        fields = {key: copy.deepcopy(row[key]) for key in (*CONDITIONS, "errnoRet") if key in row}
        rule = {"names": [], "action": row.get("action", ALLOW), **fields}
        rules.setdefault(repr(sorted(rule.items())), rule)["names"] += row["names"].split()
    profile: Json = {"defaultAction": ERRNO}
    if facts["series"][name]["default_errno"] is not None:
        profile["defaultErrnoRet"] = facts["series"][name]["default_errno"]
    profile["archMap"] = [
        {"architecture": group[0], "subArchitectures": group[1:]}
        for group in facts["architectures"].values()
    ]
    profile["syscalls"] = [{**rule, "names": sorted(rule["names"])} for rule in rules.values()]
    return profile


def filter_architectures(machine: str) -> list[str]:
    """Return the architectures that one filter covers on a machine, its own first; [] when unknown."""
    return list(_facts()["architectures"].get(machine, []))


def architectures() -> set[str]:
    """Return every architecture that a profile may name in ``archMap`` and that a base has."""
    return {name for group in _facts()["architectures"].values() for name in group}


@functools.lru_cache(maxsize=8)
def calls(machine: str | None = None) -> frozenset[str]:
    """Return the known system calls of a machine, or of all of them."""
    tables = _facts()["calls"]
    return frozenset(
        name
        for table, names in tables.items()
        if machine is None or machine in table.split("_and_")
        for name in names.split()
    )


def nearest(name: str) -> str | None:
    """Return the known system call that is spelled most like a name."""
    near = difflib.get_close_matches(name, calls(), 1)
    return near[0] if near else None
