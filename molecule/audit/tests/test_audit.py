"""Two dozen bad containers on a real host: what the audit says of each, and that it touched nothing."""

from __future__ import annotations

import json
import os
import pathlib
import typing

import pytest

Json = dict[str, typing.Any]
NOTES = pathlib.Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"])
FORMATS = ("result.json", "index.html", "junit.xml", "result.sarif", "summary.md", "bulkhead.prom")

#: Which containers fail a check; all others pass it.
FAILS = {
    "5.2": {"privileged", "apparmor-off", "never-started"},
    "5.4": {"privileged", "cap-sys-admin", "cap-all", "never-started"},
    "5.6": {"host-root", "host-etc-docker", "host-by-volume", "socket", "socket-by-parent",
            "socket-containerd"},
    "5.8": {"port-low"},
    "5.10": {"net-host", "net-joined"},
    "5.14": {"port-low", "net-host"},
    "5.15": {"restart-always"},
    "5.16": {"pid-host"},
    "5.17": {"ipc-host"},
    "5.18": {"privileged", "device", "device-rule", "never-started"},
    "5.20": {"shared-mount"},
    "5.21": {"uts-host"},
    "5.22": {"privileged", "seccomp-off", "never-started"},
    "5.23": {"exec-privileged"},
    "5.32": {"host-root", "socket", "socket-by-parent"},
    "BH-1": {"cgroupns-host"},
    "BH-2": {"privileged", "paths-unmasked", "never-started"},
    "BH-16": {"host-root", "socket-by-parent", "socket-containerd"},
}  # fmt: skip


@pytest.fixture(scope="module")
def result() -> Json:
    document = json.loads((NOTES / "audit" / "result.json").read_text())
    (host,) = document["hosts"]
    return typing.cast(Json, {**host, "run": document["run"]})


def verdicts(result: Json, check: str) -> dict[str | None, str]:
    (row,) = (row for row in result["results"] if row["check"] == check)
    names = [item["name"] for item in result["objects"]]
    return {
        None if item["object"] is None else names[item["object"]]: item["verdict"]
        for item in row["items"]
    }


@pytest.mark.parametrize("check", FAILS)
def test_exactly_the_bad_containers_fail(result: Json, check: str) -> None:
    found = verdicts(result, check)
    assert {name for name, verdict in found.items() if verdict == "fail"} == FAILS[check]
    assert found["good"] in ("pass", "not_applicable")
    assert "error" not in found.values()


def test_a_privileged_container_is_waived_and_weakly_so(result: Json) -> None:
    found = verdicts(result, "5.5")
    assert (found["privileged"], found["never-started"]) == ("waived", "fail")
    states = {waiver["check"]: waiver["state"] for waiver in result["run"]["waivers"]}
    assert states == {"5.5": "weak", "5.15": "unused"}


def test_the_good_container_fails_nothing_that_it_can_keep(result: Json) -> None:
    """Its image defines no health check of its own and runs as the user it was given."""
    names = [item["name"] for item in result["objects"]]
    failed = {
        row["check"]
        for row in result["results"]
        for item in row["items"]
        if item["object"] is not None
        and names[item["object"]] == "good"
        and item["verdict"] == "fail"
    }
    assert failed == set()


def test_nothing_is_an_error_on_a_host_that_can_be_read(result: Json) -> None:
    assert result["counts"]["error"] == 0
    assert result["counts"]["pass"] > 20


def test_rules_in_the_kernel_and_in_a_file(result: Json) -> None:
    assert set(verdicts(result, "1.1.6").values()) == {"pass"}
    assert set(verdicts(result, "1.1.14").values()) == {"pending"}
    assert set(verdicts(result, "1.1.3").values()) == {"fail"}


def test_reports_are_written_in_check_mode_too() -> None:
    for folder in ("audit", "audit-check"):
        for name in FORMATS:
            path = NOTES / folder / name
            assert path.stat().st_mode & 0o777 == 0o600
            assert path.stat().st_size > 100


def test_the_look_changed_nothing(host: typing.Any) -> None:
    """Not a byte, mode or time of 100,000 files, no container, image, rule of audit or firewall."""
    source = (pathlib.Path(__file__).parent.parent / "files" / "listing.sh").read_text()
    done = host.run("sh -c %s sh /root/after", source)
    assert done.rc == 0, done.stderr
    done = host.run("diff /root/before /root/after")
    assert done.stdout == ""
    assert int(host.check_output("wc -l < /root/before")) > 1000
