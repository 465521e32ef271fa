"""Tests of the planner of docker_daemon: what it plans, refuses, holds back and leaves alone."""

from __future__ import annotations

import copy
import typing

import pytest

from ansible_collections.bulkhead.hardening.plugins.module_utils.flags_dropin import FLAGS_DROPIN
from ansible_collections.bulkhead.hardening.plugins.module_utils.ledger import (
    value_digest,
    verifier,
)
from ansible_collections.bulkhead.hardening.plugins.module_utils.look_common import NO_SYSTEMD
from ansible_collections.bulkhead.hardening.plugins.module_utils.transaction_plan import SLICE
from ansible_collections.bulkhead.hardening.plugins.plugin_utils import (
    daemon_plan,
    daemon_policy,
    plan as plans,
)
from ansible_collections.bulkhead.hardening.plugins.plugin_utils.plan import PolicyError
from tests.unit import observations as obs

SOCKET_DROPIN = daemon_plan.SOCKET_DROPIN
CONFIG = "/etc/docker/daemon.json"
Json = dict[str, typing.Any]


def planned(look: Json, **policy: typing.Any) -> Json:
    return daemon_plan.plan(look, daemon_policy.read(policy))


def rows(plan: Json) -> dict[str, Json]:
    return {row["setting"]: row for row in plan["settings"]}


def sets(plan: Json) -> Json:
    found: Json = {}
    for op in plan["operations"]:
        if op["op"] == "json_set":
            found[op["key"] + ("." + op["member"] if "member" in op else "")] = op["value"]
    return found


def kinds(plan: Json) -> list[str]:
    return [op["op"] for op in plan["operations"]]


# -- profiles ------------------------------------------------------------------------------------
def test_an_empty_stock_host_becomes_strict() -> None:
    plan = planned(obs.stock())
    assert plan["profile"] == "strict"
    assert sets(plan) == {
        "live-restore": True,
        "icc": False,
        "no-new-privileges": True,
        "userland-proxy": False,
        "log-opts.max-size": "10m",
        "log-opts.max-file": "5",
        "default-ulimits.nofile": {"Name": "nofile", "Hard": 65536, "Soft": 16384},
        "userns-remap": "bulkhead-remap",
    }
    assert kinds(plan)[-1] == "file_present"
    assert {"group_present", "user_present", "subid_present"} <= set(kinds(plan))
    assert plan["daemon"] == {
        "effect": "restart",
        "why": sorted(
            ["live-restore", "icc", "no-new-privileges", "userland-proxy", "log-opts",
             "default-ulimits", "userns-remap"]
        ),
        "live_restore_first": False,
        "allow_container_restart": False,
    }  # fmt: skip


def test_a_used_stock_host_becomes_compatible_and_names_what_strict_would_affect() -> None:
    look = obs.stock(
        containers=[obs.container("web", ports=[{}]), obs.container("job", network_mode="host")],
        images=[{"id": "sha256:1", "tags": ["shop:1"], "bulkhead": False}],
    )
    plan = planned(look)
    assert plan["profile"] == "compatible"
    assert set(sets(plan)) == {
        "live-restore", "log-opts.max-size", "log-opts.max-file", "default-ulimits.nofile"
    }  # fmt: skip
    held = {
        name: row["affected"] for name, row in rows(plan).items() if row["state"] == "held_back"
    }
    assert held == {
        "icc": ["web"],
        "no-new-privileges": ["job", "web"],
        "userland-proxy": ["web"],
        "userns-remap": ["job", "web"],
    }
    assert plan["daemon"]["effect"] == "restart"
    assert plan["daemon"]["live_restore_first"] is True


@pytest.mark.parametrize("loaded", [True, False])
def test_strict_on_a_used_host_names_whom_it_affects(loaded: bool) -> None:
    own = [{"name": "nofile", "soft": 5, "hard": 6, "default": False}]
    look = obs.stock(
        containers=[
            obs.container("web", ports=[{"host_ip": "::"}]),
            obs.container("db", ulimits=[{**own[0], "default": True}]),
            obs.container("job", network_mode="host", ulimits=own),
            {**obs.container("old"), "state": "exited"},
        ]
    )
    look["engine"]["options"]["live-restore"] = obs.option(effective=True)
    if not loaded:
        wanted = {"icc": False, "userland-proxy": False, "no-new-privileges": True}
        look = obs.with_file(look, wanted, loaded=False)
    found = rows(planned(look, profile="strict"))
    assert {
        name: found[name]["affected"] for name in found if found[name]["state"] == "change"
    } == {
        "icc": ["db", "web"],
        "userland-proxy": ["web"],
        "no-new-privileges": ["db", "job", "old", "web"],
        "default-ulimits": ["db", "old", "web"],
        "log-opts": [],
        "pids limit of a container": [],
    }
    assert "reach each other" in found["icc"]["reason"]
    assert "hairpin" in found["userland-proxy"]["reason"]
    assert "setuid" in found["no-new-privileges"]["reason"]


def test_what_takes_nothing_from_containers_names_none() -> None:
    look = obs.with_file(obs.stock(containers=[obs.container()]), {"icc": False})
    look["engine"]["options"]["live-restore"] = obs.option(effective=True)
    row = rows(planned(look, icc=True, live_restore=True))["icc"]
    assert (row["state"], row["affected"], row["reason"]) == ("change", [], None)


def test_once_strict_a_host_stays_strict() -> None:
    look = obs.stock(containers=[obs.container()], bulkhead={"state": "ok", "profile": "strict"})
    assert planned(look)["profile"] == "strict"
    assert planned(look, profile="compatible")["profile"] == "compatible"


def test_containers_of_bulkhead_do_not_make_a_host_used() -> None:
    ours = obs.container("bulkhead-health-1")
    ours["labels"] = {"bulkhead.role": "health"}
    assert planned(obs.stock(containers=[ours]))["profile"] == "strict"


def test_a_stopped_engine_is_planned_for_compatibly_and_not_started() -> None:
    look = obs.stock(containers=None, images=None, volumes=None)
    look["engine"].update(state="stopped", info=None, config_loaded=None, options={})
    plan = planned(look)
    assert plan["profile"] == "compatible"
    assert plan["daemon"]["effect"] == "none"
    assert sets(plan)["live-restore"] is True


def test_before_docker_is_installed_everything_is_planned_for_its_first_start() -> None:
    look = obs.stock(containers=None, images=None, volumes=None)
    look["engine"].update(state="absent", version=None, info=None, config_loaded=None, options={})
    plan = planned(look)
    assert plan["profile"] == "strict"
    assert "userns-remap" in sets(plan)
    assert plan["daemon"]["effect"] == "none"
    with pytest.raises(PolicyError, match="firewall-backend"):
        planned(look, options={"firewall-backend": "iptables"}, expect_engine="28.5.2")


def owning_runtime(arguments: list[str], **engine: typing.Any) -> Json:
    """Return a host on which Bulkhead wrote a runtime, whose arguments do not leave the host."""
    value = {"path": "/usr/bin/runsc", "runtimeArgs": arguments}
    look = obs.with_file(obs.stock(), {"runtimes": {"gvisor": {"path": "/usr/bin/runsc"}}})
    look["daemon_config"]["keys"]["runtimes"]["members"]["gvisor"]["redacted"] = True
    look["bulkhead"]["owned"]["docker_daemon"] = [
        {"kind": "json_key", "path": CONFIG, "key": "runtimes", "member": "gvisor", "intact": True,
         "version": "1", "verifier": verifier("runtimes", "gvisor", value_digest(value))}
    ]  # fmt: skip
    look["engine"].update(engine)
    return look


def wanting_runtime(look: Json, path: str, *arguments: str) -> Json:
    value = {"gvisor": {"path": path, "runtimeArgs": list(arguments)}}
    return planned(look, options={"runtimes": value})


@pytest.mark.parametrize(
    ("path", "argument", "state"),
    [
        ("/usr/bin/runsc", "--platform=kvm", "ok"),
        ("/usr/bin/runsc", "--platform=systrap", "change"),
        ("/opt/runsc", "--platform=kvm", "change"),
    ],
)
def test_a_value_of_ours_that_is_not_shown_follows_the_policy(
    path: str, argument: str, state: str
) -> None:
    plan = wanting_runtime(owning_runtime(["--platform=kvm"]), path, argument)
    assert rows(plan)["runtimes"]["state"] == state
    assert ("runtimes.gvisor" in sets(plan)) == (state == "change")


def test_a_value_that_is_not_shown_and_not_read_yet_is_taken_up() -> None:
    look = owning_runtime(["--debug"], config_loaded=False)
    assert "runtimes" in wanting_runtime(look, "/usr/bin/runsc", "--debug")["daemon"]["why"]


def test_a_value_that_is_not_shown_and_not_ours_is_left() -> None:
    look = owning_runtime(["--debug"])
    look["bulkhead"]["owned"]["docker_daemon"][0]["intact"] = False
    plan = wanting_runtime(look, "/opt/runsc", "--debug")
    assert rows(plan)["runtimes"]["state"] == "held_back"
    assert "runtimes.gvisor" not in sets(plan)


@pytest.mark.parametrize(("wanted", "state"), [(["10.0.0.1"], "ok"), (["10.0.0.2"], "change")])
def test_a_whole_key_of_ours_that_is_not_shown_follows_the_policy(
    wanted: list[str], state: str
) -> None:
    look = obs.with_file(obs.stock(), {"dns": ["10.0.0.1"]})
    look["daemon_config"]["keys"]["dns"] = {"type": "list", "redacted": True}
    look["bulkhead"]["owned"]["docker_daemon"] = [
        {"kind": "json_key", "path": CONFIG, "key": "dns", "intact": True, "version": "1",
         "verifier": verifier("dns", None, value_digest(["10.0.0.1"]))}
    ]  # fmt: skip
    assert rows(planned(look, options={"dns": wanted}))["dns"]["state"] == state


@pytest.mark.parametrize(
    ("hard", "refused"), [(1048576, False), (1048577, True), (2000000000, True), (-1, True)]
)
@pytest.mark.parametrize("state", ["running", "stopped"])
def test_more_open_files_than_the_kernel_grants_are_refused(
    state: str, hard: int, refused: bool
) -> None:
    look = obs.stock(sysctls={"fs.nr_open": "1048576"})
    look["engine"]["state"] = state
    policy = {"ulimits": {"nofile": {"soft": 65536, "hard": hard}}}
    if not refused:
        assert "default-ulimits.nofile" in sets(planned(look, **policy))
        return
    with pytest.raises(PolicyError, match=r"docker_daemon_ulimits\[nofile\].*up to 1048576"):
        planned(look, **policy)


def test_a_kernel_that_grants_less_than_the_profile_blocks_that_alone() -> None:
    plan = planned(obs.stock(sysctls={"fs.nr_open": "50000"}), profile="compatible")
    row = rows(plan)["default-ulimits"]
    assert (row["state"], "50000" in row["reason"]) == ("blocked", True)
    assert "default-ulimits.nofile" not in sets(plan)
    assert "live-restore" in sets(plan)


@pytest.mark.parametrize("said", ["x", "", "9" * 40, "1\n2"])
def test_a_host_that_says_nonsense_of_its_limit_is_not_believed(said: str) -> None:
    look = obs.stock(sysctls={"fs.nr_open": said})
    assert "default-ulimits.nofile" in sets(planned(look))


# -- idempotence ---------------------------------------------------------------------------------
@pytest.mark.parametrize("containers", [[], [obs.container()]])
def test_a_plan_applied_plans_to_nothing(containers: list[Json]) -> None:
    look = obs.stock(containers=containers)
    plan = planned(look)
    again = planned(obs.apply(look, plan), profile=plan["profile"])
    assert plans.is_empty(again), again["operations"]


def test_what_the_policy_no_longer_sets_is_removed_and_only_that() -> None:
    look = obs.with_file(obs.stock(containers=[obs.container()]), {"dns": ["10.0.0.1"]})
    first = obs.apply(look, planned(look, options={"log-level": "warn"}))
    plan = planned(first)
    removed = [(op["op"], op["key"]) for op in plan["operations"]]
    assert removed == [("json_remove", "log-level")]


def test_modes_are_put_back_when_they_are_no_longer_managed() -> None:
    look = obs.stock()
    socket = "/run/docker.sock"
    look["bulkhead"]["owned"] = {
        "docker_daemon": [
            {"kind": "mode", "path": socket, "version": "7", "intact": True},
            {"kind": "mode", "path": "/etc/docker", "version": "8", "intact": False},
            {"kind": "file", "path": SOCKET_DROPIN, "version": "9", "intact": True},
        ]
    }
    assert "mode_restore" not in kinds(planned(look))
    plan = planned(look, file_modes="unmanaged")
    found = {
        (op["op"], op["path"], op.get("observed")) for op in plan["operations"] if "path" in op
    }
    assert ("mode_restore", socket, "7") in found
    assert ("disown", "/etc/docker", None) in found
    assert ("file_absent", SOCKET_DROPIN, "9") in found
    assert rows(plan)[socket]["state"] == "change"


def test_a_key_that_somebody_changed_since_is_disowned_not_removed() -> None:
    look = obs.with_file(obs.stock(containers=[obs.container()]), {"log-level": "debug"})
    look["bulkhead"] = {
        "state": "ok", "reason": None, "profile": "compatible",
        "owned": {"docker_daemon": [
            {"kind": "json_key", "path": "/etc/docker/daemon.json", "key": "log-level", "intact": False}
        ]},
    }  # fmt: skip
    assert "disown" in kinds(planned(look))
    assert "json_remove" not in kinds(planned(look))


# -- foreign values ------------------------------------------------------------------------------
def test_compatible_leaves_what_somebody_else_set_and_says_so() -> None:
    look = obs.with_file(
        obs.stock(containers=[obs.container()]),
        {"live-restore": False, "log-opts": {"max-size": "1g", "max-file": "9"}},
    )
    plan = planned(look)
    assert "live-restore" not in sets(plan)
    assert "log-opts.max-size" not in sets(plan)
    assert rows(plan)["live-restore"]["state"] == "held_back"
    assert "max-size" in rows(plan)["log-opts"]["reason"]
    assert sets(planned(look, live_restore=True))["live-restore"] is True


def test_a_flag_is_named_and_no_key_is_written_beside_it() -> None:
    look = obs.stock(containers=[obs.container()])
    look["engine"]["options"]["live-restore"] = obs.option(
        False, False, source="environment", where="/etc/default/docker"
    )
    plan = planned(look)
    assert "live-restore" not in sets(plan)
    assert rows(plan)["live-restore"]["state"] == "blocked"
    assert "/etc/default/docker" in rows(plan)["live-restore"]["reason"]


def test_log_rotation_only_where_the_driver_writes_files() -> None:
    look = obs.stock()
    look["engine"]["options"]["log-driver"]["effective"] = "journald"
    assert rows(planned(look))["log-opts"]["state"] == "not_applicable"


# -- restarts ------------------------------------------------------------------------------------
def test_reload_is_enough_when_every_changed_key_is_reloadable() -> None:
    look = obs.stock(containers=[obs.container()])
    plan = planned(look, profile="compatible", log_opts="unmanaged", ulimits="unmanaged")
    assert plan["daemon"]["effect"] == "reload"
    assert plan["daemon"]["why"] == ["live-restore"]


def test_swarm_cannot_live_restore_so_a_restart_with_containers_is_blocked_by_name() -> None:
    look = obs.stock(containers=[obs.container("task1")])
    look["engine"]["swarm_node"] = True
    plan = planned(look)
    assert rows(plan)["live-restore"]["state"] == "not_applicable"
    blocked = rows(plan)["default-ulimits"]
    assert blocked["state"] == "blocked"
    assert blocked["affected"] == ["task1"]
    assert blocked["accept"] == "docker_daemon_restart_stops_containers"
    assert sets(plan) == {}
    assert plan["daemon"]["effect"] == "none"
    accepted = planned(look, restart_stops_containers=True)
    assert accepted["daemon"]["effect"] == "restart"
    assert accepted["daemon"]["allow_container_restart"] is True


def test_restart_never_writes_the_file_and_reports_what_waits() -> None:
    look = obs.stock(containers=[obs.container()])
    plan = planned(look, restart="never")
    assert plan["daemon"]["effect"] == "reload"
    assert rows(plan)["default-ulimits"]["state"] == "pending"
    after = obs.apply(look, plan)
    after["engine"]["config_loaded"] = False
    assert plans.is_empty(planned(after, restart="never"))


HIDING: Json = {
    "data-root": "/srv/docker",
    "features": {"containerd-snapshotter": True, "cdi": True},
}


def test_restart_never_writes_nothing_that_a_later_start_would_hide_data_by() -> None:
    plan = planned(obs.stock(), restart="never", options=HIDING)
    assert not {"userns-remap", "data-root", "features.containerd-snapshotter"} & set(sets(plan))
    assert {"icc", "features.cdi"} <= set(sets(plan))
    assert not {"group_present", "user_present", "subid_present"} & set(kinds(plan))
    for name in ("userns-remap", "data-root", "features"):
        row = rows(plan)[name]
        assert row["state"] == "pending"
        assert "docker_daemon_restart is never; it is not written before" in row["reason"]
    assert "not written" not in rows(plan)["icc"]["reason"]
    # Nor does it take one out, which hides as much.
    look = obs.apply(obs.stock(), planned(obs.stock(), options=HIDING))
    look["engine"]["info"]["containerd_image_store"] = True
    again = planned(look, restart="never", userns_remap=False, options={"features": {"cdi": True}})
    assert "not written before" in rows(again)["features.containerd-snapshotter"]["reason"]
    assert not [op for op in operations(again, "json_remove") if op["key"] in ("userns-remap", *HIDING)
                and op.get("member") != "cdi"]  # fmt: skip


def test_a_file_changed_after_the_daemon_started_leads_to_a_restart() -> None:
    look = obs.with_file(obs.stock(), {"icc": False}, loaded=False)
    look["engine"]["options"]["icc"]["effective"] = True
    plan = planned(look, profile="strict", userns_remap="unmanaged")
    assert "icc" in plan["daemon"]["why"]
    assert "icc" not in sets(plan)


def test_docker0_that_keeps_its_old_state_is_pending_not_a_restart_for_ever() -> None:
    look = obs.with_file(obs.stock(containers=[obs.container()]), {"icc": False})
    look["engine"]["options"]["icc"]["effective"] = True
    plan = planned(look, profile="compatible", icc=False)
    assert rows(plan)["icc"]["state"] == "pending"
    assert "icc" not in plan["daemon"]["why"]


# -- user namespaces -----------------------------------------------------------------------------
def test_userns_names_what_would_be_hidden_and_the_accepting_variable() -> None:
    look = obs.stock(
        images=[{"id": "sha256:1", "tags": ["shop:1"], "bulkhead": False},
                {"id": "sha256:2", "tags": [], "bulkhead": True}],
        volumes=[{"name": "data"}],
    )  # fmt: skip
    row = rows(planned(look))["userns-remap"]
    assert row["state"] == "blocked"
    assert row["affected"] == ["image shop:1", "volume data"]
    assert row["accept"] == "docker_daemon_userns_accept_hidden_data"
    accepted = planned(look, userns_accept_hidden_data=True)
    assert sets(accepted)["userns-remap"] == "bulkhead-remap"


def test_a_swarm_and_networks_would_be_hidden_too() -> None:
    networks = [
        {"name": "shop", "scope": "local"},
        {"name": "docker_gwbridge", "scope": "local"},
        {"name": "ingress", "scope": "swarm"},
    ]
    look = obs.stock(networks=[*obs.stock()["networks"], *networks])
    look["engine"]["swarm_node"] = True
    row = rows(planned(look))["userns-remap"]
    assert row["affected"] == ["network shop", "membership of its swarm"]
    assert (row["state"], row["accept"]) == ("blocked", "docker_daemon_userns_accept_hidden_data")
    with pytest.raises(PolicyError, match="networks"):
        planned(obs.stock(networks=None))


def test_a_stopped_node_of_a_swarm_gets_no_live_restore() -> None:
    """With it dockerd would not start again."""
    look = obs.stock(containers=None, images=None, volumes=None, networks=None)
    look["engine"].update(state="stopped", info=None, config_loaded=None, options={})
    assert sets(planned(look))["live-restore"] is True
    look["engine"]["swarm_node"] = True
    plan = planned(look)
    assert rows(plan)["live-restore"]["state"] == "not_applicable"
    assert "live-restore" not in sets(plan)


@pytest.mark.parametrize("key", ["data-root", "storage-driver", "containerd-namespace"])
def test_an_option_that_hides_data_is_refused_unless_that_is_accepted(key: str) -> None:
    look = obs.stock(volumes=[{"name": "data"}])
    look["engine"]["options"][key] = obs.option(effective="as it is")
    row = rows(planned(look, options={key: "other"}))[key]
    assert (row["state"], row["affected"]) == ("blocked", ["volume data"])
    assert row["accept"] == "docker_daemon_options_accept_hidden_data"
    accepted = planned(look, options={key: "other"}, options_accept_hidden_data=True)
    # Nothing is left that remapping could hide.
    assert {key, "userns-remap"} <= sets(accepted).keys()
    assert key not in sets(planned(look, options={key: "as it is"}))


def in_store(store: bool, **more: typing.Any) -> Json:
    """Return a host whose images are in containerd's store (True) or a graph driver's."""
    look = obs.engine_29(**more) if store else obs.stock(**more)
    look["engine"]["options"]["live-restore"] = obs.option(effective=True)
    return look


@pytest.mark.parametrize("store", [False, True])
def test_another_image_store_hides_what_the_daemon_holds(store: bool) -> None:
    features: Json = {"features": {"containerd-snapshotter": not store, "cdi": True}}
    plan = planned(in_store(store, containers=[obs.container()]), options=features)
    row = rows(plan)["features"]
    assert (row["state"], row["affected"], row["accept"]) == ("blocked", ["web"], None)
    assert not {"features.containerd-snapshotter", "features.cdi"} & set(sets(plan))
    look = in_store(store, volumes=[{"name": "data"}])
    row = rows(planned(look, options=features))["features"]
    assert (row["state"], row["affected"]) == ("blocked", ["volume data"])
    assert row["accept"] == "docker_daemon_options_accept_hidden_data"
    assert "features.containerd-snapshotter" in row["reason"]
    accepted = planned(look, options=features, options_accept_hidden_data=True)
    assert sets(accepted)["features.containerd-snapshotter"] is not store
    same = {"features": {"containerd-snapshotter": store}}
    assert rows(planned(look, options=same))["features"]["state"] == "change"


def test_an_image_store_that_leaves_the_policy_is_not_taken_from_its_containers() -> None:
    features = {"features": {"containerd-snapshotter": True, "cdi": True}}
    look = obs.apply(obs.stock(), planned(obs.stock(), options=features))
    look["engine"]["info"]["containerd_image_store"] = True
    look["containers"] = [obs.container()]
    found = rows(planned(look))
    assert found["features.containerd-snapshotter"]["state"] == "blocked"
    assert found["features.containerd-snapshotter"]["affected"] == ["web"]
    assert found["features.cdi"]["state"] == "change"


@pytest.mark.parametrize(
    ("key", "now", "wanted", "moves"),
    [
        ("data-root", "/var/lib/docker-data", "/var/lib/docker", True),
        ("data-root", "/var/lib/docker", "/var/lib/docker/", False),
        ("exec-root", "/run/docker", "/var/run/docker", False),
        ("storage-driver", "overlayfs", "overlay", True),
        ("storage-driver", "overlay2", "overlay2", False),
    ],
)
def test_a_value_moves_unless_it_comes_to_the_same(
    key: str, now: str, wanted: str, moves: bool
) -> None:
    look = obs.stock(containers=[obs.container()])
    look["engine"]["options"][key] = obs.option(effective=now)
    state = rows(planned(look, options={key: wanted}))[key]["state"]
    assert (state == "blocked") is moves
    theirs = obs.with_file(look, {key: wanted}, loaded=False)
    theirs["engine"]["options"]["live-restore"] = obs.option(effective=True)
    assert (planned(theirs)["daemon"]["effect"] != "restart") is moves


def test_a_data_root_behind_a_link_is_where_the_daemon_has_it() -> None:
    look = obs.with_file(obs.stock(containers=[obs.container()]), {"data-root": "/data/docker"})
    look["engine"]["options"]["data-root"]["effective"] = "/mnt/disk/docker"
    assert (
        rows(planned(look, options={"data-root": "/data/docker"}))["data-root"]["state"]
        != "blocked"
    )


def test_where_docker_keeps_its_data_never_changes_under_running_containers() -> None:
    look = obs.stock(containers=[obs.container()])
    options = {"data-root": "/srv/docker", "exec-root": "/run/other", "log-level": "info"}
    plan = planned(look, options=options, options_accept_hidden_data=True)
    found = rows(plan)
    assert {found[key]["state"] for key in ("data-root", "exec-root")} == {"blocked"}
    assert (found["data-root"]["affected"], found["data-root"]["accept"]) == (["web"], None)
    assert sets(plan)["log-level"] == "info"


def test_a_data_root_that_leaves_the_policy_is_not_taken_from_its_containers() -> None:
    moved = {"data-root": "/srv/docker"}
    look = obs.apply(obs.stock(), planned(obs.stock(), options=moved))
    look["containers"] = [obs.container()]
    row = rows(planned(look))["data-root"]
    assert (row["state"], row["affected"]) == ("blocked", ["web"])
    look["containers"] = []
    assert rows(planned(look))["data-root"]["state"] == "change"


def test_userns_is_never_switched_under_running_containers() -> None:
    look = obs.stock(containers=[obs.container()])
    row = rows(planned(look, userns_remap=True, userns_accept_hidden_data=True))["userns-remap"]
    assert row["state"] == "blocked"
    assert row["accept"] is None
    assert row["affected"] == ["web"]


def test_userns_once_on_stays_on() -> None:
    look = obs.with_file(
        obs.stock(containers=[obs.container()]), {"userns-remap": "bulkhead-remap"}
    )
    look["engine"]["options"]["userns-remap"]["effective"] = True
    look["bulkhead"] = {
        "state": "ok", "reason": None, "profile": "strict",
        "owned": {"docker_daemon": [
            {"kind": "json_key", "path": "/etc/docker/daemon.json", "key": "userns-remap", "intact": True}
        ]},
    }  # fmt: skip
    plan = planned(look, profile="compatible")
    assert "json_remove" not in kinds(plan)
    assert rows(plan)["userns-remap"]["state"] == "ok"


def with_ranges(look: Json, *counts: int, user: str = "svc") -> Json:
    """Return a look with a user that has ranges, the first from 300000 on."""
    look["users"]["users"].append({"name": user, "uid": 1500, "gid": 1500})
    for kind in ("subuid", "subgid"):
        look["subids"][kind] += [
            {"name": user, "start": 300000 + number * 100000, "count": count}
            for number, count in enumerate(counts)
        ]
    return look


@pytest.mark.parametrize(
    ("counts", "policy", "says"),
    [
        ((1000,), {}, "svc has 1000 ids in /etc/subuid"),
        ((65535,), {}, "65535"),
        ((65536,), {}, None),
        ((60000, 5536), {}, None),
        ((65536,), {"userns_start": 700000}, "docker_daemon_userns_start is 700000"),
        ((65536,), {"userns_start": 300000}, None),
        ((65536,), {"userns_size": 131072}, "docker_daemon_userns_size is 131072"),
        ((100000,), {"userns_size": 100000}, None),
    ],
)
def test_userns_with_ids_that_do_not_do_is_blocked(
    counts: tuple[int, ...], policy: Json, says: str | None
) -> None:
    plan = planned(with_ranges(obs.stock(), *counts), userns_user="svc", **policy)
    row = rows(plan)["userns-remap"]
    assert row["state"] == ("change" if says is None else "blocked")
    assert (says or "") in str(row["reason"])
    assert ("userns-remap" in sets(plan)) == (says is None)


@pytest.mark.parametrize(
    ("value", "policy", "blocked"),
    [
        ("svc", {}, {}),
        ("svc", {"userns_user": "svc", "userns_start": 300000}, {}),
        ("svc:svc", {"userns_user": "svc"}, {}),
        ("1500", {"userns_user": "svc"}, {}),
        ("svc", {"userns_user": "other", "userns_start": 9}, {"userns_user": ("other", "svc")}),
        ("default", {"userns_user": "svc"}, {"userns_user": ("svc", "dockremap")}),
        ("svc", {"userns_start": 700000}, {"userns_start": (700000, 300000)}),
        ("svc", {"userns_size": 131072}, {"userns_size": (131072, 65536)}),
    ],
)
@pytest.mark.parametrize("loaded", [True, False])
def test_userns_that_is_on_with_other_ids_names_the_variable(
    loaded: bool, value: str, policy: Json, blocked: dict[str, tuple[object, object]]
) -> None:
    look = with_ranges(obs.with_file(obs.stock(), {"userns-remap": value}, loaded), 65536)
    look["engine"]["options"]["userns-remap"]["effective"] = loaded
    plan = planned(look, profile="strict", **policy)
    found = {
        row["variable"].removeprefix("docker_daemon_"): (row["wanted"], row["effective"])
        for row in plan["settings"]
        if row["state"] == "blocked"
        and row["variable"].startswith(("docker_daemon_userns_user", "docker_daemon_userns_s"))
    }
    assert found == blocked
    assert not loaded or rows(plan)["userns-remap"]["state"] == "ok"


def test_userns_needs_a_kernel_that_gives_them() -> None:
    row = rows(planned(obs.stock(sysctls={"user.max_user_namespaces": "0"})))["userns-remap"]
    assert row["state"] == "blocked"
    assert "user.max_user_namespaces" in row["reason"]


def test_userns_and_an_explicit_containerd_snapshotter_exclude_each_other() -> None:
    look = obs.with_file(obs.stock(), {"features": {"containerd-snapshotter": True}})
    assert "containerd-snapshotter" in rows(planned(look))["userns-remap"]["reason"]


def test_the_range_overlaps_nobody() -> None:
    look = obs.stock(
        subids={
            "subuid": [{"name": "a", "start": 100000, "count": 200000}],
            "subgid": [{"name": "b", "start": 400000, "count": 65536}],
            "subuid_version": "v", "subgid_version": "w",
        }
    )  # fmt: skip
    op = next(o for o in planned(look)["operations"] if o["op"] == "subid_present")
    start, end = op["subuid"]["start"], op["subuid"]["start"] + 65535
    assert start >= 300000
    assert not (start <= 465535 and end >= 400000)
    assert op["subgid"] == op["subuid"]


@pytest.mark.parametrize(
    ("policy", "said"),
    [
        ({"userns_start": 100500}, "overlap alice"),
        ({"userns_user": "nobody-here"}, "no such user"),
    ],
)
def test_ranges_and_users_that_cannot_work_are_refused(policy: Json, said: str) -> None:
    look = obs.stock(
        subids={
            "subuid": [{"name": "alice", "start": 100000, "count": 65536}],
            "subgid": [], "subuid_version": "v", "subgid_version": "w",
        }
    )  # fmt: skip
    with pytest.raises(PolicyError, match=said):
        planned(look, **policy)


# -- PIDs limit ----------------------------------------------------------------------------------
def test_the_pids_default_never_raises_what_systemd_gives() -> None:
    plan = planned(obs.stock(), pids_limit=5000)
    assert "file_present" not in kinds(plan)
    assert rows(plan)["pids limit of a container"]["effective"] == 2338


def test_a_container_near_the_limit_blocks_it_by_name() -> None:
    busy = obs.container("busy")
    busy["kernel"]["pids_current"] = 600
    bounded = obs.container("bounded", pids_limit=900)
    bounded["kernel"]["pids_current"] = 800
    row = rows(planned(obs.stock(containers=[busy, bounded]), pids_limit=1000))[
        "pids limit of a container"
    ]
    assert row["state"] == "blocked"
    assert row["affected"] == ["busy"]


def test_the_cgroupfs_driver_has_no_scopes() -> None:
    look = obs.stock()
    look["engine"]["info"]["cgroup_driver"] = "cgroupfs"
    row = rows(planned(look))["pids limit of a container"]
    assert row["state"] == "not_applicable"
    assert "cgroupfs" in row["reason"]


def test_running_containers_above_the_limit_are_pending() -> None:
    look = obs.stock(
        containers=[obs.container()],
        scope_dropins=[{"path": daemon_plan.SCOPE_DROPIN, "tasks_max": 2048, "version": "v"}],
    )
    row = rows(planned(look))["pids limit of a container"]
    assert (row["state"], row["affected"]) == ("pending", ["web"])


# -- modes ---------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("kind", "mode", "wanted"),
    [
        ("unit", "0666", "0644"),
        ("unit", "0600", None),
        ("directory", "0777", "0755"),
        ("socket", "0666", "0660"),
        ("certificate", "0644", "0444"),
        ("key", "0640", "0400"),
        ("config", "4755", "0644"),
    ],
)
def test_modes_only_ever_lose_bits(kind: str, mode: str, wanted: str | None) -> None:
    look = obs.stock(files=[obs.file("/x", kind, mode, "3.2")])
    ops = [op for op in planned(look)["operations"] if op["op"] == "mode"]
    assert [op["mode"] for op in ops] == ([wanted] if wanted else [])


def test_a_wide_socket_unit_gets_a_drop_in() -> None:
    look = obs.stock(units={"docker.socket": {"load_state": "loaded", "socket_mode": "0666"}})
    op = next(o for o in planned(look)["operations"] if o.get("path") == daemon_plan.SOCKET_DROPIN)
    assert "SocketMode=0660" in op["content"]


# -- bad input -----------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("policy", "words"),
    [
        ({"profile": "paranoid"}, ["docker_daemon_profile", "paranoid", "strict"]),
        ({"icc": "maybe"}, ["docker_daemon_icc", "maybe", "true or false"]),
        ({"pids_limit": 3}, ["docker_daemon_pids_limit", "3", "16"]),
        ({"pids_limit": "many"}, ["docker_daemon_pids_limit", "many"]),
        ({"pids_limit": True}, ["docker_daemon_pids_limit", "True"]),
        (
            {"ulimits": {"nofile": {"soft": 9, "hard": 8}}},
            ["docker_daemon_ulimits[nofile]", "soft"],
        ),
        ({"ulimits": {"nofile": {"soft": -1, "hard": 8}}}, ["docker_daemon_ulimits[nofile]"]),
        ({"ulimits": {"nproc": {"soft": 1, "hard": 2}}}, ["nproc", "docker_daemon_pids_limit"]),
        (
            {"ulimits": {"files": {"soft": 1, "hard": 2}}},
            ["docker_daemon_ulimits[files]", "nofile"],
        ),
        ({"ulimits": {"nofile": 8}}, ["docker_daemon_ulimits[nofile]", "soft"]),
        ({"log_opts": {"splunk-token": "s3"}}, ["splunk-token", "credentials"]),
        ({"log_opts": ["max-size"]}, ["docker_daemon_log_opts"]),
        ({"seccomp_profile": "unconfined"}, ["docker_daemon_seccomp_profile", "unconfined"]),
        ({"seccomp_profile": "my.json"}, ["docker_daemon_seccomp_profile", "absolute path"]),
        ({"userns_user": "default"}, ["docker_daemon_userns_user", "default"]),
        (
            {"options": {"insecure-registries": [["a"]]}},
            ["[insecure-registries] is ['a']", "texts"],
        ),
        ({"options": {"hosts": [5]}}, ["docker_daemon_options[hosts] is 5", "list of texts"]),
        ({"options": {"dns": [None]}}, ["docker_daemon_options[dns]", "list of texts"]),
        (
            {"options": {"default-address-pools": ["x"]}},
            ["[default-address-pools] is 'x'", "mappings"],
        ),
        ({"take_over_flags": [["x"]]}, ["docker_daemon_take_over_flags is ['x']"]),
        (
            {"containers_tasks_max": 1},
            ["docker_daemon_containers_tasks_max", "16", "0 for no limit"],
        ),
        ({"containers_tasks_max": 15}, ["docker_daemon_containers_tasks_max", "16"]),
        ({"containers_tasks_max": "x"}, ["docker_daemon_containers_tasks_max", "16"]),
        ({"userns_size": 10}, ["docker_daemon_userns_size", "65536"]),
        ({"options": {"icc": False}}, ["docker_daemon_options[icc]", "docker_daemon_icc"]),
        ({"options": {"log-levl": "info"}}, ["log-levl", "log-level"]),
        ({"options": {"default-pids-limit": 5}}, ["docker_daemon_pids_limit"]),
        ({"options": {"debug": "yes"}}, ["docker_daemon_options[debug]", "boolean"]),
        ({"options": {"mtu": True}}, ["docker_daemon_options[mtu]", "integer"]),
        (
            {"options": {"insecure-registries": ["r:5000"]}},
            ["accept_insecure_registries", "r:5000"],
        ),
        (
            {
                "options": {"insecure-registries": ["10.0.0.0/8"]},
                "accept_insecure_registries": ["r"],
            },
            ["docker_daemon_options[insecure-registries]", "10.0.0.0/8"],
        ),
        ({"accept_insecure_registries": ["10.0.0.0/8"]}, ["accept_insecure_registries", "network"]),
        ({"accept_insecure_registries": "r:5000"}, ["accept_insecure_registries", "list"]),
        ({"options": {"registry-mirrors": ["http://m"]}}, ["[registry-mirrors]", "https"]),
        ({"options": {"registry-mirrors": ["https://u:p@m"]}}, ["[registry-mirrors]", "(hidden)"]),
        ({"options": {"iptables": False}}, ["iptables", "weaken"]),
        ({"options": {"hosts": ["tcp://0.0.0.0:2375"]}}, ["hosts", "tlsverify"]),
        ({"options": "icc=false"}, ["docker_daemon_options", "mapping"]),
        ({"restart": "always"}, ["docker_daemon_restart", "never"]),
        ({"expect_engine": "new"}, ["docker_daemon_expect_engine", "26.1.5"]),
        ({"iccc": True}, ["docker_daemon_iccc", "no such variable"]),
    ],
)
def test_bad_policies_name_variable_value_and_fix(policy: Json, words: list[str]) -> None:
    with pytest.raises(PolicyError) as caught:
        planned(obs.stock(), **policy)
    for word in words:
        assert word in str(caught.value)


def test_registries_that_are_accepted_and_mirrors_with_tls_are_set() -> None:
    options: Json = {"insecure-registries": ["r:5000"], "registry-mirrors": ["https://m.example"]}
    plan = planned(obs.stock(), options=options, accept_insecure_registries=["r:5000", "other"])
    assert sets(plan).items() >= options.items()


def test_a_secret_never_stands_in_an_error() -> None:
    with pytest.raises(PolicyError) as caught:
        planned(obs.stock(), options={"proxies": {"http-proxy": "http://u:hunter2@p"}})
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"state": "invalid", "reason": "line 3 column 5"}, "line 3 column 5"),
        ({"state": "empty"}, "empty"),
        ({"state": "not_an_object"}, "one JSON object"),
        ({"state": "valid", "duplicate_keys": ["icc"]}, "more than once"),
        ({"state": "symlink"}, "symbolic link"),
        ({"state": "valid", "attributes": ["immutable"]}, "chattr"),
        ({"state": "valid", "read_only_filesystem": True}, "writable"),
    ],
)
def test_a_daemon_json_that_cannot_be_merged_into_is_refused(config: Json, said: str) -> None:
    with pytest.raises(PolicyError, match=said) as caught:
        planned(obs.stock(daemon_config=config))
    assert "/etc/docker/daemon.json" in str(caught.value)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"bulkhead": {"state": "foreign", "reason": "a link"}}, "/var/lib/bulkhead"),
        ({"bulkhead": {"state": "newer", "reason": "schema 9"}}, "schema 9"),
        ({"containers": None}, "gather it"),
        ({"schema": "bulkhead.observation/9"}, "bulkhead.observation/1"),
    ],
)
def test_a_look_that_cannot_be_trusted_is_refused(change: Json, said: str) -> None:
    with pytest.raises(PolicyError, match=said):
        planned(obs.stock(**change))


@pytest.mark.parametrize(
    ("reason", "fix"),
    [
        ("/run/docker.sock: permission denied", "look as root (become: true)"),
        ("Operation not permitted", "look as root (become: true)"),
        (NO_SYSTEMD, "leave it out of docker_harden_roles here"),
        ("systemctl does not answer", "see to that on the host, and run again"),
    ],
)
def test_a_missing_section_is_answered_by_why_it_is_missing(reason: str, fix: str) -> None:
    look = obs.stock(units=None, unread=[{"section": "units", "item": None, "reason": reason}])
    with pytest.raises(PolicyError) as caught:
        planned(look)
    assert str(caught.value).endswith(fix)
    assert reason in str(caught.value)


def test_a_broken_daemon_is_not_planned_for() -> None:
    look = obs.stock()
    look["engine"].update(state="broken", reason="exit status 1")
    with pytest.raises(PolicyError, match="exit status 1"):
        planned(look)


def test_planning_changes_neither_observation_nor_policy() -> None:
    look, policy = obs.stock(), {"options": {"log-level": "info"}}
    before = copy.deepcopy((look, policy))
    planned(look, **policy)
    assert (look, policy) == before


def test_every_public_default_is_read() -> None:
    import pathlib

    import yaml

    defaults = yaml.safe_load(pathlib.Path("roles/docker_daemon/defaults/main.yml").read_text())
    daemon_policy.read({k.removeprefix("docker_daemon_"): v for k, v in defaults.items()})


def test_files_that_no_control_speaks_of_are_left_alone() -> None:
    root = obs.file("/var/lib/docker", "directory", "0710", "", gid=231072, group=None)
    root["control"] = []
    assert "mode" not in kinds(planned(obs.stock(files=[root])))


# -- what somebody else left half done ------------------------------------------------------------
TCP = "tcp://127.0.0.1:2375"
LINKED: Json = {
    "data_root": {"path": "/data/docker", "resolved": "/mnt/disk/docker"},
    "options": {"data-root": "/mnt/disk/docker"},
}


def unread(keys: Json, options: Json | None = None, **engine: typing.Any) -> Json:
    """Return a host whose daemon shows ``options``, and whose daemon.json is newer than its start."""
    look = obs.with_file(obs.stock(containers=[obs.container()]), keys, loaded=False)
    for key, value in {"live-restore": True, **(options or {})}.items():
        look["engine"]["options"].setdefault(key, obs.option())["effective"] = value
    look["engine"].update(engine)
    return look


@pytest.mark.parametrize(
    "keys",
    [
        {"userns-remap": "foo"},
        {"data-root": "/srv/new"},
        {"features": {"containerd-snapshotter": True}},
    ],
)
def test_a_restart_never_takes_up_a_foreign_change_that_hides_everything(keys: Json) -> None:
    look = obs.with_file(obs.stock(containers=[obs.container()]), keys, loaded=False)
    look["engine"]["options"].setdefault("data-root", obs.option(effective="/var/lib/docker"))
    look["engine"]["options"]["data-root"]["effective"] = "/var/lib/docker"
    plan = planned(look)
    assert plan["daemon"]["effect"] != "restart"
    assert next(iter(keys)) in rows(plan)["default-ulimits"]["reason"]


@pytest.mark.parametrize(
    ("keys", "engine", "named"),
    [
        ({"hosts": [TCP]}, {"unread_hosts": [TCP]}, "hosts in /etc/docker/daemon.json"),
        ({"log-driver": "none"}, {"options": {"log-driver": "journald"}}, "log-driver in"),
        ({"userns-remap": "theirs"}, {"options": {"userns-remap": False}}, "userns-remap in"),
        ({"graph": "/srv"}, {"options": {"data-root": "/var/lib/docker"}}, "data-root in"),
        ({}, {"options": {"data-root": "/srv"}}, "data-root, which is gone from"),
    ],
)
def test_a_restart_takes_up_nothing_of_others(keys: Json, engine: Json, named: str) -> None:
    look = unread(keys, **engine)
    plan = planned(look, log_opts="unmanaged")
    assert plan["daemon"]["effect"] == "none"
    row = rows(plan)["default-ulimits"]
    assert (row["state"], row["affected"]) == ("blocked", ["web"])
    assert named in row["reason"]
    assert "restart it yourself when that is meant, or take the change back" in row["reason"]


@pytest.mark.parametrize(
    ("keys", "engine"),
    [
        ({"bip": "10.9.0.1/24", "exec-root": "/run/d", "storage-opts": ["dm.fs=xfs"]}, {}),
        ({"hosts": ["fd://"], "runtimes": {"kata": {"path": "/kata"}}}, {}),
        ({"hosts": [TCP]}, {"unread_hosts": None}),
        ({"userns-remap": "theirs"}, {"options": {"userns-remap": True}}),
        ({"icc": False, "ip": "10.0.0.1"}, {"options": {"icc": True, "ip": "0.0.0.0"}}),
        ({"selinux-enabled": True}, {"options": {"selinux-enabled": False}}),
        ({"containerd-namespace": "prod"}, {}),
        ({"data-root": "/data/docker"}, LINKED),
        ({"graph": "/data/docker"}, LINKED),
        ({}, {**LINKED, "data_root": {"path": "/var/lib/docker", "resolved": "/mnt/disk/docker"}}),
    ],
)
def test_what_the_daemon_may_have_in_effect_is_of_nobody(keys: Json, engine: Json) -> None:
    plan = planned(unread(keys, **engine), icc="unmanaged")
    assert rows(plan)["default-ulimits"]["state"] == "change"
    assert (plan["daemon"]["effect"], plan["daemon"]["live_restore_first"]) == ("restart", False)


def test_a_bridge_that_nothing_uses_shows_what_was_told() -> None:
    look = unread({"ip": "0.0.0.0"}, options={"ip": "127.0.0.1"})
    look["containers"][0]["state"] = "exited"
    assert "ip in" in rows(planned(look))["default-ulimits"]["reason"]


@pytest.mark.parametrize("restart", ["never", "when_needed"])
@pytest.mark.parametrize(
    "keys", [{"data-root": "/data/docker"}, {"containerd-namespace": "prod"}], ids=str
)
def test_a_hiding_key_of_ours_stays_where_it_is(keys: Json, restart: str) -> None:
    key = next(iter(keys))
    look = unread(keys, **LINKED)
    item = {"kind": "json_key", "path": CONFIG, "key": key, "intact": True}
    look["bulkhead"]["owned"] = {"docker_daemon": [item]}
    if key != "data-root":
        look["engine"]["data_root"] = obs.stock()["engine"]["data_root"]
        del look["engine"]["options"]["data-root"]
    plan = planned(look, options=keys, restart=restart)
    assert not operations(plan, "json_remove")
    assert rows(plan)[key]["state"] != "blocked"
    # Nor is it moved by name.
    for other in ("/data/docker2", "/mnt/disk"):
        moved = planned(look, options={"data-root": other}, restart=restart)
        assert rows(moved)["data-root"]["state"] == "blocked"
        assert "data-root" not in sets(moved)


@pytest.mark.parametrize("loaded", [True, False])
@pytest.mark.parametrize("wanted", ["/data/docker", "/mnt/disk/docker"])
def test_a_linked_data_root_is_the_one_that_is_wanted(wanted: str, loaded: bool) -> None:
    look = unread({"data-root": "/data/docker"}, **LINKED)
    look["engine"]["config_loaded"] = loaded
    plan = planned(look, options={"data-root": wanted})
    assert rows(plan)["data-root"]["state"] == ("ok" if wanted == "/data/docker" else "change")


@pytest.mark.parametrize(
    ("where", "named"),
    [
        ("/etc/default/docker", "since it started: data-root in /etc/default/docker;"),
        (None, "since it started: the flag of data-root;"),
    ],
)
def test_a_restart_takes_up_no_flag_of_others(where: str | None, named: str) -> None:
    look = obs.stock(containers=[obs.container()])
    look["engine"]["unread_flags"] = [{"key": "data-root", "where": where}]
    plan = planned(look)
    assert plan["daemon"]["effect"] == "reload"
    assert rows(plan)["default-ulimits"]["state"] == "blocked"
    assert named in rows(plan)["default-ulimits"]["reason"]
    look = obs.stock(units={"docker.service": {"need_daemon_reload": True}})
    assert planned(look)["daemon"]["effect"] == "reload"
    # One that becomes a key is taken off the command line.
    look = flagged("icc", True)
    look["engine"]["unread_flags"] = [{"key": "icc", "where": "/etc/default/docker"}]
    assert planned(look, icc=False, take_over_flags=["icc"])["daemon"]["effect"] == "restart"


def test_a_data_root_that_a_flag_names_is_not_gone() -> None:
    look = unread({}, options={"data-root": "/srv/docker"})
    look["engine"]["options"]["data-root"].update(source="flag", configured="/srv/docker")
    assert planned(look)["daemon"]["effect"] == "restart"


def test_a_vanished_remapping_is_not_lost_by_a_restart_of_ours() -> None:
    look = obs.with_file(
        obs.stock(containers=[obs.container()]), {"dns": ["10.0.0.1"]}, loaded=False
    )
    look["engine"]["options"]["userns-remap"]["effective"] = True
    assert planned(look)["daemon"]["effect"] != "restart"


@pytest.mark.parametrize(
    ("version", "holds"), [("26.1.5", True), ("29.7.2", False)], ids=["before 29", "29"]
)
def test_an_image_store_that_vanished_from_the_file_is_not_lost(version: str, holds: bool) -> None:
    look = obs.with_file(in_store(True, containers=[obs.container()]), {}, loaded=False)
    look["engine"]["version"] = version
    assert (planned(look)["daemon"]["effect"] != "restart") is holds


def test_data_of_a_removed_docker_counts_as_used() -> None:
    look = obs.stock(containers=None, images=None, volumes=None)
    look["engine"].update(state="absent", version=None, info=None, config_loaded=None, options={})
    root = obs.file("/var/lib/docker", "directory", "0710", "", type="directory")
    root["control"] = []
    look["files"].append(root)
    plan = planned(look)
    assert plan["profile"] == "compatible"
    row = rows(planned(look, userns_remap=True))["userns-remap"]
    assert (row["state"], row["accept"]) == ("blocked", "docker_daemon_userns_accept_hidden_data")


def test_log_options_follow_the_driver_that_is_planned() -> None:
    plan = planned(obs.stock(), options={"log-driver": "journald"})
    assert rows(plan)["log-opts"]["state"] == "not_applicable"
    assert not [op for op in plan["operations"] if op.get("key") == "log-opts"]


@pytest.mark.parametrize("host", ["tcp://1.2.3.4:2375", "0.0.0.0:2375", ":2375", "TCP://0.0.0.0"])
def test_every_spelling_of_a_tcp_listener_needs_tls(host: str) -> None:
    with pytest.raises(PolicyError, match="tlsverify"):
        planned(obs.stock(), options={"hosts": ["unix:///run/docker.sock", host]})


@pytest.mark.parametrize(
    ("listen", "told"),
    [
        (["/run/docker.sock", "0.0.0.0:2375"], "0.0.0.0:2375 of docker.socket"),
        (["/run/docker.sock", "[::]:2375"], "[::]:2375 of docker.socket"),
        (["/run/docker.sock", "@docker"], None),
        (["/run/docker.sock"], None),
    ],
)
def test_an_open_port_of_the_socket_unit_is_named(listen: list[str], told: str | None) -> None:
    look = obs.stock(containers=[obs.container()])
    look["units"]["docker.socket"]["listen"] = listen
    row = rows(planned(look)).get("hosts")
    assert (row is not None) == (told is not None)
    if row is not None and told is not None:
        assert (row["state"], row["control"]) == ("blocked", "2.8")
        assert told in row["reason"]
    look["engine"]["options"]["tlsverify"] = obs.option(True, source="flag")
    assert "hosts" not in rows(planned(look))


def test_a_port_of_the_socket_unit_may_be_given_up_for_its_path() -> None:
    look = obs.stock(containers=[obs.container()])
    look["units"]["docker.socket"]["listen"] = ["/run/docker.sock", "0.0.0.0:2375"]
    row = rows(
        planned(look, options={"hosts": ["unix:///run/docker.sock"]}, take_over_flags=["hosts"])
    )["hosts"]
    assert "would lose the daemon" not in str(row["reason"])


def test_a_container_that_labels_itself_is_still_seen() -> None:
    sly = obs.container("sly")
    sly["labels"] = {"bulkhead.role": "health"}
    assert planned(obs.stock(containers=[sly]))["profile"] == "compatible"


def test_a_limit_in_effect_is_not_blocked_by_who_uses_it() -> None:
    busy = obs.container("busy")
    busy["kernel"].update(pids_current=1500, pids_max=2048)
    dropin = {"path": daemon_plan.SCOPE_DROPIN, "tasks_max": 2048, "version": "v"}
    row = rows(planned(obs.stock(containers=[busy], scope_dropins=[dropin])))
    assert row["pids limit of a container"]["state"] == "ok"


def test_a_later_drop_in_has_the_last_word_and_is_named() -> None:
    later = {
        "path": "/etc/systemd/system/docker-.scope.d/90-x.conf",
        "tasks_max": 9,
        "version": "v",
    }
    row = rows(planned(obs.stock(scope_dropins=[later]), pids_limit=4000))
    assert row["pids limit of a container"]["state"] == "blocked"
    assert "90-x.conf" in row["pids limit of a container"]["reason"]


def test_a_transaction_left_open_is_told() -> None:
    look = obs.stock(bulkhead={"open_transaction": {"id": "t1", "step": "daemon", "started_at": 1}})
    assert rows(planned(look))["transaction"]["state"] == "pending"


# -- flags that daemon.json takes over -------------------------------------------------------------
def flagged(key: str, value: object, effective: object = None, **more: typing.Any) -> Json:
    look = obs.stock(**more)
    look["engine"]["options"][key] = obs.option(
        value if effective is None else effective,
        value,
        source="environment",
        where="/etc/default/docker",
    )
    return look


def taken(look: Json, *keys: str, intact: bool = True) -> Json:
    """Let the drop-in be there already, and the keys be ours in the file."""
    look["bulkhead"].update(
        state="ok",
        owned={
            "docker_daemon": [
                {
                    "kind": "file", "path": FLAGS_DROPIN, "flags": list(keys),
                    "version": "7", "intact": intact,
                }
            ]
        },
    )  # fmt: skip
    return look


def operations(plan: Json, kind: str) -> list[Json]:
    return [op for op in plan["operations"] if op["op"] == kind]


def test_a_flag_is_taken_over_when_the_policy_names_its_key() -> None:
    plan = planned(flagged("icc", True), icc=False, take_over_flags=["icc"])
    assert sets(plan)["icc"] is False
    (operation,) = operations(plan, "flags_taken")
    assert (operation["keys"], operation["observed"]) == (["icc"], "absent")
    assert plan["daemon"]["effect"] == "restart"


def test_a_flag_that_says_what_is_wanted_is_left_alone() -> None:
    plan = planned(flagged("icc", False), icc=False, take_over_flags=["icc"])
    assert rows(plan)["icc"]["state"] == "ok"
    assert not operations(plan, "flags_taken")


def test_an_option_that_a_reload_would_apply_needs_a_restart_when_its_flag_is_taken() -> None:
    plan = planned(
        flagged("max-concurrent-downloads", 9),
        options={"max-concurrent-downloads": 2},
        take_over_flags=["max-concurrent-downloads"],
        profile="compatible", log_opts="unmanaged", ulimits="unmanaged", live_restore="unmanaged",
    )  # fmt: skip
    assert plan["daemon"] == {
        "effect": "restart",
        "why": ["max-concurrent-downloads"],
        "live_restore_first": False,
        "allow_container_restart": False,
    }


def test_of_a_map_the_members_that_flags_set_are_kept() -> None:
    look = flagged("log-opts", {"max-size": "1g", "mode": "non-blocking"})
    plan = planned(look, log_opts={"max-size": "10m"}, take_over_flags=["log-opts"])
    assert sets(plan)["log-opts.max-size"] == "10m"
    assert sets(plan)["log-opts.mode"] == "non-blocking"


@pytest.mark.parametrize(
    ("change", "policy", "says"),
    [
        ({"redacted": True}, {}, "credentials"),
        ({}, {"restart": "never"}, "docker_daemon_restart is never"),
    ],
)
def test_a_flag_that_cannot_be_taken_over_is_named(change: Json, policy: Json, says: str) -> None:
    look = flagged("log-opts", {"max-size": "1g"})
    look["engine"]["options"]["log-opts"].update(change)
    plan = planned(look, log_opts={"max-size": "10m"}, take_over_flags=["log-opts"], **policy)
    assert rows(plan)["log-opts"]["state"] == "blocked"
    assert says in rows(plan)["log-opts"]["reason"]
    assert not operations(plan, "flags_taken")


def test_live_restore_cannot_be_taken_over_while_containers_run() -> None:
    look = flagged("live-restore", False, containers=[obs.container()])
    plan = planned(look, take_over_flags=["live-restore"])
    assert rows(plan)["live-restore"]["state"] == "blocked"
    assert "containers run" in rows(plan)["live-restore"]["reason"]


def test_a_drop_in_that_somebody_changed_is_not_replaced() -> None:
    look = taken(flagged("icc", True), "icc", intact=False)
    plan = planned(look, icc=False, take_over_flags=["icc"])
    assert FLAGS_DROPIN in rows(plan)["icc"]["reason"]
    assert not operations(plan, "flags_taken")


def test_what_is_taken_stays_taken_and_a_further_flag_joins_it() -> None:
    look = taken(flagged("icc", True), "log-level")
    plan = planned(look, icc=False, take_over_flags=["icc", "log-level"])
    (operation,) = operations(plan, "flags_taken")
    assert (operation["keys"], operation["observed"]) == (["icc", "log-level"], "7")


def in_our_file(look: Json, key: str, value: object) -> Json:
    look["daemon_config"]["keys"][key] = {"type": "boolean", "value": value}
    look["daemon_config"]["state"] = "valid"
    look["engine"]["options"][key] = obs.option(value, value, source="file", where=CONFIG)
    look["bulkhead"]["owned"]["docker_daemon"].append(
        {"kind": "json_key", "path": CONFIG, "key": key, "version": "1", "intact": True}
    )
    return look


@pytest.mark.parametrize("icc", [False, "unmanaged"])
def test_a_flag_comes_back_when_its_key_is_named_no_more(icc: object) -> None:
    plan = planned(in_our_file(taken(obs.stock(), "icc"), "icc", False), icc=icc)
    assert "icc" in {op.get("key") for op in operations(plan, "json_remove")}
    assert [op["path"] for op in operations(plan, "file_absent")] == [FLAGS_DROPIN]
    assert plan["daemon"]["effect"] == "restart"


def test_a_flag_does_not_come_back_beside_a_key_that_is_not_ours() -> None:
    look = in_our_file(taken(obs.stock(), "icc"), "icc", False)
    look["bulkhead"]["owned"]["docker_daemon"].pop()
    plan = planned(look, icc=False)
    assert rows(plan)["icc"]["state"] == "blocked"
    assert not operations(plan, "file_absent")


@pytest.mark.parametrize("options", [{"data-root": "/new"}, {}])
def test_a_flag_that_hides_data_does_not_come_back(options: Json) -> None:
    """What it says is written nowhere any more but in its unit."""
    look = in_our_file(
        taken(obs.stock(volumes=[{"name": "data"}]), "data-root"), "data-root", "/new"
    )
    plan = planned(look, options=options)
    row = rows(plan)["data-root"]
    assert (row["state"], row["affected"]) == ("blocked", ["volume data"])
    assert row["accept"] == "docker_daemon_options_accept_hidden_data"
    assert not operations(plan, "file_absent") + operations(plan, "json_remove")
    accepted = planned(look, options=options, options_accept_hidden_data=True)
    assert [op["path"] for op in operations(accepted, "file_absent")] == [FLAGS_DROPIN]
    look["containers"] = [obs.container()]
    row = rows(planned(look, options=options, options_accept_hidden_data=True))["data-root"]
    assert (row["state"], row["affected"], row["accept"]) == ("blocked", ["web"], None)


def test_a_flag_does_not_come_back_when_its_restart_is_held_back() -> None:
    look = in_our_file(taken(obs.stock(containers=[obs.container()]), "icc"), "icc", False)
    look["engine"]["swarm_node"] = True
    plan = planned(look, icc=False)
    assert rows(plan)["icc"]["state"] == "blocked"
    assert not operations(plan, "file_absent")
    assert not operations(plan, "json_remove")


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("icc", "give a list"),
        (["host"], "did you mean hosts"),
        (["labels"], "by hand"),
        (["userns-remap"], "by hand"),
    ],
)
def test_take_over_flags_is_checked(value: object, says: str) -> None:
    with pytest.raises(PolicyError, match="docker_daemon_take_over_flags") as caught:
        planned(obs.stock(), take_over_flags=value)
    assert says in str(caught.value)


# -- engine 29, from documentation -----------------------------------------------------------------
def test_on_29_an_empty_host_gets_user_namespaces() -> None:
    assert sets(planned(obs.engine_29()))["userns-remap"] == "bulkhead-remap"


def test_on_29_an_explicit_snapshotter_blocks_user_namespaces() -> None:
    look = obs.engine_29()
    look["daemon_config"]["keys"]["features"] = {
        "type": "map",
        "members": {"containerd-snapshotter": {"type": "boolean", "value": True}},
    }
    look["daemon_config"]["state"] = "valid"
    plan = planned(look)
    assert rows(plan)["userns-remap"]["state"] == "blocked"
    assert "containerd-snapshotter" in rows(plan)["userns-remap"]["reason"]
    assert "userns-remap" not in sets(plan)


def test_on_29_images_of_the_containerd_store_would_be_hidden_by_name() -> None:
    image = {"id": "sha256:1", "tags": ["shop:1"], "bulkhead": False}
    plan = planned(obs.engine_29(images=[image]), userns_remap=True)
    assert rows(plan)["userns-remap"]["affected"] == ["image shop:1"]


@pytest.mark.parametrize(
    ("key", "value"), [("min-api-version", "1.44"), ("firewall-backend", "nftables")]
)
def test_keys_that_29_brought(key: str, value: str) -> None:
    assert sets(planned(obs.engine_29(), options={key: value}))[key] == value
    with pytest.raises(PolicyError, match="does not know this key"):
        planned(obs.stock(), options={key: value})


def test_a_restart_names_the_containers_that_are_published_on_loopback() -> None:
    def published(name: str, address: str) -> Json:
        port = {"container": "80/tcp", "host_ip": address, "host_port": 8080}
        return obs.container(name, ports=[port])

    containers = [published("a", "127.0.0.1"), published("b", "0.0.0.0"), published("c", "::1")]
    plan = planned(obs.stock(containers=containers), no_new_privileges=True)
    assert plan["daemon"]["effect"] == "restart"
    assert rows(plan)["ports published on 127.0.0.1"]["affected"] == ["a", "c"]
    quiet = planned(obs.stock(containers=containers[1:2]), no_new_privileges=True)
    assert "ports published on 127.0.0.1" not in rows(quiet)


# -- the slice of the cgroupfs driver --------------------------------------------------------------
def with_cgroupfs(pids_max: int | None = None, **more: typing.Any) -> Json:
    look = obs.stock(**more)
    look["engine"]["info"]["cgroup_driver"] = "cgroupfs"
    tasks_max = pids_max
    version = "absent" if pids_max is None else "5"
    look["slice"] = {
        "path": SLICE,
        "version": version,
        "tasks_max": tasks_max,
        "pids_max": pids_max,
    }
    return look


TOGETHER = "pids limit of all containers together"


def test_all_containers_get_one_slice() -> None:
    plan = planned(with_cgroupfs(), containers_tasks_max=500)
    placed = {op["path"]: op["content"] for op in operations(plan, "file_present")}
    assert "TasksMax=500" in placed[SLICE]
    assert "Wants=bulkhead.slice" in placed[daemon_plan.SLICE_DROPIN]
    assert sets(plan)["cgroup-parent"] == "/bulkhead.slice"
    assert plan["daemon"]["effect"] == "restart"


def own_slice(pids_max: int) -> Json:
    look = with_cgroupfs(pids_max)
    look["engine"]["options"]["cgroup-parent"] = obs.option(
        "/bulkhead.slice", source="file", where=CONFIG
    )
    look["daemon_config"]["keys"]["cgroup-parent"] = {"type": "string", "value": "/bulkhead.slice"}
    look["daemon_config"]["state"] = "valid"
    items = [
        {"kind": "file", "path": path, "version": "5", "intact": True}
        for path in (SLICE, daemon_plan.SLICE_DROPIN)
    ]
    items.append(
        {"kind": "json_key", "path": CONFIG, "key": "cgroup-parent", "version": "1", "intact": True}
    )
    look["bulkhead"].update(state="ok", owned={"docker_daemon": items})
    return look


@pytest.mark.parametrize(("enforced", "state"), [(500, "ok"), (None, "pending")])
def test_the_slice_counts_when_the_kernel_shows_it(enforced: int | None, state: str) -> None:
    look = own_slice(500)
    look["slice"]["pids_max"] = enforced
    assert rows(planned(look, containers_tasks_max=500))[TOGETHER]["state"] == state


def test_the_slice_goes_when_nobody_wants_it() -> None:
    plan = planned(own_slice(500))
    assert {op["path"] for op in operations(plan, "file_absent")} == {
        SLICE,
        daemon_plan.SLICE_DROPIN,
    }
    assert "cgroup-parent" in {op["key"] for op in operations(plan, "json_remove")}


def busy(**processes: int) -> list[Json]:
    return [
        {**obs.container(name), "kernel": {"pids_current": number, "pids_max": None}}
        for name, number in processes.items()
    ]


@pytest.mark.parametrize(("limit", "state"), [(1000, "blocked"), (1001, "change"), (16, "blocked")])
def test_a_limit_for_all_that_they_nearly_use_is_blocked(limit: int, state: str) -> None:
    look = with_cgroupfs(containers=busy(web=300, db=200))
    plan = planned(look, containers_tasks_max=limit)
    row = rows(plan)[TOGETHER]
    assert row["state"] == state
    if state == "blocked":
        assert row["affected"] == ["db", "web"]
        assert "500 processes" in row["reason"]
        assert not operations(plan, "file_present")
        assert "cgroup-parent" not in sets(plan)


@pytest.mark.parametrize("enforced", [500, None])
def test_a_limit_for_all_that_is_placed_is_not_blocked_by_who_uses_it(enforced: int | None) -> None:
    look = own_slice(500)
    look["slice"]["pids_max"] = enforced
    look["containers"] = busy(web=400)
    assert rows(planned(look, containers_tasks_max=500))[TOGETHER]["state"] != "blocked"


def test_no_slice_where_each_container_has_a_limit() -> None:
    plan = planned(obs.stock(), containers_tasks_max=500)
    assert rows(plan)[TOGETHER]["state"] == "not_applicable"


def test_a_parent_of_somebody_else_is_left() -> None:
    look = with_cgroupfs()
    look["engine"]["options"]["cgroup-parent"] = obs.option("/theirs", source="file", where=CONFIG)
    plan = planned(look, containers_tasks_max=500)
    assert rows(plan)[TOGETHER]["state"] == "blocked"
    assert "cgroup-parent" not in sets(plan)
