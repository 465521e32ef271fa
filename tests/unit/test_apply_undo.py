"""Undoing a committed transaction on request: a transaction of its own."""

from __future__ import annotations

import json
import os
import typing

import pytest

from ansible_collections.bulkhead.hardening.plugins.module_utils import (
    history,
    ledger,
    look,
    retention,
)
from ansible_collections.bulkhead.hardening.plugins.module_utils.transaction import apply
from ansible_collections.bulkhead.hardening.plugins.module_utils.transaction_undo import undo

from .fakes import (
    CONFIG,
    ActHost,
    Killed,
    accounts,
    act_host,
    file_absent,
    file_present,
    json_remove,
    json_set,
    operation,
    plan,
)
from .test_apply_crash import CASES, Countdown, build, prepare, state

#: Cases before which a transaction made what they change or take away.
PREPARED = ("reload", "rules", "profiles", "parameters", "selinux")

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="changes owners, as root does")

Json = dict[str, typing.Any]
DROPIN = "/etc/systemd/system/docker-.scope.d/10-bulkhead.conf"
STATE = "/var/lib/bulkhead"
NOTHING = plan(operation("disown", kind="user", name="nobody"))


def committed(host: ActHost, raw: Json) -> str:
    answer = apply(host, raw)
    assert answer["transaction"]["outcome"] == "committed", answer["msg"]
    return str(answer["transaction"]["id"])


def undone(host: ActHost, identifier: str = "last", **options: bool) -> Json:
    answer = undo(host, identifier, **options)
    assert answer["transaction"]["outcome"] == "committed", answer["msg"]
    assert answer["changed"] is True
    return answer


def whole(host: ActHost) -> Json:
    """Return every file with its content, those below /var/lib/bulkhead too."""
    times = {name: row[4:] for name, row in host.tree(times=True).items() if "/etc/" in name}
    return {"times": times, "contents": host.tree(everything=True)}


def refused(host: ActHost, identifier: str, *words: str, **options: bool) -> None:
    before, pids, calls = whole(host), host.pids(), list(host.calls)
    answer = undo(host, identifier, **options)
    assert answer["transaction"]["outcome"] == "refused"
    assert (answer["changed"], answer["failed"]) == (False, True)
    for word in words:
        assert word in answer["msg"]
    assert (whole(host), host.pids(), host.calls) == (before, pids, calls)


def transaction_file(host: ActHost, identifier: str, name: str = ledger.JOURNAL_NAME) -> typing.Any:
    return host.base / ledger.TRANSACTIONS.lstrip("/") / identifier / name


# -- what comes back ---------------------------------------------------------------------------------
@pytest.mark.parametrize("name", CASES)
def test_everything_comes_back(name: str) -> None:
    with build(name) as host:
        prepare(name, host)
        old = state(host)
        before = host.ledger() if name in PREPARED else ledger.empty_ledger()
        identifier = committed(host, CASES[name][0](host))
        answer = undone(host)
        assert answer["transaction"]["undid"] == identifier
        assert state(host)[0] == old[0]
        assert state(host)[2:] == old[2:]
        # What was effective is so again; a reload cannot take back what it does not know.
        assert {**old[1], **host.daemon.effective} == old[1] | {
            key: value for key, value in host.daemon.effective.items() if key not in old[1]
        }
        assert host.ledger()["owned"] == before["owned"]
        assert host.ledger()["profile"] == before["profile"]
        assert answer["observation"]["engine"]["config_loaded"] is True
        rows = {row["id"]: row for row in answer["observation"]["bulkhead"]["transactions"]}
        own = answer["transaction"]["id"]
        assert (rows[identifier]["outcome"], rows[identifier]["undone_by"]) == ("undone", own)
        assert (rows[own]["outcome"], rows[own]["undoes"]) == ("committed", identifier)
        refused(host, identifier, "undone already, by " + own)
        refused(host, own, "is itself the undo of " + identifier)


def test_the_last_one_is_the_newest_that_still_holds() -> None:
    with act_host() as host:
        for number, key in enumerate(("debug", "icc", "mtu")):
            committed(host, plan(json_set(host, key, 1400 if key == "mtu" else False)))
            assert len(host.config() or {}) == number + 1
        for left in (["debug", "icc"], ["debug"]):
            undone(host)
            assert list(host.config() or {}) == left
        undone(host)
        assert host.config() is None
        refused(host, "last", "there is no committed transaction")


def test_containers_survive_the_undo() -> None:
    with build("compatible") as host:
        before = host.pids()
        committed(host, CASES["compatible"][0](host))
        answer = undone(host)
        assert host.pids() == before
        assert host.daemon.effective == {"debug": True, "mtu": 1400, "live-restore": False}
        rows = answer["running_containers"]
        assert {row["name"]: row["pid_after"] for row in rows} == before
        assert answer["transaction"]["daemon_restarts"] == 1


# -- by key ------------------------------------------------------------------------------------------
def test_later_transactions_on_other_keys_stay() -> None:
    with act_host('{\n  "debug": true,\n  "mtu": 1400\n}\n') as host:
        first = committed(
            host,
            plan(json_set(host, "icc", False), json_set(host, "mtu", 1300)),
        )
        committed(
            host, plan(json_set(host, "shutdown-timeout", 30), file_present(host, DROPIN, "x"))
        )
        undone(host, first)
        assert (host.base / CONFIG.lstrip("/")).read_text() == (
            '{\n  "debug": true,\n  "mtu": 1400,\n  "shutdown-timeout": 30\n}\n'
        )
        assert (host.base / DROPIN.lstrip("/")).read_text() == "x"
        items = host.ledger()["owned"]["docker_daemon"]
        assert [item.get("key") for item in items] == ["shutdown-timeout", None]
        undone(host)
        assert host.config() == {"debug": True, "mtu": 1400}


def test_members_of_one_map_are_told_apart() -> None:
    with act_host() as host:
        first = committed(host, plan(json_set(host, "log-opts", "10m", member="max-size")))
        second = committed(host, plan(json_set(host, "log-opts", "3", member="max-file")))
        undone(host, first)
        assert host.config() == {"log-opts": {"max-file": "3"}}
        undone(host, second)
        assert host.config() is None


def test_foreign_keys_that_came_since_stay() -> None:
    with act_host() as host:
        identifier = committed(host, plan(json_set(host, "icc", False)))
        host.write(CONFIG, '{"icc": false, "dns": ["192.0.2.1"]}')
        undone(host, identifier)
        assert (host.base / CONFIG.lstrip("/")).read_text() == '{"dns": ["192.0.2.1"]}'


def test_what_a_policy_took_out_comes_back_with_its_owner() -> None:
    with act_host('{"mtu": 1400}') as host:
        committed(host, plan(json_set(host, "mtu", 1300), json_set(host, "icc", False)))
        before = host.ledger()["owned"]
        committed(host, plan(json_remove(host, "mtu"), json_remove(host, "icc")))
        assert host.config() == {"mtu": 1400}
        undone(host)
        assert host.config() == {"mtu": 1300, "icc": False}
        assert host.ledger()["owned"] == before


def test_a_file_that_was_removed_comes_back() -> None:
    with act_host() as host:
        committed(host, plan(file_present(host, DROPIN, "x")))
        before = host.tree()
        committed(host, plan(file_absent(host, DROPIN)))
        assert not (host.base / DROPIN.lstrip("/")).parent.exists()
        undone(host)
        assert host.tree() == before


def test_later_transactions_on_the_same_are_undone_first() -> None:
    with act_host() as host:
        first = committed(host, plan(json_set(host, "mtu", 1400), json_set(host, "debug", True)))
        second = committed(host, plan(json_set(host, "mtu", 1300)))
        refused(host, first, second, CONFIG + ": mtu", "undo that one first")
        undone(host, second)
        undone(host, first)
        assert host.config() is None


def test_a_map_as_a_whole_overlaps_its_members() -> None:
    with act_host() as host:
        first = committed(host, plan(json_set(host, "log-opts", "10m", member="max-size")))
        second = committed(host, plan(json_set(host, "log-opts", {"max-size": "1m"})))
        refused(host, first, second, "log-opts.max-size")


# -- the daemon --------------------------------------------------------------------------------------
def test_a_daemon_that_was_started_since_takes_it_back() -> None:
    with act_host() as host:
        committed(host, plan(json_set(host, "bip", "192.0.2.1/24")))
        host.daemon.stop()
        assert host.daemon.start() is None
        answer = undone(host)
        assert answer["transaction"]["daemon_restarts"] == 1
        assert host.daemon.effective == {}


def test_a_stopped_daemon_is_left_stopped() -> None:
    with act_host() as host:
        committed(host, plan(json_set(host, "bip", "192.0.2.1/24"), effect="restart"))
        host.daemon.stop()
        answer = undone(host)
        assert answer["observation"]["engine"]["state"] == "stopped"
        assert host.config() is None


def test_a_restart_that_ends_containers_is_refused() -> None:
    with act_host() as host:
        identifier = committed(
            host, plan(json_set(host, "no-new-privileges", True), effect="restart")
        )
        host.daemon.add("web")
        refused(host, identifier, "web", "stop them first")
        answer = undone(host, identifier, allow_container_restart=True)
        assert answer["transaction"]["affected"] == ["web"]
        assert set(host.pids()) == {"web"}


def test_hiding_containers_is_refused() -> None:
    with act_host() as host:
        committed(
            host,
            plan(
                *accounts(host), json_set(host, "userns-remap", "bulkhead-userns"), effect="restart"
            ),
        )
        host.daemon.add("web")
        refused(host, "last", "web", "stop them first")
        refused(host, "last", "web", "hides", allow_container_restart=True)
        undone(host, allow_container_restart=True, accept_hidden_data=True)
        assert "bulkhead-userns" not in (host.base / "etc/passwd").read_text()


def test_other_keys_hide_containers_too() -> None:
    key = "containerd-namespace"
    with act_host() as host:
        committed(host, plan(json_set(host, key, "other"), effect="restart"))
        host.daemon.add("web")
        refused(host, "last", f"{key} changes, which hides these", allow_container_restart=True)
        undone(host, allow_container_restart=True, accept_hidden_data=True)


def test_an_undo_takes_up_no_data_root_of_others() -> None:
    with act_host('{"dns": ["10.0.0.1"]}') as host:
        committed(host, plan(json_set(host, "no-new-privileges", True), effect="restart"))
        host.write(
            CONFIG, '{"dns": ["10.0.0.1"], "no-new-privileges": true, "data-root": "/mnt/new"}'
        )
        host.old(CONFIG, -10)
        refused(host, "last", "data-root, in " + CONFIG)


def test_an_undo_knows_a_data_root_behind_a_link() -> None:
    with act_host('{"data-root": "/data/docker"}') as host:
        (host.base / "data").mkdir()
        (host.base / "data/docker").symlink_to("/mnt/disk/docker")
        committed(host, plan(json_set(host, "no-new-privileges", True), effect="restart"))
        host.write(CONFIG, json.dumps({**host.config(), "debug": True}))
        host.old(CONFIG, -10)
        assert look.observe(host, ["engine"])["engine"]["config_loaded"] is False
        undone(host)
        assert host.config() == {"data-root": "/data/docker", "debug": True}


def test_an_undo_loses_no_data_root_that_vanished() -> None:
    with act_host('{"data-root": "/data/docker"}') as host:
        committed(host, plan(json_set(host, "no-new-privileges", True), effect="restart"))
        host.write(CONFIG, '{"no-new-privileges": true}')
        host.old(CONFIG, -10)
        refused(host, "last", "data-root, in " + CONFIG)


def test_another_account_for_remapping_hides_containers() -> None:
    with act_host('{"userns-remap": "one", "live-restore": true}', ["web"]) as host:
        answer = apply(host, plan(json_set(host, "userns-remap", "two"), effect="restart"))
        assert answer["transaction"]["outcome"] == "refused"
        assert "userns-remap changes" in answer["msg"]


def test_an_image_store_is_given_back_by_a_restart_alone() -> None:
    with act_host() as host:
        store = json_set(host, "features", True, member="containerd-snapshotter")
        committed(host, plan(store, effect="restart"))
        host.daemon.stop()
        host.daemon.start()
        undone(host)
        assert host.calls[-1] == "systemctl restart docker.service"
        # Nor does a reload read all of the file.
        store = json_set(host, "features", True, member="containerd-snapshotter")
        committed(host, plan(store, effect="reload"))
        assert look.observe(host, ["engine"])["engine"]["config_loaded"] is False


def test_accounts_that_a_later_key_needs_stay() -> None:
    with act_host() as host:
        first = committed(host, plan(*accounts(host)))
        committed(host, plan(json_set(host, "userns-remap", "bulkhead-userns"), effect="restart"))
        refused(host, first, "bulkhead-userns", "userns-remap in " + CONFIG + " still names it")


def test_an_undo_that_fails_leaves_the_host_as_it_was() -> None:
    with build("compatible") as host:
        committed(host, CASES["compatible"][0](host))
        before, effective, pids = host.tree(), host.daemon.effective, host.pids()
        host.daemon.refuses = lambda document: (
            None if "no-new-privileges" in document else "not without it"
        )
        answer = undo(host)
        assert answer["transaction"]["outcome"] == "rolled_back"
        assert "not without it" in answer["msg"]
        assert (host.tree(), host.daemon.effective, host.pids()) == (before, effective, pids)
        assert ledger.open_transaction(host) is None
        host.daemon.refuses = lambda document: None
        undone(host)


def test_an_unhealthy_host_after_the_undo_is_put_back() -> None:
    with build("strict") as host:
        prepare("strict", host)
        committed(host, CASES["strict"][0](host))
        before, effective = host.tree(), host.daemon.effective
        host.daemon.witness_code = 1
        assert undo(host)["transaction"]["outcome"] == "rolled_back"
        assert (host.tree(), host.daemon.effective) == (before, effective)


# -- check mode --------------------------------------------------------------------------------------
def test_check_mode_says_what_would_be_undone() -> None:
    with build("strict") as host:
        prepare("strict", host)
        identifier = committed(host, CASES["strict"][0](host))
        before, calls = whole(host), list(host.calls)
        answer = undo(host, check_mode=True)
        assert (answer["transaction"]["outcome"], answer["changed"]) == ("checked", True)
        told = answer["transaction"]
        assert (told["undid"], told["daemon_effect"], told["affected"]) == (
            identifier,
            "restart",
            [],
        )
        assert told["changes"] == [
            CONFIG + ": debug, log-opts.max-size, userns-remap",
            "/etc/docker/seccomp.json",
            DROPIN,
            "mode of /run/docker.sock",
            "group bulkhead-userns",
            "user bulkhead-userns",
            "subordinate ids of bulkhead-userns",
        ]
        shown = {row["after_header"] for row in answer["diff"]}
        assert {CONFIG, DROPIN, "/etc/passwd", "/etc/group", "/etc/subuid"} <= shown
        assert "1400" not in json.dumps(answer["diff"])
        assert "SCMP_ACT_ALLOW" not in json.dumps(answer["diff"])
        assert "TasksMax=512" in json.dumps(answer["diff"])
        assert (whole(host), host.calls) == (before, calls)


# -- crashes -----------------------------------------------------------------------------------------
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("name", CASES)
def test_a_crash_at_every_record(name: str, after: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    # Before the odd ones and after the even ones: every other moment of both kinds.
    number, died = (0 if after else -1), True
    while died:
        number += 2
        with build(name) as host:
            prepare(name, host)
            old = state(host)
            committed(host, CASES[name][0](host))
            new = state(host)
            died = False
            with monkeypatch.context() as patch:
                Countdown(number, after, patch)
                try:
                    undo(host)
                except Killed:
                    died = True
            apply(host, NOTHING)
            assert ledger.open_transaction(host) is None
            now = state(host)
            held = history.holding(history.entries(host))
            wanted = new if len(held) == (3 if name in PREPARED else 2) else old
            assert (now[0], *now[2:]) == (wanted[0], *wanted[2:]), number
            if wanted is new:
                assert now[1] == new[1], number
    assert number > 20


# -- bad input ---------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "identifier",
    [
        "",
        "../../etc",
        "20260101T000000Z-000000/../x",
        "LAST",
        "20260101T000000Z-000000\n",
        "x" * 999,
    ],
)
def test_a_malformed_id(identifier: str) -> None:
    with act_host() as host:
        refused(host, identifier, "is no id of a transaction", "'last' is the newest")
        committed(host, plan(json_set(host, "icc", False)))
        refused(host, identifier, "is no id of a transaction", "'last' is the newest")


def test_an_unknown_id() -> None:
    with act_host() as host:
        refused(host, "last", "there is no committed transaction")
        refused(host, "20260101T000000Z-000000", "no transaction of that name is kept", "none")
        known = committed(host, plan(json_set(host, "icc", False)))
        refused(host, "20260101T000000Z-000000", "no transaction of that name is kept", known)


def test_one_that_was_rolled_back() -> None:
    with act_host() as host:
        host.daemon.witness_code = 1
        answer = apply(host, plan(json_set(host, "icc", False)))
        host.daemon.witness_code = 0
        refused(host, answer["transaction"]["id"], "it was never committed")


def test_what_somebody_changed_since() -> None:
    with act_host() as host:
        identifier = committed(
            host, plan(json_set(host, "icc", False), file_present(host, DROPIN, "x"))
        )
        host.write(CONFIG, '{"icc": true}')
        refused(host, identifier, CONFIG + ": icc was changed by somebody else since")
        host.write(CONFIG, '{"icc": false}')
        host.write(DROPIN, "y")
        refused(host, identifier, DROPIN + " was changed by somebody else since")
        (host.base / DROPIN.lstrip("/")).unlink()
        refused(host, identifier, DROPIN + " was changed by somebody else since")
        host.write(DROPIN, "x")
        host.write(CONFIG, "{")
        refused(host, identifier, CONFIG, "repair it first")


def test_a_mode_that_somebody_changed_since() -> None:
    with act_host("{}") as host:
        ids = []
        for path in (CONFIG, "/run/docker.sock"):
            fields = {"mode": "0600", "owner": None, "group": None, "observed": host.version(path)}
            ids.append(committed(host, plan(operation("mode", path=path, **fields))))
            (host.base / path.lstrip("/")).chmod(0o666)
        refused(host, ids[0], "the mode of %s was changed by somebody else" % CONFIG)
        # Sockets are made anew by their unit.
        undone(host, ids[1])
        assert (host.base / "run/docker.sock").stat().st_mode & 0o777 == 0o666


@pytest.mark.parametrize("path", [CONFIG, ledger.LEDGER])
def test_a_before_image_that_somebody_changed(path: str) -> None:
    with act_host('{"debug": true}') as host:
        committed(host, plan(json_set(host, "mtu", 1300)))
        identifier = committed(host, plan(json_set(host, "icc", False)))
        journal = ledger.read_journal(host, identifier)
        images = [
            r["before"]["image"] for r in journal if r.get("path") == path and r.get("before")
        ]
        target = host.base / images[0].lstrip("/")
        target.write_text(target.read_text() + " ")
        refused(host, identifier, "the before-image " + images[0], "was changed")


def both_doors_refuse(host: ActHost, seen: str, *words: str) -> None:
    """Undo, act and recover refuse alike, and the look says why."""
    refused(host, "last", *words)
    before = whole(host)
    for raw in (plan(json_set(host, "icc", False)), plan()):
        answer = apply(host, raw)
        assert answer["transaction"]["outcome"] == "refused"
        for word in words:
            assert word in answer["msg"]
        assert whole(host) == before
    found = look.observe(host, ["bulkhead"])
    assert found["bulkhead"]["state"] == seen
    assert [row["section"] for row in found["unread"]] == ["bulkhead"]


@pytest.mark.parametrize("which", [0, 1], ids=["older", "newest"])
def test_a_journal_of_a_newer_release(which: int) -> None:
    with act_host() as host:
        ids = [committed(host, plan(json_set(host, key, False))) for key in ("debug", "icc")]
        journal = transaction_file(host, ids[which])
        journal.write_text(journal.read_text().replace("bulkhead.journal/1", "bulkhead.journal/2"))
        both_doors_refuse(host, "newer", ids[which], "bulkhead.journal/2", "use the release that")
        rows = look.observe(host, ["bulkhead"])["bulkhead"]["transactions"]
        assert [row["outcome"] for row in rows][which] == "newer"


def test_a_damaged_journal() -> None:
    with act_host() as host:
        identifier = committed(host, plan(json_set(host, "icc", False)))
        journal = transaction_file(host, identifier)
        lines = journal.read_text().split("\n")
        journal.write_text("\n".join([*lines[:3], "{", *lines[4:]]))
        both_doors_refuse(host, "unreadable", identifier, "line 4 is damaged", "before-images")


@pytest.mark.parametrize("what", ["transactions", "transaction", "journal"])
def test_links_in_place_of_our_own(what: str) -> None:
    with act_host() as host:
        identifier = committed(host, plan(json_set(host, "icc", False)))
        path = transaction_file(host, identifier)
        path = {"transactions": path.parents[1], "transaction": path.parent, "journal": path}[what]
        elsewhere = host.base / "srv"
        path.rename(elsewhere)
        path.symlink_to(elsewhere)
        both_doors_refuse(host, "foreign", str(path)[len(str(host.base)) :])


@pytest.mark.parametrize("how", ["owner", "mode", "link"])
@pytest.mark.parametrize("where", [STATE, ledger.TRANSACTIONS])
def test_a_directory_that_is_not_ours(how: str, where: str) -> None:
    with act_host() as host:
        committed(host, plan(json_set(host, "icc", False)))
        path = host.base / where.lstrip("/")
        if how == "owner":
            os.chown(path, 1000, 0)
        elif how == "mode":
            path.chmod(0o750)
        else:
            path.rename(host.base / "srv")
            path.symlink_to(host.base / "srv")
        both_doors_refuse(host, "foreign", where)


@pytest.mark.parametrize(
    ("content", "seen", "word"),
    [
        ('{"schema": "bulkhead.ledger/2"}', "newer", "use the release that wrote it"),
        ('{"schema": "bulkhead.ledger/1", "owned": [', "unreadable", "from a backup"),
        (
            '{"schema": "bulkhead.ledger/1", "owned": {"x": [{"kind": "y"}]}}',
            "unreadable",
            "backup",
        ),
        ("", "unreadable", "from a backup"),
    ],
)
def test_a_ledger_that_cannot_be_read(content: str, seen: str, word: str) -> None:
    with act_host() as host:
        committed(host, plan(json_set(host, "icc", False)))
        (host.base / ledger.LEDGER.lstrip("/")).write_text(content)
        both_doors_refuse(host, seen, ledger.LEDGER, word)


# -- what is kept ------------------------------------------------------------------------------------
def test_the_newest_are_kept_and_those_whose_images_are_needed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(retention, "KEPT_TRANSACTIONS", 3)
    with act_host() as host:
        host.write(DROPIN, "theirs")
        needed = committed(host, plan(file_present(host, DROPIN, "ours")))
        ids = [needed]
        for number in range(5):
            ids.append(committed(host, plan(json_set(host, "mtu", 1300 + number))))
        assert ledger.transaction_ids(host) == [needed, *ids[-3:]]
        refused(host, ids[1], "no transaction of that name is kept", needed, ids[-1])
        committed(host, plan(file_absent(host, DROPIN)))
        assert (host.base / DROPIN.lstrip("/")).read_text() == "theirs"
        assert needed not in ledger.transaction_ids(host)


def test_pruning_follows_no_link(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "KEPT_TRANSACTIONS", 1)
    with act_host() as host:
        first = committed(host, plan(json_set(host, "mtu", 1300)))
        host.write("/srv/data", "kept")
        (transaction_file(host, first, "before") / "x").symlink_to(host.base / "srv")
        committed(host, plan(json_set(host, "mtu", 1400)))
        assert first not in ledger.transaction_ids(host)
        assert (host.base / "srv/data").read_text() == "kept"
