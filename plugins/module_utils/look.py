# Copyright: (c) 2026, the Bulkhead authors
# Apache License 2.0 (see LICENSE)
"""The look: one read-only pass over a Docker host that answers with the *observation*.

Both doors use it: docker_host_info answers with nothing else, docker_host_apply looks once more
after it acted. The document is described by docs/schemas/observation.schema.json.
"""

from __future__ import annotations

import typing

from ansible_collections.bulkhead.hardening.plugins.module_utils import (
    look_collect,
    look_falco,
    look_host,
    look_protection,
    look_tls,
    look_trust,
)
from ansible_collections.bulkhead.hardening.plugins.module_utils.host import Host
from ansible_collections.bulkhead.hardening.plugins.module_utils.look_common import (
    Mapping,
    UnreadableError,
    capped,
    os_reason,
)
from ansible_collections.bulkhead.hardening.plugins.module_utils.look_kernel import kernel_view
from ansible_collections.bulkhead.hardening.plugins.module_utils.look_pass import Pass
from ansible_collections.bulkhead.hardening.plugins.module_utils.look_systemd import Word

__all__ = [
    "SCHEMA",
    "SECTIONS",
    "arguments_now_and_next",
    "check_subset",
    "daemon_arguments",
    "kernel_view",
    "observe",
]

SCHEMA = "bulkhead.observation/1"


def observe(
    host: Host,
    subset: typing.Sequence[str] | None = None,
    *,
    volume_sizes: bool = False,
    writable_layers: bool = False,
    timeout: float = 60.0,
    rootless_user: str | None = None,
    tls_files: typing.Mapping[str, str] | None = None,
) -> dict[str, typing.Any]:
    """Look at a host and return its observation. Changes nothing, and raises only for ``subset``.

    :param subset: the sections to gather, and the groups ``all``, ``hardening`` (what plans need)
        and ``details``; None means everything, as ``all`` does. Sections that are not asked for are
        absent from the answer. One that could not be read is None, and
        ``unread`` says why.
    :param volume_sizes: ask the daemon for the size of each volume, which walks the disk.
    :param writable_layers: ask the daemon what each running container wrote outside of its mounts.
    :param timeout: seconds to wait for each answer of the daemon and of systemd.
    :param rootless_user: look at the rootless daemon of this user instead of the system's own.
    :param tls_files: files that a policy names for the API's TLS, by the keys of daemon.json.
    :raises ValueError: a name that is no section; the message names the valid ones.
    """
    names = check_subset(subset)
    details = not subset or bool({DETAILS, "all"}.intersection(subset))
    look = Pass(host, timeout, volume_sizes, details, writable_layers, rootless_user, tls_files)
    answer: Mapping = {"schema": SCHEMA, "collected_at": host.now()}
    for name in names:
        answer[name] = _gather(look, name)
    for item, reason in look.daemon_notes():
        look.notes.add("engine", item, reason)
    answer["unread"] = look.notes.rows
    answer["api_calls"] = look.api_calls
    document = capped(answer)
    assert isinstance(document, dict)
    return document


def check_subset(subset: typing.Sequence[str] | None) -> list[str]:
    """Return the sections to gather, in their order. Raises ValueError for an unknown one."""
    wanted = set(subset or ["all"])
    unknown = sorted(wanted - {*SECTIONS, *GROUPS, DETAILS})
    if unknown:
        raise ValueError(
            "gather_subset: %s is not a section; choose from %s, %s, %s"
            % (", ".join(unknown), ", ".join(GROUPS), DETAILS, ", ".join(SECTIONS))
        )
    for group in wanted & set(GROUPS):
        wanted.update(GROUPS[group])
    return [name for name in SECTIONS if name in wanted]


def daemon_arguments(host: Host, timeout: float = 60.0) -> list[str]:
    """Return the daemon's arguments, without the program: those of the process, or of its unit.

    With all secrets in them: not for any answer. Empty when there is no daemon to be found.
    """
    return arguments_now_and_next(host, timeout)[0]


def arguments_now_and_next(host: Host, timeout: float = 60.0) -> tuple[list[str], list[Word]]:
    """Return the daemon's arguments, and those that docker.service gives it at its next start.

    They differ when somebody changed the unit, a drop-in or an environment file since the start. The
    second list says where each of them stands, and is empty when the unit cannot be read.
    """
    daemon = Pass(host, timeout).daemon()
    words = daemon.from_unit.words[1:] if daemon.from_unit else []
    return [word.text for word in daemon.words[1:]], words


def _gather(look: Pass, name: str) -> typing.Any:
    """Run one collector. Whatever goes wrong in it costs its section, not the look."""
    try:
        return _COLLECTORS[name](look)
    except UnreadableError as exc:
        look.notes.add(name, None, str(exc))
    except OSError as exc:
        look.notes.add(name, None, os_reason(exc))
    except Exception as exc:  # what a host says may have any shape
        # The text of such an error may quote what was read, so only its kind goes out.
        look.notes.add(name, None, "unexpected answer (%s)" % type(exc).__name__)
    return None


def _daemon_config(look: Pass) -> Mapping:
    config = look.daemon().config
    if config.state == "unreadable":
        look.notes.add("daemon_config", config.path, config.reason or "")
    return config.observation(look.host)


#: What plans are made from.
_FOR_PLANS: dict[str, typing.Callable[[Pass], typing.Any]] = {
    "os": lambda look: look.system(),
    "engine": look_collect.engine,
    "daemon_config": _daemon_config,
    "containers": look_collect.containers,
    "images": look_collect.images,
    "volumes": look_collect.volumes,
    "networks": look_collect.networks,
    "files": look_collect.files,
    "tls_files": lambda look: look_tls.tls_files(look.host, look.daemon(), look.tls_files),
    "units": lambda look: look.units(),
    "scope_dropins": lambda look: look_host.scope_dropins(look.host, look.notes),
    "slice": lambda look: look_host.container_slice(look.host),
    "seccomp_profiles": lambda look: look_host.seccomp_profiles(look.host, look.notes),
    "subids": lambda look: look_host.subids(look.host),
    "users": lambda look: look.users(),
    "lsm": lambda look: look.security_modules(),
    "sysctls": lambda look: look_host.sysctls(look.host),
    "modules": lambda look: look_host.modules(look.host, look.notes),
    "kernel": lambda look: look_protection.section(look.host, look.notes),
    "audit": look_collect.audit,
    "client": look_collect.client,
    "trust": lambda look: look_trust.section(look.host, look.notes),
    "falco": lambda look: look_falco.section(look.host, look.notes, look.timeout),
    "bulkhead": lambda look: look_host.bulkhead(look.host, look.notes),
}

#: What only an audit asks for.
_FOR_AUDITS: dict[str, typing.Callable[[Pass], typing.Any]] = {
    "unit_list": lambda look: [{"name": name, **unit} for name, unit in look.units().items()],
    "swarm": look_collect.swarm,
    "services": look_collect.services,
    "containerd": lambda look: look.containerd(),
    "listeners": look_collect.listeners,
    "storage": look_collect.storage,
    "docker_group": look_collect.docker_group,
    "daemons": look_collect.daemons,
}

_COLLECTORS = {**_FOR_PLANS, **_FOR_AUDITS}

#: Every section of an observation, in the order in which they are gathered.
SECTIONS: tuple[str, ...] = tuple(_COLLECTORS)

#: Sections by the name of their group.
GROUPS: dict[str, tuple[str, ...]] = {"all": SECTIONS, "hardening": tuple(_FOR_PLANS)}
#: Not a section: it deepens engine, containers and images.
DETAILS = "details"
