"""Taking everything of ours off a host: the transaction that gives it all back, then the purge."""

from __future__ import annotations

import os
import typing

import pytest

from ansible_collections.bulkhead.hardening.plugins.module_utils import ledger, retention
from ansible_collections.bulkhead.hardening.plugins.module_utils.purge import purge
from ansible_collections.bulkhead.hardening.plugins.module_utils.transaction import apply
from ansible_collections.bulkhead.hardening.plugins.module_utils.transaction_undo import undo

from .fakes import (
    CONFIG,
    ActHost,
    Killed,
    accounts,
    act_host,
    file_absent,
    json_remove,
    json_set,
    operation,
    plan,
)
from .test_apply_crash import CASES, DROPIN, FOREIGN, Countdown, build, prepare, state
from .test_apply_undo import NOTHING, committed

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="changes owners, as root does")

Json = dict[str, typing.Any]
USER = "bulkhead-userns"


def removal(host: ActHost) -> Json:
    """Return the plan that takes back the case ``strict`` of the crash tests."""
    return plan(
        operation("group_absent", name=USER),
        operation("user_absent", name=USER),
        operation("subid_absent", user=USER),
        json_remove(host, "userns-remap"),
        json_remove(host, "debug"),
        json_remove(host, "log-opts", member="max-size"),
        file_absent(host, DROPIN),
        file_absent(host, FOREIGN),
        # The daemon made its socket anew when it was restarted.
        operation("disown", kind="mode", path="/run/docker.sock"),
        effect="restart",
    )


def refused(host: ActHost, *words: str) -> None:
    before = host.tree(everything=True)
    answer = purge(host)
    assert (answer["transaction"]["outcome"], answer["changed"]) == ("refused", False)
    for word in words:
        assert word in answer["msg"]
    assert host.tree(everything=True) == before


def test_nothing_of_ours_is_left() -> None:
    with build("strict") as host:
        prepare("strict", host)
        old, everything = state(host), host.tree(everything=True)
        committed(host, CASES["strict"][0](host))
        refused(host, "still owns 9 things", CONFIG + ": debug", "user " + USER)
        committed(host, removal(host))
        assert state(host) == old
        assert host.ledger()["owned"] == {}
        before = host.tree(everything=True)
        answer = purge(host, check_mode=True)
        assert (answer["transaction"]["outcome"], answer["changed"]) == ("checked", True)
        assert host.tree(everything=True) == before
        answer = purge(host)
        assert (answer["transaction"]["outcome"], answer["changed"]) == ("purged", True)
        assert answer["observation"]["bulkhead"]["state"] == "absent"
        assert host.tree(everything=True) == everything
        answer = purge(host)
        assert (answer["transaction"]["outcome"], answer["changed"]) == ("nothing", False)
        assert host.tree(everything=True) == everything


def test_taking_accounts_away_can_be_undone() -> None:
    with build("strict") as host:
        prepare("strict", host)
        committed(host, CASES["strict"][0](host))
        before, owned = state(host), host.ledger()["owned"]
        committed(host, removal(host))
        answer = undo(host)
        assert answer["transaction"]["outcome"] == "committed", answer["msg"]
        assert state(host) == before
        for items in (owned, host.ledger()["owned"]):
            items["docker_daemon"].sort(key=str)
        assert host.ledger()["owned"].keys() == owned.keys()
        assert len(host.ledger()["owned"]["docker_daemon"]) == len(owned["docker_daemon"])


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_crash_at_every_record_of_the_removal(
    after: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Before the odd ones and after the even ones: every other moment of both kinds.
    number, died = (0 if after else -1), True
    while died:
        number += 2
        with build("strict") as host:
            prepare("strict", host)
            old = state(host)
            committed(host, CASES["strict"][0](host))
            new = state(host)
            died = False
            with monkeypatch.context() as patch:
                Countdown(number, after, patch)
                try:
                    apply(host, removal(host))
                except Killed:
                    died = True
            apply(host, NOTHING)
            assert state(host) == (new if host.ledger()["owned"] else old), number
    assert number > 40


def test_accounts_that_are_not_ours_are_not_removed() -> None:
    with act_host() as host:
        committed(host, plan(*accounts(host)))
        for raw, word in (
            (operation("user_absent", name="ann"), "user ann was not made by Bulkhead"),
            (operation("group_absent", name="docker"), "group docker was not made by Bulkhead"),
            (operation("subid_absent", user="ann"), "subordinate ids of ann was not made"),
        ):
            answer = apply(host, plan(raw))
            assert answer["transaction"]["outcome"] == "refused"
            assert word in answer["msg"]
        text = (host.base / "etc/subuid").read_text().replace(USER + ":300000:", USER + ":400000:")
        host.write("/etc/subuid", text)
        answer = apply(host, plan(operation("subid_absent", user=USER)))
        assert "changed by somebody else since" in answer["msg"]


def test_accounts_that_the_daemon_needs_are_not_removed() -> None:
    with act_host() as host:
        committed(host, plan(*accounts(host), json_set(host, "userns-remap", USER)))
        answer = apply(host, plan(operation("user_absent", name=USER)))
        assert answer["transaction"]["outcome"] == "refused"
        assert "userns-remap in %s still names it" % CONFIG in answer["msg"]


def test_containers_survive_that_live_restore_is_taken_away_with_a_restart() -> None:
    with act_host('{"debug": true}', ["web", "db"]) as host:
        committed(
            host,
            plan(
                json_set(host, "live-restore", True),
                json_set(host, "no-new-privileges", True),
                effect="restart",
                live_restore_first=True,
            ),
        )
        before = host.pids()
        raw = plan(
            json_remove(host, "live-restore"),
            json_remove(host, "no-new-privileges"),
            effect="restart",
        )
        committed(host, raw)
        assert host.pids() == before
        assert host.config() == {"debug": True}
        assert host.daemon.effective == {"debug": True, "live-restore": False}


def test_an_open_transaction_and_foreign_notes_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with act_host() as host:
        with monkeypatch.context() as patch:
            Countdown(8, True, patch)
            with pytest.raises(Killed):
                apply(host, plan(json_set(host, "icc", False)))
        refused(host, "is open; recover first")
        apply(host, NOTHING)
        host.write(ledger.LEDGER, '{"schema": "bulkhead.ledger/7"}')
        refused(host, "bulkhead.ledger/7")
        path = host.base / "var/lib/bulkhead"
        path.rename(host.base / "srv")
        path.symlink_to(host.base / "srv")
        refused(host, "/var/lib/bulkhead")


def test_a_purge_that_was_cut_off_is_finished(monkeypatch: pytest.MonkeyPatch) -> None:
    original = retention.remove_tree
    number, died = 0, True
    while died:
        number += 1
        with act_host() as host:
            everything = host.tree(everything=True)
            committed(host, plan(json_set(host, "icc", False)))
            committed(host, plan(json_remove(host, "icc")))
            left, died = number, False

            def cut_off(h: ActHost, path: str) -> None:
                nonlocal left
                left -= 1
                if left == 0:
                    raise Killed
                original(h, path)

            with monkeypatch.context() as patch:
                patch.setattr(retention, "remove_tree", cut_off)
                try:
                    purge(host)
                except Killed:
                    died = True
            if died:
                assert purge(host)["transaction"]["outcome"] == "purged"
            assert host.tree(everything=True) == everything
    assert number > 5


def test_directories_that_somebody_uses_stay() -> None:
    with act_host() as host:
        committed(host, plan(json_set(host, "icc", False)))
        host.write("/etc/docker/theirs", "x")
        committed(host, plan(json_remove(host, "icc")))
        assert purge(host)["transaction"]["outcome"] == "purged"
        assert (host.base / "etc/docker/theirs").read_text() == "x"
