"""What the tests of this scenario share: the notes that earlier steps left, and containers."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys
import typing

import pytest

Json = dict[str, typing.Any]
Play = typing.Callable[..., str]


@pytest.fixture(scope="session")
def notes() -> pathlib.Path:
    """Return the directory in which the steps of this scenario kept their notes."""
    return pathlib.Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"])


@pytest.fixture
def name(host: typing.Any) -> str:
    """Return the inventory name of the host under test."""
    return str(host.backend.host)


@pytest.fixture
def document(notes: pathlib.Path, name: str) -> typing.Callable[..., Json]:
    """Return a reader of the documents that the runs stored: ``document("converge", "after")``."""

    def read(run: str, which: str) -> Json:
        path = notes / "documents" / run / name / f"{which}.json"
        return typing.cast(Json, json.loads(path.read_text()))

    return read


@pytest.fixture
def play(notes: pathlib.Path, name: str) -> Play:
    """Return a runner of playbooks on the host under test, whose answer is all that the run said.

    ``play("harden", variable=value)`` must succeed; with ``fails=True`` it must not. Ansible wraps long
    lines, so words are one space apart.
    """
    root = pathlib.Path(os.environ["MOLECULE_PROJECT_DIRECTORY"])
    # What the scenario's own runs cost is counted elsewhere.
    own = ("ANSIBLE_CALLBACK", "BULKHEAD_REMOTE_LOG")
    environment = {
        **{key: value for key, value in os.environ.items() if not key.startswith(own)},
        "ANSIBLE_CONFIG": str(root / "ansible.cfg"),
        "ANSIBLE_COLLECTIONS_PATH": str(root / "playbooks" / "collections"),
        "ANSIBLE_NOCOLOR": "1",
    }

    def run(playbook: str, *, fails: bool = False, **variables: typing.Any) -> str:
        command = [
            str(pathlib.Path(sys.executable).parent / "ansible-playbook"),
            *("-i", os.environ.get("MOLECULE_INVENTORY_FILE", str(notes / "inventory"))),
            *("-e", json.dumps({"bulkhead_hosts": name, **variables})),
            str(root / "playbooks" / f"{playbook}.yml"),
        ]
        # Into a file: SSH's shared connection outlives the run and would keep a pipe open.
        with (notes / "play.log").open("w") as log:
            done = subprocess.run(
                command, cwd=root, env=environment, stdin=subprocess.DEVNULL, stdout=log,
                stderr=subprocess.STDOUT, check=False, timeout=600,
            )  # fmt: skip
        said = (notes / "play.log").read_text()
        assert (done.returncode != 0) == fails, said[-4000:]
        return " ".join(said.split())

    return run


@pytest.fixture
def docker(host: typing.Any) -> typing.Callable[..., str]:
    """Return a caller of the docker command on the host that must succeed."""

    def call(command: str) -> str:
        return str(host.check_output(f"docker {command}")).strip()

    return call
