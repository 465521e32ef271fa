"""What taking everything off a host plans, and the table of transactions."""

from __future__ import annotations

import copy
import json
import typing

import jsonschema
import pytest
from ansible.errors import AnsibleFilterError

from ansible_collections.bulkhead.hardening.plugins.filter.plan_summary import plan_summary
from ansible_collections.bulkhead.hardening.plugins.filter.transaction_table import (
    transaction_table,
)
from ansible_collections.bulkhead.hardening.plugins.filter.uninstall_plan import uninstall_plan
from ansible_collections.bulkhead.hardening.plugins.module_utils.flags_dropin import FLAGS_DROPIN
from ansible_collections.bulkhead.hardening.plugins.module_utils.transaction_plan import parse_plan
from tests.unit import observations as obs
from tests.unit.checkout import ROOT

Json = dict[str, typing.Any]
CONFIG = "/etc/docker/daemon.json"
DROPIN = "/etc/systemd/system/docker-.scope.d/10-bulkhead.conf"
PLAN = json.loads((ROOT / "docs/schemas/plan.schema.json").read_text())

KEY: Json = {"kind": "json_key", "path": CONFIG, "key": "icc", "version": "1", "intact": True}
MEMBER: Json = {**KEY, "key": "log-opts", "member": "max-size"}
FILE: Json = {"kind": "file", "path": DROPIN, "version": "2", "intact": True}
MODE: Json = {"kind": "mode", "path": "/etc/docker", "version": "3", "intact": True}
REMAP: Json = {**KEY, "key": "userns-remap"}
ACCOUNTS: list[Json] = [
    {"kind": "group", "name": "bulkhead-remap", "intact": True},
    {"kind": "user", "name": "bulkhead-remap", "intact": True},
    {"kind": "subids", "user": "bulkhead-remap", "intact": True},
]


def look(*items: Json, effective: Json | None = None, **sections: typing.Any) -> Json:
    """Return an observation of a host on which a role owns some things."""
    observation = copy.deepcopy(obs.stock(**sections))
    observation["bulkhead"].update(
        state="ok", owned={"docker_daemon": [dict(item) for item in items]}
    )
    for key, value in (effective or {}).items():
        observation["engine"]["options"][key] = obs.option(effective=value)
    observation["engine"]["info"].update(
        userns=bool((effective or {}).get("userns-remap")),
        docker_root_dir="/var/lib/docker/231072.231072",
    )
    return observation


def planned(observation: Json, **options: bool) -> Json:
    """Plan, and check that the host would accept the plan."""
    plan = uninstall_plan(observation, **options)
    wire = {k: plan[k] for k in ("schema", "profile", "operations", "daemon")}
    jsonschema.validate(wire, PLAN)
    parse_plan(wire)
    return plan


def rows(plan: Json, state: str) -> dict[str, Json]:
    return {row["setting"]: row for row in plan["settings"] if row["state"] == state}


def blocked(observation: Json, accept: str | None, *affected: str, **options: bool) -> None:
    plan = planned(observation, **options)
    (row,) = rows(plan, "blocked").values()
    assert (row["accept"], row["affected"]) == (accept, list(affected))
    assert plan["operations"] == []
    assert plan["daemon"]["effect"] == "none"


def test_everything_is_given_back() -> None:
    plan = planned(look(KEY, MEMBER, FILE, MODE, *ACCOUNTS))
    assert [op["op"] for op in plan["operations"]] == [
        "json_remove",
        "json_remove",
        "file_absent",
        "mode_restore",
        "group_absent",
        "user_absent",
        "subid_absent",
    ]
    assert {op["role"] for op in plan["operations"]} == {"docker_daemon"}
    assert plan["operations"][1]["member"] == "max-size"
    assert [op.get("observed") for op in plan["operations"][2:4]] == ["2", "3"]
    assert set(rows(plan, "change")) == {
        "icc",
        "log-opts.max-size",
        DROPIN,
        "mode of /etc/docker",
        "group bulkhead-remap",
        "user bulkhead-remap",
        "subordinate ids of bulkhead-remap",
    }
    assert plan["daemon"]["effect"] == "restart"
    assert plan["profile"] is None


@pytest.mark.parametrize(
    ("item", "name"),
    [
        (KEY, "icc"),
        (MEMBER, "log-opts.max-size"),
        (FILE, DROPIN),
        (MODE, "mode of /etc/docker"),
        (ACCOUNTS[0], "group bulkhead-remap"),
        (ACCOUNTS[1], "user bulkhead-remap"),
        (ACCOUNTS[2], "subordinate ids of bulkhead-remap"),
    ],
)
def test_what_somebody_changed_since_is_left_and_named(item: Json, name: str) -> None:
    plan = planned(look({**item, "intact": False}))
    (operation,) = plan["operations"]
    assert (operation["op"], operation["kind"]) == ("disown", item["kind"])
    assert "somebody changed it since" in rows(plan, "not_applicable")[name]["reason"]
    assert plan["daemon"]["effect"] == "none"


def test_keys_of_a_file_that_is_not_read_any_more_are_left() -> None:
    plan = planned(look({**KEY, "path": "/etc/docker/other.json"}))
    assert [op["op"] for op in plan["operations"]] == ["disown"]
    assert CONFIG in rows(plan, "not_applicable")["icc"]["reason"]


@pytest.mark.parametrize(
    ("owner", "op"), [("somebody", "disown"), ("docker_daemon", "file_absent")]
)
def test_a_seccomp_profile_goes_unless_somebody_elses_key_names_it(owner: str, op: str) -> None:
    path = "/etc/docker/seccomp/web.json"
    key = {**KEY, "key": "seccomp-profile"}
    observation = obs.with_file(
        look(*([key] if owner == "docker_daemon" else [])), {"seccomp-profile": path}
    )
    item = {**FILE, "path": path}
    observation["bulkhead"]["owned"]["docker_seccomp"] = [item]
    plan = planned(observation)
    assert [found["op"] for found in plan["operations"] if found["path"] == path] == [op]


def test_a_host_without_anything_of_ours() -> None:
    for plan in (planned(look()), planned(obs.stock())):
        assert (plan["operations"], plan["settings"]) == ([], [])
        assert plan_summary(plan)[0] == "everything of Bulkhead's is taken off"


def test_what_a_reload_takes_back_needs_no_restart() -> None:
    plan = planned(look({**KEY, "key": "live-restore"}, containers=[obs.container()]))
    assert plan["daemon"]["effect"] == "reload"


def test_a_stopped_daemon_is_left_alone() -> None:
    observation = look(KEY)
    observation["engine"].update(state="stopped", info=None, config_loaded=None)
    assert planned(observation)["daemon"]["effect"] == "none"


def test_containers_that_a_restart_would_end() -> None:
    observation = look(KEY, containers=[obs.container("web"), obs.container("db")])
    accept = "docker_harden_uninstall_stops_containers"
    blocked(observation, accept, "db", "web")
    plan = planned(observation, stops_containers=True)
    assert plan["daemon"]["allow_container_restart"] is True
    kept = look(KEY, effective={"live-restore": True}, containers=[obs.container("web")])
    assert planned(kept)["daemon"]["effect"] == "restart"


def test_what_a_remapped_daemon_holds() -> None:
    remapped = {"userns-remap": True}
    accept = "docker_harden_uninstall_hides_data"
    running = look(REMAP, *ACCOUNTS, effective=remapped, containers=[obs.container("web")])
    for options in ({}, {"hides_data": True, "stops_containers": True}):
        blocked(running, None, "web", **options)
    ended = {**obs.container("web"), "state": "exited"}
    image = {"id": "sha256:1", "tags": ["shop:1"], "bulkhead": False}
    observation = look(
        REMAP, effective=remapped, containers=[ended], images=[image], volumes=[{"name": "data"}]
    )
    blocked(observation, accept, "container web", "image shop:1", "volume data")
    observation["networks"].append({"name": "shop", "scope": "local"})
    observation["engine"]["swarm_node"] = True
    held = [
        "container web",
        "image shop:1",
        "volume data",
        "network shop",
        "membership of its swarm",
    ]
    blocked(observation, accept, *held)
    plan = planned(observation, hides_data=True)
    row = rows(plan, "not_applicable")["data of the remapped daemon"]
    assert "/var/lib/docker/231072.231072 is left" in row["reason"]
    assert len(planned(look(REMAP, *ACCOUNTS, effective=remapped))["operations"]) == 4


def test_a_remapped_daemon_that_is_stopped_cannot_be_looked_into() -> None:
    observation = look(REMAP)
    observation["engine"].update(state="stopped", info=None, config_loaded=None)
    blocked(observation, "docker_harden_uninstall_hides_data")
    assert planned(observation, hides_data=True)["operations"]


def test_a_foreign_change_that_would_hide_containers_waits() -> None:
    observation = look(KEY, effective={"data-root": "/var/lib/docker"})
    observation["engine"]["config_loaded"] = False
    observation["daemon_config"]["keys"] = {"data-root": {"type": "string", "value": "/srv"}}
    blocked(observation, None)
    observation["daemon_config"]["keys"]["data-root"]["value"] = "/var/lib/docker"
    assert planned(observation)["daemon"]["effect"] == "restart"


@pytest.mark.parametrize("state", ["newer", "foreign", "unreadable"])
def test_notes_that_cannot_be_read_are_refused(state: str) -> None:
    observation = look(KEY)
    observation["bulkhead"].update(state=state, reason="ledger.json is odd")
    with pytest.raises(AnsibleFilterError, match=r"/var/lib/bulkhead.*ledger\.json is odd"):
        uninstall_plan(observation)


@pytest.mark.parametrize("broken", [{}, {"bulkhead": {"state": "ok"}}, [], None, "x"])
def test_what_is_no_observation(broken: typing.Any) -> None:
    with pytest.raises(AnsibleFilterError):
        uninstall_plan(broken)


# -- the table ---------------------------------------------------------------------------------------
def kept(identifier: str, **more: typing.Any) -> Json:
    return {
        "id": identifier,
        "outcome": "committed",
        "at": 1769860800.5,
        "profile": "strict",
        "undoes": None,
        "undone_by": None,
        "changes": [CONFIG + ": icc", DROPIN],
        "reason": None,
        **more,
    }


def test_the_table_has_the_newest_first() -> None:
    first, second = "20260131T120000Z-000000", "20260131T130000Z-000000"
    lines = transaction_table(
        [
            kept(first, outcome="undone", undone_by=second),
            kept(second, undoes=first, profile=None, changes=[CONFIG + ": icc"]),
        ]
    )
    assert [line.split()[0] for line in lines] == ["id", second, first]
    assert lines[1].split("  ")[1] == "2026-01-31 12:00:00"
    assert lines[1].endswith("undid %s: %s: icc" % (first, CONFIG))
    assert lines[2].endswith("undone     strict   %s: icc, %s" % (CONFIG, DROPIN))
    assert len({line.index("  2026") for line in lines[1:]}) == 1


def test_a_table_of_nothing_says_so() -> None:
    assert transaction_table([]) == ["no transactions are kept on this host"]


def test_a_hostile_host_cannot_paint_the_terminal() -> None:
    row = kept(
        "x\x1b[2J", at=1e99, outcome="\u202eok", profile=None, reason="newer\r\nPLAY RECAP: ok"
    )
    lines = transaction_table([row])
    assert len(lines) == 2
    assert all(line.isprintable() for line in lines)
    for broken in ([1], [{}], {"a": 1}):
        with pytest.raises(AnsibleFilterError):
            transaction_table(typing.cast(typing.Any, broken))


# -- flags that were taken over --------------------------------------------------------------------
TAKEN: Json = {**FILE, "path": FLAGS_DROPIN, "flags": ["icc"]}


def test_flags_come_back_with_a_restart() -> None:
    plan = planned(look(TAKEN, KEY))
    assert [op["op"] for op in plan["operations"]] == ["json_remove", "file_absent"]
    assert plan["daemon"]["effect"] == "restart"


def test_flags_stay_taken_beside_a_key_that_somebody_changed() -> None:
    observation = look(TAKEN, dict(KEY, intact=False))
    observation["daemon_config"]["keys"]["icc"] = {"type": "boolean", "value": True}
    plan = planned(observation)
    assert {(op["op"], op["kind"]) for op in plan["operations"]} == {
        ("disown", "json_key"),
        ("disown", "file"),
    }
    assert "icc" in rows(plan, "not_applicable")[FLAGS_DROPIN]["reason"]
