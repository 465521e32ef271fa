"""A Docker host on which things can be changed: a daemon that reads its file, and its containers.

Builds on fake_engine.FakeHost (files below a directory, the API on a real socket) and adds what a
transaction meets: systemctl reload and restart, accounts, ``dockerd --validate``, and containers that
live and die as live-restore says.
"""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import io
import json
import os
import pathlib
import re
import shutil
import stat
import tarfile
import tempfile
import threading
import time
import typing
import urllib.parse

from ansible_collections.bulkhead.hardening.plugins.module_utils import daemon_options, look
from ansible_collections.bulkhead.hardening.plugins.module_utils.host import Completed
from ansible_collections.bulkhead.hardening.plugins.module_utils.look_options import parse_flags
from ansible_collections.bulkhead.hardening.plugins.module_utils.look_systemd import Service

from . import fake_engine, fake_selinux
from .fake_apparmor import FakeAppArmor
from .fake_engine import BOOTED_AT, FakeEngine, FakeHost, Json, identifier, inspection
from .fake_falco import FakeFalco
from .fake_selinux import FakeSelinux

CONFIG = "/etc/docker/daemon.json"
#: What a transaction keeps for itself, and what is no file of the host.
_NOT_COMPARED = ("/proc", "/run", "/sys", "/var/lib/bulkhead")


class Killed(BaseException):
    """The process died here: no handler of the transaction may run."""


class _Handler(fake_engine._Handler):
    """Answers GET from ``answers``, and the rest from the host's daemon."""

    def do_GET(self) -> None:  # noqa: N802
        url = urllib.parse.urlsplit(self.path)
        if url.path == "/events":
            query = dict(urllib.parse.parse_qsl(url.query))
            self._send(200, self._daemon.events(float(query["since"]), float(query["until"])))
            return
        super().do_GET()

    def do_POST(self) -> None:  # noqa: N802
        self._change("POST")

    def do_DELETE(self) -> None:  # noqa: N802
        self._change("DELETE")

    @property
    def _daemon(self) -> FakeDaemon:
        return typing.cast(ActEngine, self.server.engine).daemon

    def _change(self, method: str) -> None:
        url = urllib.parse.urlsplit(self.path)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        query = dict(urllib.parse.parse_qsl(url.query))
        self.server.engine.requests.append("%s %s" % (method, self.path))
        try:
            status, answer = self._daemon.change(method, url.path, query, body)
        except KeyError as exc:
            status, answer = 404, {"message": "no such thing: %s" % exc}
        self._send(status, answer)

    def _send(self, status: int, answer: typing.Any) -> None:
        data = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if data:
            self.wfile.write(data)


def _now() -> str:
    """Return the time as Docker writes it."""
    return datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


class ActEngine(FakeEngine):
    """The API of a daemon that comes and goes."""

    daemon: FakeDaemon

    def start(self) -> None:
        """Listen, where a former daemon may have listened already."""
        self.socket.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            self.socket.unlink()
        mode = stat.S_IFSOCK | 0o660
        self._server = fake_engine._UnixServer(str(self.socket), _Handler)
        os.chmod(self.socket, stat.S_IMODE(mode))
        self._server.engine = self
        threading.Thread(target=self._server.serve_forever, args=(0.005,), daemon=True).start()


class FakeDaemon:
    """dockerd: what it loaded, and its containers.

    ``refuses``: return a reason to fail the start with a document, or None. ``witness_code``: how
    the throw-away container ends; ``witness_error``: why it does not start.
    """

    def __init__(self, host: ActHost) -> None:
        self._host = host
        self.effective: Json = {}
        self.containers: dict[str, Json] = {}
        #: containers of other data roots and image stores, where this daemon does not see them
        self._elsewhere: dict[tuple[object, bool], dict[str, Json]] = {}
        self._place: tuple[object, bool] = ("/var/lib/docker", False)
        self.images: dict[str, bytes] = {}
        self.reloads: list[float] = []
        self.refuses: typing.Callable[[Json], str | None] = lambda document: None
        self.witness_code = 0
        self.witness_error: str | None = None
        self.ignores_reload = False
        self.log: list[str] = []
        self._next_pid = 5000

    # -- containers ------------------------------------------------------------------------------
    def add(self, name: str, restart: str = "no", **host_config: typing.Any) -> Json:
        """Let a container run."""
        inspect = inspection(name, self._pid())
        inspect["HostConfig"].update(host_config, RestartPolicy={"Name": restart})
        self.containers[inspect["Id"]] = inspect
        self._process(inspect)
        self._publish()
        return inspect

    def _pid(self) -> int:
        self._next_pid += 1
        return self._next_pid

    def _process(self, inspect: Json, program: str = "sleep") -> None:
        pid = inspect["State"]["Pid"]
        self._host.container_process(pid, inspect["Name"].lstrip("/"))
        status = self._host.base / "proc" / str(pid) / "status"
        text = status.read_text().replace(
            "Name:\tsleep", "Name:\t%s\nState:\tS (sleeping)" % program
        )
        status.write_text(text)

    def _run(self, inspect: Json, program: str = "sleep") -> None:
        inspect["State"].update(Status="running", Running=True, Pid=self._pid(), StartedAt=_now())
        self._process(inspect, program)

    def _end(self, inspect: Json, code: int = 137) -> None:
        pid = inspect["State"]["Pid"]
        inspect["State"].update(
            Status="exited", Running=False, Pid=0, ExitCode=code, FinishedAt=_now()
        )
        shutil.rmtree(self._host.base / "proc" / str(pid), ignore_errors=True)

    def _publish(self) -> None:
        """Let the API show the containers and options of now."""
        engine = self._host.engine
        engine.answers = {
            path: answer
            for path, answer in engine.answers.items()
            if not re.match(r"/containers/[0-9a-z-]+/json", path)
        }
        engine.answers["/containers/json"] = []
        engine.answers["/_ping"] = b"OK"
        engine.answers["/networks/bridge"] = engine.answers["/networks"][0]
        for inspect in self.containers.values():
            engine.add(inspect)
        options = self.effective
        info = engine.answers["/info"]
        running = sum(1 for item in self.containers.values() if item["State"]["Running"])
        security = ["name=seccomp,profile=%s" % options.get("seccomp-profile", "builtin")]
        if options.get("no-new-privileges"):
            security.append("name=no-new-privileges")
        if options.get("userns-remap"):
            security.append("name=userns")
        if options.get("selinux-enabled"):
            security.append("name=selinux")
        info.update(
            LiveRestoreEnabled=options.get("live-restore") is True,
            Debug=options.get("debug") is True,
            DockerRootDir=self._host.resolve(self._place[0]),
            DriverStatus=[["driver-type", "io.containerd.snapshotter.v1"]]
            if self._place[1]
            else [],
            LoggingDriver=options.get("log-driver", "json-file"),
            SecurityOptions=security,
            Containers=len(self.containers),
            ContainersRunning=running,
        )
        bridge = engine.answers["/networks"][0]["Options"]
        if not running:
            icc = options.get("icc", True)
            bridge["com.docker.network.bridge.enable_icc"] = "true" if icc else "false"

    # -- life --------------------------------------------------------------------------------------
    def read(self) -> Json:
        """Read daemon.json as dockerd does, or raise ValueError as it would."""
        path = self._host.base / CONFIG.lstrip("/")
        document = json.loads(path.read_text("utf-8-sig") or "{}") if path.exists() else {}
        for key in document:
            if not daemon_options.knows("26.1.5", key):
                raise ValueError("these directives don't match any configuration option: %s" % key)
            if key in self._host.flags:
                raise ValueError("specified both as a flag and in the configuration file: " + key)
        return typing.cast(Json, document)

    def stop(self) -> None:
        """Stop, and end the containers unless live-restore is in effect."""
        self._host.engine.stop()
        if not self.effective.get("live-restore"):
            for inspect in self.containers.values():
                if inspect["State"]["Running"]:
                    self._end(inspect)
        self._host.stopped()

    def start(self) -> str | None:
        """Start; return why it failed, or None."""
        self._host.read_command()
        try:
            document = self.read()
            reason = self.refuses(document)
        except ValueError as exc:
            reason = str(exc)
        if reason:
            self.log.append("failed to start daemon: " + reason)
            self._host.stopped("failed", "failed", Result="exit-code")
            return reason
        self.effective = document
        self._move()
        for inspect in self.containers.values():
            if inspect["State"]["Running"] and not document.get("live-restore"):
                self._end(inspect)
            policy = inspect["HostConfig"]["RestartPolicy"]["Name"]
            if not inspect["State"]["Running"] and policy in ("always", "unless-stopped"):
                self._run(inspect)
        self._host.runs(self._pid())
        self._publish()
        self._host.engine.start()
        return None

    def _move(self) -> None:
        """See the containers of the data root and image store of now, and no others."""
        root = self._host.flags.get("data-root", self.effective.get("data-root", "/var/lib/docker"))
        store = self.effective.get("features", {}).get("containerd-snapshotter") is True
        self._elsewhere[self._place] = self.containers
        self._place = (root.rstrip("/"), store)
        self.containers = self._elsewhere.pop(self._place, {})

    def reload(self) -> None:
        """Read the file again; what cannot be reloaded stays, and so does what vanished."""
        if self.ignores_reload:
            return
        try:
            document = self.read()
        except ValueError as exc:
            self.log.append(str(exc))
            return
        for key, value in document.items():
            if daemon_options.OPTIONS[key].reload:
                self.effective = dict(self.effective, **{key: value})
        self.reloads.append(time.time())
        self._publish()

    def events(self, since: float, until: float) -> bytes:
        """Return the reload events of a time, one JSON object per line."""
        found = [moment for moment in self.reloads if since <= moment <= until]
        return b"".join(b'{"Type":"daemon","Action":"reload"}\n' for _ in found)

    # -- requests ------------------------------------------------------------------------------------
    def change(self, method: str, path: str, query: Json, body: bytes) -> tuple[int, typing.Any]:
        """Answer a request that changes something."""
        if (method, path) == ("POST", "/images/create"):
            with tarfile.open(fileobj=io.BytesIO(body)) as tar:
                names = tar.getnames()
            assert names == ["health"]
            assert query["changes"] == "LABEL bulkhead.role=health"
            self.images["%s:%s" % (query["repo"], query["tag"])] = body
            return 200, b'{"status":"sha256:1"}\n'
        if (method, path) == ("POST", "/containers/create"):
            return self._create(query["name"], json.loads(body))
        what, name = path.split("/")[1:3]
        if what == "images":
            del self.images[name]
            return 200, []
        inspect = self._find(name)
        verb = path.split("/")[3] if path.count("/") > 2 else ""
        if method == "DELETE":
            self._end(inspect)
            del self.containers[inspect["Id"]]
        elif verb == "start":
            if self.witness_error and inspect["Config"]["Labels"]:
                return 500, {"message": self.witness_error}
            self._run(inspect, "health" if inspect["Config"]["Labels"] else "sleep")
        elif verb == "kill":
            assert query["signal"] == "SIGTERM"
            self._end(inspect, self.witness_code)
        self._publish()
        return 204, b""

    def _create(self, name: str, config: Json) -> tuple[int, Json]:
        assert config["Image"] in self.images
        assert config["Entrypoint"] == ["/health"]
        inspect = inspection(name, 0)
        inspect["Config"]["Labels"] = config["Labels"]
        self.containers[inspect["Id"]] = inspect
        self._publish()
        return 201, {"Id": inspect["Id"]}

    def _find(self, name: str) -> Json:
        return self.containers[name if name in self.containers else identifier(name)]


class ActHost(FakeHost):
    """A host to act on. ``calls`` are the programs that changed something, in order."""

    def __init__(self, root: pathlib.Path) -> None:
        super().__init__(root)
        self.engine = ActEngine(root / "run/docker.sock")
        self.daemon = FakeDaemon(self)
        typing.cast(ActEngine, self.engine).daemon = self.daemon
        self.calls: list[str] = []
        self.command: list[str] = []
        self.flags: Json = {}
        self.validate_says: str | None = None
        #: values of parameters that the kernel does not let go of, by path
        self.one_way: dict[str, str] = {}
        #: called after each parameter that is written, with its path
        self.on_sysctl: typing.Callable[[str], None] = lambda path: None
        self._offset = 0.0
        for path in ("/var/lib", "/etc/systemd/system", "/usr/sbin"):
            (root / path.lstrip("/")).mkdir(parents=True, exist_ok=True)
        self.write("/usr/sbin/nologin", "", 0o755)
        self.apparmor = FakeAppArmor(self)
        self.selinux: FakeSelinux | None = None
        self.falco = FakeFalco(self)

    def read_command(self) -> None:
        """Take the daemon's command line from its unit, as systemd would at a start."""
        dropins = self.service.get("DropInPaths", "").split()
        service = Service(self, ["/usr/lib/systemd/system/docker.service", *dropins])
        self.command = [word.text for word in service.words]
        settings, _ = parse_flags(service.words[1:])
        self.flags = {key: setting.value for key, setting in settings.items()}

    def runs(self, pid: int) -> None:
        """Let the daemon's process be there, started now."""
        self.service.update(ActiveState="active", SubState="running", MainPID=pid, Result="success")
        self.process(pid, self.command)
        ticks = int((time.time() - BOOTED_AT) * 100) + 1
        fields = ["S"] + ["0"] * 18 + [str(ticks)] + ["0"] * 10
        self.write("/proc/%d/stat" % pid, "%d (dockerd) %s\n" % (pid, " ".join(fields)))

    def stopped(
        self, active: str = "inactive", sub: str = "dead", **properties: typing.Any
    ) -> None:
        """Let the daemon's unit be in another state, with no process."""
        pid = self.service.get("MainPID")
        super().stopped(active, sub, **properties)
        if pid:
            shutil.rmtree(self.base / "proc" / str(pid), ignore_errors=True)

    # -- time --------------------------------------------------------------------------------------
    def old(self, path: str, seconds: float = 1000.0) -> None:
        """Let a file or directory be older than the daemon, which starts now."""
        moment = time.time() - seconds
        os.utime(self.base / path.lstrip("/"), (moment, moment))

    def monotonic(self) -> float:
        return time.monotonic() + self._offset

    def sleep(self, seconds: float) -> None:
        """Let the clock go on at once."""
        self._offset += seconds
        time.sleep(0.001)

    # -- the kernel ----------------------------------------------------------------------------------
    def write_sysctl(self, path: str, value: str) -> None:
        """Write a parameter, unless it has a value that only a boot takes back."""
        if self.one_way.get(path) == self.read_text(path).strip() != value:
            raise PermissionError(1, "Operation not permitted", path)
        super().write_sysctl(path, value)
        # The kernel keeps nothing of a longer value.
        os.truncate(self.path(path), len(value) + 1)
        self.on_sysctl(path)

    def sysctls(self) -> dict[str, str]:
        """Return all parameters of the running kernel, by path."""
        found = (path for path in (self.base / "proc/sys").rglob("*") if path.is_file())
        return {str(path.relative_to(self.base)): path.read_text() for path in found}

    # -- programs ------------------------------------------------------------------------------------
    def run(self, argv: list[str], timeout: float = 60.0, stdin: bytes | None = None) -> Completed:
        name = os.path.basename(argv[0])
        if name == "falco" or (name == "systemctl" and argv[-1].startswith("falco")):
            if name == "systemctl" and argv[1] != "show":
                self.calls.append(" ".join(argv))
            return self.falco.run(argv, stdin)
        if name == "systemctl" and argv[1] != "show":
            self.calls.append(" ".join(argv))
            return self._systemctl(argv[1])
        if name == "systemctl" and "docker.service" in argv and "docker.socket" not in argv:
            text = fake_engine.unit_properties("docker.service", **self.service)
            return Completed(0, text + "\n", "")
        if name == "apparmor_parser":
            if argv[1] != "--version":
                self.calls.append("apparmor_parser " + argv[1])
            return self.apparmor.run(argv[1:], stdin)
        if name in fake_selinux.PROGRAMS:
            self.calls.append("%s %s" % (name, argv[1]))
            assert self.selinux
            return self.selinux.run(name, argv[1:], stdin)
        if name == "journalctl":
            return Completed(0, "\n".join(self.daemon.log), "")
        if name in ("groupadd", "groupdel", "useradd", "userdel", "usermod"):
            self.calls.append(" ".join(argv))
            return self._accounts(name, argv[1:])
        if "--validate" in argv:
            self.calls.append("dockerd --validate")
            if self.validate_says:
                return Completed(1, "", self.validate_says)
            return Completed(0, "", "configuration OK")
        return super().run(argv, timeout, stdin)

    def _systemctl(self, verb: str) -> Completed:
        if verb == "daemon-reload":
            directory = self.base / "etc/systemd/system/docker.service.d"
            found = ["/%s" % path.relative_to(self.base) for path in sorted(directory.glob("*"))]
            self.service["DropInPaths"] = " ".join(found)
        if verb == "reload":
            self.daemon.reload()
        elif verb == "restart":
            if self.service["ActiveState"] == "active":
                self.daemon.stop()
            if self.daemon.start():
                return Completed(1, "", "Job for docker.service failed")
        return Completed(0, "", "")

    def _accounts(self, name: str, arguments: list[str]) -> Completed:
        target = arguments[-1]
        if name == "groupadd":
            self._append("/etc/group", "%s:x:990:" % target)
        elif name == "groupdel":
            self._remove("/etc/group", target + ":")
        elif name == "useradd":
            self._append("/etc/passwd", "%s:x:990:990::/nonexistent:/usr/sbin/nologin" % target)
        elif name == "userdel":
            for path in ("/etc/passwd", "/etc/subuid", "/etc/subgid"):
                self._remove(path, target + ":")
        else:
            for option, value in zip(arguments[:-1:2], arguments[1:-1:2]):
                first, last = map(int, value.split("-"))
                line = "%s:%d:%d" % (target, first, last - first + 1)
                path = "/etc/subuid" if option.endswith("subuids") else "/etc/subgid"
                (self._append if option.startswith("--add") else self._remove)(path, line)
        return Completed(0, "", "")

    def _append(self, path: str, line: str) -> None:
        target = self.base / path.lstrip("/")
        target.write_text(target.read_text() + line + "\n")

    def _remove(self, path: str, start: str) -> None:
        target = self.base / path.lstrip("/")
        lines = target.read_text().splitlines(keepends=True)
        target.write_text("".join(line for line in lines if not line.startswith(start)))

    # -- what tests compare --------------------------------------------------------------------------
    def tree(
        self, times: bool = False, everything: bool = False
    ) -> dict[str, tuple[typing.Any, ...]]:
        """Return all files: type and mode, owner, and content or target.

        :param everything: also what Bulkhead keeps for itself.
        :param times: also access, modification and change times, to prove that nothing was touched.
        """
        found: dict[str, tuple[typing.Any, ...]] = {}
        for directory, names, leaves in os.walk(self.base):
            shown = directory[len(str(self.base)) :]
            if not times:
                hidden = _NOT_COMPARED[:3] if everything else _NOT_COMPARED
                names[:] = [n for n in names if "%s/%s" % (shown, n) not in hidden]
            for name in sorted(names + leaves):
                path = os.path.join(directory, name)
                st = os.lstat(path)
                row: tuple[typing.Any, ...] = (oct(st.st_mode), st.st_uid, st.st_gid)
                if times:
                    # Listing a directory and connecting to a socket counts as access, writing not.
                    accessed = st.st_atime_ns if stat.S_ISREG(st.st_mode) else 0
                    row += (accessed, st.st_mtime_ns, st.st_ctime_ns)
                elif stat.S_ISREG(st.st_mode):
                    data = pathlib.Path(path).read_bytes()
                    row += (data if len(data) < 4096 else hashlib.sha256(data).hexdigest(),)
                if stat.S_ISLNK(st.st_mode):
                    row += (os.readlink(path),)
                found["%s/%s" % (shown, name)] = row
        return found

    def config(self) -> Json | None:
        """Return daemon.json, or None when it is absent."""
        path = self.base / CONFIG.lstrip("/")
        return json.loads(path.read_text()) if path.exists() else None

    def ledger(self) -> Json:
        """Return the ledger."""
        return typing.cast(
            Json, json.loads((self.base / "var/lib/bulkhead/ledger.json").read_text())
        )

    def pids(self) -> dict[str, int]:
        """Return the main processes of the running containers, by name."""
        return {
            item["Name"].lstrip("/"): item["State"]["Pid"]
            for item in self.daemon.containers.values()
            if item["State"]["Running"]
        }


@contextlib.contextmanager
def act_host(
    config: str | None = None, containers: typing.Sequence[str] = ()
) -> typing.Iterator[ActHost]:
    """Give a host whose daemon runs with a daemon.json and some containers."""
    # In memory, where it can be: a transaction waits for the disk many times.
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    base = tempfile.mkdtemp(prefix="bh", dir=memory)
    host = ActHost(pathlib.Path(base))
    host.write("/var/lib/.keep", "")
    if config is not None:
        host.write(CONFIG, config)
        host.old(CONFIG)
        host.old("/etc/docker")
    assert host.daemon.start() is None
    for name in containers:
        host.daemon.add(name)
    try:
        yield host
    finally:
        host.engine.stop()
        shutil.rmtree(base)


# -- plans -------------------------------------------------------------------------------------------
def plan(
    *operations: Json, effect: str = "none", profile: str = "compatible", **daemon: typing.Any
) -> Json:
    """Return a plan."""
    return {
        "schema": "bulkhead.plan/1",
        "profile": profile,
        "operations": list(operations),
        "daemon": {"effect": effect, "why": ["a test"], "live_restore_first": False, **daemon},
    }


def operation(op: str, **fields: typing.Any) -> Json:
    """Return one operation."""
    return {"op": op, "role": "docker_daemon", "undo": "live", "why": "a test", **fields}


def json_set(host: FakeHost, key: str, value: typing.Any, **more: typing.Any) -> Json:
    """Return the operation that sets a key of daemon.json as it is now."""
    version = host.version(CONFIG)
    return operation("json_set", path=CONFIG, key=key, value=value, observed=version, **more)


def json_remove(host: FakeHost, key: str, **more: typing.Any) -> Json:
    """Return the operation that removes a key of daemon.json as it is now."""
    return operation("json_remove", path=CONFIG, key=key, observed=host.version(CONFIG), **more)


def file_present(host: FakeHost, path: str, content: str, mode: str = "0644") -> Json:
    """Return the operation that places a file."""
    return operation(
        "file_present", path=path, content=content, mode=mode, owner="root", group="root",
        observed=host.version(path),
    )  # fmt: skip


def file_absent(host: FakeHost, path: str) -> Json:
    """Return the operation that removes a file."""
    return operation("file_absent", path=path, observed=host.version(path))


def profile(host: FakeHost, name: str, *rules: str, mode: str = "enforce") -> Json:
    """Return the operation that places an AppArmor profile and loads it."""
    flags = " flags=(complain)" if mode == "complain" else ""
    content = "profile %s%s {\n%s}\n" % (name, flags, "".join("  %s,\n" % rule for rule in rules))
    path = "/etc/apparmor.d/" + name
    return dict(
        operation("apparmor_profile", path=path, profile=name, content=content,
                  observed=host.version(path)),
        role="docker_apparmor",
    )  # fmt: skip


def sysctl_set(host: FakeHost, name: str, value: str, undo: str = "live") -> Json:
    """Return the operation that sets a parameter of the kernel as it is now."""
    observed = host.read_text("/proc/sys/" + name.replace(".", "/")).strip()
    fields = {"name": name, "value": value, "observed": observed, "undo": undo}
    return {**operation("sysctl_set"), "role": "docker_kernel", **fields}


def selinux(kind: str, **fields: typing.Any) -> Json:
    """Return an operation on SELinux: ``selinux("module", name="web", content="...")``."""
    return dict(operation("selinux_" + kind, **fields), role="docker_selinux")


def accounts(host: FakeHost, name: str = "bulkhead-userns", start: int = 300000) -> list[Json]:
    """Return the operations that userns-remap needs first."""
    ids = {"start": start, "count": 65536}
    observed = {"subuid": host.version("/etc/subuid"), "subgid": host.version("/etc/subgid")}
    return [
        operation("group_present", name=name),
        operation("user_present", name=name, group=name),
        operation("subid_present", user=name, subuid=ids, subgid=ids, observed=observed),
    ]


def observe(host: FakeHost) -> Json:
    """Return a look at the host."""
    return look.observe(host)
