"""Tests of the planner of docker_seccomp: what it places, leaves, refuses and removes."""

from __future__ import annotations

import json
import pathlib
import typing

import pytest
from ansible.errors import AnsibleFilterError

from ansible_collections.bulkhead.hardening.plugins.filter import (
    docker_seccomp_plan,
    seccomp_compose,
    seccomp_describe,
)
from ansible_collections.bulkhead.hardening.plugins.module_utils import transaction_plan
from ansible_collections.bulkhead.hardening.plugins.module_utils.ledger import value_digest
from ansible_collections.bulkhead.hardening.plugins.plugin_utils import plan as plans, seccomp_plan
from ansible_collections.bulkhead.hardening.plugins.plugin_utils.plan import PolicyError
from tests.unit import observations as obs

Json = dict[str, typing.Any]
WEB = {"web": {"deny": ["ptrace"]}}
PATH = "/etc/docker/seccomp/web.json"
RECORDED = pathlib.Path(__file__).parents[1] / "fixtures" / "observations"


def planned(look: Json, raw: object, *more: typing.Any) -> Json:
    return seccomp_plan.plan(look, seccomp_plan.read(raw), *more)


def content(policy: Json = WEB, look: Json | None = None) -> str:
    operations = planned(look or obs.stock(), policy)["operations"]
    return str(operations[0]["content"])


def placed(policy: Json = WEB, *, intact: bool = True, **more: typing.Any) -> Json:
    """Return a host on which a profile of ours is in place."""
    digest = value_digest(json.loads(content(policy))) if intact else "another"
    look = obs.stock(**more)
    look["seccomp_profiles"] = [{"path": PATH, "sha256": digest, "version": "v1"}]
    item = {"kind": "file", "path": PATH, "intact": intact, "version": "v1"}
    look["bulkhead"].update(state="ok", owned={seccomp_plan.ROLE: [item]})
    return look


def row(plan: Json) -> Json:
    assert len(plan["settings"]) == 1
    return typing.cast(Json, plan["settings"][0])


def daemon_wide(look: Json, path: str = PATH, **live: typing.Any) -> Json:
    look["engine"]["options"]["seccomp-profile"] = obs.option(path, path)
    look["engine"]["options"]["live-restore"] = obs.option(False, False, **live)
    return look


def made_with(name: str | None, digest: str = "older") -> Json:
    return obs.container("shop", seccomp_inline={"bulkhead": name, "sha256": digest})


# -- placing ---------------------------------------------------------------------------------------
def test_without_profiles_nothing_is_planned() -> None:
    plan = planned(obs.stock(), {})
    assert plans.is_empty(plan)
    assert plan["settings"] == []


def test_a_profile_is_placed_for_the_engine_of_the_host() -> None:
    plan = planned(obs.stock(), WEB)
    (operation,) = plan["operations"]
    assert (operation["op"], operation["path"], operation["mode"]) == ("file_present", PATH, "0644")
    profile = json.loads(operation["content"])
    assert profile["syscalls"][0]["comment"].endswith("profile web")
    assert plan["daemon"]["effect"] == "none"
    assert row(plan)["state"] == "change"
    assert "system calls of x86_64 are blocked" in row(plan)["reason"]
    assert transaction_plan.parse_plan({**plan_for_host(plan)}).of("file_present")


def plan_for_host(plan: Json) -> Json:
    return {name: plan[name] for name in ("schema", "profile", "operations", "daemon")}


def test_a_file_lists_names_on_one_line() -> None:
    assert '"names": ["_llseek", "_newselect", "accept", "accept4",' in content()


def test_one_in_place_is_ok() -> None:
    plan = planned(placed(), WEB)
    assert plans.is_empty(plan)
    assert row(plan)["state"] == "ok"


def test_one_that_somebody_changed_is_put_right() -> None:
    plan = planned(placed(intact=False), WEB)
    assert [op["observed"] for op in plan["operations"]] == ["v1"]


def test_a_file_of_somebody_else_is_left() -> None:
    look = obs.stock(seccomp_profiles=[{"path": PATH, "sha256": None, "version": "v1"}])
    plan = planned(look, WEB)
    assert plans.is_empty(plan)
    assert row(plan)["state"] == "blocked"
    assert "somebody else's file" in row(plan)["reason"]


def test_containers_that_keep_an_older_text_are_named() -> None:
    look = placed(containers=[made_with("web"), made_with("other")])
    plan = planned(look, WEB)
    assert plans.is_empty(plan)
    assert (row(plan)["state"], row(plan)["affected"]) == ("pending", ["shop"])


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"state": "absent", "version": None}, "Docker is not installed"),
        ({"rootless": True}, "rootless"),
    ],
)
def test_where_a_profile_has_no_meaning(change: Json, says: str) -> None:
    look = obs.stock()
    look["engine"].update(change)
    plan = planned(look, WEB)
    assert plans.is_empty(plan)
    assert row(plan)["state"] == "not_applicable"
    assert says in row(plan)["reason"]


def test_a_kernel_without_seccomp() -> None:
    look = obs.stock()
    look["engine"]["info"]["seccomp"] = False
    assert row(planned(look, WEB))["state"] == "not_applicable"


def test_a_machine_whose_calls_are_not_known() -> None:
    look = obs.stock()
    look["os"]["architecture"] = "ppc64le"
    assert "ppc64le" in row(planned(look, WEB))["reason"]


def test_an_engine_whose_profile_is_not_known_is_refused_with_the_way_out() -> None:
    look = obs.stock()
    look["engine"]["version"] = "29.4.3"
    plan = planned(look, WEB)
    assert plans.is_empty(plan)
    assert row(plan)["state"] == "blocked"
    assert "give a profile of your own as base" in row(plan)["reason"]
    own = seccomp_compose.seccomp_compose({}, "26.1.5")
    assert planned(look, {"web": {"base": own}})["operations"]


def test_another_error_needs_an_engine_that_honours_it() -> None:
    look = obs.stock()
    look["engine"]["version"] = "20.10.24+dfsg1"
    plan = planned(look, {"web": {"errno": "ENOSYS"}})
    assert plans.is_empty(plan)
    assert "answers error 1" in row(plan)["reason"]


def test_warnings_about_a_profile_are_told() -> None:
    own = seccomp_compose.seccomp_compose({}, "26.1.5")
    own["syscalls"].append(
        {"names": ["read", "write", "openat", "close"], "action": "SCMP_ACT_ALLOW"}
    )
    reason = row(planned(obs.stock(), {"web": {"base": own}}))["reason"]
    assert "more than once" in reason
    assert "and 1 more warnings" in reason


# -- for every container ---------------------------------------------------------------------------
def test_the_daemon_restarts_to_take_up_a_changed_profile() -> None:
    plan = planned(daemon_wide(placed(intact=False)), WEB)
    assert plan["daemon"]["effect"] == "restart"
    assert plan["daemon"]["why"] == ["seccomp-profile"]


def test_a_restart_that_would_end_containers_is_not_planned() -> None:
    look = daemon_wide(placed(intact=False, containers=[obs.container()]))
    plan = planned(look, WEB)
    assert plans.is_empty(plan)
    assert (row(plan)["state"], row(plan)["affected"]) == ("blocked", ["web"])
    look["engine"]["options"]["live-restore"] = obs.option(True, True)
    assert planned(look, WEB)["daemon"]["effect"] == "restart"


def test_a_restart_that_would_take_up_more_is_not_planned() -> None:
    look = daemon_wide(placed(intact=False))
    look["engine"]["config_loaded"] = False
    plan = planned(look, WEB)
    assert plans.is_empty(plan)
    assert "somebody changed in daemon.json" in row(plan)["reason"]
    look["engine"].update(
        config_loaded=True,
        unread_flags=[{"key": "hosts", "where": "/etc/default/docker"}],
    )
    plan = planned(look, WEB)
    assert plans.is_empty(plan)
    assert "hosts in /etc/default/docker" in row(plan)["reason"]


def test_a_restart_that_the_policy_forbids_is_not_planned() -> None:
    plan = planned(daemon_wide(placed(intact=False)), WEB, None, "never")
    assert plans.is_empty(plan)
    assert row(plan)["state"] == "blocked"
    assert row(plan)["reason"].endswith("docker_daemon_restart is never")


def test_a_restart_that_ends_containers_may_be_accepted() -> None:
    look = daemon_wide(placed(intact=False, containers=[obs.container()]))
    look["engine"]["info"]["swarm"] = "active"
    assert "docker_daemon_restart_stops_containers" in row(planned(look, WEB))["reason"]
    plan = planned(look, WEB, None, "when_needed", "true")
    assert row(plan)["state"] == "change"
    assert (plan["daemon"]["effect"], plan["daemon"]["allow_container_restart"]) == (
        "restart",
        True,
    )


@pytest.mark.parametrize(
    ("restart", "stops", "says"),
    [
        ("Never", False, "docker_daemon_restart is 'Never': give when_needed or never"),
        (False, False, "docker_daemon_restart is False"),
        ("never", "perhaps", "docker_daemon_restart_stops_containers is 'perhaps'"),
    ],
)
def test_a_variable_of_the_daemons_that_is_wrong_is_refused(
    restart: object, stops: object, says: str
) -> None:
    with pytest.raises(PolicyError, match=says):
        planned(obs.stock(), {}, None, restart, stops)


# -- removing --------------------------------------------------------------------------------------
def test_one_that_is_no_longer_wanted_goes() -> None:
    plan = planned(placed(containers=[made_with(None)]), {})
    assert [(op["op"], op["observed"]) for op in plan["operations"]] == [("file_absent", "v1")]


def test_one_that_somebody_changed_is_left_to_them() -> None:
    plan = planned(placed(intact=False), {})
    assert [(op["op"], op["kind"]) for op in plan["operations"]] == [("disown", "file")]


def test_one_that_a_container_was_created_with_stays() -> None:
    plan = planned(placed(containers=[made_with("web")]), {})
    assert plans.is_empty(plan)
    assert (row(plan)["state"], row(plan)["affected"]) == ("blocked", ["shop"])


def test_one_that_the_daemon_uses_stays() -> None:
    plan = planned(daemon_wide(placed()), {})
    assert plans.is_empty(plan)
    assert "the daemon uses it for every container" in row(plan)["reason"]


def test_one_that_the_daemon_stops_using_in_the_same_transaction_goes_with_it() -> None:
    daemon = plans.empty()
    daemon["operations"] = [{"op": "json_remove", "key": "seccomp-profile"}]
    daemon["daemon"]["effect"] = "restart"
    plan = planned(daemon_wide(placed()), {}, daemon)
    assert [op["op"] for op in plan["operations"]] == ["file_absent"]
    daemon["daemon"]["effect"] = "none"
    assert plans.is_empty(planned(daemon_wide(placed()), {}, daemon))


def test_one_that_the_daemon_begins_to_use_in_the_same_transaction_stays() -> None:
    daemon = plans.empty()
    daemon["operations"] = [{"op": "json_set", "key": "seccomp-profile", "value": PATH}]
    daemon["daemon"]["effect"] = "restart"
    assert plans.is_empty(planned(placed(), {}, daemon))


def test_while_containers_cannot_be_seen_nothing_goes() -> None:
    look = placed()
    look["engine"]["state"], look["containers"] = "stopped", None
    plan = planned(look, {})
    assert plans.is_empty(plan)
    assert "cannot be seen: Docker is stopped" in row(plan)["reason"]


# -- refusals --------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "policy", [[], {"Web": {}}, {"web.json": {}}, {"../x": {}}, {1: {}}, {"": {}}]
)
def test_a_wrong_policy_is_refused_before_anything_else(policy: object) -> None:
    with pytest.raises(AnsibleFilterError, match="docker_seccomp_profiles"):
        docker_seccomp_plan.docker_seccomp_plan(obs.stock(), typing.cast(Json, policy))


def test_a_profile_under_which_nothing_starts_is_refused() -> None:
    with pytest.raises(PolicyError, match=r"docker_seccomp_profiles\[web\].*without execve"):
        planned(obs.stock(), {"web": {"deny": ["execve"]}})


@pytest.mark.parametrize(
    "section", ["os", "engine", "daemon_config", "seccomp_profiles", "bulkhead"]
)
def test_a_look_that_lacks_a_section_is_refused(section: str) -> None:
    with pytest.raises(PolicyError, match=section):
        planned({**obs.stock(), section: None}, WEB)


def test_a_host_whose_ledger_cannot_be_trusted_is_left() -> None:
    look = obs.stock()
    look["bulkhead"]["state"] = "foreign"
    with pytest.raises(PolicyError, match="cleared up"):
        planned(look, WEB)


def test_a_broken_observation_is_an_error_of_the_look() -> None:
    with pytest.raises(AnsibleFilterError, match="look again"):
        docker_seccomp_plan.docker_seccomp_plan({**obs.stock(), "os": []}, WEB)


@pytest.mark.parametrize(
    "name",
    ["trixie-absent", "trixie-stopped", "trixie-stock-empty", "trixie-stock-used", "audit-bad"],
)
def test_recorded_hosts_are_planned_for(name: str) -> None:
    look = json.loads((RECORDED / f"{name}.json").read_text())
    look = look.get("observation", look)
    plan = planned({**look, "seccomp_profiles": []}, WEB)
    wanted = "not_applicable" if name == "trixie-absent" else "change"
    assert row(plan)["state"] == wanted


# -- the other filters -----------------------------------------------------------------------------
def test_filters_compose_and_describe() -> None:
    profile = seccomp_compose.seccomp_compose({"deny": ["ptrace"]}, "28.5.2", "web")
    told = seccomp_describe.seccomp_describe(profile, "28.5.2")
    assert told["denied_beyond_default"] == ["ptrace"]
    assert seccomp_describe.seccomp_describe({})["problems"][0]["level"] == "error"
    for broken in (
        lambda: seccomp_compose.seccomp_compose({"deny": ["read"]}, "28.5.2"),
        lambda: seccomp_compose.seccomp_compose({}, "28.4.0"),
        lambda: seccomp_describe.seccomp_describe(profile, "28.4.0"),
    ):
        with pytest.raises(AnsibleFilterError):
            broken()
