# Copyright: (c) 2026, the Bulkhead authors
# Apache License 2.0 (see LICENSE)
"""What runs in a transient unit on the host: one request, to its end.

Started as ``python3 -I <archive> run <id>``, and as ``python3 -I <archive> recover [<id>]`` when
that process was killed, or at boot; before that, early at boot, as ``python3 -I <archive> files``.
See detach.py, which makes the archive and starts it, and boot.py.
"""

from __future__ import annotations

import os
import typing

from ansible_collections.bulkhead.hardening.plugins.module_utils import (
    boot,
    ledger as ledger_module,
    transaction,
)
from ansible_collections.bulkhead.hardening.plugins.module_utils.host import Host, HostError
from ansible_collections.bulkhead.hardening.plugins.module_utils.purge import purge
from ansible_collections.bulkhead.hardening.plugins.module_utils.runs import Run
from ansible_collections.bulkhead.hardening.plugins.module_utils.transaction_journal import Undo
from ansible_collections.bulkhead.hardening.plugins.module_utils.transaction_plan import EMPTY_PLAN
from ansible_collections.bulkhead.hardening.plugins.module_utils.transaction_undo import undo

Json = dict[str, typing.Any]


def perform(
    host: Host, request: Json, identifier: str | None = None, at_boot: list[str] | None = None
) -> Json:
    """Do what a request asks for; return the answer of docker_host_apply. Never raises.

    :param request: ``{"action": "apply", "plan", "check_mode", "health_timeout",
        "daemon_timeout"}``, ``{"action": "recover", ...}`` (likewise, without a plan),
        ``{"action": "undo", "undo": ID or "last", "undo_stops_containers", "undo_hides_data", ...}``
        or ``{"action": "purge", "check_mode"}``; times in seconds.
    :param identifier: the id of the transaction; None for one of now.
    :param at_boot: the program that undoes at boot what a loss of power leaves; None for none.
    """
    if request["action"] == "purge":
        return purge(host, check_mode=bool(request.get("check_mode")))
    common: Json = {
        "check_mode": bool(request.get("check_mode")),
        "health_timeout": float(request["health_timeout"]),
        "daemon_timeout": float(request["daemon_timeout"]),
        "identifier": identifier,
        "boot": at_boot,
    }
    if request["action"] == "undo":
        return undo(
            host,
            str(request["undo"]),
            allow_container_restart=bool(request.get("undo_stops_containers")),
            accept_hidden_data=bool(request.get("undo_hides_data")),
            **common,
        )
    plan = request["plan"] if request["action"] == "apply" else EMPTY_PLAN
    return transaction.apply(host, plan, tls_files=request.get("tls_files"), **common)


def recover(host: Host, identifier: str | None, why: str) -> None:
    """Undo what was cut off, and leave an answer for whoever waits for that of a run.

    :param identifier: the run whose process ended too early; None at boot.
    :param why: how it ended, for the answer.
    """
    ended = None if identifier is None else ledger_module.read_journal(host, identifier)
    answer = transaction.apply(host, EMPTY_PLAN)
    boot.disarm(host)  # it may have been cut off between its last record and this
    if identifier is None:
        return
    run = Run(host, identifier)
    if run.answer() is None:
        run.reply(transaction.answer_of_the_dead(identifier, ended or [], why, answer))


def put_files_back(host: Host) -> None:
    """Put back, early at boot, the files of a transaction that a loss of power left open.

    :raises HostError: some could not be put back; what comes later at boot tries again.
    """
    opened = ledger_module.open_transaction(host)
    if opened is not None:
        Undo(host, opened["id"], timeout=0.0).run_early()


def main(host: Host, archive: str, python: str, arguments: list[str]) -> int:
    """Run as a program; return its exit status.

    :param archive: the path of the archive that this runs from.
    :param python: the path of the interpreter.
    """
    verb, identifier = arguments[0], arguments[1] if len(arguments) > 1 else None
    if verb == "files":
        put_files_back(host)
        return 0
    if verb == "recover":
        if os.environ.get("SERVICE_RESULT") != "success":
            recover(host, identifier, _how_it_ended())
        return 0
    run = Run(host, typing.cast(str, identifier))
    with run.held():
        at_boot = [python, "-I", archive]
        try:
            run.reply(perform(host, run.request(), identifier, at_boot))
        except HostError:
            # The disk is full, or the like. The journal has the outcome; see recover().
            return 1
    return 0


def _how_it_ended() -> str:
    """Return what systemd says of a process that ended too early (systemd.exec(5))."""
    code, status = os.environ.get("EXIT_CODE"), os.environ.get("EXIT_STATUS")
    return "its process was %s (%s)" % (code, status) if code else "its process ended too early"
