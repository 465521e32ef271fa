# Copyright: (c) 2026, the Bulkhead authors
# Apache License 2.0 (see LICENSE)
"""A module of SELinux's policy as text: taken from CIL, or made from what a container type may do.

A type that a description makes is one more type of container, called ``NAME.process``: confined as
``container_t`` is, each container apart from the next by its level, and allowed what is listed. Source:
the CIL reference guide; and how udica describes such types.
"""

from __future__ import annotations

import re
import typing

from ansible_collections.bulkhead.hardening.plugins.plugin_utils import scalars
from ansible_collections.bulkhead.hardening.plugins.plugin_utils.plan import Json

_TYPE = re.compile(r"[a-zA-Z][a-zA-Z0-9_.]{0,63}\Z")

#: The attributes that make a type one of containers', by family of policy. Debian's was read from the
#: policy of Debian 13 (seinfo -t container_t -x); the other from container-selinux, not run.
ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "refpolicy": (
        *("domain", "mcs_constrained_type", "nsswitch_domain", "process_user_target"),
        *("container_domain", "container_system_domain", "container_user_domain"),
    ),
    "container-selinux": ("domain", "mcs_constrained_type", "container_domain"),
}
NETWORK: dict[str, tuple[str, ...]] = {
    "refpolicy": ("container_net_domain",),
    "container-selinux": ("container_net_domain",),
}

_READ = {
    "dir": "getattr search open read lock ioctl",
    "file": "getattr open read lock ioctl map",
    "lnk_file": "getattr read",
}
_WRITE = {
    "dir": "getattr search open read lock ioctl setattr write add_name remove_name create rmdir "
    "rename reparent",
    "file": "getattr open read lock ioctl map setattr write append create unlink link rename",
    "lnk_file": "getattr read create unlink rename setattr",
}
_LISTS = ("read", "write", "connect", "bind")
_FIELDS = ("network", *_LISTS)


class Wrong(ValueError):
    """A description cannot be right.

    :param where: the field; ``value``: what it holds; ``fix``: what to do, a sentence.
    """

    def __init__(self, where: str, value: object, fix: str) -> None:
        super().__init__(f"{where} is {value!r}: {fix}")
        self.where, self.value, self.fix = where, value, fix


def check(spec: object) -> Json:
    """Check a description and return it with all its fields.

    :returns: ``{network: bool, read, write, connect, bind: list of types}``.
    :raises Wrong: with the field, its value and the fix.
    """
    if not isinstance(spec, dict):
        raise Wrong("description", spec, "give a mapping, or cil or file")
    unknown = sorted(str(name) for name in set(spec) - set(_FIELDS))
    if unknown:
        raise Wrong(
            unknown[0], spec[unknown[0]], f"there is no such field; use {', '.join(_FIELDS)}"
        )
    network = scalars.as_boolean(spec.get("network", False))
    if network is None:
        raise Wrong("network", spec["network"], "say true or false")
    found: Json = {"network": network}
    for name in _LISTS:
        types = spec.get(name) or []
        if not isinstance(types, list):
            raise Wrong(name, types, "give a list of types")
        for item in types:
            if not isinstance(item, str) or not _TYPE.match(item):
                raise Wrong(name, item, "give the name of a type, such as httpd_sys_content_t")
        found[name] = sorted(set(types))
    if (found["connect"] or found["bind"]) and not network:
        raise Wrong("network", network, "connect and bind need network: true")
    return found


def check_cil(text: object) -> str:
    """Check that a text can be CIL: expressions with all their parentheses.

    :raises Wrong: it cannot.
    """
    if not isinstance(text, str) or not text.strip():
        raise Wrong("cil", text, "give the text of a module in CIL")
    bare = re.sub(r'"[^"\n]*"', "", re.sub(r";[^\n]*", "", text))
    depth = 0
    for character in bare:
        depth += {"(": 1, ")": -1}.get(character, 0)
        if depth < 0:
            break
    if depth or "(" not in bare:
        raise Wrong("cil", text[:60], "its parentheses do not match")
    return text if text.endswith("\n") else text + "\n"


def render(name: str, spec: Json, family: str) -> str:
    """Return a description as CIL for one family of policy.

    :param spec: as :func:`check` returns it.
    """
    attributes = [*ATTRIBUTES[family], *(NETWORK[family] if spec["network"] else ())]
    lines = ["(type process)", "(roletype system_r process)"]
    lines += [f"(typeattributeset {attribute} (process))" for attribute in attributes]
    lines += _rules(spec["read"], _READ) + _rules(spec["write"], _WRITE)
    for field, permission in (("connect", "name_connect"), ("bind", "name_bind")):
        for item in spec[field]:
            lines.append(f"(allow process {item} (tcp_socket ({permission})))")
            if permission == "name_bind":
                lines.append(f"(allow process {item} (udp_socket ({permission})))")
    body = "".join(f"    {line}\n" for line in lines)
    head = f"; Made by Bulkhead (docker_selinux) from docker_selinux_modules[{name}]: change it there.\n"
    return f"{head}(block {name}\n{body})\n"


def _rules(types: typing.Iterable[str], classes: typing.Mapping[str, str]) -> list[str]:
    return [
        f"(allow process {item} ({kind} ({permissions})))"
        for item in types
        for kind, permissions in classes.items()
    ]
