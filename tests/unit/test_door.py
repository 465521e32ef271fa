"""Tests of the doors' controller side: caps, storage and round trips saved."""

from __future__ import annotations

import json
import pathlib
import stat
import types
import typing

import pytest

from ansible_collections.bulkhead.hardening.plugins.action import (
    docker_host_apply,
    docker_host_info,
)
from ansible_collections.bulkhead.hardening.plugins.plugin_utils import door, plan as plans
from tests.unit import observations as obs

Json = dict[str, typing.Any]


def action(kind: typing.Any, arguments: Json, answer: Json, calls: list[Json]) -> typing.Any:
    """Return an action plugin whose host gives one answer."""
    task = types.SimpleNamespace(args=arguments, async_val=0, check_mode=False, diff=False)
    made = object.__new__(kind)
    made._task = task
    made._execute_module = lambda **call: (calls.append(call), json.loads(json.dumps(answer)))[1]
    return made


@pytest.fixture(autouse=True)
def _no_base_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ansible.plugins.action.ActionBase.run", lambda *_: {})


def test_a_look_is_stored_whole_and_passed_on_small(tmp_path: pathlib.Path) -> None:
    look = obs.stock(containers=[obs.container(env_names=["TOKEN"], mounts=[{"source": "/x"}])])
    target = tmp_path / "deep" / "look.json"
    made = action(
        docker_host_info.ActionModule, {"document": str(target)}, {"observation": look}, []
    )
    result = made.run(None, {})
    assert "mounts" not in result["observation"]["containers"][0]["config"]
    stored = json.loads(target.read_text())
    assert stored["observation"]["containers"][0]["config"]["mounts"]
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    assert result["path"] == str(target)


def test_an_answer_beyond_the_cap_is_refused_and_not_passed_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(door, "MAX_ANSWER_BYTES", 1000)
    answer = {"observation": {"junk": "x" * 2000}}
    result = action(docker_host_info.ActionModule, {}, answer, []).run(None, {})
    assert result["failed"]
    assert "1000" in result["msg"]
    assert "observation" not in result


def test_an_answer_without_an_observation_is_not_trusted() -> None:
    result = action(docker_host_info.ActionModule, {}, {"changed": False}, []).run(None, {})
    assert result["failed"]


def test_an_empty_plan_costs_no_round_trip() -> None:
    calls: list[Json] = []
    made = action(docker_host_apply.ActionModule, {"plan": plans.empty("strict")}, {}, calls)
    result = made.run(None, {})
    assert calls == []
    assert result["changed"] is False
    assert result["transaction"]["outcome"] == "nothing"


@pytest.mark.parametrize("arguments", [{"recover": True}, {"undo": "last"}, {"purge": True}])
def test_what_needs_no_plan(arguments: Json) -> None:
    calls: list[Json] = []
    answer = {"observation": obs.stock(), "changed": True}
    made = action(docker_host_apply.ActionModule, arguments, answer, calls)
    assert made.run(None, {})["changed"]
    assert calls[0]["module_args"] == arguments


def test_rows_for_people_do_not_travel() -> None:
    calls: list[Json] = []
    plan = plans.empty("strict")
    plan["daemon"]["effect"] = "reload"
    plan["settings"] = [plans.row("icc", "docker_daemon_icc", "change")]
    made = action(
        docker_host_apply.ActionModule,
        {"plan": plan},
        {"observation": obs.stock(), "changed": True},
        calls,
    )
    assert made.run(None, {})["changed"]
    assert "settings" not in calls[0]["module_args"]["plan"]


def test_a_document_that_cannot_be_written_is_an_error_with_its_name(
    tmp_path: pathlib.Path,
) -> None:
    (tmp_path / "file").write_text("")
    made = action(
        docker_host_info.ActionModule,
        {"document": str(tmp_path / "file" / "look.json")},
        {"observation": obs.stock()},
        [],
    )
    result = made.run(None, {})
    assert result["failed"]
    assert "look.json" in result["msg"]
