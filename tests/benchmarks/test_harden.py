"""What hardening costs: round trips, requests and time, on a virtual host and in the planner.

Nothing here asserts a time. Counts do not vary, so they are asserted; times are printed, to be
compared within one run.
"""

from __future__ import annotations

import json
import pathlib
import subprocess
import sys
import time

import pytest

from ansible_collections.bulkhead.hardening.plugins.plugin_utils import daemon_plan, daemon_policy
from tests.benchmarks.conftest import Say
from tests.unit import observations as obs

ROOT = pathlib.Path(__file__).parents[2]
BIN = pathlib.Path(sys.executable).parent


def test_first_and_second_harden(host: dict[str, str], tmp_path: pathlib.Path, say: Say) -> None:
    log = pathlib.Path(host["BULKHEAD_REMOTE_LOG"])
    for run, most in (("first", 2), ("second", 1)):
        log.unlink(missing_ok=True)
        documents = tmp_path / run
        started = time.monotonic()
        subprocess.run(
            [str(BIN / "ansible-playbook"), "-i", "inventories/lab", "playbooks/harden.yml",
             "-e", "bulkhead_hosts=bench", "-e", f"docker_harden_documents={documents}"],
            cwd=ROOT, env=host, check=True, stdout=subprocess.DEVNULL,
        )  # fmt: skip
        seconds = time.monotonic() - started
        calls = [json.loads(line) for line in log.read_text().splitlines()]
        modules = [c["name"] for c in calls if c["kind"] == "module" and c["transport"] != "local"]
        look = json.loads((documents / "bench" / "before.json").read_text())["observation"]
        say(
            f"\n{run} harden: {seconds:.1f} s, {len(modules)} remote module executions, "
            f"{look['api_calls']} API calls in the look"
        )
        assert len(modules) == most


@pytest.mark.parametrize("containers", [0, 10, 100, 1000])
def test_planning(containers: int, say: Say) -> None:
    look = obs.stock(containers=[obs.container(f"c{n}") for n in range(containers)])
    policy = daemon_policy.read({})
    started = time.perf_counter()
    for _ in range(20):
        daemon_plan.plan(look, policy)
    say(f"\nplan for {containers} containers: {(time.perf_counter() - started) / 20 * 1000:.2f} ms")
