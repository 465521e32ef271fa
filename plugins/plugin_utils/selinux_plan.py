# Copyright: (c) 2026, the Bulkhead authors
# Apache License 2.0 (see LICENSE)
"""The planner of ``docker_selinux``: observation and policy in, plan out, nothing touched.

Facts that shape it: dockerd takes ``selinux-enabled`` on any host and only warns (moby,
daemon/daemon_unix.go); a container gets its label when it is made, and keeps it; Debian 12's policy
names container_t in lxc_contexts and does not define it; a data root that the policy does not know is
denied to dockerd_t, and a folder of a remapped daemon is labelled wrong by the next relabel.
"""

from __future__ import annotations

import difflib
import typing

from ansible_collections.bulkhead.hardening.plugins.module_utils import selinux
from ansible_collections.bulkhead.hardening.plugins.plugin_utils import (
    plan as plans,
    scalars,
    selinux_module as modules,
)
from ansible_collections.bulkhead.hardening.plugins.plugin_utils.plan import (
    Json,
    PolicyError,
)
from ansible_collections.bulkhead.hardening.plugins.plugin_utils.restart import Restart

ROLE: typing.Final = "docker_selinux"

ENABLED = f"{ROLE}_enabled"
ACCEPT = f"{ROLE}_accept_unlabelled_mounts"
DATA_ROOT = f"{ROLE}_data_root"
BOOLEANS = f"{ROLE}_booleans"
MODULES = f"{ROLE}_modules"
ENFORCING = f"{ROLE}_enforcing"

_KEY = "selinux-enabled"
_CONTROL = "5.3"

#: Where every policy expects Docker's data.
USUAL_ROOT = "/var/lib/docker"

#: The type that every policy gives it.
_ROOT_TYPE = "container_var_lib_t"

#: Where the packages of a family are named in what a run says.
_PACKAGES = {
    "debian": "selinux-policy-default of Debian 13 or later",
    "ubuntu": "selinux-policy-default with a module for containers",
}

#: How many kinds of denials a row tells.
_MOST_DENIALS = 12


class Policy(typing.NamedTuple):
    """The variables of the role, checked. ``modules``: by name, a description or a text of CIL."""

    enabled: bool
    accept: bool
    data_root: bool
    booleans: dict[str, bool]
    modules: dict[str, Json | str]
    enforcing: bool


def read(raw: Json) -> Policy:
    """Check the variables of the role, without their prefix.

    :param raw: the variables; and ``texts``, the contents of the files that ``modules`` name, by path.
    :raises PolicyError: naming the variable, its value and the fix.
    """
    switches = {}
    for name, default in (
        *(("enabled", True), ("accept_unlabelled_mounts", False)),
        *(("data_root", True), ("enforcing", False)),
    ):
        switches[name] = scalars.boolean(f"{ROLE}_{name}", raw.get(name, default))
    booleans = raw.get("booleans") or {}
    if not isinstance(booleans, dict):
        raise PolicyError(BOOLEANS, booleans, "give a mapping of names to true or false")
    for name in booleans:
        if not isinstance(name, str) or not selinux.BOOLEAN.match(name):
            raise PolicyError(BOOLEANS, name, "give the name of a boolean of the policy")
    described = raw.get("modules") or {}
    if not isinstance(described, dict):
        raise PolicyError(MODULES, described, "give a mapping of names to modules")
    found = {}
    for name, spec in described.items():
        if not isinstance(name, str) or not selinux.MODULE.match(name):
            fix = "a name has lower-case letters, digits and '_', begins with a letter, and 48 at most"
            raise PolicyError(MODULES, name, fix)
        try:
            found[name] = _module(spec, raw.get("texts") or {})
        except modules.Wrong as exc:
            raise PolicyError(f"{MODULES}[{name}].{exc.where}", exc.value, exc.fix) from exc
    return Policy(
        enabled=switches["enabled"],
        accept=switches["accept_unlabelled_mounts"],
        data_root=switches["data_root"],
        booleans={
            name: scalars.boolean(f"{BOOLEANS}[{name}]", value) for name, value in booleans.items()
        },
        modules=found,
        enforcing=switches["enforcing"],
    )


def _module(spec: typing.Any, texts: Json) -> Json | str:
    for word in ("cil", "file"):
        if isinstance(spec, dict) and word in spec:
            if len(spec) > 1:
                raise modules.Wrong(
                    word, spec[word], f"{word} stands alone; remove the other fields"
                )
            text = spec["cil"] if word == "cil" else texts.get(spec["file"])
            if word == "file" and not isinstance(text, str):
                raise modules.Wrong(
                    "file", spec["file"], "give the path of a file on the controller"
                )
            return modules.check_cil(text)
    return modules.check(spec)


def plan(
    observation: Json,
    policy: Policy,
    daemon_plan: Json | None = None,
    daemon_restart: object = "when_needed",
    daemon_stops_containers: object = False,
) -> Json:
    """Plan what ``docker_selinux`` changes on one host.

    :param observation: a document of schema ``bulkhead.observation/1``.
    :param daemon_plan: what ``docker_daemon`` plans in the same transaction, if it does.
    :param daemon_restart: the variable ``docker_daemon_restart``.
    :param daemon_stops_containers: the variable ``docker_daemon_restart_stops_containers``.
    :returns: a plan of schema ``bulkhead.plan/1``.
    :raises PolicyError: the host is in a state in which nothing can be planned.
    """
    plans.check_look(observation, "os", "engine", "daemon_config", "lsm")
    before = daemon_plan or plans.empty()
    restart = Restart(observation, before, daemon_restart, daemon_stops_containers)
    return _Planner(observation, policy, before, restart).run()


class _Planner:
    """Collects rows and operations, a setting at a time."""

    def __init__(self, look: Json, policy: Policy, daemon_plan: Json, restart: Restart) -> None:
        self.look = look
        self.policy = policy
        self.daemon_plan = daemon_plan
        self.restart = restart
        self.engine: Json = look["engine"]
        self.running = self.engine["state"] == "running"
        self.lsm: Json = look["lsm"]["selinux"]
        self.containers: list[Json] = look.get("containers") or []
        self.config: Json = look["daemon_config"]
        self.owned: list[Json] = (look["bulkhead"].get("owned") or {}).get(ROLE, [])
        self.plan = plans.empty()
        self.plan["roles"] = [ROLE]

    def run(self) -> Json:
        missing = self._missing()
        if missing is not None:
            self._nothing_here(*missing)
            return self.plan
        self._switch()
        self._data_root()
        self._booleans()
        self._modules()
        self._enforcing()
        return self.plan

    # -- rows and operations -------------------------------------------------------------------
    def _row(self, setting: str, variable: str, state: str, **more: typing.Any) -> None:
        row = plans.row(setting, variable, state, **{"control": _CONTROL, **more})
        self.plan["settings"].append(row)

    def _operation(self, op: str, why: str, **fields: typing.Any) -> None:
        operation = {"op": op, "role": ROLE, "undo": "live", "why": why, **fields}
        self.plan["operations"].append(operation)

    def _ours(self, kind: str) -> dict[str, Json]:
        return {str(item["name"]): item for item in self.owned if item["kind"] == kind}

    # -- may anything be done here -------------------------------------------------------------
    def _missing(self) -> tuple[str, str] | None:
        """Return state and reason where this host cannot confine containers by SELinux."""
        if not self.lsm["enabled"]:
            active = ", ".join(self.look["lsm"].get("active") or []) or "none"
            return "not_applicable", f"the kernel runs without SELinux (active: {active})"
        if self.engine.get("rootless"):
            return "not_applicable", "a rootless daemon's user has files of their own"
        contexts = self.lsm["contexts"]
        if contexts is None:
            return "blocked", (
                "the policy names no labels for containers (no lxc_contexts); "
                + self._package("install")
            )
        if not self.lsm["types_known"]:
            return "blocked", (
                f"{contexts['path']} names {selinux.type_of(contexts['process'])}, which the loaded "
                "policy does not define, so no container would start; " + self._package("it takes")
            )
        return None

    def _package(self, verb: str) -> str:
        package = _PACKAGES.get(str(self.look["os"].get("id")), "container-selinux")
        return f"{verb} {package}"

    def _nothing_here(self, state: str, reason: str) -> None:
        """Say once why nothing is done; a policy that is off and asks for nothing says nothing."""
        wanted = self.policy.booleans or self.policy.modules or self.policy.enforcing
        if self.policy.enabled or wanted:
            self._row(_KEY, ENABLED, state, reason=reason)

    @property
    def family(self) -> str:
        """Which policy it is: Debian's and Gentoo's know dockerd by a type of its own."""
        return "refpolicy" if "docker" in self.lsm["modules"] else "container-selinux"

    # -- the daemon's switch -------------------------------------------------------------------
    def _switch(self) -> None:
        option = (self.engine.get("options") or {}).get(_KEY) or {}
        in_file = (self.config.get("keys") or {}).get(_KEY)
        mine = any(item.get("key") == _KEY for item in self.owned)
        common: Json = {
            "wanted": self.policy.enabled,
            "effective": option.get("effective", option.get("configured")),
            "source": option.get("where") or option.get("source") or "default",
        }
        if self._is_the_daemons():
            reason = "docker_daemon_options sets it"
            self._row(_KEY, ENABLED, "unmanaged", **common, reason=reason)
        elif not self.policy.enabled:
            self._switch_back(mine, common)
        elif option.get("source") in ("flag", "environment"):
            state = "ok" if option.get("effective") else "blocked"
            why = None if state == "ok" else f"it is a flag in {option.get('where')}"
            self._row(_KEY, ENABLED, state, **common, reason=why)
        elif in_file is not None and in_file.get("value") is True:
            self._in_file(option, common)
        elif in_file is not None and not mine:
            reason = f"somebody set it to false in {self.config['path']}; remove it there"
            self._row(_KEY, ENABLED, "blocked", **common, reason=reason)
        else:
            self._switch_on(common)

    def _is_the_daemons(self) -> bool:
        """Tell whether docker_daemon sets it, or did."""
        theirs = (self.look["bulkhead"].get("owned") or {}).get("docker_daemon", [])
        return any(item.get("key") == _KEY for item in [*theirs, *self.daemon_plan["operations"]])

    def _in_file(self, option: Json, common: Json) -> None:
        if option.get("effective") is not True:
            reason = "in the file; takes effect when the daemon starts again"
            self._row(_KEY, ENABLED, "pending", **common, reason=reason)
            return
        apart = self._unlabelled()
        if apart:
            reason = "these containers were made before, and have no label until they are made anew"
            self._row(_KEY, ENABLED, "pending", **common, affected=apart, reason=reason)
            return
        lax = "labels are given, but SELinux is permissive: nothing is denied"
        self._row(_KEY, ENABLED, "ok", **common, reason=None if self.lsm["enforcing"] else lax)

    def _unlabelled(self) -> list[str]:
        return sorted(
            str(item["name"])
            for item in self.containers
            if (item.get("config") or {}).get("process_label") == ""
            and not item["config"].get("privileged")
            and not item["config"].get("label_disabled")
        )

    def _switch_on(self, common: Json) -> None:
        mounts = self._unlabelled_mounts()
        if mounts and not self.policy.accept:
            reason = (
                "made anew, these containers would be denied what they mount from the host; give the "
                "mounts :z or :Z, or label the directories container_file_t"
            )
            self._row(
                _KEY, ENABLED, "blocked", **common, affected=mounts, reason=reason, accept=ACCEPT
            )
            return
        unsafe = self.restart.unsafe()
        if unsafe:
            self._row(
                _KEY, ENABLED, "blocked", **common, affected=self.restart.alive, reason=unsafe
            )
            return
        self._row(_KEY, ENABLED, "change", **common, affected=self.restart.alive,
                  reason="containers of now get their label when they are made anew"
                  if self.restart.alive else None)  # fmt: skip
        self._operation("json_set", "CIS 5.3", path=self.config["path"], key=_KEY, value=True,
                        observed=self.config["version"])  # fmt: skip
        self.restart.ask(self.plan, _KEY)

    def _switch_back(self, mine: bool, common: Json) -> None:
        if not mine:
            self._row(_KEY, ENABLED, "unmanaged", **common)
            return
        (item,) = [item for item in self.owned if item.get("key") == _KEY]
        unsafe = self.restart.unsafe() if item["intact"] else None
        if unsafe:
            self._row(
                _KEY, ENABLED, "blocked", **common, affected=self.restart.alive, reason=unsafe
            )
        elif item["intact"]:
            self._row(_KEY, ENABLED, "change", **common, reason="no longer wanted: put back")
            self._operation("json_remove", f"{ENABLED} is false", path=item["path"], key=_KEY,
                            observed=self.config["version"])  # fmt: skip
            self.restart.ask(self.plan, _KEY)
        else:
            self._row(
                _KEY,
                ENABLED,
                "not_applicable",
                **common,
                reason="somebody changed it: left as it is",
            )
            self._operation(
                "disown", "somebody changed it", kind="json_key", path=item["path"], key=_KEY
            )

    def _unlabelled_mounts(self) -> list[str]:
        """Return the containers that mount something of the host's without having it labelled."""
        found = []
        for item in self.containers:
            config = item.get("config") or {}
            if config.get("privileged") or config.get("label_disabled"):
                continue
            for mount in config.get("mounts") or []:
                if mount.get("type") != "bind" or mount.get("relabel"):
                    continue
                found.append(f"{item['name']} ({mount.get('source')})")
        return sorted(set(found))

    # -- the data root -------------------------------------------------------------------------
    def _roots(self) -> tuple[str, str]:
        """Return the directory that holds the daemon's data, and its own below it when remapped.

        As they will be after what ``docker_daemon`` plans in the same transaction.
        """
        keys = {op.get("key"): op.get("value") for op in self.daemon_plan["operations"]
                if op["op"] == "json_set" and "member" not in op}  # fmt: skip
        removed = {
            op.get("key") for op in self.daemon_plan["operations"] if op["op"] == "json_remove"
        }
        now = (self.engine.get("info") or {}).get("docker_root_dir")
        in_file = ((self.config.get("keys") or {}).get("data-root") or {}).get("value")
        remapped = bool((self.engine.get("info") or {}).get("userns")) and now is not None
        base = str(now).rpartition("/")[0] if remapped else now
        base = keys.get("data-root") or base or in_file or USUAL_ROOT
        user = str(keys.get("userns-remap") or "").partition(":")[0]
        if user:
            ids = self._first_ids(user)
            return str(base), f"{base}/{ids}" if ids else str(base)
        if remapped and "userns-remap" not in removed and "data-root" not in keys:
            return str(base), str(now)
        return str(base), str(base)

    def _first_ids(self, user: str) -> str | None:
        """Return the name of a remapped daemon's folder, ``UID.GID``: the first ids of both ranges."""
        for op in self.daemon_plan["operations"]:
            if op["op"] == "subid_present" and op["user"] == user:
                return f"{op['subuid']['start']}.{op['subgid']['start']}"
        ranges = self.look.get("subids") or {}
        starts = [
            next(
                (entry["start"] for entry in ranges.get(kind) or [] if entry["name"] == user), None
            )
            for kind in ("subuid", "subgid")
        ]
        return None if None in starts else f"{starts[0]}.{starts[1]}"

    def _data_root(self) -> None:
        base, own = self._roots()
        wanted = {path for path in (base, own) if path != USUAL_ROOT}
        if not self.policy.data_root:
            wanted = set()
        for path in sorted(wanted):
            self._equivalence(path)
        if base in wanted:
            self._labels(base)
        for name, item in sorted(self._ours(_EQUIVALENCE).items()):
            if name in wanted:
                continue
            if self.policy.data_root and not self.running:
                self._row(_like(name), DATA_ROOT, "pending",
                          reason="Docker does not run, so nobody can tell whether it is needed")  # fmt: skip
            elif item["intact"]:
                self._row(_like(name), DATA_ROOT, "change", reason="no longer needed: taken out")
                self._operation(_EQUIVALENCE + "_absent", "no longer needed", name=name)
            else:
                self._operation("disown", "somebody changed it", kind=_EQUIVALENCE, name=name)

    def _equivalence(self, path: str) -> None:
        like = self.lsm["equivalences"].get(path)
        common: Json = {"wanted": USUAL_ROOT, "effective": like}
        if like == USUAL_ROOT:
            self._row(_like(path), DATA_ROOT, "ok", **common)
        elif like is not None and path not in self._ours(_EQUIVALENCE):
            reason = (
                "somebody has it labelled like another path; take that out with semanage fcontext"
            )
            self._row(_like(path), DATA_ROOT, "blocked", **common, reason=reason)
        else:
            reason = "a relabel gives it the labels of Docker's data"
            self._row(_like(path), DATA_ROOT, "change", **common, reason=reason)
            self._operation(_EQUIVALENCE, "the policy knows Docker's usual data root alone",
                            name=path, like=USUAL_ROOT)  # fmt: skip

    def _labels(self, base: str) -> None:
        """Label a moved data root now where that is safe; say what to do where it is not."""
        seen = self.lsm.get("labels") or {}
        remapped = bool((self.engine.get("info") or {}).get("userns"))
        here = seen.get("path") == base or (
            remapped and str(seen.get("path")).startswith(base + "/")
        )
        if here and seen.get("type") == _ROOT_TYPE:
            return
        setting = f"labels below {base}"
        if here and self.restart.alive:
            reason = (
                "they are not those of Docker's data; stop these containers, then run this again"
            )
            self._row(setting, DATA_ROOT, "pending", effective=seen.get("type"), wanted=_ROOT_TYPE,
                      affected=self.restart.alive, reason=reason)  # fmt: skip
            return
        self._row(setting, DATA_ROOT, "change", effective=seen.get("type") if here else None,
                  wanted=_ROOT_TYPE)  # fmt: skip
        self._operation("selinux_relabel", "dockerd may use no other", path=base)

    # -- booleans ------------------------------------------------------------------------------
    def _booleans(self) -> None:
        ours, held = self._ours(_BOOLEAN), self.lsm["booleans"]
        for name, value in sorted(self.policy.booleans.items()):
            setting = f"SELinux boolean {name}"
            common: Json = {"wanted": value, "effective": held.get(name)}
            if name not in held:
                near = difflib.get_close_matches(name, held, 3, 0.5)
                reason = f"this host's policy has none of that name; near it: {', '.join(near) or 'none'}"
                self._row(setting, BOOLEANS, "blocked", **common, reason=reason)
            elif held[name] is value and self.lsm["kept_booleans"].get(name) is value:
                self._row(setting, BOOLEANS, "ok", **common)
                if name not in ours:
                    self._operation(_BOOLEAN, "noted as ours", name=name, value=value)
            else:
                brief = "so only until the next boot" if held[name] is value else None
                self._row(setting, BOOLEANS, "change", **common, reason=brief)
                self._operation(_BOOLEAN, BOOLEANS, name=name, value=value)
        for name, item in sorted(ours.items()):
            if name in self.policy.booleans:
                continue
            if item["intact"]:
                self._row(
                    f"SELinux boolean {name}",
                    BOOLEANS,
                    "change",
                    reason="no longer in the policy: put back",
                )
                self._operation(_BOOLEAN + "_back", "no longer in the policy", name=name)
            else:
                self._operation("disown", "somebody changed it", kind=_BOOLEAN, name=name)

    # -- modules -------------------------------------------------------------------------------
    def _modules(self) -> None:
        ours = self._ours(_MODULE)
        for name, described in sorted(self.policy.modules.items()):
            setting = f"SELinux module {name}"
            text = described
            if not isinstance(text, str):
                text = modules.render(name, typing.cast(Json, described), self.family)
            item = ours.get(name)
            if item is None and name in self.lsm["modules"]:
                reason = (
                    "a module of that name is installed that is not Bulkhead's; choose another name"
                )
                self._row(setting, MODULES, "blocked", reason=reason)
            elif item and item["intact"] and item["sha256"] == selinux.digest(text.encode()):
                self._row(setting, MODULES, "ok", reason=self._types(name, described))
            else:
                reason = "installed" if item is None else "its text changes: installed again"
                if item and not item["intact"]:
                    reason = "somebody changed it, or took it out: installed again"
                self._row(setting, MODULES, "change", reason=reason)
                self._operation(_MODULE, reason, name=name, content=text)
        for name, item in sorted(ours.items()):
            if name in self.policy.modules:
                continue
            using = self._using(name)
            setting = f"SELinux module {name}"
            if not item["intact"]:
                self._row(
                    setting, MODULES, "not_applicable", reason="somebody changed it: left as it is"
                )
                self._operation("disown", "somebody changed it", kind=_MODULE, name=name)
            elif using:
                reason = "no longer in the policy, but these containers have its type; make them anew first"
                self._row(setting, MODULES, "blocked", affected=using, reason=reason)
            elif not self.running and self.engine["state"] != "absent":
                reason = f"no longer in the policy, but Docker is {self.engine['state']}: nobody can tell "
                self._row(
                    setting, MODULES, "blocked", reason=reason + "which containers have its type"
                )
            else:
                self._row(setting, MODULES, "change", reason="no longer in the policy: removed")
                self._operation(_MODULE + "_absent", "no longer in the policy", name=name)

    @staticmethod
    def _types(name: str, described: Json | str) -> str | None:
        return (
            None
            if isinstance(described, str)
            else f"a container takes it with label=type:{name}.process"
        )

    def _using(self, name: str) -> list[str]:
        return users(self.containers, name)

    # -- permissive or enforcing ---------------------------------------------------------------
    def _enforcing(self) -> None:
        """Say the mode; enforce only when asked, and tell what it would deny."""
        wanted, configured = self.policy.enforcing, self.lsm["configured"]
        mode = "enforcing" if self.lsm["enforcing"] else "permissive"
        common: Json = {"wanted": "enforcing" if wanted else None, "effective": mode}
        if self.lsm["enforcing"] and configured == "enforcing":
            self._row("SELinux mode", ENFORCING, "ok", **common)
            return
        if self.lsm["enforcing"] and not wanted:
            reason = (
                f"SELINUX in {selinux.CONFIG} is {configured}: the next boot may not be enforcing"
            )
            self._row("SELinux mode", ENFORCING, "pending", **common, reason=reason)
            return
        told = self._denials()
        if not wanted:
            self._row("SELinux mode", ENFORCING, "held_back", **common, reason=told)
            return
        self._row("SELinux mode", ENFORCING, "change", **common, reason=told)
        self._operation("selinux_enforcing", ENFORCING)

    def _denials(self) -> str:
        """Return what was seen that enforcing denies."""
        if self.lsm["enforcing"]:
            return f"enforcing now; SELINUX in {selinux.CONFIG} becomes it too"
        rows = self.lsm["denials"]
        if not rows:
            return "nothing was seen since the boot that enforcing would deny"
        shown = [
            f"{row['source']} {row['permissions']} {row['target']} {row['class']}: {row['count']}"
            for row in rows[:_MOST_DENIALS]
        ]
        more = len(rows) - len(shown)
        tail = f", and {more} more kinds" if more else ""
        return f"seen since the boot, and denied when enforcing: {', '.join(shown)}{tail}"


_MODULE, _BOOLEAN, _EQUIVALENCE = "selinux_module", "selinux_boolean", "selinux_equivalence"


def _like(path: str) -> str:
    return f"labels of {path}"


def users(containers: typing.Iterable[Json], name: str) -> list[str]:
    """Return the containers that have a type of a module, or ask for one. It may be any: ``NAME.x``."""
    found = []
    for item in containers:
        config, kernel = item.get("config") or {}, item.get("kernel") or {}
        types = {
            selinux.type_of(kernel.get("selinux_label")),
            selinux.type_of(config.get("process_label")),
        }
        types |= {option.rpartition("type:")[2] for option in config.get("security_opt") or []
                  if option.startswith("label") and "type:" in option}  # fmt: skip
        if any(str(kind).partition(".")[0] == name for kind in types if kind):
            found.append(str(item["name"]))
    return sorted(found)
