"""The planner of docker_kernel: what it sets, what it leaves alone, and what it refuses."""

from __future__ import annotations

import copy
import fnmatch
import hashlib
import json
import typing

import jsonschema
import pytest
from ansible.errors import AnsibleFilterError
from hypothesis import given, settings, strategies as st

from ansible_collections.bulkhead.hardening.plugins.filter.docker_kernel_plan import (
    docker_kernel_plan,
)
from ansible_collections.bulkhead.hardening.plugins.filter.uninstall_plan import uninstall_plan
from ansible_collections.bulkhead.hardening.plugins.module_utils import (
    look_protection as protection,
    sysctls,
)
from ansible_collections.bulkhead.hardening.plugins.module_utils.transaction_plan import parse_plan
from ansible_collections.bulkhead.hardening.plugins.plugin_utils import kernel_plan
from tests.unit import observations as obs
from tests.unit.checkout import ROOT
from tests.unit.kernel_table import rows
from tests.unit.test_daemon_plan_recorded import recorded, states

Json = dict[str, typing.Any]
SCHEMA = json.loads((ROOT / "docs/schemas/plan.schema.json").read_text())
KPTR, BPF, PTRACE = (
    "kernel.kptr_restrict",
    "kernel.unprivileged_bpf_disabled",
    "kernel.yama.ptrace_scope",
)
FILE, MODULES_FILE, BOOT_FILE = sysctls.FILE, protection.MODULES_FILE, protection.BOOT_FILE


@pytest.fixture
def look() -> Json:
    return obs.stock()


def planned(look: Json, **policy: typing.Any) -> Json:
    """Plan, and check that the host would accept the plan."""
    plan = docker_kernel_plan(look, policy)
    wire = {name: plan[name] for name in ("schema", "profile", "operations", "daemon")}
    jsonschema.validate(wire, SCHEMA)
    parse_plan(wire)
    return plan


def row(plan: Json, setting: str) -> Json:
    (found,) = [row for row in plan["settings"] if row["setting"] == setting]
    return typing.cast(Json, found)


def written(plan: Json, path: str = FILE) -> list[str] | None:
    """Return the lines that a plan writes into a file, without its comments; None: it does not."""
    for op in plan["operations"]:
        if op["op"] == "file_present" and op["path"] == path:
            return [line for line in op["content"].splitlines() if not line.startswith("#")]
    return None


def values(plan: Json) -> dict[str, str]:
    return {op["name"]: op["value"] for op in plan["operations"] if op["op"] == "sysctl_set"}


def give(look: Json, name: str, value: str, **places: typing.Any) -> None:
    look["kernel"]["sysctls"][name].update(value=value, **places)


def own(look: Json, *items: Json) -> None:
    look["bulkhead"]["owned"].setdefault("docker_kernel", []).extend(items)


def item(name: str, intact: bool = True) -> Json:
    return {"kind": "sysctl", "name": name, "intact": intact}


def applied(look: Json, plan: Json) -> Json:
    """Return what a look shows once a plan was applied."""
    after = copy.deepcopy(look)
    owned = {
        (one["kind"], one.get("path") or one["name"]): one
        for one in after["bulkhead"]["owned"].get("docker_kernel", [])
    }
    files = {row["path"]: row for row in after["kernel"]["files"]}
    for op in plan["operations"]:
        if op["op"] == "sysctl_set":
            give(after, op["name"], op["value"])
            owned["sysctl", op["name"]] = item(op["name"])
        elif op["op"] == "sysctl_restore":
            give(after, op["name"], look["kernel"]["sysctls"][op["name"]].get("before", "0"))
            del owned["sysctl", op["name"]]
        elif op["op"] == "file_present":
            digest = hashlib.sha256(op["content"].encode()).hexdigest()
            files[op["path"]].update(version="9", sha256=digest)
            file = {"kind": "file", "path": op["path"], "version": "9", "intact": True}
            owned["file", op["path"]] = file
        elif op["op"] == "file_absent":
            files[op["path"]].update(version="absent", sha256=None)
            del owned["file", op["path"]]
        else:
            del owned[op["kind"], op.get("path") or op["name"]]
    after["bulkhead"]["owned"]["docker_kernel"] = list(owned.values())
    return after


# -- the facts -------------------------------------------------------------------------------------
def test_host_and_controller_know_the_same() -> None:
    facts = kernel_plan.facts()
    assert set(facts["sysctls"]) == set(sysctls.NAMES)
    groups = facts["modules"].values()
    named = [name for group in groups for name in group["compatible"] + group["strict"]]
    assert sorted(named) == sorted(protection.MODULES)
    assert {name.partition("=")[0] for name in facts["boot"]} == set(protection.BOOT_PARAMETERS)


@pytest.mark.parametrize("name", sysctls.NAMES)
def test_a_parameter_says_what_it_is_and_never_goes_astray(name: str) -> None:
    spec = kernel_plan.facts()["sysctls"][name]
    assert set(spec) <= {"values", "more", "less", "one_way", "compatible", "strict", "why", "breaks",
                         "source", "architectures"}  # fmt: skip
    assert spec["why"]
    assert spec["breaks"]
    assert spec["source"]
    chosen = [spec["compatible"], spec["strict"]]
    assert set(chosen) <= {None, *spec["values"]}
    assert not set(chosen) & set(spec.get("one_way", []))
    if chosen[0] is not None:
        assert kernel_plan.satisfied(spec, chosen[0], chosen[1])
    never = [pattern for row in kernel_plan.facts()["never"] for pattern in row["names"]]
    assert not any(fnmatch.fnmatchcase(name, pattern) for pattern in never)


def test_what_containers_need_is_neither_set_nor_blocked() -> None:
    for name in ("net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding", "kernel.modules_disabled",
                 "net.bridge.bridge-nf-call-iptables", "user.max_user_namespaces",
                 "kernel.unprivileged_userns_clone", "net.ipv4.conf.all.rp_filter"):  # fmt: skip
        assert name not in sysctls.NAMES
    for name in (
        "overlay",
        "br_netfilter",
        "veth",
        "bridge",
        "vxlan",
        "fuse",
        "squashfs",
        "nf_nat",
    ):
        assert name not in protection.MODULES


# -- profiles --------------------------------------------------------------------------------------
def test_compatible_sets_what_a_stock_host_lacks(look: Json) -> None:
    plan = planned(look)
    assert values(plan) == {
        "dev.tty.ldisc_autoload": "0",
        "fs.protected_fifos": "1",
        "fs.protected_regular": "1",
        "kernel.kptr_restrict": "1",
        "kernel.yama.ptrace_scope": "1",
        "net.core.bpf_jit_harden": "1",
        "net.ipv4.conf.default.accept_redirects": "0",
        "net.ipv4.conf.default.accept_source_route": "0",
        "net.ipv6.conf.all.accept_redirects": "0",
        "net.ipv6.conf.default.accept_redirects": "0",
    }
    lines = written(plan)
    assert lines is not None
    assert {"kernel.yama.ptrace_scope = 1", "kernel.unprivileged_bpf_disabled = 2"} <= set(lines)
    assert all(op["undo"] == "live" for op in plan["operations"])
    assert row(plan, "kernel.sysrq")["state"] == "held_back"
    assert row(plan, "kernel.sysrq")["wanted"] == "0"
    assert plan["profile"] is None


def test_strict_sets_more_and_nothing_for_good(look: Json) -> None:
    plan = planned(look, profile="strict")
    found = values(plan)
    assert found["kernel.yama.ptrace_scope"] == "2"
    assert found["kernel.sysrq"] == "0"
    assert found["vm.mmap_rnd_bits"] == "32"
    assert not {BPF, "kernel.kexec_load_disabled", "kernel.warn_limit"} & set(found)
    assert all(op["undo"] == "live" for op in plan["operations"])
    assert "held_back" not in {r["state"] for r in plan["settings"] if r["setting"] != "at boot"}
    assert row(plan, "kernel.kexec_load_disabled")["state"] == "unmanaged"


@pytest.mark.parametrize("profile", ["compatible", "strict"])
def test_afterwards_nothing_is_left_to_do(look: Json, profile: str) -> None:
    first = planned(look, profile=profile, boot_parameters=["slab_nomerge"])
    after = planned(applied(look, first), profile=profile, boot_parameters=["slab_nomerge"])
    assert after["operations"] == []
    assert "change" not in states(after).values()


def test_back_to_compatible_takes_back_what_strict_set(look: Json) -> None:
    strict = applied(look, planned(look, profile="strict"))
    plan = planned(strict)
    assert values(plan)[PTRACE] == "1"
    gone = [op["name"] for op in plan["operations"] if op["op"] == "sysctl_restore"]
    assert "kernel.sysrq" in gone
    assert planned(applied(strict, plan))["operations"] == []


@pytest.mark.parametrize(
    ("name", "running", "kept"),
    [
        ("kernel.perf_event_paranoid", "4", "4"),
        (KPTR, "2", "2"),
        ("vm.mmap_min_addr", "131072", "131072"),
        ("net.ipv6.conf.all.accept_source_route", "-1", "-1"),
        (BPF, "1", "2"),
        (PTRACE, "3", "1"),
    ],
)
def test_a_stronger_value_of_the_host_stays(look: Json, name: str, running: str, kept: str) -> None:
    give(look, name, running)
    plan = planned(look)
    assert row(plan, name)["state"] == "ok"
    assert name not in values(plan)
    # What the kernel does not let go of needs no line of ours.
    assert f"{name} = {kept}" in (written(plan) or [])


@pytest.mark.parametrize(
    ("name", "wanted", "running", "enough"),
    [
        ("kernel.oops_limit", "100", "50", True),
        ("kernel.oops_limit", "100", "0", False),
        ("kernel.oops_limit", "100", "10000", False),
        ("vm.mmap_min_addr", "65536", "4096", False),
        ("vm.mmap_min_addr", "65536", "x", False),
        (BPF, "2", "0", False),
        (BPF, "2", "1", True),
        (BPF, "1", "2", False),
        ("kernel.sysrq", "0", "438", False),
    ],
)
def test_what_is_strong_enough(name: str, wanted: str, running: str, enough: bool) -> None:
    spec = kernel_plan.facts()["sysctls"][name]
    assert kernel_plan.satisfied(spec, wanted, running) is enough


def test_another_processor_and_another_kernel_have_other_parameters(look: Json) -> None:
    look["os"]["architecture"] = "aarch64"
    del look["kernel"]["sysctls"]["kernel.io_uring_disabled"]
    plan = planned(look, profile="strict")
    assert row(plan, "vm.mmap_rnd_bits")["state"] == "not_applicable"
    assert "no such parameter" in row(plan, "kernel.io_uring_disabled")["reason"]
    assert not any("io_uring" in line or "mmap_rnd" in line for line in written(plan) or [])


def test_without_docker_there_is_nothing_to_do() -> None:
    plan = planned(recorded("trixie-absent"))
    assert (plan["operations"], list(states(plan).values())) == ([], ["not_applicable"])


# -- files of others -------------------------------------------------------------------------------
THEIRS = {"value": "0", "path": "/etc/sysctl.d/99-theirs.conf", "line": 3}


def test_a_file_that_is_read_later_is_explained_and_not_fought(look: Json) -> None:
    give(look, KPTR, "0", set_by=THEIRS, overruled_by=THEIRS)
    plan = planned(look)
    found = row(plan, KPTR)
    assert (found["state"], found["source"]) == ("blocked", "/etc/sysctl.d/99-theirs.conf:3")
    assert "set to 0 by /etc/sysctl.d/99-theirs.conf:3, after ours" in found["reason"]
    assert KPTR not in values(plan)
    assert not any(line.startswith(KPTR) for line in written(plan) or [])


def test_a_file_that_is_read_later_may_want_the_same(look: Json) -> None:
    give(look, KPTR, "1", set_by={**THEIRS, "value": "2"}, overruled_by={**THEIRS, "value": "2"})
    assert row(planned(look), KPTR)["state"] == "ok"


def test_a_file_that_is_read_earlier_is_named(look: Json) -> None:
    give(look, KPTR, "0", set_by={**THEIRS, "path": "/usr/lib/sysctl.d/50-x.conf"})
    plan = planned(look)
    assert row(plan, KPTR)["source"] == "/usr/lib/sysctl.d/50-x.conf:3"
    assert values(plan)[KPTR] == "1"


def test_what_is_overruled_since_is_let_go(look: Json) -> None:
    own(look, item(KPTR))
    give(look, KPTR, "2", overruled_by=THEIRS)
    plan = planned(look)
    (gone,) = [op for op in plan["operations"] if op["op"] == "disown"]
    assert (gone["kind"], gone["name"]) == ("sysctl", KPTR)


# -- single values ---------------------------------------------------------------------------------
def test_null_leaves_a_parameter_alone(look: Json) -> None:
    plan = planned(look, sysctls={PTRACE: None})
    assert row(plan, PTRACE)["state"] == "unmanaged"
    assert PTRACE not in values(plan)
    assert not any(line.startswith(PTRACE) for line in written(plan) or [])


@pytest.mark.parametrize("intact", [True, False])
def test_null_gives_back_what_was_set(look: Json, intact: bool) -> None:
    own(look, item(PTRACE, intact))
    plan = planned(look, sysctls={PTRACE: None})
    found = [op["op"] for op in plan["operations"] if op.get("name") == PTRACE]
    assert found == ["sysctl_restore" if intact else "disown"]


def test_what_only_a_boot_takes_back_is_set_on_request_and_last(look: Json) -> None:
    plan = planned(look, sysctls={BPF: 1, PTRACE: "3", "kernel.kexec_load_disabled": 1})
    undo = {op["name"]: op["undo"] for op in plan["operations"] if op["op"] == "sysctl_set"}
    assert undo[BPF] == undo[PTRACE] == undo["kernel.kexec_load_disabled"] == "reboot"
    assert undo[KPTR] == "live"
    lines = written(plan)
    assert lines is not None
    assert lines[-3:] == ["kernel.kexec_load_disabled = 1", BPF + " = 1", PTRACE + " = 3"]
    assert "until the next boot" in row(plan, BPF)["reason"]


@pytest.mark.parametrize(
    ("policy", "words"),
    [
        ({"profile": "paranoid"}, ["docker_kernel_profile", "paranoid", "compatible or strict"]),
        ({"sysctls": []}, ["docker_kernel_sysctls", "mapping"]),
        ({"sysctls": {"net.ipv4.ip_forward": 0}}, ["net.ipv4.ip_forward] is 0", "FORWARD chain"]),
        ({"sysctls": {"net.ipv6.conf.all.forwarding": 0}}, ["forwarding] is 0", "networks"]),
        ({"sysctls": {"net.bridge.bridge-nf-call-iptables": 0}}, ["never changed", "icc"]),
        ({"sysctls": {"user.max_user_namespaces": 0}}, ["never changed", "userns-remap"]),
        ({"sysctls": {"kernel.unprivileged_userns_clone": 0}}, ["never changed", "rootless"]),
        ({"sysctls": {"net.ipv4.conf.all.rp_filter": 1}}, ["never changed", "several networks"]),
        ({"sysctls": {"kernel.modules_disabled": 1}}, ["never changed", "overlay"]),
        ({"sysctls": {"kernel.core_pattern": "|/x"}}, ["never changed", "runs as root"]),
        ({"sysctls": {"kernel.kptr_restrct": 1}}, ["did you mean kernel.kptr_restrict?"]),
        ({"sysctls": {"zzz": 1}}, ["zzz", "README.md"]),
        ({"sysctls": {KPTR: 0}}, [KPTR + "] is 0", "choose one of 1, 2, or null"]),
        ({"sysctls": {KPTR: True}}, ["is True", "choose one of"]),
        ({"sysctls": {KPTR: "1; reboot"}}, ["1; reboot", "choose one of"]),
        ({"modules": ["sctp"]}, ["docker_kernel_modules", "true or false"]),
        ({"modules": {"overlay": True}}, ["modules[overlay] is True", "containers"]),
        ({"modules": {"nf-nat": True}}, ["modules[nf-nat]", "networks are made of it"]),
        ({"modules": {"usb-storage": True}}, ["a file of your own"]),
        ({"modules": {"sctpp": True}}, ["did you mean sctp?"]),
        ({"modules": {"sctp": "yse"}}, ["say true", "false"]),
        ({"boot_parameters": "quiet"}, ["docker_kernel_boot_parameters", "list"]),
        ({"boot_parameters": ["quiet"]}, ["'quiet'", "init_on_alloc=1"]),
        ({"boot_parameters": ["lockdown=integrity", "lockdown=confidentiality"]}, ["lockdown once"]),
        ({"colour": 1}, ["docker_kernel_colour", "no such variable"]),
    ],
)  # fmt: skip
def test_wrong_variables_are_named_with_value_and_fix(
    look: Json, policy: Json, words: list[str]
) -> None:
    with pytest.raises(AnsibleFilterError) as caught:
        docker_kernel_plan(look, policy)
    for word in words:
        assert word in str(caught.value)


# -- modules ---------------------------------------------------------------------------------------
def test_compatible_blocks_what_hardly_anybody_needs(look: Json) -> None:
    lines = written(planned(look), MODULES_FILE)
    assert lines is not None
    assert {"install dccp /bin/false", "blacklist dccp", "install n_hdlc /bin/false"} <= set(lines)
    assert not {
        "install sctp /bin/false",
        "install can /bin/false",
        "install udf /bin/false",
    } & set(lines)
    strict = written(planned(look, profile="strict"), MODULES_FILE)
    assert {"install sctp /bin/false", "install udf /bin/false"} <= set(strict or [])


def test_a_module_in_use_is_left_out_and_named(look: Json) -> None:
    look["kernel"]["modules_loaded"] = ["atm", "udf"]
    plan = planned(look)
    assert "install atm /bin/false" not in (written(plan, MODULES_FILE) or [])
    found = row(plan, "module atm")
    assert found["state"] == "blocked"
    assert "docker_kernel_modules: {atm: false}" in found["reason"]
    assert "module udf" not in states(plan)
    assert "module atm" not in states(planned(look, modules={"atm": False}))


def test_a_published_sctp_port_keeps_sctp(look: Json) -> None:
    ports = [{"protocol": "sctp", "container_port": 9}, {"protocol": "tcp", "container_port": 80}]
    look["containers"] = [obs.container("phone", ports=ports), {**obs.container(), "config": None}]
    plan = planned(look, profile="strict")
    assert row(plan, "module sctp")["affected"] == ["phone"]
    assert "install sctp /bin/false" not in (written(plan, MODULES_FILE) or [])


def test_what_somebody_else_blocks_is_theirs(look: Json) -> None:
    look["kernel"]["modules_blocked"] = {"dccp": "/etc/modprobe.d/theirs.conf:1"}
    assert "install dccp /bin/false" not in (written(planned(look), MODULES_FILE) or [])


def test_single_modules_are_chosen_under_either_spelling(look: Json) -> None:
    lines = written(planned(look, modules={"udf": True, "n-hdlc": False}), MODULES_FILE)
    assert lines is not None
    assert "install udf /bin/false" in lines
    assert "install n_hdlc /bin/false" not in lines


def test_no_module_left_takes_the_file_away(look: Json) -> None:
    after = applied(look, planned(look))
    plan = planned(after, modules=dict.fromkeys(protection.MODULES, False))
    assert [(op["op"], op["path"]) for op in plan["operations"]] == [("file_absent", MODULES_FILE)]


# -- at boot ---------------------------------------------------------------------------------------
def test_parameters_at_boot_are_only_reported(look: Json) -> None:
    look["kernel"]["boot"] = {"slab_nomerge": ""}
    plan = planned(look)
    assert written(plan, BOOT_FILE) is None
    found = row(plan, "at boot")
    assert found["state"] == "held_back"
    assert "init_on_alloc=1" in found["wanted"]
    assert "slab_nomerge" not in found["wanted"]


def test_parameters_at_boot_are_written_on_request(look: Json) -> None:
    wanted = ["vsyscall=none", "init_on_alloc=1"]
    look["kernel"]["boot"] = {"vsyscall": "none"}
    plan = planned(look, boot_parameters=wanted)
    line = 'GRUB_CMDLINE_LINUX="$GRUB_CMDLINE_LINUX init_on_alloc=1 vsyscall=none"'
    assert written(plan, BOOT_FILE) == [line]
    assert states(plan)["at boot: vsyscall=none"] == "ok"
    pending = row(plan, "at boot: init_on_alloc=1")
    assert (pending["state"], pending["reason"]) == ("pending", "run update-grub and reboot")
    (op,) = [op for op in plan["operations"] if op.get("path") == BOOT_FILE]
    assert op["undo"] == "reboot"


def test_without_grub_nothing_is_written(look: Json) -> None:
    look["kernel"]["boot_directory"] = False
    plan = planned(look, boot_parameters=["slab_nomerge"])
    assert written(plan, BOOT_FILE) is None
    assert "has no /etc/default/grub.d" in row(plan, "at boot: slab_nomerge")["reason"]


# -- who owns what ---------------------------------------------------------------------------------
@pytest.mark.parametrize("path", [FILE, MODULES_FILE])
def test_a_file_that_somebody_changed_is_written_again(look: Json, path: str) -> None:
    after = applied(look, planned(look))
    for file in after["kernel"]["files"]:
        if file["path"] == path:
            file.update(version="10", sha256="0" * 64)
    assert [op["path"] for op in planned(after)["operations"]] == [path]


def test_a_foreign_file_that_is_not_wanted_is_let_go(look: Json) -> None:
    own(look, {"kind": "file", "path": BOOT_FILE, "version": "3", "intact": False})
    (op,) = [op for op in planned(look)["operations"] if op.get("path") == BOOT_FILE]
    assert (op["op"], op["kind"]) == ("disown", "file")


def test_uninstalling_gives_values_and_files_back(look: Json) -> None:
    after = applied(look, planned(look, profile="strict", boot_parameters=["slab_nomerge"]))
    after["bulkhead"]["state"] = "ok"
    own(after, item("kernel.warn_limit", intact=False))
    plan = uninstall_plan(after)
    kinds = {op["op"] for op in plan["operations"]}
    assert kinds == {"sysctl_restore", "file_absent", "disown"}
    assert {op["path"] for op in plan["operations"] if op["op"] == "file_absent"} == {
        FILE, MODULES_FILE, BOOT_FILE,
    }  # fmt: skip
    assert "sysctl kernel.yama.ptrace_scope" in states(plan)
    parse_plan({name: plan[name] for name in ("schema", "profile", "operations", "daemon")})


# -- what a host may say ---------------------------------------------------------------------------
@pytest.mark.parametrize("section", ["os", "engine", "kernel", "bulkhead"])
def test_a_section_that_is_missing_is_named(look: Json, section: str) -> None:
    look[section] = None
    with pytest.raises(AnsibleFilterError, match=f"section {section}"):
        docker_kernel_plan(look, {})


def test_an_older_observation_is_refused_with_the_fix() -> None:
    look = recorded("trixie-stock-used")
    del look["kernel"]
    with pytest.raises(AnsibleFilterError, match=r"section kernel .* gather it"):
        docker_kernel_plan(look, {})


@pytest.mark.parametrize("observation", [None, {}, {"schema": "x"}])
def test_what_is_no_observation_is_refused(observation: typing.Any) -> None:
    with pytest.raises(AnsibleFilterError, match=r"bulkhead\.observation/1"):
        docker_kernel_plan(observation, {})


def test_without_the_command_line_nothing_is_said_of_the_boot(look: Json) -> None:
    look["kernel"]["boot"] = None
    with pytest.raises(AnsibleFilterError, match="/proc/cmdline"):
        docker_kernel_plan(look, {})


VALUE = st.sampled_from(["", "0", "1", "2", "3", "4", "-1", "100", "4096", "65536", "999999", "x"])


@settings(max_examples=60, deadline=None)
@given(
    running=st.dictionaries(st.sampled_from(sysctls.NAMES), VALUE, max_size=12),
    profile=st.sampled_from(["compatible", "strict"]),
)
def test_no_host_is_weakened_and_each_is_done_after_one_plan(
    running: dict[str, str], profile: str
) -> None:
    look = obs.stock()
    for name, value in running.items():
        give(look, name, value)
    numeric = {n: v for n, v in running.items() if v.lstrip("-").isdigit()}
    odd = set(running) - set(numeric)
    plan = docker_kernel_plan(look, {"profile": profile})
    for name, value in values(plan).items():
        spec = kernel_plan.facts()["sysctls"][name]
        assert not kernel_plan.satisfied(spec, value, look["kernel"]["sysctls"][name]["value"])
    after = docker_kernel_plan(applied(look, plan), {"profile": profile})
    assert after["operations"] == []
    assert odd or parse_plan({k: plan[k] for k in ("schema", "profile", "operations", "daemon")})


def test_the_readme_lists_what_is_managed() -> None:
    text = (ROOT / "roles/docker_kernel/README.md").read_text()
    assert "\n".join(rows()) in text
    named = [*protection.MODULES, *(f"`{one}`" for one in kernel_plan.facts()["boot"])]
    assert [name for name in named if name not in text] == []
