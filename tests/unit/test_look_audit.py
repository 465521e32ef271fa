"""What an audit looks at: rules of audit, images, mounts, access lists, names and addresses."""

from __future__ import annotations

import hashlib
import json
import pathlib
import shlex
import socket
import struct
import typing

import pytest

from ansible_collections.bulkhead.hardening.plugins.module_utils import (
    audit_rules,
    ledger,
    look,
    look_containers,
    look_files,
    look_images,
)
from ansible_collections.bulkhead.hardening.plugins.module_utils.host import Host
from ansible_collections.bulkhead.hardening.plugins.module_utils.look_common import (
    UnreadableError,
    address_class,
    reference,
)
from ansible_collections.bulkhead.hardening.plugins.module_utils.look_mounts import (
    Mounts,
    control_sockets,
)
from ansible_collections.bulkhead.hardening.plugins.plugin_utils import (
    audit_evaluate,
    seccomp_profile,
)

from .fake_engine import FakeHost, fake_host, identifier, inspection
from .test_audit_checks import verdicts

Json = dict[str, typing.Any]


# -- audit rules -----------------------------------------------------------------------------------
def line(text: str) -> Json | None:
    return audit_rules.parse(shlex.split(text), lambda path: path.endswith("/dir"))


@pytest.mark.parametrize(
    ("text", "kind", "path", "perm"),
    [
        ("-w /etc/docker/dir -p wa -k docker", "dir", "/etc/docker/dir", "wa"),
        ("-w /etc/docker/dir/", "dir", "/etc/docker/dir", "rwxa"),
        ("-w /usr/bin/dockerd -p aw", "path", "/usr/bin/dockerd", "wa"),
        (
            "-a always,exit -F path=/usr/bin/dockerd -F perm=wa -k d",
            "path",
            "/usr/bin/dockerd",
            "wa",
        ),
        ("-a exit,always -F dir=/etc/docker -F perm=wa", "dir", "/etc/docker", "wa"),
    ],
)
def test_a_line_of_a_rules_file(text: str, kind: str, path: str, perm: str) -> None:
    rule = line(text)
    assert rule is not None
    assert (rule["kind"], rule["path"], rule["perm"]) == (kind, path, perm)
    assert (rule["list"], rule["action"], rule["syscalls"], rule["fields"]) == (
        "exit",
        "always",
        ["all"],
        [],
    )


def test_conditions_and_system_calls_are_kept() -> None:
    rule = line("-a always,exit -F arch=b64 -S open,openat -F auid>=1000 -F auid!=-1 -k a -k b")
    assert rule is not None
    assert (rule["arch"], rule["syscalls"], rule["keys"]) == ("b64", ["open", "openat"], ["a", "b"])
    assert [(f["field"], f["op"], f["value"]) for f in rule["fields"]] == [
        ("auid", ">=", "1000"),
        ("auid", "!=", "unset"),
    ]


@pytest.mark.parametrize(
    "text", ["-D", "-b 8192", "-e 2", "--backlog_wait_time 60000", "-W /etc/x"]
)
def test_a_line_that_adds_no_rule(text: str) -> None:
    assert line(text) is None


@pytest.mark.parametrize(
    "text", ["-w", "-k x", "-a always -S open", "what", "-a always,exit -F path"]
)
def test_a_line_that_is_none_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match=r"\S"):
        line(text)


def kernel_rule(fields: list[tuple[int, int, int]], texts: bytes = b"") -> bytes:
    """Return a ``struct audit_rule_data``: exit, always, all system calls."""
    padded = fields + [(0, 0, 0)] * (64 - len(fields))
    numbers = [4, 2, len(fields), *[0xFFFFFFFF] * 64]
    for position in range(3):
        numbers += [field[position] for field in padded]
    return struct.pack("=%dI" % len(numbers), *numbers) + struct.pack("=I", len(texts)) + texts


def test_a_rule_as_the_kernel_tells_it() -> None:
    path, key = b"/etc/docker", b"docker"
    data = kernel_rule(
        [(107, len(path), 0x40000000), (106, 2 | 8, 0x40000000), (210, len(key), 0x40000000)],
        path + key,
    )
    rule = audit_rules.decode(data)
    assert (rule["kind"], rule["path"], rule["perm"], rule["key"]) == (
        "dir",
        "/etc/docker",
        "wa",
        "docker",
    )
    assert (rule["list"], rule["action"], rule["syscalls"]) == ("exit", "always", ["all"])


@pytest.mark.parametrize("data", [b"", b"\x00" * 16, b"\xff" * 64])
def test_a_rule_that_is_cut_off_is_an_error(data: bytes) -> None:
    with pytest.raises((ValueError, struct.error)):
        audit_rules.decode(data)


# -- images ----------------------------------------------------------------------------------------
def steps(*created_by: str) -> list[Json]:
    document = {
        "history": [{"created_by": text} for text in created_by],
        "config": {"Env": ["TOKEN=x", "A=b"]},
    }
    found: list[Json] = look_images.contents(document, "store")["history"]
    return found


@pytest.mark.parametrize(
    ("text", "update", "install"),
    [
        ("RUN /bin/sh -c apt-get update # buildkit", True, False),
        ("/bin/sh -c apt-get -qq update && apt-get install -y curl", True, True),
        ("RUN /bin/sh -c apk add --no-cache curl", False, True),
        ("RUN /bin/sh -c update-ca-certificates", False, False),
        ("|1 HTTP_PROXY=x /bin/sh -c yum makecache", True, False),
        ("RUN /bin/sh -c apt-get -o Dpkg::Use-Pty=0 update; dnf upgrade", True, True),
    ],
)
def test_what_a_build_step_does_to_packages(text: str, update: bool, install: bool) -> None:
    (step,) = steps(text)
    assert (step["instruction"], step["index_update"], step["install"]) == ("RUN", update, install)


@pytest.mark.parametrize(
    ("text", "instruction", "remote"),
    [
        ("/bin/sh -c #(nop) ADD file:abc in / ", "ADD", False),
        ("ADD https://example.org/x /x # buildkit", "ADD", True),
        ("/bin/sh -c #(nop) COPY dir:abc in /app ", "COPY", None),
        ("LOADER x", "OTHER", None),
    ],
)
def test_instructions_of_both_builders(text: str, instruction: str, remote: bool | None) -> None:
    (step,) = steps(text)
    assert (step["instruction"], step["add_remote"]) == (instruction, remote)


def test_values_of_a_build_stay_on_the_host() -> None:
    found = steps(
        "ENV TOKEN=hunter2 A=b", "ARG PASSWORD=hunter2", "|1 P=hunter2 /bin/sh -c echo hunter2"
    )
    assert "hunter2" not in json.dumps(found)
    assert [step["names"] for step in found] == [["TOKEN", "A"], ["PASSWORD"], []]


def test_a_configuration_that_is_not_what_its_name_says(tmp_path: pathlib.Path) -> None:
    good = json.dumps({"rootfs": {"diff_ids": []}}).encode()
    name = hashlib.sha256(good).hexdigest()
    place = tmp_path / "d/image/overlay2/imagedb/content/sha256"
    place.mkdir(parents=True)
    store = look_images.Store(Host(str(tmp_path)), "/d", "overlay2", [])
    (place / name).write_bytes(good)
    assert store.config("sha256:" + name, "amd64") == {"rootfs": {"diff_ids": []}}
    (place / name).write_bytes(good + b" ")
    with pytest.raises(UnreadableError, match="not what its name says"):
        store.config("sha256:" + name, "amd64")


def test_the_steps_of_a_base_are_not_an_images_own() -> None:
    base = {"rootfs": {"diff_ids": ["a"]}, "history": [{"created_by": "ADD rootfs.tar /"}]}
    child = {
        "rootfs": {"diff_ids": ["a", "b"]},
        "history": [*base["history"], {"created_by": "RUN x"}],
    }
    documents = {"base": base, "child": child}
    rows = [{"id": name, **look_images.contents(doc, "store")} for name, doc in documents.items()]
    look_images.find_bases(rows, documents)
    assert [step["own"] for step in rows[1]["history"]] == [False, True]
    assert (rows[0]["base_ids"], rows[1]["base_ids"]) == ([], ["base"])


# -- mounts ----------------------------------------------------------------------------------------
@pytest.fixture
def host() -> typing.Iterator[FakeHost]:
    with fake_host() as made:
        yield made


def mounts(host: FakeHost, *rows: Json, volumes: dict[str, Json] | None = None) -> list[Json]:
    sockets = control_sockets(host, ["/run/docker.sock"], "/run/containerd/containerd.sock")
    reader = Mounts(host, sockets, volumes or {}, "/var/lib/docker")
    found: list[Json] = reader.rows({"Mounts": list(rows)}, {})
    return found


def bind(source: str) -> Json:
    return {"Type": "bind", "Source": source, "Destination": "/x", "RW": True}


@pytest.mark.parametrize(
    ("source", "via"),
    [
        ("/run/docker.sock", "itself"), ("/var/run/docker.sock", "itself"), ("/run", "parent"),
        ("/var/run", "parent"), ("/", "parent"), ("/etc", None), ("/linked", "itself"),
    ],
)  # fmt: skip
def test_the_socket_is_found_whatever_is_mounted(
    host: FakeHost, source: str, via: str | None
) -> None:
    (host.base / "var").mkdir(exist_ok=True)
    (host.base / "var/run").symlink_to("/run")
    (host.base / "linked").symlink_to("/run/docker.sock")
    (row,) = mounts(host, bind(source))
    assert [found["via"] for found in row["sockets"]] == ([via] if via else [])


def test_a_volume_that_is_a_bind_mount(host: FakeHost) -> None:
    options = {"type": "none", "o": "rw,bind", "device": "/run"}
    volume = {
        "Type": "volume",
        "Name": "v",
        "Driver": "local",
        "Source": "/d/v",
        "Destination": "/x",
    }
    (row,) = mounts(host, volume, volumes={"v": {"Options": options}})
    assert (row["kind"], row["host_path"]) == ("volume_bind", "/run")
    assert row["sockets"][0]["kind"] == "docker"


def test_links_in_a_circle_end(host: FakeHost) -> None:
    (host.base / "a").symlink_to("/b")
    (host.base / "b").symlink_to("/a")
    (row,) = mounts(host, bind("/a"))
    assert (row["resolved"], row["sockets"]) == (None, [])


def test_the_socket_of_a_rootless_user(host: FakeHost) -> None:
    path = host.base / "run/user/1000/docker.sock"
    path.parent.mkdir(parents=True)
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))
        (row,) = mounts(host, bind("/run/user/1000"))
    assert row["sockets"] == [
        {"path": "/run/user/1000/docker.sock", "kind": "docker", "via": "parent"}
    ]


# -- small things ----------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ([], (None, "default", False)),
        (["no-new-privileges"], (True, "default", False)),
        (["no-new-privileges=false"], (False, "default", False)),
        (["no-new-privileges:true"], (True, "default", False)),
        (["seccomp=unconfined", "label=disable"], (None, "unconfined", True)),
        (['seccomp={"defaultAction": "x"}'], (None, "inline", False)),
        (["label:disable"], (None, "default", True)),
    ],
)
def test_security_options(options: list[str], expected: tuple[object, ...]) -> None:
    found = look_containers.security(options)
    assert (
        tuple(found[n] for n in ("no_new_privileges", "seccomp_profile", "label_disabled"))
        == expected
    )


@pytest.mark.parametrize(
    ("profile", "name"),
    [
        ('{"syscalls": [{"comment": "%s"}]}', "web-1.b"),
        ('{"syscalls": [{"comment": "%s "}]}', None),
        ('{"syscalls": [{"comment": 5}]}', None),
        ('{"syscalls": [{}, {"comment": "%s"}]}', None),
        ('{"syscalls": ["%s"]}', None),
        ('{"syscalls": {}}', None),
        ("{}", None),
    ],
)
def test_which_seccomp_profile_a_container_has_a_copy_of(profile: str, name: str | None) -> None:
    profile = profile.replace("%s", seccomp_profile.MARK + "web-1.b")
    found = look_containers.security(["seccomp=" + profile])["seccomp_inline"]
    assert found["bulkhead"] == name
    assert found["sha256"] == ledger.value_digest(json.loads(profile))


@pytest.mark.parametrize("option", ["seccomp={", "seccomp={" + "[" * 100000, "seccomp=unconfined"])
def test_a_text_that_is_no_profile_is_none(option: str) -> None:
    assert look_containers.security([option])["seccomp_inline"] is None


def test_a_network_that_is_another_containers(host: FakeHost) -> None:
    host.engine.add(inspection("web", pid=0, HostConfig={"NetworkMode": "host"}))
    joined = {"NetworkMode": "container:" + identifier("web")}
    host.engine.add(inspection("side", pid=0, HostConfig=joined))
    circle = {"NetworkMode": "container:" + identifier("odd")}
    host.engine.add(inspection("odd", pid=0, HostConfig=circle))
    found = {c["name"]: c["config"]["modes"]["network"] for c in look.observe(host)["containers"]}
    assert found == {"web": "host", "side": "host", "odd": "container"}


_OWN_DIGEST = "bulkhead-proof@sha256:" + "a" * 64


@pytest.mark.parametrize(
    ("labels", "tags", "digests", "ours"),
    [
        ({"bulkhead.role": "health"}, ["bulkhead-health:1a2b"], [], True),
        ({"bulkhead.role": "proof"}, ["bulkhead-proof:1a2b"], [_OWN_DIGEST], True),
        ({}, ["bulkhead-health:1a2b"], [], False),
        ({"bulkhead.role": "x"}, [], [], False),
        ({"bulkhead.role": "x"}, ["evil.example/x:1"], [], False),
        ({"bulkhead.role": "x"}, ["evil.example/bulkhead-health:1"], [], False),
        ({"bulkhead.role": "x"}, ["bulkhead-health:1", "evil.example/x:1"], [], False),
        ({"bulkhead.role": "x"}, ["bulkhead-health:1"], ["evil.example/x@sha256:1"], False),
    ],
)
def test_an_image_does_not_take_itself_out_of_the_audit(
    host: FakeHost, labels: Json, tags: list[str], digests: list[str], ours: bool
) -> None:
    name = "sha256:" + "1" * 64
    row = {"Id": name, "RepoTags": tags, "RepoDigests": digests, "Labels": labels}
    host.engine.answers["/images/json"] = [row]
    host.engine.answers[f"/images/{name}/json"] = {"Config": {}}
    host.engine.answers[f"/images/{name}/history"] = []
    seen = look.observe(host)
    assert seen["images"][0]["bulkhead"] is ours
    judged = verdicts("4.6", seen, audit_evaluate.POLICY)
    # The check leaves out what has no name.
    assert set(judged.values()) == {"not_applicable" if ours or not tags else "fail"}


@pytest.mark.parametrize(
    ("options", "ports", "expected"),
    [
        ({}, [("80/tcp", None), ("81/udp", None)], ("fail", "manual")),
        ({"PortBindings": {"80/tcp": [{"HostIp": "127.0.0.1", "HostPort": "8080"}]}},
         [("80/tcp", 8080), ("81/udp", None)], ("fail", "manual")),
        ({"NetworkMode": "none"}, [], ("pass", "not_applicable")),
        ({"PublishAllPorts": False}, [], ("pass", "not_applicable")),
    ],
)  # fmt: skip
def test_all_exposed_ports_of_a_stopped_container_are_published_at_its_start(
    host: FakeHost, options: Json, ports: list[tuple[str, int | None]], expected: tuple[str, str]
) -> None:
    stopped = inspection("old", pid=0)
    stopped["HostConfig"].update({"PublishAllPorts": True, **options})
    stopped["Config"]["ExposedPorts"] = {"80/tcp": {}, "81/udp": {}}
    host.engine.add(stopped)
    seen = look.observe(host)
    found = seen["containers"][0]["config"]["ports"]
    assert [(row["container"], row["host_port"]) for row in found] == ports
    verdict = tuple(
        verdicts(check, seen, audit_evaluate.POLICY)["old"] for check in ("5.14", "5.9")
    )
    assert verdict == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("nginx", ("docker.io", "library/nginx", None, None)),
        ("reg.example:5000/a/b:1.2", ("reg.example:5000", "a/b", "1.2", None)),
        ("a/b@sha256:12", ("docker.io", "a/b", None, "sha256:12")),
        ("localhost/x:y", ("localhost", "x", "y", None)),
        ("sha256:" + "1" * 64, (None, None, None, None)),
    ],
)
def test_names_of_images(name: str, expected: tuple[object, ...]) -> None:
    found = reference(name)
    assert tuple(found[n] for n in ("registry", "repository", "tag", "digest")) == expected


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("0.0.0.0", "wildcard"), ("::", "wildcard"), ("[::]", "wildcard"), ("127.0.0.1", "loopback"),
        ("::ffff:127.0.0.1", "loopback"), ("fe80::1%eth0", "link_local"), ("10.0.0.1", "private"),
        ("8.8.8.8", "public"), ("host.example", None), ("", None),
    ],
)  # fmt: skip
def test_what_an_address_reaches(address: str, expected: str | None) -> None:
    assert address_class(address) == expected


@pytest.mark.parametrize(
    ("directory", "file", "verdicts_of"),
    [
        (0o755, 0o444, ("pass", "pass", "pass")),
        (0o777, 0o444, ("fail", "pass", "pass")),
        (0o755, 0o644, ("pass", "fail", "fail")),
    ],
)
def test_certificates_of_registries_and_their_directories(
    host: FakeHost, directory: int, file: int, verdicts_of: tuple[str, str, str]
) -> None:
    """A link is judged by what it points at: its own mode is always 0777."""
    place = "/etc/docker/certs.d/reg.example"
    host.write(f"{place}/ca.crt", "x", file)
    host.write("/etc/pki/other.crt", "x", file)
    (host.base / place[1:] / "other.crt").symlink_to("/etc/pki/other.crt")
    (host.base / "etc/docker/certs.d/linked").symlink_to("/etc/pki")
    (host.base / place[1:]).chmod(directory)
    found = verdicts("3.8", look.observe(host), audit_evaluate.POLICY)
    assert (
        tuple(found[name] for name in (place, f"{place}/ca.crt", f"{place}/other.crt"))
        == verdicts_of
    )
    assert found["/etc/docker/certs.d/linked"] == "pass"


def test_a_link_to_a_certificate_that_is_gone(host: FakeHost) -> None:
    host.write("/etc/docker/certs.d/r/key", "x")
    (host.base / "etc/docker/certs.d/r/ca.crt").symlink_to("/gone")
    found = verdicts("3.8", look.observe(host), audit_evaluate.POLICY)
    assert found["/etc/docker/certs.d/r/ca.crt"] == "fail"


def test_access_lists() -> None:
    entries = [(1, 6, 0), (2, 7, 1000), (4, 4, 0), (8, 6, 100), (16, 5, 0), (32, 4, 0)]
    raw = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)
    assert [(row["tag"], row["id"], row["permissions"]) for row in look_files.decode_acl(raw)] == [
        ("user", 1000, "r-x"),
        ("group", 100, "r--"),
    ]
    with pytest.raises(ValueError, match="version"):
        look_files.decode_acl(struct.pack("<I", 3))


def test_a_container_that_fails_costs_no_other_its_verdict(host: FakeHost) -> None:
    host.engine.add(inspection("good", pid=0))
    host.engine.add(inspection("bad", pid=0))
    host.engine.answers["/containers/json"][1]["Names"] = ["/bad"]
    host.engine.answers["/containers/%s/json" % identifier("bad")] = 500
    found = verdicts("5.5", look.observe(host), audit_evaluate.POLICY)
    assert found == {"good": "pass", "bad": "error"}
