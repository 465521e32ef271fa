# Copyright: (c) 2026, the Bulkhead authors
# Apache License 2.0 (see LICENSE)
"""Where the Docker daemon is, whether it runs, and how it was started, without waking it.

It is found through systemd, or through the peer of its socket where no unit of systemd owns that;
never by a process name. Nobody connects to a socket whose listener is systemd: that would start
the daemon.
"""

from __future__ import annotations

import errno
import os
import posixpath
import re
import stat as stat_module
import time
import typing

from ansible_collections.bulkhead.hardening.plugins.module_utils import look_systemd
from ansible_collections.bulkhead.hardening.plugins.module_utils.daemon_options import OPTIONS
from ansible_collections.bulkhead.hardening.plugins.module_utils.docker_api import (
    ApiError,
    DockerApi,
)
from ansible_collections.bulkhead.hardening.plugins.module_utils.host import Host
from ansible_collections.bulkhead.hardening.plugins.module_utils.look_common import (
    Mapping,
    UnreadableError,
    os_reason,
    run_path,
)
from ansible_collections.bulkhead.hardening.plugins.module_utils.look_config import ConfigFile
from ansible_collections.bulkhead.hardening.plugins.module_utils.look_options import (
    CONFIG_FILE,
    Setting,
    parse_flags,
)
from ansible_collections.bulkhead.hardening.plugins.module_utils.look_systemd import Word

DEFAULT_SOCKETS = ("/run/docker.sock", "/var/run/docker.sock")


class Places(typing.NamedTuple):
    """Where a daemon looks for what, and to whom that belongs; ``user`` None: the system's own daemon.

    ``environment`` are the files of distributions with its arguments, ``containerd`` is the socket of
    the one that it starts itself.
    """

    user: str | None
    uid: int
    gid: int
    socket: str
    config: str
    data_root: str
    certificates: str
    tls: str
    containerd: str
    environment: tuple[str, ...]


SYSTEM = Places(
    user=None,
    uid=0,
    gid=0,
    socket=DEFAULT_SOCKETS[1],
    config=CONFIG_FILE,
    data_root="/var/lib/docker",
    certificates="/etc/docker/certs.d",
    tls="/root/.docker",
    containerd="/run/docker/containerd/containerd.sock",
    environment=("/etc/default/docker", "/etc/sysconfig/docker"),
)

PROGRAM = "dockerd"

_BINARIES = (
    "/usr/bin/dockerd",
    "/usr/sbin/dockerd",
    "/usr/local/bin/dockerd",
    "/usr/local/sbin/dockerd",
)

# Variables that dockerd itself reads (moby daemon/command and daemon/config). Proxies are left to
# the section's flags and file: their values are secret and their presence says little.
_VARIABLES = {
    "DOCKER_DRIVER": "storage-driver",
    "DOCKER_MIN_API_VERSION": "min-api-version",
    "DOCKER_TLS_VERIFY": "tlsverify",
}


class Daemon:
    """What is known of the daemon before it is asked.

    ``state`` and ``reason`` are those of the observation's engine. ``words`` are the arguments of
    the running process, or those that its unit would give it; ``settings`` what they and the
    environment set, by daemon.json key. ``socket`` is None when there is none to ask.
    ``callable`` tells whether connecting is allowed: it would not start anything.

    :param units: those of systemd; of a rootless daemon none.
    :param places: of a rootless daemon where it is, and ``process`` its process.
    """

    def __init__(
        self,
        host: Host,
        units: dict[str, Mapping] | None,
        timeout: float,
        places: Places = SYSTEM,
        process: int | None = None,
    ) -> None:
        self._host = host
        self._timeout = timeout
        self._units = units or {}
        self.places = places
        self.state = "absent"
        self.reason: str | None = None
        self.pid: int | None = None
        self.start_ticks: int | None = None
        self.started_at: float | None = None
        self.binary: str | None = None
        self.socket: str | None = None
        self.callable = False
        self.notes: list[tuple[str, str]] = []
        service = self._units.get("docker.service", {})
        self.from_unit = self._unit_service(service)
        if places.user is None:
            self._find(service)
        else:
            self._find_rootless(process)
        self.words = self._words()
        self.settings, config_file = parse_flags(self.words[1:], places.config)
        self._add_variables()
        self.binary = self._find_binary()
        self.config = ConfigFile(host, config_file)
        if self.state == "broken" and self.config.state not in ("absent", "empty", "valid"):
            self.reason = "%s; %s: %s" % (self.reason, self.config.path, self.config.reason)
        if self.pid is not None:
            self._read_start(self.pid)
        if self.state == "absent" and self.binary:
            self.state = "stopped"
            self.reason = self.reason or "dockerd is installed, but no unit starts it"
        elif self.state == "stopped" and not self.binary:
            # As after a removal: Debian leaves its init script, from which systemd makes a unit.
            self.state, self.reason = "absent", "only a unit is left of Docker, not dockerd itself"
        if self.socket is None and self.state != "absent":
            self.socket = self._find_socket()

    # -- is it there, does it run? -------------------------------------------------------------
    def _unit_service(self, service: Mapping) -> look_systemd.Service | None:
        if service.get("load_state") != "loaded" or not service.get("fragment"):
            return None
        try:
            return look_systemd.Service(
                self._host, [service["fragment"], *service.get("dropins", [])]
            )
        except UnreadableError as exc:
            self.notes.append(("docker.service", str(exc)))
            return None

    def _find(self, service: Mapping) -> None:
        active = service.get("active_state")
        if active in ("active", "reloading") and service.get("main_pid"):
            self.state, self.pid, self.callable = "running", service["main_pid"], True
        elif active in ("active", "activating", "reloading"):
            self.state, self.reason = "broken", _broken_reason(service)
        elif self._find_peer():
            return
        elif active == "failed":
            self.state, self.reason = "broken", _broken_reason(service)
        elif "masked" in (service.get("load_state"), service.get("unit_file_state")):
            self.state = "masked"
            self.reason = "docker.service is masked"
        elif service.get("load_state") not in (None, "not-found"):
            self.state = "stopped"
            self.reason = "docker.service is %s" % (active or "not running")
            if self._socket_waits():
                self.reason += "; docker.socket would start it"

    def _find_rootless(self, process: int | None) -> None:
        self.pid, self.socket = process, run_path(self.places.socket)
        # The directory is the user's: a link in it could lead to another daemon.
        self.callable = self._real_socket(self.socket) == self.socket
        self.state = "running" if self.callable else "broken"
        if not self.callable:
            self.reason = "%s is no socket, or lies behind a link" % self.socket

    def _socket_waits(self) -> bool:
        return bool(self._units.get("docker.socket", {}).get("active_state") == "active")

    def _find_peer(self) -> bool:
        """Find a daemon that docker.service does not run, by who listens on its socket.

        Tells whether there is one, working or not.
        """
        if self._socket_waits():
            return False
        for path in DEFAULT_SOCKETS:
            real = self._real_socket(path)
            if real is not None:
                return self._ask_peer(path, real)
        return False

    def _ask_peer(self, path: str, real: str) -> bool:
        owner = self._listening_unit({path, real})
        if owner:
            self.reason = "%s belongs to %s, which starts on demand" % (path, owner)
            return False
        try:
            self.pid = DockerApi(self._host.path(real), self._timeout).peer_pid()
        except ApiError as exc:
            if isinstance(exc.__cause__, PermissionError):
                self.reason = "%s: permission denied" % real
            elif getattr(exc.__cause__, "errno", None) == errno.ECONNREFUSED:
                return False  # left behind by a dead daemon
            else:
                self.state, self.reason = "broken", "%s does not answer" % real
                return True
        self.state, self.socket, self.callable = "running", real, True
        return True

    def _real_socket(self, path: str) -> str | None:
        """Return where the socket behind ``path`` is on this host, or None when there is none."""
        root = os.path.realpath(self._host.root)
        real = os.path.realpath(self._host.path(path))
        if root != "/" and not real.startswith(root + "/"):
            return None
        try:
            if not stat_module.S_ISSOCK(os.lstat(real).st_mode):
                return None
        except OSError:
            return None
        return real if root == "/" else real[len(root) :]

    def _listening_unit(self, paths: set[str]) -> str | None:
        if not look_systemd.is_init(self._host):
            return None
        try:
            units = look_systemd.socket_units(self._host, self._timeout)
        except UnreadableError:
            return "systemd"  # cannot be ruled out, so hands off
        return next((unit for path, unit in units.items() if path in paths), None)

    # -- how was it started? -------------------------------------------------------------------
    def _words(self) -> list[Word]:
        """Return the program and arguments of the process, or of the unit if it does not run."""
        planned = self.from_unit.words if self.from_unit else []
        if self.pid is None:
            return planned
        try:
            raw = self._host.read_bytes("/proc/%d/cmdline" % self.pid)
        except OSError as exc:
            self.notes.append(("/proc/%d/cmdline" % self.pid, os_reason(exc)))
            return planned
        running = [item.decode("utf-8", "replace") for item in raw.split(b"\0")[:-1]]
        return _with_places(running, planned)

    def unread_flags(self) -> list[Mapping]:
        """Return the options whose flags the next start would change: ``[{"key", "where"}]``.

        Unit, drop-ins or environment files changed since the start. ``where`` is the file of the new
        flag, None for one that is gone. A running daemon whose command line its unit does not give has none.
        """
        following = self.from_unit.words if self.from_unit and self.pid is not None else []
        lines = [self.words, following]
        if not all(line and posixpath.basename(line[0].text) == PROGRAM for line in lines):
            return []
        (now, config), (then, other) = (parse_flags(line[1:], self.places.config) for line in lines)
        rows = [
            {"key": key, "where": then[key].where if key in then else None}
            for key in sorted({*now, *then} & OPTIONS.keys())
            if _value(now.get(key)) != _value(then.get(key)) and not _open(then.get(key))
        ]
        return rows if config == other else [{"key": "config-file", "where": None}, *rows]

    def _add_variables(self) -> None:
        for name, (value, where) in self._environment().items():
            key = _VARIABLES.get(name)
            if key and value and key not in self.settings:
                setting = True if key == "tlsverify" else value
                self.settings[key] = Setting(setting, "environment", where)

    def _environment(self) -> dict[str, tuple[str, str | None]]:
        """Return the daemon's environment, with the file that sets each variable if one does."""
        planned: dict[str, tuple[str, str | None]] = {}
        if self.from_unit:
            planned.update(
                (name, (item.value, item.where))
                for name, item in self.from_unit.environment.items()
            )
        if self.pid is None:
            return planned
        try:
            raw = self._host.read_bytes("/proc/%d/environ" % self.pid)
        except OSError as exc:  # root's alone to read
            self.notes.append(("/proc/%d/environ" % self.pid, os_reason(exc)))
            return planned
        found: dict[str, tuple[str, str | None]] = {}
        for item in raw.decode("utf-8", "replace").split("\0"):
            name, _, value = item.partition("=")
            same = name in planned and planned[name][0] == value
            found[name] = (value, planned[name][1] if same else None)
        return found

    def _read_start(self, pid: int) -> None:
        try:
            self.start_ticks = _start_ticks(self._host, pid)
            self.started_at = start_of(self._host, pid)
        except (OSError, ValueError, IndexError):
            self.notes.append(("/proc/%d/stat" % pid, "cannot be read"))

    # -- where is it? ----------------------------------------------------------------------------
    def _find_binary(self) -> str | None:
        candidates = []
        if self.pid is not None:
            try:
                link = os.readlink(self._host.path("/proc/%d/exe" % self.pid))
                candidates.append(re.sub(r" \(deleted\)\Z", "", link))
            except OSError:  # root's alone to read
                pass
        if self.words and posixpath.basename(self.words[0].text) == PROGRAM:
            candidates.append(self.words[0].text)
        candidates.extend(_BINARIES)
        for path in candidates:
            if posixpath.isabs(path) and os.path.exists(self._host.path(path)):
                return path
        return None

    def _find_socket(self) -> str | None:
        """Return the first unix socket that the daemon listens on, or would."""
        addresses = self.option("hosts")
        if not isinstance(addresses, list) or not addresses:
            addresses = ["unix://" + self.places.socket]
        listening = self._units.get("docker.socket", {}).get("listen", [])
        for address in addresses:
            scheme, _, path = str(address).rpartition("://")
            if scheme == "fd":
                paths = [item for item in listening if item.startswith("/")]
                if paths:
                    return str(paths[0])
            elif scheme in ("unix", "") and (path.startswith("/") or not path):
                path = path or self.places.socket
                short = run_path(path)
                return short if self._host.lstat(short) else path
        return None

    def option(self, key: str) -> typing.Any:
        """Return what flags, environment or the file set for an option; None when nothing does."""
        if key in self.settings:
            return self.settings[key].value
        return self.config.values.get(key)

    @property
    def data_root(self) -> str:
        """The configured data directory."""
        for key in ("data-root", "graph"):
            value = self.option(key)
            if isinstance(value, str) and value.startswith("/"):
                return value
        return self.places.data_root


def _value(setting: Setting | None) -> typing.Any:
    return setting.value if setting else None


def _open(setting: Setting | None) -> bool:
    """Tell whether a value holds a specifier or a variable that only systemd can fill in."""
    return any(mark in str(_value(setting)) for mark in "%$")


def _broken_reason(service: Mapping) -> str:
    verb = "failed" if service["active_state"] == "failed" else "is " + service["active_state"]
    words = ["docker.service " + verb]
    if service.get("sub_state") not in (None, service["active_state"]):
        words.append(" (%s)" % service["sub_state"])
    if service.get("result") not in (None, "success"):
        words.append(", result %s" % service["result"])
    if service.get("n_restarts"):
        words.append(", restarted %d times" % service["n_restarts"])
    return "".join(words)


def _with_places(running: list[str], planned: list[Word]) -> list[Word]:
    """Give the arguments of a process the places that their unit names for them.

    The unit may have changed since the start: an argument that it does not have (any more) has no
    place, which an empty ``where`` says.
    """
    spare = list(planned)
    found = []
    for position, item in enumerate(running):
        if position < len(planned) and planned[position].text == item:
            match: Word | None = planned[position]
        else:
            match = next((word for word in spare if word.text == item), None)
        found.append(Word(item, match.source if match else "flag", match.where if match else ""))
        if match in spare:
            spare.remove(match)
    return found


def _start_ticks(host: Host, pid: int) -> int:
    return int(host.read_text("/proc/%d/stat" % pid).rpartition(")")[2].split()[19])


def start_of(host: Host, pid: int) -> float:
    """Return when a process was started, in seconds since the epoch.

    :raises OSError: /proc cannot be read.
    :raises ValueError: it does not hold the time; IndexError when the line is cut off.
    """
    return round(boot_time(host) + _start_ticks(host, pid) / os.sysconf("SC_CLK_TCK"), 2)


def boot_time(host: Host) -> float:
    """Return when the host was booted, in seconds since the epoch, to the hundredth.

    ``btime`` of /proc/stat is cut off at the second, which would make a file look newer than the
    daemon that read it; the clocks know better. They are believed when they agree with it.

    :raises OSError: /proc/stat cannot be read.
    :raises ValueError: it does not hold the time.
    """
    for line in host.read_text("/proc/stat").splitlines():
        if line.startswith("btime "):
            coarse = float(line.split()[1])
            exact = host.now() - time.clock_gettime(time.CLOCK_BOOTTIME)
            return exact if abs(exact - coarse) < 2 else coarse
    raise ValueError("no btime in /proc/stat")
