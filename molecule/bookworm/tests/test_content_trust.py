"""Content trust on Docker 20.10: a client that is told to refuses an image without trust data."""

from __future__ import annotations

import base64
import pathlib
import typing

import pytest

testinfra_hosts = ["ansible://used"]

Docker = typing.Callable[..., str]

IMAGE = "127.0.0.1:5000/shop/unsigned:1"
PROGRAM = pathlib.Path(__file__).parent.parent / "files" / "registry.py"


@pytest.fixture
def registry(host: typing.Any, docker: Docker) -> typing.Iterator[None]:
    """Let a registry have the host's own image under a name of its own."""
    text = base64.b64encode(PROGRAM.read_bytes()).decode()
    host.check_output(f"mkdir /run/registry && echo {text} | base64 -d > /run/registry/program")
    docker("save --output /run/registry/image.tar lab:1")
    host.check_output(
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=registry "
        "-keyout /run/registry/pem -out /run/registry/crt && cat /run/registry/crt >> /run/registry/pem"
    )
    host.check_output(
        "systemd-run --unit registry python3 /run/registry/program /run/registry/image.tar /run/registry/pem"
    )
    answers = "busybox nc 127.0.0.1 5000 < /dev/null"
    host.check_output(f"timeout 60 sh -c 'until {answers}; do sleep 1; done'")
    yield
    host.run(f"docker rmi {IMAGE}")
    host.check_output("systemctl stop registry && rm -r /run/registry")


def test_the_client_refuses_an_image_without_trust_data(host: typing.Any, registry: None) -> None:
    for way in ("bash -lc '%s'", "bash -lc 'sudo %s'", "systemd-run --quiet --wait --pipe %s"):
        done = host.run(way % f"docker pull {IMAGE}")
        assert (done.rc, "trust data" in done.stderr) == (1, True), done.stderr
    # The image is there, and nobody but the client asks: not one that is told so, and not the daemon.
    host.check_output(f"bash -lc 'docker pull --disable-content-trust {IMAGE}'")
