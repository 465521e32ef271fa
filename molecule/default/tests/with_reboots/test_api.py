"""The API over the network: offered to clients with a certificate, to nobody else, and taken back."""

from __future__ import annotations

import base64
import os
import subprocess
import sys
import typing

import pytest

testinfra_hosts = ["ansible://empty"]

Play = typing.Callable[..., str]

SERVER, CLIENT = "/etc/docker/tls", "/root/client"
FILES = {"cacert": "ca.pem", "cert": "cert.pem", "key": "key.pem"}


@pytest.fixture(scope="module")
def address(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Place certificates for the host's own address there, readable by everybody, and return it."""
    host = request.getfixturevalue("host")
    address = str(host.check_output("hostname -I")).split()[0]
    issued = tmp_path_factory.mktemp("api") / "issued"
    command = [sys.executable, "-m", "lab.certificates", str(issued), address]
    subprocess.run(command, cwd=os.environ["MOLECULE_PROJECT_DIRECTORY"], check=True)
    for place, side in ((SERVER, "server"), (CLIENT, "client")):
        host.check_output(f"mkdir -p {place}")
        for name in FILES.values():
            text = base64.b64encode((issued / side / name).read_bytes()).decode()
            host.check_output(f"echo {text} | base64 -d > {place}/{name}")
    return address


def test_the_api_is_offered_to_clients_with_a_certificate(
    host: typing.Any, address: str, play: Play
) -> None:
    command = host.check_output("cat /proc/$(pidof dockerd)/cmdline")
    said = play(
        "harden",
        docker_daemon_tcp_hosts=[f"tcp://{address}:2376"],
        docker_daemon_tls={key: f"{SERVER}/{name}" for key, name in FILES.items()},
    )
    assert f"hosts: fd:// -> fd://, tcp://{address}:2376" in said
    assert host.check_output(f"stat -c %a {SERVER}/ca.pem {SERVER}/key.pem").split() == [
        "444",
        "400",
    ]
    verified = f"docker -H tcp://{address}:2376 --tlsverify --tlscacert {CLIENT}/ca.pem"
    version = "version --format '{{.Server.Version}}'"
    whole = f"{verified} --tlscert {CLIENT}/cert.pem --tlskey {CLIENT}/key.pem {version}"
    # Who was a client on the host before is one still.
    assert host.check_output(whole) == host.check_output(f"docker {version}")
    nobody = host.run(f"DOCKER_CERT_PATH=/nowhere {verified} --tlscert '' --tlskey '' {version}")
    assert (nobody.rc, "certificate required" in nobody.stderr) == (1, True), nobody.stderr
    plain = host.run(f"docker -H tcp://{address}:2376 {version}")
    assert (plain.rc, "HTTP request to an HTTPS server" in plain.stderr) == (1, True)
    # Taken back, the unit's own command line counts again.
    play("rollback", bulkhead_rollback="last")
    assert host.check_output("cat /proc/$(pidof dockerd)/cmdline") == command
    assert host.run(f"docker -H tcp://{address}:2376 {version}").rc == 1
    host.check_output(f"docker {version}")
