# Copyright: (c) 2026, the Bulkhead authors
# Apache License 2.0 (see LICENSE)
"""The planner of ``docker_seccomp``: observation and policy in, plan out, nothing touched.

Facts that shape it: a client sends the text of a profile's file with the request, so a container keeps the
profile that it was made with (docker/cli, cli/command/container/opts.go); the daemon reads the file that
daemon.json names when it starts (moby, daemon/seccomp_linux.go), and its builtin profile when none is named.
"""

from __future__ import annotations

import json
import re
import typing

from ansible_collections.bulkhead.hardening.plugins.module_utils.daemon_options import release
from ansible_collections.bulkhead.hardening.plugins.module_utils.ledger import value_digest
from ansible_collections.bulkhead.hardening.plugins.module_utils.look_host import SECCOMP_DIRECTORY
from ansible_collections.bulkhead.hardening.plugins.plugin_utils import (
    plan as plans,
    seccomp_check,
    seccomp_engines as engines,
    seccomp_profile as profiles,
)
from ansible_collections.bulkhead.hardening.plugins.plugin_utils.plan import Json, PolicyError
from ansible_collections.bulkhead.hardening.plugins.plugin_utils.restart import Restart

ROLE: typing.Final = "docker_seccomp"
VARIABLE: typing.Final = "docker_seccomp_profiles"

_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,63}\Z")
_KEY = "seccomp-profile"

#: From here on the engine honours defaultErrnoRet.
_DEFAULT_ERRNO_SINCE = (23, 0, 0)

#: How many warnings about a profile a row tells.
_MOST_WARNINGS = 3


def read(raw: object) -> dict[str, profiles.Spec]:
    """Check ``docker_seccomp_profiles``, without a host.

    :raises PolicyError: naming the variable, its value and the fix.
    """
    if not isinstance(raw, dict):
        raise PolicyError(VARIABLE, raw, "give a mapping of names to profiles")
    found = {}
    for name, spec in raw.items():
        if not isinstance(name, str) or not _NAME.match(name) or name.endswith(".json"):
            raise PolicyError(
                VARIABLE, name, "a name has lower-case letters, digits, '_', '.' and '-', no suffix"
            )
        found[name] = profiles.read(spec, f"{VARIABLE}[{name}]")
    return found


def render(profile: Json) -> str:
    """Return a profile as the text of its file; each list of names on one line."""
    text = json.dumps(profile, indent=2)
    return re.sub(r"\[\s+([^\[\]{}]*?)\s+\]", _one_line, text) + "\n"


def _one_line(match: re.Match[str]) -> str:
    return "[" + re.sub(r"\s+", " ", match.group(1)) + "]"


def path_of(name: str) -> str:
    """Return where a profile is placed."""
    return f"{SECCOMP_DIRECTORY}/{name}.json"


def plan(
    observation: Json,
    specs: dict[str, profiles.Spec],
    daemon_plan: Json | None = None,
    daemon_restart: object = "when_needed",
    daemon_stops_containers: object = False,
) -> Json:
    """Plan what ``docker_seccomp`` changes on one host.

    :param observation: a document of schema ``bulkhead.observation/1``.
    :param specs: what :func:`read` returns.
    :param daemon_plan: what ``docker_daemon`` plans in the same transaction, if it does.
    :param daemon_restart: the variable ``docker_daemon_restart``.
    :param daemon_stops_containers: the variable ``docker_daemon_restart_stops_containers``.
    :returns: a plan of schema ``bulkhead.plan/1``.
    :raises PolicyError: a variable of ``docker_daemon`` is wrong, or the look lacks what is needed.
    """
    plans.check_look(observation, "os", "engine", "daemon_config", "seccomp_profiles")
    before = daemon_plan or plans.empty()
    restart = Restart(observation, before, daemon_restart, daemon_stops_containers)
    return _Planner(observation, specs, before, restart).run()


class _Planner:
    """Collects rows and operations, a profile at a time."""

    def __init__(
        self, look: Json, specs: dict[str, profiles.Spec], daemon_plan: Json, restart: Restart
    ) -> None:
        self.look = look
        self.specs = specs
        self.engine: Json = look["engine"]
        self.machine = str(look["os"]["architecture"])
        self.containers: list[Json] = look.get("containers") or []
        self.files = {item["path"]: item for item in look["seccomp_profiles"]}
        owned = (look["bulkhead"].get("owned") or {}).get(ROLE, [])
        self.owned = {item["path"]: item for item in owned if item["kind"] == "file"}
        self.daemon_wide = self._daemon_wide(daemon_plan)
        self.restart = restart
        self.plan = plans.empty()
        self.plan["roles"] = [ROLE]

    def _daemon_wide(self, daemon_plan: Json) -> set[str]:
        """Return the files that the daemon uses, or will use after this transaction."""
        option = (self.engine.get("options") or {}).get(_KEY) or {}
        keys = self.look["daemon_config"].get("keys") or {}
        found = {option.get("effective"), option.get("configured")}
        found.add((keys.get(_KEY) or {}).get("value"))
        for operation in daemon_plan["operations"]:
            if operation.get("key") == _KEY and daemon_plan["daemon"]["effect"] == "restart":
                found = {operation.get("value")}
        return {str(value) for value in found if value}

    def run(self) -> Json:
        for name, spec in self.specs.items():
            self._profile(name, spec)
        for path, item in sorted(self.owned.items()):
            if path not in {path_of(name) for name in self.specs}:
                self._no_longer_wanted(path, item)
        return self.plan

    # -- rows and operations -------------------------------------------------------------------
    def _row(self, path: str, state: str, **more: typing.Any) -> None:
        setting = f"seccomp profile {path}"
        self.plan["settings"].append(plans.row(setting, VARIABLE, state, **more))

    def _operation(self, op: str, why: str, **fields: typing.Any) -> None:
        operation = {"op": op, "role": ROLE, "undo": "live", "why": why, **fields}
        self.plan["operations"].append(operation)

    # -- one profile ---------------------------------------------------------------------------
    def _profile(self, name: str, spec: profiles.Spec) -> None:
        path = path_of(name)
        reason = self._not_here()
        if reason:
            self._row(path, "not_applicable", reason=reason)
            return
        try:
            builtin = engines.base(engines.series(str(self.engine["version"])))
        except engines.NoBaseError as exc:
            if spec.base == "engine":
                self._row(path, "blocked", reason=str(exc))
                return
            builtin = None
        if spec.errno is not None and self._old_engine():
            self._row(path, "blocked", reason=f"engine {self.engine['version']} answers error 1 to all that "
                      f"a profile does not name; remove errno from {VARIABLE}[{name}]")  # fmt: skip
            return
        base = builtin if isinstance(spec.base, str) else spec.base
        profile = composed(spec, typing.cast(Json, base), name, self.machine)
        self._place(path, name, profile, self._told(spec, profile, builtin))

    def _not_here(self) -> str | None:
        if self.engine["state"] == "absent":
            return "Docker is not installed"
        if self.engine.get("rootless"):
            return "a rootless daemon's user keeps profiles of their own"
        if (self.engine.get("info") or {}).get("seccomp") is False:
            return "the kernel has no seccomp, and a container that names a profile would not start"
        if not engines.filter_architectures(self.machine):
            return f"which system calls {self.machine} has is not known here"
        return None

    def _old_engine(self) -> bool:
        version = self.engine.get("version")
        return bool(version) and release(str(version)) < _DEFAULT_ERRNO_SINCE

    def _told(self, spec: profiles.Spec, profile: Json, builtin: Json | None) -> str:
        """Return what a profile does, and what deserves a second look, as one line."""
        told = profiles.describe(profile, builtin, self.machine)
        warnings = [
            f"{item.where}: {item.text}"
            for item in seccomp_check.problems(profile, spec.accept_unknown, self.machine)
        ]
        more = len(warnings) - _MOST_WARNINGS
        lines = [told["summary"], *told["notes"], *warnings[:_MOST_WARNINGS]]
        return "; ".join(lines) + (f"; and {more} more warnings" if more > 0 else "")

    def _place(self, path: str, name: str, profile: Json, told: str) -> None:
        seen = self.files.get(path)
        digest = value_digest(profile)
        if seen is not None and path not in self.owned and seen["sha256"] != digest:
            self._row(path, "blocked", reason="somebody else's file is there; give the profile another "
                      "name, or remove the file")  # fmt: skip
            return
        owned = self.owned.get(path)
        if seen is not None and seen["sha256"] == digest and (owned is None or owned["intact"]):
            self._in_place(path, name, digest, told)
            return
        unsafe = self.restart.unsafe() if self._in_use(path) else None
        if unsafe:
            self._row(path, "blocked", reason=unsafe, affected=self.restart.alive)
            return
        self._row(path, "change", reason=told, wanted="as the policy has it",
                  effective="another text" if seen else "absent")  # fmt: skip
        self._operation(
            "file_present",
            VARIABLE,
            path=path,
            content=render(profile),
            mode="0644",
            owner="root",
            group="root",
            observed=seen["version"] if seen else "absent",
        )
        if self._in_use(path):
            self.restart.ask(self.plan, _KEY)

    def _in_place(self, path: str, name: str, digest: str, told: str) -> None:
        older = sorted(
            item["name"]
            for item, inline in self._inline()
            if inline["bulkhead"] == name and inline["sha256"] != digest
        )
        if older:
            self._row(path, "pending", affected=older, reason="they keep the text that they were created "
                      "with until they are created anew")  # fmt: skip
        else:
            self._row(path, "ok", reason=told)

    def _in_use(self, path: str) -> bool:
        """Tell whether the running daemon uses a profile for every container; it read it when it started."""
        effective = ((self.engine.get("options") or {}).get(_KEY) or {}).get("effective")
        return bool(self.restart.needed and effective == path)

    def _inline(self) -> typing.Iterator[tuple[Json, Json]]:
        for item in self.containers:
            inline = (item.get("config") or {}).get("seccomp_inline")
            if inline:
                yield item, inline

    # -- what an earlier policy placed ---------------------------------------------------------
    def _no_longer_wanted(self, path: str, item: Json) -> None:
        name = path.rpartition("/")[2].removesuffix(".json")
        if not item["intact"]:
            self._operation("disown", "somebody else changed it since", kind="file", path=path)
            return
        users = sorted(
            container["name"] for container, inline in self._inline() if inline["bulkhead"] == name
        )
        if self.look.get("containers") is None and self.engine["state"] != "absent":
            self._row(path, "blocked", reason="no longer in the policy, but whether a container was created "
                      f"with it cannot be seen: Docker is {self.engine['state']}")  # fmt: skip
        elif path in self.daemon_wide:
            self._row(path, "blocked", reason="no longer in the policy, but the daemon uses it for every "
                      "container; set docker_daemon_seccomp_profile to builtin first")  # fmt: skip
        elif users:
            self._row(path, "blocked", affected=users, reason="no longer in the policy, but these containers "
                      "were created with it and would be again; create them without it first")  # fmt: skip
        else:
            self._row(path, "change", reason="no longer in the policy: removed")
            self._operation(
                "file_absent", "no longer in the policy", path=path, observed=item["version"]
            )


def composed(spec: profiles.Spec, base: Json, name: str, machine: str) -> Json:
    """Return the profile of a spec; refuse one under which containers would not run.

    :raises PolicyError: naming the profile, the place in it, and the fix.
    """
    where = f"{VARIABLE}[{name}]"
    found = seccomp_check.problems(base, spec.accept_unknown, machine)
    for problem in found:
        # The engine's own base is right; a given one is the user's to mend.
        if problem.level == "error":
            raise PolicyError(f"{where}.base", problem.where, problem.text)
    profile = profiles.compose(spec, base, name)
    for problem in seccomp_check.problems(profile, spec.accept_unknown, machine):
        if problem.level == "error":
            raise PolicyError(where, problem.where, problem.text)
    return profile
