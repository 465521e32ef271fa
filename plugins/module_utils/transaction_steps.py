# Copyright: (c) 2026, the Bulkhead authors
# Apache License 2.0 (see LICENSE)
"""The steps that change the host, in the order in which they run; each can be undone."""

from __future__ import annotations

import contextlib
import copy
import os
import stat as stat_module
import typing

from ansible_collections.bulkhead.hardening.plugins.module_utils import (
    boot as boot_unit,
    daemon_options,
    health,
    health_image,
    ledger as ledger_module,
    look,
    retention,
    transaction_apparmor,
    transaction_files as files,
    transaction_selinux,
    validate,
)
from ansible_collections.bulkhead.hardening.plugins.module_utils.host import HostError
from ansible_collections.bulkhead.hardening.plugins.module_utils.ledger import value_digest
from ansible_collections.bulkhead.hardening.plugins.module_utils.transaction_accounts import (
    SUBID_FILES,
)
from ansible_collections.bulkhead.hardening.plugins.module_utils.transaction_context import (
    Json,
    Skipped,
    Target,
    Transaction,
    account_missing,
    read,
    wanted_mode,
)
from ansible_collections.bulkhead.hardening.plugins.module_utils.transaction_journal import (
    Journal,
    digest,
    explicit_reload,
    ledger_content,
    loaded_content,
    proof,
    staged_path,
    transaction_path,
)
from ansible_collections.bulkhead.hardening.plugins.module_utils.transaction_json import (
    JsonFile,
)
from ansible_collections.bulkhead.hardening.plugins.module_utils.transaction_ownership import (
    changed_items,
    lookup,
)
from ansible_collections.bulkhead.hardening.plugins.module_utils.transaction_plan import (
    UNIT_DIRECTORIES,
    Operation,
)


# -- before-images ---------------------------------------------------------------------------------
def before_images(tx: Transaction) -> str:
    """Open the journal and save everything that will change."""
    identity = tx.daemon.identity() if tx.running else None
    parent = files.status(tx.host, files.split(tx.config.path)[0])
    begin = {
        "profile": tx.plan.profile,
        "undoes": tx.undoes,
        "config": tx.config.path,
        "config_directory": {"mtime_ns": parent.st_mtime_ns} if parent else None,
        "daemon": {
            "state": tx.engine.get("state"),
            "pid": identity.pid if identity else None,
            "start_ticks": identity.start_ticks if identity else None,
            "socket": tx.engine.get("socket"),
        },
        "live_restore": tx.live_restore,
        "config_loaded": tx.engine.get("config_loaded") is True,
        "stable": [
            {"id": item["id"], "name": item["name"], "pid": item["pid"]}
            for item in health.stable(tx.before)
        ],
    }
    if tx.running and identity is None:
        raise HostError("the daemon stopped since the look; run again")
    tx.journal = Journal(tx.host, tx.id, begin)
    if tx.boot:
        boot_unit.arm(tx.host, tx.boot)
    paths = [target.path for target in tx.targets if target.differs(tx.accounts)]
    paths += [ledger_module.LEDGER]
    if tx.planned_keys or tx.plan.effect != "none":
        paths.append(tx.config.path)
    if tx.plan.of("subid_present", "subid_absent", "user_absent"):
        paths += SUBID_FILES
    for path in paths:
        tx.images[path] = tx.journal.image(path)
    return "%d files saved in %s" % (
        sum(1 for image in tx.images.values() if image),
        transaction_path(tx.id),
    )


# -- accounts --------------------------------------------------------------------------------------
def accounts(tx: Transaction) -> str | Skipped:
    """Create groups, users and their ranges of subordinate ids; dockerd wants them there first."""
    journal, made = tx.writer(), []
    for operation in tx.plan.of("group_present"):
        if tx.accounts.gid(operation["name"]) is None:
            with journal.effect("group", name=operation["name"]):
                tx.accounts.add_group(operation["name"])
            made.append("group " + operation["name"])
            tx.ownership.put(operation["role"], {"kind": "group", "name": operation["name"]})
    for operation in tx.plan.of("user_present"):
        if tx.accounts.uid(operation["name"]) is None:
            with journal.effect("user", name=operation["name"]):
                tx.accounts.add_user(operation["name"], operation["group"])
            made.append("user " + operation["name"])
            tx.ownership.put(operation["role"], {"kind": "user", "name": operation["name"]})
    for operation in tx.plan.of("subid_present"):
        if account_missing(tx, operation):
            _add_ranges(tx, operation)
            made.append("subordinate ids of " + operation["user"])
    tx.changed = tx.changed or bool(made)
    return "created " + ", ".join(made) if made else Skipped("none are missing")


def _add_ranges(tx: Transaction, operation: Operation) -> None:
    fields: Json = {"user": operation["user"]}
    for path in SUBID_FILES:
        name = os.path.basename(path)
        wanted = operation[name]
        there = wanted is None or tx.accounts.has_range(
            path, operation["user"], wanted["start"], wanted["count"]
        )
        fields[name] = None if there else wanted
    created = [path for path in SUBID_FILES if tx.images[path] is None]
    with tx.writer().effect(
        "subids", **fields, before={path: tx.images[path] for path in SUBID_FILES}
    ):
        for path in SUBID_FILES:  # usermod wants the files to be there
            if tx.images[path] is None:
                files.stage(tx.host, path, b"", files.PRIVATE._replace(mode=0o644))
        tx.accounts.add_ranges(fields["user"], fields["subuid"], fields["subgid"])
    tx.ownership.put(operation["role"], dict(fields, kind="subids", created=created))


# -- stage -----------------------------------------------------------------------------------------
def stage(tx: Transaction) -> str | Skipped:
    """Write the new contents beside their targets."""
    journal, count = tx.writer(), 0
    for target in [*tx.targets, tx.config]:
        if target.content is None or not target.differs(tx.accounts):
            continue
        for directory in files.missing_directories(tx.host, target.path):
            with journal.effect("directory", path=directory):
                files.make_directory(tx.host, directory, 0o755)
            tx.directories.append(directory)
        staged = staged_path(target.path, tx.id)
        with journal.effect("staged", path=staged):
            files.stage(tx.host, staged, target.content, target.meta(tx.accounts))
        target.staged = staged
        count += 1
    return "%d files" % count if count else Skipped("no file changes")


# -- validate --------------------------------------------------------------------------------------
def validate_config(tx: Transaction) -> str | Skipped:
    """Ask the engine itself whether it would start with the new daemon.json."""
    if not tx.planned_keys:
        return Skipped("daemon.json stays as it is")
    if tx.config.staged is None:
        return Skipped("nothing is staged for the engine to check")
    if not tx.engine.get("binary"):
        return "there is no engine to ask yet"
    command = [tx.engine["binary"], *tx.arguments]
    return validate.ask_engine(
        tx.host, command, tx.engine.get("version"), tx.config.staged, tx.new_document
    )


# -- units and other files -------------------------------------------------------------------------
def units(tx: Transaction) -> str | Skipped:
    """Put all files but daemon.json in place, and let systemd read its own."""
    changed = [target for target in tx.targets if _put(tx, target)]
    if not changed:
        return Skipped("no unit or other file changes")
    detail = ", ".join(target.path for target in changed)
    if tx.systemd and any(target.path.startswith(UNIT_DIRECTORIES) for target in changed):
        with tx.writer().effect("units"):
            tx.daemon.read_units()
        detail += "; systemd read its units again"
    return detail


def _put(tx: Transaction, target: Target, **fields: typing.Any) -> bool:
    """Put one target in place; tell whether it changed."""
    if not target.differs(tx.accounts):
        return False
    journal = tx.writer()
    meta = target.meta(tx.accounts) if target.content is not None else files.PRIVATE
    journal.replace(target.path, target.content, meta, target.staged, **fields)
    tx.changed = True
    return True


# -- live-restore first ----------------------------------------------------------------------------
def live_restore(tx: Transaction) -> str | Skipped:
    """Make the running daemon leave containers alone, before anything needs its restart."""
    if not tx.plan.live_restore_first:
        return Skipped("not needed")
    if not tx.running:
        return Skipped("the daemon does not run")
    if tx.live_restore:
        return Skipped("it is in effect already")
    document = JsonFile(tx.config.old_content or b"")
    document.set("live-restore", True)
    content = document.render()
    bridge = Target(tx.config.path, tx.config.old, content)
    for directory in files.missing_directories(tx.host, bridge.path):
        with tx.writer().effect("directory", path=directory):
            files.make_directory(tx.host, directory, 0o755)
        tx.directories.append(directory)
    journal = tx.writer()
    # A name of its own: the staged daemon.json is still waiting.
    staged = staged_path(bridge.path, tx.id) + "-live-restore"
    with journal.effect("staged", path=staged):
        files.stage(tx.host, staged, content, bridge.meta(tx.accounts))
    journal.replace(
        bridge.path,
        content,
        bridge.meta(tx.accounts),
        staged,
        keys=sorted(document.value),
        live_restore=True,
    )
    tx.changed = tx.bridged = True
    with journal.effect("daemon", action="reload"):
        tx.daemon.reload(live_restore=True)
    return "the running daemon confirms it"


# -- daemon.json -----------------------------------------------------------------------------------
def daemon_json(tx: Transaction) -> str | Skipped:
    """Put the new daemon.json in place."""
    document = tx.new_document
    fields = {
        "keys": sorted(document),
        "live_restore": document.get("live-restore") is True,
    }
    if tx.bridged:
        tx.config.old = read(tx, tx.config.path)
    if not _put(tx, tx.config, **fields):
        if tx.config.staged:  # the live-restore step wrote the very same
            files.remove(tx.host, tx.config.staged)
        return Skipped("it stays as it is")
    names = ", ".join(sorted(tx.planned_keys)) or "live-restore"
    return "%s: %s" % (tx.config.path, names)


# -- modes -----------------------------------------------------------------------------------------
def modes(tx: Transaction) -> str | Skipped:
    """Set owners and modes, of live sockets too: docker.socket itself is never restarted."""
    changed = []
    for operation in tx.plan.of("mode", "mode_restore", "mode_back"):
        path = operation["path"]
        st = files.status(tx.host, path)
        if st is None:
            raise HostError("%s is gone" % path)
        now = {"mode": stat_module.S_IMODE(st.st_mode), "uid": st.st_uid, "gid": st.st_gid}
        wanted = wanted_mode(tx, operation, st)
        if operation["op"] == "mode_restore":
            tx.ownership.drop("mode", path=path)
        elif operation["op"] == "mode":
            before = (tx.ownership.find("mode", path=path) or {"before": now})["before"]
            item = dict(wanted, kind="mode", path=path, before=before)
            tx.ownership.put(operation["role"], dict(item, mode="%04o" % wanted["mode"]))
        if now == wanted:
            continue
        with tx.writer().effect("mode", path=path, before=now, after=wanted):
            files.set_mode(tx.host, path, wanted["mode"], wanted["uid"], wanted["gid"])
        changed.append(path)
    tx.changed = tx.changed or bool(changed)
    return ", ".join(changed) if changed else Skipped("no mode changes")


# -- the daemon ------------------------------------------------------------------------------------
def daemon(tx: Transaction) -> str | Skipped:
    """Let the daemon take it up: one reload or one restart."""
    if tx.plan.effect == "none":
        return Skipped("the daemon need not know")
    if not tx.running:
        return Skipped("takes effect when the daemon starts (it is %s)" % tx.engine.get("state"))
    tx.changed = True
    why = ", ".join(tx.plan.why) or "the plan asks for it"
    if tx.plan.effect == "reload":
        _reload(tx, set(tx.old_document) - set(tx.new_document))
        return "reloaded for " + why
    # A daemon that starts without live-restore ends the containers that outlived its predecessor
    # (daemon/daemon.go, restore). So it starts with it, and a reload takes it away again.
    handed_over = tx.hands_over and bool(health.running(tx.before))
    if handed_over:
        bridge = JsonFile(tx.config.content or b"")
        bridge.set("live-restore", True)
        _replace_config(tx, bridge.render())
    with tx.writer().effect("daemon", action="restart"):
        tx.daemon.restart()
    tx.restarted = True
    if handed_over:
        _reload(tx, {"live-restore"})
    return "; ".join(["restarted for " + why, *tx.daemon.notes])


def _replace_config(tx: Transaction, content: bytes | None) -> None:
    document = JsonFile(content or b"").value
    tx.writer().replace(
        tx.config.path,
        content,
        tx.config.meta(tx.accounts),
        keys=sorted(document),
        live_restore=document.get("live-restore") is True,
    )


def _reload(tx: Transaction, vanished: set[str]) -> None:
    """Reload; what is gone from the file keeps its value then, so its default is spelled out once."""
    explicit = explicit_reload(tx.config.content, vanished)
    if explicit is not None:
        _replace_config(tx, explicit)
    shown = tx.config.content if explicit is None else explicit
    wanted = JsonFile(shown or b"").value.get("live-restore")
    with tx.writer().effect("daemon", action="reload"):
        tx.daemon.reload(wanted if isinstance(wanted, bool) else None)
    if shown != tx.config.content:
        _replace_config(tx, tx.config.content)


# -- health ----------------------------------------------------------------------------------------
def health_gate(tx: Transaction) -> str | Skipped:
    """See that the host is as well as before, and that the plan shows in the running daemon."""
    if not tx.running:
        return Skipped("the daemon does not run")
    api, restarts, expected = tx.daemon.api, tx.daemon.history, health.stable(tx.before)
    details = []
    hidden = tx.restarted and tx.hides
    if hidden:
        details.append("containers of before are out of sight, because %s changed" % hidden)
    else:
        details += health.wait_for_containers(tx.host, api, expected, tx.health_timeout, restarts)
    architecture = str(tx.before["os"].get("architecture"))
    if health_image.supports(architecture):
        with tx.writer().effect("witness", id=tx.id):
            tx.witness = health.witness(tx.host, api, architecture, tx.id)
        details.append("a container without options starts and ends well")
        if restarts and not hidden:  # those that were started again had time to fail meanwhile
            health.wait_for_containers(tx.host, api, expected, tx.health_timeout, restarts)
    else:
        details.append("no throw-away container is made for %s" % architecture)
    if tx.restarted:
        details += filter(None, [health.check_slice(tx.host, tx.new_document)])
    if tx.plan.effect != "none":
        after = look.observe(tx.host, ["engine"])
        pending = health.check_options(tx.new_document, tx.planned_keys, after, tx.restarted)
        details.append("; ".join(["the daemon shows what was planned", *pending]))
    return ". ".join(details)


# -- commit ----------------------------------------------------------------------------------------
def commit(tx: Transaction) -> str:
    """Record who owns what now. With the journal's last record the new state is the valid one."""
    _own_files(tx)
    transaction_selinux.own(tx)
    for operation in tx.plan.of("disown"):
        fields = {name: value for name, value in operation.items() if name != "kind"}
        tx.changed = tx.ownership.drop(operation["kind"], **fields) or tx.changed
    ledger = copy.deepcopy(tx.ledger)
    ledger["owned"] = tx.ownership.owned
    ledger["profile"] = tx.plan.profile or ledger["profile"]
    known = [*ledger["directories"], *tx.directories]
    ledger["directories"] = [path for path in known if files.status(tx.host, path) is not None]
    ledger["loaded"] = _loaded(tx)
    ledger["last_transaction"] = tx.last_transaction("committed")
    journal = tx.writer()
    journal.replace(ledger_module.LEDGER, ledger_content(ledger), files.PRIVATE)
    touched = changed_items(tx.ledger["owned"], ledger["owned"])
    journal.write({"record": "committed", "touched": touched, "keys": _changes(tx)})
    with contextlib.suppress(OSError, HostError):
        retention.prune(tx.host, ledger)
    return "recorded as %s" % tx.id


def _changes(tx: Transaction) -> list[Json]:
    """Return which keys of daemon.json changed, so that an undo can tell them from others."""
    found = []
    for operation in tx.plan.of("json_set", "json_remove"):
        names: Json = {name: operation[name] for name in ("key", "member") if name in operation}
        before, after = (
            value_digest(value) if there else None
            for there, value in (
                lookup(document, names["key"], names.get("member"))
                for document in (tx.old_document, tx.new_document)
            )
        )
        if before != after:
            found.append(dict(names, before=before, after=after))
    return found


def _own_files(tx: Transaction) -> None:
    targets = {target.path: target for target in tx.targets}
    for operation in tx.plan.of("file_present", "file_absent"):
        path = operation["path"]
        if operation["op"] == "file_absent":
            tx.ownership.drop("file", path=path)
            continue
        target, item = targets[path], tx.ownership.find("file", path=path)
        if item is None:
            image = tx.images.get(path)
            item = {"kind": "file", "path": path, "had_before": target.old is not None}
            item["before"] = _image_reference(tx, target, image)
        item = dict(item, sha256=digest(target.content))
        item.update(transaction_apparmor.owned(tx, operation, item))
        if "keys" in operation:  # whose flags this file takes
            item["flags"] = sorted(operation["keys"])
        tx.ownership.put(operation["role"], item)


def _image_reference(tx: Transaction, target: Target, image: Json | None) -> Json | None:
    """Return where the file of before is kept, relative to the transactions."""
    if target.old is None:
        return None
    # A file that was there just as the plan wants it has not been saved yet.
    image = image or tx.writer().image(target.path)
    meta = target.old[1]
    if image is None:
        return None
    relative = image["image"][len(ledger_module.TRANSACTIONS) + 1 :]
    return {"image": relative, "mode": meta.mode, "uid": meta.uid, "gid": meta.gid}


def _loaded(tx: Transaction) -> Json | None:
    """Return the proof that the running daemon has read daemon.json whole, if there is one.

    Times alone would tell less from now on: a file that got another mode is a newer one.
    """
    content = loaded_content(tx.host, tx.config.path)
    identity = tx.daemon.identity() if tx.running else None
    if identity is None:
        return None
    if content is None and files.status(tx.host, tx.config.path) is not None:
        return None
    whole = tx.restarted
    if not whole and not tx.planned_keys and tx.plan.effect == "none":
        whole = tx.engine.get("config_loaded") is True
    if not whole and tx.daemon.reloads and tx.engine.get("config_loaded") is True:
        changed = _changed_keys(tx.old_document, tx.new_document)
        known = [daemon_options.OPTIONS.get(key) for key in changed]
        whole = not tx.hides and all(option is not None and option.reload for option in known)
    if whole:
        return proof(content, identity)
    loaded: Json | None = tx.ledger.get("loaded")
    return loaded


def _changed_keys(old: Json, new: Json) -> list[str]:
    return [key for key in {*old, *new} if key not in old or key not in new or old[key] != new[key]]
