# Copyright: (c) 2026, the Bulkhead authors
# Apache License 2.0 (see LICENSE)
"""What ``docker_falco`` changes on a host: configuration, rules and service of an installed Falco.

From the observation's section ``falco`` and the role's variables. The package is installed before, by
Ansible's own modules (docs/decisions/0011).

A file of config.d is merged into falco.yaml key by key: a scalar takes the place of the one before, a map as
a whole, and a list is added to the one before (https://github.com/falcosecurity/falco/pull/3538). So maps are
written whole, and no list but ``append_output`` at all.
"""

from __future__ import annotations

import dataclasses
import datetime
import json
import re
import typing
import urllib.parse

import yaml

from ansible_collections.bulkhead.hardening.plugins.module_utils import falco
from ansible_collections.bulkhead.hardening.plugins.plugin_utils import (
    falco_rules,
    openpgp,
    plan as plans,
    scalars,
)
from ansible_collections.bulkhead.hardening.plugins.plugin_utils.plan import (
    Json,
    PolicyError,
)

ROLE = "docker_falco"
#: The row that says that the package is to be installed; the role's tasks read it.
PACKAGE = "the package of Falco"

#: The modern eBPF engine needs a BPF ring buffer and programs that fit every kernel: Linux 5.8
#: (https://falco.org/docs/concepts/event-sources/kernel). Backports of distributions are not counted.
OLDEST_KERNEL = (5, 8)

#: Where the container plugin asks unless falco.yaml itself says otherwise; see falcosecurity/falco#3721.
_SOCKETS = ("/run/docker.sock", "/var/run/docker.sock")

_HEADER = """\
# Written by Bulkhead (docker_falco). Settings of your own go to another file of this directory; this one is
# replaced.
"""
_DROPIN = """\
# Written by Bulkhead (docker_falco_journal_burst). What is beyond it is dropped, and journald says how much.
[Service]
LogRateLimitIntervalSec=30s
LogRateLimitBurst=%d
"""
#: The numbers, and from where to where they may go.
_NUMBERS = {"journal_burst": (0, 100000), "queue_capacity": (100, 1000000)}
_REPOSITORY = ("uris", "suites", "components", "key", "fingerprint")
_SHA256 = re.compile(r"[0-9a-f]{64}\Z")


@dataclasses.dataclass(frozen=True)
class Policy:
    """The variables of the role, checked. ``repository`` is empty where none is named."""

    enabled: bool = False
    package_file: str = ""
    package_sha256: str = ""
    repository: Json = dataclasses.field(default_factory=dict)
    output_journal: bool = True
    output_file: bool = False
    output_http: str = ""
    journal_burst: int = 1000
    queue_capacity: int = 10000
    priority: str = "debug"
    own_rules: bool = True
    rules: list[Json] = dataclasses.field(default_factory=list)
    exceptions: list[falco_rules.Excepted] = dataclasses.field(default_factory=list)


def variable(name: str) -> str:
    """Return a variable's name as users write it."""
    return f"{ROLE}_{name}"


# -- the policy ------------------------------------------------------------------------------------
def read(raw: Json) -> Policy:
    """Check the variables of ``docker_falco`` (without their prefix); what is left out is default.

    :raises PolicyError: naming the variable, its value and the fix.
    """
    defaults = {field.name: getattr(Policy(), field.name) for field in dataclasses.fields(Policy)}
    for name in sorted(set(raw) - set(defaults)):
        raise PolicyError(variable(name), raw[name], f"there is no such variable: {[*defaults]}")
    given = {**defaults, **raw}
    # Ansible's texts carry tags of its own; days of YAML are dates.
    given = json.loads(json.dumps(given, default=str))
    for name, default in defaults.items():
        if isinstance(default, bool):
            given[name] = scalars.boolean(variable(name), given[name])
        elif name in _NUMBERS:
            given[name] = scalars.integer(variable(name), given[name], *_NUMBERS[name])
        elif type(given[name]) is not type(default):
            raise PolicyError(variable(name), given[name], f"make it a {type(default).__name__}")
    _check_source(given)
    _check_outputs(given)
    if str(given["priority"]).lower() not in falco_rules.PRIORITIES:
        fix = f"choose from {', '.join(falco_rules.PRIORITIES)}"
        raise PolicyError(variable("priority"), given["priority"], fix)
    rules = falco_rules.check(given["rules"], variable("rules"))
    excepted = falco_rules.exceptions(given["exceptions"], variable("exceptions"))
    return Policy(**{**given, "rules": rules, "exceptions": excepted})


def _check_source(given: Json) -> None:
    if given["package_file"] and given["repository"]:
        raise PolicyError(
            variable("package_file"), given["package_file"],
            f"name it or {variable('repository')}, not both",
        )  # fmt: skip
    if given["package_file"] and not _SHA256.match(given["package_sha256"]):
        raise PolicyError(
            variable("package_sha256"), given["package_sha256"],
            f"give the SHA-256 of {given['package_file']}, as 64 hexadecimal digits",
        )  # fmt: skip
    if given["repository"]:
        _check_repository(given["repository"])


def _check_repository(given: Json) -> None:
    name = variable("repository")
    if set(given) != set(_REPOSITORY):
        raise PolicyError(name, sorted(given), f"give {', '.join(_REPOSITORY)}")
    for field in _REPOSITORY:
        if not isinstance(given[field], str) or not given[field].strip():
            raise PolicyError(f"{name}.{field}", given[field], "give a text")
    if not re.match(r"(https://|file:///)[\x21-\x7e]+\Z", given["uris"]):
        raise PolicyError(f"{name}.uris", given["uris"], "name one address, https:// or file://")
    for field in ("suites", "components"):
        if not re.match(r"[A-Za-z0-9_./-]+\Z", given[field]):
            raise PolicyError(f"{name}.{field}", given[field], "name one")
    wanted = given["fingerprint"].replace(" ", "").upper()
    if not re.match(r"([0-9A-F]{40}|[0-9A-F]{64})\Z", wanted):
        raise PolicyError(
            f"{name}.fingerprint", given["fingerprint"], "give all 40 or 64 hexadecimal digits"
        )
    try:
        found = openpgp.fingerprints(given["key"])
    except ValueError as exc:
        raise PolicyError(
            f"{name}.key", given["key"][:40], f"{exc}; give the armored public key, as "
            "lookup('ansible.builtin.file', ...) reads it",
        ) from exc  # fmt: skip
    if found != [wanted]:
        raise PolicyError(
            f"{name}.fingerprint", given["fingerprint"],
            f"the key has {', '.join(found) or 'none'}; find out which of both is the right one",
        )  # fmt: skip


def _check_outputs(given: Json) -> None:
    url = given["output_http"]
    if url:
        parts = urllib.parse.urlsplit(url)
        near = parts.scheme == "http" and parts.hostname in ("localhost", "127.0.0.1", "::1")
        if not (parts.scheme == "https" or near) or not parts.hostname or "@" in parts.netloc:
            raise PolicyError(
                variable("output_http"), parts.hostname,
                "an address with https:// (or http:// to this host itself), without a password",
            )  # fmt: skip
    if given["enabled"] and not (given["output_journal"] or given["output_file"] or url):
        raise PolicyError(
            variable("output_journal"), False,
            f"nobody would see an event; set it, {variable('output_file')} or "
            f"{variable('output_http')}",
        )  # fmt: skip


# -- files -----------------------------------------------------------------------------------------
def config_text(policy: Policy) -> str:
    """Return what Falco is told; keys are those of https://falco.org/docs/reference/daemon/config-options."""
    document: Json = {
        "engine": {"kind": "modern_ebpf"},
        "priority": policy.priority.lower(),
        "json_output": True,
        "time_format_iso_8601": True,
        "buffered_outputs": False,
        "outputs_queue": {"capacity": policy.queue_capacity},
        "stdout_output": {"enabled": False},
        "syslog_output": {"enabled": policy.output_journal},
        "file_output": {
            "enabled": policy.output_file,
            # Opened for each event: whoever rotates the file need not tell Falco.
            "keep_alive": False,
            "filename": falco.EVENTS,
        },
        "http_output": {"enabled": bool(policy.output_http), "url": policy.output_http},
        # It would answer on a port of all addresses.
        "webserver": {"enabled": False},
        "append_output": [{"match": {"source": "syscall"}, "extra_fields": ["container.id"]}],
    }
    return _HEADER + yaml.safe_dump(document, sort_keys=False)


def rules_text(policy: Policy, today: datetime.date) -> str | None:
    """Return the file of rules, or None when there is nothing to say; exceptions end with their day."""
    items = [*(falco_rules.known()["ours"] if policy.own_rules else []), *policy.rules]
    excepted = [one for one in policy.exceptions if one.expires >= today]
    return _HEADER + falco_rules.render(items, excepted) if items or excepted else None


def dropin_text(policy: Policy) -> str | None:
    """Return the drop-in of Falco's unit, or None when its messages are not limited."""
    limited = policy.output_journal and policy.journal_burst > 0
    return _DROPIN % policy.journal_burst if limited else None


def engine_reason(look: Json) -> str | None:
    """Return why the modern eBPF engine does not run on a host, or None when it does."""
    release = str(look["os"]["kernel"])
    found = re.match(r"(\d+)\.(\d+)", release)
    if not found or tuple(map(int, found.groups())) < OLDEST_KERNEL:
        oldest = ".".join(map(str, OLDEST_KERNEL))
        return f"the kernel is {release}; the BPF ring buffer that Falco needs came with {oldest}"
    if not look["falco"]["btf"]:
        return f"the kernel {release} does not tell its types (BTF, /sys/kernel/btf/vmlinux)"
    if (look.get("kernel") or {}).get("lockdown") == "confidentiality":
        return "the kernel is locked down (confidentiality), which keeps BPF from reading memory"
    if look["os"]["init"] != "systemd":
        return "systemd does not run this host, and Falco's package has units alone"
    return None


# -- the plan --------------------------------------------------------------------------------------
def plan(observation: Json, policy: Policy) -> Json:
    """Return the plan of ``docker_falco``, schema ``bulkhead.plan/1``.

    :param observation: with the sections ``os``, ``engine``, ``kernel``, ``falco``, ``bulkhead``.
    :raises PolicyError: what the plan needs could not be read, or no package is named.
    """
    return _Planner(observation, policy).run()


class _Planner:
    def __init__(self, look: Json, policy: Policy) -> None:
        plans.check_look(look, "engine", *(["os", "falco"] if policy.enabled else []))
        self.look = look
        self.policy = policy
        self.falco: Json = look.get("falco") or {"files": []}
        owned = (look["bulkhead"].get("owned") or {}).get(ROLE, [])
        self.owned_files = {item["path"]: item for item in owned if item["kind"] == "file"}
        self.owned_service = next((item for item in owned if item["kind"] == "service"), None)
        self.files = {row["path"]: row for row in self.falco["files"]}
        self.rows: list[Json] = []
        self.operations: list[Json] = []

    def run(self) -> Json:
        reason = self._not_here()
        if not self.policy.enabled:
            self._give_back()
        elif reason:
            self._row("runtime detection", "enabled", "not_applicable", reason=reason)
        elif not self.falco["installed"]:
            self._package()
        elif not self._blocked():
            self._place()
        return {
            **plans.empty(),
            "roles": [ROLE],
            "profile_reason": "what happens in containers is watched",
            "settings": self.rows,
            "operations": self.operations,
        }

    def _not_here(self) -> str | None:
        if not self.policy.enabled:
            return None
        if self.look["engine"]["state"] == "absent":
            return "Docker is not installed"
        return engine_reason(self.look)

    def _give_back(self) -> None:
        """Take away what was placed once; a policy that never asked for it leaves all alone."""
        for path, item in sorted(self.owned_files.items()):
            self._operation(plans.file_operation(path, None, item, item))
        if self.owned_service is not None:
            name = self.owned_service["name"]
            if self.owned_service["intact"]:
                self._operation({"op": "service_back", "name": name})
            else:
                self._operation({"op": "disown", "kind": "service", "name": name})
        state = "change" if self.operations else "unmanaged"
        self._row("runtime detection", "enabled", state)

    def _package(self) -> None:
        if not (self.policy.package_file or self.policy.repository):
            raise PolicyError(
                variable("package_file"), "",
                f"Falco is not installed on this host; name its package file, or set "
                f"{variable('repository')}, or install it yourself, or set "
                f"{variable('enabled')}: false",
            )  # fmt: skip
        source = "package_file" if self.policy.package_file else "repository"
        if self.look["os"]["family"] != "debian":
            raise PolicyError(
                variable(source), self.look["os"]["family"],
                "only packages of Debian and its kin are installed here; install Falco with this "
                f"host's own tools, and leave {variable(source)} empty",
            )  # fmt: skip
        self._row(PACKAGE, source, "change", wanted="installed", effective="absent",
                  reason="a run that is not a dry one installs it first")  # fmt: skip

    def _blocked(self) -> bool:
        """Say what keeps Falco from being run here; nothing is placed then."""
        units = self.falco["units"]
        if units is None:
            raise PolicyError(
                "the look's section falco", None, "systemd did not answer; look again"
            )
        own = units.get(falco.UNIT)
        others = [
            name
            for name, unit in units.items()
            if name != falco.UNIT and unit["active_state"] == "active"
        ]
        if others:
            reason = f"Falco runs already, by {', '.join(others)}; disable and stop that first"
        elif own is None:
            reason = f"the installed Falco has no {falco.UNIT}; install a newer one"
        elif own["load_state"] != "loaded":
            reason = f"{falco.UNIT} is {own['load_state']}; unmask it first"
        else:
            return False
        self._row("runtime detection", "enabled", "blocked", reason=reason)
        return True

    def _place(self) -> None:
        today = datetime.datetime.fromtimestamp(
            self.look["collected_at"], datetime.timezone.utc
        ).date()
        for path, content, mode in (
            (falco.CONFIG, config_text(self.policy), "0600"),
            (falco.RULES, rules_text(self.policy, today), "0644"),
            (falco.DROPIN, dropin_text(self.policy), "0644"),
        ):
            self._file(path, content, mode)
        self._service()
        self._metadata()
        for one in self.policy.exceptions:
            if one.expires < today:
                self._row(f"exception of {one.rule}", "exceptions", "not_applicable",
                          wanted=one.reason, reason=f"it ended on {one.expires}")  # fmt: skip

    def _file(self, path: str, content: str | None, mode: str) -> None:
        item, seen = self.owned_files.get(path), self.files[path]
        operation = plans.file_operation(path, content, item, seen, mode)
        if content is not None:
            self._row(path, "enabled", "change" if operation else "ok")
        self._operation(operation)

    def _service(self) -> None:
        unit = self.falco["units"][falco.UNIT]
        runs = unit["active_state"] == "active" and unit["unit_file_state"] == "enabled"
        effective = f"{unit['active_state']}, {unit['unit_file_state']}"
        changed = [op for op in self.operations if op["op"] != "disown"]
        if changed or not runs or self.owned_service is None:
            self._operation({"op": "service_running", "name": falco.UNIT})
            self._row(falco.UNIT, "enabled", "change", wanted="active, enabled",
                      effective=effective)  # fmt: skip
        else:
            self._row(falco.UNIT, "enabled", "ok", effective=effective)

    def _metadata(self) -> None:
        """Say whether names and images of containers are known to Falco here."""
        name = "names and images of containers"
        socket = self.look["engine"].get("socket")
        if not self.falco["container_plugin"]:
            self._row(name, "enabled", "not_applicable",
                      reason="the installed Falco has no container plugin; it comes with 0.41")  # fmt: skip
        elif socket not in (None, *_SOCKETS):
            self._row(name, "enabled", "not_applicable", effective=socket,
                      reason=f"the daemon listens at {socket}, and Falco's container plugin asks "
                      f"{_SOCKETS[1]}: only falco.yaml itself can name another")  # fmt: skip
        else:
            self._row(name, "enabled", "ok", effective=socket)

    def _operation(self, operation: Json | None) -> None:
        why = "runtime detection is wanted" if self.policy.enabled else "it is not wanted any more"
        if operation is not None:
            self.operations.append({**operation, "role": ROLE, "undo": "live", "why": why})

    def _row(self, setting: str, name: str, state: str, **more: typing.Any) -> None:
        self.rows.append(plans.row(setting, variable(name), state, **more))
