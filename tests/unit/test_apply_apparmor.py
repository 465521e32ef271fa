"""Profiles in a transaction: read first, then placed and loaded; taken away only when nobody is under one."""

from __future__ import annotations

import os
import typing

import pytest

from ansible_collections.bulkhead.hardening.plugins.module_utils import look, retention
from ansible_collections.bulkhead.hardening.plugins.module_utils.transaction import apply
from ansible_collections.bulkhead.hardening.plugins.module_utils.transaction_undo import undo

from .fake_apparmor import BUILTIN
from .fakes import ActHost, act_host, file_absent, file_present, operation, plan, profile

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="changes owners, as root does")

Json = dict[str, typing.Any]
WEB = "/etc/apparmor.d/docker-web"


@pytest.fixture
def host() -> typing.Iterator[ActHost]:
    with act_host() as made:
        yield made


def done(host: ActHost, *operations: Json) -> Json:
    answer = apply(host, plan(*operations))
    assert answer["transaction"]["outcome"] == "committed", answer["msg"]
    return answer


def whole(host: ActHost) -> tuple[typing.Any, ...]:
    return host.tree(), dict(host.apparmor.policies)


def refused(host: ActHost, *operations: Json, check_mode: bool = False) -> str:
    """Return why a plan was refused, having changed nothing."""
    before = whole(host)
    answer = apply(host, plan(*operations), check_mode=check_mode)
    assert answer["transaction"]["outcome"] == "refused"
    assert whole(host) == before
    return str(answer["msg"])


def owned(host: ActHost) -> Json:
    """Return what the look says of the one profile that is ours."""
    (row,) = look.observe(host, ["bulkhead"])["bulkhead"]["owned"]["docker_apparmor"]
    return typing.cast(Json, row)


def confine(host: ActHost, name: str, profile: str) -> None:
    """Let a container run under a profile."""
    inspect = host.daemon.add(name)
    inspect["AppArmorProfile"] = profile
    pid = inspect["State"]["Pid"]
    host.write("/proc/%d/attr/current" % pid, profile + " (enforce)\n")


# -- placed and loaded ---------------------------------------------------------------------------
def test_a_profile_is_read_placed_and_loaded(host: ActHost) -> None:
    answer = done(host, profile(host, "docker-web", "file"))
    assert (host.base / WEB.lstrip("/")).read_text() == "profile docker-web {\n  file,\n}\n"
    assert host.apparmor.policies["docker-web"] == "profile docker-web {\n  file,\n}\n"
    parsed = [call for call in host.calls if call.startswith("apparmor_parser")]
    assert parsed == ["apparmor_parser --skip-kernel-load", "apparmor_parser --replace"]
    lsm = answer["observation"]["lsm"]["apparmor"]
    assert lsm["profiles"]["docker-web"] == "enforce"
    assert lsm["parser"] == {"path": "/usr/sbin/apparmor_parser", "version": "4.1.0"}
    assert (lsm["abi"], lsm["files"], lsm["at_boot"]) == (["3.0"], ["docker-web"], True)
    row = owned(host)
    assert (row["intact"], row["in_kernel"], row["can_restore"]) == (True, True, False)


def test_a_dry_run_shows_file_and_kernel(host: ActHost) -> None:
    answer = apply(host, plan(profile(host, "docker-web", "file")), check_mode=True)
    assert answer["changed"] is True
    headers = {row["before_header"]: row["after"] for row in answer["diff"]}
    assert headers == {
        WEB: "profile docker-web {\n  file,\n}\n",
        "profiles in the kernel": "docker-web\n",
    }
    assert "docker-web" not in host.apparmor.policies


def test_what_the_kernel_lost_is_loaded_again(host: ActHost) -> None:
    done(host, profile(host, "docker-web", "file"))
    del host.apparmor.policies["docker-web"]
    host.apparmor.replace(BUILTIN)
    assert owned(host)["in_kernel"] is False
    assert done(host, profile(host, "docker-web", "file"))["changed"] is True
    assert owned(host)["in_kernel"] is True


def test_another_policy_under_the_name_is_noticed(host: ActHost) -> None:
    done(host, profile(host, "docker-web", "file"))
    host.apparmor.replace("profile docker-web {\n  file,\n  network,\n}\n")
    row = owned(host)
    assert (row["intact"], row["in_kernel"]) == (True, False)


# -- refused and taken back ----------------------------------------------------------------------
@pytest.mark.parametrize("check_mode", [False, True])
def test_a_syntax_error_leaves_the_host_alone(host: ActHost, check_mode: bool) -> None:
    done(host, profile(host, "docker-web", "file"))
    wrong = profile(host, "docker-web", "file", "bogus rule")
    message = refused(host, wrong, check_mode=check_mode)
    assert "the profile docker-web is not valid: AppArmor parser error at line 3" in message
    assert "Warning" not in message


def test_without_a_parser_nothing_is_placed(host: ActHost) -> None:
    (host.base / "usr/sbin/apparmor_parser").unlink()
    assert "install the package apparmor" in refused(host, profile(host, "docker-web", "file"))


def test_without_apparmor_nothing_is_placed(host: ActHost) -> None:
    host.write("/sys/module/apparmor/parameters/enabled", "N\n")
    assert "without AppArmor" in refused(host, profile(host, "docker-web", "file"))


def test_what_the_kernel_refuses_is_taken_back(host: ActHost) -> None:
    done(host, profile(host, "docker-web", "file"))
    before = whole(host)
    host.apparmor.refuses = lambda text: "Out of memory" if "docker-two" in text else None
    more = profile(host, "docker-web", "file", "network"), profile(host, "docker-two", "file")
    answer = apply(host, plan(*more))
    assert (answer["transaction"]["outcome"], answer["transaction"]["failed_step"]) == (
        "rolled_back",
        "apparmor",
    )
    assert "docker-two was not loaded: Out of memory" in answer["msg"]
    assert whole(host) == before


def test_one_that_came_into_use_meanwhile_is_not_taken_from_its_processes(host: ActHost) -> None:
    host.daemon.witness_error = "no"
    host.write("/proc/9/attr/current", "docker-web (enforce)\n")
    answer = apply(host, plan(profile(host, "docker-web", "file")))
    assert answer["transaction"]["outcome"] == "rolled_back"
    assert "docker-web stays in the kernel: there are processes under it" in answer["msg"]
    assert "docker-web" in host.apparmor.policies


# -- taken away ----------------------------------------------------------------------------------
def test_an_unused_profile_goes(host: ActHost) -> None:
    before = whole(host)
    done(host, profile(host, "docker-web", "file"))
    done(host, file_absent(host, WEB))
    assert whole(host) == before


@pytest.mark.parametrize("running", [True, False])
def test_a_profile_in_use_does_not_go(host: ActHost, running: bool) -> None:
    done(host, profile(host, "docker-web", "file"))
    confine(host, "shop", "docker-web")
    if not running:
        host.daemon._end(host.daemon._find("shop"))
    host.daemon._publish()
    assert "used by these containers: shop" in refused(host, file_absent(host, WEB))
    answer = undo(host)
    assert answer["transaction"]["outcome"] == "refused"
    assert "used by these containers: shop" in answer["msg"]


def test_an_upgrade_can_be_undone_while_it_is_in_use(host: ActHost) -> None:
    done(host, profile(host, "docker-web", "file"))
    former = whole(host)
    confine(host, "shop", "docker-web")
    host.daemon._publish()
    done(host, profile(host, "docker-web", "file", "network"))
    assert "network" in host.apparmor.policies["docker-web"]
    answer = undo(host)
    assert answer["transaction"]["outcome"] == "committed", answer["msg"]
    assert whole(host)[1] == former[1]
    assert owned(host)["in_kernel"] is True


def test_the_engines_own_profile_comes_back_for_those_under_it(host: ActHost) -> None:
    host.daemon.add("web")
    done(host, profile(host, "docker-default", "file"))
    assert host.apparmor.policies["docker-default"] != BUILTIN
    for _ in range(retention.KEPT_TRANSACTIONS + 2):  # what is needed for that is kept
        done(host, operation("disown", kind="user", name="nobody"))
    done(host, file_absent(host, "/etc/apparmor.d/docker-default"))
    assert host.apparmor.policies["docker-default"] == BUILTIN


def test_what_a_newer_engine_put_in_its_place_stays(host: ActHost) -> None:
    host.daemon.add("web")
    done(host, profile(host, "docker-default", "file"))
    newer = BUILTIN.replace("network,", "network,\n  deny network alg,")
    host.apparmor.replace(newer)
    done(host, file_absent(host, "/etc/apparmor.d/docker-default"))
    assert host.apparmor.policies["docker-default"] == newer


def test_a_kernel_that_exports_no_policy(host: ActHost) -> None:
    """There, the engine's own cannot be put back under running containers, and it says so."""
    host.daemon.add("web")
    for path in (host.base / "sys/kernel/security/apparmor/policy").rglob("raw_data"):
        path.unlink()
    done(host, profile(host, "docker-default", "file"))
    assert owned(host)["can_restore"] is False
    answer = done(host, file_absent(host, "/etc/apparmor.d/docker-default"))
    steps = {row["step"]: row["detail"] for row in answer["transaction"]["steps"]}
    assert "docker-default stays in the kernel" in steps["apparmor"]


def test_what_was_compiled_from_a_later_text_is_forgotten(host: ActHost) -> None:
    """The file of before is older than what its successor was compiled to, and the parser goes by age."""
    done(host, profile(host, "docker-web", "file"))
    done(host, profile(host, "docker-web", "file", "network"))
    undo(host)
    cache = host.base / "var/cache/apparmor/1a2b.0/docker-web"
    assert "network" not in cache.read_text()


def test_a_file_that_is_no_profile_loads_nothing(host: ActHost) -> None:
    done(host, file_present(host, "/etc/apparmor.d/local/docker-web", "# nothing\n"))
    assert not any(call.startswith("apparmor_parser") for call in host.calls)
