# Copyright: (c) 2026, the Bulkhead authors
# Apache License 2.0 (see LICENSE)
"""Who and what else has a hand in Docker: the socket's group, clients, containerd, other daemons.

Also where the data is kept, and what audit rules should watch.
"""

from __future__ import annotations

import posixpath
import re
import typing

from ansible_collections.bulkhead.hardening.plugins.module_utils import look_cgroups
from ansible_collections.bulkhead.hardening.plugins.module_utils.host import Host
from ansible_collections.bulkhead.hardening.plugins.module_utils.look_auditd import Watched
from ansible_collections.bulkhead.hardening.plugins.module_utils.look_common import (
    Mapping,
    Notes,
    UnreadableError,
    mapping,
    os_reason,
    sequence,
    text,
    texts,
)
from ansible_collections.bulkhead.hardening.plugins.module_utils.look_daemon import (
    PROGRAM,
    Daemon,
    Places,
    start_of,
)
from ansible_collections.bulkhead.hardening.plugins.module_utils.look_kernel import (
    parse_mounts,
    read_status,
)
from ansible_collections.bulkhead.hardening.plugins.module_utils.look_options import parse_flags
from ansible_collections.bulkhead.hardening.plugins.module_utils.look_systemd import Word

#: How many processes are looked at for other daemons.
_MAX_PROCESSES = 20000

_DIRECTORIES = ("/usr/bin", "/usr/sbin", "/usr/local/bin", "/usr/local/sbin", "/opt/bin")


# -- the socket's group ----------------------------------------------------------------------------
def docker_group(
    host: Host, daemon: Daemon, socket_unit: Mapping, accounts: Mapping, timeout: float
) -> Mapping:
    """Return the section ``docker_group``: who may use the daemon's socket by group.

    :param accounts: the section ``users``.
    """
    name, source = _group_name(daemon, socket_unit)
    found: Mapping = {"name": name, "source": source, "resolved_by": "files", "gid": None}
    found["other_sources"] = _other_sources(host)
    named: list[str] = []
    for group in accounts["groups"]:
        if name in (group["name"], str(group["gid"])):
            found["gid"], named = group["gid"], list(group["members"])
            break
    if found["other_sources"]:
        # LDAP and the like: their group may have more members, or exist only there.
        done = host.run(["getent", "group", name], timeout=timeout)
        fields = done.out.strip().split(":")
        if done.rc == 0 and len(fields) == 4 and fields[2].isdigit():
            found.update(gid=int(fields[2]), resolved_by="getent")
            named += [item for item in fields[3].split(",") if item]
    if daemon.places.user is not None:
        # It knows the group by its number inside: on the host that is a subordinate one without members.
        found["gid"], named = _on_host(host, daemon.pid, found["gid"]), []
    found["exists"] = found["gid"] is not None
    # The kernel knows the number alone, and any group of that number brings it along.
    same = [group for group in accounts["groups"] if group["gid"] == found["gid"]]
    found["aliases"] = sorted({group["name"] for group in same} - {name})
    named += [member for group in same for member in group["members"]]
    uids = {user["name"]: user["uid"] for user in accounts["users"]}
    primary = [user["name"] for user in accounts["users"] if user["gid"] == found["gid"]]
    found["members"] = [
        {
            "name": member,
            "uid": uids.get(member),
            "by": _by(member, named, primary),
            "exists": member in uids,
        }
        for member in sorted({*named, *primary})
    ]
    return found


def _on_host(host: Host, pid: int | None, gid: int | None) -> int | None:
    """Return what a group inside of a process's user namespace is on the host; None when nothing."""
    try:
        lines = host.read_text("/proc/%s/gid_map" % pid).splitlines()
    except OSError:
        return None
    for line in lines:
        inside, outside, count = map(int, line.split())
        if gid is not None and inside <= gid < inside + count:
            return outside + gid - inside
    return None


def _group_name(daemon: Daemon, socket_unit: Mapping) -> tuple[str, str]:
    """Return the group that owns the socket by configuration, and what says so."""
    hosts = daemon.option("hosts")
    activated = isinstance(hosts, list) and any(str(item).startswith("fd://") for item in hosts)
    from_unit = text(socket_unit.get("socket_group"))
    if activated and from_unit:  # the unit makes the socket, and the daemon's option does nothing
        return from_unit, "socket_unit"
    option = daemon.option("group")
    if isinstance(option, str) and option:
        return option, "option"
    return "docker", "default"


def _other_sources(host: Host) -> list[str]:
    try:
        content = host.read_text("/etc/nsswitch.conf")
    except OSError:
        return []
    found: list[str] = []
    for line in content.splitlines():
        database, _, sources = line.partition(":")
        if database.strip() in ("passwd", "group"):
            words = re.sub(r"\[[^\]]*\]|#.*", " ", sources).split()
            found += [word for word in words if word not in ("files", "systemd", "compat", *found)]
    return found


def _by(member: str, named: list[str], primary: list[str]) -> str:
    if member in primary:
        return "both" if member in named else "primary"
    return "secondary"


# -- the client ------------------------------------------------------------------------------------
_PACKAGES = ("docker-ce-cli", "docker-cli", "docker.io", "moby-cli")
_TRUST = re.compile(r"\b(DOCKER_CONTENT_TRUST(?:_SERVER)?)\s*=")


def client(host: Host, environment_files: typing.Sequence[str]) -> Mapping:
    """Return the section ``client``: what can be known of Docker's CLI without running it."""
    binary = _first(host, [directory + "/docker" for directory in _DIRECTORIES])
    version, source = None, None
    reason: str | None = "no client is installed"
    if binary:
        version, source, reason = *_package_version(host), None
        if version is None:
            reason = "no package of this system tells, and the client is not run"
    return {
        "binary": binary,
        "version": version,
        "version_source": source,
        "reason": reason,
        "content_trust": _content_trust(host, environment_files),
    }


def _first(host: Host, paths: typing.Sequence[str]) -> str | None:
    for path in paths:
        try:
            if host.lstat(host.resolve(path) or path) is not None:
                return path
        except OSError:
            continue
    return None


def _package_version(host: Host) -> tuple[str | None, str | None]:
    """Return the version of the client's package, from dpkg's database."""
    try:
        content = host.read_text("/var/lib/dpkg/status", 64 * 1024 * 1024)
    except OSError:
        return None, None
    found: dict[str, str] = {}
    for name in _PACKAGES:
        match = re.search(r"^Package: %s\n((?:.+\n)*)" % re.escape(name), content, re.MULTILINE)
        fields = match.group(1) if match else ""
        version = re.search(r"^Version: (?:\d+:)?(\S+)", fields, re.MULTILINE)
        if version and re.search(r"^Status: .* installed$", fields, re.MULTILINE):
            found[name] = version.group(1)
    for name in _PACKAGES:
        if name in found:
            return found[name], "package"
    return None, None


def _content_trust(host: Host, more: typing.Sequence[str]) -> list[Mapping]:
    """Return where the whole system is told to use content trust: files and names, no values."""
    paths = ["/etc/environment", "/etc/profile", "/etc/bash.bashrc", "/etc/bashrc"]
    paths += ["/etc/systemd/system.conf", "/etc/crontab"]
    for directory in (
        *("/etc/profile.d", "/etc/environment.d", "/etc/systemd/system.conf.d", "/etc/cron.d"),
    ):
        try:
            paths += ["%s/%s" % (directory, name) for name in host.listdir(directory)]
        except OSError:
            continue
    found = []
    for path in dict.fromkeys([*paths, *more]):
        try:
            lines = host.read_text(path).splitlines()
        except OSError:
            continue
        names = {
            name for line in lines if line.lstrip()[:1] != "#" for name in _TRUST.findall(line)
        }
        found += [{"path": path, "variable": name} for name in sorted(names)]
    return found


# -- containerd ------------------------------------------------------------------------------------
_SHIMS = ("containerd-shim", "containerd-shim-runc-v1", "containerd-shim-runc-v2")


def containerd(host: Host, daemon: Daemon, unit: Mapping, socket: str, version: Mapping) -> Mapping:
    """Return the section ``containerd``: the one that the daemon uses.

    :param unit: the state of containerd.service. ``socket``: where the daemon finds it.
    :param version: the answer of ``/version``.
    """
    own = daemon.places.user is not None or socket.startswith(("/run/docker/", "/var/run/docker/"))
    pid = None if own else unit.get("main_pid")
    managed = "systemd" if pid else None
    if own:
        pid, managed = _child(host, daemon.pid, "containerd"), "dockerd"
    config_file = "/etc/containerd/config.toml"
    root = "/var/lib/containerd"
    if own:
        config_file = posixpath.dirname(socket) + "/containerd.toml"
        root = posixpath.join(daemon.data_root, "containerd/daemon")
    words = _arguments(host, pid)
    flags = _flags(words)
    config_file = flags.get("config") or flags.get("c") or config_file
    settings = _toml(host, config_file)
    binary = _first(host, [word for word in words[:1] if word.startswith("/")]) or _first(
        host, [directory + "/containerd" for directory in _DIRECTORIES]
    )
    components = [mapping(item) for item in sequence(version.get("Components"))]
    versions = [
        text(item.get("Version")) for item in components if item.get("Name") == "containerd"
    ]
    return {
        "pid": pid,
        "version": versions[0] if versions else None,
        "binary": binary,
        "managed_by": managed,
        "config_file": config_file,
        "config_exists": _first(host, [config_file]) is not None,
        "socket": socket,
        "root": flags.get("root") or settings.get("root") or root,
        "shims": [path for path in (program(host, name) for name in _SHIMS) if path],
    }


def program(host: Host, name: str) -> str | None:
    """Return where a program is in the usual directories; None when it is in none."""
    return _first(host, ["%s/%s" % (directory, name) for directory in _DIRECTORIES])


def _child(host: Host, parent: int | None, name: str) -> int | None:
    if parent is None:
        return None
    for pid in children(host, parent):
        try:
            if read_status(host, pid).get("Name") == name:
                return pid
        except OSError:
            continue
    return None


def children(host: Host, parent: int) -> list[int]:
    """Return the children of a process, of all its threads; an empty list when none can be read."""
    base = "/proc/%d/task" % parent
    found: list[int] = []
    try:
        for thread in host.listdir(base):
            listed = host.read_text("%s/%s/children" % (base, thread))
            found += [int(word) for word in listed.split() if word.isdigit()]
    except OSError:  # a thread ended, or the kernel has no such file
        pass
    return sorted(set(found))


def _arguments(host: Host, pid: int | None) -> list[str]:
    if not pid:
        return []
    try:
        raw = host.read_bytes("/proc/%d/cmdline" % pid)
    except OSError:
        return []
    return [item.decode("utf-8", "replace") for item in raw.split(b"\0")[:-1]]


def _flags(words: list[str]) -> dict[str, str]:
    """Return the flags of containerd's command line: ``--name value``, ``--name=value``."""
    found: dict[str, str] = {}
    for position, word in enumerate(words):
        match = re.match(r"--?([a-z][a-z-]*)(?:=(.*))?\Z", word)
        if match:
            value = match.group(2)
            following = words[position + 1 : position + 2]
            found[match.group(1)] = value if value is not None else (following or [""])[0]
    return found


def _toml(host: Host, path: str) -> dict[str, str]:
    """Return ``root`` of containerd's configuration file, if it says one.

    A reader for this line alone: the hosts' Python may have none for TOML.
    """
    found: dict[str, str] = {}
    try:
        content = host.read_text(path)
    except OSError:
        return found
    for line in content.splitlines():
        if line.lstrip().startswith("["):
            break  # it stands above all tables
        setting = re.match(r"\s*root\s*=\s*[\"']([^\"']*)[\"']", line)
        if setting:
            found["root"] = setting.group(1)
    return found


# -- other daemons -----------------------------------------------------------------------------
def daemons(host: Host, notes: Notes, daemon: Daemon, accounts: Mapping) -> list[Mapping]:
    """Return the section ``daemons``: the Docker daemons beside the system's own.

    They are found by the program file of processes. Nobody connects to their sockets, which might
    start something.
    """
    return _running(host, notes, daemon.pid, accounts)


def _running(host: Host, notes: Notes, known: int | None, accounts: Mapping) -> list[Mapping]:
    found = []
    for pid in _processes(host):
        if pid == known:
            continue
        try:
            exe = host.readlink("/proc/%d/exe" % pid)
        except OSError:  # a thread of the kernel, or gone
            continue
        if posixpath.basename(re.sub(r" \(deleted\)\Z", "", exe)) != PROGRAM:
            continue
        try:
            found.append(_daemon(host, pid, exe, accounts))
        except (OSError, ValueError) as exc:
            reason = os_reason(exc) if isinstance(exc, OSError) else "unexpected shape"
            notes.add("daemons", "/proc/%d" % pid, reason)
    return found


def rootless(host: Host, notes: Notes, user: str, accounts: Mapping) -> tuple[Places, int]:
    """Return where the rootless daemon of a user is, and its process.

    :param accounts: the section ``users``.
    :raises UnreadableError: there is no such user, or no daemon of theirs that can be read.
    """
    gids = {item["uid"]: item["gid"] for item in accounts["users"] if item["name"] == user}
    row = next(
        (
            row
            for row in _running(host, notes, None, accounts)
            if row["kind"] == "rootless" and row["uid"] in gids
        ),
        None,
    )
    if row is None:
        raise UnreadableError("no rootless daemon of a user %s runs" % user)
    own = _directories(host, row["pid"], row["uid"])
    if not own.home:
        raise UnreadableError("the environment of %s's daemon does not tell its home" % user)
    places = Places(
        user=user,
        uid=row["uid"],
        gid=gids[row["uid"]],
        socket=row["socket"],
        config=row["config_file"],
        data_root=row["data_root"],
        certificates=own.config + "/docker/certs.d",
        tls=own.home + "/.docker",
        containerd=own.runtime + "/docker/containerd/containerd.sock",
        environment=(),
    )
    return places, row["pid"]


def _processes(host: Host) -> list[int]:
    return sorted(int(name) for name in host.listdir("/proc") if name.isdigit())[:_MAX_PROCESSES]


def _daemon(host: Host, pid: int, exe: str, accounts: Mapping) -> Mapping:
    uid = int(read_status(host, pid)["Uid"].split()[1])
    membership = look_cgroups.Membership(host.read_text("/proc/%d/cgroup" % pid))
    container = membership.container()
    mapped = host.read_text("/proc/%d/uid_map" % pid).split() != ["0", "0", "4294967295"]
    kind = "container" if container else "rootless" if mapped and uid != 0 else "other"
    user = next((item["name"] for item in accounts["users"] if item["uid"] == uid), None)
    settings, _ = parse_flags([Word(item, "flag", "") for item in _arguments(host, pid)[1:]])
    row: Mapping = {"kind": kind, "pid": pid, "uid": uid, "user": user, "container": container}
    row.update(binary=exe, started_at=start_of(host, pid))
    row.update(dict.fromkeys(("socket", "socket_mode", "socket_uid", "config_file")))
    row.update(dict.fromkeys(("config_exists", "data_root")))
    if kind == "container":
        return row  # its paths are not the host's
    own = _directories(host, pid, uid)
    if kind == "other":
        own = _Directories("/root", "/var/run", "/etc", "/var/lib")
    config = _flags(_arguments(host, pid)).get("config-file")
    row["config_file"] = config or (own.config + "/docker/daemon.json" if own.config else None)
    root = settings["data-root"].value if "data-root" in settings else None
    row["data_root"] = root or (own.data + "/docker" if own.data else None)
    hosts = texts(settings["hosts"].value) if "hosts" in settings else []
    paths = [item[len("unix://") :] for item in hosts if item.startswith("unix://")]
    row["socket"] = (paths or [own.runtime + "/docker.sock"])[0]
    _add_files(host, row)
    return row


class _Directories(typing.NamedTuple):
    """A user's directories; empty when they are not known."""

    home: str
    runtime: str
    config: str
    data: str


def _directories(host: Host, pid: int, uid: int) -> _Directories:
    environment = _environment(host, pid)
    home = environment.get("HOME") or ("/root" if uid == 0 else "")
    return _Directories(
        home,
        environment.get("XDG_RUNTIME_DIR") or "/run/user/%d" % uid,
        environment.get("XDG_CONFIG_HOME") or (home and home + "/.config"),
        environment.get("XDG_DATA_HOME") or (home and home + "/.local/share"),
    )


def _environment(host: Host, pid: int) -> dict[str, str]:
    """Return the variables that name a user's directories; others are not kept."""
    wanted = ("HOME", "XDG_RUNTIME_DIR", "XDG_CONFIG_HOME", "XDG_DATA_HOME")
    found = {}
    raw = host.read_bytes("/proc/%d/environ" % pid).decode("utf-8", "replace")
    for item in raw.split("\0"):
        name, _, value = item.partition("=")
        if name in wanted and value.startswith("/"):
            found[name] = value.rstrip("/")
    return found


def _add_files(host: Host, row: Mapping) -> None:
    status = host.lstat(row["socket"]) if row["socket"] else None
    if status is not None:
        row["socket_mode"] = "%04o" % (status.st_mode & 0o7777)
        row["socket_uid"] = status.st_uid
    if row["config_file"]:
        row["config_exists"] = host.lstat(row["config_file"]) is not None


# -- where the data is kept --------------------------------------------------------------------------
def storage(
    host: Host, notes: Notes, data_root: str, containerd_root: str, in_use: bool
) -> list[Mapping]:
    """Return the section ``storage``.

    :param in_use: the images are kept by containerd.
    """
    try:
        mounts = parse_mounts(host.read_text("/proc/1/mountinfo"))
    except OSError as exc:
        notes.add("storage", "/proc/1/mountinfo", os_reason(exc))
        mounts = []
    found = []
    for what, path, used in (
        ("data_root", data_root, True),
        ("containerd_root", containerd_root, in_use),
    ):
        real = host.resolve(path) or path
        status = host.lstat(real)
        above = host.lstat(posixpath.dirname(real))
        row: Mapping = {"what": what, "path": path, "resolved": real}
        row.update(exists=status is not None, used=used)
        row.update(separate=None, mount_point=None, filesystem=None)
        if status is not None and above is not None:
            row["separate"] = status.st_dev != above.st_dev
        within = [item for item in mounts if (real + "/").startswith(item.path.rstrip("/") + "/")]
        if within and status is not None:
            # the last of the longest: it hides the others
            mount = max(enumerate(within), key=lambda item: (len(item[1].path), item[0]))[1]
            row.update(mount_point=mount.path, filesystem=mount.filesystem)
        found.append(row)
    return found


# -- what audit rules should watch -------------------------------------------------------------------
def audit_objects(
    daemon: Daemon, units: dict[str, Mapping], runtime: Mapping, sockets: typing.Sequence[str],
    runc: str | None,
) -> list[Watched]:  # fmt: skip
    """Return what section 1.1 of the CIS Docker Benchmark 1.8.0 wants watched, on this host.

    :param runtime: the section ``containerd``. ``sockets``: the unix sockets of the API.
    """
    debian, red_hat = daemon.places.environment or (None, None)
    run_directory = "/run/containerd"
    if daemon.places.user is not None:
        run_directory = posixpath.dirname(runtime["socket"])
    service = units.get("docker.service", {})
    unit_files = [service.get("fragment"), *service.get("dropins", [])]
    shims = {posixpath.basename(path): path for path in runtime["shims"]}
    found = [
        Watched("1.1.3", "dockerd", daemon.binary),
        Watched("1.1.4", "containerd's run directory", run_directory),
        Watched("1.1.5", "data root", daemon.data_root),
        Watched("1.1.6", "configuration directory", posixpath.dirname(daemon.config.path)),
        *(Watched("1.1.7", "docker.service", path) for path in unit_files if path),
        Watched("1.1.8", "containerd's socket", runtime["socket"]),
        *(Watched("1.1.9", "API socket", path) for path in sockets),
        Watched("1.1.10", "environment of the daemon (Debian)", debian),
        Watched("1.1.11", "configuration file", daemon.config.path),
        Watched("1.1.12", "containerd's configuration file", runtime["config_file"]),
        Watched("1.1.13", "environment of the daemon (Red Hat)", red_hat),
        Watched("1.1.14", "containerd", runtime["binary"]),
    ]
    for control, name in zip(("1.1.15", "1.1.16", "1.1.17"), _SHIMS):
        found.append(Watched(control, name, shims.get(name)))
    found.append(Watched("1.1.18", "runc", runc))
    controls = {item.control for item in found}
    for control, what in (("1.1.7", "docker.service"), ("1.1.9", "API socket")):
        if control not in controls:
            found.append(Watched(control, what, None))
    return found


def socket_unit(units: Mapping) -> Mapping:
    """Return docker.socket; an empty mapping without it."""
    return mapping(units.get("docker.socket"))
