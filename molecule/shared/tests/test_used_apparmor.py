"""The nginx example: the page is served, and what an intruder would do next is denied."""

from __future__ import annotations

import pathlib
import typing

import pytest

testinfra_hosts = ["ansible://used"]

Call = typing.Callable[..., str]

IMAGE = (pathlib.Path(__file__).parents[1] / "files" / "nginx_image.sh").read_text()
PORTS = {"docker-default": 8081, "docker-nginx": 8082}

# Each by env: what `docker exec` itself starts is handed over opened, and no profile is asked for that.
INTRUSIONS = {
    "a raw socket": ("ping -c 1 -W 5 127.0.0.1", "socket: "),
    "a look at processes": ("top -b -n 1", "'top': Permission denied"),
    "a file in root's home": ("touch /root/thing", "'/root/thing': Permission denied"),
    "a shell": ("sh -c true", "'sh': Permission denied"),
    "a shell by its own name": ("dash -c true", "'dash': Permission denied"),
}


@pytest.fixture(scope="module", autouse=True)
def shops(request: pytest.FixtureRequest) -> typing.Iterator[None]:
    """Have a web server under each profile while the tests of this file run."""
    host = request.getfixturevalue("host")
    host.check_output("sh -c %s", IMAGE)
    for profile, port in PORTS.items():
        host.check_output(
            f"docker run -d --name shop-{port} --publish {port}:80 "
            f"--security-opt apparmor={profile} nginx:1"
        )
    yield
    host.check_output("docker rm -f " + " ".join(f"shop-{port}" for port in PORTS.values()))
    host.check_output("docker rmi nginx:1")


def page(host: typing.Any, profile: str) -> str:
    """Return the page that the web server under a profile serves."""
    url = f"http://127.0.0.1:{PORTS[profile]}/"
    ask = f"import urllib.request as r; print(r.urlopen('{url}', timeout=5).read().decode())"
    retry = 'for i in 1 2 3 4 5 6; do python3 -c "$0" 2>/dev/null && exit; sleep 2; done; exit 1'
    return str(host.check_output("sh -c %s %s", retry, ask)).strip()


def label(host: typing.Any, docker: Call, profile: str) -> str:
    """Return the label of the web server's processes."""
    pid = docker(f"inspect --format '{{{{.State.Pid}}}}' shop-{PORTS[profile]}")
    return str(host.check_output(f"cat /proc/{pid}/attr/apparmor/current")).strip("\0\n ")


@pytest.mark.parametrize("profile", PORTS)
def test_the_page_is_served(host: typing.Any, docker: Call, profile: str) -> None:
    assert page(host, profile) == "hello"
    assert label(host, docker, profile) == f"{profile} (enforce)"


@pytest.mark.parametrize("intrusion", INTRUSIONS)
def test_the_profile_denies(host: typing.Any, intrusion: str) -> None:
    command, says = INTRUSIONS[intrusion]
    run = host.run(f"docker exec shop-{PORTS['docker-nginx']} env {command}")
    assert run.rc != 0
    assert says in run.stderr
    # Under Docker's own profile it works, so it is the profile that denies it.
    assert host.run(f"docker exec shop-{PORTS['docker-default']} env {command}").rc == 0


def test_a_restart_of_the_daemon_changes_nothing(host: typing.Any, docker: Call) -> None:
    host.check_output("systemctl restart docker")
    assert label(host, docker, "docker-nginx") == "docker-nginx (enforce)"
    assert page(host, "docker-nginx") == "hello"


def test_it_can_be_stopped_and_started(host: typing.Any, docker: Call) -> None:
    name = f"shop-{PORTS['docker-nginx']}"
    docker(f"stop --time 60 {name}")
    # Its own end, by the signal that Docker sends; a profile that forbids that would cost the 60 seconds.
    assert docker(f"inspect --format '{{{{.State.ExitCode}}}}' {name}") == "0"
    docker(f"start {name}")
    assert label(host, docker, "docker-nginx") == "docker-nginx (enforce)"
    assert page(host, "docker-nginx") == "hello"


def test_systemd_loads_profiles_before_it_starts_docker(host: typing.Any) -> None:
    assert host.check_output("systemctl is-enabled apparmor.service") == "enabled"
    before = host.check_output("systemctl show apparmor.service -P Before").split()
    after = host.check_output("systemctl show docker.service -P After").split()
    assert "sysinit.target" in before
    assert "sysinit.target" in after
