# Copyright: (c) 2026, the Bulkhead authors
# Apache License 2.0 (see LICENSE)
"""One pass of a look: what several collectors need, each thing read once and only when needed."""

from __future__ import annotations

import typing

from ansible_collections.bulkhead.hardening.plugins.module_utils import (
    look_access,
    look_daemon,
    look_files,
    look_host,
    look_systemd,
    selinux,
)
from ansible_collections.bulkhead.hardening.plugins.module_utils.docker_api import (
    ApiError,
    DockerApi,
)
from ansible_collections.bulkhead.hardening.plugins.module_utils.host import Host
from ansible_collections.bulkhead.hardening.plugins.module_utils.look_common import (
    NO_SYSTEMD,
    Mapping,
    Notes,
    UnreadableError,
    mapping,
    os_reason,
    sequence,
)


class Pass:
    """One pass: reads on demand what several collectors need, each thing once."""

    def __init__(
        self,
        host: Host,
        timeout: float,
        volume_sizes: bool = False,
        details: bool = False,
        writable_layers: bool = False,
        rootless_user: str | None = None,
        tls_files: typing.Mapping[str, str] | None = None,
    ) -> None:
        self.host = host
        self.writable_layers = writable_layers
        self.volume_sizes = volume_sizes
        self.details = details
        self.timeout = timeout
        self.rootless_user = rootless_user
        #: files that a policy names for the API's TLS, by the keys of daemon.json
        self.tls_files = dict(tls_files or {})
        self.notes = Notes()
        self._api: DockerApi | None = None
        self._answers: dict[str, typing.Any] = {}

    def once(self, name: str, read: typing.Callable[[], typing.Any]) -> typing.Any:
        """Return what ``read`` returned, or raise what it raised, the first time."""
        if name not in self._answers:
            try:
                self._answers[name] = read()
            except UnreadableError as exc:
                self._answers[name] = exc
        answer = self._answers[name]
        if isinstance(answer, UnreadableError):
            raise answer
        return answer

    # -- systemd and the daemon ------------------------------------------------------------------
    def units(self) -> dict[str, Mapping]:
        """Return the units. Raises UnreadableError, also on a host without systemd."""

        def read() -> dict[str, Mapping]:
            if not look_systemd.is_init(self.host):
                raise UnreadableError(NO_SYSTEMD)
            return look_systemd.show_units(self.host, self.timeout)

        found = self.once("units", read)
        assert isinstance(found, dict)
        return found

    def daemon(self) -> look_daemon.Daemon:
        """Return the daemon. Raises UnreadableError when systemd should answer and does not."""

        def read() -> look_daemon.Daemon:
            if self.rootless_user:
                places, pid = look_access.rootless(
                    self.host, self.notes, self.rootless_user, self.users()
                )
                return look_daemon.Daemon(self.host, None, self.timeout, places, pid)
            units = self.units() if look_systemd.is_init(self.host) else None
            return look_daemon.Daemon(self.host, units, self.timeout)

        found = self.once("daemon", read)
        assert isinstance(found, look_daemon.Daemon)
        return found

    def daemon_notes(self) -> list[tuple[str, str]]:
        """Return what could not be read of the daemon, if it was looked at."""
        daemon = self._answers.get("daemon")
        return daemon.notes if isinstance(daemon, look_daemon.Daemon) else []

    # -- the API ---------------------------------------------------------------------------------
    @property
    def api_calls(self) -> int:
        """How many requests were made."""
        return self._api.calls if self._api else 0

    def api(self) -> DockerApi:
        """Return a client of a daemon that answers.

        :raises UnreadableError: it does not run, may not be asked, or does not answer.
        """
        self.version()
        assert self._api is not None
        return self._api

    def version(self) -> Mapping:
        """Return the answer of ``/version``, the first request. Raises as :meth:`api`."""

        def read() -> Mapping:
            daemon = self.daemon()
            if daemon.state == "absent":
                raise UnreadableError(daemon.reason or "Docker is not installed")
            if not daemon.callable:
                raise UnreadableError(daemon.reason or "Docker is %s" % daemon.state)
            if daemon.socket is None:
                daemon.reason = "the daemon listens on no unix socket"
                raise UnreadableError(daemon.reason)
            self._api = DockerApi(self.host.path(daemon.socket), self.timeout)
            try:
                return self._api.document("/version")
            except ApiError as exc:
                reason = self.failure(exc)
                daemon.reason = "%s: %s" % (daemon.socket, reason)
                if not isinstance(exc.__cause__, PermissionError):
                    daemon.state = "broken"
                raise UnreadableError(daemon.reason) from exc

        return mapping(self.once("version", read))

    def document(self, path: str, **query: typing.Any) -> Mapping:
        """Return the object that answers one GET request, asked once. Raises UnreadableError."""
        return mapping(self._ask(path, query, lambda: self.api().document(path, **query)))

    def rows(self, path: str, **query: typing.Any) -> list[Mapping]:
        """Return the list that answers one GET request, asked once. Raises UnreadableError."""
        return sequence(self._ask(path, query, lambda: self.api().rows(path, **query)))

    def _ask(self, path: str, query: Mapping, ask: typing.Callable[[], typing.Any]) -> typing.Any:
        def read() -> typing.Any:
            try:
                return ask()
            except ApiError as exc:
                raise UnreadableError("GET %s: %s" % (path, self.failure(exc))) from exc

        return self.once("GET %s %s" % (path, sorted(query.items())), read)

    def failure(self, exc: ApiError) -> str:
        """Return why a request failed, without the words of the daemon: they may quote anything."""
        if exc.status >= 400:
            return "status %d" % exc.status
        if isinstance(exc.__cause__, TimeoutError) or "timed out" in str(exc.__cause__):
            return "no answer within %g s" % self.timeout
        if isinstance(exc.__cause__, OSError):
            return os_reason(exc.__cause__)
        return "no valid answer"

    def summaries(self) -> list[Mapping]:
        """Return the list of all containers, as the API summarises them."""
        return self.rows("/containers/json", all=1)

    def images(self) -> list[Mapping]:
        """Return the list of images."""
        return self.rows("/images/json", digests=1)

    def networks(self) -> list[Mapping]:
        """Return the list of networks."""
        return self.rows("/networks")

    # -- what several sections need --------------------------------------------------------------
    def info(self) -> Mapping:
        """Return the answer of ``/info``. Raises UnreadableError."""
        return self.document("/info")

    def volumes(self) -> list[Mapping]:
        """Return the list of volumes. Raises UnreadableError."""
        return [mapping(row) for row in sequence(self.document("/volumes").get("Volumes"))]

    def daemon_units(self) -> dict[str, Mapping]:
        """Return the units that run the daemon; a rootless one has none of the system's.

        Raises as :meth:`units`.
        """
        return {} if self.rootless_user else self.units()

    def known_units(self) -> dict[str, Mapping]:
        """Return those units, or nothing where systemd does not answer or does not run the host."""
        try:
            return self.daemon_units()
        except UnreadableError:
            return {}

    def users(self) -> Mapping:
        """Return the section ``users``. Raises UnreadableError."""
        return mapping(self.once("users", lambda: look_host.users(self.host)))

    def system(self) -> Mapping:
        """Return the section ``os``."""
        return mapping(
            self.once("os", lambda: look_host.system(self.host, self.notes, self.timeout))
        )

    def security_modules(self) -> Mapping:
        """Return the section ``lsm``."""

        def read() -> Mapping:
            try:
                pid = self.daemon().pid
            except UnreadableError:
                pid = None
            root = self._data_root() if selinux.enabled(self.host) else None
            return look_host.security_modules(self.host, self.notes, pid, root)

        return mapping(self.once("lsm", read))

    def _data_root(self) -> str | None:
        """Return where a running daemon keeps its data; None when it cannot be asked."""
        try:
            found = self.info().get("DockerRootDir")
        except UnreadableError:
            return None
        return found if isinstance(found, str) and found.startswith("/") else None

    def containerd(self) -> Mapping:
        """Return the section ``containerd``. Raises UnreadableError."""

        def read() -> Mapping:
            daemon = self.daemon()
            try:
                version = self.version()
            except UnreadableError:
                version = {}
            return look_access.containerd(
                self.host,
                daemon,
                mapping(self.known_units().get("containerd.service")),
                look_files.containerd_socket(self.host, daemon),
                version,
            )

        return mapping(self.once("containerd", read))

    def api_sockets(self) -> list[str]:
        """Return the paths of the API's unix sockets. Raises UnreadableError."""
        return look_files.api_sockets(self.daemon(), self.known_units())
