"""What ``docker_apparmor`` plans, by case and from recorded observations."""

from __future__ import annotations

import hashlib
import json
import typing

import jsonschema
import pytest
from ansible.errors import AnsibleFilterError

from ansible_collections.bulkhead.hardening.plugins.filter.docker_apparmor_plan import (
    docker_apparmor_plan,
)
from ansible_collections.bulkhead.hardening.plugins.filter.merge_plans import merge_plans
from ansible_collections.bulkhead.hardening.plugins.filter.plan_summary import plan_summary
from ansible_collections.bulkhead.hardening.plugins.filter.uninstall_plan import uninstall_plan
from ansible_collections.bulkhead.hardening.plugins.module_utils.transaction_plan import parse_plan
from tests.unit import observations as obs
from tests.unit.checkout import ROOT

Json = dict[str, typing.Any]
PLAN = json.loads((ROOT / "docs/schemas/plan.schema.json").read_text())
RECORDED = ROOT / "tests" / "fixtures" / "observations"
WEB: Json = {"profiles": {"docker-web": {}}}
TEXT = "profile docker-web {\n}\n"


def recorded(name: str) -> Json:
    """Return a recorded observation."""
    return typing.cast(Json, json.loads((RECORDED / f"{name}.json").read_text()))


def look(**apparmor: typing.Any) -> Json:
    """Return a stock host with AppArmor; ``apparmor`` replaces what the look says of it."""
    found: Json = {
        "enabled": True,
        "profiles": {"docker-default": "enforce"},
        "parser": {"path": "/usr/sbin/apparmor_parser", "version": "4.1.0"},
        "abi": ["3.0", "4.0"],
        "files": ["lsb_release"],
        "at_boot": True,
        "daemon_profile": None,
        "reports": [],
        **apparmor,
    }
    return obs.stock(lsm={"active": ["capability", "apparmor"], "apparmor": found})


def with_owned(observation: Json, name: str, text: str | None, **more: typing.Any) -> Json:
    """Let a profile be ours, with a text."""
    path = f"/etc/apparmor.d/{name}"
    digest = None if text is None else hashlib.sha256(text.encode()).hexdigest()
    item = {
        "kind": "file", "path": path, "profile": name, "version": "7", "sha256": digest,
        "intact": text is not None, "in_kernel": True, "can_restore": False, **more,
    }  # fmt: skip
    observation["bulkhead"].update(state="ok", owned={"docker_apparmor": [item]})
    observation["lsm"]["apparmor"]["files"].append(name)
    observation["lsm"]["apparmor"]["profiles"].setdefault(name, "enforce")
    return observation


def planned(observation: Json, policy: Json) -> Json:
    """Plan, and check that the host would accept the plan."""
    plan = docker_apparmor_plan(observation, policy)
    wire = {k: plan[k] for k in ("schema", "profile", "operations", "daemon")}
    jsonschema.validate(wire, PLAN)
    parse_plan(wire)
    return plan


def row(observation: Json, policy: Json) -> Json:
    """Return the one row of a plan that changes nothing."""
    plan = planned(observation, policy)
    assert plan["operations"] == []
    (found,) = plan["settings"]
    return typing.cast(Json, found)


def content(observation: Json, policy: Json, name: str = "docker-web") -> str:
    """Return the text that is placed."""
    operations = planned(observation, policy)["operations"]
    (found,) = [op["content"] for op in operations if op["profile"] == name]
    return str(found)


# -- nothing to do -------------------------------------------------------------------------------
@pytest.mark.parametrize("path", sorted(RECORDED.glob("trixie-*.json")), ids=lambda path: path.stem)
def test_without_a_policy_there_is_nothing_to_say(path: typing.Any) -> None:
    plan = planned(json.loads(path.read_text()), {})
    assert (plan["settings"], plan["operations"]) == ([], [])
    assert plan["daemon"]["effect"] == "none"


def test_its_plan_joins_that_of_another_role() -> None:
    other = {**docker_apparmor_plan(look(), {}), "profile": "strict", "profile_reason": "x"}
    merged = merge_plans([other, docker_apparmor_plan(look(), WEB)])
    assert merged["profile"] == "strict"
    assert [op["op"] for op in merged["operations"]] == ["apparmor_profile"]


# -- a profile that is wanted --------------------------------------------------------------------
def test_a_profile_is_placed() -> None:
    plan = planned(look(), WEB)
    (operation,) = plan["operations"]
    assert operation["path"] == "/etc/apparmor.d/docker-web"
    assert operation["observed"] == "absent"
    assert "abi <abi/3.0>,\n" in operation["content"]
    assert plan["settings"][0]["state"] == "change"
    assert plan["settings"][0]["control"] == "5.2"
    assert "CHANGE         AppArmor profile docker-web" in plan_summary(plan)[0]


def test_the_text_is_for_this_host() -> None:
    observation = look(abi=[], daemon_profile="snap.docker.dockerd")
    text = content(observation, WEB)
    assert "abi <" not in text
    assert 'signal (receive) peer="snap.docker.dockerd",' in text


def test_one_that_is_in_effect_is_left_alone() -> None:
    text = content(look(), WEB)
    assert row(with_owned(look(), "docker-web", text), WEB)["state"] == "ok"


@pytest.mark.parametrize(
    ("text", "more", "profiles", "why"),
    [
        ("another", {}, {}, "its text changes"),
        ("another", {"intact": False}, {}, "somebody changed its file"),
        (None, {}, {}, "its file is gone"),
        ("same", {"in_kernel": False}, {}, "another policy under that name"),
        ("same", {}, {"docker-web": "complain"}, "in mode complain"),
        ("same", {}, {"docker-web": ""}, "the kernel has it not"),
    ],
)
def test_what_is_not_as_wanted_is_set_again(
    text: str | None, more: Json, profiles: Json, why: str
) -> None:
    wanted = content(look(), WEB)
    observation = with_owned(look(), "docker-web", wanted if text == "same" else text, **more)
    observation["lsm"]["apparmor"]["profiles"].update(profiles)
    plan = planned(observation, WEB)
    assert [op["op"] for op in plan["operations"]] == ["apparmor_profile"]
    assert plan["operations"][0]["observed"] == "7"
    assert why in plan["settings"][0]["reason"]


def test_an_upgrade_names_those_for_whom_it_holds_at_once() -> None:
    observation = with_owned(look(), "docker-web", "another")
    observation["containers"] = [obs.container("shop", apparmor_profile="docker-web")]
    assert planned(observation, WEB)["settings"][0]["affected"] == ["shop"]


def test_a_given_file_is_taken_as_it_is() -> None:
    policy = {"profiles": {"docker-web": {"file": "web.profile"}}, "texts": {"web.profile": TEXT}}
    assert content(look(), policy).endswith(TEXT)
    policy["profiles"]["docker-web"]["mode"] = "complain"
    assert "profile docker-web flags=(complain) {" in content(look(), policy)


@pytest.mark.parametrize(
    ("mode", "spec", "expected"),
    [
        ("enforce", {}, False),
        ("complain", {}, True),
        ("complain", {"mode": "enforce"}, False),
        ("enforce", {"mode": "complain"}, True),
    ],
)
def test_a_profiles_own_mode_wins(mode: str, spec: Json, expected: bool) -> None:
    text = content(look(), {"profiles": {"docker-web": spec}, "mode": mode})
    assert ("flags=(complain" in text) is expected


def test_complain_mode_says_what_it_would_have_denied() -> None:
    policy = {**WEB, "mode": "complain"}
    text = content(look(), policy)
    observation = with_owned(look(), "docker-web", text)
    apparmor = observation["lsm"]["apparmor"]
    apparmor["profiles"]["docker-web"] = "complain"
    assert "nothing that it would deny was seen" in row(observation, policy)["reason"]
    apparmor["reports"] = [
        {
            "profile": "docker-web",
            "operation": "exec",
            "what": "/usr/bin",
            "access": "x",
            "count": 3,
        },
        {
            "profile": "docker-web",
            "operation": "capable",
            "what": "net_raw",
            "access": "",
            "count": 2,
        },
        {"profile": "other", "operation": "open", "what": "/etc", "access": "r", "count": 9},
    ]
    found = row(observation, policy)
    assert found["state"] == "pending"
    assert found["reason"] == (
        "in complain mode; it would have denied exec /usr/bin (x): 3, capable net_raw: 2"
    )


def test_one_that_is_not_loaded_at_boot_says_so() -> None:
    observation = with_owned(look(at_boot=False), "docker-web", content(look(), WEB))
    assert "systemctl enable apparmor.service" in row(observation, WEB)["reason"]


# -- what this host cannot have ------------------------------------------------------------------
@pytest.mark.parametrize(
    ("apparmor", "state", "why"),
    [
        ({"enabled": False}, "not_applicable", "without AppArmor (active: capability, apparmor)"),
        ({"parser": None}, "blocked", "install the package apparmor"),
        ({"profiles": None}, "blocked", "could not be read"),
        ({"files": ["docker-web"]}, "blocked", "somebody else's /etc/apparmor.d/docker-web"),
        ({"profiles": {"docker-web": "enforce"}}, "blocked", "Bulkhead did not place"),
    ],
)
def test_what_a_host_cannot_have(apparmor: Json, state: str, why: str) -> None:
    found = row(look(**apparmor), WEB)
    assert found["state"] == state
    assert why in found["reason"]


def test_a_recorded_host_without_apparmor() -> None:
    found = row(recorded("apparmor-absent"), WEB)
    assert found["state"] == "not_applicable"
    assert (
        "without AppArmor (active: lockdown, capability, landlock, yama, selinux" in found["reason"]
    )


@pytest.mark.parametrize(
    ("version", "why"),
    [
        ("20.10.24+dfsg1", None),
        ("29.4.2", None),
        ("29.4.3", "in the place of any other"),
        ("29.7.2", "in the place of any other"),
        ("29.8.0", "a template instead"),
        (None, "not known"),
    ],
)
def test_the_default_profile_by_engine(version: str | None, why: str | None) -> None:
    observation = look()
    observation["engine"]["version"] = version
    observation["containers"] = [obs.container("shop", apparmor_profile="docker-default")]
    policy = {"default_profile": True}
    if why is None:
        assert "deny capability bpf," in content(observation, policy, "docker-default")
        (found,) = planned(observation, policy)["settings"]
        assert (found["variable"], found["affected"]) == (
            "docker_apparmor_default_profile",
            ["shop"],
        )
        return
    found = row(observation, policy)
    assert found["state"] == "blocked"
    assert why in found["reason"]


# -- no longer wanted ----------------------------------------------------------------------------
def test_an_unused_one_is_taken_away() -> None:
    (operation,) = planned(with_owned(look(), "docker-web", TEXT), {})["operations"]
    assert (operation["op"], operation["path"]) == ("file_absent", "/etc/apparmor.d/docker-web")


@pytest.mark.parametrize(
    "container",
    [
        obs.container("shop", apparmor_profile="docker-web"),
        obs.container("shop", security_opt=["apparmor=docker-web"]),
        {**obs.container("shop", security_opt=["apparmor:docker-web"]), "state": "exited"},
        {**obs.container("shop"), "kernel": {"apparmor_profile": "docker-web"}},
        {**obs.container("shop"), "config": None, "kernel": None},
    ],
    ids=["inspected", "option", "stopped", "kernel", "unknown"],
)
def test_one_in_use_is_not(container: Json) -> None:
    observation = with_owned(look(), "docker-web", TEXT)
    observation["containers"] = [
        container,
        obs.container("other", apparmor_profile="docker-default"),
    ]
    found = row(observation, {})
    assert (found["state"], found["affected"]) == ("blocked", ["shop"])
    uninstall = uninstall_plan(_for_uninstall(observation))
    assert uninstall["operations"] == []
    assert "shop" in " ".join(plan_summary(uninstall))


def _for_uninstall(observation: Json) -> Json:
    observation["engine"]["info"]["docker_root_dir"] = "/var/lib/docker"
    return observation


def test_one_that_nobody_uses_is_uninstalled() -> None:
    observation = _for_uninstall(with_owned(look(), "docker-web", TEXT))
    assert [op["op"] for op in uninstall_plan(observation)["operations"]] == ["file_absent"]


def test_who_uses_it_must_be_seen() -> None:
    observation = with_owned(look(), "docker-web", TEXT)
    observation["engine"].update(state="stopped")
    found = row(observation, {})
    assert (found["state"], "Docker is stopped" in found["reason"]) == ("blocked", True)


def test_one_that_somebody_changed_is_left_to_them() -> None:
    plan = planned(with_owned(look(), "docker-web", TEXT, intact=False), {})
    assert [op["op"] for op in plan["operations"]] == ["disown"]


def test_the_default_profile_is_taken_back_under_its_containers() -> None:
    observation = with_owned(look(), "docker-default", TEXT)
    observation["containers"] = [obs.container("shop", apparmor_profile="docker-default")]
    assert [op["op"] for op in planned(observation, {})["operations"]] == ["file_absent"]


def test_a_recorded_host_whose_policy_is_emptied() -> None:
    """A container under docker-nginx; a docker-default of ours, which stopped containers would use."""
    plan = planned(recorded("apparmor-complain"), {})
    states = {row["setting"]: (row["state"], row["affected"]) for row in plan["settings"]}
    assert states == {
        "AppArmor profile docker-default": ("change", ["limited", "roomy", "unlimited", "web"]),
        "AppArmor profile docker-nginx": ("blocked", ["shop"]),
    }
    assert [op["path"] for op in plan["operations"]] == ["/etc/apparmor.d/docker-default"]


# -- bad input -----------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("policy", "words"),
    [
        ({"mode": "audit"}, "docker_apparmor_mode is 'audit': say enforce or complain"),
        ({"default_profile": "perhaps"}, "docker_apparmor_default_profile is 'perhaps'"),
        ({"profiles": ["x"]}, "docker_apparmor_profiles is"),
        ({"profiles": {"X": {}}}, r"docker_apparmor_profiles\[X\].name is 'X': use small letters"),
        ({"profiles": {"docker-default": {}}}, "set docker_apparmor_default_profile"),
        ({"profiles": {"docker-web": None}}, "give a mapping"),
        (
            {"profiles": {"docker-web": {"files": {"read": ["x"]}}}},
            r"docker_apparmor_profiles\[docker-web\].files.read is 'x': use absolute paths",
        ),
        ({"profiles": {"docker-web": {"file": "x"}}}, "a file on the controller"),
        ({"profiles": {"docker-web": {"file": "x", "raw": []}}}, r"remove \['raw'\]"),
        ({"profiles": {"docker-web": {"file": "x"}}, "texts": {"x": ""}}, "named docker-web"),
    ],
)
def test_a_wrong_policy_names_variable_value_and_fix(policy: Json, words: str) -> None:
    with pytest.raises(AnsibleFilterError, match=words):
        docker_apparmor_plan(look(), policy)


@pytest.mark.parametrize(
    ("observation", "words"),
    [
        (obs.stock(schema="bulkhead.observation/9"), "bulkhead.observation/1"),
        (obs.stock(lsm=None), "gather it"),
        (obs.stock(containers=None), "section containers"),
        (obs.stock(bulkhead={"state": "newer", "reason": "by a later release"}), "later release"),
        (obs.stock(lsm={"apparmor": []}), "not of schema"),
    ],
)
def test_a_look_that_says_too_little(observation: Json, words: str) -> None:
    with pytest.raises(AnsibleFilterError, match=words):
        docker_apparmor_plan(observation, WEB)
