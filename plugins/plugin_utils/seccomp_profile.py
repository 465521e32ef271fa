# Copyright: (c) 2026, the Bulkhead authors
# Apache License 2.0 (see LICENSE)
"""Seccomp profiles composed from a base by allowing and denying system calls, resolved and described.

Pure: profiles in, profiles out, in the format of the engine (moby profiles/seccomp/seccomp.go), in which a
rule may depend on the container's capabilities, the host's architecture and its kernel.
"""

from __future__ import annotations

import copy
import dataclasses
import re
import typing

from ansible_collections.bulkhead.hardening.plugins.plugin_utils import (
    capabilities,
    seccomp_engines as engines,
)
from ansible_collections.bulkhead.hardening.plugins.plugin_utils.plan import Json, PolicyError
from ansible_collections.bulkhead.hardening.plugins.plugin_utils.seccomp_engines import (
    ALLOW,
    ENOSYS,
    EPERM,
    ERRNO,
)

#: Calls that C libraries try first and do without when the kernel says ENOSYS; any other error counts as the
#: call's own, and programs fail. Source: moby issues 42680 (clone3), 41353 (faccessat2), 43595 (close_range).
FALLBACKS: typing.Final = frozenset(
    {"clone3", "close_range", "epoll_pwait2", "faccessat2", "fchmodat2", "futex_waitv"}
    | {"openat2", "preadv2", "pwritev2", "statx", "mseal", "map_shadow_stack"}
)

#: Address families of sockets, by name. Source: include/linux/socket.h of Linux 6.12.
FAMILIES: typing.Final = {
    name: number
    for number, name in enumerate(
        (
            *("UNSPEC", "UNIX", "INET", "AX25", "IPX", "APPLETALK", "NETROM", "BRIDGE", "ATMPVC"),
            *("X25", "INET6", "ROSE", "DECNET", "NETBEUI", "SECURITY", "KEY", "NETLINK", "PACKET"),
            *("ASH", "ECONET", "ATMSVC", "RDS", "SNA", "IRDA", "PPPOX", "WANPIPE", "LLC", "IB"),
            *("MPLS", "CAN", "TIPC", "BLUETOOTH", "IUCV", "RXRPC", "ISDN", "PHONET", "IEEE802154"),
            *("CAIF", "ALG", "NFC", "VSOCK", "KCM", "QIPCRTR", "SMC", "XDP", "MCTP"),
        )
    )
}

_ERRNOS: typing.Final = {"EPERM": EPERM, "EACCES": 13, "ENOSYS": ENOSYS}
_CALL = re.compile(r"[a-z_][a-z0-9_]{0,63}\Z")
KERNEL = re.compile(r"(?:[1-9]\d{0,3})\.\d{1,4}\Z")
_CONDITION_KEYS = {"caps": "caps", "arches": "arches", "min_kernel": "minKernel"}

#: Begins the comment of a profile's first rule, by which containers that were made with it are known.
MARK: typing.Final = "Written by Bulkhead (role docker_seccomp), profile "


@dataclasses.dataclass(frozen=True)
class Item:
    """Calls to allow or to deny. ``includes`` and ``excludes`` are conditions in the engine's format."""

    names: tuple[str, ...]
    includes: Json
    excludes: Json
    errno: int | None = None
    args: tuple[Json, ...] = ()

    @property
    def conditional(self) -> bool:
        """Whether it holds only for some containers or hosts."""
        return bool(self.includes or self.excludes)


@dataclasses.dataclass(frozen=True)
class Spec:
    """A profile as a user writes it. ``base`` is ``engine`` or a whole profile."""

    base: str | Json
    allow: tuple[Item, ...] = ()
    deny: tuple[Item, ...] = ()
    families: tuple[int, ...] = ()
    errno: int | None = None
    architectures: tuple[str, ...] = ()
    accept_unknown: frozenset[str] = frozenset()


# -- what a user writes ----------------------------------------------------------------------------
def read(raw: object, where: str) -> Spec:
    """Check a profile as a user writes it, without a host.

    :param raw: ``{base, allow, deny, deny_socket_families, errno, architectures, accept_unknown_calls}``, all
        optional.
    :param where: how errors call it, such as ``docker_seccomp_profiles[web]``.
    :raises PolicyError: naming the field, its value and the fix.
    """
    if not isinstance(raw, dict):
        raise PolicyError(where, raw, "give a mapping such as {deny: [ptrace]}")
    known = ("base", "allow", "deny", "deny_socket_families", "errno", "architectures")
    for name in raw:
        if name not in (*known, "accept_unknown_calls"):
            raise PolicyError(f"{where}.{name}", raw[name], f"it takes {', '.join(known)}")
    base = raw.get("base", "engine")
    if base != "engine" and not isinstance(base, dict):
        raise PolicyError(
            f"{where}.base",
            base,
            "give engine, or a whole profile such as {{ lookup('file', 'p.json') | from_json }}",
        )
    accepted = frozenset(
        _names(raw.get("accept_unknown_calls", []), f"{where}.accept_unknown_calls")
    )
    spec = Spec(
        base=base,
        allow=_items(raw.get("allow", []), f"{where}.allow", accepted, denied=False),
        deny=_items(raw.get("deny", []), f"{where}.deny", accepted, denied=True),
        families=_families(raw.get("deny_socket_families", []), f"{where}.deny_socket_families"),
        errno=_errno(raw["errno"], f"{where}.errno") if raw.get("errno") is not None else None,
        architectures=_architectures(raw.get("architectures", []), f"{where}.architectures"),
        accept_unknown=accepted,
    )
    _check_contradictions(spec, where)
    return spec


def _list(value: object, where: str) -> list[object]:
    if not isinstance(value, (list, tuple)):
        raise PolicyError(where, value, "give a list")
    return list(value)


def _names(value: object, where: str) -> list[str]:
    names = [value] if isinstance(value, str) else _list(value, where)
    for name in names:
        if not isinstance(name, str) or not _CALL.match(name):
            raise PolicyError(where, name, "give names of system calls such as ptrace")
    return typing.cast("list[str]", names)


def _items(
    value: object, where: str, accepted: frozenset[str], *, denied: bool
) -> tuple[Item, ...]:
    items = []
    for number, raw in enumerate(_list(value, where)):
        item = _item(raw, f"{where}[{number}]", denied=denied)
        for name in item.names:
            if name not in engines.calls() and name not in accepted:
                near = engines.nearest(name)
                raise PolicyError(
                    f"{where}[{number}]",
                    name,
                    "there is no such system call, and runc would pass over it in silence; "
                    + (f"did you mean {near}? " if near else "")
                    + "accept_unknown_calls of the profile takes names that this release does not know",
                )
        items.append(item)
    return tuple(items)


def _item(raw: object, where: str, *, denied: bool) -> Item:
    if isinstance(raw, str):
        return Item(tuple(_names(raw, where)), {}, {})
    if not isinstance(raw, dict) or "names" not in raw:
        raise PolicyError(where, raw, "give a name, or a mapping with names")
    fields = {"names", "when", "unless", "errno" if denied else "args"}
    for name in raw:
        if name not in fields:
            raise PolicyError(f"{where}.{name}", raw[name], f"it takes {', '.join(sorted(fields))}")
    item = Item(
        names=tuple(_names(raw["names"], f"{where}.names")),
        includes=_condition(raw.get("when", {}), f"{where}.when"),
        excludes=_condition(raw.get("unless", {}), f"{where}.unless"),
        errno=_errno(raw["errno"], f"{where}.errno") if "errno" in raw else None,
        args=_arguments(raw.get("args", []), f"{where}.args"),
    )
    if denied:
        clash = FALLBACKS.intersection(item.names) if item.errno not in (None, ENOSYS) else ()
        if clash:
            raise PolicyError(
                f"{where}.errno",
                raw["errno"],
                f"C libraries do without {', '.join(sorted(clash))} only when it says ENOSYS",
            )
    return item


def _condition(value: object, where: str) -> Json:
    if not isinstance(value, dict):
        raise PolicyError(where, value, "give a mapping such as {caps: [SYS_ADMIN]}")
    found: Json = {}
    for name, item in value.items():
        if name not in _CONDITION_KEYS:
            raise PolicyError(f"{where}.{name}", item, f"it takes {', '.join(_CONDITION_KEYS)}")
        found[_CONDITION_KEYS[name]] = _CONDITIONS[name](item, f"{where}.{name}")
    return found


def _capabilities(value: object, where: str) -> list[str]:
    names = []
    for name in _list(value, where):
        plain = str(name).upper().removeprefix("CAP_")
        if plain not in capabilities.NAMES:
            raise PolicyError(
                where, name, "there is no such capability; give names such as SYS_ADMIN"
            )
        names.append("CAP_" + plain)
    if not names:
        raise PolicyError(where, value, "name at least one capability")
    return names


def _arches(value: object, where: str) -> list[str]:
    known = set(engines.GO_ARCHITECTURES.values())
    names = _list(value, where)
    for name in names:
        if name not in known:
            raise PolicyError(where, name, f"give names of {', '.join(sorted(known))}")
    if not names:
        raise PolicyError(where, value, "name at least one architecture")
    return typing.cast("list[str]", names)


def _min_kernel(value: object, where: str) -> str:
    if not isinstance(value, str) or not KERNEL.match(value):
        raise PolicyError(where, value, "give major and minor release as a text such as '5.10'")
    return value


_CONDITIONS: dict[str, typing.Callable[[object, str], typing.Any]] = {
    "caps": _capabilities,
    "arches": _arches,
    "min_kernel": _min_kernel,
}


def _errno(value: object, where: str) -> int:
    number = _ERRNOS.get(value) if isinstance(value, str) else value
    if not isinstance(number, int) or isinstance(number, bool) or not 1 <= number <= 4095:
        raise PolicyError(where, value, f"give {', '.join(_ERRNOS)} or a number from 1 to 4095")
    return number


#: What an argument may be compared by. Source: libseccomp's seccomp.h.
OPERATORS: typing.Final = tuple(
    "SCMP_CMP_" + name for name in ("NE", "LT", "LE", "EQ", "GE", "GT", "MASKED_EQ")
)


def _arguments(value: object, where: str) -> tuple[Json, ...]:
    found = []
    for raw in _list(value, where):
        reason = argument_problem(raw)
        if reason:
            raise PolicyError(where, raw, reason)
        found.append(dict(typing.cast(Json, raw)))
    return tuple(found)


def argument_problem(raw: object) -> str | None:
    """Return what is wrong with one comparison of a rule, or None."""
    if not isinstance(raw, dict) or not {"index", "value", "op"} <= set(raw):
        return "give {index, value, op}, and valueTwo for SCMP_CMP_MASKED_EQ"
    if set(raw) - {"index", "value", "valueTwo", "op"}:
        return "it has fields besides index, value, valueTwo and op"
    numbers = [raw["index"], raw["value"], raw.get("valueTwo", 0)]
    if not all(isinstance(n, int) and not isinstance(n, bool) for n in numbers):
        return "index and values are whole numbers"
    if not 0 <= raw["index"] <= 5:
        return "a system call has arguments 0 to 5"
    if not all(0 <= n < 2**64 for n in numbers[1:]):
        return "a value lies between 0 and 18446744073709551615"
    if raw["op"] not in OPERATORS:
        return f"op is one of {', '.join(OPERATORS)}"
    return None


def _families(value: object, where: str) -> tuple[int, ...]:
    found = []
    for name in _list(value, where):
        plain = str(name).upper().removeprefix("AF_")
        if plain not in FAMILIES:
            raise PolicyError(where, name, "give names of address families such as AF_ALG")
        if plain in ("UNIX", "INET"):
            raise PolicyError(where, name, "next to no program works without it")
        found.append(FAMILIES[plain])
    return tuple(sorted(set(found)))


def _architectures(value: object, where: str) -> tuple[str, ...]:
    names = _list(value, where)
    for name in names:
        if name not in engines.architectures():
            known = ", ".join(sorted(engines.architectures()))
            raise PolicyError(where, name, f"give names of {known}")
    return tuple(typing.cast("list[str]", names))


def _check_contradictions(spec: Spec, where: str) -> None:
    allowed = {name for item in spec.allow for name in item.names}
    denied = {name for item in spec.deny for name in item.names}
    for name in sorted(allowed & denied):
        raise PolicyError(where, name, "it is both allowed and denied; keep one of the two")
    for kind, items in (("allow", spec.allow), ("deny", spec.deny)):
        plain = [name for item in items if not item.conditional for name in item.names]
        for name in sorted(name for name in set(plain) if plain.count(name) > 1):
            raise PolicyError(f"{where}.{kind}", name, "it is there more than once; keep one")
    if spec.families and "socket" in allowed | denied:
        raise PolicyError(
            f"{where}.deny_socket_families", "socket", "socket itself is allowed or denied already"
        )


# -- composing -------------------------------------------------------------------------------------
def compose(spec: Spec, base: Json, name: str = "") -> Json:
    """Return the profile that a spec makes of a base, in the engine's format.

    :param base: a whole profile; it is left as it is.
    :param name: the profile's, for the mark by which its containers are known.
    """
    profile = copy.deepcopy(base)
    rules: list[Json] = profile.setdefault("syscalls", [])
    if spec.errno is not None:
        profile["defaultErrnoRet"] = spec.errno
    if spec.architectures:
        profile.pop("archMap", None)
        profile["architectures"] = list(spec.architectures)
    for item in spec.deny:
        rules = _denied(rules, item, profile.get("defaultErrnoRet", EPERM))
    for item in spec.allow:
        rules = _allowed(rules, item)
    if spec.families:
        rules = _without_families(rules, spec.families)
    profile["syscalls"] = rules
    if name and rules:
        rules[0] = {**rules[0], "comment": MARK + name}
    return profile


def _without(rule: Json, names: typing.Collection[str]) -> list[Json]:
    """Return a rule without some of its calls; no rule when none is left."""
    kept = [name for name in rule["names"] if name not in names]
    return [{**rule, "names": kept}] if kept else []


def _denied(rules: list[Json], item: Item, default: int) -> list[Json]:
    found: list[Json] = []
    for rule in rules:
        hit = [name for name in rule["names"] if name in item.names]
        found += _without(rule, hit) if hit else [rule]
        if hit and item.conditional:
            found += _elsewhere({**rule, "names": hit}, item)
    by_errno: dict[int, list[str]] = {}
    for name in item.names:
        errno = item.errno or (ENOSYS if name in FALLBACKS else default)
        by_errno.setdefault(errno, []).append(name)
    for errno, names in by_errno.items():
        if errno != default:
            found.append(_rule(names, item, action=ERRNO, errnoRet=errno))
    return found


def _rule(names: list[str], item: Item, **fields: typing.Any) -> Json:
    conditions = {
        key: copy.deepcopy(value)
        for key, value in (("includes", item.includes), ("excludes", item.excludes))
        if value
    }
    return {"names": names, **fields, **conditions}


def _elsewhere(rule: Json, item: Item) -> list[Json]:
    """Return a rule as it is to apply wherever an item's conditions do not hold.

    Conditions add up, so that they do not hold where any of them does not: a rule for each.
    """
    found = []
    for side, conditions in (("excludes", item.includes), ("includes", item.excludes)):
        for key, value in conditions.items():
            for single in [[cap] for cap in value] if key == "caps" else [value]:
                narrowed = _narrowed(rule, side, key, single)
                if possible(narrowed):
                    found.append(narrowed)
    return found


def _narrowed(rule: Json, side: str, key: str, value: typing.Any) -> Json:
    """Return a rule with one more condition."""
    found = copy.deepcopy(rule)
    there = found.setdefault(side, {})
    if key not in there:
        there[key] = copy.deepcopy(value)
    elif key == "minKernel":
        there[key] = (min if side == "excludes" else max)(there[key], value, key=_kernel)
    elif key == "arches" and side == "includes":
        there[key] = [arch for arch in there[key] if arch in value]
    else:
        there[key] += [entry for entry in value if entry not in there[key]]
    return found


def possible(rule: Json) -> bool:
    """Tell whether there is any container for which the engine would keep a rule."""
    include, exclude = rule.get("includes") or {}, rule.get("excludes") or {}
    arches = include.get("arches")
    return (
        not set(include.get("caps") or ()).intersection(exclude.get("caps") or ())
        and (arches is None or bool(set(arches) - set(exclude.get("arches") or ())))
        and not (
            "minKernel" in include
            and "minKernel" in exclude
            and _kernel(include["minKernel"]) >= _kernel(exclude["minKernel"])
        )
    )


def _kernel(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split("."))


def _allowed(rules: list[Json], item: Item) -> list[Json]:
    whole = not item.conditional and not item.args
    found: list[Json] = []
    for rule in rules:
        hit = [name for name in rule["names"] if name in item.names]
        # What is allowed outright needs no rule under a condition, and none that answers otherwise.
        if hit and whole:
            found += _without(rule, hit)
        elif hit and rule["action"] != ALLOW:
            found += [*_without(rule, hit), *_elsewhere({**rule, "names": hit}, item)]
        else:
            found.append(rule)
    fields: Json = {"action": ALLOW}
    if item.args:
        fields["args"] = [dict(argument) for argument in item.args]
    return [*found, _rule(list(item.names), item, **fields)]


def _without_families(rules: list[Json], denied: tuple[int, ...]) -> list[Json]:
    """Allow sockets of each known family but some.

    The families are listed, because the filter compares 64 bits and the kernel takes 32: with «greater
    than», a number with bits above would pass and be a denied family to the kernel.
    """
    sockets = [rule for rule in rules if "socket" in rule["names"] and rule["action"] == ALLOW]
    allowed = [
        number
        for number in FAMILIES.values()
        if number not in denied and any(_matches(rule.get("args"), number) for rule in sockets)
    ]
    found = [kept for rule in rules for kept in _without(rule, ("socket",))]
    for number in allowed:
        argument = {"index": 0, "value": number, "op": "SCMP_CMP_EQ"}
        found.append({"names": ["socket"], "action": ALLOW, "args": [argument]})
    return found


def _matches(arguments: list[Json] | None, number: int) -> bool:
    """Tell whether comparisons of the first argument let a number pass."""
    tests: dict[str, typing.Callable[[int, int], bool]] = {
        "SCMP_CMP_NE": lambda value, wanted: value != wanted,
        "SCMP_CMP_LT": lambda value, wanted: value < wanted,
        "SCMP_CMP_LE": lambda value, wanted: value <= wanted,
        "SCMP_CMP_EQ": lambda value, wanted: value == wanted,
        "SCMP_CMP_GE": lambda value, wanted: value >= wanted,
        "SCMP_CMP_GT": lambda value, wanted: value > wanted,
    }
    return all(
        argument["index"] == 0
        and argument["op"] in tests
        and tests[argument["op"]](number, argument["value"])
        for argument in arguments or []
    )


def socket_families(profile: Json) -> list[str]:
    """Return the known address families that a profile denies to every container."""
    sockets = [
        rule
        for rule in profile.get("syscalls") or []
        if "socket" in rule["names"] and rule["action"] == ALLOW
    ]
    return [
        "AF_" + name
        for name, number in FAMILIES.items()
        if not any(_matches(rule.get("args"), number) for rule in sockets)
    ]


# -- resolving -------------------------------------------------------------------------------------
def applies(rule: Json, caps: typing.Collection[str], machine: str, kernel: str) -> bool:
    """Tell whether the engine keeps a rule for a container.

    :param caps: the container's bounding set, names with ``CAP_``.
    :param machine: the host's, such as ``x86_64``.
    :param kernel: the host's release, such as ``6.12.1``.
    """
    arch = engines.GO_ARCHITECTURES.get(machine, machine)
    release = _kernel(".".join(re.findall(r"\d+", kernel)[:2]))
    include, exclude = rule.get("includes") or {}, rule.get("excludes") or {}
    return (
        set(include.get("caps") or ()) <= set(caps)
        and not set(exclude.get("caps") or ()).intersection(caps)
        and (not include.get("arches") or arch in include["arches"])
        and arch not in (exclude.get("arches") or ())
        and ("minKernel" not in include or release >= _kernel(include["minKernel"]))
        and ("minKernel" not in exclude or release < _kernel(exclude["minKernel"]))
    )


def resolve(
    profile: Json, caps: typing.Collection[str], machine: str, kernel: str = "9999.0"
) -> dict[str, str]:
    """Return what a profile does about each call that it names, for one container.

    :returns: by name: ``allowed``; ``by_argument`` (allowed for some arguments); ``denied``, or
        ``denied:<errno>`` where it answers otherwise than by default.
    """
    found: dict[str, str] = {}
    for rule in profile.get("syscalls") or []:
        if not applies(rule, caps, machine, kernel):
            continue
        for name in rule["names"]:
            if rule["action"] == ALLOW:
                state = "by_argument" if rule.get("args") else "allowed"
                found[name] = "allowed" if found.get(name) == "allowed" else state
            elif name not in found:
                found[name] = f"denied:{rule.get('errnoRet', EPERM)}"
    for rule in profile.get("syscalls") or []:
        for name in rule["names"]:
            found.setdefault(name, "denied")
    return found


def describe(
    profile: Json,
    base: Json | None,
    machine: str,
    caps: typing.Collection[str] = tuple(capabilities.decode(capabilities.DEFAULT)),
) -> Json:
    """Say what a profile does, next to the engine's own.

    :param base: the builtin profile, or None when it is not known.
    :param caps: of the container; by default those that the engine gives.
    :returns: ``{calls, allowed, by_argument, blocked, blocked_by_default, denied_beyond_default,
        allowed_beyond_default, socket_families, notes, summary}``. Names are of system calls of that
        machine; ``blocked_by_default``, and both that compare, are None without a base.
    """
    every = engines.calls(machine)
    mine = resolve(profile, caps, machine)
    passes = {name for name in every if mine.get(name) in ("allowed", "by_argument")}
    blocked = sorted(every - passes)
    found: Json = {
        "calls": len(every),
        "allowed": sum(mine.get(name) == "allowed" for name in every),
        "by_argument": sorted(name for name in every if mine.get(name) == "by_argument"),
        "blocked": blocked,
        "blocked_by_default": None,
        "denied_beyond_default": None,
        "allowed_beyond_default": None,
        "socket_families": socket_families(profile),
        "notes": _notes(profile, mine, machine),
    }
    summary = f"{len(blocked)} of {len(every)} system calls of {machine} are blocked"
    if base is not None:
        theirs = resolve(base, caps, machine)
        default = {name for name in every if theirs.get(name) in ("allowed", "by_argument")}
        more = {n for n in passes & default if mine[n] == "allowed" != theirs[n]} - {"socket"}
        found["blocked_by_default"] = sorted(every - default - passes)
        found["denied_beyond_default"] = sorted(default - passes)
        found["allowed_beyond_default"] = sorted((passes - default) | more)
        summary += (
            f", {len(found['blocked_by_default'])} of them by the engine's default too; "
            f"{len(found['allowed_beyond_default'])} are allowed that it blocks or restricts"
        )
    return {**found, "summary": summary}


def _notes(profile: Json, resolved: dict[str, str], machine: str) -> list[str]:
    """Return what the rules alone do not show."""
    notes = []
    covered = profile.get("architectures") or engines.filter_architectures(machine)
    if socket_families(profile) and resolved.get("socketcall") == "allowed" and len(covered) > 1:
        notes.append(
            "32-bit programs reach sockets through socketcall, in which no filter sees the family; "
            "deny socketcall too if none runs there"
        )
    return notes
