# Copyright: (c) 2026, the Bulkhead authors
# Apache License 2.0 (see LICENSE)
"""A fleet is hardened batch by batch, in its window, and no further than the first regression."""

from __future__ import annotations

import copy
import datetime
import json
import os
import shutil
import subprocess
import sys
import typing
from pathlib import Path

import pytest
from ansible.errors import AnsibleFilterError

from ansible_collections.bulkhead.hardening.plugins.filter.change_window import change_window
from tests.unit import answers, observations as obs
from tests.unit.checkout import ROOT

Json = dict[str, typing.Any]

NIGHT: Json = {"days": ["tue"], "from": "22:00", "to": "04:00", "timezone": "Europe/Berlin"}
NOON: Json = {"from": "12:00", "to": "13:00"}


@pytest.mark.parametrize(
    ("windows", "at", "allowed"),
    [
        ([], "2026-11-24T12:00:00+00:00", True),
        ([NOON], "2026-11-24T12:00:00+00:00", True),
        ([NOON], "2026-11-24T12:59:59+00:00", True),
        ([NOON], "2026-11-24T13:00:00+00:00", False),
        ([NOON], "2026-11-24T13:30:00+01:00", True),
        ([NIGHT], "2026-11-24T20:59:00+00:00", False),  # Tuesday, 21:59 in Berlin
        ([NIGHT], "2026-11-24T21:00:00+00:00", True),
        ([NIGHT], "2026-11-25T02:59:00+00:00", True),  # Wednesday, but it began on Tuesday
        ([NIGHT], "2026-11-25T03:00:00+00:00", False),
        ([NIGHT], "2026-11-25T22:00:00+00:00", False),
        ([NIGHT], "2026-07-07T20:00:00+00:00", True),  # in summer, 22:00 in Berlin
        ([NIGHT, NOON], "2026-11-25T12:30:00+00:00", True),
        ([{**NIGHT, "from": "00:00", "to": "00:00"}], "2026-11-24T12:00:00+00:00", True),
        ([{**NIGHT, "from": "00:00", "to": "00:00"}], "2026-11-25T12:00:00+00:00", False),
    ],
)
def test_a_window_is_open_or_not(windows: list[Json], at: str, allowed: bool) -> None:
    assert change_window(windows, at) is allowed


@pytest.mark.parametrize(
    ("windows", "says"),
    [
        ("22:00", "bulkhead_rollout_window is '22:00': give a list"),
        ([{"from": "22:00"}], r"bulkhead_rollout_window\[0\] is .*: give from and to"),
        ([{**NOON, "form": 1}], "give from and to"),
        ([{**NOON, "from": 1320}], r"\[0\].from is 1320: give hours and minutes in quotes"),
        ([NOON, {**NOON, "to": "24:00"}], r"\[1\].to is '24:00'"),
        ([{**NOON, "days": ["Tuesday"]}], "days is .*: give a list of mon, tue"),
        ([{**NOON, "days": []}], "give a list of mon, tue"),
        ([{**NOON, "timezone": "Mars/Base"}], "timezone is 'Mars/Base': give a name"),
    ],
)
def test_what_is_no_window_is_refused_in_words(windows: typing.Any, says: str) -> None:
    with pytest.raises(AnsibleFilterError, match=says):
        change_window(windows, "2026-11-24T12:00:00+00:00")


# -- the play --------------------------------------------------------------------------------------
class Fleet:
    """Four hosts that answer alike, one after the other."""

    def __init__(self, place: Path) -> None:
        self.place = place
        stock = obs.stock(bulkhead={"open_transaction": None, "unfetched_answers": []})
        answers.collection(place / "collections", stock, obs.with_file(stock, {"icc": False}))
        shutil.copytree(
            ROOT / "playbooks", place / "plays", ignore=shutil.ignore_patterns("collections")
        )
        for name in ("drained", "returned"):
            touch = {"path": f"{place}/{name}-{{{{ inventory_hostname }}}}", "state": "touch"}
            task = {"name": name, "ansible.builtin.file": {**touch, "mode": "0600"}}
            (place / f"{name}.yml").write_text(json.dumps([task]))

    def harden(self, *arguments: str, **variables: typing.Any) -> subprocess.CompletedProcess[str]:
        """Run the playbook; ``of_c`` are variables of the host c alone."""
        own = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
        hosts: Json = {name: dict(own) for name in "abcd"}
        hosts["c"].update(variables.pop("of_c", {}))
        (self.place / "hosts.yml").write_text(json.dumps({"docker_hosts": {"hosts": hosts}}))
        settings = (
            *("live_restore", "no_new_privileges", "userland_proxy", "seccomp_profile", "log_opts"),
            *("ulimits", "pids_limit", "file_modes", "userns_remap"),
        )
        given = {
            **{f"docker_daemon_{name}": "unmanaged" for name in settings},
            "docker_harden_roles": ["docker_daemon"],
            "docker_harden_drain_tasks": "drained.yml",
            "docker_harden_return_tasks": "returned.yml",
            "bulkhead_rollout_probe_retries": 1,
            "bulkhead_rollout_probe_delay": 0,
            "bulkhead_serial": 1,
            "ansible_become": False,
        }
        extra = json.dumps({**given, **variables})
        kept = {name: text for name, text in os.environ.items() if not name.startswith("ANSIBLE_")}
        return subprocess.run(
            ["ansible-playbook", "-i", "hosts.yml", *arguments, "-e", extra, "plays/harden.yml"],
            cwd=self.place,
            check=False,
            capture_output=True,
            text=True,
            timeout=300,
            env={**kept, "ANSIBLE_COLLECTIONS_PATH": "collections", "ANSIBLE_NOCOLOR": "1"},
        )

    def marked(self, name: str) -> str:
        """Return the hosts on which one of the two files of tasks ran."""
        return "".join(sorted(path.name[-1] for path in self.place.glob(f"{name}-?")))


def closed() -> list[Json]:
    """Return a window that is not open now, nor soon."""
    hour = (datetime.datetime.now(datetime.timezone.utc).hour + 6) % 24
    return [{"from": f"{hour:02}:00", "to": f"{hour:02}:01"}]


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    """Return a fleet on which nothing has run."""
    return Fleet(tmp_path)


def test_a_regression_stops_the_rollout_and_leaves_the_rest_untouched(fleet: Fleet) -> None:
    well = ["test", "!", "-e", str(fleet.place / "returned-c")]
    done = fleet.harden(of_c={"bulkhead_rollout_probe_command": well})
    assert done.returncode == 2, done.stdout + done.stderr
    assert "Rollout | ask the service on the host" in done.stdout
    assert fleet.marked("drained") == "abc"
    assert "d  " not in done.stdout.partition("PLAY RECAP")[2]


def test_a_service_that_is_ill_before_is_not_touched(fleet: Fleet) -> None:
    done = fleet.harden(bulkhead_rollout_probe_url="http://127.0.0.1:1/")
    assert done.returncode == 2
    assert fleet.marked("drained") == ""
    assert "docker_harden" not in done.stdout


def test_a_host_that_failed_stays_out_of_service(fleet: Fleet) -> None:
    lost = [{"name": "Fail", "ansible.builtin.fail": {"msg": "{{ inventory_hostname }}"}}]
    (fleet.place / "lost.yml").write_text(json.dumps(lost))
    done = fleet.harden("--limit", "a", docker_harden_return_tasks="lost.yml")
    assert done.returncode == 2
    assert (fleet.marked("drained"), fleet.marked("returned")) == ("a", "")


def test_a_host_that_is_lost_while_it_is_changed_stops_the_rollout(fleet: Fleet) -> None:
    away = {"ansible_connection": "ssh", "ansible_host": "127.0.0.1", "ansible_port": 1}
    task = {"name": "Lose b", "ansible.builtin.set_fact": away, "when": "inventory_hostname == 'b'"}
    (fleet.place / "lose.yml").write_text(json.dumps([task]))
    done = fleet.harden(bulkhead_serial=2, docker_harden_drain_tasks="lose.yml")
    assert done.returncode == 2, done.stdout + done.stderr
    assert "b could no longer be reached after the plan" in done.stdout
    assert fleet.marked("returned") == "a"


def test_what_was_blocked_and_is_no_longer_asks_for_another_run(fleet: Fleet) -> None:
    stock = obs.stock(bulkhead={"open_transaction": None, "unfetched_answers": []})
    with_flag = copy.deepcopy(stock)
    with_flag["engine"]["options"]["live-restore"] = obs.option(
        False, False, source="environment", where="/etc/default/docker"
    )
    answers.collection(fleet.place / "collections", with_flag, obs.with_file(stock, {"icc": False}))
    done = fleet.harden("--limit", "a", docker_daemon_live_restore=True)
    said = " ".join(done.stdout.split())
    assert done.returncode == 2
    assert "What was in the way of live-restore is gone since: run again." in said
    assert "does not show what was set" not in said


def test_what_was_set_and_is_not_there_is_said_so(fleet: Fleet) -> None:
    stock = obs.stock(bulkhead={"open_transaction": None, "unfetched_answers": []})
    answers.collection(fleet.place / "collections", stock)
    done = fleet.harden("--limit", "a")
    assert done.returncode == 2
    assert "The host does not show what was set" in done.stdout


def test_outside_of_the_window_nothing_is_changed(fleet: Fleet) -> None:
    day = [{"from": "00:00", "to": "00:00"}]
    done = fleet.harden("--limit", "a", bulkhead_rollout_window=closed())
    assert done.returncode == 2
    assert "which is in no bulkhead_rollout_window" in done.stdout
    assert fleet.marked("drained") == ""
    assert fleet.harden("--limit", "a", bulkhead_rollout_window=day).returncode == 0
    assert (fleet.marked("drained"), fleet.marked("returned")) == ("a", "a")


def test_a_dry_run_drains_nobody_and_asks_for_no_window(fleet: Fleet) -> None:
    done = fleet.harden("--check", "--limit", "a", bulkhead_rollout_window=closed())
    assert done.returncode == 0, done.stdout + done.stderr
    assert fleet.marked("drained") == ""
