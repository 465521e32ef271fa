"""A Docker host made of files below a directory, with a real daemon's answers on a real socket."""

from __future__ import annotations

import contextlib
import copy
import errno
import http.server
import json
import os
import pathlib
import shutil
import socketserver
import struct
import tempfile
import threading
import time
import typing

from ansible_collections.bulkhead.hardening.plugins.module_utils import audit_rules
from ansible_collections.bulkhead.hardening.plugins.module_utils.host import (
    AUDIT_GET,
    Completed,
    Host,
)
from ansible_collections.bulkhead.hardening.plugins.module_utils.look_auditd import LOCKED

Json = dict[str, typing.Any]

#: Process ids of the daemon and of the first container.
DAEMON_PID = 812
CONTAINER_PID = 4001

BOOTED_AT = 1_700_000_000
#: The daemon's start, in ticks of a hundredth second after the boot: later than any file that a test
#: writes, whose change time no test can set back.
START_TICKS = (int(time.time()) + 3600 - BOOTED_AT) * 100
STARTED_AT = BOOTED_AT + START_TICKS / 100

DEBIAN_UNIT = """\
[Unit]
Description=Docker Application Container Engine
[Service]
Type=notify
EnvironmentFile=-/etc/default/docker
ExecStart=/usr/sbin/dockerd -H fd:// --containerd=/run/containerd/containerd.sock $DOCKER_OPTS
ExecReload=/bin/kill -s HUP $MAINPID
[Install]
WantedBy=multi-user.target
"""

#: What moby hides and write-protects by default.
MASKED = [
    "/proc/asound", "/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
    "/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware",
]  # fmt: skip
READONLY = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]

INFO: Json = {
    "Containers": 0,
    "ContainersRunning": 0,
    "ContainersPaused": 0,
    "ContainersStopped": 0,
    "Images": 0,
    "Driver": "overlay2",
    "DriverStatus": [["Backing Filesystem", "extfs"]],
    "LoggingDriver": "json-file",
    "CgroupDriver": "systemd",
    "CgroupVersion": "2",
    "DockerRootDir": "/var/lib/docker",
    "DefaultRuntime": "runc",
    "Runtimes": {"runc": {"path": "runc"}},
    "LiveRestoreEnabled": False,
    "Debug": False,
    "ExperimentalBuild": False,
    "SecurityOptions": ["name=apparmor", "name=seccomp,profile=builtin", "name=cgroupns"],
    "RegistryConfig": {
        "InsecureRegistryCIDRs": ["::1/128", "127.0.0.0/8"],
        "IndexConfigs": {"docker.io": {"Name": "docker.io", "Secure": True}},
        "Mirrors": None,
    },
    "Swarm": {"LocalNodeState": "inactive"},
    "ServerVersion": "26.1.5+dfsg1",
    "Warnings": None,
}

BRIDGE: Json = {
    "Name": "bridge",
    "Id": "b" * 64,
    "Driver": "bridge",
    "Internal": False,
    "Options": {
        "com.docker.network.bridge.enable_icc": "true",
        "com.docker.network.bridge.enable_ip_masquerade": "true",
        "com.docker.network.bridge.host_binding_ipv4": "0.0.0.0",
    },
}


def inspection(name: str, pid: int = CONTAINER_PID, **more: typing.Any) -> Json:
    """Return what Docker says of a container; keys of ``more`` replace top-level ones."""
    answer: Json = {
        "Id": identifier(name),
        "Name": "/" + name,
        "Image": "sha256:" + "1" * 64,
        "RestartCount": 0,
        "State": {
            "Status": "running" if pid else "exited",
            "Running": bool(pid),
            "Pid": pid,
            "ExitCode": 0,
            "StartedAt": "2023-11-14T22:13:20.5Z",
            "FinishedAt": "0001-01-01T00:00:00Z",
        },
        "Config": {"User": "", "Env": None, "Labels": {}, "Image": "shop:1"},
        "HostConfig": {
            "NetworkMode": "bridge",
            "RestartPolicy": {"Name": "no", "MaximumRetryCount": 0},
            "LogConfig": {"Type": "json-file", "Config": {}},
            "MaskedPaths": MASKED,
            "ReadonlyPaths": READONLY,
            "PidsLimit": None,
            "Privileged": False,
        },
        "Mounts": [],
        "NetworkSettings": {"Ports": {}, "Networks": {"bridge": {"NetworkID": "b" * 64}}},
    }
    answer.update(copy.deepcopy(more))
    return answer


def identifier(name: str) -> str:
    """Return the id of a container of that name: 64 hexadecimal digits."""
    return name.encode().hex().ljust(64, "0")[:64]


class _UnixServer(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True
    engine: FakeEngine


class _Handler(http.server.BaseHTTPRequestHandler):
    server: _UnixServer

    def do_GET(self) -> None:
        engine = self.server.engine
        path = self.path.partition("?")[0]
        engine.requests.append(self.path)
        if path in engine.silent:
            engine.released.wait(30)
            return
        answer = engine.answers.get(path)
        status = 200
        if callable(answer):
            answer = answer()
        if isinstance(answer, int):
            status, answer = answer, {"message": engine.secret_message}
        if answer is None:
            status, answer = 404, {"message": "no such thing"}
        data = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def address_string(self) -> str:
        return "peer"  # a unix socket's peer has no address

    def log_request(self, *args: object) -> None:
        pass


class FakeEngine:
    """Docker's API on a unix socket: ``answers`` holds JSON, bytes, a status or a callable by path.

    :param socket: where to listen; nothing listens before ``start``.
    """

    def __init__(self, socket: pathlib.Path) -> None:
        self.socket = socket
        self.requests: list[str] = []
        self.silent: set[str] = set()
        self.released = threading.Event()
        self.secret_message = "refused"
        self.answers: dict[str, typing.Any] = {
            "/version": {"Version": "26.1.5+dfsg1", "ApiVersion": "1.45"},
            "/info": copy.deepcopy(INFO),
            "/containers/json": [],
            "/images/json": [],
            "/volumes": {"Volumes": None, "Warnings": None},
            "/networks": [copy.deepcopy(BRIDGE)],
        }
        self._server: _UnixServer | None = None

    def add(self, inspect: Json) -> None:
        """Let there be a container."""
        summary = {"Id": inspect["Id"], "NetworkSettings": inspect.get("NetworkSettings")}
        self.answers["/containers/json"].append(summary)
        self.answers["/containers/%s/json" % inspect["Id"]] = inspect

    def start(self) -> None:
        """Listen."""
        self.socket.parent.mkdir(parents=True, exist_ok=True)
        self._server = _UnixServer(str(self.socket), _Handler)
        self._server.engine = self
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def stop(self) -> None:
        """Stop listening; the socket's file stays, as after a crash."""
        self.released.set()
        if self._server:
            self._server.shutdown()
            self._server.server_close()
            self._server = None


def unit_properties(name: str, **properties: typing.Any) -> str:
    """Return what ``systemctl show`` prints of a unit; a list repeats its property."""
    values: Json = {
        "Id": name,
        "LoadState": "loaded",
        "ActiveState": "active",
        "SubState": "running",
        "UnitFileState": "enabled",
        "FragmentPath": "/usr/lib/systemd/system/" + name,
        "DropInPaths": "",
        "NeedDaemonReload": "no",
        "Result": "success",
        **properties,
    }
    lines = []
    for key, value in values.items():
        items = value if isinstance(value, list) else [value]
        lines.extend("%s=%s" % (key, item) for item in items)
    return "\n".join(lines)


class FakeHost(Host):
    """A host below a directory; ``service``, ``socket_unit`` and ``containerd`` describe units."""

    def __init__(self, root: pathlib.Path) -> None:
        super().__init__(str(root))
        self.base = root
        self.engine = FakeEngine(root / "run/docker.sock")
        self.commands: list[list[str]] = []
        self.service: Json = {"MainPID": DAEMON_PID, "NRestarts": 0}
        self.service["EnvironmentFiles"] = "/etc/default/docker (ignore_errors=yes)"
        self.socket_unit: Json = {
            "Listen": "/run/docker.sock (Stream)",
            "SocketMode": "0660",
            "SocketUser": "root",
            "SocketGroup": "docker",
        }
        self.containerd: Json = {"MainPID": 700}
        self.other_sockets = ""
        self.systemctl_fails: str | None = None
        #: the rules that the kernel has, in its form; None: it has no audit
        self.kernel_rules: list[bytes] | None = []
        self.audit_enabled = 1
        self.binary_says = "Docker version 26.1.5+dfsg1, build a72d7cd\n"
        self._build()

    # -- the kernel's audit ----------------------------------------------------------------------
    def audit(self, kind: int, timeout: float = 5.0) -> list[bytes]:
        """Answer as the kernel does: its state, or its rules."""
        if self.kernel_rules is None:
            raise OSError(errno.EPROTONOSUPPORT, "Protocol not supported")
        if kind == AUDIT_GET:
            return [struct.pack("=9I", 0, self.audit_enabled, 1, 300, 0, 8192, 0, 0, 0)]
        return list(self.kernel_rules)

    def change_audit(self, rule: bytes, add: bool, timeout: float = 5.0) -> None:
        """Load a rule or take one out, with the errors of the kernel's."""
        read = audit_rules.decode(rule)
        there = rule in (self.kernel_rules or [])
        if self.audit_enabled == LOCKED:
            raise OSError(errno.EPERM, "Operation not permitted")
        if add and there:
            raise OSError(errno.EEXIST, "File exists")
        place = read["path"] if read["kind"] == "dir" else os.path.dirname(read["path"])
        if (add and self.lstat(place) is None) or (not add and not there):
            raise OSError(errno.ENOENT, "No such file or directory")
        assert self.kernel_rules is not None
        if add:
            self.kernel_rules.append(rule)
        else:
            self.kernel_rules.remove(rule)

    # -- files -----------------------------------------------------------------------------------
    def write(self, path: str, content: str | bytes, mode: int = 0o644) -> pathlib.Path:
        """Write a file of the host and return where it is."""
        target = self.base / path.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content.encode() if isinstance(content, str) else content)
        target.chmod(mode)
        return target

    def process(self, pid: int, argv: list[str], **files: str) -> None:
        """Let there be a process, with the files of its /proc directory that ``files`` gives."""
        self.write("/proc/%d/cmdline" % pid, "".join(item + "\0" for item in argv))
        self.write("/proc/%d/environ" % pid, files.pop("environ", ""))
        self.write("/proc/%d/net/unix" % pid, "Num RefCount Protocol Flags Type St Inode Path\n")
        (self.base / "proc" / str(pid) / "fd").mkdir(exist_ok=True)
        fields = ["S"] + ["0"] * 18 + [str(START_TICKS)] + ["0"] * 10
        self.write("/proc/%d/stat" % pid, "%d (a (b) c) %s\n" % (pid, " ".join(fields)))
        for name, content in files.items():
            self.write("/proc/%d/%s" % (pid, name.replace("__", "/")), content)

    def container_process(self, pid: int, name: str, uid: int = 0, pids_max: str = "max") -> None:
        """Let there be the main process of a container."""
        cgroup = "/system.slice/docker-%s.scope" % identifier(name)
        self.process(
            pid,
            ["sleep"],
            status="Name:\tsleep\nUid:\t%d\t%d\t%d\t%d\n" % (uid, uid, uid, uid)
            + "".join(
                "Cap%s:\t%s\n" % (kind, mask)
                for kind, mask in (
                    ("Inh", "0" * 16),
                    ("Prm", "00000000a80425fb"),
                    ("Eff", "00000000a80425fb"),
                    ("Bnd", "00000000a80425fb"),
                    ("Amb", "0" * 16),
                )
            )
            + "NoNewPrivs:\t0\nSeccomp:\t2\n",
            uid_map="         0          0 4294967295\n",
            limits="Limit                     Soft Limit           Hard Limit           Units\n"
            "Max processes             unlimited            unlimited            processes\n"
            "Max open files            1024                 524288               files\n",
            cgroup="0::%s\n" % cgroup,
            attr__current="docker-default (enforce)\n",
        )
        self.write("/sys/fs/cgroup%s/pids.max" % cgroup, pids_max + "\n")
        self.write("/sys/fs/cgroup%s/pids.current" % cgroup, "3\n")
        self.write("/sys/fs/cgroup%s/cgroup.procs" % cgroup, "%d\n" % pid)

    def old(self, path: str, seconds: float = 1000.0) -> None:
        """Let a file or directory be older than the daemon."""
        os.utime(self.base / path.lstrip("/"), (STARTED_AT - seconds, STARTED_AT - seconds))

    def _build(self) -> None:
        self.write("/etc/os-release", 'ID=debian\nVERSION_ID="13"\nPRETTY_NAME="Debian 13"\n')
        self.write("/etc/passwd", "root:x:0:0:root:/root:/bin/sh\nann:x:1000:1000:A:/a:/bin/sh\n")
        self.write("/etc/group", "root:x:0:\ndocker:x:102:ann\n")
        self.write("/etc/subuid", "ann:100000:65536\n")
        self.write("/etc/subgid", "ann:100000:65536\n")
        self.write("/etc/default/docker", "# DOCKER_OPTS=\n")
        self.write("/usr/lib/systemd/system/docker.service", DEBIAN_UNIT)
        self.write("/usr/lib/systemd/system/docker.socket", "[Socket]\n")
        self.write("/usr/sbin/dockerd", "", 0o755)
        self.write("/proc/stat", "cpu 1 2 3\nbtime %d\n" % BOOTED_AT)
        for name, value in (
            ("kernel/osrelease", "6.12.0"), ("kernel/hostname", "h1"),
            ("fs/nr_open", "1048576"), ("kernel/pid_max", "4194304"), ("user/max_user_namespaces", "7000"),
            ("kernel/kptr_restrict", "0"), ("kernel/unprivileged_bpf_disabled", "2"),
            ("kernel/yama/ptrace_scope", "0"), ("net/ipv4/ip_forward", "1"),
            ("net/ipv4/conf/all/forwarding", "1"), ("net/ipv4/conf/docker0/forwarding", "1"),
        ):  # fmt: skip
            self.write("/proc/sys/" + name, value + "\n")
        self.write("/proc/cmdline", "root=/dev/vda ro quiet vsyscall=none slab_nomerge\n")
        self.write("/proc/modules", "overlay 217088 0 - Live 0x0\nudf 139264 0 - Live 0x0\n")
        self.write("/sys/kernel/security/lockdown", "[none] integrity confidentiality\n")
        self.write("/sys/fs/cgroup/cgroup.controllers", "pids\n")
        self.write("/sys/kernel/security/lsm", "lockdown,capability,apparmor")
        self.write("/sys/module/apparmor/parameters/enabled", "Y\n")
        profiles = "docker-default (enforce)\nx y (complain)\n"
        self.write("/sys/kernel/security/apparmor/profiles", profiles)
        for directory in ("/run/systemd/system", "/etc/docker", "/var/lib/docker"):
            (self.base / directory.lstrip("/")).mkdir(parents=True, exist_ok=True)
        self.old("/etc/docker")
        self.write("/proc/1/mountinfo", "21 1 8:1 / / rw,relatime shared:1 - ext4 /dev/vda rw\n")
        self.process(700, ["/usr/bin/containerd"])
        self.process(
            DAEMON_PID,
            ["/usr/sbin/dockerd", "-H", "fd://", "--containerd=/run/containerd/containerd.sock"],
        )

    # -- programs --------------------------------------------------------------------------------
    def run(self, argv: list[str], timeout: float = 60.0, stdin: bytes | None = None) -> Completed:
        """Answer for systemctl and dockerd."""
        self.commands.append(argv)
        if argv[0] != "systemctl":
            return Completed(0, self.binary_says, "")
        if self.systemctl_fails is not None:
            return Completed(1, "", self.systemctl_fails)
        if "*.socket" in argv:
            return Completed(0, self.other_sockets, "")
        if "docker.service" not in argv:
            return Completed(0, "Version=257.8-1~deb13u2\nDefaultTasksMax=2338\n", "")
        blocks = (
            ("docker.service", self.service),
            ("docker.socket", self.socket_unit),
            ("containerd.service", self.containerd),
        )
        out = "\n\n".join(unit_properties(name, **values) for name, values in blocks)
        return Completed(0, out + "\n", "")

    # -- states ----------------------------------------------------------------------------------
    def stopped(self, active: str = "inactive", sub: str = "dead", **more: typing.Any) -> None:
        """Let the daemon's unit be in another state, with no process."""
        self.service.update(ActiveState=active, SubState=sub, MainPID=0, **more)
        shutil.rmtree(self.base / "proc" / str(DAEMON_PID), ignore_errors=True)

    def without_docker(self) -> None:
        """Let Docker not be installed."""
        gone = {"LoadState": "not-found", "ActiveState": "inactive", "SubState": "dead"}
        gone.update(FragmentPath="", UnitFileState="", MainPID="0", Listen="")
        self.stopped()
        self.service, self.socket_unit, self.containerd = dict(gone), dict(gone), dict(gone)
        (self.base / "usr/sbin/dockerd").unlink()
        with contextlib.suppress(FileNotFoundError):
            (self.base / "run/docker.sock").unlink()


@contextlib.contextmanager
def fake_host() -> typing.Iterator[FakeHost]:
    """Give a host whose daemon runs, in a short directory: socket paths end at 107 bytes."""
    base = tempfile.mkdtemp(prefix="bh")
    host = FakeHost(pathlib.Path(base))
    host.engine.start()
    try:
        yield host
    finally:
        host.engine.stop()
        shutil.rmtree(base)
