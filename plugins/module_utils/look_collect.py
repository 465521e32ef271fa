# Copyright: (c) 2026, the Bulkhead authors
# Apache License 2.0 (see LICENSE)
"""The collectors of a look that put several sources together; each returns one section.

What is one call to a module of its own stands in look.py.
"""

from __future__ import annotations

import typing

from ansible_collections.bulkhead.hardening.plugins.module_utils import (
    look_access,
    look_auditd,
    look_cgroups,
    look_containers,
    look_effective,
    look_engine,
    look_files,
    look_images,
    look_networks,
    look_swarm,
)
from ansible_collections.bulkhead.hardening.plugins.module_utils.docker_api import ApiError
from ansible_collections.bulkhead.hardening.plugins.module_utils.look_common import (
    Mapping,
    UnreadableError,
    mapping,
    os_reason,
    reason_of,
    sequence,
    text,
    texts,
)
from ansible_collections.bulkhead.hardening.plugins.module_utils.look_daemon import Daemon
from ansible_collections.bulkhead.hardening.plugins.module_utils.look_kernel import (
    Reference,
    kernel_view,
    read_status,
)
from ansible_collections.bulkhead.hardening.plugins.module_utils.look_mounts import (
    Mounts,
    control_sockets,
)
from ansible_collections.bulkhead.hardening.plugins.module_utils.look_pass import Pass
from ansible_collections.bulkhead.hardening.plugins.module_utils.look_processes import processes
from ansible_collections.bulkhead.hardening.plugins.module_utils.look_sockets import Listening

#: After so many containers in a row that did not answer in time, the others are not asked.
_MAX_SILENT = 3

#: Architectures as images name them, by the kernel's name.
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "i686": "386"}


# -- the engine ------------------------------------------------------------------------------------
def engine(look: Pass) -> Mapping:
    """Return the section ``engine``; with details also what is in effect of its options."""
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
    loaded = look_engine.config_loaded(look.host, daemon, info)
    section = look_engine.engine(daemon, version, info, bridge, loaded)
    section["unread_hosts"] = [] if loaded is not False else _unread_hosts(look, daemon)
    root = daemon.data_root
    section["data_root"] = {"path": root, "resolved": look.host.resolve(root)}
    section["swarm_node"] = look_swarm.is_node(look.host, info, root)
    if section["version"] is None:
        section["version"] = look_engine.binary_version(look.host, daemon.binary, look.timeout)
        if daemon.binary and section["version"] is None:
            look.notes.add("engine", "version", "%s --version says nothing" % daemon.binary)
    if look.details:
        section.update(_engine_details(look, section, version, info))
    return section


def _unread_hosts(look: Pass, daemon: Daemon) -> list[str] | None:
    """Return the addresses in daemon.json on which the running daemon does not listen; None: unknown."""
    hosts = daemon.config.values.get("hosts")
    if not isinstance(hosts, list) or daemon.pid is None:
        return []
    try:
        rows = _sockets(look, daemon.pid).of([daemon.pid])
    except OSError as exc:
        look.notes.add("engine", "unread_hosts", os_reason(exc))
        return None
    found = [look_effective.address(url, "file") for url in texts(hosts)]
    return [row["address"] for row in found if not look_effective.listened(row, rows)]


def _sockets(look: Pass, pid: int) -> Listening:
    """Return the sockets of the daemon's network namespace, read once."""
    found: Listening = look.once("daemon_sockets", lambda: Listening(look.host, pid))
    return found


def _info_and_bridge(look: Pass) -> tuple[Mapping, Mapping]:
    info: Mapping = {}
    bridge: Mapping = {}
    try:
        info = look.info()
    except UnreadableError as exc:
        look.notes.add("engine", "info", str(exc))
    try:
        bridge = next((net for net in look.networks() if net.get("Name") == "bridge"), {})
    except UnreadableError as exc:
        look.notes.add("engine", "bridge", str(exc))
    return info, bridge


def _engine_details(look: Pass, section: Mapping, version: Mapping, info: Mapping) -> Mapping:
    daemon, units = look.daemon(), look.known_units()
    socket_unit = look_access.socket_unit(units)
    found = look_effective.effective(
        daemon,
        look_effective.Engine(
            section["options"],
            daemon.state == "running" and section["config_loaded"] is True,
            section["version"],
            info,
            look.system()["cgroup_version"],
        ),
    )
    sockets = addresses = None
    try:
        sockets = look.once("listeners", lambda: _listen(look, found))
    except (OSError, UnreadableError) as exc:
        look.notes.add("engine", "api_addresses", reason_of(exc))
    if sockets is not None or found["hosts"]["value"] is not None:
        addresses = look_effective.api_addresses(daemon, socket_unit, sockets)
    owner = daemon.places
    return {
        "owner": {"user": owner.user or "root", "uid": owner.uid, "gid": owner.gid},
        "effective": found,
        "tls": look_effective.tls_state(found),
        "api_addresses": addresses,
        "newer_files": look_effective.newer_files(
            look.host,
            daemon,
            mapping(units.get("docker.service")),
            section["config_loaded"],
        ),
        "binary_replaced": look_effective.binary_replaced(look.host, daemon),
        "docker_proxies": _proxies(look),
        "components": look_effective.components(version),
    }


def _proxies(look: Pass) -> int | None:
    """Count the processes by which the daemon publishes ports; None: it does not run."""
    daemon = look.daemon()
    if daemon.pid is None:
        return None
    count = 0
    for pid in look_access.children(look.host, daemon.pid):
        try:
            count += read_status(look.host, pid).get("Name") == "docker-proxy"
        except OSError:  # it ended
            continue
    return count


def listeners(look: Pass) -> list[Mapping]:
    """Return the section ``listeners``: the sockets on which Docker's own processes listen."""
    if not look.details:
        raise UnreadableError("it needs the group details")
    return typing.cast("list[Mapping]", look.once("listeners", lambda: _listen(look, None)))


def _listen(look: Pass, found: Mapping | None) -> list[Mapping]:
    daemon = look.daemon()
    if daemon.pid is None:
        return []
    if found is None:
        found = engine(look)["effective"]
    addresses = look_effective.api_addresses(
        daemon, look_access.socket_unit(look.known_units()), None
    )
    table = _sockets(look, daemon.pid)
    served = _served(look) if found["hosts"]["value"] is None else None
    rows = []
    for name, pid in (("dockerd", daemon.pid), ("containerd", look.containerd()["pid"])):
        for row in table.of([pid]) if pid else []:
            row = {"process": name, **row}
            row["purpose"] = look_effective.purpose(row, addresses, found, served)
            rows.append(row)
    return sorted(rows, key=lambda row: (row["process"], str(row["path"]), row["port"] or 0))


def _served(look: Pass) -> look_effective.Served:
    """Return what dockerd listens for beside its API, as far as it tells."""
    summaries: list[Mapping] = []
    services: list[Mapping] = []
    swarm = False
    try:
        swarm = mapping(look.info().get("Swarm")).get("LocalNodeState") == "active"
        summaries = look.summaries()
        services = _manager_lists(look).get("services") or []
    except UnreadableError as exc:
        look.notes.add("listeners", "published", str(exc))
    return look_effective.Served(swarm, look_effective.published(summaries, services))


# -- containers --------------------------------------------------------------------------------------
def containers(look: Pass) -> list[Mapping]:
    """Return the section ``containers``: all of them, those too that could not be read."""
    summaries = look.summaries()
    around = _surroundings(look)
    reference = Reference(look.host)
    found = []
    silent = 0
    for summary in summaries:
        identifier = text(summary.get("Id"))
        if silent >= _MAX_SILENT:
            reason = "not asked: the daemon stopped answering"
        else:
            try:
                row = _container(look, identifier, around, reference)
                silent = 0
                if row is not None:
                    found.append(row)
                continue
            except ApiError as exc:
                silent = silent + 1 if not exc.status else 0
                reason = look.failure(exc)
            except Exception as exc:  # what the daemon says of one may have any shape
                reason = "unexpected answer (%s)" % type(exc).__name__
        look.notes.add("containers", identifier, reason)
        if look.details:
            found.append(look_containers.failed(summary, reason))
    look_containers.resolve_modes(found)
    if look.writable_layers:
        _add_layer_writes(look, found)
    if look.details:
        _add_processes(look, found)
    return found


def _surroundings(look: Pass) -> look_containers.Surroundings:
    daemon = look.daemon()
    digests: dict[str, list[str]] = {}
    try:
        digests = {text(item.get("Id")): texts(item.get("RepoDigests")) for item in look.images()}
    except UnreadableError as exc:
        look.notes.add("containers", "image_digest", str(exc))
    volumes: dict[str, Mapping] | None = None
    try:
        volumes = {text(item.get("Name")): item for item in look.volumes()}
    except UnreadableError as exc:
        look.notes.add("containers", "mounts", str(exc))
    sockets = control_sockets(
        look.host, look.api_sockets(), look_files.containerd_socket(look.host, daemon)
    )
    profiles = look.security_modules()["apparmor"]["profiles"]
    return look_containers.Surroundings(
        mounts=Mounts(look.host, sockets, volumes, _data_root(look)),
        digests=digests,
        ulimits=mapping(daemon.option("default-ulimits")),
        profiles=frozenset(profiles) if profiles is not None else None,
    )


def _data_root(look: Pass) -> str:
    """Return where the daemon keeps its data: as it says itself, otherwise as configured."""
    try:
        return look_engine.data_root(look.info()) or look.daemon().data_root
    except UnreadableError:
        return look.daemon().data_root


def _container(
    look: Pass, identifier: str, around: look_containers.Surroundings, reference: Reference
) -> Mapping | None:
    """Return one container; None when it vanished. Raises ApiError when it cannot be inspected."""
    reason = ""
    for _ in range(2):  # a container may end between the question and the look at its process
        try:
            answer = look.api().document("/containers/%s/json" % identifier)
        except ApiError as exc:
            if exc.status == 404:
                return None
            raise
        row = look_containers.container(answer, around)
        if look.details:
            row.update(processes=None, listening=None)
        if row["pid"] is None or row["state"] not in ("running", "paused"):
            return row
        try:
            row["kernel"] = kernel_view(look.host, row["pid"], reference)
            return row
        except (OSError, ValueError, KeyError, IndexError) as exc:
            reason = os_reason(exc) if isinstance(exc, OSError) else type(exc).__name__
    item = "/proc/%d" % row["pid"]
    look.notes.add("containers", identifier, "%s: %s" % (item, reason))
    row["unread"].append({"item": item, "reason": reason})
    return row


def _add_layer_writes(look: Pass, rows: list[Mapping]) -> None:
    """Add what each running container wrote outside of its mounts; None where that is not known."""
    for row in rows:
        row["layer_writes"] = None
        if row["kernel"] is None:
            continue
        try:
            answer = look.api().rows("/containers/%s/changes" % row["id"])
        except ApiError as exc:
            look.notes.add("containers", "%s/changes" % row["id"], look.failure(exc))
            continue
        destinations = [mount["destination"] for mount in row["config"]["mounts"]]
        row["layer_writes"] = look_containers.layer_writes(answer, destinations)


def _add_processes(look: Pass, rows: list[Mapping]) -> None:
    """Add the processes of each running container and, in the host's network, its sockets."""
    for row in rows:
        if row["kernel"] is None:
            row.update(processes=None, listening=None)
            continue
        try:
            membership = look_cgroups.Membership(
                look.host.read_text("/proc/%d/cgroup" % row["pid"])
            )
            pids, complete = look_cgroups.members(look.host, membership)
            row["processes"], missing = processes(look.host, pids, row["kernel"])
            if not complete:
                missing = "it has more than %d control groups" % look_cgroups.MAX_GROUPS
            if missing is not None:
                row["unread"].append({"item": "processes", "reason": missing})
        except (OSError, ValueError) as exc:
            _unread(row, "processes", exc)
            continue
        if "net" not in (row["kernel"]["host_namespaces"] or ()):
            continue
        try:
            if not complete:
                raise ValueError(missing)
            table: Listening = look.once("sockets", lambda: Listening(look.host, 1))
            row["listening"] = [
                {k: item[k] for k in ("protocol", "address", "port", "address_class")}
                for item in table.of(pids)
                if item["protocol"] != "unix"
            ]
        except (OSError, ValueError) as exc:
            _unread(row, "listening", exc)


def _unread(row: Mapping, item: str, exc: Exception) -> None:
    """Note in the row of a container that a part of it could not be read."""
    row["unread"].append({"item": item, "reason": reason_of(exc)})


# -- images ------------------------------------------------------------------------------------------
def images(look: Pass) -> list[Mapping]:
    """Return the section ``images``; with details also what each sets and how it was built."""
    used: dict[str, int] = {}
    for summary in look.summaries():
        identifier = text(summary.get("ImageID"))
        used[identifier] = used.get(identifier, 0) + 1
    rows = [look_images.image(item, used) for item in look.images()]
    if look.details:
        _add_contents(look, rows)
    return rows


def _add_contents(look: Pass, rows: list[Mapping]) -> None:
    info = look.info()
    store = look_images.Store(
        look.host,
        text(info.get("DockerRootDir")),
        text(info.get("Driver")),
        [look.containerd()["root"]],
    )
    machine = text(info.get("Architecture"))
    documents: dict[str, Mapping] = {}
    for row in rows:
        try:
            document, source = (
                store.config(row["id"], _ARCHITECTURES.get(machine, machine)),
                "store",
            )
        except UnreadableError:
            try:
                document, source = _asked(look, row["id"]), "api"
            except (ApiError, UnreadableError) as exc:
                reason = look.failure(exc) if isinstance(exc, ApiError) else str(exc)
                look.notes.add("images", row["id"], reason)
                row.update(look_images.unreadable(reason))
                continue
        documents[row["id"]] = document
        row.update(look_images.contents(document, source))
    look_images.find_bases(rows, documents)


def _asked(look: Pass, identifier: str) -> Mapping:
    inspect = look.api().document("/images/%s/json" % identifier)
    history = look.api().rows("/images/%s/history" % identifier)
    return look_images.asked(inspect, history)


# -- volumes, networks, swarm --------------------------------------------------------------------------
def volumes(look: Pass) -> list[Mapping]:
    """Return the section ``volumes``."""
    sizes: dict[str, int | None] = {}
    if look.volume_sizes:
        usage = sequence(look.document("/system/df", type="volume").get("Volumes"))
        sizes = look_networks.volume_sizes([mapping(item) for item in usage])
    used = look_networks.users_of_volumes(look.summaries())
    return [look_networks.volume(look.host, item, sizes, used) for item in look.volumes()]


def networks(look: Pass) -> list[Mapping]:
    """Return the section ``networks``."""
    attached = look_networks.attachments(look.summaries())
    return [look_networks.network(item, attached) for item in look.networks()]


def swarm(look: Pass) -> Mapping:
    """Return the section ``swarm``."""
    return look_swarm.swarm(look.host, look.notes, look.info(), _manager_lists(look))


def services(look: Pass) -> list[Mapping]:
    """Return the section ``services``: those of the swarm, which only its managers know.

    :raises UnreadableError: a manager did not tell.
    """
    rows = _manager_lists(look).get("services", [])
    if rows is None:
        raise UnreadableError("this manager did not list them")
    return [look_swarm.service(row) for row in rows]


def _manager_lists(look: Pass) -> dict[str, list[Mapping] | None]:
    """Return what only a manager answers; nothing on other nodes."""
    node = mapping(look.info().get("Swarm"))
    found: dict[str, list[Mapping] | None] = {}
    if node.get("LocalNodeState") != "active" or node.get("ControlAvailable") is not True:
        return found
    for name, path in look_swarm.LISTS.items():
        try:
            found[name] = look.rows(path)
        except UnreadableError as exc:
            look.notes.add("swarm", name, str(exc))
            found[name] = None
    return found


# -- files and what watches them -----------------------------------------------------------------------
def files(look: Pass) -> list[Mapping]:
    """Return the section ``files``."""
    units: dict[str, Mapping] = {}
    try:
        units = look.daemon_units()
    except UnreadableError as exc:
        look.notes.add("files", "units", str(exc))
    return look_files.files(
        look.host, look.notes, look.daemon(), units, _root(look), look.tls_files
    )


def _root(look: Pass) -> str | None:
    """Return the data root that the running daemon uses; None: the configured one has to do."""
    try:
        return text(look.info().get("DockerRootDir")) or None
    except UnreadableError:
        return None


def storage(look: Pass) -> list[Mapping]:
    """Return the section ``storage``."""
    in_use = False
    try:
        status = [texts(row) for row in sequence(look.info().get("DriverStatus"))]
        in_use = ["driver-type", "io.containerd.snapshotter.v1"] in status
    except UnreadableError as exc:
        look.notes.add("storage", "containerd_root", str(exc))
    return look_access.storage(
        look.host, look.notes, _data_root(look), look.containerd()["root"], in_use
    )


def audit(look: Pass) -> Mapping:
    """Return the section ``audit``."""
    objects = look_access.audit_objects(
        look.daemon(),
        look.known_units(),
        look.containerd(),
        look.api_sockets(),
        look_access.program(look.host, "runc"),
    )
    return look_auditd.audit(look.host, look.timeout, look_auditd.watched(look.host, objects))


def docker_group(look: Pass) -> Mapping:
    """Return the section ``docker_group``."""
    return look_access.docker_group(
        look.host,
        look.daemon(),
        look_access.socket_unit(look.known_units()),
        look.users(),
        look.timeout,
    )


def client(look: Pass) -> Mapping:
    """Return the section ``client``."""
    service = mapping(look.known_units().get("docker.service"))
    return look_access.client(look.host, texts(service.get("environment_files")))


def daemons(look: Pass) -> list[Mapping]:
    """Return the section ``daemons``."""
    return look_access.daemons(look.host, look.notes, look.daemon(), look.users())
