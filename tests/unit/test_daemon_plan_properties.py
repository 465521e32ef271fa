"""Properties that the planner of docker_daemon keeps on any host and for any policy."""

from __future__ import annotations

import contextlib
import typing

from ansible.errors import AnsibleFilterError
from hypothesis import given, settings, strategies as st

from ansible_collections.bulkhead.hardening.plugins.filter.docker_daemon_plan import (
    docker_daemon_plan,
)
from ansible_collections.bulkhead.hardening.plugins.plugin_utils import plan as plans
from tests.unit import observations as obs

Json = dict[str, typing.Any]

WORDS = st.sampled_from(["profile", "unmanaged"])
SWITCH = WORDS | st.booleans()
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=6,
)

#: Keys that the planner has no business with.
FOREIGN: Json = {
    "dns": ["10.0.0.1"],
    "mtu": 1400,
    "bip": "10.9.0.1/24",
    "default-address-pools": [{"base": "10.8.0.0/16", "size": 24}],
}


@st.composite
def policies(draw: st.DrawFn) -> Json:
    """Policies that are well formed."""
    hard = draw(st.integers(1, 2**20))
    soft = draw(st.integers(0, hard))
    return {
        "profile": draw(st.sampled_from(["auto", "compatible", "strict"])),
        "live_restore": draw(SWITCH),
        "icc": draw(SWITCH),
        "no_new_privileges": draw(SWITCH),
        "userland_proxy": draw(SWITCH),
        "userns_remap": draw(SWITCH),
        "file_modes": draw(SWITCH),
        "log_opts": draw(WORDS | st.just({"max-size": "5m"})),
        "ulimits": draw(WORDS | st.just({"nofile": {"soft": soft, "hard": hard}})),
        "pids_limit": draw(WORDS | st.integers(16, 4000)),
        "options": draw(st.sampled_from([{}, {"log-level": "warn"}, {"features": {"cdi": True}}])),
        "restart": draw(st.sampled_from(["when_needed", "never"])),
        "restart_stops_containers": draw(st.booleans()),
        "userns_accept_hidden_data": draw(st.booleans()),
        "options_accept_hidden_data": draw(st.booleans()),
    }


@st.composite
def hosts(draw: st.DrawFn) -> Json:
    """Hosts that run, with or without containers, data, foreign keys and odd file modes."""
    names = draw(st.lists(st.sampled_from(["web", "db", "job"]), unique=True))
    look = obs.stock(
        containers=[
            obs.container(name, pids_limit=draw(st.sampled_from([None, 33, -1]))) for name in names
        ],
        volumes=draw(st.sampled_from([[], [{"name": "data"}]])),
    )
    look["os"]["default_tasks_max"] = draw(st.sampled_from([None, 300, 2338]))
    look["engine"]["swarm_node"] = draw(st.booleans())
    look["engine"]["info"]["cgroup_driver"] = draw(st.sampled_from(["systemd", "cgroupfs"]))
    look["files"][1]["mode"] = draw(st.sampled_from(["0755", "0777", "1777"]))
    keys = draw(st.lists(st.sampled_from(sorted(FOREIGN)), unique=True))
    if keys:
        look = obs.with_file(look, {key: FOREIGN[key] for key in keys})
    return look


@settings(max_examples=300, deadline=None)
@given(hosts(), policies())
def test_a_plan_applied_in_the_model_plans_to_nothing(look: Json, policy: Json) -> None:
    plan = docker_daemon_plan(look, policy)
    after = obs.apply(look, plan)
    after["bulkhead"]["profile"] = plan["profile"]
    if plan["daemon"]["effect"] != "restart" and policy["restart"] == "never":
        after["engine"]["config_loaded"] = False
    again = docker_daemon_plan(after, policy)
    if plan["daemon"]["effect"] == "reload" and again["daemon"]["effect"] == "restart":
        # What waited for live-restore to be in effect is planned once it is.
        assert again["operations"]
        return
    assert plans.is_empty(again), (again["operations"], again["daemon"])


@settings(max_examples=300, deadline=None)
@given(hosts(), policies())
def test_foreign_keys_are_never_operated_on(look: Json, policy: Json) -> None:
    plan = docker_daemon_plan(look, policy)
    assert not {op.get("key") for op in plan["operations"]} & set(FOREIGN)


@settings(max_examples=300, deadline=None)
@given(hosts(), policies())
def test_running_containers_are_never_restarted_unasked(look: Json, policy: Json) -> None:
    plan = docker_daemon_plan(look, policy)
    daemon = plan["daemon"]
    if look["containers"] and daemon["effect"] == "restart":
        assert daemon["live_restore_first"] or policy["restart_stops_containers"]


@settings(max_examples=400, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from([*(obs_name for obs_name in ("profile", "icc", "ulimits", "log_opts", "options",
                         "pids_limit", "userns_start", "userns_user", "seccomp_profile", "nonsense"))]),
        ANYTHING,
        max_size=4,
    )
)  # fmt: skip
def test_any_policy_plans_or_is_refused_in_words(policy: Json) -> None:
    refused = None
    try:
        docker_daemon_plan(obs.stock(), policy)
    except AnsibleFilterError as exc:
        refused = str(exc)
    assert refused is None or "docker_daemon_" in refused


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(sorted(obs.stock())), ANYTHING)
def test_any_answer_of_a_host_plans_or_is_refused_in_words(section: str, junk: object) -> None:
    look = obs.stock()
    look[section] = junk
    with contextlib.suppress(AnsibleFilterError):
        docker_daemon_plan(look, {})
