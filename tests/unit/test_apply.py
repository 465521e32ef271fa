"""The transaction, on a host below a directory whose daemon reads its file and keeps containers."""

from __future__ import annotations

import json
import os
import threading
import typing

import pytest

from ansible_collections.bulkhead.hardening.plugins.module_utils import (
    ledger,
    transaction,
    transaction_files,
    validate,
)
from ansible_collections.bulkhead.hardening.plugins.module_utils.transaction import apply
from ansible_collections.bulkhead.hardening.plugins.module_utils.transaction_plan import (
    SLICE,
    SLICE_GROUP,
)
from ansible_collections.bulkhead.hardening.plugins.plugin_utils import daemon_plan, daemon_policy

from .fakes import (
    CONFIG,
    ActHost,
    accounts,
    act_host,
    file_absent,
    file_present,
    json_remove,
    json_set,
    operation,
    plan,
)

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="changes owners, as root does")

Json = dict[str, typing.Any]
DROPIN = "/etc/systemd/system/docker-.scope.d/10-bulkhead.conf"


@pytest.fixture
def host() -> typing.Iterator[ActHost]:
    with act_host() as built:
        yield built


@pytest.fixture
def used() -> typing.Iterator[ActHost]:
    """A stock host that is in use: a foreign key, two containers."""
    with act_host('{\n    "debug": true\n}\n', ["web", "db"]) as built:
        yield built


def outcome(answer: Json) -> str:
    return str(answer["transaction"]["outcome"])


def status(answer: Json) -> dict[str, str]:
    return {row["step"]: row["status"] for row in answer["transaction"]["steps"]}


def test_strict_on_an_empty_host(host: ActHost) -> None:
    answer = apply(
        host,
        plan(
            *accounts(host),
            json_set(host, "userns-remap", "bulkhead-userns"),
            json_set(host, "icc", False),
            json_set(host, "log-opts", "10m", member="max-size"),
            json_set(host, "log-opts", "3", member="max-file"),
            file_present(host, DROPIN, "[Scope]\nTasksMax=512\n"),
            effect="restart",
            profile="strict",
        ),
    )
    assert outcome(answer) == "committed", answer["msg"]
    assert answer["changed"] is True
    assert answer["transaction"]["daemon_restarts"] == 1
    assert host.config() == {
        "userns-remap": "bulkhead-userns",
        "icc": False,
        "log-opts": {"max-size": "10m", "max-file": "3"},
    }
    assert "bulkhead-userns:300000:65536\n" in (host.base / "etc/subuid").read_text()
    assert host.calls == [
        "groupadd --system bulkhead-userns",
        "useradd --system --gid bulkhead-userns --no-create-home --home-dir /nonexistent "
        "--shell /usr/sbin/nologin bulkhead-userns",
        "usermod --add-subuids 300000-365535 --add-subgids 300000-365535 bulkhead-userns",
        "dockerd --validate",
        "systemctl daemon-reload",
        "systemctl reset-failed docker.service",
        "systemctl restart docker.service",
    ]
    observation = answer["observation"]
    assert observation["bulkhead"]["profile"] == "strict"
    assert observation["bulkhead"]["open_transaction"] is None
    kinds = [item["kind"] for item in observation["bulkhead"]["owned"]["docker_daemon"]]
    assert sorted(kinds) == ["file", "group", *["json_key"] * 4, "subids", "user"]
    assert all(item["intact"] for item in observation["bulkhead"]["owned"]["docker_daemon"])
    assert observation["engine"]["config_loaded"] is True
    assert observation["witness"]["exit_code"] == 0
    assert observation["witness"]["kernel"]["cap_eff"] == "00000000a80425fb"
    assert host.daemon.images == {}
    assert observation["containers"] == []


def test_the_look_tells_whether_the_same_would_be_written_again(host: ActHost) -> None:
    host.write("/opt/runsc", "", 0o755)
    runtime = {"path": "/opt/runsc", "runtimeArgs": ["--debug"]}
    answer = apply(host, plan(json_set(host, "runtimes", runtime, member="gvisor")))
    assert outcome(answer) == "committed", answer["msg"]
    seen = answer["observation"]
    assert seen["daemon_config"]["keys"]["runtimes"]["members"]["gvisor"]["redacted"] is True
    (item,) = seen["bulkhead"]["owned"]["docker_daemon"]
    assert item["verifier"] == ledger.verifier("runtimes", "gvisor", ledger.value_digest(runtime))
    assert ledger.value_digest(runtime) not in json.dumps(seen)
    assert "--debug" not in json.dumps(seen)
    rest = dict.fromkeys(daemon_policy.COMPATIBLE, "unmanaged")
    for argument, changes in (("--debug", 0), ("--strace", 1)):
        wanted = {"gvisor": {"path": "/opt/runsc", "runtimeArgs": [argument]}}
        policy = daemon_policy.read({**rest, "options": {"runtimes": wanted}})
        assert len(daemon_plan.plan(seen, policy)["operations"]) == changes


def test_compatible_on_a_used_host_keeps_containers(used: ActHost) -> None:
    before = used.pids()
    answer = apply(
        used,
        plan(
            json_set(used, "live-restore", True),
            json_set(used, "log-opts", "10m", member="max-size"),
            effect="restart",
            live_restore_first=True,
        ),
    )
    assert outcome(answer) == "committed", answer["msg"]
    assert used.pids() == before
    rows = {row["name"]: row for row in answer["running_containers"]}
    assert {name: row["pid_before"] for name, row in rows.items()} == before
    assert {name: row["pid_after"] for name, row in rows.items()} == before
    assert used.calls == [
        "dockerd --validate",
        "systemctl reload docker.service",
        "systemctl reset-failed docker.service",
        "systemctl restart docker.service",
    ]
    assert (used.base / CONFIG.lstrip("/")).read_text() == (
        '{\n    "debug": true,\n    "live-restore": true,\n    "log-opts": {\n'
        '        "max-size": "10m"\n    }\n}\n'
    )
    assert answer["transaction"]["daemon_reloads"] == 1


def test_empty_plan_writes_nothing(host: ActHost) -> None:
    before = host.tree(times=True)
    answer = apply(host, plan())
    assert (outcome(answer), answer["changed"]) == ("nothing", False)
    assert host.tree(times=True) == before


def test_check_mode_writes_nothing_at_all(used: ActHost) -> None:
    before = used.tree(times=True)
    answer = apply(
        used,
        plan(
            *accounts(used),
            json_set(used, "live-restore", True),
            json_set(used, "userns-remap", "bulkhead-userns"),
            file_present(used, DROPIN, "[Scope]\nTasksMax=512\n"),
            effect="reload",
        ),
        check_mode=True,
    )
    assert outcome(answer) == "checked", answer["msg"]
    assert answer["changed"] is True
    assert used.tree(times=True) == before
    assert used.calls == []
    shown = {row["after_header"]: row for row in answer["diff"]}
    assert set(shown) == {"/etc/group", "/etc/passwd", "/etc/subuid", "/etc/subgid", DROPIN, CONFIG}
    assert json.loads(shown[CONFIG]["before"]) == {"debug": "(kept)"}
    assert json.loads(shown[CONFIG]["after"]) == {
        "debug": "(kept)",
        "live-restore": True,
        "userns-remap": "bulkhead-userns",
    }


def test_applying_again_changes_nothing(host: ActHost) -> None:
    def again() -> Json:
        return apply(
            host,
            plan(
                json_set(host, "live-restore", True),
                file_present(host, DROPIN, "[Scope]\nTasksMax=512\n"),
            ),
        )

    assert again()["changed"] is True
    before = host.tree()
    answer = again()
    assert (outcome(answer), answer["changed"], answer["diff"]) == ("committed", False, [])
    assert host.tree() == before


# -- refusals ----------------------------------------------------------------------------------------
def refused(host: ActHost, raw: Json, *words: str) -> Json:
    """Apply a plan that must be refused with these words, and change nothing."""
    before = host.tree()
    pids = host.pids()
    answer = apply(host, raw)
    assert outcome(answer) == "refused"
    assert answer["failed"] is True
    assert answer["changed"] is False
    for word in words:
        assert word in answer["msg"]
    assert host.tree() == before
    assert host.pids() == pids
    assert host.calls == []
    return answer


def test_refuses_what_changed_since_the_look(used: ActHost) -> None:
    raw = plan(json_set(used, "icc", False))
    used.write(CONFIG, '{"debug": false}\n')
    refused(used, raw, CONFIG, "changed since the look; run again")


@pytest.mark.parametrize(
    ("content", "word"),
    [
        ('{"icc": }', "line 1 column 9"),
        ("[]", "not an object"),
        ('{"icc": true, "icc": false}', "'icc' is there twice"),
        ('{"icc": NaN}', "NaN"),
    ],
)
def test_refuses_a_broken_daemon_json(used: ActHost, content: str, word: str) -> None:
    used.write(CONFIG, content)
    refused(used, plan(json_set(used, "live-restore", True)), CONFIG, word)


def test_a_byte_order_mark_stays() -> None:
    with act_host('\ufeff{"debug": true}\n') as host:
        answer = apply(host, plan(json_set(host, "icc", False), effect="restart"))
        assert outcome(answer) == "committed", answer["msg"]
        content = (host.base / CONFIG.lstrip("/")).read_text()
        assert content.startswith("\ufeff")
        assert json.loads(content[1:]) == {"debug": True, "icc": False}


@pytest.mark.parametrize(
    "content", [b"\xff\xfe{\x00}\x00", b"// ours\n{}"], ids=["UTF-16", "comment"]
)
def test_refuses_what_is_no_json_in_utf8(used: ActHost, content: bytes) -> None:
    (used.base / CONFIG.lstrip("/")).write_bytes(content)
    refused(used, plan(json_set(used, "live-restore", True)), CONFIG)


@pytest.mark.parametrize(
    ("version", "content", "word"),
    [
        ("20.10.24", b"\xef\xbb\xbf{}", "Docker Engine 20.10.24 does not start"),
        ("23.0.6", b"\xef\xbb\xbf{}", "save it without one"),
        ("24.0.0", b"\xef\xbb\xbf{}", None),
        (None, b"\xef\xbb\xbf{}", None),
        ("20.10.24", b"{}", None),
        ("20.10.24", None, None),
    ],
)
def test_a_byte_order_mark_and_old_engines(
    version: str | None, content: bytes | None, word: str | None
) -> None:
    said = validate.mark_problem(version, content)
    assert said is None if word is None else word in str(said)


def test_refuses_a_link(used: ActHost) -> None:
    target = used.base / CONFIG.lstrip("/")
    target.rename(used.base / "etc/elsewhere.json")
    target.symlink_to("/etc/elsewhere.json")
    refused(used, plan(json_set(used, "icc", False)), "is a link")


def test_refuses_a_link_on_the_way(host: ActHost) -> None:
    (host.base / "etc/docker").rename(host.base / "etc/docker.real")
    (host.base / "etc/docker").symlink_to("docker.real")
    refused(host, plan(json_set(host, "icc", False)), "/etc/docker is a link")


@pytest.mark.parametrize("path", [CONFIG, "/etc/docker"])
def test_refuses_immutable(used: ActHost, monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    monkeypatch.setattr(used, "attributes", lambda p: ["immutable"] if p == path else [])
    refused(used, plan(json_set(used, "icc", False)), path, "immutable", "chattr")


def test_refuses_a_read_only_file_system(used: ActHost, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transaction_files, "free_space", lambda h, p: (1 << 40, -1, True))
    refused(used, plan(json_set(used, "icc", False)), "read-only")


def test_refuses_a_full_disk(used: ActHost, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transaction_files, "free_space", lambda h, p: (1000, -1, False))
    refused(used, plan(json_set(used, "icc", False)), "1000 bytes")


@pytest.mark.parametrize(("state", "fix"), [("masked", "unmask"), ("not-found", "install")])
@pytest.mark.parametrize("effect", ["reload", "restart"])
def test_refuses_a_daemon_without_its_unit(
    used: ActHost, state: str, fix: str, effect: str
) -> None:
    """It runs on, but systemd would neither reload it nor start it again."""
    used.service.update(LoadState=state)
    raw = plan(json_set(used, "live-restore", True), effect=effect)
    refused(used, raw, "docker.service", state, fix)


def test_refuses_a_unit_that_cannot_reload(used: ActHost) -> None:
    """As systemd makes one of an init script when the package's unit is missing."""
    generated = "/run/systemd/generator.late/docker.service"
    used.service.update(CanReload="no", FragmentPath=generated)
    used.write(generated, "[Service]\nExecStart=/etc/init.d/docker start\n")
    raw = plan(json_set(used, "live-restore", True), effect="reload")
    refused(used, raw, "docker.service", generated, "ExecReload")


def test_refuses_an_unknown_key(used: ActHost) -> None:
    raw = plan(json_set(used, "default-pids-limit", 100))
    refused(used, raw, "default-pids-limit", "26.1.5", "would not start")


def test_refuses_a_flag(used: ActHost) -> None:
    refused(used, plan(json_set(used, "hosts", ["fd://"])), "hosts", "flag")


def test_refuses_a_restart_that_ends_containers(used: ActHost) -> None:
    raw = plan(json_set(used, "icc", False), effect="restart")
    refused(used, raw, "db, web", "live-restore")


def test_refuses_userns_under_live_restore() -> None:
    with act_host('{"live-restore": true}', ["web"]) as host:
        raw = plan(
            *accounts(host),
            json_set(host, "userns-remap", "bulkhead-userns"),
            effect="restart",
            allow_container_restart=True,
        )
        refused(host, raw, "web", "stop them first")


@pytest.mark.parametrize("start", [34465, 100000, 165535])
def test_refuses_overlapping_ids(host: ActHost, start: int) -> None:
    refused(host, plan(*accounts(host, start=start)), "overlaps 100000:65536 of ann")


def test_refuses_ids_of_users(host: ActHost) -> None:
    host.write("/etc/passwd", "root:x:0:0::/:/bin/sh\nldap:x:310000:310000::/:/bin/sh\n")
    refused(host, plan(*accounts(host)), "310000 of ldap")


@pytest.mark.parametrize(
    ("raw", "word"),
    [
        ([], "plan is not an object"),
        ({"schema": "bulkhead.plan/2"}, "lacks"),
        (dict(plan(), schema="bulkhead.plan/2"), "this release applies 'bulkhead.plan/1'"),
        (plan(operation("shell", command="x")), "must be one of"),
        (plan(operation("json_set", path=CONFIG, key="icc", value=True)), "lacks observed"),
        (plan(operation("group_present", name="x", gid=3)), "unknown field: gid"),
        (plan(operation("group_present", name="../x")), "is not a user or group name"),
        (plan(operation("file_absent", path="/etc/passwd", observed="1")), "is not below one of"),
        (plan(operation("file_absent", path="/etc/docker/../passwd", observed="1")), "plain path"),
        (plan(operation("json_set", path="/etc/passwd", key="k", value=1, observed="absent")),
         "changed since"),
        (dict(plan(), daemon={"effect": "stop", "why": [], "live_restore_first": False}),
         "plan.daemon.effect is 'stop'"),
    ],
)  # fmt: skip
def test_refuses_what_is_no_plan(host: ActHost, raw: typing.Any, word: str) -> None:
    refused(host, raw, word)


def test_refuses_json_elsewhere(host: ActHost) -> None:
    host.write("/etc/docker/other.json", "{}")
    raw = plan(
        operation(
            "json_set", path="/etc/docker/other.json", key="icc", value=False,
            observed=host.version("/etc/docker/other.json"),
        )
    )  # fmt: skip
    refused(host, raw, "the daemon reads " + CONFIG)


def test_refuses_a_broken_daemon(host: ActHost) -> None:
    host.daemon.stop()
    host.stopped("failed", "failed", Result="exit-code")
    refused(host, plan(json_set(host, "icc", False), effect="restart"), "not well before")


def test_refuses_a_state_directory_of_others(host: ActHost) -> None:
    state = host.base / "var/lib/bulkhead"
    state.mkdir(mode=0o700)
    os.chown(state, 1000, 1000)
    refused(host, plan(json_set(host, "icc", False)), "/var/lib/bulkhead", "only root may enter")


def test_refuses_a_newer_ledger(host: ActHost) -> None:
    (host.base / "var/lib/bulkhead").mkdir(mode=0o700)
    host.write("/var/lib/bulkhead/ledger.json", '{"schema": "bulkhead.ledger/9"}')
    refused(host, plan(json_set(host, "icc", False)), "newer", "bulkhead.ledger/9")


# -- failures ----------------------------------------------------------------------------------------
def rolled_back(host: ActHost, raw: Json, step: str, *words: str) -> Json:
    """Apply a plan that must fail at a step, and leave everything as it was."""
    before, effective = host.tree(), host.daemon.effective
    mtime = host.lstat(CONFIG).st_mtime_ns if host.lstat(CONFIG) else None
    names = set(host.pids())
    answer = apply(host, raw)
    assert (outcome(answer), answer["transaction"]["failed_step"]) == ("rolled_back", step), answer
    for word in words:
        assert word in answer["msg"]
    assert host.tree() == before
    assert (host.lstat(CONFIG).st_mtime_ns if host.lstat(CONFIG) else None) == mtime
    assert set(host.pids()) == names
    assert ledger.open_transaction(host) is None
    assert host.daemon.images == {}
    assert not any("bulkhead" in item["Name"] for item in host.daemon.containers.values())
    assert status(answer)["before_images"] == "undone"
    assert answer["observation"]["bulkhead"]["owned"] == {}
    defaults = {"live-restore": False, "debug": False}
    assert {**defaults, **host.daemon.effective} == {**defaults, **effective}
    return answer


def test_validation_failure(host: ActHost) -> None:
    host.validate_says = "unable to configure the Docker daemon with file: boo"
    raw = plan(
        *accounts(host),
        json_set(host, "userns-remap", "bulkhead-userns"),
        file_present(host, DROPIN, "[Scope]\n"),
        effect="restart",
    )
    rolled_back(host, raw, "validate", "dockerd --validate", "boo")
    assert "systemctl restart docker.service" not in host.calls


def test_daemon_does_not_come_back(used: ActHost) -> None:
    used.daemon.refuses = lambda document: "no such thing" if "bip" in document else None
    before = used.pids()
    raw = plan(
        json_set(used, "live-restore", True),
        json_set(used, "bip", "10.1.2.3/24"),
        effect="restart",
        live_restore_first=True,
    )
    answer = rolled_back(
        used, raw, "daemon", "did not start", "failed to start daemon: no such thing"
    )
    # The containers outlived the failed start and the start after it, although the file of before
    # has no live-restore.
    assert used.pids() == before
    assert answer["transaction"]["daemon_restarts"] == 2
    assert used.daemon.effective["live-restore"] is False


def test_daemon_does_not_come_back_on_a_host_with_live_restore() -> None:
    with act_host('{"live-restore": true}', ["web"]) as host:
        host.daemon.refuses = lambda document: "no" if "bip" in document else None
        before = host.pids()
        raw = plan(json_set(host, "bip", "10.1.2.3/24"), effect="restart")
        rolled_back(host, raw, "daemon", "did not start")
        assert host.pids() == before


def test_witness_fails(used: ActHost) -> None:
    used.daemon.witness_error = "OCI runtime create failed: seccomp: decoding failed"
    before = used.pids()
    raw = plan(
        json_set(used, "live-restore", True),
        json_set(used, "no-new-privileges", True),
        effect="restart",
        live_restore_first=True,
    )
    rolled_back(used, raw, "health", "throw-away container", "decoding failed")
    assert used.pids() == before


def test_witness_ignores_its_signal(host: ActHost) -> None:
    host.daemon.witness_code = 1
    rolled_back(host, plan(json_set(host, "debug", True), effect="reload"), "health", "SIGTERM")


def test_reload_is_not_reported(used: ActHost) -> None:
    used.daemon.ignores_reload = True
    before = used.tree()
    answer = apply(used, plan(json_set(used, "live-restore", True), effect="reload"))
    # The rollback's reload is not confirmed either, so the transaction stays open for the next run.
    assert outcome(answer) == "rollback_failed"
    assert "did not report the reload" in answer["msg"]
    used.daemon.ignores_reload = False
    answer = apply(used, plan(json_set(used, "debug", False)))
    assert status(answer)["recover"] == "done"
    assert used.tree() == before


def test_option_does_not_show(host: ActHost, monkeypatch: pytest.MonkeyPatch) -> None:
    publish = host.daemon._publish

    def lie() -> None:
        publish()
        host.engine.answers["/info"]["LoggingDriver"] = "json-file"

    monkeypatch.setattr(host.daemon, "_publish", lie)
    raw = plan(json_set(host, "log-driver", "local"), effect="restart")
    rolled_back(host, raw, "health", "log-driver is 'json-file' instead of 'local'")


@pytest.mark.parametrize("enforced", ["500", "max", "700", None])
def test_a_slice_counts_only_when_the_kernel_bounds_it(host: ActHost, enforced: str | None) -> None:
    if enforced:
        host.write("/sys/fs/cgroup/bulkhead.slice/pids.max", enforced + "\n")
    raw = plan(
        file_present(host, SLICE, "[Slice]\nTasksMax=500\n"),
        json_set(host, "cgroup-parent", SLICE_GROUP),
        effect="restart",
    )
    if enforced == "500":
        answer = apply(host, raw)
        assert outcome(answer) == "committed", answer["msg"]
        (step,) = (row for row in answer["transaction"]["steps"] if row["step"] == "health")
        assert "bounded to 500 processes" in step["detail"]
    else:
        rolled_back(host, raw, "health", "containers would not be bounded")


def test_reload_that_fails_is_taken_back(used: ActHost) -> None:
    """What vanishes from the file keeps its value at a reload, so the default is spelled out."""
    used.daemon.witness_error = "no"
    raw = plan(json_set(used, "live-restore", True), effect="reload")
    rolled_back(used, raw, "health")
    assert used.daemon.effective == {"debug": True, "live-restore": False}


def test_icc_is_pending_while_containers_run() -> None:
    with act_host('{"live-restore": true}', ["web"]) as host:
        answer = apply(host, plan(json_set(host, "icc", False), effect="restart"))
        assert outcome(answer) == "committed", answer["msg"]
        details = {row["step"]: row["detail"] for row in answer["transaction"]["steps"]}
        assert "icc is True instead of False until no container runs" in details["health"]


def test_container_without_policy_is_started_again(used: ActHost) -> None:
    raw = plan(json_set(used, "bip", "10.1.2.3/24"), effect="restart", allow_container_restart=True)
    answer = apply(used, raw)
    assert outcome(answer) == "committed", answer["msg"]
    assert set(used.pids()) == {"web", "db"}


def test_a_bug_of_ours_is_rolled_back(host: ActHost, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*arguments: object) -> str:
        raise KeyError("oops")

    monkeypatch.setattr(
        transaction,
        "STEPS",
        tuple(s._replace(action=broken) if s.name == "health" else s for s in transaction.STEPS),
    )
    raw = plan(json_set(host, "icc", False), effect="restart")
    rolled_back(host, raw, "health", "KeyError")


# -- without a running daemon -------------------------------------------------------------------------
@pytest.mark.parametrize("state", ["stopped", "masked", "absent"])
def test_files_are_placed_for_the_next_start(state: str) -> None:
    with act_host() as host:
        host.daemon.stop()
        if state == "absent":
            host.without_docker()
            (host.base / "etc/docker").rmdir()
        elif state == "masked":
            host.service.update(
                LoadState="masked", UnitFileState="masked", FragmentPath="/dev/null"
            )
        answer = apply(
            host,
            plan(json_set(host, "icc", False), file_present(host, DROPIN, "x"), effect="restart"),
        )
        assert outcome(answer) == "committed", answer["msg"]
        row = next(r for r in answer["transaction"]["steps"] if r["step"] == "daemon")
        assert row["status"] == "skipped"
        assert row["detail"] == "takes effect when the daemon starts (it is %s)" % state
        assert host.config() == {"icc": False}
        assert (host.base / "etc/docker").stat().st_mode & 0o7777 == 0o755
        assert (host.base / CONFIG.lstrip("/")).stat().st_mode & 0o7777 == 0o644
        assert not any("restart" in call for call in host.calls)
        assert answer["observation"]["witness"] is None


# -- ownership ----------------------------------------------------------------------------------------
def test_removing_puts_back_what_was_replaced() -> None:
    text = (
        '{\n\t"icc": true,\n\t"mtu"  : 1400,\n"dns": [ "10.0.0.1" ],\n'
        '\t"log-opts": {"max-file": "9", "tag": "x"}\n}'
    )
    with act_host() as host:
        host.write(CONFIG, text)
        apply(
            host,
            plan(
                json_set(host, "icc", False),
                json_set(host, "live-restore", True),
                json_set(host, "log-opts", "3", member="max-file"),
                json_set(host, "log-opts", "10m", member="max-size"),
            ),
        )
        assert host.config() == {
            "icc": False, "mtu": 1400, "dns": ["10.0.0.1"], "live-restore": True,
            "log-opts": {"max-file": "3", "tag": "x", "max-size": "10m"},
        }  # fmt: skip
        answer = apply(
            host,
            plan(
                json_remove(host, "icc"),
                json_remove(host, "live-restore"),
                json_remove(host, "log-opts", member="max-file"),
                json_remove(host, "log-opts", member="max-size"),
            ),
        )
        assert outcome(answer) == "committed", answer["msg"]
        assert (host.base / CONFIG.lstrip("/")).read_text() == text
        assert host.ledger()["owned"] == {}


def test_removing_the_last_key_removes_what_we_created(host: ActHost) -> None:
    (host.base / "etc/docker").rmdir()
    before = host.tree()
    apply(
        host,
        plan(
            json_set(host, "log-opts", "3", member="max-file"),
            json_set(host, "log-opts", "1m", member="max-size"),
            file_present(host, DROPIN, "x"),
        ),
    )
    apply(host, plan(json_remove(host, "log-opts", member="max-file")))
    assert host.config() == {"log-opts": {"max-size": "1m"}}
    answer = apply(
        host, plan(json_remove(host, "log-opts", member="max-size"), file_absent(host, DROPIN))
    )
    assert outcome(answer) == "committed", answer["msg"]
    assert host.tree() == before
    assert host.ledger()["directories"] == []


def test_removing_a_file_puts_the_former_one_back(host: ActHost) -> None:
    host.write(DROPIN, "[Scope]\n# mine\n", mode=0o600)
    apply(host, plan(file_present(host, DROPIN, "[Scope]\nTasksMax=5\n")))
    answer = apply(host, plan(file_absent(host, DROPIN)))
    assert outcome(answer) == "committed", answer["msg"]
    target = host.base / DROPIN.lstrip("/")
    assert (target.read_text(), target.stat().st_mode & 0o777) == ("[Scope]\n# mine\n", 0o600)


def test_foreign_things_are_not_removed(used: ActHost) -> None:
    used.write(DROPIN, "x")
    refused(used, plan(json_remove(used, "debug")), "debug was not set by Bulkhead")
    refused(used, plan(file_absent(used, DROPIN)), "was not placed by Bulkhead")


def test_changed_things_are_not_removed_but_disowned(host: ActHost) -> None:
    apply(host, plan(json_set(host, "icc", False), file_present(host, DROPIN, "x")))
    host.write(CONFIG, '{"icc": true}')
    host.write(DROPIN, "y")
    del host.calls[:]
    refused(host, plan(json_remove(host, "icc")), "changed by somebody else", "disown")
    refused(host, plan(file_absent(host, DROPIN)), "changed by somebody else", "disown")
    before = host.tree()
    answer = apply(
        host,
        plan(
            operation("disown", kind="json_key", path=CONFIG, key="icc"),
            operation("disown", kind="file", path=DROPIN),
        ),
    )
    assert (outcome(answer), answer["changed"]) == ("committed", True)
    assert host.tree() == before
    assert host.ledger()["owned"] == {}


# -- modes ----------------------------------------------------------------------------------------------
def test_modes_of_files_and_live_sockets(host: ActHost) -> None:
    socket = host.base / "run/docker.sock"
    socket.chmod(0o666)
    inode = socket.lstat().st_ino
    host.write(CONFIG, "{}", mode=0o664)
    raw = plan(
        operation(
            "mode", path="/run/docker.sock", mode="0660", owner=None, group="docker",
            observed=host.version("/run/docker.sock"),
        ),
        operation(
            "mode", path=CONFIG, mode="0644", owner="root", group=None, observed=host.version(CONFIG)
        ),
    )  # fmt: skip
    answer = apply(host, raw)
    assert outcome(answer) == "committed", answer["msg"]
    st = socket.lstat()
    assert (st.st_mode & 0o7777, st.st_gid, st.st_ino) == (0o660, 102, inode)
    assert (host.base / CONFIG.lstrip("/")).stat().st_mode & 0o777 == 0o644


def test_modes_elsewhere_are_refused(host: ActHost) -> None:
    raw = plan(
        operation("mode", path="/etc/passwd", mode="0600", owner=None, group=None,
                  observed=host.version("/etc/passwd"))
    )  # fmt: skip
    refused(host, raw, "none of the files whose mode may be changed")


# -- two at once ---------------------------------------------------------------------------------------
def test_a_second_transaction_waits_and_is_refused(
    host: ActHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    entered, leave = threading.Event(), threading.Event()

    def slow(tx: typing.Any) -> str:
        entered.set()
        assert leave.wait(20)
        return "slow"

    original = transaction.STEPS
    slow_steps = tuple(s._replace(action=slow) if s.name == "modes" else s for s in original)
    answers: list[Json] = []
    raw = plan(json_set(host, "icc", False))
    monkeypatch.setattr(transaction, "STEPS", slow_steps)
    first = threading.Thread(target=lambda: answers.append(apply(host, raw)))
    first.start()
    assert entered.wait(20)
    second = apply(host, plan(json_set(host, "debug", True)))
    assert outcome(second) == "refused"
    assert "another transaction" in second["msg"]
    leave.set()
    first.join()
    assert outcome(answers[0]) == "committed", answers[0]["msg"]
    assert host.config() == {"icc": False}


def test_a_reload_is_known_to_be_loaded(used: ActHost) -> None:
    answer = apply(used, plan(json_set(used, "live-restore", True), effect="reload"))
    assert outcome(answer) == "committed", answer["msg"]
    assert answer["observation"]["engine"]["config_loaded"] is True
    used.write(CONFIG, '{"debug": true, "live-restore": true, "mtu": 3}')
    assert transaction.look.observe(used)["engine"]["config_loaded"] is False


def test_a_change_of_files_keeps_the_proof_of_what_is_loaded(used: ActHost) -> None:
    apply(used, plan(json_set(used, "live-restore", True), effect="reload"))
    answer = apply(used, plan(file_present(used, DROPIN, "[Scope]\n")))
    assert outcome(answer) == "committed", answer["msg"]
    assert answer["observation"]["engine"]["config_loaded"] is True


def test_a_mode_that_we_set_does_not_look_like_a_new_content(used: ActHost) -> None:
    (used.base / CONFIG.lstrip("/")).chmod(0o664)
    used.daemon.stop()
    used.daemon.start()
    raw = plan(
        operation("mode", path=CONFIG, mode="0644", owner=None, group=None,
                  observed=used.version(CONFIG))
    )  # fmt: skip
    answer = apply(used, raw)
    assert outcome(answer) == "committed", answer["msg"]
    assert answer["observation"]["engine"]["config_loaded"] is True


def test_a_rollback_keeps_the_proof_of_what_is_loaded(used: ActHost) -> None:
    used.daemon.witness_error = "no"
    raw = plan(json_set(used, "live-restore", True), effect="reload")
    answer = rolled_back(used, raw, "health")
    assert answer["observation"]["engine"]["config_loaded"] is True


def test_modes_are_put_back(host: ActHost) -> None:
    socket = host.base / "run/docker.sock"
    socket.chmod(0o666)
    before = host.tree()
    apply(host, plan(
        operation("mode", path="/run/docker.sock", mode="0660", owner=None, group="docker",
                  observed=host.version("/run/docker.sock"))
    ))  # fmt: skip
    assert socket.lstat().st_mode & 0o7777 == 0o660
    answer = apply(host, plan(
        operation("mode_restore", path="/run/docker.sock", observed=host.version("/run/docker.sock"))
    ))  # fmt: skip
    assert outcome(answer) == "committed", answer["msg"]
    assert [row["after"] for row in answer["diff"]] == ["0666 0:0\n"]
    assert (host.tree(), host.ledger()["owned"]) == (before, {})
    assert socket.lstat().st_mode & 0o7777 == 0o666


def test_modes_of_others_are_not_put_back(host: ActHost) -> None:
    path = "/run/docker.sock"
    raw = plan(operation("mode_restore", path=path, observed=host.version(path)))
    refused(host, raw, path, "was not set by Bulkhead")
    apply(host, plan(operation("mode", path=path, mode="0600", owner=None, group=None,
                               observed=host.version(path))))  # fmt: skip
    (host.base / "run/docker.sock").chmod(0o640)
    raw = plan(operation("mode_restore", path=path, observed=host.version(path)))
    refused(host, raw, path, "changed by somebody else")


# -- secrets -------------------------------------------------------------------------------------------
def test_what_the_engine_says_is_shown_without_secrets() -> None:
    token = "0123-secret-4567"
    config = json.dumps({"log-driver": "splunk", "log-opts": {"splunk-token": token}})
    with act_host(config) as host:
        host.validate_says = "invalid log-opts: %s is no token" % token
        answer = rolled_back(
            host, plan(json_set(host, "debug", True), effect="restart"), "validate"
        )
        assert "is no token" in answer["msg"]
        assert token not in json.dumps(answer)
        host.validate_says = None
        host.daemon.refuses = lambda document: (
            "cannot log to %s" % token if "bip" in document else None
        )
        answer = rolled_back(
            host,
            plan(json_set(host, "bip", "10.1.2.3/24"), effect="restart"),
            "daemon",
            "cannot log to",
        )
        assert token not in json.dumps(answer)


def test_the_diff_hides_what_somebody_wrote_into_our_file(host: ActHost) -> None:
    apply(host, plan(file_present(host, DROPIN, "[Scope]\nTasksMax=1\n")))
    host.write(DROPIN, "[Scope]\n# password: hunter2\n")
    raw = plan(file_present(host, DROPIN, "[Scope]\nTasksMax=2\n"))
    diff = apply(host, raw, check_mode=True)["diff"]
    assert "hunter2" not in json.dumps(diff)
    assert "TasksMax=2" in diff[0]["after"]
