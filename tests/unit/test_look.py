"""The look at a whole host: its states, its honesty, and that it tells and changes nothing."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import pathlib
import shutil
import socket
import stat
import time
import typing

import jsonschema
import pytest

from ansible_collections.bulkhead.hardening.plugins.filter.docker_daemon_plan import (
    docker_daemon_plan,
)
from ansible_collections.bulkhead.hardening.plugins.module_utils import (
    health,
    ledger,
    look,
    look_common,
    look_daemon,
)
from ansible_collections.bulkhead.hardening.plugins.module_utils.host import Host
from ansible_collections.bulkhead.hardening.plugins.plugin_utils import audit_evaluate
from tests.unit.fake_engine import (
    BOOTED_AT,
    CONTAINER_PID,
    DAEMON_PID,
    START_TICKS,
    STARTED_AT,
    FakeHost,
    Json,
    fake_host,
    identifier,
    inspection,
)
from tests.unit.test_audit_checks import verdicts

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
SCHEMA = json.loads((REPOSITORY / "docs/schemas/observation.schema.json").read_text())
API_SECTIONS = ["containers", "images", "volumes", "networks"]
SECRET = "hunter2-secret"
DAEMON_JSON = "/etc/docker/daemon.json"


@pytest.fixture
def host() -> typing.Iterator[FakeHost]:
    """Give a Debian host with a running daemon."""
    with fake_host() as found:
        yield found


def observe(host: Host, *subset: str, **more: typing.Any) -> Json:
    """Look, and check the answer against its schema."""
    answer = look.observe(host, subset or None, **{"timeout": 2.0, **more})
    jsonschema.Draft202012Validator(SCHEMA).validate(answer)
    return answer


def unread(answer: Json) -> list[tuple[str, str | None, str]]:
    """Return the rows of ``unread`` as tuples."""
    return [(row["section"], row["item"], row["reason"]) for row in answer["unread"]]


def configure(host: FakeHost, values: Json, age: float = 1000.0) -> None:
    """Write a daemon.json that is ``age`` seconds older than the daemon (negative: newer)."""
    host.write(DAEMON_JSON, json.dumps(values))
    host.old(DAEMON_JSON, age)
    host.old("/etc/docker", age)


# -- a host that runs ----------------------------------------------------------------------------
def test_the_schema_is_a_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


RECORDED = sorted((REPOSITORY / "tests/fixtures/observations").glob("*.json"))


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: path.stem)
def test_recorded_observations_fit_the_schema(path: pathlib.Path) -> None:
    jsonschema.Draft202012Validator(SCHEMA).validate(json.loads(path.read_text()))


def test_a_running_host(host: FakeHost) -> None:
    answer = observe(host)
    assert list(answer) == ["schema", "collected_at", *look.SECTIONS, "unread", "api_calls"]
    assert answer["unread"] == []
    assert answer["api_calls"] == 6
    engine = answer["engine"]
    assert (engine["state"], engine["reason"]) == ("running", None)
    assert (engine["version"], engine["api_version"]) == ("26.1.5+dfsg1", "1.45")
    assert (engine["pid"], engine["started_at"]) == (DAEMON_PID, STARTED_AT)
    assert (engine["socket"], engine["binary"]) == ("/run/docker.sock", "/usr/sbin/dockerd")
    assert engine["config_loaded"] is True
    assert engine["options"]["hosts"] == {
        "configured": ["fd://"],
        "effective": ["fd://"],
        "read_from": "process",
        "source": "flag",
        "where": "/usr/lib/systemd/system/docker.service",
    }
    assert engine["options"]["seccomp-profile"]["effective"] == "builtin"
    assert answer["os"]["default_tasks_max"] == 2338
    assert answer["os"]["systemd_version"] == 257
    assert answer["units"]["docker.socket"]["listen"] == ["/run/docker.sock"]
    assert answer["lsm"]["apparmor"]["profiles"] == {"docker-default": "enforce", "x y": "complain"}
    assert answer["subids"]["subuid"] == [{"name": "ann", "start": 100000, "count": 65536}]
    assert answer["users"]["groups"][1] == {"name": "docker", "gid": 102, "members": ["ann"]}
    assert answer["modules"] == {"br_netfilter": "absent"}
    assert answer["bulkhead"]["state"] == "absent"


def test_one_call_of_systemctl_for_all_units(host: FakeHost) -> None:
    observe(host)
    calls = [command for command in host.commands if "docker.service" in command]
    assert len(calls) == 1


@pytest.mark.parametrize("containers", [0, 20])
def test_programs_are_started_for_the_host_and_none_for_a_container(
    host: FakeHost, containers: int
) -> None:
    for number in range(containers):
        host.container_process(6000 + number, f"c{number}")
        host.engine.add(inspection(f"c{number}", pid=6000 + number))
    answer = observe(host)
    assert [row["kernel"] is not None for row in answer["containers"]] == [True] * containers
    assert answer["api_calls"] == 6 + containers
    assert [command[:2] for command in host.commands] == [["systemctl", "show"]] * 2


def test_a_subset_gathers_nothing_else(host: FakeHost) -> None:
    answer = observe(host, "users", "sysctls")
    assert set(answer) == {"schema", "collected_at", "users", "sysctls", "unread", "api_calls"}
    assert answer["sysctls"]["fs.nr_open"] == "1048576"
    assert host.engine.requests == []
    assert host.commands == []


def test_a_mistyped_section_is_an_error(host: FakeHost) -> None:
    expected = r"contaners is not a section; choose from all, hardening, details, os, "
    with pytest.raises(ValueError, match=expected):
        look.observe(host, ["contaners", "os"])


@pytest.mark.parametrize(
    ("key", "info", "effective"),
    [
        ("live-restore", {"LiveRestoreEnabled": True}, True),
        ("debug", {"Debug": True}, True),
        ("experimental", {"ExperimentalBuild": True}, True),
        ("log-driver", {"LoggingDriver": "local"}, "local"),
        ("storage-driver", {"Driver": "vfs"}, "vfs"),
        ("exec-opts", {"CgroupDriver": "cgroupfs"}, ["native.cgroupdriver=cgroupfs"]),
        ("no-new-privileges", {"SecurityOptions": ["name=no-new-privileges"]}, True),
        ("selinux-enabled", {"SecurityOptions": ["name=selinux"]}, True),
        ("userns-remap", {"SecurityOptions": ["name=userns"]}, True),
        ("seccomp-profile", {"SecurityOptions": ["name=seccomp,profile=default"]}, "builtin"),
        ("seccomp-profile", {"SecurityOptions": ["name=seccomp,profile=unconfined"]}, "unconfined"),
        ("seccomp-profile", {"SecurityOptions": ["name=seccomp,profile=/a=b"]}, "/a=b"),
        ("data-root", {"DockerRootDir": "/d/1.2"}, "/d/1.2"),
        (
            "data-root",
            {"DockerRootDir": "/d/100000.100000", "SecurityOptions": ["name=userns"]},
            "/d",
        ),
        ("registry-mirrors", {"RegistryConfig": {"Mirrors": ["https://u:p@m/"]}}, ["https://m/"]),
        (
            "insecure-registries",
            {
                "RegistryConfig": {
                    "InsecureRegistryCIDRs": ["127.0.0.0/8", "10.0.0.0/8"],
                    "IndexConfigs": {"r:1": {"Secure": False}, "docker.io": {"Secure": True}},
                }
            },
            ["10.0.0.0/8", "r:1"],
        ),
        (
            "default-address-pools",
            {"DefaultAddressPools": [{"Base": "10.0.0.0/8", "Size": 24}]},
            [{"base": "10.0.0.0/8", "size": 24}],
        ),
        ("firewall-backend", {"FirewallBackend": {"Driver": "iptables+firewalld"}}, "iptables"),
    ],
)
def test_the_api_confirms_options(host: FakeHost, key: str, info: Json, effective: object) -> None:
    host.engine.answers["/info"].update(info)
    option = observe(host, "engine")["engine"]["options"][key]
    assert option == {"source": None, "where": None, "effective": effective, "read_from": "api"}


@pytest.mark.parametrize(
    ("version", "written", "shown", "value", "read_from"),
    [
        ("20.10.24+dfsg1", True, False, True, "file"),
        ("20.10.24+dfsg1", None, False, False, "default"),
        ("20.10.24+dfsg1", True, True, True, "api"),
        ("24.0.0", True, False, False, "api"),
        ("26.1.5+dfsg1", True, True, True, "api"),
    ],
)
def test_no_new_privileges_of_engines_that_do_not_tell_it(
    host: FakeHost, version: str, written: bool | None, shown: bool, value: bool, read_from: str
) -> None:
    host.engine.answers["/version"]["Version"] = version
    security = ["name=seccomp,profile=builtin", *(["name=no-new-privileges"] if shown else [])]
    host.engine.answers["/info"].update(ServerVersion=version, SecurityOptions=security)
    configure(host, {} if written is None else {"no-new-privileges": written})
    host.engine.add(inspection("old", pid=0))
    seen = observe(host)
    found = seen["engine"]["effective"]["no_new_privileges"]
    assert (found["value"], found["read_from"]) == (value, read_from)
    daemon = verdicts("2.15", seen, audit_evaluate.POLICY)[None]
    assert daemon == ("pass" if value else "pending" if written else "fail")
    container = verdicts("5.26", seen, audit_evaluate.POLICY)["old"]
    assert container == ("pass" if value else "fail")
    planned = docker_daemon_plan(seen, {"no_new_privileges": True})["settings"]
    state = next(r["state"] for r in planned if r["setting"] == "no-new-privileges")
    assert state == ("ok" if value else "pending" if written else "change")
    if value:  # the health gate after a restart
        key = "no-new-privileges"
        assert health.check_options({key: True}, [key], seen, restarted=True) == []


def test_an_engine_without_a_number_may_be_an_old_one(host: FakeHost) -> None:
    host.engine.answers["/version"]["Version"] = "nightly"
    configure(host, {"no-new-privileges": True})
    assert observe(host, "engine")["engine"]["options"]["no-new-privileges"]["read_from"] == "file"


def test_icc_is_read_from_the_bridge(host: FakeHost) -> None:
    options = host.engine.answers["/networks"][0]["Options"]
    options["com.docker.network.bridge.enable_icc"] = "false"
    configure(host, {"icc": True}, age=-10)
    assert observe(host, "engine")["engine"]["options"]["icc"] == {
        "configured": True,
        "source": "file",
        "where": DAEMON_JSON,
        "effective": False,
        "read_from": "api",
    }


def test_an_option_of_the_environment_file(host: FakeHost) -> None:
    host.write("/etc/default/docker", 'DOCKER_OPTS="--userland-proxy=false"\n')
    host.process(DAEMON_PID, ["/usr/sbin/dockerd", "-H", "fd://", "--userland-proxy=false"])
    options = observe(host, "engine")["engine"]["options"]
    assert options["userland-proxy"] == {
        "configured": False,
        "source": "environment",
        "where": "/etc/default/docker",
        "effective": False,
        "read_from": "process",
    }


def test_an_argument_that_the_unit_no_longer_has(host: FakeHost) -> None:
    host.process(DAEMON_PID, ["/usr/sbin/dockerd", "--mtu", "1400"])
    option = observe(host, "engine")["engine"]["options"]["mtu"]
    assert (option["source"], option["where"], option["effective"]) == ("flag", None, 1400)


def test_a_drop_in_that_redefines_the_command(host: FakeHost) -> None:
    path = "/etc/systemd/system/docker.service.d/x.conf"
    host.write(path, "[Service]\nExecStart=\nExecStart=/usr/sbin/dockerd --icc=false\n")
    host.service["DropInPaths"] = path
    host.process(DAEMON_PID, ["/usr/sbin/dockerd", "--icc=false"])
    answer = observe(host, "engine", "files")
    assert answer["engine"]["options"]["icc"]["where"] == path
    entry = next(item for item in answer["files"] if item["path"] == path)
    assert (entry["control"], entry["kind"]) == (["3.1", "3.2"], "unit")


def test_a_variable_of_the_daemon(host: FakeHost) -> None:
    host.process(DAEMON_PID, ["/usr/sbin/dockerd"], environ="DOCKER_TLS_VERIFY=1\0HOME=/root\0")
    option = observe(host, "engine")["engine"]["options"]["tlsverify"]
    assert (option["configured"], option["source"]) == (True, "environment")


# -- has the daemon read its file? ---------------------------------------------------------------
def test_a_file_older_than_the_daemon_is_loaded(host: FakeHost) -> None:
    configure(host, {"userland-proxy": False})
    engine = observe(host, "engine")["engine"]
    assert engine["config_loaded"] is True
    assert engine["options"]["userland-proxy"]["effective"] is False
    assert engine["options"]["userland-proxy"]["read_from"] == "file"


def test_a_file_newer_than_the_daemon_is_not(host: FakeHost) -> None:
    configure(host, {"userland-proxy": False}, age=-10)
    engine = observe(host, "engine")["engine"]
    assert engine["config_loaded"] is False
    assert engine["options"]["userland-proxy"] == {
        "configured": False,
        "source": "file",
        "where": DAEMON_JSON,
    }


def test_an_old_time_that_was_copied_along_proves_nothing(
    host: FakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``cp -p`` and rsync bring the time of another file; only the change time is the file's own."""
    monkeypatch.setattr("tests.unit.fake_engine.START_TICKS", 5000)
    host.process(DAEMON_PID, ["/usr/sbin/dockerd"])
    configure(host, {"userland-proxy": False})
    os.utime(host.base / DAEMON_JSON.lstrip("/"), (BOOTED_AT, BOOTED_AT))
    assert observe(host, "engine")["engine"]["config_loaded"] is False


@pytest.mark.parametrize(("ticks", "loaded"), [(START_TICKS, True), (START_TICKS + 1, False)])
def test_the_ledger_knows_what_was_loaded(
    host: FakeHost, monkeypatch: pytest.MonkeyPatch, ticks: int, loaded: bool
) -> None:
    configure(host, {"debug": True}, age=-10)
    digest = hashlib.sha256((host.base / "etc/docker/daemon.json").read_bytes()).hexdigest()
    known = {"loaded": {"sha256": digest, "pid": DAEMON_PID, "start_ticks": ticks}}
    monkeypatch.setattr(ledger, "read_ledger", lambda _: (known, "ok", None))
    assert observe(host, "engine")["engine"]["config_loaded"] is loaded


def test_no_file_and_an_old_directory(host: FakeHost) -> None:
    assert observe(host, "engine")["engine"]["config_loaded"] is True


def test_no_file_but_somebody_changed_the_directory(host: FakeHost) -> None:
    host.old("/etc/docker", -10)
    assert observe(host, "engine")["engine"]["config_loaded"] is False


def test_no_file_and_the_directory_changed_for_a_key(host: FakeHost) -> None:
    host.write("/etc/docker/key.json", "{}")
    host.old("/etc/docker/key.json", -1)
    host.old("/etc/docker", -1)
    assert observe(host, "engine")["engine"]["config_loaded"] is True


@pytest.fixture
def running(host: FakeHost, monkeypatch: pytest.MonkeyPatch) -> FakeHost:
    """A host whose daemon started 100 seconds ago, as its files were long before."""
    started = (int(time.time()) - 100 - BOOTED_AT) * 100
    monkeypatch.setattr("tests.unit.fake_engine.START_TICKS", started)
    host.process(DAEMON_PID, ["/usr/sbin/dockerd"])
    return host


@pytest.mark.parametrize("name", ["daemon.json.bak", "../daemon.json", "backup/daemon.json"])
def test_a_file_that_was_moved_away_after_the_start(running: FakeHost, name: str) -> None:
    configure(running, {"iptables": False})
    if name.startswith("backup"):
        (running.base / "etc/docker/backup").mkdir()
    (running.base / "etc/docker/daemon.json").rename(running.base / "etc/docker" / name)
    answer = observe(running, "engine", "details")["engine"]
    assert answer["config_loaded"] is False
    assert answer["effective"]["iptables"]["value"] is None
    assert [row["path"] for row in answer["newer_files"] if row["kind"] == "config"] == [
        DAEMON_JSON
    ]


def test_a_file_that_was_removed_and_the_time_of_its_directory_put_back(running: FakeHost) -> None:
    configure(running, {"iptables": False})
    (running.base / "etc/docker/daemon.json").unlink()
    os.utime(running.base / "etc/docker", (BOOTED_AT, BOOTED_AT))
    assert observe(running, "engine")["engine"]["config_loaded"] is False


def make(host: FakeHost, path: str) -> None:
    """Let somebody make a directory, or a file or link, in /etc/docker."""
    place = host.base / "etc/docker" / path
    if path.endswith("/"):
        place.mkdir(parents=True)
    elif path == "link":
        place.symlink_to("/etc/os-release")
    else:
        place.write_text(
            '{"defaultAction": "SCMP_ACT_ERRNO"}' if path.endswith("json") else "-----"
        )


@pytest.mark.parametrize("path", ["certs.d/hub.example/", "ca.pem", "seccomp.json", "link"])
def test_no_file_and_something_was_added_to_its_directory(running: FakeHost, path: str) -> None:
    os.utime(running.base / "etc/docker", (BOOTED_AT, BOOTED_AT))
    make(running, path)
    answer = observe(running, "engine", "details")["engine"]
    assert answer["config_loaded"] is True
    assert answer["effective"]["iptables"]["value"] is True


def test_a_file_that_was_removed_after_something_was_added(running: FakeHost) -> None:
    make(running, "certs.d/")
    os.utime(running.base / "etc/docker", (time.time() + 60,) * 2)
    assert observe(running, "engine")["engine"]["config_loaded"] is False


@pytest.mark.parametrize("age", [-10, 1000])
def test_no_directory_at_all(host: FakeHost, age: float) -> None:
    (host.base / "etc/docker").rmdir()
    host.old("/etc", age)
    assert observe(host, "engine")["engine"]["config_loaded"] is True


@pytest.mark.parametrize(
    "said",
    [
        {"LiveRestoreEnabled": True},
        {"LoggingDriver": "journald"},
        {"SecurityOptions": ["name=userns"]},
        {"RegistryConfig": {"Mirrors": ["http://mirror.example/"]}},
        {"Warnings": ["WARNING: API is accessible on http://0.0.0.0:2375 without encryption."]},
    ],
)
def test_no_directory_but_a_daemon_that_read_a_file(
    host: FakeHost, said: dict[str, typing.Any]
) -> None:
    (host.base / "etc/docker").rmdir()
    host.process(DAEMON_PID, ["/usr/sbin/dockerd"])
    host.engine.answers["/info"].update(said)
    assert observe(host, "engine")["engine"]["config_loaded"] is False
    flags = ["--live-restore", "--log-driver=journald", "--userns-remap=default", "-H", "fd://"]
    host.process(
        DAEMON_PID, ["/usr/sbin/dockerd", "--registry-mirror=http://mirror.example", *flags]
    )
    assert observe(host, "engine")["engine"]["config_loaded"] is True


@pytest.mark.parametrize(("digest", "loaded"), [("0" * 64, False), (ledger.NO_CONFIG, True)])
def test_no_directory_and_the_ledger_knows_what_was_loaded(
    host: FakeHost, monkeypatch: pytest.MonkeyPatch, digest: str, loaded: bool
) -> None:
    (host.base / "etc/docker").rmdir()
    known = {"loaded": {"sha256": digest, "pid": DAEMON_PID, "start_ticks": START_TICKS}}
    monkeypatch.setattr(ledger, "read_ledger", lambda _: (known, "ok", None))
    assert observe(host, "engine")["engine"]["config_loaded"] is loaded


@pytest.mark.parametrize(
    ("options", "rows"),
    [
        (None, []),
        ("--data-root=/mnt/new --debug", ["data-root", "debug"]),
        ("--config-file=/etc/other.json", ["config-file"]),
        ("--label=host=%H --unknown=1", []),
    ],
)
def test_flags_that_the_next_start_would_bring(
    host: FakeHost, options: str | None, rows: list[str]
) -> None:
    host.process(
        DAEMON_PID,
        ["/usr/sbin/dockerd", "-H", "fd://", "--containerd=/run/containerd/containerd.sock"],
    )
    if options:
        host.write("/etc/default/docker", "DOCKER_OPTS='%s'\n" % options)
    found = observe(host, "engine")["engine"]["unread_flags"]
    assert [row["key"] for row in found] == rows


def test_a_flag_that_is_gone_from_its_unit(host: FakeHost) -> None:
    host.process(
        DAEMON_PID,
        [
            "/usr/sbin/dockerd",
            "-H",
            "fd://",
            "--containerd=/run/containerd/containerd.sock",
            "--iptables=false",
        ],
    )
    found = observe(host, "engine")["engine"]["unread_flags"]
    assert found == [{"key": "iptables", "where": None}]


@pytest.mark.parametrize(
    ("flags", "config", "path"),
    [
        ([], "{}", "/var/lib/docker"),
        ([], '{"data-root": "/data/docker"}', "/data/docker"),
        ([], '{"graph": "/data/docker"}', "/data/docker"),
        (["--graph", "/data/docker"], "{}", "/data/docker"),
    ],
)
def test_a_data_root_behind_a_link(
    host: FakeHost, flags: list[str], config: str, path: str
) -> None:
    host.process(DAEMON_PID, ["/usr/sbin/dockerd", *flags])
    host.write("/etc/docker/daemon.json", config)
    link = host.base / path.lstrip("/")
    link.parent.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(link, ignore_errors=True)
    link.symlink_to("/mnt/disk/docker")
    engine = observe(host, "engine")["engine"]
    assert engine["data_root"] == {"path": path, "resolved": "/mnt/disk/docker"}


@pytest.mark.parametrize(
    ("address", "there"),
    [
        ("tcp://10.0.0.1:2375", True),
        ("10.0.0.1:2375", True),
        ("tcp://0.0.0.0:2375", False),
        ("tcp://10.0.0.1:2376", False),
        ("tcp://10.0.0.1", True),
        ("tcp://build.example:2375", True),
        ("tcp://:2399", True),
        ("tcp://[::]:2399", True),
        ("tcp://me:secret@127.0.0.1:2399", False),
        ("unix:///run/docker.sock", True),
        ("unix://", True),
        ("unix:///run/other.sock", False),
        ("fd://", True),
    ],
)
def test_addresses_that_the_next_start_would_bring(
    host: FakeHost, address: str, there: bool
) -> None:
    host.process(DAEMON_PID, ["/usr/sbin/dockerd"])
    host.write("/etc/docker/daemon.json", json.dumps({"hosts": [address]}))
    host.old("/etc/docker/daemon.json", -10)
    row = "0: %s 00000000:0000 0A 0:0 0:0 0 0 0 %d\n"
    host.write(
        "/proc/%d/net/tcp" % DAEMON_PID,
        "head\n" + row % ("0100000A:0947", 5) + row % ("00000000:095F", 6),
    )
    unix = "0000000000000000: 00000002 00000000 00010000 0001 01 7 /var/run/docker.sock\n"
    host.write("/proc/%d/net/unix" % DAEMON_PID, "head\n" + unix)
    for inode in (5, 6, 7):
        (host.base / "proc" / str(DAEMON_PID) / "fd" / str(inode)).symlink_to("socket:[%d]" % inode)
    found = observe(host, "engine")["engine"]
    shown = address.replace("me:secret@", "")
    assert (found["config_loaded"], found["unread_hosts"]) == (False, [] if there else [shown])
    shutil.rmtree(host.base / "proc" / str(DAEMON_PID) / "fd")
    assert observe(host, "engine")["engine"]["unread_hosts"] is None


# -- hosts whose daemon does not run -------------------------------------------------------------
@pytest.mark.parametrize(
    ("state", "node"),
    [("inactive", False), *((state, True) for state in ("active", "locked", "pending", "error"))],
)
def test_a_running_daemon_tells_of_its_swarm(host: FakeHost, state: str, node: bool) -> None:
    host.write("/var/lib/docker/swarm/docker-state.json", "{}")
    host.engine.answers["/info"]["Swarm"]["LocalNodeState"] = state
    assert observe(host, "engine")["engine"]["swarm_node"] is node


@pytest.mark.parametrize(
    ("path", "node"),
    [
        (None, False),
        ("swarm/docker-state.json", True),
        ("231072.231072/swarm/docker-state.json", True),
        ("overlay2/swarm/docker-state.json", False),
        ("swarm/other", False),
    ],
)
def test_of_a_stopped_daemon_its_data_root_tells_of_its_swarm(
    host: FakeHost, path: str | None, node: bool
) -> None:
    host.stopped()
    configure(host, {"data-root": "/data/docker"})
    if path:
        host.write("/mnt/docker/" + path, "{}")
        (host.base / "data").mkdir()
        (host.base / "data/docker").symlink_to("/mnt/docker")
    assert observe(host, "engine")["engine"]["swarm_node"] is node


def check_without_api(answer: Json, reason: str) -> None:
    """Check that the daemon was not asked, and that each section says why it is missing."""
    assert answer["api_calls"] == 0
    for section in API_SECTIONS:
        assert answer[section] is None
        assert (section, None, reason) in unread(answer)


def test_stopped_and_its_socket_is_left_alone(host: FakeHost) -> None:
    host.stopped()
    answer = observe(host)
    reason = "docker.service is inactive; docker.socket would start it"
    assert (answer["engine"]["state"], answer["engine"]["reason"]) == ("stopped", reason)
    check_without_api(answer, reason)
    assert host.engine.requests == []
    assert answer["engine"]["version"] == "26.1.5+dfsg1"
    assert answer["engine"]["config_loaded"] is None
    assert answer["engine"]["info"] is None
    hosts = answer["engine"]["options"]["hosts"]
    assert (hosts["configured"], "effective" in hosts) == (["fd://"], False)


def test_no_connection_at_all_to_a_stopped_daemon(
    host: FakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection alone would start the daemon, before any request."""
    monkeypatch.setattr(socket.socket, "connect", lambda *_: pytest.fail("connected"))
    for state in ("inactive", "failed", "activating", "deactivating"):
        host.stopped(active=state)
        observe(host)


def test_masked(host: FakeHost) -> None:
    host.stopped(LoadState="masked", UnitFileState="masked", FragmentPath="/dev/null")
    answer = observe(host)
    assert answer["engine"]["state"] == "masked"
    check_without_api(answer, "docker.service is masked")


def test_masked_while_it_runs(host: FakeHost) -> None:
    host.service.update(LoadState="masked", UnitFileState="masked")
    assert observe(host)["engine"]["state"] == "running"


@pytest.mark.parametrize(
    ("active", "sub", "reason"),
    [
        ("failed", "failed", "docker.service failed, result exit-code, restarted 3 times"),
        (
            "activating",
            "auto-restart",
            "docker.service is activating (auto-restart), result exit-code, restarted 3 times",
        ),
    ],
)
def test_broken(host: FakeHost, active: str, sub: str, reason: str) -> None:
    host.stopped(active=active, sub=sub, Result="exit-code", NRestarts=3)
    host.write(DAEMON_JSON, '{"icc": false,\n "x"}')
    answer = observe(host)
    whole = reason + "; /etc/docker/daemon.json: line 2 column 5: Expecting ':' delimiter"
    assert (answer["engine"]["state"], answer["engine"]["reason"]) == ("broken", whole)
    assert answer["daemon_config"]["state"] == "invalid"
    check_without_api(answer, whole)


def test_absent(host: FakeHost) -> None:
    host.without_docker()
    host.binary_says = ""
    answer = observe(host)
    assert answer["engine"]["state"] == "absent"
    assert answer["engine"]["binary"] is None
    check_without_api(answer, "Docker is not installed")


def test_only_an_init_script_is_left(host: FakeHost) -> None:
    """As after a removal of the package: nothing is run to see what it does."""
    path = "/run/systemd/generator.late/docker.service"
    host.write("/etc/init.d/docker", "#!/bin/sh\n", 0o755)
    host.write(path, "[Service]\nExecStart=/etc/init.d/docker start\n")
    host.without_docker()
    host.service.update(LoadState="loaded", UnitFileState="generated", FragmentPath=path)
    answer = observe(host)
    assert answer["engine"]["state"] == "absent"
    assert (answer["engine"]["binary"], answer["engine"]["version"]) == (None, None)
    assert [command for command in host.commands if command[0] != "systemctl"] == []


def test_a_daemon_beside_its_unit(host: FakeHost) -> None:
    """Started by hand while docker.service and docker.socket do not run."""
    for state in ("inactive", "failed"):
        host.stopped(active=state)
        host.socket_unit["ActiveState"] = "inactive"
        host.process(os.getpid(), ["/usr/sbin/dockerd", "--icc=false"])
        answer = observe(host)
        assert (answer["engine"]["state"], answer["engine"]["pid"]) == ("running", os.getpid())
        assert answer["images"] == []


def test_a_binary_without_a_unit(host: FakeHost) -> None:
    host.without_docker()
    host.write("/usr/bin/dockerd", "", 0o755)
    engine = observe(host)["engine"]
    assert (engine["state"], engine["binary"]) == ("stopped", "/usr/bin/dockerd")


def test_a_daemon_that_hangs(host: FakeHost) -> None:
    host.engine.silent.add("/version")
    answer = observe(host, timeout=0.2)
    reason = "/run/docker.sock: no answer within 0.2 s"
    assert (answer["engine"]["state"], answer["engine"]["reason"]) == ("broken", reason)
    assert answer["api_calls"] == 1
    assert [answer[section] for section in API_SECTIONS] == [None] * 4
    assert answer["engine"]["version"] == "26.1.5+dfsg1"
    assert answer["os"] is not None


@pytest.mark.parametrize("answer", [500, b"no json", b'["a list"]'])
def test_a_daemon_that_answers_nonsense(host: FakeHost, answer: object) -> None:
    host.engine.answers["/info"] = answer
    host.engine.answers["/containers/json"] = answer
    seen = observe(host)
    assert seen["engine"]["state"] == "running"


def test_a_daemon_that_fails_one_question_loses_one_section(host: FakeHost) -> None:
    host.engine.answers["/volumes"] = 500
    answer = observe(host)
    assert answer["volumes"] is None
    assert answer["images"] == []
    assert unread(answer) == [
        ("containers", "mounts", "GET /volumes: status 500"),
        ("volumes", None, "GET /volumes: status 500"),
    ]


def test_systemd_that_does_not_answer(host: FakeHost) -> None:
    host.systemctl_fails = "Failed to connect to bus"
    answer = observe(host)
    reason = "systemctl show: Failed to connect to bus"
    for section in ("engine", "daemon_config", "units", "files", *API_SECTIONS):
        assert answer[section] is None
        assert (section, None, reason) in unread(answer)
    assert ("os", "systemd", reason) in unread(answer)
    assert host.engine.requests == []


def test_no_unix_socket(host: FakeHost) -> None:
    host.process(DAEMON_PID, ["/usr/sbin/dockerd", "-H", "tcp://127.0.0.1:2375"])
    answer = observe(host)
    assert answer["engine"]["state"] == "running"
    assert answer["engine"]["reason"] == "the daemon listens on no unix socket"
    assert answer["containers"] is None


def test_another_socket_and_another_file(host: FakeHost) -> None:
    host.engine.stop()
    host.engine.socket = host.base / "srv/d.sock"
    host.engine.start()
    arguments = ["/usr/sbin/dockerd", "-H", "tcp://x", "-H", "unix:///srv/d.sock"]
    host.process(DAEMON_PID, [*arguments, "--config-file=/srv/d.json"])
    host.write("/srv/d.json", '{"debug": true}')
    answer = observe(host)
    assert answer["engine"]["socket"] == "/srv/d.sock"
    assert answer["engine"]["config_file"] == "/srv/d.json"
    assert answer["daemon_config"]["keys"] == {"debug": {"type": "boolean", "value": True}}
    controls = {item["path"]: item["control"] for item in answer["files"]}
    assert controls["/srv/d.sock"] == ["3.15", "3.16"]
    assert controls["/srv"] == ["3.5", "3.6"]


# -- hosts where systemd does not know Docker ----------------------------------------------------
def without_systemd(host: FakeHost) -> None:
    """Let something else run the host."""
    (host.base / "run/systemd/system").rmdir()


def test_the_peer_of_the_socket_is_the_daemon(host: FakeHost) -> None:
    without_systemd(host)
    host.process(os.getpid(), ["/opt/dockerd", "--icc=false"])
    answer = observe(host)
    assert answer["engine"]["pid"] == os.getpid()
    assert answer["engine"]["options"]["icc"]["configured"] is False
    assert answer["os"]["init"] == "other"
    assert answer["units"] is None
    assert ("units", None, "systemd does not run this host") in unread(answer)
    assert host.commands == []


def test_a_socket_that_nobody_listens_on(host: FakeHost) -> None:
    without_systemd(host)
    host.engine.stop()
    answer = observe(host)
    assert answer["engine"]["state"] == "stopped"


def test_a_socket_of_another_unit_is_left_alone(host: FakeHost) -> None:
    host.without_docker()
    host.engine.stop()
    host.engine.socket = host.base / "run/podman/podman.sock"
    host.engine.start()
    (host.base / "run/docker.sock").symlink_to("podman/podman.sock")
    host.other_sockets = (
        "Id=podman.socket\nListen=/run/podman/podman.sock (Stream)\nActiveState=active\n"
    )
    answer = observe(host)
    assert answer["engine"]["state"] == "absent"
    reason = "/run/docker.sock belongs to podman.socket, which starts on demand"
    assert answer["engine"]["reason"] == reason
    check_without_api(answer, reason)


def test_a_link_out_of_the_host_is_not_followed(host: FakeHost, tmp_path: pathlib.Path) -> None:
    without_systemd(host)
    (host.base / "run/docker.sock").unlink()
    (host.base / "run/docker.sock").symlink_to(tmp_path / "x")
    assert observe(host)["engine"]["pid"] is None


# -- containers ----------------------------------------------------------------------------------
def test_containers_and_their_kernel(host: FakeHost) -> None:
    host.engine.answers["/images/json"] = [
        {
            "Id": "sha256:" + "1" * 64,
            "RepoTags": ["shop:1", "<none>:<none>"],
            "RepoDigests": ["mirror/shop@sha256:aa", "shop@sha256:bb"],
            "Labels": {"bulkhead.role": "health"},
            "Size": 5,
            "Created": 6,
        }
    ]
    image = "/images/sha256:%s/" % ("1" * 64)  # not in the store, so the daemon is asked
    host.engine.answers[image + "json"] = {"Config": {"User": "app", "Env": ["A=b"]}}
    host.engine.answers[image + "history"] = [{"CreatedBy": "RUN /bin/sh -c apt-get update"}]
    host.engine.add(inspection("web"))
    host.engine.add(inspection("old", pid=0))
    host.container_process(CONTAINER_PID, "web", pids_max="2338")
    answer = observe(host)
    assert answer["unread"] == []
    web, old = answer["containers"]
    assert (web["name"], web["pid"], web["image_digest"]) == ("web", CONTAINER_PID, "sha256:bb")
    assert web["started_at"] == 1700000000.5
    assert web["finished_at"] is None
    assert web["kernel"]["pids_max"] == 2338
    assert web["kernel"]["pids_current"] == 3
    assert web["kernel"]["lsm_label"] == "docker-default (enforce)"
    assert web["kernel"]["nofile"] == {"soft": 1024, "hard": 524288}
    assert web["kernel"]["nproc"] == {"soft": None, "hard": None}
    assert web["config"]["masked_paths_default"] is True
    assert (old["state"], old["pid"], old["kernel"]) == ("exited", None, None)
    assert answer["images"][0]["bulkhead"] is False  # it labels itself
    assert answer["images"][0]["tags"] == ["shop:1"]
    assert answer["images"][0]["config"]["user"] == "app"
    assert answer["images"][0]["history"][0]["index_update"] is True
    assert answer["images"][0]["history_source"] == "api"
    (row,) = web["processes"]
    assert (row["cap_eff"], row["count"], row["more_caps"]) == ("00000000a80425fb", 1, False)
    bridge = answer["networks"][0]
    assert (bridge["name"], bridge["icc"], bridge["containers"]) == ("bridge", True, 2)
    assert answer["api_calls"] == 6 + 2 + 2


def test_a_process_that_cannot_be_read(host: FakeHost) -> None:
    host.engine.add(inspection("web"))
    host.engine.add(inspection("db", pid=4002))
    host.container_process(4002, "db")
    answer = observe(host, "containers")
    web, db = answer["containers"]
    assert (web["name"], web["kernel"]) == ("web", None)
    assert db["kernel"] is not None
    assert unread(answer) == [
        ("containers", identifier("web"), "/proc/4001: No such file or directory")
    ]


def test_a_container_that_ends_in_between(host: FakeHost) -> None:
    host.engine.add(inspection("web"))
    answers = [inspection("web"), inspection("web", pid=0)]
    host.engine.answers["/containers/%s/json" % identifier("web")] = lambda: answers.pop(0)
    answer = observe(host, "containers")
    assert answer["containers"][0]["state"] == "exited"
    assert answer["unread"] == []


def test_a_container_that_vanishes(host: FakeHost) -> None:
    host.engine.add(inspection("web"))
    del host.engine.answers["/containers/%s/json" % identifier("web")]
    answer = observe(host, "containers")
    assert (answer["containers"], answer["unread"]) == ([], [])


def test_a_container_that_vanishes_after_its_inspection(host: FakeHost) -> None:
    host.engine.add(inspection("web"))
    answers: list[typing.Any] = [inspection("web"), None]
    host.engine.answers["/containers/%s/json" % identifier("web")] = lambda: answers.pop(0)
    answer = observe(host, "containers")
    assert (answer["containers"], answer["unread"]) == ([], [])


def test_one_inspection_that_fails(host: FakeHost) -> None:
    host.engine.secret_message = SECRET
    for name in ("aa", "bb"):
        host.engine.add(inspection(name, pid=0))
    host.engine.answers["/containers/%s/json" % identifier("aa")] = 500
    answer = observe(host, "containers")
    assert [item["name"] for item in answer["containers"]] == ["bb"]
    assert unread(answer) == [("containers", identifier("aa"), "status 500")]
    failed, _ = observe(host, "containers", "details")["containers"]
    assert (failed["id"], failed["error"]) == (identifier("aa"), "status 500")
    assert (failed["config"], failed["kernel"]) == (None, None)


def test_a_daemon_that_stops_answering_is_not_asked_for_ever(host: FakeHost) -> None:
    for number in range(6):
        name = "c%d" % number
        host.engine.add(inspection(name, pid=0))
        host.engine.silent.add("/containers/%s/json" % identifier(name))
    answer = observe(host, "containers", timeout=0.5)
    assert answer["containers"] == []
    reasons = [row["reason"] for row in answer["unread"]]
    assert (
        reasons == ["no answer within 0.5 s"] * 3 + ["not asked: the daemon stopped answering"] * 3
    )


def test_hostile_shapes_cost_at_most_their_section(host: FakeHost) -> None:
    """Whatever type stands wherever: an answer comes, and it fits the schema."""
    sane = inspection("web", pid=0)
    for junk in (None, 7, "x", [], {}, [None], {"a": None}, True):
        for key in sane:
            host.engine.answers["/containers/json"] = []
            host.engine.add(inspection("web", pid=0))
            path = "/containers/%s/json" % identifier("web")
            host.engine.answers[path] = {**sane, key: junk}
            observe(host, "containers")
        for path in ("/version", "/info", "/images/json", "/volumes", "/networks"):
            kept = host.engine.answers[path]
            host.engine.answers[path] = junk
            observe(host)
            host.engine.answers[path] = kept


def test_texts_are_bounded(host: FakeHost) -> None:
    host.engine.add(inspection("x" * 9000, pid=0))
    answer = observe(host, "containers")
    assert len(answer["containers"][0]["name"]) == look_common.MAX_TEXT


def test_sizes_of_volumes_on_demand(host: FakeHost) -> None:
    rows = [
        {"Name": "a", "Driver": "local", "Mountpoint": "/m", "Options": None},
        {"Name": "b", "Driver": "local", "Options": {"o": "bind,ro", "device": "/srv"}},
        {"Name": "c", "Driver": "local", "Options": {"o": "username=x", "device": "//h/" + SECRET}},
    ]
    host.engine.answers["/volumes"] = {"Volumes": rows}
    usage = [{"Name": "a", "UsageData": {"Size": 7}}, {"Name": "b", "UsageData": {"Size": -1}}]
    host.engine.answers["/system/df"] = {"Volumes": usage}
    plain = observe(host, "volumes")["volumes"]
    sized = observe(host, "volumes", volume_sizes=True)["volumes"]
    assert [item["size"] for item in plain] == [None, None, None]
    assert [item["size"] for item in sized] == [7, None, None]
    assert [item["bind_source"] for item in plain] == [None, "/srv", None]
    assert "/system/df?type=volume" in host.engine.requests


# -- the kernel's view ---------------------------------------------------------------------------
def test_the_user_is_seen_from_both_sides(host: FakeHost) -> None:
    host.container_process(9, "web", uid=100033)
    host.write("/proc/9/uid_map", "0 100000 65536\n")
    view = look.kernel_view(host, 9)
    assert (view["uid"], view["host_uid"]) == (33, 100033)
    assert view["uid_map"] == [[0, 100000, 65536]]


def test_a_child_control_group_is_bound_by_its_parent(host: FakeHost) -> None:
    host.container_process(9, "web", pids_max="50")
    scope = "/system.slice/docker-%s.scope" % identifier("web")
    host.write("/proc/9/cgroup", "0::%s/init/x\n" % scope)
    host.write("/sys/fs/cgroup%s/init/pids.max" % scope, "max\n")
    host.write("/sys/fs/cgroup%s/init/x/pids.max" % scope, "60\n")
    view = look.kernel_view(host, 9)
    assert (view["cgroup"], view["pids_max"], view["pids_current"]) == (scope, 50, 3)


def test_the_old_hierarchy(host: FakeHost) -> None:
    host.container_process(9, "web")
    cgroup = "/docker/" + identifier("web")
    host.write("/proc/9/cgroup", "8:pids:%s\n3:cpu,cpuacct:/x\n0::/\n" % cgroup)
    host.write("/sys/fs/cgroup/pids%s/pids.max" % cgroup, "70\n")
    view = look.kernel_view(host, 9)
    assert (view["cgroup"], view["pids_max"], view["pids_current"]) == (cgroup, 70, None)


def test_a_process_of_this_very_system() -> None:
    view = look.kernel_view(Host(), os.getpid())
    assert view["host_uid"] == os.geteuid()
    assert len(view["cap_eff"]) == 16


def test_a_process_that_is_gone(host: FakeHost) -> None:
    with pytest.raises(OSError, match="No such file"):
        look.kernel_view(host, 123456)
    host.write("/proc/9/status", "")  # it ended while it was read
    with pytest.raises(ProcessLookupError):
        look.kernel_view(host, 9)


# -- the rest of the host ------------------------------------------------------------------------
def test_scope_dropins_of_every_directory(host: FakeHost) -> None:
    (host.base / "lib").symlink_to("usr/lib")
    base = "systemd/system/docker-.scope.d"
    host.write("/etc/%s/10-bulkhead.conf" % base, "[Scope]\nTasksMax=2048\n")
    host.write("/run/%s/20.conf" % base, "[Scope]\nTasksMax=infinity\n")
    content = "[Scope]\nTasksMax=1\nTasksMax=\n[Slice]\nTasksMax=2\n"
    host.write("/usr/lib/%s/30.conf" % base, content)
    host.write("/usr/lib/%s/readme" % base, "")
    found = observe(host, "scope_dropins")["scope_dropins"]
    assert [(item["path"], item["tasks_max"]) for item in found] == [
        ("/etc/%s/10-bulkhead.conf" % base, 2048),
        ("/run/%s/20.conf" % base, "infinity"),
        ("/usr/lib/%s/30.conf" % base, None),
    ]


def test_seccomp_profiles_by_what_they_say(host: FakeHost) -> None:
    assert observe(host, "seccomp_profiles")["seccomp_profiles"] == []
    directory = "/etc/docker/seccomp"
    host.write(directory + "/web.json", '{"b": [1], "a": 2}')
    host.write(directory + "/same.json", '{"a":2,\n"b":[1]}')
    host.write(directory + "/broken.json", "{")
    host.write(directory + "/README", "")
    (host.base / "etc/docker/seccomp/link.json").symlink_to("web.json")
    found = {
        row["path"].rpartition("/")[2]: row["sha256"]
        for row in observe(host, "seccomp_profiles")["seccomp_profiles"]
    }
    assert list(found) == ["broken.json", "link.json", "same.json", "web.json"]
    assert found["web.json"] == found["same.json"] == ledger.value_digest({"a": 2, "b": [1]})
    # A link leads wherever its owner wants; its target is not read.
    assert found["broken.json"] is found["link.json"] is None


def test_so_many_seccomp_profiles_are_not_all_read(host: FakeHost) -> None:
    for number in range(201):
        host.write("/etc/docker/seccomp/%03d.json" % number, "{}")
    answer = observe(host, "seccomp_profiles")
    assert len(answer["seccomp_profiles"]) == 200
    assert unread(answer) == [("seccomp_profiles", "/etc/docker/seccomp", "more than 200 files")]


def test_what_containers_wrote_is_asked_only_when_wanted(host: FakeHost) -> None:
    host.engine.add(inspection("web", Mounts=[{"Type": "tmpfs", "Destination": "/data/in/it"}]))
    host.container_process(CONTAINER_PID, "web")
    host.engine.add(inspection("idle", pid=0))
    assert "layer_writes" not in observe(host, "containers")["containers"][0]
    path = "/containers/%s/changes" % identifier("web")
    host.engine.answers[path] = [
        {"Path": "/data", "Kind": 0},
        {"Path": "/data/in", "Kind": 1},
        {"Path": "/data/in/it", "Kind": 1},
        {"Path": "/var", "Kind": 0},
        {"Path": "/var/cache", "Kind": 0},
        {"Path": "/var/cache/a", "Kind": 1},
        {"Path": "/file", "Kind": 2},
        {"Path": 5},
    ]
    found = {
        row["name"]: row["layer_writes"]
        for row in observe(host, "containers", writable_layers=True)["containers"]
    }
    # What was made for the mount to stand on is none of the container's.
    assert found["web"]["count"] == 2
    assert found["web"]["directories"] == ["/", "/var/cache"]
    assert found["idle"] is None
    host.engine.answers[path] = b"null"
    rows = observe(host, "containers", writable_layers=True)["containers"]
    assert rows[0]["layer_writes"] == {"count": 0, "directories": []}
    host.engine.answers[path] = 500
    answer = observe(host, "containers", writable_layers=True)
    assert answer["containers"][0]["layer_writes"] is None
    assert unread(answer)[0][1] == identifier("web") + "/changes"


def test_files_and_their_controls(host: FakeHost) -> None:
    configure(host, {"tlsverify": True, "tlscacert": "/srv/ca.pem", "data-root": "/srv/data"})
    host.write("/srv/ca.pem", "", 0o640)
    host.write("/etc/docker/certs.d/r:5000/client.key", "", 0o600)
    host.write("/etc/docker/certs.d/r:5000/ca.crt", "")
    (host.base / "etc/sysconfig").mkdir()
    (host.base / "etc/sysconfig/docker").symlink_to("/elsewhere")
    files = {item["path"]: item for item in observe(host, "files")["files"]}
    assert files["/srv/ca.pem"]["control"] == ["3.9", "3.10"]
    assert files["/srv/ca.pem"]["mode"] == "0640"
    assert files["/root/.docker/key.pem"]["type"] == "absent"
    assert files["/etc/docker/certs.d/r:5000/client.key"]["kind"] == "key"
    assert files["/etc/docker/certs.d/r:5000/ca.crt"]["control"] == ["3.7", "3.8"]
    link = files["/etc/sysconfig/docker"]
    assert (link["type"], link["link_target"]) == ("link", "/elsewhere")
    assert files["/run/docker.sock"]["type"] == "socket"
    assert files[DAEMON_JSON]["control"] == ["3.17", "3.18"]
    assert files["/srv/data"]["type"] == "absent"
    assert files["/srv"]["type"] == "directory"
    assert files["/srv"]["owner"] == "root"


@pytest.mark.parametrize(
    ("place", "state"),
    [
        ("/sys/module/br_netfilter/refcnt", "loaded"),
        ("/proc/sys/net/bridge/x", "loaded"),
        ("/lib/modules/6.12.0/modules.dep", "available"),
        ("/lib/modules/6.12.0/other", "absent"),
    ],
)
def test_the_bridge_module(host: FakeHost, place: str, state: str) -> None:
    host.write(place, "kernel/net/bridge/br_netfilter.ko.xz: kernel/net/bridge/bridge.ko.xz\n")
    assert observe(host, "modules")["modules"] == {"br_netfilter": state}


def test_what_bulkhead_left(host: FakeHost) -> None:
    state = host.base / "var/lib/bulkhead"
    state.mkdir(mode=0o700)
    content = ledger.empty_ledger()
    content.update(
        profile="strict",
        last_transaction={"id": "t", "outcome": "committed", "ended_at": 5.0, "more": 1},
        owned={"docker_daemon": [{"kind": "group", "name": "docker", "before": SECRET}]},
    )
    host.write("/var/lib/bulkhead/ledger.json", json.dumps(content), 0o600)
    found = observe(host, "bulkhead")["bulkhead"]
    assert (found["state"], found["profile"]) == ("ok", "strict")
    assert found["owned"] == {
        "docker_daemon": [{"kind": "group", "name": "docker", "intact": True}]
    }
    assert found["last_transaction"] == {"id": "t", "outcome": "committed", "ended_at": 5.0}
    state.chmod(0o755)
    answer = observe(host, "bulkhead")
    assert answer["bulkhead"]["state"] == "foreign"
    assert answer["unread"][0]["section"] == "bulkhead"


def test_tables_with_nonsense_in_them(host: FakeHost) -> None:
    host.write("/etc/passwd", "root:x:0:0::/:/x\n+::::\n#c:x:1:1\nbad:x:one:1\nshort\n\n")
    host.write("/etc/subuid", "a:1:x\nb:5:6\n")
    (host.base / "etc/subgid").unlink()
    answer = observe(host, "users", "subids")
    assert [item["name"] for item in answer["users"]["users"]] == ["root"]
    assert answer["subids"]["subuid"] == [{"name": "b", "start": 5, "count": 6}]
    assert (answer["subids"]["subgid"], answer["subids"]["subgid_version"]) == ([], "absent")


def test_a_table_that_is_missing(host: FakeHost) -> None:
    (host.base / "etc/group").unlink()
    answer = observe(host, "users")
    assert answer["users"] is None
    assert unread(answer) == [("users", None, "/etc/group: not found")]


def test_control_files_of_proc_can_be_read() -> None:
    """/proc/sys refuses to be read in one piece of several megabytes."""
    assert Host().read_text("/proc/sys/kernel/osrelease").strip() == os.uname().release


def test_the_time_of_boot_is_exact_on_a_real_host() -> None:
    class Clock(Host):
        def read_text(self, path: str, limit: int = 0) -> str:
            return "btime %d\n" % (self.now() - _uptime())

    def _uptime() -> float:
        import time

        return time.clock_gettime(time.CLOCK_BOOTTIME)

    clock = Clock()
    assert abs(look_daemon.boot_time(clock) - (clock.now() - _uptime())) < 0.05


def test_the_time_of_boot_of_another_tree(host: FakeHost) -> None:
    assert look_daemon.boot_time(host) == BOOTED_AT


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("2023-11-14T22:13:20Z", 1700000000.0),
        ("2023-11-14T22:13:20.123456789Z", 1700000000.123457),
        ("2023-11-14T23:13:20+01:00", 1700000000.0),
        ("0001-01-01T00:00:00Z", None),
        ("", None),
        (None, None),
        ("yesterday", None),
    ],
)
def test_times(text: object, seconds: float | None) -> None:
    assert look_common.timestamp(text) == seconds


# -- without privileges --------------------------------------------------------------------------
class Unprivileged(FakeHost):
    """A host that shows what root alone may read to nobody."""

    private = ("/proc/%d/environ" % DAEMON_PID, "/sys/kernel/security/apparmor/profiles")

    def read_bytes(self, path: str, limit: int = 1 << 22) -> bytes:
        """Read, unless it is private."""
        if path in self.private:
            raise PermissionError(errno.EACCES, "Permission denied")
        return super().read_bytes(path, limit)


def test_without_privileges(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    with fake_host() as made:
        host = Unprivileged(made.base)
        monkeypatch.setattr(socket.socket, "connect", refuse)
        answer = observe(host)
    reason = "/run/docker.sock: Permission denied"
    assert (answer["engine"]["state"], answer["engine"]["reason"]) == ("running", reason)
    assert unread(answer) == [
        ("engine", "info", reason),
        *[(section, None, reason) for section in API_SECTIONS],
        ("lsm", "/sys/kernel/security/apparmor/profiles", "Permission denied"),
        ("swarm", None, reason),
        ("services", None, reason),
        ("storage", "containerd_root", reason),
        ("engine", "/proc/812/environ", "Permission denied"),
    ]
    apparmor = answer["lsm"]["apparmor"]
    assert (apparmor["enabled"], apparmor["profiles"], apparmor["profile_list"]) == (
        True,
        None,
        None,
    )
    assert answer["engine"]["options"]["hosts"]["effective"] == ["fd://"]


# -- nothing is told -----------------------------------------------------------------------------
def test_no_secret_leaves_the_host(host: FakeHost) -> None:
    """Plant a secret in every place that may hold one, and look for it in the answer."""
    arguments = [
        "--label", "key=" + SECRET, "--label=%s" % SECRET, "--log-opt", "splunk-token=" + SECRET,
        "--storage-opt=" + SECRET, "--http-proxy=http://u:%s@p" % SECRET,
        "--cluster-store-opt=k=" + SECRET, "--no-such-flag=" + SECRET,
        "--node-generic-resource=" + SECRET,
        "--registry-mirror=https://u:%s@m/" % SECRET, "-H", "tcp://u:%s@h:1" % SECRET, "-H", "fd://",
        "--mtu=" + SECRET, "--icc=" + SECRET, SECRET,
    ]  # fmt: skip
    host.process(
        DAEMON_PID,
        ["/usr/sbin/dockerd", *arguments],
        environ="HTTP_PROXY=http://u:%s@p\0TOKEN=%s\0" % (SECRET, SECRET),
    )
    joined = " ".join(arguments)
    host.write("/etc/default/docker", "DOCKER_OPTS='%s'\nTOKEN=%s\n" % (joined, SECRET))
    configure(
        host,
        {
            "http-proxy": SECRET,
            "proxies": {"https-proxy": SECRET},
            "labels": [SECRET],
            "log-opts": {"splunk-token": SECRET, "max-size": "1m", "env": SECRET},
            "storage-opts": [SECRET],
            "foreign": SECRET,
            "foreign-list": [SECRET],
            "foreign-map": {"x": SECRET, "y": {"z": SECRET}},
            "icc": SECRET,
            "debug": [SECRET],
            "dns": [{"x": SECRET}],
            "registry-mirrors": ["https://%s@m/?token=%s" % (SECRET, SECRET)],
            "insecure-registries": ["u:%s@r" % SECRET],
            "hosts": ["tcp://u:%s@h" % SECRET],
            "runtimes": {"r": {"path": "/r", "runtimeArgs": [SECRET], "options": {"x": SECRET}}},
        },
    )
    host.engine.secret_message = SECRET
    info = host.engine.answers["/info"]
    info.update(HttpProxy=SECRET, Labels=[SECRET], Name="h", HttpsProxy=SECRET, NoProxy=SECRET)
    info["RegistryConfig"]["Mirrors"] = ["https://u:%s@m/" % SECRET]
    info["Runtimes"] = {"runc": {"path": "runc", "runtimeArgs": [SECRET]}}
    host.engine.answers["/images/json"] = [
        {"Id": "i", "Labels": {"a": SECRET, "bulkhead.role": SECRET}, "Comment": SECRET}
    ]
    host.engine.answers["/volumes"] = {
        "Volumes": [
            {
                "Name": "v",
                "Driver": "local",
                "Labels": {"a": SECRET},
                "Options": {"type": "cifs", "o": "password=" + SECRET, "device": "//" + SECRET},
                "Status": {"x": SECRET},
            }
        ]
    }
    host.engine.answers["/networks"][0].update(Labels={"a": SECRET}, ConfigFrom={"x": SECRET})
    host.engine.answers["/networks"][0]["Options"]["x"] = SECRET
    more = {
        "Config": {
            "Image": "shop:1",
            "Env": ["PASSWORD=" + SECRET, "MULTI=a\n=" + SECRET],
            "Labels": {"token": SECRET, "com.docker.compose.project": "shop"},
            "Cmd": ["sh", "-c", SECRET],
            "Entrypoint": [SECRET],
            "Healthcheck": {"Test": ["CMD", SECRET]},
        },
        "Path": SECRET,
        "Args": [SECRET],
        "HostConfig": {
            "LogConfig": {"Type": "splunk", "Config": {"splunk-token": SECRET, "max-size": "1m"}},
            "SecurityOpt": ["seccomp={%s}" % SECRET],
            "StorageOpt": {"x": SECRET},
            "Annotations": {"x": SECRET},
            "Mounts": [{"VolumeOptions": {"DriverConfig": {"Options": {"o": SECRET}}}}],
            "DeviceRequests": [{"Options": {"x": SECRET}}],
            "Sysctls": {"x": SECRET},
        },
        "State": {
            "Status": "exited",
            "Pid": 0,
            "Error": SECRET,
            "Health": {"Log": [{"Output": SECRET}]},
        },
        "GraphDriver": {"Data": {"x": SECRET}},
    }
    host.engine.add(inspection("web", **more))
    host.engine.add(inspection("bad"))
    host.engine.answers["/containers/%s/json" % identifier("bad")] = 500
    host.engine.answers["/system/df"] = 500
    host.write("/etc/passwd", "root:%s:0:0:%s:/root:/bin/sh\n" % (SECRET, SECRET))
    host.write("/etc/group", "root:%s:0:\n" % SECRET)
    for state in ("running", "stopped"):
        answer = observe(host, volume_sizes=True)
        assert answer["engine"]["state"] == state
        text = json.dumps(answer)
        assert SECRET not in text
        assert '"splunk-token"' in text
        host.stopped()


def test_names_and_shapes_do_leave_the_host(host: FakeHost) -> None:
    host.engine.add(
        inspection(
            "web",
            pid=0,
            Config={
                "Env": ["PASSWORD=" + SECRET],
                "Labels": {
                    "token": SECRET,
                    "com.docker.compose.project": "s" * 300,
                    "bulkhead.x": "y",
                },
            },
        )
    )
    web = observe(host, "containers")["containers"][0]
    assert web["config"]["env_names"] == ["PASSWORD"]
    assert web["label_count"] == 3
    assert web["labels"] == {"com.docker.compose.project": "s" * 256, "bulkhead.x": "y"}


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ("https://ci-token:%s@git.example/x.git" % SECRET, "https://(hidden)@git.example/x.git"),
        ("https://ci:a@%s@git.example/x.git" % SECRET, "https://(hidden)@git.example/x.git"),
        ("https://git.example/x?private_token=%s" % SECRET, None),
        ("https://git.example/x.git", "https://git.example/x.git"),
        ("0123456789abcdef0123456789abcdef01234567", "0123456789abcdef0123456789abcdef01234567"),
        ("Ann <ann@example.org>", "Ann <ann@example.org>"),
    ],
)
def test_credentials_in_a_label(host: FakeHost, value: str, told: str | None) -> None:
    web = inspection("web", pid=0)
    web["Config"]["Labels"] = {"org.opencontainers.image.source": value}
    host.engine.add(web)
    answer = observe(host)
    assert SECRET not in json.dumps(answer)
    if told is not None:
        assert answer["containers"][0]["labels"] == {"org.opencontainers.image.source": told}


# -- nothing is changed --------------------------------------------------------------------------
def statuses(paths: list[pathlib.Path]) -> dict[pathlib.Path, typing.Any]:
    """Return what lstat(2) says of each path, by path.

    Left out is the access time of links, which nobody can resolve, and of sockets, to which nobody
    can connect, without touching it.
    """
    found = {}
    for path in paths:
        status = path.lstat()
        touched = stat.S_ISLNK(status.st_mode) or stat.S_ISSOCK(status.st_mode)
        seen = None if touched else status.st_atime_ns
        found[path] = (tuple(status)[:7], status.st_mtime_ns, status.st_ctime_ns, seen)
    return found


@pytest.mark.parametrize("state", ["running", "stopped"])
def test_a_look_changes_nothing(host: FakeHost, state: str) -> None:
    host.engine.add(inspection("web"))
    host.container_process(CONTAINER_PID, "web")
    configure(host, {"icc": False, "log-opts": {"max-size": "1m"}})
    host.write("/etc/docker/certs.d/r/ca.crt", "x")
    host.write("/etc/systemd/system/docker-.scope.d/1.conf", "[Scope]\nTasksMax=1\n")
    (host.base / "var/lib/bulkhead").mkdir(mode=0o700)
    host.write("/var/lib/bulkhead/ledger.json", json.dumps(ledger.empty_ledger()), 0o600)
    if state == "stopped":
        host.stopped()
    paths = [host.base, *sorted(host.base.rglob("*"))]
    contents = {path: path.read_bytes() for path in paths if path.is_file()}
    for path in paths:  # so old that even relatime would update it
        os.utime(path, (1_000_000_000, 1_000_000_000), follow_symlinks=False)
    before = statuses(paths)
    observe(host, volume_sizes=True)
    assert statuses(paths) == before
    assert [host.base, *sorted(host.base.rglob("*"))] == paths
    assert {path: path.read_bytes() for path in contents} == contents


def test_reading_the_journals_changes_nothing(host: FakeHost) -> None:
    journals = host.base / "var/lib/bulkhead/transactions"
    (journals / "20260101T000000Z-000000").mkdir(parents=True)
    for path in (journals.parent, journals, *journals.iterdir()):
        path.chmod(0o700)
    begin = json.dumps({"record": "begin", "schema": ledger.JOURNAL_SCHEMA})
    host.write(ledger.TRANSACTIONS + "/20260101T000000Z-000000/journal.jsonl", begin + "\n")
    paths = [journals, *sorted(journals.rglob("*"))]
    for path in paths:
        os.utime(path, (1_000_000_000, 1_000_000_000))
    before = statuses(paths)
    rows = observe(host, "bulkhead")["bulkhead"]["transactions"]
    assert [row["outcome"] for row in rows] == ["open"]
    assert statuses(paths) == before


# -- for the door to act -------------------------------------------------------------------------
def test_the_arguments_of_the_daemon(host: FakeHost) -> None:
    expected = ["-H", "fd://", "--containerd=/run/containerd/containerd.sock"]
    assert look.daemon_arguments(host) == expected
    host.stopped()
    assert look.daemon_arguments(host) == expected
    host.without_docker()
    assert look.daemon_arguments(host) == []


def test_the_arguments_of_the_next_start(host: FakeHost) -> None:
    host.write("/etc/default/docker", "DOCKER_OPTS=--icc\n")
    now, following = look.arguments_now_and_next(host)
    assert tuple(following[-1]) == ("--icc", "environment", "/etc/default/docker")
    assert [*now, "--icc"] == [word.text for word in following]
    host.without_docker()
    assert look.arguments_now_and_next(host) == ([], [])
