# Copyright: (c) 2026, the Bulkhead authors
# Apache License 2.0 (see LICENSE)
"""The planner of ``docker_apparmor``: observation and policy in, plan out, nothing touched.

Facts that shape it: a profile that is unloaded leaves its processes without any; one that is replaced
holds for them at once; only files at the top of /etc/apparmor.d are loaded at boot; dockerd up to
29.4.2 keeps a ``docker-default`` that is loaded already, and later ones put their own in its place.
"""

from __future__ import annotations

import collections
import hashlib
import typing

from ansible_collections.bulkhead.hardening.plugins.module_utils import apparmor
from ansible_collections.bulkhead.hardening.plugins.module_utils.daemon_options import release
from ansible_collections.bulkhead.hardening.plugins.plugin_utils import (
    apparmor_profile as profiles,
    plan as plans,
    scalars,
)
from ansible_collections.bulkhead.hardening.plugins.plugin_utils.plan import (
    Json,
    PolicyError,
)

ROLE = "docker_apparmor"
PROFILES = f"{ROLE}_profiles"
DEFAULT_PROFILE = f"{ROLE}_default_profile"
MODE = f"{ROLE}_mode"

_CONTROL = "5.2"

#: Engines from here on put their own docker-default in the place of one that is loaded.
_RELOADS_ITS_OWN = (29, 4, 3)
#: Engines from here on take a template of their own for it.
_TAKES_A_TEMPLATE = (29, 8, 0)


class Policy(typing.NamedTuple):
    """The variables of the role, checked.

    ``profiles``: by name, ``(mode, description)`` or ``(mode, text)`` where somebody wrote it.
    """

    profiles: dict[str, tuple[str, Json | str]]
    default: bool


def read(raw: Json) -> Policy:
    """Check the variables of the role, without their prefix.

    :param raw: ``profiles``, ``mode``, ``default_profile``; and ``texts``, the contents of the files
        that ``profiles`` name, by path.
    :raises PolicyError: naming the variable, its value and the fix.
    """
    mode = raw.get("mode", profiles.ENFORCE)
    if mode not in (profiles.ENFORCE, profiles.COMPLAIN):
        raise PolicyError(MODE, mode, "say enforce or complain")
    default = scalars.boolean(DEFAULT_PROFILE, raw.get("default_profile", False))
    found: dict[str, tuple[str, Json | str]] = {}
    described = raw.get("profiles") or {}
    if not isinstance(described, dict):
        raise PolicyError(PROFILES, described, "give a mapping of names to descriptions")
    for name, spec in described.items():
        try:
            found[name] = _described(name, spec, mode, raw.get("texts") or {})
        except profiles.Wrong as exc:
            raise PolicyError(f"{PROFILES}[{name}].{exc.where}", exc.value, exc.fix) from exc
    if default:
        spec = profiles.check(profiles.HARDENED_DEFAULT)
        found[profiles.DEFAULT_NAME] = (mode, spec)
    return Policy(found, default)


def _described(name: object, spec: typing.Any, mode: str, texts: Json) -> tuple[str, Json | str]:
    profiles.check_name(name)
    if name == profiles.DEFAULT_NAME:
        raise profiles.Wrong("name", name, f"set {DEFAULT_PROFILE}, or choose another name")
    if isinstance(spec, dict) and "file" in spec:
        if set(spec) - {"file", "mode"}:
            extra = sorted(set(spec) - {"file", "mode"})
            raise profiles.Wrong("file", spec["file"], f"a file stands alone; remove {extra}")
        checked = profiles.check({"mode": spec.get("mode")})
        mode = checked["mode"] or mode
        if not isinstance(texts.get(spec["file"]), str):
            raise profiles.Wrong("file", spec["file"], "give the path of a file on the controller")
        return mode, profiles.adopt(str(name), texts[spec["file"]], mode)
    checked = profiles.check(spec)
    return checked["mode"] or mode, checked


def plan(observation: Json, policy: Policy) -> Json:
    """Plan what ``docker_apparmor`` changes on one host.

    :param observation: a document of schema ``bulkhead.observation/1``.
    :returns: a plan of schema ``bulkhead.plan/1``.
    :raises PolicyError: the host is in a state in which nothing can be planned.
    """
    return _Planner(observation, policy).run()


class _Planner:
    """Collects rows and operations, profile by profile."""

    def __init__(self, observation: Json, policy: Policy) -> None:
        self.policy = policy
        self.rows: list[Json] = []
        self.operations: list[Json] = []
        plans.check_look(observation)
        owned = (observation["bulkhead"].get("owned") or {}).get(ROLE, [])
        self.owned = {item["profile"]: item for item in owned if "profile" in item}
        self.idle = not policy.profiles and not self.owned
        if self.idle:
            return
        plans.check_sections(observation, "engine", "lsm")
        self.engine: Json = observation["engine"]
        if self.engine["state"] == "running":
            plans.check_sections(observation, "containers")
        self.containers: list[Json] = observation.get("containers") or []
        self.active: list[str] = observation["lsm"]["active"]
        self.lsm: Json = observation["lsm"]["apparmor"]

    def run(self) -> Json:
        if not self.idle:
            missing = self._missing()
            for name, (mode, described) in sorted(self.policy.profiles.items()):
                if missing:
                    self._row(name, *missing, wanted=mode)
                else:
                    self._profile(name, mode, described)
            for name in sorted(set(self.owned) - set(self.policy.profiles)):
                self._no_longer_wanted(name)
        return {
            **plans.empty(),
            "roles": [ROLE],
            "settings": self.rows,
            "operations": self.operations,
        }

    # -- helpers -------------------------------------------------------------------------------
    def _row(self, name: str, state: str, reason: str | None = None, **more: typing.Any) -> None:
        variable = DEFAULT_PROFILE if name == profiles.DEFAULT_NAME else PROFILES
        effective = (self.lsm.get("profiles") or {}).get(name)
        more = {"effective": effective, "source": self._source(name), "control": _CONTROL, **more}
        setting = f"AppArmor profile {name}"
        self.rows.append(plans.row(setting, variable, state, reason=reason, **more))

    def _source(self, name: str) -> str | None:
        return apparmor.path_of(name) if name in self.owned else None

    def _operation(self, op: str, why: str, **fields: typing.Any) -> None:
        self.operations.append({"op": op, "role": ROLE, "undo": "live", "why": why, **fields})

    def _missing(self) -> tuple[str, str] | None:
        """Return state and reason where this host cannot have any profile."""
        if not self.lsm["enabled"]:
            others = ", ".join(self.active) or "none"
            return "not_applicable", f"the kernel runs without AppArmor (active: {others})"
        if self.lsm.get("parser") is None:
            return "blocked", "apparmor_parser is not on this host; install the package apparmor"
        if self.lsm.get("profiles") is None:
            return "blocked", "the kernel's list of profiles could not be read"
        return None

    # -- a profile that is wanted ----------------------------------------------------------------
    def _profile(self, name: str, mode: str, described: Json | str) -> None:
        refused = self._refused(name)
        if refused:
            self._row(name, "blocked", refused, wanted=mode)
            return
        facts = profiles.Facts("3.0" in self.lsm["abi"], self.lsm.get("daemon_profile"))
        text = described
        if not isinstance(text, str):
            text = profiles.render(name, typing.cast(Json, described), mode, facts)
        item = self.owned.get(name) or {}
        difference = self._difference(name, mode, text, item)
        using = apparmor.users(self.containers, name) if name in self.owned else []
        if name == profiles.DEFAULT_NAME:
            using = apparmor.users(self.containers, name)
        if difference is None:
            outlook = self._outlook(name)
            state = "ok" if outlook is None else "pending"
            self._row(name, state, outlook, wanted=mode, affected=using)
            return
        self._row(name, "change", difference, wanted=mode, affected=using)
        self._operation(
            "apparmor_profile",
            difference,
            path=apparmor.path_of(name),
            profile=name,
            content=text,
            observed=item.get("version", "absent"),
        )

    def _refused(self, name: str) -> str | None:
        """Return why a profile cannot be placed here, or None."""
        if name == profiles.DEFAULT_NAME:
            refused = self._default_refused()
            if refused:
                return refused
        if name in self.owned:
            return None
        path = apparmor.path_of(name)
        if name in self.lsm["files"]:
            return f"somebody else's {path} is there; move it away, or choose another name"
        if name in self.lsm["profiles"] and name != profiles.DEFAULT_NAME:
            return (
                "a profile of that name is loaded that Bulkhead did not place; unload it with "
                "apparmor_parser --remove, or choose another name"
            )
        return None

    def _default_refused(self) -> str | None:
        version = self.engine.get("version")
        if version is None:
            return (
                "the engine's version is not known, and newer engines load their own at each start"
            )
        if release(version) >= _TAKES_A_TEMPLATE:
            return (
                f"engine {version} loads its own at each start; it takes a template instead, and how "
                "that option is called is not verified here, so nothing is guessed"
            )
        if release(version) >= _RELOADS_ITS_OWN:
            return f"engine {version} loads its own at each start, in the place of any other"
        return None

    def _difference(self, name: str, mode: str, text: str, item: Json) -> str | None:
        """Return what is not as wanted, in words; None when all is."""
        if not item:
            return "placed, and loaded"
        if item["sha256"] is None:
            return "its file is gone: placed again"
        if item["sha256"] != hashlib.sha256(text.encode()).hexdigest():
            if not item["intact"]:
                return "somebody changed its file: put back, and loaded"
            return "its text changes: replaced, for the containers under it at once"
        effective = self.lsm["profiles"].get(name)
        if effective != mode:
            return f"the kernel has it {f'in mode {effective}' if effective else 'not'}: loaded"
        if not item["in_kernel"]:
            return "the kernel holds another policy under that name: loaded"
        return None

    def _outlook(self, name: str) -> str | None:
        """Return what to know of a profile that is in effect."""
        if not self.lsm.get("at_boot"):
            return "not loaded at the next boot: run systemctl enable apparmor.service"
        if self.lsm["profiles"].get(name) != profiles.COMPLAIN:
            return None
        counts: collections.Counter[str] = collections.Counter()
        for report in self.lsm.get("reports") or []:
            if report["profile"] == name:
                words = [report["operation"], report["what"]]
                words += [f"({report['access']})"] if report["access"] else []
                counts[" ".join(word for word in words if word)] += report["count"]
        if not counts:
            return "in complain mode; nothing that it would deny was seen so far"
        shown = [f"{what}: {count}" for what, count in counts.most_common(12)]
        more = len(counts) - len(shown)
        tail = f", and {more} more kinds" if more > 0 else ""
        return f"in complain mode; it would have denied {', '.join(shown)}{tail}"

    # -- a profile that is not wanted any more ---------------------------------------------------
    def _no_longer_wanted(self, name: str) -> None:
        item = self.owned[name]
        if not item["intact"]:
            self._row(name, "not_applicable", "somebody changed its file: it is left as it is")
            self._operation("disown", "left to whoever changed it", kind="file", path=item["path"])
            return
        using = apparmor.users(self.containers, name)
        if name != profiles.DEFAULT_NAME:
            if using:
                reason = (
                    "no longer wanted, but these containers use it; start them under another one"
                )
                self._row(name, "blocked", reason, affected=using)
                return
            if self.engine["state"] not in ("running", "absent"):
                reason = f"no longer wanted, but Docker is {self.engine['state']}: nobody can tell "
                self._row(name, "blocked", reason + "which containers use it")
                return
        self._row(name, "change", "no longer wanted: taken away", affected=using)
        self._operation(
            "file_absent", "no longer wanted", path=item["path"], observed=item["version"]
        )
