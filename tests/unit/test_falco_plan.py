"""The planner of docker_falco: what Falco is told, where it can run, and what is refused."""

from __future__ import annotations

import copy
import hashlib
import json
import sys
import typing

import jsonschema
import pytest
import yaml
from ansible.errors import AnsibleFilterError

from ansible_collections.bulkhead.hardening.plugins.filter.docker_falco_plan import (
    docker_falco_plan,
)
from ansible_collections.bulkhead.hardening.plugins.module_utils import falco
from ansible_collections.bulkhead.hardening.plugins.module_utils.transaction_plan import parse_plan
from ansible_collections.bulkhead.hardening.plugins.plugin_utils import falco_rules, openpgp
from ansible_collections.bulkhead.hardening.plugins.plugin_utils.falco_plan import PACKAGE
from tests.unit import observations as obs
from tests.unit.checkout import ROOT

Json = dict[str, typing.Any]
SCHEMA = json.loads((ROOT / "docs/schemas/plan.schema.json").read_text())
KEY = (ROOT / "tests/fixtures/public-key.asc").read_text()
#: As GnuPG shows it.
FINGERPRINT = "D338AD7FECE9808EAB65F73500D229C5B0BBB318"
#: A rule of the user's.
RULE: Json = {
    "rule": "Mine",
    "desc": "mine",
    "condition": "evt.type = execve",
    "output": "mine",
    "priority": "WARNING",
    "tags": ["mine"],
}
EXCEPTION: Json = {
    "rule": "Terminal shell in container",
    "image": "registry.example/debug",
    "process": "bash",
    "reason": "Operators log in there",
    "owner": "platform",
    "expires": "2027-02-01",
}
REPOSITORY: Json = {
    "uris": "https://packages.example/deb",
    "suites": "stable",
    "components": "main",
    "key": KEY,
    "fingerprint": FINGERPRINT,
}


def unit(active: str = "inactive", file_state: str = "disabled", load: str = "loaded") -> Json:
    """Return what a look says of one unit."""
    return {
        "load_state": load,
        "active_state": active,
        "unit_file_state": file_state,
        "main_pid": 7 if active == "active" else None,
    }


@pytest.fixture
def look() -> Json:
    """Return a stock host with Falco installed and not started."""
    return obs.stock(
        falco={"installed": True, "container_plugin": True, "units": {falco.UNIT: unit()}},
        engine={"socket": "/run/docker.sock"},
    )


def planned(look: Json, **policy: typing.Any) -> Json:
    """Plan with Falco wanted, and check that the host would accept the plan."""
    plan = docker_falco_plan(look, {"enabled": True, **policy})
    wire = {name: plan[name] for name in ("schema", "profile", "operations", "daemon")}
    jsonschema.validate(wire, SCHEMA)
    parse_plan(wire)
    return plan


def refused(look: Json, **policy: typing.Any) -> str:
    """Return why a policy is refused."""
    with pytest.raises(AnsibleFilterError) as caught:
        planned(look, **policy)
    return str(caught.value)


def row(plan: Json, setting: str) -> Json:
    (found,) = [row for row in plan["settings"] if row["setting"] == setting]
    return typing.cast(Json, found)


def kinds(plan: Json) -> list[str]:
    return [op["op"] for op in plan["operations"]]


def written(plan: Json, path: str) -> typing.Any:
    """Return what a plan writes into a file, read as YAML."""
    (text,) = [op["content"] for op in plan["operations"] if op.get("path") == path]
    return yaml.safe_load(text)


def applied(look: Json, plan: Json) -> Json:
    """Return what a look shows once a plan was applied."""
    after = copy.deepcopy(look)
    owned = [{"kind": "service", "name": falco.UNIT, "intact": True}]
    for op in plan["operations"]:
        if op["op"] == "file_present":
            (file,) = [one for one in after["falco"]["files"] if one["path"] == op["path"]]
            file.update(version="9", sha256=hashlib.sha256(op["content"].encode()).hexdigest())
            owned.append({"kind": "file", "path": op["path"], "version": "9", "intact": True})
    after["falco"]["units"][falco.UNIT] = unit("active", "enabled")
    after["bulkhead"]["owned"] = {"docker_falco": owned}
    return after


# -- off, and where it cannot run ------------------------------------------------------------------
def test_by_default_nothing_is_done(look: Json) -> None:
    plan = docker_falco_plan(look, {})
    assert plan["operations"] == []
    assert row(plan, "runtime detection")["state"] == "unmanaged"


def test_by_default_no_falco_is_needed_and_no_look_at_it() -> None:
    look = obs.stock()
    del look["falco"]
    assert docker_falco_plan(look, {})["operations"] == []


def test_once_off_what_was_placed_is_taken_away(look: Json) -> None:
    after = applied(look, planned(look))
    plan = docker_falco_plan(after, {"enabled": False})
    assert sorted(kinds(plan)) == ["file_absent"] * 3 + ["service_back"]
    for item in after["bulkhead"]["owned"]["docker_falco"]:
        item["intact"] = False
    assert set(kinds(docker_falco_plan(after, {"enabled": False}))) == {"disown"}


@pytest.mark.parametrize(
    ("kernel", "runs"),
    [
        ("4.19.0-27-amd64", False),
        ("5.4.0-200-generic", False),
        ("5.7.19", False),
        ("5.8.0-63-generic", True),
        ("5.10.0-33-cloud-amd64", True),
        ("6.1.0-37-cloud-amd64", True),
        ("6.12.117+deb13-cloud-amd64", True),
        ("7.2.1+deb14-amd64", True),
        ("rolling", False),
    ],
)
def test_the_kernel_must_have_a_ring_buffer(look: Json, kernel: str, runs: bool) -> None:
    look["os"]["kernel"] = kernel
    plan = planned(look)
    if runs:
        assert "service_running" in kinds(plan)
    else:
        assert kinds(plan) == []
        assert row(plan, "runtime detection")["state"] == "not_applicable"
        reason = row(plan, "runtime detection")["reason"]
        assert (
            reason == f"the kernel is {kernel}; the BPF ring buffer that Falco needs came with 5.8"
        )


@pytest.mark.parametrize(
    ("section", "change", "word"),
    [
        ("falco", {"btf": False}, "does not tell its types (BTF, /sys/kernel/btf/vmlinux)"),
        ("kernel", {"lockdown": "confidentiality"}, "locked down (confidentiality)"),
        ("os", {"init": "other"}, "systemd does not run this host"),
        ("engine", {"state": "absent"}, "Docker is not installed"),
    ],
)
def test_where_it_cannot_run_nothing_is_done(
    look: Json, section: str, change: Json, word: str
) -> None:
    look[section].update(change)
    look["falco"]["installed"] = False  # nor is a package asked for
    plan = planned(look)
    assert kinds(plan) == []
    assert word in row(plan, "runtime detection")["reason"]


# -- where it comes from ---------------------------------------------------------------------------
def test_an_absent_package_without_a_source_names_the_variable(look: Json) -> None:
    look["falco"]["installed"] = False
    said = refused(look)
    assert said.startswith("docker_falco_package_file is ''")
    assert "docker_falco_repository" in said
    assert "docker_falco_enabled: false" in said


@pytest.mark.parametrize(
    "source",
    [{"package_file": "/srv/falco.deb", "package_sha256": "a" * 64}, {"repository": REPOSITORY}],
)
def test_a_source_is_for_the_role_to_install_from(look: Json, source: Json) -> None:
    look["falco"]["installed"] = False
    plan = planned(look, **source)
    assert kinds(plan) == []
    assert row(plan, PACKAGE)["state"] == "change"
    look["os"]["family"] = "redhat"
    assert "only packages of Debian and its kin" in refused(look, **source)


def test_a_source_beside_an_installed_falco_is_not_used(look: Json) -> None:
    plan = planned(look, package_file="/srv/falco.deb", package_sha256="a" * 64)
    assert [one for one in plan["settings"] if one["setting"] == PACKAGE] == []


@pytest.mark.parametrize(
    ("policy", "said"),
    [
        ({"package_file": "/f.deb"}, "docker_falco_package_sha256 is ''"),
        ({"package_file": "/f.deb", "package_sha256": "A" * 64}, "64 hexadecimal digits"),
        ({"package_file": "/f.deb", "package_sha256": "a" * 64, "repository": REPOSITORY}, "not both"),
        ({"repository": {**REPOSITORY, "fingerprint": "A" * 40}}, f"the key has {FINGERPRINT}"),
        ({"repository": {**REPOSITORY, "fingerprint": FINGERPRINT[-16:]}}, "give all 40 or 64"),
        ({"repository": {**REPOSITORY, "key": "no key"}}, "it is no armored public key"),
        ({"repository": {**REPOSITORY, "uris": "http://packages.example"}}, "https:// or file://"),
        ({"repository": {**REPOSITORY, "suites": "a b"}}, "name one"),
        ({"repository": {"uris": "https://packages.example"}}, "give uris, suites, components, key"),
        ({"output_journal": False}, "nobody would see an event"),
        ({"output_http": "http://collector.example/"}, "an address with https://"),
        ({"output_http": "https://me:secret@collector.example/"}, "without a password"),
        ({"journal_burst": -1}, "a whole number from 0 to 100000"),
        ({"queue_capacity": 1}, "a whole number from 100 to 1000000"),
        ({"priority": "loud"}, "choose from emergency"),
        ({"own_rules": "yse"}, "give true or false"),
        ({"sources": []}, "there is no such variable"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(look: Json, policy: Json, said: str) -> None:
    message = refused(look, **policy)
    assert said in message
    assert "secret" not in message


def test_a_fingerprint_may_be_written_in_groups(look: Json) -> None:
    grouped = " ".join(FINGERPRINT[at : at + 4] for at in range(0, 40, 4)).lower()
    planned(look, repository={**REPOSITORY, "fingerprint": grouped})


def test_a_key_that_was_cut_off_or_changed_is_refused() -> None:
    assert openpgp.fingerprints(KEY) == [FINGERPRINT]
    assert openpgp.fingerprints(KEY + KEY) == [FINGERPRINT] * 2
    lines = KEY.splitlines()
    changed = [*lines[:2], lines[2].replace("awh3", "awh4"), *lines[3:], ""]
    assert openpgp.fingerprints("\n".join(changed)) not in ([], [FINGERPRINT])
    older = [*lines[:2], lines[2].replace("mDME", "mDMD"), *lines[3:], ""]
    with pytest.raises(ValueError, match="of a version that is not known"):
        openpgp.fingerprints("\n".join(older))
    with pytest.raises(ValueError, match="ends too early"):
        openpgp.fingerprints("\n".join([*lines[:3], *lines[-1:], ""]))


# -- what it is told -------------------------------------------------------------------------------
def test_configuration_rules_and_service(look: Json) -> None:
    plan = planned(look)
    assert kinds(plan) == ["file_present"] * 3 + ["service_running"]
    config = written(plan, falco.CONFIG)
    assert config["engine"] == {"kind": "modern_ebpf"}
    assert config["syslog_output"] == {"enabled": True}
    assert config["file_output"]["enabled"] is False
    assert config["webserver"] == {"enabled": False}
    # A list would be added to the packaged one: a plugin that is loaded twice ends Falco.
    assert [key for key, value in config.items() if isinstance(value, list)] == ["append_output"]
    assert [one["rule"] for one in written(plan, falco.RULES)] == [
        one["rule"] for one in falco_rules.known()["ours"]
    ]
    dropin = next(op for op in plan["operations"] if op.get("path") == falco.DROPIN)["content"]
    assert "LogRateLimitBurst=1000\n" in dropin


def test_every_variable_shows(look: Json) -> None:
    plan = planned(
        look, output_journal=False, output_file=True, output_http="https://collector.example/f",
        queue_capacity=500, priority="notice", own_rules=False, rules=[RULE],
    )  # fmt: skip
    config = written(plan, falco.CONFIG)
    assert config["syslog_output"] == {"enabled": False}
    assert config["file_output"] == {
        "enabled": True, "keep_alive": False, "filename": "/var/log/falco-events.json",
    }  # fmt: skip
    assert config["http_output"] == {"enabled": True, "url": "https://collector.example/f"}
    assert config["outputs_queue"] == {"capacity": 500}
    assert config["priority"] == "notice"
    assert written(plan, falco.RULES) == [RULE]
    assert falco.DROPIN not in [op.get("path") for op in plan["operations"]]


def test_without_rules_there_is_no_file_of_rules(look: Json) -> None:
    plan = planned(look, own_rules=False, journal_burst=0)
    assert [op.get("path") for op in plan["operations"]] == [falco.CONFIG, None]


def test_a_host_that_complies_is_left_alone(look: Json) -> None:
    after = applied(look, planned(look))
    plan = planned(after)
    assert plan["operations"] == []
    assert {one["state"] for one in plan["settings"]} == {"ok"}


@pytest.mark.parametrize("shown", [unit("failed", "enabled"), unit("active", "disabled")])
def test_one_that_does_not_run_is_started(look: Json, shown: Json) -> None:
    after = applied(look, planned(look))
    after["falco"]["units"][falco.UNIT] = shown
    assert kinds(planned(after)) == ["service_running"]


def test_a_change_starts_it_anew(look: Json) -> None:
    after = applied(look, planned(look))
    assert kinds(planned(after, priority="error")) == ["file_present", "service_running"]
    assert kinds(planned(after, journal_burst=0)) == ["file_absent", "service_running"]


@pytest.mark.parametrize(
    ("units", "said"),
    [
        ({falco.UNIT: unit(), "falco-kmod.service": unit("active")}, "by falco-kmod.service"),
        ({}, f"has no {falco.UNIT}"),
        ({falco.UNIT: unit(load="masked")}, "is masked; unmask it first"),
    ],
)
def test_two_never_run_side_by_side(look: Json, units: Json, said: str) -> None:
    look["falco"]["units"] = units
    plan = planned(look)
    assert kinds(plan) == []
    assert row(plan, "runtime detection")["state"] == "blocked"
    assert said in row(plan, "runtime detection")["reason"]


def test_a_look_that_systemd_did_not_answer_is_not_planned_from(look: Json) -> None:
    look["falco"]["units"] = None
    assert "systemd did not answer" in refused(look)


@pytest.mark.parametrize(
    ("change", "state"),
    [
        ({}, "ok"),
        ({"engine": {"socket": "/var/run/docker.sock"}}, "ok"),
        # userns-remap moves the data root, and leaves the socket where it is.
        ({"engine": {"info": {"userns": True}}}, "ok"),
        ({"engine": {"socket": "/srv/docker.sock"}}, "not_applicable"),
        ({"falco": {"container_plugin": False}}, "not_applicable"),
    ],
)
def test_whether_names_of_containers_are_known(look: Json, change: Json, state: str) -> None:
    for section, values in change.items():
        look[section].update(values)
    assert row(planned(look), "names and images of containers")["state"] == state


# -- rules -----------------------------------------------------------------------------------------
def test_our_own_rules_have_the_shape_of_rules() -> None:
    known = falco_rules.known()
    assert falco_rules.check(known["ours"], "ours") == known["ours"]
    assert len(known["stable"]) == len(set(known["stable"])) == 25
    assert {item["rule"].split()[0] for item in known["ours"]} == {"Bulkhead"}
    for item in known["ours"]:
        # What an event tells is told again by logs: only what names rule, container and program.
        assert "cmdline" not in item["output"]
        assert "container.id" in item["output"]


GOOD: list[Json] = [
    RULE,
    {"macro": "mine", "condition": "evt.type = open"},
    {"list": "mine", "items": ["a", 1]},
    {"list": "shells", "items": ["zsh"], "override": {"items": "append"}},
    {"rule": "Terminal shell in container", "enabled": False, "override": {"enabled": "replace"}},
    {**RULE, "exceptions": [{"name": "mine", "fields": ["proc.name"], "values": [["a"]]}]},
]


@pytest.mark.parametrize("item", GOOD)
def test_rules_macros_and_lists_are_taken_as_they_are(look: Json, item: Json) -> None:
    assert written(planned(look, own_rules=False, rules=[item]), falco.RULES) == [item]


@pytest.mark.parametrize(
    ("item", "said"),
    [
        ("rule", "docker_falco_rules[0] is 'rule': make it a map"),
        ({"desc": "x"}, "one of rule, macro and list"),
        ({**RULE, "macro": "x"}, "one of rule, macro and list"),
        ({"rule": "Mine"}, "docker_falco_rules[0] is {'rule': 'Mine'}: a rule has desc, condition"),
        ({**RULE, "priority": "LOUD"}, "rules[0].priority is 'LOUD': one of"),
        ({**RULE, "priority": "notice\n"}, "one of emergency"),
        ({**RULE, "tags": "x"}, "docker_falco_rules[0].tags is 'x': make it a list"),
        ({**RULE, "tags": [{}]}, "docker_falco_rules[0].tags[0] is {}: give a text"),
        ({**RULE, "enabled": "no"}, "give true or false"),
        ({**RULE, "condition": " "}, "give a text"),
        ({**RULE, "outputs": "x"}, "docker_falco_rules[0] is 'outputs': a rule has"),
        ({**RULE, "append": True}, "docker_falco_rules[0].append is True: say override"),
        ({**RULE, "rule": "x\ny"}, "use letters, digits and plain signs"),
        ({**RULE, "exceptions": ["x"]}, "make it a map with name"),
        ({**RULE, "exceptions": [{"fields": []}]}, "of which only the name must be there"),
        ({**RULE, "exceptions": [{"name": "x", "field": []}]}, "name, fields, comps and values"),
        ({**RULE, "capture_duration": -1}, "a number of milliseconds"),
        ({"macro": "a b", "condition": "x"}, "letters, digits and _"),
        ({"macro": "x"}, "a macro has a condition"),
        ({"list": "x"}, "a list has items"),
        ({"list": "x", "items": [], "output": "x"}, "a list has list, items and override alone"),
        ({"list": "x", "items": [True]}, "give a text or a whole number"),
        ({"list": "x", "items": [1], "override": {"items": "add"}}, "append or replace"),
        ({"rule": "x y", "override": {"rule": "replace"}}, "are not overridden"),
        ({"rule": "x y", "override": {}}, "make it a map of fields"),
    ],
)
def test_what_is_no_rule_is_refused_on_the_controller(look: Json, item: object, said: str) -> None:
    assert said in refused(look, rules=[item])
    assert "docker_falco_rules[1]" in refused(look, rules=[RULE, item])


def test_the_schema_of_rules_is_one_and_says_how_to_put_right_whatever_fails() -> None:
    schema = falco_rules.schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    refusing = {"type", "pattern", "enum", "required", "minimum", "minProperties", "oneOf"}

    def mute(node: typing.Any, inside: str = "") -> list[Json]:
        if isinstance(node, list):
            return [found for one in node for found in mute(one, inside)]
        if not isinstance(node, dict):
            return []
        # Conditions and alternatives are asked, and fail without a word.
        told = "description" in node or inside in ("if", "not", "oneOf", "properties", "$defs")
        found = [node] if refusing & set(node) and not told else []
        return found + [one for name, value in node.items() for one in mute(value, name)]

    assert mute(schema) == []


@pytest.mark.parametrize("priority", falco_rules.PRIORITIES)
def test_a_priority_is_known_in_every_case(look: Json, priority: str) -> None:
    for written_so in (priority, priority.upper(), priority.capitalize()):
        planned(look, rules=[{**RULE, "priority": written_so}])


def test_without_the_library_rules_are_refused_and_nothing_else(
    look: Json, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "jsonschema", None)
    docker_falco_plan(look, {"enabled": True})
    with pytest.raises(AnsibleFilterError, match=r"docker_falco_rules .* library jsonschema"):
        docker_falco_plan(look, {"enabled": True, "rules": [RULE]})


def test_an_exception_stands_after_the_rules_with_its_reason(look: Json) -> None:
    plan = planned(look, rules=[RULE], exceptions=[EXCEPTION])
    text = next(op for op in plan["operations"] if op.get("path") == falco.RULES)["content"]
    assert "# Operators log in there (platform, until 2027-02-01)\n- rule: Terminal" in text
    assert written(plan, falco.RULES)[-1] == {
        "rule": "Terminal shell in container",
        "condition": 'and not (container.image.repository = "registry.example/debug" and '
        'proc.name = "bash")',
        "override": {"condition": "append"},
    }


def test_an_exception_ends_with_its_day(look: Json) -> None:
    look["collected_at"] = 1801526400.0  # 2027-02-02
    plan = planned(look, own_rules=False, exceptions=[EXCEPTION])
    assert falco.RULES not in [op.get("path") for op in plan["operations"]]
    name = "exception of Terminal shell in container"
    assert row(plan, name)["reason"] == "it ended on 2027-02-01"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"reason": None}, "give a line of text"),
        ({"reason": "two\nlines"}, "give a line of text"),
        ({"owner": ""}, "give a line of text"),
        ({"expires": "soon"}, "a day as 2027-01-31"),
        ({"image": None, "process": None}, "name an image or a process"),
        ({"image": 'x" or true or "'}, "name one, as Falco shows it"),
        ({"host": "web"}, "make it a map of rule, reason"),
    ],
)
def test_an_exception_says_what_why_and_how_long(look: Json, change: Json, said: str) -> None:
    assert said in refused(look, exceptions=[{**EXCEPTION, **change}])
