"""What the benchmarks share."""

from __future__ import annotations

import typing

import pytest

Say = typing.Callable[[str], None]


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str]) -> Say:
    """Return a printer that is heard although pytest captures output."""

    def line(text: str) -> None:
        with capsys.disabled():
            print(text)

    return line
