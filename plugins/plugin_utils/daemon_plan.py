# Copyright: (c) 2026, the Bulkhead authors
# Apache License 2.0 (see LICENSE)
"""The planner of ``docker_daemon``: observation and policy in, plan out, nothing touched.

Facts about dockerd that shape it: a key given as a flag too stops the daemon; so does a key that the
engine does not know; some keys are read again at SIGHUP and the others at a start; a daemon that
restarts without live-restore ends its containers (moby, daemon/config and daemon/reload.go).
"""

from __future__ import annotations

import ipaddress
import re
import typing

from ansible_collections.bulkhead.hardening.plugins.module_utils import hiding, look_images
from ansible_collections.bulkhead.hardening.plugins.module_utils.daemon_options import (
    OPTIONS,
    knows,
    release,
)
from ansible_collections.bulkhead.hardening.plugins.module_utils.flags_dropin import FLAGS_DROPIN
from ansible_collections.bulkhead.hardening.plugins.module_utils.ledger import (
    value_digest,
    verifier,
)
from ansible_collections.bulkhead.hardening.plugins.module_utils.look_common import run_path
from ansible_collections.bulkhead.hardening.plugins.module_utils.transaction_plan import (
    SLICE,
    SLICE_GROUP,
)
from ansible_collections.bulkhead.hardening.plugins.plugin_utils import (
    hidden,
    plan as plans,
    subids,
    unread,
)
from ansible_collections.bulkhead.hardening.plugins.plugin_utils.daemon_policy import (
    DEFAULT_USERNS_SIZE,
    DEFAULT_USERNS_USER,
    KEY_SETTINGS,
    OWN_VARIABLE,
    PROFILE,
    PROFILE_VALUES,
    ROLE,
    STRICT,
    TLS_FILES,
    UNMANAGED,
    Policy,
    is_local,
    variable,
)
from ansible_collections.bulkhead.hardening.plugins.plugin_utils.plan import (
    Json,
    PolicyError,
)

#: Runc keeps an explicit limit in the scope's drop-in 50-TasksMax.conf, and systemd merges drop-ins in
#: the order of their names: the default must sort before it, or it would override explicit limits.
SCOPE_DROPIN = "/etc/systemd/system/docker-.scope.d/10-bulkhead.conf"
SOCKET_DROPIN = "/etc/systemd/system/docker.socket.d/10-bulkhead.conf"

#: Starts the slice before the daemon: what starts in a slice that is not there has no limit.
SLICE_DROPIN = "/etc/systemd/system/docker.service.d/10-bulkhead-slice.conf"

#: A running container that uses this share of a new PIDs limit is too near to it.
NEAR_LIMIT = 0.5

#: The most that a file of each kind may allow (CIS Docker 1.8.0, section 3), and who owns it.
ALLOWED_MODES: dict[str, int] = {
    "unit": 0o644,
    "directory": 0o755,
    "config": 0o644,
    "certificate": 0o444,
    "key": 0o400,
    "socket": 0o660,
}

#: Where a daemon listens that nobody told (moby opts/hosts_unix.go).
_DEFAULT_HOST = "unix:///var/run/docker.sock"

_DEFAULTS: Json = {
    "live-restore": False,
    "icc": True,
    "no-new-privileges": False,
    "userland-proxy": True,
    "log-driver": "json-file",
}

#: Log drivers that write files, which grow unless they are rotated.
_FILE_DRIVERS = ("json-file", "local")

#: What a look must have read, whatever state Docker is in.
_SECTIONS = (
    *("os", "engine", "daemon_config", "files", "units", "subids", "users"),
    *("lsm", "sysctls", "modules", "scope_dropins"),
)

#: What gives userns-remap its account.
_ACCOUNT_OPERATIONS = ("group_present", "user_present", "subid_present")

_OWNED_BY = "# Written by Bulkhead (role {role}); it is replaced by the next run.\n# {hint}\n"


def plan(observation: Json, policy: Policy) -> Json:
    """Plan what ``docker_daemon`` changes on one host.

    :param observation: a document of schema ``bulkhead.observation/1``.
    :returns: a plan of schema ``bulkhead.plan/1``.
    :raises PolicyError: the policy cannot be met on this host as it is written, or the host is in a
        state in which nothing can be planned. Nothing has been changed then.
    """
    return _Planner(observation, policy).run()


def _names(containers: typing.Iterable[Json]) -> list[str]:
    return sorted(container["name"] for container in containers)


def _same(one: object, other: object) -> bool:
    """Compare two values; the daemon shows addresses of mirrors with a slash at the end."""
    if isinstance(one, list) and isinstance(other, list):
        return [str(item).rstrip("/") for item in one] == [str(item).rstrip("/") for item in other]
    return one == other


class _Planner:
    """Collects rows and operations; each method below plans one mechanism."""

    def __init__(self, observation: Json, policy: Policy) -> None:
        self.look = observation
        self.policy = policy
        self.rows: list[Json] = []
        self.operations: list[Json] = []
        #: keys of daemon.json whose new value the daemon has to take up
        self.take_up: list[str] = []
        #: those that are in the file already, each with its member
        self.read_at_last: set[unread.Item] = set()
        self._check_look()
        self.engine: Json = observation["engine"]
        self.running = self.engine["state"] == "running"
        self.config: Json = observation["daemon_config"]
        self.keys: Json = self.config["keys"] if self.config["state"] == "valid" else {}
        self.version = self._engine_version()
        self.containers: list[Json] = [
            item for item in observation.get("containers") or [] if not self._is_ours(item)
        ]
        self.alive = [item for item in self.containers if item["state"] in ("running", "paused")]
        owned = (observation["bulkhead"].get("owned") or {}).get(ROLE, [])
        self.owned = {
            (item["key"], item.get("member")): item for item in owned if item["kind"] == "json_key"
        }
        self.owned_files = {item["path"]: item for item in owned if item["kind"] == "file"}
        self.owned_modes = {item["path"]: item for item in owned if item["kind"] == "mode"}
        self.profile, self.profile_reason = self._profile()
        flags = self.owned_files.get(FLAGS_DROPIN) or {}
        #: keys whose flags our drop-in keeps from the daemon, and those that get them back
        self.taken: set[str] = set(flags["flags"]) if flags.get("intact") else set()
        #: keys whose flags may be taken off the command line
        self.taking = set(policy.take_over_flags)
        if policy.tcp_hosts:
            self.taking.add("hosts")
        elif "hosts" not in policy.options:
            # Without flag and key the daemon would leave the addresses of its unit.
            self.taking.discard("hosts")
        self.back = self.taken - self.taking

    # -- what must be so before anything can be planned ----------------------------------------
    def _check_look(self) -> None:
        look = self.look
        plans.check_look(look, *_SECTIONS)
        engine = look["engine"]
        if engine["state"] == "running":
            plans.check_sections(look, "containers", "images", "volumes", "networks")
        if engine["state"] == "broken":
            raise PolicyError(
                "docker.service",
                engine["state"],
                f"{engine['reason']}; get the daemon to start, then run again",
            )
        config = look["daemon_config"]
        if config["state"] not in ("absent", "valid", "symlink"):
            fixes = {
                "empty": "dockerd does not start with an empty file; remove it or write {} to it",
                "not_an_object": "it must hold one JSON object",
            }
            raise PolicyError(
                config["path"],
                config["state"],
                fixes.get(config["state"], f"{config['reason']}; mend the file, then run again"),
            )
        if config.get("duplicate_keys"):
            raise PolicyError(
                config["path"],
                config["duplicate_keys"],
                "these keys stand in it more than once and the last one wins; keep one of each",
            )

    @staticmethod
    def _is_ours(container: Json) -> bool:
        """Tell whether a container is a health check that was left over.

        The label alone would not do: a container, or its image, may label itself.
        """
        labels = container.get("labels") or {}
        ours = container["name"].startswith(look_images.HEALTH + "-")
        return bool(labels.get("bulkhead.role")) and ours

    def _data_left_behind(self) -> bool:
        """Tell whether Docker is gone but its data is still there, for the next one to find."""
        return self.engine["state"] == "absent" and any(
            item["path"] == "/var/lib/docker" and item["type"] == "directory"
            for item in self.look["files"]
        )

    def _engine_version(self) -> str | None:
        version: str | None = self.engine["version"]
        if version is None and self.engine["state"] == "absent":
            version = self.policy.expect_engine or None
        return version

    def _profile(self) -> tuple[str, str]:
        if self.policy.profile != "auto":
            return self.policy.profile, f"{variable('profile')} says so"
        if self.look["bulkhead"].get("profile") == "strict":
            return "strict", "it was strict before, and strict stays"
        if self._data_left_behind():
            return "compatible", "Docker is not installed, but /var/lib/docker holds data"
        if self.engine["state"] == "absent":
            return "strict", "Docker is not installed yet"
        if not self.running:
            return "compatible", f"Docker is {self.engine['state']}: its containers cannot be seen"
        if self.containers:
            return "compatible", f"{len(self.containers)} containers are on this host"
        return "strict", "no containers are on this host"

    def _left_open(self) -> None:
        """Say that an earlier run was cut off; the next transaction undoes it before its own."""
        left = self.look["bulkhead"].get("open_transaction")
        if left:
            self.rows.append(
                plans.row(
                    "transaction",
                    "/var/lib/bulkhead",
                    "pending",
                    effective=left["id"],
                    reason="an earlier run was cut off; the next run undoes what it left",
                )
            )

    def run(self) -> Json:
        self._left_open()
        for name, key, control in KEY_SETTINGS:
            self._key_setting(name, key, control)
        self._log_opts()
        self._ulimits()
        self._userns_remap()
        self._options()
        self._api()
        self._pids_limit()
        self._slice()
        self._file_modes()
        self._no_longer_wanted()
        restart = self._hold_restart_if_unsafe()
        self._leave_unused_tls_files()
        self._flags_dropin()
        if any(op["op"].startswith("json_") for op in self.operations):
            self._check_file_can_be_written()
        return {
            **plans.empty(self.profile),
            "roles": [ROLE],
            "profile_reason": self.profile_reason,
            "settings": self.rows,
            "operations": self.operations,
            "daemon": restart,
        }

    # -- helpers -------------------------------------------------------------------------------
    def _wanted(self, name: str) -> tuple[object, bool]:
        """Return the value wanted of a setting and whether it was asked for explicitly."""
        value = self.policy.settings[name]
        if value == PROFILE:
            return PROFILE_VALUES[self.profile][name], False
        return value, True

    def _row(self, name: str, setting: str, state: str, **more: typing.Any) -> None:
        self.rows.append(plans.row(setting, variable(name), state, **more))

    def _operation(self, op: str, why: str, undo: str = "live", **fields: typing.Any) -> None:
        self.operations.append({"op": op, "role": ROLE, "undo": undo, "why": why, **fields})

    def _option(self, key: str) -> Json:
        return (self.engine.get("options") or {}).get(key) or {}

    def _in_file(self, key: str, member: str | None = None) -> Json | None:
        """Return ``{type, value}`` of a key, or of its member, in the file; None when it is not there."""
        entry = self.keys.get(key)
        if entry is None or member is None:
            return typing.cast("Json | None", entry)
        return typing.cast("Json | None", (entry.get("members") or {}).get(member))

    def _set_key(self, key: str, value: object, why: str, member: str | None = None) -> None:
        fields: Json = {"member": member} if member is not None else {}
        self._operation(
            "json_set",
            why,
            path=self.config["path"],
            key=key,
            value=value,
            observed=self.config["version"],
            **fields,
        )
        self.take_up.append(key)

    def _check_file_can_be_written(self) -> None:
        path, config = self.config["path"], self.config
        if config["state"] == "symlink":
            raise PolicyError(path, "a symbolic link", "put the file itself there, then run again")
        for attribute in config["attributes"]:
            raise PolicyError(path, attribute, f"run chattr -i -a {path}, then run again")
        if config["read_only_filesystem"]:
            raise PolicyError(path, "on a read-only file system", "mount it writable")

    # -- one key of daemon.json ----------------------------------------------------------------
    def _key_setting(self, name: str, key: str, control: str) -> None:
        wanted, explicit = self._wanted(name)
        if wanted == UNMANAGED:
            self._row(name, key, "unmanaged", control=control)
            return
        if wanted is None:
            self._held_back(name, key, control)
            return
        missing = self._missing_precondition(key, wanted)
        if missing:
            state, reason = missing
            self._row(name, key, state, wanted=wanted, control=control, reason=reason)
            return
        self._want_key(name, key, wanted, explicit, control=control)

    def _missing_precondition(self, key: str, wanted: object) -> tuple[str, str] | None:
        """Return the state and reason for a setting that this host cannot take."""
        # Whatever the state of the node: dockerd reads it before it asks anybody (daemon/cluster).
        if key == "live-restore" and wanted is True and self.engine.get("swarm_node"):
            return "not_applicable", "dockerd refuses live-restore in swarm mode"
        if (
            key == "userland-proxy"
            and wanted is False
            and self.look["modules"].get("br_netfilter") == "absent"
        ):
            return "not_applicable", (
                "the kernel has no br_netfilter module, and without the proxy containers of one "
                "network could not reach each other's published ports"
            )
        if key == "seccomp-profile" and wanted == "builtin" and not self._seccomp_word():
            current = self._option(key)
            if current.get("effective", "builtin") == "builtin" and not current.get("configured"):
                return None
            return "blocked", (
                f"engine {self.version} does not know the word builtin; remove seccomp-profile from "
                f"{current.get('where') or self.config['path']}"
            )
        return None

    def _seccomp_word(self) -> bool:
        # 23.0 brought the words builtin and unconfined; older engines open them as files and fail.
        return self.version is None or release(self.version) >= (23, 0, 0)

    def _held_back(self, name: str, key: str, control: str) -> None:
        """Say what strict would change and whom it would affect."""
        strict = STRICT[name]
        option = self._option(key)
        effective = option.get("effective", option.get("configured", _DEFAULTS.get(key)))
        if effective == strict:
            self._row(name, key, "ok", wanted=strict, effective=effective, control=control,
                      source=option.get("source") or "default")  # fmt: skip
            return
        affected, reason = self._affects(key, strict)
        self._row(
            name,
            key,
            "held_back",
            wanted=strict,
            effective=effective,
            control=control,
            reason=reason,
            affected=affected,
        )

    def _affects(self, key: str, wanted: object) -> tuple[list[str], str | None]:
        """Return the containers that a value takes something from, and what that is."""
        if wanted is not STRICT.get(OWN_VARIABLE.get(key, "")):
            return [], None
        bridged = [c for c in self.alive if c["config"]["network_mode"] in ("default", "bridge")]
        published = [c for c in self.alive if c["config"]["ports"]]
        cases = {
            "icc": (bridged, "containers on the default bridge could no longer reach each other"),
            "userland-proxy": (
                published,
                "ports published on [::1] and hairpin connections would change",
            ),
            "no-new-privileges": (
                self.containers,
                "programs that gain rights by setuid (sudo, ping) would not, in containers created "
                "from then on",
            ),
        }
        affected, reason = cases.get(key, ([], None))
        return _names(affected), reason

    def _want_key(
        self,
        name: str,
        key: str,
        wanted: object,
        explicit: bool,
        control: str | None = None,
        setting: str | None = None,
    ) -> None:
        """Plan for one whole key to have one value, as the daemon sees it."""
        option = self._option(key)
        common: Json = {
            "wanted": wanted,
            "effective": option.get("effective", self._default_in_effect(key)),
            "source": option.get("where") or option.get("source") or "default",
            "control": control,
        }
        setting = setting or key
        if self.version is not None and not knows(self.version, key):
            since = OPTIONS[key].first
            self._row(
                name,
                setting,
                "not_applicable",
                **common,
                reason=f"engine {self.version} does not know {key}"
                + (f" (known from {since} on)" if since else ""),
            )
            return
        if key in self.back:
            self._give_flag_back(name, setting, key, common)
            return
        if option.get("source") in ("flag", "environment") and not self._takes(
            name, setting, key, option, common
        ):
            return
        entry = self._in_file(key)
        redacted = entry is not None and entry.get("redacted")
        wrote = self._wrote(key, None, wanted) if redacted else None
        if redacted and wrote is None:
            self._row(name, setting, "blocked", **common, reason="the host's value may hold credentials "
                      "and is not shown, so it cannot be compared")  # fmt: skip
            return
        if wrote:
            state = self._take_up(key) if self._file_waits() else "ok"
            self._row(name, setting, state, **common)
            return
        if (
            entry is not None
            and not redacted
            and "value" in entry
            and _same(entry["value"], wanted)
        ):
            self._settled(name, setting, key, option, common)
            return
        if entry is None and self._is_default(key, wanted, option):
            self._row(name, setting, "ok", **{**common, "effective": wanted, "source": "default"})
            return
        owned = (key, None) in self.owned
        if entry is not None and not owned and not explicit and self.profile == "compatible":
            self._row(
                name,
                setting,
                "held_back",
                **common,
                reason=f"somebody set {key} in {self.config['path']}; the compatible profile leaves "
                f"it. Set {variable(name)} to take it over",
            )
            return
        affected, told = self._affects(key, wanted)
        reason = told if affected else self._applies(key)
        self._row(name, setting, "change", **common, reason=reason, affected=affected)
        why = f"CIS {control}" if control else variable(name)
        self._set_key(key, wanted, why)

    def _file_waits(self) -> bool:
        """Tell whether the daemon runs and has not read daemon.json as it is now."""
        return self.running and not self.engine["config_loaded"]

    def _wrote(self, key: str, member: str | None, wanted: object) -> bool | None:
        """Tell whether Bulkhead wrote this value to the file; None when what is there is not ours."""
        item = self.owned.get((key, member)) or {}
        if not item.get("intact") or "verifier" not in item:
            return None
        return bool(item["verifier"] == verifier(key, member, value_digest(wanted)))

    def _default_in_effect(self, key: str) -> object:
        """Return what a running daemon does about a key that nobody set."""
        if not self.running or self._option(key).get("configured") is not None:
            return None
        return _DEFAULTS.get(key)

    def _is_default(self, key: str, wanted: object, option: Json) -> bool:
        if self.running and "effective" in option:
            return bool(option["effective"] == wanted)
        if key == "seccomp-profile":
            return wanted == "builtin"
        return key in _DEFAULTS and _DEFAULTS[key] == wanted

    # -- options that are flags ----------------------------------------------------------------
    def _takes(self, name: str, setting: str, key: str, option: Json, common: Json) -> bool:
        """Tell whether a key is to be set although a flag gives the option; else give it a row."""
        effective = option.get("effective", option.get("configured"))
        is_map = isinstance(common["wanted"], dict)
        if common["wanted"] == effective or (
            is_map and {**(effective or {}), **common["wanted"]} == effective
        ):
            self._row(name, setting, "ok", **common)
            return False
        reason = (
            f"it is given to dockerd as a flag in {option.get('where')}, and a key in "
            f"{self.config['path']} beside the flag stops the daemon; change or remove the flag there"
        )
        if key not in self.taking:
            reason += f", or add {key} to {variable('take_over_flags')}"
        else:
            obstacle = self._not_taken(key, option, is_map)
            if obstacle is None:
                return True
            reason += f". {variable('take_over_flags')} cannot take it over: {obstacle}"
        self._row(name, setting, "blocked", **common, reason=reason)
        return False

    def _not_taken(self, key: str, option: Json, is_map: bool) -> str | None:
        """Return why a flag cannot be taken over, or None."""
        item = self.owned_files.get(FLAGS_DROPIN)
        if item is not None and not item["intact"] and item["version"] != "absent":
            return f"somebody changed {FLAGS_DROPIN}; remove that file"
        if self.running and self.policy.restart == "never":
            return f"that needs a restart, and {variable('restart')} is never"
        if key == "live-restore" and self.alive:
            return "containers run, and this daemon cannot learn of live-restore without a restart"
        if is_map and (option.get("redacted") or "configured" not in option):
            return "the flag's values may hold credentials and are not shown, so they would be lost"
        return None

    def _give_flag_back(self, name: str, setting: str, key: str, common: Json) -> None:
        """Take our keys for an option out again, whose flag is to count from now on."""
        entry = self._in_file(key)
        items = [item for (owned, _), item in self.owned.items() if owned == key]
        if entry is not None and (not items or not all(item["intact"] for item in items)):
            self._row(name, setting, "blocked", **common,
                      reason=f"somebody else set {key} in {self.config['path']}, and dockerd does not "
                      f"start when its flag comes back; add it to {variable('take_over_flags')}, or "
                      "remove it from the file")  # fmt: skip
            self.back.discard(key)
            return
        # What the flag says is not known here, so any of these may go elsewhere.
        hides = next(
            filter(None, (hiding.name_of(key, item.get("member")) for item in items)), None
        )
        blocked = self._would_hide(hides, "options") if hides else None
        if blocked:
            self._row(name, setting, "blocked", **common, **blocked)
            self.back.discard(key)
            return
        self._row(name, setting, "change", **common,
                  reason="the flag in its unit counts again")  # fmt: skip
        self.take_up.append(key)
        for item in items:
            fields: Json = {"member": item["member"]} if item.get("member") else {}
            self._operation("json_remove", "its flag counts again", path=item["path"], key=key,
                            observed=self.config["version"], **fields)  # fmt: skip

    def _flags_dropin(self) -> None:
        """Plan the drop-in for the keys that are, or stay, taken over."""
        item = self.owned_files.get(FLAGS_DROPIN)
        planned = {op["key"] for op in self.operations if op["op"] == "json_set"}
        removed = {op["key"] for op in self.operations if op["op"] == "json_remove"}
        flagged = {
            key for key in planned if self._option(key).get("source") in ("flag", "environment")
        }
        # What a restart that is held back keeps from being removed stays taken.
        back = {key for key in self.back if key in removed or self._in_file(key) is None}
        keys = sorted((self.taken - back) | flagged)
        if not keys and item is not None:
            self._remove_file(FLAGS_DROPIN, item["version"])
        if not keys or set(keys) == self.taken:
            return
        self._operation("flags_taken", variable("take_over_flags"), path=FLAGS_DROPIN, keys=keys,
                        observed=item["version"] if item else "absent")  # fmt: skip

    def _settled(self, name: str, setting: str, key: str, option: Json, common: Json) -> None:
        """The file already says what is wanted; does the daemon do it?"""
        if not self.running:
            reason = f"in the file; takes effect when Docker starts (it is {self.engine['state']})"
            self._row(name, setting, "pending", **common, reason=reason)
        elif hiding.is_so(self.engine, key, common["wanted"]) or _same(
            option.get("effective", common["wanted"] if self.engine["config_loaded"] else None),
            common["wanted"],
        ):
            self._row(name, setting, "ok", **{**common, "effective": common["wanted"]})
        elif self.engine["config_loaded"]:
            # docker0 is left as it is for as long as containers that survived a restart use it.
            reason = (
                "the daemon has read it, but keeps the old state until no container runs at a start"
            )
            self._row(
                name, setting, "pending", **common, reason=reason, affected=_names(self.alive)
            )
        else:
            affected, told = self._affects(key, common["wanted"])
            reason = f"{self.config['path']} was changed after the daemon started"
            reason += f"; {told}" if affected and told else ""
            self._row(name, setting, self._take_up(key), **common, reason=reason, affected=affected)

    def _take_up(self, key: str, member: str | None = None) -> str:
        """Have the daemon read a key that the file has already; return the state of it."""
        if self.policy.restart == "never":
            return "pending"
        self.take_up.append(key)
        self.read_at_last.add((key, member))
        return "change"

    def _applies(self, key: str) -> str | None:
        return {
            "create": "applies to containers created from then on",
            "start": "applies to each container at its next start",
        }.get(OPTIONS[key].applies)

    # -- members of maps: log options and limits -----------------------------------------------
    def _want_member(self, name: str, key: str, member: str, wanted: object, explicit: bool) -> str:
        """Plan for one member of a map in daemon.json. Return the state of it."""
        entry = self._in_file(key, member)
        owned = self.owned.get((key, member))
        same = entry is not None and _same(entry.get("value"), wanted)
        if entry is not None and entry.get("redacted"):
            # It may hold credentials, so it stays on the host: it can be compared when it is ours.
            wrote = self._wrote(key, member, wanted)
            if wrote is None:
                return "held_back"
            same = wrote
        if same:
            if self._file_waits():
                return self._take_up(key, member)
            return "ok" if self.running else "pending"
        if entry is not None and not owned and not explicit and self.profile == "compatible":
            return "held_back"
        self._set_key(key, wanted, variable(name), member=member)
        return "change"

    def _want_members(
        self, name: str, key: str, wanted: Json, explicit: bool, control: str | None
    ) -> None:
        option = self._option(key)
        common: Json = {"wanted": wanted, "control": control}
        if option.get("source") in ("flag", "environment"):
            common["effective"] = option.get("effective", option.get("configured"))
            common["source"] = option.get("where")
            if not self._takes(name, key, key, option, common):
                return
            # What the flags set of the map is kept, beside what is wanted.
            wanted = {**typing.cast(Json, option["configured"]), **wanted}
        if key in self.back:
            self._give_flag_back(name, key, key, common)
            return
        states = {m: self._want_member(name, key, m, v, explicit) for m, v in wanted.items()}
        members = (self._in_file(key) or {}).get("members") or {}
        common["effective"] = {m: members[m].get("value") for m in wanted if m in members} or None
        common["source"] = self.config["path"] if common["effective"] else "default"
        state = next((s for s in ("change", "pending", "held_back") if s in states.values()), "ok")
        kept = sorted(m for m, s in states.items() if s == "held_back")
        reason = self._applies(key) if state == "change" else None
        if state == "pending":
            reason = "in the file; takes effect when the daemon starts again"
        if kept:
            reason = (
                f"somebody set {', '.join(kept)} in {self.config['path']}; the compatible profile "
                f"leaves that. Set {variable(name)} to take it over"
            )
        changed = {m for m, s in states.items() if s == "change"}
        affected = self._without_own(changed) if key == "default-ulimits" else []
        self._row(name, key, state, **common, reason=reason, affected=affected)

    def _without_own(self, limits: set[str]) -> list[str]:
        """Return the containers that do not name each of these limits themselves."""
        return _names(
            container
            for container in self.containers
            if limits
            - {
                limit["name"]
                for limit in container["config"].get("ulimits", [])
                if not limit["default"]
            }
        )

    def _log_driver(self) -> str:
        """Return the log driver that will be in effect after this plan."""
        option = self._option("log-driver")
        current = option.get("effective", option.get("configured", "json-file"))
        return str(self.policy.options.get("log-driver", current))

    def _log_opts(self) -> None:
        wanted, explicit = self._wanted("log_opts")
        if wanted == UNMANAGED:
            self._row("log_opts", "log-opts", "unmanaged")
            return
        driver = self._log_driver()
        if driver not in _FILE_DRIVERS:
            self._row(
                "log_opts",
                "log-opts",
                "not_applicable",
                wanted=wanted,
                reason=f"the log driver {driver} does not write files that grow",
            )
            return
        self._want_members("log_opts", "log-opts", typing.cast(Json, wanted), explicit, None)

    def _ulimits(self) -> None:
        wanted, explicit = self._wanted("ulimits")
        if wanted == UNMANAGED:
            self._row("ulimits", "default-ulimits", "unmanaged", control="2.9")
            return
        reason = self._too_many_files(typing.cast("dict[str, dict[str, int]]", wanted))
        if reason and explicit:
            raise PolicyError(
                f"{variable('ulimits')}[nofile]", typing.cast(Json, wanted)["nofile"], reason
            )
        if reason:
            self._row("ulimits", "default-ulimits", "blocked", wanted=wanted, control="2.9",
                      reason=f"nofile of the profile {self.profile}: {reason}")  # fmt: skip
            return
        members = {
            name: {"Name": name, "Hard": limits["hard"], "Soft": limits["soft"]}
            for name, limits in typing.cast("dict[str, dict[str, int]]", wanted).items()
        }
        self._want_members("ulimits", "default-ulimits", members, explicit, "2.9")

    def _too_many_files(self, wanted: dict[str, dict[str, int]]) -> str | None:
        """Return why containers could not start with this limit of open files, or None."""
        most = str(self.look["sysctls"].get("fs.nr_open"))
        hard = wanted.get("nofile", {}).get("hard", 0)
        # kernel/sys.c, do_prlimit: nobody gets more, not even root, and unlimited is more.
        if not re.match(r"[0-9]{1,10}\Z", most) or 0 <= hard <= int(most):
            return None
        return (
            f"the kernel of this host grants {most} at most (fs.nr_open), and no container would start; "
            f"give a hard limit up to {most}"
        )

    # -- further keys --------------------------------------------------------------------------
    def _options(self) -> None:
        for key, value in sorted(self.policy.options.items()):
            if self.version is not None and not knows(self.version, key):
                option = OPTIONS[key]
                span = f"from {option.first or 'before 20.10'} to {option.last or 'today'}"
                raise PolicyError(
                    f"{variable('options')}[{key}]",
                    value,
                    f"engine {self.version} does not know this key ({span}) and would not start; "
                    "leave it out for this host",
                )
            if key == "hosts" and (self.policy.tcp_hosts or self._leaves_listeners(value)):
                continue
            name = next(
                (n for n, v in self._hiding_of(key, value).items() if self._moves(n, v)), None
            )
            blocked = self._would_hide(name, "options") if name else None
            if blocked:
                self._row("options", key, "blocked", wanted=value,
                          effective=self._option(key).get("effective"), **blocked)  # fmt: skip
            elif isinstance(value, dict):
                self._want_members("options", key, value, True, None)
            else:
                self._want_key("options", key, value, True)

    # -- the API on the network ----------------------------------------------------------------
    def _listening(self) -> list[str]:
        """Return the addresses of the API as flags or daemon.json give them, or the engine's own."""
        configured = self._option("hosts").get("configured")
        found = configured if isinstance(configured, list) and configured else [_DEFAULT_HOST]
        return [str(item) for item in found]

    def _behind(self, address: str) -> list[str]:
        """Return where an address is reached; of systemd's own, what its unit listens on."""
        unit = self.look["units"].get("docker.socket") or {}
        found = unit.get("listen") if address.startswith("fd:") else None
        # systemd shows a socket of the abstract namespace with "@", which is on no network.
        return [f"unix://{item}" if item.startswith("@") else item for item in found or [address]]

    def _places(self, address: str) -> set[str]:
        """Return the paths at which local clients reach an address."""
        local = filter(is_local, self._behind(address))
        return {run_path(item.partition("://")[2] or item) for item in local}

    def _leaves_listeners(self, wanted: typing.Sequence[str]) -> bool:
        """Add a row and return True when an address would be given up that local clients use."""
        places = set().union(*(self._places(item) for item in wanted))
        lost = [
            item for item in self._listening() if is_local(item) and self._places(item) - places
        ]
        if not lost or self.engine["state"] == "absent":
            return False
        reason = f"clients that use {', '.join(lost)} would lose the daemon; name it too"
        self._row("options", "hosts", "blocked", wanted=list(wanted), effective=self._listening(),
                  reason=reason)  # fmt: skip
        return True

    def _api(self) -> None:
        """Plan the addresses on the network, and client certificates for all of them (CIS 2.8)."""
        if not self.policy.tcp_hosts:
            self._unprotected_api()
            return
        local = self.policy.options.get("hosts") or [
            item for item in self._listening() if is_local(item)
        ]
        if self._leaves_listeners(local):
            return
        wanted: Json = {
            "hosts": [*local, *self.policy.tcp_hosts],
            "tlsverify": True,
            **self.policy.tls,
        }
        rows, operations, take_up = len(self.rows), len(self.operations), len(self.take_up)
        obstacle = self._no_api()
        for key in wanted if obstacle is None else ():
            name = "tls" if key in self.policy.tls else "tcp_hosts"
            self._want_key(name, key, wanted[key], True, control="2.8")
        for row in self.rows[rows:]:
            if row["state"] == "blocked" and obstacle is None:
                obstacle = f"{row['setting']}: {row['reason']}"
        if obstacle is not None:
            # All or nothing: an address without its certificates would be open to everybody.
            del self.rows[rows:], self.operations[operations:], self.take_up[take_up:]
            self._row("tcp_hosts", "hosts", "blocked", wanted=wanted["hosts"],
                      effective=self._listening(), control="2.8", reason=obstacle)  # fmt: skip
            return
        self._tell_of_the_api(wanted["hosts"])

    def _unprotected_api(self) -> None:
        verify, tls = (self._option(key).get("configured") for key in ("tlsverify", "tls"))
        remote = [
            item if item == address else f"{item} of docker.socket"
            for address in self._listening()
            for item in self._behind(address)
            if not is_local(item)
        ]
        if remote and not (verify is True or (verify is None and tls is True)):
            self._row("tcp_hosts", "hosts", "blocked", effective=self._listening(), control="2.8",
                      reason=f"whoever reaches {', '.join(remote)} is root of this host; set "
                      f"{variable('tcp_hosts')} and {variable('tls')}, or take the address away")  # fmt: skip

    def _no_api(self) -> str | None:
        """Return why this host cannot offer its API on the network now, or None."""
        if self.engine["state"] == "absent":
            return (
                "Docker is not installed, so where its unit will make it listen cannot be seen; run "
                "again when it is"
            )
        if self.engine.get("rootless"):
            return "a rootless daemon is not managed"
        for key, path in self.policy.tls.items():
            seen = self._tls_file(key, path)
            if seen is None or seen["problem"]:
                reason = "this look did not see it" if seen is None else seen["problem"]
                return f"{variable('tls')} names {path} for {key}: {reason}"
        return None

    def _tls_file(self, key: str, path: str) -> Json | None:
        return next(
            (
                item
                for item in self.look.get("tls_files") or []
                if (item["key"], item["path"]) == (key, path)
            ),
            None,
        )

    def _tell_of_the_api(self, hosts: list[str]) -> None:
        """Say in the row of the addresses what their clients will notice."""
        item = next(row for row in reversed(self.rows) if row["setting"] == "hosts")
        told = []
        closed = [host for host in self._listening() if host not in hosts]
        if closed:
            told.append(f"{', '.join(closed)} closes")
        names = (self._tls_file("tlscert", self.policy.tls["tlscert"]) or {}).get("names", [])
        for host in self.policy.tcp_hosts:
            address = ipaddress.ip_address(host.partition("://")[2].rpartition(":")[0].strip("[]"))
            if not address.is_unspecified and str(address) not in names:
                told.append(f"clients of {host} must call it {' or '.join(names)}, "
                            "which is what its certificate names")  # fmt: skip
        if told:
            item["reason"] = "; ".join(filter(None, [item["reason"], *told]))

    def _leave_unused_tls_files(self) -> None:
        """Take back what was planned for files that the policy names and the daemon will not use."""
        used = {row["path"] for row in self.look.get("tls_files") or [] if row["used"]}
        used |= {op["value"] for op in self.operations if op.get("key") in TLS_FILES.values()
                 and op["op"] == "json_set"}  # fmt: skip
        unused = set(self.policy.tls.values()) - used
        self.operations = [
            op for op in self.operations if op["op"] != "mode" or op["path"] not in unused
        ]
        self.rows = [row for row in self.rows if row["setting"] not in unused]

    # -- user namespaces -----------------------------------------------------------------------
    def _userns_remap(self) -> None:
        wanted, explicit = self._wanted("userns_remap")
        name, setting, control = "userns_remap", "userns-remap", "2.10"
        if wanted == UNMANAGED:
            self._row(name, setting, "unmanaged", control=control)
            return
        option = self._option(setting)
        is_on = bool(option.get("effective", option.get("configured")))
        common: Json = {
            "wanted": wanted if wanted is not None else True,
            "effective": is_on,
            "source": option.get("where") or option.get("source") or "default",
            "control": control,
        }
        if self.engine.get("rootless"):
            self._row(name, setting, "not_applicable", **common,
                      reason="a rootless daemon already maps root to an ordinary user")  # fmt: skip
        elif is_on and wanted in (True, None):
            state = "ok" if self.running else "pending"
            reason = None if wanted else "once on it stays on: off would hide what it holds"
            self._row(name, setting, state, **common, reason=reason)
            self._other_remapping()
        elif wanted is None:
            self._row(name, setting, "held_back", **common, affected=_names(self.containers),
                      reason="containers, images and volumes of today would be hidden")  # fmt: skip
        elif wanted is False and not is_on:
            self._row(name, setting, "ok", **common)
        else:
            self._userns_switch(bool(wanted), explicit, common)

    def _userns_switch(self, on: bool, explicit: bool, common: Json) -> None:
        """Turn remapping on or off; either hides what the daemon holds now."""
        name, setting = "userns_remap", "userns-remap"
        blocked = self._userns_blocked(on)
        if blocked:
            self._row(name, setting, "blocked", **common, **blocked)
            return
        if on and (self._in_file(setting) or {}).get("value"):
            self._row(name, setting, self._take_up(setting), **common,
                      reason="in the file; takes effect when the daemon starts again")  # fmt: skip
            self._other_remapping()
            return
        if not on and (setting, None) not in self.owned:
            self._row(name, setting, "blocked", **common,
                      reason=f"somebody else set it in {self.config['path']}; remove it there")  # fmt: skip
            return
        self._row(name, setting, "change", **common)
        if not on:
            self._operation(
                "json_remove",
                f"{variable(name)} is false",
                path=self.config["path"],
                key=setting,
                observed=self.config["version"],
            )
            self.take_up.append(setting)
            return
        user = self.policy.userns_user
        self._userns_user(user)
        self._set_key(setting, user, "CIS 2.10")

    def _userns_blocked(self, on: bool) -> Json | None:
        """Return reason, affected names and accepting variable, or None when it is safe."""
        if self._option("userns-remap").get("source") in ("flag", "environment"):
            return {"reason": f"it is a flag in {self._option('userns-remap').get('where')}"}
        if on and self.look["sysctls"].get("user.max_user_namespaces") == "0":
            return {"reason": "user.max_user_namespaces is 0: the kernel gives no user namespaces"}
        features = (self.keys.get("features") or {}).get("members") or {}
        if on and (features.get("containerd-snapshotter") or {}).get("value") is True:
            return {
                "reason": "features.containerd-snapshotter is true in "
                f"{self.config['path']}, and dockerd refuses both together; remove it first"
            }
        unfit = self._unfit_ids() if on and not self._remap_user() else None
        return unfit or self._would_hide("remapping", "userns")

    def _remap_user(self) -> str | None:
        """Return whose ids containers have, or get when the daemon starts again; None for nobody's."""
        value = (self._in_file("userns-remap") or {}).get("value")
        value = value or self._option("userns-remap").get("configured")
        user = value.partition(":")[0] if isinstance(value, str) else ""
        if user in ("default", "host"):  # moby, daemon/daemon_unix.go; the latter switches it off
            return "dockremap" if user == "default" else None
        names = {str(item["uid"]): str(item["name"]) for item in self.look["users"]["users"]}
        return names.get(user, user) or None

    def _ranges(self, user: str) -> dict[str, list[Json]]:
        return {
            kind: [entry for entry in self.look["subids"][kind] if entry["name"] == user]
            for kind in ("subuid", "subgid")
        }

    def _other_ids(self, user: str) -> dict[str, tuple[int, int]]:
        """Return which variables a user's ranges do not follow: ``{name: (wanted, found)}``.

        A variable that is at its default asks for nothing.
        """
        start, size = self.policy.userns_start, self.policy.userns_size
        found: dict[str, tuple[int, int]] = {}
        for entries in filter(None, self._ranges(user).values()):
            total = sum(entry["count"] for entry in entries)
            if start and start not in [entry["start"] for entry in entries]:
                found["userns_start"] = (start, entries[0]["start"])
            if size not in (DEFAULT_USERNS_SIZE, total):
                found["userns_size"] = (size, total)
        return found

    def _unfit_ids(self) -> Json | None:
        """Return why containers cannot have the ids of the policy's user as they are, or None."""
        user = self.policy.userns_user
        for kind, entries in self._ranges(user).items():
            total = sum(entry["count"] for entry in entries)
            if entries and total < DEFAULT_USERNS_SIZE:
                return {
                    "reason": f"{user} has {total} ids in /etc/{kind}, and images use "
                    f"{DEFAULT_USERNS_SIZE}; give it a range of that size"
                }
        for name, (wanted, found) in self._other_ids(user).items():
            return {
                "reason": f"{variable(name)} is {wanted}, and {user} has {found} in /etc/subuid and "
                "/etc/subgid; change its range there, or leave the variable out"
            }
        return None

    def _other_remapping(self) -> None:
        """Say what of the policy's user and ids is not so where remapping is on already."""
        user, wanted = self._remap_user(), self.policy.userns_user
        if user is None:
            return
        differs: dict[str, tuple[object, object]] = {**self._other_ids(user)}
        if wanted not in (DEFAULT_USERNS_USER, user):
            differs = {"userns_user": (wanted, user)}
        settings = {
            "userns_user": "user of userns-remap",
            "userns_start": "first id of userns-remap",
            "userns_size": "number of ids of userns-remap",
        }
        for name, (asked, found) in differs.items():
            self._row(name, settings[name], "blocked", wanted=asked, effective=found, control="2.10",
                      reason="what the daemon holds belongs to the ids of today; switch remapping off "
                      f"({variable('userns_remap')}: false) and on again with this, or leave the "
                      "variable out")  # fmt: skip

    @staticmethod
    def _hiding_of(key: str, value: object) -> Json:
        """Return what of an option decides what the daemon finds again, by the names of hiding.py."""
        names = {hiding.name_of(key): value}
        if isinstance(value, dict):
            names = {hiding.name_of(key, member): item for member, item in value.items()}
        return {name: item for name, item in names.items() if name}

    def _moves(self, name: str, value: object) -> bool:
        """Tell whether a value differs from what the daemon uses now."""
        key, _, member = name.partition(".")
        written = self._value(key, member or None)
        if self.engine["config_loaded"] and written is not None and written == value:
            return False  # of a path it shows where the links in it lead
        stays = hiding.is_so(self.engine, name, value) if self.running else None
        if stays is not None:
            return not stays
        ours = (self.owned.get((key, member or None)) or {}).get("intact")
        if self._file_waits() and written and not ours:
            return True  # of a key that it does not show, and has not read, it has another value
        return not hiding.same(name, value, written)

    def _value(self, key: str, member: str | None = None) -> object:
        """Return what a key, or its member, is in the file; None when it is not there."""
        return (self._in_file(key, member) or {}).get("value")

    def _would_hide(self, change: str, name: str) -> Json | None:
        """Return why a change must not hide what the daemon holds, or None when it may.

        :param change: what changes: a key, or remapping.
        :param name: begins the name of the variable that accepts it.
        """
        if self.alive:
            return {
                "reason": "these containers run and would be left behind; stop them first",
                "affected": _names(self.alive),
            }
        accept = variable(f"{name}_accept_hidden_data")
        options, userns = (
            self.policy.options_accept_hidden_data,
            self.policy.userns_accept_hidden_data,
        )
        moved = any(
            self._moves(*item)
            for option in self.policy.options.items()
            for item in self._hiding_of(*option).items()
        )
        # What an accepted option hides cannot be hidden a second time.
        if change == "exec-root" or (options and (moved or name == "options")):
            return None
        if userns and name == "userns":
            return None
        if self.engine["state"] == "absent" and not self._data_left_behind():
            return None
        if not self.running:
            return {
                "reason": f"Docker is {self.engine['state']}, so what would be hidden cannot be seen",
                "accept": accept,
            }
        held = hidden.held(self.look, _names(self.containers))
        if held:
            return {
                "reason": f"these would be hidden, not deleted, until {change} is as it was",
                "affected": held,
                "accept": accept,
            }
        return None

    def _userns_user(self, user: str) -> None:
        """Plan the user and its ranges, before the daemon that needs them starts."""
        look, size, start = self.look, self.policy.userns_size, self.policy.userns_start
        known = {item["name"] for item in look["users"]["users"]}
        groups = {item["name"] for item in look["users"]["groups"]}
        mine = self._ranges(user)
        if user != DEFAULT_USERNS_USER and (user not in known or not all(mine.values())):
            raise PolicyError(
                variable("userns_user"),
                user,
                "this host has no such user with ranges in /etc/subuid and /etc/subgid; create both, "
                f"or leave the variable at {DEFAULT_USERNS_USER}, which is created",
            )
        taken = subids.taken(look, user)
        for kind, entries in mine.items():
            for entry in entries:
                clash = subids.overlaps(taken, entry["start"], entry["count"])
                if clash:
                    raise PolicyError(
                        f"/etc/{kind}",
                        f"{user}:{entry['start']}:{entry['count']}",
                        f"this range overlaps {', '.join(clash)}; give {user} another one",
                    )
        if all(mine.values()):
            return
        if start:
            clash = subids.overlaps(taken, start, size)
            if clash:
                raise PolicyError(
                    variable("userns_start"),
                    start,
                    f"the {size} ids from there overlap {', '.join(clash)}; give another start, or 0 "
                    "to have a free range chosen",
                )
        found = start or subids.find(taken, size)
        if not found:
            raise PolicyError(variable("userns_size"), size, "no free range of that size is left")
        why = "CIS 2.10: an account of its own whose ids nobody else has"
        if user not in groups:
            self._operation("group_present", why, name=user)
        if user not in known:
            self._operation("user_present", why, name=user, group=user)
        ranges = {"start": found, "count": size}
        self._operation(
            "subid_present",
            why,
            user=user,
            subuid=ranges,
            subgid=ranges,
            observed={k: look["subids"][f"{k}_version"] for k in ("subuid", "subgid")},
        )

    # -- PIDs limit ----------------------------------------------------------------------------
    def _pids_limit(self) -> None:
        wanted, _ = self._wanted("pids_limit")
        name, setting, control = "pids_limit", "pids limit of a container", "5.29"
        if wanted == UNMANAGED:
            self._row(name, setting, "unmanaged", control=control)
            return
        limit = typing.cast(int, wanted)
        dropin = next((d for d in self.look["scope_dropins"] if d["path"] == SCOPE_DROPIN), None)
        common: Json = {"wanted": limit, "control": control}
        reason = self._no_scopes()
        if reason:
            self._row(name, setting, "not_applicable", **common, reason=reason)
            return
        ceiling = self.look["os"]["default_tasks_max"]
        if self._later_scope_dropin(ceiling, dropin, common):
            return
        if ceiling is not None and limit >= ceiling:
            # A drop-in would raise what systemd gives already, so there is none. Ours goes, if any.
            state = "change" if dropin and SCOPE_DROPIN in self.owned_files else "ok"
            if state == "change":
                self._remove_file(SCOPE_DROPIN, typing.cast(Json, dropin)["version"])
            self._row(name, setting, state, **common, effective=ceiling, source="systemd",
                      reason=f"systemd's own default of {ceiling} is lower")  # fmt: skip
            return
        common["effective"] = dropin["tasks_max"] if dropin else ceiling
        common["source"] = SCOPE_DROPIN if dropin else "systemd"
        defaulted = [
            c for c in self.alive if not (c["config"]["pids_limit"] or 0) > 0 and c.get("kernel")
        ]
        self._pids_dropin(limit, dropin, defaulted, common)

    def _later_scope_dropin(self, ceiling: int | None, dropin: Json | None, common: Json) -> bool:
        """Add a row and return True when somebody else's drop-in has the last word."""
        later = [
            d["path"]
            for d in self.look["scope_dropins"]
            if d["tasks_max"] is not None
            and d["path"].rsplit("/", 1)[1] > SCOPE_DROPIN.rsplit("/", 1)[1]
        ]
        if not later:
            return False
        self._row(
            "pids_limit",
            "pids limit of a container",
            "blocked",
            **{**common, "effective": dropin["tasks_max"] if dropin else ceiling},
            reason=f"{', '.join(later)} sets TasksMax after ours; remove it there",
        )
        return True

    def _slice(self) -> None:
        """Plan one limit for all containers together, where the driver gives none to each."""
        limit = self.policy.containers_tasks_max
        if not limit:
            for path in (SLICE, SLICE_DROPIN):
                owned = self.owned_files.get(path)
                if owned is not None:
                    self._remove_file(path, owned["version"])
            return
        seen = self.look.get("slice") or {}
        option = self._option("cgroup-parent")
        common: Json = {"wanted": limit, "effective": seen.get("pids_max"), "source": "kernel"}
        setting, name = "pids limit of all containers together", "containers_tasks_max"
        driver = (self.engine["info"] or {}).get("cgroup_driver")
        if driver != "cgroupfs":
            why = f"the cgroup driver is {driver or 'unknown'}; with systemd each container has a limit"
            self._row(name, setting, "not_applicable", **common, reason=why)
            return
        if option.get("configured") not in (None, SLICE_GROUP):
            self._row(name, setting, "blocked", **common,
                      reason=f"cgroup-parent is {option['configured']} in {option.get('where')}")  # fmt: skip
            return
        counted = [c for c in self.alive if (c.get("kernel") or {}).get("pids_current")]
        processes = sum(c["kernel"]["pids_current"] for c in counted)
        placed = limit in (seen.get("pids_max"), seen.get("tasks_max"))
        if not placed and processes >= limit * NEAR_LIMIT:
            self._row(name, setting, "blocked", **common, affected=_names(counted),
                      reason=f"they hold {processes} processes together, which is half of it or more; "
                      f"raise {variable(name)}")  # fmt: skip
            return
        header = _OWNED_BY.format(role=ROLE, hint=f"Set {variable(name)}: 0.")
        files = {
            SLICE: f"[Unit]\nDescription=Docker containers\n\n[Slice]\nTasksMax={limit}\n",
            SLICE_DROPIN: "[Unit]\nWants=bulkhead.slice\nAfter=bulkhead.slice\n",
        }
        for path, content in files.items():
            owned = self.owned_files.get(path)
            same = path == SLICE_DROPIN or seen.get("tasks_max") == limit
            if owned is not None and owned["intact"] and same:
                continue
            version = owned["version"] if owned else seen["version"] if path == SLICE else "absent"
            self._operation("file_present", variable(name), path=path, content=header + content,
                            mode="0644", owner="root", group="root", observed=version)  # fmt: skip
        if not self._in_file("cgroup-parent"):
            self._set_key("cgroup-parent", SLICE_GROUP, variable(name))
        if any(
            op.get("path") in files or op.get("key") == "cgroup-parent" for op in self.operations
        ):
            self._row(
                name,
                setting,
                "change",
                **common,
                reason="applies to each container at its next start",
            )
        elif seen.get("pids_max") == limit:
            self._row(name, setting, "ok", **common)
        else:
            self._row(
                name, setting, "pending", **common, reason="takes effect when Docker starts again"
            )

    def _no_scopes(self) -> str | None:
        """Return why containers of this host are no systemd scopes, or None when they are."""
        system = self.look["os"]
        if system["init"] != "systemd":
            return "systemd does not run here"
        if self.engine.get("rootless"):
            return "a rootless daemon's scopes belong to its user's manager"
        info = self.engine["info"]
        if info and info["cgroup_driver"] != "systemd":
            return f"the cgroup driver is {info['cgroup_driver']}: containers are no systemd scopes"
        if not info and system["cgroup_version"] != 2:
            return "with cgroup version 1 the cgroup driver is cgroupfs unless set otherwise"
        return None

    def _pids_dropin(
        self, limit: int, dropin: Json | None, defaulted: list[Json], common: Json
    ) -> None:
        name, setting = "pids_limit", "pids limit of a container"
        owned = self.owned_files.get(SCOPE_DROPIN)
        if dropin and dropin["tasks_max"] == limit and (owned is None or owned["intact"]):
            above = [
                c
                for c in defaulted
                if c["kernel"].get("pids_max") is None or c["kernel"]["pids_max"] > limit
            ]
            self._row(
                name,
                setting,
                "pending" if above else "ok",
                **common,
                affected=_names(above),
                reason="they keep their former limit until their next start" if above else None,
            )
            return
        near = [
            c for c in defaulted if (c["kernel"].get("pids_current") or 0) >= limit * NEAR_LIMIT
        ]
        if near:
            self._row(
                name,
                setting,
                "blocked",
                **common,
                affected=_names(near),
                reason=f"they hold half of {limit} processes or more; give them a --pids-limit of "
                f"their own or raise {variable(name)}",
            )
            return
        self._row(name, setting, "change", **common)
        hint = "Change docker_daemon_pids_limit, or give a container a --pids-limit of its own."
        self._operation(
            "file_present",
            "CIS 5.29: a limit for every container that names none",
            path=SCOPE_DROPIN,
            content=_OWNED_BY.format(role=ROLE, hint=hint) + f"[Scope]\nTasksMax={limit}\n",
            mode="0644",
            owner="root",
            group="root",
            observed=dropin["version"] if dropin else "absent",
        )

    # -- owners and modes ----------------------------------------------------------------------
    def _file_modes(self) -> None:
        wanted, _ = self._wanted("file_modes")
        if wanted is not True:
            self._row("file_modes", "owners and modes", "unmanaged")
            return
        before = len(self.operations)
        for item in self.look["files"]:
            # Files without a control, such as the data root, are the daemon's own business.
            if item["control"] and item["type"] not in ("absent", "link"):
                self._file_mode(item)
        self._socket_unit()
        if len(self.operations) == before:
            self._row("file_modes", "owners and modes", "ok", wanted="CIS 3", effective="CIS 3")

    def _file_mode(self, item: Json) -> None:
        mode = int(item["mode"], 8)
        allowed = ALLOWED_MODES[item["kind"]]
        excess = mode & 0o7777 & ~allowed
        # The group of a socket is who may use Docker; that is a decision, not a mistake.
        wrong_group = item["gid"] != 0 and item["kind"] != "socket"
        if not excess and item["uid"] == 0 and not wrong_group:
            return
        fields: Json = {
            "mode": f"{mode & allowed:04o}" if excess else None,
            "owner": "root" if item["uid"] != 0 else None,
            "group": "root" if wrong_group else None,
        }
        controls = ", ".join(item["control"])
        common: Json = {
            "wanted": " ".join(v for v in fields.values() if v),
            "effective": f"{item['mode']} {item['owner']}:{item['group']}",
            "control": controls or None,
        }
        if item["attributes"]:
            self._row("file_modes", item["path"], "blocked", **common,
                      reason=f"the file is {', '.join(item['attributes'])}")  # fmt: skip
            return
        self._row("file_modes", item["path"], "change", **common)
        self._operation(
            "mode",
            f"CIS {controls}" if controls else variable("file_modes"),
            path=item["path"],
            observed=item["version"],
            **fields,
        )

    def _socket_unit(self) -> None:
        """A socket's mode comes back from its unit at the next start, so that is changed too."""
        unit = self.look["units"].get("docker.socket") or {}
        mode = unit.get("socket_mode")
        if unit.get("load_state") != "loaded" or not mode or not int(mode, 8) & ~0o660 & 0o7777:
            return
        if SOCKET_DROPIN in (unit.get("dropins") or []):
            self._row("file_modes", "SocketMode of docker.socket", "blocked", effective=mode,
                      control="3.16", reason="a drop-in after ours sets it; remove it there")  # fmt: skip
            return
        version = "absent"
        wanted = f"{int(mode, 8) & 0o660:04o}"
        self._row("file_modes", "SocketMode of docker.socket", "change", wanted=wanted,
                  effective=mode, control="3.16")  # fmt: skip
        self._operation(
            "file_present",
            "CIS 3.16",
            path=SOCKET_DROPIN,
            content=_OWNED_BY.format(role=ROLE, hint="Set docker_daemon_file_modes: unmanaged.")
            + f"[Socket]\nSocketMode={wanted}\n",
            mode="0644",
            owner="root",
            group="root",
            observed=version,
        )

    # -- what an earlier policy set ------------------------------------------------------------
    def _wanted_items(self) -> set[tuple[str, str | None]]:
        """Return the owned keys that today's policy still speaks of."""
        wanted: set[tuple[str, str | None]] = set()
        for key, value in self.policy.options.items():
            members = list(value) if isinstance(value, dict) else [None]
            wanted |= {(key, member) for member in members}
        for name, key, _ in KEY_SETTINGS:
            if self._wanted(name)[0] not in (None, UNMANAGED):
                wanted.add((key, None))
        for name, key in (("log_opts", "log-opts"), ("ulimits", "default-ulimits")):
            value = self._wanted(name)[0]
            if isinstance(value, dict) and (
                key != "log-opts" or self._log_driver() in _FILE_DRIVERS
            ):
                wanted |= {(key, member) for member in value}
        if self.policy.containers_tasks_max:
            wanted.add(("cgroup-parent", None))
        if self.policy.tcp_hosts:
            wanted |= {(key, None) for key in ("hosts", "tlsverify", *TLS_FILES.values())}
        # userns-remap goes only when asked for by name, which _userns_switch plans.
        wanted.add(("userns-remap", None))
        return wanted

    def _no_longer_wanted(self) -> None:
        wanted = self._wanted_items()
        for (key, member), item in sorted(self.owned.items(), key=lambda pair: str(pair[0])):
            if (key, member) in wanted:
                continue
            fields: Json = {"member": member} if member else {}
            setting = f"{key}.{member}" if member else key
            if not item["intact"]:
                self._operation("disown", "somebody else changed it since", kind="json_key",
                                path=item["path"], key=key, **fields)  # fmt: skip
                continue
            blocked = hiding.name_of(key, member) and self._would_hide(setting, "options")
            if blocked:
                self._row("options", setting, "blocked", effective=self._option(key).get("effective"),
                          **blocked)  # fmt: skip
                continue
            self._row("options", setting, "change", reason="no longer in the policy: put back")
            self._operation(
                "json_remove",
                "no longer in the policy",
                path=item["path"],
                key=key,
                observed=self.config["version"],
                **fields,
            )
            self.take_up.append(key)
        dropin = next((d for d in self.look["scope_dropins"] if d["path"] == SCOPE_DROPIN), None)
        if self._wanted("pids_limit")[0] == UNMANAGED and dropin:
            self._remove_file(SCOPE_DROPIN, dropin["version"])
        if self._wanted("file_modes")[0] is not True:
            self._put_modes_back()

    def _put_modes_back(self) -> None:
        for path, item in sorted(self.owned_modes.items()):
            if item["intact"]:
                self._row("file_modes", path, "change", reason="no longer in the policy: put back")
                self._operation(
                    "mode_restore", "no longer in the policy", path=path, observed=item["version"]
                )
            else:
                self._operation("disown", "somebody else changed it since", kind="mode", path=path)
        dropin = self.owned_files.get(SOCKET_DROPIN)
        if dropin is not None:
            self._row("file_modes", "SocketMode of docker.socket", "change",
                      reason="no longer in the policy: put back")  # fmt: skip
            self._remove_file(SOCKET_DROPIN, dropin["version"])

    def _remove_file(self, path: str, version: str) -> None:
        owned = self.owned_files.get(path)
        if owned is None:
            return
        if owned["intact"]:
            self._operation("file_absent", "no longer in the policy", path=path, observed=version)
        else:
            self._operation("disown", "somebody else changed it since", kind="file", path=path)

    # -- what the daemon has to do -------------------------------------------------------------
    def _hold_restart_if_unsafe(self) -> Json:
        """Return the plan's ``daemon`` part; drop what would need a restart that is not allowed."""
        result = {
            "effect": "none",
            "why": [],
            "live_restore_first": False,
            "allow_container_restart": self.policy.restart_stops_containers,
        }
        if not self.running or not self.take_up:
            return result
        keys = sorted(set(self.take_up))
        by_flag = {
            key for key in keys if self._option(key).get("source") in ("flag", "environment")
        }
        by_flag |= self.back
        by_start = {key for key, member in self._planned() if unread.needs_restart(key, member)}
        needs_restart = [
            key for key in keys if key in by_flag | by_start or not OPTIONS[key].reload
        ]
        if needs_restart and self.policy.restart == "never":
            self._mark(needs_restart, "pending", f"{variable('restart')} is never")
            self._leave_hiding()
            keys, needs_restart = [key for key in keys if key not in needs_restart], []
        others = unread.of_others(self.look, self._planned()) if needs_restart else []
        if others:
            self._block(
                needs_restart,
                "needs a restart of the daemon, which would also take up what somebody changed since it "
                f"started: {', '.join(others)}; restart it yourself when that is meant, or take the change "
                "back",
            )
            keys, needs_restart = [key for key in keys if key not in needs_restart], []
        ends_containers = bool(self.alive) and not self._live_restore()
        if needs_restart and ends_containers and not self.policy.restart_stops_containers:
            self._block(
                needs_restart,
                "needs a restart of the daemon, which without live-restore ends these containers",
                accept=variable("restart_stops_containers"),
            )
            keys, needs_restart = [key for key in keys if key not in needs_restart], []
        if needs_restart:
            option = self._option("live-restore")
            first = (
                bool(self.alive) and option.get("effective") is not True and self._live_restore()
            )
            self._name_interrupted()
            return {**result, "effect": "restart", "why": keys, "live_restore_first": first}
        return {**result, "effect": "reload" if keys else "none", "why": keys}

    def _name_interrupted(self) -> None:
        """Name the containers that a restart makes unreachable for a moment although they run on.

        Published ports are kept by rules of the kernel, see docs/decisions/0007; what comes from the
        host itself to a loopback address goes through a process of the daemon's.
        """
        affected = [
            container
            for container in self.alive
            if any(
                str(port.get("host_ip")).startswith(("127.", "::1"))
                for port in container["config"]["ports"]
            )
        ]
        if affected:
            self._row("restart", "ports published on 127.0.0.1", "change", affected=_names(affected),
                      reason="they refuse connections for as long as the daemon restarts")  # fmt: skip

    def _live_restore(self) -> bool:
        """Tell whether containers will survive a restart that this plan makes."""
        planned = [
            op["value"]
            for op in self.operations
            if op["op"] == "json_set" and op["key"] == "live-restore"
        ]
        if planned:
            return bool(planned[0])
        if any(op["op"] == "json_remove" and op["key"] == "live-restore" for op in self.operations):
            return False
        if "live-restore" in self.take_up:
            return (self._in_file("live-restore") or {}).get("value") is True
        return self._option("live-restore").get("effective") is True

    def _leave_hiding(self) -> None:
        """Write nothing that would hide at some later start what the daemon holds by then."""
        hides = [op for op in self.operations if self._hides_later(op)]
        named = {hiding.name_of(op["key"], op.get("member")) for op in hides}
        for item in self.rows:
            if item["state"] == "pending" and item["setting"] in named | {
                op["key"] for op in hides
            }:
                told = "it is not written before, for any later start would take it up"
                item["reason"] = f"{item['reason']}; {told}"
        self._withdraw(hides)

    def _hides_later(self, operation: Json) -> bool:
        name = hiding.name_of(operation.get("key"), operation.get("member"))
        return name is not None and self._moves(name, operation.get("value"))

    def _withdraw(self, operations: list[Json]) -> None:
        """Leave operations out, and with userns-remap the account that it alone needs."""
        accounts = any(op.get("key") == "userns-remap" for op in operations)
        self.operations = [
            op
            for op in self.operations
            if op not in operations and not (accounts and op["op"] in _ACCOUNT_OPERATIONS)
        ]

    def _planned(self) -> set[unread.Item]:
        """Return what of daemon.json is this plan's: written, or meant to be read at last."""
        written = {(op["key"], op.get("member")) for op in self.operations if "key" in op}
        return self.read_at_last | written

    def _rows_of(self, keys: list[str]) -> list[Json]:
        return [
            r for r in self.rows if r["state"] == "change" and r["setting"].split(".")[0] in keys
        ]

    def _mark(self, keys: list[str], state: str, reason: str) -> None:
        for item in self._rows_of(keys):
            item.update(state=state, reason=f"needs a restart of the daemon, and {reason}")

    def _block(self, keys: list[str], reason: str, accept: str | None = None) -> None:
        for item in self._rows_of(keys):
            affected = _names(self.alive)
            item.update(state="blocked", reason=reason, affected=affected, accept=accept)
        self._withdraw([op for op in self.operations if op.get("key") in keys])
