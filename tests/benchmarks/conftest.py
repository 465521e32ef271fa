"""What the benchmarks share."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys
import typing

import pytest

ROOT = pathlib.Path(__file__).parents[2]

Say = typing.Callable[[str], None]


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str]) -> Say:
    """Return a printer that is heard although pytest captures output."""

    def line(text: str) -> None:
        with capsys.disabled():
            print(text)

    return line


@pytest.fixture
def host(tmp_path: pathlib.Path) -> typing.Iterator[dict[str, str]]:
    """Boot one stock host; yield the environment in which the lab's inventory names it."""
    environment = {
        **os.environ,
        "BULKHEAD_LAB_STATE": str(tmp_path / "lab"),
        "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
        "ANSIBLE_COLLECTIONS_PATH": str(ROOT / "playbooks" / "collections"),
        "ANSIBLE_CALLBACK_PLUGINS": str(ROOT / "tests" / "callback_plugins"),
        "ANSIBLE_CALLBACKS_ENABLED": "remote_executions",
        "BULKHEAD_REMOTE_LOG": str(tmp_path / "remote.jsonl"),
    }
    lab = [sys.executable, "-m", "lab"]
    try:
        subprocess.run([*lab, "up", "bench"], cwd=ROOT, env=environment, check=True)
        yield environment
    finally:
        subprocess.run([*lab, "down", "--all-of-mine"], cwd=ROOT, env=environment, check=True)
