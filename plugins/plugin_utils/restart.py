# Copyright: (c) 2026, the Bulkhead authors
# Apache License 2.0 (see LICENSE)
"""May the daemon be restarted for a role that is not ``docker_daemon``, and what that takes."""

from __future__ import annotations

from ansible_collections.bulkhead.hardening.plugins.plugin_utils import daemon_policy, unread
from ansible_collections.bulkhead.hardening.plugins.plugin_utils.plan import Json

_ALIVE = ("running", "paused", "restarting")


class Restart:
    """A restart of the daemon, which a role's plan may ask for.

    :param look: a document of schema ``bulkhead.observation/1``.
    :param daemon_plan: what ``docker_daemon`` plans in the same transaction; ``plan.empty()`` if it does not.
    :param allowed: the variable ``docker_daemon_restart``: ``when_needed`` or ``never``.
    :param stops_containers: the variable ``docker_daemon_restart_stops_containers``.
    :raises PolicyError: one of the variables is neither of its values.
    """

    def __init__(
        self, look: Json, daemon_plan: Json, allowed: object, stops_containers: object
    ) -> None:
        self._look = look
        self._engine: Json = look["engine"]
        self._daemon_plan = daemon_plan
        self._allowed = daemon_policy.restart(allowed)
        self._stops_containers = daemon_policy.restart_stops_containers(stops_containers)
        #: The names of containers that a restart concerns.
        self.alive = sorted(
            str(item["name"]) for item in look.get("containers") or [] if item["state"] in _ALIVE
        )

    @property
    def needed(self) -> bool:
        """Whether there is a daemon to restart."""
        return bool(self._engine["state"] == "running")

    def unsafe(self) -> str | None:
        """Return why it must not be restarted now, and what to do; None when it may be."""
        if not self.needed:
            return None
        need = "it needs a restart of the daemon, "
        if self._allowed == "never":
            return need + "and docker_daemon_restart is never"
        if not self._engine.get("config_loaded"):
            return need + (
                "which would also take up what somebody changed in daemon.json since it started; "
                "restart it when that is meant"
            )
        others = unread.of_others(self._look, set())
        if others:
            return need + (
                f"which would also take up what somebody changed since it started: {', '.join(others)}; "
                "restart it when that is meant"
            )
        safe = self._keeps() or self._sets_live_restore()
        if self.alive and not safe and not self._stops_containers:
            return need + (
                "which without live-restore ends these containers; let docker_daemon set it first, or "
                f"accept that with {daemon_policy.variable('restart_stops_containers')}: true"
            )
        return None

    def ask(self, plan: Json, key: str) -> None:
        """Have a plan restart the daemon for a key, if there is one to restart."""
        if self.needed:
            first = bool(self.alive) and not self._keeps() and self._sets_live_restore()
            plan["daemon"].update(
                effect="restart",
                why=[key],
                live_restore_first=first,
                allow_container_restart=self._stops_containers,
            )

    def _keeps(self) -> bool:
        """Tell whether the running daemon leaves containers alone when it stops."""
        kept = (self._engine.get("options") or {}).get("live-restore") or {}
        return kept.get("effective") is True

    def _sets_live_restore(self) -> bool:
        return any(
            operation.get("key") == "live-restore" and operation.get("value") is True
            for operation in self._daemon_plan["operations"]
        )
