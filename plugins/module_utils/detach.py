# Copyright: (c) 2026, the Bulkhead authors
# Apache License 2.0 (see LICENSE)
"""Run a request in a transient unit, so that it ends well without connection and controller.

The unit runs an archive of this very code, in ``/var/lib/bulkhead/runner``, named after its
content: a transaction that one release began is undone by the same release, whatever the next
controller brings along. Should the unit's process be killed, systemd starts the undo at once.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import io
import marshal
import os
import select
import struct
import sys
import typing
import zipfile

from ansible_collections.bulkhead.hardening.plugins.module_utils import (
    ledger as ledger_module,
    runner,
    transaction,
    transaction_files as files,
    transaction_undo,
)
from ansible_collections.bulkhead.hardening.plugins.module_utils.host import Host, HostError
from ansible_collections.bulkhead.hardening.plugins.module_utils.runs import (
    Run,
    collect,
    make_private_directory,
    make_state_directories,
    new_id,
)

Json = dict[str, typing.Any]

DIRECTORY = ledger_module.STATE_DIRECTORY + "/runner"

#: Seconds after which the module stops waiting for the unit. The unit goes on.
_PATIENCE = 3600.0
#: Seconds within which a unit that was killed must have undone its work.
_AFTERMATH = 900.0

_PACKAGE = __name__.rpartition(".")[0]

# Nothing is imported where there is nothing to do: it runs after every transaction.
_MAIN = """\
import os, sys
if sys.argv[1:2] != ["recover"] or os.environ.get("SERVICE_RESULT") != "success":
    from %(package)s.host import Host
    from %(package)s.runner import main
    sys.exit(main(Host(), sys.argv[0], sys.executable, sys.argv[1:]))
"""


def perform(host: Host, request: Json) -> Json:
    """Do what a request asks for, detached where systemd runs the host; see runner.perform.

    :returns: that answer, and in ``earlier`` what became of runs whose controller died.
    """
    # A purge takes away what a unit would run from, and is as well finished by the next one.
    here = request.get("check_mode") or request["action"] == "purge"
    if here or not host.lstat("/run/systemd/system"):
        return runner.perform(host, request)
    try:
        if os.geteuid() != 0:
            raise HostError("only root can do this; set become: true")
        _refuse_early(host, request)
    except HostError as exc:
        return transaction.refusal("precheck", str(exc))
    run = Run(host, new_id(host.now()))
    try:
        make_state_directories(host)
        run.ask(request)
        archive = install(host)
    except (HostError, OSError) as exc:
        with contextlib.suppress(HostError, OSError):
            run.forget()
        return transaction.refusal("lock", transaction.reason_of(exc))
    with run.held():
        try:
            answer = _attend(host, run, archive)
        except (HostError, OSError) as exc:
            return transaction.refusal("unit", transaction.reason_of(exc), run.identifier)
        if not is_heard():
            return dict(answer, earlier=[])
        run.forget()
    _forget_old_archives(host, archive)
    return dict(answer, earlier=collect(host))


def is_heard(descriptor: int = 1) -> bool:
    """Tell whether somebody still reads what this process prints.

    The SSH server closes the pipe of a command whose client is gone. Then the answer stays on the host, for
    the next run to collect.
    """
    output = select.poll()
    output.register(descriptor, 0)  # errors and a hang-up are reported in any case
    return not output.poll(0)


def _refuse_early(host: Host, request: Json) -> None:
    """Refuse what must not even leave a request on the host."""
    if request["action"] == "undo":
        transaction_undo.find_early(host, str(request["undo"]))
    problem = ledger_module.problem(host)
    if problem is not None:
        raise HostError(problem)


def _attend(host: Host, run: Run, archive: str) -> Json:
    """Start the unit and wait for its answer."""
    unit = "bulkhead-%s.service" % run.identifier
    python = sys.executable or "/usr/bin/python3"
    command = [python, "-I", archive]
    # A oneshot's start ends with its process, so no bus but systemd's own socket is needed.
    done = host.run(
        [
            "systemd-run", "--quiet", "--collect", "--unit=" + unit,
            "--description=Bulkhead: change Docker's settings as one transaction",
            "--property=Type=oneshot",
            "--property=TimeoutStopSec=%d" % _AFTERMATH,
            "--property=ExecStopPost=" + " ".join([*command, "recover", run.identifier]),
            *command, "run", run.identifier,
        ],
        timeout=_PATIENCE,
    )  # fmt: skip
    answer = run.answer()
    started = host.monotonic()
    while answer is None and host.monotonic() - started < _AFTERMATH:
        state = host.run(["systemctl", "show", unit, "--property=ActiveState"]).out.strip()
        if state in ("ActiveState=inactive", "ActiveState=failed"):
            break
        host.sleep(0.5)
    answer = answer or run.answer()
    if answer is None:
        raise HostError(
            "the unit %s gave no answer (systemd-run: %s); journalctl --unit=%s tells why, and the "
            "next run says what became of it" % (unit, done.err.strip() or done.rc, unit)
        )
    return answer


# -- the archive -----------------------------------------------------------------------------------
def install(host: Host) -> str:
    """Put the archive of this code in place, if it is not there; return its path.

    :raises HostError: its directory is not root's alone.
    """
    sources = _sources()
    make_private_directory(host, DIRECTORY)
    name = hashlib.sha256(
        repr([sys.implementation.cache_tag, sorted(sources.items())]).encode("utf-8")
    ).hexdigest()
    path = "%s/%s.pyz" % (DIRECTORY, name[:32])
    if files.status(host, path) is None:
        files.place(host, path, _archive(sources), files.PRIVATE)
    return path


def _sources() -> dict[str, str]:
    """Return the source of each module of ours that is loaded, by its name in an archive.

    Ansible brings just those that the door to act imports.
    """
    found = {"__main__.py": _MAIN % {"package": _PACKAGE}}
    for name, module in sorted(sys.modules.items()):
        if not name.startswith(_PACKAGE + "."):
            continue
        get_source = getattr(module.__loader__, "get_source", None)
        source = get_source(name) if get_source else None
        if source is None:
            raise HostError("the source of %s is not at hand" % name)
        found[name.replace(".", "/") + ".py"] = source
    parts = _PACKAGE.split(".")
    for depth in range(1, len(parts) + 1):
        found["/".join(parts[:depth]) + "/__init__.py"] = ""
    return found


def _archive(sources: dict[str, str]) -> bytes:
    """Return a zip archive that Python can run, compiled for this version of it."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, source in sorted(sources.items()):
            data = source.encode("utf-8")
            entry = zipfile.ZipInfo(name)  # of 1980: zipimport compares this time to the .pyc's
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, data)
            code = compile(source, name, "exec", dont_inherit=True, optimize=0)
            # Checked by the hash of its source, never: PEP 552, flags 0b01.
            head = importlib.util.MAGIC_NUMBER + struct.pack("<I", 1)
            head += importlib.util.source_hash(data)
            entry = zipfile.ZipInfo(name + "c")
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, head + marshal.dumps(code))
    return stream.getvalue()


def _forget_old_archives(host: Host, current: str) -> None:
    """Remove the archives of other releases, unless a transaction is open that may need one."""
    if ledger_module.open_transaction(host) is not None:
        return
    with contextlib.suppress(OSError, HostError):
        for name in host.listdir(DIRECTORY):
            if name != os.path.basename(current):
                files.remove(host, DIRECTORY + "/" + name)
