"""The API over the network: its certificates read, its files looked at, its addresses planned and undone."""

from __future__ import annotations

import base64
import contextlib
import copy
import datetime
import errno
import importlib.util
import os
import pathlib
import socket
import ssl
import threading
import types
import typing

import jsonschema
import pytest
from cryptography import x509
from hypothesis import given, strategies

from ansible_collections.bulkhead.hardening.plugins.action.docker_host_apply import _FOR_PEOPLE
from ansible_collections.bulkhead.hardening.plugins.module_utils import (
    certificate,
    look,
    look_tls,
)
from ansible_collections.bulkhead.hardening.plugins.module_utils.flags_dropin import FLAGS_DROPIN
from ansible_collections.bulkhead.hardening.plugins.module_utils.transaction import apply
from ansible_collections.bulkhead.hardening.plugins.module_utils.transaction_undo import undo
from ansible_collections.bulkhead.hardening.plugins.plugin_utils import daemon_plan, daemon_policy
from ansible_collections.bulkhead.hardening.plugins.plugin_utils.plan import PolicyError
from lab import certificates
from tests.unit import observations as obs

from .fakes import ActHost, act_host
from .test_look import SCHEMA
from .test_look_systemd import DOCKER_CE, UNIT

ROOT = pathlib.Path(__file__).parents[2]
Json = dict[str, typing.Any]

#: The policy of most tests, and its files by the keys of daemon.json.
FILES = {"cacert": "/srv/ca.pem", "cert": "/srv/cert.pem", "key": "/srv/key.pem"}
KEYS = {f"tls{name}": path for name, path in FILES.items()}
ADDRESS = "tcp://127.0.0.1:2376"
POLICY: Json = {"tcp_hosts": [ADDRESS], "tls": FILES}


@pytest.fixture(scope="module")
def issued(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """Return a directory with certificates for 127.0.0.1 and docker.test."""
    directory = tmp_path_factory.mktemp("issued") / "certificates"
    certificates.issue(directory, ["127.0.0.1", "docker.test"])
    return directory


@pytest.fixture
def host(issued: pathlib.Path) -> typing.Iterator[ActHost]:
    """Give a host on which docker-ce's unit runs the daemon, and the files are in their place."""
    with act_host() as made:
        made.write(UNIT, DOCKER_CE)
        for path in FILES.values():
            made.write(path, (issued / "server" / os.path.basename(path)).read_bytes(), 0o644)
        made._systemctl("daemon-reload")
        assert made._systemctl("restart").rc == 0
        made.calls.clear()
        yield made


def observed(host: ActHost) -> Json:
    return look.observe(host, ["hardening"], tls_files=KEYS)


def planned(seen: Json, **policy: typing.Any) -> Json:
    """Plan the API alone, and the modes of files."""
    names = ("live_restore", "log_opts", "ulimits", "pids_limit", "seccomp_profile")
    quiet = dict.fromkeys(names, "unmanaged")
    read = daemon_policy.read({"profile": "compatible", **quiet, **policy})
    return daemon_plan.plan(seen, read)


def acted(host: ActHost, made: Json, **more: typing.Any) -> Json:
    return apply(host, {k: v for k, v in made.items() if k not in _FOR_PEOPLE}, **more)


def row(made: Json, setting: str) -> Json:
    return next(item for item in made["settings"] if item["setting"] == setting)


# -- certificates --------------------------------------------------------------------------------
def test_a_certificate_says_what_the_library_says(issued: pathlib.Path) -> None:
    pem = (issued / "server/cert.pem").read_text()
    (found,) = certificate.read("# a comment\n" + pem)
    known = x509.load_pem_x509_certificate(pem.encode())
    moments = (known.not_valid_before_utc.timestamp(), known.not_valid_after_utc.timestamp())
    assert found == certificate.Certificate(*moments, ["127.0.0.1", "docker.test"], True)
    (client,) = certificate.read((issued / "client/cert.pem").read_text())
    assert (client.names, client.serves) == ([], False)


@pytest.mark.parametrize(
    ("end", "says"),
    [
        ("491231235959Z", 2524607999.0),
        ("500101000000Z", -631152000.0),
        ("20500101000000Z", 2524608000.0),
    ],
)
def test_the_two_ways_to_write_a_year(end: str, says: float) -> None:
    tag = certificate._UTC_TIME if len(end) == 13 else certificate._TIME
    assert certificate._moment(certificate._Element(tag, end.encode())) == says


def wrapped(der: bytes) -> str:
    text = base64.encodebytes(der).decode()
    return f"-----BEGIN CERTIFICATE-----\n{text}-----END CERTIFICATE-----\n"


def test_every_certificate_that_is_cut_off(issued: pathlib.Path) -> None:
    der = ssl.PEM_cert_to_DER_cert((issued / "server/cert.pem").read_text())
    assert certificate.read(wrapped(der))
    for length in range(len(der)):
        with pytest.raises(ValueError, match=r"."):
            certificate.read(wrapped(der[:length]))


@given(data=strategies.data())
def test_no_certificate_does_harm(data: strategies.DataObject, issued: pathlib.Path) -> None:
    der = bytearray(ssl.PEM_cert_to_DER_cert((issued / "server/cert.pem").read_text()))
    for _ in range(data.draw(strategies.integers(1, 4))):
        der[data.draw(strategies.integers(0, len(der) - 1))] = data.draw(
            strategies.integers(0, 255)
        )
    try:
        (found,) = certificate.read(wrapped(bytes(der)))
    except ValueError:
        return
    assert len(found.names) < len(der)


@pytest.mark.parametrize(
    "pem", ["", "x" * 1000, wrapped(b""), wrapped(b"\0"), wrapped(b"\x30\x80\0\0")]
)
def test_what_is_no_certificate(pem: str) -> None:
    with pytest.raises(ValueError, match=r"no certificate|cut off"):
        certificate.read(pem)


def test_more_certificates_than_anybody_has() -> None:
    with pytest.raises(ValueError, match="more than 1000"):
        certificate.read(wrapped(b"\x30\0") * 1001)


# -- the look --------------------------------------------------------------------------------------
def test_files_that_only_the_policy_names(host: ActHost) -> None:
    seen = observed(host)
    jsonschema.validate(seen, SCHEMA)
    rows = {item["key"]: item for item in seen["tls_files"]}
    assert [(key, item["path"]) for key, item in rows.items()] == list(KEYS.items())
    assert {item["problem"] for item in rows.values()} == {None}
    assert {item["used"] for item in rows.values()} == {False}
    assert rows["tlscert"]["names"] == ["127.0.0.1", "docker.test"]
    assert rows["tlskey"]["not_after"] is None
    controls = {item["path"]: item["control"] for item in seen["files"]}
    assert controls["/srv/key.pem"] == ["3.13", "3.14"]


def test_files_that_the_daemon_uses_are_told_once(host: ActHost) -> None:
    host.write("/etc/docker/daemon.json", '{"tlsverify": true, "tlscacert": "/srv/ca.pem"}')
    rows = look.observe(host, ["tls_files"])["tls_files"]
    assert [item["path"] for item in rows] == [
        "/srv/ca.pem",
        "/root/.docker/cert.pem",
        "/root/.docker/key.pem",
    ]
    assert [item["problem"] for item in rows] == [None, *["No such file or directory"] * 2]
    host.write("/etc/docker/daemon.json", '{"tlscacert": "/srv/ca.pem"}')
    again = look.observe(host, ["tls_files"], tls_files={"tlscacert": "/srv/ca.pem"})["tls_files"]
    assert [item["used"] for item in again] == [True]


def encrypted(issued: pathlib.Path) -> bytes:
    from cryptography.hazmat.primitives import serialization as forms

    key = forms.load_pem_private_key((issued / "server/key.pem").read_bytes(), None)
    return key.private_bytes(
        forms.Encoding.PEM, forms.PrivateFormat.PKCS8, forms.BestAvailableEncryption(b"secret")
    )


def test_what_the_daemon_or_its_clients_could_not_use(host: ActHost, issued: pathlib.Path) -> None:
    def problem(name: str, content: bytes) -> str:
        former = (host.base / KEYS[name].lstrip("/")).read_bytes()
        host.write(KEYS[name], content)
        rows = {item["key"]: item["problem"] for item in look_tls.examine(host, KEYS)}
        host.write(KEYS[name], former)
        return str(rows[name])

    client = {path.stem: path.read_bytes() for path in (issued / "client").iterdir()}
    key = (issued / "server/key.pem").read_bytes()
    assert problem("tlskey", client["key"]) == "it does not belong to the certificate /srv/cert.pem"
    assert "is encrypted" in problem("tlskey", encrypted(issued))
    assert "OpenSSL does not take it" in problem("tlskey", b"-----BEGIN PRIVATE KEY-----\nAA==\n")
    assert "OpenSSL does not take it" in problem("tlskey", b"")
    assert "lacks serverAuth" in problem("tlscert", client["cert"])
    assert problem("tlscert", key) == "no certificate"
    assert "that of an authority" in problem("tlscacert", client["cert"])
    assert problem("tlscacert", b"\xff" * 9) == "no certificate"
    assert "larger than" in problem("tlscacert", b" " * 1100000)


def test_a_private_key_stays_where_it_is(host: ActHost, issued: pathlib.Path) -> None:
    lines = (issued / "server/key.pem").read_text().splitlines()[1:-1]
    for content in (None, b"x", encrypted(issued)):
        if content:
            host.write("/srv/key.pem", content)
        assert not any(line in str(observed(host)) for line in lines)


def test_a_certificate_is_judged_by_the_hosts_clock(
    host: ActHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    today = datetime.datetime.now(datetime.timezone.utc)
    end = (today + datetime.timedelta(days=certificates.DAYS, minutes=-5)).strftime("%Y-%m-%d")
    for days, says in ((-2, "is valid from"), (certificates.DAYS + 1, f"it expired on {end}")):
        moment = (today + datetime.timedelta(days=days)).timestamp()
        monkeypatch.setattr(host, "now", lambda moment=moment: moment)
        rows = look_tls.examine(host, KEYS)
        assert all(says in item["problem"] for item in rows if item["key"] != "tlskey")


@pytest.mark.parametrize(
    "make",
    [
        lambda path: path.mkdir(),
        lambda path: os.mkfifo(path),
        lambda path: path.symlink_to("/dev/zero"),
        lambda path: path.symlink_to(path.name),
    ],
)
def test_what_is_no_plain_file(host: ActHost, make: typing.Callable[[pathlib.Path], None]) -> None:
    for path in KEYS.values():
        (host.base / path.lstrip("/")).unlink()
        make(host.base / path.lstrip("/"))
    rows = look_tls.examine(host, KEYS)
    assert all(item["problem"] for item in rows)


def test_paths_of_another_shape_are_not_looked_at() -> None:
    assert look_tls.by_keys({"cacert": ["/a"], "cert": "", "key": "/k", "more": "/m"}) == {
        "tlskey": "/k"
    }


# -- the policy --------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("policy", "words"),
    [
        ({"tcp_hosts": "tcp://10.0.0.1:2376"}, ["docker_daemon_tcp_hosts", "a list"]),
        ({"tcp_hosts": ["10.0.0.1:2376"]}, ["'10.0.0.1:2376'", "tcp://ADDRESS:PORT"]),
        ({"tcp_hosts": ["tcp://10.0.0.1"]}, ["tcp://ADDRESS:PORT"]),
        ({"tcp_hosts": ["tcp://10.0.0.1:65536"]}, ["tcp://ADDRESS:PORT"]),
        ({"tcp_hosts": ["tcp://:2376"]}, ["tcp://ADDRESS:PORT"]),
        ({"tcp_hosts": ["tcp://docker.test:2376"]}, ["tcp://ADDRESS:PORT"]),
        ({"tcp_hosts": ["unix:///run/docker.sock"]}, ["tcp://ADDRESS:PORT"]),
        ({"tcp_hosts": [7]}, ["tcp://ADDRESS:PORT"]),
        ({"tcp_hosts": ["tcp://0.0.0.0:2376"]}, ["every address", "docker_daemon_tcp_any_address"]),
        ({"tcp_hosts": ["tcp://[::]:2376"]}, ["every address", "docker_daemon_tcp_any_address"]),
        ({"tcp_any_address": "maybe"}, ["docker_daemon_tcp_any_address", "true or false"]),
        ({"tls": {}}, ["docker_daemon_tls is {}", "cacert, cert, key"]),
        ({"tls": {"cacert": "/a", "key": "/k"}}, ["needs cert too"]),
        ({"tls": {**FILES, "ca": "/a"}}, ["docker_daemon_tls", "{cacert: PATH, cert: PATH, key: PATH}"]),
        ({"tls": "/etc/docker"}, ["docker_daemon_tls", "{cacert: PATH, cert: PATH, key: PATH}"]),
        ({"tls": {**FILES, "key": "key.pem"}}, ["docker_daemon_tls[key] is 'key.pem'", "absolute"]),
        ({"tls": {**FILES, "key": "/a/../k"}}, ["docker_daemon_tls[key]", "absolute"]),
        ({"tls": {**FILES, "key": "/a\n"}}, ["docker_daemon_tls[key]", "line of text"]),
        ({"options": {"tlsverify": True}}, ["docker_daemon_options[tlsverify]", "leave it out"]),
        ({"options": {"hosts": ["tcp://10.0.0.1:2376"], "tlsverify": True}}, ["docker_daemon_tcp_hosts"]),
    ],
)  # fmt: skip
def test_a_policy_that_is_refused(policy: Json, words: list[str]) -> None:
    with pytest.raises(PolicyError) as caught:
        daemon_policy.read({**POLICY, **policy})
    assert [word for word in words if word not in str(caught.value)] == []


def test_addresses_that_are_taken() -> None:
    hosts = ["tcp://192.0.2.1:2376", "tcp://[2001:db8::1]:2376", "tcp://0.0.0.0:2376"]
    read = daemon_policy.read({"tcp_hosts": hosts, "tcp_any_address": True, "tls": FILES})
    assert (list(read.tcp_hosts), read.tls) == (hosts, KEYS)


# -- the plan ----------------------------------------------------------------------------------------
def files(**more: typing.Any) -> list[Json]:
    """Return the section as a host shows it whose files only the policy names."""
    made = [
        {"key": key, "path": path, "used": False, "problem": None, "not_before": 1.0,
         "not_after": 4102444800.0, "names": ["127.0.0.1"] if key == "tlscert" else []}
        for key, path in KEYS.items()
    ]  # fmt: skip
    return [{**item, **more.get(item["key"], {})} for item in made]


def test_the_addresses_of_today_stay() -> None:
    made = planned(obs.stock(tls_files=files()), **POLICY)
    assert {op["key"]: op["value"] for op in made["operations"] if op["op"] == "json_set"} == {
        "hosts": ["fd://", ADDRESS],
        "tlsverify": True,
        **KEYS,
    }
    (taken,) = (op for op in made["operations"] if op["op"] == "flags_taken")
    assert taken["keys"] == ["hosts"]
    assert made["daemon"]["effect"] == "restart"


@pytest.mark.parametrize(
    ("sections", "says"),
    [
        ({"tls_files": files(tlskey={"problem": "No such file or directory"})},
         "docker_daemon_tls names /srv/key.pem for tlskey: No such file"),
        ({"tls_files": files()[:2]}, "/srv/key.pem for tlskey: this look did not see it"),
        ({"tls_files": None}, "this look did not see it"),
        ({"tls_files": files(), "engine": {"state": "absent", "version": None, "info": None}},
         "Docker is not installed"),
        ({"tls_files": files(), "engine": {"rootless": True}}, "rootless"),
    ],
)  # fmt: skip
def test_all_of_it_or_nothing(sections: Json, says: str) -> None:
    seen = obs.stock(**sections)
    seen["files"].append(obs.file("/srv/key.pem", "key", "0644", "3.14"))
    made = planned(seen, **POLICY)
    assert (row(made, "hosts")["state"], made["operations"]) == ("blocked", [])
    assert says in row(made, "hosts")["reason"]


@pytest.mark.parametrize(
    ("policy", "says"),
    [
        ({"restart": "never"}, "docker_daemon_restart"),
        (
            {"options": {"hosts": ["unix:///srv/d.sock"]}},
            "clients that use fd:// would lose the daemon",
        ),
    ],
)
def test_what_else_keeps_the_addresses_as_they_are(policy: Json, says: str) -> None:
    made = planned(obs.stock(tls_files=files()), **POLICY, **policy)
    assert (row(made, "hosts")["state"], made["operations"]) == ("blocked", [])
    assert says in row(made, "hosts")["reason"]


def test_a_flag_that_says_something_else_of_tls() -> None:
    seen = obs.stock(tls_files=files())
    seen["engine"]["options"]["tlskey"] = obs.option("/k.pem", source="flag", where="/u")
    made = planned(seen, **POLICY)
    assert (row(made, "hosts")["state"], made["operations"]) == ("blocked", [])
    assert "tlskey: it is given to dockerd as a flag in /u" in row(made, "hosts")["reason"]


def test_containers_that_a_restart_would_end() -> None:
    seen = obs.stock(tls_files=files(), containers=[obs.container()])
    seen["files"].append(obs.file("/srv/key.pem", "key", "0644", "3.14"))
    made = planned(seen, **POLICY)
    assert (row(made, "hosts")["state"], made["operations"]) == ("blocked", [])
    assert row(made, "hosts")["affected"] == ["web"]


def test_local_addresses_of_the_policy_come_first() -> None:
    local = ["fd://", "unix:///srv/d.sock"]
    made = planned(obs.stock(tls_files=files()), **POLICY, options={"hosts": local})
    values = [op["value"] for op in made["operations"] if op.get("key") == "hosts"]
    assert values == [[*local, ADDRESS]]


def test_what_clients_will_notice() -> None:
    seen = obs.stock(tls_files=files(tlscert={"names": ["docker.test"]}))
    seen["engine"]["options"]["hosts"] = obs.option(["fd://", "tcp://0.0.0.0:2375"], source="flag")
    reason = row(planned(seen, **POLICY), "hosts")["reason"]
    assert "tcp://0.0.0.0:2375 closes" in reason
    assert f"clients of {ADDRESS} must call it docker.test" in reason


@pytest.mark.parametrize(
    ("tls", "blocked"),
    [
        ({}, True),
        ({"tls": True}, False),
        ({"tlsverify": True}, False),
        ({"tlsverify": False, "tls": True}, True),
    ],
)
def test_an_address_of_others_without_client_certificates(tls: Json, blocked: bool) -> None:
    seen = obs.stock()
    seen["engine"]["options"]["hosts"] = obs.option(["fd://", "tcp://10.0.0.1:2375"], source="flag")
    for key, value in tls.items():
        seen["engine"]["options"][key] = obs.option(value)
    found = [item for item in planned(seen)["settings"] if item["setting"] == "hosts"]
    assert [item["state"] for item in found] == ["blocked"] * blocked
    assert all("tcp://10.0.0.1:2375 is root" in item["reason"] for item in found)


def test_a_certificate_that_ends_leaves_the_api_as_it_is(host: ActHost) -> None:
    acted(host, planned(observed(host), **POLICY))
    seen = copy.deepcopy(observed(host))
    seen["tls_files"][1]["problem"] = "it expired on 2026-01-01"
    made = planned(seen, **POLICY)
    assert (row(made, "hosts")["state"], made["operations"]) == ("blocked", [])


# -- the change --------------------------------------------------------------------------------------
def test_the_api_is_offered_and_taken_back(host: ActHost) -> None:
    before, flags = host.tree(), dict(host.flags)
    answer = acted(host, planned(observed(host), **POLICY), tls_files=FILES)
    assert answer["transaction"]["outcome"] == "committed", answer
    assert host.daemon.effective["hosts"] == ["fd://", ADDRESS]
    assert host.flags.get("hosts") is None
    modes = {path: (host.base / path.lstrip("/")).stat().st_mode & 0o777 for path in FILES.values()}
    assert modes == {"/srv/ca.pem": 0o444, "/srv/cert.pem": 0o444, "/srv/key.pem": 0o400}
    assert {item["used"] for item in answer["observation"]["tls_files"]} == {True}
    again = planned(answer["observation"], **POLICY)
    assert (again["operations"], row(again, "hosts")["state"]) == ([], "ok")
    # Undone, done again, and no longer in the policy.
    assert undo(host, "last")["transaction"]["outcome"] == "committed"
    assert (host.tree(), host.flags) == (before, flags)
    acted(host, planned(observed(host), **POLICY))
    acted(host, planned(look.observe(host, ["hardening"]), take_over_flags=["hosts"]))
    assert (host.config(), host.flags) == (None, flags)
    assert host.lstat(FLAGS_DROPIN) is None


def test_what_is_blocked_stays_explained_after_another_change(host: ActHost) -> None:
    host.write("/srv/key.pem", "x")
    policy = {**POLICY, "options": {"log-level": "warn"}}
    answer = acted(host, planned(observed(host), **policy), tls_files=FILES)
    assert answer["transaction"]["outcome"] == "committed"
    assert (
        "/srv/key.pem for tlskey: OpenSSL"
        in row(planned(answer["observation"], **policy), "hosts")["reason"]
    )


def test_files_that_changed_since_the_look(host: ActHost) -> None:
    made = planned(observed(host), **POLICY, file_modes="unmanaged")
    host.write("/srv/key.pem", "x")
    before = host.tree()
    answer = acted(host, made)
    assert answer["transaction"]["outcome"] == "refused"
    assert "tlskey: /srv/key.pem: OpenSSL does not take it" in answer["msg"]
    assert host.tree() == before


def test_an_address_that_is_not_the_hosts(host: ActHost) -> None:
    made = planned(observed(host), **{**POLICY, "tcp_hosts": ["tcp://192.0.2.77:2376"]})
    answer = acted(host, made)
    assert answer["transaction"]["outcome"] == "refused"
    assert "hosts: tcp://192.0.2.77:2376: Cannot assign requested address" in answer["msg"]


# -- the lab's certificates ----------------------------------------------------------------------------
def test_the_labs_certificates_serve_one_client(issued: pathlib.Path) -> None:
    def context(purpose: int, side: str) -> ssl.SSLContext:
        made = ssl.SSLContext(purpose)
        made.load_verify_locations(issued / side / "ca.pem")
        made.load_cert_chain(issued / side / "cert.pem", issued / side / "key.pem")
        made.verify_mode = ssl.CERT_REQUIRED
        return made

    pipes = [ssl.MemoryBIO(), ssl.MemoryBIO()]
    server = context(ssl.PROTOCOL_TLS_SERVER, "server").wrap_bio(*pipes, server_side=True)
    client = context(ssl.PROTOCOL_TLS_CLIENT, "client").wrap_bio(
        pipes[1], pipes[0], server_hostname="docker.test"
    )
    for side in (client, server) * 3:
        try:
            side.do_handshake()
        except ssl.SSLWantReadError:
            continue
    assert client.version() == server.version() == "TLSv1.3"
    assert [path.name for path in issued.iterdir() if path.is_file()] == []


def test_the_lab_overwrites_no_certificates(issued: pathlib.Path) -> None:
    with pytest.raises(FileExistsError):
        certificates.issue(issued, ["127.0.0.1"])


# -- the attack ----------------------------------------------------------------------------------------
@pytest.fixture
def attack(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """Return the attack on the API's port."""
    proof = ROOT / "roles/docker_proof/files"
    monkeypatch.syspath_prepend(str(proof / "program"))
    spec = importlib.util.spec_from_file_location("daemon_tcp", proof / "attacks/daemon_tcp.py")
    assert spec
    assert spec.loader
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


def greeted(
    attack: types.ModuleType, serve: typing.Callable[[socket.socket], object]
) -> tuple[str, str]:
    """Return what the attack says of a server: its outcome and its detail."""
    ours, theirs = socket.socketpair()

    def run() -> None:
        with theirs, contextlib.suppress(OSError):
            serve(theirs)

    thread = threading.Thread(target=run)
    thread.start()
    result = attack.greet("greet", lambda: ours)
    thread.join()
    return result.outcome, result.detail


def test_a_server_that_greets_everybody_is_a_breach(
    attack: types.ModuleType, issued: pathlib.Path
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(issued / "server/cert.pem", issued / "server/key.pem")
    context.load_verify_locations(issued / "server/ca.pem")

    def serve(stream: socket.socket) -> object:
        return context.wrap_socket(stream, server_side=True)

    assert greeted(attack, serve) == ("breached", "it asks for no client certificate")
    context.verify_mode = ssl.CERT_REQUIRED
    assert greeted(attack, serve) == ("held", "it asks for a client certificate")
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    assert greeted(attack, serve) == ("error", "it ended the greeting")


@pytest.mark.parametrize("said", [b"", b"\x16\x03", b"HTTP/1.0 400 Bad Request\r\n\r\n"])
def test_what_speaks_no_tls_is_no_breach(attack: types.ModuleType, said: bytes) -> None:
    def serve(stream: socket.socket) -> None:
        stream.recv(4096)
        stream.sendall(said)

    assert greeted(attack, serve) == ("held", "no TLS")


def test_nobody_at_the_port(attack: types.ModuleType) -> None:
    def refused() -> socket.socket:
        raise ConnectionRefusedError(errno.ECONNREFUSED, "no")

    assert tuple(attack.greet("x", refused)) == ("x", "held", "ECONNREFUSED")
