# Copyright: (c) 2026, the Bulkhead authors
# Apache License 2.0 (see LICENSE)
"""The Docker daemon as a transaction handles it: reload, restart, and knowing that it took place.

``systemctl reload docker`` sends SIGHUP and succeeds whatever the daemon makes of it, so a reload
counts only once the daemon itself reports it as an event.
"""

from __future__ import annotations

import json
import typing

from ansible_collections.bulkhead.hardening.plugins.module_utils import (
    ledger as ledger_module,
    look,
    published_ports,
)
from ansible_collections.bulkhead.hardening.plugins.module_utils.docker_api import (
    ApiError,
    DockerApi,
)
from ansible_collections.bulkhead.hardening.plugins.module_utils.host import Host, HostError
from ansible_collections.bulkhead.hardening.plugins.module_utils.look_options import CONFIG_FILE
from ansible_collections.bulkhead.hardening.plugins.module_utils.redact import redact, secrets_of

UNIT = "docker.service"

#: Seconds within which a running daemon must report a reload.
RELOAD_TIMEOUT = 30.0
#: How many of the daemon's last lines a failure quotes, and how long each may be.
_QUOTED_LINES = 20
_QUOTED_LENGTH = 400
_POLL = 0.25

# What SIGHUP applies keeps its value when it vanishes from the file (daemon/reload*.go), so taking
# it back needs its default spelled out once. The remaining reloadable keys have no such default.
RELOAD_DEFAULTS: dict[str, typing.Any] = {
    "debug": False,
    "default-ipc-mode": "private",
    "default-runtime": "runc",
    "default-shm-size": 64 * 1024 * 1024,
    "default-stop-timeout": 10,
    "insecure-registries": [],
    "labels": [],
    "live-restore": False,
    "max-concurrent-downloads": 3,
    "max-concurrent-uploads": 5,
    "max-download-attempts": 5,
    "registry-mirrors": [],
    "shutdown-timeout": 15,
}


class Identity(typing.NamedTuple):
    """One run of the daemon: a process id and its start, in clock ticks since boot."""

    pid: int
    start_ticks: int


class Restart(typing.NamedTuple):
    """One restart of the daemon by a transaction; times in seconds since the epoch.

    ``answered`` is None when the API never answered again. ``kept``: containers were to survive it,
    for live-restore was in effect in the daemon that stopped and in the one that started.
    """

    began: float
    answered: float | None
    kept: bool


class Daemon:
    """The daemon of one host.

    :param socket: the path of its API socket, or None when it was not running at the look.
    :param timeout: seconds in which it must answer after a restart.
    :param config: the path of its daemon.json.
    """

    def __init__(
        self, host: Host, socket: str | None, timeout: float, config: str = CONFIG_FILE
    ) -> None:
        self._host = host
        self._config = config
        self._timeout = timeout
        self.socket = socket or "/run/docker.sock"
        self.restarts = 0
        self.reloads = 0
        #: what went wrong beside the point, for the report
        self.notes: list[str] = []
        #: the restarts in which containers may have ended, the oldest first
        self.history: list[Restart] = []

    @property
    def api(self) -> DockerApi:
        """A client of the daemon's API."""
        return DockerApi(self._host.path(self.socket), timeout=min(60.0, self._timeout))

    # -- systemd -------------------------------------------------------------------------------
    def properties(self) -> dict[str, str]:
        """Return ActiveState, SubState, MainPID, Result and CanReload of the daemon's unit."""
        done = self._host.run(
            ["systemctl", "show", UNIT, "--property=ActiveState,SubState,MainPID,Result,CanReload"]
        )
        if done.rc != 0:
            raise HostError("systemctl show %s: %s" % (UNIT, done.err.strip()))
        pairs = (line.partition("=") for line in done.out.split("\n"))
        return {name: value for name, _, value in pairs if name}

    def identity(self) -> Identity | None:
        """Return which run of the daemon is active, or None when it does not run."""
        properties = self.properties()
        pid = properties.get("MainPID", "0")
        if properties.get("ActiveState") not in ("active", "reloading") or not pid.isdigit():
            return None
        ticks = ledger_module.start_ticks(self._host, int(pid))
        return Identity(int(pid), ticks) if ticks is not None else None

    def read_units(self) -> None:
        """Let systemd read its unit files again."""
        done = self._host.run(["systemctl", "daemon-reload"], timeout=120.0)
        if done.rc != 0:
            raise HostError("systemctl daemon-reload: %s" % done.err.strip())

    def last_lines(self, since: float) -> str:
        """Return the daemon's last journal lines since a time, as a suffix for a message.

        Only its own output: with the log driver journald the containers' output bears its unit too.
        """
        done = self._host.run(
            [
                "journalctl", "--no-pager", "--quiet", "--output=cat", "--unit=" + UNIT,
                "--lines=%d" % _QUOTED_LINES, "--since=@%d" % int(since), "_TRANSPORT=stdout",
            ]
        )  # fmt: skip
        lines = [line for line in done.out.split("\n") if line.strip()]
        if done.rc != 0 or not lines:
            return ""
        secrets = self.secrets()
        shown = [redact(line, secrets)[:_QUOTED_LENGTH] for line in lines[-_QUOTED_LINES:]]
        return ". Its last lines: " + " | ".join(shown)

    def secrets(self) -> set[str]:
        """Return values that the daemon knows and that must not be shown."""
        return secrets_of(self._host, self._config, look.daemon_arguments(self._host))

    # -- effects -------------------------------------------------------------------------------
    def reload(self, live_restore: bool | None = None) -> None:
        """Send SIGHUP and wait until the daemon reports that it has read its file.

        :param live_restore: what ``docker info`` must then say of it, when that is known.
        :raises HostError: it did not, with the daemon's last lines.
        """
        self.reloads += 1
        started = self._host.now()
        done = self._host.run(["systemctl", "reload", UNIT], timeout=self._timeout)
        if done.rc != 0:
            reason = "systemctl reload %s: %s" % (UNIT, done.err.strip())
            raise HostError(reason + self.last_lines(started))
        deadline = self._host.monotonic() + RELOAD_TIMEOUT
        reported = False
        while True:
            try:
                reported = reported or self._reported_reload(started)
                if reported and live_restore in (None, self._info().get("LiveRestoreEnabled")):
                    return
            except ApiError:
                # It may have left altogether: a missing authorization plugin is fatal at SIGHUP.
                if self.properties().get("ActiveState") not in ("active", "reloading"):
                    raise HostError(
                        "the daemon stopped at the reload" + self.last_lines(started)
                    ) from None
            if self._host.monotonic() > deadline:
                what = "did not take live-restore" if reported else "did not report the reload"
                raise HostError(
                    "the daemon %s within %d s%s"
                    % (what, int(RELOAD_TIMEOUT), self.last_lines(started))
                )
            self._host.sleep(_POLL)

    def _info(self) -> dict[str, typing.Any]:
        info = self.api.get("/info")
        return info if isinstance(info, dict) else {}

    def _reported_reload(self, since: float) -> bool:
        """Tell whether the daemon emitted a reload event since a time.

        With ``until`` the answer ends by itself; events come as JSON, one per line.
        """
        answer = self.api.get(
            "/events",
            since="%.9f" % since,
            until="%.9f" % self._host.now(),
            filters=json.dumps({"type": ["daemon"], "event": ["reload"]}),
        )
        return bool(answer)

    def restart(self) -> None:
        """Restart the daemon, or start it when it failed, and wait until its API answers.

        Published ports of containers that outlive it stay reachable, also when it does not come up.

        :raises HostError: it did not come up within the timeout, with its last lines.
        """
        self.restarts += 1
        kept = self.keeps_containers()
        if kept:
            self._note_ports(published_ports.keep(self._host))
        self._restart(kept)
        self.release_ports()

    def release_ports(self) -> None:
        """Leave published ports to the daemon alone again."""
        self._note_ports(published_ports.release(self._host))

    def _note_ports(self, problem: str | None) -> None:
        if problem:
            self.notes.append("published ports may have been unreachable for a moment: " + problem)

    def _restart(self, kept: bool | None) -> None:
        # Three starts within a minute are all that the unit allows: forget those so far.
        self._host.run(["systemctl", "reset-failed", UNIT])
        started = self._host.now()
        self.history.append(Restart(started, None, kept is not False))
        deadline = self._host.monotonic() + self._timeout
        done = self._host.run(["systemctl", "restart", UNIT], timeout=self._timeout)
        if done.rc != 0:
            reason = "the daemon did not start"
            if done.rc == 124:
                reason = "the daemon did not start within %d s" % int(self._timeout)
            raise HostError(reason + self.last_lines(started))
        while True:
            try:
                self.api.get("/_ping")
            except ApiError as exc:
                properties = self.properties()
                if properties.get("ActiveState") not in ("active", "activating", "reloading"):
                    raise HostError(
                        "the daemon stopped after its start" + self.last_lines(started)
                    ) from exc
                if self._host.monotonic() > deadline:
                    raise HostError(
                        "the daemon's API does not answer within %d s: %s%s"
                        % (int(self._timeout), exc, self.last_lines(started))
                    ) from exc
                self._host.sleep(_POLL)
            else:
                kept = kept is not False and self.keeps_containers() is True
                self.history[-1] = Restart(started, self._host.now(), kept)
                return

    def keeps_containers(self) -> bool | None:
        """Return whether the running daemon leaves containers alone; None when it does not say."""
        try:
            return self._info().get("LiveRestoreEnabled") is True
        except ApiError:
            return None
