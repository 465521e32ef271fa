# Copyright: (c) 2026, the Bulkhead authors
# Apache License 2.0 (see LICENSE)
"""A fleet through evaluation and reports, in a process of its own: time, peak memory, size.

``make bench ARGS=-s`` prints the numbers; docs/benchmarks.md keeps some. The bounds below are those of
the design: memory must not grow with the fleet, and the page must stay one that a browser opens.
"""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys
import typing

import pytest

from tests.unit.checkout import ROOT

#: What one process does: judge ``hosts`` hosts with ``containers`` containers each, then report.
_PROGRAM = """
import json, pathlib, resource, sys, time
from tests.unit import audit_results
from ansible_collections.bulkhead.hardening.plugins.plugin_utils import (
    audit_compare, audit_report, audit_run)

folder, hosts, containers = pathlib.Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
audit_report.check_folder(str(folder))
settings = audit_run.settings({})
started = time.perf_counter()
names = [f"host{number:04}" for number in range(hosts)]
for name in names:
    look = audit_results.look(containers=containers)
    for row in look["containers"]:
        row["name"] = f"{row['name']}-of-{name}"
    found = audit_run.audit(name, look, settings, audit_results.TODAY)
    found.update(audited_at=audit_results.NOW, duration_seconds=1.0)
    (folder / "hosts" / audit_report.host_file(name)).write_text(audit_report.dumps(found))
judged = time.perf_counter()
first_peak = peak()
totals = audit_report.write(folder, audit_results.header(), audit_results.checks(), names, {},
                            list(audit_report.WRITERS), 0.0)
reported = time.perf_counter()
audit_compare.compare(folder, folder / "result.json")
print(json.dumps({
    "hosts": hosts, "judge_seconds": judged - started, "report_seconds": reported - judged,
    "compare_seconds": time.perf_counter() - reported, "judge_peak_mib": first_peak,
    "peak_mib": peak(), "items": sum(totals["item_counts"].values()),
    "mib": {p.name: p.stat().st_size / 2**20 for p in sorted(folder.iterdir()) if p.is_file()},
}))
"""


def _measure(folder: pathlib.Path, hosts: int, containers: int) -> dict[str, typing.Any]:
    paths = [str(ROOT / "playbooks" / "collections"), str(ROOT)]
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM, str(folder), str(hosts), str(containers)],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
    )
    found: dict[str, typing.Any] = json.loads(done.stdout)
    print("\n" + json.dumps(found, indent=1))
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """Return where the reports go; they are large, so pytest keeps only those of the last runs."""
    return tmp_path_factory.mktemp("fleet")


def test_a_thousand_hosts_with_fifty_containers(folder: pathlib.Path) -> None:
    few = _measure(folder / "few", 100, 50)
    many = _measure(folder / "many", 1000, 50)
    assert many["peak_mib"] < 1536
    assert many["peak_mib"] < few["peak_mib"] + 128
    for part in ("judge_seconds", "report_seconds", "compare_seconds"):
        assert many[part] < 15 * few[part]
    assert many["mib"]["index.html"] < 64
