"""Kernel parameters in a transaction: set, owned, taken back; what only a boot takes back comes last."""

from __future__ import annotations

import json
import os
import typing

import jsonschema
import pytest

from ansible_collections.bulkhead.hardening.plugins.module_utils import look
from ansible_collections.bulkhead.hardening.plugins.module_utils.transaction import apply
from ansible_collections.bulkhead.hardening.plugins.module_utils.transaction_undo import undo

from .checkout import ROOT
from .fakes import ActHost, act_host, operation, plan, sysctl_set

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="changes owners, as root does")

Json = dict[str, typing.Any]
SCHEMA = json.loads((ROOT / "docs/schemas/observation.schema.json").read_text())
KPTR, BPF, PTRACE = (
    "kernel.kptr_restrict",
    "kernel.unprivileged_bpf_disabled",
    "kernel.yama.ptrace_scope",
)
FORWARD = "/proc/sys/net/ipv4/conf/docker0/forwarding"


@pytest.fixture
def host() -> typing.Iterator[ActHost]:
    with act_host(containers=["web"]) as made:
        yield made


def value(host: ActHost, name: str) -> str:
    return host.read_text("/proc/sys/" + name.replace(".", "/")).strip()


def done(host: ActHost, *operations: Json) -> Json:
    answer = apply(host, plan(*operations))
    assert answer["transaction"]["outcome"] == "committed", answer["msg"]
    return answer


def refused(host: ActHost, *operations: Json, outcome: str = "refused") -> str:
    """Return why a plan failed, after which the kernel is as before."""
    before = host.sysctls()
    answer = apply(host, plan(*operations))
    assert answer["transaction"]["outcome"] == outcome
    assert host.sysctls() == before
    return str(answer["msg"])


def step(answer: Json, name: str) -> Json:
    (found,) = [row for row in answer["transaction"]["steps"] if row["step"] == name]
    return typing.cast(Json, found)


def restore(name: str) -> Json:
    return operation("sysctl_restore", name=name)


def owned(host: ActHost) -> list[Json]:
    answer = look.observe(host, ["bulkhead"])
    jsonschema.validate(answer, SCHEMA)
    return list(answer["bulkhead"]["owned"].get("docker_kernel", []))


# -- set and given back ----------------------------------------------------------------------------
def test_a_value_is_set_and_owned(host: ActHost) -> None:
    answer = done(host, sysctl_set(host, KPTR, "2"))
    assert (answer["changed"], value(host, KPTR)) == (True, "2")
    assert answer["transaction"]["stays"] == []
    assert step(answer, "sysctls")["detail"] == "kernel.kptr_restrict=2"
    assert owned(host) == [{"kind": "sysctl", "name": KPTR, "value": "2", "intact": True}]
    assert answer["observation"]["kernel"]["sysctls"][KPTR]["value"] == "2"


def test_the_value_of_before_outlives_a_second_change(host: ActHost) -> None:
    done(host, sysctl_set(host, KPTR, "1"))
    done(host, sysctl_set(host, KPTR, "2"))
    done(host, restore(KPTR))
    assert value(host, KPTR) == "0"
    assert owned(host) == []


def test_a_dry_run_shows_the_values_and_sets_none(host: ActHost) -> None:
    before = host.tree(times=True)
    answer = apply(host, plan(sysctl_set(host, KPTR, "2")), check_mode=True)
    assert answer["changed"] is True
    (row,) = answer["diff"]
    assert (row["before"], row["after"]) == (KPTR + " = 0\n", KPTR + " = 2\n")
    assert host.tree(times=True) == before


def test_what_somebody_changed_since_is_theirs(host: ActHost) -> None:
    done(host, sysctl_set(host, KPTR, "2"))
    host.write("/proc/sys/kernel/kptr_restrict", "1\n")
    assert owned(host)[0]["intact"] is False
    assert "was changed by somebody else since" in refused(host, restore(KPTR))
    done(host, operation("disown", kind="sysctl", name=KPTR))
    assert (owned(host), value(host, KPTR)) == ([], "1")


def test_what_is_not_ours_is_not_put_back(host: ActHost) -> None:
    assert "was not set by Bulkhead" in refused(host, restore(KPTR))


def test_a_value_that_changed_since_the_look_is_left_alone(host: ActHost) -> None:
    late = sysctl_set(host, KPTR, "2")
    host.write("/proc/sys/kernel/kptr_restrict", "1\n")
    assert "changed since the look; run again" in refused(host, late)


def test_a_kernel_without_the_parameter_is_refused(host: ActHost) -> None:
    row = dict(sysctl_set(host, KPTR, "1"), name="kernel.warn_limit")
    assert "this kernel has no kernel.warn_limit" in refused(host, row)


# -- taken back ------------------------------------------------------------------------------------
def test_a_failure_later_takes_the_values_back(host: ActHost) -> None:
    host.daemon.witness_error = "no"
    operations = sysctl_set(host, KPTR, "2"), sysctl_set(host, PTRACE, "1")
    refused(host, *operations, outcome="rolled_back")
    assert owned(host) == []


def test_a_kernel_that_refuses_a_value_fails_the_plan(host: ActHost) -> None:
    host.write("/proc/sys/kernel/yama/ptrace_scope", "3\n")
    host.one_way["/proc/sys/kernel/yama/ptrace_scope"] = "3"
    operations = sysctl_set(host, KPTR, "2"), sysctl_set(host, PTRACE, "1")
    told = refused(host, *operations, outcome="rolled_back")
    assert "the kernel does not take kernel.yama.ptrace_scope=1: Operation not permitted" in told


def test_a_value_that_does_not_stay_fails_the_plan(host: ActHost) -> None:
    def meddle(path: str) -> None:
        if host.read_text(path) == "2\n":
            host.write(path, "0\n")

    host.on_sysctl = meddle
    told = refused(host, sysctl_set(host, KPTR, "2"), outcome="rolled_back")
    assert "kernel.kptr_restrict is 0 after 2 was written" in told


def test_lost_forwarding_fails_the_plan(host: ActHost) -> None:
    host.on_sysctl = lambda path: typing.cast(None, host.write(FORWARD, "0\n"))
    answer = apply(host, plan(sysctl_set(host, KPTR, "2")))
    assert answer["transaction"]["outcome"] == "rolled_back"
    assert "not passed on as before: %s is 0 instead of 1" % FORWARD in answer["msg"]
    assert value(host, KPTR) == "0"


def test_an_interface_that_goes_meanwhile_is_no_loss(host: ActHost) -> None:
    host.on_sysctl = lambda path: (host.base / FORWARD.lstrip("/")).unlink()
    done(host, sysctl_set(host, KPTR, "2"))


# -- what only a boot takes back -------------------------------------------------------------------
def one_way(host: ActHost, name: str, wanted: str) -> Json:
    host.one_way["/proc/sys/" + name.replace(".", "/")] = wanted
    return sysctl_set(host, name, wanted, undo="reboot")


def test_it_is_set_after_everything_that_can_fail(host: ActHost) -> None:
    bpf = one_way(host, BPF, "1")
    host.daemon.witness_error = "no"
    refused(host, bpf, sysctl_set(host, KPTR, "2"), outcome="rolled_back")
    host.daemon.witness_error = None
    answer = done(host, bpf, sysctl_set(host, KPTR, "2"))
    names = [row["step"] for row in answer["transaction"]["steps"]]
    assert names[-2:] == ["sysctls_for_good", "commit"]
    assert names.index("health") < names.index("sysctls_for_good")
    assert step(answer, "sysctls")["detail"] == "kernel.kptr_restrict=2"
    assert step(answer, "sysctls_for_good")["detail"] == BPF + "=1"


def test_giving_it_back_says_that_it_stays(host: ActHost) -> None:
    done(host, one_way(host, BPF, "1"))
    answer = done(host, restore(BPF))
    assert BPF + " stays 1 until the next boot" in step(answer, "sysctls")["detail"]
    assert answer["transaction"]["stays"] == [
        BPF + " stays 1 until the next boot: the kernel does not take it back"
    ]
    assert (value(host, BPF), owned(host)) == ("1", [])


def test_a_failure_after_it_says_that_it_stays(host: ActHost) -> None:
    operations = one_way(host, BPF, "1"), sysctl_set(host, PTRACE, "3", undo="reboot")
    host.write("/proc/sys/kernel/yama/ptrace_scope", "2\n")
    operations[1]["observed"] = "2"
    host.one_way["/proc/sys/kernel/yama/ptrace_scope"] = "2"
    answer = apply(host, plan(*operations))
    assert answer["transaction"]["outcome"] == "rolled_back"
    assert BPF + " stays 1 until the next boot" in answer["msg"]


# -- undone on request -----------------------------------------------------------------------------
def test_an_undo_puts_the_values_back(host: ActHost) -> None:
    before = host.sysctls()
    done(host, sysctl_set(host, KPTR, "2"), sysctl_set(host, PTRACE, "1"))
    answer = undo(host)
    assert answer["transaction"]["outcome"] == "committed", answer["msg"]
    assert answer["transaction"]["changes"] == [KPTR, PTRACE]
    assert (host.sysctls(), owned(host)) == (before, [])


def test_an_undo_refuses_what_somebody_changed_since(host: ActHost) -> None:
    done(host, sysctl_set(host, KPTR, "2"))
    host.write("/proc/sys/kernel/kptr_restrict", "1\n")
    assert "kernel.kptr_restrict was changed by somebody else since" in undo(host)["msg"]


def test_an_undo_is_refused_while_a_later_one_holds_the_same(host: ActHost) -> None:
    first = done(host, sysctl_set(host, KPTR, "1"))["transaction"]["id"]
    done(host, sysctl_set(host, KPTR, "2"))
    assert "changed the same: kernel.kptr_restrict" in undo(host, first)["msg"]


def test_an_undo_lets_go_of_what_stays(host: ActHost) -> None:
    done(host, one_way(host, BPF, "1"))
    answer = undo(host)
    assert answer["transaction"]["outcome"] == "committed", answer["msg"]
    assert "stays 1 until the next boot" in step(answer, "sysctls")["detail"]
    assert owned(host) == []
