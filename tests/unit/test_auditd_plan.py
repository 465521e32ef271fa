"""The planner of docker_auditd, on observations recorded on real hosts and changed by hand."""

from __future__ import annotations

import copy
import hashlib
import typing

import pytest
from ansible.errors import AnsibleFilterError
from hypothesis import given, settings, strategies as st

from ansible_collections.bulkhead.hardening.plugins.filter.docker_auditd_plan import (
    docker_auditd_plan,
)
from ansible_collections.bulkhead.hardening.plugins.module_utils import audit_rules
from ansible_collections.bulkhead.hardening.plugins.module_utils.look_auditd import LOCKED
from ansible_collections.bulkhead.hardening.plugins.module_utils.transaction_plan import parse_plan
from ansible_collections.bulkhead.hardening.plugins.plugin_utils import audit_watch, auditd_plan
from tests.unit.test_daemon_plan_recorded import recorded, states

Json = dict[str, typing.Any]
EARLY, LATE = auditd_plan.EARLY_FILE, auditd_plan.LATE_FILE
DIRECTORIES = ("/etc", "/etc/docker", "/run/containerd", "/var/lib/docker", "/etc/containerd")
DROPINS = "/etc/systemd/system/docker.service.d"


@pytest.fixture
def look() -> Json:
    return recorded("trixie-stock-used")


def is_directory(path: str) -> bool:
    return path in (*DIRECTORIES, DROPINS)


def contents(plan: Json) -> dict[str, str]:
    return {op["path"]: op["content"] for op in plan["operations"] if op["op"] == "file_present"}


def lines(plan: Json, path: str = EARLY) -> list[str]:
    text = contents(plan).get(path, "")
    return [line for line in text.splitlines() if not line.startswith("#")]


def operations(plan: Json) -> list[tuple[str, str]]:
    return [(op["op"], op["path"]) for op in plan["operations"]]


def rule(text: str, **more: typing.Any) -> Json:
    found = audit_rules.parse(text.split(), is_directory)
    assert found is not None
    return {**found, "resolved": found["path"], **more}


def foreign(look: Json, line: str, *, persistent: bool = True) -> None:
    """Let a rule of somebody else's be in the kernel, and in a file of theirs."""
    look["audit"]["loaded"].append(rule(line))
    if persistent:
        place = {"file": "/etc/audit/rules.d/10-theirs.rules", "line": 1}
        look["audit"]["persistent"].append(rule(line, **place))


def applied(look: Json, plan: Json) -> Json:
    """Return what a look shows once a plan was applied."""
    after = copy.deepcopy(look)
    audit, owned = after["audit"], []
    for path, content in contents(plan).items():
        owned.append({"kind": "file", "path": path, "version": "9", "intact": True})
        if not path.startswith(audit_rules.RULES_DIRECTORY):
            after["files"].append({"path": path, "version": "9"})
            continue
        digest = hashlib.sha256(content.encode()).hexdigest()
        row = {"path": path, "version": "9", "sha256": digest, "generated": False}
        audit["rules_files"].append({**audit["rules_files"][0], **row})
        for number, found in audit_rules.read(content, is_directory):
            placed = {**found, "resolved": found["path"]}
            audit["persistent"].append({**placed, "file": path, "line": number})
    for op in plan["operations"]:
        if op["op"] == "audit_load":
            for _, found in audit_rules.read(contents(plan)[op["path"]], is_directory):
                kernel = audit_rules.decode(audit_rules.encode(found))
                audit["loaded"].append({**kernel, "resolved": kernel["path"]})
    after["bulkhead"]["owned"] = {"docker_auditd": owned}
    return after


# -- what is watched -------------------------------------------------------------------------------
def test_rules_come_from_where_this_host_keeps_things(look: Json) -> None:
    plan = docker_auditd_plan(look, {})
    assert lines(plan) == [
        "-a always,exit -F path=/var/lib/docker -F perm=wa -F key=docker",
        "-w /etc/containerd -p wa -k docker",
        "-w /etc/default/docker -p wa -k docker",
        "-w /etc/docker -p wa -k docker",
        f"-w {DROPINS} -p wa -k docker",
        "-w /run/docker.sock -p wa -k docker",
        "-w /usr/bin/containerd -p wa -k docker",
        "-w /usr/bin/containerd-shim -p wa -k docker",
        "-w /usr/bin/containerd-shim-runc-v1 -p wa -k docker",
        "-w /usr/bin/containerd-shim-runc-v2 -p wa -k docker",
        "-w /usr/lib/systemd/system/docker.service -p wa -k docker",
        "-w /usr/sbin/dockerd -p wa -k docker",
        "-w /usr/sbin/runc -p wa -k docker",
        "-w /var/lib/docker -p wa -F auid!=unset -k docker",
    ]
    assert lines(plan, LATE) == ["-i", "-w /run/containerd -p wa -k docker"]
    assert contents(plan)[auditd_plan.DROPIN].endswith(
        f"[Service]\nExecStartPost=-/usr/sbin/auditctl -R {LATE}\n"
    )
    assert operations(plan)[3:] == [("audit_load", EARLY), ("audit_load", LATE)]
    rows = {row["control"]: row["state"] for row in plan["settings"] if row["control"]}
    assert set(rows.values()) == {"change"}
    assert {"1.1.3", "1.1.4", "1.1.5", "1.1.9", "1.1.12", "1.1.18"} <= set(rows)
    parse_plan({**{k: plan[k] for k in ("schema", "profile", "operations", "daemon")}})


def test_every_object_is_then_watched_and_nothing_is_left_to_do(look: Json) -> None:
    after = applied(look, docker_auditd_plan(look, {}))
    plan = docker_auditd_plan(after, {})
    assert plan["operations"] == []
    assert {row["state"] for row in plan["settings"]} == {"ok", "not_applicable"}
    for thing in after["audit"]["objects"]:
        if thing["exists"]:
            sessions = thing["control"] == "1.1.5"
            rules = after["audit"]["loaded"]
            assert audit_watch.watched(thing, rules, "wa", sessions=sessions), thing
            assert audit_watch.watched(thing, rules, "wa") is not sessions


def test_the_file_does_not_change_with_the_order_of_what_is_found(look: Json) -> None:
    first = docker_auditd_plan(look, {})
    look["audit"]["objects"].insert(0, {
        "control": "1.1.7", "what": "docker.service", "exists": True, "type": "file",
        "path": f"{DROPINS}/50-bulkhead-audit.conf", "resolved": f"{DROPINS}/50-bulkhead-audit.conf",
    })  # fmt: skip
    look["audit"]["objects"].reverse()
    assert contents(docker_auditd_plan(look, {})) == contents(first)


def test_other_places_are_followed(look: Json) -> None:
    for thing in look["audit"]["objects"]:
        moves = {
            "1.1.3": "/opt/docker/dockerd",
            "1.1.5": "/srv/docker",
            "1.1.18": "/data/x/bin/runc",
        }
        if thing["control"] in moves:
            thing["path"] = thing["resolved"] = moves[thing["control"]]
    plan = docker_auditd_plan(look, {})
    # The directory of a program alone, which outlives the program; what may go away waits for Docker.
    assert "-w /opt/docker -p wa -k docker" in lines(plan)
    assert "-w /srv/docker -p wa -F auid!=unset -k docker" in lines(plan)
    assert "-w /data/x/bin/runc -p wa -k docker" in lines(plan, LATE)
    assert "/var/lib/docker" not in contents(plan)[EARLY]


def test_a_data_root_that_auditd_may_not_find_waits_for_docker(look: Json) -> None:
    for thing in look["audit"]["objects"]:
        if thing["control"] == "1.1.5":
            thing["path"] = thing["resolved"] = "/mnt/disk/docker"
    assert lines(docker_auditd_plan(look, {}), LATE) == [
        "-i",
        "-a always,exit -F path=/mnt/disk/docker -F perm=wa -F key=docker",
        "-w /mnt/disk/docker -p wa -F auid!=unset -k docker",
        "-w /run/containerd -p wa -k docker",
    ]


@pytest.mark.parametrize(("path", "there"), [("/etc/docker", True), ("/srv/none/etc", False)])
def test_a_directory_that_this_very_plan_may_make(look: Json, path: str, there: bool) -> None:
    thing = next(t for t in look["audit"]["objects"] if t["control"] == "1.1.6")
    thing.update(path=path, resolved=path, exists=False, type="absent")
    # Where the directory above is missing too, the kernel would not take the rule.
    assert (f"-w {path} -p wa -k docker" in str(contents(docker_auditd_plan(look, {})))) is there


def test_the_scope_of_the_data_root(look: Json) -> None:
    plan = docker_auditd_plan(look, {"data_root_scope": "recursive", "key": "dock"})
    assert [line for line in lines(plan) if "/var/lib/docker" in line] == [
        "-w /var/lib/docker -p wa -k dock"
    ]
    plan = docker_auditd_plan(look, {"data_root_scope": "unmanaged"})
    assert "/var/lib/docker" not in contents(plan)[EARLY]
    assert states(plan)["audit of /var/lib/docker"] == "unmanaged"


def test_what_is_not_to_be_watched(look: Json) -> None:
    plan = docker_auditd_plan(look, {"unwatched": ["/run/containerd", "/etc/docker"]})
    assert states(plan)["audit of /run/containerd/containerd.sock"] == "unmanaged"
    assert LATE not in contents(plan)
    assert auditd_plan.DROPIN not in contents(plan)
    assert "/etc/docker " not in contents(plan)[EARLY]


def test_a_link_to_nothing_is_not_watched() -> None:
    """A masked unit is a link to /dev/null, to which everybody writes."""
    look = recorded("trixie-masked")
    assert any(thing["resolved"] == "/dev/null" for thing in look["audit"]["objects"])
    assert "/dev/null" not in str(docker_auditd_plan(look, {})["operations"])


def test_a_path_that_no_rules_file_can_hold_is_blocked(look: Json) -> None:
    thing = next(t for t in look["audit"]["objects"] if t["control"] == "1.1.18")
    thing["path"] = thing["resolved"] = "/opt/my programs/runc"
    plan = docker_auditd_plan(look, {})
    row = next(row for row in plan["settings"] if row["state"] == "blocked")
    assert (row["control"], row["accept"]) == ("1.1.18", "docker_auditd_unwatched")
    assert "programs" not in str(plan["operations"])


# -- rules of others, and of the user --------------------------------------------------------------
def test_rules_of_others_are_not_repeated(look: Json) -> None:
    foreign(look, "-w /etc -p rwxa -k all")
    plan = docker_auditd_plan(look, {})
    assert "-w /etc/docker -p wa -k docker" not in lines(plan)
    assert states(plan)["audit of /etc/docker"] == "ok"


@pytest.mark.parametrize("line", ["-w /etc/docker -p r", "-a always,exit -F dir=/etc -F uid=0"])
def test_rules_of_others_that_record_less_do_not_count(look: Json, line: str) -> None:
    foreign(look, line)
    assert "-w /etc/docker -p wa -k docker" in lines(docker_auditd_plan(look, {}))


def test_a_rule_that_the_next_boot_forgets_does_not_count(look: Json) -> None:
    foreign(look, "-w /etc/docker -p wa -k theirs", persistent=False)
    assert "-w /etc/docker -p wa -k docker" in lines(docker_auditd_plan(look, {}))


@pytest.mark.parametrize(
    ("line", "persistent", "reason"),
    [
        (
            "-a never,task",
            True,
            "-a never,task of /etc/audit/rules.d/10-theirs.rules keeps the kernel",
        ),
        ("-a never,task", False, "-a never,task keeps the kernel"),
        (
            "-a never,exclude -F uid=0",
            True,
            "-a never,exclude -F uid=0 of /etc/audit/rules.d/10-theirs",
        ),
        ("-a never,exit -F uid=0", True, "-a never,exit -F uid=0 of /etc/audit/rules.d/10-theirs"),
    ],
)
def test_rules_of_others_that_silence_ours_are_told_and_left(
    look: Json, line: str, persistent: bool, reason: str
) -> None:
    foreign(look, line, persistent=persistent)
    more = {"rules": ["-w /srv/secrets -p wa"]}
    plan = docker_auditd_plan(look, more)
    after = docker_auditd_plan(applied(look, plan), more)
    for found in (plan, after):
        rows = [row for row in found["settings"] if row["control"]]
        assert {row["state"] for row in rows} == {"blocked"}
        assert all(reason in row["reason"] for row in rows)
    mine = states(after)["audit of /srv/secrets (yours)"]
    assert mine == ("ok" if "exit" in line else "blocked")
    # Ours are there for when the other one is gone.
    assert operations(plan)[3:] == [("audit_load", EARLY), ("audit_load", LATE)]
    assert after["operations"] == []


@pytest.mark.parametrize("call", ["execve", "connect", "fork,clone", "adjtimex"])
def test_a_rule_of_others_about_calls_that_access_no_files_silences_nothing(
    look: Json, call: str
) -> None:
    foreign(look, f"-a never,exit -F arch=b64 -S {call} -F uid=998")
    plan = docker_auditd_plan(look, {})
    assert "blocked" not in states(plan).values()
    assert "blocked" not in states(docker_auditd_plan(applied(look, plan), {})).values()


def test_a_rule_that_silences_the_tasks_of_the_next_boot(look: Json) -> None:
    plan = docker_auditd_plan(look, {})
    after = applied(look, plan)
    place = {"file": "/etc/audit/rules.d/audit.rules", "line": 9}
    after["audit"]["persistent"].append(rule("-a task,never", **place))
    assert states(docker_auditd_plan(after, {}))["audit of /etc/docker"] == "blocked"


def test_a_rule_of_others_that_comes_after_ours_silences_nothing(look: Json) -> None:
    plan = docker_auditd_plan(look, {})
    after = applied(look, plan)
    foreign(after, "-a never,exit -F uid=0")
    assert "blocked" not in states(docker_auditd_plan(after, {})).values()


def test_an_exception_of_the_users_is_none_of_others(look: Json) -> None:
    more = {"rules": ["-a never,exit -F dir=/var/lib/docker -F exe=/usr/bin/borg"]}
    plan = docker_auditd_plan(look, more)
    assert "blocked" not in states(docker_auditd_plan(applied(look, plan), more)).values()


def test_rules_of_the_users(look: Json) -> None:
    more = ["-w /srv/secrets -p rwa -k secrets", "-w /data/x/y -p wa",
            "-a never,exit -F dir=/run/containerd -F exe=/usr/bin/backup"]  # fmt: skip
    plan = docker_auditd_plan(look, {"rules": more})
    assert more[0] in lines(plan)
    # An exception comes first, also when it is loaded after others.
    assert lines(plan, LATE) == [
        "-i",
        "-A never,exit -F dir=/run/containerd -F exe=/usr/bin/backup",
        "-w /data/x/y -p wa",
        "-w /run/containerd -p wa -k docker",
    ]
    assert docker_auditd_plan(applied(look, plan), {"rules": more})["operations"] == []


@pytest.mark.parametrize(
    ("name", "value", "fix"),
    [
        ("rules", ["-w /etc/x -p wq"], "permissions are of r, w, x and a; write it as"),
        ("rules", ["-b 64"], "adds no rule"),
        ("rules", ["-w /etc/x\n-D"], "more than one line"),
        ("rules", ["-w '/etc/x'"], "quotes"),
        (
            "rules",
            ["-w /etc/x -p wa", "-w /etc/foo\t-p wa -k docker"],
            "such as a tab; write it as",
        ),
        ("rules", ["-w /etc/foo\r-p wa -k docker"], "no plain one"),
        ("rules", ["-w /etc/foo -p wa -k docker\r"], "no plain one"),
        ("rules", ["-w /etc/foo\x0b-p wa"], "no plain one"),
        ("rules", ["-w /etc/foo\u2028-p wa"], "no plain one"),
        ("rules", ["-w /etc/foo -p wa -k d\u00f6cker"], "no plain one"),
        ("rules", "-w /etc/x", "list of texts"),
        ("unwatched", ["etc"], "absolute"),
        ("data_root_scope", "all", "choose from sessions"),
        ("key", "my key", "letters"),
        ("install", "yse", "true or false"),
        ("backlog_limit", 5, "64 to"),
        ("backlog_limit", True, "64 to"),
        ("bcklog", 5, "no such variable"),
    ],
)
def test_a_bad_variable_is_named_with_its_fix(name: str, value: object, fix: str) -> None:
    with pytest.raises(AnsibleFilterError, match=rf"docker_auditd_{name} is .*{fix}"):
        docker_auditd_plan({}, {name: value})


# -- when it cannot take effect now ----------------------------------------------------------------
@pytest.mark.parametrize(
    ("path", "value", "reason"),
    [
        (("enabled",), LOCKED, "locked (-e 2)"),
        (("enabled",), 0, "audit is off"),
        (("auditd", "running"), False, "auditd does not run"),
    ],
)
def test_rules_that_wait(look: Json, path: tuple[str, ...], value: object, reason: str) -> None:
    place = look["audit"]
    for name in path[:-1]:
        place = place[name]
    place[path[-1]] = value
    plan = docker_auditd_plan(look, {})
    assert {kind for kind, _ in operations(plan)} == {"file_present"}
    waiting = [row for row in plan["settings"] if row["state"] == "pending"]
    assert len(waiting) == 15
    assert all(reason in row["reason"] for row in waiting)
    after = docker_auditd_plan(applied(look, plan), {})
    assert after["operations"] == []


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"auditd": {"installed": False}}, "docker_auditd_install: true"),
        ({"loaded": None, "reason": "Protocol not supported"}, "Protocol not supported"),
    ],
)
def test_hosts_on_which_there_is_nothing_to_do(look: Json, change: Json, reason: str) -> None:
    look["audit"].update(change)
    plan = docker_auditd_plan(look, {})
    assert plan["operations"] == []
    assert [row["state"] for row in plan["settings"]] == ["not_applicable"]
    assert reason in plan["settings"][0]["reason"]


def test_without_docker_there_is_nothing_to_do() -> None:
    plan = docker_auditd_plan(recorded("trixie-absent"), {})
    assert (plan["operations"], len(plan["settings"])) == ([], 1)


def test_without_the_section_nothing_is_planned(look: Json) -> None:
    look["audit"] = None
    with pytest.raises(AnsibleFilterError, match="section audit"):
        docker_auditd_plan(look, {})


# -- later runs ------------------------------------------------------------------------------------
def test_rules_that_were_dropped_are_loaded_again(look: Json) -> None:
    after = applied(look, docker_auditd_plan(look, {}))
    after["audit"]["loaded"] = []
    assert operations(docker_auditd_plan(after, {})) == [
        ("audit_load", EARLY),
        ("audit_load", LATE),
    ]


def test_a_file_that_somebody_changed_is_written_again(look: Json) -> None:
    after = applied(look, docker_auditd_plan(look, {}))
    after["bulkhead"]["owned"]["docker_auditd"][0]["intact"] = False
    assert operations(docker_auditd_plan(after, {})) == [("file_present", EARLY)]


def test_what_is_not_wanted_any_more_is_given_back(look: Json) -> None:
    after = applied(look, docker_auditd_plan(look, {}))
    policy = {"unwatched": ["/run"]}
    assert operations(docker_auditd_plan(after, policy))[1:] == [
        ("file_absent", LATE),
        ("file_absent", auditd_plan.DROPIN),
    ]
    after["bulkhead"]["owned"]["docker_auditd"][1]["intact"] = False
    assert ("disown", LATE) in operations(docker_auditd_plan(after, policy))


def test_the_backlog_is_reported_and_changed_on_request(look: Json) -> None:
    name = "records that may wait for auditd"
    look["audit"].update(backlog_limit=64, rate_limit=100)
    plan = docker_auditd_plan(look, {})
    assert states(plan)[name] == "held_back"
    assert states(plan)["records a second at most"] == "held_back"
    plan = docker_auditd_plan(look, {"backlog_limit": 16384})
    assert lines(plan, auditd_plan.BACKLOG_FILE) == ["-b 16384"]
    assert states(plan)[name] == "pending"
    look["audit"]["backlog_limit"] = 16384
    assert states(docker_auditd_plan(look, {"backlog_limit": 16384}))[name] == "ok"


PATHS = st.lists(
    st.sampled_from(["etc", "docker", "opt", "usr", "bin", "run", "srv", "x y", "data", "lib"]),
    min_size=1, max_size=5,
).map(lambda parts: "/" + "/".join(parts))  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(
    st.dictionaries(st.integers(0, 15), st.tuples(PATHS, st.sampled_from(["file", "directory"]))),
    st.sampled_from(["sessions", "recursive", "unmanaged"]),
)
def test_wherever_things_are_a_second_run_has_nothing_to_do(
    places: dict[int, tuple[str, str]], scope: str
) -> None:
    look = recorded("trixie-stock-used")
    kinds: dict[str, str] = {}
    for number, (path, kind) in places.items():
        thing = look["audit"]["objects"][number]
        # One path is one thing.
        kind = kinds.setdefault(path, "directory" if thing["control"] == "1.1.5" else kind)
        thing.update(path=path, resolved=path, exists=True, type=kind)
    plan = docker_auditd_plan(look, {"data_root_scope": scope})
    known = {t["resolved"]: t["type"] for t in look["audit"]["objects"] if t["exists"]}

    def directory(path: str) -> bool:
        below = any(one.startswith(path + "/") for one in known)
        return known.get(path) == "directory" or below or path == DROPINS

    for path in (EARLY, LATE):
        for _, found in audit_rules.read(contents(plan).get(path, ""), directory):
            assert audit_rules.encode(found)
            early = found["path"].rpartition("/")[0] or "/"
            assert path == LATE or early in auditd_plan.EVERYWHERE
            look["audit"]["loaded"].append({**found, "resolved": found["path"]})
    again = docker_auditd_plan(look, {"data_root_scope": scope})
    assert [op for op in again["operations"] if op["op"] == "audit_load"] == []
    assert contents(again) == contents(plan)
