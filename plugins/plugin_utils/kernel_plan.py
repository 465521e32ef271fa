# Copyright: (c) 2026, the Bulkhead authors
# Apache License 2.0 (see LICENSE)
"""What ``docker_kernel`` changes on a host: parameters of the kernel, modules, parameters at boot.

The facts are in kernel_settings.yml. Four rules decide: nothing that is stronger already is made
weaker, unless it is ours; what a file of somebody else's sets after ours is theirs; what only a boot
takes back is set on request alone; and what containers are passed on by is never touched.
"""

from __future__ import annotations

import difflib
import fnmatch
import functools
import pathlib
import re
import typing

import yaml

from ansible_collections.bulkhead.hardening.plugins.module_utils import (
    look_protection as protection,
    sysctls,
)
from ansible_collections.bulkhead.hardening.plugins.plugin_utils import plan as plans, scalars
from ansible_collections.bulkhead.hardening.plugins.plugin_utils.plan import (
    Json,
    PolicyError,
)

ROLE = "docker_kernel"

PROFILE = f"{ROLE}_profile"
SYSCTLS = f"{ROLE}_sysctls"
MODULES = f"{ROLE}_modules"
BOOT = f"{ROLE}_boot_parameters"

COMPATIBLE, STRICT = "compatible", "strict"

_FILE = pathlib.Path(__file__).with_name("kernel_settings.yml")

_HEADER = """\
# Written by Bulkhead (docker_kernel), and replaced by it. Values of your own belong in %s, or in
# a file of this directory%s.
"""


class Policy(typing.NamedTuple):
    """The variables of the role, checked.

    ``sysctls``: by name a value, or None for what is left alone. ``modules``: by name whether it is
    kept from being loaded.
    """

    profile: str
    sysctls: dict[str, str | None]
    modules: dict[str, bool]
    boot: tuple[str, ...]


@functools.lru_cache(maxsize=1)
def facts() -> Json:
    """Return the content of kernel_settings.yml."""
    found: Json = yaml.safe_load(_FILE.read_text(encoding="utf-8"))
    return found


# -- variables -------------------------------------------------------------------------------------
def read(raw: Json) -> Policy:
    """Check the variables of the role, without their prefix; what is left out is default.

    :raises PolicyError: naming the variable, its value and the fix.
    """
    known = ("profile", "sysctls", "modules", "boot_parameters")
    for name in sorted(set(raw) - set(known)):
        raise PolicyError(f"{ROLE}_{name}", raw[name], f"there is no such variable: {known}")
    profile = raw.get("profile", COMPATIBLE)
    if profile not in (COMPATIBLE, STRICT):
        raise PolicyError(PROFILE, profile, f"choose {COMPATIBLE} or {STRICT}")
    values = raw.get("sysctls", {})
    if not isinstance(values, dict):
        raise PolicyError(SYSCTLS, values, "give a mapping of names to values")
    modules = raw.get("modules", {})
    if not isinstance(modules, dict):
        raise PolicyError(MODULES, modules, "give a mapping of names to true or false")
    boot = raw.get("boot_parameters", [])
    if not isinstance(boot, list):
        raise PolicyError(BOOT, boot, "give a list of parameters")
    return Policy(
        profile,
        {str(name): _value(str(name), value) for name, value in values.items()},
        dict(_module(str(name), value) for name, value in modules.items()),
        _boot(boot),
    )


def _value(name: str, value: object) -> str | None:
    shown = f"{SYSCTLS}[{name}]"
    _refuse(shown, value, name, facts()["never"])
    spec = facts()["sysctls"].get(name)
    if spec is None:
        raise PolicyError(shown, value, _unknown(name, facts()["sysctls"]))
    if value is None:
        return None
    text = "" if isinstance(value, bool) else str(value)
    if text not in spec["values"]:
        fix = f"choose one of {', '.join(spec['values'])}, or null to leave it alone"
        raise PolicyError(shown, value, fix)
    return text


def _module(name: str, value: object) -> tuple[str, bool]:
    shown, plain = f"{MODULES}[{name}]", name.replace("-", "_")
    _refuse(shown, value, plain, facts()["modules_never"])
    if plain not in protection.MODULES:
        raise PolicyError(shown, value, _unknown(plain, protection.MODULES))
    fix = "say true (it is not to be loaded) or false (left alone)"
    return plain, scalars.boolean(shown, value, fix)


def _boot(wanted: list[typing.Any]) -> tuple[str, ...]:
    known = facts()["boot"]
    for one in wanted:
        if one not in known:
            raise PolicyError(BOOT, one, f"choose from {', '.join(known)}")
    keys = [str(one).partition("=")[0] for one in wanted]
    for key in sorted({key for key in keys if keys.count(key) > 1}):
        raise PolicyError(BOOT, wanted, f"name {key} once")
    return tuple(one for one in known if one in wanted)


def _refuse(shown: str, value: object, name: str, never: typing.Sequence[Json]) -> None:
    for row in never:
        if any(fnmatch.fnmatchcase(name, pattern) for pattern in row["names"]):
            raise PolicyError(shown, value, f"it is never changed: {row['why']}; take it out")


def _unknown(name: str, known: typing.Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(known), 1)
    meant = f"did you mean {near[0]}? " if near else ""
    return f"{meant}only what README.md lists is managed; set others in a file of your own"


# -- the plan --------------------------------------------------------------------------------------
def plan(observation: Json, policy: Policy) -> Json:
    """Return the plan of ``docker_kernel``, schema ``bulkhead.plan/1``.

    :param observation: with the sections ``os``, ``engine``, ``kernel`` and ``bulkhead``.
    :raises PolicyError: what the plan needs could not be read.
    """
    return _Planner(observation, policy).run()


def satisfied(spec: Json, wanted: str, running: str) -> bool:
    """Tell whether a running value is at least as strong as a wanted one."""
    if running == wanted:
        return True
    if spec.get("more") or spec.get("less"):
        if not re.match(r"[0-9]{1,10}\Z", running):
            return False
        now, then = int(running), int(wanted)
        return now >= then if spec.get("more") else 0 < now <= then
    order = spec["values"]
    return running in order and order.index(running) >= order.index(wanted)


class _Planner:
    def __init__(self, look: Json, policy: Policy) -> None:
        plans.check_look(look, "os", "engine", "kernel")
        self.policy = policy
        self.kernel: Json = look["kernel"]
        self.containers = look.get("containers") or []
        self.absent = look["engine"]["state"] == "absent"
        self.architecture = look["os"]["architecture"]
        owned = (look["bulkhead"].get("owned") or {}).get(ROLE, [])
        self.owned_files = {item["path"]: item for item in owned if item["kind"] == "file"}
        self.owned_sysctls = {item["name"]: item for item in owned if item["kind"] == "sysctl"}
        self.files = {row["path"]: row for row in self.kernel["files"]}
        self.rows: list[Json] = []
        self.operations: list[Json] = []
        #: what the file of parameters holds, and of that what is set now
        self.lines: dict[str, str] = {}
        self.overruled: set[str] = set()

    def run(self) -> Json:
        if self.absent:
            self._row("the kernel", PROFILE, "not_applicable", reason="Docker is not installed")
        else:
            for name, spec in facts()["sysctls"].items():
                self._sysctl(name, spec)
            self._give_back()
            self._sysctl_file()
            self._modules()
            self._boot()
        return {
            **plans.empty(),
            "roles": [ROLE],
            "profile_reason": f"the kernel protects itself ({self.policy.profile})",
            "settings": self.rows,
            "operations": self.operations,
        }

    # -- parameters ----------------------------------------------------------------------------
    def _sysctl(self, name: str, spec: Json) -> None:
        asked = name in self.policy.sysctls
        wanted = self.policy.sysctls[name] if asked else spec[self.policy.profile]
        variable = SYSCTLS if asked else PROFILE
        seen = self.kernel["sysctls"].get(name)
        if seen is None or self.architecture not in spec.get("architectures", [self.architecture]):
            reason = "this kernel has no such parameter" if seen is None else "of another processor"
            self._row(name, variable, "not_applicable", wanted=wanted, reason=reason)
            return
        running, place = seen["value"], seen["overruled_by"] or seen["set_by"]
        common: Json = {"wanted": wanted, "effective": running}
        if place is not None:
            common["source"] = f"{place['path']}:{place['line']}"
        if wanted is None:
            self._left_alone(name, spec, asked, common)
            return
        theirs = seen["overruled_by"]
        if theirs is not None and not satisfied(spec, wanted, theirs["value"]):
            self.overruled.add(name)
            self._row(name, variable, "blocked", **common,
                      reason=f"set to {theirs['value']} by {common['source']}, after ours; "
                      "take that line out")  # fmt: skip
            return
        ours = bool((self.owned_sysctls.get(name) or {}).get("intact"))
        one_way = wanted in spec.get("one_way", [])
        if satisfied(spec, wanted, running) and not (ours and running != wanted):
            self.lines[name] = self._kept(spec, wanted, running)
            self._row(name, variable, "ok", **common)
            return
        self.lines[name] = wanted
        self._row(name, variable, "change", **common,
                  reason="stays until the next boot, whatever comes" if one_way else None)  # fmt: skip
        self.operations.append({
            "op": "sysctl_set", "role": ROLE, "undo": "reboot" if one_way else "live",
            "why": spec["why"], "name": name, "value": wanted, "observed": running,
        })  # fmt: skip

    def _kept(self, spec: Json, wanted: str, running: str) -> str:
        """Return what the file is to hold of a parameter that needs no change.

        A stronger value stays at the next boot too, but for one that the kernel does not let go of.
        """
        numeric = spec.get("more") or spec.get("less")
        known = numeric or running in spec["values"]
        return running if known and running not in spec.get("one_way", []) else wanted

    def _left_alone(self, name: str, spec: Json, asked: bool, common: Json) -> None:
        stronger = spec[STRICT]
        if asked or self.policy.profile == STRICT or stronger is None:
            reason = None if asked else f"on request only: {spec['breaks']}"
            self._row(name, SYSCTLS, "unmanaged", **common, reason=reason)
        elif satisfied(spec, stronger, common["effective"]):
            self._row(name, PROFILE, "ok", **{**common, "wanted": stronger})
        else:
            self._row(name, PROFILE, "held_back", **{**common, "wanted": stronger},
                      reason=spec["breaks"])  # fmt: skip

    def _give_back(self) -> None:
        """Give back what was set once and is not wanted any more."""
        for name, item in sorted(self.owned_sysctls.items()):
            if name in self.lines:
                continue
            if item["intact"] and name not in self.overruled:
                self.operations.append(
                    {"op": "sysctl_restore", "role": ROLE, "undo": "live", "name": name,
                     "why": "it is not wanted any more"}
                )  # fmt: skip
            else:
                self._disown("sysctl", name=name)

    def _sysctl_file(self) -> None:
        one_way = {
            name
            for name, value in self.lines.items()
            if value in facts()["sysctls"][name].get("one_way", [])
        }
        names = sorted(self.lines, key=lambda name: (name in one_way, name))
        text = "".join(f"{name} = {self.lines[name]}\n" for name in names)
        header = _HEADER % (SYSCTLS, " whose name sorts after this one")
        self._file(sysctls.FILE, header + text if names else None, "live")

    # -- modules -------------------------------------------------------------------------------
    def _modules(self) -> None:
        blocked: list[str] = []
        for group in facts()["modules"].values():
            names = self._wanted_modules(group)
            used = [name for name in names if self._in_use(name)]
            for name in used:
                self._row(f"module {name}", MODULES, "blocked", affected=self._publishing(name),
                          wanted="not to be loaded", reason="it is in use; end that, or say "
                          f"{MODULES}: {{{name}: false}}")  # fmt: skip
            theirs = self.kernel["modules_blocked"]
            mine = [name for name in names if name not in used and name not in theirs]
            blocked += mine
            self._row(group["title"], MODULES, self._modules_state(mine),
                      wanted=f"{len(names)} not to be loaded")  # fmt: skip
            later = [name for name in group[STRICT] if name not in names + [*theirs]]
            later = [name for name in later if name not in self.policy.modules]
            if later:
                self._row(f"{group['title']}: {', '.join(later)}", PROFILE, "held_back",
                          wanted="not to be loaded", reason=group["held_back"])  # fmt: skip
        lines = [f"install {name} /bin/false\nblacklist {name}\n" for name in sorted(blocked)]
        header = _HEADER % (MODULES, "")
        self._file(protection.MODULES_FILE, header + "".join(lines) if lines else None, "live")

    def _in_use(self, name: str) -> bool:
        return name in self.kernel["modules_loaded"] or bool(self._publishing(name))

    def _publishing(self, module: str) -> list[str]:
        """Return the containers that publish a port of the protocol that a module is for."""
        return sorted({
            str(container["name"])
            for container in self.containers
            for port in (container["config"] or {}).get("ports", [])
            if port["protocol"] == module
        })  # fmt: skip

    def _wanted_modules(self, group: Json) -> list[str]:
        names = group[COMPATIBLE] + group[STRICT]
        chosen = names if self.policy.profile == STRICT else group[COMPATIBLE]
        return [name for name in names if self.policy.modules.get(name, name in chosen)]

    def _modules_state(self, names: typing.Sequence[str]) -> str:
        digest = self.files[protection.MODULES_FILE]["sha256"]
        return "change" if names and digest is None else "ok"

    # -- parameters at boot --------------------------------------------------------------------
    def _boot(self) -> None:
        there = self.kernel["boot"]
        if there is None:
            raise PolicyError("/proc/cmdline", None, "it could not be read; run as root")
        wanted = self.policy.boot
        possible = self.kernel["boot_directory"]
        for parameter in wanted:
            if self._booted(parameter):
                self._row(f"at boot: {parameter}", BOOT, "ok", effective="on the command line")
            elif not possible:
                self._row(f"at boot: {parameter}", BOOT, "blocked",
                          reason=f"this host has no {protection.BOOT_DIRECTORY}; add it to the "
                          "configuration of its boot loader")  # fmt: skip
            else:
                self._row(f"at boot: {parameter}", BOOT, "pending",
                          reason="run update-grub and reboot")  # fmt: skip
        keys = {one.partition("=")[0] for one in wanted}
        missing = {
            key: name
            for name in reversed(facts()["boot"])  # of a key with several values the first one
            for key in [name.partition("=")[0]]
            if key not in keys and not self._booted(name)
        }
        if missing:
            told = ", ".join(reversed(missing.values()))
            self._row("at boot", BOOT, "held_back", wanted=told,
                      reason=f"not on the command line: {told}")  # fmt: skip
        text = ""
        if wanted and possible:
            text = f'GRUB_CMDLINE_LINUX="$GRUB_CMDLINE_LINUX {" ".join(wanted)}"\n'
        header = _HEADER % (BOOT, "; update-grub takes it up")
        self._file(protection.BOOT_FILE, header + text if text else None, "reboot")

    def _booted(self, parameter: str) -> bool:
        name, _, value = parameter.partition("=")
        if name == "lockdown":  # confidentiality is more than integrity
            return self.kernel["lockdown"] in (value, "confidentiality")
        return bool(self.kernel["boot"].get(name) == value)

    # -- files ---------------------------------------------------------------------------------
    def _file(self, path: str, content: str | None, undo: str) -> None:
        item = self.owned_files.get(path)
        operation = plans.file_operation(path, content, item, self.files[path])
        if operation is None:
            return
        if operation["op"] == "disown":
            self._disown("file", path=path)
            return
        why = (
            "nothing in it is wanted any more"
            if content is None
            else "it holds at the next boot too"
        )
        self.operations.append({**operation, "role": ROLE, "undo": undo, "why": why})

    def _disown(self, kind: str, **names: str) -> None:
        self.operations.append({
            "op": "disown", "role": ROLE, "undo": "live", "kind": kind, **names,
            "why": "somebody changed it since, and it is not wanted any more",
        })  # fmt: skip

    def _row(self, setting: str, variable: str, state: str, **more: typing.Any) -> None:
        self.rows.append(plans.row(setting, variable, state, **more))
