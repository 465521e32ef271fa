"""The host on which things go wrong, and the table of how each ended."""

from __future__ import annotations

import time
import typing

import pytest
from target import ROOT, START, Json, Target

ROWS: list[tuple[str, str, str, float]] = []


@pytest.fixture(scope="session")
def target() -> Target:
    made = Target()
    made.run(
        "docker run -d --name looping --restart always lab:1 sh -c 'exit 1';"
        "docker run -d --name brief --restart always lab:1 sleep 7"
    )
    return made


@pytest.fixture
def row(request: pytest.FixtureRequest, target: Target) -> typing.Iterator[Json]:
    """Note a row of the table; a fault that fails its test is a row as well."""
    found: Json = {"fault": request.node.callspec.id, "outcome": "?", "host": "NOT AS PROMISED"}
    started = time.monotonic()
    yield found
    if found["host"] == "NOT AS PROMISED":  # the next fault begins on a host as it was
        target.play("uninstall")
        target.run(START, check=False)
    ROWS.append((found["fault"], found["outcome"], found["host"], time.monotonic() - started))
    write_table()


def table() -> list[str]:
    lines = ["| fault | the run | the host is | seconds |", "| --- | --- | --- | --- |"]
    return lines + [f"| {a} | {b} | {c} | {d:.0f} |" for a, b, c, d in ROWS]


def write_table() -> None:
    """Write what is known so far, so that a run that is cut off leaves its table too."""
    target = ROOT / "reports" / "faults.md"
    target.parent.mkdir(exist_ok=True)
    target.write_text("\n".join(table()) + "\n")


def pytest_terminal_summary(terminalreporter: typing.Any) -> None:
    for line in ["", *table()]:
        terminalreporter.write_line(line)
