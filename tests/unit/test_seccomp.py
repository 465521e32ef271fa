"""Tests of seccomp profiles: the engines' own, composing, checking and describing."""

from __future__ import annotations

import copy
import json
import typing

import pytest
from hypothesis import given, settings, strategies as st

from ansible_collections.bulkhead.hardening.plugins.plugin_utils import (
    capabilities,
    seccomp_check,
    seccomp_engines as engines,
    seccomp_plan,
    seccomp_profile as profiles,
)
from ansible_collections.bulkhead.hardening.plugins.plugin_utils.plan import PolicyError
from ansible_collections.bulkhead.hardening.plugins.plugin_utils.seccomp_engines import ALLOW, ERRNO

Json = dict[str, typing.Any]
DEFAULT_CAPS = capabilities.decode(capabilities.DEFAULT)
SERIES = engines.all_series()
X86 = "x86_64"


def composed(engine: str = "26.1.5", **spec: typing.Any) -> Json:
    read = profiles.read(spec, "spec")
    base = engines.base(engines.series(engine)) if read.base == "engine" else read.base
    return seccomp_plan.composed(read, typing.cast(Json, base), "web", X86)


def resolved(profile: Json, *more: str, machine: str = X86) -> dict[str, str]:
    return profiles.resolve(profile, [*DEFAULT_CAPS, *more], machine)


def errors(profile: object) -> list[str]:
    found = seccomp_check.problems(profile)
    return [f"{item.where}: {item.text}" for item in found if item.level == "error"]


def warnings(profile: object) -> list[str]:
    return [item.text for item in seccomp_check.problems(profile) if item.level == "warning"]


# -- the engines' own ------------------------------------------------------------------------------
@pytest.mark.parametrize("name", SERIES)
def test_a_base_has_as_many_rules_and_calls_as_the_engines_profile(name: str) -> None:
    facts, base = engines.counts(name), engines.base(name)
    allowed = [rule for rule in base["syscalls"] if rule["action"] == ALLOW]
    always = [rule for rule in allowed if not any(c in rule for c in engines.CONDITIONS)]
    assert len(base["syscalls"]) == facts["rules"]
    assert len({call for rule in always for call in rule["names"]}) == facts["always"]
    assert len({call for rule in allowed for call in rule["names"]}) == facts["union"]
    assert base.get("defaultErrnoRet") == facts["default_errno"]


@pytest.mark.parametrize("name", SERIES)
def test_a_base_has_nothing_wrong(name: str) -> None:
    base = engines.base(name)
    assert errors(base) == []
    assert warnings(base) == []


@pytest.mark.parametrize(
    ("version", "name"),
    [
        ("20.10.24+dfsg1", "20.10"),
        ("25.0.16", "26.1"),
        ("26.1.5+dfsg1", "26.1"),
        ("27.5.1", "26.1"),
        ("28.0.4", "26.1"),
        ("28.5.2+dfsg4", "28.5"),
        ("29.4.1", "28.5"),
    ],
)
def test_an_engine_has_the_profile_of_its_series(version: str, name: str) -> None:
    assert engines.series(version) == name


@pytest.mark.parametrize(
    "version",
    ["19.03.1", "20.10.23", "20.10.25", "26.1.4", "28.1.0", "29.4.2", "30.0.0", "nightly"],
)
def test_a_release_whose_profile_is_not_known_exactly_has_none(version: str) -> None:
    with pytest.raises(engines.NoBaseError):
        engines.series(version)


def test_the_engine_that_allows_io_uring_is_the_old_one() -> None:
    states = {name: resolved(engines.base(name)).get("io_uring_setup") for name in SERIES}
    assert states == {"20.10": "allowed", "26.1": None, "28.5": None}


def test_known_calls_are_told_apart_by_machine() -> None:
    assert "arch_prctl" in engines.calls("x86_64") - engines.calls("aarch64")
    assert "clone3" in engines.calls("x86_64") & engines.calls("aarch64")
    assert "socketcall" in engines.calls() - engines.calls("x86_64")
    assert engines.nearest("ptrce") == "ptrace"


# -- what a user writes ----------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ([], "give a mapping"),
        ({"denied": ["ptrace"]}, "spec.denied"),
        ({"base": "podman"}, "spec.base"),
        ({"deny": "ptrace"}, "spec.deny"),
        ({"deny": ["ptrce"]}, "did you mean ptrace?"),
        ({"deny": ["PTRACE"]}, "give names of system calls"),
        ({"deny": [{"when": {}}]}, "give a name, or a mapping with names"),
        ({"deny": [{"names": ["ptrace"], "args": []}]}, "spec.deny[0].args"),
        ({"allow": [{"names": ["bpf"], "errno": "EPERM"}]}, "spec.allow[0].errno"),
        ({"deny": [{"names": ["ptrace"], "errno": "ENOENT"}]}, "spec.deny[0].errno"),
        ({"deny": [{"names": ["ptrace"], "errno": 0}]}, "1 to 4095"),
        ({"deny": [{"names": ["ptrace"], "errno": True}]}, "1 to 4095"),
        ({"deny": [{"names": ["clone3"], "errno": "EPERM"}]}, "only when it says ENOSYS"),
        ({"allow": [{"names": ["bpf"], "when": {"caps": ["SYS_ROOT"]}}]}, "no such capability"),
        ({"allow": [{"names": ["bpf"], "when": {"caps": []}}]}, "at least one capability"),
        ({"allow": [{"names": ["bpf"], "when": {"arches": ["sparc"]}}]}, "when.arches"),
        ({"allow": [{"names": ["bpf"], "when": {"min_kernel": 5.1}}]}, "such as '5.10'"),
        ({"allow": [{"names": ["bpf"], "when": {"min_kernel": "5.1.2"}}]}, "such as '5.10'"),
        ({"allow": [{"names": ["bpf"], "when": {"kernel": "5.1"}}]}, "when.kernel"),
        (
            {
                "allow": [
                    {"names": ["bpf"], "args": [{"index": 6, "value": 0, "op": "SCMP_CMP_EQ"}]}
                ]
            },
            "0 to 5",
        ),
        (
            {"allow": [{"names": ["bpf"], "args": [{"index": 0, "value": 0, "op": "EQ"}]}]},
            "op is one of",
        ),
        ({"allow": [{"names": ["bpf"], "args": [{"index": 0}]}]}, "give {index, value, op}"),
        ({"allow": ["bpf"], "deny": ["bpf"]}, "both allowed and denied"),
        ({"deny": ["bpf", "bpf"]}, "more than once"),
        ({"deny_socket_families": ["AF_DOG"]}, "address families"),
        ({"deny_socket_families": ["AF_UNIX"]}, "works without it"),
        ({"deny_socket_families": ["AF_ALG"], "deny": ["socket"]}, "allowed or denied already"),
        ({"errno": "EWOULD"}, "spec.errno"),
        ({"architectures": ["x86_64"]}, "SCMP_ARCH_X86_64"),
    ],
)
def test_a_wrong_spec_is_refused_with_place_and_fix(spec: object, says: str) -> None:
    with pytest.raises(PolicyError) as refused:
        profiles.read(spec, "spec")
    assert says in str(refused.value)


def test_a_call_that_this_release_does_not_know_passes_when_accepted() -> None:
    profile = composed(allow=["brandnew"], accept_unknown_calls=["brandnew"])
    assert resolved(profile)["brandnew"] == "allowed"


# -- composing -------------------------------------------------------------------------------------
def test_a_denied_call_is_allowed_by_no_rule() -> None:
    profile = composed(deny=["ptrace", "userfaultfd"])
    assert not any("ptrace" in rule["names"] for rule in profile["syscalls"])
    assert resolved(profile).get("ptrace") is None


def test_nothing_else_changes() -> None:
    base = engines.base("26.1")
    before = copy.deepcopy(base)
    profile = profiles.compose(profiles.read({"deny": ["ptrace"]}, "s"), base)
    assert base == before
    was, now = resolved(base, "CAP_SYS_PTRACE"), resolved(profile, "CAP_SYS_PTRACE")
    assert now == {name: state for name, state in was.items() if name != "ptrace"}


def test_an_allowed_call_needs_no_capability_any_more() -> None:
    profile = composed(allow=["io_uring_setup", "mount"])
    assert resolved(profile)["io_uring_setup"] == resolved(profile)["mount"] == "allowed"
    assert sum("mount" in rule["names"] for rule in profile["syscalls"]) == 1


def test_what_a_library_falls_back_from_is_denied_with_enosys() -> None:
    profile = composed(deny=["faccessat2", "ptrace"])
    assert resolved(profile)["faccessat2"] == "denied:38"
    assert "ptrace" not in resolved(profile)


def test_another_error_for_one_call_and_for_the_rest() -> None:
    profile = composed(deny=[{"names": ["ptrace"], "errno": "EACCES"}], errno="ENOSYS")
    assert profile["defaultErrnoRet"] == 38
    assert resolved(profile)["ptrace"] == "denied:13"


def test_a_denial_with_a_capability_leaves_others_alone() -> None:
    profile = composed(deny=[{"names": ["unshare"], "when": {"caps": ["SYS_ADMIN"]}}])
    assert "unshare" not in resolved(profile, "CAP_SYS_ADMIN")
    profile = composed(deny=[{"names": ["chmod"], "when": {"caps": ["SYS_ADMIN"]}}])
    assert resolved(profile)["chmod"] == "allowed"
    assert resolved(profile, "CAP_SYS_ADMIN")["chmod"] == "denied"


def test_a_denial_unless_a_capability_is_held() -> None:
    profile = composed(deny=[{"names": ["chmod"], "unless": {"caps": ["SYS_PTRACE"]}, "errno": 38}])
    assert resolved(profile)["chmod"] == "denied:38"
    assert resolved(profile, "CAP_SYS_PTRACE")["chmod"] == "allowed"


def test_conditions_of_a_denial_add_up() -> None:
    both = {"caps": ["SYS_ADMIN", "SYS_PTRACE"], "arches": ["amd64"]}
    profile = composed(deny=[{"names": ["chmod"], "when": both}])
    assert resolved(profile, "CAP_SYS_ADMIN")["chmod"] == "allowed"
    assert resolved(profile, "CAP_SYS_ADMIN", "CAP_SYS_PTRACE")["chmod"] == "denied"
    arm = resolved(profile, "CAP_SYS_ADMIN", "CAP_SYS_PTRACE", machine="aarch64")
    assert arm["chmod"] == "allowed"


def test_a_denial_from_a_kernel_on() -> None:
    profile = composed(deny=[{"names": ["chmod"], "when": {"min_kernel": "5.10"}}])
    assert profiles.resolve(profile, DEFAULT_CAPS, X86, "5.9.1")["chmod"] == "allowed"
    assert profiles.resolve(profile, DEFAULT_CAPS, X86, "5.10.0")["chmod"] == "denied"


def test_an_allowance_with_a_capability_leaves_the_fallback_to_others() -> None:
    profile = composed(allow=[{"names": ["clone3"], "when": {"caps": ["SYS_NICE"]}}])
    assert resolved(profile)["clone3"] == "denied:38"
    assert resolved(profile, "CAP_SYS_NICE")["clone3"] == "allowed"
    assert errors(profile) == []


def test_an_allowance_for_some_arguments() -> None:
    argument = {"index": 1, "value": 5, "op": "SCMP_CMP_EQ"}
    profile = composed(allow=[{"names": ["keyctl"], "args": [argument]}])
    assert resolved(profile)["keyctl"] == "by_argument"


def test_architectures_take_the_place_of_the_map() -> None:
    profile = composed(architectures=["SCMP_ARCH_X86_64"])
    assert "archMap" not in profile
    assert profile["architectures"] == ["SCMP_ARCH_X86_64"]


@pytest.mark.parametrize("engine", ["20.10.24", "26.1.5", "28.5.2"])
def test_socket_families_are_denied_by_listing_the_others(engine: str) -> None:
    profile = composed(engine, deny_socket_families=["AF_ALG", "vsock"])
    rules = [rule for rule in profile["syscalls"] if "socket" in rule["names"]]
    assert {rule["args"][0]["op"] for rule in rules} == {"SCMP_CMP_EQ"}
    assert {38, 40}.isdisjoint(rule["args"][0]["value"] for rule in rules)
    assert {1, 2, 10, 16, 17} <= {rule["args"][0]["value"] for rule in rules}
    assert profiles.socket_families(profile) == ["AF_ALG", "AF_VSOCK"]
    # The kernel takes 32 bits of the number: one with bits above must not pass as another family.
    assert not any(rule["args"][0]["value"] >= 2**32 for rule in rules)


def test_containers_made_with_a_profile_are_known_by_its_first_rule() -> None:
    assert composed(deny=["ptrace"])["syscalls"][0]["comment"] == profiles.MARK + "web"


def test_a_profile_of_ones_own_is_a_base_too() -> None:
    own = {"defaultAction": ERRNO, "syscalls": copy.deepcopy(engines.base("26.1")["syscalls"])}
    profile = composed("1.2.3", base=own, deny=["ptrace"])
    assert "ptrace" not in resolved(profile)


@pytest.mark.parametrize("call", sorted(seccomp_check.CORE))
def test_a_profile_under_which_no_container_starts_is_refused(call: str) -> None:
    with pytest.raises(PolicyError, match=call):
        composed(deny=[call])


def test_a_base_that_is_wrong_is_refused_with_its_place() -> None:
    own = engines.base("26.1")
    own["syscalls"][3]["action"] = "ALLOW"
    with pytest.raises(PolicyError, match=r"base is 'syscalls\[3\].action'"):
        composed(base=own)


_CALLS = sorted(engines.calls(X86) - seccomp_check.CORE - {"socket"})


@settings(max_examples=40, deadline=None)
@given(
    name=st.sampled_from(SERIES),
    deny=st.lists(st.sampled_from(_CALLS), unique=True, max_size=8),
    allow=st.lists(st.sampled_from(_CALLS), unique=True, max_size=8),
    caps=st.lists(st.sampled_from(capabilities.decode(capabilities.encode(["ALL"]))), unique=True),
)
def test_whatever_is_composed_does_what_was_asked_and_nothing_more(
    name: str, deny: list[str], allow: list[str], caps: list[str]
) -> None:
    allow = [call for call in allow if call not in deny]
    base = engines.base(name)
    profile = profiles.compose(profiles.read({"deny": deny, "allow": allow}, "s"), base, "web")
    assert errors(profile) == []
    was = profiles.resolve(base, caps, X86)
    now = profiles.resolve(profile, caps, X86)
    passing = ("allowed", "by_argument")
    for call in engines.calls(X86):
        if call in deny:
            assert now.get(call) not in passing
        elif call in allow:
            assert now[call] == "allowed"
        else:
            assert now.get(call) == was.get(call)
    assert json.loads(seccomp_plan.render(profile)) == profile


# -- checking --------------------------------------------------------------------------------------
def own(**more: typing.Any) -> Json:
    profile = engines.base("26.1")
    profile["syscalls"] += more.pop("rules", [])
    return {**profile, **more}


RULE = {"names": ["keyctl"], "action": ALLOW}


@pytest.mark.parametrize(
    ("profile", "says"),
    [
        ([], "not an object"),
        ({}, "defaultAction"),
        (own(defaultAction="ERRNO"), "it is one of SCMP_ACT_KILL"),
        (own(defaultErrnoRet=5000), "no error number"),
        (own(architectures=["SCMP_ARCH_X86_64"]), "not both"),
        (own(archMap=[{"arch": "SCMP_ARCH_X86"}]), "each entry is"),
        (own(archMap=[{"architecture": "x86"}]), "no name such as"),
        (own(flags=["LOG"]), "SECCOMP_FILTER_FLAG_LOG"),
        (own(syscalls=[]), "filters nothing"),
        (own(syscall=[]), "no such field"),
        (own(rules=["keyctl"]), "not an object"),
        (own(rules=[{**RULE, "name": "keyctl"}]), "one of both"),
        (own(rules=[{"name": "keyctl", "action": ALLOW}]), "in place of the older name"),
        (own(rules=[{"names": "keyctl", "action": ALLOW}]), "a list of names"),
        (own(rules=[{**RULE, "action": "ALLOW"}]), "it is one of"),
        (own(rules=[{**RULE, "errnoRet": -1}]), "no error number"),
        (own(rules=[{**RULE, "errno": 1}]), "no such field"),
        (own(rules=[{**RULE, "args": [{"index": 0}]}]), "give {index, value, op}"),
        (own(rules=[{**RULE, "args": [{"index": "0", "value": 0, "op": "x"}]}]), "whole numbers"),
        (own(rules=[{**RULE, "includes": ["CAP_BPF"]}]), "caps, arches and minKernel"),
        (own(rules=[{**RULE, "includes": {"caps": ["BPF"]}}]), "CAP_BPF here"),
        (own(rules=[{**RULE, "includes": {"caps": ["CAP_ROOT"]}}]), "no capability"),
        (own(rules=[{**RULE, "includes": {"minKernel": "4"}}]), "such as 4.8"),
        (own(rules=[{**RULE, "names": ["nosuchcall"]}]), "no system call nosuchcall"),
        (own(rules=[{"names": ["read"], "action": "SCMP_ACT_KILL"}]), "read is SCMP_ACT_KILL here"),
        (own(rules=[{**RULE, "action": "SCMP_ACT_NOTIFY"}]), "answers for the kernel"),
        (own(defaultAction=ALLOW), "whatever it does not name is allowed"),
    ],
)
def test_an_error_is_found_and_told(profile: object, says: str) -> None:
    found = errors(profile)
    assert any(says in text for text in found), found


@pytest.mark.parametrize(
    ("rule", "says"),
    [
        (
            {"names": ["read"], "action": ALLOW},
            "read is there more than once, first in syscalls[0]",
        ),
        ({"names": ["keyctl"], "action": ERRNO, "errnoRet": 1}, "runc passes over it"),
        (
            {"names": ["read"], "action": ALLOW, "includes": {"caps": ["CAP_BPF"]}},
            "in syscalls[0] already",
        ),
        (
            {**RULE, "includes": {"caps": ["CAP_BPF"]}, "excludes": {"caps": ["CAP_BPF"]}},
            "never applies",
        ),
        (
            {**RULE, "includes": {"arches": ["arm"]}, "excludes": {"arches": ["arm"]}},
            "never applies",
        ),
        (
            {**RULE, "includes": {"minKernel": "6.1"}, "excludes": {"minKernel": "5.1"}},
            "never applies",
        ),
    ],
)
def test_what_says_nothing_is_a_warning(rule: Json, says: str) -> None:
    profile = own(rules=[rule])
    assert errors(profile) == []
    assert any(says in text for text in warnings(profile)), warnings(profile)


@pytest.mark.parametrize("call", ["clone3", "faccessat2", "close_range"])
def test_a_fallback_that_is_denied_with_another_error_is_an_error(call: str) -> None:
    rules = [
        {**rule, "names": [name for name in rule["names"] if name != call]}
        for rule in engines.base("26.1")["syscalls"]
    ]
    profile = own(syscalls=[rule for rule in rules if rule["names"]])
    assert any(f"{call} is denied with error 1" in text for text in errors(profile))
    assert errors({**profile, "defaultErrnoRet": 38}) == []


# -- describing ------------------------------------------------------------------------------------
def test_a_description_counts_what_is_blocked_next_to_the_default() -> None:
    base = engines.base("26.1")
    told = profiles.describe(
        composed(deny=["ptrace", "mount"], allow=["io_uring_setup"]), base, X86
    )
    assert told["denied_beyond_default"] == ["ptrace"]
    assert told["allowed_beyond_default"] == ["io_uring_setup"]
    assert {"mount", "keyctl", "clone3"} <= set(told["blocked_by_default"])
    assert set(told["blocked"]) == {*told["blocked_by_default"], "ptrace"}
    assert told["calls"] == len(engines.calls(X86)) == 385
    assert told["allowed"] + len(told["by_argument"]) + len(told["blocked"]) == told["calls"]
    assert told["summary"].startswith("84 of 385 system calls of x86_64 are blocked, 83 of them by")


def test_a_call_that_the_default_restricts_and_a_profile_does_not_is_told() -> None:
    told = profiles.describe(composed(allow=["personality"]), engines.base("26.1"), X86)
    assert told["allowed_beyond_default"] == ["personality"]


def test_a_description_without_a_base_compares_with_none() -> None:
    told = profiles.describe(composed(), None, X86)
    assert told["denied_beyond_default"] is None
    assert "default" not in told["summary"]


def test_sockets_of_32_bit_programs_are_told_of() -> None:
    base = engines.base("26.1")
    told = profiles.describe(composed(deny_socket_families=["AF_ALG"]), base, X86)
    assert "socketcall" in told["notes"][0]
    whole = composed(deny_socket_families=["AF_ALG"], deny=["socketcall"])
    assert profiles.describe(whole, base, X86)["notes"] == []
