"""Falco on a host in a temporary directory: its package, its unit, and what it says of rules."""

from __future__ import annotations

import typing

from ansible_collections.bulkhead.hardening.plugins.module_utils import falco
from ansible_collections.bulkhead.hardening.plugins.module_utils.host import Completed

from .fake_engine import FakeHost, unit_properties

#: What makes this Falco refuse a file, or end soon after its start.
REFUSES, DIES = "REFUSES", "DIES"


class FakeFalco:
    """``unit``: what systemd says of falco-modern-bpf.service. ``installed`` puts its files there."""

    def __init__(self, host: FakeHost) -> None:
        self._host = host
        self.unit: dict[str, typing.Any] = {"LoadState": "not-found", "ActiveState": "inactive"}
        self.others: dict[str, dict[str, typing.Any]] = {}
        self.asked: list[list[str]] = []
        self._pid = 7000
        self._shown = 0

    def install(self) -> None:
        """Let the package be installed as docker_falco does it: there, and not started."""
        self._host.write(falco.PROGRAM, "", 0o755)
        self._host.write(falco.CONTAINER_PLUGIN, "")
        self._host.write(falco.PACKAGED_RULES[0], "- rule: One\n  desc: one\n- rule: Two\n")
        for directory in (falco.CONFIG_DIRECTORY, falco.RULES_DIRECTORY):
            (self._host.base / directory.strip("/")).mkdir(parents=True, exist_ok=True)
        self.unit = {
            "LoadState": "loaded",
            "ActiveState": "inactive",
            "UnitFileState": "disabled",
            "MainPID": "0",
        }

    def run(self, argv: list[str], stdin: bytes | None) -> Completed:
        """Answer for falco, and for systemctl on its unit."""
        if argv[0] != "systemctl":
            self.asked.append(argv)
            if REFUSES in (stdin or b"").decode():
                return Completed(1, "/dev/stdin: Invalid\n1 Error\nno such field\n", "")
            return Completed(0, "Ok\n", "")
        verb, name = argv[1], argv[-1]
        if verb == "show":
            unit = self.unit if name == falco.UNIT else self.others.get(name, {})
            self._live()
            return Completed(0, unit_properties(name, **{"LoadState": "not-found", **unit}), "")
        if self.unit["LoadState"] != "loaded":
            return Completed(5, "", "Unit %s not loaded." % name)
        if verb in ("enable", "disable"):
            self.unit["UnitFileState"] = verb + "d"
        elif verb == "restart":
            self._pid += 1
            self._shown = 0
            self.unit.update(ActiveState="active", MainPID=str(self._pid))
        elif verb == "stop":
            self.unit.update(ActiveState="inactive", MainPID="0")
        return Completed(0, "", "")

    def _live(self) -> None:
        """Let a unit whose rules kill it be seen alive twice."""
        rules = self._host.base / falco.RULES.lstrip("/")
        if self.unit["ActiveState"] == "active" and rules.exists() and DIES in rules.read_text():
            self._shown += 1
            if self._shown > 2:
                self.unit.update(ActiveState="activating", MainPID="0")
