# Copyright: (c) 2026, the Bulkhead authors
# Apache License 2.0 (see LICENSE)
"""The counter that the round-trip targets are measured with must itself be right."""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.unit.checkout import ROOT, run

PLAY = """
- hosts: all
  gather_facts: false
  tasks:
    - name: No module at all
      ansible.builtin.debug:
        msg: hello

    - name: One module
      ansible.builtin.stat:
        path: /

    - name: A loop of three
      ansible.builtin.stat:
        path: "{{ item }}"
      loop: [/, /etc, /tmp]

    - name: A copy that changes something
      ansible.builtin.copy:
        content: text
        dest: "{{ scratch }}/{{ inventory_hostname }}"
        mode: "0600"

    - name: A copy that changes nothing
      ansible.builtin.copy:
        content: text
        dest: "{{ scratch }}/{{ inventory_hostname }}"
        mode: "0600"

    - name: A command without a module
      ansible.builtin.raw: "true"

    - name: Elsewhere
      ansible.builtin.ping:
      delegate_to: other
      run_once: true
"""

# What ansible-core's own plugins do: copy stats first, and runs `file` when nothing else changed.
MODULES_PER_HOST = {
    "One module": ["stat"],
    "A loop of three": ["stat", "stat", "stat"],
    "A copy that changes something": ["stat", "copy"],
    "A copy that changes nothing": ["stat", "file"],
}


@pytest.fixture(scope="module")
def entries(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, str | None]]:
    """Run the play on two local hosts, as forked workers do it, and return what was recorded."""
    scratch = tmp_path_factory.mktemp("remote")
    log = scratch / "log.jsonl"
    (scratch / "play.yml").write_text(PLAY)
    (scratch / "hosts").write_text(
        "[all:vars]\nansible_connection=local\n"
        f"ansible_python_interpreter={sys.executable}\nscratch={scratch}\n"
        "[all]\none\ntwo\n[elsewhere]\nother\n"
    )
    run_play(scratch, {"BULKHEAD_REMOTE_LOG": str(log)})
    return [json.loads(line) for line in log.read_text().splitlines()]


def run_play(scratch: Path, environment: dict[str, str]) -> None:
    """Run the play in ``scratch`` with the callback enabled and nothing of the user's settings."""
    settings = {
        "ANSIBLE_CALLBACK_PLUGINS": str(ROOT / "tests" / "callback_plugins"),
        "ANSIBLE_CALLBACKS_ENABLED": "remote_executions",
        "ANSIBLE_HOME": str(scratch / "home"),
    }
    command = ["ansible-playbook", "-i", "hosts", "--limit", "one,two", "play.yml"]
    run(scratch, command, {**settings, **environment})


@pytest.mark.parametrize("host", ["one", "two"])
def test_modules_are_counted_per_host_and_task(
    entries: list[dict[str, str | None]], host: str
) -> None:
    seen: dict[str, list[str]] = {}
    for entry in entries:
        if entry["kind"] == "module" and entry["host"] == host and not entry["delegate_to"]:
            # ansible-core calls some of its own modules by their legacy name.
            name = str(entry["name"]).rpartition(".")[2]
            seen.setdefault(str(entry["task"]), []).append(name)
    assert seen == MODULES_PER_HOST


def test_a_raw_command_is_a_command_and_no_module(entries: list[dict[str, str | None]]) -> None:
    kinds = Counter(
        (entry["host"], entry["kind"])
        for entry in entries
        if entry["task"] == "A command without a module"
    )
    assert kinds == {("one", "command"): 1, ("two", "command"): 1}


def test_every_module_takes_a_command(entries: list[dict[str, str | None]]) -> None:
    modules = Counter((e["host"], e["task"]) for e in entries if e["kind"] == "module")
    commands = Counter((e["host"], e["task"]) for e in entries if e["kind"] == "command")
    assert all(commands[key] >= count for key, count in modules.items())


def test_calls_that_stay_on_the_controller_can_be_told(
    entries: list[dict[str, str | None]],
) -> None:
    assert {entry["transport"] for entry in entries} == {"local"}


def test_a_delegated_call_says_where_it_went(entries: list[dict[str, str | None]]) -> None:
    delegated = [e for e in entries if e["task"] == "Elsewhere" and e["kind"] == "module"]
    assert [(e["host"], e["delegate_to"]) for e in delegated] == [("one", "other")]


def test_it_counts_in_forked_workers(entries: list[dict[str, str | None]]) -> None:
    assert os.getpid() not in {entry["pid"] for entry in entries}
    assert len({entry["pid"] for entry in entries}) > 1


def test_without_the_variable_it_does_nothing(tmp_path: Path) -> None:
    (tmp_path / "play.yml").write_text(
        "- hosts: all\n  gather_facts: false\n  tasks:\n    - ansible.builtin.ping:\n"
    )
    local = f"ansible_connection=local ansible_python_interpreter={sys.executable}"
    (tmp_path / "hosts").write_text(f"one {local}\ntwo {local}\n")
    run_play(tmp_path, {"BULKHEAD_REMOTE_LOG": ""})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["home", "hosts", "play.yml"]
