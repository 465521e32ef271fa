"""Observations made to measure, for tests of what is decided from them."""

from __future__ import annotations

import copy
import typing

Json = dict[str, typing.Any]

VERSION = "1-2-3-4-5"


def option(configured: object = None, effective: object = None, **more: typing.Any) -> Json:
    """Return one entry of ``engine.options``."""
    entry: Json = {"source": None, "where": None, "read_from": "api", **more}
    if configured is not None:
        entry["configured"] = configured
    if effective is not None:
        entry["effective"] = effective
    return entry


def container(name: str = "web", **config: typing.Any) -> Json:
    """Return one running container with Docker's defaults."""
    return {
        "id": name * 16,
        "name": name,
        "image": "shop:1",
        "image_id": "sha256:1",
        "state": "running",
        "labels": {},
        "config": {
            "network_mode": "bridge",
            "ports": [],
            "pids_limit": None,
            "security_opt": [],
            **config,
        },
        "kernel": {"pids_current": 3, "pids_max": 2338},
    }


def engine_29(**more: typing.Any) -> Json:
    """Return a stock host with engine 29.7.2.

    From Docker's documentation and sources (moby, tags docker-v29.0.0 to docker-v29.7.2), not
    recorded on a host: a new installation keeps images in containerd's store; with userns-remap it
    takes graph drivers instead, and an explicit ``features.containerd-snapshotter`` keeps it from
    starting; ``min-api-version`` is 1.40.
    """
    look = stock(**more)
    look["engine"]["version"] = "29.7.2"
    look["engine"]["info"].update(containerd_image_store=True, storage_driver="overlayfs")
    return look


def file(path: str, kind: str, mode: str, control: str, **more: typing.Any) -> Json:
    """Return one entry of ``files``, owned by root."""
    return {
        "path": path,
        "kind": kind,
        "control": [control],
        "type": "socket" if kind == "socket" else "file",
        "mode": mode,
        "uid": 0,
        "gid": 0,
        "owner": "root",
        "group": "root",
        "version": VERSION,
        "attributes": [],
        **more,
    }


def watched(control: str, what: str, path: str, kind: str = "file") -> Json:
    """Return one entry of ``audit.objects``."""
    return {
        "control": control, "what": what, "path": path, "resolved": path, "exists": True,
        "type": kind, "not_applicable": None,
    }  # fmt: skip


#: Parameters of Debian 13's kernel as it is installed with Docker, by name.
PARAMETERS: dict[str, str] = {
    "dev.tty.ldisc_autoload": "1",
    "dev.tty.legacy_tiocsti": "0",
    "fs.protected_fifos": "0",
    "fs.protected_hardlinks": "1",
    "fs.protected_regular": "0",
    "fs.protected_symlinks": "1",
    "fs.suid_dumpable": "0",
    "kernel.dmesg_restrict": "1",
    "kernel.io_uring_disabled": "0",
    "kernel.kexec_load_disabled": "0",
    "kernel.kptr_restrict": "0",
    "kernel.oops_limit": "10000",
    "kernel.perf_event_paranoid": "3",
    "kernel.randomize_va_space": "2",
    "kernel.sysrq": "438",
    "kernel.unprivileged_bpf_disabled": "2",
    "kernel.warn_limit": "0",
    "kernel.yama.ptrace_scope": "0",
    "net.core.bpf_jit_harden": "0",
    "net.ipv4.conf.all.accept_redirects": "0",
    "net.ipv4.conf.all.accept_source_route": "0",
    "net.ipv4.conf.all.send_redirects": "1",
    "net.ipv4.conf.default.accept_redirects": "1",
    "net.ipv4.conf.default.accept_source_route": "1",
    "net.ipv4.conf.default.send_redirects": "1",
    "net.ipv4.icmp_echo_ignore_broadcasts": "1",
    "net.ipv4.icmp_ignore_bogus_error_responses": "1",
    "net.ipv4.tcp_rfc1337": "0",
    "net.ipv4.tcp_syncookies": "1",
    "net.ipv6.conf.all.accept_redirects": "1",
    "net.ipv6.conf.all.accept_source_route": "0",
    "net.ipv6.conf.default.accept_redirects": "1",
    "net.ipv6.conf.default.accept_source_route": "0",
    "vm.mmap_min_addr": "65536",
    "vm.mmap_rnd_bits": "28",
    "vm.mmap_rnd_compat_bits": "8",
    "vm.unprivileged_userfaultfd": "0",
}

_STOCK: Json = {
    "schema": "bulkhead.observation/1",
    "collected_at": 1800000000.0,
    "unread": [],
    "os": {
        "init": "systemd",
        "cgroup_version": 2,
        "default_tasks_max": 2338,
        "id": "debian",
        "family": "debian",
        "kernel": "6.12.117+deb13-cloud-amd64",
        "architecture": "x86_64",
    },
    "engine": {
        "state": "running",
        "reason": None,
        "version": "26.1.5+dfsg1",
        "rootless": False,
        "config_loaded": True,
        "data_root": {"path": "/var/lib/docker", "resolved": "/var/lib/docker"},
        "swarm_node": False,
        "unread_flags": [],
        "unread_hosts": [],
        "options": {
            "live-restore": option(effective=False),
            "icc": option(effective=True),
            "no-new-privileges": option(effective=False),
            "userns-remap": option(effective=False),
            "seccomp-profile": option(effective="builtin"),
            "log-driver": option(effective="json-file"),
            "hosts": option(["fd://"], ["fd://"], source="flag", where="docker.service"),
        },
        "info": {
            "cgroup_driver": "systemd",
            "containerd_image_store": False,
            "swarm": "inactive",
            "userns": False,
        },
    },
    "daemon_config": {
        "path": "/etc/docker/daemon.json",
        "state": "absent",
        "reason": None,
        "version": "absent",
        "attributes": [],
        "read_only_filesystem": False,
        "byte_order_mark": False,
        "duplicate_keys": [],
        "keys": {},
    },
    "containers": [],
    "images": [],
    "volumes": [],
    "networks": [{"name": name, "scope": "local"} for name in ("bridge", "host", "none")],
    "files": [
        file("/usr/lib/systemd/system/docker.service", "unit", "0644", "3.2"),
        file("/etc/docker", "directory", "0755", "3.6", type="directory"),
        file("/run/docker.sock", "socket", "0660", "3.16", gid=999, group="docker"),
    ],
    "units": {"docker.socket": {"load_state": "loaded", "socket_mode": "0660"}},
    "audit": {
        "enabled": 1,
        "failure": 1,
        "rate_limit": 0,
        "backlog_limit": 8192,
        "lost": 0,
        "reason": None,
        "auditd": {
            "installed": True,
            "running": True,
            "pid": 300,
            "auditctl": "/usr/sbin/auditctl",
            "unit_state": "active",
            "enabled": "enabled",
        },
        "loaded": [],
        "persistent": [],
        "unparsed": [],
        "rules_files": [],
        "objects": [
            watched("1.1.3", "dockerd", "/usr/sbin/dockerd"),
            watched("1.1.5", "data root", "/var/lib/docker", "directory"),
        ],
    },
    "scope_dropins": [],
    "seccomp_profiles": [],
    "subids": {"subuid": [], "subgid": [], "subuid_version": "v1", "subgid_version": "v2"},
    "users": {
        "users": [{"name": "root", "uid": 0, "gid": 0}],
        "groups": [{"name": "root", "gid": 0, "members": []}],
    },
    "lsm": {
        "active": ["capability"],
        "apparmor": {"enabled": False, "profiles": None, "profile_list": None},
        "selinux": {"enabled": False, "enforcing": False, "policy": None},
    },
    "sysctls": {"user.max_user_namespaces": "7000"},
    "modules": {"br_netfilter": "available"},
    "kernel": {
        "sysctls": {
            name: {"value": value, "set_by": None, "overruled_by": None}
            for name, value in PARAMETERS.items()
        },
        "boot": {},
        "lockdown": "none",
        "modules_loaded": [],
        "modules_blocked": {},
        "boot_directory": True,
        "files": [
            {"path": path, "version": "absent", "sha256": None}
            for path in (
                "/etc/sysctl.d/60-bulkhead-docker.conf",
                "/etc/modprobe.d/bulkhead-docker.conf",
                "/etc/default/grub.d/60-bulkhead-docker.cfg",
            )
        ],
    },
    "client": {
        "binary": "/usr/bin/docker",
        "version": "26.1.5+dfsg1",
        "version_source": "package",
        "reason": None,
        "content_trust": [],
    },
    "trust": {"policy": None, "cosign": False, "sudo": True, "records": [], "files": []},
    "falco": {
        "installed": False,
        "container_plugin": False,
        "btf": True,
        "units": {},
        "rules_files": [],
        "files": [
            {"path": path, "version": "absent", "sha256": None}
            for path in (
                "/etc/falco/config.d/50-bulkhead.yaml",
                "/etc/falco/rules.d/50-bulkhead.yaml",
                "/etc/systemd/system/falco-modern-bpf.service.d/50-bulkhead.conf",
            )
        ],
    },
    "bulkhead": {"state": "absent", "reason": None, "profile": None, "owned": {}},
}


def stock(**sections: typing.Any) -> Json:
    """Return a stock host without containers; ``sections`` replace or, for mappings, update."""
    look = copy.deepcopy(_STOCK)
    for name, value in sections.items():
        if isinstance(value, dict) and isinstance(look.get(name), dict):
            look[name].update(copy.deepcopy(value))
        else:
            look[name] = copy.deepcopy(value)
    return look


def with_file(look: Json, keys: Json, loaded: bool = True) -> Json:
    """Return the observation of a host whose daemon.json holds ``keys``."""
    look = copy.deepcopy(look)
    entries: Json = {}
    kinds = {bool: "boolean", str: "string", int: "integer", list: "list", dict: "map"}
    for key, value in keys.items():
        entry: Json = {"type": kinds[type(value)]}
        if isinstance(value, dict):
            entry["members"] = {m: {"type": kinds[type(v)], "value": v} for m, v in value.items()}
        else:
            entry["value"] = value
        entries[key] = entry
        shown = look["engine"]["options"].setdefault(key, option())
        shown.update(configured=value, source="file", where="/etc/docker/daemon.json")
        if loaded and look["engine"]["state"] == "running":
            shown["effective"] = value
    look["daemon_config"].update(state="valid", version=VERSION, keys=entries)
    look["engine"]["config_loaded"] = loaded
    return look


def _file_of(look: Json) -> Json:
    """Return daemon.json as the observation shows it."""
    return {
        key: {m: v["value"] for m, v in entry["members"].items()}
        if "members" in entry
        else entry.get("value")
        for key, entry in look["daemon_config"]["keys"].items()
    }


def _apply_json(op: Json, file_keys: Json, owned: list[Json]) -> None:
    key, member = op["key"], op.get("member")
    owned[:] = [i for i in owned if (i.get("key"), i.get("member")) != (key, member)]
    if op["op"] == "json_set":
        if member:
            file_keys.setdefault(key, {})[member] = op["value"]
        else:
            file_keys[key] = op["value"]
        item = {"kind": "json_key", "path": op["path"], "key": key, "intact": True}
        owned.append({**item, "member": member} if member else item)
    elif op["op"] == "json_remove":
        (file_keys[key] if member else file_keys).pop(member or key)


def _apply_file(op: Json, look: Json, owned: list[Json]) -> None:
    owned[:] = [i for i in owned if i.get("path") != op["path"]]
    if op["op"] == "file_absent":
        look["scope_dropins"] = []
        return
    owned.append({"kind": "file", "path": op["path"], "intact": True})
    if "docker-.scope.d" in op["path"]:
        limit = int(op["content"].rsplit("TasksMax=", 1)[1])
        look["scope_dropins"] = [{"path": op["path"], "tasks_max": limit, "version": VERSION}]
    else:
        look["units"]["docker.socket"]["socket_mode"] = op["content"].strip()[-4:]


def _apply_account(op: Json, look: Json) -> None:
    if op["op"] == "group_present":
        look["users"]["groups"].append({"name": op["name"], "gid": 990, "members": []})
    elif op["op"] == "user_present":
        look["users"]["users"].append({"name": op["name"], "uid": 990, "gid": 990})
    else:
        for name in ("subuid", "subgid"):
            look["subids"][name].append({"name": op["user"], **op[name]})


def _apply_mode(op: Json, look: Json) -> None:
    item = next(f for f in look["files"] if f["path"] == op["path"])
    item["mode"] = op["mode"] or item["mode"]
    if op["owner"]:
        item.update(uid=0, owner="root")
    if op["group"]:
        item.update(gid=0, group="root")


def apply(look: Json, plan: Json) -> Json:
    """Return the observation of the host after a plan, as a model of what the host would show."""
    look = copy.deepcopy(look)
    file_keys = _file_of(look)
    owned = look["bulkhead"].setdefault("owned", {}).setdefault("docker_daemon", [])
    for op in plan["operations"]:
        if op["op"] in ("json_set", "json_remove", "disown"):
            _apply_json(op, file_keys, owned)
        elif op["op"].startswith("file_"):
            _apply_file(op, look, owned)
        elif op["op"] == "mode":
            _apply_mode(op, look)
        else:
            _apply_account(op, look)
    if not file_keys and look["daemon_config"]["state"] == "absent":
        return look
    for key in set(look["daemon_config"]["keys"]) - set(file_keys):
        look["engine"]["options"].pop(key, None)
        if key in _STOCK["engine"]["options"]:
            look["engine"]["options"][key] = copy.deepcopy(_STOCK["engine"]["options"][key])
    loaded = plan["daemon"]["effect"] == "restart" or look["engine"]["config_loaded"]
    after = with_file(look, file_keys, loaded)
    if "userns-remap" in file_keys:
        after["engine"]["options"]["userns-remap"]["effective"] = True
    return after
