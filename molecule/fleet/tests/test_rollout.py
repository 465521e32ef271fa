"""A rollout over four hosts, the second of which, beta, is rigged: its service does not come back."""

from __future__ import annotations

import os
import pathlib
import typing

import pytest
import testinfra

testinfra_hosts = ["ansible://alpha"]

Play = typing.Callable[..., str]

NAMES = ("alpha", "beta", "gamma", "omega")
FILES = pathlib.Path(os.environ["MOLECULE_PROJECT_DIRECTORY"]) / "molecule" / "fleet" / "files"
VARIABLES: dict[str, typing.Any] = {
    "bulkhead_hosts": "all",
    "docker_harden_health_timeout": 30,
    "docker_harden_drain_tasks": str(FILES / "drain.yml"),
    "docker_harden_return_tasks": str(FILES / "return.yml"),
}


class Seen(typing.NamedTuple):
    """What a host shows: is it hardened, its daemon and its service, and what the balancer was told."""

    hardened: bool
    daemon: str
    service: str
    balancer: list[str]


@pytest.fixture
def look(notes: pathlib.Path) -> typing.Callable[[], dict[str, Seen]]:
    def see(name: str) -> Seen:
        host = testinfra.get_host(f"ansible://{name}", ansible_inventory=str(notes / "inventory"))
        balancer, pid, service, hardened = host.check_output(
            "cat /root/balancer 2>/dev/null | xargs echo;"
            "systemctl show --property=MainPID --value docker;"
            "docker inspect --format '{{.State.Running}} {{.State.Pid}}' web;"
            "test -e /var/lib/bulkhead/ledger.json && grep -qs nofile /etc/docker/daemon.json"
            " && echo yes || echo no"
        ).split("\n")
        return Seen(hardened == "yes", pid, service, balancer.split())

    return lambda: {name: see(name) for name in NAMES}


def test_the_first_host_that_fails_stops_the_rollout(
    look: typing.Callable[[], dict[str, Seen]], play: Play
) -> None:
    before = look()
    assert not any(seen.hardened or seen.balancer for seen in before.values())
    said = play("harden", fails=True, **VARIABLES)
    assert "Rolled back; the host is as it was" in said
    after = look()
    assert [name for name in NAMES if after[name].hardened] == ["alpha"]
    # Live-restore keeps a service while its daemon restarts.
    assert after["alpha"].service == before["alpha"].service
    assert after["alpha"].balancer == ["drain", "return"]
    # The rigged one serves again, but stays out of service, for somebody to look at.
    assert after["beta"].service.startswith("true ")
    assert after["beta"].balancer == ["drain"]
    assert {name: after[name] for name in NAMES[2:]} == {name: before[name] for name in NAMES[2:]}


def test_the_same_command_goes_on_when_the_cause_is_mended(
    look: typing.Callable[[], dict[str, Seen]], play: Play, notes: pathlib.Path
) -> None:
    rigged = testinfra.get_host("ansible://beta", ansible_inventory=str(notes / "inventory"))
    rigged.check_output(
        "rm /etc/systemd/system/docker.service.d/99-fault.conf && systemctl daemon-reload"
    )
    before = look()
    said = play("harden", **VARIABLES)
    assert "failed=0" in said
    after = look()
    assert all(seen.hardened for seen in after.values())
    assert {n: s.service for n, s in after.items()} == {n: s.service for n, s in before.items()}
    # It complied already: neither drained nor changed.
    assert after["alpha"] == before["alpha"]
    assert after["omega"].balancer == ["drain", "return"]
