"""What attacks did before and after: the same ones, on the same hosts."""

from __future__ import annotations

import json
import pathlib

import pytest

testinfra_hosts = ["ansible://all"]

#: What succeeds in every container of a stock host of these suites, and must not on any hardened one.
BREACHED = {"pids_fork_bomb"}
#: What succeeds on some, by the defaults of their kernels and engines.
BREACHED_ON_SOME = {"kernel_ptrace", "kernel_sticky_files", "ulimits_open_files"}
#: What only the strict profile stops, since it needs user namespaces or no-new-privileges, or ends traffic
#: between containers.
BREACHED_UNLESS_STRICT = {
    *("network_neighbour", "privileges_file_capabilities", "privileges_setuid"),
    *("userns_host_file", "userns_identity", "userns_planted_setuid"),
}


def outcomes(notes: pathlib.Path, run: str, name: str, variant: str = "default") -> dict[str, str]:
    """Return the outcome of each attack by its id."""
    rows = json.loads((notes / "proof" / run / f"{name}.json").read_text())["attacks"]
    return {row["id"]: row["outcome"] for row in rows if row["variant"] == variant}


@pytest.mark.parametrize("run", ["stock", "hardened"])
def test_each_attack_has_an_outcome_and_work_goes_on(
    notes: pathlib.Path, name: str, run: str
) -> None:
    found = outcomes(notes, run, name)
    assert len(found) > 25
    assert set(found.values()) <= {"held", "breached", "not_applicable", "works"}
    work = {attack: outcome for attack, outcome in found.items() if attack.startswith("work_")}
    assert set(work.values()) == {"works"}
    assert len(work) > 5


def test_what_breached_before_holds_now(notes: pathlib.Path, name: str) -> None:
    before, now = outcomes(notes, "stock", name), outcomes(notes, "hardened", name)
    wanted = BREACHED | (BREACHED_UNLESS_STRICT if name == "empty" else set())
    assert {before[attack] for attack in wanted} == {"breached"}
    assert {now[attack] for attack in wanted} == {"held"}
    assert "breached" in {before[attack] for attack in BREACHED_ON_SOME}
    assert {now[attack] for attack in BREACHED_ON_SOME} == {"held"}
    assert {attack for attack, outcome in now.items() if outcome == "breached"} <= {
        attack for attack, outcome in before.items() if outcome == "breached"
    }
