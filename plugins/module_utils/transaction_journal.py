# Copyright: (c) 2026, the Bulkhead authors
# Apache License 2.0 (see LICENSE)
"""The write-ahead journal of a transaction, and undoing a transaction from its journal alone.

Records, one JSON object per line, each synced to disk before anything follows from it:

- ``begin``: ``{"schema", "at", "id", "profile", "undoes": None | ID, "config": PATH,
  "config_directory": None | {"mtime_ns"}, "daemon": {"state", "pid", "start_ticks", "socket"},
  "live_restore": bool | None, "config_loaded": bool, "stable": [{"id", "name", "pid"}]}``
- ``step``: ``{"step"}``, the name of a step that begins
- ``effect``: ``{"n", "kind", ...}``, written before something changes; see the kinds in Undo
- ``done``: ``{"n"}``, written after it changed
- ``files_back``: ``{}``, written at boot when all files are as before and no daemon has read others
- ``committed`` or ``rolled_back``: ``{"at", "reason"?}``, the end; ``committed`` also has
  ``touched``, the ledger items that changed, and ``keys``, what changed in daemon.json:
  ``[{"key", "member"?, "before": None | SHA256, "after": None | SHA256}]``, None for absent

Every undo is idempotent: a crash while undoing is answered by undoing again. It works from the
first ``before`` of each thing, so what a transaction wrote in between does not matter.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import stat as stat_module
import typing

from ansible_collections.bulkhead.hardening.plugins.module_utils import (
    apparmor,
    audit_kernel,
    health,
    ledger as ledger_module,
    selinux,
    services,
    sysctls,
    transaction_files as files,
)
from ansible_collections.bulkhead.hardening.plugins.module_utils.host import Host, HostError
from ansible_collections.bulkhead.hardening.plugins.module_utils.runs import (
    make_private_directory,
)
from ansible_collections.bulkhead.hardening.plugins.module_utils.transaction_accounts import (
    SUBID_FILES,
    Accounts,
)
from ansible_collections.bulkhead.hardening.plugins.module_utils.transaction_daemon import (
    RELOAD_DEFAULTS,
    Daemon,
    Identity,
    Restart,
)
from ansible_collections.bulkhead.hardening.plugins.module_utils.transaction_json import JsonFile

Json = dict[str, typing.Any]


def digest(content: bytes | None) -> str | None:
    """Return the SHA-256 of a file's content; None for an absent file."""
    return None if content is None else hashlib.sha256(content).hexdigest()


def transaction_path(identifier: str) -> str:
    """Return the directory of a transaction."""
    return "%s/%s" % (ledger_module.TRANSACTIONS, identifier)


class Journal:
    """The journal of one open transaction, for writing.

    :param begin: the fields of the first record, for a new journal; None to go on with an old one.
    """

    def __init__(self, host: Host, identifier: str, begin: Json | None = None) -> None:
        self._host = host
        self.identifier = identifier
        self._directory = transaction_path(identifier)
        if begin is not None:
            make_private_directory(host, self._directory)
            files.make_directory(host, self._directory + "/" + ledger_module.IMAGES_NAME, 0o700)
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        with files.directory(host, self._directory) as opened:
            self._fd = os.open(ledger_module.JOURNAL_NAME, flags, 0o600, dir_fd=opened)
            os.fsync(opened)
        self._images: dict[str, Json | None] = {}
        self._count = 0
        self._kept = 0
        if begin is not None:
            self.write(
                dict(begin, record="begin", schema=ledger_module.JOURNAL_SCHEMA, id=identifier)
            )
        else:
            self._resume()

    def _resume(self) -> None:
        """Go on after the last whole record; a line torn by a power loss is cut off."""
        size = os.fstat(self._fd).st_size
        text = os.pread(self._fd, size, 0)
        os.ftruncate(self._fd, text.rfind(b"\n") + 1)
        records = ledger_module.read_journal(self._host, self.identifier)
        effects = [record for record in records if record.get("record") == "effect"]
        self._count = len(effects)
        for record in effects:
            if record["kind"] == "file":
                self._images.setdefault(record["path"], record["before"])

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)

    def write(self, record: Json) -> None:
        """Append one record and wait until it is on disk."""
        line = json.dumps(dict(record, at=self._host.now()), sort_keys=True) + "\n"
        os.write(self._fd, line.encode("ascii"))
        os.fsync(self._fd)

    @contextlib.contextmanager
    def effect(self, kind: str, **fields: typing.Any) -> typing.Iterator[None]:
        """Note what is about to change, let it change, and note that it did."""
        self._count += 1
        number = self._count
        self.write(dict(fields, record="effect", n=number, kind=kind))
        yield
        self.write({"record": "done", "n": number})

    # -- before-images -------------------------------------------------------------------------
    def image(self, path: str) -> Json | None:
        """Save a file as it was before this transaction, once; return where, or None if absent.

        ``{"image": PATH, "sha256", "meta"}``
        """
        if path not in self._images:
            try:
                content, meta = files.read(self._host, path)
            except FileNotFoundError:
                self._images[path] = None
            else:
                self._images[path] = self._save("%04d" % (len(self._images) + 1), content, meta)
        return self._images[path]

    def keep(self, content: bytes) -> Json:
        """Save what is no file of the host's, as :meth:`image` does."""
        self._kept += 1
        return self._save("kept-%04d" % self._kept, content, files.PRIVATE)

    def _save(self, name: str, content: bytes, meta: files.Meta) -> Json:
        path = "%s/%s/%s" % (self._directory, ledger_module.IMAGES_NAME, name)
        files.stage(self._host, path, content, files.PRIVATE)
        return {"image": path, "sha256": digest(content), "meta": meta.as_json()}

    # -- files ---------------------------------------------------------------------------------
    def replace(
        self,
        path: str,
        content: bytes | None,
        meta: files.Meta,
        staged: str | None = None,
        keep_times: bool = False,
        **fields: typing.Any,
    ) -> None:
        """Put a file in place, or remove it (content None), so that it can be undone.

        :param staged: where the content lies already; otherwise it is written first.
        :param fields: more of the record: ``keys`` of a daemon.json, and its ``live_restore``.
        """
        before = self.image(path)
        if content is not None and staged is None:
            staged = staged_path(path, self.identifier)
            with self.effect("staged", path=staged):
                files.stage(self._host, staged, content, meta, keep_times)
        with self.effect("file", path=path, before=before, after=digest(content), **fields):
            if content is None:
                files.remove(self._host, path)
            else:
                files.swap(self._host, typing.cast(str, staged), path)


def staged_path(path: str, identifier: str) -> str:
    """Return where the new content of a file waits: beside it, under a name that nobody reads."""
    parent, name = files.split(path)
    return "%s/.%s.bulkhead-%s" % (parent, name, identifier)


def read_image(host: Host, image: Json) -> tuple[bytes, files.Meta]:
    """Return content and metadata of a before-image."""
    try:
        content, _ = files.read(host, image["image"])
    except FileNotFoundError:
        raise HostError("the before-image %s is gone" % image["image"]) from None
    if digest(content) != image["sha256"]:
        raise HostError(
            "the before-image %s was changed by somebody since, or is damaged" % image["image"]
        )
    return content, files.Meta.from_json(image["meta"])


def explicit_reload(content: bytes | None, vanished: typing.Iterable[str]) -> bytes | None:
    """Return a daemon.json that spells out the defaults of keys that are gone; None if none is.

    A reload keeps the value of a key that vanished from the file.
    """
    document = JsonFile(content or b"")
    added = sorted(set(vanished) - set(document.value))
    added = [key for key in added if key in RELOAD_DEFAULTS]
    for key in added:
        document.set(key, RELOAD_DEFAULTS[key])
    return document.render() if added else None


def loaded_content(host: Host, path: str) -> bytes | None:
    """Return the content of daemon.json, or None when there is none to prove anything of."""
    try:
        return files.read(host, path)[0]
    except (FileNotFoundError, HostError):
        return None


def proof(content: bytes | None, identity: Identity) -> Json:
    """Return the ledger's record that a run of the daemon has read this content whole.

    :param content: None: there is no file, and the daemon knows that.
    """
    sha256 = digest(content) or ledger_module.NO_CONFIG
    return {"sha256": sha256, "pid": identity.pid, "start_ticks": identity.start_ticks}


class Undo:
    """Undo a transaction from its journal. Used after a failure, and after a crash.

    :param timeout: seconds in which the daemon must answer after a restart.
    :param history: restarts of the transaction that is undone; unknown after a crash.
    """

    def __init__(
        self,
        host: Host,
        identifier: str,
        timeout: float,
        history: typing.Sequence[Restart] = (),
    ) -> None:
        self._host = host
        self._records = ledger_module.read_journal(host, identifier)
        if not self._records or self._records[0].get("record") != "begin":
            raise HostError("the journal of %s is damaged" % identifier)
        self.begin = self._records[0]
        socket, config = self.begin["daemon"].get("socket"), self.begin["config"]
        self.daemon = Daemon(host, socket, timeout, config)
        self.daemon.history.extend(history)
        self._accounts = Accounts(host)
        self._journal = Journal(host, identifier)
        self._identifier = identifier
        #: what was left alone, for the report
        self.notes: list[str] = []
        self._errors: list[str] = []

    def run(self) -> None:
        """Put everything back.

        :raises HostError: something could not be put back; the transaction then stays open, so
            that the next one tries again.
        """
        self._run(
            self._directories_back,
            self._names_back,
            self._modes,
            self._staged,
            self._files,
            self._profiles,
            self._selinux,
            self._units,
            self._services,
            self._audit_rules,
            self._sysctls,
            self._daemon,
            self._labels,
            self._ports,
            self._witness,
            self._subids,
            self._names,
            self._directories_away,
            self._config_directory,
            self._proof,
        )

    def run_early(self) -> None:
        """Put files back before anything reads them: at boot, while nothing of Docker runs.

        :raises HostError: some could not be put back.
        """
        self._run(self._staged, self._files, self._files_back)

    def _run(self, *phases: typing.Callable[[], None]) -> None:
        try:
            for phase in phases:
                self._attempt(phase)
        finally:
            self._journal.close()
        if self._errors:
            raise HostError("; ".join(self._errors))

    def close(self, reason: str) -> None:
        """Note that everything is as before."""
        journal = Journal(self._host, self._identifier)
        journal.write({"record": "rolled_back", "reason": reason})
        journal.close()

    def _attempt(self, action: typing.Callable[..., None], *arguments: typing.Any) -> None:
        try:
            action(*arguments)
        # Whatever it is: the other things must still be put back.
        except Exception as exc:
            self._errors.append(str(exc) or type(exc).__name__)

    def _effects(self, kind: str) -> list[Json]:
        """Return the effects of a kind, the last one first."""
        found = [
            record
            for record in self._records
            if record.get("record") == "effect" and record.get("kind") == kind
        ]
        return found[::-1]

    # -- kinds of effects ----------------------------------------------------------------------
    def _directories_back(self) -> None:
        for effect in self._effects("directory_removed"):
            if files.status(self._host, effect["path"]) is None:
                files.make_directory(self._host, effect["path"], effect["mode"])
                files.set_mode(
                    self._host, effect["path"], effect["mode"], effect["uid"], effect["gid"]
                )

    def _directories_away(self) -> None:
        for effect in self._effects("directory"):
            if not files.remove_directory(self._host, effect["path"]):
                self.notes.append("%s stays: it is not empty" % effect["path"])

    def _config_directory(self) -> None:
        """Give daemon.json's directory its time back, by which a look sees whether a file went."""
        before = self.begin.get("config_directory")
        path = files.split(self.begin["config"])[0]
        if before and files.status(self._host, path):
            with files.directory(self._host, path) as opened:
                st = os.fstat(opened)
                os.utime(opened, ns=(st.st_atime_ns, before["mtime_ns"]))

    def _modes(self) -> None:
        for effect in self._effects("mode"):
            self._attempt(self._mode, effect)

    def _mode(self, effect: Json) -> None:
        st = files.status(self._host, effect["path"])
        if st is None:
            return
        now = {"mode": stat_module.S_IMODE(st.st_mode), "uid": st.st_uid, "gid": st.st_gid}
        before = effect["before"]
        if now == before:
            return
        # Between owner and mode there is a moment in which neither is as before or after.
        if now["mode"] not in (before["mode"], effect["after"]["mode"]):
            self.notes.append("%s was changed by somebody else, and is left alone" % effect["path"])
            return
        files.set_mode(self._host, effect["path"], before["mode"], before["uid"], before["gid"])

    def _staged(self) -> None:
        for effect in self._effects("staged"):
            files.remove(self._host, effect["path"])

    def _files(self) -> None:
        done = {self.begin["config"]}  # its turn comes with the daemon
        for effect in self._effects("file"):
            if effect["path"] not in done:
                done.add(effect["path"])
                self._attempt(self._restore, effect["path"])

    def _restore(self, path: str) -> None:
        before, known = self._history(path)
        if not self._ours(path, known):
            return
        if before is None:
            files.remove(self._host, path)
            return
        content, meta = read_image(self._host, before)
        self._write_back(path, content, meta)

    def _write_back(self, path: str, content: bytes, meta: files.Meta) -> None:
        with contextlib.suppress(FileNotFoundError):
            now, now_meta = files.read(self._host, path)
            if (now, now_meta._replace(atime_ns=0)) == (content, meta._replace(atime_ns=0)):
                return
        # A power loss may have taken the directory's entry, never the directory that was there.
        staged = staged_path(path, self._identifier)
        files.stage(self._host, staged, content, meta, keep_times=True)
        files.swap(self._host, staged, path)

    def _history(self, path: str) -> tuple[Json | None, set[str | None]]:
        """Return the first before-image of a file, and every content that it had since."""
        effects = [effect for effect in self._effects("file") if effect["path"] == path]
        before = effects[-1]["before"]
        known = {effect["after"] for effect in effects}
        known.add(before["sha256"] if before else None)
        return before, known

    def _ours(self, path: str, known: set[str | None]) -> bool:
        """Tell whether a file holds what this transaction wrote; otherwise it is left alone."""
        try:
            content, _ = files.read(self._host, path)
        except FileNotFoundError:
            return True
        except HostError as exc:
            self.notes.append("%s, and is left alone" % exc)
            return False
        if digest(content) in known:
            return True
        self.notes.append("%s was changed by somebody else, and is left alone" % path)
        return False

    def _profiles(self) -> None:
        """Let the kernel hold the profiles of before, whose files are back by now."""
        found = {effect["profile"]: effect for effect in self._effects("apparmor")}
        for name, effect in found.items():  # the first one of each
            self._attempt(self._profile, name, effect)

    def _profile(self, name: str, effect: Json) -> None:
        image = effect["before"]
        compiled = image["image"] if image else None
        note = apparmor.follow(self._host, name, compiled, unloaded=not effect["loaded"])
        if note:
            self.notes.append(note)

    def _selinux(self) -> None:
        """Give the policy back what it had."""
        self._put_back(*selinux.POLICY_EFFECTS)

    def _labels(self) -> None:
        """Label by the lines and modules of before, once the daemon has left a data root of after."""
        self._put_back(selinux.RELABEL)

    def _put_back(self, *kinds: str) -> None:
        directory = "%s/%s" % (transaction_path(self._identifier), ledger_module.IMAGES_NAME)
        for kind in kinds:
            for effect in self._effects(kind):
                self._attempt(selinux.put_back, self._host, effect, directory)

    def _units(self) -> None:
        if self._effects("units"):
            self.daemon.read_units()

    def _services(self) -> None:
        """Let services run with the files of before, or not at all; the first state of each counts."""
        found = {effect["name"]: effect["before"] for effect in self._effects("service")}
        for name, before in found.items():
            note = services.put_back(self._host, name, before)
            self.notes += filter(None, [note])

    def _audit_rules(self) -> None:
        for effect in self._effects("audit_rules"):
            self.notes += audit_kernel.put_back(self._host, effect)

    def _sysctls(self) -> None:
        for effect in self._effects("sysctl"):
            self._attempt(self._sysctl, effect)

    def _sysctl(self, effect: Json) -> None:
        note = sysctls.put_back(self._host, effect["name"], effect["before"], effect["after"])
        if note:
            self.notes.append(note)

    def _ports(self) -> None:
        """Remove what a restart that did not end well left; see published_ports."""
        if any(effect["action"] == "restart" for effect in self._effects("daemon")):
            self.daemon.release_ports()

    def _witness(self) -> None:
        for effect in self._effects("witness"):
            health.remove_witness(self.daemon.api, effect["id"])

    def _subids(self) -> None:
        for effect in self._effects("subids"):
            self._accounts.remove_ranges(effect["user"], effect["subuid"], effect["subgid"])
            for path in SUBID_FILES:
                self._subid_file(path, effect["before"][path])

    def _subid_file(self, path: str, before: Json | None) -> None:
        """Give a file its bytes of before, unless there are other ranges in it by now."""
        if before is None:
            if not self._accounts.ranges(path):
                files.remove(self._host, path)
            return
        content, meta = read_image(self._host, before)
        if self._accounts.ranges(path) == self._accounts.parse_ranges(content):
            self._write_back(path, content, meta)

    def _names_back(self) -> None:
        """Create again what was removed, with the ids of before, for a daemon that needs it."""
        for effect in self._effects("group_removed"):
            self._accounts.add_group(effect["name"], effect["gid"])
        for effect in self._effects("user_removed"):
            self._accounts.add_group(effect["group"], effect["gid"])
            self._accounts.add_user(effect["name"], effect["group"], effect["uid"])
        for effect in self._effects("subids_removed"):
            self._accounts.add_ranges(effect["user"], effect["subuid"], effect["subgid"])
            for path in SUBID_FILES:
                self._subid_file(path, effect["before"][path])

    def _names(self) -> None:
        for effect in self._effects("user"):
            self._accounts.remove_user(effect["name"])
        for effect in self._effects("group"):
            self._accounts.remove_group(effect["name"])

    # -- the daemon ----------------------------------------------------------------------------
    def _daemon(self) -> None:
        """Put daemon.json back, and make the daemon run with it as it did before.

        Four cases: it began after a boot with the files of before; it still is the run of before and
        read nothing new; it is, but a reload told it something; it was restarted since, or it died.
        """
        touched = self._config_touched()
        actions = [effect["action"] for effect in self._effects("daemon")]
        if not touched and not actions:
            return
        if touched:
            known = self._history(self.begin["config"])[1]
            if not self._ours(self.begin["config"], known):
                touched = False
        was = self.begin["daemon"]
        if was["state"] != "running" or self._began_as_before():
            self._config_back(touched)
            return
        now = self.daemon.identity()
        if now != Identity(was["pid"], was["start_ticks"]):
            self._restart(touched)
        elif "reload" in actions:
            self._reload(touched)
        else:
            self._config_back(touched)

    def _files_back(self) -> None:
        """Put daemon.json back, and note that no daemon has read what this transaction wrote."""
        if not self._errors and self.daemon.identity() is None:
            self._config_back(self._config_touched())
            self._journal.write({"record": "files_back"})

    def _config_touched(self) -> bool:
        return any(effect["path"] == self.begin["config"] for effect in self._effects("file"))

    def _began_as_before(self) -> bool:
        """Tell whether the daemon began after the files were put back early at boot.

        Not with units of ours: systemd had read those by then.
        """
        early = any(record.get("record") == "files_back" for record in self._records)
        return early and not self._effects("units")

    def _old_config(self) -> bytes | None:
        path = self.begin["config"]
        effects = [effect for effect in self._effects("file") if effect["path"] == path]
        if not effects:
            with contextlib.suppress(FileNotFoundError, HostError):
                return files.read(self._host, path)[0]
            return None
        before = effects[-1]["before"]
        return read_image(self._host, before)[0] if before else None

    def _config_back(self, touched: bool) -> None:
        if touched:
            self._restore(self.begin["config"])

    def _write_config(self, content: bytes) -> None:
        meta = files.Meta(mode=0o644, uid=0, gid=0, mtime_ns=0, atime_ns=0, xattrs={})
        with contextlib.suppress(FileNotFoundError):
            meta = files.read(self._host, self.begin["config"])[1]
        self._journal.replace(self.begin["config"], content, meta)
        # The rest of this undo must know that content as its own.
        self._records = ledger_module.read_journal(self._host, self._identifier)

    def _restart(self, touched: bool) -> None:
        """Restart with the old file.

        A daemon that starts without live-restore ends the containers that outlived its
        predecessor (daemon/daemon.go, restore). So where they did, it starts with live-restore, and
        a reload takes it away again.
        """
        old = self._old_config()
        kept = any(effect.get("live_restore") for effect in self._effects("file"))
        before = JsonFile(old or b"").value.get("live-restore")
        if touched and kept and before is not True and not self.begin.get("live_restore"):
            bridge = JsonFile(old or b"")
            bridge.set("live-restore", True)
            self._write_config(bridge.render())
            self.daemon.restart()
            self._reload(touched, {"live-restore"})
            return
        self._config_back(touched)
        if before is True and self.daemon.keeps_containers() is False:
            # This transaction took live-restore away already.
            with contextlib.suppress(HostError):
                self.daemon.reload(True)
        self.daemon.restart()

    def _reload(self, touched: bool, vanished: set[str] | None = None) -> None:
        old = self._old_config()
        if vanished is None:
            vanished = set()
            for effect in self._effects("file"):
                vanished |= set(effect.get("keys") or ())
        explicit = explicit_reload(old, vanished) if touched else None
        if explicit is None:
            self._config_back(touched)
            self.daemon.reload()
            return
        self._write_config(explicit)
        self.daemon.reload(JsonFile(explicit).value.get("live-restore"))
        self._config_back(touched)

    def _proof(self) -> None:
        """Note that the daemon knows the file that was put back, which is a new one by its time."""
        was = self.begin["daemon"]
        if was["state"] != "running" or not self.begin.get("config_loaded"):
            return
        now, content = self.daemon.identity(), loaded_content(self._host, self.begin["config"])
        if now is None or content is None or self.notes:
            return
        if now != Identity(was["pid"], was["start_ticks"]) and not self.daemon.restarts:
            return
        ledger, state, _ = ledger_module.read_ledger(self._host)
        if state in ("ok", "absent"):
            ledger = dict(ledger or ledger_module.empty_ledger(), loaded=proof(content, now))
            write_ledger(self._host, ledger)


def ledger_content(ledger: Json) -> bytes:
    """Return the ledger as its file holds it."""
    return (json.dumps(ledger, indent=1, sort_keys=True) + "\n").encode("ascii")


def write_ledger(host: Host, ledger: Json) -> None:
    """Replace the ledger as a whole."""
    files.place(host, ledger_module.LEDGER, ledger_content(ledger), files.PRIVATE)
