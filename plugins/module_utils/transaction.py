# Copyright: (c) 2026, the Bulkhead authors
# Apache License 2.0 (see LICENSE)
"""One transaction: a plan takes effect as a whole, or everything is as before.

:data:`STEPS` at the end of this file is the transaction, read from top to bottom. Up to the
journal's first record a failure refuses the plan and nothing has changed; from there on it is
undone, by the journal alone, so that a crash is answered by the same code in the next transaction.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import typing

from ansible_collections.bulkhead.hardening.plugins.module_utils import (
    boot as boot_unit,
    health,
    ledger as ledger_module,
    look,
    look_tls,
    transaction_files as files,
)
from ansible_collections.bulkhead.hardening.plugins.module_utils.docker_api import (
    ApiError,
)
from ansible_collections.bulkhead.hardening.plugins.module_utils.host import (
    Host,
    HostError,
)
from ansible_collections.bulkhead.hardening.plugins.module_utils.runs import (
    make_state_directories,
)
from ansible_collections.bulkhead.hardening.plugins.module_utils.transaction_apparmor import (
    profiles,
)
from ansible_collections.bulkhead.hardening.plugins.module_utils.transaction_audit import (
    audit_rules,
)
from ansible_collections.bulkhead.hardening.plugins.module_utils.transaction_context import (
    Json,
    Skipped,
    Transaction,
)
from ansible_collections.bulkhead.hardening.plugins.module_utils.transaction_journal import (
    Undo,
    write_ledger,
)
from ansible_collections.bulkhead.hardening.plugins.module_utils.transaction_plan import (
    parse_plan,
)
from ansible_collections.bulkhead.hardening.plugins.module_utils.transaction_precheck import (
    check,
    precheck,
)
from ansible_collections.bulkhead.hardening.plugins.module_utils.transaction_selinux import (
    labels,
    policy,
)
from ansible_collections.bulkhead.hardening.plugins.module_utils.transaction_services import (
    run_services,
)
from ansible_collections.bulkhead.hardening.plugins.module_utils.transaction_steps import (
    accounts,
    before_images,
    commit,
    daemon,
    daemon_json,
    health_gate,
    live_restore,
    modes,
    stage,
    units,
    validate_config,
)
from ansible_collections.bulkhead.hardening.plugins.module_utils.transaction_sysctls import (
    set_one_way,
    set_values,
)
from ansible_collections.bulkhead.hardening.plugins.module_utils.transaction_tidy import tidy

#: Seconds that a second controller waits for the first one's transaction.
LOCK_TIMEOUT = 300.0


def apply(
    host: Host,
    raw_plan: typing.Any,
    *,
    check_mode: bool = False,
    health_timeout: float = 120.0,
    daemon_timeout: float = 180.0,
    identifier: str | None = None,
    boot: list[str] | None = None,
    tls_files: Json | None = None,
) -> Json:
    """Apply a plan; return the answer of docker_host_apply (its RETURN documents it).

    Never raises for what a host or a plan does wrong: ``failed`` and ``msg`` say it.

    :param identifier: the id of the transaction; None for one of now.
    :param boot: the program that undoes at boot what a loss of power leaves; None for none.
    :param tls_files: those that the policy names, for the new look.
    """
    try:
        plan = parse_plan(raw_plan)
    except HostError as exc:
        return refusal("plan", str(exc))
    left = ledger_module.open_transaction(host) or ledger_module.problem(host)
    named = look_tls.by_keys(tls_files or {})
    if plan.empty and left is None:
        seen = look.observe(host, ["hardening"], tls_files=named)
        return _answer(None, "nothing", observation=seen)
    with contextlib.ExitStack() as stack:
        transaction = Transaction(host, plan, stack, check_mode, health_timeout, daemon_timeout)
        transaction.id = identifier or transaction.id
        transaction.boot = boot
        transaction.tls_files = named
        return run(transaction, RECOVERY if plan.empty else STEPS)


def refusal(step: str, reason: str, identifier: str | None = None) -> Json:
    """Return the answer of a run that ended before it could change anything."""
    return _answer(identifier, "refused", failed_step=step, reason=reason)


def answer_of_the_dead(identifier: str, journal: list[Json], why: str, undone: Json) -> Json:
    """Return the answer of a run whose process ended too early.

    :param journal: its journal at that time; empty when it had not changed anything yet.
    :param undone: the answer of the recovery that followed.
    """
    steps = [record["step"] for record in journal if record.get("record") == "step"]
    step = steps[-1] if steps else "start"
    if journal and not ledger_module.is_open(journal):
        ends = [r["record"] for r in journal if r.get("record") in ledger_module.END_RECORDS]
        outcome, reason = ends[-1], why + ", after its end"
    elif undone.get("failed"):
        outcome, reason = "rollback_failed", "%s; %s" % (why, undone["msg"])
    else:
        outcome, reason = ("rolled_back" if journal else "refused"), why
    daemon = undone["transaction"]
    return _answer(
        identifier,
        outcome,
        failed_step=None if outcome == "committed" else step,
        reason=reason,
        steps=daemon["steps"],
        restarts=daemon["daemon_restarts"],
        reloads=daemon["daemon_reloads"],
        changed=outcome in ("committed", "rollback_failed"),
        running_containers=undone["running_containers"],
        observation=undone["observation"],
    )


def _answer(
    identifier: str | None,
    outcome: str,
    *,
    failed_step: str | None = None,
    reason: str | None = None,
    steps: list[Json] | None = None,
    restarts: int = 0,
    reloads: int = 0,
    stays: list[str] | None = None,
    changed: bool = False,
    **more: typing.Any,
) -> Json:
    answer: Json = {
        "changed": changed,
        "diff": [],
        "transaction": {
            "id": identifier,
            "outcome": outcome,
            "failed_step": failed_step,
            "reason": reason,
            "steps": steps or [],
            "daemon_restarts": restarts,
            "daemon_reloads": reloads,
            "stays": stays or [],
        },
        "running_containers": [],
        "observation": None,
    }
    answer.update(more)
    if outcome in ("refused", "rolled_back", "rollback_failed"):
        answer["failed"] = True
        answer["msg"] = _MESSAGES[outcome] % (failed_step, reason)
    return answer


_MESSAGES = {
    "refused": "Refused before anything was changed, at the step %r: %s",
    "rolled_back": "Rolled back; the host is as it was. It failed at the step %r: %s",
    "rollback_failed": "It failed at the step %r, and could not be undone completely: %s",
}


def run(tx: Transaction, steps: tuple[Step, ...]) -> Json:
    """Do all steps; on a failure undo them. Return the answer."""
    for step in steps:
        if tx.check_mode and not step.reads_only:
            continue
        started = tx.host.monotonic()
        row = {"step": step.name, "status": "done", "detail": None, "seconds": 0.0}
        tx.rows.append(row)
        try:
            if tx.journal:
                tx.journal.write({"record": "step", "step": step.name})
            detail = step.action(tx)
            row["status"] = "skipped" if isinstance(detail, Skipped) else "done"
            row["detail"] = detail.detail if isinstance(detail, Skipped) else detail
        # Whatever goes wrong, a bug of ours included, must not leave half a change behind.
        except Exception as exc:
            row["status"] = "failed"
            row["detail"] = reason_of(exc)
            return _failed(tx, step.name, reason_of(exc))
        finally:
            row["seconds"] = round(tx.host.monotonic() - started, 3)
    if tx.check_mode:
        return _finish(tx, "checked")
    tx.changed = tx.changed or tx.recovered
    return _finish(tx, "committed" if tx.journal is not None else "recovered")


def _finish(tx: Transaction, outcome: str, **more: typing.Any) -> Json:
    if tx.journal is not None and outcome == "committed":
        tx.journal.close()
    if not tx.check_mode:
        boot_unit.disarm(tx.host)
    after = _observe_again(tx)
    if after is not None:
        after["witness"] = tx.witness
    return _answer(
        tx.id,
        outcome,
        steps=tx.rows,
        restarts=tx.daemon.restarts,
        reloads=tx.daemon.reloads,
        stays=tx.stays,
        changed=tx.changed,
        diff=tx.diff if outcome in ("committed", "checked") else [],
        running_containers=health.compare_containers(tx.before, after or {}),
        observation=after,
        **more,
    )


def _observe_again(tx: Transaction) -> Json | None:
    try:
        return look.observe(tx.host, ["hardening"], tls_files=tx.tls_files)
    # The change itself is done; a look that fails must not hide what became of it.
    except Exception:
        return None


def _failed(tx: Transaction, step: str, reason: str) -> Json:
    if tx.journal is None:
        tx.changed = tx.recovered
        return _finish(tx, "refused", failed_step=step, reason=reason)
    tx.journal.close()
    outcome = "rolled_back"
    started = tx.host.monotonic()
    row: Json = {"step": "undo", "status": "done", "detail": None}
    try:
        notes = _roll_back(tx, reason)
        row["detail"] = "; ".join(notes) or "everything is as before"
        reason = "; ".join([reason, *notes])
    except Exception as exc:
        outcome = "rollback_failed"
        row.update(status="failed", detail=reason_of(exc))
        reason = "%s; %s. The next run tries again" % (reason, reason_of(exc))
    row["seconds"] = round(tx.host.monotonic() - started, 3)
    tx.rows.append(row)
    tx.changed = tx.recovered or outcome == "rollback_failed"
    return _finish(tx, outcome, failed_step=step, reason=reason)


def _roll_back(tx: Transaction, reason: str) -> list[str]:
    undo = Undo(tx.host, tx.id, tx.daemon_timeout, tx.daemon.history)
    try:
        undo.run()
    finally:
        tx.daemon.restarts += undo.daemon.restarts
        tx.daemon.reloads += undo.daemon.reloads
    notes = undo.notes + health_after_undo(tx.host, undo, tx.health_timeout)
    undo.close(reason)
    for row in tx.rows[:-1]:
        if row["status"] == "done" and row["step"] not in _READING_STEPS:
            row["status"] = "undone"
    with contextlib.suppress(Exception):
        _note_last(tx, "rolled_back")
    return notes


def _note_last(tx: Transaction, outcome: str) -> None:
    """Record the end of a transaction in the ledger, without a change of what is owned."""
    ledger = ledger_module.read_ledger(tx.host)[0] or ledger_module.empty_ledger()
    ledger["last_transaction"] = tx.last_transaction(outcome)
    write_ledger(tx.host, ledger)


def reason_of(exc: Exception) -> str:
    """Return what to say of an error; of a bug of ours also its type."""
    if isinstance(exc, (HostError, ApiError)):
        return str(exc)
    if isinstance(exc, OSError):
        place = " (%s)" % exc.filename if exc.filename else ""
        return "%s%s" % (exc.strerror or type(exc).__name__, place)
    return "%s: %s" % (type(exc).__name__, exc)


def health_after_undo(host: Host, undo: Undo, timeout: float) -> list[str]:
    """Check that the daemon and the containers of before are back; return what is not, as texts."""
    begin = undo.begin
    if begin["daemon"]["state"] != "running":
        return []
    try:
        undo.daemon.api.get("/_ping")
        restarts = undo.daemon.history
        return health.wait_for_containers(
            host, undo.daemon.api, begin["stable"], timeout, restarts, revive=True
        )[1:]
    except (ApiError, HostError) as exc:
        return ["after the rollback: %s" % exc]


# -- lock ------------------------------------------------------------------------------------------
def lock(tx: Transaction) -> str:
    """Become the only transaction on this host."""
    make_state_directories(tx.host)
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    with files.directory(tx.host, ledger_module.STATE_DIRECTORY) as opened:
        descriptor = os.open(os.path.basename(ledger_module.LOCK), flags, 0o600, dir_fd=opened)
    tx.stack.callback(os.close, descriptor)
    started = tx.host.monotonic()
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waited = tx.host.monotonic() - started
            if waited > LOCK_TIMEOUT:
                raise HostError(
                    "another transaction has been running on this host for %d s; try again later"
                    % int(waited)
                ) from None
            tx.host.sleep(0.25)
        else:
            break
    linked = files.status(tx.host, ledger_module.LOCK)
    if linked is None or linked.st_ino != os.fstat(descriptor).st_ino:
        raise HostError("another run removed what Bulkhead kept on this host meanwhile; run again")
    return "the only transaction on this host"


# -- recover ---------------------------------------------------------------------------------------
def recover(tx: Transaction) -> str | Skipped:
    """Undo a transaction that a crash left open, before anything else is looked at."""
    problem = ledger_module.problem(tx.host)
    if problem is not None:
        raise HostError(problem)
    found = ledger_module.open_transaction(tx.host)
    if found is None:
        return Skipped("no transaction was left open")
    if tx.check_mode:
        tx.changed = True
        return "the transaction %s, left open at %s, would be undone first" % (
            found["id"],
            found["step"],
        )
    done = []
    while found is not None:
        try:
            undo = Undo(tx.host, found["id"], tx.daemon_timeout)
            undo.run()
        except HostError as exc:
            raise HostError(
                "the transaction %s, which a crash left open, cannot be undone: %s"
                % (found["id"], exc)
            ) from exc
        tx.recovered = True
        tx.daemon.restarts += undo.daemon.restarts
        tx.daemon.reloads += undo.daemon.reloads
        notes = undo.notes + health_after_undo(tx.host, undo, tx.health_timeout)
        undo.close("a crash at the step %s" % found["step"])
        done.append("; ".join(["undid %s, left open at %s" % (found["id"], found["step"]), *notes]))
        found = ledger_module.open_transaction(tx.host)
    return ". ".join(done)


# -- the transaction -------------------------------------------------------------------------------
class Step(typing.NamedTuple):
    """One step. ``reads_only``: it also takes part in check mode."""

    name: str
    action: typing.Callable[[Transaction], str | Skipped]
    reads_only: bool = False


STEPS = (
    Step("lock", lock),
    Step("recover", recover, reads_only=True),
    Step("precheck", precheck, reads_only=True),
    Step("check", check, reads_only=True),
    Step("before_images", before_images),
    Step("accounts", accounts),
    Step("stage", stage),
    Step("validate", validate_config),
    Step("units", units),
    Step("services", run_services),
    Step("apparmor", profiles),
    Step("selinux", policy),
    Step("labels", labels),
    Step("live_restore", live_restore),
    Step("daemon_json", daemon_json),
    Step("modes", modes),
    Step("audit_rules", audit_rules),
    Step("sysctls", set_values),
    Step("daemon", daemon),
    Step("health", health_gate),
    Step("tidy", tidy),
    Step("sysctls_for_good", set_one_way),
    Step("commit", commit),
)

#: All that an empty plan does on a host on which a transaction was left open.
RECOVERY = STEPS[:2]

_READING_STEPS = frozenset({"lock", *(step.name for step in STEPS if step.reads_only)})
