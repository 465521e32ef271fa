"""A seccomp profile that a container was created with outlives the policy that had it."""

from __future__ import annotations

import typing

testinfra_hosts = ["ansible://used"]

PATH = "/etc/docker/seccomp/guarded.json"


def test_a_profile_in_use_is_not_removed(
    host: typing.Any,
    docker: typing.Callable[..., str],
    play: typing.Callable[..., str],
) -> None:
    docker(f"create --name sealed --security-opt seccomp={PATH} lab:1")
    try:
        said = play("harden", docker_harden_roles=["docker_seccomp"], docker_seccomp_profiles={})
    finally:
        docker("rm -f sealed")
    assert f"BLOCKED seccomp profile {PATH}" in said
    assert "[sealed]" in said
    assert host.file(PATH).exists
