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
def play(notes: pathlib.Path, name: str) -> typing.Callable[..., subprocess.CompletedProcess[str]]:
    """Return a caller of ``playbooks/harden.yml`` on the host under test, with variables."""
    root = pathlib.Path(os.environ["MOLECULE_PROJECT_DIRECTORY"])
    environment = {
        **{k: v for k, v in os.environ.items() if not k.startswith("ANSIBLE_CALLBACK")},
        "ANSIBLE_CONFIG": str(root / "ansible.cfg"),
        "ANSIBLE_COLLECTIONS_PATH": str(root / "playbooks" / "collections"),
        "ANSIBLE_NOCOLOR": "1",
    }

    def call(**variables: typing.Any) -> subprocess.CompletedProcess[str]:
        command = [str(pathlib.Path(sys.executable).parent / "ansible-playbook")]
        command += ["-i", os.environ.get("MOLECULE_INVENTORY_FILE", str(notes / "inventory"))]
        command += ["-e", json.dumps({"bulkhead_hosts": name, **variables})]
        with (notes / "play.log").open(
            "w"
        ) as log:  # SSH's shared connection would keep a pipe open
            rc = subprocess.run(
                [*command, str(root / "playbooks" / "harden.yml")],
                cwd=root, env=environment, stdin=subprocess.DEVNULL, stdout=log,
                stderr=subprocess.STDOUT, check=False, timeout=600,
            ).returncode  # fmt: skip
        return subprocess.CompletedProcess(command, rc, (notes / "play.log").read_text())

    return call


@pytest.fixture
def docker(host: typing.Any) -> typing.Callable[..., str]:
    """Return a caller of the docker command on the host that must succeed."""

    def call(command: str) -> str:
        return str(host.check_output(f"docker {command}")).strip()

    return call


@pytest.fixture
def play(notes: pathlib.Path, name: str) -> typing.Callable[..., str]:
    """Return a runner of playbooks on this host: ``play("harden", variable=value)`` gives its output."""
    root = pathlib.Path(os.environ["MOLECULE_PROJECT_DIRECTORY"])

    def run(playbook: str, **variables: typing.Any) -> str:
        environment = {
            **os.environ,
            "ANSIBLE_CONFIG": str(root / "ansible.cfg"),
            "ANSIBLE_COLLECTIONS_PATH": str(root / "playbooks" / "collections"),
            "ANSIBLE_NOCOLOR": "1",
        }
        # What the scenario's own runs cost is counted elsewhere.
        environment.pop("BULKHEAD_REMOTE_LOG", None)
        environment.pop("ANSIBLE_CALLBACKS_ENABLED", None)
        values = {"bulkhead_hosts": name, **variables}
        done = subprocess.run(
            [
                str(pathlib.Path(sys.executable).parent / "ansible-playbook"),
                *("-i", os.environ.get("MOLECULE_INVENTORY_FILE", str(notes / "inventory"))),
                *("-e", json.dumps(values), str(root / "playbooks" / f"{playbook}.yml")),
            ],
            cwd=root,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        assert done.returncode == 0, done.stdout[-4000:]
        # Ansible wraps long lines.
        return " ".join(done.stdout.split())

    return run
