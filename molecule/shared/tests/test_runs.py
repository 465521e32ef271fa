"""What the runs cost and did: counted, predicted, and nothing besides."""

from __future__ import annotations

import json
import pathlib
import typing

import pytest

testinfra_hosts = ["ansible://all"]

Json = dict[str, typing.Any]


def executions(notes: pathlib.Path, name: str) -> list[list[str]]:
    """Return the modules that each hardening run executed on a host, run by run."""
    runs: dict[int, list[str]] = {}
    for line in (notes / "remote.jsonl").read_text().splitlines():
        entry = json.loads(line)
        if entry["host"] == name and entry["kind"] == "module" and entry["transport"] != "local":
            runs.setdefault(entry["run"], []).append(entry["name"].rsplit(".", 1)[-1])
    return [names for names in runs.values() if "docker_host_info" in names]


def test_a_run_costs_two_round_trips_and_one_when_nothing_is_left(
    notes: pathlib.Path, name: str
) -> None:
    check, converge, idempotence = executions(notes, name)
    assert check == ["docker_host_info", "docker_host_apply"]
    assert converge == ["docker_host_info", "docker_host_apply"]
    assert idempotence == ["docker_host_info"]


def test_the_daemon_was_restarted_once(document: typing.Callable[..., Json]) -> None:
    transaction = document("converge", "after")["transaction"]
    assert transaction["outcome"] == "committed"
    assert transaction["daemon_restarts"] == 1


def test_the_dry_run_predicted_what_was_done(document: typing.Callable[..., Json]) -> None:
    check, done = document("check", "after"), document("converge", "after")
    assert check["transaction"]["outcome"] == "checked"
    assert check["plan"] == done["plan"]
    assert check["diff"] == done["diff"]
    assert check["diff"]


def test_the_dry_run_changed_nothing(notes: pathlib.Path, name: str) -> None:
    stock = json.loads((notes / f"{name}.stock.json").read_text())
    checked = json.loads((notes / f"{name}.checked.json").read_text())
    assert len(stock["files"]) > 1000
    for part in stock:
        if part == "files":
            changed = {
                path
                for path in stock["files"].keys() | checked["files"].keys()
                if stock["files"].get(path) != checked["files"].get(path)
            }
            assert changed == set()
        else:
            assert checked[part] == stock[part]


def test_the_effective_state_was_read_back(document: typing.Callable[..., Json]) -> None:
    observation = document("converge", "after")["observation"]
    options = observation["engine"]["options"]
    assert options["live-restore"]["effective"] is True
    assert observation["bulkhead"]["state"] == "ok"
    assert observation["bulkhead"]["open_transaction"] is None
    assert observation["witness"]["exit_code"] == 0


def test_nothing_was_left_behind(host: typing.Any) -> None:
    assert "bulkhead" not in host.check_output("docker ps --all --format '{{.Names}}'")
    assert "bulkhead" not in host.check_output("docker images --all")
    state = host.file("/var/lib/bulkhead")
    assert (state.user, state.mode) == ("root", 0o700)
    assert host.check_output("find /var/lib/bulkhead -type f ! -perm 0600") == ""


def test_no_text_of_a_host_was_run_as_a_template() -> None:
    assert not pathlib.Path("/tmp/bulkhead-was-templated").exists()


@pytest.mark.parametrize("unit", ["docker.service", "docker.socket"])
def test_vendor_units_are_as_they_were(
    host: typing.Any, notes: pathlib.Path, name: str, unit: str
) -> None:
    # Debian 12 names it below /lib, a link to /usr/lib.
    path = host.check_output(f"realpath $(systemctl show {unit} -P FragmentPath)")
    stock = json.loads((notes / f"{name}.stock.json").read_text())
    assert stock["files"][path][3] == host.file(path).size
