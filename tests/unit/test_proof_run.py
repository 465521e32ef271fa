"""A run of attacks from the host's side: what it makes, what it reads, and that nothing of it stays."""

from __future__ import annotations

import io
import json
import os
import pathlib
import tarfile
import types
import typing

import pytest

from ansible_collections.bulkhead.hardening.plugins.module_utils import proof_image, proof_run
from ansible_collections.bulkhead.hardening.plugins.module_utils.docker_api import ApiError
from ansible_collections.bulkhead.hardening.plugins.module_utils.host import Host, HostError

Json = dict[str, typing.Any]


class Engine:
    """A daemon that keeps what it is asked to make, and whose containers say what a test wants."""

    def __init__(self, output: str = "", ends: bool = True, refuses: str = "") -> None:
        self.output, self.ends, self.refuses = output, ends, refuses
        self.containers: dict[str, Json] = {"left-over": {}}
        self.networks: list[str] = ["left-over"]
        self.images: list[str] = ["left-over"]
        self.bodies: list[Json] = []

    def get(self, path: str, **query: str) -> typing.Any:
        if path == "/containers/json":
            assert json.loads(query["filters"]) == {"label": ["bulkhead.role=proof"]}
            return [{"Id": name} for name in self.containers]
        if path == "/networks":
            return [{"Id": name} for name in self.networks]
        if path == "/images/json":
            return [{"Id": name} for name in self.images]
        state = {"Status": "exited" if self.ends else "running", "ExitCode": 0, "Pid": 0}
        networks = {"Networks": {"bridge": {"IPAddress": "172.17.0.9"}}}
        return {"Name": "/beside", "State": state, "NetworkSettings": networks}

    def read(self, path: str, **query: str) -> bytes:
        data = self.output.encode()
        return b"\x01\0\0\0" + len(data).to_bytes(4, "big") + data

    def import_image(self, repository: str, tag: str, label: str, root: bytes) -> str:
        self.images.append(f"{repository}:{tag}")
        return self.images[-1]

    def has_default_network(self) -> bool:
        return True

    def request(
        self, method: str, path: str, query: typing.Any = None, body: Json | None = None
    ) -> Json:
        kind, name = path.split("/")[1], path.split("/")[-1]
        if method == "DELETE":
            if kind == "containers":
                del self.containers[name]
            else:
                (self.networks if kind == "networks" else self.images).remove(name)
        elif path == "/networks/create":
            assert body is not None
            self.networks.append(body["Name"])
        elif path == "/containers/create":
            if self.refuses:
                raise ApiError(self.refuses, 400)
            assert body is not None
            self.bodies.append(body)
            self.containers[query["name"]] = body
            return {"Id": query["name"]}
        return {}


class Hurried(Host):
    """A host on which waiting takes no time."""

    def __init__(self, root: str) -> None:
        super().__init__(root)
        self.clock = 0.0

    def monotonic(self) -> float:
        return self.clock

    def sleep(self, seconds: float) -> None:
        self.clock += seconds


@pytest.fixture
def host(tmp_path: pathlib.Path) -> Hurried:
    """Return a host in a directory."""
    (tmp_path / "run").mkdir()
    return Hurried(str(tmp_path))


def job(**more: typing.Any) -> Json:
    """Return a container to run, with one attack."""
    base = {"name": "0-default", "attacks": [{"id": "a", "seconds": 5}], "config": {}}
    return {**base, "host_config": {}, "network": "default", "neighbour": None, **more}


def run(host: Host, engine: Engine, *jobs: Json, monkeypatch: pytest.MonkeyPatch) -> Json:
    """Run jobs against an engine."""
    daemon = types.SimpleNamespace(socket="/run/docker.sock", callable=True, reason=None)
    monkeypatch.setattr(proof_run, "Pass", lambda *_: types.SimpleNamespace(daemon=lambda: daemon))
    monkeypatch.setattr(proof_run, "DockerApi", lambda *_, **__: engine)
    python = proof_image.Interpreter("/usr/bin/python3", [])
    monkeypatch.setattr(proof_image, "find", lambda _: python)
    monkeypatch.setattr(proof_image, "archive", lambda *_: b"")
    return proof_run.run(host, list(jobs), [], "77")


def nothing_left(host: Host, engine: Engine) -> bool:
    """Tell whether a run left anything but its lock."""
    there = os.listdir(host.path("/run"))
    return not (engine.containers or engine.networks or engine.images) and there == [
        "bulkhead-proof.lock"
    ]


LINE = '{"id": "a", "tries": [{"what": "w", "outcome": "held"}], "seconds": 1, "began": 5, "ended": 6}\n'


def test_attacks_answer_and_nothing_stays(host: Hurried, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine("noise\n" + LINE)
    answer = run(host, engine, job(network="own"), monkeypatch=monkeypatch)
    (row,) = answer["results"]
    assert (row["tries"], row["error"]) == ([{"what": "w", "outcome": "held"}], None)
    assert answer["containers"][0]["exit_code"] == 0
    assert nothing_left(host, engine)


def test_containers_are_bounded_and_ours(host: Hurried, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine(LINE)
    binds = {"Binds": ["{scratch}/host:/host"], "CapAdd": ["ALL"]}
    run(host, engine, job(host_config=binds, config={"User": "4242"}), monkeypatch=monkeypatch)
    (body,) = engine.bodies
    settings = body["HostConfig"]
    assert settings["Memory"] == settings["MemorySwap"] == 384 * 1024 * 1024
    assert settings["Binds"] == ["/run/bulkhead-proof/77/host:/host"]
    assert settings["LogConfig"]["Type"] == "json-file"
    assert body["Labels"] == {"bulkhead.role": "proof"}
    assert body["User"] == "4242"
    assert body["Cmd"] == ["attack", "a", "5"]


def test_a_neighbour_stands_beside_and_its_address_is_told(
    host: Hurried, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Engine("ready\n" + LINE)
    beside = {"config": {}, "host_config": {"PidsLimit": 9}}
    run(host, engine, job(neighbour=beside), monkeypatch=monkeypatch)
    other, attacker = engine.bodies
    assert other["Cmd"][:2] == ["neighbour", "a"]
    assert other["HostConfig"]["PidsLimit"] == 9
    told = json.loads(attacker["Env"][0].partition("=")[2])
    assert told["neighbour"] == {"name": "beside", "address": "172.17.0.9"}


@pytest.mark.parametrize(
    ("engine", "said"),
    [
        (
            Engine(refuses="400 privileged mode is incompatible with user namespaces"),
            "user namespaces",
        ),
        (Engine("Killed\n"), "the container ended with 0, and said: Killed"),
        (Engine(ends=False), "the container ended with None"),
    ],
    ids=["refused", "died", "hangs"],
)
def test_a_container_that_does_not_answer_says_why(
    host: Hurried, engine: Engine, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = run(host, engine, job(), monkeypatch=monkeypatch)
    assert said in answer["results"][0]["error"]
    assert nothing_left(host, engine)


def test_a_neighbour_that_is_never_ready_is_an_error(
    host: Hurried, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Engine("Traceback\n")
    answer = run(
        host, engine, job(neighbour={"config": {}, "host_config": {}}), monkeypatch=monkeypatch
    )
    assert "did not get ready" in answer["results"][0]["error"]
    assert nothing_left(host, engine)


def test_nothing_stays_when_a_run_breaks(host: Hurried, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine()

    def full(*_: object) -> str:
        raise ApiError("no space left on device", 500)

    monkeypatch.setattr(engine, "import_image", full)
    with pytest.raises(ApiError, match="no space"):
        run(host, engine, job(), monkeypatch=monkeypatch)
    assert nothing_left(host, engine)


def test_a_second_run_is_refused(host: Hurried, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine(LINE)

    def meanwhile(*_: object) -> str:
        run(host, Engine(LINE), job(), monkeypatch=monkeypatch)
        raise AssertionError("a second run began")

    monkeypatch.setattr(engine, "import_image", meanwhile)
    with pytest.raises(HostError, match="under way"):
        run(host, engine, job(), monkeypatch=monkeypatch)


def test_a_daemon_that_cannot_be_asked_is_not_woken(
    host: Hurried, monkeypatch: pytest.MonkeyPatch
) -> None:
    daemon = types.SimpleNamespace(
        socket="/run/docker.sock", callable=False, reason="it is stopped"
    )
    monkeypatch.setattr(proof_run, "Pass", lambda *_: types.SimpleNamespace(daemon=lambda: daemon))
    with pytest.raises(HostError, match="it is stopped"):
        proof_run.run(host, [job()], [], "77")


# -- the image -----------------------------------------------------------------------------------
def test_the_image_is_this_python_and_all_that_it_needs() -> None:
    python = proof_image.find(Host())
    programs = [("run.py", "pass\n"), ("attacks/a.py", "pass\n")]
    with tarfile.open(fileobj=io.BytesIO(proof_image.archive(python, programs))) as tar:
        members = {"/" + member.name: member for member in tar.getmembers()}
    assert members[proof_image.SETUID_PYTHON].mode == 0o4755
    assert members["/proof/attacks/a.py"].isfile()
    assert all(member.uid == member.gid == 0 for member in members.values())
    links = {name: member.linkname for name, member in members.items() if member.issym()}

    def followed(path: str) -> str:
        """Return where a path leads in the image."""
        for _ in range(20):
            for name, target in links.items():
                if path == name or path.startswith(name + "/"):
                    path = os.path.normpath(
                        os.path.join(os.path.dirname(name), target) + path[len(name) :]
                    )
                    break
            else:
                return path
        raise AssertionError(f"{path} leads in a circle")

    for path in [python.path, *python.files]:
        assert followed(path) in members, path
    # Every link leads to something, or to a directory of a merged system that nothing needs.
    dangling = [name for name in links if followed(name) not in members]
    assert all(name.count("/") == 1 for name in dangling)


def test_a_python_that_does_not_answer_is_named(tmp_path: pathlib.Path) -> None:
    broken = tmp_path / "python3"
    broken.write_text("#!/bin/sh\necho broken >&2\nexit 1\n")
    broken.chmod(0o755)
    with pytest.raises(HostError, match=r"cannot be asked.*broken"):
        proof_image.find(Host(), str(broken))


def test_a_stream_of_frames_is_put_together() -> None:
    frames = b"\x01\0\0\0\0\0\0\x02ab" + b"\x02\0\0\0\0\0\0\x01c" + b"\x01\0\0"
    assert proof_run.demultiplex(frames) == b"abc"
