# Copyright: (c) 2026, the Bulkhead authors
# Apache License 2.0 (see LICENSE)
"""What is wrong with a seccomp profile in the engine's format, before any container meets it.

The engine reads such a file when a container starts and says little: an unknown call is passed over, a
name beside names or two kinds of architectures fail the container. Source: moby
profiles/seccomp/seccomp_linux.go; the words are those of the OCI runtime specification 1.3.
"""

from __future__ import annotations

import re
import typing

from ansible_collections.bulkhead.hardening.plugins.plugin_utils import (
    capabilities,
    seccomp_engines as engines,
    seccomp_profile as profiles,
)
from ansible_collections.bulkhead.hardening.plugins.plugin_utils.plan import Json
from ansible_collections.bulkhead.hardening.plugins.plugin_utils.seccomp_engines import (
    ALLOW,
    ENOSYS,
    EPERM,
    ERRNO,
)

#: Words of the OCI runtime specification.
ACTIONS: typing.Final = tuple(
    "SCMP_ACT_" + name
    for name in (
        *("KILL", "KILL_PROCESS", "KILL_THREAD", "TRAP", "ERRNO", "TRACE", "ALLOW", "LOG"),
        "NOTIFY",
    )
)
FLAGS: typing.Final = tuple(
    "SECCOMP_FILTER_FLAG_" + name for name in ("TSYNC", "LOG", "SPEC_ALLOW", "WAIT_KILLABLE_RECV")
)
_ARCHITECTURE = re.compile(r"SCMP_ARCH_[A-Z0-9_]{1,32}\Z")

_TOP = frozenset(
    {"defaultAction", "defaultErrnoRet", "archMap", "architectures", "flags", "syscalls"}
    | {"listenerPath", "listenerMetadata"}
)
_RULE = frozenset(
    {"names", "name", "action", "errnoRet", "args", "comment", "includes", "excludes"}
)

#: Calls without which runc cannot start a container. Each was denied alone, for a static program that only
#: exits, on Docker 26.1.5 with runc 1.1.15 (x86_64), and up to futex, which it alone needs, on 28.5.2 with
#: runc 1.3.6; the container did not start.
_RUNC: typing.Final = frozenset(
    {"arch_prctl", "capget", "capset", "chdir", "close", "execve", "exit_group", "fstat", "fstatfs"}
    | {"getcwd", "getdents64", "getppid", "mprotect", "newfstatat", "openat", "prctl", "read"}
    | {"futex", "rt_sigreturn", "setgid", "setgroups", "setuid", "write"}
)
#: Calls without which the dynamic loader ends before any program begins.
_LOADER: typing.Final = frozenset({"brk", "mmap", "munmap"})
CORE: typing.Final = _RUNC | _LOADER


class Problem(typing.NamedTuple):
    """Something about a profile. ``level`` is error or warning; ``where`` a place such as syscalls[3]."""

    level: str
    where: str
    text: str


def problems(
    profile: object, accept_unknown: typing.Collection[str] = (), machine: str = "x86_64"
) -> list[Problem]:
    """Return what is wrong with a profile, errors first.

    :param profile: as parsed from JSON.
    :param accept_unknown: names that pass although this release does not know them.
    :param machine: of the hosts that it is for.
    """
    found = list(_shape(profile))
    if not found:
        profile = typing.cast(Json, profile)
        found += _unknown(profile, accept_unknown)
        found += _doubles(profile)
        found += _unreachable(profile)
        found += _weak(profile)
        found += _pitfalls(profile, machine)
    return sorted(found, key=lambda problem: problem.level != "error")


# -- its form --------------------------------------------------------------------------------------
def _error(where: str, text: str) -> Problem:
    return Problem("error", where, text)


def _shape(profile: object) -> typing.Iterator[Problem]:
    if not isinstance(profile, dict):
        yield _error("profile", "it is not an object")
        return
    for name in sorted(set(map(str, profile)) - _TOP):
        yield _error(name, f"the engine knows no such field; it takes {', '.join(sorted(_TOP))}")
    if profile.get("defaultAction") not in ACTIONS:
        yield _error("defaultAction", f"it is one of {', '.join(ACTIONS)}")
    if "defaultErrnoRet" in profile:
        yield from _errno(profile["defaultErrnoRet"], "defaultErrnoRet")
    if profile.get("archMap") and profile.get("architectures"):
        yield _error("archMap", "the engine takes archMap or architectures, not both")
    yield from _architectures(profile)
    for flag in _each(profile.get("flags")):
        if flag not in FLAGS:
            yield _error("flags", f"{flag!r} is not one of {', '.join(FLAGS)}")
    rules = profile.get("syscalls")
    if not isinstance(rules, list) or not rules:
        yield _error("syscalls", "it is a list of rules; without one the engine filters nothing")
        return
    for number, rule in enumerate(rules):
        yield from _rule(rule, f"syscalls[{number}]")


def _each(value: object) -> list[object]:
    return value if isinstance(value, list) else []


def _architectures(profile: Json) -> typing.Iterator[Problem]:
    names = list(_each(profile.get("architectures")))
    for entry in _each(profile.get("archMap")):
        if not isinstance(entry, dict) or "architecture" not in entry:
            yield _error("archMap", "each entry is {architecture, subArchitectures}")
        else:
            names += [entry["architecture"], *_each(entry.get("subArchitectures"))]
    for name in names:
        if not isinstance(name, str) or not _ARCHITECTURE.match(name):
            yield _error("architectures", f"{name!r} is no name such as SCMP_ARCH_X86_64")


def _errno(value: object, where: str) -> typing.Iterator[Problem]:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= 4095:
        yield _error(where, f"{value!r} is no error number from 0 to 4095")


def _rule(rule: object, where: str) -> typing.Iterator[Problem]:
    if not isinstance(rule, dict):
        yield _error(where, "it is not an object")
        return
    for name in sorted(set(map(str, rule)) - _RULE):
        yield _error(f"{where}.{name}", "a rule has no such field")
    if bool(rule.get("name")) == bool(rule.get("names")):
        yield _error(where, "the engine takes names or the older name, one of both")
    elif rule.get("name"):
        yield _error(f"{where}.name", "write names: [...] in place of the older name")
    elif not isinstance(rule["names"], list) or not all(isinstance(n, str) for n in rule["names"]):
        yield _error(f"{where}.names", "it is a list of names")
    if rule.get("action") not in ACTIONS:
        yield _error(f"{where}.action", f"it is one of {', '.join(ACTIONS)}")
    if rule.get("errnoRet") is not None:
        yield from _errno(rule["errnoRet"], f"{where}.errnoRet")
    for argument in _each(rule.get("args")):
        reason = profiles.argument_problem(argument)
        if reason:
            yield _error(f"{where}.args", reason)
    for side in ("includes", "excludes"):
        yield from _condition(rule.get(side), f"{where}.{side}")


def _condition(value: object, where: str) -> typing.Iterator[Problem]:
    if value in (None, {}):
        return
    if not isinstance(value, dict) or set(value) - {"caps", "arches", "minKernel"}:
        yield _error(where, "it takes caps, arches and minKernel")
        return
    for name in _each(value.get("caps")):
        if not isinstance(name, str) or name.removeprefix("CAP_") not in capabilities.NAMES:
            yield _error(f"{where}.caps", f"there is no capability {name!r}")
        elif not name.startswith("CAP_"):
            yield _error(f"{where}.caps", f"{name} is CAP_{name} here")
    kernel = value.get("minKernel")
    if kernel is not None and not (isinstance(kernel, str) and profiles.KERNEL.match(kernel)):
        yield _error(f"{where}.minKernel", f"{kernel!r} is no release such as 4.8")


# -- its meaning -----------------------------------------------------------------------------------
def _rules(profile: Json) -> typing.Iterator[tuple[str, Json]]:
    for number, rule in enumerate(profile["syscalls"]):
        yield f"syscalls[{number}]", rule


def _unknown(profile: Json, accepted: typing.Collection[str]) -> typing.Iterator[Problem]:
    for where, rule in _rules(profile):
        for name in rule["names"]:
            if name not in engines.calls() and name not in accepted:
                near = engines.nearest(name)
                hint = f"; did you mean {near}?" if near else ""
                yield _error(
                    where, f"there is no system call {name}, and runc passes over it{hint}"
                )


def _key(rule: Json) -> str:
    return repr([rule.get(name) or None for name in engines.CONDITIONS])


def _doubles(profile: Json) -> typing.Iterator[Problem]:
    seen: dict[tuple[str, str], tuple[str, str]] = {}
    for where, rule in _rules(profile):
        answer = f"{rule['action']} {rule.get('errnoRet') or ''}".strip()
        for name in rule["names"]:
            first, before = seen.setdefault((name, _key(rule)), (where, answer))
            if before != answer:
                yield _error(where, f"{name} is {answer} here and {before} in {first}")
            elif first != where or rule["names"].count(name) > 1:
                yield Problem("warning", where, f"{name} is there more than once, first in {first}")


def _unreachable(profile: Json) -> typing.Iterator[Problem]:
    always = {
        (name, rule["action"]): where
        for where, rule in _rules(profile)
        if not any(rule.get(condition) for condition in engines.CONDITIONS)
        for name in rule["names"]
    }
    default = (profile["defaultAction"], profile.get("defaultErrnoRet", EPERM))
    for where, rule in _rules(profile):
        if (rule["action"], rule.get("errnoRet", EPERM)) == default:
            yield Problem("warning", where, "it answers as by default, and runc passes over it")
        if not profiles.possible(rule):
            yield Problem("warning", where, "its conditions exclude each other: it never applies")
        for name in rule["names"]:
            first = always.get((name, rule["action"]))
            if first and first != where and _key(rule) != repr([None] * len(engines.CONDITIONS)):
                yield Problem("warning", where, f"{name} is {rule['action']} in {first} already")


def _weak(profile: Json) -> typing.Iterator[Problem]:
    if profile["defaultAction"] in (ALLOW, "SCMP_ACT_LOG"):
        yield _error(
            "defaultAction",
            "whatever it does not name is allowed, also every call of later kernels; make it "
            "SCMP_ACT_ERRNO and name what is allowed",
        )
    if profile.get("listenerPath") or any(
        r["action"] == "SCMP_ACT_NOTIFY" for _, r in _rules(profile)
    ):
        yield _error("listenerPath", "a program that answers for the kernel is not managed here")


def _pitfalls(profile: Json, machine: str) -> typing.Iterator[Problem]:
    """Yield what keeps containers from starting, or programs from running."""
    caps = capabilities.decode(capabilities.DEFAULT)
    resolved = profiles.resolve(profile, caps, machine)
    default_errno = profile.get("defaultErrnoRet", EPERM)
    here = engines.calls(machine) or engines.calls()
    stopped = sorted(n for n in CORE & here if not _passes(resolved, n))
    if stopped:
        yield _error(
            "syscalls",
            f"runc cannot start a container, or nothing runs in it, without {', '.join(stopped)}",
        )
    for name in sorted({"clone3", "faccessat2", "close_range"} & here):
        state = resolved.get(name, "denied")
        if _passes(resolved, name):
            continue
        errno = int(state.partition(":")[2] or default_errno)
        is_error = profile["defaultAction"] == ERRNO or state.startswith("denied:")
        if not is_error or errno != ENOSYS:
            yield _error(
                "syscalls",
                f"{name} is denied with error {errno}: C libraries do without it only when it says "
                f"{ENOSYS} (ENOSYS); give it SCMP_ACT_ERRNO with errnoRet {ENOSYS}, or allow it",
            )


def _passes(resolved: dict[str, str], name: str) -> bool:
    return resolved.get(name) in ("allowed", "by_argument")
