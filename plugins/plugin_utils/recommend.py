# Copyright: (c) 2026, the Bulkhead authors
# Apache License 2.0 (see LICENSE)
"""What would bring running containers to policy: options with their reasons and evidence.

The kernel does not record which capabilities a process used, so what a container needs is inferred: from
what its processes hold and which users they are, from its ports, and from what somebody gave it explicitly.
Every recommendation says what it was inferred from; none is applied by anybody but the reader.
"""

from __future__ import annotations

import dataclasses
import re
import typing
import urllib.parse

import yaml

from ansible_collections.bulkhead.hardening.plugins.plugin_utils import capabilities, scalars
from ansible_collections.bulkhead.hardening.plugins.plugin_utils.plan import Json, PolicyError
from ansible_collections.bulkhead.hardening.plugins.plugin_utils.report import names, plain

_MIB = 1024 * 1024

#: The least that is recommended, whatever a container uses now.
_LEAST_MEMORY = 64 * _MIB
_LEAST_PIDS = 64

_SERVICE = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,62}\Z")
_COMPOSE_SERVICE = "com.docker.compose.service"

#: What a root process needs that starts others as other users, and looks after them. CHOWN: such programs,
#: and the scripts that start them, give their files to those users first.
_SWITCHING = ("CHOWN", "KILL", "SETGID", "SETUID")


@dataclasses.dataclass(frozen=True)
class Settings:
    """How much room limits leave over what is used now: factors of it."""

    memory_factor: int = 2
    pids_factor: int = 4


def settings(raw: object) -> Settings:
    """Check the settings of the recommendations.

    :raises PolicyError: naming the variable, its value and the fix.
    """
    if not isinstance(raw, dict):
        raise PolicyError("docker_recommend", raw, "give a mapping of its variables")
    known = {field.name for field in dataclasses.fields(Settings)}
    found: dict[str, int] = {}
    for name, value in raw.items():
        variable = f"docker_recommend_{name}"
        if name not in known:
            raise PolicyError(variable, value, "there is no such variable")
        found[name] = scalars.integer(variable, value, 1, 1000)
    return Settings(**found)


def recommendations(observation: Json, raw: object) -> list[Json]:
    """Return what is recommended for each running container, by name.

    :param observation: with the sections ``containers``, ``lsm`` and details, and what containers wrote.
    :param raw: the variables of ``docker_recommend`` without their prefix.
    :returns: ``[{container, service, file, options, notes, compose, docker_run}]``. An option is ``{name,
        value, docker_run, reason, evidence}``; ``compose`` and ``docker_run`` are texts with all of them.
    :raises PolicyError: a setting is wrong, or the look has no containers.
    """
    chosen = settings(raw)
    if observation.get("containers") is None:
        reasons = [str(i["reason"]) for i in observation.get("unread") or [] if not i.get("item")]
        raise PolicyError(
            "the look's section containers",
            None,
            f"it could not be read ({'; '.join(map(plain, reasons)) or 'not gathered'})",
        )
    found = []
    for container in sorted(observation["containers"], key=lambda item: str(item["name"])):
        if container.get("config") and container.get("kernel"):
            found.append(_one(container, observation, chosen))
    return found


def _one(container: Json, observation: Json, chosen: Settings) -> Json:
    options: list[Json] = []
    notes: list[str] = []
    _privileged(container, options, notes)
    _capabilities(container, options, notes)
    _no_new_privileges(container, options, notes)
    _read_only(container, options, notes)
    _pids(container, chosen, options)
    _memory(container, chosen, options)
    _profiles(container, observation, notes)
    service = _service(container)
    name = urllib.parse.quote(str(container["name"]), safe="")
    told: Json = {
        "container": plain(container["name"]),
        "service": service,
        "file": name or str(container["id"])[:12],
        "options": options,
        "notes": notes,
    }
    return {**told, "compose": _compose_text(told), "docker_run": _run_text(told)}


def _service(container: Json) -> str:
    """Return the name of the service in Compose: its label's, or the container's."""
    for name in ((container.get("labels") or {}).get(_COMPOSE_SERVICE), container["name"]):
        if isinstance(name, str) and _SERVICE.match(name):
            return name
    return "container-" + re.sub(r"[^0-9a-f]", "", str(container["id"]))[:12]


def _option(
    name: str, value: typing.Any, docker_run: list[str], reason: str, evidence: str
) -> Json:
    return {
        "name": name,
        "value": value,
        "docker_run": docker_run,
        "reason": reason,
        "evidence": plain(evidence),
    }


# -- capabilities ----------------------------------------------------------------------------------
def _privileged(container: Json, options: list[Json], notes: list[str]) -> None:
    if not container["config"].get("privileged"):
        return
    options.append(
        _option(
            "privileged",
            False,
            [],
            "whoever breaks into it is root on the host, devices and all",
            "it is privileged",
        )
    )
    notes.append(
        "Leave --privileged out; give single devices with --device and single capabilities with --cap-add. "
        "Which of its powers it uses, nothing recorded."
    )


def needed_capabilities(container: Json) -> dict[str, str]:
    """Return the capabilities that a running container seems to need, with the evidence for each.

    Names are without ``CAP_``. What nothing speaks for is not in it, which is no proof that the
    container never uses it.
    """
    found: dict[str, str] = {}
    config, kernel = container["config"], container["kernel"]
    held = [name.removeprefix("CAP_") for name in capabilities.decode(kernel["cap_bnd"])]
    processes = container.get("processes") or []
    if config.get("user") and not _holds(kernel, processes):
        return found
    for name in sorted(_given(container) & set(held)):
        found[name] = "somebody added it by name"
    users = {process["host_uid"] for process in processes} | {kernel.get("host_uid")}
    users.discard(None)
    if len(users) > 1 and _holds(kernel, processes):
        others = ", ".join(sorted({plain(process["comm"]) for process in processes}))
        for name in _SWITCHING:
            found.setdefault(name, f"its processes run as {len(users)} users ({others})")
    ports = sorted(
        {
            port["container_port"]
            for port in config.get("ports") or []
            if port.get("container_port") and port["container_port"] < 1024
        }
        | {item["port"] for item in container.get("listening") or [] if 0 < item["port"] < 1024}
    )
    if ports:
        shown = ", ".join(map(str, ports))
        found.setdefault("NET_BIND_SERVICE", f"it serves ports below 1024 ({shown})")
    return {name: reason for name, reason in found.items() if name in held}


def _given(container: Json) -> set[str]:
    """Return what somebody added by name."""
    added = container["config"].get("cap_add") or []
    return {str(name).upper().removeprefix("CAP_") for name in added}


def _holds(kernel: Json, processes: list[Json]) -> bool:
    """Tell whether any process holds a capability."""
    masks = [kernel["cap_eff"], *(process["cap_eff"] for process in processes)]
    return any(int(str(mask), 16) for mask in masks)


def _capabilities(container: Json, options: list[Json], notes: list[str]) -> None:
    kernel = container["kernel"]
    needed = needed_capabilities(container)
    idle = sorted(_given(container) - set(needed) - {"ALL"})
    if idle:
        notes.append(
            f"{names(idle)} was added by name, and no process of it holds that: take it out of cap_add."
        )
    wanted = capabilities.options(list(needed))
    held = capabilities.decode(kernel["cap_bnd"])
    if sorted(name.removeprefix("CAP_") for name in held) == sorted(wanted["cap_add"]):
        return
    beyond = capabilities.compare(kernel["cap_bnd"])["beyond"]
    evidence = f"bounding set {kernel['cap_bnd']}, in effect {kernel['cap_eff']}"
    if beyond:
        evidence += f"; beyond the engine's default: {names(beyond)}"
    options.append(
        _option(
            "cap_drop",
            wanted["cap_drop"],
            ["--cap-drop", "ALL"],
            "what it does not need, nobody can use who breaks into it; the kernel does not record the use "
            "of capabilities, so try it in a copy first",
            evidence,
        )
    )
    if needed:
        options.append(
            _option(
                "cap_add",
                wanted["cap_add"],
                [word for name in wanted["cap_add"] for word in ("--cap-add", name)],
                "what it seems to need",
                "; ".join(f"{name}: {needed[name]}" for name in wanted["cap_add"]),
            )
        )


# -- the other options -----------------------------------------------------------------------------
def _no_new_privileges(container: Json, options: list[Json], notes: list[str]) -> None:
    if container["kernel"].get("no_new_privs"):
        return
    options.append(
        _option(
            "security_opt",
            ["no-new-privileges:true"],
            ["--security-opt", "no-new-privileges:true"],
            "setuid programs such as sudo give nobody more rights",
            "NoNewPrivs of its first process is 0",
        )
    )
    if container["config"].get("user"):
        notes.append("If a program in it relies on sudo or su, no-new-privileges ends that.")


def _read_only(container: Json, options: list[Json], notes: list[str]) -> None:
    if container["kernel"].get("rootfs_readonly"):
        return
    written = container.get("layer_writes")
    if written is None:
        notes.append(
            "Whether it could have a read-only root is not known: what it wrote was not read."
        )
    elif written["count"]:
        places = ", ".join(plain(place) for place in written["directories"])
        notes.append(
            f"It wrote {written['count']} files or directories outside of its mounts, in {places}. With a "
            "volume or tmpfs for those, its root can be read-only."
        )
    else:
        options.append(
            _option(
                "read_only",
                True,
                ["--read-only"],
                "nobody who breaks into it can leave anything in its files",
                "since it was created it wrote nothing outside of its mounts; what it writes rarely was "
                "perhaps not seen yet",
            )
        )


def _pids(container: Json, chosen: Settings, options: list[Json]) -> None:
    limit, used = container["config"].get("pids_limit"), container["kernel"].get("pids_current")
    if (limit or 0) > 0 or used is None:
        return
    value = max(_LEAST_PIDS, used * chosen.pids_factor)
    most = container["kernel"].get("pids_max")
    if most is not None and most <= value:
        return
    options.append(
        _option(
            "pids_limit",
            value,
            ["--pids-limit", str(value)],
            "a fork bomb in it ends before the host notices",
            f"pids.current {used}, pids.max {most if most is not None else 'max'}",
        )
    )


def _memory(container: Json, chosen: Settings, options: list[Json]) -> None:
    used = container["kernel"].get("memory_current")
    if container["config"].get("memory") or used is None:
        return
    step = _LEAST_MEMORY
    value = max(step, -(-used * chosen.memory_factor // step) * step)
    options.append(
        _option(
            "mem_limit",
            f"{value // _MIB}m",
            ["--memory", f"{value // _MIB}m"],
            "it cannot take the host's memory; what it needs at its busiest nothing recorded",
            f"memory.current {used} bytes, with its cached files",
        )
    )


def _profiles(container: Json, observation: Json, notes: list[str]) -> None:
    """Say which confinement was taken away; a Compose override cannot take an option out."""
    kernel, config = container["kernel"], container["config"]
    if config.get("privileged"):
        return
    if kernel.get("seccomp") == 0:
        notes.append(
            "No system calls are filtered: take seccomp=unconfined out (Seccomp of its first process is 0)."
        )
    lsm = observation.get("lsm") or {}
    label = str(kernel.get("lsm_label") or "unconfined")
    if (lsm.get("apparmor") or {}).get("enabled") and label.startswith("unconfined"):
        notes.append("No AppArmor profile confines it: take apparmor=unconfined out.")
    if (lsm.get("selinux") or {}).get("enabled") and config.get("label_disabled"):
        notes.append("SELinux does not confine it: take label=disable out.")


# -- as texts --------------------------------------------------------------------------------------
def _comments(told: Json) -> list[str]:
    lines = [
        f"What would bring the container {told['container']} to policy, with reason and evidence.",
        "It is advice from what was seen at one moment: try it on a copy before you rely on it.",
    ]
    for option in told["options"]:
        lines += [f"{option['name']}: {option['reason']}", f"  seen: {option['evidence']}"]
    return [f"# {plain(line)}" for line in [*lines, *told["notes"]]]


def _compose_text(told: Json) -> str:
    values = {option["name"]: option["value"] for option in told["options"]}
    document = {"services": {told["service"]: values}} if values else {}
    text = yaml.safe_dump(document, sort_keys=False, default_flow_style=False)
    return "\n".join([*_comments(told), "---", text])


def _run_text(told: Json) -> str:
    lines = [" ".join(option["docker_run"]) for option in told["options"] if option["docker_run"]]
    return "\n".join([*_comments(told), *lines, ""])
