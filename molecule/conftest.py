"""What the tests of this scenario share: the notes that earlier steps left, and containers."""

from __future__ import annotations

import json
import os
import pathlib
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
def docker(host: typing.Any) -> typing.Callable[..., str]:
    """Return a caller of the docker command on the host that must succeed."""

    def call(command: str) -> str:
        return str(host.check_output(f"docker {command}")).strip()

    return call
