"""Who is blamed for what goes wrong in a filter that plans: the variables, or the host."""

from __future__ import annotations

import pytest
from ansible.errors import AnsibleFilterError

from ansible_collections.bulkhead.hardening.plugins.filter.docker_daemon_plan import (
    docker_daemon_plan,
)
from ansible_collections.bulkhead.hardening.plugins.plugin_utils import filter_errors
from ansible_collections.bulkhead.hardening.plugins.plugin_utils.plan import PolicyError
from tests.unit import observations as obs


def _fail(error: Exception) -> object:
    raise error


def test_a_variable_that_cannot_be_read_is_not_the_hosts_fault() -> None:
    with pytest.raises(AnsibleFilterError, match=r"a variable of docker_x .*TypeError: unhashable"):
        filter_errors.read("docker_x", lambda: _fail(TypeError("unhashable")))
    with pytest.raises(AnsibleFilterError, match="docker_x is 5: give 6"):
        filter_errors.read("docker_x", lambda: _fail(PolicyError("docker_x", 5, "give 6")))


def test_a_broken_observation_is_the_hosts_fault() -> None:
    with pytest.raises(AnsibleFilterError, match="the observation is not of schema"):
        filter_errors.planned(lambda: _fail(KeyError("engine")))


@pytest.mark.parametrize(
    ("policy", "says"),
    [
        ({"options": {"insecure-registries": [["a"]]}}, r"docker_daemon_options\[insecure-registries\]"),
        ({"take_over_flags": [["x"]]}, "docker_daemon_take_over_flags"),
        ({"log_opts": {("a",): {}}}, "docker_daemon_log_opts"),
    ],
)  # fmt: skip
def test_lists_in_lists_name_the_variable(policy: dict[str, object], says: str) -> None:
    with pytest.raises(AnsibleFilterError, match=says) as caught:
        docker_daemon_plan(obs.stock(), policy)
    assert "schema" not in str(caught.value)
