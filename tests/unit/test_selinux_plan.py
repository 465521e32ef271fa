"""What ``docker_selinux`` plans, by case and by family of policy."""

from __future__ import annotations

import json
import typing

import jsonschema
import pytest
from ansible.errors import AnsibleFilterError

from ansible_collections.bulkhead.hardening.plugins.filter.docker_selinux_plan import (
    docker_selinux_plan,
)
from ansible_collections.bulkhead.hardening.plugins.filter.merge_plans import merge_plans
from ansible_collections.bulkhead.hardening.plugins.filter.uninstall_plan import uninstall_plan
from ansible_collections.bulkhead.hardening.plugins.module_utils import selinux
from ansible_collections.bulkhead.hardening.plugins.module_utils.transaction_plan import parse_plan
from ansible_collections.bulkhead.hardening.plugins.plugin_utils import plan as plans
from tests.unit import observations as obs
from tests.unit.checkout import ROOT

Json = dict[str, typing.Any]
PLAN = json.loads((ROOT / "docs/schemas/plan.schema.json").read_text())
RECORDED = ROOT / "tests" / "fixtures" / "observations"
LABEL = "system_u:system_r:%s:s0:c1,c2"


def look(enabled_in_daemon: bool = False, **lsm: typing.Any) -> Json:
    """Return an enforcing Debian 13; ``lsm`` replaces what the look says of SELinux."""
    found: Json = {
        "enabled": True,
        "enforcing": True,
        "configured": "enforcing",
        "policy": "default",
        "contexts": {
            "path": "/etc/selinux/default/contexts/lxc_contexts",
            "process": "system_u:system_r:container_t:s0",
            "file": "system_u:object_r:container_file_t:s0",
        },
        "types_known": True,
        "booleans": {"container_use_nfs": False, "container_manage_cgroup": False},
        "kept_booleans": {},
        "modules": {"container": 100, "docker": 100},
        "equivalences": {},
        "equivalences_version": "absent",
        "programs": ["restorecon", "semodule", "setsebool"],
        "labels": {"path": "/var/lib/docker", "type": "container_var_lib_t", "entries": {}},
        "denials": [],
        **lsm,
    }
    made = obs.stock(lsm={"active": ["capability", "selinux"], "selinux": found})
    made["engine"]["options"]["selinux-enabled"] = obs.option(effective=enabled_in_daemon)
    made["engine"]["info"]["docker_root_dir"] = "/var/lib/docker"
    if enabled_in_daemon:
        in_file(made, True)
    return made


def in_file(observation: Json, value: bool) -> None:
    observation["daemon_config"]["keys"]["selinux-enabled"] = {"value": value}


def owning(observation: Json, **item: typing.Any) -> Json:
    """Let something be ours."""
    left = observation["bulkhead"]
    left.update(state="ok")
    left["owned"] = {"docker_selinux": [{"intact": True, **item}]}
    return observation


def planned(observation: Json, policy: Json | None = None, daemon: Json | None = None) -> Json:
    """Plan, and check that the host would accept the plan."""
    plan = docker_selinux_plan(observation, policy or {}, daemon or {})
    wire = {k: plan[k] for k in ("schema", "profile", "operations", "daemon")}
    jsonschema.validate(wire, PLAN)
    parse_plan(wire)
    return plan


def row(plan: Json, setting: str) -> Json:
    (found,) = [row for row in plan["settings"] if row["setting"] == setting]
    return typing.cast(Json, found)


def kinds(plan: Json) -> list[str]:
    return [op["op"] for op in plan["operations"]]


# -- the switch ----------------------------------------------------------------------------------
def test_the_switch_goes_on_with_a_restart() -> None:
    plan = planned(look())
    assert row(plan, "selinux-enabled")["state"] == "change"
    assert kinds(plan) == ["json_set"]
    assert plan["daemon"]["effect"] == "restart"
    assert merge_plans([plans.empty(), plan])["daemon"]["why"] == ["selinux-enabled"]


def test_in_effect_there_is_nothing_to_do() -> None:
    plan = planned(look(True))
    assert {r["state"] for r in plan["settings"]} == {"ok"}
    assert plans.is_empty(plan)


def test_permissive_is_said_beside_the_switch() -> None:
    plan = planned(look(True, enforcing=False, configured="permissive"))
    assert "nothing is denied" in row(plan, "selinux-enabled")["reason"]


def test_mounts_without_a_label_are_named_before_they_break() -> None:
    mounts: list[Json] = [
        {"type": "bind", "source": "/srv/www", "relabel": False},
        {"type": "bind", "source": "/srv/own", "relabel": True},
        {"type": "volume", "source": "/var/lib/docker/volumes/x"},
    ]
    observation = look()
    observation["containers"] = [obs.container("web", mounts=mounts)]
    observation["engine"]["options"]["live-restore"] = obs.option(effective=True)
    found = row(planned(observation), "selinux-enabled")
    assert found["state"] == "blocked"
    assert found["affected"] == ["web (/srv/www)"]
    assert found["accept"] == "docker_selinux_accept_unlabelled_mounts"
    plan = planned(observation, {"accept_unlabelled_mounts": True})
    assert row(plan, "selinux-enabled")["state"] == "change"


def test_a_restart_that_would_end_containers_is_refused() -> None:
    observation = look()
    observation["containers"] = [obs.container("web")]
    found = row(planned(observation), "selinux-enabled")
    assert (found["state"], found["affected"]) == ("blocked", ["web"])
    assert "live-restore" in found["reason"]
    daemon = plans.empty()
    daemon["operations"] = [{"op": "json_set", "key": "live-restore", "value": True}]
    plan = planned(observation, {}, daemon)
    assert row(plan, "selinux-enabled")["state"] == "change"
    assert plan["daemon"]["live_restore_first"] is True


def test_a_restart_that_the_policy_forbids_is_not_planned() -> None:
    plan = docker_selinux_plan(look(), {}, {}, "never")
    found = row(plan, "selinux-enabled")
    assert (found["state"], plans.is_empty(plan)) == ("blocked", True)
    assert found["reason"].endswith("docker_daemon_restart is never")


def test_a_restart_that_ends_containers_may_be_accepted() -> None:
    observation = look()
    observation["containers"] = [obs.container("web")]
    plan = docker_selinux_plan(observation, {}, {}, "when_needed", True)
    assert row(plan, "selinux-enabled")["state"] == "change"
    assert plan["daemon"]["allow_container_restart"] is True


def test_a_variable_of_the_daemons_that_is_wrong_is_refused() -> None:
    with pytest.raises(AnsibleFilterError, match="docker_daemon_restart is 'Never'"):
        docker_selinux_plan(look(), {}, {}, "Never")


def test_what_docker_daemon_sets_is_left_to_it() -> None:
    daemon = plans.empty()
    daemon["operations"] = [{"op": "json_set", "key": "selinux-enabled", "value": True}]
    plan = planned(look(), {}, daemon)
    assert row(plan, "selinux-enabled")["state"] == "unmanaged"
    assert plans.is_empty(plan)


def test_what_others_changed_is_not_taken_up_with_it() -> None:
    observation = look()
    observation["engine"]["config_loaded"] = False
    assert "somebody changed" in row(planned(observation), "selinux-enabled")["reason"]


def test_containers_of_before_wait_for_their_label() -> None:
    observation = look(True)
    observation["containers"] = [
        obs.container("old", process_label=""),
        obs.container("new", process_label=LABEL % "container_t"),
        obs.container("open", process_label="", label_disabled=True),
    ]
    found = row(planned(observation), "selinux-enabled")
    assert (found["state"], found["affected"]) == ("pending", ["old"])


def test_somebodys_false_is_left() -> None:
    observation = look()
    in_file(observation, False)
    assert row(planned(observation), "selinux-enabled")["state"] == "blocked"


def test_a_flag_is_told() -> None:
    observation = look()
    flag = obs.option(True, True, source="flag", where="/etc/sysconfig/docker")
    observation["engine"]["options"]["selinux-enabled"] = flag
    assert row(planned(observation), "selinux-enabled")["state"] == "ok"


def test_off_puts_back_what_is_ours_alone() -> None:
    off = {"enabled": False}
    assert row(planned(look(True), off), "selinux-enabled")["state"] == "unmanaged"
    item = {"kind": "json_key", "path": "/etc/docker/daemon.json", "key": "selinux-enabled"}
    plan = planned(owning(look(True), **item), off)
    assert kinds(plan) == ["json_remove"]
    assert kinds(planned(owning(look(True), **{**item, "intact": False}), off)) == ["disown"]


# -- hosts that cannot ---------------------------------------------------------------------------
def test_without_selinux_the_host_is_left_alone() -> None:
    observation = json.loads((RECORDED / "trixie-stock-empty.json").read_text())
    plan = planned(observation, {"booleans": {"container_use_nfs": True}})
    (found,) = plan["settings"]
    assert found["state"] == "not_applicable"
    assert "without SELinux (active: lockdown," in found["reason"]
    assert plans.is_empty(plan)


def test_debian_12_names_types_that_it_does_not_define() -> None:
    plan = planned(look(types_known=False, modules={"base": 100}))
    (found,) = plan["settings"]
    assert found["state"] == "blocked"
    assert "names container_t, which the loaded policy does not define" in found["reason"]
    assert "Debian 13" in found["reason"]
    assert plans.is_empty(plan)


def test_red_hats_package_is_named() -> None:
    observation = look(contexts=None, types_known=False, policy="targeted", modules={})
    observation["os"]["id"] = "almalinux"
    assert "install container-selinux" in planned(observation)["settings"][0]["reason"]


# -- the data root -------------------------------------------------------------------------------
def remap(start: int = 231072) -> Json:
    """Return what docker_daemon plans for user namespaces."""
    daemon = plans.empty()
    ids = {"start": start, "count": 65536}
    daemon["operations"] = [
        {"op": "subid_present", "user": "bulkhead-userns", "subuid": ids, "subgid": ids},
        {"op": "json_set", "key": "userns-remap", "value": "bulkhead-userns"},
    ]
    return daemon


def test_a_remapped_folder_is_labelled_like_the_usual_one() -> None:
    plan = planned(look(True), {}, remap())
    (operation,) = plan["operations"]
    assert operation["op"] == "selinux_equivalence"
    assert operation["name"] == "/var/lib/docker/231072.231072"
    assert operation["like"] == "/var/lib/docker"


def test_ids_that_were_there_before_name_the_folder_too() -> None:
    daemon, observation = remap(), look(True)
    daemon["operations"] = daemon["operations"][1:]
    for kind in ("subuid", "subgid"):
        entry = {"name": "bulkhead-userns", "start": 300000, "count": 65536}
        observation["subids"][kind] = [entry]
    (operation,) = planned(observation, {}, daemon)["operations"]
    assert operation["name"] == "/var/lib/docker/300000.300000"


def test_once_it_is_remapped_nothing_is_left_to_do() -> None:
    own = "/var/lib/docker/231072.231072"
    observation = look(True, equivalences={own: "/var/lib/docker"})
    observation["engine"]["info"].update(userns=True, docker_root_dir=own)
    item = {"kind": "selinux_equivalence", "name": own, "like": "/var/lib/docker"}
    plan = planned(owning(observation, **item))
    assert plans.is_empty(plan)
    assert row(plan, f"labels of {own}")["state"] == "ok"


def test_a_moved_root_is_labelled_before_the_daemon_needs_it() -> None:
    daemon = plans.empty()
    daemon["operations"] = [{"op": "json_set", "key": "data-root", "value": "/srv/docker"}]
    plan = planned(look(True), {}, daemon)
    assert kinds(plan) == ["selinux_equivalence", "selinux_relabel"]
    assert {op.get("name") or op["path"] for op in plan["operations"]} == {"/srv/docker"}
    assert planned(look(True), {"data_root": False}, daemon)["operations"] == []


def moved(kind: str) -> Json:
    like = {"/srv/docker": "/var/lib/docker"}
    labels = {"path": "/srv/docker", "type": kind, "entries": {}}
    observation = look(True, equivalences=like, labels=labels)
    observation["engine"]["info"]["docker_root_dir"] = "/srv/docker"
    return observation


def test_a_moved_root_is_not_relabelled_under_running_containers() -> None:
    observation = moved("var_t")
    observation["containers"] = [{**obs.container("old"), "state": "exited"}]
    assert kinds(planned(observation)) == ["selinux_relabel"]
    observation["containers"] += [obs.container("web", process_label=LABEL % "container_t")]
    found = row(planned(observation), "labels below /srv/docker")
    assert (found["state"], found["affected"]) == ("pending", ["web"])
    assert "stop these containers, then run this again" in found["reason"]
    assert plans.is_empty(planned(moved("container_var_lib_t")))


def test_a_line_that_is_not_needed_any_more_goes() -> None:
    item = {"kind": "selinux_equivalence", "name": "/srv/old", "like": "/var/lib/docker"}
    observation = owning(look(True, equivalences={"/srv/old": "/var/lib/docker"}), **item)
    assert kinds(planned(observation)) == ["selinux_equivalence_absent"]
    observation["engine"]["state"] = "stopped"
    assert "selinux_equivalence_absent" not in kinds(planned(observation))


def test_somebodys_line_is_left() -> None:
    observation = moved("container_var_lib_t")
    observation["lsm"]["selinux"]["equivalences"] = {"/srv/docker": "/var/lib/other"}
    assert row(planned(observation), "labels of /srv/docker")["state"] == "blocked"


# -- booleans ------------------------------------------------------------------------------------
def test_booleans_are_set_for_good() -> None:
    policy = {"booleans": {"container_use_nfs": True}}
    (operation,) = planned(look(True), policy)["operations"]
    assert (operation["op"], operation["value"]) == ("selinux_boolean", True)
    for_now = look(True, booleans={"container_use_nfs": True})
    found = row(planned(for_now, policy), "SELinux boolean container_use_nfs")
    assert found["reason"] == "so only until the next boot"
    item = {"kind": "selinux_boolean", "name": "container_use_nfs", "value": True}
    kept = look(
        True, booleans={"container_use_nfs": True}, kept_booleans={"container_use_nfs": True}
    )
    assert plans.is_empty(planned(owning(kept, **item), policy))
    assert kinds(planned(kept)) == ["selinux_boolean_back"]


def test_a_boolean_of_another_family_is_named() -> None:
    policy = {"booleans": {"container_use_nfsd": True}}
    found = row(planned(look(True), policy), "SELinux boolean container_use_nfsd")
    assert found["state"] == "blocked"
    assert "near it: container_use_nfs" in found["reason"]


# -- modules -------------------------------------------------------------------------------------
SPEC: Json = {"network": True, "read": ["etc_t"], "write": ["public_content_rw_t"],
              "connect": ["http_port_t"], "bind": ["http_port_t"]}  # fmt: skip


@pytest.mark.parametrize(
    ("policy", "modules"),
    [("default", {"container": 100, "docker": 100}), ("targeted", {"container": 200})],
)
def test_a_description_becomes_cil_for_the_family(policy: str, modules: Json) -> None:
    observation = look(True, policy=policy, modules=modules)
    (operation,) = planned(observation, {"modules": {"shop": SPEC}})["operations"]
    text = operation["content"]
    assert text.count("(") == text.count(")")
    assert "(block shop\n    (type process)\n" in text
    assert "(typeattributeset container_net_domain (process))" in text
    assert "(allow process http_port_t (tcp_socket (name_connect)))" in text
    assert ("container_system_domain" in text) is (policy == "default")


def test_a_module_is_installed_once_and_removed_when_gone() -> None:
    policy = {"modules": {"shop": {"cil": "(type shop_t)"}}}
    observation = look(True, modules={"container": 100, "docker": 100, "shop": 400})
    assert row(planned(observation, policy), "SELinux module shop")["state"] == "blocked"
    item = {"kind": "selinux_module", "name": "shop", "sha256": selinux.digest(b"(type shop_t)\n")}
    assert plans.is_empty(planned(owning(observation, **item), policy))
    assert kinds(planned(observation, {"modules": {"shop": {"cil": "(type x_t)"}}})) == [
        "selinux_module"
    ]
    assert kinds(planned(observation)) == ["selinux_module_absent"]
    observation["containers"] = [
        obs.container(
            "web", security_opt=["label=type:shop.process"], process_label="x:y:shop.process:s0"
        )
    ]
    found = row(planned(observation), "SELinux module shop")
    assert (found["state"], found["affected"]) == ("blocked", ["web"])
    plan = uninstall_plan(observation)
    assert plan["operations"] == []
    assert "SELinux module" in plan["settings"][-1]["reason"]


def test_a_module_comes_from_a_file() -> None:
    policy = {"modules": {"shop": {"file": "shop.cil"}}, "texts": {"shop.cil": "(type shop_t)\n"}}
    (operation,) = planned(look(True), policy)["operations"]
    assert operation["content"] == "(type shop_t)\n"


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ({"enabled": "si"}, "docker_selinux_enabled is 'si'"),
        ({"booleans": ["x"]}, "give a mapping"),
        ({"booleans": {"a b": True}}, "the name of a boolean"),
        ({"booleans": {"container_use_nfs": 2}}, "give true or false"),
        ({"modules": {"Shop": {}}}, "a name has lower-case letters"),
        ({"modules": {"shop": {"reads": []}}}, r"docker_selinux_modules\[shop\].reads"),
        ({"modules": {"shop": {"read": "etc_t"}}}, "give a list"),
        ({"modules": {"shop": {"read": ["/etc"]}}}, "the name of a type"),
        ({"modules": {"shop": {"connect": ["http_port_t"]}}}, "need network: true"),
        ({"modules": {"shop": {"cil": "(type x_t))"}}}, "parentheses do not match"),
        ({"modules": {"shop": {"cil": "(a)", "read": []}}}, "stands alone"),
        ({"modules": {"shop": {"file": "gone.cil"}}}, "a file on the controller"),
    ],
)
def test_wrong_input_names_variable_and_fix(raw: Json, message: str) -> None:
    with pytest.raises(AnsibleFilterError, match=message):
        docker_selinux_plan(look(), raw)


# -- permissive or enforcing ---------------------------------------------------------------------
def test_enforcing_only_when_asked_and_after_the_denials() -> None:
    denial = {
        "source": "container_t",
        "target": "var_t",
        "class": "dir",
        "permissions": "read",
        "count": 3,
    }
    observation = look(True, enforcing=False, configured="permissive", denials=[denial])
    found = row(planned(observation), "SELinux mode")
    assert found["state"] == "held_back"
    assert "container_t read var_t dir: 3" in found["reason"]
    plan = planned(observation, {"enforcing": True})
    assert kinds(plan) == ["selinux_enforcing"]
    assert "container_t read var_t dir: 3" in row(plan, "SELinux mode")["reason"]


def test_never_off() -> None:
    assert plans.is_empty(planned(look(True), {"enforcing": False}))
    observation = look(True, configured="permissive")
    assert row(planned(observation), "SELinux mode")["state"] == "pending"
    assert kinds(planned(observation, {"enforcing": True})) == ["selinux_enforcing"]


@pytest.mark.parametrize(
    "item",
    [
        {"kind": "selinux_module", "name": "shop", "sha256": "0"},
        {"kind": "selinux_boolean", "name": "container_use_nfs", "value": True},
        {"kind": "selinux_equivalence", "name": "/srv/docker", "like": "/var/lib/docker"},
    ],
)
def test_what_somebody_changed_is_theirs(item: Json) -> None:
    plan = planned(owning(look(True), **{**item, "intact": False}))
    (operation,) = plan["operations"]
    assert (operation["op"], operation["kind"]) == ("disown", item["kind"])


# -- as it was recorded --------------------------------------------------------------------------
def test_a_recorded_host_shows_what_was_set() -> None:
    """Debian 13, enforcing, after a run with this policy and after attacks."""
    observation = json.loads((RECORDED / "selinux-hardened.json").read_text())
    spec = {"network": True, "read": ["etc_t"], "connect": ["http_port_t"]}
    policy = {"booleans": {"container_use_nfs": True}, "modules": {"lab_web": spec}}
    plan = planned(observation, policy)
    assert plans.is_empty(plan)
    states = {r["setting"]: r["state"] for r in plan["settings"]}
    assert states == {
        "selinux-enabled": "ok",
        "labels of /var/lib/docker/231072.231072": "ok",
        "SELinux boolean container_use_nfs": "ok",
        "SELinux module lab_web": "ok",
        "SELinux mode": "pending",
    }
    given_back = kinds(planned(observation))
    assert given_back == ["selinux_boolean_back", "selinux_module_absent"]


def test_nothing_of_the_transaction_was_denied() -> None:
    """What was is the attacks': all of it comes from containers."""
    observation = json.loads((RECORDED / "selinux-hardened.json").read_text())
    denials = observation["lsm"]["selinux"]["denials"]
    assert {row["source"] for row in denials} == {"container_t"}
