"""The empty host: strict, and each wall shown by what it stops."""

from __future__ import annotations

import json
import typing

import pytest

testinfra_hosts = ["ansible://empty"]

Call = typing.Callable[..., str]

#: BusyBox as an image, since a remapped daemon sees none of the images of before.
MAKE_IMAGE = """
root=$(mktemp -d); mkdir -p $root/bin $root/tmp; cp /bin/busybox $root/bin/busybox
for tool in sh cat id sleep nc wget touch; do ln -s busybox $root/bin/$tool; done
tar -C $root -c . | docker import --change 'CMD ["sleep", "86400"]' - lab:1; rm -r $root
"""


@pytest.fixture(scope="module", autouse=True)
def image(request: pytest.FixtureRequest) -> typing.Iterator[None]:
    """Have the image lab:1 while the tests of this file run."""
    host = request.getfixturevalue("host")
    host.check_output(MAKE_IMAGE)
    yield
    host.check_output("docker ps -aq | xargs -r docker rm -f; docker rmi -f lab:1")


def test_the_daemon_shows_it(docker: Call) -> None:
    info = json.loads(docker("info --format '{{json .}}'"))
    options = info["SecurityOptions"]
    assert "name=userns" in options
    assert "name=no-new-privileges" in options
    assert "name=seccomp,profile=builtin" in options
    assert "name=apparmor" in options
    assert info["LiveRestoreEnabled"] is True
    assert info["DockerRootDir"].startswith("/var/lib/docker/2")


def test_root_in_a_container_is_an_ordinary_user(docker: Call) -> None:
    inside, outside, size = docker("run --rm lab:1 cat /proc/self/uid_map").split()
    assert (inside, size) == ("0", "65536")
    assert int(outside) >= 231072


def test_root_in_a_container_cannot_write_a_file_of_the_hosts_root(
    host: typing.Any, docker: Call
) -> None:
    host.check_output("install -d -m 0755 /srv/host && echo before > /srv/host/file")
    run = host.run(
        "docker run --rm -v /srv/host:/host lab:1 sh -c 'id -u; echo after > /host/file'"
    )
    assert run.stdout.strip() == "0"
    assert run.rc != 0
    assert "Permission denied" in run.stderr
    assert host.file("/srv/host/file").content_string == "before\n"


def test_no_program_gains_rights(docker: Call) -> None:
    assert "NoNewPrivs:\t1" in docker("run --rm lab:1 cat /proc/self/status")


def test_descriptors_are_limited(docker: Call) -> None:
    assert docker("run --rm lab:1 sh -c 'ulimit -Sn; ulimit -Hn'").split() == ["16384", "65536"]


def test_a_fork_loop_stops_at_the_default_limit(host: typing.Any) -> None:
    loop = "i=0; while [ $i -lt 1100 ]; do sleep 600 & i=$((i+1)); done; echo unbounded"
    run = host.run("docker run --name forks lab:1 sh -c %s", loop)
    try:
        assert "unbounded" not in run.stdout
        assert "can't fork" in run.stderr
    finally:
        host.check_output("docker rm -f forks")


def test_containers_on_the_default_bridge_cannot_talk(docker: Call, host: typing.Any) -> None:
    serve = "sh -c 'echo hello > /tmp/x; exec busybox httpd -f -p 80 -h /tmp'"
    docker(f"run -d --name server lab:1 {serve}")
    address = docker("inspect --format '{{.NetworkSettings.IPAddress}}' server")
    ask = f"wget -T 5 -q -O - http://{address}/x"
    # The host reaches it, so it serves; a neighbour does not.
    assert host.check_output(f"busybox wget -T 20 -q -O - http://{address}/x") == "hello"
    assert host.run(f"docker run --rm lab:1 {ask}").rc != 0
    # On a network that the two share on purpose they do talk.
    docker("network create shared")
    try:
        docker(f"run -d --name friend --network shared lab:1 {serve}")
        answer = docker("run --rm --network shared lab:1 wget -T 20 -q -O - http://friend/x")
        assert answer == "hello"
    finally:
        docker("rm -f server friend")
        docker("network rm shared")


def test_the_profile_is_remembered(host: typing.Any) -> None:
    ledger = json.loads(host.file("/var/lib/bulkhead/ledger.json").content_string)
    assert ledger["profile"] == "strict"
