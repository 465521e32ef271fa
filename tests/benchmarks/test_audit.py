"""What an audit costs on the controller: judging, and the reports of a fleet.

A child process does the work, so that its peak of memory is that of the audit alone. Nothing here
asserts a time; that memory does not grow with the number of hosts is asserted.
"""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys
import time

import pytest

from tests.benchmarks.conftest import Say

ROOT = pathlib.Path(__file__).parents[2]
BIN = pathlib.Path(sys.executable).parent
CONTAINERS = 50

WORK = """
import copy, datetime, json, pathlib, resource, sys, time
from ansible_collections.bulkhead.hardening.plugins.plugin_utils import (
    audit_compare, audit_report, audit_run, door)
folder, hosts, containers, recording = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
look = json.loads(pathlib.Path(recording).read_text())
known = look["containers"]
look["containers"] = [copy.deepcopy(known[n % len(known)]) for n in range(containers)]
for number, container in enumerate(look["containers"]):
    container["id"] = "%064x" % number
run = audit_run.settings({})
path = audit_report.check_folder(folder)
today = datetime.date(2026, 11, 24)
started = time.process_time()
for number in range(hosts):
    name = "host%04d" % number
    for place, container in enumerate(look["containers"]):
        container["name"] = "%s-%d-of-%s" % (known[place % len(known)]["name"], place, name)
    result = audit_run.audit(name, look, run, today)
    result.update(audited_at="2026-11-24T10:00:00+00:00", duration_seconds=1.0)
    door.store(result, str(path / "hosts" / audit_report.host_file(name)))
judged = time.process_time()
header = {"started_at": "", "finished_at": "", "collection_version": "0", "fail_on": [], "selection": {},
          "benchmark": {"name": "CIS Docker Benchmark", "version": "1.8.0"}}
checks = {check.id: check.described() for check in run.checks}
names = ["host%04d" % number for number in range(hosts)]
totals = audit_report.write(path, header, checks, names, {}, list(audit_report.WRITERS), 0.0)
written = time.process_time()
audit_compare.compare(path, path / "result.json")
print(json.dumps({
    "judge": judged - started, "write": written - judged,
    "compare": time.process_time() - written,
    "items": sum(totals["item_counts"].values()),
    "rss": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
    "page": (path / "index.html").stat().st_size, "result": (path / "result.json").stat().st_size,
}))
"""


def work(folder: pathlib.Path, hosts: int) -> dict[str, float]:
    recording = ROOT / "tests/fixtures/observations/audit-bad.json"
    done = subprocess.run(
        [sys.executable, "-c", WORK, str(folder), str(hosts), str(CONTAINERS), str(recording)],
        env={"PYTHONPATH": str(ROOT / "playbooks" / "collections"), "PATH": "/usr/bin:/bin"},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    found: dict[str, float] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("largest", [1000])
def test_a_fleet_through_checks_and_reports(tmp_path: pathlib.Path, say: Say, largest: int) -> None:
    say(f"\n{CONTAINERS} containers on each host, processor seconds on one core:")
    memory = {}
    page = 0.0
    for hosts in (10, 100, largest):
        found = work(tmp_path / str(hosts), hosts)
        memory[hosts] = found["rss"]
        page = found["page"]
        say(
            f"{hosts:5d} hosts  {found['items']:9.0f} verdicts  judge {found['judge']:6.1f} s  "
            f"reports {found['write']:6.1f} s  comparison {found['compare']:6.1f} s  "
            f"peak {found['rss'] / 1024:5.0f} MiB  "
            f"page {found['page'] / 2**20:5.1f} MiB  result.json {found['result'] / 2**20:6.1f} MiB"
        )
    # A summary keeps a name for each host and failing check; a host's result takes a thousand times that.
    assert memory[largest] - memory[10] < 100 * 1024
    # A browser opens this in a second.
    assert page < 32 * 2**20


IMAGE = """
set -eu
root=$(mktemp -d); mkdir $root/bin; cp /bin/busybox $root/bin/; ln -s busybox $root/bin/sleep
tar -C $root -cf - . | docker import --change 'CMD ["sleep", "86400"]' - bench:1
"""
#: How often the client is started to see what that takes.
INSPECTIONS = 20
#: How many tiny containers; BULKHEAD_BENCH_CONTAINERS=0,10 for fewer. An emulated host starts one in 5 s.
STEPS = [int(n) for n in os.environ.get("BULKHEAD_BENCH_CONTAINERS", "0,10,50,100").split(",")]


def test_one_host_end_to_end(host: dict[str, str], tmp_path: pathlib.Path, say: Say) -> None:
    def on_host(command: str) -> None:
        lab = [sys.executable, "-m", "lab", "ssh", "bench", "--", command]
        subprocess.run(lab, cwd=ROOT, env=host, check=True, stdout=subprocess.DEVNULL)

    log = pathlib.Path(host["BULKHEAD_REMOTE_LOG"])
    on_host(IMAGE)
    there = 0
    for containers in STEPS:
        on_host(
            f"for n in $(seq {there + 1} {containers}); do docker run -d --name c$n bench:1; done"
        )
        there = containers
        log.write_text("")
        look = tmp_path / f"{containers}.json"
        folder = tmp_path / f"reports-{containers}"
        started = time.monotonic()
        subprocess.run(
            [BIN / "ansible-playbook", "-i", "inventories/lab", "playbooks/audit.yml",
             "-e", "bulkhead_hosts=bench", "-e", f"docker_audit_report_dir={folder}",
             "-e", '{"docker_audit_fail_on": []}'],
            cwd=ROOT, env=host, check=True, stdout=subprocess.DEVNULL,
        )  # fmt: skip
        seconds = time.monotonic() - started
        calls = [json.loads(line) for line in log.read_text().splitlines()]
        modules = [c["name"] for c in calls if c["kind"] == "module" and c["transport"] != "local"]
        subprocess.run(
            [BIN / "ansible", "bench", "-i", "inventories/lab", "-m", "bulkhead.hardening.docker_host_info",
             "-a", f"document={look}"],
            cwd=ROOT, env=host, check=True, stdout=subprocess.DEVNULL,
        )  # fmt: skip
        requests = json.loads(look.read_text())["observation"]["api_calls"]
        say(
            f"\naudit of a host with {containers} containers: {seconds:.1f} s end to end, "
            f"{len(modules)} remote module execution, {requests} API calls"
        )
        assert len(modules) == 1
        assert requests <= 12 + containers + 1
    # What a tool costs that starts Docker's client for each question about each container.
    started = time.monotonic()
    on_host("true")
    empty = time.monotonic() - started
    started = time.monotonic()
    on_host(f"for n in $(seq {INSPECTIONS}); do docker inspect bench:1; done >/dev/null")
    seconds = (time.monotonic() - started - empty) / INSPECTIONS
    say(f"\none start of docker inspect on that host: {seconds:.2f} s")
