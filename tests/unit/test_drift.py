# Copyright: (c) 2026, the Bulkhead authors
# Apache License 2.0 (see LICENSE)
"""What is found to have drifted, by whom, and how it is told; and the play that a fleet is watched with."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import typing
from pathlib import Path

import jsonschema
import pytest
from ansible.errors import AnsibleFilterError
from prometheus_client import parser

from ansible_collections.bulkhead.hardening.plugins.filter.docker_daemon_plan import (
    docker_daemon_plan,
)
from ansible_collections.bulkhead.hardening.plugins.filter.docker_drift import docker_drift
from ansible_collections.bulkhead.hardening.plugins.filter.drift_report import drift_report
from ansible_collections.bulkhead.hardening.plugins.filter.plan_summary import plan_summary
from ansible_collections.bulkhead.hardening.plugins.plugin_utils import plan
from tests.unit import answers, observations as obs
from tests.unit.checkout import ROOT
from tests.unit.test_uninstall_plan import FILE, KEY, MEMBER

Json = dict[str, typing.Any]
SCHEMA = json.loads((ROOT / "docs/schemas/drift.schema.json").read_text())
AT = "2026-11-26T14:00:00+00:00"

#: A transaction that took effect at 2026-01-02 03:04:05 UTC.
APPLIED: Json = {"id": "20260102T030405Z-000000", "outcome": "committed", "at": 1767323045}


def gone(item: Json) -> Json:
    """Return an owned thing that somebody else changed."""
    return {**item, "intact": False}


def host(*items: Json, keys: Json | None = None, **left: typing.Any) -> Json:
    """Return the observation of a host to which something was applied."""
    look = obs.with_file(obs.stock(), keys or {})
    look["bulkhead"].update(
        state="ok", profile="strict", owned={"docker_daemon": list(items)} if items else {},
        open_transaction=None, transactions=[APPLIED],
    )  # fmt: skip
    look["bulkhead"].update(left)
    return look


def found(look: Json, **policy: typing.Any) -> Json:
    """Plan for a host and return what drifted, checked against the schema."""
    unmanaged = dict.fromkeys(
        ("icc", "live_restore", "no_new_privileges", "userland_proxy", "seccomp_profile", "log_opts",
         "ulimits", "pids_limit", "file_modes", "userns_remap"), "unmanaged",
    )  # fmt: skip
    drifted = docker_drift(look, docker_daemon_plan(look, {**unmanaged, **policy}))
    jsonschema.validate(json.loads(drift_report({"web": drifted}, "json", AT)), SCHEMA)
    return drifted


def test_a_host_as_it_was_applied_has_no_findings() -> None:
    drifted = found(host(KEY, keys={"icc": False}), icc=False)
    assert (drifted["state"], drifted["findings"]) == ("as_applied", [])
    assert drifted["last"] == {"id": APPLIED["id"], "at": APPLIED["at"]}


def test_a_key_that_somebody_changed_is_theirs_to_explain_and_ours_to_mend() -> None:
    (finding,) = found(host(gone(KEY), keys={"icc": True}), icc=False)["findings"]
    assert finding == {
        "kind": "changed", "what": "icc", "where": "/etc/docker/daemon.json", "owner": "docker_daemon",
        "wanted": False, "effective": True, "reason": "somebody else changed or removed it since",
    }  # fmt: skip


def test_a_change_that_a_run_would_not_mend_says_why() -> None:
    """A daemon that has not read its file yet would take up what somebody wrote there besides."""
    look = obs.with_file(host(gone(KEY)), {"icc": True, "data-root": "/srv/docker"}, loaded=False)
    look["engine"]["options"]["data-root"]["effective"] = "/var/lib/docker"
    finding = found(look, icc=False)["findings"][0]
    assert finding["what"] == "icc"
    assert "a run would not mend it: needs a restart" in finding["reason"]


def test_a_member_and_a_file_are_found_too() -> None:
    findings = found(host(gone(MEMBER), gone(FILE)), log_opts={"max-size": "9m"})["findings"]
    assert [(f["kind"], f["what"]) for f in findings] == [
        ("changed", "log-opts.max-size"),
        ("changed", FILE["path"]),
    ]


def test_a_profile_that_the_kernel_lost_is_a_change() -> None:
    profile = {**FILE, "path": "/etc/apparmor.d/docker-web", "profile": "docker-web"}
    look = host(owned={"docker_apparmor": [{**profile, "in_kernel": False}]})
    (finding,) = found(look)["findings"]
    assert "the kernel does not hold it" in finding["reason"]
    assert (
        found(host(owned={"docker_apparmor": [{**profile, "in_kernel": True}]}))["findings"] == []
    )


#: In daemon.json, where the daemon tells nobody what it made of it.
LOGS: Json = {"log-opts": {"max-size": "10m"}}


def edited(*items: Json) -> Json:
    """Return a host on which somebody wrote a key of their own into daemon.json since the daemon read it."""
    return obs.with_file(host(*items), {**LOGS, "debug": True}, loaded=False)


def test_keys_that_somebody_left_in_a_file_that_they_changed_are_said_once() -> None:
    look = edited(MEMBER, {**KEY, "key": "no-new-privileges"})
    look["daemon_config"]["keys"]["no-new-privileges"] = {"type": "boolean", "value": True}
    del look["engine"]["options"]["no-new-privileges"]
    (finding,) = found(look, no_new_privileges=True, log_opts=LOGS["log-opts"])["findings"]
    assert (finding["kind"], finding["what"]) == ("unapplied", "/etc/docker/daemon.json")
    assert finding["owner"] == "docker_daemon"
    assert finding["reason"].endswith("still in it: no-new-privileges, log-opts")


def test_keys_beside_one_that_was_changed_are_explained_by_it() -> None:
    (finding,) = found(edited(MEMBER, gone(KEY)), log_opts=LOGS["log-opts"])["findings"]
    assert (finding["kind"], finding["what"]) == ("changed", "icc")


def test_a_newer_policy_is_unapplied_whatever_else_waits_for_the_daemon() -> None:
    findings = found(edited(MEMBER), log_opts={"max-size": "9m"})["findings"]
    assert [(f["kind"], f["what"]) for f in findings] == [("unapplied", "log-opts")]


def test_of_a_map_a_finding_says_what_was_wanted_of_its_member() -> None:
    look = host(gone(MEMBER), keys={"log-opts": {"max-size": "1g", "max-file": "3"}})
    (finding,) = found(look, log_opts={"max-size": "9m", "max-file": "3"})["findings"]
    assert (finding["what"], finding["wanted"], finding["effective"]) == (
        *("log-opts.max-size", "9m"),
        "1g",
    )


@pytest.mark.parametrize(
    ("item", "setting", "role"),
    [
        ({"path": "/etc/docker/seccomp/a.json"}, "seccomp profile /etc/docker/seccomp/a.json",
         "docker_seccomp"),
        ({"path": "/etc/apparmor.d/docker-web", "profile": "docker-web"}, "AppArmor profile docker-web",
         "docker_apparmor"),
        ({"kind": "selinux_module", "name": "web"}, "SELinux module web", "docker_selinux"),
    ],
)  # fmt: skip
def test_a_changed_thing_is_said_once_however_the_plan_calls_it(
    item: Json, setting: str, role: str
) -> None:
    look = host(owned={role: [gone({**FILE, **item})]})
    change = plan.row(setting, f"{role}_profiles", "change", wanted="a", effective="b")
    whole = {**plan.empty(), "roles": [role], "settings": [change]}
    (finding,) = docker_drift(look, whole)["findings"]
    assert (finding["kind"], finding["wanted"], finding["effective"]) == ("changed", "a", "b")


def test_settings_that_hold_by_a_changed_file_are_named_with_it() -> None:
    path = "/etc/audit/rules.d/50-bulkhead-docker.rules"
    look = host(owned={"docker_auditd": [gone({**FILE, "path": path})]})
    rules = [
        plan.row(f"audit of {place}", "docker_auditd_rules", "change", effective="not recorded")
        for place in ("/etc/docker", "/usr/bin/runc")
    ]
    ours = plan.row("icc", "docker_daemon_icc", "change", wanted=False)
    whole = {**plan.empty(), "roles": ["docker_auditd", "docker_daemon"]}
    findings = docker_drift(look, {**whole, "settings": [*rules, ours]})["findings"]
    assert [(f["kind"], f["what"]) for f in findings] == [("changed", path), ("unapplied", "icc")]
    assert findings[0]["reason"].endswith("went audit of /etc/docker, audit of /usr/bin/runc")


def test_what_the_policy_asks_for_and_nobody_touched_is_unapplied() -> None:
    (finding,) = found(host(keys={"debug": True}), icc=False)["findings"]
    assert (finding["kind"], finding["what"], finding["owner"]) == (
        "unapplied",
        "icc",
        "docker_daemon",
    )


def test_a_host_that_nothing_was_applied_to_is_told_from_one_that_drifted() -> None:
    look = host(keys={}, state="absent", transactions=[])
    drifted = found(look, icc=False)
    assert (drifted["state"], len(drifted["findings"])) == ("never", 1)


def test_a_run_that_was_cut_off_is_a_finding() -> None:
    look = host(open_transaction={"id": "x", "step": "swap", "started_at": 1.0})
    assert [f["kind"] for f in found(look)["findings"]] == ["open"]


def test_what_waits_or_is_blocked_is_no_drift() -> None:
    look = host(keys={"icc": False})
    look["engine"].update(state="stopped", reason="inactive", info=None, options={})
    drifted = found(look, icc=False)
    assert drifted["findings"] == []
    assert [row["state"] for row in drifted["waiting"]] == ["pending"]


def test_a_host_without_a_look_is_unknown() -> None:
    drifted = docker_drift({}, {}, "no route")
    assert drifted["state"] == "unknown"
    assert drifted["findings"][0]["reason"] == "no route"


def test_a_broken_look_is_said_to_be_one() -> None:
    plan = docker_daemon_plan(obs.stock(), {})
    with pytest.raises(AnsibleFilterError, match="is not of schema"):
        docker_drift({"bulkhead": {"owned": []}}, plan)


# -- the plan's summary ----------------------------------------------------------------------------
def test_a_plan_says_who_set_what_somebody_else_changed() -> None:
    """As beside a role that writes the whole of daemon.json, geerlingguy.docker for one."""
    look = host(gone(KEY), gone(MEMBER), keys={"storage-driver": "overlay2"})
    told = plan_summary(docker_daemon_plan(look, {"icc": False}), look)
    assert told[0] == (
        "CHANGED SINCE  /etc/docker/daemon.json: icc, log-opts.max-size (set by docker_daemon at "
        "2026-01-02 03:04:05 UTC, changed by somebody else since; if another tool manages it, let one of "
        "the two do so)"
    )
    assert not told[1].startswith("CHANGED SINCE")


# -- reports ---------------------------------------------------------------------------------------
HOSTILE = 'web"|<b>\x1b[2J\n{{ 7 * 7 }}'


def fleet() -> dict[str, Json]:
    """Return what was found on three hosts."""
    return {
        "b": found(host(gone(KEY), keys={"icc": True}), icc=False),
        "a": found(host(KEY, keys={"icc": False}), icc=False),
        HOSTILE: docker_drift(None, reason=HOSTILE),
    }


def test_hosts_stand_in_order_and_are_counted() -> None:
    report = json.loads(drift_report(fleet(), "json", AT))
    assert [row["host"] for row in report["hosts"]] == ["a", "b", HOSTILE]
    assert report["states"] == {"as_applied": 1, "drifted": 1, "never": 0, "unknown": 1}
    assert drift_report(fleet(), "kinds") == {"changed": 1, "unknown": 1}


def test_lines_say_what_is_there_what_was_wanted_and_whose_it_is() -> None:
    lines = drift_report(fleet(), "lines")
    assert lines[0].startswith(
        "b  changed    icc: off wanted, on in effect; owned by docker_daemon (somebody"
    )
    assert lines[-1] == "1 as applied, 1 drifted, 1 unknown"
    assert all(line.isprintable() for line in lines)


def test_markdown_holds_what_a_host_said_as_text_alone() -> None:
    text = drift_report(fleet(), "markdown", AT)
    assert "| b | icc | docker\\_daemon | changed | off | on |" in text
    assert "<b>" not in text
    assert "\x1b" not in text
    assert {line.count(" | ") for line in text.splitlines() if line.startswith("| ")} == {6}


def test_markdown_and_lines_are_bounded() -> None:
    many = {f"h{number:04}": docker_drift(None) for number in range(1000)}
    assert len(drift_report(many, "lines")) < 210
    assert "800 more are in the JSON report" in drift_report(many, "markdown", AT)


def test_prometheus_can_read_it() -> None:
    families = parser.text_string_to_metric_families(drift_report(fleet(), "prometheus", AT))
    samples = [sample for family in families for sample in family.samples]
    values = {(s.labels.get("host"), s.labels.get("kind")): s.value for s in samples}
    assert values["b", "changed"] == 1
    assert values["a", "changed"] == 0
    assert values[None, None] == 1795701600
    assert len(samples) == 3 * 4 + 1


def test_slices_become_one_report_in_which_the_newest_of_a_host_counts() -> None:
    hosts = fleet()
    early = {"a": docker_drift(None), HOSTILE: hosts[HOSTILE]}
    parts = [(hosts, AT), (early, "2026-11-26T13:00:00+00:00")]
    slices = [json.loads(drift_report(part, "json", at)) for part, at in parts]
    both = json.loads(drift_report(slices, "json"))
    jsonschema.validate(both, SCHEMA)
    assert both == json.loads(drift_report(hosts, "json", AT))


@pytest.mark.parametrize(
    ("what", "form", "says"),
    [({}, "pdf", "form is 'pdf'"), ("text", "json", "takes what docker_drift found")],
)
def test_wrong_input_is_refused_in_words(what: typing.Any, form: str, says: str) -> None:
    with pytest.raises(AnsibleFilterError, match=says):
        drift_report(what, form)


# -- the play --------------------------------------------------------------------------------------
def test_the_play_reports_on_hosts_that_answer_and_on_those_that_do_not(tmp_path: Path) -> None:
    look = json.loads((ROOT / "tests/fixtures/observations/audit-hardened.json").read_text())
    look["bulkhead"].update(
        state="ok", owned={"docker_daemon": [gone(KEY)]}, transactions=[APPLIED]
    )
    answers.collection(tmp_path / "collections", look)
    (tmp_path / "plays").mkdir()
    for name in ("selected", "drift"):
        shutil.copy(ROOT / f"playbooks/{name}.yml", tmp_path / "plays")
    local = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
    hosts = {"web": local, "away": {"ansible_host": "127.0.0.1", "ansible_port": 1}}
    (tmp_path / "hosts.yml").write_text(json.dumps({"docker_hosts": {"hosts": hosts}}))
    own = {name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")}
    done = subprocess.run(
        [
            *("ansible-playbook", "--inventory", "hosts.yml", "--extra-vars"),
            json.dumps({"ansible_become": False, "docker_audit_formats": ["json"]}),
            "plays/drift.yml",
        ],
        cwd=tmp_path,
        check=False,
        capture_output=True,
        text=True,
        timeout=300,
        env={
            **own,
            "ANSIBLE_COLLECTIONS_PATH": str(tmp_path / "collections"),
            "ANSIBLE_NOCOLOR": "1",
        },
    )
    assert done.returncode == 2, done.stdout + done.stderr
    report = json.loads((tmp_path / "reports/drift/drift.json").read_text())
    jsonschema.validate(report, SCHEMA)
    states = {row["host"]: row["state"] for row in report["hosts"]}
    assert states == {"web": "drifted", "away": "unknown"}
    assert "docker_harden_drift_fail_on names: changed, unapplied, unknown" in done.stdout
    assert "Failed to connect" in json.dumps(report["hosts"][0]["findings"])
    for name in ("drift.json", "drift.md", "drift.prom"):
        assert (tmp_path / "reports/drift" / name).stat().st_mode & 0o777 == 0o600
    assert json.loads((tmp_path / "reports/audit/result.json").read_text())["hosts"]
