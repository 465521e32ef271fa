# Copyright: (c) 2026, the Bulkhead authors
# Apache License 2.0 (see LICENSE)
"""The look: one read-only pass over a Docker host that answers with the *observation*.

Both doors use it: docker_host_info answers with nothing else, docker_host_apply looks once more
after it acted. The document is described by docs/schemas/observation.schema.json.
"""

from __future__ import annotations

import contextlib
import typing

from ansible_collections.bulkhead.hardening.plugins.module_utils import (
    look_containers,
    look_daemon,
    look_engine,
    look_host,
    look_systemd,
)
from ansible_collections.bulkhead.hardening.plugins.module_utils.docker_api import (
    ApiError,
    DockerApi,
)
from ansible_collections.bulkhead.hardening.plugins.module_utils.host import Host
from ansible_collections.bulkhead.hardening.plugins.module_utils.look_common import (
    Mapping,
    Notes,
    UnreadableError,
    capped,
    mapping,
    os_reason,
    sequence,
    text,
    texts,
)
from ansible_collections.bulkhead.hardening.plugins.module_utils.look_kernel import kernel_view

__all__ = ["SCHEMA", "SECTIONS", "check_subset", "daemon_arguments", "kernel_view", "observe"]

SCHEMA = "bulkhead.observation/1"

#: After so many containers in a row that did not answer in time, the others are not asked.
_MAX_SILENT = 3


def observe(
    host: Host,
    subset: typing.Sequence[str] | None = None,
    *,
    volume_sizes: bool = False,
    timeout: float = 60.0,
) -> dict[str, typing.Any]:
    """Look at a host and return its observation. Changes nothing, and raises only for ``subset``.

    :param subset: the sections to gather; None, or ``all`` among them, means every one. Sections
        that are not asked for are absent from the answer. One that could not be read is None, and
        ``unread`` says why.
    :param volume_sizes: ask the daemon for the size of each volume, which walks the disk.
    :param timeout: seconds to wait for each answer of the daemon and of systemd.
    :raises ValueError: a name that is no section; the message names the valid ones.
    """
    names = check_subset(subset)
    look = _Look(host, volume_sizes, timeout)
    answer: Mapping = {"schema": SCHEMA, "collected_at": host.now()}
    for name in names:
        answer[name] = _gather(look, name)
    for item, reason in look.daemon_notes():
        look.notes.add("engine", item, reason)
    answer["unread"] = look.notes.rows
    answer["api_calls"] = look.api_calls
    document = capped(answer)
    assert isinstance(document, dict)
    return document


def check_subset(subset: typing.Sequence[str] | None) -> list[str]:
    """Return the sections to gather, in their order. Raises ValueError for an unknown one."""
    wanted = list(subset) if subset else ["all"]
    unknown = sorted(set(wanted) - set(SECTIONS) - {"all"})
    if unknown:
        raise ValueError(
            "gather_subset: %s is not a section; choose from all, %s"
            % (", ".join(unknown), ", ".join(SECTIONS))
        )
    return list(SECTIONS) if "all" in wanted else [name for name in SECTIONS if name in wanted]


def daemon_arguments(host: Host, timeout: float = 60.0) -> list[str]:
    """Return the daemon's arguments, without the program: those of the process, or of its unit.

    With all secrets in them: not for any answer. Empty when there is no daemon to be found.
    """
    words = _Look(host, False, timeout).daemon().words
    return [word.text for word in words[1:]]


def _gather(look: _Look, name: str) -> typing.Any:
    """Run one collector. Whatever goes wrong in it costs its section, not the look."""
    try:
        return _COLLECTORS[name](look)
    except UnreadableError as exc:
        look.notes.add(name, None, str(exc))
    except OSError as exc:
        look.notes.add(name, None, os_reason(exc))
    except Exception as exc:  # what a host says may have any shape
        # The text of such an error may quote what was read, so only its kind goes out.
        look.notes.add(name, None, "unexpected answer (%s)" % type(exc).__name__)
    return None


class _Look:
    """One pass: reads on demand what several collectors need, each thing once."""

    def __init__(self, host: Host, volume_sizes: bool, timeout: float) -> None:
        self.host = host
        self.volume_sizes = volume_sizes
        self.timeout = timeout
        self.notes = Notes()
        self._api: DockerApi | None = None
        self._answers: dict[str, typing.Any] = {}

    def _once(self, name: str, read: typing.Callable[[], typing.Any]) -> typing.Any:
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
                raise UnreadableError("systemd does not run this host")
            return look_systemd.show_units(self.host, self.timeout)

        found = self._once("units", read)
        assert isinstance(found, dict)
        return found

    def daemon(self) -> look_daemon.Daemon:
        """Return the daemon. Raises UnreadableError when systemd should answer and does not."""

        def read() -> look_daemon.Daemon:
            units = self.units() if look_systemd.is_init(self.host) else None
            return look_daemon.Daemon(self.host, units, self.timeout)

        found = self._once("daemon", read)
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
                return mapping(self._api.get("/version"))
            except ApiError as exc:
                reason = self.failure(exc)
                daemon.reason = "%s: %s" % (daemon.socket, reason)
                if not isinstance(exc.__cause__, PermissionError):
                    daemon.state = "broken"
                raise UnreadableError(daemon.reason) from exc

        return mapping(self._once("version", read))

    def ask(self, path: str, **query: typing.Any) -> typing.Any:
        """Return the answer to one GET request, asked once. Raises UnreadableError."""

        def read() -> typing.Any:
            try:
                return self.api().get(path, **query)
            except ApiError as exc:
                raise UnreadableError("GET %s: %s" % (path, self.failure(exc))) from exc

        return self._once("GET %s %s" % (path, sorted(query.items())), read)

    def failure(self, exc: ApiError) -> str:
        """Return why a request failed, without the words of the daemon: they may quote anything."""
        if exc.status:
            return "status %d" % exc.status
        if isinstance(exc.__cause__, TimeoutError) or "timed out" in str(exc.__cause__):
            return "no answer within %g s" % self.timeout
        if isinstance(exc.__cause__, OSError):
            return os_reason(exc.__cause__)
        return "no valid answer"

    def summaries(self) -> list[Mapping]:
        """Return the list of all containers, as the API summarises them."""
        return [mapping(item) for item in sequence(self.ask("/containers/json", all=1))]

    def images(self) -> list[Mapping]:
        """Return the list of images."""
        return [mapping(item) for item in sequence(self.ask("/images/json", digests=1))]

    def networks(self) -> list[Mapping]:
        """Return the list of networks."""
        return [mapping(item) for item in sequence(self.ask("/networks"))]


# -- collectors --------------------------------------------------------------------------------
def _os(look: _Look) -> Mapping:
    return look_host.system(look.host, look.notes, look.timeout)


def _engine(look: _Look) -> Mapping:
    daemon = look.daemon()
    version: Mapping = {}
    info: Mapping = {}
    bridge: Mapping = {}
    try:
        version = look.version()
    except UnreadableError as exc:
        if daemon.callable:  # otherwise there was nothing to ask, which the state says
            look.notes.add("engine", "info", str(exc))
    else:
        info, bridge = _info_and_bridge(look)
    section = look_engine.engine(
        daemon, version, info, bridge, look_engine.config_loaded(look.host, daemon)
    )
    if section["version"] is None:
        section["version"] = look_engine.binary_version(look.host, daemon.binary, look.timeout)
        if daemon.binary and section["version"] is None:
            look.notes.add("engine", "version", "%s --version says nothing" % daemon.binary)
    return section


def _info_and_bridge(look: _Look) -> tuple[Mapping, Mapping]:
    info: Mapping = {}
    bridge: Mapping = {}
    try:
        info = mapping(look.ask("/info"))
    except UnreadableError as exc:
        look.notes.add("engine", "info", str(exc))
    try:
        bridge = next((net for net in look.networks() if net.get("Name") == "bridge"), {})
    except UnreadableError as exc:
        look.notes.add("engine", "bridge", str(exc))
    return info, bridge


def _daemon_config(look: _Look) -> Mapping:
    config = look.daemon().config
    if config.state == "unreadable":
        look.notes.add("daemon_config", config.path, config.reason or "")
    return config.observation(look.host)


def _containers(look: _Look) -> list[Mapping]:
    summaries = look.summaries()
    digests: dict[str, list[str]] = {}
    try:
        digests = {text(item.get("Id")): texts(item.get("RepoDigests")) for item in look.images()}
    except UnreadableError as exc:
        look.notes.add("containers", "image_digest", str(exc))
    found = []
    silent = 0
    for summary in summaries:
        identifier = text(summary.get("Id"))
        if silent >= _MAX_SILENT:
            look.notes.add("containers", identifier, "not asked: the daemon stopped answering")
            continue
        try:
            row = _container(look, identifier, digests)
            silent = 0
        except ApiError as exc:
            silent = silent + 1 if not exc.status else 0
            look.notes.add("containers", identifier, look.failure(exc))
            continue
        if row is not None:
            found.append(row)
    return found


def _container(look: _Look, identifier: str, digests: dict[str, list[str]]) -> Mapping | None:
    """Return one container; None when it vanished. Raises ApiError when it cannot be inspected."""
    reason = ""
    for _ in range(2):  # a container may end between the question and the look at its process
        try:
            answer = mapping(look.api().get("/containers/%s/json" % identifier))
        except ApiError as exc:
            if exc.status == 404:
                return None
            raise
        row = look_containers.container(answer, digests)
        if row["pid"] is None or row["state"] not in ("running", "paused"):
            return row
        try:
            row["kernel"] = kernel_view(look.host, row["pid"])
            return row
        except (OSError, ValueError, KeyError, IndexError) as exc:
            reason = os_reason(exc) if isinstance(exc, OSError) else type(exc).__name__
    look.notes.add("containers", identifier, "/proc/%d: %s" % (row["pid"], reason))
    return row


def _images(look: _Look) -> list[Mapping]:
    return [look_containers.image(item) for item in look.images()]


def _volumes(look: _Look) -> list[Mapping]:
    sizes: dict[str, int | None] = {}
    if look.volume_sizes:
        usage = sequence(mapping(look.ask("/system/df", type="volume")).get("Volumes"))
        sizes = look_containers.volume_sizes([mapping(item) for item in usage])
    rows = sequence(mapping(look.ask("/volumes")).get("Volumes"))
    return [look_containers.volume(mapping(item), sizes) for item in rows]


def _networks(look: _Look) -> list[Mapping]:
    attached = look_containers.attachments(look.summaries())
    return [look_containers.network(item, attached) for item in look.networks()]


def _files(look: _Look) -> list[Mapping]:
    units: dict[str, Mapping] = {}
    try:
        units = look.units()
    except UnreadableError as exc:
        look.notes.add("files", "units", str(exc))
    root = None
    with contextlib.suppress(UnreadableError):  # the configured data root has to do
        root = text(mapping(look.ask("/info")).get("DockerRootDir"))
    return look_host.files(look.host, look.notes, look.daemon(), units, root)


_COLLECTORS: dict[str, typing.Callable[[_Look], typing.Any]] = {
    "os": _os,
    "engine": _engine,
    "daemon_config": _daemon_config,
    "containers": _containers,
    "images": _images,
    "volumes": _volumes,
    "networks": _networks,
    "files": _files,
    "units": lambda look: look.units(),
    "scope_dropins": lambda look: look_host.scope_dropins(look.host, look.notes),
    "subids": lambda look: look_host.subids(look.host),
    "users": lambda look: look_host.users(look.host),
    "lsm": lambda look: look_host.security_modules(look.host, look.notes),
    "sysctls": lambda look: look_host.sysctls(look.host),
    "modules": lambda look: look_host.modules(look.host, look.notes),
    "bulkhead": lambda look: look_host.bulkhead(look.host, look.notes),
}

#: Every section of an observation, in the order in which they are gathered.
SECTIONS: tuple[str, ...] = tuple(_COLLECTORS)
