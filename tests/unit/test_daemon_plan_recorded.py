"""The planner on observations recorded on real hosts (tests/fixtures/observations)."""

from __future__ import annotations

import json
import pathlib
import typing

import pytest
from ansible.errors import AnsibleFilterError

from ansible_collections.bulkhead.hardening.plugins.filter.docker_daemon_plan import (
    docker_daemon_plan,
)

FOLDER = pathlib.Path(__file__).parents[1] / "fixtures" / "observations"
Json = dict[str, typing.Any]


def recorded(name: str) -> Json:
    """Return a recorded observation."""
    return typing.cast(Json, json.loads((FOLDER / f"{name}.json").read_text()))


def states(plan: Json) -> dict[str, str]:
    """Return the state of each setting."""
    return {row["setting"]: row["state"] for row in plan["settings"]}


@pytest.mark.parametrize(
    ("name", "profile", "effect"),
    [
        ("trixie-stock-empty", "strict", "restart"),
        ("trixie-stock-used", "compatible", "restart"),
        ("trixie-stopped", "compatible", "none"),
        ("trixie-masked", "compatible", "none"),
    ],
)
def test_what_a_recorded_host_gets(name: str, profile: str, effect: str) -> None:
    plan = docker_daemon_plan(recorded(name), {})
    assert plan["profile"] == profile
    assert plan["daemon"]["effect"] == effect
    assert states(plan)["live-restore"] == "change"
    assert states(plan)["seccomp-profile"] == "ok"
    assert states(plan)["owners and modes"] == "ok"


def test_a_recorded_host_with_a_broken_file_is_refused() -> None:
    with pytest.raises(AnsibleFilterError, match=r"docker\.service|daemon\.json"):
        docker_daemon_plan(recorded("trixie-broken"), {})


def test_a_recorded_remapped_host_keeps_its_remapping() -> None:
    plan = docker_daemon_plan(recorded("trixie-userns"), {"profile": "compatible"})
    assert states(plan)["userns-remap"] == "ok"
    assert not any(op.get("key") == "userns-remap" for op in plan["operations"])
