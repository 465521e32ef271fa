"""Undoing a committed transaction on request."""

from __future__ import annotations

import os
import typing

import pytest

from ansible_collections.bulkhead.hardening.plugins.module_utils import ledger
from ansible_collections.bulkhead.hardening.plugins.module_utils.transaction import apply
from ansible_collections.bulkhead.hardening.plugins.module_utils.transaction_undo import undo

from .fakes import CONFIG, ActHost, Killed, act_host, file_present, json_set, operation, plan
from .test_apply_crash import CASES, Countdown, build, prepare, state

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="changes owners, as root does")

Json = dict[str, typing.Any]
DROPIN = "/etc/systemd/system/docker-.scope.d/10-bulkhead.conf"


def committed(host: ActHost, raw: Json) -> str:
    answer = apply(host, raw)
    assert answer["transaction"]["outcome"] == "committed", answer["msg"]
    return str(answer["transaction"]["id"])


def refused(host: ActHost, identifier: str | None, *words: str) -> None:
    before = host.tree()
    answer = undo(host, identifier)
    assert answer["transaction"]["outcome"] == "refused"
    for word in words:
        assert word in answer["msg"]
    assert host.tree() == before


@pytest.mark.parametrize("name", CASES)
def test_everything_comes_back(name: str) -> None:
    with build(name) as host:
        prepare(name, host)
        old = state(host)
        owned = host.ledger()["owned"] if name == "reload" else {}
        identifier = committed(host, CASES[name][0](host))
        answer = undo(host)
        assert answer["transaction"]["outcome"] == "undone", answer["msg"]
        assert answer["transaction"]["id"] == identifier
        assert state(host)[0] == old[0]
        assert state(host)[2:] == old[2:]
        # What was effective is so again; a reload cannot take back what it does not know.
        assert {**old[1], **host.daemon.effective} == old[1] | {
            key: value for key, value in host.daemon.effective.items() if key not in old[1]
        }
        assert host.ledger()["owned"] == owned
        assert host.ledger()["last_transaction"]["outcome"] == "undone"
        refused(host, identifier, "undone already")


def test_containers_survive_the_undo() -> None:
    with build("compatible") as host:
        before = host.pids()
        committed(host, CASES["compatible"][0](host))
        answer = undo(host)
        assert answer["transaction"]["outcome"] == "undone", answer["msg"]
        assert host.pids() == before
        assert host.daemon.effective == {"debug": True, "mtu": 1400, "live-restore": False}


def test_other_later_transactions_stay() -> None:
    with act_host() as host:
        first = committed(host, plan(json_set(host, "icc", False)))
        committed(host, plan(file_present(host, DROPIN, "x")))
        answer = undo(host, first)
        assert answer["transaction"]["outcome"] == "undone", answer["msg"]
        assert host.config() is None
        assert (host.base / DROPIN.lstrip("/")).read_text() == "x"
        kinds = [item["kind"] for item in host.ledger()["owned"]["docker_daemon"]]
        assert kinds == ["file"]


def test_refusals() -> None:
    with act_host() as host:
        refused(host, None, "there is no committed transaction")
        refused(host, "20260101T000000Z-000000", "no transaction of that name")
        first = committed(host, plan(json_set(host, "icc", False)))
        second = committed(host, plan(json_set(host, "debug", True)))
        refused(host, first, second, CONFIG, "undo that one first")
        host.write(CONFIG, "{}")
        refused(host, second, CONFIG, "changed by somebody else")


def test_a_restart_that_ends_containers_is_refused() -> None:
    with act_host() as host:
        identifier = committed(
            host, plan(json_set(host, "no-new-privileges", True), effect="restart")
        )
        host.daemon.add("web")
        refused(host, identifier, "web", "stop them first")
        answer = undo(host, identifier, allow_container_restart=True)
        assert answer["transaction"]["outcome"] == "undone", answer["msg"]
        assert set(host.pids()) == {"web"}


@pytest.mark.parametrize("number", range(1, 10))
def test_a_crash_while_undoing_is_finished_by_the_next_run(
    number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    with build("compatible") as host:
        old = state(host)
        committed(host, CASES["compatible"][0](host))
        died = False
        with monkeypatch.context() as patch:
            Countdown(number, True, patch)
            try:
                undo(host)
            except Killed:
                died = True
        assert died is (ledger.open_transaction(host) is not None) or number > 1
        apply(host, plan(operation("disown", kind="user", name="nobody")))
        assert ledger.open_transaction(host) is None
        tree, effective, pids, _ = state(host)
        assert (tree, effective, pids) == old[:3]
        assert host.ledger()["owned"] == {}
