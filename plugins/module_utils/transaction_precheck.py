# Copyright: (c) 2026, the Bulkhead authors
# Apache License 2.0 (see LICENSE)
"""The steps that only read: does the plan fit this host, and would the result work?"""

from __future__ import annotations

import os
import stat as stat_module
import typing

from ansible_collections.bulkhead.hardening.plugins.module_utils import (
    flags_dropin,
    health,
    hiding,
    history,
    ledger as ledger_module,
    look,
    look_tls,
    transaction_apparmor,
    transaction_audit,
    transaction_diff as diffs,
    transaction_files as files,
    transaction_selinux,
    transaction_services,
    transaction_sysctls,
    validate,
)
from ansible_collections.bulkhead.hardening.plugins.module_utils.flags_dropin import FLAGS_DROPIN
from ansible_collections.bulkhead.hardening.plugins.module_utils.host import (
    HostError,
)
from ansible_collections.bulkhead.hardening.plugins.module_utils.look_options import (
    CONFIG_FILE,
    parse_flags,
)
from ansible_collections.bulkhead.hardening.plugins.module_utils.look_systemd import (
    Word,
)
from ansible_collections.bulkhead.hardening.plugins.module_utils.option_checks import Facts
from ansible_collections.bulkhead.hardening.plugins.module_utils.transaction_accounts import (
    SUBID_FILES,
)
from ansible_collections.bulkhead.hardening.plugins.module_utils.transaction_context import (
    Json,
    Target,
    Transaction,
    account_missing,
    mode_differs,
    read,
    removed_account,
    wanted_mode,
)
from ansible_collections.bulkhead.hardening.plugins.module_utils.transaction_daemon import (
    UNIT,
    Daemon,
)
from ansible_collections.bulkhead.hardening.plugins.module_utils.transaction_journal import (
    digest,
)
from ansible_collections.bulkhead.hardening.plugins.module_utils.transaction_json import (
    JsonFile,
)
from ansible_collections.bulkhead.hardening.plugins.module_utils.transaction_ownership import (
    Ownership,
    apply_json,
)
from ansible_collections.bulkhead.hardening.plugins.module_utils.transaction_plan import (
    Operation,
    path_allowed,
)

#: Free space, in bytes and inodes, that must remain wherever something is written.
_RESERVE_BYTES = 1024 * 1024
_RESERVE_INODES = 32


def precheck(tx: Transaction) -> str:
    """Refuse what cannot be done safely, while nothing has changed yet."""
    if os.geteuid() != 0:
        raise HostError("only root can do this; set become: true")
    read_ledger(tx)
    look_first(tx)
    check_daemon(tx)
    _check_versions(tx)
    _read_config(tx)
    _plan_targets(tx)
    transaction_audit.check_rules(tx)
    transaction_apparmor.check_profiles(tx)
    transaction_sysctls.check_sysctls(tx)
    transaction_selinux.check_selinux(tx)
    transaction_services.check_services(tx)
    _check_modes(tx)
    _check_accounts(tx)
    check_removals(tx)
    check_unread(tx)
    check_containers(tx)
    check_space(tx)
    return "%d operations fit this host" % len(tx.plan.operations)


def read_ledger(tx: Transaction) -> None:
    ledger, state, reason = ledger_module.read_ledger(tx.host)
    if state not in ("ok", "absent"):
        raise HostError("what earlier runs noted on this host is %s: %s" % (state, reason))
    tx.ledger = ledger or ledger_module.empty_ledger()
    tx.ownership = Ownership(tx.ledger["owned"])


def look_first(tx: Transaction) -> None:
    sections = ["os", "engine", "daemon_config", "containers", "units", "lsm"]
    if any(not path_allowed(op["path"]) for op in tx.plan.of("mode", "mode_restore")):
        sections.append("files")
    tx.before = look.observe(tx.host, sections, tls_files=look_tls.named(tx.plan.of("json_set")))
    for section in ("os", "engine", "daemon_config"):
        if not tx.before.get(section):
            raise HostError("the look could not read %s: %s" % (section, _unread(tx, section)))
    if tx.running and tx.before.get("containers") is None:
        raise HostError("the look could not read the containers: " + _unread(tx, "containers"))
    config = tx.engine.get("config_file") or CONFIG_FILE
    daemon = Daemon(tx.host, tx.engine.get("socket"), tx.daemon_timeout, config)
    daemon.restarts, daemon.reloads = tx.daemon.restarts, tx.daemon.reloads
    tx.daemon = daemon
    arguments, following = look.arguments_now_and_next(tx.host)
    set_arguments(tx, arguments)
    if tx.systemd and following:
        _reckon_with_the_next_start(tx, following)


def set_arguments(tx: Transaction, arguments: list[str]) -> None:
    """Note the arguments that the daemon has, or will have, and which options they set where."""
    tx.arguments = arguments
    options = tx.engine.get("options") or {}
    flags, _ = parse_flags([Word(text, "flag", "") for text in arguments])
    tx.flags = {
        key: str((options.get(key) or {}).get("where") or "the daemon's command line")
        for key in flags
    }


def _reckon_with_the_next_start(tx: Transaction, words: list[Word]) -> None:
    """Add flags that unit, drop-ins or environment files got since the daemon's start."""
    tx.arguments = [word.text for word in words]
    for key, setting in parse_flags(words)[0].items():
        tx.flags.setdefault(key, "%s, from the next start on" % setting.where)


def _unread(tx: Transaction, section: str) -> str:
    rows = [row for row in tx.before.get("unread") or [] if row.get("section") == section]
    return "; ".join(str(row.get("reason")) for row in rows) or "no reason given"


def check_daemon(tx: Transaction) -> None:
    state, effect = tx.engine.get("state"), tx.plan.effect
    if tx.engine.get("rootless"):
        raise HostError("a rootless daemon is not managed; its files belong to its user")
    if state == "broken" and (effect != "none" or tx.planned_keys):
        raise HostError(
            "the daemon is not well before the change (%s); repair it first, or nobody can tell "
            "what the change does" % tx.engine.get("reason")
        )
    if effect != "none" and tx.running:
        _check_unit(tx)
    reloads = effect == "reload" or tx.plan.live_restore_first
    if reloads and tx.running and "authorization-plugins" in tx.flags:
        raise HostError(
            "authorization-plugins is a flag in %s: a reload would drop these plugins; move it to "
            "daemon.json first" % tx.flags["authorization-plugins"]
        )


def _check_unit(tx: Transaction) -> None:
    """A daemon may outlive its unit's file, but then systemd neither reloads nor restarts it."""
    if not tx.systemd:
        raise HostError(
            "systemd does not run this host, and no other way to reload Docker is known"
        )
    unit = (tx.before.get("units") or {}).get(UNIT)
    if unit is None:
        raise HostError("the look could not read the units: " + _unread(tx, "units"))
    fixes = {
        "masked": "run systemctl unmask %s, or leave Docker alone on this host" % UNIT,
        "not-found": "the daemon runs, but its unit is gone: install Docker's package again",
    }
    if unit["load_state"] != "loaded":
        fix = fixes.get(unit["load_state"], "see systemctl status %s" % UNIT)
        raise HostError("%s is %s; %s" % (UNIT, unit["load_state"], fix))
    # Where the package's unit is missing, systemd makes one from Debian's init script.
    if tx.daemon.properties().get("CanReload") == "no":
        raise HostError(
            "%s (%s) has no ExecReload, so the daemon cannot be told to read its file: install "
            "Docker's package again, or add one" % (UNIT, unit["fragment"])
        )


def _check_versions(tx: Transaction) -> None:
    for operation in tx.plan.operations:
        observed: typing.Any = operation.get("observed")
        if operation["op"] == "subid_present":
            for path in SUBID_FILES:
                _check_version(tx, path, observed[os.path.basename(path)])
        elif observed is not None and "path" in operation:
            _check_version(tx, operation["path"], observed)


def _check_version(tx: Transaction, path: str, observed: str) -> None:
    if tx.host.version(path) != observed:
        raise HostError("%s changed since the look; run again" % path)


def _read_config(tx: Transaction) -> None:
    """Read daemon.json and apply the plan's operations to it in memory."""
    path = tx.engine.get("config_file") or CONFIG_FILE
    operations = tx.plan.of("json_set", "json_remove")
    for operation in operations:
        if operation["path"] != path:
            raise HostError(
                "%s: the daemon reads %s, and only that file may be merged into"
                % (operation["path"], path)
            )
    for operation in tx.plan.of("file_present", "file_absent"):
        if operation["path"] == path:
            raise HostError("%s is the daemon's own file: set and remove its keys" % path)
    tx.config = Target(path, None, None)
    removals = tx.plan.of("subid_absent", "user_absent")
    if not (operations or removals or tx.plan.effect != "none" or tx.plan.live_restore_first):
        return
    reason = validate.files_problem(tx.host, path)
    if reason:
        raise HostError(reason)
    tx.config.old = read(tx, path)
    tx.config.content = tx.config.old_content
    try:
        document = JsonFile(tx.config.old_content or b"")
    except ValueError as exc:
        raise HostError("%s: %s; repair it first" % (path, exc)) from exc
    tx.old_document = document.value
    keep = apply_json(tx.host, document, tx.ownership, operations, tx.config.old is not None)
    tx.new_document = document.value
    if operations:
        tx.config.content = document.render() if keep else None


def take_flags(tx: Transaction, keys: typing.Collection[str]) -> str:
    """Reckon with a command line without the flags of some keys; return the drop-in for it."""
    unit = (tx.before.get("units") or {}).get(UNIT)
    content, arguments = flags_dropin.dropin(tx.host, unit, keys)
    set_arguments(tx, arguments)
    return content


def _resolve_flags(tx: Transaction) -> None:
    """Turn the operation on flags, which names keys alone, into the file that it stands for."""
    operations = []
    loaded = ((tx.before.get("units") or {}).get(UNIT) or {}).get("load_state") == "loaded"
    for operation in map(transaction_apparmor.resolve, tx.plan.operations):
        if operation["op"] == "flags_taken":
            content = take_flags(tx, operation["keys"])
            fields = {"content": content, "mode": "0600", "owner": "root", "group": "root"}
            operation = dict(operation, op="file_present", **fields)
        elif loaded and operation.get("path") == FLAGS_DROPIN:
            take_flags(tx, ())
        operations.append(operation)
    tx.plan = tx.plan._replace(operations=operations)


def _plan_targets(tx: Transaction) -> None:
    _resolve_flags(tx)
    for operation in tx.plan.of("file_present", "file_absent"):
        reason = validate.files_problem(tx.host, operation["path"])
        if reason:
            raise HostError(reason)
        old = read(tx, operation["path"])
        if operation["op"] == "file_present":
            target = Target(operation["path"], old, operation["content"].encode("utf-8"))
            target.owner, target.group = operation["owner"], operation["group"]
            target.mode = int(operation["mode"], 8)
        else:
            target = _target_of_removal(tx, operation, old)
        tx.targets.append(target)
        profile = transaction_apparmor.of_operation(tx, operation)
        if profile is not None:
            tx.profiles.append(profile)


def _target_of_removal(
    tx: Transaction, operation: Operation, old: tuple[bytes, files.Meta] | None
) -> Target:
    path = operation["path"]
    item = tx.ownership.find("file", path=path)
    if item is None:
        raise HostError("%s was not placed by Bulkhead, so it does not remove it" % path)
    if old is not None and digest(old[0]) != item["sha256"]:
        raise HostError("%s was changed by somebody else since; disown it instead" % path)
    target = Target(path, old, None)
    if item.get("had_before") and old is not None:
        before = item["before"]
        image = "%s/%s" % (ledger_module.TRANSACTIONS, before["image"])
        target.content = files.read(tx.host, image)[0]
        target.restored = files.Meta(before["mode"], before["uid"], before["gid"], 0, 0, {})
    return target


def _check_modes(tx: Transaction) -> None:
    listed = {row.get("path") for row in tx.before.get("files") or []}
    for operation in tx.plan.of("mode", "mode_restore"):
        path = operation["path"]
        # What Bulkhead set it puts back, also where nothing names the file any more.
        if operation["op"] == "mode" and not path_allowed(path) and path not in listed:
            raise HostError("%s is none of the files whose mode may be changed" % path)
        if operation["op"] == "mode_restore":
            _check_owned_mode(tx, path)
        st = files.status(tx.host, path)
        if st is None:
            raise HostError("%s is absent" % path)
        if stat_module.S_ISLNK(st.st_mode):
            raise HostError("%s is a link; Bulkhead does not write through one" % path)
        if tx.host.attributes(path):
            raise HostError(
                "%s is %s; take that off with chattr first"
                % (path, " and ".join(tx.host.attributes(path)).replace("_", " "))
            )
        if files.free_space(tx.host, path)[2]:
            raise HostError("%s lies on a file system that is mounted read-only" % path)
        wanted_mode(tx, operation, st)


def _check_owned_mode(tx: Transaction, path: str) -> None:
    item = tx.ownership.find("mode", path=path)
    if item is None:
        raise HostError("the mode of %s was not set by Bulkhead, so it does not put it back" % path)
    if not ledger_module.item_intact(tx.host, item):
        raise HostError("the mode of %s was changed by somebody else; disown it instead" % path)


def _check_accounts(tx: Transaction) -> None:
    for operation in tx.plan.of("subid_present"):
        for path in SUBID_FILES:
            wanted = operation[os.path.basename(path)]
            tx.accounts.check_range(path, operation["user"], wanted["start"], wanted["count"])


def check_removals(tx: Transaction) -> None:
    """Refuse to remove accounts that are not ours, or that the new daemon.json still names."""
    user = str(tx.new_document.get("userns-remap") or "").partition(":")[0]
    for operation in tx.plan.of("subid_absent", "user_absent", "group_absent"):
        kind, name = removed_account(operation)
        item = tx.ownership.find(**{"kind": kind, "user" if kind == "subids" else "name": name})
        told = history.subject_text((kind, name))
        if item is None:
            raise HostError("%s was not made by Bulkhead, so it does not remove it" % told)
        if not ledger_module.item_intact(tx.host, item):
            raise HostError("%s was changed by somebody else since; disown it instead" % told)
        if kind != "group" and name == user:
            raise HostError(
                "%s is needed: userns-remap in %s still names it" % (told, tx.config.path)
            )


def check_containers(tx: Transaction) -> None:
    """Refuse a restart that would end containers, unless the plan allows it."""
    if not tx.running or tx.plan.effect != "restart":
        return
    names = ", ".join(sorted(str(item["name"]) for item in health.running(tx.before)))
    if not names:
        return
    if tx.hides and tx.live_restore:
        # They would go on running where no daemon sees them any more.
        raise HostError(
            "%s changes while live-restore keeps these containers running out of the new daemon's "
            "sight; stop them first: %s" % (tx.hides, names)
        )
    if not tx.plan.allow_container_restart and (tx.hides or not tx.keeps_containers):
        raise HostError(
            "a restart without live-restore ends these containers: %s; stop "
            "them first, or allow it (plan.daemon.allow_container_restart)" % names
        )


def check_unread(tx: Transaction) -> None:
    """Refuse a restart that takes up what others changed, and that hides data or where the daemon listens.

    The planner of docker_daemon names all that they changed; this also holds for an undo.
    """
    if not tx.running or tx.plan.effect != "restart":
        return
    if ((tx.before.get("units") or {}).get(UNIT) or {}).get("need_daemon_reload"):
        raise HostError(
            "%s changed since systemd read it, and a restart may take that up: systemctl daemon-reload, "
            "or take the change back" % UNIT
        )
    found = [
        "the flag of %s, in %s" % (row["key"], row["where"] or UNIT)
        for row in tx.engine.get("unread_flags") or []
        if row["key"] not in tx.planned_keys
        and row["key"] in (*hiding.KEYS, "features", "hosts", "config-file")
    ]
    if tx.engine.get("config_loaded") is False:
        found += ["%s, in %s" % (name, tx.config.path) for name in _unread_keys(tx)]
    if found:
        raise HostError(
            "a restart would take up what somebody changed since the daemon started: %s; restart it "
            "yourself when that is meant, or take the change back" % "; ".join(found)
        )


def _unread_keys(tx: Transaction) -> list[str]:
    """Return what of daemon.json the daemon is known not to have, but what the plan means it to read."""
    old, new = hiding.values(tx.old_document), hiding.values(tx.new_document)
    meant = {*tx.plan.why} - tx.planned_keys
    found = [
        name
        for name in hiding.unread(tx.engine, old)
        if old[name] == new[name] and name.partition(".")[0] not in meant
    ]
    hosts = tx.engine.get("unread_hosts") and "hosts" not in {*tx.plan.why, *tx.planned_keys}
    return [*found, "hosts"] if hosts else found


def check_space(tx: Transaction) -> None:
    contents = [target.content for target in [*tx.targets, tx.config]]
    contents += [target.old_content for target in [*tx.targets, tx.config]]
    needed = sum(len(content) for content in contents if content) + _RESERVE_BYTES
    places = {files.split(target.path)[0] for target in tx.targets}
    places |= {files.split(tx.config.path)[0], ledger_module.STATE_DIRECTORY}
    for place in sorted(places):
        free, inodes, _ = files.free_space(tx.host, place)
        if free < needed or 0 <= inodes < _RESERVE_INODES:
            raise HostError(
                "%s has %d bytes and %s inodes left; %d bytes and %d inodes are needed"
                % (place, free, inodes, needed, _RESERVE_INODES)
            )


# -- check -----------------------------------------------------------------------------------------
def check(tx: Transaction) -> str:
    """Check the planned daemon.json as far as that goes without writing it; see validate.py."""
    _refuse_problems(tx)
    changed = (
        any(target.differs(tx.accounts) for target in [*tx.targets, tx.config])
        or any(mode_differs(tx, op) for op in tx.plan.of("mode", "mode_restore", "mode_back"))
        or any(account_missing(tx, op) for op in tx.plan.operations)
        or bool(tx.plan.of("subid_absent", "user_absent", "group_absent"))
        or (tx.running and tx.plan.effect != "none")
        or bool(tx.profiles)
        or bool(tx.plan.of(*transaction_services.KINDS))
        or bool(transaction_selinux.rows(tx))
        or _owned_differs(tx)
        or any(transaction_audit.delta(tx))
        or bool(transaction_sysctls.changes(tx))
    )
    tx.diff = _differences(tx)
    if not tx.check_mode:
        return "daemon.json passes our checks" if tx.planned_keys else "daemon.json stays as it is"
    tx.changed = tx.changed or bool(changed)
    return "nothing was written"


def _refuse_problems(tx: Transaction) -> None:
    if not tx.planned_keys:
        return
    facts = Facts(
        version=tx.engine.get("version"),
        flags=tx.flags,
        # What is put back was there before; the engine itself judges it.
        planned=frozenset(op["key"] for op in tx.plan.of("json_set")),
        contents={target.path: target.content for target in tx.targets},
        log_drivers=_log_drivers(tx),
        plugins=_plugins(tx),
        systemd_cgroups=(tx.engine.get("info") or {}).get("cgroup_driver") == "systemd",
        selinux=bool(((tx.before.get("lsm") or {}).get("selinux") or {}).get("enabled")),
        users=frozenset(op["name"] for op in tx.plan.of("user_present")),
        ranges=frozenset(op["user"] for op in tx.plan.of("subid_present")),
    )
    found = validate.problems(tx.host, tx.new_document, facts)
    found.extend(filter(None, [validate.mark_problem(facts.version, tx.config.content)]))
    if found:
        raise HostError("%s: %s" % (tx.config.path, "; ".join(found)))


def _log_drivers(tx: Transaction) -> frozenset[str]:
    """Return the log drivers that the running engine lists, plugins included."""
    if not tx.running or "log-driver" not in tx.planned_keys:
        return frozenset()
    plugins = (tx.daemon.api.get("/info") or {}).get("Plugins") or {}
    return frozenset(plugins.get("Log") or ())


def _plugins(tx: Transaction) -> frozenset[str]:
    """Return the managed plugins of the running engine that are enabled."""
    if not tx.running or "authorization-plugins" not in tx.planned_keys:
        return frozenset()
    listed = tx.daemon.api.get("/plugins") or []
    return frozenset(str(item.get("Name")) for item in listed if item.get("Enabled"))


def _differences(tx: Transaction) -> list[Json]:
    """Return what will change, for --diff."""
    rows = diffs.account_rows(op for op in tx.plan.operations if account_missing(tx, op))
    for target in tx.targets:
        if target.differs(tx.accounts):
            rows.append(diffs.file_row(_state(tx, target)))
    if tx.config.content != tx.config.old_content:
        operations = tx.plan.of("json_set", "json_remove")
        rows.append(diffs.config_row(tx.config.path, tx.old_document, tx.new_document, operations))
    for operation in tx.plan.of("mode", "mode_restore", "mode_back"):
        st = files.status(tx.host, operation["path"])
        if st is not None and mode_differs(tx, operation):
            wanted = diffs.mode_text(**wanted_mode(tx, operation, st))
            rows.append(diffs.row(operation["path"], diffs.mode_of(st) + "\n", wanted + "\n"))
    rows += transaction_audit.rows(tx)
    rows += transaction_apparmor.rows(tx)
    rows += transaction_sysctls.rows(tx)
    rows += transaction_selinux.rows(tx)
    rows += transaction_services.rows(tx)
    return rows + diffs.removed_account_rows(tx.plan.operations, tx.ownership)


def _state(tx: Transaction, target: Target) -> diffs.State:
    before = target.old[1] if target.old else None
    try:
        after: files.Meta | None = target.meta(tx.accounts)
    except HostError:  # an owner that this very plan creates
        after = None
    return diffs.State(
        path=target.path,
        secret=target.path == FLAGS_DROPIN,
        before=target.old_content,
        after=target.content,
        foreign=digest(target.old_content)
        != (Ownership(tx.ledger["owned"]).find("file", path=target.path) or {}).get("sha256"),
        put_back=target.restored is not None,
        mode_before=diffs.mode_text(before.mode, before.uid, before.gid) if before else None,
        mode_after=diffs.mode_text(after.mode, after.uid, after.gid) if after else None,
    )


def _owned_differs(tx: Transaction) -> bool:
    return any(
        tx.ownership.find(op["kind"], **{k: v for k, v in op.items() if k != "kind"})
        for op in tx.plan.of("disown")
    )
