# Copyright: (c) 2026, the Bulkhead authors
# Apache License 2.0 (see LICENSE)
"""What a fleet costs its controller, by real SSH connections to hosts on loopback.

Nothing here asserts a time. That round trips do not grow with the fleet is asserted, and that memory
grows by little. The hosts run on the same machine, so elapsed times are theirs and the controller's
together; processor time and memory are the controller's alone.
"""

from __future__ import annotations

import collections
import json
import os
import pathlib
import subprocess
import sys
import threading
import time
import typing

import pytest

from tests.benchmarks import fleet as fleets
from tests.benchmarks.conftest import ROOT, Say

BIN = pathlib.Path(sys.executable).parent
CONTAINERS = 10
#: BULKHEAD_BENCH_HOSTS=10,100,1000 takes more than an hour on two cores, most of it in harden.
SIZES = [int(n) for n in os.environ.get("BULKHEAD_BENCH_HOSTS", "10,100").split(",")]

#: Nothing is wanted of the daemon, so a run has nothing to do; it connects, looks and plans all the same.
NOTHING_TO_DO = {
    "docker_harden_roles": ["docker_daemon"],
    "bulkhead_serial": "100%",
    **{
        f"docker_daemon_{name}": "unmanaged"
        for name in (
            *("icc", "live_restore", "no_new_privileges", "userland_proxy", "seccomp_profile"),
            *("log_opts", "ulimits", "pids_limit", "file_modes", "userns_remap"),
        )
    },
}
PLAYS: dict[str, dict[str, typing.Any]] = {
    "audit": {"docker_audit_fail_on": []},
    "harden": NOTHING_TO_DO,
}

#: Settings to compare: forks, pipelining, whether facts are injected as variables.
SETTINGS = [(5, 1, 0), (20, 1, 0), (50, 1, 0), (20, 0, 0), (20, 1, 1)]
COMPARED = 50


class Cost(typing.NamedTuple):
    """What one run took: seconds, MiB, and calls over the connection for each host."""

    elapsed: float
    processor: float
    largest: float
    together: float
    calls: dict[str, float]

    def row(self, hosts: int) -> str:
        """Return it as a line of a table."""
        trips = ", ".join(f"{number:.0f} {kind}" for kind, number in sorted(self.calls.items()))
        return (
            f"{self.elapsed:7.1f} s  {self.elapsed / hosts:5.2f} s a host  controller "
            f"{self.processor:6.1f} s, {self.processor / hosts:5.2f} s a host  largest process "
            f"{self.largest:4.0f} MiB  all {self.together:5.0f} MiB  a host: {trips}"
        )


@pytest.fixture(scope="module")
def fleet() -> typing.Iterator[fleets.Fleet]:
    """Let the hosts be there, for all measurements."""
    try:
        with fleets.running(CONTAINERS) as found:
            yield found
    except fleets.NoSshd as exc:
        pytest.fail(str(exc))


def proportional(pid: int) -> int:
    """Return the memory of a process and of all below it, in KiB, shared pages counted once."""
    total, waiting = 0, [pid]
    while waiting:
        place = pathlib.Path(f"/proc/{waiting.pop()}")
        try:
            lines = (place / "smaps_rollup").read_text().splitlines()
            total += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
            children = (place / "task" / place.name / "children").read_text()
        except OSError:  # it has ended meanwhile
            continue
        waiting += [int(child) for child in children.split()]
    return total


def run(
    fleet: fleets.Fleet,
    folder: pathlib.Path,
    play: str,
    hosts: int,
    settings: tuple[int, int, int] = (20, 1, 0),
) -> Cost:
    """Run a playbook on so many hosts, with connections of its own, and return what it took."""
    folder.mkdir()
    log = folder / "remote.jsonl"
    forks, pipelining, inject = settings
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")},
        "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
        "ANSIBLE_COLLECTIONS_PATH": str(ROOT / "playbooks/collections"),
        "ANSIBLE_CALLBACK_PLUGINS": str(ROOT / "tests/callback_plugins"),
        "ANSIBLE_CALLBACKS_ENABLED": "remote_executions",
        "BULKHEAD_REMOTE_LOG": str(log),
        "ANSIBLE_FORKS": str(forks),
        "ANSIBLE_PIPELINING": str(pipelining),
        "ANSIBLE_INJECT_FACT_VARS": str(inject),
    }
    given = {
        **PLAYS[play],
        "docker_audit_report_dir": str(folder / "audit"),
        "ansible_control_path": f"{fleet.place}/cp/{folder.name[:12]}-{{{{ inventory_hostname }}}}",
    }
    command = [
        *(str(BIN / "ansible-playbook"), "--inventory", str(fleet.inventory(hosts))),
        *("--extra-vars", json.dumps(given), f"playbooks/{play}.yml"),
    ]
    most = 0
    ended = threading.Event()
    started = time.monotonic()
    with (folder / "output").open("w") as output:
        child = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=output, stderr=output)

        def watch() -> None:
            nonlocal most
            while not ended.wait(0.5):
                most = max(most, proportional(child.pid))

        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            # Its own times and those of all that it has waited for: workers and clients of SSH.
            _, status, used = os.wait4(child.pid, 0)
        except KeyboardInterrupt:
            child.terminate()
            raise
        finally:
            elapsed = time.monotonic() - started
            ended.set()
            watcher.join()
    child.returncode = os.waitstatus_to_exitcode(status)
    assert child.returncode == 0, (folder / "output").read_text()[-3000:]
    rows = [json.loads(line) for line in log.read_text().splitlines()]
    remote = [row for row in rows if row["transport"] != "local"]
    assert {row["host"] for row in remote} == {f"host{number:04d}" for number in range(hosts)}
    counts = collections.Counter(row["kind"] for row in remote)
    return Cost(
        elapsed,
        used.ru_utime + used.ru_stime,
        used.ru_maxrss / 1024,
        most / 1024,
        {kind: number / hosts for kind, number in counts.items()},
    )


@pytest.mark.parametrize("play", PLAYS)
def test_a_fleet_costs_as_much_as_its_hosts(
    fleet: fleets.Fleet, tmp_path: pathlib.Path, say: Say, play: str
) -> None:
    say(f"\n{play}, {CONTAINERS} containers on each host, ansible.cfg with forks 20:")
    costs = {}
    for hosts in SIZES:
        costs[hosts] = run(fleet, tmp_path / f"{play}{hosts}", play, hosts)
        say(f"{hosts:5d} hosts  {costs[hosts].row(hosts)}")
    first, last = costs[SIZES[0]], costs[SIZES[-1]]
    ratio = SIZES[-1] / SIZES[0]
    for fewer, more in zip(SIZES, SIZES[1:]):
        further = (costs[more].processor - costs[fewer].processor) / (more - fewer)
        say(f"each host from {fewer} to {more}: {further:.2f} s of the controller's processor")
    say(
        f"{ratio:.0f} times the hosts: {last.elapsed / first.elapsed:.1f} times as long, "
        f"{last.processor / first.processor:.1f} times the processor time, "
        f"{last.largest / first.largest:.1f} times the memory"
    )
    for cost in costs.values():
        assert cost.calls == {"module": 1, "command": 1}
    # A fleet's looks and reports would be a MiB a host.
    assert last.largest - first.largest < 0.5 * (SIZES[-1] - SIZES[0]) + 20


def test_settings_compared(fleet: fleets.Fleet, tmp_path: pathlib.Path, say: Say) -> None:
    say(f"\naudit of {COMPARED} hosts, {CONTAINERS} containers on each:")
    trips = {}
    for settings in SETTINGS:
        folder = tmp_path / "s{}-{}-{}".format(*settings)
        cost = run(fleet, folder, "audit", COMPARED, settings)
        trips[settings] = sum(cost.calls.values())
        say("forks {:2d}  pipelining {}  inject_facts {}  ".format(*settings) + cost.row(COMPARED))
    assert trips[(20, 0, 0)] > trips[(20, 1, 0)]
