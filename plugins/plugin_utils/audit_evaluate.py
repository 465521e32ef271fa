# Copyright: (c) 2026, the Bulkhead authors
# Apache License 2.0 (see LICENSE)
"""Checks against an observation: a verdict for each object, with evidence.

What is not known is never a pass: a section that could not be read, an object that could not be
read, and an expression that cannot be answered are errors.
"""

from __future__ import annotations

import re
import typing

from jmespath.exceptions import JMESPathError

from ansible_collections.bulkhead.hardening.plugins.plugin_utils import audit_functions
from ansible_collections.bulkhead.hardening.plugins.plugin_utils.audit_checks import Check
from ansible_collections.bulkhead.hardening.plugins.plugin_utils.plan import Json

#: The worst first.
VERDICTS: typing.Final = (
    *("error", "fail", "pending", "manual", "waived", "pass", "not_applicable"),
)

#: What the checks compare with where the benchmark leaves it to the user: ``docker_audit_policy``.
POLICY: typing.Final[Json] = {
    "trusted_users": [],
    "trusted_registries": [],
    "engine_at_least": "",
    "central_log_drivers": ["awslogs", "fluentd", "gcplogs", "gelf", "splunk", "syslog"],
    "cgroup_parents": [],
    "capabilities": [
        *("CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_SETGID"),
        *("CAP_SETUID", "CAP_SETPCAP", "CAP_NET_BIND_SERVICE", "CAP_NET_RAW", "CAP_SYS_CHROOT"),
        *("CAP_MKNOD", "CAP_AUDIT_WRITE", "CAP_SETFCAP"),
    ],
    "sensitive_paths": [
        *("/bin", "/boot", "/dev", "/etc", "/home", "/lib", "/lib64", "/proc", "/root", "/run"),
        *("/sbin", "/sys", "/usr", "/var/lib/containerd", "/var/lib/docker", "/var/run"),
    ],
    "published_ports": [],
    "pids_limit": 4096,
    "unused_images": 20,
    "stopped_containers": 25,
    "swarm_expected": False,
    "swarm_managers": [3, 5, 7],
    "node_certificate_seconds": 7776000,
    "ca_days": 365,
    "certificate_days": 30,
}


#: Names of runtimes whose containers have a kernel of their own: gVisor, Kata, Firecracker, libkrun.
_SANDBOX = re.compile(r"runsc|gvisor|kata|firecracker|krun", re.I)


class _Unknown(Exception):
    """An expression that cannot be answered from what is known."""


def evaluate(checks: typing.Sequence[Check], look: Json, policy: Json) -> Json:
    """Judge one host.

    :param look: an observation with all sections and details.
    :param policy: as :data:`POLICY`.
    :returns: ``objects`` and ``results`` of docs/schemas/result.schema.json.
    """
    judge = _Judge(look, policy)
    return {"results": [judge.result(check) for check in checks], "objects": judge.objects}


def worst(verdicts: typing.Iterable[str]) -> str:
    """Return the worst of some verdicts; of none ``not_applicable``."""
    return min(verdicts, key=VERDICTS.index, default="not_applicable")


class _Judge:
    def __init__(self, look: Json, policy: Json) -> None:
        self._look = look
        self._policy = policy
        engine, unread = look.get("engine"), look.get("unread")
        self._engine: Json = engine if isinstance(engine, dict) else {}
        rows = unread if isinstance(unread, list) else []
        self._unread = [row for row in rows if isinstance(row, dict)]
        self.objects: list[Json] = []
        self._known: dict[tuple[str, str], int] = {}

    def result(self, check: Check) -> Json:
        """Return the verdicts of one check: the worst, and that of each object."""
        items = self._items(check)
        return {
            "check": check.id,
            "verdict": worst(item["verdict"] for item in items),
            "items": items,
        }

    def _items(self, check: Check) -> list[Json]:
        missing = self._missing(check)
        if missing is not None:
            return [missing]
        if "select" not in check.expressions:
            return [self._item(check, None)]
        try:
            chosen = self._ask(check, "select", None)
        except _Unknown as exc:
            return [_row("error", str(exc))]
        if not isinstance(chosen, list) or not all(isinstance(one, dict) for one in chosen):
            return [_row("error", "what it is about cannot be told from what the host shows")]
        if not chosen:
            reason = self._not_here(check)
            return [_row("not_applicable", reason)]
        return [self._item(check, thing) for thing in chosen]

    def _not_here(self, check: Check) -> str:
        if check.scope in ("service", "network") and "swarm" in check.tags:
            return check.otherwise
        return f"there is no {check.scope} of that kind on this host"

    def _missing(self, check: Check) -> Json | None:
        """Return an item when a section that the check needs was not read."""
        for section in check.needs:
            if self._look.get(section) is not None:
                continue
            if self._engine.get("state") == "absent":
                return _row("not_applicable", "Docker is not installed")
            reasons = [
                str(row.get("reason")) for row in self._unread if row.get("section") == section
            ]
            why = "; ".join(reasons) or "it was not asked for"
            return _row("error", f"the section {section} could not be read: {why}")
        if check.scope == "daemon" and self._engine.get("state") == "absent":
            return _row("not_applicable", "Docker is not installed")
        return None

    def _item(self, check: Check, thing: Json | None) -> Json:
        item = _row("error", None, self._index(check, thing))
        try:
            item["verdict"], item["reason"] = self._verdict(check, thing)
        except _Unknown as exc:
            item["reason"] = str(exc)
        if item["verdict"] not in ("pass", "not_applicable"):
            item["evidence"] = self._evidence(check, thing)
        return item

    def _verdict(self, check: Check, thing: Json | None) -> tuple[str, str | None]:
        hidden = self._hidden(check, thing)
        if hidden is not None:
            return hidden
        if "applies" in check.expressions and not self._truth(check, "applies", thing):
            return "not_applicable", check.otherwise
        if "passes" not in check.expressions:
            return "manual", None
        if "known" in check.expressions:
            known = self._ask(check, "known", thing)
            if known is None or (isinstance(known, list) and None in known):
                return "error", self._why_unknown()
        if self._truth(check, _asked(check, thing), thing):
            return "pass", None
        if "pending" in check.expressions and self._truth(check, "pending", thing):
            return "pending", "it is set, and not in effect yet"
        if "manual_when" in check.expressions and self._truth(check, "manual_when", thing):
            return "manual", None
        return "fail", None

    @staticmethod
    def _hidden(check: Check, thing: Json | None) -> tuple[str, str] | None:
        """Return the verdict on an object of which the host does not show what is asked."""
        if thing is not None and thing.get("error"):
            return "error", f"it could not be read: {thing['error']}"
        if thing is None or not check.reads_process:
            return None
        if not thing.get("kernel") and _has_process(thing):
            return "error", "its process could not be read"
        if (
            thing.get("kernel")
            and _has_own_kernel(thing)
            and "when_stopped" not in check.expressions
        ):
            return "manual", "its runtime has a kernel of its own: the host sees nothing inside"
        return None

    def _why_unknown(self) -> str:
        state = self._engine.get("state")
        if state not in (None, "running"):
            return f"Docker is {state}: what is in effect cannot be told"
        return "the host does not show what is in effect"

    def _truth(self, check: Check, name: str, thing: Json | None) -> bool:
        answer = self._ask(check, name, thing)
        if isinstance(answer, bool):
            return answer
        raise _Unknown("it cannot be told from what the host shows")

    def _ask(self, check: Check, name: str, thing: Json | None) -> typing.Any:
        data = {"host": self._look, "policy": self._policy, "object": thing}
        try:
            return check.expressions[name].search(data, audit_functions.OPTIONS)
        except (JMESPathError, ValueError, TypeError, KeyError, AttributeError) as exc:
            # A function that was handed null, most of all: what it is about was not read.
            raise _Unknown("it cannot be told from what the host shows") from exc

    def _evidence(self, check: Check, thing: Json | None) -> typing.Any:
        if "evidence" not in check.expressions:
            return None
        try:
            return self._ask(check, "evidence", thing)
        except _Unknown:
            return None

    # -- objects -------------------------------------------------------------------------------
    def _index(self, check: Check, thing: Json | None) -> int | None:
        """Return the position of an object among those of the host; None for the host itself."""
        if thing is None:
            return None
        try:
            name = str(self._ask(check, "label", thing) or thing.get("id") or "?")
        except _Unknown:
            name = str(thing.get("name") or thing.get("id") or "?")
        identifier = str(thing.get("id") or name)
        key = (check.scope, identifier)
        if key not in self._known:
            self._known[key] = len(self.objects)
            self.objects.append(
                {
                    "kind": check.scope,
                    "id": identifier,
                    "name": name,
                    "image": thing.get("image") if check.scope == "container" else None,
                    "image_digest": _digest(check.scope, thing),
                }
            )
        return self._known[key]


def _asked(check: Check, thing: Json | None) -> str:
    """Return which expression judges: of a container without a process that of its configuration."""
    if thing is None or "when_stopped" not in check.expressions:
        return "passes"
    return "when_stopped" if thing.get("kernel") is None or _has_own_kernel(thing) else "passes"


def _has_own_kernel(container: Json) -> bool:
    """Tell whether the host shows the process of a sandbox instead of the container's."""
    config = container.get("config")
    return isinstance(config, dict) and bool(_SANDBOX.search(str(config.get("runtime"))))


def _has_process(container: Json) -> bool:
    """Tell whether a container has a process; one that waits for its next start has none."""
    state = container.get("state")
    return state in ("running", "paused") or (state == "restarting" and bool(container.get("pid")))


def _digest(scope: str, thing: Json) -> str | None:
    if scope == "container":
        return thing.get("image_digest") or thing.get("image_id")
    return str(thing.get("id")) if scope == "image" else None


def _row(verdict: str, reason: str | None, index: int | None = None) -> Json:
    return {
        "object": index,
        "verdict": verdict,
        "reason": reason,
        "evidence": None,
        "waiver": None,
    }
