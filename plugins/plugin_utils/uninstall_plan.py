# Copyright: (c) 2026, the Bulkhead authors
# Apache License 2.0 (see LICENSE)
"""The plan that takes everything of Bulkhead's off a host, and puts back what was there before.

Decided from the observation's ``bulkhead.owned`` alone: no policy, no role. What somebody changed
since is theirs by now; it is left as it is, and named. All or nothing: a plan with a blocked row has
no operations.
"""

from __future__ import annotations

import typing

from ansible_collections.bulkhead.hardening.plugins.module_utils import apparmor
from ansible_collections.bulkhead.hardening.plugins.module_utils.daemon_options import OPTIONS
from ansible_collections.bulkhead.hardening.plugins.plugin_utils import (
    hidden,
    plan as plans,
    selinux_plan,
    unread,
)
from ansible_collections.bulkhead.hardening.plugins.plugin_utils.plan import Json, PolicyError

VARIABLE = "bulkhead_uninstall"
STOPS_CONTAINERS = "docker_harden_uninstall_stops_containers"
HIDES_DATA = "docker_harden_uninstall_hides_data"

_WHY = "uninstalled"

#: Kinds of things that are owned, with the operation that gives one back.
_GIVE_BACK = {
    "json_key": "json_remove",
    "file": "file_absent",
    "mode": "mode_restore",
    "subids": "subid_absent",
    "user": "user_absent",
    "group": "group_absent",
    "sysctl": "sysctl_restore",
    "service": "service_back",
    "selinux_module": "selinux_module_absent",
    "selinux_boolean": "selinux_boolean_back",
    "selinux_equivalence": "selinux_equivalence_absent",
}
_NAMES = ("path", "key", "member", "user", "name")


def plan(look: Json, *, stops_containers: bool = False, hides_data: bool = False) -> Json:
    """Return the plan, schema ``bulkhead.plan/1``; an empty one where nothing of ours is left.

    :param look: the observation, with ``engine``, ``daemon_config``, ``containers``, ``images``,
        ``volumes`` and ``bulkhead``.
    :param stops_containers: accept a restart of the daemon that ends running containers.
    :param hides_data: accept that what a remapped daemon holds is hidden.
    :raises PolicyError: what Bulkhead noted on the host cannot be read.
    """
    left = look.get("bulkhead")
    if not left or left["state"] not in ("ok", "absent"):
        state = left["state"] if left else None
        reason = left["reason"] if left else "the section bulkhead was not read"
        raise PolicyError("/var/lib/bulkhead", state, f"{reason}; sort that out first")
    planner = _Planner(look, stops_containers, hides_data)
    for role, items in sorted(left["owned"].items()):
        # Flags last: whether they may come back depends on the keys.
        for item in sorted(items, key=lambda item: "flags" in item):
            planner.give_back(str(role), item)
    return planner.finish()


class _Planner:
    def __init__(self, look: Json, stops_containers: bool, hides_data: bool) -> None:
        self._look = look
        self._engine: Json = look["engine"]
        self._config: Json = look["daemon_config"]
        self._stops_containers = stops_containers
        self._hides_data = hides_data
        self._running = self._engine["state"] == "running"
        containers = self._known = look.get("containers") or []
        self._containers = sorted(str(c["name"]) for c in containers)
        alive = ("running", "paused", "restarting")
        self._alive = sorted(str(c["name"]) for c in containers if c["state"] in alive)
        self._plan = plans.empty()
        self._plan["profile_reason"] = "everything of Bulkhead's is taken off"
        self._keys: list[str] = []
        self._in_file: Json = self._config.get("keys") or {}
        self._flags_back = False
        #: AppArmor profiles and SELinux modules that go, each with the containers that use it
        self._used_profiles: dict[str, list[str]] = {}

    # -- one thing -----------------------------------------------------------------------------
    def give_back(self, role: str, item: Json) -> None:
        """Plan one owned thing: given back, or left to whoever changed it."""
        kind = str(item["kind"])
        names = {name: item[name] for name in _NAMES if name in item}
        theirs = self._not_ours(item)
        if theirs:
            self._row(role, item, "not_applicable", theirs)
            self._operation("disown", role, kind=kind, **names)
            return
        self._row(role, item, "change", "put back as it was before")
        if kind == "json_key":
            self._keys.append(str(item["key"]))
            names["observed"] = self._config["version"]
        elif kind in ("file", "mode"):
            names["observed"] = item["version"]
            self._flags_back = self._flags_back or "flags" in item
            self._profile(item)
        elif kind == "selinux_module":
            self._used(str(item["name"]), selinux_plan.users(self._known, str(item["name"])))
        self._operation(_GIVE_BACK[kind], role, **names)

    def _not_ours(self, item: Json) -> str | None:
        if not item["intact"]:
            return "somebody changed it since: it is left as it is"
        left = [k for k in item.get("flags", []) if k in self._in_file and k not in self._keys]
        if left:
            return (
                f"somebody set {', '.join(left)} in {self._config['path']}, and dockerd does not start "
                "when the flag comes back beside the key: it is left as it is"
            )
        used = (self._in_file.get("seccomp-profile") or {}).get("value")
        if used and item.get("path") == used and "seccomp-profile" not in self._keys:
            return (
                f"somebody set seccomp-profile in {self._config['path']} to it, and dockerd does not start "
                "without the file: it is left as it is"
            )
        if item["kind"] == "json_key" and item["path"] != self._config["path"]:
            return f"the daemon reads {self._config['path']} by now: it is left as it is"
        return None

    def _profile(self, item: Json) -> None:
        """Note who uses an AppArmor profile; the engine has another docker-default of its own."""
        name = item.get("profile")
        using = apparmor.users(self._look.get("containers") or [], name) if name else []
        if name and name != apparmor.DEFAULT_PROFILE:
            self._used(name, using)

    def _used(self, name: str, using: list[str]) -> None:
        if using:
            self._used_profiles[name] = using

    def _operation(self, op: str, role: str, **fields: typing.Any) -> None:
        self._plan["operations"].append(
            {"op": op, "role": role, "undo": "live", "why": _WHY, **fields}
        )

    def _row(self, role: str, item: Json, state: str, reason: str, **more: typing.Any) -> None:
        if role not in self._plan["roles"]:
            self._plan["roles"].append(role)
        self._plan["settings"].append(
            plans.row(shown(item), VARIABLE, state, reason=reason, **more)
        )

    # -- the daemon ----------------------------------------------------------------------------
    def finish(self) -> Json:
        """Plan what the daemon has to do, and drop everything when that is not safe."""
        keys = sorted(set(self._keys))
        restart = self._flags_back or not all(k in OPTIONS and OPTIONS[k].reload for k in keys)
        daemon = self._plan["daemon"]
        daemon["allow_container_restart"] = self._stops_containers
        if self._running and (keys or self._flags_back):
            daemon["effect"] = "restart" if restart else "reload"
            daemon["why"] = keys
        blocked = self._blocked(restart, "userns-remap" in keys)
        if blocked:
            self._plan["settings"].append(plans.row("uninstall", VARIABLE, "blocked", **blocked))
            self._plan["operations"] = []
            self._plan["daemon"] = plans.empty()["daemon"]
        elif "userns-remap" in keys and self._remapped:
            root = (self._engine.get("info") or {}).get("docker_root_dir")
            self._plan["settings"].append(
                plans.row(
                    "data of the remapped daemon",
                    VARIABLE,
                    "not_applicable",
                    reason=f"{root} is left, with its images, containers and volumes; it is yours to remove",
                )
            )
        return self._plan

    @property
    def _remapped(self) -> bool:
        return bool((self._engine.get("info") or {}).get("userns"))

    def _blocked(self, restart: bool, remap: bool) -> Json | None:
        """Return reason, affected names and accepting variable, or None when it is safe."""
        if self._used_profiles:
            profiles = ", ".join(sorted(self._used_profiles))
            return {
                "reason": "these containers use the AppArmor profile or the SELinux module that goes "
                f"({profiles}); start them under another one first",
                "affected": sorted(
                    {name for using in self._used_profiles.values() for name in using}
                ),
            }
        if (
            remap
            and not self._running
            and not self._hides_data
            and self._engine["state"] != "absent"
        ):
            return {
                "reason": f"Docker is {self._engine['state']}, so what would be hidden cannot be seen",
                "accept": HIDES_DATA,
            }
        if not (restart and self._running):
            return None
        if remap and self._remapped:
            if self._alive:
                return {
                    "reason": "these containers run in the user namespace that goes; stop them first",
                    "affected": self._alive,
                }
            held = hidden.held(self._look, self._containers)
            if held and not self._hides_data:
                return {
                    "reason": "these would be hidden, not deleted, when userns-remap is off",
                    "affected": held,
                    "accept": HIDES_DATA,
                }
        others = unread.of_others(self._look, {(key, None) for key in self._keys})
        if others:
            return {
                "reason": "the restart would also take up what somebody changed since the daemon started: "
                f"{', '.join(others)}; restart it yourself when that is meant, or take the change back",
                "affected": self._containers,
            }
        kept = (self._engine["options"].get("live-restore") or {}).get("effective") is True
        if self._alive and not kept and not self._stops_containers:
            return {
                "reason": "needs a restart of the daemon, which without live-restore ends these containers",
                "affected": self._alive,
                "accept": STOPS_CONTAINERS,
            }
        return None


def shown(item: Json) -> str:
    """Return an owned thing in words: ``icc``, ``mode of /etc/docker/key.pem``."""
    if item["kind"] == "json_key":
        return ".".join(str(item[name]) for name in ("key", "member") if item.get(name))
    words = {"file": "", "mode": "mode of ", "subids": "subordinate ids of "}
    words.update(selinux_module="SELinux module ", selinux_boolean="SELinux boolean ")
    words["selinux_equivalence"] = "labels of "
    name = item.get("path") or item.get("user") or item.get("name")
    return f"{words.get(item['kind'], item['kind'] + ' ')}{name}"
