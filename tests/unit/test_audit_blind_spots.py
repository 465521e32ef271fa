"""Hosts of which a look could miss something: none of it may become a pass."""

from __future__ import annotations

import os
import socket
import threading
import time
import typing

import pytest

from ansible_collections.bulkhead.hardening.plugins.module_utils import (
    look,
    look_cgroups,
    look_processes,
    look_sockets,
)
from ansible_collections.bulkhead.hardening.plugins.module_utils.docker_api import (
    ApiError,
    DockerApi,
)
from ansible_collections.bulkhead.hardening.plugins.module_utils.host import Host
from ansible_collections.bulkhead.hardening.plugins.plugin_utils import audit_run

from .fake_engine import (
    BOOTED_AT,
    CONTAINER_PID,
    DAEMON_PID,
    FakeHost,
    fake_host,
    identifier,
    inspection,
)
from .test_audit_checks import verdicts

Json = dict[str, typing.Any]
DAEMON = "/usr/sbin/dockerd"
DAEMON_JSON = "/etc/docker/daemon.json"

#: A row of /proc/net/tcp: port 2375 on every address, with inode 55555.
TCP = (
    "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
    "   0: 00000000:0947 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 55555\n"
)


@pytest.fixture
def host() -> typing.Iterator[FakeHost]:
    with fake_host() as made:
        yield made


def judged(host: FakeHost, *checks: str, **policy: typing.Any) -> dict[str, set[str]]:
    """Look at a host and return the verdicts of some checks."""
    seen, known = look.observe(host), audit_run.policy(policy)
    return {check: set(verdicts(check, seen, known).values()) for check in checks}


# -- the API, by a file that is not there any more -------------------------------------------------
@pytest.fixture
def open_api(host: FakeHost, monkeypatch: pytest.MonkeyPatch) -> FakeHost:
    """A host whose daemon was started 100 seconds ago by a file, and listens on TCP."""
    started = (int(time.time()) - 100 - BOOTED_AT) * 100
    monkeypatch.setattr("tests.unit.fake_engine.START_TICKS", started)
    host.process(DAEMON_PID, [DAEMON])
    host.write(DAEMON_JSON, '{"hosts": ["tcp://0.0.0.0:2375"], "iptables": false}')
    host.write("/proc/%d/net/tcp" % DAEMON_PID, TCP)
    (host.base / "proc" / str(DAEMON_PID) / "fd/7").symlink_to("socket:[55555]")
    for path in ("etc/docker/daemon.json", "usr/lib/systemd/system/docker.service"):
        os.utime(host.base / path, (BOOTED_AT, BOOTED_AT))
    return host


@pytest.mark.parametrize("how", ["moved", "emptied"])
def test_an_api_whose_file_was_changed_after_the_start(open_api: FakeHost, how: str) -> None:
    path = open_api.base / DAEMON_JSON.lstrip("/")
    if how == "moved":
        path.rename(path.with_name("daemon.json.bak"))
    else:
        path.write_text("{}")
    assert judged(open_api, "2.3", "2.4", "2.8", "BH-6", "BH-7", "BH-8") == {
        "2.3": {"error"},
        "2.4": {"error"},
        "2.8": {"error"},
        "BH-6": {"fail"},
        "BH-7": {"error"},
        "BH-8": {"fail"},
    }


@pytest.mark.parametrize(
    ("published", "swarm", "port", "verdict"),
    [
        ([], "inactive", "0947", "fail"),
        (["0.0.0.0"], "inactive", "0947", "not_applicable"),
        (["192.0.2.1"], "inactive", "0947", "fail"),  # of another address, and so another socket
        ([], "active", "0949", "not_applicable"),  # 2377
        ([], "inactive", "0949", "fail"),
    ],
)
def test_what_the_daemon_listens_for_beside_its_api(
    open_api: FakeHost, published: list[str], swarm: str, port: str, verdict: str
) -> None:
    open_api.write(DAEMON_JSON, "{}")
    open_api.write("/proc/%d/net/tcp" % DAEMON_PID, TCP.replace("0947", port))
    open_api.engine.answers["/info"]["Swarm"]["LocalNodeState"] = swarm
    open_api.engine.add(inspection("web", pid=0))
    open_api.engine.answers["/containers/json"][0]["Ports"] = [
        {"IP": address, "PrivatePort": 80, "PublicPort": 2375, "Type": "tcp"}
        for address in published
    ]
    assert judged(open_api, "BH-8") == {"BH-8": {verdict}}


def test_a_port_of_a_service_is_no_address_of_the_api(open_api: FakeHost) -> None:
    open_api.write(DAEMON_JSON, "{}")
    node = {"LocalNodeState": "active", "ControlAvailable": True}
    open_api.engine.answers["/info"]["Swarm"] = node
    ports = [{"Protocol": "tcp", "TargetPort": 80, "PublishedPort": 2375}]
    open_api.engine.answers["/services"] = [{"ID": "s", "Endpoint": {"Ports": ports}}]
    assert judged(open_api, "BH-8") == {"BH-8": {"not_applicable"}}


def test_an_api_where_nothing_tells_its_addresses(open_api: FakeHost) -> None:
    open_api.write(DAEMON_JSON, "{}")
    (open_api.base / "proc" / str(DAEMON_PID) / "net/unix").unlink()
    assert judged(open_api, "2.8", "BH-8") == {"2.8": {"error"}, "BH-8": {"error"}}


# -- mounts ------------------------------------------------------------------------------------------
def mounting(host: FakeHost, **mount: typing.Any) -> None:
    """Let a container run that has one mount."""
    row = {"Type": "bind", "Destination": "/d", "RW": True, "Propagation": "rprivate", **mount}
    host.engine.add(inspection("web", Mounts=[row]))
    host.container_process(CONTAINER_PID, "web")


@pytest.mark.parametrize(
    ("answer", "verdict"),
    [
        ({"Volumes": [{"Name": "v", "Driver": "local", "Options": None}]}, "pass"),
        (500, "error"),
        ({"Volumes": []}, "error"),
    ],
)
def test_volumes_of_which_the_daemon_does_not_say_what_they_are(
    host: FakeHost, answer: Json | int, verdict: str
) -> None:
    host.engine.answers["/volumes"] = answer
    source = "/var/lib/docker/volumes/v/_data"
    mounting(host, Type="volume", Name="v", Driver="local", Source=source)
    found = judged(host, "5.6", "5.32", "BH-16")
    assert found == {"5.6": {verdict}, "5.32": {verdict}, "BH-16": {verdict}}


def test_a_socket_beside_an_unknown_volume_is_found(host: FakeHost) -> None:
    host.engine.answers["/volumes"] = 500
    rows: list[Json] = [
        {"Type": "volume", "Name": "v", "Driver": "local", "Source": "/x", "Destination": "/x"},
        {"Type": "bind", "Source": "/run/docker.sock", "Destination": "/s", "RW": True},
    ]
    host.engine.add(inspection("web", pid=0, Mounts=rows))
    assert judged(host, "5.32", "BH-16") == {"5.32": {"fail"}, "BH-16": {"error"}}


@pytest.mark.parametrize(
    ("source", "sensitive", "socket"),
    [
        ("/run", "fail", "fail"),
        ("/var/lib/docker", "fail", "pass"),
        ("/var/lib/docker/plugins/p/propagated-mount", "pass", "pass"),
        ("/var/lib/docker/plugins/../containers", "fail", "pass"),
        ("/srv/shares/v", "pass", "pass"),
        ("", "pass", "pass"),
    ],
)
def test_a_volume_of_another_driver(
    host: FakeHost, source: str, sensitive: str, socket: str
) -> None:
    mounting(host, Type="volume", Name="v", Driver="local-persist", Source=source)
    assert judged(host, "5.6", "5.32") == {"5.6": {sensitive}, "5.32": {socket}}


@pytest.mark.parametrize("source", ["/var/lib/docker", "/var/lib/docker/containers", "/data", "/"])
@pytest.mark.parametrize("how", ["linked", "configured"])
def test_a_data_root_that_is_elsewhere(host: FakeHost, source: str, how: str) -> None:
    (host.base / "var/lib/docker").rename(host.base / "data")
    if how == "linked":
        (host.base / "var/lib/docker").symlink_to("/data")
    else:
        host.engine.answers["/info"]["DockerRootDir"] = "/data"
    mounting(host, Source=source)
    assert judged(host, "5.6") == {"5.6": {"fail"}}


@pytest.mark.parametrize("source", ["/home/ann", "/srv/home/ann", "/srv/home", "/srv", "/opt/h"])
def test_a_sensitive_directory_behind_a_link(host: FakeHost, source: str) -> None:
    (host.base / "srv/home/ann").mkdir(parents=True)
    (host.base / "srv/homes").mkdir()
    (host.base / "opt").mkdir()
    (host.base / "home").symlink_to("/srv/home")
    (host.base / "opt/h").symlink_to("/srv/home")
    mounting(host, Source=source)
    assert judged(host, "5.6") == {"5.6": {"fail"}}
    host.engine.answers["/containers/json"].clear()
    mounting(host, Source="/srv/homes")
    assert judged(host, "5.6") == {"5.6": {"pass"}}


@pytest.mark.parametrize(
    ("source", "verdict"), [("/mnt/var/lib/docker", "fail"), ("/mnt/x", "pass")]
)
def test_a_sensitive_directory_below_a_link(host: FakeHost, source: str, verdict: str) -> None:
    (host.base / "mnt").mkdir()
    (host.base / "var").rename(host.base / "mnt/var")
    (host.base / "var").symlink_to("/mnt/var")
    mounting(host, Source=source)
    assert judged(host, "5.6") == {"5.6": {verdict}}


# -- processes ---------------------------------------------------------------------------------------
SCOPE = "/sys/fs/cgroup/system.slice/docker-%s.scope" % identifier("web")
FEW, ALL = "00000000a80425fb", "000001ffffffffff"


def running(host: FakeHost, *programs: tuple[str, str, int], uid: int = 1000) -> None:
    """Let there be a container of which a user is the first process, and further ones.

    :param programs: of each the name, its effective capabilities and its user on the host.
    """
    host.engine.add(inspection("web"))
    host.container_process(CONTAINER_PID, "web", uid=uid)
    status = (host.base / "proc" / str(CONTAINER_PID) / "status").read_text()
    first = "Uid:\t%d\t%d\t%d\t%d\n" % (uid, uid, uid, uid)
    for pid, (name, caps, user) in enumerate(programs, 5000):
        text = status.replace("Name:\tsleep", "Name:\t" + name)
        text = text.replace(first, "Uid:\t%d\t%d\t%d\t%d\n" % (user, user, user, user))
        host.write("/proc/%d/status" % pid, text.replace("CapEff:\t" + FEW, "CapEff:\t" + caps))
    pids = [CONTAINER_PID, *range(5000, 5000 + len(programs))]
    host.write(SCOPE + "/cgroup.procs", "".join("%d\n" % pid for pid in pids))


CROWD = [("a%03d" % number, FEW, 1000) for number in range(look_processes.MAX_ROWS)]


@pytest.mark.parametrize(
    ("program", "check"),
    [
        (("zsshd", ALL, 1000), "5.23"),
        (("sshd", FEW, 1000), "5.7"),
        (("zsh", FEW, 0), "5.24"),
    ],
)
def test_a_process_in_a_crowd(host: FakeHost, program: tuple[str, str, int], check: str) -> None:
    running(host, *CROWD, program)
    others = {"5.7", "5.23", "5.24"} - {check}
    assert judged(host, check, *others) == {check: {"fail"}, **{key: {"error"} for key in others}}


def test_more_processes_than_are_looked_at(host: FakeHost, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(look_processes, "MAX_PROCESSES", 3)
    running(host, *CROWD[:2])
    assert judged(host, "5.7", "5.23") == {"5.7": {"pass"}, "5.23": {"pass"}}
    host.engine.answers["/containers/json"].clear()
    running(host, *CROWD[:3])
    assert judged(host, "5.7", "5.23") == {"5.7": {"error"}, "5.23": {"error"}}
    (container,) = look.observe(host)["containers"]
    assert container["unread"] == [
        {"item": "processes", "reason": "1 of its 4 processes were not looked at"}
    ]


@pytest.mark.parametrize(("groups", "verdict"), [(2, "pass"), (3, "error")])
def test_more_control_groups_than_are_looked_at(
    host: FakeHost, monkeypatch: pytest.MonkeyPatch, groups: int, verdict: str
) -> None:
    monkeypatch.setattr(look_cgroups, "MAX_GROUPS", 3)
    running(host)
    for number in range(groups):
        host.write("%s/g%d/cgroup.procs" % (SCOPE, number), "")
    assert judged(host, "5.7") == {"5.7": {verdict}}


@pytest.mark.parametrize(
    ("first", "other", "verdict"),
    [
        (101000, 100000, "fail"),  # root inside, an ordinary user outside
        (101000, 0, "fail"),
        (101000, 101000, "pass"),
        (100000, 100000, "not_applicable"),
    ],
)
def test_root_in_a_container_whose_users_are_remapped(
    host: FakeHost, first: int, other: int, verdict: str
) -> None:
    running(host, ("bash", FEW, other), uid=first)
    host.write("/proc/%d/uid_map" % CONTAINER_PID, "0 100000 65536\n")
    assert judged(host, "5.24") == {"5.24": {verdict}}


# -- who may use the socket --------------------------------------------------------------------------
@pytest.mark.parametrize("first", ["docker", "build"])
def test_members_of_a_second_group_of_the_same_number(host: FakeHost, first: str) -> None:
    rows = {"docker": "docker:x:102:ann\n", "build": "build:x:102:mallory\n"}
    ordered = sorted(rows, key=lambda name: name != first)
    host.write("/etc/group", "root:x:0:\n" + "".join(rows[name] for name in ordered))
    assert judged(host, "1.1.2", trusted_users=["ann"]) == {"1.1.2": {"fail"}}
    assert judged(host, "1.1.2", trusted_users=["ann", "mallory"]) == {"1.1.2": {"pass"}}
    group = look.observe(host, ["docker_group"])["docker_group"]
    assert (group["name"], group["aliases"]) == ("docker", ["build"])
    assert [member["name"] for member in group["members"]] == ["ann", "mallory"]


# -- names of sockets --------------------------------------------------------------------------------
UNIX = "Num       RefCount Protocol Flags    Type St Inode Path\n"


def row_of(inode: str, name: str, flags: str = "00010000") -> str:
    """Return a row of /proc/net/unix."""
    return "0000000000000000: 00000002 00000000 %s 0001 01 %s %s\n" % (flags, inode, name)


def test_the_kernel_escapes_nothing_in_the_names_of_sockets() -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind("\0bulkhead\n" + row_of("55555", "/x")[:-1])
        sock.listen()
        assert look_sockets.Listening(Host("/"), os.getpid()).rows["55555"]["path"] == "/x"


@pytest.fixture
def in_the_network_of_the_host(host: FakeHost) -> FakeHost:
    """A host with a container in its network that listens on port 80, with inode 55555."""
    host.engine.add(inspection("web"))
    host.container_process(CONTAINER_PID, "web")
    host.write("/proc/1/net/tcp", TCP.replace("0947", "0050"))
    host.write("/proc/1/net/unix", UNIX)
    for pid in (1, CONTAINER_PID):
        for kind in ("net", "pid", "ipc", "uts", "user", "cgroup", "mnt"):
            shared = pid == 1 or kind == "net"
            link = host.base / "proc" / str(pid) / "ns" / kind
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to("%s:[%d]" % (kind, 4026531840 if shared else 4026532999))
    (host.base / "proc" / str(CONTAINER_PID) / "fd/7").symlink_to("socket:[55555]")
    return host


@pytest.mark.parametrize("name", ["a\n" + row_of("55555", "/x"), "a\nx x x zz x x x x", "a\x0bb\r"])
def test_a_name_that_looks_like_a_row(in_the_network_of_the_host: FakeHost, name: str) -> None:
    host = in_the_network_of_the_host
    host.write("/proc/1/net/unix", UNIX + row_of("66666", name))
    host.write("/proc/%d/net/unix" % DAEMON_PID, UNIX + row_of("66666", name))
    found = judged(host, "2.3", "5.7", "5.8", "BH-7")
    assert found == {"2.3": {"pass"}, "5.7": {"pass"}, "5.8": {"fail"}, "BH-7": {"pass"}}


def test_two_rows_of_one_socket(in_the_network_of_the_host: FakeHost) -> None:
    host = in_the_network_of_the_host
    twice = UNIX + row_of("7777", "/run/a") + row_of("66666", "a\n" + row_of("7777", "/run/b"))
    host.write("/proc/1/net/unix", twice)
    assert judged(host, "5.8") == {"5.8": {"fail"}}  # it is nobody's who is asked about
    (host.base / "proc" / str(CONTAINER_PID) / "fd/8").symlink_to("socket:[7777]")
    assert judged(host, "5.8", "5.7", "2.3") == {"5.8": {"error"}, "5.7": {"pass"}, "2.3": {"pass"}}


def test_a_doubtful_socket_of_the_daemon(host: FakeHost) -> None:
    twice = UNIX + row_of("7777", "/run/a") + row_of("7777", "/run/b")
    host.write("/proc/%d/net/unix" % DAEMON_PID, twice)
    (host.base / "proc" / str(DAEMON_PID) / "fd/8").symlink_to("socket:[7777]")
    found = judged(host, "2.3", "2.8", "BH-7")
    assert found == {"2.3": {"pass"}, "2.8": {"not_applicable"}, "BH-7": {"error"}}


def test_more_open_files_than_are_looked_at(
    in_the_network_of_the_host: FakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(look_sockets, "MAX_DESCRIPTORS", 0)
    assert judged(in_the_network_of_the_host, "5.8") == {"5.8": {"error"}}


def test_sockets_of_a_container_with_too_many_control_groups(
    in_the_network_of_the_host: FakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(look_cgroups, "MAX_GROUPS", 1)
    in_the_network_of_the_host.write(SCOPE + "/g/cgroup.procs", "")
    assert judged(in_the_network_of_the_host, "5.8") == {"5.8": {"error"}}


# -- answers that are none ---------------------------------------------------------------------------
WEB = "/containers/%s/json" % identifier("web")


@pytest.mark.parametrize("answer", [b"", b'[{"Id": "ab', b"[]]", b"{}", b'"text"', b'["text"]'])
def test_a_list_of_containers_that_is_none(host: FakeHost, answer: bytes) -> None:
    host.engine.add(inspection("web", pid=0))
    host.engine.answers["/containers/json"] = answer
    seen = look.observe(host)
    assert seen["containers"] is None
    reason = "GET /containers/json: no valid answer"
    assert {"section": "containers", "item": None, "reason": reason} in seen["unread"]
    assert judged(host, "5.5") == {"5.5": {"error"}}


@pytest.mark.parametrize("answer", [b"", b'{"Id": "ab', b"[]", b"null", b'"text"'])
def test_a_container_whose_inspection_is_none(host: FakeHost, answer: bytes) -> None:
    host.engine.add(inspection("web", pid=0))
    host.engine.answers[WEB] = answer
    seen = look.observe(host)
    row = {"section": "containers", "item": identifier("web"), "reason": "no valid answer"}
    assert row in seen["unread"]
    found = judged(host, "5.2", "5.5", "5.6", "5.32")
    assert found == {"5.2": {"error"}, "5.5": {"error"}, "5.6": {"error"}, "5.32": {"error"}}


def test_answers_that_are_none_are_no_silence(host: FakeHost) -> None:
    """After three containers that did not answer in time the others are not asked."""
    for name in ("a", "b", "c", "d"):
        host.engine.add(inspection(name, pid=0))
        host.engine.answers["/containers/%s/json" % identifier(name)] = b"{"
    reasons = [row["error"] for row in look.observe(host)["containers"]]
    assert reasons == ["no valid answer"] * 4


def test_an_answer_that_is_cut_off(host: FakeHost) -> None:
    """Of the length that the daemon announced not all comes; what did come may be whole JSON."""
    path = str(host.base / "s")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        server.listen()

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n[]")

        thread = threading.Thread(target=serve)
        thread.start()
        with pytest.raises(ApiError, match="cut off"):
            DockerApi(path, 5).get("/containers/json")
        thread.join()
