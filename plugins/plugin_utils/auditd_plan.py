# Copyright: (c) 2026, the Bulkhead authors
# Apache License 2.0 (see LICENSE)
"""What ``docker_auditd`` changes on a host: audit rules for what this host's Docker runs from.

From the observation's section ``audit`` (what the CIS Docker Benchmark 1.8.0, 1.1.3 to 1.1.18, wants
watched and where that is on this host; the kernel's rules; the rules files) and the role's variables.

Rules go to one of two files. auditd's own is read at boot before anything else runs, and one line in
it that cannot be loaded keeps auditd from starting (auditctl(8), ``-R``): so it holds only watches of
paths whose directory every host has. The rest - what lies on a tmpfs, or in a directory that may go
away - is in the *late* file, which Docker's unit loads once it is up.
"""

from __future__ import annotations

import dataclasses
import hashlib
import posixpath
import re
import typing

from ansible_collections.bulkhead.hardening.plugins.module_utils import (
    audit_rules,
    look_auditd,
)
from ansible_collections.bulkhead.hardening.plugins.plugin_utils import (
    audit_watch,
    plan as plans,
    scalars,
)
from ansible_collections.bulkhead.hardening.plugins.plugin_utils.plan import (
    Json,
    PolicyError,
)

ROLE = "docker_auditd"
EARLY_FILE = "/etc/audit/rules.d/50-bulkhead-docker.rules"
LATE_FILE = "/etc/audit/rules.d/50-bulkhead-docker.late"
#: augenrules keeps the last ``-b`` of all files, and Debian's own is in audit.rules.
BACKLOG_FILE = "/etc/audit/rules.d/zz-bulkhead-backlog.rules"
DROPIN = "/etc/systemd/system/docker.service.d/50-bulkhead-audit.conf"

SESSIONS, RECURSIVE, UNMANAGED = "sessions", "recursive", "unmanaged"
SCOPES = (SESSIONS, RECURSIVE, UNMANAGED)
#: Writes, and changes of owner, mode and the like.
_WANTED = "wa"
_DATA_ROOT, _CONFIG_DIRECTORY, _UNIT = "1.1.5", "1.1.6", "1.1.7"

#: Fewer records than these wait for auditd on no distribution that ships it (Debian: 8192).
SANE_BACKLOG = 8192

#: Directories that every host has before auditd starts.
EVERYWHERE = frozenset(
    {"/", "/etc", "/etc/default", "/etc/sysconfig", "/etc/systemd/system", "/opt", "/run", "/srv"}
    | {"/usr", "/usr/bin", "/usr/sbin", "/usr/lib", "/usr/libexec", "/usr/lib/systemd/system"}
    | {"/usr/local/bin", "/usr/local/sbin", "/var", "/var/lib", "/bin", "/sbin"}
    | {"/lib/systemd/system"}
)
#: Directories in which one of a program's own (/etc/containerd) may be watched as a whole.
_PARENTS_OF_OWN = frozenset({"/etc", "/etc/systemd/system", "/opt"})

_HEADER = """\
## Written by Bulkhead (docker_auditd). Rules of your own go to another file of this directory, or to
## docker_auditd_rules; this one is replaced.
"""
_DROPIN = """\
# Written by Bulkhead (docker_auditd). Rules for what is not there yet when auditd starts.
[Service]
ExecStartPost=-%s -R %s
"""
_PLAIN_PATH = re.compile(r"/[\x21-\x7e]+\Z")


@dataclasses.dataclass(frozen=True)
class Policy:
    """The variables of the role, checked."""

    install: bool = False
    data_root_scope: str = SESSIONS
    key: str = "docker"
    unwatched: tuple[str, ...] = ()
    rules: tuple[str, ...] = ()
    backlog_limit: int = 0


def _may_come(control: str, path: str) -> bool:
    """Tell whether something that is absent is watched too: it may come with this very plan."""
    return control in (_CONFIG_DIRECTORY, _UNIT) and posixpath.dirname(path) in EVERYWHERE


def variable(name: str) -> str:
    """Return a variable's name as users write it."""
    return f"{ROLE}_{name}"


def read(raw: Json) -> Policy:
    """Check the variables of ``docker_auditd`` (without their prefix); what is left out is default.

    :raises PolicyError: naming the variable, its value and the fix.
    """
    known = {field.name: field.default for field in dataclasses.fields(Policy)}
    for name in sorted(set(raw) - set(known)):
        raise PolicyError(variable(name), raw[name], f"there is no such variable: {sorted(known)}")
    raw = {**known, "unwatched": [], "rules": [], **raw}
    install = scalars.boolean(variable("install"), raw["install"])
    if raw["data_root_scope"] not in SCOPES:
        raise PolicyError(
            variable("data_root_scope"), raw["data_root_scope"], f"choose from {', '.join(SCOPES)}"
        )
    key, backlog = raw["key"], scalars.as_integer(raw["backlog_limit"])
    if not isinstance(key, str) or not re.match(r"[A-Za-z0-9_.-]{1,31}\Z", key):
        raise PolicyError(variable("key"), key, "use 1 to 31 letters, digits, '_', '.' and '-'")
    if backlog is None or not (backlog == 0 or 64 <= backlog <= 2**20):
        fix = "set 0 (left as it is) or 64 to 1048576 records"
        raise PolicyError(variable("backlog_limit"), raw["backlog_limit"], fix)
    for name in ("unwatched", "rules"):
        if not isinstance(raw[name], list) or not all(isinstance(i, str) for i in raw[name]):
            raise PolicyError(variable(name), raw[name], "make it a list of texts")
    for path in raw["unwatched"]:
        if not _PLAIN_PATH.match(path):
            raise PolicyError(variable("unwatched"), path, "name absolute paths")
    for line in raw["rules"]:
        _custom(line)
    lists = {name: tuple(raw[name]) for name in ("unwatched", "rules")}
    return Policy(**{**raw, **lists, "install": install, "backlog_limit": backlog})


def _custom(line: str) -> Json:
    """Return a rule of the user's. Raises PolicyError for one that Bulkhead does not load."""
    try:
        if "\n" in line:
            raise ValueError("it is more than one line")
        if not re.match(r"[\x20-\x7e]*\Z", line):
            # auditctl splits at blanks alone, and reads no line after one that it cannot load.
            raise ValueError("it has a character that is no plain one, such as a tab")
        rule = audit_rules.parse(line.split(), lambda path: False)
        if rule is None:
            raise ValueError("it adds no rule")
        audit_rules.check(rule)
        if not _PLAIN_PATH.match(rule["path"]) or re.search(r"[\"'#]", line):
            raise ValueError("quotes, comments and paths with blanks are not taken")
    except ValueError as exc:
        raise PolicyError(
            variable("rules"), line, f"{exc}; write it as '-w PATH -p wa -k KEY' or "
            "'-a always,exit -F path=PATH -F perm=wa -F key=KEY'",
        ) from exc  # fmt: skip
    return rule


def plan(observation: Json, policy: Policy) -> Json:
    """Return the plan of ``docker_auditd``, schema ``bulkhead.plan/1``.

    :param observation: with the sections ``engine``, ``units``, ``files``, ``audit``, ``bulkhead``.
    :raises PolicyError: what the plan needs could not be read.
    """
    return _Planner(observation, policy).run()


class _Planner:
    def __init__(self, look: Json, policy: Policy) -> None:
        plans.check_look(look, "engine", "audit")
        self.policy = policy
        self.audit: Json = look["audit"]
        self.engine: Json = look["engine"]
        unit = (look.get("units") or {}).get("docker.service") or {}
        self.unit_loaded = unit.get("load_state") == "loaded"
        owned = (look["bulkhead"].get("owned") or {}).get(ROLE, [])
        self.owned = {item["path"]: item for item in owned if item["kind"] == "file"}
        self.versions = {row["path"]: row["version"] for row in self.audit["rules_files"]}
        self.versions.update((row["path"], row["version"]) for row in look.get("files") or [])
        self.digests = {row["path"]: row["sha256"] for row in self.audit["rules_files"]}
        self.dropins = self._dropins()
        self.kinds = {
            one["resolved"] or one["path"]: one["type"]
            for one in [*self.audit["objects"], self.dropins]
            if one["exists"]
        }
        self.directories = {
            path
            for path, kind in self.kinds.items()
            if kind == "directory" and not audit_watch.within(path, self._data_root())
        }
        self.rows: list[Json] = []
        self.operations: list[Json] = []
        self.lines: dict[str, list[str]] = {EARLY_FILE: [], LATE_FILE: []}
        loaded = self.audit["loaded"] or []
        self.loaded = {audit_rules.identity(rule) for rule in loaded}
        self.foreign = self._foreign(loaded)
        self.others = self._others(loaded)
        self.locked = self.audit["enabled"] == look_auditd.LOCKED

    def run(self) -> Json:
        reason = self._not_here()
        if reason:
            self._row("audit rules", "install", "not_applicable", reason=reason)
        else:
            for line in self.policy.rules:
                self._custom(line)
            self._objects()
            self._limits()
            self._files()
        return {
            **plans.empty(),
            "roles": [ROLE],
            "profile_reason": "audit rules for what Docker runs from",
            "settings": self.rows,
            "operations": self.operations,
        }

    # -- what this host is ---------------------------------------------------------------------
    def _not_here(self) -> str | None:
        """Return why there is nothing to do on this host, or None."""
        if self.engine["state"] == "absent":
            return "Docker is not installed"
        if not self.audit["auditd"]["installed"]:
            if self.policy.install:
                return "auditd is not installed; a run that is not a dry one installs it"
            return f"auditd is not installed; {variable('install')}: true installs it"
        if self.audit["loaded"] is None or self.audit["persistent"] is None:
            unparsed = [row["reason"] for row in self.audit["unparsed"] if row["line"] is None]
            return f"the rules cannot be read: {self.audit['reason'] or '; '.join(unparsed)}"
        return None

    def _later(self) -> str | None:
        """Return why rules cannot take effect now, or None."""
        if self.locked:
            return "the kernel's rules are locked (-e 2): they take effect at the next boot"
        if not self.audit["auditd"]["running"]:
            return "auditd does not run: they take effect when it starts"
        if not self.audit["enabled"]:
            return "the kernel's audit is off (auditctl -e 1): nothing is recorded until it is on"
        return None

    def _foreign(self, loaded: typing.Sequence[Json]) -> list[Json]:
        """Return the rules of others that are in force and stay so: in the kernel, and in a file."""
        kept = {audit_rules.identity(rule) for rule in self._kept()}
        return [rule for rule in loaded if audit_rules.identity(rule) in kept]

    def _kept(self) -> list[Json]:
        """Return the rules in files of others."""
        made = {row["path"] for row in self.audit["rules_files"] if row["generated"]}
        made |= {EARLY_FILE, LATE_FILE}
        return [rule for rule in self.audit["persistent"] or [] if rule["file"] not in made]

    def _others(self, loaded: typing.Sequence[Json]) -> list[Json]:
        """Return the rules in force, and those that silence all from the next boot on; none of the user's."""
        own = {
            audit_rules.identity(rule)
            for rule in map(_custom, self.policy.rules)
            if rule["action"] == "never"
        }
        later = [rule for rule in self._kept() if rule["list"] in ("task", "exclude")]
        return [rule for rule in [*loaded, *later] if audit_rules.identity(rule) not in own]

    # -- what is watched -----------------------------------------------------------------------
    def _objects(self) -> None:
        absent = []
        for thing in [*self.audit["objects"], self.dropins]:
            path = thing["resolved"] or thing["path"]
            if not path or not (thing["exists"] or _may_come(thing["control"], path)):
                absent.append(thing["path"] or thing["what"])
            elif thing["exists"] and thing["type"] == "other":
                absent.append(f"{thing['path']} (no file)")
            else:
                self._object(thing, path)
        if absent:
            self._row("audit of what is absent", "rules", "not_applicable",
                      reason=f"not on this host: {', '.join(sorted(set(absent)))}")  # fmt: skip

    def _data_root(self) -> str:
        """Return the data root, which is watched in a way of its own."""
        roots = [one for one in self.audit["objects"] if one["control"] == _DATA_ROOT]
        return str(roots[0]["resolved"] or roots[0]["path"])

    def _dropins(self) -> Json:
        """Return the directory in which drop-ins of docker.service are placed by hand."""
        path = posixpath.dirname(DROPIN)
        kind = "directory" if any(p.startswith(path + "/") for p in self.versions) else "absent"
        return {
            "control": _UNIT, "what": "drop-ins of docker.service", "path": path,
            "resolved": path, "exists": kind == "directory", "type": kind,
        }  # fmt: skip

    def _object(self, thing: Json, path: str) -> None:
        name = f"audit of {path}"
        common: Json = {"control": thing["control"], "wanted": thing["what"]}
        if any(audit_watch.within(path, one) for one in self.policy.unwatched):
            self._row(name, "unwatched", "unmanaged", **common)
            return
        if thing["control"] == _DATA_ROOT and self.policy.data_root_scope == UNMANAGED:
            self._row(name, "data_root_scope", "unmanaged", **common)
            return
        if audit_watch.watched(thing, self.foreign, _WANTED):
            self._row(name, "rules", "ok", **common, effective="a rule of somebody else's")
            return
        if not _PLAIN_PATH.match(path):
            self._row(name, "unwatched", "blocked", **common, accept=variable("unwatched"),
                      reason="rules files know no such characters in a path")  # fmt: skip
            return
        lines = self._rules_for(thing, path)
        for line in lines:
            self._add(line)
        sessions = thing["control"] == _DATA_ROOT and self.policy.data_root_scope == SESSIONS
        silencer = audit_watch.silencer(thing, self.others, _WANTED, sessions=sessions)
        self._judge(name, lines, silencer, **common)

    def _rules_for(self, thing: Json, path: str) -> list[str]:
        key = self.policy.key
        if thing["control"] == _DATA_ROOT and self.policy.data_root_scope == SESSIONS:
            return [
                f"-w {path} -p {_WANTED} -F auid!=unset -k {key}",
                f"-a always,exit -F path={path} -F perm={_WANTED} -F key={key}",
            ]
        parent = posixpath.dirname(path)
        around = [one for one in self.directories if audit_watch.within(path, one)]
        if around:
            path = min(around, key=len)
        elif parent not in EVERYWHERE and posixpath.dirname(parent) in _PARENTS_OF_OWN:
            path = parent
        return [f"-w {path} -p {_WANTED} -k {key}"]

    def _custom(self, line: str) -> None:
        rule = _custom(line)
        if rule["action"] == "never":  # before the rules that it is an exception from
            line = re.sub(r"(^|\s)-a(?=\s)", r"\1-A", line)
        self._add(line)
        # Whatever else it is about: of tasks without an audit context nothing is recorded.
        thing = {"path": rule["path"], "resolved": None, "type": "file"}
        silencer = audit_watch.silencer(thing, self.others, "")
        self._judge(f"audit of {rule['path']} (yours)", [line], silencer, wanted=line)

    def _add(self, line: str) -> None:
        lines = self.lines[EARLY_FILE if self._early(line) else LATE_FILE]
        if line not in lines:
            lines.append(line)

    def _judge(
        self,
        name: str,
        lines: typing.Sequence[str],
        silencer: Json | None,
        **common: typing.Any,
    ) -> None:
        missing = [line for line in lines if not self._in_kernel(line)]
        if silencer is not None:
            self._row(name, "rules", "blocked", **common, effective="not recorded, or not all of it",
                      reason=self._silenced(silencer))  # fmt: skip
        elif not missing:
            self._row(name, "rules", "ok", **common, effective="recorded")
        elif self._later():
            self._row(name, "rules", "pending", **common, reason=self._later())
        else:
            self._row(name, "rules", "change", **common, effective="not recorded")

    def _silenced(self, rule: Json) -> str:
        """Return what a rule of somebody else's does to ours, and what to do about it."""
        identity = audit_rules.identity(rule)
        files = [one["file"] for one in self._kept() if audit_rules.identity(one) == identity]
        where = f" of {files[0]}" if files else ""
        if rule["list"] == "task":
            return (
                f"the rule {audit_watch.written(rule)}{where} keeps the kernel from recording anything "
                "of what starts under it; our rules are in place for when you have taken it out and "
                "booted"
            )
        return (
            f"the rule {audit_watch.written(rule)}{where} silences ours for what it is about; it is not "
            "ours to take out"
        )

    def _in_kernel(self, line: str) -> bool:
        rule = typing.cast(Json, audit_rules.parse(line.split(), self._is_directory))
        if audit_rules.identity(rule) in self.loaded:
            return True
        # Of what is absent, or the user's own, nobody knows here whether it is a directory by now.
        return rule["path"] not in self.kinds and audit_rules.twin(rule) in self.loaded

    def _is_directory(self, path: str) -> bool:
        below = any(known.startswith(path + "/") for known in self.kinds)
        return below or self.kinds.get(path) == "directory"

    def _early(self, line: str) -> bool:
        """Tell whether auditd may load a rule when it starts; see the head of this file."""
        rule = typing.cast(Json, audit_rules.parse(line.split(), self._is_directory))
        if line.startswith("-w") and rule["kind"] == "dir" and rule["path"].startswith("/run/"):
            return False  # not there yet, so the watch would be made as of a file
        return posixpath.dirname(rule["path"]) in EVERYWHERE and " dir=" not in line

    # -- limits --------------------------------------------------------------------------------
    def _limits(self) -> None:
        wanted, found = self.policy.backlog_limit, self.audit["backlog_limit"]
        name = "records that may wait for auditd"
        if wanted and found != wanted:
            self._row(name, "backlog_limit", "pending", wanted=wanted, effective=found,
                      reason="takes effect at the next boot")  # fmt: skip
        elif not wanted and found is not None and found < SANE_BACKLOG:
            self._row(name, "backlog_limit", "held_back", wanted=SANE_BACKLOG, effective=found,
                      reason="fewer may be lost in a burst")  # fmt: skip
        else:
            self._row(name, "backlog_limit", "ok", effective=found)
        rate = self.audit["rate_limit"]
        self._row("records a second at most", "rules", "held_back" if rate else "ok", effective=rate,
                  wanted=0, reason="what is beyond it is lost; set by -r in a rules file"
                  if rate else None)  # fmt: skip

    # -- files and the kernel ------------------------------------------------------------------
    def _files(self) -> None:
        backlog = self.policy.backlog_limit
        wanted = {
            path: _HEADER + "".join(line + "\n" for line in self._in_order(lines))
            for path, lines in self.lines.items()
            if lines
        }
        if LATE_FILE in wanted:
            # Of those that the kernel has already, auditctl says so and would stop.
            head, rest = wanted[LATE_FILE][: len(_HEADER)], wanted[LATE_FILE][len(_HEADER) :]
            wanted[LATE_FILE] = f"{head}-i\n{rest}"
        if backlog:
            wanted[BACKLOG_FILE] = f"{_HEADER}-b {backlog}\n"
        auditctl = self.audit["auditd"]["auditctl"]
        if LATE_FILE in wanted and self.unit_loaded and auditctl:
            wanted[DROPIN] = _DROPIN % (auditctl, LATE_FILE)
        for path in (EARLY_FILE, LATE_FILE, BACKLOG_FILE, DROPIN):
            self._file(path, wanted.get(path))
        for path, lines in self.lines.items():
            if not self._later() and any(not self._in_kernel(line) for line in lines):
                self._operation("audit_load", "rules that the kernel lacks", path=path)

    def _in_order(self, lines: typing.Sequence[str]) -> list[str]:
        """Return exceptions first, then the user's own, then the others in an order that does not
        change with what is on the host.
        """
        own = [line for line in lines if line in self.policy.rules or line.startswith("-A")]
        own.sort(key=lambda line: not line.startswith("-A"))
        return own + sorted(set(lines) - set(own))

    def _file(self, path: str, content: str | None) -> None:
        item = self.owned.get(path)
        if content is None:
            if item and item["intact"]:
                self._operation("file_absent", "nothing in it is wanted any more", path=path)
            elif item:
                self.operations.append({
                    "op": "disown", "role": ROLE, "undo": "live", "kind": "file", "path": path,
                    "why": "somebody changed it since, and nothing in it is wanted any more",
                })  # fmt: skip
            return
        digest = hashlib.sha256(content.encode()).hexdigest()
        # Of the drop-in no digest is observed; what we wrote into it does not vary on a host.
        if item and item["intact"] and self.digests.get(path, digest) == digest:
            return
        mode = "0644" if path == DROPIN else "0640"
        self._operation("file_present", "audit rules for what Docker runs from", path=path,
                        content=content, mode=mode, owner="root", group="root")  # fmt: skip

    def _operation(self, op: str, why: str, path: str, **fields: typing.Any) -> None:
        undo = "reboot" if self.locked else "live"
        observed = self.versions.get(path) or (self.owned.get(path) or {}).get("version", "absent")
        self.operations.append(
            {"op": op, "role": ROLE, "undo": undo, "why": why, "path": path, "observed": observed,
             **fields}
        )  # fmt: skip

    def _row(self, setting: str, name: str, state: str, **more: typing.Any) -> None:
        self.rows.append(plans.row(setting, variable(name), state, **more))
